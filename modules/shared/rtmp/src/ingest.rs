//! Audio, video and data messages to tracks, frames and metadata.

use av_media::h264::{self, AvcConfig};
use av_media::h265::HevcConfig;
use av_media::{AudioFormat, Codec, Frame, Kind, RtmpFraming, Timestamp, Track};
use bytes::Bytes;

use crate::amf0::{AmfError, Reader, Value};
use crate::chunk::RawMessage;
use crate::flv::{self, FlvError, Tag};
use crate::message::{AUDIO, Message, VIDEO, split_aggregate};
use crate::{Extra, MediaItem, Metadata, RtmpError, SkipReason, Slot};

/// So many malformed messages, and nothing good between them, are no oddity any more.
const MAX_MALFORMED: u32 = 100;
/// Longest `onMetaData` that is kept for who joins: an index of all key frames of a long file is in there.
const MAX_METADATA: usize = 1 << 20;
/// What else is kept for who joins: how many messages of one sender, and how long each.
const MAX_SLOTS: usize = 32;
const MAX_SLOT_BYTES: usize = 16 << 10;

/// One sender's media, in order.
#[derive(Debug, Default)]
pub(crate) struct Ingest {
    clock: WireClock,
    /// The codec whose configuration was given last, of each kind.
    video: Option<Codec>,
    audio: Option<Codec>,
    /// Number 7 means H.265 here.
    seven_is_h265: bool,
    slots: Vec<Slot>,
    /// Malformed messages since the last good one.
    malformed: u32,
}

impl Ingest {
    /// Reads a message of type audio, video, data or aggregate; other types are none of its business. A malformed
    /// one is left out.
    ///
    /// # Errors
    ///
    /// [`RtmpError::NothingGood`]: too many were left out in a row.
    pub(crate) fn message(
        &mut self,
        raw: &RawMessage,
        give: &mut impl FnMut(MediaItem),
    ) -> Result<(), RtmpError> {
        let kind = match raw.type_id {
            VIDEO => Some(Kind::Video),
            AUDIO => Some(Kind::Audio),
            _ => None,
        };
        self.read(raw, give).or_else(|error| self.leave_out(kind, error, give))
    }

    /// Leaves a malformed message out.
    ///
    /// # Errors
    ///
    /// [`RtmpError::NothingGood`]: too many were left out in a row.
    pub(crate) fn leave_out(
        &mut self,
        kind: Option<Kind>,
        error: RtmpError,
        give: &mut impl FnMut(MediaItem),
    ) -> Result<(), RtmpError> {
        if matches!(error, RtmpError::NothingGood { .. }) {
            return Err(error);
        }
        self.malformed += 1;
        if self.malformed >= MAX_MALFORMED {
            return Err(RtmpError::NothingGood { count: self.malformed, last: Box::new(error) });
        }
        skip(SkipReason::Malformed { kind, error }, give);
        Ok(())
    }

    fn read(&mut self, raw: &RawMessage, give: &mut impl FnMut(MediaItem)) -> Result<(), RtmpError> {
        match Message::parse(raw)? {
            Message::Video(body) => self.tag(raw.timestamp, flv::parse_video(&body)?, give)?,
            Message::Audio(body) => self.tag(raw.timestamp, flv::parse_audio(&body)?, give)?,
            Message::Data(payload) => {
                let amf = |source| RtmpError::Amf { type_id: raw.type_id, source };
                match self.data(raw.timestamp, payload).map_err(amf)? {
                    Some(item @ MediaItem::Skipped { .. }) => give(item),
                    Some(item) => self.good(item, give),
                    None => {}
                }
            }
            Message::Aggregate(_) => split_aggregate(raw, |part| match part.type_id {
                // An aggregate inside an aggregate is not defined.
                22 => Ok(()),
                _ => self.message(&part, give),
            })?,
            _ => {}
        }
        Ok(())
    }

    fn tag(&mut self, timestamp: u32, tag: Tag, give: &mut impl FnMut(MediaItem)) -> Result<(), FlvError> {
        match tag {
            Tag::SequenceHeader { codec, framing, config } => {
                // Some encoders send an empty header at the end of a stream.
                if config.is_empty() && needs_configuration(codec) {
                    skip(SkipReason::Empty(codec.kind()), give);
                    return Ok(());
                }
                let is_h265 = codec == Codec::H264 && is_hvcc(&config);
                let (codec, framing) = if is_h265 { as_h265(framing) } else { (codec, framing) };
                let track = track(codec, framing, config)?;
                if codec.kind() == Kind::Video {
                    self.seven_is_h265 = is_h265;
                }
                *self.slot(codec.kind()) = Some(codec);
                // Encoders often say 0 here, whatever the time is: the clock starts with a frame.
                self.good(MediaItem::Track(track), give);
            }
            Tag::Frame { codec, framing, is_sync, composition_ms, audio, data } => {
                let is_h265 = codec == Codec::H264 && self.seven_is_h265;
                let (codec, framing) = if is_h265 { as_h265(framing) } else { (codec, framing) };
                if *self.slot(codec.kind()) != Some(codec) {
                    if needs_configuration(codec) {
                        skip(SkipReason::NoSequenceHeader(codec), give);
                        return Ok(());
                    }
                    let mut track = track(codec, framing, Bytes::new())?;
                    if audio != AudioFormat::default() {
                        track.audio = audio;
                    }
                    *self.slot(codec.kind()) = Some(codec);
                    give(MediaItem::Track(track));
                }
                let dts = self.clock.unwrap(timestamp);
                let frame = Frame {
                    kind: codec.kind(),
                    dts: Timestamp::from_millis(dts),
                    pts: Timestamp::from_millis(dts.saturating_add(i64::from(composition_ms))),
                    is_sync,
                    data,
                };
                self.good(MediaItem::Frame(frame), give);
            }
            Tag::End(codec) => give(MediaItem::EndOfSequence(codec.kind())),
            Tag::Extra { kind, slot, body } => match slot.map(|slot| self.keep(slot, &body)) {
                Some(Err(reason)) => skip(reason, give),
                _ => {
                    let timestamp_ms = self.clock.peek(timestamp);
                    self.good(MediaItem::Extra(Extra { kind, timestamp_ms, body, slot }), give);
                }
            },
            Tag::Several(tags) => {
                for tag in tags {
                    self.tag(timestamp, tag, give)?;
                }
            }
            Tag::Skipped(reason) => skip(reason, give),
        }
        Ok(())
    }

    fn good(&mut self, item: MediaItem, give: &mut impl FnMut(MediaItem)) {
        self.malformed = 0;
        give(item);
    }

    /// Whether what is kept for who joins stays within its bounds.
    fn keep(&mut self, slot: Slot, body: &Bytes) -> Result<(), SkipReason> {
        let (length, limit) = (body.len(), MAX_SLOT_BYTES);
        if length > limit {
            return Err(SkipReason::TooLarge { what: "configuration beside the tracks", length, limit });
        }
        if !self.slots.contains(&slot) {
            if self.slots.len() >= MAX_SLOTS {
                let (length, limit) = (self.slots.len() + 1, MAX_SLOTS);
                return Err(SkipReason::TooMany {
                    what: "configurations beside the tracks",
                    count: length,
                    limit,
                });
            }
            self.slots.push(slot);
        }
        Ok(())
    }

    const fn slot(&mut self, kind: Kind) -> &mut Option<Codec> {
        match kind {
            Kind::Video => &mut self.video,
            Kind::Audio => &mut self.audio,
        }
    }

    /// A data message: the name of a handler and its arguments. `@setDataFrame` asks the server to keep what
    /// follows, and is not passed on; `|RtmpSampleAccess` concerns this connection only.
    fn data(&self, timestamp: u32, mut payload: Bytes) -> Result<Option<MediaItem>, AmfError> {
        let mut reader = Reader::new(&payload);
        let Some(mut name) = reader.value()? else { return Ok(None) };
        if name.as_str() == Some("@setDataFrame") {
            payload = payload.slice(reader.position()..);
            reader = Reader::new(&payload);
            let Some(next) = reader.value()? else { return Ok(None) };
            name = next;
        }
        Ok(match name {
            Value::String(name) if name == "onMetaData" => {
                let value = payload.slice(reader.position()..);
                let (length, limit) = (value.len(), MAX_METADATA);
                Some(if length > limit {
                    let reason = SkipReason::TooLarge { what: "onMetaData", length, limit };
                    MediaItem::Skipped { reason, count: 1 }
                } else {
                    MediaItem::Metadata(Metadata::parse(&value)?)
                })
            }
            Value::String(name)
                if matches!(
                    name.as_str(),
                    "|RtmpSampleAccess" | "onStatus" | "onPlayStatus" | "@clearDataFrame"
                ) =>
            {
                None
            }
            _ => Some(MediaItem::Data { timestamp_ms: self.clock.peek(timestamp), payload }),
        })
    }
}

fn skip(reason: SkipReason, give: &mut impl FnMut(MediaItem)) {
    give(MediaItem::Skipped { reason, count: 1 });
}

/// How H.265 that was called H.264 is carried on.
const fn as_h265(framing: RtmpFraming) -> (Codec, RtmpFraming) {
    match framing {
        RtmpFraming::Enhanced => (Codec::H265, framing),
        _ => (Codec::H265, RtmpFraming::ClassicAsH264),
    }
}

/// Whether a configuration that came as H.264's is an `hvcC` (ISO/IEC 14496-15 §8.3.3.1). Both begin with a version
/// of 1; an `avcC` holds an SPS of H.264, an `hvcC` has its reserved bits elsewhere.
fn is_hvcc(config: &Bytes) -> bool {
    let avc = AvcConfig::parse(config.clone());
    if avc.is_ok_and(|avc| avc.sps.iter().any(|sps| h264::nal_type(sps) == h264::NAL_SPS)) {
        return false;
    }
    let reserved = [(13, 0xF0), (15, 0xFC), (16, 0xFC), (17, 0xF8), (18, 0xF8)];
    let has_reserved =
        reserved.iter().all(|(at, bits)| config.get(*at).is_some_and(|byte| byte & bits == *bits));
    HevcConfig::parse(config.clone()).is_ok_and(|hevc| has_reserved || hevc.first_sps().is_some())
}

/// Unwraps wire times: each is taken to be the nearest to the one before, so a clock may pass 2³² (after 49.7
/// days) and step back by half of that.
///
/// FLV's timestamps are signed (FLV §E.4.1), so ffmpeg's and other muxers wrap at 2³¹ instead (after 24.8
/// days): a step of nearly 2³¹ either way is taken for that.
#[derive(Clone, Copy, Debug, Default)]
struct WireClock {
    /// The last wire time, and what it stood for.
    last: Option<(u32, i64)>,
}

impl WireClock {
    fn unwrap(&mut self, wire: u32) -> i64 {
        let time = self.peek(wire);
        self.last = Some((wire, time));
        time
    }

    /// Without moving the clock: data messages often say 0 whatever the time is.
    fn peek(self, wire: u32) -> i64 {
        const HALF: i64 = 1 << 31;
        /// How far from exactly 2³¹ the step of a wrap there may be: the longest gap between two frames.
        const GAP: i64 = 60_000;
        let Some((last_wire, last)) = self.last else { return i64::from(wire) };
        let distance = i64::from(wire.wrapping_sub(last_wire).cast_signed());
        last.saturating_add(match distance {
            _ if distance > HALF - GAP => distance - HALF,
            _ if distance < GAP - HALF => distance + HALF,
            _ => distance,
        })
    }
}

/// Whether frames of this codec cannot be decoded without a configuration record.
const fn needs_configuration(codec: Codec) -> bool {
    matches!(codec, Codec::H264 | Codec::H265 | Codec::Av1 | Codec::Aac)
}

fn track(codec: Codec, framing: RtmpFraming, config: Bytes) -> Result<Track, FlvError> {
    let made = match codec {
        Codec::H264 => Track::h264(config),
        Codec::H265 => Track::h265(config),
        Codec::Av1 => Track::av1(config),
        Codec::Aac => Track::aac(config),
        Codec::Opus => Track::opus(Some(config).filter(|head| !head.is_empty())),
        _ => {
            let mut track = Track::other(codec);
            track.config = config;
            Ok(track)
        }
    };
    let mut track = made.map_err(|source| FlvError::Config { codec, source })?;
    track.framing = framing;
    Ok(track)
}

#[cfg(test)]
mod tests;
