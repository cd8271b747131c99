//! The IoT Edge hub, for as long as the process lives: connect, be a good citizen, come back.

mod gets;
mod hold;
mod methods;
mod mqtt;
mod session;
mod tls;
pub(crate) mod token;
mod topics;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use percent_encoding::utf8_percent_encode;
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot, watch};

use crate::log::LevelControl;
use crate::module::Module;
use crate::renewal::{Renewal, wall_seconds};
use crate::service::Event;
use crate::source::EdgeIdentity;
use crate::telemetry::{self, Outbox};
use crate::twin::desired::Desired;
use crate::twin::reported::Reported;
use hold::Hold;
pub(crate) use mqtt::HubAddress;
use mqtt::{Credentials, Mqtt, MqttError};
use session::{End, Session};

/// Life of a token, and how long before its end the connection is renewed.
const TOKEN_SECONDS: u64 = 3600;
const RENEW_SECONDS: u64 = 900;
const FIRST_BACK_OFF: Duration = Duration::from_secs(1);
const MAX_BACK_OFF: Duration = Duration::from_secs(60);
/// edgeHub 1.6.0 and 1.6.1 lose a CONNECT that comes right behind the TLS handshake: later tries leave it this time.
const BEFORE_CONNECT: Duration = Duration::from_millis(250);
/// A connection that held this long, from its subscriptions on, was a good one.
const HELD: Duration = Duration::from_secs(60);
/// Connections closed sooner than this, this often in a row, look like a second process with our name.
const SHORT: Duration = Duration::from_secs(20);
const MANY_SHORT: u32 = 3;
/// The same trouble is said again after this.
const SAY_AGAIN: Duration = Duration::from_secs(600);

/// Why an attempt to connect failed.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error("no token: {0}")]
    Token(String),
    #[error("no trust bundle: {0}")]
    Bundle(String),
    #[error(transparent)]
    Tls(#[from] tls::BundleError),
    #[error(transparent)]
    Mqtt(#[from] MqttError),
    #[error("the session failed inside the module")]
    Panic,
}

/// A whole desired document on its way to the service; only the newest counts.
type Wanted = Option<(Map<String, Value>, Option<i64>)>;

/// What outlives a connection.
struct Hub {
    module: Arc<Module>,
    edge: EdgeIdentity,
    address: HubAddress,
    level: LevelControl,
    desired: Desired,
    reported: Reported,
    wanted: watch::Sender<Wanted>,
    outbox: Arc<Outbox>,
    /// The last trust bundle that could be had.
    bundle: Option<String>,
    is_bundle_old: bool,
    last_request: u64,
    token_seconds: u64,
    hold: Hold,
    /// When the hub confirmed the subscriptions of the connection at hand.
    subscribed: Option<Instant>,
}

/// Lives with the hub until `goodbye`; trouble of any kind only means trying again.
pub(crate) async fn run(
    module: Arc<Module>,
    edge: EdgeIdentity,
    address: HubAddress,
    events: mpsc::Receiver<Event>,
    level: LevelControl,
    goodbye: oneshot::Receiver<()>,
) {
    Hub::new(module, edge, address, events, level).run(goodbye).await;
}

/// Hands the newest document to the service, one at a time.
async fn apply(module: Arc<Module>, mut newest: watch::Receiver<Wanted>) {
    while newest.changed().await.is_ok() {
        let wanted = newest.borrow_and_update().clone();
        if let Some((document, version)) = wanted {
            module.apply(document, version).await;
        }
    }
}

impl Hub {
    /// Starts the tasks that live beside the connection.
    fn new(
        module: Arc<Module>,
        edge: EdgeIdentity,
        address: HubAddress,
        events: mpsc::Receiver<Event>,
        level: LevelControl,
    ) -> Self {
        let outbox = Arc::new(Outbox::default());
        tokio::spawn(telemetry::collect(module.clone(), events, outbox.clone()));
        let (wanted, newest) = watch::channel(None);
        tokio::spawn(apply(module.clone(), newest));
        Self {
            module,
            edge,
            address,
            level,
            desired: Desired::default(),
            reported: Reported::default(),
            wanted,
            outbox,
            bundle: None,
            is_bundle_old: false,
            last_request: 0,
            token_seconds: TOKEN_SECONDS,
            hold: Hold::default(),
            subscribed: None,
        }
    }

    async fn run(mut self, mut goodbye: oneshot::Receiver<()>) {
        let mut trouble = Trouble::default();
        loop {
            let started = Instant::now();
            self.subscribed = None;
            let life = AssertUnwindSafe(self.live(&mut goodbye, trouble.pause())).catch_unwind().await;
            self.reported.disconnected();
            let error = match life.unwrap_or(Err(ConnectError::Panic)) {
                Ok(End::Goodbye) => return,
                // The next connection begins at once and the status stays: renewing is no outage.
                Ok(End::Renewal) => continue,
                Ok(End::Lost(error)) => error.into(),
                Err(error) => error,
            };
            self.module.hub_connected.store(false, Ordering::Relaxed);
            let held = self.subscribed.map_or(Duration::ZERO, |since| since.elapsed());
            let wait = trouble.after(&error, started.elapsed(), held);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = &mut goodbye => return,
            }
        }
    }

    /// One connection from its token to its end.
    async fn live(
        &mut self,
        goodbye: &mut oneshot::Receiver<()>,
        pause: Duration,
    ) -> Result<End, ConnectError> {
        let (mqtt, renewal) = tokio::select! {
            connected = self.connect(pause) => connected?,
            _ = &mut *goodbye => return Ok(End::Goodbye),
        };
        Ok(Session::new(self, mqtt, renewal).run(goodbye).await)
    }

    /// A new token and the trust bundle of this moment for every connection: the old ones may have expired.
    async fn connect(&mut self, pause: Duration) -> Result<(Mqtt, Renewal), ConnectError> {
        let edge = &self.edge;
        match edge.certificates.trust_bundle().await {
            Ok(bundle) => {
                self.bundle = Some(bundle);
                self.is_bundle_old = false;
            }
            Err(error) if self.bundle.is_none() => return Err(ConnectError::Bundle(error)),
            Err(error) if self.is_bundle_old => {
                tracing::debug!("the trust bundle is still not available: {error}")
            }
            Err(error) => {
                self.is_bundle_old = true;
                tracing::warn!("no new trust bundle, using the last one: {error}");
            }
        }
        let connector = tls::connector(self.bundle.as_deref().unwrap_or_default())?;
        let renewal = Renewal::after(Duration::from_secs(self.token_seconds.saturating_sub(RENEW_SECONDS)));
        let expiry = wall_seconds().saturating_add(self.token_seconds);
        let token =
            token::module_token(edge.signer.as_ref(), &edge.iothub, &edge.device, &edge.module, expiry);
        let credentials = Credentials {
            client_id: format!("{}/{}", edge.device, edge.module),
            user_name: user_name(edge, self.module.identity.service, self.module.identity.version),
            password: token.await.map_err(ConnectError::Token)?,
        };
        let mqtt = Mqtt::connect(&self.address, &edge.gateway, connector, credentials, pause).await?;
        Ok((mqtt, renewal))
    }

    /// Unique over the life of the process: a late answer never fits a new request.
    fn request_id(&mut self) -> u64 {
        self.last_request += 1;
        self.last_request
    }
}

/// edgeHub splits this at `/` and counts the parts: what is ours must not hold a raw one.
fn user_name(edge: &EdgeIdentity, service: &str, version: &str) -> String {
    let client = format!("av-services/{service}/{version}");
    let client = utf8_percent_encode(&client, token::ENCODED);
    format!(
        "{}/{}/{}/?api-version=2021-04-12&DeviceClientType={client}",
        edge.iothub, edge.device, edge.module
    )
}

/// How long to wait, and what to say about it.
#[derive(Default)]
struct Trouble {
    tries: u32,
    short: u32,
    said: Option<(String, Instant)>,
}

impl Trouble {
    /// What the next try leaves before its CONNECT.
    fn pause(&self) -> Duration {
        if self.tries == 0 { Duration::ZERO } else { BEFORE_CONNECT }
    }

    /// After a connection that `lived` so long from its beginning, and `held` so long from its subscriptions on.
    fn after(&mut self, error: &ConnectError, lived: Duration, held: Duration) -> Duration {
        let was_connected = matches!(error, ConnectError::Mqtt(MqttError::Closed | MqttError::Broken(_)));
        if held >= HELD {
            *self = Self::default();
        }
        self.short = if was_connected && lived < SHORT { self.short + 1 } else { 0 };
        let back_off = FIRST_BACK_OFF.saturating_mul(1 << self.tries.min(6)).min(MAX_BACK_OFF);
        self.tries += 1;
        let wait = back_off.mul_f64(rand::random_range(0.5..1.0));
        let text = error.to_string();
        // The same trouble may come with other seconds, ports or addresses.
        let gist: String = text.chars().filter(|c| !c.is_ascii_digit()).collect();
        let is_news = self.said.as_ref().is_none_or(|(said, at)| *said != gist || at.elapsed() >= SAY_AGAIN);
        if is_news {
            tracing::warn!(retry_seconds = wait.as_secs_f32().ceil(), "hub: {text}");
            self.said = Some((gist, Instant::now()));
        } else {
            tracing::debug!("hub: {text}");
        }
        if self.short == MANY_SHORT {
            tracing::warn!(
                "the hub closes connections soon after they are made: does another process use this identity?"
            );
        }
        wait
    }
}

#[cfg(test)]
mod tests;
