//! edgeHub as modules see it: identities, twins, methods, routed messages, over MQTT and TLS.
//!
//! This file is what the rest of `local-edge` asks of it; `modules` keeps the state, `session` is one
//! MQTT connection, `login` decides who may connect.

mod calls;
mod events;
mod login;
mod modules;
mod receive;
mod session;
mod store;
pub mod topic;
mod wire;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::fault::Faults;
use crate::journal::Journal;
use crate::route::Route;
use crate::twin::{LimitError, Object, Twin, check_desired};
pub use events::Events;
use modules::{Command, Modules};
pub use store::Identity;
use store::Store;

/// How long a connection may take from TCP to the end of the TLS handshake.
const TLS_HANDSHAKE: Duration = Duration::from_secs(20);
/// A method's payload.
const MAX_METHOD_BYTES: usize = 128 << 10;
/// edgeHub's own default is 100.
const MAX_CONNECTIONS: usize = 100;

/// The names that modules meet.
#[derive(Clone, Debug)]
pub struct Names {
    /// `IOTEDGE_IOTHUBHOSTNAME`: never connected to.
    pub iothub: String,
    /// `IOTEDGE_DEVICEID`.
    pub device: String,
    /// `IOTEDGE_GATEWAYHOSTNAME`: the host that modules connect to.
    pub gateway: String,
}

impl Names {
    /// Names and addresses under which modules reach edgeHub.
    pub fn server(&self) -> [&str; 3] {
        [&self.gateway, "edgeHub", "127.0.0.1"]
    }
}

impl Default for Names {
    fn default() -> Self {
        Self {
            iothub: "local-edge.azure-devices.net".into(),
            device: "local-edge".into(),
            // A name that every program on this machine resolves without help.
            gateway: "localhost".into(),
        }
    }
}

/// The stand-in.
pub struct Hub {
    /// Who is who.
    pub names: Names,
    /// Telemetry that went upstream.
    pub events: Events,
    /// What goes wrong on purpose.
    pub faults: Faults,
    modules: Modules,
    journal: Journal,
    store: Store,
}

/// Why something asked of a module was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HubError {
    /// Neither in the manifest nor made by `local-edge env`.
    #[error("no module {0:?}; there are: {1}")]
    NoModule(String, String),
    /// As IoT Hub: 404.
    #[error("404: {0} is not connected, or answers no methods")]
    NotConnected(String),
    /// As IoT Hub: 504.
    #[error("504: {module} gave no answer within {seconds} s")]
    TimedOut {
        /// Whom.
        module: String,
        /// How long was waited.
        seconds: u64,
    },
    /// The connection ended while the method ran.
    #[error("404: {0} disconnected before it answered")]
    Lost(String),
    /// As IoT Hub: the desired properties as they would be.
    #[error("IoT Hub refuses such desired properties, and nothing was changed: {0}")]
    Desired(#[from] LimitError),
    /// Its name is part of a topic.
    #[error(
        "{0:?} can't be a method's name: 1 to 64 letters, digits and punctuation are allowed, without / + # ?"
    )]
    MethodName(String),
    /// As IoT Hub.
    #[error("the payload is {0} bytes long, IoT Hub accepts at most {MAX_METHOD_BYTES}")]
    Payload(usize),
}

/// What became of a change of desired properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// `$version` of the new document.
    pub version: u64,
    /// Whether a module is connected that hears of it now.
    pub connected: bool,
}

/// An answer to a direct method.
#[derive(Clone, Debug, PartialEq)]
pub struct MethodAnswer {
    /// Its status.
    pub status: u16,
    /// Its body; null where it was empty.
    pub payload: Value,
}

impl Hub {
    /// Takes up what `folder` holds from earlier runs.
    pub fn open(names: Names, folder: PathBuf, journal: Journal) -> Arc<Self> {
        let (store, kept) = Store::open(folder, &journal);
        let modules = Modules::new(kept);
        Arc::new(Self {
            names,
            events: Events::default(),
            faults: Faults::default(),
            modules,
            journal,
            store,
        })
    }

    /// Makes the module known, with an identity, if it is not yet.
    pub fn ensure(&self, module: &str) -> Identity {
        let identity = self.modules.ensure(module);
        self.store.mark(module);
        identity
    }

    /// The manifest's desired properties, at start.
    pub fn deploy(&self, module: &str, section: &Object) {
        self.ensure(module);
        self.modules.change(module, |state| state.twin.deploy(section));
    }

    /// The manifest's routes.
    pub fn set_routes(&self, routes: &BTreeMap<String, Route>) {
        self.modules.set_routes(routes.values().cloned().collect());
    }

    /// A module's twin.
    pub fn twin(&self, module: &str) -> Result<Twin, HubError> {
        self.modules.read(module, |state| state.twin.clone()).ok_or_else(|| self.no_module(module))
    }

    /// What the module reported since it connected to this instance; what an earlier run left is not it.
    pub fn reported_now(&self, module: &str) -> Option<Object> {
        self.modules.read(module, |state| state.reported_now.then(|| state.twin.reported.clone())).flatten()
    }

    /// All modules that there is an identity of.
    pub fn known(&self) -> Vec<String> {
        self.modules.names()
    }

    /// Whether the module has a connection.
    pub fn connected(&self, module: &str) -> bool {
        self.modules.read(module, |state| state.session.is_some()).unwrap_or(false)
    }

    /// Ticks at every report, connection and disconnection.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.modules.changes()
    }

    /// What a change would make of desired properties.
    ///
    /// # Errors
    /// There is no such module.
    pub fn with_desired(&self, module: &str, change: &Object, replace: bool) -> Result<Object, HubError> {
        let mut twin = self.twin(module)?;
        twin.set_desired(change.clone(), replace);
        Ok(twin.desired)
    }

    /// Changes desired properties and tells the module.
    pub fn set_desired(&self, module: &str, change: Object, replace: bool) -> Result<Change, HubError> {
        let done = self.modules.change(module, |state| {
            let mut twin = state.twin.clone();
            let patch = twin.set_desired(change, replace);
            check_desired(&twin.desired)?;
            state.twin = twin;
            let connected = state.send(Command::Desired(patch));
            Ok(Change { version: state.twin.desired_version, connected })
        });
        self.store.mark(module);
        done.ok_or_else(|| self.no_module(module))?
    }

    /// Invokes a direct method and waits for the answer.
    pub async fn invoke(
        &self,
        module: &str,
        name: &str,
        payload: &Value,
        timeout: Duration,
    ) -> Result<MethodAnswer, HubError> {
        let fits = |c: char| c.is_ascii_graphic() && !"/+#?".contains(c);
        if name.is_empty() || name.len() > 64 || !name.chars().all(fits) {
            return Err(HubError::MethodName(name.chars().take(80).collect()));
        }
        let payload = payload.to_string();
        if payload.len() > MAX_METHOD_BYTES {
            return Err(HubError::Payload(payload.len()));
        }
        let (answer, answered) = oneshot::channel();
        let call = Command::Method { name: name.to_owned(), payload, answer };
        let sent =
            self.modules.change(module, |state| state.subscriptions.methods.is_some() && state.send(call));
        match sent {
            None => return Err(self.no_module(module)),
            Some(false) => return Err(HubError::NotConnected(module.to_owned())),
            Some(true) => {}
        }
        match tokio::time::timeout(timeout, answered).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(HubError::Lost(module.to_owned())),
            Err(_) => Err(HubError::TimedOut { module: module.to_owned(), seconds: timeout.as_secs() }),
        }
    }

    /// `EdgeHubConnectionString` of a module.
    pub fn connection_string(&self, module: &str) -> String {
        let key = BASE64.encode(self.ensure(module).key);
        let Names { iothub, device, gateway } = &self.names;
        format!(
            "HostName={iothub};GatewayHostName={gateway};DeviceId={device};ModuleId={module};SharedAccessKey={key}"
        )
    }

    /// Accepts connections until cancelled.
    ///
    /// `tls` is the certificate of this moment: what changes there counts for the next connection.
    pub async fn serve(
        self: Arc<Self>,
        mut listener: TcpListener,
        tls: watch::Receiver<Arc<rustls::ServerConfig>>,
        stop: CancellationToken,
    ) {
        let permits = Arc::new(tokio::sync::Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => return,
                () = self.faults.hub_down.begins() => {
                    let Ok(address) = listener.local_addr() else { return };
                    drop(listener);
                    self.cut_connections();
                    tokio::select! {
                        bound = self.come_back(address) => listener = bound,
                        () = stop.cancelled() => return,
                    }
                    continue;
                }
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    self.journal.say_once(&format!("edgeHub: accepting connections: {error}"));
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (hub, stop) = (Arc::clone(&self), stop.clone());
            let tls = TlsAcceptor::from(Arc::clone(&tls.borrow()));
            tokio::spawn(async move {
                let _permit = permit;
                let _ = stream.set_nodelay(true);
                hub.faults.hang.is_over().await;
                match tokio::time::timeout(TLS_HANDSHAKE, tls.accept(stream)).await {
                    Ok(Ok(stream)) => session::serve(hub, stream, peer, stop).await,
                    Ok(Err(error)) => hub.handshake_failed(peer, &error.to_string()),
                    Err(_) => hub.handshake_failed(peer, "not finished in 20 s"),
                }
            });
        }
    }

    /// At the end of an outage: listens again where it did before.
    async fn come_back(&self, address: SocketAddr) -> TcpListener {
        loop {
            self.faults.hub_down.is_over().await;
            match TcpListener::bind(address).await {
                Ok(listener) => return listener,
                Err(error) => {
                    self.journal.say_once(&format!("edgeHub: listening on {address} again: {error}"));
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Every connection breaks off.
    pub fn cut_connections(&self) {
        self.modules.send_all(|| Command::Cut);
    }

    /// What is subscribed to is forgotten; nobody is told.
    pub fn lose_subscriptions(&self) {
        self.modules.lose_subscriptions();
    }

    /// Every connection is dropped for its token, and the token is good for nothing from now on.
    pub fn expire_tokens(&self) {
        self.modules.send_all(|| Command::ExpireToken);
    }

    fn handshake_failed(&self, peer: SocketAddr, reason: &str) {
        self.journal.note(&format!("edgeHub: TLS with {peer} failed: {reason}"));
    }

    /// Keeps twins on disk, shortly after each change, until cancelled; then once more.
    pub async fn keep(self: Arc<Self>, stop: CancellationToken) {
        self.store.keep(&self.modules, &self.journal, stop).await;
    }

    fn no_module(&self, module: &str) -> HubError {
        HubError::NoModule(module.to_owned(), self.modules.names().join(", "))
    }
}

#[cfg(test)]
pub(crate) mod tests;
