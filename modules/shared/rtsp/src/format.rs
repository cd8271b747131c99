//! What payload formats say of a track beside their packets.

use std::num::NonZeroU32;

use av_media::{Codec, Track};

/// 90 kHz: pictures, and MPEG audio (RFC 3551 §4.5.13).
pub const VIDEO_CLOCK: NonZeroU32 = NonZeroU32::new(90_000).unwrap();

/// Ticks of RTP time a second, as `a=rtpmap` says them; `None` where the track does not tell its rate, or its codec has
/// no payload format here.
pub fn clock_rate(track: &Track) -> Option<NonZeroU32> {
    match track.codec {
        Codec::H264 | Codec::H265 | Codec::Av1 | Codec::Mp3 => Some(VIDEO_CLOCK),
        // RFC 7587 §4.1: always.
        Codec::Opus => NonZeroU32::new(48_000),
        // RFC 3551 §4.5.2: half of the sampling rate, by an old mistake.
        Codec::G722 => NonZeroU32::new(8000),
        Codec::PcmA | Codec::PcmU => NonZeroU32::new(track.audio.sample_rate).or(NonZeroU32::new(8000)),
        Codec::Aac | Codec::L16 => NonZeroU32::new(track.audio.sample_rate),
        _ => None,
    }
}
