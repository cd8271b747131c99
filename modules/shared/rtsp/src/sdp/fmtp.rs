//! `a=fmtp` and `a=rtpmap` values.

use base64::Engine;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;

/// Parameters of a payload format; names compare without case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fmtp(Vec<(String, String)>);

/// Most parameters that are read.
const MAX_PARAMETERS: usize = 64;

/// With or without padding: cameras do both.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &ALPHABET,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

impl Fmtp {
    /// What stands behind the payload type.
    pub(super) fn parse(text: &str) -> Self {
        let parts = text.split(';').take(MAX_PARAMETERS).filter_map(|part| part.split_once('='));
        Self(parts.map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned())).collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn number(&self, name: &str) -> Option<u32> {
        self.get(name)?.parse().ok()
    }

    /// Comma separated NAL units in base64. What can't be read is left out; start codes and the zeros behind a unit
    /// do not belong to it.
    pub(super) fn units(&self, name: &str) -> Vec<Bytes> {
        let list = self.get(name).unwrap_or_default().split(',');
        list.filter_map(|text| BASE64.decode(text.trim()).ok())
            .filter_map(|unit| {
                let start = unit.windows(3).position(|three| three == [0, 0, 1]).map_or(0, |at| at + 3);
                let start = if start <= 4 { start } else { 0 };
                let end = unit.iter().rposition(|byte| *byte != 0)? + 1;
                Some(Bytes::from(unit).slice(start.min(end)..end))
            })
            .filter(|unit| !unit.is_empty())
            .collect()
    }

    /// Bytes in hexadecimal.
    pub(super) fn hex(&self, name: &str) -> Option<Bytes> {
        let text = self.get(name)?.as_bytes();
        let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let bytes: Option<Vec<u8>> = text
            .chunks(2)
            .map(|pair| match pair {
                [high, low] => Some(digit(high)? << 4 | digit(low)?),
                _ => None,
            })
            .collect();
        bytes.filter(|bytes| !bytes.is_empty()).map(Bytes::from)
    }
}

/// `ENCODING/CLOCK/CHANNELS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RtpMap {
    /// Upper case.
    pub(super) encoding: String,
    /// 0 where it is missing.
    pub(super) clock_rate: u32,
    pub(super) channels: Option<u16>,
}

impl RtpMap {
    /// What stands behind the payload type.
    pub(super) fn parse(text: &str) -> Self {
        let mut parts = text.trim().split('/').map(str::trim);
        Self {
            encoding: parts.next().unwrap_or_default().to_ascii_uppercase(),
            clock_rate: parts.next().and_then(|rate| rate.parse().ok()).unwrap_or(0),
            channels: parts.next().and_then(|channels| channels.parse().ok()),
        }
    }

    /// Of a static payload type (RFC 3551 §6).
    pub(super) fn fixed(payload_type: u8) -> Option<Self> {
        let (encoding, clock_rate, channels) = match payload_type {
            0 => ("PCMU", 8000, 1),
            3 => ("GSM", 8000, 1),
            4 => ("G723", 8000, 1),
            8 => ("PCMA", 8000, 1),
            9 => ("G722", 8000, 1),
            10 => ("L16", 44_100, 2),
            11 => ("L16", 44_100, 1),
            14 => ("MPA", 90_000, 1),
            26 => ("JPEG", 90_000, 0),
            32 => ("MPV", 90_000, 0),
            33 => ("MP2T", 90_000, 0),
            _ => return None,
        };
        let channels = (channels > 0).then_some(channels);
        Some(Self { encoding: encoding.to_owned(), clock_rate, channels })
    }
}
