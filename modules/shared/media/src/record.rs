//! Configuration records of the MP4 family: big-endian fields and units behind their lengths.

use bytes::{Bytes, BytesMut};

use crate::MediaError;

/// Reads a record from its start; what is handed out shares the record's memory.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    what: &'static str,
    rest: Bytes,
}

impl Record {
    /// `what` names the record in errors.
    pub(crate) const fn new(what: &'static str, bytes: Bytes) -> Self {
        Self { what, rest: bytes }
    }

    /// The next `count` bytes.
    pub(crate) fn take(&mut self, count: usize) -> Result<Bytes, MediaError> {
        if self.rest.len() < count {
            return Err(MediaError::Truncated { what: self.what, need: count, have: self.rest.len() });
        }
        Ok(self.rest.split_to(count))
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], MediaError> {
        let mut array = [0; N];
        array.copy_from_slice(&self.take(N)?);
        Ok(array)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, MediaError> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    pub(crate) fn u16(&mut self) -> Result<u16, MediaError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    /// `count` units, each behind 16 bits of length.
    pub(crate) fn units(&mut self, count: usize) -> Result<Vec<Bytes>, MediaError> {
        // Grown as units are found: `count` is the sender's word, and each unit takes two bytes.
        let mut units = Vec::new();
        for _ in 0..count {
            let length = self.u16()?;
            units.push(self.take(length.into())?);
        }
        Ok(units)
    }

    /// All that is left.
    pub(crate) fn rest(self) -> Bytes {
        self.rest
    }
}

/// Writes `unit` behind 16 bits of length.
pub(crate) fn put_unit(out: &mut BytesMut, what: &'static str, unit: &[u8]) -> Result<(), MediaError> {
    let length = u16::try_from(unit.len()).map_err(|_| MediaError::TooLarge {
        what,
        value: unit.len(),
        most: u16::MAX.into(),
    })?;
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(unit);
    Ok(())
}
