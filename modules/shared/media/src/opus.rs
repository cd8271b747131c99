//! Opus: its identification header (RFC 7845 §5.1).

use bytes::{BufMut, Bytes, BytesMut};

use crate::MediaError;
use crate::record::Record;

/// Opus always decodes at this rate, whatever the header's input rate says (RFC 7845 §5.1).
pub const SAMPLE_RATE: u32 = 48_000;

/// `OpusHead`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpusHead {
    /// Output channels.
    pub channels: u8,
    /// Samples at 48 kHz to drop at the start.
    pub pre_skip: u16,
    /// Samples a second before encoding; for information.
    pub input_rate: u32,
    /// Gain in dB, 8 bits of fraction.
    pub gain: i16,
    /// Channel mapping family.
    pub family: u8,
    /// Stream count, coupled count and mapping, where the family is not 0.
    pub mapping: Bytes,
}

impl OpusHead {
    const WHAT: &'static str = "OpusHead";
    const MAGIC: &'static [u8; 8] = b"OpusHead";

    /// Reads a header with its magic signature.
    ///
    /// # Errors
    ///
    /// Another signature, a major version other than 0, no channels, or an early end.
    pub fn parse(header: Bytes) -> Result<Self, MediaError> {
        let mut record = Record::new(Self::WHAT, header);
        let magic: [u8; 8] = record.array()?;
        if &magic != Self::MAGIC {
            let value = u64::from_be_bytes(magic);
            return Err(MediaError::Value { what: Self::WHAT, field: "magic signature", value });
        }
        let version = record.u8()?;
        if version >> 4 != 0 {
            return Err(MediaError::Version { what: Self::WHAT, found: version });
        }
        let channels = record.u8()?;
        if channels == 0 {
            return Err(MediaError::Value { what: Self::WHAT, field: "channel count", value: 0 });
        }
        Ok(Self {
            channels,
            pre_skip: u16::from_le_bytes(record.array()?),
            input_rate: u32::from_le_bytes(record.array()?),
            gain: i16::from_le_bytes(record.array()?),
            family: record.u8()?,
            mapping: record.rest(),
        })
    }

    /// Reads a `dOps` box's content (Opus in ISO Base Media File Format §4.3.2): the same fields, written
    /// big-endian.
    ///
    /// # Errors
    ///
    /// A version other than 0, no channels, or an early end.
    pub fn from_dops(dops: Bytes) -> Result<Self, MediaError> {
        let mut record = Record::new("dOps", dops);
        let version = record.u8()?;
        if version != 0 {
            return Err(MediaError::Version { what: "dOps", found: version });
        }
        let channels = record.u8()?;
        if channels == 0 {
            return Err(MediaError::Value { what: "dOps", field: "OutputChannelCount", value: 0 });
        }
        Ok(Self {
            channels,
            pre_skip: record.u16()?,
            input_rate: u32::from_be_bytes(record.array()?),
            gain: i16::from_be_bytes(record.array()?),
            family: record.u8()?,
            mapping: record.rest(),
        })
    }

    /// Writes a `dOps` box's content.
    pub fn to_dops(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_slice(&[0, self.channels]);
        out.put_u16(self.pre_skip);
        out.put_u32(self.input_rate);
        out.put_i16(self.gain);
        out.put_u8(self.family);
        out.put_slice(&self.mapping);
        out.freeze()
    }

    /// Writes the header.
    pub fn build(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_slice(Self::MAGIC);
        out.put_slice(&[1, self.channels]);
        out.put_u16_le(self.pre_skip);
        out.put_u32_le(self.input_rate);
        out.put_i16_le(self.gain);
        out.put_u8(self.family);
        out.put_slice(&self.mapping);
        out.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_a_round_trip() {
        let head = OpusHead {
            channels: 6,
            pre_skip: 312,
            input_rate: 44_100,
            gain: -256,
            family: 1,
            mapping: Bytes::from_static(&[4, 2, 0, 4, 1, 2, 3, 5]),
        };
        assert_eq!(OpusHead::from_dops(head.to_dops()), Ok(head.clone()));
        assert_eq!(OpusHead::parse(head.build()), Ok(head));
    }

    #[test]
    fn a_header_that_ends_early_is_refused() {
        let error = OpusHead::parse(Bytes::from_static(b"OpusHead\x01\x02\x38")).unwrap_err();
        assert_eq!(error, MediaError::Truncated { what: "OpusHead", need: 2, have: 1 });
    }
}
