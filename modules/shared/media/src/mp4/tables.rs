//! From the tables of a progressive file's `stbl` (§8.6, §8.7) to the sample table.
//!
//! Tables that disagree are followed as far as they agree: the sizes say how many samples there are, the chunks how many
//! of them can be found.

use std::iter;
use std::num::NonZeroU32;

use mp4_atom::FourCC;

use super::boxes::{BadBox, BoxBody, Entries, pair, words};
use super::error::BoxFault;
use super::samples::{BETWEEN_CHECKS, NewSample, SampleTable, SyncRule};

/// Reads the tables of an `stbl` of at most `most` samples, which may take `room` bytes. `description` gives the track's configuration for a
/// `sample_description_index`.
pub(super) fn read(
    stbl: &BoxBody,
    timescale: NonZeroU32,
    description: impl Fn(u32) -> u16,
    most: u32,
    room: usize,
) -> Result<SampleTable, BadBox> {
    let mut table = SampleTable::new(timescale);
    let stss = stbl.find(b"stss");
    let mut sync_numbers = stss.map(|stss| stss.table::<4>());
    table.sync_rule = match &sync_numbers {
        Some(numbers) if numbers.len() == 0 => SyncRule::InPictures,
        Some(_) => SyncRule::Listed,
        None => SyncRule::All,
    };
    let sizes = Sizes::read(stbl)?;
    let count = sizes.count();
    if count == 0 {
        return Ok(table);
    }
    if count > most {
        let (value, most) = (count.into(), most.into());
        return Err(stbl.bad(BoxFault::TooMany { what: "samples", value, most }));
    }
    let stts_box = stbl.need(b"stts")?;
    let stts = stts_box.table::<8>();
    let Some((_, last_delta)) = stts.len().checked_sub(1).and_then(|last| stts.get(last)).map(pair) else {
        return Err(stts_box.bad(BoxFault::Value { field: "entry_count", value: 0 }));
    };
    let ctts = stbl.find(b"ctts").map(|ctts| ctts.table::<8>());
    let chunks = Chunks::read(stbl)?;
    let mut placed = Placement::new(stbl, &chunks, count)?;

    let mut durations =
        stts.iter().map(pair).flat_map(|(count, delta)| iter::repeat_n(delta, count as usize));
    // Version 0 is unsigned by the standard, and signed in the files of QuickTime and others.
    let composition = ctts.iter().flat_map(Entries::iter).map(pair);
    let mut composition =
        composition.flat_map(|(count, offset)| iter::repeat_n(offset as i32, count as usize));
    let mut sync = sync_numbers.iter_mut().flat_map(|numbers| numbers.iter().flat_map(words)).peekable();

    let fits = |table: &SampleTable| match table.bytes() > room {
        true => {
            Err(stbl.bad(BoxFault::IndexTooLarge { samples: table.count(), of: count, most: room as u64 }))
        }
        false => Ok(()),
    };
    for index in 0..count {
        if index.is_multiple_of(BETWEEN_CHECKS) {
            fits(&table)?;
        }
        let Some(place) = placed.next_sample() else { break };
        if let Some(offset) = place.begins {
            table.place(offset);
        }
        // Numbers count from 1 and rise; those that don't are passed over.
        while sync.next_if(|&number| number <= index).is_some() {}
        table.push(NewSample {
            duration: durations.next().unwrap_or(last_delta),
            composition: composition.next().unwrap_or(0),
            size: sizes.get(index),
            is_sync: table.sync_rule == SyncRule::All || sync.next_if_eq(&(index + 1)).is_some(),
            description: description(place.description),
        });
    }
    fits(&table)?;
    match table.count() {
        0 => Err(stbl.bad(BoxFault::Unplaced(count.into()))),
        _ => Ok(table),
    }
}

/// `stsz` or `stz2` (§8.7.3).
enum Sizes {
    Same {
        size: u32,
        count: u32,
    },
    Table(Entries<4>),
    /// Each of `bits` bits, in `packed`.
    Compact {
        bits: u8,
        count: u32,
        packed: Entries<1>,
    },
}

impl Sizes {
    fn read(stbl: &BoxBody) -> Result<Self, BadBox> {
        if let Some(stsz) = stbl.find(b"stsz") {
            let (size, count) = (stsz.need_u32(4)?, stsz.need_u32(8)?);
            return Ok(match size {
                0 => Self::Table(stsz.entries(12, count)),
                size => Self::Same { size, count },
            });
        }
        let stz2 = stbl.find(b"stz2").ok_or_else(|| stbl.bad(BoxFault::Missing(FourCC::new(b"stsz"))))?;
        // Version and flags, 24 reserved bits, field_size, sample_count.
        let (bits, count) = (stz2.need_u32(4)? as u8, stz2.need_u32(8)?);
        if !matches!(bits, 4 | 8 | 16) {
            return Err(stz2.bad(BoxFault::Value { field: "field_size", value: bits.into() }));
        }
        let packed = stz2.entries::<1>(12, u32::MAX);
        let have = packed.len() as u64 * 8 / u64::from(bits);
        let count = count.min(u32::try_from(have).unwrap_or(u32::MAX));
        Ok(Self::Compact { bits, count, packed })
    }

    fn count(&self) -> u32 {
        match self {
            Self::Same { count, .. } | Self::Compact { count, .. } => *count,
            Self::Table(sizes) => u32::try_from(sizes.len()).unwrap_or(u32::MAX),
        }
    }

    fn get(&self, index: u32) -> u32 {
        let index = index as usize;
        match self {
            Self::Same { size, .. } => *size,
            Self::Table(sizes) => sizes.get(index).map_or(0, |size| u32::from_be_bytes(*size)),
            Self::Compact { bits, packed, .. } => {
                let byte = |at: usize| packed.get(at).map_or(0, |[byte]| u32::from(*byte));
                match bits {
                    4 => byte(index / 2) >> if index.is_multiple_of(2) { 4 } else { 0 } & 0xf,
                    8 => byte(index),
                    _ => byte(index * 2) << 8 | byte(index * 2 + 1),
                }
            }
        }
    }
}

/// `stco` or `co64` (§8.7.5).
enum Chunks {
    Narrow(Entries<4>),
    Wide(Entries<8>),
}

impl Chunks {
    fn read(stbl: &BoxBody) -> Result<Self, BadBox> {
        if let Some(co64) = stbl.find(b"co64") {
            return Ok(Self::Wide(co64.table()));
        }
        Ok(Self::Narrow(stbl.need(b"stco")?.table()))
    }

    fn len(&self) -> usize {
        match self {
            Self::Narrow(offsets) => offsets.len(),
            Self::Wide(offsets) => offsets.len(),
        }
    }

    fn get(&self, chunk: usize) -> Option<u64> {
        match self {
            Self::Narrow(offsets) => offsets.get(chunk).map(|offset| u32::from_be_bytes(*offset).into()),
            Self::Wide(offsets) => offsets.get(chunk).map(|offset| u64::from_be_bytes(*offset)),
        }
    }
}

/// One row of `stsc` (§8.7.4).
#[derive(Clone, Copy)]
struct Row {
    first_chunk: u32,
    samples: u32,
    description: u32,
}

impl Row {
    fn of(entry: &[u8; 12]) -> Self {
        let mut words = words(entry);
        let mut next = || words.next().unwrap_or(0);
        Self { first_chunk: next(), samples: next(), description: next() }
    }
}

/// Deals samples out to chunks as `stsc` says.
struct Placement<'a> {
    stsc: Entries<12>,
    /// For all chunks, where `stsc` has no rows.
    all: Row,
    chunks: &'a Chunks,
    /// Chunks begun.
    begun: usize,
    /// The row of the chunk begun last.
    row: usize,
    left_in_chunk: u32,
    description: u32,
}

/// Where a sample stands.
struct Place {
    /// The offset of the chunk that begins with it, if one does.
    begins: Option<u64>,
    description: u32,
}

impl<'a> Placement<'a> {
    fn new(stbl: &BoxBody, chunks: &'a Chunks, samples: u32) -> Result<Self, BadBox> {
        let stsc_box = stbl.find(b"stsc");
        let stsc = stsc_box.as_ref().map(BoxBody::table::<12>);
        let per_chunk = match chunks.len() {
            1 => samples,
            count if count == samples as usize => 1,
            _ => 0,
        };
        let all = Row { first_chunk: 1, samples: per_chunk, description: 1 };
        let stsc = match stsc {
            Some(stsc) if stsc.len() > 0 => stsc,
            // Only one way to deal them out is left.
            _ if per_chunk > 0 => stbl.entries(0, 0),
            Some(_) => {
                let empty = BoxFault::Value { field: "entry_count", value: 0 };
                return Err(stsc_box.as_ref().unwrap_or(stbl).bad(empty));
            }
            None => return Err(stbl.bad(BoxFault::Missing(FourCC::new(b"stsc")))),
        };
        Ok(Self { stsc, all, chunks, begun: 0, row: 0, left_in_chunk: 0, description: 1 })
    }

    fn row(&self, index: usize) -> Option<Row> {
        self.stsc.get(index).map(Row::of)
    }

    /// `None`: no chunk is left.
    fn next_sample(&mut self) -> Option<Place> {
        if let Some(left) = self.left_in_chunk.checked_sub(1) {
            self.left_in_chunk = left;
            return Some(Place { begins: None, description: self.description });
        }
        loop {
            let begins = self.chunks.get(self.begun)?;
            self.begun += 1;
            while self.row(self.row + 1).is_some_and(|row| row.first_chunk as usize <= self.begun) {
                self.row += 1;
            }
            let row = self.row(self.row).unwrap_or(self.all);
            // A chunk of no samples is passed over.
            if let Some(left) = row.samples.checked_sub(1) {
                self.left_in_chunk = left;
                self.description = row.description;
                return Some(Place { begins: Some(begins), description: row.description });
            }
        }
    }
}
