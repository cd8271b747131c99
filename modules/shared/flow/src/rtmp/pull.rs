//! `pull`: we connect to a server and take its stream, for ever.

use std::time::{Duration, Instant};

use av_rtmp::{ClientEvent, ClientOutput, Limits, MediaItem, Mode};

use super::PullConfig;
use super::client::{self, Client, ClientError};
use super::incoming::Intake;
use super::skipped::{self, Omissions};
use crate::endpoint::InputContext;
use crate::ingest::{Pace, Pulled};
use crate::net::Attempts;
use crate::stream::State;

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
        pulled: Pulled::new(&input),
        input,
        config,
        omissions: Omissions::default(),
        intake: Intake::default(),
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
    pulled: Pulled,
    omissions: Omissions,
    intake: Intake,
}

impl Pull {
    async fn run(mut self) {
        loop {
            let error = self.connection().await;
            let flowed = self.pulled.disconnected();
            let wait = self.attempts.failed(State::Retrying, error.reason(), &error, flowed);
            let () = self.pulled.unless_kicked(tokio::time::sleep(wait)).await;
        }
    }

    /// One connection, from dialling to its end.
    async fn connection(&mut self) -> ClientError {
        let limits = Limits {
            max_message_bytes: self.config.max_message_bytes,
            max_unfinished_after: self.config.max_message_bytes.saturating_mul(2),
            ..Limits::default()
        };
        let PullConfig { url, credentials, tls, .. } = &self.config;
        let opening =
            client::open(&self.input.module.net, url, credentials.as_ref(), tls, Mode::Play, limits);
        let mut client = match self.pulled.unless_kicked(opening).await {
            Ok(client) => client,
            Err(error) => return error,
        };
        self.input.status.status.set(State::Waiting, None);
        self.pulled.reconnected();
        self.intake.reconnected();
        match self.receive(&mut client).await {
            Ok(never) => match never {},
            Err(error) => {
                if let ClientError::Rtmp { source, .. } = &error {
                    skipped::too_long(&self.input.status, source);
                }
                if matches!(error, ClientError::Ended { .. } | ClientError::Idle { .. }) {
                    // Said, or waited for long enough: the stream is told at once.
                    self.pulled.end();
                }
                error
            }
        }
    }

    async fn receive(&mut self, client: &mut Client) -> Result<std::convert::Infallible, ClientError> {
        let idle = self.input.idle_timeout;
        let mut heard = Instant::now();
        let mut pinged = None;
        let mut pace = Pace::new(client.is_plain, heard);
        loop {
            while let Some(output) = client.poll()? {
                match output {
                    ClientOutput::Send(bytes) => client.write(&bytes).await?,
                    ClientOutput::Event(ClientEvent::Media(item)) => {
                        self.item(item);
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
            self.input.status.said.say(&self.input.flow, &client.host);
            self.pulled.take_turns().await;
            let now = Instant::now();
            let due = match (self.pulled.last(), pinged) {
                (Some(last), _) => last + idle,
                (None, Some(pinged)) => pinged + PING,
                (None, None) => heard + PING,
            };
            if now >= due {
                if self.pulled.last().is_some() {
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
                read = client.read_at(&mut pace, self.pulled.patience()) => {
                    read?;
                    heard = Instant::now();
                    pinged = None;
                }
                _reason = self.pulled.kicked() => {
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
    fn item(&mut self, item: MediaItem) {
        let now = Instant::now();
        if let MediaItem::Skipped { reason, count } = &item {
            self.omissions.skipped(&self.input.status, reason, *count, now);
            return;
        }
        self.omissions.passed(&self.input.status, &item, now);
        if matches!(item, MediaItem::Frame(_)) && self.pulled.frame_came(now) {
            self.connected();
        }
        self.intake.take(item, |item| self.pulled.take(item, now));
    }

    /// The first frame of a connection.
    fn connected(&mut self) {
        let host = &self.config.url.host;
        tracing::info!(flow = %self.input.flow, %host, "pull: receiving");
        self.attempts.connected(format!("pulling from {host}"));
    }
}

#[cfg(test)]
mod tests;
