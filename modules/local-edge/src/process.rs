//! A module's process: started, watched, started again, stopped.

mod status;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::logs::Log;
use crate::manifest::RestartPolicy;
pub use status::{Exit, ProcessState, ProcessStatus};
use status::{describe, now};

/// How long a module that ended waits before it is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    first: Duration,
    /// Doubled each time, up to this.
    longest: Duration,
    /// Running so long makes up for everything before.
    cleared_after: Duration,
    /// Whether it is left alone after too many times.
    gives_up: bool,
}

impl Pace {
    /// edgeAgent's (Azure/iotedge, `Core/RestartPolicyManager.cs` and `appsettings_agent.json`).
    pub const DEVICE: Self = Self {
        first: Duration::from_secs(10),
        longest: Duration::from_secs(300),
        cleared_after: Duration::from_secs(600),
        gives_up: true,
    };
    /// At a desk that is too slow.
    pub const DESK: Self = Self {
        first: Duration::from_millis(500),
        longest: Duration::from_secs(30),
        cleared_after: Duration::from_secs(60),
        gives_up: false,
    };

    /// How long the next start waits after so many in a row that were in vain.
    fn delay(&self, failures: u32) -> Duration {
        self.first.saturating_mul(1 << failures.min(16)).min(self.longest)
    }
}

const AGENT_GIVES_UP: u32 = 20;
/// After a process ended, what it wrote last is read for so long; a grandchild may hold the pipe open.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// What Docker gives every container.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What to start.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The program.
    pub program: PathBuf,
    /// Without the program's own name.
    pub args: Vec<OsString>,
    /// All of its environment, but for `PATH`: a container has nothing of this machine's.
    pub env: Vec<(OsString, OsString)>,
    /// When to start it again.
    pub restart: RestartPolicy,
    /// How soon.
    pub pace: Pace,
    /// Between SIGTERM and SIGKILL.
    pub stop_timeout: Duration,
}

/// A module's process under watch.
pub struct Supervised {
    /// What it does.
    pub status: watch::Receiver<ProcessStatus>,
    restart: mpsc::Sender<()>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Supervised {
    /// Begins to watch; `running: false` waits for [`restart`](Self::restart).
    pub fn begin(launch: Launch, log: Arc<Log>, running: bool) -> Self {
        let state = if running { ProcessState::Starting } else { ProcessState::Stopped };
        let (publish, status) = watch::channel(ProcessStatus::from(state));
        let (restart, requests) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let watcher = Watcher { launch, log, publish, requests, stop: stop.clone(), restarts: 0 };
        Self { status, restart, stop, task: tokio::spawn(watcher.run(running)) }
    }

    /// Stops the process as a container is stopped, and starts it at once.
    pub fn restart(&self) {
        // One that waits already is as good as two.
        let _ = self.restart.try_send(());
    }

    /// SIGTERM, and SIGKILL when the time is over.
    pub async fn stop(self) {
        self.stop.cancel();
        let _ = self.task.await;
    }
}

struct Watcher {
    launch: Launch,
    log: Arc<Log>,
    publish: watch::Sender<ProcessStatus>,
    requests: mpsc::Receiver<()>,
    stop: CancellationToken,
    restarts: u32,
}

/// What follows after a process ended.
enum Next {
    Start,
    Stop,
}

impl Watcher {
    async fn run(mut self, running: bool) {
        if !running && matches!(self.idle().await, Next::Stop) {
            return;
        }
        let mut failures: u32 = 0;
        loop {
            let started = Instant::now();
            let (ended, success) = match self.launch.spawn() {
                Err(error) => {
                    let error = format!("{}: {error}", self.launch.program.display());
                    self.log.push(&format!("<3> cannot start: {error}"));
                    self.show(ProcessState::Failed { error: error.clone() });
                    (error, false)
                }
                Ok(mut child) => match self.watch(&mut child).await {
                    Watched::Stopped => return self.show(ProcessState::Stopped),
                    Watched::ToRestart => {
                        failures = 0;
                        self.restarts = self.restarts.saturating_add(1);
                        continue;
                    }
                    Watched::Ended(status) => (describe(status), status.success()),
                },
            };
            let again = match self.launch.restart {
                RestartPolicy::Always => true,
                RestartPolicy::OnFailure => !success,
                RestartPolicy::Never => false,
            };
            let pace = self.launch.pace;
            if started.elapsed() >= pace.cleared_after {
                failures = 0;
            }
            let next = if again && pace.gives_up && failures >= AGENT_GIVES_UP {
                let error = format!(
                    "ended {failures} times in a row: like edgeAgent, local-edge does not \
                                     start it again"
                );
                self.show(ProcessState::Failed { error });
                failures = 0;
                self.idle().await
            } else if again {
                let delay = pace.delay(failures);
                failures = failures.saturating_add(1);
                if failures == AGENT_GIVES_UP && !pace.gives_up {
                    self.log.push(&format!(
                        "<4> ended {failures} times in a row: on a device edgeAgent would not start it again"
                    ));
                }
                if !matches!(self.publish.borrow().state, ProcessState::Failed { .. }) {
                    let delay = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
                    self.show(ProcessState::BackOff { ended, delay });
                }
                self.wait(delay).await
            } else {
                self.show(ProcessState::Ended { ended });
                self.idle().await
            };
            if matches!(next, Next::Stop) {
                return self.show(ProcessState::Stopped);
            }
            self.restarts = self.restarts.saturating_add(1);
        }
    }

    fn show(&self, state: ProcessState) {
        let started = matches!(state, ProcessState::Running { .. }).then(now);
        self.publish.send_modify(|status| {
            status.state = state;
            status.restarts = self.restarts;
            if started.is_some() {
                status.started_at = started;
            }
        });
    }

    fn note_exit(&self, status: ExitStatus) {
        self.publish.send_modify(|shown| shown.exit = Some(Exit::new(status)));
    }

    async fn idle(&mut self) -> Next {
        tokio::select! {
            Some(()) = self.requests.recv() => Next::Start,
            () = self.stop.cancelled() => Next::Stop,
        }
    }

    async fn wait(&mut self, delay: Duration) -> Next {
        tokio::select! {
            () = tokio::time::sleep(delay) => Next::Start,
            next = self.idle() => next,
        }
    }

    async fn watch(&mut self, child: &mut Child) -> Watched {
        let pid = child.id().unwrap_or(0);
        self.show(ProcessState::Running { pid });
        let readers = [
            child.stdout.take().map(|output| read_into(&self.log, output)),
            child.stderr.take().map(|output| read_into(&self.log, output)),
        ];
        let end = tokio::select! {
            status = child.wait() => End::Itself(status),
            Some(()) = self.requests.recv() => End::Restart,
            () = self.stop.cancelled() => End::Stop,
        };
        let watched = match end {
            End::Itself(Ok(status)) => {
                self.note_exit(status);
                Watched::Ended(status)
            }
            End::Itself(Err(error)) => {
                self.log.push(&format!("<3> lost sight of process {pid}: {error}"));
                Watched::ToRestart
            }
            End::Restart | End::Stop => {
                self.end(child, pid).await;
                if matches!(end, End::Restart) { Watched::ToRestart } else { Watched::Stopped }
            }
        };
        for mut reader in readers.into_iter().flatten() {
            if tokio::time::timeout(LAST_WORDS, &mut reader).await.is_err() {
                reader.abort();
            }
        }
        watched
    }

    /// As a container runtime: SIGTERM, then SIGKILL, the latter to everything it started.
    async fn end(&self, child: &mut Child, pid: u32) {
        let group = i32::try_from(pid).ok().and_then(Pid::from_raw);
        if let Some(pid) = group {
            let _ = kill_process(pid, Signal::TERM);
        }
        let ended = match tokio::time::timeout(self.launch.stop_timeout, child.wait()).await {
            Ok(ended) => ended,
            Err(_) => {
                self.log.push(&format!(
                    "<4> did not end within {} s of SIGTERM: killed",
                    self.launch.stop_timeout.as_secs()
                ));
                if let Some(group) = group {
                    let _ = kill_process_group(group, Signal::KILL);
                }
                child.wait().await
            }
        };
        if let Ok(status) = ended {
            self.note_exit(status);
        }
    }
}

enum End {
    Itself(std::io::Result<ExitStatus>),
    Restart,
    Stop,
}

enum Watched {
    Ended(ExitStatus),
    ToRestart,
    Stopped,
}

fn read_into(log: &Arc<Log>, output: impl tokio::io::AsyncRead + Unpin + Send + 'static) -> JoinHandle<()> {
    let log = Arc::clone(log);
    tokio::spawn(async move { log.read_from(output).await })
}

impl Launch {
    fn spawn(&self) -> std::io::Result<Child> {
        Command::new(&self.program)
            .args(&self.args)
            .env_clear()
            .env("PATH", PATH)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C on the terminal is ours to pass on.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }
}

#[cfg(test)]
mod tests;
