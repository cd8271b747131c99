//! H.265 (ITU-T H.265, ISO/IEC 23008-2): its configuration record and what its NAL units are.

use bytes::{BufMut, Bytes, BytesMut};

use crate::MediaError;
use crate::bits::{BitReader, unescape};
use crate::nal::NalUnits;
use crate::record::{Record, put_unit};

mod profile;
mod sps;
mod vps;

pub use profile::ProfileTierLevel;
pub use sps::Sps;
pub use vps::Vps;

/// `nal_unit_type` of a video parameter set (table 7-1).
pub const NAL_VPS: u8 = 32;
/// `nal_unit_type` of a sequence parameter set.
pub const NAL_SPS: u8 = 33;
/// `nal_unit_type` of a picture parameter set.
pub const NAL_PPS: u8 = 34;

/// A NAL unit's type; 63, which is unspecified, for an empty one.
pub fn nal_type(nal: &[u8]) -> u8 {
    nal.first().map_or(63, |header| header >> 1 & 0x3f)
}

/// Whether a NAL unit is a slice of an intra random access picture: BLA, IDR or CRA (types 16 to 23).
pub fn is_irap_nal(nal: &[u8]) -> bool {
    (16..=23).contains(&nal_type(nal))
}

/// Whether an access unit of length-prefixed NAL units is an IRAP picture, where decoding may start.
pub fn is_irap(access_unit: &[u8], length_size: u8) -> bool {
    NalUnits::new(access_unit, length_size).flatten().any(is_irap_nal)
}

/// The number by which slices and other parameter sets refer to this VPS (at most 15), SPS (15) or PPS (63); `None`
/// where it can't be read (§7.3.2.1, §7.3.2.2, §7.3.2.3).
pub(crate) fn parameter_set_id(nal: &[u8]) -> Option<u32> {
    // An SPS has it behind profile, tier and level of up to 7 layers.
    let rbsp = unescape(nal.get(2..nal.len().min(256))?);
    let mut bits = BitReader::new("parameter set", &rbsp);
    let (id, most) = match nal_type(nal) {
        NAL_VPS => (bits.bits(4).ok()?, 15),
        NAL_SPS => {
            sps::Start::parse(&mut bits).ok()?;
            (bits.ue().ok()?, 15)
        }
        _ => (bits.ue().ok()?, 63),
    };
    (id <= most).then_some(id)
}

/// NAL units of one type in an `hvcC`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NalArray {
    /// No more units of this type are in the stream itself.
    pub complete: bool,
    /// `nal_unit_type`.
    pub nal_type: u8,
    /// Whole NAL units.
    pub units: Vec<Bytes>,
}

/// `hvcC`, the HEVCDecoderConfigurationRecord (ISO/IEC 14496-15 §8.3.3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HevcConfig {
    /// Profile, tier and level of the whole stream, as the record says.
    pub profile: ProfileTierLevel,
    /// `min_spatial_segmentation_idc`; 0 when unknown.
    pub min_spatial_segmentation: u16,
    /// `parallelismType`; 0 when unknown.
    pub parallelism: u8,
    /// `chroma_format_idc`.
    pub chroma_format: u8,
    /// Bits of a luma sample.
    pub bit_depth_luma: u8,
    /// Bits of a chroma sample.
    pub bit_depth_chroma: u8,
    /// Frames per 256 seconds; 0 when unknown.
    pub average_frame_rate: u16,
    /// `constantFrameRate`; 0 when unknown.
    pub constant_frame_rate: u8,
    /// `numTemporalLayers`; 0 when unknown.
    pub temporal_layers: u8,
    /// `temporalIdNested`.
    pub temporal_id_nested: bool,
    /// Bytes of length before each NAL unit.
    pub length_size: u8,
    /// Parameter sets (and SEI) by type.
    pub arrays: Vec<NalArray>,
}

impl HevcConfig {
    const WHAT: &'static str = "hvcC";

    /// Reads a record. Version 0 is what encoders wrote before the standard was final.
    ///
    /// # Errors
    ///
    /// A version above 1, or a length that overruns the record.
    pub fn parse(record: Bytes) -> Result<Self, MediaError> {
        let mut record = Record::new(Self::WHAT, record);
        let version = record.u8()?;
        if version > 1 {
            return Err(MediaError::Version { what: Self::WHAT, found: version });
        }
        let profile = ProfileTierLevel::from_record(record.array()?);
        let min_spatial_segmentation = record.u16()? & 0x0fff;
        let [parallelism, chroma_format, luma, chroma] = record.array()?;
        let average_frame_rate = record.u16()?;
        let [layers, array_count] = record.array()?;
        let mut arrays = Vec::new();
        for _ in 0..array_count {
            let kind = record.u8()?;
            let count = record.u16()?;
            let units = record.units(count.into())?;
            arrays.push(NalArray { complete: kind & 0x80 != 0, nal_type: kind & 0x3f, units });
        }
        Ok(Self {
            profile,
            min_spatial_segmentation,
            parallelism: parallelism & 3,
            chroma_format: chroma_format & 3,
            bit_depth_luma: 8 + (luma & 7),
            bit_depth_chroma: 8 + (chroma & 7),
            average_frame_rate,
            constant_frame_rate: layers >> 6,
            temporal_layers: layers >> 3 & 7,
            temporal_id_nested: layers & 4 != 0,
            length_size: (layers & 3) + 1,
            arrays,
        })
    }

    /// The record for a stream with these parameter sets (whole NAL units), none of them in the samples
    /// (`hvc1`), and 4-byte lengths.
    ///
    /// # Errors
    ///
    /// No SPS, or one that can't be understood.
    pub fn from_parameter_sets(
        vps: Vec<Bytes>,
        sps: Vec<Bytes>,
        pps: Vec<Bytes>,
    ) -> Result<Self, MediaError> {
        let first = Sps::parse(sps.first().map_or(&[][..], |sps| sps))?;
        let array = |nal_type, units| NalArray { complete: true, nal_type, units };
        Ok(Self {
            profile: first.profile,
            min_spatial_segmentation: 0,
            parallelism: 0,
            chroma_format: first.chroma_format,
            bit_depth_luma: first.bit_depth_luma,
            bit_depth_chroma: first.bit_depth_chroma,
            average_frame_rate: 0,
            constant_frame_rate: 0,
            temporal_layers: first.temporal_layers,
            temporal_id_nested: first.temporal_id_nested,
            length_size: 4,
            arrays: vec![array(NAL_VPS, vps), array(NAL_SPS, sps), array(NAL_PPS, pps)],
        })
    }

    /// Writes the record.
    ///
    /// # Errors
    ///
    /// More arrays or units than their counts can say, or a unit longer than 65,535 bytes.
    pub fn build(&self) -> Result<Bytes, MediaError> {
        let mut out = BytesMut::new();
        out.put_u8(1);
        out.put_slice(&self.profile.to_record());
        out.put_u16(0xf000 | (self.min_spatial_segmentation & 0x0fff));
        out.put_u8(0xfc | (self.parallelism & 3));
        out.put_u8(0xfc | (self.chroma_format & 3));
        out.put_u8(0xf8 | (self.bit_depth_luma.saturating_sub(8) & 7));
        out.put_u8(0xf8 | (self.bit_depth_chroma.saturating_sub(8) & 7));
        out.put_u16(self.average_frame_rate);
        out.put_u8(
            (self.constant_frame_rate & 3) << 6
                | (self.temporal_layers & 7) << 3
                | u8::from(self.temporal_id_nested) << 2
                | (self.length_size.saturating_sub(1) & 3),
        );
        out.put_u8(u8::try_from(self.arrays.len()).map_err(|_| MediaError::TooLarge {
            what: "hvcC: number of arrays",
            value: self.arrays.len(),
            most: 255,
        })?);
        for array in &self.arrays {
            out.put_u8(u8::from(array.complete) << 7 | (array.nal_type & 0x3f));
            out.put_u16(u16::try_from(array.units.len()).map_err(|_| MediaError::TooLarge {
                what: "hvcC: number of units",
                value: array.units.len(),
                most: u16::MAX.into(),
            })?);
            for unit in &array.units {
                put_unit(&mut out, "hvcC: unit", unit)?;
            }
        }
        Ok(out.freeze())
    }

    /// The units of one type, in order.
    pub fn units(&self, nal_type: u8) -> impl Iterator<Item = &Bytes> {
        self.arrays.iter().filter(move |array| array.nal_type == nal_type).flat_map(|a| &a.units)
    }

    /// The first sequence parameter set, if there is one and it can be understood.
    pub fn first_sps(&self) -> Option<Sps> {
        Sps::parse(self.units(NAL_SPS).next()?).ok()
    }

    /// The first video parameter set, if there is one and it can be understood.
    pub fn first_vps(&self) -> Option<Vps> {
        Vps::parse(self.units(NAL_VPS).next()?).ok()
    }

    /// Profile, tier and level of the first SPS, whatever else of it can be understood: that is what decodes. The
    /// record's own word counts where there is none.
    pub fn true_profile(&self) -> ProfileTierLevel {
        self.units(NAL_SPS).next().and_then(|sps| sps::profile(sps).ok()).unwrap_or(self.profile)
    }

    /// `hvc1.1.6.L93.B0` (ISO/IEC 14496-15 §E.3), of the first SPS.
    pub fn codec_string(&self) -> String {
        format!("hvc1.{}", self.true_profile().codec_parameters())
    }
}

#[cfg(test)]
mod tests;
