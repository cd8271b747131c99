//! From the tables of a progressive file's `stbl` (§8.6, §8.7) to the sample table.

use mp4_atom::{Co64, Ctts, FourCC, Stco, Stsc, Stss, Stsz, StszSamples, Stts};

use super::boxes::BoxBody;
use super::samples::{NewSample, SampleTable};
use super::{Mp4Error, Mp4Fault};

/// What a track's tables give.
pub(super) struct Tables {
    pub(super) samples: SampleTable,
    /// Which sample description they use, from 1; `None` when more than one.
    pub(super) description: Option<u32>,
}

/// Reads the tables of an `stbl` of at most `most` samples.
pub(super) fn read(stbl: &BoxBody, most: u32) -> Result<Tables, Mp4Error> {
    let sizes = Sizes::read(stbl)?;
    let count = sizes.count();
    if count > most {
        let (value, most) = (count.into(), most.into());
        return Err(stbl.error(Mp4Fault::TooMany { what: "samples", value, most }));
    }
    let stts_box = stbl.need(b"stts")?;
    let stts: Stts = stts_box.decode()?;
    let stsc_box = stbl.need(b"stsc")?;
    let stsc: Stsc = stsc_box.decode()?;
    let ctts: Option<Ctts> = stbl.find(b"ctts")?.map(|ctts| ctts.decode()).transpose()?;
    let stss: Option<Stss> = stbl.find(b"stss")?.map(|stss| stss.decode()).transpose()?;
    let chunks = Chunks::read(stbl)?;

    let mut durations = stts.entries.iter().flat_map(|e| repeat(e.sample_delta, e.sample_count));
    // Version 0 is unsigned by the standard, and signed in the files of QuickTime and others.
    let mut composition = ctts
        .iter()
        .flat_map(|ctts| &ctts.entries)
        .flat_map(|e| repeat(e.sample_offset as i32, e.sample_count));
    let mut sync = stss.as_ref().map(|stss| stss.entries.iter().copied().peekable());

    let mut table = SampleTable::default();
    let mut placed = Placement::new(&stsc, chunks.len());
    for index in 0..count {
        if let Some(chunk) = placed.next_sample().map_err(|fault| stsc_box.error(fault))?
            && let Some(offset) = chunks.get(chunk)
        {
            table.place(offset);
        }
        let uncovered = || stts_box.error(Mp4Fault::Uncovered { have: index.into(), need: count.into() });
        let is_sync = sync.as_mut().is_none_or(|sync| {
            // Numbers count from 1 and rise; those that don't are passed over.
            while sync.next_if(|&number| number < index + 1).is_some() {}
            sync.next_if_eq(&(index + 1)).is_some()
        });
        table.push(NewSample {
            duration: durations.next().ok_or_else(uncovered)?,
            composition: composition.next().unwrap_or(0),
            size: sizes.get(index),
            is_sync,
        });
    }
    let first = stsc.entries.first().map_or(1, |entry| entry.sample_description_index);
    let same = stsc.entries.iter().all(|entry| entry.sample_description_index == first);
    Ok(Tables { samples: table, description: same.then_some(first) })
}

fn repeat<T: Copy>(value: T, count: u32) -> impl Iterator<Item = T> {
    std::iter::repeat_n(value, count as usize)
}

/// `stsz` or `stz2` (§8.7.3).
enum Sizes {
    Table(Stsz),
    /// Each of `bits` bits, in `packed`.
    Compact {
        bits: u8,
        count: u32,
        packed: BoxBody,
    },
}

impl Sizes {
    fn read(stbl: &BoxBody) -> Result<Self, Mp4Error> {
        if let Some(stsz) = stbl.find(b"stsz")? {
            return Ok(Self::Table(stsz.decode()?));
        }
        let stz2 = stbl.find(b"stz2")?;
        let stz2 = stz2.ok_or_else(|| stbl.error(Mp4Fault::Missing(FourCC::new(b"stsz"))))?;
        // Version and flags, 24 reserved bits, field_size, sample_count.
        let Some(([.., bits, c0, c1, c2, c3], rest)) = stz2.body.split_first_chunk::<12>() else {
            let have = stz2.body.len() as u64;
            return Err(stz2.error(Mp4Fault::Truncated { need: 12, have }));
        };
        let count = u32::from_be_bytes([*c0, *c1, *c2, *c3]);
        if !matches!(bits, 4 | 8 | 16) {
            return Err(stz2.error(Mp4Fault::Value { field: "field_size", value: (*bits).into() }));
        }
        let need = (u64::from(count) * u64::from(*bits)).div_ceil(8);
        let have = rest.len() as u64;
        if need > have {
            return Err(stz2.error(Mp4Fault::Truncated { need, have }));
        }
        Ok(Self::Compact { bits: *bits, count, packed: BoxBody { body: stz2.body.slice(12..), ..stz2 } })
    }

    fn count(&self) -> u32 {
        match self {
            Self::Table(Stsz { samples: StszSamples::Identical { count, .. } }) => *count,
            Self::Table(Stsz { samples: StszSamples::Different { sizes } }) => {
                u32::try_from(sizes.len()).unwrap_or(u32::MAX)
            }
            Self::Compact { count, .. } => *count,
        }
    }

    fn get(&self, index: u32) -> u32 {
        let index = index as usize;
        match self {
            Self::Table(Stsz { samples: StszSamples::Identical { size, .. } }) => *size,
            Self::Table(Stsz { samples: StszSamples::Different { sizes } }) => {
                sizes.get(index).copied().unwrap_or(0)
            }
            Self::Compact { bits, packed, .. } => {
                let byte = |at: usize| packed.body.get(at).copied().map_or(0, u32::from);
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
    Narrow(Stco),
    Wide(Co64),
}

impl Chunks {
    fn read(stbl: &BoxBody) -> Result<Self, Mp4Error> {
        if let Some(co64) = stbl.find(b"co64")? {
            return Ok(Self::Wide(co64.decode()?));
        }
        Ok(Self::Narrow(stbl.need(b"stco")?.decode()?))
    }

    const fn len(&self) -> usize {
        match self {
            Self::Narrow(stco) => stco.entries.len(),
            Self::Wide(co64) => co64.entries.len(),
        }
    }

    fn get(&self, chunk: usize) -> Option<u64> {
        match self {
            Self::Narrow(stco) => stco.entries.get(chunk).copied().map(u64::from),
            Self::Wide(co64) => co64.entries.get(chunk).copied(),
        }
    }
}

/// Deals samples out to chunks as `stsc` says (§8.7.4).
struct Placement<'a> {
    stsc: &'a Stsc,
    chunks: usize,
    /// Chunks begun.
    begun: usize,
    /// The `stsc` entry of the chunk begun last.
    entry: usize,
    left_in_chunk: u32,
}

impl<'a> Placement<'a> {
    const fn new(stsc: &'a Stsc, chunks: usize) -> Self {
        Self { stsc, chunks, begun: 0, entry: 0, left_in_chunk: 0 }
    }

    /// The chunk, from 0, that begins with the next sample, if one does.
    fn next_sample(&mut self) -> Result<Option<usize>, Mp4Fault> {
        if let Some(left) = self.left_in_chunk.checked_sub(1) {
            self.left_in_chunk = left;
            return Ok(None);
        }
        if self.begun >= self.chunks {
            let (have, need) = (self.chunks as u64, self.chunks as u64 + 1);
            return Err(Mp4Fault::Truncated { need, have });
        }
        let number = self.begun as u64 + 1;
        while self.stsc.entries.get(self.entry + 1).is_some_and(|e| u64::from(e.first_chunk) <= number) {
            self.entry += 1;
        }
        let Some(entry) = self.stsc.entries.get(self.entry) else {
            return Err(Mp4Fault::Value { field: "entry_count", value: 0 });
        };
        let Some(left) = entry.samples_per_chunk.checked_sub(1) else {
            return Err(Mp4Fault::Value { field: "samples_per_chunk", value: 0 });
        };
        self.left_in_chunk = left;
        self.begun += 1;
        Ok(Some(self.begun - 1))
    }
}
