//! The H.265 video parameter set (ITU-T H.265 §7.3.2.1).

use super::ProfileTierLevel;
use crate::MediaError;
use crate::bits::{BitReader, unescape};

/// What a video parameter set says of the whole stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Vps {
    /// Profile, tier and level.
    pub profile: ProfileTierLevel,
    /// `vps_max_sub_layers_minus1 + 1`.
    pub temporal_layers: u8,
    /// Pictures per second by its timing, where it has any.
    pub fps: Option<f64>,
}

impl Vps {
    /// Reads a VPS NAL unit, its two-byte header included, up to the timing.
    ///
    /// # Errors
    ///
    /// It ends early or a value is forbidden.
    pub fn parse(nal: &[u8]) -> Result<Self, MediaError> {
        let rbsp = unescape(nal.get(2..).unwrap_or_default());
        let mut bits = BitReader::new("VPS", &rbsp);
        bits.skip(4 + 2 + 6)?; // id, base layer flags, vps_max_layers_minus1
        let temporal_layers = 1 + bits.small(3)?;
        bits.skip(1 + 16)?; // temporal id nesting, reserved
        let profile = ProfileTierLevel::parse(&mut bits, temporal_layers)?;
        let listed = if bits.flag()? { temporal_layers } else { 1 };
        for _ in 0..listed {
            bits.ue()?;
            bits.ue()?;
            bits.ue()?;
        }
        let max_layer_id = bits.small(6)?;
        let layer_sets = bits.ue_max("vps_num_layer_sets_minus1", 1023)?;
        bits.skip(layer_sets as usize * (usize::from(max_layer_id) + 1))?;
        let fps = if bits.flag()? { frame_rate(&mut bits)? } else { None };
        Ok(Self { profile, temporal_layers, fps })
    }
}

/// `num_units_in_tick` and `time_scale`: a tick is one picture (§E.3.1), not one field as in H.264.
pub(super) fn frame_rate(bits: &mut BitReader<'_>) -> Result<Option<f64>, MediaError> {
    let units_in_tick = bits.bits(32)?;
    let time_scale = bits.bits(32)?;
    Ok((units_in_tick > 0 && time_scale > 0).then(|| f64::from(time_scale) / f64::from(units_in_tick)))
}
