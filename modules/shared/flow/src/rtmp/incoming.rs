//! From RTMP's messages to what a stream takes, and back where only RTMP understands them.

use std::sync::Arc;

use av_media::{Kind, Timestamp, Track};
use av_rtmp::chunk::Out;
use av_rtmp::{Egress, Extra, MediaItem, Metadata};
use bytes::Bytes;

use crate::stream::{Aside, Incoming, Tracks};

/// What only RTMP understands, as it comes out of a stream.
pub(super) enum Message {
    /// What the publisher says of its stream.
    Description(Arc<Description>),
    /// A message in its place among the frames, and its stream time.
    Passing(Arc<Body>, Timestamp),
}

/// What a publisher says of its stream beside the tracks. Who joins gets the newest.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Description {
    /// `onMetaData`.
    metadata: Option<Metadata>,
    /// Colours, layouts of channels, headers of other tracks: one for each slot.
    extras: Vec<Extra>,
}

/// The body of a message.
#[derive(Debug)]
pub(super) enum Body {
    /// A data message.
    Data(Bytes),
    /// An audio or video message that belongs to none of the two tracks.
    Extra(Kind, Bytes),
}

impl Message {
    /// `None`: it is of another protocol.
    pub(super) fn of(aside: &Aside) -> Option<Self> {
        match aside.content.clone().downcast::<Description>() {
            Ok(description) => Some(Self::Description(description)),
            Err(content) => Some(Self::Passing(content.downcast().ok()?, aside.time?)),
        }
    }
}

impl Body {
    /// Bytes of it.
    pub(super) const fn len(&self) -> usize {
        match self {
            Self::Data(body) | Self::Extra(_, body) => body.len(),
        }
    }

    /// Writes the message, unless it is of a kind that is not sent.
    pub(super) fn write(&self, egress: &Egress, out: &mut impl Out, tracks: &Tracks, timestamp: u32) {
        match self {
            Self::Data(body) => egress.data(out, body, timestamp),
            Self::Extra(kind, body) if tracks.get(*kind).is_some() => {
                egress.extra(out, *kind, body, timestamp);
            }
            Self::Extra(..) => {}
        }
    }
}

/// `onMetaData` as it is sent on: what the publisher said, completed from the tracks.
pub(super) fn completed(tracks: &Tracks, description: Option<&Description>) -> Bytes {
    let list: Vec<_> = tracks.iter().map(AsRef::as_ref).collect();
    Metadata::completed(description.and_then(|said| said.metadata.as_ref()), &list)
}

/// What a peer has to know before the first frame: metadata ([`completed`]), sequence headers, and what belongs to
/// them.
pub(super) fn write_headers(
    egress: &Egress,
    out: &mut impl Out,
    tracks: &Tracks,
    (description, metadata): (Option<&Description>, &Bytes),
    timestamp: u32,
) {
    egress.completed_metadata(out, metadata, timestamp);
    for track in tracks.iter() {
        egress.sequence_header(out, track, timestamp);
    }
    for extra in description.iter().flat_map(|said| &said.extras) {
        if tracks.get(extra.kind).is_some() {
            egress.extra(out, extra.kind, &extra.body, timestamp);
        }
    }
}

/// What one sender of RTMP gives.
#[derive(Debug, Default)]
pub(super) struct Intake {
    said: Option<Arc<Description>>,
    /// What the connection before this one said.
    before: Option<Arc<Description>>,
    /// The track of pictures as the stream knows it.
    video: Option<Track>,
}

impl Intake {
    /// Another connection begins.
    pub(super) fn reconnected(&mut self) {
        self.before = self.said.take().or(self.before.take());
        self.video = None;
    }

    /// Hands on what an item means.
    pub(super) fn take(&mut self, item: MediaItem, mut give: impl FnMut(Incoming)) {
        match item {
            MediaItem::Track(mut track) => {
                if track.kind() == Kind::Video {
                    complete(&mut track, self.metadata());
                    self.video = Some(track.clone());
                }
                give(Incoming::Track(track));
            }
            MediaItem::Frame(frame) => give(Incoming::Frame(frame)),
            MediaItem::Metadata(metadata) => {
                // Before what follows from it: the wait for another track may end with it.
                give(self.describe(|said| said.metadata = Some(metadata)));
                if let Some(mut video) = self.video.clone() {
                    let before = video.video;
                    complete(&mut video, self.metadata());
                    if video.video != before {
                        self.video = Some(video.clone());
                        give(Incoming::Track(video));
                    }
                }
                let expects = |kind| self.metadata().is_none_or(|said| !excludes(said, kind));
                give(Incoming::Expect { video: expects(Kind::Video), audio: expects(Kind::Audio) });
            }
            MediaItem::Data { timestamp_ms, payload } => give(passing(timestamp_ms, Body::Data(payload))),
            MediaItem::Extra(Extra { kind, timestamp_ms, body, slot: None }) => {
                give(passing(timestamp_ms, Body::Extra(kind, body)));
            }
            MediaItem::Extra(extra) => give(self.describe(|said| {
                // It is said again at any time.
                let extra = Extra { timestamp_ms: 0, ..extra };
                match said.extras.iter_mut().find(|known| known.slot == extra.slot) {
                    Some(known) => *known = extra,
                    None => said.extras.push(extra),
                }
            })),
            MediaItem::EndOfSequence(_) | MediaItem::Skipped { .. } => {}
        }
    }

    fn metadata(&self) -> Option<&Metadata> {
        self.said.as_ref()?.metadata.as_ref()
    }

    fn describe(&mut self, change: impl FnOnce(&mut Description)) -> Incoming {
        let mut next = self.said.as_deref().cloned().unwrap_or_default();
        change(&mut next);
        // The same description is the same aside, which streams do not pass on again.
        let known = self.said.iter().chain(&self.before).find(|known| ***known == next).cloned();
        let said = known.unwrap_or_else(|| Arc::new(next));
        self.said = Some(said.clone());
        let size = said.metadata.iter().map(|metadata| metadata.raw.len());
        let size = size.chain(said.extras.iter().map(|extra| extra.body.len())).sum();
        Incoming::Aside(Aside { time: None, content: said, size, keep_latest: true })
    }
}

fn passing(timestamp_ms: i64, body: Body) -> Incoming {
    Incoming::Aside(Aside {
        time: Some(Timestamp::from_millis(timestamp_ms)),
        size: body.len(),
        content: Arc::new(body),
        keep_latest: false,
    })
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
    use bytes::BytesMut;

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
        let Some(Message::Passing(out, time)) = Message::of(aside) else { panic!("not data") };
        assert!(matches!(&*out, Body::Data(out) if *out == payload));
        assert_eq!(time.millis(), 70);
        let foreign = Aside { content: Arc::new("SDP"), ..aside.clone() };
        assert!(Message::of(&foreign).is_none());
    }

    #[test]
    fn what_is_said_of_a_stream_is_one_description_that_changes_only_with_what_is_said() {
        let extra = |track, body: &'static [u8]| {
            let slot = Some(av_rtmp::Slot { kind: Kind::Video, packet_type: 4, track });
            let body = Bytes::from_static(body);
            MediaItem::Extra(Extra { kind: Kind::Video, timestamp_ms: 7, body, slot })
        };
        let mut intake = Intake::default();
        let mut said = |item| match &*taken(&mut intake, item) {
            [Incoming::Aside(aside), ..] => match Message::of(aside) {
                Some(Message::Description(said)) => said,
                _ => panic!("no description"),
            },
            items => panic!("{items:?}"),
        };
        said(extra(0, b"sdr"));
        said(MediaItem::Metadata(metadata()));
        let all = said(extra(1, b"other track"));
        assert_eq!((all.metadata.is_some(), all.extras.len()), (true, 2));
        assert!(Arc::ptr_eq(&all, &said(extra(1, b"other track"))));
        let changed = said(extra(0, b"hdr"));
        assert_eq!(
            changed.extras.iter().map(|extra| &extra.body[..]).collect::<Vec<_>>(),
            [&b"hdr"[..], b"other track"]
        );
    }

    #[test]
    fn headers_and_messages_of_a_kind_that_is_not_sent_stay_away() {
        let (egress, tracks) = (Egress::players(), Tracks::default());
        let mut out = BytesMut::new();
        Body::Extra(Kind::Audio, Bytes::from_static(b"\x94Opus")).write(&egress, &mut out, &tracks, 0);
        assert!(out.is_empty());
        let opus = Tracks { audio: Some(Arc::new(Track::other(Codec::Opus))), video: None };
        Body::Extra(Kind::Audio, Bytes::from_static(b"\x94Opus")).write(&egress, &mut out, &opus, 0);
        assert!(out.ends_with(b"\x94Opus"));
    }
}
