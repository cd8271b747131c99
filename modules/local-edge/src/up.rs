//! `local-edge up`: from the manifest to everything running, until Ctrl-C.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::addresses::{AddressError, Addresses};
use crate::authority::{Authority, CertificateError};
use crate::control;
use crate::device_rules;
use crate::hub::{Hub, Names};
use crate::instance::{Instance, OWN_LOG, Parts};
use crate::journal::Journal;
use crate::logs::Log;
use crate::manifest::{Manifest, ManifestError};
use crate::screen::Screen;
use crate::state_dir::{StateDir, StateDirError, bind_socket};
use crate::variables::{EnvFileError, Variables};

/// Our own log file is begun anew at this size.
const LOG_BYTES: u64 = 5 << 20;
/// Where modules reach edgeHub, and where they call it by HTTPS; SDKs know no others.
const MQTT_PORT: u16 = 8883;
const HTTPS_PORT: u16 = 443;
/// What a module's report looks like is looked at again at least that often.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What `up` takes.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The deployment manifest.
    pub manifest: PathBuf,
    /// The env file; without one `edge-config/local.env` beside the manifest, if it is there.
    pub env: Option<PathBuf>,
    /// Where things are kept.
    pub state_dir: Option<PathBuf>,
    /// The hub's.
    pub port: u16,
    /// What would fail on a device is an error, modules are started again at edgeAgent's pace, and none gets anything
    /// of the desktop's session.
    pub device_rules: bool,
}

/// Why nothing could start.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// The env file.
    #[error(transparent)]
    Env(#[from] EnvFileError),
    /// The manifest.
    #[error("{path}: {source}")]
    Manifest {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ManifestError,
    },
    /// What would fail on a device, where its rules are to be kept.
    #[error("{path}: on a device this fails (--device-rules):{}", .found.iter().map(|text| format!("\n  {text}")).collect::<String>())]
    DeviceRules {
        /// The file.
        path: PathBuf,
        /// Each sentence.
        found: Vec<String>,
    },
    /// The state dir.
    #[error(transparent)]
    State(#[from] StateDirError),
    /// Certificates.
    #[error(transparent)]
    Certificates(#[from] CertificateError),
    /// A module's address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The hub's port.
    #[error(
        "127.0.0.1:{port} {}; stop what uses it or choose another port for edgeHub with --port",
        taken(source)
    )]
    Port {
        /// Which.
        port: u16,
        /// What the system said.
        source: std::io::Error,
    },
    /// Signals.
    #[error("signals can't be received: {0}")]
    Signals(std::io::Error),
    /// Every module of the manifest was left out.
    #[error("none of the manifest's modules could be started")]
    Nothing,
}

impl UpError {
    /// 78 (`EX_CONFIG`) where a file has to be mended, otherwise 1.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Env(_) | Self::Manifest { .. } | Self::DeviceRules { .. } => ExitCode::from(78),
            _ => ExitCode::FAILURE,
        }
    }
}

/// What is wrong with a port, as the rest of a sentence.
pub(crate) fn taken(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => "is taken".into(),
        _ => format!("can't be listened on: {error}"),
    }
}

/// Runs until SIGINT or SIGTERM.
pub async fn up(settings: Settings) -> Result<(), UpError> {
    // Each connection that is forwarded to a module is two.
    av_edge::raise_open_files();
    let beside = settings.manifest.parent().map(|folder| folder.join("edge-config/local.env"));
    let env_path = settings.env.clone().or(beside).unwrap_or_else(|| "edge-config/local.env".into());
    let variables = Variables::load(&env_path, settings.env.is_some())?;
    let manifest = Manifest::load(&settings.manifest, &variables)
        .map_err(|source| UpError::Manifest { path: settings.manifest.clone(), source })?;

    let found = device_rules::check(&manifest, allowed_bind_sources(&settings.manifest).as_deref());
    if settings.device_rules && !found.is_empty() {
        return Err(UpError::DeviceRules { path: settings.manifest, found });
    }

    let state = StateDir::locate(settings.state_dir)?;
    let _lock = state.open()?;
    let control_socket = state.control_socket()?;
    let listener = TcpListener::bind(("127.0.0.1", settings.port))
        .await
        .map_err(|source| UpError::Port { port: settings.port, source })?;
    let port = listener.local_addr().map_or(settings.port, |address| address.port());
    let mut interrupt = signal(SignalKind::interrupt()).map_err(UpError::Signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(UpError::Signals)?;

    let log_path = state.log(OWN_LOG);
    let own_log = Log::open(&log_path, LOG_BYTES)
        .map_err(|source| StateDirError::Io { path: log_path.clone(), source })?;
    let own_log = Arc::new(own_log);
    let (console, messages) = mpsc::channel(256);
    let journal = Journal::new(Arc::clone(&own_log), Some(console));
    for note in &manifest.notes {
        journal.say(note);
    }
    for text in &found {
        journal.say_once(&device_rules::warning(text));
    }

    let authority = Arc::new(Authority::open(&state.certificates())?);
    let names = Names::default();
    let tls = authority.server_config(&names.server())?;
    let (tls, served_tls) = watch::channel(tls);
    let hub = Hub::open(names, state.twins(), journal.clone());
    hub.set_routes(&manifest.routes);
    for module in &manifest.modules {
        hub.ensure(&module.name);
    }
    for (module, desired) in &manifest.desired {
        hub.deploy(module, desired);
    }
    let deployed = manifest.clone();

    let mut addresses = Addresses::default();
    let mut modules = Vec::new();
    for module in manifest.modules {
        modules.push((module, addresses.next().await?));
    }
    let count = modules.len();
    // The hub and all servers end after the modules, which report to the last.
    let stop = CancellationToken::new();
    let parts = Parts {
        state,
        hub: Arc::clone(&hub),
        authority,
        tls,
        journal: journal.clone(),
        own_log,
        hub_port: port,
        env_file: variables.shown().to_owned(),
        manifest: deployed,
        device_rules: settings.device_rules,
        stop: stop.clone(),
    };
    let instance = Arc::new(Instance::new(parts, modules)?);
    let keeper = tokio::spawn(Arc::clone(&hub).keep(stop.clone()));
    // Whoever knows no other port for HTTPS knows no other for MQTT.
    if port == MQTT_PORT {
        match TcpListener::bind(("127.0.0.1", HTTPS_PORT)).await {
            Ok(https) => {
                tokio::spawn(Arc::clone(&hub).serve_https(https, served_tls.clone(), stop.clone()));
            }
            // Few modules call others, and an ordinary user may not listen there.
            Err(error) => journal.say(&format!(
                "modules can't call methods of other modules: 127.0.0.1:{HTTPS_PORT}, the one port that SDKs call, {}",
                taken(&error)
            )),
        }
    }
    tokio::spawn(Arc::clone(&hub).serve(listener, served_tls, stop.clone()));
    let control = bind_socket(&control_socket)
        .map_err(|source| StateDirError::Io { path: control_socket.clone(), source })?;
    tokio::spawn(control::serve(Arc::clone(&instance), control, stop.clone()));

    let starting = match instance.to_start().as_slice() {
        [] => "no module to start".to_owned(),
        names => format!("starting {}", names.join(", ")),
    };
    journal.say(&format!("edgeHub listens on 127.0.0.1:{port}; {starting}"));
    let (show, shown) = watch::channel(instance.view());
    let screen = tokio::spawn(Screen::new(shown, messages, program()).show(stop.clone()));
    let looking = tokio::spawn(look(Arc::clone(&instance), show));
    let (failed, ended) = tokio::select! {
        started = instance.start() => (count > 0 && started == 0, false),
        _ = interrupt.recv() => (false, true),
        _ = terminate.recv() => (false, true),
    };
    if !failed {
        if !ended {
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        }
        looking.abort();
        journal.say("stopping");
        tokio::select! {
            () = instance.stop() => {}
            // Whoever asks twice means it: processes that are left are killed with us.
            _ = interrupt.recv() => {}
        }
    }
    stop.cancel();
    let _ = keeper.await;
    let _ = screen.await;
    // A socket that nobody answers would only puzzle the next asker.
    let _ = std::fs::remove_file(&control_socket);
    if failed { Err(UpError::Nothing) } else { Ok(()) }
}

/// Looks at everything whenever the hub heard something or a process changed.
async fn look(instance: Arc<Instance>, show: watch::Sender<crate::view::View>) {
    let mut hub = instance.hub.changes();
    loop {
        // Anew each time: modules start one after the other.
        let mut processes = instance.process_changes();
        let view = instance.view();
        show.send_if_modified(|shown| {
            let changed = *shown != view;
            *shown = view;
            changed
        });
        let changed = processes.iter_mut().map(|process| Box::pin(process.changed()));
        let any_process = async {
            // Of none, none ever changes.
            match changed.len() {
                0 => std::future::pending().await,
                _ => drop(futures_util::future::select_all(changed).await),
            }
        };
        tokio::select! {
            _ = hub.changed() => {}
            () = any_process => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
}

/// `allowed_bind_sources` of the device's configuration beside the manifest, if there is one.
fn allowed_bind_sources(manifest: &Path) -> Option<Vec<PathBuf>> {
    let config = manifest.parent()?.join("edge-config/config.toml");
    device_rules::allowed_bind_sources(&std::fs::read_to_string(config).ok()?)
}

/// How this program is called from here, for texts.
fn program() -> String {
    let own = std::env::current_exe().unwrap_or_else(|_| "local-edge".into());
    let here = std::env::current_dir().ok();
    let short = here.and_then(|here| own.strip_prefix(here).ok().map(PathBuf::from));
    short.unwrap_or(own).display().to_string()
}
