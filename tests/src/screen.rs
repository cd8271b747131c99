//! A screen and a speaker without hardware: Xvfb, and PulseAudio with a sink that goes nowhere.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::program::Program;
use crate::tool::{self, Tool};
use crate::wait;

/// Of every screen.
pub const SIZE: (u32, u32) = (1280, 720);

/// A running X server.
pub struct Screen {
    number: String,
    program: Program,
    dir: TempDir,
}

impl Screen {
    /// Starts one under a number that is free.
    pub fn start() -> Self {
        let program = serve(&["-displayfd", "1"]);
        let number = wait::until("Xvfb says its number", wait::LONG, || {
            let said = program.stdout();
            said.ends_with('\n').then(|| said.trim().to_owned())
        });
        let dir = tempfile::Builder::new().prefix("screen-").tempdir().unwrap();
        Self { number, program, dir }
    }

    /// For `DISPLAY`.
    pub fn name(&self) -> String {
        format!(":{}", self.number)
    }

    /// The server's process.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Kills it, so that all its windows are gone, and starts it again under its number.
    pub fn kill_and_restart(self) -> Self {
        let Self { number, program, dir } = self;
        program.end("KILL", wait::LONG);
        for left in [format!("/tmp/.X{number}-lock"), format!("/tmp/.X11-unix/X{number}")] {
            let _ = std::fs::remove_file(left);
        }
        let program = serve(&[&format!(":{number}")]);
        Self { number, program, dir }
    }

    /// What it shows, as a PNG file.
    pub fn shot(&self) -> PathBuf {
        let file = self.dir.path().join("shot.png");
        let mut command = Tool::Ffmpeg.command();
        command.args(["-v", "error", "-nostdin", "-y", "-f", "x11grab", "-draw_mouse", "0"]);
        command.args(["-video_size", &format!("{}x{}", SIZE.0, SIZE.1), "-i", &self.name()]);
        command.args(["-frames:v", "1"]).arg(&file);
        let grabbed = Program::run(&mut command, wait::LONG);
        assert!(grabbed.status.success(), "{}", grabbed.stderr);
        file
    }

    /// The frame number of the test card that it shows.
    pub fn card(&self) -> Option<u64> {
        let mut command = Tool::Python.command();
        command.arg(tool::tests_dir().join("testcard/read.py")).arg(self.shot());
        let read = Program::run(&mut command, wait::LONG);
        assert!(read.status.success(), "{}", read.stderr);
        read.stdout.trim().parse().ok()
    }

    /// Its pixels in grey.
    pub fn luma(&self) -> Vec<u8> {
        let file = self.dir.path().join("luma");
        let mut command = Tool::Ffmpeg.command();
        command.args(["-v", "error", "-nostdin", "-y", "-i"]).arg(self.shot());
        command.args(["-pix_fmt", "gray", "-f", "rawvideo"]).arg(&file);
        let read = Program::run(&mut command, wait::LONG);
        assert!(read.status.success(), "{}", read.stderr);
        std::fs::read(file).unwrap()
    }
}

fn serve(which: &[&str]) -> Program {
    let mut command = Tool::Xvfb.command();
    command.args(which).args(["-screen", "0", &format!("{}x{}x24", SIZE.0, SIZE.1), "-nolisten", "tcp"]);
    Program::start(&mut command)
}

/// A running PulseAudio whose only sink goes nowhere.
pub struct Speaker {
    program: Program,
    dir: TempDir,
}

impl Speaker {
    /// Starts it.
    pub fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("speaker-").tempdir().unwrap();
        let program = play(&dir);
        let speaker = Self { program, dir };
        speaker.wait();
        speaker
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    fn wait(&self) {
        wait::until_true("PulseAudio answers", wait::LONG, || {
            std::os::unix::net::UnixStream::connect(self.socket()).is_ok()
        });
    }

    /// For `PULSE_SERVER`.
    pub fn server(&self) -> String {
        format!("unix:{}", self.socket().display())
    }

    /// Kills it and starts it again.
    pub fn kill_and_restart(self) -> Self {
        let Self { program, dir } = self;
        program.end("KILL", wait::LONG);
        let _ = std::fs::remove_file(dir.path().join("socket"));
        let speaker = Self { program: play(&dir), dir };
        speaker.wait();
        speaker
    }
}

fn play(dir: &TempDir) -> Program {
    let socket = dir.path().join("socket");
    let mut command = Tool::PulseAudio.command();
    command.args(["-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no", "--disable-shm=yes"]);
    command.args(["-L", "module-null-sink sink_name=out rate=48000"]);
    command.arg("-L");
    command.arg(format!("module-native-protocol-unix auth-anonymous=1 socket={}", socket.display()));
    command.env("HOME", dir.path()).env("XDG_RUNTIME_DIR", dir.path()).env("PULSE_RUNTIME_PATH", dir.path());
    Program::start(&mut command)
}

/// When picture and sound of the test card began each second, in seconds of this machine's clock, by what is on the
/// screen and what comes out of the speaker for so many seconds.
pub fn flashes_and_beeps(screen: &Screen, speaker: &Speaker, seconds: u32) -> (Vec<f64>, Vec<f64>) {
    let (pictures, sound) = (screen.dir.path().join("pictures"), screen.dir.path().join("sound"));
    let seconds = seconds.to_string();
    // The filters print six digits: seconds since a moment ago rather than since 1970.
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let mut command: Command = Tool::Ffmpeg.command();
    command.env("PULSE_SERVER", speaker.server());
    command.args(["-v", "error", "-nostdin", "-copyts", "-f", "x11grab", "-framerate", "60", "-t", &seconds]);
    command.args([
        "-draw_mouse",
        "0",
        "-video_size",
        &format!("{}x{}", SIZE.0, SIZE.1),
        "-i",
        &screen.name(),
    ]);
    command.args(["-f", "pulse", "-fragment_size", "1920", "-t", &seconds, "-i", "out.monitor"]);
    command.args(["-map", "0:v", "-vf"]);
    command.arg(format!(
        "setpts=PTS-{since}/TB,crop=iw:ih/4:0:0,scale=64:9,signalstats,metadata=print:key=lavfi.signalstats.YAVG:file={}",
        pictures.display()
    ));
    command.args(["-f", "null", "-", "-map", "1:a", "-af"]);
    command.arg(format!(
        "asetpts=PTS-{since}/TB,asetnsamples=240,astats=metadata=1:reset=1,ametadata=print:key=lavfi.astats.Overall.RMS_level:file={}",
        sound.display()
    ));
    command.args(["-f", "null", "-"]);
    let limit = wait::LONG + std::time::Duration::from_secs(seconds.parse().unwrap());
    let recorded = Program::run(&mut command, limit);
    assert!(recorded.status.success(), "{}", recorded.stderr);
    let read = |file: PathBuf| series(&std::fs::read_to_string(file).unwrap());
    (rises(&read(pictures)), rises(&read(sound)))
}

/// Times and values of what ffmpeg's metadata filters print.
fn series(text: &str) -> Vec<(f64, f64)> {
    let mut series = Vec::new();
    let mut time = None;
    for line in text.lines() {
        if let Some((_, at)) = line.split_once("pts_time:") {
            time = at.trim().parse::<f64>().ok();
        } else if let (Some(time), Some((_, value))) = (time, line.split_once('=')) {
            // Silence is minus infinity.
            series.push((time, value.trim().parse::<f64>().map_or(-200.0, |value| value.max(-200.0))));
        }
    }
    series
}

/// When a series rises from its lower half into its upper one.
fn rises(series: &[(f64, f64)]) -> Vec<f64> {
    let least = series.iter().map(|(_, value)| *value).fold(f64::INFINITY, f64::min);
    let most = series.iter().map(|(_, value)| *value).fold(f64::NEG_INFINITY, f64::max);
    let middle = f64::midpoint(least, most);
    let pairs = series.windows(2).filter(|pair| pair[0].1 < middle && pair[1].1 >= middle);
    let mut rises: Vec<f64> = Vec::new();
    for pair in pairs {
        if rises.last().is_none_or(|last| pair[1].0 - last > 0.5) {
            rises.push(pair[1].0);
        }
    }
    rises
}
