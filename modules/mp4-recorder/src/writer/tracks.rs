//! The tracks of a stream and their changes. Where the sound changes between two sync pictures, the open file goes on with its
//! pictures up to the next one, and a new file begins there; what the new sound has until then waits in memory for that file.

use std::sync::Arc;
use std::time::Duration;

use av_flow::Reason;
use av_flow::stream::{State, Tracks};
use av_media::{Frame, Kind, Track};
use tokio::time::Instant;

use super::{Pending, Running};
use crate::segment;

/// Sound that waits longer does so for no picture: the new file begins without one.
const LONGEST: Duration = Duration::from_secs(10);
const MOST: usize = 8 << 20;

/// What waits for the next sync picture.
pub(super) struct NewSound {
    tracks: Arc<Tracks>,
    held: Vec<Pending>,
    bytes: usize,
}

impl Running {
    /// The stream tells its tracks.
    pub(super) fn tracks(&mut self, tracks: Arc<Tracks>) {
        let same = |old: &Option<Arc<Track>>, new: &Option<Arc<Track>>| match (old, new) {
            (Some(old), Some(new)) => old.decodes_like(new),
            (None, None) => true,
            _ => false,
        };
        let known = self.new_sound.as_ref().map_or(&self.tracks, |new| &new.tracks);
        let goes_on = same(&known.video, &tracks.video) && same(&known.audio, &tracks.audio);
        if let Some(new) = self.new_sound.as_mut().filter(|_| goes_on) {
            new.tracks = tracks;
            return;
        }
        if !goes_on {
            if self.sound_alone_changes(&tracks) {
                return;
            }
            // What is pending belongs to the tracks of before.
            self.commit();
            if self.new_sound.is_some() {
                self.finish(None);
                self.end_new_sound();
                self.tell_what_was_given_up();
            }
            self.cutter.break_here();
        }
        self.adopt(tracks);
    }

    /// From here on these are what is recorded.
    fn adopt(&mut self, tracks: Arc<Tracks>) {
        let (carried, left_out): (Vec<_>, Vec<_>) =
            tracks.iter().partition(|track| segment::carries(track).is_ok());
        self.carried = carried.into_iter().map(|track| Track::clone(track)).collect();
        let names =
            left_out.iter().map(|track| format!("{} ({})", track.kind().as_str(), track.codec_string));
        let names = names.collect::<Vec<_>>().join(", ");
        self.writer.report.leaves_out((!names.is_empty()).then_some(&names));
        if self.carried.is_empty() && tracks.iter().next().is_some() {
            let why = "files carry H.264, H.265, AV1, AAC and Opus, and the stream has none of them";
            self.writer.report.fails(State::Failed, Reason::Content, &why);
        }
        self.tracks = tracks;
        if self.tracks.is_empty() {
            self.close();
        }
    }

    /// Whether files have frames of that kind.
    pub(super) fn carries(&self, kind: Kind) -> bool {
        self.carried.iter().any(|track| track.kind() == kind)
    }

    /// Takes note of tracks of which the sound alone is new, while a file with pictures is open. `false`: that file has to
    /// end here.
    fn sound_alone_changes(&mut self, tracks: &Arc<Tracks>) -> bool {
        let pictures = (&self.tracks.video, &tracks.video);
        let goes_on = matches!(pictures, (Some(old), Some(new)) if old.decodes_like(new));
        if self.open.is_none() || self.new_sound.is_some() || !goes_on || !self.carries(Kind::Video) {
            return false;
        }
        self.new_sound = Some(NewSound { tracks: tracks.clone(), held: Vec::new(), bytes: 0 });
        self.cutter.end_soon();
        true
    }

    /// Keeps a frame of the new sound for the file that will have it. Gives back what belongs to the present one, or has to
    /// begin the next.
    pub(super) fn keep_new_sound(&mut self, frame: Frame, arrived: Instant) -> Option<Frame> {
        let Some(new) = self.new_sound.as_mut().filter(|_| frame.kind == Kind::Audio) else {
            return Some(frame);
        };
        let since = new.held.first().map_or(0, |first| frame.dts.nanos_since(first.frame.dts));
        new.bytes = new.bytes.saturating_add(frame.data.len());
        if u128::try_from(since).is_ok_and(|since| since > LONGEST.as_nanos()) || new.bytes > MOST {
            self.cutter.break_here();
            return Some(frame);
        }
        new.held.push(Pending { frame, arrived });
        None
    }

    /// A file begins: with what has waited for it.
    pub(super) fn begin_with_new_sound(&mut self) {
        let Some(new) = self.new_sound.take() else { return };
        self.adopt(new.tracks);
        if self.carries(Kind::Audio) {
            self.pending = new.held;
        } else {
            self.writer.report.status().dropped.add(Kind::Audio, new.held.len() as u64);
        }
    }

    /// No picture follows that has waited for: the sound is a file of its own.
    pub(super) fn end_new_sound(&mut self) {
        if self.new_sound.is_none() {
            return;
        }
        self.begin_with_new_sound();
        if !self.pending.is_empty() {
            let all = self.carried.clone();
            self.carried.retain(|track| track.kind() == Kind::Audio);
            self.rewrite(None);
            self.finish(None);
            self.carried = all;
        }
    }
}
