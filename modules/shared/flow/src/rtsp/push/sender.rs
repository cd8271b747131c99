//! From a stream's entries to the bytes that go to a target.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use av_media::{Frame, Kind};
use av_rtsp::rtcp::ReportSchedule;
use bytes::{Buf, Bytes, BytesMut};
use prometheus::Histogram;

use crate::endpoint::OutputContext;
use crate::rtsp::described::Layout;
use crate::rtsp::lanes::Lanes;
use crate::rtsp::reports;
use crate::stream::{Entry, Item, OutputStatus, Tracks};

/// While more waits to be written, nothing is added.
const ROOM: usize = 256 * 1024;

/// Makes packets for one connection.
pub(super) struct Sender {
    lanes: Lanes,
    /// The channels of each kind.
    layout: Layout,
    status: Arc<OutputStatus>,
    latency: [Histogram; 2],
    schedule: ReportSchedule,
    began: Instant,
    /// Packets in RTSP's framing, the first perhaps half written.
    out: BytesMut,
    /// The writer may hold bytes back (TLS) until it is flushed.
    unflushed: bool,
    /// Arrival of the newest picture and sound in `out`.
    arrived: [Option<Instant>; 2],
    pub(super) sent_media: bool,
    /// The stream ended; nothing more is taken.
    pub(super) is_over: bool,
}

impl Sender {
    /// For tracks that were described. `protocol`: for the metric of latency.
    pub(super) fn new(lanes: Lanes, layout: Layout, output: &OutputContext, protocol: &str) -> Self {
        Self {
            lanes,
            layout,
            status: output.status.clone(),
            latency: output.module.latency(protocol),
            schedule: ReportSchedule::default(),
            began: Instant::now(),
            out: BytesMut::new(),
            unflushed: false,
            arrived: [None; 2],
            sent_media: false,
            is_over: false,
        }
    }

    /// Something the session has to say: between whole packets, as `out` always is at its end.
    pub(super) fn control(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Takes what is sent from here on. Whether what the target was told of it still holds.
    pub(super) fn tracks(&mut self, tracks: &Tracks) -> bool {
        let holds = self.lanes.go_on(tracks);
        if holds {
            self.lanes.lay(tracks);
        }
        holds
    }

    /// Serialises an entry.
    pub(super) fn take(&mut self, entry: &Entry) {
        match &entry.item {
            Item::Frame(frame) => self.frame(frame, entry.arrived.into_std()),
            Item::Anchor(anchor) => self.lanes.anchor = Some(*anchor),
            Item::Gap(gap) => self.lanes.anchor = Some(gap.anchor),
            Item::Lost(lost) => {
                for kind in [Kind::Video, Kind::Audio] {
                    self.status.dropped.add(kind, lost.get(kind));
                }
            }
            Item::Ended => self.is_over = true,
            _ => {}
        }
    }

    fn frame(&mut self, frame: &Frame, arrived: Instant) {
        let packets = self.lanes.pack(frame);
        let Some((channel, _)) = self.layout.get(frame.kind).filter(|_| !packets.is_empty()) else {
            self.status.dropped.add(frame.kind, 1);
            return;
        };
        // A target's clock starts with the first report.
        self.report(Instant::now());
        for packet in packets {
            packet
                .on_channel(channel)
                .interleaved()
                .into_iter()
                .for_each(|part| self.out.extend_from_slice(part));
        }
        self.status.frames.add(frame.kind, 1);
        self.sent_media = true;
        let [picture, sound] = &mut self.arrived;
        *(if frame.kind == Kind::Video { picture } else { sound }) = Some(arrived);
    }

    /// When the next report is due.
    pub(super) fn report_at(&self) -> Option<Instant> {
        let due = self.schedule.due(false).filter(|_| self.lanes.is_running())?;
        self.began.checked_add(due)
    }

    /// Says what time it is, where that is due.
    pub(super) fn report(&mut self, now: Instant) {
        let now = now.saturating_duration_since(self.began);
        if !self.lanes.is_running() || !self.schedule.is_due(now, false) {
            return;
        }
        for (kind, report) in self.lanes.reports() {
            if let Some((_, channel)) = self.layout.get(kind) {
                self.out.extend_from_slice(&reports::report(channel, &report));
            }
        }
        self.schedule.sent(now);
    }

    /// An entry that was taken from the stream and will not be sent.
    pub(super) fn dropped(&self, entry: &Entry) {
        if let Item::Frame(frame) = &entry.item {
            self.status.dropped.add(frame.kind, 1);
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.out.len() < ROOM && !self.is_over
    }

    /// Whether there is something to write, or to flush.
    pub(super) fn must_write(&self) -> bool {
        !self.out.is_empty() || self.unflushed
    }

    /// What has to be written; empty when it only has to be flushed.
    pub(super) fn pending(&self) -> &[u8] {
        &self.out
    }

    /// So much of it is written; 0: flushed.
    pub(super) fn written(&mut self, bytes: usize, now: Instant) {
        if bytes == 0 {
            self.unflushed = false;
            return;
        }
        self.unflushed = true;
        self.status.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.out.advance(bytes.min(self.out.len()));
        if self.out.is_empty() {
            for (arrived, histogram) in self.arrived.iter_mut().zip(&self.latency) {
                // Frames from before the connection waited for it, not in here.
                if let Some(arrived) = arrived.take().filter(|arrived| *arrived >= self.began) {
                    let delay = now.saturating_duration_since(arrived);
                    self.status.latency.observe(delay);
                    histogram.observe(delay.as_secs_f64());
                }
            }
        }
    }

    /// What is left to be written, and that the sources leave.
    pub(super) fn into_pending(mut self) -> Bytes {
        for kind in [Kind::Video, Kind::Audio] {
            if let Some((_, channel)) = self.layout.get(kind) {
                self.out.extend_from_slice(&reports::bye(channel, self.lanes.chosen(kind).ssrc));
            }
        }
        self.out.freeze()
    }
}
