//! A stream as RTSP's players get it: RTP packets, made once for all of them, and the reports of their sender.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use av_media::{Frame, Kind, Timestamp, Track};
use av_rtsp::Packet;
use av_rtsp::packetize::{Packetizer, Settings};
use av_rtsp::rtcp::{ReportSchedule, SenderReport, WallClock};
use av_rtsp::sdp::{About, Description, Format, NotCarried};
use rand::Rng;

use super::described::{Described, Layout, News};
use super::reports;
use crate::fanout::{PieceWriter, View, Wire};
use crate::stream::{Anchor, Aside, OutputStatus, State, Tracks};
use crate::trouble::{Reason, Trouble};

/// See the module's text.
pub(super) struct Players {
    mtu: u16,
    about: About,
    news: News,
    status: Arc<OutputStatus>,
    /// `flows.NAME.outputs.NAME`.
    path: Arc<str>,
    /// Chosen once: they outlive publishers and changes.
    chosen: [Chosen; 2],
    lanes: [Option<Lane>; 2],
    clock: Option<Clock>,
    anchor: Option<Anchor>,
    /// When reports are sent, and whether they are in the flush that is being made.
    schedule: ReportSchedule,
    /// Since when that counts.
    began: Instant,
    speaking: bool,
    away: bool,
}

/// What a track keeps whatever its publisher does.
#[derive(Clone, Copy)]
struct Chosen {
    ssrc: u32,
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
struct Lane {
    format: Format,
    packetizer: Packetizer,
    packets: u32,
    octets: u32,
    /// Of the last frame, and from the one before it to it.
    last: Option<(Timestamp, i64)>,
}

/// The newest frame, and when it came.
#[derive(Clone, Copy)]
struct Clock {
    time: Timestamp,
    at: Instant,
}

impl Players {
    /// For an output that has no player yet.
    pub(super) fn new(mtu: u16, name: &str, news: News, status: Arc<OutputStatus>, path: Arc<str>) -> Self {
        Self {
            mtu,
            about: About { name: name.to_owned(), id: rand::rng().random::<u32>().into(), version: 0 },
            news,
            status,
            path,
            chosen: [Chosen::random(), Chosen::random()],
            lanes: [None, None],
            clock: None,
            anchor: None,
            schedule: ReportSchedule::default(),
            began: Instant::now(),
            speaking: false,
            away: false,
        }
    }

    const fn lane(&self, kind: Kind) -> Option<&Lane> {
        let [video, audio] = &self.lanes;
        if matches!(kind, Kind::Video) { video.as_ref() } else { audio.as_ref() }
    }

    const fn lane_mut(&mut self, kind: Kind) -> &mut Option<Lane> {
        let [video, audio] = &mut self.lanes;
        if matches!(kind, Kind::Video) { video } else { audio }
    }

    const fn chosen(&self, kind: Kind) -> Chosen {
        let [video, audio] = self.chosen;
        if matches!(kind, Kind::Video) { video } else { audio }
    }

    /// Puts a track on its lane; `None` where it can't be described yet.
    fn lay(&mut self, track: &Track, channel: u8, format: Format) -> Result<(), String> {
        let Chosen { ssrc, first_sequence, first_time } = self.chosen(track.kind());
        let (payload_type, mtu) = (format.payload_type, self.mtu);
        let lane = self.lane_mut(track.kind());
        if let Some(lane) = lane
            && lane.packetizer.settings().channel == channel
            && lane.format.payload_type == payload_type
        {
            lane.format = format;
            return lane.packetizer.set_track(track).map_err(|why| why.to_string());
        }
        // Numbers go on where the track was carried before.
        let first_sequence = lane.as_ref().map_or(first_sequence, |lane| lane.packetizer.next_sequence());
        let settings = Settings { payload_type, ssrc, first_sequence, first_time, mtu, channel };
        let packetizer = Packetizer::new(track, settings).map_err(|why| why.to_string())?;
        *lane = Some(Lane { format, packetizer, packets: 0, octets: 0, last: None });
        Ok(())
    }

    /// The reports of the tracks that a player has set up. All are of one moment, now, on the one clock that the stream has.
    fn write_reports(&self, out: &mut PieceWriter, layout: Layout) {
        let (Some(clock), Some(anchor)) = (self.clock, self.anchor) else { return };
        let time = clock.time.saturating_add(clock.at.elapsed());
        let since = anchor.utc.duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix_nanos = i64::try_from(since.as_nanos()).unwrap_or(i64::MAX);
        let ntp = WallClock { stream: anchor.time, unix_nanos }.at(time);
        for kind in [Kind::Video, Kind::Audio] {
            let (Some((_, channel)), Some(lane)) = (layout.get(kind), self.lane(kind)) else { continue };
            let report = SenderReport {
                ssrc: lane.packetizer.settings().ssrc,
                ntp,
                rtp_time: lane.packetizer.rtp_time(time),
                packets: lane.packets,
                octets: lane.octets,
            };
            out.copy(&reports::report(channel, &report));
        }
    }

    /// Number and time of the packet that comes next.
    fn next(&self, kind: Kind, at: Timestamp) -> u64 {
        let Some(lane) = self.lane(kind) else { return 0 };
        let time = lane.last.map_or(at, |(last, step)| last.moved(step));
        mark(lane.packetizer.next_sequence(), lane.packetizer.rtp_time(time))
    }
}

/// Writes packets on a channel.
fn write_packets<'a>(out: &mut PieceWriter, packets: impl Iterator<Item = &'a Packet>, own: u8, channel: u8) {
    for packet in packets {
        // A picture's packets leave with one call: their bytes are put together once for all players.
        if own == channel {
            packet.interleaved().into_iter().for_each(|part| out.copy(part));
        } else {
            packet.on_channel(channel).interleaved().into_iter().for_each(|part| out.copy(part));
        }
    }
}

/// A packet's number and time in one.
fn mark(sequence: u16, time: u32) -> u64 {
    u64::from(sequence) << 32 | u64::from(time)
}

/// What stands in a mark.
pub(super) const fn of_mark(mark: u64) -> (u16, u32) {
    ((mark >> 32) as u16, mark as u32)
}

impl Wire for Players {
    type Packed = Arc<[Packet]>;

    /// RTP times wrap: there is no need for another zero.
    const EPOCH: Duration = Duration::MAX;

    fn note(&mut self, _: &Aside) -> bool {
        false
    }

    fn take_news(&mut self) -> bool {
        false
    }

    fn forget(&mut self) {
        self.away = true;
    }

    fn tracks(&mut self, tracks: &Arc<Tracks>) {
        let (mut media, mut formats, mut ssrcs, mut dropped) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut waits = false;
        for track in tracks.iter() {
            let laid = Format::of(track)
                .map_err(|why| (matches!(why, NotCarried::NoParameterSets), why.to_string()));
            let laid = laid.and_then(|format| {
                let channel = u8::try_from(2 * media.len()).unwrap_or(0);
                self.lay(track, channel, format.clone()).map(|()| format).map_err(|why| (false, why))
            });
            match laid {
                Ok(format) => {
                    media.push(track.kind());
                    ssrcs.push(self.chosen(track.kind()).ssrc);
                    formats.push(format);
                }
                Err((true, _)) => waits = true,
                Err((false, why)) => {
                    *self.lane_mut(track.kind()) = None;
                    dropped.push(format!("{} is left out: {why}", track.kind().as_str()));
                }
            }
        }
        if !dropped.is_empty() {
            let text = format!("{}: {}", self.path, dropped.join("; "));
            tracing::warn!(path = %self.path, "{}", dropped.join("; "));
            let state = if media.is_empty() && !waits { State::Waiting } else { State::Running };
            self.status.status.set(state, Some(Trouble::new(Reason::Content, text)));
        }
        if waits || media.is_empty() {
            return;
        }
        self.about.version += 1;
        let description = Description::new(&self.about, &formats);
        self.news.send_replace(Some(Arc::new(Described { description, media, ssrcs })));
    }

    fn anchor(&mut self, anchor: &Anchor) {
        self.anchor = Some(*anchor);
        self.away = false;
    }

    fn goes_on(&self, tracks: &Tracks) -> bool {
        if self.news.borrow().is_none() {
            return true;
        }
        [Kind::Video, Kind::Audio].into_iter().all(|kind| {
            let coming = match tracks.get(kind).map(|track| Format::of(track)) {
                Some(Ok(format)) => Some(format),
                // It will come.
                Some(Err(NotCarried::NoParameterSets)) => return true,
                Some(Err(_)) | None => None,
            };
            match (self.lane(kind), coming) {
                (None, None) => true,
                (Some(lane), Some(coming)) => {
                    let same = |one: &Format, other: &Format| {
                        (one.payload_type, one.encoding, one.clock_rate, one.channels)
                            == (other.payload_type, other.encoding, other.clock_rate, other.channels)
                    };
                    // Parameter sets of pictures travel with them; those of sound stand in the description alone.
                    same(&lane.format, &coming) && (kind == Kind::Video || lane.format.fmtp == coming.fmtp)
                }
                _ => false,
            }
        })
    }

    fn due(&self) -> Option<Instant> {
        self.clock?;
        Some(self.began + self.schedule.due(self.away)?)
    }

    fn speaks(&mut self, now: Instant) -> bool {
        self.speaking = self.clock.is_some()
            && self.schedule.is_due(now.saturating_duration_since(self.began), self.away);
        if self.speaking {
            self.schedule.sent(now.saturating_duration_since(self.began));
        }
        self.speaking
    }

    fn say(&self, out: &mut PieceWriter, view: View) {
        self.write_reports(out, Layout::of(view.variant));
    }

    fn pack(&mut self, track: &Track, frame: &Frame) -> Self::Packed {
        let kind = track.kind();
        self.away = false;
        self.clock = Some(Clock { time: frame.dts, at: Instant::now() });
        let mut packets = Vec::new();
        if let Some(lane) = self.lane_mut(kind) {
            lane.packetizer.packetize(frame, &mut packets);
            let octets: usize = packets.iter().map(Packet::payload_len).sum();
            // Counters of reports are modulo 2^32.
            lane.packets = lane.packets.wrapping_add(packets.len() as u32);
            lane.octets = lane.octets.wrapping_add(octets as u32);
            let step = lane.last.map_or(0, |(last, _)| frame.pts.nanos_since(last));
            lane.last = Some((frame.pts, step));
        }
        packets.into()
    }

    fn mark(&self, kind: Kind, first: Option<(&Frame, &Self::Packed)>, at: Timestamp) -> u64 {
        let first = first.and_then(|(frame, packets)| Some((frame.pts, packets.first()?.sequence())));
        match (first, self.lane(kind)) {
            (Some((time, sequence)), Some(lane)) => mark(sequence, lane.packetizer.rtp_time(time)),
            _ => self.next(kind, at),
        }
    }

    /// Reports: a player's clock starts with the first of them.
    fn start(&mut self, out: &mut PieceWriter, _: &Arc<Tracks>, _: Timestamp, view: View) {
        if !self.speaking {
            self.write_reports(out, Layout::of(view.variant));
        }
    }

    fn frame(&self, out: &mut PieceWriter, track: &Track, frame: &Frame, packets: &Self::Packed, view: View) {
        let kind = track.kind();
        let (Some((channel, _)), Some(lane)) = (Layout::of(view.variant).get(kind), self.lane(kind)) else {
            return;
        };
        let time = lane.packetizer.rtp_time(frame.pts);
        let is_moved = packets.first().is_some_and(|first| first.time() != time);
        let own = lane.packetizer.settings().channel;
        if is_moved && kind == Kind::Video {
            let moved: Vec<_> = packets.iter().map(|packet| packet.at(time)).collect();
            write_packets(out, moved.iter(), own, channel);
        } else {
            write_packets(out, packets.iter(), own, channel);
        }
    }

    fn aside(&self, _: &mut PieceWriter, _: &Tracks, _: &Aside, _: View) {}
}
