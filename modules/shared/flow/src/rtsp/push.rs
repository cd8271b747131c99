//! `push`: we connect to a server, announce the stream and send it, for ever.

mod client;
mod error;
mod sender;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use av_media::Kind;
use av_rtsp::client::ClientOutput;
use av_rtsp::sdp::Description;
use tokio::io::{AsyncReadExt, AsyncWrite};

use super::PushConfig;
use super::lanes::{Laid, Lanes};
use super::redirect::{MAX_HOPS, followed};
use super::wire::about;
use crate::endpoint::OutputContext;
use crate::pushing::{Ended, FAREWELL, MAX_LAG, Pushing, STALL, Target, sleep_until, write};
use crate::stream::{Entry, Item, Reader, State};
use crate::trouble::Reason;
use client::Client;
use error::PushError;
use sender::Sender;

/// A target that has had the stream for so long and then sends it elsewhere is followed at once.
const LIVED: Duration = Duration::from_secs(1);

/// Sends the stream until cancelled. A change of codec is announced on a connection of its own.
pub async fn push(output: OutputContext, config: PushConfig) {
    let pushing = Pushing::new(output, &config.url.host, config.retry);
    pushing.run(Push { config, moved: Mutex::default() }).await;
}

struct Push {
    config: PushConfig,
    /// Where a target that had the stream has sent it: the next connection goes there.
    moved: Mutex<Option<String>>,
}

/// What can be announced of a stream.
struct Announced {
    lanes: Lanes,
    description: Description,
    media: Vec<Kind>,
    /// What is left out, and why.
    dropped: Vec<String>,
}

/// A connection, and what was announced on it.
struct Connected {
    client: Client,
    lanes: Lanes,
    dropped: Vec<String>,
}

impl Target for Push {
    type Client = Connected;
    type Error = PushError;

    fn reason(error: &PushError) -> Reason {
        error.reason()
    }

    async fn open(&self, pushing: &Pushing) -> Result<Connected, PushError> {
        let Announced { lanes, description, media, dropped } = self.announced(pushing).await;
        let client = self.followed(pushing, description, &media).await?;
        Ok(Connected { client, lanes, dropped })
    }

    async fn connection(
        &self,
        pushing: &mut Pushing,
        connected: Connected,
        flowed: &mut Duration,
    ) -> Result<Ended, PushError> {
        let Connected { mut client, lanes, dropped } = connected;
        pushing.connected();
        if !dropped.is_empty() {
            pushing.content_trouble(State::Running, &dropped.join("; "));
        }
        let began = Instant::now();
        let output = &pushing.output;
        let mut reader = output.stream.reader(output.content);
        let mut sender = Sender::new(lanes, client.layout, output, self.config.url.scheme.name);
        let ended = self.send(pushing, &mut client, &mut reader, &mut sender).await;
        if sender.sent_media {
            *flowed = began.elapsed();
        }
        let ended = match ended {
            Err(PushError::Elsewhere { to, host }) => {
                *self.moved.lock().unwrap_or_else(PoisonError::into_inner) = Some(to.clone());
                // One that does so at once, again and again, is waited for.
                if *flowed < LIVED {
                    return Err(PushError::Elsewhere { to, host });
                }
                Ended::Changed
            }
            ended => ended?,
        };
        client.finish(sender.into_pending(), FAREWELL).await;
        pushing.ended();
        Ok(ended)
    }
}

impl Push {
    /// Connects to the target, or to where that sends us.
    async fn followed(
        &self,
        pushing: &Pushing,
        description: Description,
        media: &[Kind],
    ) -> Result<Client, PushError> {
        let mut config = self.config.clone();
        let moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(to) = moved {
            config = self.led(pushing, config, &to)?;
        }
        for _ in 0..=MAX_HOPS {
            let opened = client::open(&pushing.output.module.net, &config, description.clone(), media).await;
            config = match opened {
                Err(PushError::Elsewhere { to, .. }) => self.led(pushing, config, &to)?,
                other => return other,
            };
        }
        Err(PushError::Astray { host: config.url.host, why: "one leads to the next" })
    }

    /// Where a target leads.
    fn led(&self, pushing: &Pushing, from: PushConfig, to: &str) -> Result<PushConfig, PushError> {
        let astray = |why| PushError::Astray { host: from.url.host.clone(), why };
        let url = followed(to, &from.url).map_err(astray)?;
        let (flow, output) = (&pushing.output.flow, &pushing.output.output);
        tracing::info!(%flow, %output, host = %from.url.host, to = %url, "push: sent elsewhere");
        // Another host that the target names has no right to them.
        let credentials = from.credentials.filter(|_| url.host == self.config.url.host);
        Ok(PushConfig { url, credentials, ..from })
    }

    /// Waits until the stream's tracks can be described.
    async fn announced(&self, pushing: &Pushing) -> Announced {
        let output = &pushing.output;
        let mut lanes = Lanes::new(self.config.mtu);
        let mut reader = output.stream.reader(output.content);
        let mut entries: Vec<Entry> = Vec::new();
        let mut found = None;
        loop {
            reader.recv(&mut entries).await;
            for entry in entries.drain(..) {
                match entry.item {
                    Item::Tracks(tracks) => {
                        let laid = lanes.lay(&tracks);
                        if laid.media.is_empty() && !laid.dropped.is_empty() {
                            pushing.content_trouble(State::Waiting, &laid.dropped.join("; "));
                        }
                        found = Some(laid).filter(|laid| !laid.waits && !laid.media.is_empty());
                    }
                    Item::Frame(_) => {
                        let Some(Laid { media, formats, dropped, .. }) = found.take() else { continue };
                        let name = self.config.url.path.rsplit('/').next().unwrap_or_default();
                        let description = Description::new(&about(name), &formats);
                        return Announced { lanes, description, media, dropped };
                    }
                    _ => {}
                }
            }
        }
    }

    async fn send(
        &self,
        pushing: &Pushing,
        client: &mut Client,
        reader: &mut Reader,
        sender: &mut Sender,
    ) -> Result<Ended, PushError> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut queue: VecDeque<Entry> = VecDeque::new();
        // Since when the target takes nothing of what is due.
        let mut stalled: Option<Instant> = None;
        loop {
            client.session.handle_time(client.now());
            self.answer(client, sender).await?;
            if !self.packetize(pushing, reader, &mut entries, &mut queue, sender) {
                return Ok(Ended::Changed);
            }
            sender.report(Instant::now());
            let must_write = sender.must_write();
            if !must_write && sender.is_over {
                return Ok(Ended::Over);
            }
            let lost = must_write.then(|| *stalled.get_or_insert_with(Instant::now) + STALL);
            let wake = [Some(client.deadline()), sender.report_at(), lost].into_iter().flatten().min();
            let Client { reader: from, writer, datagrams, buffer, .. } = &mut *client;
            let to: &mut (dyn AsyncWrite + Send + Unpin) = match datagrams {
                Some(datagrams) => datagrams,
                None => writer,
            };
            tokio::select! {
                () = pushing.output.cancel.cancelled() => return Ok(Ended::Cancelled),
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
                    if stalled.is_some_and(|since| since.elapsed() >= STALL) {
                        return Err(client.stalled(STALL));
                    }
                }
            }
        }
    }

    /// What the target asked for, and what it has to say.
    async fn answer(&self, client: &mut Client, sender: &mut Sender) -> Result<(), PushError> {
        while let Some(output) = client.poll()? {
            match output {
                ClientOutput::Send(bytes) if client.datagrams.is_some() => client.write(&bytes).await?,
                ClientOutput::Send(bytes) => sender.control(&bytes),
                ClientOutput::Event(event) => client.happened(&event)?,
            }
        }
        Ok(())
    }

    /// Turns entries into packets, as far as there is room. Late ones are given up where a sync frame lies ahead. False
    /// where what was announced does not hold any more.
    fn packetize(
        &self,
        pushing: &Pushing,
        reader: &mut Reader,
        entries: &mut Vec<Entry>,
        queue: &mut VecDeque<Entry>,
        sender: &mut Sender,
    ) -> bool {
        while sender.has_room()
            && let Some(entry) = queue.pop_front()
        {
            if entry.arrived.elapsed() > MAX_LAG && reader.skip_to_sync(entries) {
                std::iter::once(entry).chain(queue.drain(..)).for_each(|entry| sender.dropped(&entry));
                queue.extend(entries.drain(..));
                continue;
            }
            match &entry.item {
                Item::Tracks(tracks) if tracks.is_empty() => pushing.nothing_to_send(),
                Item::Tracks(tracks) if !sender.tracks(tracks) => return false,
                Item::Lost(lost) => pushing.too_slow(lost.total()),
                _ => {}
            }
            sender.take(&entry);
        }
        true
    }
}
