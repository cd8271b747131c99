//! `pull`: we connect to a camera or server and take its stream, for ever.

mod error;
mod forwarder;
mod intake;
mod mending;
mod redirect;
mod source;

#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use retina::client::SessionGroup;

use super::PullConfig;
use super::asked::secret;
use super::redirect::MAX_HOPS;
use crate::config::ConnectUrl;
use crate::endpoint::InputContext;
use crate::ingest::Pulled;
use crate::net::Attempts;
use crate::stream::State;
use error::PullError;
use intake::Intake;
use source::{Peer, Source};

/// A session that is over is taken leave of before the next one is asked for: cameras have room for few.
const FAREWELL: Duration = Duration::from_secs(2);

/// Takes a stream until cancelled.
///
/// A session that breaks is made again after a growing wait, and one that ends for no fault at once. For the time of
/// `idleTimeoutSeconds` the stream does not know.
pub async fn pull(input: InputContext, config: PullConfig) {
    let cancel = input.cancel.clone();
    let group = Arc::new(SessionGroup::default().named(input.path.to_string()));
    let pull = Pull {
        attempts: Attempts::of_input(&input, "pull", config.retry),
        pulled: Pulled::new(&input),
        group: group.clone(),
        moved: None,
        hops: 0,
        mends: false,
        hurried: false,
        input,
        config,
    };
    tokio::select! {
        () = cancel.cancelled() => {}
        () = pull.run() => {}
    }
    // Whoever pulls the same camera next finds it free.
    let _ = tokio::time::timeout(FAREWELL, group.await_teardown()).await;
}

struct Pull {
    input: InputContext,
    config: PullConfig,
    attempts: Attempts,
    pulled: Pulled,
    group: Arc<SessionGroup>,
    /// Where the server sent the session.
    moved: Option<ConnectUrl>,
    hops: usize,
    /// The library does not read all that this camera answers.
    mends: bool,
    /// The session before was made anew without a pause, and nothing flowed on it.
    hurried: bool,
}

impl Pull {
    async fn run(mut self) {
        loop {
            let mut error = self.session().await;
            if matches!(error, PullError::Odd { .. }) && !self.mends {
                self.mends = true;
                let (flow, host) = (&self.input.flow, &self.config.url.host);
                tracing::info!(%flow, %host, "pull: {error}: its answers are put right from now on");
                continue;
            }
            if matches!(error, PullError::Moved { .. }) {
                match self.follow().await {
                    Ok(()) => continue,
                    Err(instead) => error = instead,
                }
            } else {
                // The next attempt starts where the document says.
                self.moved = None;
                self.hops = 0;
            }
            let flowed = self.pulled.disconnected();
            let usual = self.attempts.failed(State::Retrying, error.reason(), &error, flowed);
            if let (PullError::Refused { .. }, Some(secret)) =
                (&error, secret(self.config.credentials.as_ref()))
            {
                self.input.module.net.secrets().refused(secret);
            }
            let (group, wait) = (self.group.clone(), error.wait(usual, flowed, self.hurried));
            self.hurried = wait.is_zero() && !error::is_proof(flowed);
            let rest = async {
                let _ = tokio::time::timeout(FAREWELL, group.await_teardown()).await;
                tokio::time::sleep(wait).await;
            };
            let () = self.pulled.unless_kicked(rest).await;
        }
    }

    async fn peer(&self) -> Result<Peer, PullError> {
        let url = self.moved.as_ref().unwrap_or(&self.config.url);
        source::peer(&self.input.module.net, &self.config, url).await
    }

    /// Finds out where the session is sent.
    async fn follow(&mut self) -> Result<(), PullError> {
        let peer = self.peer().await?;
        self.hops += 1;
        if self.hops > MAX_HOPS {
            let host = std::mem::take(&mut self.moved).map_or(peer.host, |moved| moved.host);
            self.hops = 0;
            return Err(PullError::Lost { host, why: "one leads to the next".into() });
        }
        let to = redirect::target(&self.input.module.net, &peer).await?;
        tracing::info!(flow = %self.input.flow, host = %peer.host, to = %to, "pull: sent elsewhere");
        self.moved = Some(to);
        Ok(())
    }

    /// One session, from dialling to its end.
    async fn session(&mut self) -> PullError {
        let (net, config, group, mends) = (&self.input.module.net, &self.config, &self.group, self.mends);
        let url = self.moved.as_ref().unwrap_or(&config.url);
        // What `content` drops is not asked for.
        let mut content = self.input.stream.content();
        let wanted = *content.borrow_and_update();
        let opening = async {
            let peer = source::peer(net, config, url).await?;
            let source = source::open(net, config, &peer, group, wanted, mends).await?;
            Ok((peer, source))
        };
        let (peer, mut source) = match self.pulled.unless_kicked(opening).await {
            Ok(opened) => opened,
            Err(error) => return error,
        };
        self.input.status.status.set(State::Waiting, None);
        self.pulled.reconnected();
        let mut intake = Intake::new(&source, config.after_loss);
        let error = tokio::select! {
            ended = self.receive(&peer, &mut source, &mut intake) => match ended {
                Ok(never) => match never {},
                Err(error) => error,
            },
            _ = content.changed() => PullError::Content { host: peer.host.clone() },
        };
        let now = Instant::now();
        intake.finish(now, &self.input.status, |item| self.pulled.take(item, now));
        if error.is_end() {
            self.pulled.end();
        }
        error
    }

    async fn receive(
        &mut self,
        peer: &Peer,
        source: &mut Source,
        intake: &mut Intake,
    ) -> Result<Infallible, PullError> {
        let status = self.input.status.clone();
        let idle = self.input.idle_timeout;
        let began = Instant::now();
        intake.opening().into_iter().for_each(|item| self.pulled.take(item, began));
        source.tell(&status);
        loop {
            status.said.say(&self.input.flow, &peer.host);
            let due = self.pulled.last().unwrap_or(began) + idle;
            let item = tokio::select! {
                item = source.session.next() => item,
                _reason = self.pulled.kicked() => return Err(Self::idle(peer, idle)),
                () = tokio::time::sleep_until(due.into()) => return Err(Self::idle(peer, idle)),
            };
            let item = match item {
                Some(item) => item.map_err(|error| PullError::of(&error, peer))?,
                None => return Err(PullError::Ended { host: peer.host.clone() }),
            };
            let now = Instant::now();
            let pulled = &mut self.pulled;
            if intake.take(item, now, &status, |item| pulled.take(item, now)) && self.pulled.frame_came(now) {
                // The publisher that began with it knows nothing of them.
                source.tell(&status);
                self.connected(peer);
            }
        }
    }

    fn idle(peer: &Peer, time: Duration) -> PullError {
        PullError::Idle { host: peer.host.clone(), seconds: time.as_secs() }
    }

    /// The first frame of a session.
    fn connected(&mut self, peer: &Peer) {
        tracing::info!(flow = %self.input.flow, host = %peer.host, "pull: receiving");
        self.attempts.connected(format!("pulling from {}", peer.host));
    }
}
