//! Real publishers and players.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::clip::Clip;
use crate::flv;
use crate::program::{Finished, Program};
use crate::recording::{Recording, Times};
use crate::tool::Tool;

/// What a client may take beyond the length of what it plays.
const LIMIT: Duration = Duration::from_secs(90);

/// A program that publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // each is its own name
pub enum PublishWith {
    Ffmpeg,
    Ffmpeg9,
    Gst,
}

/// A clip on its way to a server, in real time.
pub struct Publication {
    with: PublishWith,
    clip: Clip,
    program: Program,
    dir: TempDir,
}

impl PublishWith {
    /// The program behind it.
    pub fn tool(self) -> Tool {
        match self {
            Self::Ffmpeg => Tool::Ffmpeg,
            Self::Ffmpeg9 => Tool::Ffmpeg9,
            Self::Gst => Tool::Gst,
        }
    }

    /// Begins to publish `clip` at `url`.
    pub fn start(self, clip: Clip, url: &str) -> Publication {
        let dir = tempfile::Builder::new().prefix("publish-").tempdir().unwrap();
        let mp4 = clip.mp4();
        let mut command = self.tool().command();
        match self {
            Self::Ffmpeg | Self::Ffmpeg9 => {
                // What it sends is what it writes to a file: made now, so that the cache is warm.
                clip.flv(self.tool());
                command.args(["-hide_banner", "-nostdin", "-loglevel", "info", "-re", "-i"]).arg(mp4);
                command.args(["-map", "0", "-c", "copy", "-f", "flv", url]);
            }
            Self::Gst => {
                let copy = dir.path().join("sent.flv");
                let mut line = format!(
                    "-e filesrc location={} ! qtdemux name=d flvmux name=m streamable=true ! tee name=t \
                     t. ! queue ! rtmp2sink location={url} t. ! queue ! filesink location={}",
                    mp4.display(),
                    copy.display()
                );
                if clip != Clip::AudioOnly {
                    line += " d.video_0 ! queue ! m.video";
                }
                if clip != Clip::VideoOnly {
                    line += " d.audio_0 ! queue ! m.audio";
                }
                command.args(line.split_whitespace());
            }
        }
        Publication { with: self, clip, program: Program::start(&mut command), dir }
    }
}

impl Publication {
    /// Holds it up until [`resume`](Self::resume).
    pub fn pause(&self) {
        self.program.signal("STOP");
    }

    /// Lets it go on; it makes up for the time.
    pub fn resume(&self) {
        self.program.signal("CONT");
    }

    /// Waits until all is sent; gives what was sent.
    pub fn finish(self) -> Recording {
        let ended = self.program.finish(LIMIT);
        assert!(ended.status.success(), "{:?} failed to publish:\n{}", self.with, ended.stderr);
        match self.with {
            PublishWith::Gst => flv::recording(&self.dir.path().join("sent.flv")),
            _ => flv::recording(&self.clip.flv(self.with.tool())),
        }
    }
}

/// A program that plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // each is its own name
pub enum PlayWith {
    Ffmpeg,
    Ffmpeg9,
    Ffprobe,
    Gst,
    Rtmpdump,
}

/// A program that plays until the server ends it.
pub struct Playback {
    with: PlayWith,
    program: Program,
    file: PathBuf,
    _dir: TempDir,
}

impl PlayWith {
    /// The program behind it.
    pub fn tool(self) -> Tool {
        match self {
            Self::Ffmpeg => Tool::Ffmpeg,
            Self::Ffmpeg9 => Tool::Ffmpeg9,
            Self::Ffprobe => Tool::Ffprobe,
            Self::Gst => Tool::Gst,
            Self::Rtmpdump => Tool::Rtmpdump,
        }
    }

    /// How exact its record of times is.
    pub fn times(self) -> Times {
        match self {
            Self::Ffmpeg | Self::Ffmpeg9 => Times::AudioWithinOneMillisecond,
            _ => Times::Exact,
        }
    }

    /// Begins to play `url`.
    pub fn start(self, url: &str) -> Playback {
        let dir = tempfile::Builder::new().prefix("play-").tempdir().unwrap();
        let file = dir.path().join("played.flv");
        let mut command = self.tool().command();
        match self {
            Self::Ffmpeg | Self::Ffmpeg9 => {
                command.args(["-hide_banner", "-nostdin", "-loglevel", "info", "-i", url]);
                command.args(["-map", "0:v?", "-map", "0:a?", "-c", "copy", "-f", "framemd5", "-"]);
            }
            Self::Ffprobe => {
                command.args([
                    "-hide_banner",
                    "-show_packets",
                    "-show_data_hash",
                    "MD5",
                    "-of",
                    "compact",
                    "-i",
                    url,
                ]);
            }
            Self::Gst => {
                let line = format!("rtmp2src location={url} ! filesink location={}", file.display());
                command.args(line.split_whitespace());
            }
            Self::Rtmpdump => {
                command.args(["--live", "--rtmp", url, "--flv"]).arg(&file);
            }
        }
        Playback { with: self, program: Program::start(&mut command), file, _dir: dir }
    }
}

impl Playback {
    /// Whether it still plays.
    pub fn playing(&mut self) -> bool {
        self.program.ended().is_none()
    }

    /// Waits for its end; gives what it played. Whether a player calls the end of a live stream a success is
    /// its own matter: what it played counts.
    pub fn finish(self) -> Recording {
        let with = self.with;
        let file = self.file.clone();
        let ended = self.program.finish(LIMIT);
        played(with, &ended, &file)
    }
}

fn played(with: PlayWith, ended: &Finished, file: &Path) -> Recording {
    match with {
        PlayWith::Ffmpeg | PlayWith::Ffmpeg9 => Recording::of_framemd5(&ended.stdout),
        PlayWith::Ffprobe => Recording::of_ffprobe(&ended.stdout),
        PlayWith::Gst | PlayWith::Rtmpdump => {
            assert!(file.exists(), "{with:?} played nothing:\n{}", ended.stderr);
            flv::recording(file)
        }
    }
}
