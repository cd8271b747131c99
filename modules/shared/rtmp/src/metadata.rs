//! `onMetaData`: what a publisher says of its stream.

use bytes::Bytes;

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
