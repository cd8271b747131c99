//! Clips to publish, made once by ffmpeg and kept in `tests/.tools/clips`.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::program::Program;
use crate::tool::{self, Tool};
use crate::{flv, wait};

/// Moving, noisy pictures and noise: no two frames are the same, so that hashes tell frames apart.
const PICTURES: &str = "testsrc2=size=320x180:rate=25,noise=alls=8:allf=t";
const SOUND: &str = "anoisesrc=color=pink:sample_rate=48000:amplitude=0.3:seed=7";

/// A clip that tests publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clip {
    /// H.264 without B-frames, AAC.
    Plain,
    /// H.264 with three B-frames as a pyramid, AAC.
    Pyramid,
    /// AAC.
    AudioOnly,
    /// H.264 with B-frames.
    VideoOnly,
    /// H.265 with B-frames, AAC.
    H265,
    /// AV1, Opus.
    Av1Opus,
    /// H.264 at about 8 Mbit/s, AAC, 10 s: fills buffers.
    Heavy,
    /// As plain, of half the width and height, 3 s.
    Smaller,
    /// H.264 at one picture a second, AAC.
    OnePictureASecond,
    /// H.264 at five pictures a second, one in twenty of them lost, one key frame in all of its 20 s, AAC.
    SlowCamera,
    /// H.264 of a size that no block divides, with colour values that are legal and unusual, without sound.
    OddSize,
}

static MAKING: Mutex<()> = Mutex::new(());

impl Clip {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Pyramid => "pyramid",
            Self::AudioOnly => "audio-only",
            Self::VideoOnly => "video-only",
            Self::H265 => "h265",
            Self::Av1Opus => "av1-opus",
            Self::Heavy => "heavy-by-quality",
            Self::Smaller => "smaller",
            Self::OnePictureASecond => "one-picture-a-second",
            Self::SlowCamera => "slow-camera",
            Self::OddSize => "odd-size",
        }
    }

    /// The encoder's arguments.
    fn encoding(self) -> &'static str {
        match self {
            Self::Plain => {
                "-t 6 -c:v libx264 -preset veryfast -b:v 500k -g 25 -sc_threshold 0 -bf 0 -c:a aac"
            }
            Self::Pyramid => {
                "-t 6 -c:v libx264 -preset veryfast -b:v 500k -g 25 -sc_threshold 0 -bf 3 -b_strategy 0 -x264-params b-pyramid=normal -c:a aac"
            }
            Self::AudioOnly => "-t 6 -vn -c:a aac",
            Self::VideoOnly => "-t 6 -an -c:v libx264 -preset veryfast -b:v 500k -g 25 -sc_threshold 0 -bf 2",
            Self::H265 => {
                "-t 6 -c:v libx265 -preset ultrafast -b:v 500k -x265-params keyint=25:min-keyint=25:scenecut=0:bframes=3:open-gop=0:log-level=error -tag:v hvc1 -c:a aac"
            }
            Self::Av1Opus => "-t 6 -c:v libsvtav1 -preset 12 -b:v 500k -g 25 -c:a libopus",
            Self::Heavy => {
                // By its quality, not by its rate: an encoder that has to reach one sends filler.
                "-t 10 -c:v libx264 -preset ultrafast -qp 10 -g 25 -sc_threshold 0 -bf 0 -c:a aac"
            }
            Self::Smaller => {
                "-t 3 -s 160x90 -c:v libx264 -preset veryfast -b:v 300k -g 25 -sc_threshold 0 -bf 0 -c:a aac"
            }
            Self::OnePictureASecond => {
                "-t 8 -r 1 -c:v libx264 -preset veryfast -g 2 -bf 0 -sc_threshold 0 -c:a aac"
            }
            Self::SlowCamera => {
                "-t 20 -vf fps=5,select=not(eq(mod(n\\,20)\\,7)) -fps_mode vfr -c:v libx264 -preset veryfast -g 1000 -bf 0 -sc_threshold 0 -c:a aac"
            }
            Self::OddSize => {
                "-t 6 -an -s 314x178 -c:v libx264 -preset veryfast -b:v 500k -g 25 -sc_threshold 0 -bf 3 -color_primaries film -color_trc log316 -colorspace ycgco -color_range pc"
            }
        }
    }

    /// Which ffmpeg can make, read and send it.
    pub fn tool(self) -> Tool {
        match self {
            Self::H265 | Self::Av1Opus => Tool::Ffmpeg9,
            _ => Tool::Ffmpeg,
        }
    }

    /// The clip as MP4.
    pub fn mp4(self) -> PathBuf {
        let encoding = self.encoding();
        make(&format!("{}.mp4", self.name()), self.tool(), |to| {
            let inputs = format!("-f lavfi -i {PICTURES} -f lavfi -i {SOUND}");
            format!("{inputs} {encoding} -movflags +faststart {to}")
        })
    }

    /// The same frames as FLV, remuxed by `tool`: exactly the messages that `tool` sends when it publishes
    /// [`mp4`](Self::mp4) with `-c copy -f flv`.
    pub fn flv(self, tool: Tool) -> PathBuf {
        let mp4 = self.mp4();
        make(&format!("{}.{tool:?}.flv", self.name()), tool, |to| {
            format!("-i {} -map 0 -c copy -f flv {to}", mp4.display())
        })
    }

    /// The tags of [`flv`](Self::flv).
    pub fn tags(self) -> Vec<flv::Tag> {
        flv::read(&self.flv(self.tool()))
    }
}

/// Makes a file in the cache, unless it is there. `arguments` gets the name to write to.
fn make(name: &str, tool: Tool, arguments: impl FnOnce(&str) -> String) -> PathBuf {
    // One at a time: encoders would only fight for the same two cores.
    let _making = MAKING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let dir = tool::tests_dir().join(".tools/clips");
    let path = dir.join(name);
    if path.exists() {
        return path;
    }
    std::fs::create_dir_all(&dir).unwrap();
    let aside = dir.join(format!("{}-{name}", std::process::id()));
    let mut command = tool.command();
    // SVT-AV1 talks otherwise.
    command.env("SVT_LOG", "1");
    command.args(["-hide_banner", "-nostdin", "-loglevel", "error", "-y"]);
    command.args(arguments(&aside.display().to_string()).split(' '));
    let made = Program::run(&mut command, wait::LONG * 2);
    assert!(made.status.success(), "{command:?}: {}", made.stderr);
    std::fs::rename(&aside, &path).unwrap();
    path
}

/// Copies of a file that are broken in some way, for sources that must say so.
pub fn truncated(file: &Path, to: &Path) {
    let content = std::fs::read(file).unwrap();
    std::fs::write(to, &content[..content.len() / 2]).unwrap();
}
