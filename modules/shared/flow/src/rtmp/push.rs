//! `push`: we connect to a server and send it the stream, for ever.

mod sender;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use av_rtmp::{ClientEvent, ClientOutput, Egress, Limits, Mode};
use tokio::io::AsyncReadExt;

use super::PushConfig;
use super::client::{self, Client, ClientError};
use crate::endpoint::OutputContext;
use crate::fitting::tell_tracks;
use crate::pushing::{Ended, FAREWELL, MAX_LAG, Pushing, STALL, Target, sleep_until, write};
use crate::stream::{Entry, Item, Reader};
use crate::trouble::Reason;
use sender::{Due, Sender};

/// Sends the stream until cancelled.
pub async fn push(output: OutputContext, config: PushConfig) {
    let pushing = Pushing::new(output, &config.url.host, config.retry);
    pushing.run(Push { config }).await;
}

struct Push {
    config: PushConfig,
}

impl Target for Push {
    type Client = Client;
    type Error = ClientError;

    fn reason(error: &ClientError) -> Reason {
        error.reason()
    }

    async fn open(&self, pushing: &Pushing) -> Result<Client, ClientError> {
        let PushConfig { url, credentials, tls, .. } = &self.config;
        let net = &pushing.output.module.net;
        client::open(net, url, credentials.as_ref(), tls, Mode::Publish, Limits::default()).await
    }

    async fn connection(
        &self,
        pushing: &mut Pushing,
        mut client: Client,
        flowed: &mut Duration,
    ) -> Result<Ended, ClientError> {
        pushing.connected();
        let began = Instant::now();
        let output = &pushing.output;
        let mut reader = output.stream.reader(output.content).as_stamped();
        let mut sender = Sender::new(client.session.egress(), output, self.config.url.scheme.name);
        let ended = self.send(pushing, &mut client, &mut reader, &mut sender).await;
        if sender.sent_media() {
            *flowed = began.elapsed();
        }
        let ended = ended?;
        client.finish(sender.into_pending(), FAREWELL).await;
        pushing.ended();
        Ok(ended)
    }
}

impl Push {
    async fn send(
        &self,
        pushing: &Pushing,
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
            self.encode(pushing, reader, &mut entries, &mut queue, sender);
            let due = sender.due(Instant::now());
            let wake = match due {
                // What has to go before the stream's end goes with the farewell.
                Due::Never if sender.is_over() => return Ok(Ended::Over),
                Due::Never => None,
                Due::At(at) => Some(at),
                Due::Now => Some(*stalled.get_or_insert_with(Instant::now) + STALL),
            };
            let must_write = matches!(due, Due::Now);
            let Client { reader: from, writer: to, buffer, .. } = &mut *client;
            tokio::select! {
                () = pushing.output.cancel.cancelled() => return Ok(Ended::Cancelled),
                written = write(to, sender.pending()), if must_write => {
                    sender.written(written.map_err(|source| client.broke(source))?, Instant::now());
                    stalled = None;
                }
                read = from.read(buffer) => drop(client.received(read)?),
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
        pushing: &Pushing,
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
                Item::Tracks(tracks) if tracks.is_empty() => pushing.nothing_to_send(),
                Item::Tracks(tracks) => tell_tracks(tracks, &pushing.output, Egress::carries),
                Item::Lost(lost) => pushing.too_slow(lost.total()),
                Item::Frame(frame)
                    if !sender.fitting.admits(frame, entry.starts, &pushing.output, Instant::now()) =>
                {
                    continue;
                }
                _ => {}
            }
            sender.take(entry, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests;
