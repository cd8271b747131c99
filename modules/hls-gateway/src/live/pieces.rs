//! Bytes that lie in several places, shared by all who send them.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

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

    /// The pieces of a part of it.
    pub(crate) fn range(&self, range: Range<usize>) -> Ranged {
        Ranged { pieces: self.pieces.clone(), index: 0, at: 0, range }
    }
}

/// Pieces of a part of a content.
#[derive(Debug)]
pub(crate) struct Ranged {
    pieces: Arc<[Bytes]>,
    index: usize,
    /// Where that piece begins.
    at: usize,
    range: Range<usize>,
}

impl Iterator for Ranged {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        loop {
            let piece = self.pieces.get(self.index)?;
            let (begin, end) = (self.at, self.at.saturating_add(piece.len()));
            if begin >= self.range.end {
                return None;
            }
            (self.at, self.index) = (end, self.index.saturating_add(1));
            let wanted = self.range.start.max(begin)..self.range.end.min(end);
            if wanted.start < wanted.end {
                return Some(piece.slice(wanted.start - begin..wanted.end - begin));
            }
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
    fn a_range_gives_the_bytes_that_it_names() {
        let pieces =
            Pieces::new(["abc", "", "defg", "h"].map(|text| Bytes::from_static(text.as_bytes())).to_vec());
        assert_eq!(pieces.len(), 8);
        for start in 0..=8 {
            for end in start..=8 {
                let taken = pieces.range(start..end).flatten().collect::<Vec<_>>();
                assert_eq!(taken, b"abcdefgh"[start..end], "{start}..{end}");
            }
        }
    }
}
