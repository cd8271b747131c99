//! A running `local-edge`: the hub, and each module with what was made for it.

mod agent;
mod environment;
mod running;
mod shown;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::addresses::Address;
use crate::authority::Authority;
use crate::device_rules;
use crate::fault::Fault;
use crate::forward::forward;
use crate::hub::Hub;
use crate::journal::Journal;
use crate::logs::Log;
use crate::manifest::{Manifest, Module, Protocol};
use crate::process::{ProcessState, ProcessStatus};
use crate::services;
use crate::state_dir::{StateDir, StateDirError, bind_socket};
use crate::twin::Object;
use crate::workload::Workload;
pub use agent::AGENT;
use running::Running;

/// Under this name `logs` has what `local-edge` itself says.
pub const OWN_LOG: &str = "local-edge";

/// Everything that runs.
pub struct Instance {
    /// What modules connect to.
    pub hub: Arc<Hub>,
    state: StateDir,
    authority: Arc<Authority>,
    tls: watch::Sender<Arc<rustls::ServerConfig>>,
    journal: Journal,
    own_log: Arc<Log>,
    hub_port: u16,
    env_file: String,
    manifest: Manifest,
    device_rules: bool,
    modules: Arc<Vec<Running>>,
    /// Modules that have a workload socket.
    sockets: Mutex<Vec<String>>,
    stop: CancellationToken,
}

/// edgeAgent starts modules in their order without waiting. Here each group gets this long to have its
/// configuration before the next starts, so that nobody's first try meets a closed door.
const HEAD_START: Duration = Duration::from_secs(2);

/// How long edgeHub is away when everything restarts: a container of its size takes so long to start.
const HUB_RESTART: u64 = 10;

/// What an instance is made of.
pub struct Parts {
    /// Where it keeps things.
    pub state: StateDir,
    /// The hub.
    pub hub: Arc<Hub>,
    /// Certificates.
    pub authority: Arc<Authority>,
    /// The hub's certificate.
    pub tls: watch::Sender<Arc<rustls::ServerConfig>>,
    /// What it says.
    pub journal: Journal,
    /// Where the journal writes.
    pub own_log: Arc<Log>,
    /// What the hub listens on.
    pub hub_port: u16,
    /// Named in texts about variables.
    pub env_file: String,
    /// What was deployed.
    pub manifest: Manifest,
    /// Modules are started again as seldom as on a device, and get nothing of this machine's.
    pub device_rules: bool,
    /// Ends everything but the processes.
    pub stop: CancellationToken,
}

impl Instance {
    /// With the manifest's modules, each with its address; nothing runs yet.
    pub fn new(parts: Parts, modules: Vec<(Module, Address)>) -> Result<Self, StateDirError> {
        let Parts {
            state,
            hub,
            authority,
            tls,
            journal,
            own_log,
            hub_port,
            env_file,
            manifest,
            device_rules,
            stop,
        } = parts;
        let mut hosts: Vec<String> =
            modules.iter().map(|(module, address)| format!("{}={}", module.name, address.ip)).collect();
        hosts.push(format!("{}=127.0.0.1", hub.names.gateway));
        hosts.push("edgeHub=127.0.0.1".into());
        let sockets = Mutex::default();
        let mut instance = Self {
            hub,
            state,
            authority,
            tls,
            journal,
            own_log,
            hub_port,
            env_file,
            manifest,
            device_rules,
            modules: Arc::default(),
            sockets,
            stop,
        };
        let mut running = Vec::new();
        for (spec, address) in modules {
            let path = instance.state.log(&spec.name);
            let log = Log::open(&path, spec.log_bytes).unwrap_or_else(|error| {
                instance.journal.say(&format!("{}: {error}; its log is kept in memory only", path.display()));
                Log::in_memory()
            });
            let env = instance.module_environment(&spec, address.ip, &hosts)?;
            running.push(Running::new(spec, address, Arc::new(log), env, device_rules));
        }
        instance.modules = Arc::new(running);
        Ok(instance)
    }

    /// The modules that [`start`](Self::start) will start, in order.
    pub fn to_start(&self) -> Vec<&str> {
        let meant = self.modules.iter().filter(|module| module.absence.is_none() && module.spec.running);
        meant.map(|module| module.spec.name.as_str()).collect()
    }

    /// Starts everything. Returns how many modules are as they should be: started, meant to be stopped, or not run
    /// here at all.
    pub async fn start(&self) -> usize {
        let mut started = 0;
        let mut order = None;
        for (index, module) in self.modules.iter().enumerate() {
            if order.is_some_and(|order| order != module.spec.startup_order) {
                self.wait_for_first(index).await;
            }
            order = Some(module.spec.startup_order);
            let name = &module.spec.name;
            if let Err(error) = self.serve_workload(name) {
                self.journal.say(&format!("{name}: its workload API can't be served: {error}"));
                continue;
            }
            match &module.absence {
                Some(ProcessState::NotRunHere { image: Some(image) }) => {
                    let service = &module.spec.service;
                    self.journal.say(&match services::needs_building(service) {
                        Some(how) => format!("{name} is not run here: {how}"),
                        None => format!(
                            "{name}: {image} is not run here: there is no program {service:?} beside \
                             local-edge; `local-edge env {name}` makes any program that module"
                        ),
                    });
                }
                Some(ProcessState::Failed { error }) => {
                    self.journal.say(&format!("{name} is left out: {error}"));
                    continue;
                }
                _ => {
                    self.forward_ports(module).await;
                    if module.spec.running {
                        let service = &module.spec.service;
                        self.journal.note(&format!("starting {name} ({service}) on {}", module.address.ip));
                    }
                    module.begin();
                }
            }
            started += 1;
        }
        started
    }

    /// Until those of the first `count` modules that run have reported a configuration.
    async fn wait_for_first(&self, count: usize) {
        let mut changes = self.hub.changes();
        let ready = async {
            loop {
                changes.borrow_and_update();
                let waiting = self.modules.iter().take(count).any(|module| {
                    let process = module.process.lock().unwrap_or_else(PoisonError::into_inner);
                    let reported = self.hub.reported_now(&module.spec.name);
                    let ready = reported.is_some_and(|reported| reported.contains_key("config"));
                    module.spec.running && process.is_some() && !ready
                });
                if !waiting || changes.changed().await.is_err() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(HEAD_START, ready).await;
    }

    /// Stops all processes, each as a container is stopped, at the same time.
    pub async fn stop(&self) {
        let mut stopping = Vec::new();
        for module in self.modules.iter() {
            let process = module.process.lock().unwrap_or_else(PoisonError::into_inner).take();
            stopping.extend(process.map(|process| tokio::spawn(process.stop())));
        }
        for stopped in stopping {
            let _ = stopped.await;
        }
    }

    /// Streams of changes to any process, for whoever shows them.
    pub fn process_changes(&self) -> Vec<watch::Receiver<ProcessStatus>> {
        let status = |module: &Running| {
            let process = module.process.lock().unwrap_or_else(PoisonError::into_inner);
            let mut status = process.as_ref()?.status.clone();
            // A clone remembers what its original has seen, which is nothing.
            status.mark_unchanged();
            Some(status)
        };
        self.modules.iter().filter_map(status).collect()
    }

    /// A module's log, or all of them and our own.
    pub fn logs(&self, module: Option<&str>) -> Result<Vec<(String, Arc<Log>)>, String> {
        let all = || self.modules.iter().map(|module| (module.spec.name.clone(), Arc::clone(&module.log)));
        let own = (OWN_LOG.to_owned(), Arc::clone(&self.own_log));
        match module {
            None => Ok(all().chain([own]).collect()),
            Some(OWN_LOG) => Ok(vec![own]),
            Some(name) => match all().find(|(other, _)| other == name) {
                Some(found) => Ok(vec![found]),
                None => Err(self.unknown(name)),
            },
        }
    }

    fn unknown(&self, name: &str) -> String {
        let names: Vec<&str> = self.modules.iter().map(|module| module.spec.name.as_str()).collect();
        format!("no module {name:?} in the manifest; there are: {}", names.join(", "))
    }

    /// Says what of a module's desired properties would fail on a device, each once; an error where the rules of a
    /// device are to be kept.
    pub fn look_at_device_rules(&self, name: &str, desired: &Object) -> Result<(), String> {
        let spec = self.modules.iter().map(|module| &module.spec).find(|spec| spec.name == name);
        let Some(spec) = spec else { return Ok(()) };
        let found = device_rules::check_desired(spec, desired, &self.manifest);
        let found: Vec<String> = found.iter().map(|text| device_rules::warning(text)).collect();
        found.iter().for_each(|text| self.journal.say_once(text));
        if self.device_rules && !found.is_empty() { Err(found.join("\n")) } else { Ok(()) }
    }

    /// Stops and starts a module's process.
    pub fn restart(&self, name: &str) -> Result<(), String> {
        let module = self.modules.iter().find(|module| module.spec.name == name);
        let module = module.ok_or_else(|| self.unknown(name))?;
        let process = module.process.lock().unwrap_or_else(PoisonError::into_inner);
        match (process.as_ref(), &module.absence) {
            (Some(process), _) => {
                process.restart();
                Ok(())
            }
            (None, Some(ProcessState::NotRunHere { image: Some(image) })) => {
                Err(format!("{name}: {image} is not run here"))
            }
            (None, Some(ProcessState::Failed { error })) => Err(format!("{name}: {error}")),
            (None, _) => Err(format!("{name} is not started yet")),
        }
    }

    /// Makes something go wrong.
    pub async fn fault(&self, fault: Fault) -> Result<(), String> {
        self.journal.note(&format!("fault: {fault:?}"));
        self.hub.faults.set(fault);
        match fault {
            Fault::Cut { in_get: false } => self.hub.cut_connections(),
            Fault::ExpireTokens => self.hub.expire_tokens(),
            Fault::RotateCertificate => {
                let (authority, names) = (Arc::clone(&self.authority), self.hub.names.clone());
                // Making an RSA key takes its time.
                let rotated = tokio::task::spawn_blocking(move || {
                    authority.rotate()?;
                    authority.server_config(&names.server())
                });
                let config = rotated.await.map_err(|error| error.to_string())?;
                self.tls.send_replace(config.map_err(|error| error.to_string())?);
                // edgeHub changes its certificate by starting anew.
                self.hub.cut_connections();
            }
            Fault::LostSubscriptions => self.hub.lose_subscriptions(),
            Fault::RestartAll => {
                self.hub.faults.set(Fault::HubDown { seconds: HUB_RESTART });
                for module in self.modules.iter() {
                    let process = module.process.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(process) = process.as_ref() {
                        process.restart();
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Once a module.
    fn serve_workload(&self, name: &str) -> Result<(), StateDirError> {
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        if sockets.iter().any(|served| served == name) {
            return Ok(());
        }
        let path = self.state.workload_socket(name)?;
        let listener = bind_socket(&path).map_err(|source| StateDirError::Io { path, source })?;
        self.hub.ensure(name);
        let workload = Workload::new(name, Arc::clone(&self.hub), Arc::clone(&self.authority), self.roster());
        tokio::spawn(workload.serve(listener, self.stop.clone()));
        sockets.push(name.to_owned());
        Ok(())
    }

    async fn forward_ports(&self, module: &Running) {
        let (name, ip) = (&module.spec.name, module.address.ip);
        for port in &module.spec.ports {
            if port.protocol == Protocol::Udp {
                self.journal.say(&format!(
                    "{name}: UDP port {} is not forwarded; clients on this machine use {ip}:{0}",
                    port.container
                ));
                continue;
            }
            match TcpListener::bind(("127.0.0.1", port.host)).await {
                Ok(listener) => {
                    let to = SocketAddr::new(ip, port.container);
                    tokio::spawn(forward(listener, to, self.stop.clone()));
                    module.forwarded.lock().unwrap_or_else(PoisonError::into_inner).push(port.host);
                }
                Err(error) => self.journal.say(&self.taken(name, port, ip, &error)),
            }
        }
    }

    fn taken(
        &self,
        module: &str,
        port: &crate::manifest::Port,
        ip: IpAddr,
        error: &std::io::Error,
    ) -> String {
        let host = port.host;
        let reason = crate::up::taken(error);
        let fix = match &port.variable {
            Some(variable) => format!("set {variable}=... in {}", self.env_file),
            None => format!("change HostPort of {module} in the manifest"),
        };
        format!(
            "127.0.0.1:{host} {reason}; stop what uses it or {fix} ({module} is reached at {ip}:{} meanwhile)",
            port.container
        )
    }
}

#[cfg(test)]
mod tests;
