//! Microsoft's own SDKs as modules of `local-edge`: what they take for edgeHub is one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use av_tests::program::{Finished, Program};
use av_tests::{tool, wait};
use serde_json::{Value, json};

use crate::hub_faults::splitter_alone;

/// SDKs know no other port than 8883.
static PORT_8883: Mutex<()> = Mutex::new(());

/// Takes port 8883, and finds the SDK. `None`: one of them can't be had, and the case is counted as skipped.
pub fn taken_for(name: &str) -> Option<MutexGuard<'static, ()>> {
    let thread = std::thread::current();
    let case = thread.name().unwrap_or("?");
    if sdk(name).is_none() {
        tool::skip(case, &format!("Microsoft's {name} SDK is not installed"));
        return None;
    }
    let alone = PORT_8883.lock().unwrap_or_else(PoisonError::into_inner);
    if std::net::TcpListener::bind("127.0.0.1:8883").is_err() {
        tool::skip(case, "port 8883 is taken, and SDKs know no other");
        return None;
    }
    Some(alone)
}

/// What runs an SDK's script: interpreter, script, and where it finds the SDK. `None` where `tests/run` could
/// not install it.
fn sdk(name: &str) -> Option<Command> {
    let (tools, scripts) = (tool::tests_dir().join(".tools"), tool::tests_dir().join("sdk"));
    let (interpreter, script, installed) = match name {
        "python" => {
            (tools.join("venv/bin/python"), scripts.join("python/module.py"), python_package(&tools)?)
        }
        _ => (PathBuf::from("node"), scripts.join("node/module.js"), tools.join("node/node_modules")),
    };
    let mut command = Command::new(interpreter);
    command.arg(script).env("NODE_PATH", &installed).env("PYTHONWARNINGS", "ignore");
    let is_there = Command::new(command.get_program()).arg("--version").output().is_ok();
    (is_there && installed.exists()).then_some(command)
}

fn python_package(tools: &Path) -> Option<PathBuf> {
    let versions = std::fs::read_dir(tools.join("venv/lib")).ok()?;
    let package = |version: std::fs::DirEntry| version.path().join("site-packages/azure/iot/device");
    versions.flatten().map(package).find(|path| path.exists())
}

/// `local-edge` on the port that SDKs want.
pub struct Edge {
    dir: tempfile::TempDir,
    _program: Program,
}

impl Edge {
    pub fn start(manifest: &Value) -> Self {
        let dir = tempfile::Builder::new().prefix("local-edge-").tempdir().unwrap();
        let path = dir.path().join("manifest.json");
        std::fs::write(&path, manifest.to_string()).unwrap();
        let mut command = Self::command(dir.path());
        command.args(["up", "--manifest"]).arg(path).arg("--env");
        // Files land where they go with everything else.
        command.env("RECORDINGS_DIR", dir.path().join("recordings"));
        let program = Program::start(command.arg(tool::repository().join("edge-config/local.env")));
        let edge = Self { dir, _program: program };
        wait::until_true("local-edge answers", wait::LONG, || edge.ask(&["ps"]).status.success());
        edge
    }

    fn command(dir: &Path) -> Command {
        let mut command = Command::new(tool::binary("local-edge"));
        command.arg("--state-dir").arg(dir.join("state"));
        command
    }

    pub fn ask(&self, args: &[&str]) -> Finished {
        Program::run(Self::command(self.dir.path()).args(args), wait::LONG)
    }

    /// Its folder, with `recordings` in it.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn must(&self, args: &[&str]) -> String {
        let done = self.ask(args);
        assert!(done.status.success(), "{args:?}: {}{}", done.stdout, done.stderr);
        done.stdout
    }
}

/// How long a script may take for one step.
const PATIENCE: Duration = Duration::from_secs(20);

/// A script that is a module.
pub struct Module {
    program: Program,
}

impl Module {
    pub fn start(edge: &Edge, sdk_name: &str, env: &[&str], sends: Option<&Value>) -> Self {
        let lines = edge.must(&[&["env"], env].concat());
        let variables = lines.lines().filter_map(|line| line.split_once('='));
        let mut command = sdk(sdk_name).unwrap();
        // A module with a connection string is told of no device beside it.
        command.env("CALLED_DEVICE", "local-edge").envs(variables);
        command.envs(sends.map(|sends| ("SENDS", sends.to_string())));
        Self { program: Program::start(&mut command) }
    }

    /// The first event of that name, once it is there.
    pub fn event(&self, name: &str) -> Value {
        wait::until(&format!("the module says {name:?}; it said {}", self.program.stderr()), PATIENCE, || {
            let said = self.program.stdout();
            let mut events = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            events.find(|event| event["event"] == name)
        })
    }
}

/// Two modules: one gets in by the workload API, the other by a connection string.
fn everything_a_module_does(name: &str, sees_refusals: bool) {
    let Some(_alone) = taken_for(name) else { return };
    let (mut manifest, _) = splitter_alone(json!({}));
    let to = |module: &str| format!("INTO BrokeredEndpoint(\"/modules/{module}/inputs/in\")");
    manifest["modulesContent"]["$edgeHub"]["properties.desired"]["routes"] = json!({
        "there": format!("FROM /messages/modules/one/outputs/out {}", to("two")),
        "back": format!("FROM /messages/modules/two/outputs/out {}", to("one")),
    });
    let https = std::net::TcpListener::bind("127.0.0.1:443").map(drop);
    let edge = Edge::start(&manifest);
    for module in ["one", "two"] {
        edge.must(&["env", module]);
        edge.must(&["twin", "set", module, r#"{ "question": { "answer": 41 } }"#]);
    }
    let one = Module::start(&edge, name, &["one"], None);
    let two = Module::start(&edge, name, &["two", "--connection-string"], None);
    for (module, running) in [("one", &one), ("two", &two)] {
        assert_eq!(running.event("twin")["desired"]["question"]["answer"], 41);
        assert_eq!(running.event("good report")["error"], Value::Null);
        // The Node SDK does not look at the status of the answer.
        assert_eq!(running.event("bad report")["error"] != Value::Null, sees_refusals);
        running.event("ready");
        let shown: Value = serde_json::from_str(&edge.must(&["twin", "show", module])).unwrap();
        assert_eq!(shown["reported"]["sdk"], *name, "{shown:#}");
        assert!(shown["reported"].get("with.dot").is_none(), "{shown:#}");

        // The module reports the version of the patch; `twin set` waits for that.
        let said = edge.must(&["twin", "set", module, r#"{ "question": { "answer": 42 } }"#]);
        assert!(said.contains("applied"), "{said}");
        assert_eq!(running.event("patch")["patch"]["question"]["answer"], 42);

        let answer = edge.must(&["method", module, "echo", r#"{ "a": [1, "ü"] }"#]);
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer, json!({ "status": 200, "payload": { "echo": { "a": [1, "ü"] } } }));

        let received = running.event("input");
        assert_eq!((&received["input"], &received["body"]), (&json!("in"), &json!({ "from": name })));
    }
    if name == "python" {
        match https {
            Ok(()) => they_call_each_other(&edge, &one, &two),
            Err(error) => tool::skip("hub_sdks::they_call_each_other", &format!("port 443: {error}")),
        }
    }
    let ps: Value = serde_json::from_str(&edge.must(&["ps", "--json"])).unwrap();
    let shown =
        ps["modules"].as_array().unwrap().iter().filter(|module| module["process"]["state"] == "notRunHere");
    let names: Vec<&Value> = shown.map(|module| &module["name"]).collect();
    assert_eq!(names, ["one", "two"], "{ps:#}");
    let log = edge.must(&["logs", "local-edge"]);
    for module in ["one", "two"] {
        assert!(log.contains(&format!("{module}: report refused (400): with.dot")), "{log}");
    }
}

/// A module calls a method of another one, through edgeHub.
fn they_call_each_other(edge: &Edge, one: &Module, two: &Module) {
    for (module, running, other) in [("one", one, "two"), ("two", two, "one")] {
        edge.must(&["twin", "set", module, &json!({ "call": other }).to_string()]);
        let called = running.event(&format!("called {other}"));
        assert_eq!(
            called["answer"],
            json!({ "status": 200, "payload": { "echo": { "to": other } } }),
            "{called}"
        );
    }
    edge.must(&["twin", "set", "one", r#"{ "call": "nobody" }"#]);
    assert_ne!(one.event("called nobody")["error"], Value::Null);
    assert!(edge.must(&["logs", "local-edge"]).contains("one calls two: echo"));
}

#[test]
fn the_python_sdk_is_a_module() {
    everything_a_module_does("python", true);
}

#[test]
fn the_node_sdk_is_a_module() {
    everything_a_module_does("node", false);
}
