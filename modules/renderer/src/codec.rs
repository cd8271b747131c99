//! Which GStreamer elements decode what, and how frames are announced to them.

use av_media::opus::OpusHead;
use av_media::{Codec, Kind, Track};
use gstreamer as gst;

use crate::elements::{self, has, package};

/// One way to decode a track: elements between `appsrc` and raw media, as `gst-launch-1.0` would take them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The decoder's element.
    pub element: &'static str,
    /// From the parser to the decoder.
    pub chain: String,
    /// It decodes in hardware.
    pub hardware: bool,
}

/// What is needed for a codec: names of the elements that would do.
struct Ways {
    parser: &'static str,
    hardware: &'static [&'static str],
    software: &'static [&'static str],
    /// What the parser puts out.
    media: &'static str,
}

fn ways(codec: Codec) -> Option<Ways> {
    let with = |parser, hardware, software, media| Some(Ways { parser, hardware, software, media });
    match codec {
        Codec::H264 => with(
            "h264parse",
            &["vah264dec", "v4l2slh264dec", "v4l2h264dec"],
            &["avdec_h264", "openh264dec"],
            "video/x-h264",
        ),
        Codec::H265 => with(
            "h265parse",
            &["vah265dec", "v4l2slh265dec", "v4l2h265dec"],
            &["avdec_h265", "libde265dec"],
            "video/x-h265",
        ),
        Codec::Av1 => with("av1parse", &["vaav1dec"], &["dav1ddec", "av1dec"], "video/x-av1"),
        Codec::Vp8 => with("", &["vavp8dec", "v4l2slvp8dec"], &["vp8dec", "avdec_vp8"], ""),
        Codec::Vp9 => {
            with("vp9parse", &["vavp9dec", "v4l2slvp9dec"], &["vp9dec", "avdec_vp9"], "video/x-vp9")
        }
        Codec::Aac => with("aacparse", &[], &["avdec_aac", "faad"], ""),
        Codec::Opus => with("", &[], &["opusdec", "avdec_opus"], ""),
        Codec::Flac => with("flacparse", &[], &["flacdec", "avdec_flac"], ""),
        Codec::Ac3 => with("ac3parse", &[], &["avdec_ac3"], ""),
        Codec::Eac3 => with("ac3parse", &[], &["avdec_eac3"], ""),
        Codec::Mp3 => with("mpegaudioparse", &[], &["mpg123audiodec", "avdec_mp3"], ""),
        Codec::PcmA => with("", &[], &["alawdec"], ""),
        Codec::PcmU => with("", &[], &["mulawdec"], ""),
        Codec::G722 => with("", &[], &["avdec_g722"], ""),
        Codec::L16 => with("", &[], &["audioconvert"], ""),
        _ => None,
    }
}

/// Why a track can't be decoded here.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// Nothing here knows the codec at all.
    #[error("{0} can't be decoded by this module")]
    Unknown(String),
    /// Its pictures are larger than any screen.
    #[error(
        "{codec} of {width}x{height} is not decoded: it has more than {} million pixels per picture", MOST_PIXELS / 1_000_000
    )]
    Large {
        /// The track's codec string.
        codec: String,
        /// In pixels.
        width: u32,
        /// In pixels.
        height: u32,
    },
    /// An element is not installed.
    #[error("{codec} can't be decoded: {missing}")]
    Element {
        /// The track's codec string.
        codec: String,
        /// Which.
        missing: elements::Missing,
    },
}

/// Of a picture: 8K. A decoder holds a dozen of them, and whoever publishes says how large they are.
const MOST_PIXELS: u64 = 36_000_000;

/// The ways to decode a track on this machine, the best one first.
///
/// # Errors
/// There is none.
pub fn candidates(track: &Track) -> Result<Vec<Candidate>, Missing> {
    let (width, height) = (track.video.width, track.video.height);
    if u64::from(width) * u64::from(height) > MOST_PIXELS {
        return Err(Missing::Large { codec: track.codec_string.clone(), width, height });
    }
    let unknown = || Missing::Unknown(track.codec_string.clone());
    let ways = ways(track.codec).ok_or_else(unknown)?;
    let missing = |element| Missing::Element {
        codec: track.codec_string.clone(),
        missing: elements::Missing::of(element),
    };
    if !ways.parser.is_empty() && !has(ways.parser) {
        return Err(missing(ways.parser));
    }
    let chain = |element: &str, plain: bool| {
        let mut parts = Vec::new();
        if !ways.parser.is_empty() {
            parts.push(ways.parser.to_owned());
        }
        if plain {
            // Colour values that are legal and unusual make hardware decoders refuse a stream.
            parts.push(format!("capssetter caps={},colorimetry=(string)bt709", ways.media));
        }
        parts.push(element.to_owned());
        parts.join(" ! ")
    };
    let mut found = Vec::new();
    for element in ways.hardware.iter().copied().filter(|element| has(element)) {
        found.push(Candidate { element, chain: chain(element, false), hardware: true });
        if !ways.media.is_empty() && has("capssetter") {
            found.push(Candidate { element, chain: chain(element, true), hardware: true });
        }
    }
    for element in ways.software.iter().copied().filter(|element| has(element)) {
        found.push(Candidate { element, chain: chain(element, false), hardware: false });
    }
    // Debian 12 does not have all that would do.
    match (found.is_empty(), ways.software.iter().find(|element| package(element).is_some())) {
        (false, _) => Ok(found),
        (true, Some(element)) => Err(missing(element)),
        (true, None) => Err(unknown()),
    }
}

/// How the frames of a track are announced.
pub fn caps(track: &Track) -> gst::Caps {
    let named = |name: &str| gst::Caps::builder(name.to_owned());
    let codec_data = (!track.config.is_empty()).then(|| gst::Buffer::from_slice(track.config.clone()));
    let builder = match track.codec {
        Codec::H264 => named("video/x-h264").field("stream-format", "avc").field("alignment", "au"),
        Codec::H265 => named("video/x-h265").field("stream-format", "hvc1").field("alignment", "au"),
        Codec::Av1 => named("video/x-av1").field("stream-format", "obu-stream").field("alignment", "tu"),
        Codec::Vp8 => named("video/x-vp8"),
        Codec::Vp9 => named("video/x-vp9").field("alignment", "super-frame"),
        Codec::Aac => named("audio/mpeg").field("mpegversion", 4_i32).field("stream-format", "raw"),
        Codec::Opus => return opus(track),
        Codec::Flac => named("audio/x-flac").field("framed", true),
        Codec::Ac3 => named("audio/x-ac3").field("framed", true),
        Codec::Eac3 => named("audio/x-eac3").field("framed", true),
        Codec::Mp3 => named("audio/mpeg").field("mpegversion", 1_i32).field("layer", 3_i32),
        Codec::PcmA => named("audio/x-alaw"),
        Codec::PcmU => named("audio/x-mulaw"),
        Codec::G722 => named("audio/G722"),
        _ => named("audio/x-raw").field("format", "S16BE").field("layout", "interleaved"),
    };
    let builder = match track.kind() {
        Kind::Video if track.video.width > 0 && track.video.height > 0 => builder
            .field("width", i32::try_from(track.video.width).unwrap_or(i32::MAX))
            .field("height", i32::try_from(track.video.height).unwrap_or(i32::MAX)),
        Kind::Video => builder,
        Kind::Audio => {
            let telephone = matches!(track.codec, Codec::PcmA | Codec::PcmU);
            let rate = match track.audio.sample_rate {
                0 if telephone => 8000,
                0 if track.codec == Codec::G722 => 16_000,
                rate => i32::try_from(rate).unwrap_or(i32::MAX),
            };
            let channels = i32::from(track.audio.channels.max(1));
            if rate > 0 { builder.field("rate", rate).field("channels", channels) } else { builder }
        }
    };
    match codec_data {
        Some(data) => builder.field("codec_data", data).build(),
        None => builder.build(),
    }
}

/// More than two channels are several streams, and which channel is in which of them is in the header (RFC 7845 §5.1.1).
fn opus(track: &Track) -> gst::Caps {
    let channels = if track.audio.channels == 0 { 2 } else { track.audio.channels };
    let builder =
        gst::Caps::builder("audio/x-opus").field("rate", 48_000_i32).field("channels", i32::from(channels));
    let head = OpusHead::parse(track.config.clone()).ok().filter(|head| head.family != 0);
    let mapped = head.as_ref().and_then(|head| Some((head.family, head.mapping.split_at_checked(2)?)));
    match mapped {
        Some((family, (&[streams, coupled], mapping))) if mapping.len() >= usize::from(channels) => {
            let mapping = mapping.iter().take(usize::from(channels)).map(|at| i32::from(*at));
            builder
                .field("channel-mapping-family", i32::from(family))
                .field("stream-count", i32::from(streams))
                .field("coupled-count", i32::from(coupled))
                .field("channel-mapping", gst::Array::new(mapping))
                .build()
        }
        _ => builder.field("channel-mapping-family", 0_i32).build(),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn what_is_missing_is_named_with_the_package_that_has_it() {
        let missing = elements::Missing::of("avdec_h264");
        let error = Missing::Element { codec: "avc1.64001f".into(), missing };
        assert_eq!(
            error.to_string(),
            "avc1.64001f can't be decoded: the GStreamer element `avdec_h264` is missing; install the Debian package \
             gstreamer1.0-libav"
        );
    }

    #[test]
    fn pictures_larger_than_any_screen_are_refused_before_a_decoder_sees_them() {
        let mut track = Track::other(Codec::H264);
        (track.video.width, track.video.height) = (16_384, 16_384);
        let refused = candidates(&track).unwrap_err();
        assert!(refused.to_string().contains("16384x16384"), "{refused}");
    }

    #[test]
    fn every_codec_of_rtmp_and_rtsp_has_a_software_decoder() {
        for codec in [
            Codec::H264,
            Codec::H265,
            Codec::Av1,
            Codec::Vp8,
            Codec::Vp9,
            Codec::Aac,
            Codec::Opus,
            Codec::Flac,
            Codec::Ac3,
            Codec::Eac3,
            Codec::Mp3,
            Codec::PcmA,
            Codec::PcmU,
            Codec::G722,
            Codec::L16,
        ] {
            let ways = ways(codec).unwrap();
            assert!(ways.software.iter().any(|element| package(element).is_some()), "{codec:?}");
            assert!(ways.parser.is_empty() || package(ways.parser).is_some(), "{codec:?}");
        }
    }

    #[test]
    fn aac_is_announced_with_its_configuration() {
        gst::init().unwrap();
        let caps = caps(&Track::aac(Bytes::from_static(b"\x12\x10")).unwrap());
        let fields = caps.structure(0).unwrap();
        assert_eq!((fields.get::<i32>("rate"), fields.get::<i32>("channels")), (Ok(44_100), Ok(2)));
        assert!(fields.has_field("codec_data"));
    }

    #[test]
    fn six_channels_of_opus_are_announced_as_the_streams_that_they_are_in() {
        gst::init().unwrap();
        // RFC 7845 §5.1.1.2: 5.1 in four streams, of which two are pairs.
        let head = OpusHead {
            channels: 6,
            pre_skip: 312,
            input_rate: 48_000,
            gain: 0,
            family: 1,
            mapping: Bytes::from_static(&[4, 2, 0, 4, 1, 2, 3, 5]),
        };
        let announced = caps(&Track::opus(Some(head.build())).unwrap());
        let wanted = "audio/x-opus, rate=(int)48000, channels=(int)6, channel-mapping-family=(int)1, \
                      stream-count=(int)4, coupled-count=(int)2, channel-mapping=(int)< 0, 4, 1, 2, 3, 5 >";
        assert_eq!(announced, wanted.parse::<gst::Caps>().unwrap());
        let cut = OpusHead { mapping: Bytes::from_static(&[4, 2, 0]), ..head };
        let announced = caps(&Track::opus(Some(cut.build())).unwrap());
        let wanted = "audio/x-opus, rate=(int)48000, channels=(int)6, channel-mapping-family=(int)0";
        assert_eq!(announced, wanted.parse::<gst::Caps>().unwrap());
    }
}
