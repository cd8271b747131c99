//! Bytes that lie in several places, shared by all who send them.

use std::io::IoSlice;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf, Bytes};

/// One content in several pieces: headers that were written here, and frames as they came in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pieces {
    pieces: Arc<[Bytes]>,
    len: usize,
}

impl Pieces {
    /// Of these, in this order.
    pub(crate) fn new(pieces: Vec<Bytes>) -> Self {
        let len = pieces.iter().map(Bytes::len).sum();
        Self { pieces: pieces.into(), len }
    }

    /// Several contents as one.
    pub(crate) fn joined<'a>(contents: impl IntoIterator<Item = &'a Self>) -> Self {
        Self::new(contents.into_iter().flat_map(|content| content.pieces.iter().cloned()).collect())
    }

    /// Bytes.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// The pieces, in their order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Bytes> {
        self.pieces.iter()
    }

    /// A part of it, as it is sent.
    pub(crate) fn range(&self, range: Range<usize>) -> Ranged {
        let end = range.end.min(self.len);
        let mut ranged = Ranged { pieces: self.pieces.clone(), index: 0, offset: 0, left: end };
        ranged.advance(range.start.min(end));
        ranged
    }
}

/// What is left of a part of a content.
#[derive(Debug)]
pub(crate) struct Ranged {
    pieces: Arc<[Bytes]>,
    /// Where it goes on: in that piece, and so far in it.
    index: usize,
    offset: usize,
    left: usize,
}

impl Ranged {
    /// What is left, piece by piece.
    fn rest(&self) -> impl Iterator<Item = &[u8]> {
        let mut left = self.left;
        let pieces = self.pieces.iter().skip(self.index).enumerate();
        pieces.map_while(move |(index, piece)| {
            let from = if index == 0 { self.offset } else { 0 };
            let piece = piece.get(from..).unwrap_or_default();
            let piece = piece.get(..left).unwrap_or(piece);
            let before = left;
            left = left.saturating_sub(piece.len());
            (before > 0).then_some(piece)
        })
    }
}

/// All of it can go out with one write.
impl Buf for Ranged {
    fn remaining(&self) -> usize {
        self.left
    }

    fn chunk(&self) -> &[u8] {
        self.rest().find(|piece| !piece.is_empty()).unwrap_or_default()
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let pieces = self.rest().filter(|piece| !piece.is_empty());
        let filled = slices.iter_mut().zip(pieces).map(|(slice, piece)| *slice = IoSlice::new(piece));
        filled.count()
    }

    fn advance(&mut self, mut by: usize) {
        self.left = self.left.saturating_sub(by);
        while let Some(piece) = self.pieces.get(self.index) {
            let rest = piece.len().saturating_sub(self.offset);
            if by < rest {
                self.offset = self.offset.saturating_add(by);
                return;
            }
            by = by.saturating_sub(rest);
            (self.index, self.offset) = (self.index.saturating_add(1), 0);
        }
    }
}

impl From<Bytes> for Pieces {
    fn from(bytes: Bytes) -> Self {
        Self::new(vec![bytes])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_gives_the_bytes_that_it_names_however_much_is_taken_at_once() {
        let pieces =
            Pieces::new(["abc", "", "defg", "h"].map(|text| Bytes::from_static(text.as_bytes())).to_vec());
        assert_eq!(pieces.len(), 8);
        for (start, end) in (0..=8).flat_map(|start| (start..=8).map(move |end| (start, end))) {
            let wanted = &b"abcdefgh"[start..end];
            let mut slices = [IoSlice::new(&[]); 8];
            let all = pieces.range(start..end);
            let count = all.chunks_vectored(&mut slices);
            let given = slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect::<Vec<_>>();
            assert_eq!(given, wanted, "{start}..{end}");
            for step in 1..=8 {
                let (mut ranged, mut taken) = (pieces.range(start..end), Vec::new());
                while ranged.has_remaining() {
                    let step = step.min(ranged.remaining());
                    let mut two = [IoSlice::new(&[]); 2];
                    let count = ranged.chunks_vectored(&mut two);
                    assert!(count > 0 && two[0].starts_with(ranged.chunk()) && !ranged.chunk().is_empty());
                    taken.extend_from_slice(&ranged.copy_to_bytes(step));
                }
                assert_eq!(taken, wanted, "{start}..{end} by {step}");
            }
        }
    }
}
