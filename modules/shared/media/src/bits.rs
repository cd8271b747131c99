//! Reading and writing single bits, as parameter sets and AAC headers are written.

use crate::MediaError;

/// Reads bits, most significant first; never past the end.
#[derive(Clone, Debug)]
pub(crate) struct BitReader<'a> {
    what: &'static str,
    data: &'a [u8],
    at: usize,
}

impl<'a> BitReader<'a> {
    /// `what` names the bytes in errors.
    pub(crate) const fn new(what: &'static str, data: &'a [u8]) -> Self {
        Self { what, data, at: 0 }
    }

    /// Bits not read yet.
    pub(crate) const fn left(&self) -> usize {
        self.data.len().saturating_mul(8).saturating_sub(self.at)
    }

    /// One flag.
    pub(crate) fn flag(&mut self) -> Result<bool, MediaError> {
        let Some(byte) = self.data.get(self.at / 8) else {
            return Err(MediaError::Truncated { what: self.what, need: 1, have: 0 });
        };
        let bit = byte >> (7 - self.at % 8) & 1;
        self.at += 1;
        Ok(bit == 1)
    }

    /// An unsigned number of `count` bits, at most 32.
    pub(crate) fn bits(&mut self, count: u32) -> Result<u32, MediaError> {
        if self.left() < count as usize {
            let need = (count as usize).div_ceil(8);
            return Err(MediaError::Truncated { what: self.what, need, have: self.left() / 8 });
        }
        let mut value = 0_u64;
        for _ in 0..count {
            value = value << 1 | u64::from(self.flag()?);
        }
        u32::try_from(value).map_err(|_| self.bad("bits", value))
    }

    /// A number of at most 8 bits.
    pub(crate) fn small(&mut self, count: u32) -> Result<u8, MediaError> {
        let value = self.bits(count)?;
        u8::try_from(value).map_err(|_| self.bad("bits", value.into()))
    }

    /// Steps over `count` bits.
    pub(crate) fn skip(&mut self, count: usize) -> Result<(), MediaError> {
        if self.left() < count {
            let need = count.div_ceil(8);
            return Err(MediaError::Truncated { what: self.what, need, have: self.left() / 8 });
        }
        self.at += count;
        Ok(())
    }

    /// Steps to the next whole byte.
    pub(crate) const fn align(&mut self) {
        self.at = self.at.div_ceil(8) * 8;
    }

    /// An unsigned Exp-Golomb number, `ue(v)` (ITU-T H.264 §9.1): at most 2^32 - 2.
    pub(crate) fn ue(&mut self) -> Result<u32, MediaError> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros > 31 {
                return Err(self.bad("leading zeros of an Exp-Golomb number", zeros.into()));
            }
        }
        let rest = self.bits(zeros)?;
        // At most (2^31 - 1) + (2^31 - 1).
        Ok(((1_u32 << zeros) - 1).saturating_add(rest))
    }

    /// The same, refused above `most`.
    pub(crate) fn ue_max(&mut self, field: &'static str, most: u32) -> Result<u32, MediaError> {
        let value = self.ue()?;
        if value > most {
            return Err(MediaError::Value { what: self.what, field, value: value.into() });
        }
        Ok(value)
    }

    /// A signed Exp-Golomb number, `se(v)` (ITU-T H.264 §9.1.1).
    pub(crate) fn se(&mut self) -> Result<i64, MediaError> {
        let code = i64::from(self.ue()?);
        Ok(if code % 2 == 1 { (code + 1) / 2 } else { -(code / 2) })
    }

    fn bad(&self, field: &'static str, value: u64) -> MediaError {
        MediaError::Value { what: self.what, field, value }
    }
}

/// Writes bits, most significant first.
#[derive(Debug, Default)]
pub(crate) struct BitWriter {
    bytes: Vec<u8>,
    used: usize,
}

impl BitWriter {
    /// The low `count` bits of `value`, at most 32.
    pub(crate) fn bits(&mut self, count: u32, value: u32) {
        for place in (0..count).rev() {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            let bit = u8::from(value >> place & 1 == 1);
            if let Some(last) = self.bytes.last_mut() {
                *last |= bit << (7 - self.used % 8);
            }
            self.used += 1;
        }
    }

    /// What was written; the last byte is filled up with zeros.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// A NAL unit's payload without its emulation prevention bytes: each `00 00 03` becomes `00 00`
/// (ITU-T H.264 §7.3.1, H.265 §7.3.1.1).
pub(crate) fn unescape(nal: &[u8]) -> Vec<u8> {
    let mut rbsp = Vec::with_capacity(nal.len());
    let mut zeros = 0;
    for &byte in nal {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        rbsp.push(byte);
    }
    rbsp
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn write_ue(writer: &mut BitWriter, value: u32) {
        let code = u64::from(value) + 1;
        let bits = 64 - code.leading_zeros();
        writer.bits(bits - 1, 0);
        // 33 bits at most: the first is the 1 that ends the zeros.
        writer.bits(1, 1);
        writer.bits(bits - 1, (code & !(1 << (bits - 1))) as u32);
    }

    /// The other direction, as an encoder does it.
    fn escape(rbsp: &[u8]) -> Vec<u8> {
        let mut nal = Vec::new();
        let mut zeros = 0;
        for &byte in rbsp {
            if zeros == 2 && byte <= 3 {
                nal.push(3);
                zeros = 0;
            }
            zeros = if byte == 0 { zeros + 1 } else { 0 };
            nal.push(byte);
        }
        nal
    }

    #[test]
    fn exp_golomb_codes_are_those_of_the_specifications_table() {
        // ITU-T H.264 table 9-2: 1, 010, 011, 00100, 00101.
        let mut reader = BitReader::new("test", &[0b1010_0110, 0b0100_0010, 0b1000_0000]);
        let values: Vec<u32> = (0..5).map(|_| reader.ue().unwrap()).collect();
        assert_eq!(values, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn signed_exp_golomb_alternates_around_zero() {
        let mut reader = BitReader::new("test", &[0b1010_0110, 0b0100_0010, 0b1000_0000]);
        let values: Vec<i64> = (0..5).map(|_| reader.se().unwrap()).collect();
        assert_eq!(values, [0, 1, -1, 2, -2]);
    }

    #[test]
    fn an_endless_row_of_zeros_is_refused() {
        assert!(matches!(BitReader::new("test", &[0; 64]).ue(), Err(MediaError::Value { .. })));
        assert!(matches!(BitReader::new("test", &[0; 2]).ue(), Err(MediaError::Truncated { .. })));
    }

    #[test]
    fn emulation_prevention_bytes_are_removed_and_other_threes_kept() {
        assert_eq!(unescape(&[1, 0, 0, 3, 0, 0, 3, 1, 3, 0, 3]), [1, 0, 0, 0, 0, 1, 3, 0, 3]);
    }

    proptest! {
        #[test]
        fn exp_golomb_survives_a_round_trip(values in prop::collection::vec(0..u32::MAX, 1..20)) {
            let mut writer = BitWriter::default();
            values.iter().for_each(|&value| write_ue(&mut writer, value));
            let bytes = writer.finish();
            let mut reader = BitReader::new("test", &bytes);
            for value in values {
                prop_assert_eq!(reader.ue().unwrap(), value);
            }
        }

        #[test]
        fn unescaping_undoes_escaping(rbsp in prop::collection::vec(0_u8..5, 0..200)) {
            prop_assert_eq!(unescape(&escape(&rbsp)), rbsp);
        }
    }
}
