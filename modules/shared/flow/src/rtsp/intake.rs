//! From a sender's packets to what a stream takes.

use std::num::NonZeroU32;
use std::time::{Duration, Instant, UNIX_EPOCH};

use av_media::{Frame, Kind, Timestamp};
use av_rtsp::Received;
use av_rtsp::clock::Clock;
use av_rtsp::depacketize::{AfterLoss, Counts, Depacketizer, Output, Payload, Unit};
use av_rtsp::order::DecodeOrder;
use av_rtsp::reorder::{Ordered, Reorder};
use av_rtsp::rtcp::{self, Counter, Message, Ntp, Reception, WallClock};
use av_rtsp::sdp::{LeftAside, Medium, Presentation};
use bytes::Bytes;

use crate::stream::{Incoming, InputStatus, LeftOut, Skip};

/// The media of one publisher.
pub(super) struct Intake {
    /// By medium; `None`: left aside.
    lanes: Vec<Option<Lane>>,
    clock: Clock<(bool, Bytes)>,
    order: DecodeOrder<(bool, Bytes)>,
    /// When arrival times began.
    began: Instant,
    /// Frames that clock and order left out so far.
    left_out: u64,
    /// What a report said of the sender's clock, to be told with the next packet.
    wall_clock: Option<Incoming>,
}

/// One medium.
struct Lane {
    kind: Kind,
    payload_type: u8,
    reorder: Reorder,
    depacketizer: Depacketizer,
    after_loss: AfterLoss,
    /// For the reports that go back.
    counter: Counter,
    /// What was counted so far.
    told: Counts,
    lost: u64,
    strays: u64,
    /// Packets that never came.
    missing: u64,
}

impl Intake {
    /// For what was announced: the first medium of each kind that can be read. The others are left aside, and the state
    /// says why where nothing of their kind is left.
    pub(super) fn new(
        presentation: &Presentation,
        after_loss: AfterLoss,
        status: &InputStatus,
        now: Instant,
    ) -> Self {
        let taken = [Kind::Video, Kind::Audio].map(|kind| presentation.first(kind).map(|(index, ..)| index));
        for (kind, taken) in [Kind::Video, Kind::Audio].into_iter().zip(taken) {
            let aside = presentation.media.iter().filter(|medium| medium.kind == Some(kind));
            let why = aside.filter_map(|medium| medium.coding.as_ref().err()).next();
            if let (None, Some(why)) = (taken, why) {
                let (codec, dropped) = match why {
                    LeftAside::Encoding(name) => (name.clone(), why.to_string()),
                    _ => (kind.as_str().to_owned(), why.to_string()),
                };
                status.leave_out(kind, Some(LeftOut { codec, dropped }));
                status.said.note(&format!("announces {}, which is left out: {why}", kind.as_str()));
            }
        }
        Self::of(presentation, taken, after_loss, now)
    }

    /// For what was described, of which these media are taken: at most one of each kind.
    pub(super) fn of(
        presentation: &Presentation,
        taken: [Option<usize>; 2],
        after_loss: AfterLoss,
        now: Instant,
    ) -> Self {
        let mut rates = [None, None];
        let mut lanes = Vec::new();
        for (index, medium) in presentation.media.iter().enumerate() {
            let is_taken = taken.contains(&Some(index));
            let lane = is_taken.then(|| Lane::new(medium, after_loss)).flatten();
            if let Some((lane, rate)) = &lane {
                let [video, audio] = &mut rates;
                *(if lane.kind == Kind::Video { video } else { audio }) = Some(*rate);
            }
            lanes.push(lane.map(|(lane, _)| lane));
        }
        let [video, audio] = rates;
        Self {
            lanes,
            clock: Clock::new(video, audio),
            order: DecodeOrder::default(),
            began: now,
            left_out: 0,
            wall_clock: None,
        }
    }

    /// Which kinds will come, and what is known of them.
    pub(super) fn opening(&mut self) -> Vec<Incoming> {
        let has = |kind| self.lanes.iter().flatten().any(|lane| lane.kind == kind);
        let mut opening = vec![Incoming::Expect { video: has(Kind::Video), audio: has(Kind::Audio) }];
        for lane in self.lanes.iter().flatten() {
            if let Some(track) = lane.depacketizer.track() {
                if lane.kind == Kind::Video {
                    self.order.set_track(track);
                }
                opening.push(Incoming::Track(track.clone()));
            }
        }
        opening
    }

    /// Takes an RTP packet.
    pub(super) fn rtp(
        &mut self,
        medium: usize,
        packet: &Bytes,
        now: Instant,
        status: &InputStatus,
        give: impl FnMut(Incoming),
    ) {
        let Some(lane) = self.lanes.get_mut(medium).and_then(Option::as_mut) else { return };
        // Punched holes and comfort noise are not what was announced.
        let received = Received::parse(packet).ok().filter(|packet| packet.payload_type == lane.payload_type);
        let Some(received) = received else {
            status.skipped.add(Skip::Malformed, 1);
            return;
        };
        let mut ordered = Vec::new();
        let since = now.saturating_duration_since(self.began);
        lane.counter.packet(&received, since);
        lane.reorder.push(received, since, &mut ordered);
        self.ordered(medium, ordered, now, status, give);
    }

    /// Takes RTP packets that are in order.
    pub(super) fn ordered(
        &mut self,
        medium: usize,
        mut ordered: Vec<Ordered>,
        now: Instant,
        status: &InputStatus,
        mut give: impl FnMut(Incoming),
    ) {
        let Some(lane) = self.lanes.get_mut(medium).and_then(Option::as_mut) else { return };
        let payload_type = lane.payload_type;
        let foreign = ordered.extract_if(
            ..,
            |ordered| matches!(ordered, Ordered::Packet(packet) if packet.payload_type != payload_type),
        );
        status.skipped.add(Skip::Malformed, foreign.count() as u64);
        let (kind, outputs) = (lane.kind, lane.outputs(ordered, status));
        let arrival = self.arrival(now);
        for output in outputs {
            self.hand_on(kind, output, arrival, &mut give);
        }
        self.count(status);
        self.wall_clock.take().into_iter().for_each(give);
    }

    /// All tracks begin at this RTP time, whatever comes first of each.
    pub(super) fn begins_at(&mut self, ticks: i64) {
        [Kind::Video, Kind::Audio].into_iter().for_each(|kind| self.clock.info(kind, ticks));
    }

    /// This medium was at that RTP time at that moment, by what is known before its first frame.
    pub(super) fn begins(&mut self, medium: usize, ticks: i64, at: Instant) {
        let arrival = self.arrival(at);
        if let Some(lane) = self.lanes.get(medium).and_then(Option::as_ref) {
            self.clock.begins(lane.kind, ticks, arrival);
        }
    }

    /// A sender report: RTP time, its wraps counted, was that time in the world.
    pub(super) fn report(&mut self, medium: usize, ntp: Ntp, ticks: i64) {
        let Some(lane) = self.lanes.get(medium).and_then(Option::as_ref) else { return };
        self.clock.report(lane.kind, ntp, ticks);
        self.wall_clock = wall_clock(&self.clock);
    }

    /// Counts what has no place on the timeline.
    fn count(&mut self, status: &InputStatus) {
        let left_out = self.clock.left_out() + self.order.left_out();
        if left_out > self.left_out {
            status.skipped.add(Skip::Malformed, left_out - self.left_out);
            status.said.note("sends frames whose timestamps do not fit the others: they are left out");
            self.left_out = left_out;
        }
    }

    /// When [`expire`](Self::expire) has something to do; `None` while nothing waits for packets that are missing.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let waiting = self.lanes.iter().flatten().filter_map(|lane| lane.reorder.deadline());
        self.began.checked_add(waiting.min()?)
    }

    /// Time passes: what is missing is not waited for any longer, also where no packet follows.
    pub(super) fn expire(&mut self, now: Instant, status: &InputStatus, mut give: impl FnMut(Incoming)) {
        self.expire_at(now.saturating_duration_since(self.began), now, status, &mut give);
    }

    /// Nothing follows: hands on what waits for more.
    pub(super) fn finish(&mut self, now: Instant, status: &InputStatus, mut give: impl FnMut(Incoming)) {
        self.expire_at(Duration::MAX, now, status, &mut give);
        let mut decodable = Vec::new();
        self.order.flush(&mut decodable);
        decodable.into_iter().for_each(|picture| give(frame(picture)));
    }

    fn expire_at(
        &mut self,
        since: Duration,
        now: Instant,
        status: &InputStatus,
        give: &mut impl FnMut(Incoming),
    ) {
        let arrival = self.arrival(now);
        for index in 0..self.lanes.len() {
            let Some(lane) = self.lanes.get_mut(index).and_then(Option::as_mut) else { continue };
            let mut ordered = Vec::new();
            lane.reorder.expire(since, &mut ordered);
            let (kind, outputs) = (lane.kind, lane.outputs(ordered, status));
            for output in outputs {
                self.hand_on(kind, output, arrival, give);
            }
        }
    }

    fn hand_on(&mut self, kind: Kind, output: Output, arrival: Timestamp, give: &mut impl FnMut(Incoming)) {
        let Unit { time, is_sync, data } = match output {
            Output::Unit(unit) => unit,
            Output::Track(track) => {
                if kind == Kind::Video {
                    let mut decodable = Vec::new();
                    self.order.flush(&mut decodable);
                    decodable.into_iter().for_each(|picture| give(frame(picture)));
                    self.order.set_track(&track);
                }
                return give(Incoming::Track(track));
            }
        };
        let mut timed = Vec::new();
        self.clock.push(kind, time, arrival, (is_sync, data), &mut timed);
        for (pts, (is_sync, data)) in timed {
            if kind == Kind::Audio {
                give(Incoming::Frame(Frame { kind, dts: pts, pts, is_sync: true, data }));
                continue;
            }
            let mut decodable = Vec::new();
            self.order.push(pts, is_sync, (is_sync, data), &mut decodable);
            decodable.into_iter().for_each(|picture| give(frame(picture)));
        }
    }

    /// Takes what came on the channel or port of RTCP.
    pub(super) fn rtcp(&mut self, medium: usize, packet: &[u8], now: Instant) {
        let since = now.saturating_duration_since(self.began);
        let Some(lane) = self.lanes.get_mut(medium).and_then(Option::as_mut) else { return };
        let mut reports = Vec::new();
        for message in rtcp::parse(packet) {
            let Message::SenderReport(report) = message else { continue };
            lane.counter.report(report.ntp, since);
            if let Some(ticks) = lane.depacketizer.extended(report.rtp_time) {
                reports.push((report.ntp, ticks));
            }
        }
        for (ntp, ticks) in reports {
            self.report(medium, ntp, ticks);
        }
    }

    /// What to report of each medium of which something came.
    pub(super) fn receptions(&mut self, now: Instant) -> Vec<(usize, Reception)> {
        let since = now.saturating_duration_since(self.began);
        let lanes = self.lanes.iter_mut().enumerate();
        lanes.filter_map(|(medium, lane)| Some((medium, lane.as_mut()?.counter.reception(since)?))).collect()
    }

    fn arrival(&self, now: Instant) -> Timestamp {
        Timestamp::ZERO.saturating_add(now.saturating_duration_since(self.began))
    }
}

/// What a sender's reports say of its clock.
fn wall_clock<T>(clock: &Clock<T>) -> Option<Incoming> {
    let WallClock { stream, unix_nanos } = clock.wall_clock()?;
    let since = Duration::from_nanos(u64::try_from(unix_nanos).ok()?);
    Some(Incoming::WallClock { time: stream, utc: UNIX_EPOCH.checked_add(since)? })
}

fn frame((pts, dts, (is_sync, data)): (Timestamp, Timestamp, (bool, Bytes))) -> Incoming {
    Incoming::Frame(Frame { kind: Kind::Video, dts, pts, is_sync, data })
}

impl Lane {
    /// With its ticks a second; `None` where it can't be read.
    fn new(medium: &Medium, after_loss: AfterLoss) -> Option<(Self, NonZeroU32)> {
        let (kind, coding) = (medium.kind?, medium.coding.as_ref().ok()?);
        let rate = NonZeroU32::new(medium.clock_rate)?;
        let depacketizer = Depacketizer::new(Payload::from(coding), rate, coding.track(), after_loss);
        let lane = Self {
            kind,
            payload_type: medium.payload_type,
            reorder: Reorder::default(),
            depacketizer,
            after_loss,
            counter: Counter::new(rate.get()),
            told: Counts::default(),
            lost: 0,
            strays: 0,
            missing: 0,
        };
        Some((lane, rate))
    }

    /// Puts packets that are in order together.
    fn outputs(&mut self, ordered: Vec<Ordered>, status: &InputStatus) -> Vec<Output> {
        let mut outputs = Vec::new();
        for packet in ordered {
            if let Ordered::Lost(packets) = packet {
                self.missing += packets;
            }
            self.depacketizer.push(packet, &mut outputs);
        }
        self.count(status);
        outputs
    }

    /// Tells what was left out since the last time.
    fn count(&mut self, status: &InputStatus) {
        let (counts, lost, strays) = (self.depacketizer.counts(), self.missing, self.reorder.strays());
        if counts == self.told && lost == self.lost && strays == self.strays {
            return;
        }
        status.skipped.add(Skip::Malformed, counts.malformed - self.told.malformed);
        let left_out = |counts: Counts| counts.lost + counts.before_sync;
        status.skipped.add(Skip::BeforeSync, left_out(counts) - left_out(self.told));
        if lost > self.lost {
            status.said.note(match self.after_loss {
                AfterLoss::Drop => "lost packets on the way: pictures are left out up to the next key frame",
                AfterLoss::Keep => "lost packets on the way: incomplete pictures are left out",
            });
        }
        if strays > self.strays {
            status.skipped.add(Skip::Malformed, strays - self.strays);
            status
                .said
                .note("sends packets whose sequence numbers are far from all others: they are left out");
        }
        if counts.malformed > self.told.malformed {
            status.said.note("sends packets that break their payload format: they are left out");
        }
        (self.told, self.lost, self.strays) = (counts, lost, strays);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Changes;

    /// 20 ms of G.711.
    fn packet(number: u16) -> Bytes {
        let mut packet = vec![0x80, 0];
        packet.extend(number.to_be_bytes());
        packet.extend((u32::from(number) * 160).to_be_bytes());
        packet.extend(7_u32.to_be_bytes());
        packet.resize(12 + 160, 0xff);
        packet.into()
    }

    #[test]
    fn what_stands_behind_a_gap_waits_neither_for_a_packet_nor_at_the_end() {
        let sdp = b"v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=audio 0 RTP/AVP 0\r\n";
        let presentation = Presentation::parse(sdp).unwrap();
        let (status, began) = (InputStatus::new(Changes::default()), Instant::now());
        for at_the_end in [false, true] {
            let mut intake = Intake::new(&presentation, AfterLoss::Drop, &status, began);
            let mut frames = 0;
            let mut count = |item| frames += usize::from(matches!(item, Incoming::Frame(_)));
            for number in [1, 2, 4] {
                intake.rtp(0, &packet(number), began, &status, &mut count);
            }
            let deadline = intake.deadline().unwrap();
            assert_eq!(deadline, began + Duration::from_millis(250));
            if at_the_end {
                intake.finish(began, &status, &mut count);
            } else {
                intake.expire(began + Duration::from_millis(249), &status, &mut count);
                assert!(intake.deadline().is_some());
                intake.expire(deadline, &status, &mut count);
            }
            assert_eq!(intake.deadline(), None);
            assert_eq!(frames, 3);
        }
    }
}
