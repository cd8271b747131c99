//! A module as a process: exit codes, signals, log lines, health.
//!
//! The module is this very test program, started again.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod tiny;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

const AS_MODULE: &str = "AV_EDGE_TEST_ARGUMENTS";
const PATIENCE: Duration = Duration::from_secs(20);

/// Not a test of its own: what the others start.
#[test]
fn module() {
    let Ok(arguments) = std::env::var(AS_MODULE) else { return };
    let arguments = arguments.split('\n').filter(|argument| !argument.is_empty()).map(Into::into);
    let code =
        av_edge::run_from("tester", "1.2.3", arguments.collect::<Vec<_>>().into_iter(), tiny::Tiny::default);
    // `ExitCode` does not tell its number otherwise.
    let digits: String = format!("{code:?}").chars().filter(char::is_ascii_digit).collect();
    std::process::exit(digits.parse().unwrap());
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "module", "--nocapture", "--test-threads=1"]);
    command.env_clear().env(AS_MODULE, arguments.join("\n"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn ends(mut command: Command) -> (i32, String) {
    let output = command.output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// A running module; killed when the test ends.
struct Module {
    child: Child,
    lines: Receiver<String>,
    address: String,
}

impl Module {
    /// `arguments` without the metrics address, which is a free port.
    fn start(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let mut command = command(&[arguments, &["--metrics-address", &address]].concat());
        let mut child = command.envs(variables.iter().copied()).spawn().unwrap();
        let (sender, lines) = channel();
        let stderr = child.stderr.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self { child, lines, address }
    }

    fn line_with(&self, text: &str) -> String {
        let mut seen = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while let Ok(line) = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            if line.contains(text) {
                return line;
            }
            seen.push(line);
        }
        panic!("no line with `{text}` in {seen:#?}");
    }

    fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(&self.address).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.get(9..12)?.parse().ok()?, body.to_owned()))
    }

    fn until_ready(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.get("/readyz").map(|(code, _)| code) != Some(200) {
            assert!(Instant::now() < deadline, "not ready in time");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap().success());
    }

    fn code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn twin(dir: &Path, text: &str) -> String {
    let path = dir.join("twin.json");
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn without_any_configuration_it_is_a_usage_error_that_names_all_ways() {
    let (code, text) = ends(command(&[]));
    assert_eq!(code, 64);
    for word in
        ["--twin FILE", "IOTEDGE_WORKLOADURI", "EdgeHubConnectionString", "EdgeModuleCACertificateFile"]
    {
        assert!(text.contains(word), "{text}");
    }
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[test]
fn an_unknown_option_is_a_usage_error_and_help_is_none() {
    let (code, text) = ends(command(&["--twine", "x"]));
    assert_eq!(code, 64, "{text}");
    assert!(text.contains("--twine"), "{text}");
    assert_eq!(ends(command(&["--help"])).0, 0);
    assert_eq!(ends(command(&["--version"])).0, 0);
}

#[test]
fn a_standalone_file_that_is_of_no_use_ends_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state").display().to_string();
    for text in ["", "[]", "{,}", r#"{"flows": {"a": {}}}"#] {
        let twin = twin(dir.path(), text);
        let arguments = ["--twin", &twin, "--state-dir", &state, "--metrics-address", "127.0.0.1:0"];
        let (code, log) = ends(command(&arguments));
        assert_eq!(code, 78, "{text}: {log}");
    }
    let (code, log) =
        ends(command(&["--twin", "/nonexistent/twin.json", "--metrics-address", "127.0.0.1:0"]));
    assert_eq!(code, 78, "{log}");
    assert!(log.contains("/nonexistent/twin.json: No such file or directory"), "{log}");
}

#[test]
fn an_empty_object_is_a_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let twin = twin(dir.path(), "{}");
    let module = Module::start(&["--twin", &twin, "--state-dir", &dir.path().display().to_string()], &[]);
    module.until_ready();
}

#[test]
fn it_runs_until_sigterm_and_says_so_in_the_form_of_the_edge() {
    let dir = tempfile::tempdir().unwrap();
    let twin = twin(dir.path(), r#"{"flows": {"a": {"value": 1}}}"#);
    let state = dir.path().join("state").display().to_string();
    let mut module = Module::start(&["--twin", &twin, "--state-dir", &state], &[]);
    let line = module.line_with("tester starts");
    assert!(line.starts_with("<6> 20") && line.contains(" +00:00 [INF] - tester starts; "), "{line}");
    assert!(line.contains("twin.json (--twin)"), "{line}");
    module.until_ready();
    let status: Value = serde_json::from_str(&module.get("/status").unwrap().1).unwrap();
    assert_eq!(status["flows"]["a"]["value"], 1);

    let address = module.address.clone();
    let probe = ["healthcheck", "--ready", "--metrics-address", &address];
    assert_eq!(ends(command(&probe)).0, 0);

    std::fs::write(&twin, r#"{"flows": {"a": {"value": 2}}}"#).unwrap();
    module.line_with("configuration version 2 applied");
    module.signal("-TERM");
    assert_eq!(module.code(), Some(0));
    module.line_with("stopped");
    assert_eq!(ends(command(&probe)).0, 1);

    // The next start has a last good configuration: a file that is broken by then does not end it.
    std::fs::write(&twin, "{").unwrap();
    let mut module = Module::start(&["--twin", &twin, "--state-dir", &state], &[]);
    module.until_ready();
    module.line_with("the configuration is not usable; the running one stays in use");
    let status: Value = serde_json::from_str(&module.get("/status").unwrap().1).unwrap();
    assert_eq!(
        (&status["flows"]["a"]["value"], &status["config"]["status"]),
        (&2.into(), &"rejected".into())
    );
    module.signal("-INT");
    assert_eq!(module.code(), Some(0));
}

#[test]
fn as_an_edge_module_it_lives_without_its_hub_and_from_the_last_good_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().display().to_string();
    std::fs::write(dir.path().join("last.json"), r#"{"a": {"state": "running"}}"#).unwrap();
    let socket = format!("unix://{}/absent.sock", dir.path().display());
    let variables = [
        ("IOTEDGE_WORKLOADURI", socket.as_str()),
        ("IOTEDGE_MODULEID", "m"),
        ("IOTEDGE_MODULEGENERATIONID", "1"),
        ("IOTEDGE_DEVICEID", "dev"),
        ("IOTEDGE_IOTHUBHOSTNAME", "h.azure-devices.net"),
        ("IOTEDGE_GATEWAYHOSTNAME", "gw"),
    ];
    let mut module = Module::start(&["--state-dir", &state], &variables);
    module.line_with("(IOTEDGE_WORKLOADURI) as dev/m at gw");
    module.until_ready();
    let line = module.line_with("workload API, trust-bundle: No such file");
    assert!(line.starts_with("<4>"), "{line}");
    let (_, metrics) = module.get("/metrics").unwrap();
    let connected = metrics.lines().find(|line| line.starts_with("av_hub_connected{")).unwrap();
    assert!(connected.ends_with(" 0") && connected.contains(r#"edge_device="dev""#), "{connected}");
    module.signal("-TERM");
    assert_eq!(module.code(), Some(0));
}

#[test]
fn a_flow_that_does_not_end_does_not_keep_the_process_and_only_a_second_ctrl_c_ends_it_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let twin = twin(dir.path(), r#"{"flows": {"endless": {"value": 1}}}"#);
    let start = |name: &str| {
        let state = dir.path().join(name).display().to_string();
        let module = Module::start(&["--twin", &twin, "--state-dir", &state], &[]);
        module.until_ready();
        module
    };
    let mut patient = start("patient");
    let mut impatient = start("impatient");
    // Container engines and init programs send SIGTERM more than once.
    patient.signal("-TERM");
    patient.line_with("stopping");
    impatient.signal("-INT");
    impatient.line_with("stopping");
    for signal in ["-TERM", "-INT"] {
        patient.signal(signal);
        patient.line_with("already stopping");
    }
    impatient.signal("-TERM");
    impatient.line_with("already stopping");
    impatient.signal("-INT");
    assert_eq!(impatient.code(), Some(128 + 2));
    patient.line_with("some flows did not end within 6.5 s");
    assert_eq!(patient.code(), Some(0));
}

#[test]
fn json_lines_are_json_to_the_last() {
    let dir = tempfile::tempdir().unwrap();
    let twin = twin(dir.path(), "{}");
    let state = dir.path().join("state").display().to_string();
    let mut module = Module::start(&["--twin", &twin, "--state-dir", &state, "--log-format", "json"], &[]);
    module.until_ready();
    module.signal("-TERM");
    assert_eq!(module.code(), Some(0));
    let lines: Vec<Value> = module.lines.iter().map(|line| serde_json::from_str(&line).unwrap()).collect();
    assert_eq!(lines.last().unwrap()["message"], "stopped");
    assert!(lines.len() > 2);
}
