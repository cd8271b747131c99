//! A stream as RTSP's players get it: RTP packets, made once for all of them, and the reports of their sender.

mod squeezed;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use av_media::{Frame, Kind, Timestamp, Track};
use av_rtsp::Packet;
use av_rtsp::packetize::{Packetizer, Settings};
use av_rtsp::sdp::{About, Description, Format, NotCarried};
use rand::Rng;

use super::described::{Described, Layout, News};
use super::options::Join;
use super::reports::Report;
use crate::fanout::{Beginning, Mark, PieceWriter, Wire};
use crate::stream::{Anchor, Aside, OutputStatus, State, Tracks};
use crate::trouble::{Reason, Trouble};

/// A sender reports that often, and more often where nothing else tells players that it is there.
const REPORT: Duration = Duration::from_secs(5);
const REPORT_AWAY: Duration = Duration::from_secs(2);

/// See the module's text.
pub(super) struct Players {
    join: Join,
    mtu: u16,
    about: About,
    news: News,
    status: Arc<OutputStatus>,
    /// `flows.NAME.outputs.NAME`.
    path: Arc<str>,
    /// Chosen once: they outlive publishers and changes.
    chosen: [Chosen; 2],
    lanes: [Option<Lane>; 2],
    /// Frames since the last place to start at, or those of the flush that is being made.
    sent: Vec<Sent>,
    /// Where decoding may start in `sent`.
    start: Option<usize>,
    /// Where in `sent` the flush begins that is being made.
    fresh: usize,
    clock: Option<Clock>,
    anchor: Option<Anchor>,
    /// When the reports were sent, and those of the flush that is being made.
    reported: Option<Instant>,
    speaking: Option<Instant>,
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

/// A frame's packets.
struct Sent {
    kind: Kind,
    dts: Timestamp,
    pts: Timestamp,
    packets: Vec<Packet>,
}

/// The newest frame, and when it came.
#[derive(Clone, Copy)]
struct Clock {
    time: Timestamp,
    at: Instant,
}

impl Players {
    /// For an output that has no player yet.
    pub(super) fn new(
        join: Join,
        mtu: u16,
        name: &str,
        news: News,
        status: Arc<OutputStatus>,
        path: Arc<str>,
    ) -> Self {
        Self {
            join,
            mtu,
            about: About { name: name.to_owned(), id: rand::rng().random::<u32>().into(), version: 0 },
            news,
            status,
            path,
            chosen: [Chosen::random(), Chosen::random()],
            lanes: [None, None],
            sent: Vec::new(),
            start: None,
            fresh: 0,
            clock: None,
            anchor: None,
            reported: None,
            speaking: None,
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

    /// The reports of the tracks that a player has set up, at `now`, with this much of it after the newest frame.
    fn write_reports(&self, out: &mut PieceWriter, layout: Layout, now: Instant) {
        let (Some(clock), Some(anchor)) = (self.clock, self.anchor) else { return };
        let time = clock.time.saturating_add(now.saturating_duration_since(clock.at));
        let since = time.nanos_since(anchor.time);
        let apart = Duration::from_nanos(since.unsigned_abs());
        let utc = if since < 0 { anchor.utc.checked_sub(apart) } else { anchor.utc.checked_add(apart) };
        let Some(utc) = utc else { return };
        for kind in [Kind::Video, Kind::Audio] {
            let (Some((_, channel)), Some(lane)) = (layout.get(kind), self.lane(kind)) else { continue };
            let report = Report {
                ssrc: lane.packetizer.settings().ssrc,
                utc,
                rtp_time: lane.packetizer.rtp_time(time),
                packets: lane.packets,
                octets: lane.octets,
            };
            out.copy(&report.interleaved(channel));
        }
    }

    /// Where the next packet of a kind is going to stand.
    fn next(&self, kind: Kind) -> Option<Mark> {
        let lane = self.lane(kind)?;
        let time =
            lane.last.map_or(self.clock.map(|clock| clock.time), |(last, step)| Some(last.moved(step)))?;
        Some(Mark { number: lane.packetizer.next_sequence(), time: lane.packetizer.rtp_time(time) })
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

fn mark(packet: &Packet) -> Mark {
    Mark { number: packet.sequence(), time: packet.time() }
}

impl Wire for Players {
    /// RTP times wrap: there is no need for another zero.
    const EPOCH: Duration = Duration::MAX;
    const ONCE: bool = true;

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

    fn take(&mut self, track: &Track, frame: &Frame, starts: bool) {
        let (kind, now) = (track.kind(), Instant::now());
        self.away = false;
        self.clock = Some(Clock { time: frame.dts, at: now });
        if starts {
            self.sent.drain(..self.fresh.min(self.sent.len()));
            self.fresh = 0;
            self.start = Some(self.sent.len());
        }
        let mut packets = Vec::new();
        let Some(lane) = self.lane_mut(kind) else { return };
        lane.packetizer.packetize(frame, &mut packets);
        let octets: usize = packets.iter().map(Packet::payload_len).sum();
        // Counters of reports are modulo 2^32.
        lane.packets = lane.packets.wrapping_add(packets.len() as u32);
        lane.octets = lane.octets.wrapping_add(octets as u32);
        let step = lane.last.map_or(0, |(last, _)| frame.pts.nanos_since(last));
        lane.last = Some((frame.pts, step));
        self.sent.push(Sent { kind, dts: frame.dts, pts: frame.pts, packets });
    }

    fn forget_sent(&mut self) {
        self.start = None;
    }

    fn due(&self) -> Option<Instant> {
        self.clock?;
        let every = if self.away { REPORT_AWAY } else { REPORT };
        Some(self.reported? + every)
    }

    fn speak(&mut self, now: Instant) -> bool {
        // What was flushed before is kept for those who join.
        if self.start.is_none() {
            self.sent.clear();
        }
        self.fresh = self.sent.len();
        let is_due = self.reported.is_none() || self.due().is_some_and(|due| due <= now);
        self.speaking = (is_due && self.clock.is_some()).then_some(now);
        if is_due {
            self.reported = Some(now);
        }
        self.speaking.is_some()
    }

    fn start(&mut self, out: &mut PieceWriter, _: &Arc<Tracks>, _: Timestamp, _: Timestamp, variant: u32) {
        if self.speaking.is_none() {
            self.write_reports(out, Layout::of(variant), Instant::now());
        }
    }

    fn write(&self, out: &mut PieceWriter, variant: u32) {
        let layout = Layout::of(variant);
        if let Some(now) = self.speaking {
            self.write_reports(out, layout, now);
        }
        for sent in self.sent.get(self.fresh..).unwrap_or_default() {
            if let (Some((channel, _)), Some(lane)) = (layout.get(sent.kind), self.lane(sent.kind)) {
                write_packets(out, sent.packets.iter(), lane.packetizer.settings().channel, channel);
            }
        }
    }

    fn join(&mut self, out: &mut PieceWriter, variant: u32, now: Instant) -> Option<Beginning> {
        let layout = Layout::of(variant);
        let sent = self.start.and_then(|start| self.sent.get(start..)).filter(|_| self.join != Join::Live)?;
        self.write_reports(out, layout, now);
        let mut beginning = [None, None];
        let [first_picture, first_sound] = &mut beginning;
        let times = squeezed::times(self.join, sent.iter().map(|sent| (sent.kind, sent.dts, sent.pts)));
        for (sent, time) in sent.iter().zip(times) {
            let (Some((channel, _)), Some(lane)) = (layout.get(sent.kind), self.lane(sent.kind)) else {
                continue;
            };
            let Some(time) = time else { continue };
            let own = lane.packetizer.settings().channel;
            let first = if sent.kind == Kind::Video { &mut *first_picture } else { &mut *first_sound };
            if time == sent.pts {
                *first = first.or(sent.packets.first().map(mark));
                write_packets(out, sent.packets.iter(), own, channel);
            } else {
                let time = lane.packetizer.rtp_time(time);
                let moved: Vec<_> = sent.packets.iter().map(|packet| packet.at(time)).collect();
                *first = first.or(moved.first().map(mark));
                write_packets(out, moved.iter(), own, channel);
            }
        }
        let or_next = |mark: Option<Mark>, kind| {
            mark.or_else(|| self.next(kind)).filter(|_| layout.get(kind).is_some())
        };
        Some([or_next(*first_picture, Kind::Video), or_next(*first_sound, Kind::Audio)])
    }
}
