//! The sample table, kept small: what repeats is stored once with a count.
//!
//! A picture of a usual file takes some 30 bytes, an audio frame 12; two hours take about 12 MB.

use std::num::NonZeroU32;

use super::runs::{Place, Runs};

/// Pictures that a decoder may hold back to bring them into order: 16 by ITU-T H.264 §A.3.1 and H.265 §A.4.2. Composition
/// offsets that differ from the usual one by more than twice that many pictures are damage.
const REORDER: i64 = 2 * 16;
/// A step back by more than this many seconds is no correction of the step before it.
const MAX_STEP_BACK: i64 = 10;
/// A sample larger than this is left out.
pub(super) const MAX_SAMPLE: u32 = 32 << 20;
/// How often a table that is built is held against what it may take: after so many samples, of some 60 bytes at most.
pub(super) const BETWEEN_CHECKS: u32 = 1 << 16;
/// The samples of an entry that cannot be used.
pub(super) const UNUSABLE: u16 = u16::MAX;

/// Samples that stand one behind the other in the file.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    offset: u64,
    first: u32,
}

/// Which samples a decoder may start at, where that is not said sample for sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum SyncRule {
    /// It is: `stss`, or the flags of fragments.
    #[default]
    Listed,
    /// There is no `stss`: all of them, by the standard; those that can be, in files as they are.
    All,
    /// `stss` is empty: it has to be found in the pictures.
    InPictures,
}

/// Every sample of a track: when, where and how long.
#[derive(Clone, Debug)]
pub(super) struct SampleTable {
    timescale: NonZeroU32,
    count: u32,
    first_dts: i64,
    next_dts: i64,
    /// Ticks by which decoding times are ahead, after a step back.
    ahead: u64,
    /// How far decoding is moved forward so that no sample is shown before it is decoded.
    lead: i64,
    durations: Runs<u64>,
    composition: Runs<i32>,
    sizes: Runs<u32>,
    sync: Runs<bool>,
    descriptions: Runs<u16>,
    chunks: Vec<Chunk>,
    /// Where the last chunk ends.
    chunk_end: u64,
    /// What ends behind this is not in the file.
    file_end: u64,
    pub(super) sync_rule: SyncRule,
}

/// What tables and fragments say of a sample.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewSample {
    /// Above 2^31 it is a small negative step, as several writers mean it.
    pub(super) duration: u32,
    pub(super) composition: i32,
    pub(super) size: u32,
    pub(super) is_sync: bool,
    /// Which of the track's configurations, or [`UNUSABLE`].
    pub(super) description: u16,
}

/// One sample on its track's media timeline.
#[derive(Clone, Copy, Debug)]
pub(super) struct SampleAt {
    /// Counted from 0.
    pub(super) index: u32,
    /// In the file.
    pub(super) offset: u64,
    /// 0 where it is not in the file, too large, or of an entry that cannot be used: nothing new is shown.
    pub(super) size: u32,
    /// Decoding time. Where composition offsets are negative, all of the track's decoding times are moved
    /// forward by the largest of them (`compositionToDTSShift`, §8.6.1.4), and the pictures stay.
    pub(super) dts: i64,
    /// Composition time.
    pub(super) cts: i64,
    pub(super) duration: u64,
    pub(super) is_sync: bool,
    pub(super) description: u16,
}

impl SampleAt {
    /// Where showing it ends.
    pub(super) fn end(&self) -> i64 {
        self.cts.saturating_add(i64::try_from(self.duration.max(1)).unwrap_or(i64::MAX))
    }
}

/// The first sample that is not in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    /// Counted from 0.
    pub(super) index: u32,
    pub(super) offset: u64,
    /// How many there are.
    pub(super) count: u32,
}

/// Samples that can't be given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) missing: Option<Missing>,
    pub(super) too_large: u32,
    /// Bytes of the largest of those.
    pub(super) largest: u32,
}

impl SampleTable {
    pub(super) fn new(timescale: NonZeroU32) -> Self {
        Self {
            timescale,
            count: 0,
            first_dts: 0,
            next_dts: 0,
            ahead: 0,
            lead: 0,
            durations: Runs::default(),
            composition: Runs::default(),
            sizes: Runs::default(),
            sync: Runs::default(),
            descriptions: Runs::default(),
            chunks: Vec::new(),
            chunk_end: 0,
            file_end: u64::MAX,
            sync_rule: SyncRule::default(),
        }
    }

    pub(super) const fn count(&self) -> u32 {
        self.count
    }

    pub(super) const fn timescale(&self) -> NonZeroU32 {
        self.timescale
    }

    /// Ticks from the first sample's decoding time to the end of the last one.
    pub(super) const fn duration(&self) -> i64 {
        self.next_dts.saturating_sub(self.first_dts)
    }

    /// Ticks by which a sample is shown behind its (moved) decoding time at most.
    pub(super) fn latest_composition(&self) -> i64 {
        let largest = self.composition.iter().map(|(_, offset)| offset).max().unwrap_or(0);
        i64::from(largest).saturating_add(self.lead)
    }

    /// Where the last sample is decoded, if there is one.
    pub(super) fn last_dts(&self) -> Option<i64> {
        self.durations.last().map(|duration| self.next_dts.saturating_sub_unsigned(duration))
    }

    /// Where the next sample is decoded, unless something else is said.
    pub(super) const fn next_dts(&self) -> i64 {
        self.next_dts
    }

    /// The next sample stands at `offset`.
    pub(super) fn place(&mut self, offset: u64) {
        if self.chunks.is_empty() || self.chunk_end != offset {
            match self.chunks.last_mut() {
                Some(last) if last.first == self.count => last.offset = offset,
                _ => self.chunks.push(Chunk { offset, first: self.count }),
            }
            self.chunk_end = offset;
        }
    }

    /// The next sample is decoded at `dts` (`tfdt`). A gap lengthens the sample before it, an overlap
    /// shortens it: time never goes back.
    pub(super) fn continue_at(&mut self, dts: i64) {
        self.ahead = 0;
        let Some(last) = self.durations.pop() else {
            (self.first_dts, self.next_dts) = (dts, dts);
            return;
        };
        let start = self.next_dts.saturating_sub_unsigned(last);
        let duration = u64::try_from(dts.saturating_sub(start)).unwrap_or(0);
        self.durations.push(1, duration);
        self.next_dts = start.saturating_add_unsigned(duration);
    }

    /// Appends a sample behind the last one.
    pub(super) fn push(&mut self, sample: NewSample) {
        let duration = self.step(sample.duration);
        self.count = self.count.saturating_add(1);
        self.next_dts = self.next_dts.saturating_add_unsigned(duration);
        self.durations.push(1, duration);
        self.composition.push(1, sample.composition);
        self.sizes.push(1, sample.size);
        self.sync.push(1, sample.is_sync);
        self.descriptions.push(1, sample.description);
        self.chunk_end = self.chunk_end.saturating_add(sample.size.into());
    }

    /// Steps back are kept in mind and taken off the steps that follow, so that the times after them are right again.
    fn step(&mut self, delta: u32) -> u64 {
        match u64::from((delta as i32).unsigned_abs()) {
            step if delta <= i32::MAX as u32 => {
                let taken = self.ahead.min(step);
                self.ahead -= taken;
                step - taken
            }
            back => {
                let most = i64::from(self.timescale.get()).saturating_mul(MAX_STEP_BACK).min(self.duration());
                if i64::try_from(back).is_ok_and(|back| back <= most) {
                    self.ahead = self.ahead.saturating_add(back);
                }
                0
            }
        }
    }

    /// No sample comes after this: what only the whole table tells is filled in, and what contradicts it is mended.
    /// `media_duration` is what the track's header says, in ticks.
    pub(super) fn settle(&mut self, file_end: u64, media_duration: u64) {
        self.file_end = file_end;
        self.mend_last_duration(media_duration);
        self.mend_composition();
        let least = self.composition.iter().map(|(_, offset)| offset).min().unwrap_or(0);
        self.lead = i64::from(least).saturating_neg().max(0);
        self.durations.shrink();
        self.composition.shrink();
        self.sizes.shrink();
        self.sync.shrink();
        self.descriptions.shrink();
        self.chunks.shrink_to_fit();
    }

    /// A last duration of 0 is the frame interval.
    fn mend_last_duration(&mut self, media_duration: u64) {
        if self.durations.last() != Some(0) {
            return;
        }
        let before = self.durations.iter().map(|(_, duration)| duration).rfind(|duration| *duration > 0);
        let duration = match before {
            Some(interval) => interval,
            // Nothing in the table takes time: one picture, or several at once.
            None if media_duration > 0 => media_duration,
            None => self.timescale.get().into(),
        };
        let _zero = self.durations.pop();
        self.durations.push(1, duration);
        self.next_dts = self.next_dts.saturating_add_unsigned(duration);
    }

    /// One wild offset must not move the whole track: it becomes the usual one.
    fn mend_composition(&mut self) {
        let Some(usual) = self.composition.median() else { return };
        let interval = self.durations.median().unwrap_or(0);
        // Around a pause offsets are as long as the pause.
        let minute = u64::from(self.timescale.get()) * 60;
        let pause = self.durations.iter().map(|(_, duration)| duration).filter(|d| *d <= minute).max();
        let most =
            interval.saturating_mul(REORDER as u64).saturating_add(pause.unwrap_or(0).saturating_mul(4));
        let is_wild = |offset: i32| u64::from(offset.abs_diff(usual)) > most;
        self.composition.change(|offset| if is_wild(offset) { usual } else { offset });
    }

    /// Samples that can't be given.
    pub(super) fn lost(&self) -> Lost {
        let mut lost = Lost::default();
        let mut cursor = self.cursor();
        while let Some((sample, size)) = cursor.step(self) {
            let (index, offset) = (sample.index, sample.offset);
            if offset.saturating_add(size.into()) > self.file_end {
                lost.missing.get_or_insert(Missing { index, offset, count: 0 }).count += 1;
            } else if size > MAX_SAMPLE {
                lost.too_large += 1;
                lost.largest = lost.largest.max(size);
            }
        }
        lost
    }

    /// Memory that the table takes.
    pub(super) fn bytes(&self) -> usize {
        self.durations.bytes()
            + self.composition.bytes()
            + self.sizes.bytes()
            + self.sync.bytes()
            + self.descriptions.bytes()
            + size_of_val(&self.chunks[..])
    }

    /// A cursor at the first sample.
    pub(super) fn cursor(&self) -> Cursor {
        Cursor { dts: self.first_dts, ..Cursor::default() }
    }
}

/// A place in a sample table; it moves forward only.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor {
    index: u32,
    dts: i64,
    /// Chunks that have begun.
    chunks: usize,
    offset: u64,
    durations: Place,
    composition: Place,
    sizes: Place,
    sync: Place,
    descriptions: Place,
}

impl Cursor {
    /// Of the sample here.
    pub(super) const fn index(&self) -> u32 {
        self.index
    }

    /// The sample here; the cursor moves behind it.
    pub(super) fn next(&mut self, table: &SampleTable) -> Option<SampleAt> {
        self.step(table).map(|(sample, _)| sample)
    }

    /// The same, and its size by the table.
    fn step(&mut self, table: &SampleTable) -> Option<(SampleAt, u32)> {
        let size = self.sizes.next(&table.sizes)?;
        let duration = self.durations.next(&table.durations)?;
        let composition = self.composition.next(&table.composition)?;
        let is_sync = self.sync.next(&table.sync)?;
        let description = self.descriptions.next(&table.descriptions)?;
        if let Some(chunk) = table.chunks.get(self.chunks)
            && chunk.first == self.index
        {
            self.offset = chunk.offset;
            self.chunks += 1;
        }
        let end = self.offset.saturating_add(size.into());
        let is_given = end <= table.file_end && size <= MAX_SAMPLE && description != UNUSABLE;
        let sample = SampleAt {
            index: self.index,
            offset: self.offset,
            size: if is_given { size } else { 0 },
            dts: self.dts.saturating_sub(table.lead),
            cts: self.dts.saturating_add(composition.into()),
            duration,
            is_sync,
            description,
        };
        self.index += 1;
        self.offset = end;
        self.dts = self.dts.saturating_add_unsigned(duration);
        Some((sample, size))
    }
}
