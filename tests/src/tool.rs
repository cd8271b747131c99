//! The programs that tests play and publish with, and what happens where one is missing.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A program that is not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// Debian's ffmpeg (5.1 on Debian 12).
    Ffmpeg,
    /// Debian's ffprobe.
    Ffprobe,
    /// PyPI's `imageio-ffmpeg`: a current ffmpeg, which writes enhanced RTMP.
    Ffmpeg9,
    /// `gst-launch-1.0` with `rtmp2src` and `rtmp2sink`.
    Gst,
    /// librtmp's player.
    Rtmpdump,
    /// nginx with its rtmp module.
    Nginx,
    /// VLC 3, without a window.
    Vlc,
    /// mpv, without a window.
    Mpv,
    /// mediainfo.
    Mediainfo,
    /// python3.
    Python,
    /// curl with HTTP/2.
    Curl,
    /// nghttp2's: many requests at once over HTTP/2.
    H2load,
    /// npm's `azurite`: the blob service alone.
    Azurite,
    /// Python with PyPI's `azure-storage-blob`.
    BlobSdk,
    /// An X server without a screen.
    Xvfb,
    /// An X server whose screen changes, also without hardware.
    Xorg,
    /// Changes it.
    Xrandr,
    /// PulseAudio.
    PulseAudio,
    /// A Wayland compositor, in a window of an X server's.
    Weston,
    /// A log of system calls, and faults put into them.
    Strace,
    /// An HTTP proxy.
    Tinyproxy,
    /// QEMU, and the kernel that `tests/machine/make.py` has fetched.
    Machine,
}

const NGINX_MODULE: &str = "/usr/lib/nginx/modules/ngx_rtmp_module.so";

const DUMMY_DRIVER: &str = "/usr/lib/xorg/modules/drivers/dummy_drv.so";

impl Tool {
    /// Where it is; `None` where it is not installed.
    pub fn path(self) -> Option<PathBuf> {
        match self {
            Self::Ffmpeg => on_path("ffmpeg"),
            Self::Ffprobe => on_path("ffprobe"),
            Self::Ffmpeg9 => existing(tests_dir().join(".tools/ffmpeg9")),
            Self::Gst => on_path("gst-launch-1.0"),
            Self::Rtmpdump => on_path("rtmpdump"),
            Self::Nginx => existing(PathBuf::from(NGINX_MODULE)).and_then(|_| on_path("nginx")),
            Self::Vlc => on_path("vlc"),
            Self::Mpv => on_path("mpv"),
            Self::Mediainfo => on_path("mediainfo"),
            Self::Python => on_path("python3"),
            Self::Curl => on_path("curl"),
            Self::H2load => on_path("h2load"),
            Self::Azurite => existing(tests_dir().join(".tools/azurite/node_modules/.bin/azurite-blob")),
            Self::Strace => on_path("strace"),
            Self::Tinyproxy => on_path("tinyproxy"),
            Self::BlobSdk => existing(tests_dir().join(".tools/blobs/bin/python")),
            Self::Xvfb => on_path("Xvfb"),
            Self::Xorg => existing(PathBuf::from(DUMMY_DRIVER)).and_then(|_| on_path("Xorg")),
            Self::Xrandr => on_path("xrandr"),
            Self::PulseAudio => on_path("pulseaudio"),
            Self::Weston => on_path("weston"),
            Self::Machine => existing(tests_dir().join(".tools/machine/initramfs"))
                .and_then(|_| on_path("qemu-system-x86_64")),
        }
    }

    /// A command for it; panics where it is missing (see [`missing`]).
    pub fn command(self) -> Command {
        Command::new(self.path().unwrap_or_else(|| panic!("{self:?} is not installed")))
    }
}

/// The first of `tools` that is not installed.
pub fn missing(tools: &[Tool]) -> Option<Tool> {
    tools.iter().copied().find(|tool| tool.path().is_none())
}

/// Says that `case` is skipped, on standard error and, where `AV_SKIPPED` names a file, in that file:
/// `tests/run` counts its lines.
pub fn skip(case: &str, why: &str) {
    let line = format!("SKIPPED {case}: {why}\n");
    eprint!("{line}");
    if let Some(path) = std::env::var_os("AV_SKIPPED") {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
}

/// Ends the test as skipped where one of the tools is not installed.
#[macro_export]
macro_rules! needs {
    ($($tool:ident),+) => {
        if let Some(tool) = $crate::tool::missing(&[$($crate::tool::Tool::$tool),+]) {
            let thread = std::thread::current();
            $crate::tool::skip(thread.name().unwrap_or("?"), &format!("{tool:?} is not installed"));
            return;
        }
    };
}

/// Whether the long cases are wanted (`tests/run --long`).
pub fn long() -> bool {
    std::env::var_os("AV_LONG").is_some()
}

/// Ends a test that takes minutes as skipped, unless the long cases are wanted.
#[macro_export]
macro_rules! long_only {
    () => {
        if !$crate::tool::long() {
            return $crate::tool::skip(std::thread::current().name().unwrap_or("?"), "long");
        }
    };
}

/// The package's folder.
pub fn tests_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The repository's root.
pub fn repository() -> PathBuf {
    tests_dir().parent().unwrap().to_path_buf()
}

/// `edge-config/testcard.mp4`.
pub fn test_card() -> PathBuf {
    repository().join("edge-config/testcard.mp4")
}

/// A binary of the workspace: in `AV_BIN_DIR`, else beside the test that runs (`target/debug/deps/..`).
pub fn binary(name: &str) -> PathBuf {
    let dir = match std::env::var_os("AV_BIN_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => std::env::current_exe().unwrap().parent().and_then(Path::parent).unwrap().to_path_buf(),
    };
    let path = dir.join(name);
    assert!(
        path.is_file(),
        "{} is missing: `cargo build --workspace` first, or set AV_BIN_DIR",
        path.display()
    );
    path
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
}

fn existing(path: PathBuf) -> Option<PathBuf> {
    path.exists().then_some(path)
}
