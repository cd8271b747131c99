//! What is missing of a file that plays all the same.

use super::movie::MovieTrack;
use super::samples::MAX_SAMPLE;
use crate::Kind;

/// See above; said once a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Flaw {
    /// Samples that the index announces lie behind the end.
    #[error(
        "the file is cut at byte {file_end}: {missing} of {of} {} samples are not in it, from sample {first} on, which \
         would be at byte {offset}",
        .kind.as_str()
    )]
    Cut {
        /// Of which track.
        kind: Kind,
        /// The first that is missing, counted from 1.
        first: u32,
        /// Where it would be.
        offset: u64,
        /// How many there are.
        missing: u32,
        /// Samples of the track.
        of: u32,
        /// Bytes of the file.
        file_end: u64,
    },
    /// Samples that are larger than what is read.
    #[error("{count} {} samples are left out: the largest has {largest} bytes, at most {most} are read", .kind.as_str())]
    TooLarge {
        /// Of which track.
        kind: Kind,
        /// How many.
        count: u32,
        /// Of the largest.
        largest: u32,
        /// Bytes of a sample at most.
        most: u32,
    },
    /// Fragments of which a part can't be read.
    #[error("damaged fragments: {count}, the first at byte {offset}")]
    Fragments {
        /// How many.
        count: u32,
        /// Of the first.
        offset: u64,
    },
}

impl Flaw {
    /// Those of the tracks that are read.
    pub(super) fn of(tracks: &[MovieTrack], file_end: u64) -> impl Iterator<Item = Self> {
        tracks.iter().flat_map(move |track| {
            let (kind, of, lost) = (track.kind, track.samples.count(), track.lost);
            let cut = lost.missing.map(|missing| Self::Cut {
                kind,
                first: missing.index.saturating_add(1),
                offset: missing.offset,
                missing: missing.count,
                of,
                file_end,
            });
            let (count, largest, most) = (lost.too_large, lost.largest, MAX_SAMPLE);
            let too_large = (count > 0).then_some(Self::TooLarge { kind, count, largest, most });
            cut.into_iter().chain(too_large)
        })
    }
}

/// Counts damaged fragments.
#[derive(Debug, Default)]
pub(super) struct Damaged {
    count: u32,
    first: u64,
}

impl Damaged {
    pub(super) const fn add(&mut self, offset: u64) {
        if self.count == 0 {
            self.first = offset;
        }
        self.count = self.count.saturating_add(1);
    }

    pub(super) fn flaw(&self) -> Option<Flaw> {
        (self.count > 0).then_some(Flaw::Fragments { count: self.count, offset: self.first })
    }
}
