//! A thread that writes lines, so that a full pipe stops it and nothing else.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

const CAPACITY: usize = 2048;
/// Bytes gathered before a write, when lines come faster than they go.
const BATCH: usize = 32 * 1024;
/// How long the end of the process waits for a reader of the log.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Between two looks for a place in a full queue at that end.
const FULL: Duration = Duration::from_millis(5);

/// What the thread is told.
pub(super) enum Item {
    Line(String),
    Flush(SyncSender<()>),
}

#[cfg(test)]
impl Item {
    pub fn text(self) -> String {
        match self {
            Self::Line(line) => line,
            Self::Flush(_) => String::new(),
        }
    }
}

/// Where lines wait to be written.
#[derive(Clone)]
pub(super) struct Queue {
    items: SyncSender<Item>,
    dropped: Arc<AtomicU64>,
}

impl Queue {
    #[cfg(test)]
    pub fn to(items: SyncSender<Item>) -> Self {
        Self { items, dropped: Arc::default() }
    }

    /// Never waits: a line that finds the queue full is counted and the count is written later.
    pub fn push(&self, line: String) {
        if self.items.try_send(Item::Line(line)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Owns the thread's end: dropping it waits a moment for the queue to empty.
pub(super) struct Writer {
    queue: Queue,
}

impl Writer {
    /// Starts the thread. Where none can be had, lines are dropped.
    ///
    /// `say_dropped` makes the line that tells how many lines found no room.
    pub fn start(target: impl Write + Send + 'static, say_dropped: fn(u64) -> String) -> (Self, Queue) {
        let (items, received) = sync_channel(CAPACITY);
        let queue = Queue { items, dropped: Arc::default() };
        let dropped = queue.dropped.clone();
        let _ = std::thread::Builder::new()
            .name("log".into())
            .spawn(move || write(target, &received, &dropped, say_dropped));
        (Self { queue: queue.clone() }, queue)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let (written, wait) = sync_channel(1);
        let end = Instant::now() + LAST_WORDS;
        let mut flush = Item::Flush(written);
        // A full queue has a place when the thread has written some of it.
        while let Err(TrySendError::Full(item)) = self.queue.items.try_send(flush) {
            if Instant::now() >= end {
                return;
            }
            flush = item;
            std::thread::sleep(FULL);
        }
        let _ = wait.recv_timeout(end.saturating_duration_since(Instant::now()));
    }
}

fn write(
    mut target: impl Write,
    received: &Receiver<Item>,
    dropped: &AtomicU64,
    say_dropped: fn(u64) -> String,
) {
    let mut batch = Vec::new();
    while let Ok(first) = received.recv() {
        let mut next = Some(first);
        let mut flushed = None;
        while let Some(item) = next {
            match item {
                Item::Line(line) => batch.extend_from_slice(line.as_bytes()),
                Item::Flush(done) => flushed = Some(done),
            }
            next = if batch.len() < BATCH { received.try_recv().ok() } else { None };
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let line = say_dropped(lost);
            batch.extend_from_slice(line.as_bytes());
        }
        // A closed stderr is no reason to stop the module.
        let _ = target.write_all(&batch).and_then(|()| target.flush());
        batch.clear();
        if let Some(done) = flushed {
            let _ = done.try_send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Condvar, Mutex};

    use super::*;

    /// A pipe that nobody reads until it is opened.
    #[derive(Clone, Default)]
    struct Pipe(Arc<(Mutex<PipeState>, Condvar)>);

    #[derive(Default)]
    struct PipeState {
        is_open: bool,
        written: Vec<u8>,
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let (state, opened) = &*self.0;
            let mut state = opened.wait_while(state.lock().unwrap(), |state| !state.is_open).unwrap();
            state.written.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_pipe_costs_lines_but_no_time_and_the_loss_is_said() {
        let pipe = Pipe::default();
        let (writer, queue) = Writer::start(pipe.clone(), |lost| format!("{lost} log lines were dropped\n"));
        for number in 0..CAPACITY * 8 {
            queue.push(format!("line {number}\n"));
        }
        pipe.0.0.lock().unwrap().is_open = true;
        pipe.0.1.notify_all();
        drop(writer);
        let text = String::from_utf8(pipe.0.0.lock().unwrap().written.clone()).unwrap();
        assert!(text.starts_with("line 0\nline 1\n"));
        assert!(text.contains("log lines were dropped"), "{}", &text[text.len() - 200..]);
    }
}
