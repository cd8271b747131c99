//! Boxes in a file and boxes in memory, each with its place.

use std::io::{self, Read, Seek, SeekFrom};

use bytes::Bytes;
use mp4_atom::{Atom, FourCC};

use super::{Mp4Error, Mp4Fault};

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
    pub(super) body: Bytes,
}

impl BoxBody {
    pub(super) fn error(&self, fault: impl Into<Mp4Fault>) -> Mp4Error {
        Mp4Error { name: self.kind, offset: self.offset, source: fault.into() }
    }

    pub(super) fn is(&self, kind: &[u8; 4]) -> bool {
        self.kind == FourCC::new(kind)
    }

    /// Decodes a box whose content is fields. What follows the last field is padding.
    pub(super) fn decode<T: Atom>(&self) -> Result<T, Mp4Error> {
        T::decode_body(&mut &self.body[..]).map_err(|fault| self.error(fault))
    }

    /// The boxes inside, behind `skip` bytes of fields.
    pub(super) fn children(&self, skip: usize) -> Result<Children, Mp4Error> {
        if self.body.len() < skip {
            let (need, have) = (skip as u64, self.body.len() as u64);
            return Err(self.error(Mp4Fault::Truncated { need, have }));
        }
        Ok(Children { rest: self.body.slice(skip..), offset: self.body_offset + skip as u64 })
    }

    /// The first box of this kind inside.
    pub(super) fn find(&self, kind: &[u8; 4]) -> Result<Option<BoxBody>, Mp4Error> {
        self.children(0)?.find(|child| child.as_ref().map_or(true, |child| child.is(kind))).transpose()
    }

    /// The same, where it must be there.
    pub(super) fn need(&self, kind: &[u8; 4]) -> Result<BoxBody, Mp4Error> {
        self.find(kind)?.ok_or_else(|| self.error(Mp4Fault::Missing(FourCC::new(kind))))
    }
}

/// Walks boxes in memory. Fewer bytes than a header at the end are padding. An error ends the walk.
#[derive(Debug)]
pub(super) struct Children {
    rest: Bytes,
    offset: u64,
}

impl Iterator for Children {
    type Item = Result<BoxBody, Mp4Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let header = Header::parse(&self.rest)?;
        let offset = self.offset;
        let have = self.rest.len() as u64;
        let size = if header.size == 0 { have } else { header.size };
        let fault = if size < header.length {
            Mp4Fault::Size(size)
        } else if size > have {
            Mp4Fault::Truncated { need: size, have }
        } else {
            let mut body = self.rest.split_to(size as usize);
            let body = body.split_off(header.length as usize);
            self.offset += size;
            let body_offset = offset + header.length;
            return Some(Ok(BoxBody { kind: header.kind, offset, body_offset, body }));
        };
        self.rest = Bytes::new();
        Some(Err(Mp4Error { name: header.kind, offset, source: fault }))
    }
}

/// Size, type and length of a box's header (§4.2).
struct Header {
    kind: FourCC,
    /// Of the whole box; 0 says that it reaches to the end.
    size: u64,
    length: u64,
}

impl Header {
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
    offset: u64,
    body_offset: u64,
    end: u64,
}

impl FileBox {
    pub(super) fn error(&self, fault: impl Into<Mp4Fault>) -> Mp4Error {
        Mp4Error { name: self.kind, offset: self.offset, source: fault.into() }
    }
}

/// Walks the boxes of a file from its start, reading headers only.
pub(super) struct FileBoxes<'a, R> {
    reader: &'a mut R,
    at: u64,
    end: u64,
    seen: u32,
}

impl<'a, R: Read + Seek> FileBoxes<'a, R> {
    pub(super) fn new(reader: &'a mut R) -> Result<Self, Mp4Error> {
        let end = reader.seek(SeekFrom::End(0)).map_err(|error| Mp4Error {
            name: FourCC::new(b"ftyp"),
            offset: 0,
            source: error.into(),
        })?;
        Ok(Self { reader, at: 0, end, seen: 0 })
    }

    /// Bytes of the file.
    pub(super) const fn end(&self) -> u64 {
        self.end
    }

    pub(super) fn next_box(&mut self) -> Result<Option<FileBox>, Mp4Error> {
        let offset = self.at;
        let error = |kind, fault| Mp4Error { name: kind, offset, source: fault };
        let bytes =
            read_at(self.reader, offset, 16).map_err(|source| error(FourCC::new(b"    "), source.into()))?;
        let Some(header) = Header::parse(&bytes) else {
            let first = offset == 0 && self.end > 0;
            return if first { Err(error(FourCC::new(b"ftyp"), Mp4Fault::NotMp4)) } else { Ok(None) };
        };
        if offset == 0 && !starts_a_file(header.kind) {
            return Err(error(FourCC::new(b"ftyp"), Mp4Fault::NotMp4));
        }
        self.seen += 1;
        if self.seen > MAX_TOP_LEVEL {
            let (value, most) = (self.seen.into(), MAX_TOP_LEVEL.into());
            return Err(error(header.kind, Mp4Fault::TooMany { what: "boxes in the file", value, most }));
        }
        let have = self.end.saturating_sub(offset);
        let size = if header.size == 0 { have } else { header.size };
        if size < header.length {
            return Err(error(header.kind, Mp4Fault::Size(size)));
        }
        let end = offset.saturating_add(size);
        // The end of the file ends the walk, however far a cut `mdat` would have reached.
        self.at = end.min(self.end);
        Ok(Some(FileBox { kind: header.kind, offset, body_offset: offset + header.length, end }))
    }

    /// Reads a whole box of at most `most` bytes.
    pub(super) fn load(&mut self, found: &FileBox, most: u64) -> Result<BoxBody, Mp4Error> {
        let size = found.end.saturating_sub(found.body_offset);
        let have = self.end.saturating_sub(found.body_offset);
        if size > have {
            return Err(found.error(Mp4Fault::Truncated { need: size, have }));
        }
        if size > most {
            let fault = Mp4Fault::TooMany { what: "bytes of the box", value: size, most };
            return Err(found.error(fault));
        }
        let body = read_at(self.reader, found.body_offset, size).map_err(|error| found.error(error))?;
        if (body.len() as u64) < size {
            let have = body.len() as u64;
            return Err(found.error(Mp4Fault::Truncated { need: size, have }));
        }
        let body = Bytes::from(body);
        Ok(BoxBody { kind: found.kind, offset: found.offset, body_offset: found.body_offset, body })
    }
}

/// Types that a file may start with.
fn starts_a_file(kind: FourCC) -> bool {
    const KNOWN: [&[u8; 4]; 14] = [
        b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"pnot", b"sidx", b"uuid",
        b"pdin", b"emsg", b"prft",
    ];
    KNOWN.iter().any(|known| kind == FourCC::new(known))
}

/// Reads `size` bytes, or fewer where the file ends. Memory is taken as bytes come, not as announced.
pub(super) fn read_at<R: Read + Seek>(reader: &mut R, offset: u64, size: u64) -> io::Result<Vec<u8>> {
    const FIRST: u64 = 1 << 18;
    reader.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::with_capacity(size.min(FIRST) as usize);
    reader.take(size).read_to_end(&mut bytes)?;
    Ok(bytes)
}
