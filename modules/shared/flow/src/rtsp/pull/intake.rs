//! From a camera's frames to what a stream takes: one timeline for its tracks, and decoding times for its pictures.

use std::time::Instant;

use av_media::{AudioFormat, Codec, Frame, Kind, Timestamp, Track};
use av_rtsp::clock::Clock;
use av_rtsp::order::DecodeOrder;
use av_rtsp::rtcp::Ntp;
use bytes::Bytes;
use retina::client::Demuxed;
use retina::codec::{AudioFrame, CodecItem, ParametersRef, VideoFrame};
use retina::rtcp::ReceivedCompoundPacket;

use super::source::Source;
use crate::rtsp::intake::wall_clock;
use crate::stream::{Incoming, InputStatus, LeftOut, Skip};

/// One session's tracks.
pub(super) struct Intake {
    clock: Clock<Piece>,
    /// Since when arrivals are counted.
    began: Instant,
    /// A frame has come.
    begun: bool,
    video: Option<Video>,
    audio: Option<Audio>,
    /// What the clock gave, and the order of decoding.
    timed: Vec<(Timestamp, Piece)>,
    ordered: Vec<(Timestamp, Timestamp, Picture)>,
    /// Frames that both left out so far.
    left_out: u64,
}

/// What waits for its time.
enum Piece {
    Picture(Option<Track>, Picture),
    Sound(Option<Track>, Bytes),
}

struct Picture {
    data: Bytes,
    is_sync: bool,
}

struct Video {
    index: usize,
    /// The configuration that the stream was told.
    told: Option<Bytes>,
    order: DecodeOrder<Picture>,
    /// Packets are missing: pictures up to the next key frame would show it.
    damaged: bool,
}

struct Audio {
    index: usize,
    told: bool,
}

impl Intake {
    /// For a session that begins.
    pub(super) fn new(source: &Source) -> Self {
        let [video, audio] = source.taken;
        let rate = |index: Option<usize>| {
            let stream = source.demuxed.streams().get(index?)?;
            std::num::NonZeroU32::new(stream.clock_rate_hz())
        };
        Self {
            clock: Clock::new(rate(video), rate(audio)),
            began: Instant::now(),
            begun: false,
            video: video.map(|index| Video {
                index,
                told: None,
                order: DecodeOrder::default(),
                damaged: false,
            }),
            audio: audio.map(|index| Audio { index, told: false }),
            timed: Vec::new(),
            ordered: Vec::new(),
            left_out: 0,
        }
    }

    /// Hands on what an item means. Whether it was a frame that passes.
    pub(super) fn take(
        &mut self,
        item: CodecItem,
        demuxed: &Demuxed,
        status: &InputStatus,
        mut give: impl FnMut(Incoming),
    ) -> bool {
        let (kind, time, piece) = match item {
            CodecItem::VideoFrame(frame) => {
                let video = self.video.as_mut().filter(|video| video.index == frame.stream_id());
                let time = frame.timestamp();
                (Kind::Video, time, video.and_then(|video| video.piece(frame, demuxed, status)))
            }
            CodecItem::AudioFrame(frame) => {
                let audio = self.audio.as_mut().filter(|audio| audio.index == frame.stream_id());
                let time = frame.timestamp();
                (Kind::Audio, time, audio.and_then(|audio| audio.piece(&frame, demuxed, status)))
            }
            CodecItem::Rtcp(packet) => {
                self.report(&packet).into_iter().for_each(give);
                return false;
            }
            _ => return false,
        };
        let Some(piece) = piece else { return false };
        let ticks = time.elapsed();
        if !std::mem::replace(&mut self.begun, true) && ticks != 0 {
            // Counted from what `RTP-Info` says of all tracks. At 0 it may as well be the track's own first packet.
            self.clock.info(Kind::Video, 0);
            self.clock.info(Kind::Audio, 0);
        }
        let arrival = i64::try_from(self.began.elapsed().as_nanos()).unwrap_or(i64::MAX);
        self.clock.push(kind, ticks, Timestamp::from_nanos(arrival), piece, &mut self.timed);
        let passes = self.give(&mut give);
        self.count(status);
        passes
    }

    /// The session is over: hands on the pictures that wait for others.
    pub(super) fn finish(&mut self, give: impl FnMut(Incoming)) {
        if let Some(video) = &mut self.video {
            video.order.flush(&mut self.ordered);
        }
        self.ordered.drain(..).map(frame).for_each(give);
    }

    fn give(&mut self, give: &mut impl FnMut(Incoming)) -> bool {
        let mut passes = false;
        for (time, piece) in self.timed.drain(..) {
            match piece {
                Piece::Picture(track, picture) => {
                    let Some(video) = &mut self.video else { continue };
                    if let Some(track) = track {
                        video.order.flush(&mut self.ordered);
                        passes |= !self.ordered.is_empty();
                        self.ordered.drain(..).for_each(|picture| give(frame(picture)));
                        video.order.set_track(&track);
                        give(Incoming::Track(track));
                    }
                    let is_sync = picture.is_sync;
                    video.order.push(time, is_sync, picture, &mut self.ordered);
                    passes |= !self.ordered.is_empty();
                    self.ordered.drain(..).for_each(|picture| give(frame(picture)));
                }
                Piece::Sound(track, data) => {
                    track.into_iter().for_each(|track| give(Incoming::Track(track)));
                    let frame = Frame { kind: Kind::Audio, dts: time, pts: time, is_sync: true, data };
                    give(Incoming::Frame(frame));
                    passes = true;
                }
            }
        }
        passes
    }

    /// Counts what has no place on the timeline.
    fn count(&mut self, status: &InputStatus) {
        let order = self.video.as_ref().map_or(0, |video| video.order.left_out());
        let left_out = self.clock.left_out() + order;
        if left_out > self.left_out {
            status.skipped.add(Skip::Malformed, left_out - self.left_out);
            status.said.note("sends frames whose times fit nothing else: they are left out");
            self.left_out = left_out;
        }
    }

    /// A sender report says what time it is in the world.
    fn report(&mut self, packet: &ReceivedCompoundPacket) -> Option<Incoming> {
        let is = |index: Option<usize>| index == Some(packet.stream_id());
        let kind = if is(self.video.as_ref().map(|video| video.index)) {
            Kind::Video
        } else if is(self.audio.as_ref().map(|audio| audio.index)) {
            Kind::Audio
        } else {
            return None;
        };
        let time = packet.rtp_timestamp()?;
        let mut reports = packet.pkts().filter_map(|packet| packet.as_sender_report().ok().flatten());
        let report = reports.next()?;
        self.clock.report(kind, Ntp(report.ntp_timestamp().0), time.elapsed());
        wall_clock(&self.clock)
    }
}

fn frame((pts, dts, picture): (Timestamp, Timestamp, Picture)) -> Incoming {
    Incoming::Frame(Frame { kind: Kind::Video, dts, pts, is_sync: picture.is_sync, data: picture.data })
}

impl Video {
    fn piece(&mut self, frame: VideoFrame, demuxed: &Demuxed, status: &InputStatus) -> Option<Piece> {
        let is_sync = frame.is_random_access_point();
        self.damaged = (self.damaged || (frame.loss() > 0 && self.told.is_some())) && !is_sync;
        if self.damaged {
            status.skipped.add(Skip::BeforeSync, 1);
            status.said.note("lost packets on the way: pictures are left out up to the next key frame");
            return None;
        }
        let mut told = None;
        let stream = demuxed.streams().get(self.index);
        if (self.told.is_none() || frame.has_new_parameters())
            && let Some(stream) = stream
            && let Some(ParametersRef::Video(parameters)) = stream.parameters()
            && self.told.as_deref() != Some(parameters.extra_data())
        {
            let config = Bytes::copy_from_slice(parameters.extra_data());
            let track = match stream.encoding_name() {
                "h264" => Track::h264(config.clone()),
                _ => Track::h265(config.clone()),
            };
            match track {
                Ok(mut track) => {
                    track.video.fps = track.video.fps.or(stream.framerate().map(f64::from));
                    self.told = Some(config);
                    told = Some(track);
                }
                Err(error) => status.said.note(&format!("sends parameter sets that are malformed: {error}")),
            }
        }
        if self.told.is_none() {
            // Neither the description nor the stream has told how it is coded.
            status.skipped.add(Skip::BeforeSync, 1);
            return None;
        }
        Some(Piece::Picture(told, Picture { data: frame.into_data().into(), is_sync }))
    }
}

impl Audio {
    fn piece(&mut self, frame: &AudioFrame, demuxed: &Demuxed, status: &InputStatus) -> Option<Piece> {
        let data = Bytes::copy_from_slice(frame.data());
        if self.told {
            return Some(Piece::Sound(None, data));
        }
        let stream = demuxed.streams().get(self.index)?;
        let Some(ParametersRef::Audio(parameters)) = stream.parameters() else {
            status.skipped.add(Skip::BeforeSync, 1);
            return None;
        };
        let format =
            AudioFormat { sample_rate: parameters.clock_rate(), channels: parameters.channels().get() };
        let track = match stream.encoding_name() {
            "pcma" => Ok(Track { audio: format, ..Track::other(Codec::PcmA) }),
            "pcmu" => Ok(Track { audio: format, ..Track::other(Codec::PcmU) }),
            _ => Track::aac(Bytes::copy_from_slice(parameters.extra_data())),
        };
        match track {
            Ok(track) => {
                self.told = true;
                Some(Piece::Sound(Some(track), data))
            }
            Err(error) => {
                let dropped = format!("its configuration is malformed: {error}");
                let codec = stream.encoding_name().to_owned();
                status.leave_out(Kind::Audio, Some(LeftOut { codec, dropped }));
                status.skipped.add(Skip::Malformed, 1);
                None
            }
        }
    }
}
