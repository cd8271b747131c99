//! What a module wrote: the last lines in memory, more in a file of bounded size, and live.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::sync::broadcast;

/// In memory, a module.
const MAX_LINES: usize = 2000;
const MAX_RING_BYTES: usize = 1 << 20;
/// Docker cuts lines there too.
const MAX_LINE_BYTES: usize = 16 << 10;

/// One module's log.
pub struct Log {
    inner: Mutex<Inner>,
    follow: broadcast::Sender<Arc<str>>,
}

struct Inner {
    lines: VecDeque<Arc<str>>,
    bytes: usize,
    file: Option<LogFile>,
}

/// Two files: at its limit the current one becomes `NAME.log.1`.
struct LogFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    limit: u64,
}

impl Log {
    /// In memory only.
    pub fn in_memory() -> Self {
        let inner = Inner { lines: VecDeque::new(), bytes: 0, file: None };
        Self { inner: Mutex::new(inner), follow: broadcast::channel(512).0 }
    }

    /// Appends to `path` too, which is begun anew at `limit` bytes.
    pub fn open(path: &Path, limit: u64) -> io::Result<Self> {
        let log = Self::in_memory();
        let file = append(path)?;
        let bytes = file.metadata()?.len();
        log.lock().file = Some(LogFile { path: path.to_path_buf(), file, bytes, limit });
        Ok(log)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line (without its end).
    pub fn push(&self, line: &str) {
        let mut end = line.len().min(MAX_LINE_BYTES);
        while !line.is_char_boundary(end) {
            end = end.saturating_sub(1);
        }
        let line: Arc<str> = Arc::from(line.get(..end).unwrap_or_default());
        let mut inner = self.lock();
        inner.bytes = inner.bytes.saturating_add(line.len());
        inner.lines.push_back(Arc::clone(&line));
        while inner.lines.len() > MAX_LINES || inner.bytes > MAX_RING_BYTES {
            let Some(old) = inner.lines.pop_front() else { break };
            inner.bytes = inner.bytes.saturating_sub(old.len());
        }
        // A full disk must not stop the module: the line is in memory.
        if inner.file.as_mut().is_some_and(|file| file.write(&line).is_err()) {
            inner.file = None;
        }
        // Under the lock, so that `tail` and what follows it neither miss nor repeat a line.
        let _ = self.follow.send(line);
    }

    /// The last `count` lines, and what comes after them.
    pub fn tail(&self, count: usize) -> (Vec<Arc<str>>, broadcast::Receiver<Arc<str>>) {
        let inner = self.lock();
        let skip = inner.lines.len().saturating_sub(count);
        (inner.lines.iter().skip(skip).cloned().collect(), self.follow.subscribe())
    }

    /// Reads lines to the end of a module's output. A line without end is cut, never collected.
    pub async fn read_from(&self, output: impl AsyncRead + Unpin) {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while let Ok(chunk) = output.fill_buf().await {
            if chunk.is_empty() {
                break;
            }
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let part = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or_default();
            let room = MAX_LINE_BYTES.saturating_sub(line.len());
            line.extend_from_slice(part.get(..part.len().min(room)).unwrap_or_default());
            let used = part.len() + usize::from(end.is_some());
            output.consume(used);
            if end.is_some() {
                self.push(String::from_utf8_lossy(&line).trim_end_matches('\r'));
                line.clear();
            }
        }
        if !line.is_empty() {
            self.push(&String::from_utf8_lossy(&line));
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    File::options().create(true).append(true).mode(0o600).open(path)
}

impl LogFile {
    fn write(&mut self, line: &str) -> io::Result<()> {
        if self.bytes >= self.limit {
            let mut old = self.path.as_os_str().to_owned();
            old.push(".1");
            std::fs::rename(&self.path, PathBuf::from(old))?;
            self.file = append(&self.path)?;
            self.bytes = 0;
        }
        let line = format!("{line}\n");
        self.file.write_all(line.as_bytes())?;
        self.bytes = self.bytes.saturating_add(line.len() as u64);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_kept_in_order_and_the_oldest_go_first() {
        let log = Log::in_memory();
        let text: String = (0..MAX_LINES + 10).map(|index| format!("line {index}\r\n")).collect();
        log.read_from(text.as_bytes()).await;
        let (lines, _) = log.tail(usize::MAX);
        assert_eq!(lines.len(), MAX_LINES);
        assert_eq!(&*lines[0], "line 10");
        assert_eq!(&**lines.last().unwrap(), format!("line {}", MAX_LINES + 9));
    }

    #[tokio::test]
    async fn a_line_without_end_is_cut_and_the_next_one_is_whole() {
        let log = Log::in_memory();
        let text = format!("{}\nnext\nno end", "ü".repeat(MAX_LINE_BYTES));
        log.read_from(text.as_bytes()).await;
        let (lines, _) = log.tail(3);
        assert_eq!(lines[0].len(), MAX_LINE_BYTES);
        assert_eq!((&*lines[1], &*lines[2]), ("next", "no end"));
    }

    #[test]
    fn the_file_is_begun_anew_at_its_limit_and_one_old_one_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.log");
        let log = Log::open(&path, 20).unwrap();
        for index in 0..10 {
            log.push(&format!("number {index}"));
        }
        let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(files.len(), 2);
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("number 9\n"));
        assert!(std::fs::metadata(&path).unwrap().len() < 40);
    }

    #[tokio::test]
    async fn a_follower_gets_each_line_once() {
        let log = Log::in_memory();
        log.push("before");
        let (lines, mut live) = log.tail(10);
        log.push("after");
        assert_eq!(lines.len(), 1);
        assert_eq!(&*live.recv().await.unwrap(), "after");
    }
}
