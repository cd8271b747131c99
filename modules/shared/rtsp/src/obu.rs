//! AV1's open bitstream units (AV1 Bitstream & Decoding Process Specification §5.3).

use bytes::{BufMut, Bytes, BytesMut};

/// `obu_type`s (§6.2.2).
pub(crate) const SEQUENCE_HEADER: u8 = 1;
const TEMPORAL_DELIMITER: u8 = 2;
const TILE_LIST: u8 = 8;
const PADDING: u8 = 15;

const HAS_EXTENSION: u8 = 0x04;
const HAS_SIZE: u8 = 0x02;

/// It is no OBU: a forbidden bit, or a size that overruns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotObu;

/// One unit, without its size field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Obu {
    /// `obu_type`.
    pub(crate) kind: u8,
    /// Header without `obu_has_size_field`, and the extension where there is one.
    header: [u8; 2],
    header_len: usize,
    pub(crate) payload: Bytes,
}

impl Obu {
    /// One or two bytes, `obu_has_size_field` unset.
    pub(crate) fn header(&self) -> &[u8] {
        self.header.get(..self.header_len).unwrap_or_default()
    }

    /// Bytes of header and payload.
    pub(crate) fn len(&self) -> usize {
        self.header_len + self.payload.len()
    }

    /// Whether RTP carries it (payload format §5): not delimiters, tile lists and padding.
    pub(crate) const fn travels(&self) -> bool {
        !matches!(self.kind, TEMPORAL_DELIMITER | TILE_LIST | PADDING)
    }

    /// Appends it with a size field.
    pub(crate) fn put(&self, out: &mut BytesMut) {
        let [first, extension] = self.header;
        out.put_u8(first | HAS_SIZE);
        if self.header_len > 1 {
            out.put_u8(extension);
        }
        put_leb128(out, self.payload.len());
        out.put_slice(&self.payload);
    }

    /// With a size field, in memory of its own.
    pub(crate) fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.len() + 8);
        self.put(&mut out);
        out.freeze()
    }

    /// Reads a whole unit: one that has no size field ends with `data`. What is behind a unit with one is left out.
    pub(crate) fn parse(data: &Bytes) -> Result<Self, NotObu> {
        Obus::new(data).next().unwrap_or(Err(NotObu))
    }
}

/// A row of units. One without a size field is the last. An error ends it.
#[derive(Clone, Debug)]
pub(crate) struct Obus {
    rest: Bytes,
}

impl Obus {
    pub(crate) fn new(data: &Bytes) -> Self {
        Self { rest: data.clone() }
    }

    fn cut(&mut self) -> Result<Obu, NotObu> {
        let (&first, after) = self.rest.split_first().ok_or(NotObu)?;
        if first & 0x80 != 0 {
            return Err(NotObu);
        }
        let (extension, header_len) = match (first & HAS_EXTENSION != 0, after.first()) {
            (false, _) => (0, 1),
            (true, Some(&extension)) => (extension, 2),
            (true, None) => return Err(NotObu),
        };
        let after = self.rest.get(header_len..).unwrap_or_default();
        let (size, size_len) =
            if first & HAS_SIZE == 0 { (after.len(), 0) } else { leb128(after).ok_or(NotObu)? };
        let start = header_len + size_len;
        let end = start.checked_add(size).filter(|&end| end <= self.rest.len()).ok_or(NotObu)?;
        let payload = self.rest.slice(start..end);
        self.rest = self.rest.slice(end..);
        let header = [first & !HAS_SIZE, extension];
        Ok(Obu { kind: first >> 3 & 0x0f, header, header_len, payload })
    }
}

impl Iterator for Obus {
    type Item = Result<Obu, NotObu>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let obu = self.cut();
        if obu.is_err() {
            self.rest = Bytes::new();
        }
        Some(obu)
    }
}

/// A number in groups of seven bits, and how many bytes it takes (§4.10.5); at most 32 bits.
pub(crate) fn leb128(data: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0_u64;
    for (index, &byte) in data.iter().enumerate().take(8) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let value = u32::try_from(value).ok()?;
            return Some((usize::try_from(value).ok()?, index + 1));
        }
    }
    None
}

/// Appends a number in groups of seven bits.
pub(crate) fn put_leb128(out: &mut BytesMut, mut value: usize) {
    loop {
        let group = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            return out.put_u8(group);
        }
        out.put_u8(group | 0x80);
    }
}
