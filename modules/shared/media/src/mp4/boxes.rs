//! Boxes in a file and boxes in memory, each with its place.
//!
//! A box that says more than its parent has is read as far as it goes, and what cannot be a box ends the walk: one
//! damaged box must not cost the boxes beside it.

use std::io::{self, Read, Seek, SeekFrom};

use bytes::Bytes;
use mp4_atom::FourCC;

use super::error::{BoxFault, Mp4Error, Mp4Fault};

/// Top-level boxes that are walked at most: two million fragments.
const MAX_TOP_LEVEL: u32 = 4_000_000;

/// A box in memory.
#[derive(Clone, Debug)]
pub(super) struct BoxBody {
    pub(super) kind: FourCC,
    /// Of its header in the file.
    pub(super) offset: u64,
    /// Of its body in the file.
    pub(super) body_offset: u64,
    /// As much of it as its parent has.
    pub(super) body: Bytes,
    /// What its header promises, where that is more.
    pub(super) promised: Option<u64>,
}

/// A box that a track cannot do without, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BadBox {
    pub(super) name: FourCC,
    pub(super) offset: u64,
    pub(super) fault: BoxFault,
}

impl BoxBody {
    pub(super) fn bad(&self, fault: impl Into<BoxFault>) -> BadBox {
        BadBox { name: self.kind, offset: self.offset, fault: fault.into() }
    }

    pub(super) fn is(&self, kind: &[u8; 4]) -> bool {
        self.kind == FourCC::new(kind)
    }

    /// The boxes inside, behind `skip` bytes of fields.
    pub(super) fn children(&self, skip: usize) -> Children {
        let skip = skip.min(self.body.len());
        let siblings = siblings(&self.kind.into());
        Children { rest: self.body.slice(skip..), offset: self.body_offset + skip as u64, siblings }
    }

    /// The first box of this kind inside.
    pub(super) fn find(&self, kind: &[u8; 4]) -> Option<BoxBody> {
        self.children(0).find(|child| child.is(kind))
    }

    /// The same, where it must be there.
    pub(super) fn need(&self, kind: &[u8; 4]) -> Result<BoxBody, BadBox> {
        self.find(kind).ok_or_else(|| self.bad(BoxFault::Missing(FourCC::new(kind))))
    }

    /// `version` of a full box (§4.2.2).
    pub(super) fn version(&self) -> u8 {
        self.body.first().copied().unwrap_or(0)
    }

    /// `flags` of a full box.
    pub(super) fn flags(&self) -> u32 {
        self.u32_at(0).map_or(0, |word| word & 0x00ff_ffff)
    }

    pub(super) fn u16_at(&self, at: usize) -> Option<u16> {
        self.body.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
    }

    pub(super) fn u32_at(&self, at: usize) -> Option<u32> {
        self.body.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
    }

    pub(super) fn u64_at(&self, at: usize) -> Option<u64> {
        self.body.get(at..)?.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
    }

    /// A field that must be there.
    pub(super) fn need_u32(&self, at: usize) -> Result<u32, BadBox> {
        let (need, have) = (at as u64 + 4, self.body.len() as u64);
        self.u32_at(at).ok_or_else(|| self.bad(BoxFault::Truncated { need, have }))
    }

    /// The entries of a table, each `N` bytes, behind `skip` bytes of fields; `count` of them or as many as there are.
    pub(super) fn entries<const N: usize>(&self, skip: usize, count: u32) -> Entries<N> {
        let all = self.body.get(skip..).unwrap_or_default().as_chunks::<N>().0.len();
        let take = all.min(count as usize);
        let end = skip.saturating_add(take * N).min(self.body.len());
        Entries { body: self.body.slice(skip.min(end)..end) }
    }

    /// The entries of a full box whose first field is `entry_count`.
    pub(super) fn table<const N: usize>(&self) -> Entries<N> {
        self.entries(8, self.u32_at(4).unwrap_or(0))
    }
}

/// Entries of `N` bytes each, where they lie in the index.
#[derive(Clone, Debug)]
pub(super) struct Entries<const N: usize> {
    body: Bytes,
}

impl<const N: usize> Entries<N> {
    pub(super) fn len(&self) -> usize {
        self.body.len() / N
    }

    pub(super) fn get(&self, index: usize) -> Option<&[u8; N]> {
        self.body.as_chunks::<N>().0.get(index)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8; N]> {
        self.body.as_chunks::<N>().0.iter()
    }
}

/// Columns of 32 bits of a table's entry.
pub(super) fn words<const N: usize>(entry: &[u8; N]) -> impl Iterator<Item = u32> {
    entry.as_chunks::<4>().0.iter().map(|word| u32::from_be_bytes(*word))
}

/// Two columns of 32 bits.
pub(super) fn pair(entry: &[u8; 8]) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = *entry;
    (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]))
}

/// Walks boxes in memory. Fewer bytes than a header at the end are padding.
///
/// A box that overruns its parent, or is smaller than its header, ends where a box that is known begins, if one does.
#[derive(Debug)]
pub(super) struct Children {
    rest: Bytes,
    offset: u64,
    /// Boxes by which the walk finds its way again.
    siblings: &'static [&'static [u8; 4]],
}

impl Iterator for Children {
    type Item = BoxBody;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let header = Header::parse(&self.rest)?;
            let offset = self.offset;
            let have = self.rest.len() as u64;
            let size = header.size;
            // Where it is known what may stand here, what has no name is no box.
            let is_named = self.siblings.is_empty() || header.has_name();
            // Only the last box of a file may say 0, and reach to its end (§4.2.2).
            let is_box = is_named && (size >= header.length || size == 0);
            let taken = match size {
                size if is_named && size >= header.length && size <= have => size as usize,
                _ => next_of(self.siblings, &self.rest).unwrap_or(self.rest.len()),
            };
            let mut body = self.rest.split_to(taken);
            self.offset += taken as u64;
            if !is_box {
                continue;
            }
            let body = body.split_off((header.length as usize).min(taken));
            let promised = (size > have).then_some(size);
            let body_offset = offset + header.length;
            return Some(BoxBody { kind: header.kind, offset, body_offset, body, promised });
        }
    }
}

/// Boxes that are looked for inside one of this kind.
const fn siblings(parent: &[u8; 4]) -> &'static [&'static [u8; 4]] {
    match parent {
        b"moov" => &[b"mvhd", b"trak", b"mvex", b"udta"],
        b"trak" => &[b"tkhd", b"edts", b"mdia"],
        b"mdia" => &[b"mdhd", b"hdlr", b"minf"],
        b"minf" => &[b"dinf", b"stbl"],
        b"stbl" => &[b"stsd", b"stts", b"ctts", b"stss", b"stsc", b"stsz", b"stz2", b"stco", b"co64"],
        b"mvex" => &[b"trex"],
        b"moof" => &[b"mfhd", b"traf"],
        b"traf" => &[b"tfhd", b"tfdt", b"trun"],
        _ => &[],
    }
}

/// Where behind the start of this header, which may be none, a box of one of these kinds begins that fits.
fn next_of(kinds: &[&[u8; 4]], rest: &Bytes) -> Option<usize> {
    let mut found =
        rest.windows(4).enumerate().skip(5).filter(|(_, kind)| kinds.iter().any(|k| k[..] == **kind));
    found.find_map(|(at, _)| {
        let start = at.checked_sub(4)?;
        let header = Header::parse(rest.get(start..)?)?;
        let fits = header.size >= header.length && header.size <= (rest.len() - start) as u64;
        fits.then_some(start)
    })
}

/// Size, type and length of a box's header (§4.2).
struct Header {
    kind: FourCC,
    /// Of the whole box; 0 says that it reaches to the end.
    size: u64,
    length: u64,
}

impl Header {
    /// Whether its type is of letters, digits and the like, as all are that are registered; QuickTime's may begin with a
    /// copyright sign.
    fn has_name(&self) -> bool {
        <[u8; 4]>::from(self.kind).iter().all(|byte| matches!(byte, b' '..=b'~' | 0xa9))
    }

    /// `None` where fewer bytes than a header are left.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (size, rest) = bytes.split_first_chunk::<4>()?;
        let (kind, rest) = rest.split_first_chunk::<4>()?;
        let kind = FourCC::new(kind);
        match u32::from_be_bytes(*size) {
            1 => {
                let (size, _) = rest.split_first_chunk::<8>()?;
                // 0 in the long form would be a box smaller than its header.
                Some(Self { kind, size: u64::from_be_bytes(*size).max(1), length: 16 })
            }
            size => Some(Self { kind, size: size.into(), length: 8 }),
        }
    }
}

/// A box in the file.
#[derive(Clone, Debug)]
pub(super) struct FileBox {
    pub(super) kind: FourCC,
    pub(super) offset: u64,
    body_offset: u64,
    /// By its header; it may be behind the end of the file.
    end: u64,
}

impl FileBox {
    /// Bytes of its body, and how many of them the file has, where those are fewer.
    pub(super) fn cut(&self, file_end: u64) -> Option<(u64, u64)> {
        let (need, have) =
            (self.end.saturating_sub(self.body_offset), file_end.saturating_sub(self.body_offset));
        (need > have).then_some((need, have))
    }

    pub(super) fn error(&self, fault: impl Into<Mp4Fault>) -> Mp4Error {
        Mp4Error { name: self.kind, offset: self.offset, source: fault.into() }
    }
}

/// Walks the boxes of a file from its start, reading headers only. Bytes that are no box end the walk.
pub(super) struct FileBoxes<'a, R> {
    reader: &'a mut R,
    at: u64,
    end: u64,
    seen: u32,
}

impl<'a, R: Read + Seek> FileBoxes<'a, R> {
    pub(super) fn new(reader: &'a mut R) -> Result<Self, Mp4Error> {
        Self::starting_at(reader, 0)
    }

    /// Walks those from this byte on.
    pub(super) fn starting_at(reader: &'a mut R, at: u64) -> Result<Self, Mp4Error> {
        let end = reader.seek(SeekFrom::End(0)).map_err(|error| Mp4Error {
            name: FourCC::new(b"ftyp"),
            offset: 0,
            source: error.into(),
        })?;
        Ok(Self { reader, at, end, seen: 0 })
    }

    /// Bytes of the file.
    pub(super) const fn end(&self) -> u64 {
        self.end
    }

    /// Where the walk stands.
    pub(super) const fn at(&self) -> u64 {
        self.at
    }

    pub(super) fn next_box(&mut self) -> Result<Option<FileBox>, Mp4Error> {
        let offset = self.at;
        let error = |kind, fault| Mp4Error { name: kind, offset, source: fault };
        let bytes =
            read_at(self.reader, offset, 16).map_err(|source| error(FourCC::new(b"    "), source.into()))?;
        let Some(header) = Header::parse(&bytes) else { return Ok(None) };
        let have = self.end.saturating_sub(offset);
        let size = if header.size == 0 { have } else { header.size };
        self.seen += 1;
        if size < header.length || self.seen > MAX_TOP_LEVEL {
            return Ok(None);
        }
        // In front of the first one that is known there may be others, but none that is no box at all.
        if offset == 0 && size > have && !starts_a_file(header.kind) {
            return Err(error(FourCC::new(b"ftyp"), Mp4Fault::NotMp4));
        }
        let end = offset.saturating_add(size);
        // The end of the file ends the walk, however far a cut `mdat` would have reached.
        self.at = end.min(self.end);
        Ok(Some(FileBox { kind: header.kind, offset, body_offset: offset + header.length, end }))
    }

    /// Reads a box of at most `most` bytes, or as much of it as the file has.
    pub(super) fn load(&mut self, found: &FileBox, most: u64) -> Result<BoxBody, Mp4Error> {
        let size = found.end.saturating_sub(found.body_offset);
        let have = self.end.saturating_sub(found.body_offset);
        if size.min(have) > most {
            let fault = Mp4Fault::TooMany { what: "bytes of the box", value: size, most };
            return Err(found.error(fault));
        }
        let body =
            read_at(self.reader, found.body_offset, size.min(have)).map_err(|error| found.error(error))?;
        let promised = (size > body.len() as u64).then_some(size);
        let (kind, offset, body_offset) = (found.kind, found.offset, found.body_offset);
        Ok(BoxBody { kind, offset, body_offset, body: Bytes::from(body), promised })
    }
}

/// Types that a file may start with, even where the first box is cut.
pub(super) fn starts_a_file(kind: FourCC) -> bool {
    const STARTS: [&[u8; 4]; 14] = [
        b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"pnot", b"sidx", b"uuid",
        b"pdin", b"emsg", b"prft",
    ];
    STARTS.iter().any(|known| kind == FourCC::new(known))
}

/// Reads `size` bytes, or fewer where the file ends. Memory is taken as bytes come, not as announced.
pub(super) fn read_at<R: Read + Seek>(reader: &mut R, offset: u64, size: u64) -> io::Result<Vec<u8>> {
    const FIRST: u64 = 1 << 18;
    reader.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::with_capacity(size.min(FIRST) as usize);
    reader.take(size).read_to_end(&mut bytes)?;
    Ok(bytes)
}
