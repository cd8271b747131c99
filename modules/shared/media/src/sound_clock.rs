//! The cadence of sound: where its frames lie on the sample grid of their codec.
//!
//! Containers with coarse times (RTMP's milliseconds) and senders that stamp by their wall clock say only roughly when
//! a frame of sound is due. The codec says exactly how many samples it holds. So frames follow each other by their
//! samples, and the source's times only decide where the row begins, and whether something is missing.

use std::num::NonZeroU32;

use crate::aac::AudioConfig;
use crate::mpeg_audio::Header;
use crate::{Codec, Timestamp, Track, opus};

/// Samples in one frame, and the rate at which they are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Samples {
    /// How many samples of each channel come out of the decoder.
    pub count: u32,
    /// Samples a second.
    pub rate: NonZeroU32,
}

/// No sound is coded at a lower rate, whatever a configuration says.
const LEAST_RATE: u32 = 4000;

/// Where a codec says how long its frames are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    /// All frames are alike.
    Fixed(Samples),
    /// In the first byte of each packet (RFC 6716 §3.1).
    Opus,
    /// So many bytes hold so many samples of all channels (RFC 3551 §4.5).
    Bytes { bytes: u32, samples: u32, rate: NonZeroU32 },
    /// In the header of each frame (ISO/IEC 11172-3 §2.4.2.3).
    MpegAudio,
    /// In the header of each frame (ETSI TS 102 366 §4.4.1).
    Ac3,
}

impl Length {
    /// `None`: the codec does not say, or not here.
    pub(crate) fn of(track: &Track) -> Option<Self> {
        match track.codec {
            Codec::Aac => aac(&AudioConfig::parse(&track.config).ok()?).map(Self::Fixed),
            Codec::Opus => Some(Self::Opus),
            Codec::Mp3 => Some(Self::MpegAudio),
            Codec::Ac3 => Some(Self::Ac3),
            Codec::PcmA | Codec::PcmU | Codec::G722 | Codec::L16 => {
                let channels = u32::from(track.audio.channels.max(1));
                let (bytes, samples, usual) = match track.codec {
                    Codec::G722 => (channels, 2, 16_000),
                    Codec::L16 => (2 * channels, 1, 44_100),
                    _ => (channels, 1, 8000),
                };
                let rate = NonZeroU32::new(track.audio.sample_rate).or(NonZeroU32::new(usual))?;
                Some(Self::Bytes { bytes, samples, rate })
            }
            _ => None,
        }
    }

    /// The rate at which all frames of the track are counted, where no frame has to be asked.
    pub(crate) fn rate(self) -> Option<NonZeroU32> {
        match self {
            Self::Fixed(samples) => Some(samples.rate),
            Self::Opus => NonZeroU32::new(opus::SAMPLE_RATE),
            Self::Bytes { rate, .. } => Some(rate),
            Self::MpegAudio | Self::Ac3 => None,
        }
    }

    pub(crate) fn samples(self, frame: &[u8]) -> Option<Samples> {
        match self {
            Self::Fixed(samples) => Some(samples),
            Self::Opus => opus_samples(frame),
            Self::Bytes { bytes, samples, rate } => {
                let whole = u32::try_from(frame.len()).ok()? / bytes;
                Some(Samples { count: whole.checked_mul(samples)?, rate })
            }
            Self::MpegAudio => mpeg_audio(frame),
            Self::Ac3 => ac3(frame),
        }
        .filter(|samples| samples.count > 0 && samples.rate.get() >= LEAST_RATE)
    }
}

/// 1024 or 960 samples of the core coder, 512 or 480 with low delay; twice that with SBR at twice the rate.
fn aac(config: &AudioConfig) -> Option<Samples> {
    let core = match config.object_type {
        1..=4 => config.frame_samples(),
        23 => config.frame_samples() / 2,
        _ => return None,
    };
    let out = config.output_rate();
    let count = u64::from(core) * u64::from(out) / u64::from(NonZeroU32::new(config.sample_rate)?.get());
    Some(Samples { count: u32::try_from(count).ok()?, rate: NonZeroU32::new(out)? })
}

/// RFC 6716 §3.1: the table of contents byte says how long a frame is, and how many there are; 120 ms at most.
fn opus_samples(packet: &[u8]) -> Option<Samples> {
    let toc = *packet.first()?;
    let size = u32::from(toc >> 3 & 3);
    let frame = match toc >> 3 {
        // SILK: 10, 20, 40, 60 ms.
        0..=11 => [480, 960, 1920, 2880].get(size as usize).copied()?,
        // Hybrid: 10, 20 ms.
        12..=15 => 480 << (size & 1),
        // CELT: 2.5, 5, 10, 20 ms.
        _ => 120 << size,
    };
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(packet.get(1)? & 0x3f),
    };
    let count = frame * frames;
    (count <= 5760).then_some(Samples { count, rate: NonZeroU32::new(opus::SAMPLE_RATE)? })
}

fn mpeg_audio(frame: &[u8]) -> Option<Samples> {
    let Header { samples, sample_rate, .. } = Header::parse(frame)?;
    Some(Samples { count: samples, rate: sample_rate })
}

fn ac3(frame: &[u8]) -> Option<Samples> {
    let [0x0b, 0x77, _, _, fifth, ..] = *frame else { return None };
    let rate = *[48_000, 44_100, 32_000].get(usize::from(fifth >> 6))?;
    Some(Samples { count: 1536, rate: NonZeroU32::new(rate)? })
}

/// Puts the frames of one track of sound where their samples say.
///
/// The grid is that of whole samples since the stream's time zero. While the source's times agree with it, within a
/// frame less the millisecond that containers round by, each frame follows the one before it exactly. Otherwise the
/// row begins anew: where frames are missing, as many frames further on; else at the sample that is nearest to the
/// source's time. A source that never agrees (its rate is not what its configuration says) is left as it is, until so many
/// of its frames would have agreed after all that it was a burst of loss.
#[derive(Clone, Debug, Default)]
pub struct SoundClock {
    length: Option<Length>,
    grid: Option<Grid>,
    /// The last frame's time: the next is later, whatever happens.
    last: Option<Timestamp>,
    last_samples: Option<Samples>,
    reanchored: u64,
    distrust: u32,
    /// Frames that would have agreed since the codec's word was last taken.
    agreed: u32,
}

/// The next frame is due at this sample.
#[derive(Clone, Copy, Debug)]
struct Grid {
    rate: NonZeroU32,
    next: i64,
}

/// What a stamp costs that the samples do not explain, what a hole of whole frames, and where the codec's word is no longer
/// taken. A frame that agrees is worth one.
const DOUBT: u32 = 8;
const HOLE: u32 = 2;
const DISTRUST: u32 = 40;
/// After so many frames that would have agreed it is taken again: about 10 s.
const AGREED: u32 = 500;

/// How a stamp and the grid go together: the sample at which the frame belongs.
enum Fit {
    Agrees(i64),
    /// Whole frames are missing before it.
    Hole(i64),
    Differs,
}

impl SoundClock {
    /// A track begins, or another one takes its place: the row begins anew.
    pub fn set_track(&mut self, track: &Track) {
        self.length = Length::of(track);
        self.distrust = 0;
        self.agreed = 0;
        self.restart();
    }

    /// The timeline was re-based: the row begins at the next frame.
    pub const fn restart(&mut self) {
        self.grid = None;
    }

    /// How often source and grid disagreed.
    pub const fn reanchored(&self) -> u64 {
        self.reanchored
    }

    /// The length of the last frame; `None` while the codec does not say.
    pub const fn samples(&self) -> Option<Samples> {
        self.last_samples
    }

    /// Where a frame belongs that the source puts at `stamp`. Strictly later than the one before it.
    pub fn place(&mut self, stamp: Timestamp, frame: &[u8]) -> Timestamp {
        self.last_samples = self.length.and_then(|length| length.samples(frame));
        let samples = self.last_samples;
        if samples.is_none() {
            self.grid = None;
        }
        let time = match samples.filter(|samples| self.is_trusted(stamp, *samples)) {
            Some(samples) => self.on_grid(stamp, samples),
            None => {
                // A tick at 90 kHz at least.
                self.last.map_or(stamp, |last| stamp.max(last.moved(11_112)))
            }
        };
        self.last = Some(time);
        time
    }

    /// Whether the codec's word is taken. Where it is not, the grid runs on beside the source's times, to see whether they
    /// agree again.
    fn is_trusted(&mut self, stamp: Timestamp, samples: Samples) -> bool {
        if self.distrust < DISTRUST {
            return true;
        }
        let Samples { count, rate } = samples;
        let stamped = stamp.ticks(rate);
        let index = match self.fit(stamped, samples) {
            Fit::Agrees(next) => {
                self.agreed += 1;
                next
            }
            Fit::Hole(index) => index,
            Fit::Differs => {
                self.agreed = 0;
                stamped
            }
        };
        self.grid = Some(Grid { rate, next: index.saturating_add(count.into()) });
        if self.agreed < AGREED {
            return false;
        }
        self.agreed = 0;
        self.distrust = DISTRUST - DOUBT;
        self.grid = None;
        true
    }

    fn fit(&self, stamped: i64, Samples { count, rate }: Samples) -> Fit {
        let Some(Grid { next, .. }) = self.grid.filter(|grid| grid.rate == rate) else { return Fit::Differs };
        let (count, milli) = (i64::from(count), i64::from(rate.get() / 1000));
        let ahead = stamped.saturating_sub(next);
        // A frame may be as long as a message: more than an eighth of a second is no rounding.
        if ahead.saturating_abs() <= milli.max((count - milli).min(i64::from(rate.get() / 8))) {
            return Fit::Agrees(next);
        }
        let missing = ahead.saturating_add(count / 2) / count;
        let whole = missing.saturating_mul(count);
        if missing > 0 && ahead.saturating_sub(whole).abs() <= milli {
            return Fit::Hole(next.saturating_add(whole));
        }
        Fit::Differs
    }

    fn on_grid(&mut self, stamp: Timestamp, samples: Samples) -> Timestamp {
        let Samples { count, rate } = samples;
        let (count, stamped) = (i64::from(count), stamp.ticks(rate));
        let index = match self.fit(stamped, samples) {
            Fit::Agrees(next) => {
                self.distrust = self.distrust.saturating_sub(1);
                next
            }
            Fit::Hole(index) => {
                self.reanchored += 1;
                self.distrust += HOLE;
                index
            }
            Fit::Differs if self.grid.is_none_or(|grid| grid.rate != rate) => stamped,
            Fit::Differs => {
                self.reanchored += 1;
                self.distrust += DOUBT;
                stamped
            }
        };
        // The row goes on from where the frame belongs, wherever it has to stand, or each such frame would move it.
        self.grid = Some(Grid { rate, next: index.saturating_add(count) });
        let index = self.last.map_or(index, |last| {
            // A tick at 90 kHz at least.
            let step = i64::from(rate.get() / 90_000 + 1);
            index.max(last.ticks(rate).saturating_add(step))
        });
        Timestamp::from_ticks(index, rate)
    }
}

#[cfg(test)]
mod tests;
