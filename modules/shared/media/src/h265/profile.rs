//! Profile, tier and level (ITU-T H.265 §7.3.3).

use std::fmt::Write as _;

use crate::MediaError;
use crate::bits::BitReader;

/// `profile_tier_level()` of the whole stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProfileTierLevel {
    /// `general_profile_space`, 0 to 3.
    pub space: u8,
    /// `general_tier_flag`: High tier.
    pub high_tier: bool,
    /// `general_profile_idc`: 1 Main, 2 Main 10, ...
    pub profile: u8,
    /// `general_profile_compatibility_flag[0]` is the top bit.
    pub compatibility: u32,
    /// The six bytes of source and constraint flags.
    pub constraints: [u8; 6],
    /// `general_level_idc`: thirty times the level.
    pub level: u8,
}

impl ProfileTierLevel {
    /// From the twelve bytes as they stand in `hvcC`, VPS and SPS alike.
    pub(super) const fn from_record(bytes: [u8; 12]) -> Self {
        let [head, c0, c1, c2, c3, f0, f1, f2, f3, f4, f5, level] = bytes;
        Self {
            space: head >> 6,
            high_tier: head & 0x20 != 0,
            profile: head & 0x1f,
            compatibility: u32::from_be_bytes([c0, c1, c2, c3]),
            constraints: [f0, f1, f2, f3, f4, f5],
            level,
        }
    }

    pub(super) const fn to_record(self) -> [u8; 12] {
        let head = (self.space & 3) << 6 | (self.high_tier as u8) << 5 | (self.profile & 0x1f);
        let [c0, c1, c2, c3] = self.compatibility.to_be_bytes();
        let [f0, f1, f2, f3, f4, f5] = self.constraints;
        [head, c0, c1, c2, c3, f0, f1, f2, f3, f4, f5, self.level]
    }

    /// Reads it and steps over what it says of sub-layers.
    pub(super) fn parse(bits: &mut BitReader<'_>, sub_layers: u8) -> Result<Self, MediaError> {
        let mut bytes = [0; 12];
        for byte in &mut bytes {
            *byte = bits.small(8)?;
        }
        let mut lengths = [0_usize; 8];
        let below = usize::from(sub_layers).saturating_sub(1);
        for length in lengths.iter_mut().take(below) {
            let profile = bits.flag()?;
            let level = bits.flag()?;
            *length = if profile { 88 } else { 0 } + if level { 8 } else { 0 };
        }
        if below > 0 {
            bits.skip(2 * (8 - below))?; // reserved_zero_2bits
        }
        bits.skip(lengths.iter().sum())?;
        Ok(Self::from_record(bytes))
    }

    /// `1.6.L93.B0`: the parameters behind `hvc1.` (ISO/IEC 14496-15 §E.3): the compatibility flags in
    /// reverse bit order, and constraint bytes up to the last that is not zero.
    pub(super) fn codec_parameters(&self) -> String {
        let space = ["", "A", "B", "C"].get(usize::from(self.space)).copied().unwrap_or_default();
        let tier = if self.high_tier { 'H' } else { 'L' };
        let compatibility = self.compatibility.reverse_bits();
        let mut text = format!("{space}{}.{compatibility:X}.{tier}{}", self.profile, self.level);
        let used = self.constraints.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        for byte in self.constraints.iter().take(used) {
            // Writing to a String does not fail.
            let _ = write!(text, ".{byte:X}");
        }
        text
    }
}
