//! Where a decoder may start, by what is in the pictures: tables leave sync frames out, list none, or are not there.

use std::collections::VecDeque;
use std::io::{Read, Seek};

use super::boxes::read_at;
use super::movie::MovieTrack;
use super::presentation::TrackPlan;
use super::samples::{Cursor, SampleAt, SyncRule};
use crate::h264::{self, Picture};
use crate::{Codec, Kind, Track, h265};

/// Pictures that are looked at, from a wanted one backwards, until one is found that decoding may start at.
const MAX_BACK: usize = 600;
/// The same, for all edits of a track.
const MAX_LOOKED: usize = 20_000;
/// The first slice of a picture is within that many bytes, behind parameter sets and messages.
const FIRST_SLICE: u64 = 16 << 10;

/// Whether a decoder may start at a sample: it is listed, or its content says so. Where all samples are sync samples for
/// want of a list, those are not believed whose content speaks against it.
pub(super) fn may_start(track: &Track, rule: SyncRule, sample: &SampleAt, data: &[u8]) -> bool {
    let is_first = sample.index == 0;
    match track.codec {
        Codec::H264 => match (h264::picture(data, track.length_size()), rule) {
            (Picture::Idr, _) => true,
            (_, SyncRule::Listed) => sample.is_sync,
            (picture, SyncRule::All) => is_first || picture != Picture::Inter,
            (picture, SyncRule::InPictures) => picture == Picture::Recovery,
        },
        Codec::H265 => match rule {
            _ if h265::is_irap(data, track.length_size()) => true,
            SyncRule::Listed => sample.is_sync,
            SyncRule::All => is_first,
            SyncRule::InPictures => false,
        },
        _ => match rule {
            SyncRule::InPictures => is_first || track.kind() == Kind::Audio,
            SyncRule::Listed | SyncRule::All => sample.is_sync || track.kind() == Kind::Audio,
        },
    }
}

/// The same for a sample that was not read.
fn may_start_at<R: Read + Seek>(reader: &mut R, track: &MovieTrack, sample: &SampleAt) -> bool {
    let Some(coded) = track.configurations.get(usize::from(sample.description)) else { return false };
    let size = u64::from(sample.size).min(FIRST_SLICE);
    let data = read_at(reader, sample.offset, size).unwrap_or_default();
    may_start(coded, track.samples.sync_rule, sample, &data)
}

/// The newest of the last candidates that decoding may start at.
pub(super) struct Backwards<T> {
    candidates: VecDeque<(T, SampleAt)>,
}

impl<T> Default for Backwards<T> {
    fn default() -> Self {
        Self { candidates: VecDeque::new() }
    }
}

impl<T: Copy> Backwards<T> {
    pub(super) fn add(&mut self, what: T, sample: SampleAt) {
        if self.candidates.len() >= MAX_BACK {
            self.candidates.pop_front();
        }
        self.candidates.push_back((what, sample));
    }

    /// What was given with it, and how many were looked at.
    pub(super) fn find<R: Read + Seek>(&self, reader: &mut R, track: &MovieTrack) -> (Option<T>, usize) {
        let mut looked = 0;
        let found = self.candidates.iter().rev().filter(|(_, sample)| sample.size > 0).find(|(_, sample)| {
            looked += 1;
            may_start_at(reader, track, sample)
        });
        (found.map(|(what, _)| *what), looked)
    }
}

/// Lets every edit begin at a picture that decoding may start at, where the table doesn't say.
pub(super) fn begin_at_sync<R: Read + Seek>(reader: &mut R, track: &MovieTrack, plan: &mut TrackPlan) {
    if track.kind == Kind::Audio || track.samples.sync_rule == SyncRule::Listed {
        return;
    }
    let mut wanted: Vec<(u32, &mut Cursor)> =
        plan.segments.iter_mut().map(|segment| (segment.shown, &mut segment.from)).collect();
    wanted.sort_by_key(|(shown, _)| *shown);
    let mut wanted = wanted.into_iter().peekable();
    let mut before = Backwards::default();
    let mut cursor = track.samples.cursor();
    let mut looked = 0;
    while wanted.peek().is_some() && looked < MAX_LOOKED {
        let here = cursor;
        let Some(sample) = cursor.next(&track.samples) else { break };
        before.add(here, sample);
        // Nothing in front of the first sample to choose from.
        while let Some((_, from)) = wanted.next_if(|(shown, _)| *shown == sample.index) {
            if sample.index > 0 {
                let (found, more) = before.find(reader, track);
                looked += more;
                *from = found.unwrap_or_else(|| track.samples.cursor());
            }
        }
    }
}
