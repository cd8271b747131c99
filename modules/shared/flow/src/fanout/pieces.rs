//! Bytes that leave at one moment, in pieces: headers of an epoch's own, and payload that all epochs share.

use std::io::IoSlice;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};

/// A payload below that is copied in among the headers: another piece would cost more.
const COPIED: usize = 1024;
/// Pieces that are written with one system call.
const SLICES: usize = 32;

/// See the module's text. Cheap to share, never changed.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    list: Vec<Bytes>,
    length: usize,
    /// All of it in one, for sinks that take one piece at a time; made when the first of them needs it.
    flat: OnceLock<Bytes>,
}

/// How far a player is in some pieces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    piece: usize,
    byte: usize,
    written: usize,
}

impl From<Bytes> for Pieces {
    fn from(bytes: Bytes) -> Self {
        Self { length: bytes.len(), list: vec![bytes], flat: OnceLock::new() }
    }
}

impl Pieces {
    /// Bytes of all pieces.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Gives `write` what follows `place`, as slices for one system call.
    pub(super) fn slices<T>(&self, place: Place, write: impl FnOnce(&[IoSlice<'_>]) -> T) -> T {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut count = 0;
        let mut skipped = place.byte;
        let rest = self.list.get(place.piece..).unwrap_or_default();
        for (slice, piece) in slices.iter_mut().zip(rest) {
            *slice = IoSlice::new(piece.get(skipped..).unwrap_or_default());
            skipped = 0;
            count += 1;
        }
        write(slices.get(..count).unwrap_or_default())
    }

    /// What follows `place`, in one.
    pub(super) fn flat(&self, place: Place) -> Bytes {
        let flat = self.flat.get_or_init(|| match &*self.list {
            [only] => only.clone(),
            list => list.concat().into(),
        });
        flat.slice(place.written.min(flat.len())..)
    }

    /// What follows `place`, piece by piece.
    pub(super) fn rest(&self, place: Place) -> impl Iterator<Item = Bytes> {
        let rest = self.list.get(place.piece..).unwrap_or_default().iter().enumerate();
        rest.map(
            move |(index, piece)| {
                if index == 0 { piece.slice(place.byte.min(piece.len())..) } else { piece.clone() }
            },
        )
    }

    /// Moves `place` on by so many bytes.
    pub(super) fn advance(&self, place: &mut Place, mut bytes: usize) {
        place.written += bytes;
        while let Some(piece) = self.list.get(place.piece) {
            let left = piece.len().saturating_sub(place.byte);
            if bytes < left {
                place.byte += bytes;
                return;
            }
            bytes -= left;
            *place = Place { piece: place.piece + 1, byte: 0, written: place.written };
        }
    }

    /// Bytes that follow `place`.
    pub(super) fn left(&self, place: Place) -> usize {
        self.length.saturating_sub(place.written)
    }
}

/// Takes what a protocol serialises. Headers are copied, payload is kept by reference.
#[derive(Debug, Default)]
pub struct PieceWriter {
    list: Vec<Bytes>,
    length: usize,
    own: BytesMut,
}

impl PieceWriter {
    /// With room for so many bytes of headers.
    pub(super) fn with_capacity(own: usize) -> Self {
        Self { own: BytesMut::with_capacity(own), ..Self::default() }
    }

    /// Appends bytes that are this epoch's own.
    pub fn copy(&mut self, bytes: &[u8]) {
        self.own.extend_from_slice(bytes);
    }

    /// Appends a part of a payload that is everybody's.
    pub fn share(&mut self, payload: &Bytes, range: Range<usize>) {
        let Some(part) = payload.get(range.clone()) else { return };
        if part.len() < COPIED {
            return self.own.extend_from_slice(part);
        }
        self.end_piece();
        self.length += part.len();
        self.list.push(payload.slice(range));
    }

    pub(super) fn append(&mut self, pieces: &Pieces) {
        for piece in &pieces.list {
            self.share(piece, 0..piece.len());
        }
    }

    fn end_piece(&mut self) {
        if !self.own.is_empty() {
            self.length += self.own.len();
            self.list.push(self.own.split().freeze());
        }
    }

    pub(super) fn finish(&mut self) -> Arc<Pieces> {
        self.end_piece();
        let (list, length) = (std::mem::take(&mut self.list), std::mem::take(&mut self.length));
        Arc::new(Pieces { list, length, flat: OnceLock::new() })
    }
}

#[cfg(test)]
impl PieceWriter {
    /// The pieces so far.
    pub(crate) fn take(&mut self) -> Vec<Bytes> {
        self.finish().list.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces() -> (Pieces, Vec<u8>) {
        let mut writer = PieceWriter::default();
        let (large, small) = (Bytes::from(vec![7; 5000]), Bytes::from(vec![8; 100]));
        writer.copy(b"header");
        writer.share(&large, 0..3000);
        writer.copy(b"continued");
        writer.share(&large, 3000..5000);
        writer.copy(b"sound");
        writer.share(&small, 0..100);
        let all = [b"header", &large[..3000], b"continued", &large[3000..], b"sound", &small[..]].concat();
        (Arc::try_unwrap(writer.finish()).unwrap(), all)
    }

    #[test]
    fn payload_is_shared_and_what_is_small_rides_with_the_headers() {
        let (pieces, all) = pieces();
        assert_eq!(pieces.list.len(), 5);
        assert_eq!(pieces.len(), all.len());
        assert_eq!(pieces.flat(Place::default()), all);
    }

    #[test]
    fn what_is_left_is_the_same_from_every_place_in_every_form() {
        let (pieces, all) = pieces();
        for step in [1, 6, 7, 999, 3000, 4096] {
            let mut place = Place::default();
            for at in (0..=all.len()).step_by(step) {
                let slices = pieces.slices(place, |slices| {
                    slices.iter().flat_map(|slice| slice.to_vec()).collect::<Vec<_>>()
                });
                assert_eq!(slices, all[at..], "{step} {at}");
                assert_eq!(pieces.flat(place), all[at..]);
                assert_eq!(pieces.rest(place).collect::<Vec<_>>().concat(), all[at..]);
                assert_eq!(pieces.left(place), all.len() - at);
                pieces.advance(&mut place, step);
            }
        }
    }
}
