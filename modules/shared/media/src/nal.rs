//! NAL units behind lengths, as MP4 and RTMP carry them, and behind start codes (ITU-T H.264 and H.265
//! Annex B), as MPEG-TS and encoders do.

use crate::MediaError;

/// The NAL units of one access unit, each behind a big-endian length of `length_size` bytes (1 to 4).
///
/// A length that overruns is given as an error once; then the iterator ends.
#[derive(Clone, Debug)]
pub struct NalUnits<'a> {
    rest: &'a [u8],
    length_size: usize,
}

impl<'a> NalUnits<'a> {
    /// `length_size` is what the configuration record says; 4 nearly always.
    pub fn new(access_unit: &'a [u8], length_size: u8) -> Self {
        Self { rest: access_unit, length_size: usize::from(length_size).clamp(1, 4) }
    }

    fn cut(&mut self) -> Result<&'a [u8], MediaError> {
        let what = "NAL unit";
        let (length, rest) = self.rest.split_at_checked(self.length_size).ok_or(MediaError::Truncated {
            what,
            need: self.length_size,
            have: self.rest.len(),
        })?;
        let length = length.iter().fold(0, |length, &byte| length << 8 | usize::from(byte));
        let (nal, rest) = rest.split_at_checked(length).ok_or(MediaError::Truncated {
            what,
            need: length,
            have: rest.len(),
        })?;
        self.rest = rest;
        Ok(nal)
    }
}

impl<'a> Iterator for NalUnits<'a> {
    type Item = Result<&'a [u8], MediaError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let nal = self.cut();
        if nal.is_err() {
            self.rest = &[];
        }
        Some(nal)
    }
}

/// The NAL units of an Annex B byte stream. Bytes before the first start code and empty units are
/// skipped, and zeros at the end of a unit belong to the stream (`trailing_zero_8bits`), not to it.
#[derive(Clone, Debug)]
pub struct AnnexBUnits<'a> {
    rest: Option<&'a [u8]>,
}

impl<'a> AnnexBUnits<'a> {
    /// Starts behind the first start code.
    pub fn new(stream: &'a [u8]) -> Self {
        Self { rest: split_at_start_code(stream).1 }
    }
}

impl<'a> Iterator for AnnexBUnits<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while let Some(rest) = self.rest {
            let (nal, after) = split_at_start_code(rest);
            self.rest = after;
            let end = nal.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
            if let Some(nal) = nal.get(..end).filter(|nal| !nal.is_empty()) {
                return Some(nal);
            }
        }
        None
    }
}

/// What is before the next `00 00 01` and, if there is one, what is behind it.
fn split_at_start_code(stream: &[u8]) -> (&[u8], Option<&[u8]>) {
    match stream.windows(3).position(|three| three == [0, 0, 1]) {
        Some(at) => {
            let (before, code) = stream.split_at(at);
            (before, code.get(3..))
        }
        None => (stream, None),
    }
}

/// Writes `nals` with 4-byte lengths.
///
/// # Errors
///
/// A NAL unit of 4 GiB or more.
pub fn to_length_prefixed<'a>(nals: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<u8>, MediaError> {
    let mut out = Vec::new();
    for nal in nals {
        let length = u32::try_from(nal.len()).map_err(|_| MediaError::TooLarge {
            what: "NAL unit",
            value: nal.len(),
            most: u32::MAX as usize,
        })?;
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(nal);
    }
    Ok(out)
}

/// Writes `nals` behind 4-byte start codes.
pub fn to_annex_b<'a>(nals: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    for nal in nals {
        out.extend_from_slice(&[0, 0, 0, 1]);
        out.extend_from_slice(nal);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn start_codes_of_three_and_four_bytes_are_found_and_padding_is_dropped() {
        let stream = [9, 0, 0, 0, 1, 0x67, 1, 0, 0, 1, 0x68, 2, 0, 0, 0, 0, 1, 0, 0, 1, 0x65, 0, 0];
        let nals: Vec<&[u8]> = AnnexBUnits::new(&stream).collect();
        assert_eq!(nals, [&[0x67, 1][..], &[0x68, 2], &[0x65]]);
    }

    #[test]
    fn a_length_that_overruns_is_said_once() {
        let mut nals = NalUnits::new(&[0, 0, 0, 1, 0x65, 0, 0, 0, 9, 1], 4);
        assert_eq!(nals.next(), Some(Ok(&[0x65][..])));
        assert_eq!(nals.next(), Some(Err(MediaError::Truncated { what: "NAL unit", need: 9, have: 1 })));
        assert_eq!(nals.next(), None);
    }

    #[test]
    fn lengths_of_one_two_and_three_bytes_are_read_too() {
        assert_eq!(NalUnits::new(&[1, 0x65, 1, 0x41], 1).count(), 2);
        assert_eq!(NalUnits::new(&[0, 1, 0x65, 0, 1, 0x41], 2).count(), 2);
        assert_eq!(NalUnits::new(&[0, 0, 1, 0x65, 0, 0, 1, 0x41], 3).count(), 2);
    }

    /// What an encoder may write: no start code inside, no zero at the end.
    fn nal() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 1..40).prop_filter("escaped by an encoder", |nal| {
            nal.last() != Some(&0) && nal.windows(3).all(|three| three != [0, 0, 1])
        })
    }

    proptest! {
        #[test]
        fn lengths_to_start_codes_and_back_is_the_same(nals in prop::collection::vec(nal(), 0..8)) {
            let prefixed = to_length_prefixed(nals.iter().map(Vec::as_slice)).unwrap();
            let read: Vec<&[u8]> = NalUnits::new(&prefixed, 4).map(Result::unwrap).collect();
            let stream = to_annex_b(read);
            prop_assert_eq!(to_length_prefixed(AnnexBUnits::new(&stream)).unwrap(), prefixed);
        }

        #[test]
        fn any_bytes_are_walked_to_their_end(bytes: Vec<u8>, size in 0_u8..9) {
            let total: usize = NalUnits::new(&bytes, size).flatten().map(<[u8]>::len).sum();
            prop_assert!(total <= bytes.len());
            prop_assert!(AnnexBUnits::new(&bytes).map(<[u8]>::len).sum::<usize>() <= bytes.len());
        }
    }
}
