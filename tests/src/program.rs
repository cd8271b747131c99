//! A process with its output captured; it dies with the value.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::wait;

/// A started process.
pub struct Program {
    line: String,
    child: Child,
    stdout: Capture,
    stderr: Capture,
}

/// What a finished process left.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// All of it.
    pub stdout: String,
    /// All of it.
    pub stderr: String,
}

struct Capture {
    text: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Program {
    /// Starts `command` without standard input.
    pub fn start(command: &mut Command) -> Self {
        let line = format!("{command:?}");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{line}: {error}"));
        let stdout = Capture::of(child.stdout.take().unwrap());
        let stderr = Capture::of(child.stderr.take().unwrap());
        Self { line, child, stdout, stderr }
    }

    /// Runs `command` to its end.
    pub fn run(command: &mut Command, limit: Duration) -> Finished {
        Self::start(command).finish(limit)
    }

    /// Waits for the end by itself; kills it and panics with its output after `limit`.
    pub fn finish(mut self, limit: Duration) -> Finished {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if start.elapsed() > limit {
                let _ = self.child.kill();
                panic!("still running after {} s: {}\n{}", limit.as_secs(), self.line, self.stderr());
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        self.stdout.join();
        self.stderr.join();
        Finished { status, stdout: self.stdout(), stderr: self.stderr() }
    }

    /// Asks it to end with `signal` (`TERM`, `INT`), then as [`finish`](Self::finish).
    pub fn end(self, signal: &str, limit: Duration) -> Finished {
        self.signal(signal);
        self.finish(limit)
    }

    /// Sends a signal by name.
    pub fn signal(&self, signal: &str) {
        // The child has not been waited for, so the id is still its own.
        let _ = Command::new("kill").arg(format!("-{signal}")).arg(self.child.id().to_string()).status();
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory in bytes (`/proc/ID/status`).
    pub fn resident_bytes(&self) -> u64 {
        resident_bytes(self.child.id())
    }

    /// Standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// Standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Waits until standard error holds `text`.
    pub fn wait_stderr(&self, text: &str) {
        let start = Instant::now();
        while !self.stderr().contains(text) {
            assert!(start.elapsed() < wait::LONG, "no {text:?} from {}:\n{}", self.line, self.stderr());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Resident memory of any process in bytes (`/proc/ID/status`).
pub fn resident_bytes(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kilobytes * 1024
}

impl Drop for Program {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.line, tail(&self.stderr(), 60));
        }
    }
}

impl Capture {
    fn of(mut source: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&text);
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            while let Ok(read @ 1..) = source.read(&mut buffer) {
                sink.lock().unwrap().extend_from_slice(&buffer[..read]);
            }
        });
        Self { text, reader: Some(reader) }
    }

    fn join(&mut self) {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().unwrap()).into_owned()
    }
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<_> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
