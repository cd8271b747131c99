//! `pull`: we connect to a server and take its stream, for ever.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use av_rtmp::{ClientEvent, ClientOutput, Limits, MediaItem, Mode};

use super::PullConfig;
use super::client::{self, Client, ClientError};
use super::incoming::Intake;
use super::skipped::{self, Omissions};
use crate::endpoint::InputContext;
use crate::net::Attempts;
use crate::stream::{Dedup, InputStatus, Kick, KickReason, Passed, Publisher, Seam, State};

/// A server that has no media to send yet is asked for a sign of life that often, and has as long to give one.
const PING: Duration = Duration::from_secs(10);

/// Takes a stream until cancelled.
///
/// A connection that breaks is made again after a growing wait. For the time of `idleTimeoutSeconds` the stream
/// does not know: when the server still has all that was missed (its GOP cache starts before the break), frames
/// go on as if nothing had happened.
pub async fn pull(input: InputContext, config: PullConfig) {
    let cancel = input.cancel.clone();
    let pull = Pull {
        attempts: Attempts::of_input(&input, "pull", config.retry),
        input,
        config,
        dedup: Dedup::default(),
        omissions: Omissions::default(),
        intake: Intake::default(),
        writing: None,
    };
    tokio::select! {
        () = cancel.cancelled() => {}
        () = pull.run() => {}
    }
}

struct Pull {
    input: InputContext,
    config: PullConfig,
    attempts: Attempts,
    dedup: Dedup,
    omissions: Omissions,
    intake: Intake,
    writing: Option<Writing>,
}

/// The right to write, kept over a break of the connection.
struct Writing {
    publisher: Publisher,
    kick: Kick,
}

/// How long media flowed on a connection.
#[derive(Default)]
struct Flowed {
    first: Option<Instant>,
    last: Option<Instant>,
}

impl Flowed {
    fn how_long(&self) -> Duration {
        self.first
            .zip(self.last)
            .map_or(Duration::ZERO, |(first, last)| last.saturating_duration_since(first))
    }
}

impl Pull {
    async fn run(mut self) {
        loop {
            let mut flowed = Flowed::default();
            let error = self.connection(&mut flowed).await;
            self.dedup.disconnected();
            let wait = self.attempts.failed(State::Retrying, error.reason(), &error, flowed.how_long());
            let () = unless_kicked(&mut self.writing, &self.input.status, tokio::time::sleep(wait)).await;
        }
    }

    /// One connection, from dialling to its end.
    async fn connection(&mut self, flowed: &mut Flowed) -> ClientError {
        let limits = Limits {
            max_message_bytes: self.config.max_message_bytes,
            max_unfinished_after: self.config.max_message_bytes.saturating_mul(2),
            ..Limits::default()
        };
        let PullConfig { url, credentials, tls, .. } = &self.config;
        let opening =
            client::open(&self.input.module.net, url, credentials.as_ref(), tls, Mode::Play, limits);
        let mut client = match unless_kicked(&mut self.writing, &self.input.status, opening).await {
            Ok(client) => client,
            Err(error) => return error,
        };
        self.input.status.status.set(State::Waiting, None);
        self.dedup.reconnected();
        self.intake.reconnected();
        match self.receive(&mut client, flowed).await {
            Ok(never) => match never {},
            Err(error) => {
                if matches!(error, ClientError::Ended { .. } | ClientError::Idle { .. }) {
                    // Said, or waited for long enough: the stream is told at once.
                    self.writing = None;
                }
                error
            }
        }
    }

    async fn receive(
        &mut self,
        client: &mut Client,
        flowed: &mut Flowed,
    ) -> Result<std::convert::Infallible, ClientError> {
        let idle = self.input.idle_timeout;
        let mut passed = Vec::new();
        let mut heard = Instant::now();
        let mut pinged = None;
        loop {
            while let Some(output) = client.poll()? {
                match output {
                    ClientOutput::Send(bytes) => client.write(&bytes).await?,
                    ClientOutput::Event(ClientEvent::Media(item)) => {
                        self.item(item, flowed, &mut passed);
                    }
                    ClientOutput::Event(ClientEvent::Refused { code, description }) => {
                        return Err(client.refused(&code, &description));
                    }
                    ClientOutput::Event(ClientEvent::Ended | ClientEvent::Unpublished) => {
                        return Err(ClientError::Ended { host: client.host.to_string() });
                    }
                    ClientOutput::Event(_) => {}
                }
            }
            skipped::say(&self.input.status, &self.input.flow, &client.host);
            if let Some(writing) = &mut self.writing {
                writing.publisher.take_turns().await;
            }
            let now = Instant::now();
            let due = match (flowed.last, pinged) {
                (Some(last), _) => last + idle,
                (None, Some(pinged)) => pinged + PING,
                (None, None) => heard + PING,
            };
            if now >= due {
                if flowed.last.is_some() {
                    return Err(self.idle(client, idle));
                }
                if pinged.is_some() {
                    return Err(self.idle(client, now.saturating_duration_since(heard)));
                }
                pinged = Some(now);
                client.session.ping(0);
                continue;
            }
            tokio::select! {
                read = client.read() => {
                    read?;
                    heard = Instant::now();
                    pinged = None;
                }
                _reason = kicked(&self.writing) => {
                    return Err(self.idle(client, idle));
                }
                () = tokio::time::sleep_until(due.into()) => {}
            }
        }
    }

    /// For so long no frame came.
    fn idle(&self, client: &Client, time: Duration) -> ClientError {
        let instead = self.omissions.within(time, Instant::now()).map(str::to_owned);
        ClientError::Idle { host: client.host.to_string(), seconds: time.as_secs(), instead }
    }

    /// Hands an item on, unless it came before.
    fn item(&mut self, item: MediaItem, flowed: &mut Flowed, passed: &mut Vec<Passed>) {
        let now = Instant::now();
        if let MediaItem::Skipped { reason, count } = &item {
            self.omissions.skipped(&self.input.status, reason, *count, now);
            return;
        }
        self.omissions.passed(&item, now);
        if matches!(item, MediaItem::Frame(_)) {
            flowed.last = Some(now);
            if flowed.first.replace(flowed.first.unwrap_or(now)).is_none() {
                self.connected();
            }
        }
        self.intake.take(item, |item| self.dedup.push(item, now.into(), passed));
        for passed in passed.drain(..) {
            match passed {
                Passed::Seam(Seam::Continues) if self.writing.is_some() => {
                    self.input.status.reconnects.fetch_add(1, Ordering::Relaxed);
                }
                Passed::Seam(_) => {
                    // The one before is lost first: readers are told in that order.
                    self.writing = None;
                    let kick = Kick::default();
                    let publisher = self.input.stream.publisher(kick.clone());
                    self.writing = Some(Writing { publisher, kick });
                }
                Passed::Item(item) => {
                    if let Some(writing) = &mut self.writing
                        && writing.publisher.item(item, now).is_err()
                    {
                        writing.kick.fire(KickReason::TakenOver);
                    }
                }
            }
        }
    }

    /// The first frame of a connection.
    fn connected(&mut self) {
        let host = &self.config.url.host;
        tracing::info!(flow = %self.input.flow, %host, "pull: receiving");
        self.attempts.connected(format!("pulling from {host}"));
    }
}

/// Waits until the stream wants its publisher gone.
async fn kicked(writing: &Option<Writing>) -> KickReason {
    match writing {
        Some(writing) => writing.kick.fired().await,
        None => std::future::pending().await,
    }
}

/// Does `work`; should the stream want its publisher gone meanwhile, it goes.
async fn unless_kicked<T>(
    writing: &mut Option<Writing>,
    status: &InputStatus,
    work: impl Future<Output = T>,
) -> T {
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            _reason = kicked(writing) => {
                // Without a publisher the stream waits; why there is none is what people want to read.
                let before = status.status.get();
                drop(writing.take());
                status.status.set(before.state, before.trouble);
            }
        }
    }
}

#[cfg(test)]
mod tests;
