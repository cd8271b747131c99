//! H.264 (ITU-T H.264, ISO/IEC 14496-10): its configuration record and what its NAL units are.

use bytes::{BufMut, Bytes, BytesMut};

use crate::MediaError;
use crate::bits::{BitReader, unescape};
use crate::nal::NalUnits;
use crate::record::{Record, put_unit};

mod picture;
mod sps;

pub use picture::{Picture, picture};
pub use sps::Sps;
pub(crate) use sps::skip_picture_description;

/// `nal_unit_type` of an IDR picture's slice (table 7-1).
pub const NAL_IDR: u8 = 5;
/// `nal_unit_type` of a sequence parameter set.
pub const NAL_SPS: u8 = 7;
/// `nal_unit_type` of a picture parameter set.
pub const NAL_PPS: u8 = 8;

/// A NAL unit's type; 0, which is unspecified, for an empty one.
pub fn nal_type(nal: &[u8]) -> u8 {
    nal.first().map_or(0, |header| header & 0x1f)
}

/// Whether an access unit of length-prefixed NAL units is an IDR picture, where decoding may start.
pub fn is_idr(access_unit: &[u8], length_size: u8) -> bool {
    NalUnits::new(access_unit, length_size).flatten().any(|nal| nal_type(nal) == NAL_IDR)
}

/// The number by which slices and other parameter sets refer to this SPS (at most 31) or PPS (at most 255); `None` where
/// it can't be read (§7.3.2.1.1, §7.3.2.2).
pub(crate) fn parameter_set_id(nal: &[u8]) -> Option<u32> {
    // The id is in the first bytes behind NAL header and, in an SPS, profile and level.
    let (skipped, most) = if nal_type(nal) == NAL_SPS { (4, 31) } else { (1, 255) };
    let rbsp = unescape(nal.get(..nal.len().min(32))?);
    let id = BitReader::new("parameter set", rbsp.get(skipped..)?).ue().ok()?;
    (id <= most).then_some(id)
}

/// `avcC`, the AVCDecoderConfigurationRecord (ISO/IEC 14496-15 §5.3.3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AvcConfig {
    /// `profile_idc` of the streams: 66 Baseline, 77 Main, 100 High, ...
    pub profile: u8,
    /// The constraint flags between profile and level in the SPS.
    pub compatibility: u8,
    /// `level_idc`: ten times the level.
    pub level: u8,
    /// Bytes of length before each NAL unit: 1, 2 or 4 (3 is reserved, and read all the same).
    pub length_size: u8,
    /// Sequence parameter sets, whole NAL units. Empty where they travel in the stream (`avc3`).
    pub sps: Vec<Bytes>,
    /// Picture parameter sets, whole NAL units.
    pub pps: Vec<Bytes>,
    /// What follows: chroma format, bit depths and SPS extensions for the High profiles. Kept as it is.
    pub extension: Bytes,
}

impl AvcConfig {
    const WHAT: &'static str = "avcC";

    /// Reads a record.
    ///
    /// # Errors
    ///
    /// A version other than 1, or a length that overruns the record.
    pub fn parse(record: Bytes) -> Result<Self, MediaError> {
        let mut record = Record::new(Self::WHAT, record);
        let [version, profile, compatibility, level, length_size, sps_count] = record.array()?;
        if version != 1 {
            return Err(MediaError::Version { what: Self::WHAT, found: version });
        }
        let sps = record.units(usize::from(sps_count & 0x1f))?;
        let pps_count = record.u8()?;
        let pps = record.units(pps_count.into())?;
        Ok(Self {
            profile,
            compatibility,
            level,
            length_size: (length_size & 3) + 1,
            sps,
            pps,
            extension: record.rest(),
        })
    }

    /// The record for a stream with these parameter sets (whole NAL units) and 4-byte lengths.
    ///
    /// # Errors
    ///
    /// No SPS, or one too short to hold profile and level.
    pub fn from_parameter_sets(sps: Vec<Bytes>, pps: Vec<Bytes>) -> Result<Self, MediaError> {
        let first = sps.first().cloned().unwrap_or_default();
        let [_, profile, compatibility, level] = Record::new("SPS", first.clone()).array()?;
        let extension = match Sps::parse(&first) {
            Ok(sps) if sps::has_chroma_fields(profile) => Bytes::copy_from_slice(&[
                0b1111_1100 | sps.chroma_format,
                0b1111_1000 | (sps.bit_depth_luma.saturating_sub(8) & 7),
                0b1111_1000 | (sps.bit_depth_chroma.saturating_sub(8) & 7),
                0,
            ]),
            _ => Bytes::new(),
        };
        Ok(Self { profile, compatibility, level, length_size: 4, sps, pps, extension })
    }

    /// Writes the record.
    ///
    /// # Errors
    ///
    /// More than 31 SPS or 255 PPS, or one longer than 65,535 bytes.
    pub fn build(&self) -> Result<Bytes, MediaError> {
        let count = |what, units: &[Bytes], most: u8| match u8::try_from(units.len()) {
            Ok(count) if count <= most => Ok(count),
            _ => Err(MediaError::TooLarge { what, value: units.len(), most: most.into() }),
        };
        let sps_count = count("avcC: number of SPS", &self.sps, 31)?;
        let pps_count = count("avcC: number of PPS", &self.pps, 255)?;
        let mut out = BytesMut::new();
        out.put_slice(&[1, self.profile, self.compatibility, self.level]);
        out.put_u8(0b1111_1100 | (self.length_size.saturating_sub(1) & 3));
        out.put_u8(0b1110_0000 | sps_count);
        for sps in &self.sps {
            put_unit(&mut out, "SPS", sps)?;
        }
        out.put_u8(pps_count);
        for pps in &self.pps {
            put_unit(&mut out, "PPS", pps)?;
        }
        out.put_slice(&self.extension);
        Ok(out.freeze())
    }

    /// `avc1.PPCCLL` (RFC 6381 §3.3), of the first SPS: that is what decodes, whatever the record says in front of it.
    pub fn codec_string(&self) -> String {
        let said = [self.profile, self.compatibility, self.level];
        let first = self.sps.first().and_then(|sps| sps.get(1..4)?.try_into().ok());
        let [profile, compatibility, level] = first.unwrap_or(said);
        format!("avc1.{profile:02x}{compatibility:02x}{level:02x}")
    }

    /// The first sequence parameter set, if there is one and it can be understood.
    pub fn first_sps(&self) -> Option<Sps> {
        Sps::parse(self.sps.first()?).ok()
    }
}

#[cfg(test)]
mod tests;
