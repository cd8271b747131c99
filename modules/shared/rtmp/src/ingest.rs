//! Audio, video and data messages to tracks, frames and metadata.

use av_media::{AudioFormat, Codec, Frame, Kind, RtmpFraming, Timestamp, Track};
use bytes::Bytes;

use crate::amf0::{AmfError, Reader, Value};
use crate::chunk::RawMessage;
use crate::flv::{self, FlvError, Tag};
use crate::message::{Message, split_aggregate};
use crate::{MediaItem, Metadata, RtmpError, SkipReason};

/// One sender's media, in order.
#[derive(Debug, Default)]
pub(crate) struct Ingest {
    clock: WireClock,
    /// The codec whose configuration was given last, of each kind.
    video: Option<Codec>,
    audio: Option<Codec>,
    /// Why the last message was skipped; until something else comes, that is not said again.
    skipped: Option<SkipReason>,
}

impl Ingest {
    /// Reads a message of type audio, video, data or aggregate; other types are none of its business.
    pub(crate) fn message(
        &mut self,
        raw: &RawMessage,
        give: &mut impl FnMut(MediaItem),
    ) -> Result<(), RtmpError> {
        match Message::parse(raw)? {
            Message::Video(body) => self.tag(raw.timestamp, flv::parse_video(&body)?, give)?,
            Message::Audio(body) => self.tag(raw.timestamp, flv::parse_audio(&body)?, give)?,
            Message::Data(payload) => {
                let amf = |source| RtmpError::Amf { type_id: raw.type_id, source };
                if let Some(item) = self.data(raw.timestamp, payload).map_err(amf)? {
                    give(item);
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
                    self.skip(SkipReason::Empty(codec.kind()), give);
                    return Ok(());
                }
                let track = track(codec, framing, config)?;
                *self.slot(codec.kind()) = Some(codec);
                // Encoders often say 0 here, whatever the time is: the clock starts with a frame.
                give(MediaItem::Track(track));
            }
            Tag::Frame { codec, framing, is_sync, composition_ms, audio, data } => {
                if *self.slot(codec.kind()) != Some(codec) {
                    if needs_configuration(codec) {
                        self.skip(SkipReason::NoSequenceHeader(codec), give);
                        return Ok(());
                    }
                    let mut track = track(codec, framing, Bytes::new())?;
                    if audio != AudioFormat::default() {
                        track.audio = audio;
                    }
                    *self.slot(codec.kind()) = Some(codec);
                    give(MediaItem::Track(track));
                }
                self.skipped = None;
                let dts = self.clock.unwrap(timestamp);
                give(MediaItem::Frame(Frame {
                    kind: codec.kind(),
                    dts: Timestamp::from_millis(dts),
                    pts: Timestamp::from_millis(dts.saturating_add(i64::from(composition_ms))),
                    is_sync,
                    data,
                }));
            }
            Tag::End(codec) => give(MediaItem::EndOfSequence(codec.kind())),
            Tag::Skipped(reason) => self.skip(reason, give),
        }
        Ok(())
    }

    fn skip(&mut self, reason: SkipReason, give: &mut impl FnMut(MediaItem)) {
        if self.skipped != Some(reason) {
            self.skipped = Some(reason);
            give(MediaItem::Skipped { reason });
        }
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
                Some(MediaItem::Metadata(Metadata::parse(&payload.slice(reader.position()..))?))
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
