//! What holds of init segments, segments and parts. Boxes are read here by a walk of its own, which shares nothing with the
//! project's reader and writer of MP4.

use std::collections::BTreeMap;

use super::attributes::Attributes;
use super::rule::{self, Fault, Rule};
use super::seen::Seen;

/// Boxes of one level that are looked at.
const MAX_BOXES: usize = 10_000;
/// Samples of a track in one fragment.
const MAX_SAMPLES: usize = 100_000;

/// A box's type and content.
type Named<'a> = (&'a [u8; 4], &'a [u8]);

/// Boxes one behind the other; `None` where a size makes no sense.
fn boxes(mut bytes: &[u8]) -> Option<Vec<Named<'_>>> {
    let mut all = Vec::new();
    while !bytes.is_empty() && all.len() < MAX_BOXES {
        let (size, rest) = bytes.split_first_chunk::<4>()?;
        let (kind, rest) = rest.split_first_chunk::<4>()?;
        let (size, header) = match u32::from_be_bytes(*size) {
            0 => (bytes.len(), 8),
            1 => (usize::try_from(u64::from_be_bytes(*rest.first_chunk::<8>()?)).ok()?, 16),
            size => (size as usize, 8),
        };
        let body = bytes.get(header..size)?;
        all.push((kind, body));
        bytes = bytes.get(size..)?;
    }
    Some(all)
}

fn find<'a>(bytes: &'a [u8], path: &[&[u8; 4]]) -> Option<&'a [u8]> {
    let (first, rest) = path.split_first()?;
    let (_, body) = boxes(bytes)?.into_iter().find(|(kind, _)| kind == first)?;
    if rest.is_empty() { Some(body) } else { find(body, rest) }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|word| u32::from_be_bytes(*word))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|word| u64::from_be_bytes(*word))
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Track {
    pub(super) id: u32,
    pub(super) is_video: bool,
    pub(super) timescale: u32,
    pub(super) entry: [u8; 4],
    /// Of H.264, as in CODECS.
    codec: Option<String>,
    /// In whole pixels.
    size: (u32, u32),
    /// `default_sample_duration` and `default_sample_flags` of `trex`.
    duration: u32,
    flags: u32,
}

/// What an init segment says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Init {
    pub(super) tracks: Vec<Track>,
}

impl Init {
    pub(super) fn parse(bytes: &[u8]) -> (Option<Self>, Vec<Fault>) {
        let mut faults = Vec::new();
        let init = Self::read(bytes, &mut faults);
        if init.is_none() {
            faults.push(Fault::new(&rule::BOXES, "the init segment has no moov with tracks"));
        }
        (init, faults)
    }

    fn read(bytes: &[u8], faults: &mut Vec<Fault>) -> Option<Self> {
        let moov = find(bytes, &[b"moov"])?;
        let mut tracks = Vec::new();
        for (_, trak) in boxes(moov)?.into_iter().filter(|(kind, _)| *kind == b"trak") {
            let tkhd = find(trak, &[b"tkhd"])?;
            let mdhd = find(trak, &[b"mdia", b"mdhd"])?;
            let is_long = |full: &[u8]| full.first() == Some(&1);
            let handler = find(trak, &[b"mdia", b"hdlr"])?.get(8..12)?;
            let stsd = find(trak, &[b"mdia", b"minf", b"stbl", b"stsd"])?;
            let entry = stsd.get(12..16)?;
            let codec = match entry {
                b"avc1" | b"avc3" => {
                    let codec = avc(stsd);
                    if codec.is_none() {
                        faults.push(Fault::new(&rule::AVCC, "in moov"));
                    }
                    codec
                }
                _ => None,
            };
            let size = |from_end: usize| Some(word(tkhd, tkhd.len().checked_sub(from_end)?)? >> 16);
            tracks.push(Track {
                id: word(tkhd, if is_long(tkhd) { 20 } else { 12 })?,
                is_video: handler == b"vide",
                timescale: word(mdhd, if is_long(mdhd) { 20 } else { 12 })?,
                entry: *entry.first_chunk()?,
                codec,
                size: (size(8)?, size(4)?),
                duration: 0,
                flags: 0,
            });
            if let Some(elst) = find(trak, &[b"edts", b"elst"])
                && word(elst, 4)? > 0
            {
                faults.push(Fault::new(&rule::EDIT_LIST, "in moov"));
            }
        }
        for (_, trex) in boxes(find(moov, &[b"mvex"])?)?.into_iter().filter(|(kind, _)| *kind == b"trex") {
            let id = word(trex, 4)?;
            for track in tracks.iter_mut().filter(|track| track.id == id) {
                (track.duration, track.flags) = (word(trex, 12)?, word(trex, 20)?);
            }
        }
        if tracks.iter().any(|track| &track.entry == b"hev1") {
            faults.push(Fault::new(&rule::HEV1, "the sample entry is hev1"));
        }
        let first = tracks.first()?;
        if !first.is_video && tracks.iter().any(|track| track.is_video) {
            faults.push(Fault::new(&rule::AUDIO_FIRST, "in moov"));
        }
        Some(Self { tracks })
    }

    /// What a variant says of it that is not so.
    pub(super) fn differs(&self, variant: &Attributes) -> Vec<Fault> {
        let mut faults = Vec::new();
        if let Some(codecs) = variant.get("CODECS") {
            let is_told = |track: &&Track| {
                let entry = String::from_utf8_lossy(&track.entry);
                let mut told = codecs.split(',').map(str::trim);
                told.any(|told| match &track.codec {
                    Some(codec) => told.eq_ignore_ascii_case(codec),
                    None => told.split('.').next().is_some_and(|told| told.eq_ignore_ascii_case(&entry)),
                })
            };
            let known = |track: &&Track| KNOWN.contains(&&track.entry);
            for track in self.tracks.iter().filter(known).filter(|track| !is_told(track)) {
                let entry = String::from_utf8_lossy(&track.entry);
                let is = track.codec.as_deref().unwrap_or(&entry);
                faults.push(Fault::new(&rule::WRONG_CODECS, format!("{is} is not in {codecs:?}")));
            }
            // What other playlists have is in CODECS as well.
            let is_all = ["AUDIO", "VIDEO"].iter().all(|group| variant.get(group).is_none());
            for told in codecs.split(',').map(str::trim).filter(|_| is_all) {
                let kind = told.split('.').next().unwrap_or(told);
                let is = |entry: &[u8; 4]| kind.as_bytes().eq_ignore_ascii_case(entry);
                if KNOWN.iter().any(|known| is(known)) && !self.tracks.iter().any(|track| is(&track.entry)) {
                    faults.push(Fault::new(&rule::NO_TRACK, format!("{told} of {codecs:?}")));
                }
            }
        }
        let video = self.tracks.iter().find(|track| track.is_video && track.size != (0, 0));
        if let (Some(video), Some(told)) = (video, variant.get("RESOLUTION")) {
            let (width, height) = video.size;
            if told != format!("{width}x{height}") {
                faults.push(Fault::new(
                    &rule::WRONG_RESOLUTION,
                    format!("{width}x{height}, RESOLUTION is {told}"),
                ));
            }
        }
        faults
    }

    fn leading(&self) -> Option<&Track> {
        self.tracks.iter().find(|track| track.is_video).or(self.tracks.first())
    }
}

/// Sample entries that CODECS names in the same way.
const KNOWN: [&[u8; 4]; 11] =
    [b"avc1", b"avc3", b"hvc1", b"hev1", b"av01", b"vp09", b"mp4a", b"Opus", b"fLaC", b"ac-3", b"ec-3"];

/// `avc1.64001f`, of the one entry of a `stsd`.
fn avc(stsd: &[u8]) -> Option<String> {
    let entry = std::str::from_utf8(stsd.get(12..16)?).ok()?;
    // Behind version and count, the entry's header, and what all pictures have.
    let [1, profile, compatible, level, ..] = find(stsd.get(8 + 8 + 78..)?, &[b"avcC"])? else { return None };
    Some(format!("{entry}.{profile:02x}{compatible:02x}{level:02x}"))
}

/// A part or segment as it is listed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listed<'a> {
    pub(super) uri: &'a str,
    pub(super) duration: f64,
    /// Of a part: which of its segment, and how long the gap right behind it is, which its last picture may stand through.
    pub(super) part: Option<(usize, f64)>,
    /// INDEPENDENT=YES, or a segment where EXT-X-INDEPENDENT-SEGMENTS is said.
    pub(super) independent: bool,
    /// It follows what was given before it, without a discontinuity.
    pub(super) follows: bool,
}

/// Media of one rendition, in order.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    /// Where each track's next sample is due.
    next: BTreeMap<u32, u64>,
    /// How much longer the parts of this segment are than they are listed.
    off: f64,
    /// What it has had since the last init segment.
    seen: Seen,
}

/// Parts of a segment may make up for each other: hls.js moves its timeline where media is a second away from its place.
const MOST_OFF: f64 = 1.0;

pub(super) struct Sample {
    pub(super) duration: u32,
    size: u32,
    flags: u32,
    offset: i64,
}

impl Timeline {
    /// What comes next follows nothing that is known.
    pub(super) fn breaks(&mut self) {
        self.next.clear();
        self.off = 0.0;
    }

    /// What is wrong with all that there was, which ends here.
    pub(super) fn ends(&mut self, variant: Option<&Attributes>) -> Vec<Fault> {
        std::mem::take(&mut self.seen).faults(variant)
    }

    /// What is wrong with a piece of media.
    pub(super) fn take(&mut self, init: &Init, listed: Listed<'_>, bytes: &[u8]) -> Vec<Fault> {
        let mut faults = Vec::new();
        if !listed.follows {
            self.next.clear();
        }
        self.seen.piece(init, listed.duration);
        if self.read(init, listed, bytes, &mut faults).is_none() {
            faults.push(Fault::new(&rule::BOXES, format!("{}: moof or mdat can't be read", listed.uri)));
        }
        faults
    }

    fn read(&mut self, init: &Init, listed: Listed<'_>, bytes: &[u8], faults: &mut Vec<Fault>) -> Option<()> {
        let mut add = |rule: &'static Rule, detail: String| faults.push(Fault::new(rule, detail));
        let uri = listed.uri;
        let leading = init.leading()?;
        let (mut length, mut last) = (0.0, 0.0);
        let mut is_first = true;
        let top = boxes(bytes)?;
        if !top.iter().any(|(kind, _)| *kind == b"moof") {
            return None;
        }
        for (kind, body) in top {
            if kind != b"moof" {
                continue;
            }
            // Data offsets count from its header.
            let start = (body.as_ptr().addr() - bytes.as_ptr().addr()).saturating_sub(8);
            let trafs: Vec<_> = boxes(body)?.into_iter().filter(|(kind, _)| *kind == b"traf").collect();
            let mut order = Vec::new();
            for (_, traf) in trafs {
                let tfhd = find(traf, &[b"tfhd"])?;
                let id = word(tfhd, 4)?;
                let track = init.tracks.iter().find(|track| track.id == id)?;
                order.push(track.is_video);
                let tfdt = find(traf, &[b"tfdt"])?;
                let is_long = tfdt.first() == Some(&1);
                let decode = if is_long { long(tfdt, 4)? } else { word(tfdt, 4)?.into() };
                if !is_long {
                    add(&rule::SHORT_TFDT, format!("{uri}: track {id}"));
                }
                if let Some(next) = self.next.get(&id).filter(|next| **next != decode) {
                    let off = decode.wrapping_sub(*next).cast_signed();
                    add(&rule::TFDT_GAP, format!("{uri}: track {id} is {off} ticks off at {decode}"));
                }
                let (samples, data) = samples(traf, tfhd, track)?;
                self.seen.samples(track, &samples);
                let duration: u64 = samples.iter().map(|sample| u64::from(sample.duration)).sum();
                self.next.insert(id, decode.saturating_add(duration));
                if samples.iter().any(|sample| sample.offset < 0) {
                    add(&rule::NEGATIVE_OFFSET, format!("{uri}: track {id}"));
                }
                if track.id != leading.id {
                    continue;
                }
                let seconds = |ticks: u64| ticks as f64 / f64::from(track.timescale.max(1));
                length += seconds(duration);
                last = samples.last().map_or(0.0, |sample| seconds(sample.duration.into()));
                let is_sync = samples.first().is_some_and(|sample| sample.flags & 0x1_0000 == 0);
                if std::mem::take(&mut is_first) && listed.independent && !is_sync {
                    add(&rule::DEPENDENT, uri.to_owned());
                }
                let begins = usize::try_from(data).ok().and_then(|data| start.checked_add(data));
                let media = begins.and_then(|begins| bytes.get(begins..));
                if let (Some(media), Some(first)) = (media, samples.first())
                    && has_parameter_sets(media.get(..first.size as usize).unwrap_or(media), &track.entry)
                {
                    add(&rule::SETS_IN_SAMPLES, uri.to_owned());
                }
            }
            if order.first() == Some(&false) && order.contains(&true) {
                add(&rule::AUDIO_FIRST, format!("{uri}: in moof"));
            }
        }
        // A frame of doubt: where the last sample ends is said by the next one.
        let doubt = 0.05_f64.max(listed.duration * 0.02).max(last);
        let is_wrong = match listed.part {
            None => (length - listed.duration).abs() > doubt,
            Some((index, gap)) => {
                let before = if index == 0 { 0.0 } else { self.off };
                let off = before + length - listed.duration;
                self.off = off - off.clamp(0.0, gap.max(0.0));
                self.off.abs() > MOST_OFF
            }
        };
        if is_wrong {
            add(&rule::EXTINF_WRONG, format!("{uri}: {length:.3} s of media, {} s listed", listed.duration));
        }
        Some(())
    }
}

/// The samples of a `traf`, and where its data begins, from the start of `moof`.
fn samples(traf: &[u8], tfhd: &[u8], track: &Track) -> Option<(Vec<Sample>, u32)> {
    let has = word(tfhd, 0)? & 0xff_ffff;
    let mut at = 8 + if has & 1 != 0 { 8 } else { 0 } + if has & 2 != 0 { 4 } else { 0 };
    let mut field = |bit: u32, default: u32| {
        if has & bit == 0 {
            return Some(default);
        }
        at += 4;
        word(tfhd, at - 4)
    };
    let (duration, size, flags) = (field(8, track.duration)?, field(16, 0)?, field(32, track.flags)?);
    let mut all = Vec::new();
    let mut data = None;
    for (_, trun) in boxes(traf)?.into_iter().filter(|(kind, _)| *kind == b"trun") {
        let has = word(trun, 0)? & 0xff_ffff;
        let is_signed = trun.first() == Some(&1);
        let mut at = 8;
        let mut field = |bit: u32, default: u32| {
            if has & bit == 0 {
                return Some(default);
            }
            at += 4;
            word(trun, at - 4)
        };
        let offset = field(1, 0)?;
        data.get_or_insert(offset);
        let first = field(4, flags)?;
        let count = word(trun, 4)?;
        // Without fields of their own a count costs nothing, and may say anything.
        if count as usize > MAX_SAMPLES.saturating_sub(all.len()) {
            return None;
        }
        for index in 0..count {
            let duration = field(0x100, duration)?;
            let size = field(0x200, size)?;
            let flags = field(0x400, if index == 0 { first } else { flags })?;
            let offset = field(0x800, 0)?;
            let offset = if is_signed { i64::from(offset as i32) } else { i64::from(offset) };
            all.push(Sample { duration, size, flags, offset });
        }
    }
    Some((all, data?))
}

/// Whether a sample of H.264 or H.265, NAL units behind lengths of four bytes, carries parameter sets.
fn has_parameter_sets(mut sample: &[u8], entry: &[u8; 4]) -> bool {
    while let Some((length, rest)) = sample.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        let Some(&first) = rest.first() else { return false };
        let is_set = match entry {
            b"avc1" => matches!(first & 0x1f, 7 | 8),
            b"hvc1" => matches!(first >> 1 & 0x3f, 32..=34),
            _ => return false,
        };
        if is_set {
            return true;
        }
        let Some(behind) = rest.get(length..) else { return false };
        sample = behind;
    }
    false
}

/// What is wrong with a segment of MPEG-TS: both tables come before the first packet of media. Others, as the name of the
/// service, may come in front of them.
pub(super) fn transport_stream(uri: &str, bytes: &[u8]) -> Vec<Fault> {
    let (packets, rest) = bytes.as_chunks::<188>();
    let mut map = None;
    let mut is_mapped = false;
    for packet in packets {
        let [0x47, high, low, control, payload @ ..] = packet else { break };
        let pid = u16::from_be_bytes([*high, *low]) & 0x1fff;
        match pid {
            // A pointer, eight bytes of header, the program's number, the PID of its map.
            0 if control & 0x20 == 0 => {
                map = payload
                    .get(11..13)
                    .and_then(|pid| pid.first_chunk())
                    .map(|pid| u16::from_be_bytes(*pid) & 0x1fff);
            }
            0..0x20 | 0x1fff => {}
            _ if Some(pid) == map => is_mapped = true,
            _ => break,
        }
    }
    match is_mapped && rest.is_empty() {
        true => Vec::new(),
        false => vec![Fault::new(&rule::TS_TABLES, uri)],
    }
}
