//! The blocking half of `read`: opening an MP4 file and taking frames from it, a piece at a time.

use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use av_flow::stream::LeftOut;
use av_media::mp4::{Flaw, IgnoredReason, IgnoredTrack, Mp4, Mp4Error, Mp4Fault, Playback};
use av_media::{Frame, Kind, Timestamp, Track};

use crate::watch::{Changed, Stamp, Watched};

/// A piece is about that long, or that large, or of so many parts.
const PIECE_NANOS: i64 = 500_000_000;
const PIECE_BYTES: usize = 1 << 20;
pub(crate) const PIECE_PARTS: usize = 2048;
/// Changes of a file that are looked into one after another before it is taken for another one.
const MAX_LOOKS: u32 = 100;

/// Why a file is not played.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ReadError {
    #[error("{}: there is no such file", .0.display())]
    Missing(PathBuf),
    #[error("{}: the file can't be read: {}", path.display(), why(source))]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{}: this is not a regular file", .0.display())]
    NotAFile(PathBuf),
    #[error("{}: {}", path.display(), explained(source))]
    Mp4 { path: PathBuf, source: Mp4Error },
    #[error("reading the file was cancelled")]
    Stopped,
}

/// The system's word, without the number behind it.
fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        _ => error.to_string(),
    }
}

/// What is wrong, then where.
fn explained(error: &Mp4Error) -> String {
    use std::error::Error;
    let mut text = error.source.to_string();
    let mut cause = error.source.source();
    while let Some(deeper) = cause {
        text = format!("{text}: {deeper}");
        cause = deeper.source();
    }
    format!("{text} (box {} at byte {})", error.name, error.offset)
}

impl ReadError {
    /// Whether time can mend it; what is wrong inside a file only another file can mend.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Missing(_) | Self::Unreadable { .. } | Self::Stopped => true,
            Self::NotAFile(_) => false,
            Self::Mp4 { source, .. } => matches!(source.source, Mp4Fault::Io(_)),
        }
    }

    /// The tracks that were found, of which none can be carried.
    pub(crate) fn left_out(&self) -> [Option<LeftOut>; 2] {
        match self {
            Self::Mp4 { source, .. } => match &source.source {
                Mp4Fault::NoTrack(ignored) | Mp4Fault::IndexCut { ignored, .. } => left_out(ignored, &[]),
                _ => [None, None],
            },
            _ => [None, None],
        }
    }
}

/// Of each kind that is not played, the first track.
fn left_out(ignored: &[IgnoredTrack], played: &[Kind]) -> [Option<LeftOut>; 2] {
    [Kind::Video, Kind::Audio].map(|kind| {
        let track = ignored.iter().find(|track| track.kind == Some(kind) && !played.contains(&kind))?;
        let codec = track.codec.map_or_else(|| "unknown".to_owned(), |codec| codec.to_string());
        Some(LeftOut { codec, dropped: track.reason.to_string() })
    })
}

/// What a file consists of: told before its first frame.
pub(crate) struct Announcement {
    pub(crate) tracks: Vec<Track>,
    pub(crate) left_out: [Option<LeftOut>; 2],
    /// What is said once of tracks that are left aside, and whether one of them was meant to be seen or heard.
    pub(crate) aside: Option<(String, bool)>,
    /// What is missing of those that are played.
    pub(crate) flaws: Vec<String>,
}

impl Announcement {
    fn of(playback: &Playback<Watched>) -> Self {
        let (mp4, tracks) = (playback.mp4(), playback.first_tracks().map(|(track, _)| track.clone()));
        let kinds: Vec<Kind> = mp4.tracks().iter().map(|track| track.kind).collect();
        let mut text = String::new();
        for track in mp4.ignored() {
            let _ = write!(text, "{}{track}", if text.is_empty() { "" } else { "; " });
        }
        let usual = |track: &IgnoredTrack| {
            matches!(
                track.reason,
                IgnoredReason::Handler(_) | IgnoredReason::Disabled | IgnoredReason::Second(_)
            )
        };
        let is_loss = !mp4.ignored().iter().all(usual);
        Self {
            tracks: tracks.collect(),
            left_out: left_out(mp4.ignored(), &kinds),
            aside: (!text.is_empty()).then_some((text, is_loss)),
            flaws: mp4.flaws().iter().map(Flaw::to_string).collect(),
        }
    }
}

/// Where in which file.
pub(crate) struct Reading {
    /// As configured, for people.
    shown: PathBuf,
    /// On this machine.
    path: PathBuf,
    repeat: bool,
    watched: Watched,
    playback: Playback<Watched>,
    /// Told before the first frame.
    announcement: Option<Announcement>,
    /// The configuration of the last sample of each kind.
    configurations: [usize; 2],
    loop_index: u64,
    /// Loops of which the samples that are too large were counted.
    counted: u64,
    /// When this file began.
    base: Timestamp,
    /// Changes that were looked into since the last piece.
    looks: u32,
}

/// A piece of what is played.
pub(crate) enum Part {
    /// What follows is coded so.
    Track(Track),
    /// By dts, since the first frame of all.
    Frame(Frame),
}

/// Some frames in a row and what comes after them.
pub(crate) struct Piece {
    /// In front of a file's first frame.
    pub(crate) announcement: Option<Announcement>,
    pub(crate) parts: Vec<Part>,
    /// Frames that are too large to be read.
    pub(crate) too_large: u64,
    pub(crate) watched: Option<Watched>,
    pub(crate) then: Then,
}

/// Why a piece ends.
enum Stop {
    Full,
    Over,
    Changed,
    Failed(Mp4Error),
}

pub(crate) enum Then {
    /// More of the same, or of the file that took its place.
    More(Box<Reading>),
    /// The file is over at that time and is not played again.
    End {
        at: Timestamp,
    },
    /// The file is being written over: it is opened anew once it is whole.
    Changed,
    Failed(ReadError),
}

impl Reading {
    /// Reads the index. Blocks.
    pub(crate) fn open(
        shown: &Path,
        path: &Path,
        repeat: bool,
        start: Duration,
        base: Timestamp,
    ) -> Result<Self, ReadError> {
        let unreadable = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => ReadError::Missing(shown.to_path_buf()),
            _ => ReadError::Unreadable { path: shown.to_path_buf(), source },
        };
        // Opening a pipe would wait for its writer.
        if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
            return Err(ReadError::NotAFile(shown.to_path_buf()));
        }
        let watched = Watched::open(path).map_err(unreadable)?;
        let mp4 = Mp4::open(watched.clone());
        let mp4 = mp4.map_err(|source| ReadError::Mp4 { path: shown.to_path_buf(), source })?;
        let playback = Playback::new(mp4, start);
        let mut configurations = [0; 2];
        for (track, configuration) in playback.first_tracks() {
            *of_kind(&mut configurations, track.kind()) = configuration;
        }
        Ok(Self {
            shown: shown.to_path_buf(),
            path: path.to_path_buf(),
            repeat,
            watched,
            announcement: Some(Announcement::of(&playback)),
            playback,
            configurations,
            loop_index: 0,
            counted: 0,
            base,
            looks: 0,
        })
    }

    /// Whether all that the index announces is there. Of a recording in fragments that is being written the last may
    /// not be.
    pub(crate) fn is_whole(&self) -> bool {
        let is_cut = |flaw: &Flaw| matches!(flaw, Flaw::Cut { .. });
        let mp4 = self.playback.mp4();
        let lost = mp4.ignored().iter().any(|track| matches!(track.reason, IgnoredReason::NotInFile(_)));
        !lost && (mp4.is_fragmented() || !mp4.flaws().iter().any(is_cut))
    }

    /// It begins then, not when it was said to.
    pub(crate) const fn begin_at(&mut self, base: Timestamp) {
        self.base = base;
    }

    /// The file as it was opened.
    pub(crate) const fn opened(&self) -> Stamp {
        self.watched.opened()
    }

    #[cfg(test)]
    pub(crate) fn video_timescale(&self) -> u32 {
        self.playback
            .tracks()
            .find(|track| track.kind == Kind::Video)
            .map_or(0, |track| track.timescale.get())
    }

    /// The next frames. At the end of a loop a file that is another one by now takes this one's place.
    /// Blocks.
    pub(crate) fn piece(mut self: Box<Self>) -> Piece {
        let again = self.repeat && Stamp::of(&self.path) == Some(self.watched.opened());
        let watched = Some(self.watched.clone());
        let mut piece = Piece {
            announcement: self.announcement.take(),
            parts: Vec::new(),
            too_large: 0,
            watched,
            then: Then::Changed,
        };
        let (mut first, mut bytes) = (None, 0_usize);
        self.looks = 0;
        let stop = loop {
            match self.playback.next_sample(again) {
                Ok(Some(sample)) => {
                    self.loop_index = self.loop_index.max(sample.loop_index);
                    let begin = self.playback.loop_start(sample.loop_index);
                    let frame = sample.frame(begin.moved(self.base.nanos()));
                    let configuration = of_kind(&mut self.configurations, sample.kind);
                    if std::mem::replace(configuration, sample.configuration) != sample.configuration
                        && let Some(track) = self.playback.track(sample.kind, sample.configuration)
                    {
                        piece.parts.push(Part::Track(track.clone()));
                    }
                    bytes = bytes.saturating_add(frame.data.len());
                    let since = frame.dts.nanos_since(*first.get_or_insert(frame.dts));
                    piece.parts.push(Part::Frame(frame));
                    if bytes >= PIECE_BYTES || since >= PIECE_NANOS || piece.parts.len() >= PIECE_PARTS {
                        break Stop::Full;
                    }
                }
                Ok(None) => break Stop::Over,
                Err(error) if was_changed(&error) => {
                    if !self.has_only_grown(error.offset) {
                        break Stop::Changed;
                    }
                }
                Err(error) => break Stop::Failed(error),
            }
        };
        piece.too_large = self.newly_too_large();
        piece.then = match stop {
            Stop::Full => Then::More(self),
            Stop::Over => self.over(),
            Stop::Changed => Then::Changed,
            Stop::Failed(source) => Then::Failed(ReadError::Mp4 { path: self.shown, source }),
        };
        piece
    }

    /// Whether what changed are only bytes behind what was there: a recording that goes on.
    fn has_only_grown(&mut self, near: u64) -> bool {
        self.looks += 1;
        let playback = &mut self.playback;
        self.looks <= MAX_LOOKS && self.watched.admits_growth(|| playback.mp4_mut().has_only_grown(near))
    }

    /// Counts the samples that are too large once a loop.
    fn newly_too_large(&mut self) -> u64 {
        let loops = (self.loop_index + 1).saturating_sub(self.counted);
        self.counted += loops;
        let too_large = self.playback.mp4().flaws().iter().map(|flaw| match flaw {
            Flaw::TooLarge { count, .. } => u64::from(*count),
            _ => 0,
        });
        too_large.sum::<u64>().saturating_mul(loops)
    }

    fn over(self: Box<Self>) -> Then {
        let repeat = self.repeat;
        let round = self.close();
        if repeat { round.again() } else { Then::End { at: round.end } }
    }

    /// Lets the file and its index go.
    pub(crate) fn close(self: Box<Self>) -> Round {
        let next = self.loop_index.saturating_add(1);
        let end = self.playback.loop_start(next).moved(self.base.nanos());
        let Self { shown, path, .. } = *self;
        Round { shown, path, end }
    }
}

/// What is left of a file that is over: not its index, so that two are never held for the sake of one.
pub(crate) struct Round {
    shown: PathBuf,
    path: PathBuf,
    end: Timestamp,
}

impl Round {
    /// Opens what is there by now.
    fn again(self) -> Then {
        match Reading::open(&self.shown, &self.path, true, Duration::ZERO, self.end) {
            Ok(reading) if reading.is_whole() || reading.opened().is_still() => Then::More(Box::new(reading)),
            Err(error) if error.may_pass() || Stamp::of(&self.path).is_some_and(|stamp| stamp.is_still()) => {
                Then::Failed(error)
            }
            _ => Then::Changed,
        }
    }
}

fn was_changed(error: &Mp4Error) -> bool {
    matches!(&error.source, Mp4Fault::Io(error) if Changed::is(error))
}

fn of_kind(of: &mut [usize; 2], kind: Kind) -> &mut usize {
    let [video, audio] = of;
    if kind == Kind::Video { video } else { audio }
}
