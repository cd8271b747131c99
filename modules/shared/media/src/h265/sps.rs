//! The H.265 sequence parameter set (ITU-T H.265 §7.3.2.2 and Annex E).

use super::{ProfileTierLevel, vps::frame_rate};
use crate::MediaError;
use crate::bits::{BitReader, unescape};
use crate::h264::skip_picture_description;

/// What a sequence parameter set says about size, rate and order of pictures.
#[derive(Clone, Debug, PartialEq)]
pub struct Sps {
    /// Profile, tier and level.
    pub profile: ProfileTierLevel,
    /// `sps_max_sub_layers_minus1 + 1`.
    pub temporal_layers: u8,
    /// `sps_temporal_id_nesting_flag`.
    pub temporal_id_nested: bool,
    /// `chroma_format_idc`: 0 grey, 1 4:2:0, 2 4:2:2, 3 4:4:4.
    pub chroma_format: u8,
    /// Bits of a luma sample.
    pub bit_depth_luma: u8,
    /// Bits of a chroma sample.
    pub bit_depth_chroma: u8,
    /// Luma samples per line inside the conformance window.
    pub width: u32,
    /// Lines inside the conformance window.
    pub height: u32,
    /// `sps_max_num_reorder_pics` of the highest sub-layer: 0 means that pictures are shown in coding
    /// order.
    pub reorder_frames: u8,
    /// Pictures per second by the VUI's timing, where it has any and it could be reached.
    pub fps: Option<f64>,
}

/// Bounds the arithmetic on what a stranger's SPS says; level 6.2 ends at 16,888.
const MAX_SIDE: u32 = 65_536;

impl Sps {
    /// Reads an SPS NAL unit, its two-byte header included. What follows the picture order and can't be
    /// understood only leaves the rate out.
    ///
    /// # Errors
    ///
    /// It ends early, or a value is forbidden, before size and order are known.
    pub fn parse(nal: &[u8]) -> Result<Self, MediaError> {
        let rbsp = unescape(nal.get(2..).unwrap_or_default());
        let mut bits = BitReader::new("SPS", &rbsp);
        let Start { profile, temporal_layers, temporal_id_nested } = Start::parse(&mut bits)?;
        bits.ue_max("sps_seq_parameter_set_id", 15)?;
        let chroma_format = bits.ue_max("chroma_format_idc", 3)? as u8;
        let separate_planes = chroma_format == 3 && bits.flag()?;
        let width = bits.ue_max("pic_width_in_luma_samples", MAX_SIDE)?;
        let height = bits.ue_max("pic_height_in_luma_samples", MAX_SIDE)?;
        let (crop_x, crop_y) = if bits.flag()? { window(&mut bits)? } else { (0, 0) };
        let (unit_x, unit_y) = match (separate_planes, chroma_format) {
            (false, 1) => (2, 2),
            (false, 2) => (2, 1),
            _ => (1, 1),
        };
        let bit_depth_luma = 8 + bits.ue_max("bit_depth_luma_minus8", 8)? as u8;
        let bit_depth_chroma = 8 + bits.ue_max("bit_depth_chroma_minus8", 8)? as u8;
        let poc_bits = 4 + bits.ue_max("log2_max_pic_order_cnt_lsb_minus4", 12)?;
        let listed = if bits.flag()? { temporal_layers } else { 1 };
        let mut reorder_frames = 0;
        for _ in 0..listed {
            bits.ue_max("sps_max_dec_pic_buffering_minus1", 15)?;
            // The last is the highest sub-layer's.
            reorder_frames = bits.ue_max("sps_max_num_reorder_pics", 15)? as u8;
            bits.ue()?; // sps_max_latency_increase_plus1
        }
        Ok(Self {
            profile,
            temporal_layers,
            temporal_id_nested,
            chroma_format,
            bit_depth_luma,
            bit_depth_chroma,
            width: width.saturating_sub(crop_x.saturating_mul(unit_x)),
            height: height.saturating_sub(crop_y.saturating_mul(unit_y)),
            reorder_frames,
            fps: vui_frame_rate(&mut bits, poc_bits).ok().flatten(),
        })
    }
}

/// What stands in front of an SPS's number.
pub(super) struct Start {
    profile: ProfileTierLevel,
    temporal_layers: u8,
    temporal_id_nested: bool,
}

impl Start {
    pub(super) fn parse(bits: &mut BitReader<'_>) -> Result<Self, MediaError> {
        bits.skip(4)?; // sps_video_parameter_set_id
        let temporal_layers = 1 + bits.small(3)?;
        let temporal_id_nested = bits.flag()?;
        let profile = ProfileTierLevel::parse(bits, temporal_layers)?;
        Ok(Self { profile, temporal_layers, temporal_id_nested })
    }
}

/// Profile, tier and level of an SPS NAL unit, its two-byte header included.
pub(super) fn profile(nal: &[u8]) -> Result<ProfileTierLevel, MediaError> {
    let rbsp = unescape(nal.get(2..).unwrap_or_default());
    Ok(Start::parse(&mut BitReader::new("SPS", &rbsp))?.profile)
}

/// Left plus right, top plus bottom.
fn window(bits: &mut BitReader<'_>) -> Result<(u32, u32), MediaError> {
    let x = bits.ue()?.saturating_add(bits.ue()?);
    let y = bits.ue()?.saturating_add(bits.ue()?);
    Ok((x, y))
}

/// Steps over the coding tools to the VUI's timing.
fn vui_frame_rate(bits: &mut BitReader<'_>, poc_bits: u32) -> Result<Option<f64>, MediaError> {
    for _ in 0..6 {
        bits.ue()?; // block sizes and transform depths
    }
    if bits.flag()? && bits.flag()? {
        skip_scaling_lists(bits)?;
    }
    bits.skip(2)?; // amp_enabled_flag, sample_adaptive_offset_enabled_flag
    if bits.flag()? {
        bits.skip(8)?; // pcm bit depths
        bits.ue()?;
        bits.ue()?;
        bits.skip(1)?; // pcm_loop_filter_disabled_flag
    }
    let mut delta_pocs = 0;
    for index in 0..bits.ue_max("num_short_term_ref_pic_sets", 64)? {
        delta_pocs = skip_reference_set(bits, index, delta_pocs)?;
    }
    if bits.flag()? {
        let count = bits.ue_max("num_long_term_ref_pics_sps", 32)?;
        bits.skip(count as usize * (poc_bits as usize + 1))?;
    }
    bits.skip(2)?; // sps_temporal_mvp_enabled_flag, strong_intra_smoothing_enabled_flag
    if !bits.flag()? {
        return Ok(None);
    }
    skip_picture_description(bits)?;
    bits.skip(3)?; // neutral chroma, field_seq_flag, frame_field_info_present_flag
    if bits.flag()? {
        window(bits)?; // default display window
    }
    if bits.flag()? { frame_rate(bits) } else { Ok(None) }
}

/// §7.3.4
fn skip_scaling_lists(bits: &mut BitReader<'_>) -> Result<(), MediaError> {
    for size in 0..4_u32 {
        // Only two of the six matrices have a 32x32 list.
        for _ in 0..if size == 3 { 2 } else { 6 } {
            if !bits.flag()? {
                bits.ue()?; // scaling_list_pred_matrix_id_delta
                continue;
            }
            if size > 1 {
                bits.se()?; // scaling_list_dc_coef_minus8
            }
            for _ in 0..64.min(1 << (4 + (size << 1))) {
                bits.se()?;
            }
        }
    }
    Ok(())
}

/// One `st_ref_pic_set` (§7.3.7); gives its `NumDeltaPocs`, which the next one may lean on.
fn skip_reference_set(
    bits: &mut BitReader<'_>,
    index: u32,
    delta_pocs_before: u32,
) -> Result<u32, MediaError> {
    if index > 0 && bits.flag()? {
        bits.skip(1)?; // delta_rps_sign
        bits.ue()?; // abs_delta_rps_minus1
        let mut delta_pocs = 0;
        for _ in 0..=delta_pocs_before {
            // used_by_curr_pic_flag, else use_delta_flag
            if bits.flag()? || bits.flag()? {
                delta_pocs += 1;
            }
        }
        return Ok(delta_pocs);
    }
    let negative = bits.ue_max("num_negative_pics", 16)?;
    let positive = bits.ue_max("num_positive_pics", 16)?;
    for _ in 0..negative + positive {
        bits.ue()?; // delta_poc_minus1
        bits.skip(1)?; // used_by_curr_pic_flag
    }
    Ok(negative + positive)
}
