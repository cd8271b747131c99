//! What `local-edge` itself has to say: into its log, and where it matters to the terminal.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::logs::Log;

/// How many different things are remembered as said.
const MAX_SAID: usize = 1000;

/// A log with an ear for the terminal.
#[derive(Clone)]
pub struct Journal(Arc<Inner>);

struct Inner {
    log: Arc<Log>,
    console: Option<mpsc::Sender<String>>,
    said: Mutex<BTreeSet<String>>,
}

impl Journal {
    /// Lines for the operator go to `console`, all lines to `log`.
    pub fn new(log: Arc<Log>, console: Option<mpsc::Sender<String>>) -> Self {
        Self(Arc::new(Inner { log, console, said: Mutex::default() }))
    }

    /// Into the log.
    pub fn note(&self, text: &str) {
        let time = Timestamp::now().strftime("%Y-%m-%d %H:%M:%S%.3f").to_string();
        self.0.log.push(&format!("<6> {time} +00:00 [INF] - {}", text.replace('\n', "\\n")));
    }

    /// Into the log and to the operator. A terminal that does not keep up misses lines, the log does not.
    pub fn say(&self, text: &str) {
        self.note(text);
        if let Some(console) = &self.0.console {
            let _ = console.try_send(text.to_owned());
        }
    }

    /// As [`say`](Self::say), but the same text only once.
    pub fn say_once(&self, text: &str) {
        let mut said = self.0.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() >= MAX_SAID || !said.insert(text.to_owned()) {
            return;
        }
        drop(said);
        self.say(text);
    }
}
