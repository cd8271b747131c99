//! AV1: its configuration record (AV1 in ISO Base Media File Format §2.3) and sequence header.

use bytes::{BufMut, Bytes, BytesMut};

use crate::MediaError;
use crate::bits::BitReader;
use crate::record::Record;

/// `av1C`, the AV1CodecConfigurationRecord. Where it holds a sequence header, that is what decodes: it counts, whatever the
/// fields in front of it say.
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
        let rest = record.rest();
        let header = sequence_header(&rest);
        let sequence = header.and_then(|payload| Sequence::parse(payload).ok());
        let [profile_level, flags] = sequence.map_or([profile_level, flags], |sequence| sequence.fields());
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
            size: header.and_then(|payload| frame_size(payload).ok()),
        })
    }

    /// The record for a stream with this sequence header, a whole OBU with its size.
    ///
    /// # Errors
    ///
    /// It is none, or ends early.
    pub fn from_sequence_header(obu: &[u8]) -> Result<Bytes, MediaError> {
        let what = "AV1 sequence header";
        let payload = sequence_header(obu).ok_or(MediaError::Truncated { what, need: 1, have: obu.len() })?;
        let [profile_level, flags] = Sequence::parse(payload)?.fields();
        let mut out = BytesMut::with_capacity(4 + obu.len());
        out.put_slice(&[0x81, profile_level, flags, 0]);
        out.put_slice(obu);
        Ok(out.freeze())
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

/// What a sequence header says (AV1 bitstream specification §5.5.1), as far as a record repeats it.
struct Sequence {
    profile: u8,
    level: u8,
    /// Tier to chroma position, as in the record's third byte.
    flags: u8,
}

/// As far as the largest size.
struct Start {
    profile: u8,
    reduced: bool,
    level: u8,
    tier: u8,
    size: (u32, u32),
}

/// `max_frame_width` and `max_frame_height`.
fn frame_size(payload: &[u8]) -> Result<(u32, u32), MediaError> {
    let mut bits = BitReader::new("AV1 sequence header", payload);
    Ok(Start::parse(&mut bits)?.size)
}

impl Start {
    fn parse(bits: &mut BitReader<'_>) -> Result<Self, MediaError> {
        let profile = bits.small(3)?;
        bits.skip(1)?; // still_picture
        let reduced = bits.flag()?;
        let (level, tier) = if reduced { (bits.small(5)?, 0) } else { operating_points(bits)? };
        let width_bits = 1 + bits.bits(4)?;
        let height_bits = 1 + bits.bits(4)?;
        let size = (1 + bits.bits(width_bits)?, 1 + bits.bits(height_bits)?);
        Ok(Self { profile, reduced, level, tier, size })
    }
}

impl Sequence {
    fn parse(payload: &[u8]) -> Result<Self, MediaError> {
        let mut bits = BitReader::new("AV1 sequence header", payload);
        let Start { profile, reduced, level, tier, .. } = Start::parse(&mut bits)?;
        if !reduced && bits.flag()? {
            bits.skip(7)?; // lengths of frame ids
        }
        bits.skip(3)?; // 128x128 superblocks, filter intra, intra edge filter
        if !reduced {
            skip_tools(&mut bits)?;
        }
        bits.skip(3)?; // superres, cdef, restoration
        let colour = colour(&mut bits, profile)?;
        Ok(Self { profile, level, flags: tier << 7 | colour })
    }

    /// The second and third byte of a record.
    const fn fields(&self) -> [u8; 2] {
        [self.profile << 5 | self.level, self.flags]
    }
}

fn skip_tools(bits: &mut BitReader<'_>) -> Result<(), MediaError> {
    bits.skip(4)?; // interintra, masked compound, warped motion, dual filter
    let order_hint = bits.flag()?;
    if order_hint {
        bits.skip(2)?; // jnt_comp, ref_frame_mvs
    }
    // seq_choose_screen_content_tools, else seq_force_screen_content_tools
    let screen_content = bits.flag()? || bits.flag()?;
    // seq_choose_integer_mv, else seq_force_integer_mv
    if screen_content && !bits.flag()? {
        bits.skip(1)?;
    }
    if order_hint {
        bits.skip(3)?;
    }
    Ok(())
}

/// `color_config` (§5.5.2): bit depth, monochrome, subsampling and chroma position, as a record has them.
fn colour(bits: &mut BitReader<'_>, profile: u8) -> Result<u8, MediaError> {
    let high = bits.flag()?;
    let twelve = profile == 2 && high && bits.flag()?;
    let mono = profile != 1 && bits.flag()?;
    let described = if bits.flag()? { (bits.small(8)?, bits.small(8)?, bits.small(8)?) } else { (2, 2, 2) };
    let (x, y, position) = if mono {
        bits.skip(1)?; // color_range
        (true, true, 0)
    } else if described == (1, 13, 0) {
        (false, false, 0)
    } else {
        bits.skip(1)?; // color_range
        let (x, y) = match profile {
            0 => (true, true),
            1 => (false, false),
            _ if twelve => {
                let x = bits.flag()?;
                (x, x && bits.flag()?)
            }
            _ => (true, false),
        };
        (x, y, if x && y { bits.small(2)? } else { 0 })
    };
    let flag = |set: bool, place: u8| u8::from(set) << place;
    Ok(flag(high, 6) | flag(twelve, 5) | flag(mono, 4) | flag(x, 3) | flag(y, 2) | position)
}

/// `seq_level_idx` and `seq_tier` of the first operating point.
fn operating_points(bits: &mut BitReader<'_>) -> Result<(u8, u8), MediaError> {
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
    let mut first = None;
    for _ in 0..=bits.bits(5)? {
        bits.skip(12)?; // operating_point_idc
        let level = bits.small(5)?;
        let tier = if level > 7 { bits.small(1)? } else { 0 };
        first.get_or_insert((level, tier));
        if let Some(length) = decoder_model
            && bits.flag()?
        {
            bits.skip(2 * length + 1)?;
        }
        if initial_delay && bits.flag()? {
            bits.skip(4)?;
        }
    }
    Ok(first.unwrap_or_default())
}

#[cfg(test)]
mod tests;
