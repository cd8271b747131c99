//! `ftyp` and `moov`, with or without sample tables.

use std::num::NonZeroU32;

use bytes::BufMut;

use super::track::TrackWriter;
use super::{put_box, put_full_box};
use crate::Kind;

/// How long a track is, in the movie's ticks and its own.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Durations {
    pub(super) movie: u64,
    pub(super) media: u64,
}

/// `ftyp` (§4.3): the first brand is what the file is written by.
pub(super) fn put_ftyp(out: &mut Vec<u8>, brands: &[&[u8; 4]]) {
    put_box(out, b"ftyp", |out| {
        out.put_slice(brands.first().map_or(b"isom", |major| *major));
        out.put_u32(512); // minor_version
        for brand in brands {
            out.put_slice(*brand);
        }
    });
}

/// A `moov` whose samples come in fragments (§8.8).
pub(super) fn put_fragmented_moov(out: &mut Vec<u8>, tracks: &[TrackWriter]) {
    put_box(out, b"moov", |out| {
        put_mvhd(out, NonZeroU32::new(1000).unwrap_or(NonZeroU32::MIN), 0, tracks);
        for track in tracks {
            put_trak(out, track, Durations::default(), |_| (), put_empty_tables);
        }
        put_box(out, b"mvex", |out| {
            for track in tracks {
                put_full_box(out, b"trex", 0, 0, |out| {
                    out.put_u32(track.id);
                    out.put_u32(1); // default_sample_description_index
                    out.put_bytes(0, 12);
                });
            }
        });
    });
}

fn put_empty_tables(out: &mut Vec<u8>) {
    for kind in [b"stts", b"stsc", b"stco"] {
        put_full_box(out, kind, 0, 0, |out| out.put_u32(0));
    }
    put_full_box(out, b"stsz", 0, 0, |out| out.put_u64(0));
}

/// A matrix that leaves the picture as it is (§6.2.2).
fn put_unity(out: &mut Vec<u8>) {
    for value in [0x1_0000, 0, 0, 0, 0x1_0000, 0, 0, 0, 0x4000_0000] {
        out.put_u32(value);
    }
}

/// Times of creation and change, which are left open, what `between` puts behind them, and a duration.
fn put_times(
    out: &mut Vec<u8>,
    kind: &[u8; 4],
    flags: u32,
    duration: u64,
    between: impl FnOnce(&mut Vec<u8>),
    behind: impl FnOnce(&mut Vec<u8>),
) {
    let short = u32::try_from(duration).ok();
    put_full_box(out, kind, short.is_none().into(), flags, |out| {
        out.put_bytes(0, if short.is_some() { 8 } else { 16 });
        between(out);
        match short {
            Some(duration) => out.put_u32(duration),
            None => out.put_u64(duration),
        }
        behind(out);
    });
}

/// `mvhd` (§8.2.2).
pub(super) fn put_mvhd(out: &mut Vec<u8>, timescale: NonZeroU32, duration: u64, tracks: &[TrackWriter]) {
    let next_id = tracks.iter().map(|track| track.id).max().unwrap_or(0) + 1;
    put_times(
        out,
        b"mvhd",
        0,
        duration,
        |out| out.put_u32(timescale.get()),
        |out| {
            out.put_u32(0x1_0000); // rate
            out.put_u16(0x100); // volume
            out.put_bytes(0, 10);
            put_unity(out);
            out.put_bytes(0, 24);
            out.put_u32(next_id);
        },
    );
}

/// `trak` (§8.3.1) with an edit list, or none, and sample tables.
pub(super) fn put_trak(
    out: &mut Vec<u8>,
    track: &TrackWriter,
    durations: Durations,
    edits: impl FnOnce(&mut Vec<u8>),
    tables: impl FnOnce(&mut Vec<u8>),
) {
    let is_video = track.kind == Kind::Video;
    let handler: (&[u8; 4], &[u8]) =
        if is_video { (b"vide", b"VideoHandler\0") } else { (b"soun", b"SoundHandler\0") };
    put_box(out, b"trak", |out| {
        put_tkhd(out, track, durations.movie);
        edits(out);
        put_box(out, b"mdia", |out| {
            let language = |out: &mut Vec<u8>| {
                out.put_u16(0x55c4); // undetermined
                out.put_u16(0);
            };
            put_times(out, b"mdhd", 0, durations.media, |out| out.put_u32(track.timescale.get()), language);
            put_full_box(out, b"hdlr", 0, 0, |out| {
                out.put_u32(0);
                out.put_slice(handler.0);
                out.put_bytes(0, 12);
                out.put_slice(handler.1);
            });
            put_box(out, b"minf", |out| {
                match is_video {
                    true => put_full_box(out, b"vmhd", 0, 1, |out| out.put_u64(0)),
                    false => put_full_box(out, b"smhd", 0, 0, |out| out.put_u32(0)),
                }
                put_box(out, b"dinf", |out| {
                    put_full_box(out, b"dref", 0, 0, |out| {
                        out.put_u32(1);
                        put_full_box(out, b"url ", 0, 1, |_| ()); // in this file
                    });
                });
                put_box(out, b"stbl", |out| {
                    put_full_box(out, b"stsd", 0, 0, |out| {
                        out.put_u32(1);
                        out.put_slice(&track.entry);
                    });
                    tables(out);
                });
            });
        });
    });
}

/// `tkhd` (§8.3.2): enabled, in the movie, in its preview.
fn put_tkhd(out: &mut Vec<u8>, track: &TrackWriter, duration: u64) {
    let is_video = track.kind == Kind::Video;
    put_times(
        out,
        b"tkhd",
        7,
        duration,
        |out| {
            out.put_u32(track.id);
            out.put_u32(0);
        },
        |out| {
            out.put_bytes(0, 8);
            out.put_u16(0); // layer
            out.put_u16(0); // alternate_group
            out.put_u16(if is_video { 0 } else { 0x100 }); // volume
            out.put_u16(0);
            put_unity(out);
            for length in [track.track.video.width, track.track.video.height] {
                out.put_u16(super::entry::saturated(length));
                out.put_u16(0);
            }
        },
    );
}
