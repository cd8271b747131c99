//! A sound card without hardware: a device of ALSA's that writes to a pipe, which a thread reads at the pace at which a
//! card would play.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Of two channels with 16 bits each at 48,000 Hz.
const BYTES_A_SECOND: u64 = 48_000 * 4;
/// A tenth of full scale.
const LOUD: u16 = 3_000;
/// Bytes of what has to be quiet between two beeps.
const QUIET: u64 = BYTES_A_SECOND / 4;

/// A card that plays until it is told to stand still.
pub struct SoundCard {
    dir: TempDir,
    told: Arc<Told>,
}

#[derive(Default)]
struct Told {
    stands: AtomicBool,
    over: AtomicBool,
    beeps: AtomicU64,
}

impl SoundCard {
    /// Starts one.
    pub fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("sound-card-").tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let device = format!(
            "</usr/share/alsa/alsa.conf>\npcm.card {{ type plug slave {{ pcm {{ type file file \"{}\" format raw \
             slave.pcm null }} format S16_LE rate 48000 channels 2 }} }}\n",
            pipe.display()
        );
        std::fs::write(dir.path().join("alsa.conf"), device).unwrap();
        // Also for writing: there is always a writer, and so no end.
        let pipe = OpenOptions::new().read(true).write(true).open(pipe).unwrap();
        let told = Arc::new(Told::default());
        std::thread::spawn({
            let told = told.clone();
            move || play(pipe, &told)
        });
        Self { dir, told }
    }

    /// For `ALSA_CONFIG_PATH`; the device is `card`.
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("alsa.conf")
    }

    /// Stops playing, or goes on.
    pub fn stand_still(&self, stands: bool) {
        self.told.stands.store(stands, Ordering::Relaxed);
    }

    /// How many times it has become loud.
    pub fn beeps(&self) -> u64 {
        self.told.beeps.load(Ordering::Relaxed)
    }
}

impl Drop for SoundCard {
    fn drop(&mut self) {
        self.told.over.store(true, Ordering::Relaxed);
        // It may wait for something to play.
        if let Ok(mut pipe) = OpenOptions::new().read(true).write(true).open(self.dir.path().join("pipe")) {
            let _ = pipe.write(&[0; 4]);
        }
    }
}

fn play(mut pipe: File, told: &Told) {
    let (mut since, mut played) = (Instant::now(), 0);
    let (mut bytes, mut quiet) = ([0; 1920], QUIET);
    while !told.over.load(Ordering::Relaxed) {
        let due = since.elapsed().as_micros() as u64 * BYTES_A_SECOND / 1_000_000;
        let behind = due.saturating_sub(played) > BYTES_A_SECOND / 10;
        if told.stands.load(Ordering::Relaxed) || behind {
            // A card does not play faster afterwards.
            (since, played) = (Instant::now(), 0);
        }
        if told.stands.load(Ordering::Relaxed) || played > due {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        }
        let length = pipe.read(&mut bytes).unwrap();
        played += length as u64;
        let samples = bytes[..length].chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]]));
        if samples.map(i16::unsigned_abs).max().unwrap_or(0) < LOUD {
            quiet += length as u64;
        } else if std::mem::take(&mut quiet) >= QUIET {
            told.beeps.fetch_add(1, Ordering::Relaxed);
        }
    }
}
