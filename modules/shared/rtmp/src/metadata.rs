//! `onMetaData`: what a publisher says of its stream.

use av_media::{Codec, Kind, RtmpFraming, Track};
use bytes::{Bytes, BytesMut};

use crate::amf0::{self, AmfError, Properties, Reader, Value};
use crate::flv;
use crate::message::slice_of;

/// `onMetaData` as it came, and what matters of it.
///
/// The properties are what the publisher claims; the tracks' own configuration is what decoders follow.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    /// The AMF0 value as it came: an ECMA array or an object.
    pub raw: Bytes,
    /// `videocodecid`.
    pub video_codec: Option<CodecId>,
    /// `audiocodecid`.
    pub audio_codec: Option<CodecId>,
    /// `width` in pixels, where positive.
    pub width: Option<f64>,
    /// `height` in lines, where positive.
    pub height: Option<f64>,
    /// `framerate` (or `videoframerate`), where positive.
    pub framerate: Option<f64>,
    /// `hasVideo`, where said.
    pub has_video: Option<bool>,
    /// `hasAudio`, where said.
    pub has_audio: Option<bool>,
}

/// A codec as `onMetaData` names it: a classic number, or a FourCC as a string or as the number of its four
/// bytes in network order (Enhanced RTMP v2, "Enhancing onMetaData").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodecId {
    /// FLV's `CodecID` or `SoundFormat`.
    Classic(u8),
    /// A FourCC.
    FourCc([u8; 4]),
}

/// What goes when the stream has no pictures.
const OF_VIDEO: &[&str] = &[
    "hasVideo",
    "width",
    "height",
    "displayWidth",
    "displayHeight",
    "framerate",
    "videoframerate",
    "fps",
    "videodatarate",
    "videocodecid",
    "videosize",
    "avcprofile",
    "avclevel",
    "videokeyframe_frequency",
    "videoTrackIdInfoMap",
];
/// What goes when the stream has no sound.
const OF_AUDIO: &[&str] = &[
    "hasAudio",
    "stereo",
    "audiodatarate",
    "audiocodecid",
    "audiosamplerate",
    "audiosamplesize",
    "audiochannels",
    "audiosize",
    "audiodelay",
    "aacaot",
    "2.1",
    "3.1",
    "4.0",
    "4.1",
    "5.1",
    "7.1",
    "audioTrackIdInfoMap",
];

impl Metadata {
    /// Reads the value of an `onMetaData` message. What stands behind the value is dropped; anything but an
    /// array or object counts as empty.
    ///
    /// # Errors
    ///
    /// [`AmfError`] when it is not AMF0.
    pub fn parse(value: &Bytes) -> Result<Self, AmfError> {
        let mut reader = Reader::new(value);
        let Some(parsed) = reader.value()? else { return Ok(Self::default()) };
        if matches!(parsed, Value::Amf3(_)) {
            return Err(AmfError::Amf3 { at: 0 });
        }
        if parsed.properties().is_none() {
            return Ok(Self::default());
        }
        let positive = |name: &str| {
            parsed.get(name).and_then(Value::as_number).filter(|number| number.is_finite() && *number > 0.0)
        };
        let yes_or_no = |name: &str| match parsed.get(name) {
            Some(Value::Boolean(yes)) => Some(*yes),
            _ => None,
        };
        Ok(Self {
            raw: slice_of(value, ..reader.position()),
            video_codec: parsed.get("videocodecid").and_then(CodecId::from_value),
            audio_codec: parsed.get("audiocodecid").and_then(CodecId::from_value),
            width: positive("width"),
            height: positive("height"),
            framerate: positive("framerate").or_else(|| positive("videoframerate")),
            has_video: yes_or_no("hasVideo"),
            has_audio: yes_or_no("hasAudio"),
        })
    }

    /// The AMF0 value to send on: the publisher's own, completed from the tracks; as it came where nothing is missing
    /// and nothing too much, and made from the tracks where there is none. Properties of a kind that has no track in
    /// `tracks` are left out, unless `tracks` is empty.
    pub fn completed(metadata: Option<&Self>, tracks: &[&Track]) -> Bytes {
        let raw = metadata.map(|metadata| metadata.raw.clone()).unwrap_or_default();
        let mut value = match Reader::new(&raw).value() {
            Ok(Some(value)) => value,
            _ => Value::EcmaArray(Properties::new()),
        };
        let (Value::EcmaArray(properties)
        | Value::Object(properties)
        | Value::TypedObject { properties, .. }) = &mut value
        else {
            return raw;
        };
        let before = properties.len();
        let has = |kind| tracks.is_empty() || tracks.iter().any(|track| track.kind() == kind);
        properties.retain(|(name, _)| {
            (has(Kind::Video) || !OF_VIDEO.contains(&name.as_str()))
                && (has(Kind::Audio) || !OF_AUDIO.contains(&name.as_str()))
        });
        let kept = properties.len();
        for track in tracks {
            for (name, number) in described(track).into_iter().flatten() {
                let known = |(key, _): &(String, Value)| {
                    key == name || (name == "framerate" && key == "videoframerate")
                };
                if !properties.iter().any(known) {
                    properties.push((name.to_owned(), Value::Number(number)));
                }
            }
        }
        if !raw.is_empty() && kept == before && properties.len() == kept {
            return raw;
        }
        let mut out = BytesMut::new();
        amf0::encode(&mut out, &value);
        out.freeze()
    }
}

/// What a track says of itself, where it knows.
fn described(track: &Track) -> [Option<(&'static str, f64)>; 4] {
    let positive = |name, number: f64| (number.is_finite() && number > 0.0).then_some((name, number));
    let id = codec_number(track);
    match track.kind() {
        Kind::Video => [
            positive("width", f64::from(track.video.width)),
            positive("height", f64::from(track.video.height)),
            positive("framerate", track.video.fps.unwrap_or_default()),
            id.map(|id| ("videocodecid", id)),
        ],
        Kind::Audio => [
            id.map(|id| ("audiocodecid", id)),
            positive("audiosamplerate", f64::from(track.audio.sample_rate)),
            positive("audiochannels", f64::from(track.audio.channels)),
            None,
        ],
    }
}

/// The number of a track's codec: classic, or the FourCC's bytes as a number, as the track leaves.
fn codec_number(track: &Track) -> Option<f64> {
    let four_cc = flv::four_cc(track.codec).map(|four_cc| f64::from(u32::from_be_bytes(four_cc)));
    let classic = flv::classic_number(track.codec, track.framing).map(f64::from);
    match track.framing {
        RtmpFraming::Enhanced => four_cc.or(classic),
        RtmpFraming::Classic | RtmpFraming::ClassicAsH264 => classic.or(four_cc),
    }
}

impl CodecId {
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Number(number) => {
                let whole = (0.0..=f64::from(u32::MAX)).contains(number).then_some(*number)?;
                // In range by the line above; a fraction is cut.
                let whole = whole as u32;
                Some(u8::try_from(whole).map_or(Self::FourCc(whole.to_be_bytes()), Self::Classic))
            }
            Value::String(text) => Some(Self::FourCc(text.as_bytes().try_into().ok()?)),
            _ => None,
        }
    }

    /// The coding format it names, where it is one that is carried.
    pub fn codec(self, kind: Kind) -> Option<Codec> {
        match (self, kind) {
            (Self::FourCc(four_cc), _) => flv::codec_of_four_cc(kind, four_cc),
            (Self::Classic(7), Kind::Video) => Some(Codec::H264),
            (Self::Classic(12), Kind::Video) => Some(Codec::H265),
            (Self::Classic(2 | 14), Kind::Audio) => Some(Codec::Mp3),
            (Self::Classic(7), Kind::Audio) => Some(Codec::PcmA),
            (Self::Classic(8), Kind::Audio) => Some(Codec::PcmU),
            (Self::Classic(10), Kind::Audio) => Some(Codec::Aac),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
