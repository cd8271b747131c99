//! Reading the media: the samples of all tracks in the order of their dts, once or in a loop.

use std::io::{Read, Seek};
use std::time::Duration;

use bytes::Bytes;

use super::head::Head;
use super::media_time::MediaTime;
use super::presentation::Presentation;
use super::{Mp4, Mp4Error, Mp4Fault, Mp4Track, sync};
use crate::{Frame, Kind, Timestamp, Track};

/// One sample of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Of which track.
    pub kind: Kind,
    /// When to decode, in ticks of the track since the start of the loop. The least of a loop is 0; it
    /// never goes back within a track.
    pub dts: MediaTime,
    /// When to show.
    pub pts: MediaTime,
    /// Whether a decoder may start here.
    pub is_sync: bool,
    /// As [`Frame::data`]. It shares memory with its neighbours of the same track.
    pub data: Bytes,
    /// How often the file was begun before: 0 the first time.
    pub loop_index: u64,
    /// Which of its track's [configurations](Mp4Track::configurations) it is coded by.
    pub configuration: usize,
}

impl Sample {
    /// The sample as a frame, for a loop that begins at `loop_start`: a whole millisecond, so that every loop is
    /// rounded alike where only milliseconds are carried.
    pub fn frame(&self, loop_start: Timestamp) -> Frame {
        let at = |time: MediaTime| loop_start.moved(time.nanos());
        Frame {
            kind: self.kind,
            dts: at(self.dts),
            pts: at(self.pts),
            is_sync: self.is_sync,
            data: self.data.clone(),
        }
    }
}

/// Plays a file from its index: samples in the order of their dts.
///
/// Each track is read in sequence, some 256 KiB of its own samples at a time. Nothing is kept but the
/// index and one such block per track.
#[derive(Debug)]
pub struct Playback<R> {
    mp4: Mp4<R>,
    heads: Vec<Head>,
    /// The last loop that a track has begun; the others follow.
    begun: u64,
    /// Where in its first loop the playback started.
    origin: i64,
}

impl<R: Read + Seek> Playback<R> {
    /// Starts at the sync sample that is shown at `start` or last before it. Later loops are whole.
    pub fn new(mp4: Mp4<R>, start: Duration) -> Self {
        let heads = mp4.presentation.plans.iter().cloned().map(Head::new).collect();
        let mut playback = Self { mp4, heads, begun: 0, origin: 0 };
        if !start.is_zero() {
            playback.seek(start);
        }
        playback.fill(false);
        let first = playback.heads.iter().filter_map(|head| head.due).map(|due| due.dts.millis());
        playback.origin = first.min().unwrap_or(0);
        playback
    }

    /// The tracks that are played.
    pub fn tracks(&self) -> impl Iterator<Item = &Mp4Track> {
        self.heads.iter().filter_map(|head| self.mp4.tracks.get(head.plan.track))
    }

    /// The file that is played.
    pub const fn mp4(&self) -> &Mp4<R> {
        &self.mp4
    }

    /// The same, to look whether its index still holds.
    pub const fn mp4_mut(&mut self) -> &mut Mp4<R> {
        &mut self.mp4
    }

    /// The length of a loop.
    pub const fn presentation(&self) -> &Presentation {
        &self.mp4.presentation
    }

    /// A configuration of the track of a kind.
    pub fn track(&self, kind: Kind, configuration: usize) -> Option<&Track> {
        self.mp4.tracks.iter().find(|track| track.kind == kind)?.configurations.get(configuration)
    }

    /// The tracks as the first samples are coded.
    pub fn first_tracks(&self) -> impl Iterator<Item = (&Track, usize)> {
        self.heads.iter().filter_map(|head| {
            let configuration = head.due.map_or(0, |due| due.sample.description.into());
            Some((self.mp4.tracks.get(head.plan.track)?.configurations.get(configuration)?, configuration))
        })
    }

    /// When a loop begins, counted from the first sample of this playback, in whole milliseconds. That of
    /// the first loop is negative where the playback started behind its beginning.
    pub fn loop_start(&self, index: u64) -> Timestamp {
        let start = self.mp4.presentation.loop_start(index).millis();
        Timestamp::from_millis(start.saturating_sub(self.origin))
    }

    /// The next sample by dts, the tracks merged over the border of two loops as well.
    ///
    /// `again` says whether a track that has reached its end begins the next loop; once one has, the
    /// others do too. `None`: all have reached their end, and `again` is false.
    ///
    /// # Errors
    ///
    /// The file can't be read, and the sample is still due; or it ends before the sample does, which is passed over.
    pub fn next_sample(&mut self, again: bool) -> Result<Option<Sample>, Mp4Error> {
        self.fill(again);
        let earliest = self.heads.iter().enumerate().filter_map(|(index, head)| {
            let due = head.due?;
            let start = self.mp4.presentation.loop_start(due.loop_index).nanos();
            Some((start.saturating_add(due.dts.nanos()), index))
        });
        let Some((_, index)) = earliest.min() else { return Ok(None) };
        let Some(head) = self.heads.get_mut(index) else { return Ok(None) };
        let Some(due) = head.due.take() else { return Ok(None) };
        let Some(track) = self.mp4.index.get(head.plan.track) else { return Ok(None) };
        let data = head.read(&mut self.mp4.reader, track, &due).inspect_err(|error| {
            if matches!(error.source, Mp4Fault::Io(_)) {
                head.due = Some(due);
            }
        })?;
        let configuration = usize::from(due.sample.description);
        let coded = track.configurations.get(configuration);
        let rule = track.samples.sync_rule;
        Ok(Some(Sample {
            kind: head.plan.kind,
            dts: due.dts,
            pts: due.pts,
            is_sync: coded.is_some_and(|coded| sync::may_start(coded, rule, &due.sample, &data)),
            data,
            loop_index: due.loop_index,
            configuration,
        }))
    }

    /// Finds the next sample of every track that has none waiting.
    fn fill(&mut self, again: bool) {
        // A track that begins the next loop draws along one that was asked before it.
        for _ in 0..2 {
            for head in &mut self.heads {
                let Some(track) = self.mp4.index.get(head.plan.track) else { continue };
                while head.due.is_none() {
                    if head.advance(track) {
                        continue;
                    }
                    if head.loop_index >= self.begun && !again {
                        break;
                    }
                    head.begin(head.loop_index + 1);
                    self.begun = self.begun.max(head.loop_index);
                }
                if let Some(due) = &mut head.due {
                    let start = self.mp4.presentation.loop_start(due.loop_index).millis();
                    head.last = due.keep_order(head.last, start);
                }
            }
        }
    }

    /// Moves every track to the sync sample of the video at or before `start`, or to the audio frame
    /// there.
    fn seek(&mut self, start: Duration) {
        let start = i64::try_from(start.as_nanos()).unwrap_or(i64::MAX);
        let start = start.saturating_add(self.mp4.presentation.start().nanos());
        let mut target = start;
        // Video comes before audio.
        for head in &mut self.heads {
            let Some(track) = self.mp4.index.get(head.plan.track) else { continue };
            if let Some(pts) = head.seek(&mut self.mp4.reader, track, target) {
                target = pts;
            }
        }
    }
}
