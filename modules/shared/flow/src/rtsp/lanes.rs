//! The tracks of a stream as RTP carries them from us: numbers and times that outlive changes, and the sender's reports.

use std::time::{Instant, UNIX_EPOCH};

use av_media::{Frame, Kind, Timestamp, Track};
use av_rtsp::Packet;
use av_rtsp::packetize::{Packetizer, Settings, Unfit};
use av_rtsp::rtcp::{SenderReport, WallClock};
use av_rtsp::sdp::{Format, NotCarried};
use rand::Rng;

use super::described::are_read_alike;
use crate::stream::{Anchor, Tracks};

/// See the module's text. At most one track of each kind.
pub(super) struct Lanes {
    mtu: u16,
    /// Chosen once: they outlive publishers and changes.
    chosen: [Chosen; 2],
    lanes: [Option<Lane>; 2],
    clock: Option<Clock>,
    pub(super) anchor: Option<Anchor>,
}

/// What a track keeps whatever its publisher does.
#[derive(Clone, Copy)]
pub(super) struct Chosen {
    pub(super) ssrc: u32,
    first_sequence: u16,
    first_time: u32,
}

impl Chosen {
    fn random() -> Self {
        let mut random = rand::rng();
        Self {
            ssrc: random.random_range(1..=u32::MAX),
            first_sequence: random.random(),
            // Stream time is near zero at first: a player that takes 0 for nothing never sees it.
            first_time: random.random_range(1 << 24..1 << 31),
        }
    }
}

/// One track.
pub(super) struct Lane {
    format: Format,
    pub(super) packetizer: Packetizer,
    packets: u32,
    octets: u32,
    /// Of the last frame, and from the one before it to it.
    pub(super) last: Option<(Timestamp, i64)>,
}

/// The newest frame, and when it came.
#[derive(Clone, Copy)]
struct Clock {
    time: Timestamp,
    at: Instant,
}

/// Why a track is on no lane.
#[derive(Debug, thiserror::Error)]
enum NotLaid {
    #[error(transparent)]
    NotCarried(#[from] NotCarried),
    #[error(transparent)]
    Unfit(#[from] Unfit),
}

/// What became of a stream's tracks.
pub(super) struct Laid {
    /// Those that are carried, in the order of their media.
    pub(super) media: Vec<Kind>,
    /// How each is coded.
    pub(super) formats: Vec<Format>,
    /// One can't be described before it is known better.
    pub(super) waits: bool,
    /// What is left out, and why.
    pub(super) dropped: Vec<String>,
}

impl Lanes {
    /// Without tracks.
    pub(super) fn new(mtu: u16) -> Self {
        Self {
            mtu,
            chosen: [Chosen::random(), Chosen::random()],
            lanes: [None, None],
            clock: None,
            anchor: None,
        }
    }

    pub(super) const fn get(&self, kind: Kind) -> Option<&Lane> {
        let [video, audio] = &self.lanes;
        if matches!(kind, Kind::Video) { video.as_ref() } else { audio.as_ref() }
    }

    const fn get_mut(&mut self, kind: Kind) -> &mut Option<Lane> {
        let [video, audio] = &mut self.lanes;
        if matches!(kind, Kind::Video) { video } else { audio }
    }

    pub(super) const fn chosen(&self, kind: Kind) -> Chosen {
        let [video, audio] = self.chosen;
        if matches!(kind, Kind::Video) { video } else { audio }
    }

    /// Whether a frame came so far.
    pub(super) const fn is_running(&self) -> bool {
        self.clock.is_some()
    }

    /// Puts all tracks on their lanes, the *n*-th medium on channels 2*n* and 2*n* + 1.
    pub(super) fn lay(&mut self, tracks: &Tracks) -> Laid {
        let mut laid = Laid { media: Vec::new(), formats: Vec::new(), waits: false, dropped: Vec::new() };
        for kind in [Kind::Video, Kind::Audio] {
            if tracks.get(kind).is_none() {
                self.clear(kind);
            }
        }
        for track in tracks.iter() {
            let channel = u8::try_from(2 * laid.media.len()).unwrap_or(0);
            match self.lay_one(track, channel) {
                Ok(format) => {
                    laid.media.push(track.kind());
                    laid.formats.push(format);
                }
                Err(NotLaid::NotCarried(NotCarried::NoParameterSets)) => laid.waits = true,
                Err(why) => {
                    self.clear(track.kind());
                    laid.dropped.push(format!("{} is left out: {why}", track.kind().as_str()));
                }
            }
        }
        laid
    }

    /// Nothing of that kind is carried any more. If it is again, its numbers go on.
    fn clear(&mut self, kind: Kind) {
        if let Some(lane) = self.get_mut(kind).take() {
            let [video, audio] = &mut self.chosen;
            let chosen = if kind == Kind::Video { video } else { audio };
            chosen.first_sequence = lane.packetizer.next_sequence();
        }
    }

    fn lay_one(&mut self, track: &Track, channel: u8) -> Result<Format, NotLaid> {
        let format = Format::of(track)?;
        let Chosen { ssrc, first_sequence, first_time } = self.chosen(track.kind());
        let (payload_type, mtu) = (format.payload_type, self.mtu);
        let lane = self.get_mut(track.kind());
        if let Some(lane) = lane
            && lane.packetizer.settings().channel == channel
            && lane.format.payload_type == payload_type
        {
            lane.format = format.clone();
            lane.packetizer.set_track(track)?;
            return Ok(format);
        }
        // Numbers go on where the track was carried before.
        let first_sequence = lane.as_ref().map_or(first_sequence, |lane| lane.packetizer.next_sequence());
        let settings = Settings { payload_type, ssrc, first_sequence, first_time, mtu, channel };
        let packetizer = Packetizer::new(track, settings)?;
        *lane = Some(Lane { format: format.clone(), packetizer, packets: 0, octets: 0, last: None });
        Ok(format)
    }

    /// Whether what was described of the tracks so far holds for these.
    pub(super) fn go_on(&self, tracks: &Tracks) -> bool {
        [Kind::Video, Kind::Audio].into_iter().all(|kind| {
            let coming = match tracks.get(kind).map(|track| Format::of(track)) {
                Some(Ok(format)) => Some(format),
                // It will come.
                Some(Err(NotCarried::NoParameterSets)) => return true,
                Some(Err(_)) | None => None,
            };
            match (self.get(kind), coming) {
                (None, None) => true,
                (Some(lane), Some(coming)) => are_read_alike(&lane.format, &coming),
                _ => false,
            }
        })
    }

    /// The packets of the next frame.
    pub(super) fn pack(&mut self, frame: &Frame) -> Vec<Packet> {
        self.clock = Some(Clock { time: frame.dts, at: Instant::now() });
        let mut packets = Vec::new();
        if let Some(lane) = self.get_mut(frame.kind) {
            lane.packetizer.packetize(frame, &mut packets);
            let octets: usize = packets.iter().map(Packet::payload_len).sum();
            // Counters of reports are modulo 2^32.
            lane.packets = lane.packets.wrapping_add(packets.len() as u32);
            lane.octets = lane.octets.wrapping_add(octets as u32);
            let step = lane.last.map_or(0, |(last, _)| frame.pts.nanos_since(last));
            lane.last = Some((frame.pts, step));
        }
        packets
    }

    /// The report of each track. All are of one moment, now, on the one clock that the stream has; none before its first
    /// frame.
    pub(super) fn reports(&self) -> impl Iterator<Item = (Kind, SenderReport)> {
        let now = self.clock.zip(self.anchor).map(|(clock, anchor)| {
            let time = clock.time.saturating_add(clock.at.elapsed());
            // The camera's own clock, where it told: what others recorded by it has to fit.
            let utc = anchor.by_source.unwrap_or(anchor.utc);
            let since = utc.duration_since(UNIX_EPOCH).unwrap_or_default();
            let unix_nanos = i64::try_from(since.as_nanos()).unwrap_or(i64::MAX);
            (time, WallClock { stream: anchor.time, unix_nanos }.at(time))
        });
        [Kind::Video, Kind::Audio].into_iter().filter_map(move |kind| {
            let ((time, ntp), lane) = now.zip(self.get(kind))?;
            let report = SenderReport {
                ssrc: lane.packetizer.settings().ssrc,
                ntp,
                rtp_time: lane.packetizer.rtp_time(time),
                packets: lane.packets,
                octets: lane.octets,
            };
            Some((kind, report))
        })
    }
}
