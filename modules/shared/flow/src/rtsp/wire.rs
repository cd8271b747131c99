//! A stream as RTSP's players get it: RTP packets, made once for all of them, and the reports of their sender.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use av_media::{Frame, Kind, Timestamp, Track};
use av_rtsp::Packet;
use av_rtsp::rtcp::ReportSchedule;
use av_rtsp::sdp::{About, Description};
use rand::Rng;

use super::described::{Described, Layout, News};
use super::lanes::{Laid, Lanes};
use super::reports;
use crate::fanout::{PieceWriter, View, Wire};
use crate::stream::{Anchor, Aside, OutputStatus, State, Tracks};
use crate::trouble::{Reason, Trouble};

/// See the module's text.
pub(super) struct Players {
    about: About,
    news: News,
    status: Arc<OutputStatus>,
    /// `flows.NAME.outputs.NAME`.
    path: Arc<str>,
    lanes: Lanes,
    /// When reports are sent, and whether they are in the flush that is being made.
    schedule: ReportSchedule,
    /// Since when that counts.
    began: Instant,
    speaking: bool,
    away: bool,
}

impl Players {
    /// For an output that has no player yet.
    pub(super) fn new(mtu: u16, name: &str, news: News, status: Arc<OutputStatus>, path: Arc<str>) -> Self {
        Self {
            about: about(name),
            news,
            status,
            path,
            lanes: Lanes::new(mtu),
            schedule: ReportSchedule::default(),
            began: Instant::now(),
            speaking: false,
            away: false,
        }
    }

    /// The reports of the tracks that a player has set up.
    fn write_reports(&self, out: &mut PieceWriter, layout: Layout) {
        for (kind, report) in self.lanes.reports() {
            if let Some((_, channel)) = layout.get(kind) {
                out.copy(&reports::report(channel, &report));
            }
        }
    }
}

/// What a description says of a stream with this name.
pub(super) fn about(name: &str) -> About {
    About { name: name.to_owned(), id: rand::rng().random::<u32>().into(), version: 0 }
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

    fn sends(&self, track: &Track) -> bool {
        self.lanes.get(track.kind()).is_some()
    }

    fn tracks(&mut self, tracks: &Arc<Tracks>) {
        let Laid { media, formats, waits, dropped } = self.lanes.lay(tracks);
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
        let ssrcs = media.iter().map(|kind| self.lanes.chosen(*kind).ssrc).collect();
        let description = Description::new(&self.about, &formats);
        let described = Described { description, media, ssrcs, formats, tracks: tracks.clone() };
        self.news.send_replace(Some(Arc::new(described)));
    }

    fn anchor(&mut self, anchor: &Anchor) {
        self.lanes.anchor = Some(*anchor);
        self.away = false;
    }

    fn goes_on(&self, tracks: &Tracks) -> bool {
        self.news.borrow().is_none() || self.lanes.go_on(tracks)
    }

    fn due(&self) -> Option<Instant> {
        if !self.lanes.is_running() {
            return None;
        }
        Some(self.began + self.schedule.due(self.away)?)
    }

    fn speaks(&mut self, now: Instant) -> bool {
        self.speaking = self.lanes.is_running()
            && self.schedule.is_due(now.saturating_duration_since(self.began), self.away);
        if self.speaking {
            self.schedule.sent(now.saturating_duration_since(self.began));
        }
        self.speaking
    }

    fn say(&self, out: &mut PieceWriter, view: View) {
        self.write_reports(out, Layout::of(view.variant));
    }

    fn pack(&mut self, _: &Track, frame: &Frame) -> Self::Packed {
        self.away = false;
        self.lanes.pack(frame).into()
    }

    /// Number of the first packet, and RTP time of the moment at which all begins (RFC 2326 §12.33): the first packet's
    /// where that is a picture, near it for sound.
    fn mark(&self, kind: Kind, first: Option<&Self::Packed>, at: Option<Timestamp>) -> u64 {
        let Some(lane) = self.lanes.get(kind) else { return 0 };
        let first = first.and_then(|packets| packets.first());
        let sequence = first.map_or_else(|| lane.packetizer.next_sequence(), Packet::sequence);
        let next = || lane.last.map_or(Timestamp::ZERO, |(last, step)| last.moved(step));
        mark(sequence, lane.packetizer.rtp_time(at.unwrap_or_else(next)))
    }

    /// Reports: a player's clock starts with the first of them.
    fn start(&mut self, out: &mut PieceWriter, _: &Arc<Tracks>, _: Timestamp, view: View) {
        if !self.speaking {
            self.write_reports(out, Layout::of(view.variant));
        }
    }

    fn frame(&self, out: &mut PieceWriter, track: &Track, frame: &Frame, packets: &Self::Packed, view: View) {
        let kind = track.kind();
        let (Some((channel, _)), Some(lane)) = (Layout::of(view.variant).get(kind), self.lanes.get(kind))
        else {
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
