//! A module's process from its first line to its exit code.

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

#[cfg(unix)]
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::desired_file::DesiredFile;
use crate::hub;
use crate::log::{self, LogLevel};
use crate::module::{Identity, Module, new_instance};
use crate::open_files::raise_open_files;
use crate::options::{Command, Options, host_name};
use crate::service::{
    Certificates, ConfigStatus, Context, EventKind, EventSink, Paths, Running, Service, StateDir,
};
use crate::source::Source;
use crate::{http, telemetry};

/// sysexits.h: command line usage error.
const USAGE: u8 = 64;
/// sysexits.h: internal software error.
const SOFTWARE: u8 = 70;
/// sysexits.h: configuration error.
const CONFIG: u8 = 78;

const EVENT_QUEUE: usize = 1024;
/// What the service may take to end its flows; the hub's goodbye and the log's last lines come after it,
/// within the 8 s that `docs/standalone.md` promises and the 10 s that Docker gives.
const SHUTDOWN: Duration = Duration::from_millis(6500);
const GOODBYE: Duration = Duration::from_secs(1);

/// Runs a module with the process's own arguments, until a signal ends it.
///
/// Exit codes: 0 after SIGTERM or SIGINT, 64 usage, 70 internal error, 78 a standalone configuration that
/// can't be used at start.
pub fn run<S: Service>(name: &'static str, version: &'static str, service: impl FnOnce() -> S) -> ExitCode {
    run_from(name, version, std::env::args_os().skip(1), service)
}

/// As [`run`], with these arguments (the program's name left out).
pub fn run_from<S: Service>(
    name: &'static str,
    version: &'static str,
    arguments: impl Iterator<Item = OsString>,
    service: impl FnOnce() -> S,
) -> ExitCode {
    let options = match Options::parse_from_arguments(name, version, arguments) {
        Ok(options) => options,
        Err(error) => {
            // Help and version come this way too, and are no error.
            let code = if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
            let _ = error.print();
            return code;
        }
    };
    if let Some(Command::Healthcheck { ready }) = options.command {
        return healthcheck(&options, ready);
    }
    let logs = log::install(name, options.log_format);
    let source = match Source::find(&options, |name| std::env::var(name).ok()) {
        Ok(source) => source,
        Err(error) => {
            tracing::error!("{error}");
            drop(logs);
            return ExitCode::from(USAGE);
        }
    };
    raise_open_files();
    // Fails only where another module of this process was first, which chose the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!("can't start threads: {error}");
            return ExitCode::from(SOFTWARE);
        }
    };
    let level = logs.level.clone();
    let code = runtime.block_on(async {
        let service = Box::new(service());
        let main = tokio::spawn(live(name, version, options, source, service, level));
        main.await.unwrap_or(SOFTWARE)
    });
    runtime.shutdown_timeout(Duration::from_millis(200));
    drop(logs);
    ExitCode::from(code)
}

fn healthcheck(options: &Options, ready: bool) -> ExitCode {
    let (address, path) = (options.metrics_target(), if ready { "/readyz" } else { "/healthz" });
    match http::probe::answers_ok(address, path) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("http://{address}{path} does not answer 200");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("http://{address}{path}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A variable of the environment; an empty one is none.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

async fn live(
    name: &'static str,
    version: &'static str,
    options: Options,
    source: Source,
    service: Box<impl Service>,
    level: LogLevel,
) -> u8 {
    let mut stop = match Stop::listen() {
        Ok(stop) => stop,
        Err(error) => {
            tracing::error!("signals can't be handled: {error}");
            return SOFTWARE;
        }
    };
    let (events, event_queue) = EventSink::channel(EVENT_QUEUE);
    let device = options
        .device
        .clone()
        .filter(|device| !device.is_empty())
        .or_else(|| source.device().map(str::to_owned))
        .or_else(|| variable("IOTEDGE_DEVICEID"))
        .unwrap_or_else(host_name);
    let module = Arc::new(Module::new(
        Identity {
            service: name,
            version,
            module: source.module().unwrap_or(name).to_owned(),
            device: device.clone(),
            iothub: source.iothub().unwrap_or_default().to_owned(),
            instance: new_instance(),
        },
        events.clone(),
    ));
    let build = crate::module::build();
    tracing::info!(version, build, "{name} starts; its configuration comes from {source}");
    tokio::spawn(http::serve(module.clone(), options.metrics_listener()));
    let certificates = Certificates { source: source.certificates() };
    let context = Context {
        service: name.to_owned(),
        module: module.identity.module.clone(),
        device,
        gateway_host: source
            .gateway_host()
            .map(str::to_owned)
            .or_else(|| variable("IOTEDGE_GATEWAYHOSTNAME")),
        state: StateDir::new(
            options.state_dir.clone().unwrap_or_else(|| std::path::Path::new("/var/lib").join(name)),
        ),
        bind: options.bind.0,
        hosts: Arc::new(options.hosts.clone()),
        paths: Paths::new(options.paths.0.clone()),
        certificates,
        events,
    };
    let running = service.start(context);
    module.set_running(running.clone());
    module.emit(EventKind::ModuleStarted, None, format!("{name} {version} ({build})"));
    let level = log::control(level, module.settings());

    let restored = tokio::select! {
        restored = restore(&running) => restored,
        () = stop.asked() => return end(&module, &running, None).await,
    };
    if restored {
        module.set_ready();
        tracing::info!("running the last good configuration");
    }
    let hub = match source {
        Source::File(path) => {
            tokio::spawn(telemetry::discard(event_queue));
            let mut file = DesiredFile::new(path);
            let loaded = tokio::select! {
                loaded = file.load(&module) => loaded,
                () = stop.asked() => return end(&module, &running, None).await,
            };
            match loaded {
                Err(error) if restored => module.reject(&error.to_string()),
                Err(error) => {
                    tracing::error!("{error}; there is no last good configuration either");
                    return stop_after_fault(&module, &running).await;
                }
                Ok(outcome)
                    if outcome.usable == 0
                        && outcome.kept == 0
                        && outcome.status == ConfigStatus::Rejected
                        && !restored =>
                {
                    tracing::error!("nothing in the configuration is usable, and there is no last good one");
                    return stop_after_fault(&module, &running).await;
                }
                Ok(_) => {}
            }
            tokio::spawn(file.watch(module.clone()));
            None
        }
        Source::Edge(edge) => {
            let (goodbye, asked) = oneshot::channel();
            let task = tokio::spawn(hub::run(
                module.clone(),
                edge,
                options.hub_address(),
                event_queue,
                level,
                asked,
            ));
            Some(Hub { goodbye, task })
        }
    };
    stop.asked().await;
    end(&module, &running, hub).await
}

/// A restore that panics is one that found nothing.
async fn restore(running: &Arc<dyn Running>) -> bool {
    let running = running.clone();
    tokio::spawn(async move { running.restore().await }).await.unwrap_or(false)
}

async fn stop_after_fault(module: &Module, running: &Arc<dyn Running>) -> u8 {
    end(module, running, None).await;
    CONFIG
}

struct Hub {
    /// Closed: send what is left and disconnect.
    goodbye: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

async fn end(module: &Module, running: &Arc<dyn Running>, hub: Option<Hub>) -> u8 {
    tracing::info!("stopping");
    module.set_stopping();
    let service = running.clone();
    let ending = tokio::spawn(async move { service.shutdown().await });
    if tokio::time::timeout(SHUTDOWN, ending).await.is_err() {
        tracing::warn!("some flows did not end within {} s", SHUTDOWN.as_secs_f32());
    }
    if let Some(hub) = hub {
        drop(hub.goodbye);
        let _ = tokio::time::timeout(GOODBYE, hub.task).await;
    }
    tracing::info!("stopped");
    0
}

/// Numbers of signals.
const INTERRUPT: i32 = 2;
#[cfg(unix)]
const TERMINATE: i32 = 15;

/// SIGTERM and SIGINT. As the first process of a container a module must handle them itself.
struct Stop {
    asked: oneshot::Receiver<()>,
    is_asked: bool,
}

impl Stop {
    fn listen() -> std::io::Result<Self> {
        let mut signals = Signals::listen()?;
        let (ask, asked) = oneshot::channel();
        tokio::spawn(async move {
            let mut ask = Some(ask);
            let mut interrupted = false;
            loop {
                let is_interrupt = signals.next().await == INTERRUPT;
                match ask.take() {
                    Some(ask) => drop(ask.send(())),
                    // Who presses Ctrl-C twice does not want to wait; the code is the shell's for this signal.
                    None if is_interrupt && interrupted => std::process::exit(128 + INTERRUPT),
                    // Container engines and init programs send SIGTERM more than once and mean the same.
                    None => tracing::info!("already stopping; a second Ctrl-C ends the process at once"),
                }
                interrupted |= is_interrupt;
            }
        });
        Ok(Self { asked, is_asked: false })
    }

    async fn asked(&mut self) {
        if !self.is_asked {
            let _ = (&mut self.asked).await;
            self.is_asked = true;
        }
    }
}

/// What asks a process to end.
#[cfg(unix)]
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The number of the next one.
    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.terminate.recv() => TERMINATE,
            _ = self.interrupt.recv() => INTERRUPT,
        }
    }
}

/// Without Unix there is Ctrl-C.
#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> i32 {
        match tokio::signal::ctrl_c().await {
            Ok(()) => INTERRUPT,
            Err(_) => std::future::pending().await,
        }
    }
}
