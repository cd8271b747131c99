//! What somebody sends to us, from packets to frames on one timeline: the rooms of the way in, joined. `now` is the time
//! since any moment, always the same.

use std::num::NonZeroU32;
use std::time::Duration;

use av_media::{Frame, Kind, Timestamp, Track};
use bytes::Bytes;

use crate::clock::Clock;
use crate::depacketize::{AfterLoss, Counts, Depacketizer, Output, Payload};
use crate::order::{Decodable, DecodeOrder};
use crate::received::Received;
use crate::reorder::{Ordered, Reorder};
use crate::rtcp::{self, Message, Ntp, Reception, SenderReport, WallClock};
use crate::sdp::Coding;

#[cfg(test)]
mod tests;

/// What comes out.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Frames of its kind that follow are coded so.
    Track(Track),
    /// The next frame.
    Frame(Frame),
}

/// What was left out of a track.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Packets that never came.
    pub packets: u64,
    /// Frames of which a packet was lost, and pictures up to the next sync frame after that.
    pub lost: u64,
    /// What breaks RTP or the payload format, and packets far from all others.
    pub malformed: u64,
    /// Pictures before the first parameter sets.
    pub before_sync: u64,
}

/// See the module's text. At most one track of each kind.
#[derive(Debug)]
pub struct Intake {
    video: Option<Lane>,
    audio: Option<Lane>,
    clock: Clock<(bool, Bytes)>,
    order: DecodeOrder<(bool, Bytes)>,
    start: Option<Duration>,
}

/// One track's way as far as its units.
#[derive(Debug)]
struct Lane {
    payload_type: Option<u8>,
    reorder: Reorder,
    depacketizer: Depacketizer,
    /// The last sender report, until the first packet says where RTP time is, and when it came.
    report: Option<SenderReport>,
    reported: Option<(Ntp, Duration)>,
    source: Option<u32>,
    malformed: u64,
    /// Highest number and packets lost at the last receiver report.
    told: (u32, u64),
}

impl Lane {
    fn take(&mut self, bytes: &Bytes, now: Duration, out: &mut Vec<Output>) {
        let Ok(packet) = Received::parse(bytes) else {
            self.malformed += 1;
            return;
        };
        // Another payload type (comfort noise, retransmissions) is none of this track.
        if *self.payload_type.get_or_insert(packet.payload_type) != packet.payload_type {
            self.malformed += 1;
            return;
        }
        self.source = Some(packet.ssrc);
        let mut ordered = Vec::new();
        self.reorder.push(packet, now, &mut ordered);
        self.units(ordered, out);
    }

    fn units(&mut self, ordered: Vec<Ordered>, out: &mut Vec<Output>) {
        for ordered in ordered {
            self.depacketizer.push(ordered, out);
        }
    }
}

impl Intake {
    /// For the tracks of a description: how each is coded, and its RTP ticks a second.
    pub fn new<'a>(
        video: Option<(&'a Coding, NonZeroU32)>,
        audio: Option<(&'a Coding, NonZeroU32)>,
        after_loss: AfterLoss,
    ) -> Self {
        let lane = |(coding, clock): (&Coding, NonZeroU32)| Lane {
            payload_type: None,
            reorder: Reorder::default(),
            depacketizer: Depacketizer::new(Payload::from(coding), clock, coding.track(), after_loss),
            report: None,
            reported: None,
            source: None,
            malformed: 0,
            told: (0, 0),
        };
        let rate = |track: Option<(&Coding, NonZeroU32)>| track.map(|(_, clock)| clock);
        let clock = Clock::new(rate(video), rate(audio));
        let (video, audio) = (video.map(lane), audio.map(lane));
        let mut order = DecodeOrder::default();
        if let Some(track) = video.as_ref().and_then(|lane| lane.depacketizer.track()) {
            order.set_track(track);
        }
        Self { video, audio, clock, order, start: None }
    }

    /// The tracks as far as the description tells them; those that the stream has to tell come as events.
    pub fn tracks(&self) -> impl Iterator<Item = &Track> {
        [&self.video, &self.audio].into_iter().flatten().filter_map(|lane| lane.depacketizer.track())
    }

    fn lane(&mut self, kind: Kind) -> Option<&mut Lane> {
        match kind {
            Kind::Video => self.video.as_mut(),
            Kind::Audio => self.audio.as_mut(),
        }
    }

    /// Takes an RTP packet of a track; appends what is whole now.
    pub fn rtp(&mut self, kind: Kind, packet: &Bytes, now: Duration, out: &mut Vec<Event>) {
        let mut units = Vec::new();
        let Some(lane) = self.lane(kind) else { return };
        lane.take(packet, now, &mut units);
        if let Some(report) = lane.report.take() {
            self.heard(kind, report);
        }
        self.units(kind, units, now, out);
    }

    /// Time passes: what is missing is not waited for any longer than it is worth.
    pub fn expire(&mut self, now: Duration, out: &mut Vec<Event>) {
        for kind in [Kind::Video, Kind::Audio] {
            let (mut ordered, mut units) = (Vec::new(), Vec::new());
            let Some(lane) = self.lane(kind) else { continue };
            lane.reorder.expire(now, &mut ordered);
            lane.units(ordered, &mut units);
            self.units(kind, units, now, out);
        }
    }

    /// Takes RTCP of a track. Whether the sender says goodbye.
    pub fn rtcp(&mut self, kind: Kind, compound: &[u8], now: Duration) -> bool {
        let mut leaves = false;
        for message in rtcp::parse(compound) {
            match message {
                Message::SenderReport(report) => {
                    if let Some(lane) = self.lane(kind) {
                        lane.reported = Some((report.ntp, now));
                    }
                    self.heard(kind, report);
                }
                Message::Bye(_) => leaves = true,
                _ => {}
            }
        }
        leaves
    }

    fn heard(&mut self, kind: Kind, report: SenderReport) {
        let Some(lane) = self.lane(kind) else { return };
        match lane.depacketizer.extended(report.rtp_time) {
            Some(ticks) => self.clock.report(kind, report.ntp, ticks),
            None => lane.report = Some(report),
        }
    }

    fn units(&mut self, kind: Kind, units: Vec<Output>, now: Duration, out: &mut Vec<Event>) {
        let start = *self.start.get_or_insert(now);
        let arrival = Timestamp::ZERO.saturating_add(now.saturating_sub(start));
        let mut placed = Vec::new();
        for output in units {
            match output {
                Output::Track(track) => {
                    if kind == Kind::Video {
                        let mut decodable = Vec::new();
                        self.order.flush(&mut decodable);
                        out.extend(decodable.into_iter().map(picture));
                        self.order.set_track(&track);
                    }
                    out.push(Event::Track(track));
                }
                Output::Unit(unit) => {
                    self.clock.push(kind, unit.time, arrival, (unit.is_sync, unit.data), &mut placed);
                    self.place(kind, &mut placed, out);
                }
            }
        }
    }

    fn place(&mut self, kind: Kind, placed: &mut Vec<(Timestamp, (bool, Bytes))>, out: &mut Vec<Event>) {
        for (time, (is_sync, data)) in placed.drain(..) {
            if kind == Kind::Audio {
                out.push(Event::Frame(Frame { kind, dts: time, pts: time, is_sync, data }));
                continue;
            }
            let mut decodable = Vec::new();
            self.order.push(time, is_sync, (is_sync, data), &mut decodable);
            out.extend(decodable.into_iter().map(picture));
        }
    }

    /// Which wall clock time the frames' time is, by the sender's reports.
    pub fn wall_clock(&self) -> Option<WallClock> {
        self.clock.wall_clock()
    }

    /// What was left out of a track so far.
    pub fn left_out(&self, kind: Kind) -> LeftOut {
        let lane = match kind {
            Kind::Video => &self.video,
            Kind::Audio => &self.audio,
        };
        let Some(lane) = lane else { return LeftOut::default() };
        let Counts { lost, malformed, before_sync } = lane.depacketizer.counts();
        LeftOut {
            packets: lane.reorder.lost(),
            lost: lost + if kind == Kind::Video { self.order.left_out() } else { 0 },
            malformed: malformed + lane.malformed + lane.reorder.strays(),
            before_sync,
        }
    }

    /// Frames of all tracks that were left out because their time belongs nowhere.
    pub const fn out_of_time(&self) -> u64 {
        self.clock.left_out()
    }

    /// A receiver report of what came of a track since the last one, from `ssrc`; `None` before its first packet.
    pub fn receiver_report(&mut self, kind: Kind, ssrc: u32, cname: &str, now: Duration) -> Option<Bytes> {
        let lane = self.lane(kind)?;
        let source = lane.source?;
        let (highest, lost) = (lane.reorder.highest(), lane.reorder.lost());
        let (before, lost_before) = std::mem::replace(&mut lane.told, (highest, lost));
        let expected = u64::from(highest.wrapping_sub(before)).max(1);
        let fraction = (lost.saturating_sub(lost_before) * 256 / expected).min(255);
        let (last_report, delay) = lane.reported.map_or((0, 0), |(ntp, at)| {
            let since = now.saturating_sub(at).as_millis().min(u128::from(u16::MAX) * 1000);
            // The middle 32 bits; 65,536ths of a second: below 2^32.
            ((ntp.0 >> 16) as u32, (since * 65_536 / 1000) as u32)
        });
        let reception = Reception {
            ssrc: source,
            fraction_lost: fraction as u8,
            lost: lost.min(0x007f_ffff) as u32,
            highest,
            jitter: 0,
            last_report,
            delay,
        };
        Some(rtcp::receiver_report(ssrc, Some(&reception), cname))
    }
}

fn picture((pts, dts, (is_sync, data)): Decodable<(bool, Bytes)>) -> Event {
    Event::Frame(Frame { kind: Kind::Video, dts, pts, is_sync, data })
}
