//! From a camera's packets to what a stream takes: the library gives them in order, the rest is as with publishers.

use std::time::Instant;

use av_media::{Kind, Track};
use av_rtsp::Received;
use av_rtsp::depacketize::AfterLoss;
use av_rtsp::reorder::Ordered;
use av_rtsp::rtcp::Ntp;
use retina::client::PacketItem;
use retina::rtcp::ReceivedCompoundPacket;
use retina::rtp::ReceivedPacket;

use super::source::Source;
use crate::rtsp::intake;
use crate::stream::{Incoming, InputStatus};

/// RTP time at which a session begins by what the server said of it: with room for what lies before.
const BEGIN: i64 = 1 << 30;

/// Ticks that a stream may begin away from what the server said: 10 s of pictures. More is a server's mistake.
const FAR: u64 = 900_000;

/// One session's tracks.
pub(super) struct Intake {
    intake: intake::Intake,
    /// By the library's number of a stream: which medium it is.
    media: Vec<Option<usize>>,
    /// Streams of which a packet has come, and its SSRC.
    begun: Vec<(usize, u32)>,
    /// When the first of all came, where it lay at the beginning.
    at_begin: Option<Instant>,
    expects_sound: bool,
    /// What is described of sound, until some comes: cameras describe microphones that are off.
    unsaid: Option<Track>,
}

impl Intake {
    /// For a session that begins.
    pub(super) fn new(source: &Source, after_loss: AfterLoss) -> Self {
        Self {
            intake: intake::Intake::of(&source.presentation, source.taken, after_loss, Instant::now()),
            media: source.media.clone(),
            begun: Vec::new(),
            at_begin: None,
            expects_sound: source.expects_sound,
            unsaid: None,
        }
    }

    /// Which kinds will come, and what is known of them.
    pub(super) fn opening(&mut self) -> Vec<Incoming> {
        let mut opening = Vec::new();
        for item in self.intake.opening() {
            match item {
                Incoming::Expect { video, audio } => {
                    opening.push(Incoming::Expect { video, audio: audio && self.expects_sound });
                }
                Incoming::Track(track) if track.kind() == Kind::Audio => self.unsaid = Some(track),
                other => opening.push(other),
            }
        }
        opening
    }

    /// Hands on what an item means. Whether a frame passes.
    pub(super) fn take(
        &mut self,
        item: PacketItem,
        now: Instant,
        status: &InputStatus,
        mut give: impl FnMut(Incoming),
    ) -> bool {
        let packet = match item {
            PacketItem::Rtp(packet) => packet,
            PacketItem::Rtcp(packet) => {
                self.report(&packet);
                return false;
            }
            _ => return false,
        };
        let (mut passes, mut unsaid) = (false, self.unsaid.take());
        self.packet(packet, now, status, |item| {
            if let Incoming::Frame(frame) = &item {
                passes = true;
                if frame.kind == Kind::Audio {
                    unsaid.take().into_iter().for_each(|track| give(Incoming::Track(track)));
                }
            }
            give(item);
        });
        self.unsaid = unsaid;
        passes
    }

    /// The session is over: hands on the pictures that wait for others.
    pub(super) fn finish(&mut self, now: Instant, status: &InputStatus, give: impl FnMut(Incoming)) {
        self.intake.finish(now, status, give);
    }

    fn packet(
        &mut self,
        packet: ReceivedPacket,
        now: Instant,
        status: &InputStatus,
        give: impl FnMut(Incoming),
    ) {
        let Some(medium) = self.medium(packet.stream_id()) else { return };
        let elapsed = packet.timestamp().elapsed();
        let header = packet.header();
        if self.ssrc(packet.stream_id()).is_none() {
            self.begins(medium, elapsed, now);
            self.begun.push((packet.stream_id(), header.ssrc()));
        }
        let mut ordered = Vec::new();
        if packet.loss() > 0 {
            ordered.push(Ordered::Lost(packet.loss().into()));
        }
        ordered.push(Ordered::Packet(Received {
            ssrc: header.ssrc(),
            payload_type: header.payload_type(),
            sequence: header.sequence_number(),
            // RTP time wraps.
            time: elapsed.wrapping_add(BEGIN) as u32,
            marker: header.mark(),
            payload: packet.into_payload_bytes(),
        }));
        self.intake.ordered(medium, ordered, now, status, give);
    }

    /// The first packet of a stream. Where the server said in `RTP-Info` which times belong together, all streams are
    /// counted from there; where it did not, each from its own first packet, and that lies at 0.
    fn begins(&mut self, medium: usize, elapsed: i64, now: Instant) {
        match (self.begun.is_empty(), elapsed, self.at_begin) {
            (true, 0, _) => {
                self.at_begin = Some(now);
                self.intake.begins(medium, BEGIN, now);
            }
            (true, ..) => self.intake.begins_at(BEGIN),
            (false, _, Some(at)) if elapsed != 0 && elapsed.unsigned_abs() <= FAR => {
                self.intake.begins(medium, BEGIN, at);
            }
            _ => {}
        }
    }

    /// A sender report says what time it is in the world.
    fn report(&mut self, packet: &ReceivedCompoundPacket) {
        let Some(medium) = self.medium(packet.stream_id()) else { return };
        let Some(time) = packet.rtp_timestamp() else { return };
        let mut reports = packet.pkts().filter_map(|packet| packet.as_sender_report().ok().flatten());
        // Some cameras' reports are of nothing that they send.
        let is_own = |ssrc| self.ssrc(packet.stream_id()).is_none_or(|own| own == ssrc);
        if let Some(report) = reports.next().filter(|report| is_own(report.ssrc())) {
            let ticks = time.elapsed().saturating_add(BEGIN);
            self.intake.report(medium, Ntp(report.ntp_timestamp().0), ticks);
        }
    }

    /// Of a stream's packets, once one has come.
    fn ssrc(&self, stream: usize) -> Option<u32> {
        self.begun.iter().find(|(begun, _)| *begun == stream).map(|(_, ssrc)| *ssrc)
    }

    fn medium(&self, stream: usize) -> Option<usize> {
        self.media.get(stream).copied().flatten()
    }
}
