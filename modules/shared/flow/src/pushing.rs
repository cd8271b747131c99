//! What an output that sends to another server does, whatever the protocol: it connects when there is something to send,
//! again and again, and says how that goes.

use std::fmt::Display;
use std::io;
use std::time::{Duration, Instant};

use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::config::{Content, Retry};
use crate::endpoint::OutputContext;
use crate::net::Attempts;
use crate::stream::{Entry, Item, State};
use crate::trouble::{Reason, Trouble};

/// A target that takes nothing for so long is lost.
pub const STALL: Duration = Duration::from_secs(10);
/// A target that is behind by more goes on at the next sync frame.
pub const MAX_LAG: Duration = Duration::from_secs(3);
/// For the farewell.
pub const FAREWELL: Duration = Duration::from_secs(1);

/// An output that pushes.
pub struct Pushing {
    pub output: OutputContext,
    host: String,
    attempts: Attempts,
}

/// How a protocol does it.
pub trait Target {
    /// A connection on which media may flow.
    type Client: Send;
    /// Why there is none any more.
    type Error: Display + Send + Sync;

    /// What kind of trouble an error is.
    fn reason(error: &Self::Error) -> Reason;

    /// Connects. May be dropped at any time.
    fn open(&self, pushing: &Pushing) -> impl Future<Output = Result<Self::Client, Self::Error>> + Send;

    /// One connection, from the moment when the target takes media to its end. `flowed`: how long it took some.
    fn connection(
        &self,
        pushing: &mut Pushing,
        client: Self::Client,
        flowed: &mut Duration,
    ) -> impl Future<Output = Result<Ended, Self::Error>> + Send;
}

/// A connection that ended as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The output has to end.
    Cancelled,
    /// The stream is over.
    Over,
    /// What the target was told of the stream does not hold any more.
    Changed,
}

impl Pushing {
    /// To `host`.
    pub fn new(output: OutputContext, host: &str, retry: Retry) -> Self {
        Self { attempts: Attempts::of_output(&output, "push", retry), host: host.to_owned(), output }
    }

    /// Sends the stream until cancelled.
    ///
    /// Connects only when there is something to send. A connection that breaks is made again after a growing wait,
    /// and starts at the last sync frame.
    pub async fn run<T: Target>(mut self, target: T) {
        let cancel = self.output.cancel.clone();
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                () = self.media_is_there() => {}
            }
            let opened = tokio::select! {
                () = cancel.cancelled() => return,
                opened = target.open(&self) => opened,
            };
            let mut flowed = Duration::ZERO;
            let ended = match opened {
                Ok(client) => target.connection(&mut self, client, &mut flowed).await,
                Err(error) => Err(error),
            };
            match ended {
                Ok(Ended::Cancelled) => return,
                Ok(Ended::Over) => {
                    self.output.status.status.set(State::Waiting, None);
                }
                Ok(Ended::Changed) => {}
                Err(error) => {
                    let wait = self.attempts.failed(State::Retrying, T::reason(&error), &error, flowed);
                    drop(error);
                    tokio::select! {
                        () = cancel.cancelled() => return,
                        () = tokio::time::sleep(wait) => {}
                    }
                }
            }
        }
    }

    /// Waits for the stream to have something that this output takes.
    async fn media_is_there(&self) {
        let mut reader = self.output.stream.reader(self.output.content);
        let mut entries: Vec<Entry> = Vec::new();
        // Why the last connection broke is worth more than that there is nothing to send.
        if self.output.status.status.get().state != State::Retrying {
            self.output.status.status.set(State::Waiting, None);
        }
        loop {
            reader.recv(&mut entries).await;
            for entry in entries.drain(..) {
                match entry.item {
                    Item::Tracks(tracks) if tracks.is_empty() => self.nothing_to_send(),
                    Item::Frame(_) => return,
                    _ => {}
                }
            }
        }
    }

    /// The stream has only what `content` filters out.
    pub fn nothing_to_send(&self) {
        let missing = match self.output.content {
            Content::VideoOnly => "no video",
            Content::AudioOnly => "no audio",
            Content::AudioVideo => "neither video nor audio",
        };
        self.content_trouble(State::Waiting, &format!("the stream has {missing}"));
    }

    /// The stream has what can't be sent.
    pub fn content_trouble(&self, state: State, what: &str) {
        let text = format!("{}.push: {what}", self.output.path);
        self.output.status.status.set(state, Some(Trouble::new(Reason::Content, text)));
    }

    /// The target takes the stream.
    pub fn connected(&mut self) {
        self.output.status.status.set(State::Running, None);
        let (flow, name, host) = (&self.output.flow, &self.output.output, &self.host);
        tracing::info!(%flow, output = %name, %host, "push: the target takes the stream");
        self.attempts.connected(format!("pushing to {host}"));
    }

    /// The connection ended as it should.
    pub fn ended(&mut self) {
        self.attempts.ended(format!("ended the push to {}", self.host));
    }

    /// The target did not take so many frames in time.
    pub fn too_slow(&self, frames: u64) {
        if let Some(suppressed) = self.output.module.player_log.admit() {
            let (flow, name, host) = (&self.output.flow, &self.output.output, &self.host);
            tracing::warn!(
                %flow, output = %name, %host, frames, suppressed,
                "push: the target is too slow, frames are skipped"
            );
        }
    }
}

/// Writes some of `pending`; with nothing pending, sees that what was written leaves. Cancel safe.
pub async fn write(to: &mut (dyn AsyncWrite + Send + Unpin), pending: &[u8]) -> io::Result<usize> {
    if pending.is_empty() {
        return to.flush().await.map(|()| 0);
    }
    match to.write(pending).await {
        Ok(0) => Err(io::ErrorKind::WriteZero.into()),
        written => written,
    }
}

/// Sleeps for ever where there is nothing to wake for.
pub async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake.into()).await,
        None => std::future::pending().await,
    }
}
