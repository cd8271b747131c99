//! Transport packets (§2.4.3) and packetized elementary streams (§2.4.3.6).

use bytes::{BufMut, Bytes};

const PACKET: usize = 188;
const HEADER: usize = 4;
/// Bytes of an adaptation field with a clock, its length included.
const CLOCK_FIELD: usize = 8;

/// The streams of the one program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Pid {
    /// The association table.
    Association = 0,
    /// The program map table.
    Map = 0x1000,
    Video = 0x100,
    Audio = 0x101,
}

/// Packets, and the continuity counter of each stream.
#[derive(Debug, Default)]
pub(super) struct Packets {
    out: Vec<u8>,
    association: u8,
    map: u8,
    video: u8,
    audio: u8,
}

/// What an adaptation field says.
#[derive(Clone, Copy, Default)]
struct Adaptation {
    clock: Option<i64>,
    random_access: bool,
}

impl Packets {
    pub(super) fn reserve(&mut self, bytes: usize) {
        self.out.reserve(bytes);
    }

    pub(super) fn take(&mut self) -> Bytes {
        std::mem::take(&mut self.out).into()
    }

    /// Both sections, a packet each.
    pub(super) fn tables(&mut self, pat: &[u8], pmt: &[u8]) {
        for (pid, section) in [(Pid::Association, pat), (Pid::Map, pmt)] {
            self.header(pid, true, true, false);
            let start = self.out.len();
            self.out.put_u8(0); // pointer_field
            self.out.put_slice(section);
            self.out.resize(start + PACKET - HEADER, 0xff);
        }
    }

    /// A packet that says nothing but the time.
    pub(super) fn clock(&mut self, pid: Pid, clock: i64) {
        self.header(pid, false, false, true);
        self.adaptation(Adaptation { clock: Some(clock), random_access: false }, PACKET - HEADER);
    }

    /// A whole PES packet.
    pub(super) fn pes(
        &mut self,
        pid: Pid,
        pts: i64,
        dts: Option<i64>,
        clock: Option<i64>,
        random_access: bool,
        payload: &[u8],
    ) {
        let header = pes_header(pid, pts, dts.filter(|dts| *dts != pts), payload.len());
        let mut rest = Joined { first: &header, second: payload };
        let mut adaptation = Adaptation { clock, random_access };
        let mut starts = true;
        while rest.len() > 0 {
            let needed = if adaptation.clock.is_some() {
                CLOCK_FIELD
            } else if adaptation.random_access {
                2
            } else {
                0
            };
            let room = PACKET - HEADER;
            let taken = rest.len().min(room - needed);
            let field = room - taken;
            self.header(pid, starts, true, field > 0);
            if field > 0 {
                self.adaptation(adaptation, field);
            }
            rest.move_to(&mut self.out, taken);
            adaptation = Adaptation::default();
            starts = false;
        }
    }

    fn header(&mut self, pid: Pid, starts: bool, payload: bool, adaptation: bool) {
        let counter = match pid {
            Pid::Association => &mut self.association,
            Pid::Map => &mut self.map,
            Pid::Video => &mut self.video,
            Pid::Audio => &mut self.audio,
        };
        let control = u8::from(adaptation) << 5 | u8::from(payload) << 4;
        // It counts packets with a payload.
        let number = if payload { *counter } else { counter.wrapping_sub(1) & 15 };
        if payload {
            *counter = (*counter + 1) & 15;
        }
        self.out.put_u8(0x47);
        self.out.put_u16(u16::from(starts) << 14 | pid as u16);
        self.out.put_u8(control | number);
    }

    /// An adaptation field of `size` bytes, stuffed where it has less to say.
    fn adaptation(&mut self, adaptation: Adaptation, size: usize) {
        let end = self.out.len() + size;
        self.out.put_u8((size - 1) as u8);
        if size > 1 {
            let random_access = u8::from(adaptation.random_access) << 6;
            self.out.put_u8(random_access | u8::from(adaptation.clock.is_some()) << 4);
        }
        if let Some(clock) = adaptation.clock {
            // 33 bits at 90 kHz, six reserved ones, nine at 27 MHz.
            let base = clock as u64 & 0x1_ffff_ffff;
            self.out.put_u32((base >> 1) as u32);
            self.out.put_u16(((base & 1) as u16) << 15 | 0x7e00);
        }
        self.out.resize(end, 0xff);
    }
}

/// `stream_id`, length, flags and times (§2.4.3.7). Pictures do not say their length, which may be more than 16 bits.
fn pes_header(pid: Pid, pts: i64, dts: Option<i64>, payload: usize) -> Vec<u8> {
    let times = if dts.is_some() { 10 } else { 5 };
    let stream_id = if pid == Pid::Video { 0xe0 } else { 0xc0 };
    let length = if pid == Pid::Video { 0 } else { u16::try_from(3 + times + payload).unwrap_or(0) };
    let mut out = vec![0, 0, 1, stream_id];
    out.put_u16(length);
    out.put_u8(0x84); // data_alignment_indicator: it begins with a frame
    out.put_u8(if dts.is_some() { 0xc0 } else { 0x80 });
    out.put_u8(times as u8);
    put_time(&mut out, if dts.is_some() { 3 } else { 2 }, pts);
    if let Some(dts) = dts {
        put_time(&mut out, 1, dts);
    }
    out
}

/// 33 bits in three parts, each behind a marker.
fn put_time(out: &mut Vec<u8>, prefix: u8, time: i64) {
    let time = time as u64 & 0x1_ffff_ffff;
    out.put_u8(prefix << 4 | ((time >> 30) as u8 & 7) << 1 | 1);
    out.put_u16(((time >> 15) as u16) << 1 | 1);
    out.put_u16((time as u16) << 1 | 1);
}

/// Two pieces as one.
struct Joined<'a> {
    first: &'a [u8],
    second: &'a [u8],
}

impl Joined<'_> {
    fn len(&self) -> usize {
        self.first.len() + self.second.len()
    }

    fn move_to(&mut self, out: &mut Vec<u8>, count: usize) {
        let (piece, rest) = self.first.split_at(count.min(self.first.len()));
        let (more, second) = self.second.split_at((count - piece.len()).min(self.second.len()));
        out.put_slice(piece);
        out.put_slice(more);
        (self.first, self.second) = (rest, second);
    }
}
