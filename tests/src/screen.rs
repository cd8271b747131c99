//! A screen and a speaker without hardware: Xvfb, or Xorg where the screen is to change, Weston in one of them, and
//! PulseAudio with a sink that goes nowhere.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;
use x11rb::connection::Connection;
use x11rb::protocol::screensaver::{self, ConnectionExt as _};
use x11rb::protocol::xproto::{Blanking, ConnectionExt, Exposures, ImageFormat};
use x11rb::rust_connection::RustConnection;

use crate::clip::Clip;
use crate::program::Program;
use crate::tool::{self, Tool};
use crate::wait;

/// Of every screen, until it is changed.
pub const SIZE: (u32, u32) = (1280, 720);

/// A running X server.
pub struct Screen {
    number: u16,
    program: Program,
    dir: TempDir,
    size: (u32, u32),
}

/// Above those of desktops.
const FIRST: u16 = 100;
const NUMBERS: u16 = 5_000;

/// Never the same number twice in one process: one that Xvfb chose itself could be taken by another test while the
/// server is away.
static NEXT: AtomicU16 = AtomicU16::new(0);

impl Screen {
    /// Starts one under a number that is free.
    pub fn start() -> Self {
        Self::start_with(&|number, _| xvfb(number))
    }

    /// Starts one whose size and output can be changed.
    pub fn start_changeable() -> Self {
        let mut screen = Self::start_with(&|number, dir| {
            let (file, log) = (dir.path().join("xorg.conf"), dir.path().join("log"));
            std::fs::write(&file, DUMMY).unwrap();
            let mut command = Tool::Xorg.command();
            command.arg(format!(":{number}")).arg("-config").arg(file).arg("-logfile").arg(log);
            command.args(["-displayfd", "1", "-nolisten", "tcp", "-novtswitch", "-sharevts", "-noreset"]);
            command
        });
        screen.change_size(SIZE);
        screen
    }

    fn start_with(server: &dyn Fn(u16, &TempDir) -> Command) -> Self {
        let dir = tempfile::Builder::new().prefix("screen-").tempdir().unwrap();
        // Processes that run at the same time start at different places.
        let start = u16::try_from(std::process::id().wrapping_mul(97) % u32::from(NUMBERS)).unwrap();
        for _ in 0..NUMBERS {
            let number = FIRST + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % NUMBERS;
            if let Some(program) = serve(&mut server(number, &dir)) {
                return Self { number, program, dir, size: SIZE };
            }
        }
        panic!("no X server starts under any number from {FIRST} on");
    }

    /// Gives it another size: one of those that `xrandr` lists.
    pub fn change_size(&mut self, size: (u32, u32)) {
        self.xrandr(&["--mode", &format!("{}x{}", size.0, size.1)]);
        self.size = size;
    }

    /// Switches its only output off.
    pub fn switch_off(&self) {
        self.xrandr(&["--off"]);
    }

    fn xrandr(&self, arguments: &[&str]) {
        let mut command = Tool::Xrandr.command();
        command.args(["--display", &self.name(), "--output", "DUMMY0"]).args(arguments);
        let changed = Program::run(&mut command, wait::LONG);
        assert!(changed.status.success(), "{}", changed.stderr);
    }

    /// Sets after how many seconds without input the screen is blanked.
    pub fn blank_after(&self, seconds: i16) {
        let (connection, _) = RustConnection::connect(Some(&self.name())).unwrap();
        let set = connection.set_screen_saver(seconds, 0, Blanking::PREFERRED, Exposures::DEFAULT).unwrap();
        set.check().unwrap();
    }

    /// Whether it is blanked now, and after how many seconds it would be.
    pub fn is_blank(&self) -> (bool, u16) {
        let (connection, number) = RustConnection::connect(Some(&self.name())).unwrap();
        let root = connection.setup().roots[number].root;
        let saver = connection.screensaver_query_info(root).unwrap().reply().unwrap();
        let set = connection.get_screen_saver().unwrap().reply().unwrap();
        (saver.state == u8::from(screensaver::State::ON), set.timeout)
    }

    /// For `DISPLAY`.
    pub fn name(&self) -> String {
        format!(":{}", self.number)
    }

    /// The server's process.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Kills it, so that all its windows are gone, and starts it again under its number after `meanwhile`.
    pub fn kill_and_restart(self, meanwhile: impl FnOnce()) -> Self {
        let Self { number, program, dir, size } = self;
        program.end("KILL", wait::LONG);
        meanwhile();
        for left in [format!("/tmp/.X{number}-lock"), format!("/tmp/.X11-unix/X{number}")] {
            let _ = std::fs::remove_file(left);
        }
        let program = serve(&mut xvfb(number)).expect("nobody else takes the number");
        Self { number, program, dir, size }
    }

    /// What it shows, as a PNG file.
    pub fn shot(&self) -> PathBuf {
        let file = self.dir.path().join("shot.png");
        let mut command = Tool::Ffmpeg.command();
        command.args(["-v", "error", "-nostdin", "-y", "-f", "x11grab", "-draw_mouse", "0"]);
        command.args(["-video_size", &format!("{}x{}", self.size.0, self.size.1), "-i", &self.name()]);
        command.args(["-frames:v", "1"]).arg(&file);
        let grabbed = Program::run(&mut command, wait::LONG);
        assert!(grabbed.status.success(), "{}", grabbed.stderr);
        file
    }

    /// The frame number of the test card that it shows.
    pub fn card(&self) -> Option<u64> {
        self.card_in("null")
    }

    /// The one in what a filter of ffmpeg's leaves of the screen.
    pub fn card_in(&self, filter: &str) -> Option<u64> {
        card_of(&self.shot(), filter)
    }

    /// How bright one line of it is, asked for again and again until `enough`: when it was asked for and when the answer
    /// was there, in seconds since 1970, and the mean of its pixels' values. One line costs next to nothing, so that the
    /// busy machine does not measure itself.
    fn brightness(&self, enough: &AtomicBool) -> Vec<((f64, f64), f64)> {
        let (connection, number) = RustConnection::connect(Some(&self.name())).unwrap();
        let root = connection.setup().roots[number].root;
        let (width, line) = (u16::try_from(SIZE.0).unwrap(), i16::try_from(SIZE.1 / 18).unwrap());
        let mut seen = Vec::new();
        while !enough.load(Ordering::Relaxed) {
            let asked = since_1970();
            let image = connection.get_image(ImageFormat::Z_PIXMAP, root, 0, line, width, 1, !0).unwrap();
            let pixels = image.reply().unwrap().data;
            let sum: u64 = pixels.iter().map(|value| u64::from(*value)).sum();
            seen.push(((asked, since_1970()), sum as f64 / pixels.len() as f64));
            std::thread::sleep(Duration::from_millis(4));
        }
        seen
    }

    /// Its pixels in grey.
    pub fn luma(&self) -> Vec<u8> {
        luma_of(&self.shot())
    }

    /// How alike what a filter of ffmpeg's leaves of it is to the picture of a clip that is most alike it.
    pub fn likeness(&self, filter: &str, clip: Clip) -> f64 {
        let (shown, pictures) = (grey(&self.shot(), filter), grey(&clip.mp4(), "null"));
        pictures.chunks_exact(shown.len()).map(|picture| correlation(&shown, picture)).fold(-1.0, f64::max)
    }
}

/// The pixels of a screenshot in grey.
pub fn luma_of(shot: &Path) -> Vec<u8> {
    grey(shot, "null")
}

/// What a filter of ffmpeg's leaves of a picture, or of all of a clip, in grey.
fn grey(from: &Path, filter: &str) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut command = Tool::Ffmpeg.command();
    command.args(["-v", "error", "-nostdin", "-y", "-i"]).arg(from);
    command.args(["-vf", filter, "-pix_fmt", "gray", "-f", "rawvideo"]).arg(file.path());
    let read = Program::run(&mut command, wait::LONG);
    assert!(read.status.success(), "{}", read.stderr);
    std::fs::read(file.path()).unwrap()
}

/// 1 where two pictures differ in brightness and contrast only, near 0 where they have nothing in common.
fn correlation(one: &[u8], other: &[u8]) -> f64 {
    let mean =
        |picture: &[u8]| picture.iter().map(|value| f64::from(*value)).sum::<f64>() / picture.len() as f64;
    let (mean_one, mean_other) = (mean(one), mean(other));
    let (mut both, mut first, mut second) = (0.0, 0.0, 0.0);
    for (a, b) in one.iter().zip(other) {
        let (a, b) = (f64::from(*a) - mean_one, f64::from(*b) - mean_other);
        both += a * b;
        first += a * a;
        second += b * b;
    }
    both / (first * second).sqrt()
}

/// The frame number of the test card in what a filter of ffmpeg's leaves of a screenshot.
pub fn card_of(shot: &Path, filter: &str) -> Option<u64> {
    let file = shot.with_file_name("part.png");
    let mut command = Tool::Ffmpeg.command();
    command.args(["-v", "error", "-nostdin", "-y", "-i"]).arg(shot).args(["-vf", filter]).arg(&file);
    let cut = Program::run(&mut command, wait::LONG);
    assert!(cut.status.success(), "{}", cut.stderr);
    let mut command = Tool::Python.command();
    command.arg(tool::tests_dir().join("testcard/read.py")).arg(file);
    let read = Program::run(&mut command, wait::LONG);
    assert!(read.status.success(), "{}", read.stderr);
    read.stdout.trim().parse().ok()
}

/// A screen of a memory's.
const DUMMY: &str = r#"
Section "Device"
  Identifier "device"
  Driver "dummy"
  VideoRam 65536
EndSection
Section "Monitor"
  Identifier "monitor"
  HorizSync 5-200
  VertRefresh 5-200
EndSection
Section "Screen"
  Identifier "screen"
  Device "device"
  Monitor "monitor"
  DefaultDepth 24
  SubSection "Display"
    Depth 24
    Virtual 1280 720
  EndSubSection
EndSection
Section "ServerFlags"
  Option "AutoAddGPU" "false"
  Option "AutoAddDevices" "false"
EndSection
"#;

fn xvfb(number: u16) -> Command {
    let mut command = Tool::Xvfb.command();
    command.args([&format!(":{number}"), "-displayfd", "1", "-nolisten", "tcp"]);
    command.args(["-screen", "0", &format!("{}x{}x24", SIZE.0, SIZE.1)]);
    command
}

/// A server that answers; none when it ended, as it does when its number is taken.
fn serve(command: &mut Command) -> Option<Program> {
    let mut program = Program::start(command);
    let answers = wait::until("the X server says its number or ends", wait::LONG, || {
        if program.ended().is_some() { Some(false) } else { program.stdout().ends_with('\n').then_some(true) }
    });
    answers.then_some(program)
}

/// A running Wayland compositor, whose output is a window that covers an X server's screen.
pub struct Compositor {
    program: Program,
    dir: TempDir,
}

impl Compositor {
    /// Starts it.
    pub fn start(screen: &Screen) -> Self {
        let dir = tempfile::Builder::new().prefix("compositor-").tempdir().unwrap();
        let program = compose(&dir, screen);
        let compositor = Self { program, dir };
        compositor.wait();
        compositor
    }

    /// For `WAYLAND_DISPLAY`.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("wayland")
    }

    /// Its process.
    pub fn program(&self) -> &Program {
        &self.program
    }

    fn wait(&self) {
        wait::until_true("the compositor answers", wait::LONG, || {
            std::os::unix::net::UnixStream::connect(self.socket()).is_ok()
        });
    }

    /// Kills it, so that all its windows are gone, and starts it again after `meanwhile`.
    pub fn kill_and_restart(self, screen: &Screen, meanwhile: impl FnOnce()) -> Self {
        let Self { program, dir } = self;
        program.end("KILL", wait::LONG);
        meanwhile();
        let compositor = Self { program: compose(&dir, screen), dir };
        compositor.wait();
        compositor
    }
}

fn compose(dir: &TempDir, screen: &Screen) -> Program {
    let mut command = Tool::Weston.command();
    command.args(["--backend=x11-backend.so", "--use-pixman", "--no-config", "--shell=kiosk-shell.so"]);
    command.args(["--socket=wayland", "--idle-time=0"]);
    command.args([format!("--width={}", SIZE.0), format!("--height={}", SIZE.1)]);
    command.env("XDG_RUNTIME_DIR", dir.path()).env("DISPLAY", screen.name());
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

    /// Its process.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// For `PULSE_SERVER`.
    pub fn server(&self) -> String {
        format!("unix:{}", self.socket().display())
    }

    /// Kills it, and starts it again after `meanwhile`.
    pub fn kill_and_restart(self, meanwhile: impl FnOnce()) -> Self {
        let Self { program, dir } = self;
        program.end("KILL", wait::LONG);
        meanwhile();
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

/// The highest peak of what comes out of the speaker in so many seconds, in dB of full scale.
pub fn loudest(speaker: &Speaker, seconds: u32) -> f64 {
    let mut command: Command = Tool::Ffmpeg.command();
    command.env("PULSE_SERVER", speaker.server());
    command.args(["-nostdin", "-f", "pulse", "-t", &seconds.to_string(), "-i", "out.monitor"]);
    command.args(["-af", "volumedetect", "-f", "null", "-"]);
    let heard = Program::run(&mut command, wait::LONG + Duration::from_secs(seconds.into()));
    let peak = heard.stderr.split_once("max_volume: ").and_then(|(_, rest)| rest.split_once(" dB"));
    peak.and_then(|(peak, _)| peak.parse().ok()).unwrap_or_else(|| panic!("no peak: {}", heard.stderr))
}

/// How far a beep is from its flash, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Offset {
    /// By how much it is later.
    pub behind: f64,
    /// It may be that much more or less: when the screen was looked at is known, not what it showed in between.
    pub give_or_take: f64,
}

impl Offset {
    /// How far it is at least.
    pub fn at_least(self) -> f64 {
        (self.behind.abs() - self.give_or_take).max(0.0)
    }
}

/// What is measured of the sound is the mean of so many milliseconds.
const WINDOW: f64 = 5.0;

/// Writes how loud it is to a file, for each 5 ms of some seconds.
fn listen(speaker: &Speaker, seconds: u32, since: f64, file: &Path) -> Command {
    let mut command: Command = Tool::Ffmpeg.command();
    command.env("PULSE_SERVER", speaker.server());
    command.args(["-v", "error", "-nostdin", "-copyts", "-f", "pulse", "-fragment_size", "1920"]);
    command.args(["-t", &seconds.to_string(), "-i", "out.monitor", "-af"]);
    command.arg(format!(
        "asetpts=PTS-{since}/TB,asetnsamples=240,astats=metadata=1:reset=1,ametadata=print:key=lavfi.astats.Overall.RMS_level:direct=1:file={}",
        file.display()
    ));
    command.args(["-f", "null", "-"]);
    command
}

/// Listens to a speaker from its start on. Each listener that comes or goes changes the latency of PulseAudio's sink,
/// which GStreamer's may take seconds to come to terms with.
pub struct Listener {
    _program: Program,
    file: tempfile::NamedTempFile,
}

impl Listener {
    /// Begins.
    pub fn start(speaker: &Speaker) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        let program = Program::start(&mut listen(speaker, 3600, since_1970().floor(), file.path()));
        let listener = Self { _program: program, file };
        wait::until_true("the listener hears", wait::LONG, || !listener.levels().is_empty());
        listener
    }

    /// How loud each 5 ms up to now were, in dB of full scale.
    pub fn levels(&self) -> Vec<f64> {
        let heard = std::fs::read_to_string(self.file.path()).unwrap();
        // The last line may not be whole.
        let whole = heard.rsplit_once('\n').map_or("", |(whole, _)| whole);
        series(whole).into_iter().map(|(_, level)| level).collect()
    }
}

/// How far beeps of the test card are from its flashes, each second for so many: what comes out of the speaker against
/// what is on the screen. `None`: there was no beep to a flash.
pub fn beeps_behind_flashes(screen: &Screen, speaker: &Speaker, seconds: u32) -> Vec<Option<Offset>> {
    let file = screen.dir.path().join("sound");
    // The filters print six digits: seconds since a moment ago rather than since 1970.
    let since = since_1970().floor();
    let mut command = listen(speaker, seconds, since, &file);
    let limit = wait::LONG + Duration::from_secs(seconds.into());
    let enough = AtomicBool::new(false);
    let (recorded, seen) = std::thread::scope(|threads| {
        let watching = threads.spawn(|| screen.brightness(&enough));
        let recorded = Program::start(&mut command).finish(limit);
        enough.store(true, Ordering::Relaxed);
        (recorded, watching.join().unwrap())
    });
    assert!(recorded.status.success(), "{}", recorded.stderr);
    let sound = series(&std::fs::read_to_string(file).unwrap());
    fn most<T>(series: &[(T, f64)]) -> f64 {
        series.iter().map(|(_, value)| *value).fold(f64::NEG_INFINITY, f64::max)
    }
    // A beep is loud, and what an encoder makes of its beginning is not.
    let beeps: Vec<f64> = rises(&sound, most(&sound) - 15.0).iter().map(|at| at + since).collect();
    // A flash is white. It began after the dark line was asked for, and before the bright one was there.
    let white = most(&seen) * 0.9;
    let mut flashes: Vec<(f64, f64)> = Vec::new();
    for pair in seen.windows(2).filter(|pair| pair[0].1 < white && pair[1].1 >= white) {
        let (from, to) = (pair[0].0.0, pair[1].0.1);
        if flashes.last().is_none_or(|last| from - last.0 > 0.5) {
            flashes.push((from, to));
        }
    }
    // What came before or after the recording has no beep.
    let (Some(first), Some(last)) = (sound.first(), sound.last()) else { return Vec::new() };
    let within = |flash: &&(f64, f64)| flash.0 > first.0 + since + 0.5 && flash.1 < last.0 + since - 0.5;
    let nearest = |flash: &(f64, f64)| {
        let middle = f64::midpoint(flash.0, flash.1);
        let behind = beeps.iter().map(|beep| (beep - middle) * 1e3);
        let behind = behind.min_by(|one, other| one.abs().total_cmp(&other.abs()))?;
        let give_or_take = (flash.1 - flash.0) * 1e3 / 2.0 + WINDOW;
        (behind.abs() < 500.0).then_some(Offset { behind, give_or_take })
    };
    flashes.iter().filter(within).map(nearest).collect()
}

fn since_1970() -> f64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64()
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

/// When a series rises above a value, at most twice a second.
pub(crate) fn rises(series: &[(f64, f64)], above: f64) -> Vec<f64> {
    let pairs = series.windows(2).filter(|pair| pair[0].1 < above && pair[1].1 >= above);
    let mut rises: Vec<f64> = Vec::new();
    for pair in pairs {
        if rises.last().is_none_or(|last| pair[1].0 - last > 0.5) {
            rises.push(pair[1].0);
        }
    }
    rises
}
