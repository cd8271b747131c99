//! `push`: we connect to a server and send it the stream, for ever.

mod sender;

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use av_rtmp::{ClientEvent, ClientOutput, Limits, Mode};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::PushConfig;
use super::client::{self, Client, ClientError};
use crate::config::Content;
use crate::endpoint::OutputContext;
use crate::net::Attempts;
use crate::stream::{Entry, Item, Reader, State};
use crate::trouble::{Reason, Trouble};
use sender::{Due, Sender};

/// A target that takes nothing for so long is lost.
const STALL: Duration = Duration::from_secs(10);
/// A target that is behind by more goes on at the next sync frame.
const MAX_LAG: Duration = Duration::from_secs(3);
/// For the farewell.
const FAREWELL: Duration = Duration::from_secs(1);

/// Sends the stream until cancelled.
///
/// Connects only when there is something to send. A connection that breaks is made again after a growing wait,
/// and starts at the last sync frame.
pub async fn push(output: OutputContext, config: PushConfig) {
    let attempts = Attempts::of_output(&output, "push", config.retry);
    let mut push = Push { attempts, output, config };
    loop {
        let cancel = push.output.cancel.clone();
        tokio::select! {
            () = cancel.cancelled() => return,
            () = push.media_is_there() => {}
        }
        let opened = tokio::select! {
            () = cancel.cancelled() => return,
            opened = push.open() => opened,
        };
        let mut flowed = Duration::ZERO;
        let ended = match opened {
            Ok(client) => push.connection(client, &mut flowed).await,
            Err(error) => Err(error),
        };
        match ended {
            Ok(Ended::Cancelled) => return,
            Ok(Ended::StreamEnded) => {
                push.output.status.status.set(State::Waiting, None);
            }
            Err(error) => {
                let wait = push.attempts.failed(State::Retrying, error.reason(), &error, flowed);
                tokio::select! {
                    () = cancel.cancelled() => return,
                    () = tokio::time::sleep(wait) => {}
                }
            }
        }
    }
}

struct Push {
    output: OutputContext,
    config: PushConfig,
    attempts: Attempts,
}

/// A connection that ended as it should.
enum Ended {
    Cancelled,
    StreamEnded,
}

impl Push {
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
    fn nothing_to_send(&self) {
        let missing = match self.output.content {
            Content::VideoOnly => "no video",
            Content::AudioOnly => "no audio",
            Content::AudioVideo => "neither video nor audio",
        };
        let text = format!("{}.push: the stream has {missing}", self.output.path);
        self.output.status.status.set(State::Waiting, Some(Trouble::new(Reason::Content, text)));
    }

    async fn open(&self) -> Result<Client, ClientError> {
        let PushConfig { url, credentials, tls, .. } = &self.config;
        let net = &self.output.module.net;
        client::open(net, url, credentials.as_ref(), tls, Mode::Publish, Limits::default()).await
    }

    /// One connection, from the moment when the target takes media to its end. `flowed`: how long it took some.
    async fn connection(&mut self, mut client: Client, flowed: &mut Duration) -> Result<Ended, ClientError> {
        self.connected();
        let began = Instant::now();
        let mut reader = self.output.stream.reader(self.output.content).as_stamped();
        let mut sender = Sender::new(client.session.egress(), &self.output, self.config.url.scheme.name);
        let ended = self.send(&mut client, &mut reader, &mut sender).await;
        if sender.sent_media() {
            *flowed = began.elapsed();
        }
        let ended = ended?;
        client.finish(sender.into_pending(), FAREWELL).await;
        self.attempts.ended(format!("ended the push to {}", self.config.url.host));
        Ok(ended)
    }

    async fn send(
        &self,
        client: &mut Client,
        reader: &mut Reader,
        sender: &mut Sender,
    ) -> Result<Ended, ClientError> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut queue: VecDeque<Entry> = VecDeque::new();
        // Since when the target takes nothing of what is due.
        let mut stalled: Option<Instant> = None;
        loop {
            self.answer(client, sender)?;
            self.encode(reader, &mut entries, &mut queue, sender);
            let due = sender.due(Instant::now());
            let wake = match due {
                // What has to go before the stream's end goes with the farewell.
                Due::Never if sender.is_over() => return Ok(Ended::StreamEnded),
                Due::Never => None,
                Due::At(at) => Some(at),
                Due::Now => Some(*stalled.get_or_insert_with(Instant::now) + STALL),
            };
            let must_write = matches!(due, Due::Now);
            let Client { reader: from, writer: to, buffer, .. } = &mut *client;
            tokio::select! {
                () = self.output.cancel.cancelled() => return Ok(Ended::Cancelled),
                written = write(to, sender.pending()), if must_write => {
                    sender.written(written.map_err(|source| client.broke(source))?, Instant::now());
                    stalled = None;
                }
                read = from.read(buffer) => client.received(read)?,
                // What is not taken waits in the stream, which bounds it.
                () = reader.recv(&mut entries), if !must_write && queue.is_empty() => {
                    queue.extend(entries.drain(..));
                }
                () = sleep_until(wake) => {
                    if must_write {
                        return Err(client.stalled(STALL));
                    }
                }
            }
        }
    }

    /// Control messages: what the target asked for, and what it has to say.
    fn answer(&self, client: &mut Client, sender: &mut Sender) -> Result<(), ClientError> {
        while let Some(output) = client.poll()? {
            match output {
                ClientOutput::Send(bytes) => sender.control(&bytes),
                ClientOutput::Event(ClientEvent::Refused { code, description }) => {
                    return Err(client.refused(&code, &description));
                }
                ClientOutput::Event(ClientEvent::Ended | ClientEvent::Unpublished) => {
                    return Err(ClientError::Ended { host: client.host.to_string() });
                }
                ClientOutput::Event(_) => {}
            }
        }
        Ok(())
    }

    /// Turns entries into bytes, as far as there is room. Late ones are given up where a sync frame lies ahead.
    fn encode(
        &self,
        reader: &mut Reader,
        entries: &mut Vec<Entry>,
        queue: &mut VecDeque<Entry>,
        sender: &mut Sender,
    ) {
        while sender.has_room()
            && let Some(entry) = queue.front()
        {
            if entry.arrived.elapsed() > MAX_LAG && reader.skip_to_sync(entries) {
                queue.drain(..).for_each(|entry| sender.dropped(&entry));
                queue.extend(entries.drain(..));
                continue;
            }
            sender.base_from(queue);
            let Some(entry) = queue.pop_front() else { return };
            match &entry.item {
                Item::Tracks(tracks) if tracks.is_empty() => self.nothing_to_send(),
                Item::Tracks(_) => {
                    self.output.status.status.set(State::Running, None);
                }
                Item::Lost(lost) => self.too_slow(lost.total()),
                Item::Frame(frame)
                    if !sender.fitting.admits(frame, entry.starts, &self.output, Instant::now()) =>
                {
                    continue;
                }
                _ => {}
            }
            sender.take(entry, Instant::now());
        }
    }

    fn connected(&mut self) {
        self.output.status.status.set(State::Running, None);
        let host = &self.config.url.host;
        let (flow, name) = (&self.output.flow, &self.output.output);
        tracing::info!(%flow, output = %name, %host, "push: the target takes the stream");
        self.attempts.connected(format!("pushing to {host}"));
    }

    fn too_slow(&self, frames: u64) {
        if let Some(suppressed) = self.output.module.player_log.admit() {
            let (flow, name) = (&self.output.flow, &self.output.output);
            let host = &self.config.url.host;
            tracing::warn!(
                %flow, output = %name, %host, frames, suppressed,
                "push: the target is too slow, frames are skipped"
            );
        }
    }
}

/// Writes some of `pending`; with nothing pending, sees that what was written leaves. Cancel safe.
async fn write(to: &mut (dyn AsyncWrite + Send + Unpin), pending: &[u8]) -> io::Result<usize> {
    if pending.is_empty() {
        return to.flush().await.map(|()| 0);
    }
    match to.write(pending).await {
        Ok(0) => Err(io::ErrorKind::WriteZero.into()),
        written => written,
    }
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
