//! The sample table of a track that is being recorded, kept small until it is written.
//!
//! What repeats is stored once with a count, and numbers take as many bytes as they have: an hour of 30 pictures a
//! second takes some 0.5 MB where they come in even steps, one of 47 frames of sound 0.3 MB.

use bytes::BufMut;

use super::put_full_box;
use super::track::Sample;
use crate::Kind;

/// Numbers of seven bits a byte, the low ones first; the top bit says that more follow.
#[derive(Debug, Default)]
struct Numbers(Vec<u8>);

impl Numbers {
    fn push(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn iter(&self) -> impl Iterator<Item = u64> {
        let mut bytes = self.0.iter();
        std::iter::from_fn(move || {
            let mut value = 0;
            for (&byte, place) in bytes.by_ref().zip(0_u32..10) {
                value |= u64::from(byte & 0x7f) << (7 * place);
                if byte & 0x80 == 0 {
                    return Some(value);
                }
            }
            None
        })
    }
}

/// A column in which neighbours are often the same.
#[derive(Debug, Default)]
struct Column {
    /// Pairs of count and value.
    closed: Numbers,
    closed_runs: u64,
    open: (u32, u32),
}

impl Column {
    fn push(&mut self, value: u32) {
        match &mut self.open {
            (0, _) => self.open = (1, value),
            (count, same) if *same == value => *count += 1,
            (count, other) => {
                self.closed.push(u64::from(*count));
                self.closed.push(u64::from(*other));
                self.closed_runs += 1;
                self.open = (1, value);
            }
        }
    }

    /// How many runs there are.
    fn runs(&self) -> u64 {
        self.closed_runs + u64::from(self.open.0 > 0)
    }

    fn is_zero(&self) -> bool {
        self.closed_runs == 0 && self.open.1 == 0
    }

    /// `entry_count`, and each run's count and value.
    fn put(&self, out: &mut Vec<u8>) {
        out.put_u32(self.runs() as u32);
        for number in self.closed.iter() {
            out.put_u32(number as u32);
        }
        if self.open.0 > 0 {
            out.put_u32(self.open.0);
            out.put_u32(self.open.1);
        }
    }
}

/// The samples of one track.
#[derive(Debug)]
pub(super) struct Tables {
    kind: Kind,
    count: u32,
    /// Tick of the stream at which the first sample is decoded, and by how much later it is shown.
    first: Option<(u64, u32)>,
    /// Where the last sample begins, and how long it lasts unless the next one says otherwise.
    last: (u64, u32, u32),
    durations: Column,
    compositions: Column,
    sizes: Numbers,
    /// How many samples lie between sync samples.
    syncs: Numbers,
    sync_count: u32,
    last_sync: u32,
    /// For each chunk how far behind the one before it begins, and how many samples it has.
    chunks: Numbers,
    chunk_count: u32,
    chunk_offset: u64,
    chunk_samples: u32,
    /// Changes of the number of samples in a chunk.
    chunk_runs: u32,
    /// Where the sample that is shown last ends.
    shown_end: u64,
}

impl Tables {
    /// Bytes that a sample takes in the index at most: size, duration, composition, sync.
    pub(super) const PICTURE: u64 = 4 + 8 + 8 + 4;
    /// The same for sound, which has neither of the last two.
    pub(super) const SOUND: u64 = 4 + 8;
    /// And a chunk.
    pub(super) const CHUNK: u64 = 8 + 12;

    pub(super) fn new(kind: Kind) -> Self {
        Self {
            kind,
            count: 0,
            first: None,
            last: (0, 0, 0),
            durations: Column::default(),
            compositions: Column::default(),
            sizes: Numbers::default(),
            syncs: Numbers::default(),
            sync_count: 0,
            last_sync: 0,
            chunks: Numbers::default(),
            chunk_count: 0,
            chunk_offset: 0,
            chunk_samples: 0,
            chunk_runs: 0,
            shown_end: 0,
        }
    }

    /// Samples that follow each other in the file from `offset` on; the first is decoded at `start`. What is between them
    /// and those before belongs to the last of these.
    pub(super) fn push(&mut self, start: u64, samples: &[Sample], offset: u64) {
        let Some(first) = samples.first() else { return };
        self.first.get_or_insert((start, first.composition));
        let mut at = start;
        for sample in samples {
            at = self.begin(at);
            self.last = (at, sample.duration, sample.composition);
            if self.kind == Kind::Video {
                self.compositions.push(sample.composition);
            }
            self.sizes.push(sample.size.into());
            self.count += 1;
            if sample.is_sync && self.kind == Kind::Video {
                self.syncs.push(u64::from(self.count - self.last_sync));
                self.last_sync = self.count;
                self.sync_count += 1;
            }
            at = at.saturating_add(sample.duration.into());
        }
        let count = samples.len() as u32;
        self.chunks.push(offset.saturating_sub(self.chunk_offset));
        self.chunks.push(count.into());
        self.chunk_count += 1;
        self.chunk_offset = offset;
        self.chunk_runs += u32::from(count != self.chunk_samples);
        self.chunk_samples = count;
    }

    /// The last sample ends where the next one begins: at `at`, or as near to it as can be said.
    fn begin(&mut self, at: u64) -> u64 {
        if self.count == 0 {
            return at;
        }
        let (start, _, composition) = self.last;
        let duration = u32::try_from(at.saturating_sub(start)).unwrap_or(u32::MAX);
        self.durations.push(duration);
        let end = start.saturating_add(duration.into());
        self.shown_end = self.shown_end.max(end.saturating_add(composition.into()));
        end
    }

    /// No sample follows.
    pub(super) fn close(&mut self) {
        let (start, duration, _) = self.last;
        self.begin(start.saturating_add(duration.into()));
    }

    pub(super) const fn count(&self) -> u32 {
        self.count
    }

    /// When the first sample is decoded, and by how much later it is shown.
    pub(super) const fn first(&self) -> Option<(u64, u32)> {
        self.first
    }

    /// Ticks from decoding the first sample to the end of the last one.
    pub(super) fn duration(&self) -> u64 {
        let (start, duration, _) = self.last;
        let end = start.saturating_add(duration.into());
        self.first.map_or(0, |(first, _)| end.saturating_sub(first))
    }

    /// Ticks from showing the first sample to the end of the one that is shown last. Known when it is closed.
    pub(super) fn shown(&self) -> u64 {
        self.first.map_or(0, |(start, composition)| {
            self.shown_end.saturating_sub(start.saturating_add(composition.into()))
        })
    }

    /// Bytes of the tables as they are now, at most: with the sample that is not closed.
    pub(super) fn bytes(&self) -> u64 {
        4 * u64::from(self.count)
            + 8 * (self.durations.runs() + 1 + self.compositions.runs())
            + 4 * u64::from(self.sync_count)
            + 8 * u64::from(self.chunk_count)
            + 12 * u64::from(self.chunk_runs)
    }

    fn is_all_sync(&self) -> bool {
        self.kind == Kind::Audio || self.sync_count == self.count
    }

    /// `stts`, `ctts`, `stss`, `stsc`, `stsz`, and `stco` or `co64` (§8.6, §8.7).
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        put_full_box(out, b"stts", 0, 0, |out| self.durations.put(out));
        if !self.compositions.is_zero() {
            put_full_box(out, b"ctts", 0, 0, |out| self.compositions.put(out));
        }
        if !self.is_all_sync() {
            put_full_box(out, b"stss", 0, 0, |out| {
                out.put_u32(self.sync_count);
                let mut number = 0;
                for step in self.syncs.iter() {
                    number += step as u32;
                    out.put_u32(number);
                }
            });
        }
        put_full_box(out, b"stsc", 0, 0, |out| {
            out.put_u32(self.chunk_runs);
            let mut before = 0;
            for (number, count) in (1..).zip(self.chunks.iter().skip(1).step_by(2)) {
                if count != before {
                    out.put_u32(number);
                    out.put_u32(count as u32);
                    out.put_u32(1); // sample_description_index
                }
                before = count;
            }
        });
        put_full_box(out, b"stsz", 0, 0, |out| {
            out.put_u32(0);
            out.put_u32(self.count);
            self.sizes.iter().for_each(|size| out.put_u32(size as u32));
        });
        let steps = self.chunks.iter().step_by(2);
        let mut offset = 0;
        match u32::try_from(self.chunk_offset) {
            Ok(_) => put_full_box(out, b"stco", 0, 0, |out| {
                out.put_u32(self.chunk_count);
                for step in steps {
                    offset += step;
                    out.put_u32(offset as u32);
                }
            }),
            Err(_) => put_full_box(out, b"co64", 0, 0, |out| {
                out.put_u32(self.chunk_count);
                for step in steps {
                    offset += step;
                    out.put_u64(offset);
                }
            }),
        }
    }

    /// Memory that they take.
    pub(super) fn memory(&self) -> usize {
        let columns = [&self.durations.closed, &self.compositions.closed];
        let numbers = columns.into_iter().chain([&self.sizes, &self.syncs, &self.chunks]);
        numbers.map(|numbers| numbers.0.capacity()).sum()
    }
}
