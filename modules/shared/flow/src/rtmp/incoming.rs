//! From RTMP's messages to what a stream takes, and back where only RTMP understands them.

use std::sync::Arc;

use av_media::{Kind, Timestamp, Track};
use av_rtmp::{MediaItem, Metadata};
use bytes::Bytes;

use crate::stream::{Aside, Incoming};

/// A message that only RTMP understands, as it comes out of a stream.
pub(super) enum Message {
    /// `onMetaData`.
    Metadata(Arc<Metadata>),
    /// Another data message: its body, and its stream time.
    Data(Bytes, Timestamp),
}

/// What is kept in a stream for [`Message::Data`].
struct Data(Bytes);

impl Message {
    /// `None`: it is of another protocol.
    pub(super) fn of(aside: &Aside) -> Option<Self> {
        if let Ok(metadata) = aside.content.clone().downcast::<Metadata>() {
            return Some(Self::Metadata(metadata));
        }
        let Data(payload) = aside.content.downcast_ref()?;
        Some(Self::Data(payload.clone(), aside.time?))
    }
}

/// What one sender of RTMP gives.
#[derive(Debug, Default)]
pub(super) struct Intake {
    metadata: Option<Arc<Metadata>>,
    /// What the connection before this one said.
    before: Option<Arc<Metadata>>,
    /// The track of pictures as the stream knows it.
    video: Option<Track>,
}

impl Intake {
    /// Another connection begins.
    pub(super) fn reconnected(&mut self) {
        self.before = self.metadata.take().or(self.before.take());
        self.video = None;
    }

    /// Hands on what an item means.
    pub(super) fn take(&mut self, item: MediaItem, mut give: impl FnMut(Incoming)) {
        match item {
            MediaItem::Track(mut track) => {
                if track.kind() == Kind::Video {
                    complete(&mut track, self.metadata.as_deref());
                    self.video = Some(track.clone());
                }
                give(Incoming::Track(track));
            }
            MediaItem::Frame(frame) => give(Incoming::Frame(frame)),
            MediaItem::Metadata(metadata) => self.metadata(metadata, give),
            MediaItem::Data { timestamp_ms, payload } => give(Incoming::Aside(Aside {
                time: Some(Timestamp::from_millis(timestamp_ms)),
                size: payload.len(),
                content: Arc::new(Data(payload)),
                keep_latest: false,
            })),
            _ => {}
        }
    }

    fn metadata(&mut self, metadata: Metadata, mut give: impl FnMut(Incoming)) {
        let size = metadata.raw.len();
        // The same message is the same aside, which streams do not pass on again.
        let known = self.metadata.take().or(self.before.take()).filter(|known| **known == metadata);
        let metadata = known.unwrap_or_else(|| Arc::new(metadata));
        self.metadata = Some(metadata.clone());
        // Before what follows from it: the wait for another track may end with it.
        give(Incoming::Aside(Aside { time: None, content: metadata.clone(), size, keep_latest: true }));
        if let Some(video) = &mut self.video {
            let before = video.video;
            complete(video, Some(&metadata));
            if video.video != before {
                give(Incoming::Track(video.clone()));
            }
        }
        let expects = |kind| !excludes(&metadata, kind);
        give(Incoming::Expect { video: expects(Kind::Video), audio: expects(Kind::Audio) });
    }
}

/// What the parameter sets leave open is taken from `onMetaData`.
fn complete(track: &mut Track, metadata: Option<&Metadata>) {
    let Some(metadata) = metadata else { return };
    let format = &mut track.video;
    // Positive, and a fraction is cut.
    let whole = |said: Option<f64>| said.unwrap_or_default() as u32;
    if format.width == 0 {
        format.width = whole(metadata.width);
    }
    if format.height == 0 {
        format.height = whole(metadata.height);
    }
    format.fps = format.fps.or(metadata.framerate);
}

/// Whether `onMetaData` speaks of the other kind only, or denies this one.
fn excludes(metadata: &Metadata, kind: Kind) -> bool {
    let (video, audio) = (metadata.video_codec.is_some(), metadata.audio_codec.is_some());
    match kind {
        Kind::Video => {
            metadata.has_video == Some(false) || (audio && !video && metadata.has_video != Some(true))
        }
        Kind::Audio => {
            metadata.has_audio == Some(false) || (video && !audio && metadata.has_audio != Some(true))
        }
    }
}

#[cfg(test)]
mod tests {
    use av_media::{Codec, VideoFormat};

    use super::*;

    fn taken(intake: &mut Intake, item: MediaItem) -> Vec<Incoming> {
        let mut out = Vec::new();
        intake.take(item, |item| out.push(item));
        out
    }

    fn metadata() -> Metadata {
        Metadata { width: Some(640.0), height: Some(360.0), framerate: Some(25.0), ..Metadata::default() }
    }

    #[test]
    fn size_and_rate_that_only_the_metadata_says_are_the_tracks_whichever_comes_first() {
        let vp8 = Track::other(Codec::Vp8);
        let whole = VideoFormat { width: 640, height: 360, fps: Some(25.0) };
        let mut intake = Intake::default();
        taken(&mut intake, MediaItem::Metadata(metadata()));
        let [Incoming::Track(track)] = &*taken(&mut intake, MediaItem::Track(vp8.clone())) else { panic!() };
        assert_eq!(track.video, whole);

        let mut intake = Intake::default();
        taken(&mut intake, MediaItem::Track(vp8.clone()));
        let items = taken(&mut intake, MediaItem::Metadata(metadata()));
        let [Incoming::Aside(_), Incoming::Track(track), Incoming::Expect { .. }] = &*items else { panic!() };
        assert_eq!(track.video, whole);
        assert!(track.decodes_like(&vp8));
    }

    #[test]
    fn what_the_parameter_sets_say_holds_against_the_metadata() {
        let mut track = Track::other(Codec::H264);
        track.video = VideoFormat { width: 1280, height: 720, fps: Some(30.0) };
        let mut intake = Intake::default();
        taken(&mut intake, MediaItem::Track(track.clone()));
        let items = taken(&mut intake, MediaItem::Metadata(metadata()));
        assert!(matches!(&*items, [Incoming::Aside(_), Incoming::Expect { .. }]), "{items:?}");
        // The same once more is the same.
        assert_eq!(taken(&mut intake, MediaItem::Metadata(metadata())), items);
    }

    #[test]
    fn messages_of_rtmp_come_out_as_they_went_in_and_others_are_passed_over() {
        let mut intake = Intake::default();
        let payload = Bytes::from_static(b"onText");
        let items = taken(&mut intake, MediaItem::Data { timestamp_ms: 70, payload: payload.clone() });
        let [Incoming::Aside(aside)] = &*items else { panic!("{items:?}") };
        let Some(Message::Data(out, time)) = Message::of(aside) else { panic!("not data") };
        assert_eq!((out, time.millis()), (payload, 70));
        let foreign = Aside { content: Arc::new("SDP"), ..aside.clone() };
        assert!(Message::of(&foreign).is_none());
    }
}
