//! Frames of sound in which there is nothing to hear, to stand where a stream's own are missing.

use bytes::Bytes;

use crate::aac::{self, AudioConfig};
use crate::bits::BitWriter;
use crate::sound_clock::{Length, Samples};
use crate::{Codec, Track};

/// Syntactic elements of AAC (ISO/IEC 14496-3 table 4.85).
const SCE: u32 = 0;
const CPE: u32 = 1;
const LFE: u32 = 3;
const END: u32 = 7;

/// Opus' frame of 20 ms of all frequencies (RFC 6716 §3.1), for one channel and for two.
const OPUS: [u8; 2] = [31 << 3, 31 << 3 | 1 << 2];
/// What says that such a frame is silent: the one symbol of §4.3 that comes first, and is as unlikely as 1 in 32768.
const OPUS_SILENCE: [u8; 2] = [0xff, 0xfe];

/// Silence for the decoder of one track.
#[derive(Clone, Debug)]
pub struct Silence {
    frame: Bytes,
    samples: Samples,
    length: Length,
}

impl Silence {
    /// `None`: the codec is one for which no silence can be made here, or has channels that its configuration does not
    /// name.
    pub fn of(track: &Track) -> Option<Self> {
        let frame = match track.codec {
            Codec::Aac => aac(&AudioConfig::parse(&track.config).ok()?)?,
            Codec::Opus => {
                let toc = *OPUS.get(usize::from(track.audio.channels.checked_sub(1)?))?;
                [[toc].as_slice(), &OPUS_SILENCE].concat()
            }
            _ => return None,
        };
        let length = Length::of(track)?;
        let samples = length.samples(&frame)?;
        Some(Self { frame: frame.into(), samples, length })
    }

    /// A frame of it.
    pub const fn frame(&self) -> &Bytes {
        &self.frame
    }

    /// How long that is.
    pub const fn samples(&self) -> Samples {
        self.samples
    }

    /// How many samples a frame of the track has, at the rate of [`samples`](Self::samples).
    pub fn samples_in(&self, frame: &[u8]) -> u32 {
        self.length.samples(frame).map_or(self.samples.count, |samples| samples.count)
    }
}

/// A `raw_data_block` (ISO/IEC 14496-3 §4.4.2.1) whose channels have no spectral bands.
fn aac(config: &AudioConfig) -> Option<Vec<u8>> {
    if config.object_type != aac::LC {
        return None;
    }
    // Table 1.19.
    let elements: &[u32] = match config.channel_config {
        1 => &[SCE],
        2 => &[CPE],
        3 => &[SCE, CPE],
        4 => &[SCE, CPE, SCE],
        5 => &[SCE, CPE, CPE],
        6 => &[SCE, CPE, CPE, LFE],
        7 => &[SCE, CPE, CPE, CPE, LFE],
        _ => return None,
    };
    let mut bits = BitWriter::default();
    for (at, element) in elements.iter().enumerate() {
        bits.bits(3, *element);
        // element_instance_tag: counts those of a kind.
        let before = elements.iter().take(at).filter(|before| *before == element).count();
        bits.bits(4, u32::try_from(before).ok()?);
        if *element == CPE {
            // common_window
            bits.bits(1, 0);
        }
        for _ in 0..if *element == CPE { 2 } else { 1 } {
            // global_gain; ics_info of a long window with max_sfb 0; no pulse, no TNS, no gain control.
            bits.bits(8, 0);
            bits.bits(11, 0);
            bits.bits(3, 0);
        }
    }
    bits.bits(3, END);
    Some(bits.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::opus::OpusHead;

    fn of_aac(config: AudioConfig) -> Option<Silence> {
        Silence::of(&Track::aac(config.build().unwrap()).unwrap())
    }

    const LC: AudioConfig = AudioConfig {
        object_type: aac::LC,
        sample_rate: 48_000,
        channel_config: 2,
        program_channels: 0,
        short_frames: false,
        extension: None,
    };

    #[test]
    fn a_frame_is_as_long_as_the_tracks_own() {
        let length = |config| of_aac(config).unwrap().samples;
        assert_eq!((length(LC).count, length(LC).rate.get()), (1024, 48_000));
        assert_eq!(length(AudioConfig { short_frames: true, ..LC }).count, 960);
        let doubled = aac::Extension { sample_rate: 48_000, ps: false, hierarchical: true };
        let doubled = AudioConfig { sample_rate: 24_000, extension: Some(doubled), ..LC };
        assert_eq!((length(doubled).count, length(doubled).rate.get()), (2048, 48_000));
    }

    #[test]
    fn an_element_stands_for_each_of_the_channels() {
        let mono = of_aac(AudioConfig { channel_config: 1, ..LC }).unwrap().frame;
        // 29 bits of zeros, and the end.
        assert_eq!(mono[..], [0, 0, 0, 7]);
        let bytes =
            (1..=7).map(|channel_config| of_aac(AudioConfig { channel_config, ..LC }).unwrap().frame.len());
        assert_eq!(bytes.collect::<Vec<_>>(), [4, 7, 11, 15, 17, 21, 28]);
    }

    #[test]
    fn what_has_no_known_silence_has_none() {
        assert!(of_aac(AudioConfig { object_type: 1, ..LC }).is_none());
        assert!(of_aac(AudioConfig { object_type: 23, ..LC }).is_none());
    }

    #[test]
    fn opus_has_one_for_each_count_of_channels() {
        for channels in [1, 2] {
            let mapping = Bytes::new();
            let head = OpusHead { channels, pre_skip: 312, input_rate: 48_000, gain: 0, family: 0, mapping };
            let Silence { frame, samples, .. } =
                Silence::of(&Track::opus(Some(head.build())).unwrap()).unwrap();
            assert_eq!((samples.count, samples.rate.get()), (960, 48_000));
            assert_eq!(frame[0] >> 2 & 1, channels - 1);
        }
    }
}
