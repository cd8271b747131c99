//! From a camera's frames to what a stream takes.

use std::num::NonZeroU32;

use av_media::{AudioFormat, Codec, Frame, Kind, Timestamp, Track};
use bytes::Bytes;
use retina::client::Demuxed;
use retina::codec::{AudioFrame, CodecItem, ParametersRef, VideoFrame};

use super::decode_order::DecodeOrder;
use super::source::Source;
use crate::stream::{Incoming, InputStatus, LeftOut, Skip};

/// One session's tracks.
pub(super) struct Intake {
    video: Option<Video>,
    audio: Option<Audio>,
}

struct Video {
    index: usize,
    /// The configuration that the stream was told.
    told: Option<Bytes>,
    order: DecodeOrder,
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
        Self {
            video: video.map(|index| Video {
                index,
                told: None,
                order: DecodeOrder::default(),
                damaged: false,
            }),
            audio: audio.map(|index| Audio { index, told: false }),
        }
    }

    /// Hands on what an item means. Whether it was a frame that passes.
    pub(super) fn take(
        &mut self,
        item: CodecItem,
        demuxed: &Demuxed,
        status: &InputStatus,
        give: impl FnMut(Incoming),
    ) -> bool {
        match item {
            CodecItem::VideoFrame(frame) => {
                let video = self.video.as_mut().filter(|video| video.index == frame.stream_id());
                video.is_some_and(|video| video.take(frame, demuxed, status, give))
            }
            CodecItem::AudioFrame(frame) => {
                let audio = self.audio.as_mut().filter(|audio| audio.index == frame.stream_id());
                audio.is_some_and(|audio| audio.take(&frame, demuxed, status, give))
            }
            _ => false,
        }
    }
}

impl Video {
    fn take(
        &mut self,
        frame: VideoFrame,
        demuxed: &Demuxed,
        status: &InputStatus,
        mut give: impl FnMut(Incoming),
    ) -> bool {
        let is_sync = frame.is_random_access_point();
        self.damaged = (self.damaged || (frame.loss() > 0 && self.told.is_some())) && !is_sync;
        if self.damaged {
            status.skipped.add(Skip::BeforeSync, 1);
            status.said.note("lost packets on the way: pictures are left out up to the next key frame");
            return false;
        }
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
                    self.order.expect(&track);
                    track.video.fps = track.video.fps.or(stream.framerate().map(f64::from));
                    self.told = Some(config);
                    give(Incoming::Track(track));
                }
                Err(error) => status.said.note(&format!("sends parameter sets that are malformed: {error}")),
            }
        }
        if self.told.is_none() {
            // Neither the description nor the stream has told how it is coded.
            status.skipped.add(Skip::BeforeSync, 1);
            return false;
        }
        let pts = time(frame.timestamp());
        let dts = self.order.decode_time(pts);
        let data = Bytes::from(frame.into_data());
        give(Incoming::Frame(Frame { kind: Kind::Video, dts, pts: pts.max(dts), is_sync, data }));
        true
    }
}

impl Audio {
    fn take(
        &mut self,
        frame: &AudioFrame,
        demuxed: &Demuxed,
        status: &InputStatus,
        mut give: impl FnMut(Incoming),
    ) -> bool {
        if !self.told {
            let Some(stream) = demuxed.streams().get(self.index) else { return false };
            let Some(ParametersRef::Audio(parameters)) = stream.parameters() else {
                status.skipped.add(Skip::BeforeSync, 1);
                return false;
            };
            let format =
                AudioFormat { sample_rate: parameters.clock_rate(), channels: parameters.channels().get() };
            let track = match stream.encoding_name() {
                "pcma" => Ok(Track { audio: format, ..Track::other(Codec::PcmA) }),
                "pcmu" => Ok(Track { audio: format, ..Track::other(Codec::PcmU) }),
                _ => Track::aac(Bytes::copy_from_slice(parameters.extra_data())),
            };
            match track {
                Ok(track) => give(Incoming::Track(track)),
                Err(error) => {
                    let dropped = format!("its configuration is malformed: {error}");
                    let codec = stream.encoding_name().to_owned();
                    status.leave_out(Kind::Audio, Some(LeftOut { codec, dropped }));
                    status.skipped.add(Skip::Malformed, 1);
                    return false;
                }
            }
            self.told = true;
        }
        let time = time(frame.timestamp());
        let data = Bytes::copy_from_slice(frame.data());
        give(Incoming::Frame(Frame { kind: Kind::Audio, dts: time, pts: time, is_sync: true, data }));
        true
    }
}

/// Time since the moment that `RTP-Info` names for all tracks, or since the track's first packet where it does not.
fn time(timestamp: retina::Timestamp) -> Timestamp {
    let rate: NonZeroU32 = timestamp.clock_rate();
    Timestamp::from_ticks(timestamp.elapsed(), rate)
}
