//! The sample table, kept small: what repeats is stored once with a count.
//!
//! A picture of a usual file takes some 30 bytes, an audio frame 12; two hours take about 12 MB.

/// A column of the table: values, each with how often it repeats.
#[derive(Clone, Debug)]
pub(super) struct Runs<T>(Vec<(u32, T)>);

impl<T> Default for Runs<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Copy + PartialEq> Runs<T> {
    pub(super) fn push(&mut self, count: u32, value: T) {
        match self.0.last_mut() {
            _ if count == 0 => {}
            Some((last_count, last)) if *last == value && last_count.checked_add(count).is_some() => {
                *last_count += count;
            }
            _ => self.0.push((count, value)),
        }
    }

    /// Takes the last sample's value off.
    fn pop(&mut self) -> Option<T> {
        let (count, value) = self.0.last_mut()?;
        let value = *value;
        *count -= 1;
        if *count == 0 {
            self.0.pop();
        }
        Some(value)
    }
}

/// A place in a column.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    run: usize,
    used: u32,
}

impl Place {
    fn next<T: Copy>(&mut self, runs: &Runs<T>) -> Option<T> {
        let &(count, value) = runs.0.get(self.run)?;
        self.used += 1;
        if self.used >= count {
            *self = Self { run: self.run + 1, used: 0 };
        }
        Some(value)
    }
}

/// Samples that stand one behind the other in the file.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    offset: u64,
    first: u32,
}

/// Every sample of a track: when, where and how long.
#[derive(Clone, Debug, Default)]
pub(super) struct SampleTable {
    count: u32,
    first_dts: i64,
    next_dts: i64,
    /// How far decoding is moved forward so that no sample is shown before it is decoded.
    lead: i64,
    durations: Runs<u32>,
    composition: Runs<i32>,
    sizes: Runs<u32>,
    sync: Runs<bool>,
    chunks: Vec<Chunk>,
    /// Where the last chunk ends.
    chunk_end: u64,
}

/// What tables and fragments say of a sample.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewSample {
    pub(super) duration: u32,
    pub(super) composition: i32,
    pub(super) size: u32,
    pub(super) is_sync: bool,
}

/// One sample on its track's media timeline.
#[derive(Clone, Copy, Debug)]
pub(super) struct SampleAt {
    /// Counted from 0.
    pub(super) index: u32,
    /// In the file.
    pub(super) offset: u64,
    pub(super) size: u32,
    /// Decoding time. Where composition offsets are negative, all of the track's decoding times are moved
    /// forward by the largest of them (`compositionToDTSShift`, §8.6.1.4), and the pictures stay.
    pub(super) dts: i64,
    /// Composition time.
    pub(super) cts: i64,
    pub(super) duration: u32,
    pub(super) is_sync: bool,
}

impl SampleTable {
    pub(super) const fn count(&self) -> u32 {
        self.count
    }

    /// Ticks from the first sample's decoding time to the end of the last one.
    pub(super) const fn duration(&self) -> i64 {
        self.next_dts.saturating_sub(self.first_dts)
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
        let Some(last) = self.durations.pop() else {
            (self.first_dts, self.next_dts) = (dts, dts);
            return;
        };
        let start = self.next_dts.saturating_sub(last.into());
        let duration = dts.saturating_sub(start).clamp(0, u32::MAX.into()) as u32;
        self.durations.push(1, duration);
        self.next_dts = start.saturating_add(duration.into());
    }

    /// Appends a sample behind the last one.
    pub(super) fn push(&mut self, sample: NewSample) {
        self.count = self.count.saturating_add(1);
        self.next_dts = self.next_dts.saturating_add(sample.duration.into());
        self.lead = self.lead.max(-i64::from(sample.composition));
        self.durations.push(1, sample.duration);
        self.composition.push(1, sample.composition);
        self.sizes.push(1, sample.size);
        self.sync.push(1, sample.is_sync);
        self.chunk_end = self.chunk_end.saturating_add(sample.size.into());
    }

    /// Gives back what was taken for growing; no sample comes after this.
    pub(super) fn shrink(&mut self) {
        self.durations.0.shrink_to_fit();
        self.composition.0.shrink_to_fit();
        self.sizes.0.shrink_to_fit();
        self.sync.0.shrink_to_fit();
        self.chunks.shrink_to_fit();
    }

    /// Memory that the table takes.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&self.durations.0[..])
            + size_of_val(&self.composition.0[..])
            + size_of_val(&self.sizes.0[..])
            + size_of_val(&self.sync.0[..])
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
}

impl Cursor {
    /// The sample here; the cursor moves behind it.
    pub(super) fn next(&mut self, table: &SampleTable) -> Option<SampleAt> {
        let size = self.sizes.next(&table.sizes)?;
        let duration = self.durations.next(&table.durations)?;
        let composition = self.composition.next(&table.composition)?;
        let is_sync = self.sync.next(&table.sync)?;
        if let Some(chunk) = table.chunks.get(self.chunks)
            && chunk.first == self.index
        {
            self.offset = chunk.offset;
            self.chunks += 1;
        }
        let sample = SampleAt {
            index: self.index,
            offset: self.offset,
            size,
            dts: self.dts.saturating_sub(table.lead),
            cts: self.dts.saturating_add(composition.into()),
            duration,
            is_sync,
        };
        self.index += 1;
        self.offset = self.offset.saturating_add(size.into());
        self.dts = self.dts.saturating_add(duration.into());
        Some(sample)
    }
}
