//! A module as a process, configured by a twin file.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::metrics::Metrics;
use crate::program::{Finished, Program};
use crate::{http, port, tool, wait};

/// A running module: `NAME --twin FILE --state-dir DIR --metrics-address 127.0.0.1:PORT`.
pub struct Module {
    name: String,
    dir: TempDir,
    metrics_port: u16,
    program: Program,
}

/// A module that has not been started yet.
pub struct Setup {
    name: String,
    dir: TempDir,
    args: Vec<String>,
    environment: Vec<(String, String)>,
    open_files: Option<(u32, u32)>,
    under: Vec<String>,
}

impl Setup {
    /// For the binary `name`, with an empty folder for twin and state.
    pub fn new(name: &str) -> Self {
        let dir = tempfile::Builder::new().prefix(&format!("{name}-")).tempdir().unwrap();
        Self {
            name: name.into(),
            dir,
            args: Vec::new(),
            environment: Vec::new(),
            open_files: None,
            under: Vec::new(),
        }
    }

    /// One more argument.
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// One more environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Started with these limits of open files: the soft and the hard one.
    pub fn open_files(mut self, soft: u32, hard: u32) -> Self {
        self.open_files = Some((soft, hard));
        self
    }

    /// Started by this command line, which ends in what it starts.
    pub fn under(mut self, line: Vec<String>) -> Self {
        self.under = line;
        self
    }

    /// The module's folder: put files there that the twin names.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The twin document.
    pub fn twin(self, twin: &Value) -> Self {
        self.twin_text(&serde_json::to_string_pretty(twin).unwrap())
    }

    /// The twin file's text, which may be anything.
    pub fn twin_text(self, text: &str) -> Self {
        std::fs::write(self.dir.path().join("twin.json"), text).unwrap();
        self
    }

    /// Starts it and waits until it has handled its configuration.
    pub fn start(self) -> Module {
        let metrics_port = port::free();
        let program = self.spawn(metrics_port);
        let mut module = Module { name: self.name, dir: self.dir, metrics_port, program };
        module.wait_ready();
        module
    }

    /// Starts it and waits until it listens for RTMP: publishers that do not try again may come.
    pub fn start_listening(self) -> Module {
        let module = self.start();
        module.wait_log(&["listening for RTMP"]);
        module
    }

    /// Starts it and waits for its end.
    pub fn run(self, limit: Duration) -> Finished {
        self.spawn(port::free()).finish(limit)
    }

    fn spawn(&self, metrics_port: u16) -> Program {
        let binary = tool::binary(&self.name);
        let mut command = match self.open_files {
            None => match self.under.split_first() {
                None => Command::new(binary),
                Some((program, arguments)) => {
                    let mut command = Command::new(program);
                    command.args(arguments).arg(binary);
                    command
                }
            },
            Some((soft, hard)) => {
                let mut shell = Command::new("sh");
                shell
                    .arg("-c")
                    .arg(format!("ulimit -Sn {soft} && ulimit -Hn {hard} && exec \"$0\" \"$@\""))
                    .arg(binary);
                shell
            }
        };
        // Only what this test says: not the developer's own settings.
        for (name, _) in std::env::vars() {
            if ["AV_", "IOTEDGE_", "EdgeHub", "EdgeModule"].iter().any(|prefix| name.starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        command
            .arg("--twin")
            .arg(self.dir.path().join("twin.json"))
            .arg("--state-dir")
            .arg(self.dir.path().join("state"))
            .arg("--metrics-address")
            .arg(format!("127.0.0.1:{metrics_port}"))
            .args(&self.args)
            .envs(self.environment.iter().cloned());
        Program::start(&mut command)
    }
}

impl Module {
    /// Starts the binary `name` with this twin.
    pub fn start(name: &str, twin: &Value) -> Self {
        Setup::new(name).twin(twin).start()
    }

    fn wait_ready(&mut self) {
        let start = Instant::now();
        while http::get(self.metrics_port, "/readyz").is_none_or(|(status, _)| status != 200) {
            if let Some(status) = self.program.ended() {
                panic!("{} ended with {status} before it was ready:\n{}", self.name, self.log());
            }
            assert!(start.elapsed() < wait::LONG, "{} is not ready:\n{}", self.name, self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Replaces the twin file as editors and tools do: write aside, rename.
    pub fn set_twin(&self, twin: &Value) {
        self.set_twin_text(&serde_json::to_string_pretty(twin).unwrap());
    }

    /// As [`set_twin`](Self::set_twin) with any text.
    pub fn set_twin_text(&self, text: &str) {
        let aside = self.dir.path().join("twin.json.new");
        std::fs::write(&aside, text).unwrap();
        std::fs::rename(aside, self.dir.path().join("twin.json")).unwrap();
    }

    /// `GET /status`.
    pub fn status(&self) -> Value {
        let (status, body) = http::get(self.metrics_port, "/status").expect("/status answers");
        assert_eq!(status, 200, "/status: {body}");
        serde_json::from_str(&body).expect("/status is JSON")
    }

    /// `GET path`: status and body.
    pub fn get(&self, path: &str) -> (u16, String) {
        http::get(self.metrics_port, path).unwrap_or_else(|| panic!("{path} does not answer"))
    }

    /// `GET /metrics`.
    pub fn metrics(&self) -> Metrics {
        Metrics::parse(&self.get("/metrics").1)
    }

    /// Waits until the value at `pointer` (RFC 6901) of `/status` fits.
    pub fn wait_status(&self, pointer: &str, fits: impl Fn(&Value) -> bool) -> Value {
        wait_status(wait::LONG, || self.status(), || format!("{}:\n{}", self.name, self.log()), pointer, fits)
    }

    /// Waits until the value at `pointer` of `/status` equals `wanted`.
    pub fn wait_value(&self, pointer: &str, wanted: impl Into<Value>) {
        let wanted = wanted.into();
        self.wait_status(pointer, |value| *value == wanted);
    }

    /// Waits until the flow's input receives.
    pub fn wait_receiving(&self, flow: &str) {
        self.wait_value(&format!("/flows/{flow}/input/state"), "receiving");
    }

    /// Standard error so far.
    pub fn log(&self) -> String {
        self.program.stderr()
    }

    /// Lines of the log that hold `text`.
    pub fn log_lines(&self, text: &str) -> Vec<String> {
        self.log().lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
    }

    /// Waits until some line of the log holds all of `texts`; gives the line.
    pub fn wait_log(&self, texts: &[&str]) -> String {
        let start = Instant::now();
        loop {
            let log = self.log();
            if let Some(line) = log.lines().find(|line| texts.iter().all(|text| line.contains(text))) {
                return line.to_owned();
            }
            assert!(
                start.elapsed() < wait::LONG,
                "no line with {texts:?} in the log of {}:\n{log}",
                self.name
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The folder that holds `twin.json` and `state/`.
    pub fn dir(&self) -> PathBuf {
        self.dir.path().to_path_buf()
    }

    /// The process.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// SIGTERM; gives what it left, within the promised 8 s and some slack of a loaded machine.
    pub fn terminate(self) -> Finished {
        self.program.end("TERM", Duration::from_secs(20))
    }

    /// SIGKILL, then a start again on the same folder with the same addresses.
    pub fn kill_and_restart(self, change: impl FnOnce(Setup) -> Setup) -> Self {
        drop(self.program);
        let setup = Setup { dir: self.dir, ..Setup::new(&self.name) };
        change(setup).start()
    }

    /// SIGTERM, and when it has ended a start again on the same folder.
    pub fn terminate_and_restart(self, change: impl FnOnce(Setup) -> Setup) -> Self {
        let ended = self.program.end("TERM", Duration::from_secs(20));
        assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
        let setup = Setup { dir: self.dir, ..Setup::new(&self.name) };
        change(setup).start()
    }
}

/// Waits until the value at `pointer` of a status fits; a panic shows the log.
pub(crate) fn wait_status(
    limit: Duration,
    status: impl Fn() -> Value,
    log: impl Fn() -> String,
    pointer: &str,
    fits: impl Fn(&Value) -> bool,
) -> Value {
    let start = Instant::now();
    loop {
        let status = status();
        let value = status.pointer(pointer).cloned().unwrap_or(Value::Null);
        if fits(&value) {
            return value;
        }
        assert!(start.elapsed() < limit, "{pointer} is still {value} in {status:#}\n{}", log());
        std::thread::sleep(Duration::from_millis(20));
    }
}
