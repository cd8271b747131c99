//! The H.264 sequence parameter set (ITU-T H.264 §7.3.2.1.1 and Annex E).

use crate::MediaError;
use crate::bits::{BitReader, unescape};

/// What a sequence parameter set says about size, rate and order of pictures.
#[derive(Clone, Debug, PartialEq)]
pub struct Sps {
    /// `profile_idc`.
    pub profile: u8,
    /// `constraint_set0_flag` (the top bit) and those after it.
    pub compatibility: u8,
    /// `level_idc`.
    pub level: u8,
    /// `chroma_format_idc`: 0 grey, 1 4:2:0, 2 4:2:2, 3 4:4:4.
    pub chroma_format: u8,
    /// Bits of a luma sample.
    pub bit_depth_luma: u8,
    /// Bits of a chroma sample.
    pub bit_depth_chroma: u8,
    /// Luma samples per line after cropping.
    pub width: u32,
    /// Lines of a frame after cropping.
    pub height: u32,
    /// `frame_mbs_only_flag` unset: fields or MBAFF may occur.
    pub interlaced: bool,
    /// `pic_order_cnt_type`; with 2, pictures are shown in the order in which they are coded.
    pub poc_type: u8,
    /// `max_num_ref_frames`.
    pub max_ref_frames: u8,
    /// Frames per second by the VUI's timing: `time_scale / (2 * num_units_in_tick)`.
    pub fps: Option<f64>,
    /// `max_num_reorder_frames`, where the VUI has `bitstream_restriction`.
    pub declared_reorder_frames: Option<u8>,
}

/// Bounds the arithmetic on what a stranger's SPS says: 65,536 samples a side, far above level 6.2.
const MAX_MBS_A_SIDE: u32 = 4096;

/// Profiles whose SPS (and `avcC`) has chroma format and bit depths (§7.3.2.1.1).
pub(super) const fn has_chroma_fields(profile: u8) -> bool {
    matches!(profile, 100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135)
}

impl Sps {
    /// Reads an SPS NAL unit, its one-byte header included. What follows the size and can't be
    /// understood (an exotic VUI) only leaves its values out.
    ///
    /// # Errors
    ///
    /// It ends early, or a value is forbidden, before the size is known.
    pub fn parse(nal: &[u8]) -> Result<Self, MediaError> {
        let rbsp = unescape(nal.get(1..).unwrap_or_default());
        let mut bits = BitReader::new("SPS", &rbsp);
        let profile = bits.small(8)?;
        let compatibility = bits.small(8)?;
        let level = bits.small(8)?;
        bits.ue_max("seq_parameter_set_id", 31)?;
        let mut chroma = Chroma { format: 1, separate_planes: false, luma_depth: 8, chroma_depth: 8 };
        if has_chroma_fields(profile) {
            chroma = Chroma::parse(&mut bits)?;
        }
        bits.ue_max("log2_max_frame_num_minus4", 12)?;
        let poc_type = picture_order_count(&mut bits)?;
        let max_ref_frames = bits.ue_max("max_num_ref_frames", 16)? as u8;
        bits.skip(1)?; // gaps_in_frame_num_value_allowed_flag
        let width_mbs = 1 + bits.ue_max("pic_width_in_mbs_minus1", MAX_MBS_A_SIDE - 1)?;
        let height_units = 1 + bits.ue_max("pic_height_in_map_units_minus1", MAX_MBS_A_SIDE - 1)?;
        let frames_only = bits.flag()?;
        if !frames_only {
            bits.skip(1)?; // mb_adaptive_frame_field_flag
        }
        bits.skip(1)?; // direct_8x8_inference_flag
        let field_factor = if frames_only { 1 } else { 2 };
        let crop = if bits.flag()? { crop(&mut bits, &chroma, field_factor)? } else { (0, 0) };
        let vui = if bits.flag()? { Vui::parse(&mut bits) } else { Vui::default() };
        Ok(Self {
            profile,
            compatibility,
            level,
            chroma_format: chroma.format,
            bit_depth_luma: chroma.luma_depth,
            bit_depth_chroma: chroma.chroma_depth,
            width: (width_mbs * 16).saturating_sub(crop.0),
            height: (height_units * 16 * field_factor).saturating_sub(crop.1),
            interlaced: !frames_only,
            poc_type,
            max_ref_frames,
            fps: vui.fps,
            declared_reorder_frames: vui.reorder_frames,
        })
    }

    /// How many frames, at most, are coded before a frame and shown after it: what the VUI declares, or
    /// what must be assumed when it is silent (Annex E, `max_num_reorder_frames`). 0 means that frames
    /// are shown in coding order, so that pts is dts.
    pub fn reorder_frames(&self) -> u8 {
        if let Some(declared) = self.declared_reorder_frames {
            return declared;
        }
        // constraint_set3_flag makes these profiles intra only; Baseline has no B slices.
        let intra = matches!(self.profile, 44 | 86 | 100 | 110 | 122 | 244) && self.compatibility & 0x10 != 0;
        if intra || self.profile == 66 || self.poc_type == 2 {
            return 0;
        }
        self.max_dpb_frames()
    }

    /// `MaxDpbFrames` (§A.3.1, table A-1).
    fn max_dpb_frames(&self) -> u8 {
        let max_dpb_mbs: u32 = match self.level {
            // Level 1b is level 11 with constraint_set3_flag in the old profiles.
            11 if self.compatibility & 0x10 != 0 && matches!(self.profile, 66 | 77 | 88) => 396,
            9 | 10 => 396,
            11 => 900,
            12 | 13 | 20 => 2376,
            21 => 4752,
            22 | 30 => 8100,
            31 => 18_000,
            32 => 20_480,
            40 | 41 => 32_768,
            42 => 34_816,
            50 => 110_400,
            51 | 52 => 184_320,
            60..=62 => 696_320,
            _ => return 16,
        };
        let frame_mbs = self.width.div_ceil(16).saturating_mul(self.height.div_ceil(16)).max(1);
        (max_dpb_mbs / frame_mbs).clamp(1, 16) as u8
    }
}

struct Chroma {
    format: u8,
    separate_planes: bool,
    luma_depth: u8,
    chroma_depth: u8,
}

impl Chroma {
    fn parse(bits: &mut BitReader<'_>) -> Result<Self, MediaError> {
        let format = bits.ue_max("chroma_format_idc", 3)? as u8;
        let separate_planes = format == 3 && bits.flag()?;
        let luma_depth = 8 + bits.ue_max("bit_depth_luma_minus8", 6)? as u8;
        let chroma_depth = 8 + bits.ue_max("bit_depth_chroma_minus8", 6)? as u8;
        bits.skip(1)?; // qpprime_y_zero_transform_bypass_flag
        if bits.flag()? {
            for list in 0..if format == 3 { 12 } else { 8 } {
                if bits.flag()? {
                    skip_scaling_list(bits, if list < 6 { 16 } else { 64 })?;
                }
            }
        }
        Ok(Self { format, separate_planes, luma_depth, chroma_depth })
    }
}

/// §7.3.2.1.1.1
fn skip_scaling_list(bits: &mut BitReader<'_>, size: u32) -> Result<(), MediaError> {
    let (mut last, mut next) = (8_i64, 8_i64);
    for _ in 0..size {
        if next != 0 {
            next = (last + bits.se()?).rem_euclid(256);
        }
        if next != 0 {
            last = next;
        }
    }
    Ok(())
}

fn picture_order_count(bits: &mut BitReader<'_>) -> Result<u8, MediaError> {
    let poc_type = bits.ue_max("pic_order_cnt_type", 2)? as u8;
    match poc_type {
        0 => {
            bits.ue_max("log2_max_pic_order_cnt_lsb_minus4", 12)?;
        }
        1 => {
            bits.skip(1)?; // delta_pic_order_always_zero_flag
            bits.se()?; // offset_for_non_ref_pic
            bits.se()?; // offset_for_top_to_bottom_field
            for _ in 0..bits.ue_max("num_ref_frames_in_pic_order_cnt_cycle", 255)? {
                bits.se()?;
            }
        }
        _ => {}
    }
    Ok(poc_type)
}

/// Samples cut from width and height, in luma samples (§7.4.2.1.1).
fn crop(bits: &mut BitReader<'_>, chroma: &Chroma, field_factor: u32) -> Result<(u32, u32), MediaError> {
    let (unit_x, unit_y) = match (chroma.separate_planes, chroma.format) {
        (false, 1) => (2, 2),
        (false, 2) => (2, 1),
        _ => (1, 1),
    };
    let x = bits.ue()?.saturating_add(bits.ue()?).saturating_mul(unit_x);
    let y = bits.ue()?.saturating_add(bits.ue()?).saturating_mul(unit_y * field_factor);
    Ok((x, y))
}

#[derive(Default)]
struct Vui {
    fps: Option<f64>,
    reorder_frames: Option<u8>,
}

impl Vui {
    /// Reads as far as it can be understood (§E.1.1).
    fn parse(bits: &mut BitReader<'_>) -> Self {
        let mut vui = Self::default();
        // What was read before a fault is kept.
        let _: Result<(), MediaError> = vui.fill(bits);
        vui
    }

    fn fill(&mut self, bits: &mut BitReader<'_>) -> Result<(), MediaError> {
        skip_picture_description(bits)?;
        if bits.flag()? {
            let units_in_tick = bits.bits(32)?;
            let time_scale = bits.bits(32)?;
            bits.skip(1)?; // fixed_frame_rate_flag
            if units_in_tick > 0 && time_scale > 0 {
                self.fps = Some(f64::from(time_scale) / (2.0 * f64::from(units_in_tick)));
            }
        }
        let nal_hrd = bits.flag()?;
        if nal_hrd {
            skip_hrd(bits)?;
        }
        let vcl_hrd = bits.flag()?;
        if vcl_hrd {
            skip_hrd(bits)?;
        }
        if nal_hrd || vcl_hrd {
            bits.skip(1)?; // low_delay_hrd_flag
        }
        bits.skip(1)?; // pic_struct_present_flag
        if bits.flag()? {
            bits.skip(1)?; // motion_vectors_over_pic_boundaries_flag
            for _ in 0..4 {
                bits.ue()?; // max_bytes_per_pic_denom .. log2_max_mv_length_vertical
            }
            self.reorder_frames = Some(bits.ue_max("max_num_reorder_frames", 16)? as u8);
        }
        Ok(())
    }
}

/// Aspect ratio to chroma location: the same fields in H.264 (§E.1.1) and H.265 (§E.2.1).
pub(crate) fn skip_picture_description(bits: &mut BitReader<'_>) -> Result<(), MediaError> {
    const EXTENDED_SAR: u32 = 255;
    if bits.flag()? && bits.bits(8)? == EXTENDED_SAR {
        bits.skip(32)?;
    }
    if bits.flag()? {
        bits.skip(1)?; // overscan_appropriate_flag
    }
    if bits.flag()? {
        bits.skip(4)?; // video_format, video_full_range_flag
        if bits.flag()? {
            bits.skip(24)?; // colour_primaries, transfer_characteristics, matrix_coefficients
        }
    }
    if bits.flag()? {
        bits.ue()?; // chroma_sample_loc_type_top_field
        bits.ue()?; // chroma_sample_loc_type_bottom_field
    }
    Ok(())
}

/// §E.1.2
fn skip_hrd(bits: &mut BitReader<'_>) -> Result<(), MediaError> {
    let count = 1 + bits.ue_max("cpb_cnt_minus1", 31)?;
    bits.skip(8)?; // bit_rate_scale, cpb_size_scale
    for _ in 0..count {
        bits.ue()?; // bit_rate_value_minus1
        bits.ue()?; // cpb_size_value_minus1
        bits.skip(1)?; // cbr_flag
    }
    bits.skip(20) // four lengths of five bits
}
