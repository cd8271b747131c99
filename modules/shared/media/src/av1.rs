//! AV1: its configuration record (AV1 in ISO Base Media File Format §2.3) and sequence header.

use bytes::Bytes;

use crate::MediaError;
use crate::bits::BitReader;
use crate::record::Record;

/// `av1C`, the AV1CodecConfigurationRecord.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Av1Config {
    /// `seq_profile`: 0 Main, 1 High, 2 Professional.
    pub profile: u8,
    /// `seq_level_idx_0`.
    pub level: u8,
    /// `seq_tier_0`: High tier.
    pub high_tier: bool,
    /// Bits of a sample: 8, 10 or 12.
    pub bit_depth: u8,
    /// Largest width and height, where the record holds a sequence header that could be read.
    pub size: Option<(u32, u32)>,
}

impl Av1Config {
    const WHAT: &'static str = "av1C";

    /// Reads a record.
    ///
    /// # Errors
    ///
    /// Fewer than four bytes, or a marker and version other than 0x81.
    pub fn parse(record: Bytes) -> Result<Self, MediaError> {
        let mut record = Record::new(Self::WHAT, record);
        let [version, profile_level, flags, _delay] = record.array()?;
        if version != 0x81 {
            return Err(MediaError::Version { what: Self::WHAT, found: version });
        }
        let bit_depth = match (flags & 0x40 != 0, flags & 0x20 != 0) {
            (true, true) => 12,
            (true, false) => 10,
            (false, _) => 8,
        };
        Ok(Self {
            profile: profile_level >> 5,
            level: profile_level & 0x1f,
            high_tier: flags & 0x80 != 0,
            bit_depth,
            size: sequence_header(&record.rest()).and_then(|payload| frame_size(payload).ok()),
        })
    }

    /// `av01.0.04M.08` (AV1 in ISO Base Media File Format §5).
    pub fn codec_string(&self) -> String {
        let tier = if self.high_tier { 'H' } else { 'M' };
        format!("av01.{}.{:02}{tier}.{:02}", self.profile, self.level, self.bit_depth)
    }
}

/// The payload of the first OBU if it is a sequence header, which the record's rules make it.
fn sequence_header(obus: &[u8]) -> Option<&[u8]> {
    const SEQUENCE_HEADER: u8 = 1;
    let (&header, mut rest) = obus.split_first()?;
    if header >> 3 & 0xf != SEQUENCE_HEADER {
        return None;
    }
    if header & 4 != 0 {
        rest = rest.get(1..)?; // obu_extension_header
    }
    if header & 2 == 0 {
        return Some(rest);
    }
    // leb128, at most eight bytes
    let mut size = 0_u64;
    for place in 0..8 {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        size |= u64::from(byte & 0x7f) << (place * 7);
        if byte & 0x80 == 0 {
            break;
        }
    }
    rest.get(..usize::try_from(size).ok()?)
}

/// `max_frame_width` and `max_frame_height` (AV1 bitstream specification §5.5.1).
fn frame_size(payload: &[u8]) -> Result<(u32, u32), MediaError> {
    let mut bits = BitReader::new("AV1 sequence header", payload);
    bits.skip(4)?; // seq_profile, still_picture
    if bits.flag()? {
        bits.skip(5)?; // reduced_still_picture_header: seq_level_idx
    } else {
        skip_operating_points(&mut bits)?;
    }
    let width_bits = 1 + bits.bits(4)?;
    let height_bits = 1 + bits.bits(4)?;
    Ok((1 + bits.bits(width_bits)?, 1 + bits.bits(height_bits)?))
}

fn skip_operating_points(bits: &mut BitReader<'_>) -> Result<(), MediaError> {
    let mut decoder_model = None;
    if bits.flag()? {
        bits.skip(64)?; // num_units_in_display_tick, time_scale
        if bits.flag()? {
            bits.ue()?; // num_ticks_per_picture_minus_1 is uvlc(): the same code
        }
        if bits.flag()? {
            decoder_model = Some(1 + bits.bits(5)? as usize); // buffer_delay_length
            bits.skip(32 + 5 + 5)?;
        }
    }
    let initial_delay = bits.flag()?;
    for _ in 0..=bits.bits(5)? {
        bits.skip(12)?; // operating_point_idc
        if bits.bits(5)? > 7 {
            bits.skip(1)?; // seq_tier
        }
        if let Some(length) = decoder_model
            && bits.flag()?
        {
            bits.skip(2 * length + 1)?;
        }
        if initial_delay && bits.flag()? {
            bits.skip(4)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
