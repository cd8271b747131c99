//! `local-edge` as a process.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::program::{Finished, Program};
use crate::{port, tool, wait};

/// A running `local-edge up`.
pub struct Edge {
    dir: TempDir,
    program: Program,
    /// 127.0.0.1 port by container port, as the manifest's `PortBindings` were rewritten.
    ports: Vec<(u16, u16)>,
}

impl Edge {
    /// Runs the repository's manifest with its environment file, every host port replaced by a free one. It has no
    /// screen.
    pub fn start_repository() -> Self {
        Self::start_repository_on("")
    }

    /// The same with this X server as its screen.
    pub fn start_repository_on(display: &str) -> Self {
        let text = std::fs::read_to_string(tool::repository().join("deployment.template.json")).unwrap();
        let mut manifest: Value = serde_json::from_str(&text).unwrap();
        let mut ports = Vec::new();
        rebind(&mut manifest, &mut ports);
        Self::start_on(&manifest, ports, display, &[])
    }

    /// Runs `manifest`.
    pub fn start(manifest: &Value, ports: Vec<(u16, u16)>) -> Self {
        Self::start_on(manifest, ports, "", &[])
    }

    /// Runs `manifest` as strictly as a device does.
    pub fn start_under_device_rules(manifest: &Value, ports: Vec<(u16, u16)>) -> Self {
        Self::start_on(manifest, ports, "", &["--device-rules"])
    }

    fn start_on(manifest: &Value, ports: Vec<(u16, u16)>, display: &str, options: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("local-edge-").tempdir().unwrap();
        let path = dir.path().join("deployment.template.json");
        std::fs::write(&path, serde_json::to_string_pretty(manifest).unwrap()).unwrap();
        let mut command = command(dir.path());
        // Files land where they go with everything else.
        command.env("RECORDINGS_DIR", dir.path().join("recordings"));
        // The screen of whoever runs the tests is left alone.
        command.env("DISPLAY", display).env("WAYLAND_DISPLAY", "").env("PULSE_SERVER", "unix:/nowhere");
        command
            .current_dir(tool::repository())
            .arg("up")
            .args(options)
            .args(["--port", &port::free().to_string(), "--manifest"])
            .arg(path)
            .arg("--env")
            .arg(tool::repository().join("edge-config/local.env"));
        let program = Program::start(&mut command);
        Self { dir, program, ports }
    }

    /// Runs a subcommand against this instance, to its end.
    pub fn ask(&self, args: &[&str]) -> Finished {
        Program::run(command(self.dir.path()).args(args), wait::LONG)
    }

    /// `ps --json`; null while it cannot be asked yet.
    pub fn ps(&self) -> Value {
        let answer = self.ask(&["ps", "--json"]);
        serde_json::from_str(&answer.stdout).unwrap_or(Value::Null)
    }

    /// The module's twin as the hub holds it; null while it cannot be asked yet.
    pub fn twin(&self, module: &str) -> Value {
        serde_json::from_str(&self.ask(&["twin", "show", module]).stdout).unwrap_or(Value::Null)
    }

    /// Puts `desired` in place of the module's whole desired properties, as `twin set --replace` does.
    pub fn replace_twin(&self, module: &str, desired: &Value) -> Finished {
        let path = self.dir.path().join("desired.json");
        std::fs::write(&path, desired.to_string()).unwrap();
        self.ask(&["twin", "set", module, "--replace", &format!("@{}", path.display())])
    }

    /// Patches the module's desired properties.
    pub fn patch_twin(&self, module: &str, patch: &Value) -> Finished {
        self.ask(&["twin", "set", module, &patch.to_string()])
    }

    /// What a direct method that succeeds answers.
    pub fn method(&self, module: &str, name: &str, payload: &Value) -> Value {
        let answer = self.ask(&["method", module, name, &payload.to_string()]);
        let answer: Value = serde_json::from_str(&answer.stdout)
            .unwrap_or_else(|error| panic!("{name}: {error}: {}{}", answer.stdout, answer.stderr));
        assert_eq!(answer["status"], 200, "{name}: {answer:#}");
        answer["payload"].clone()
    }

    /// Every page of `getStatus` (with these arguments), from the first to the one without `next`. None is longer
    /// than the 120 KB that callers are promised.
    pub fn status_pages(&self, module: &str, arguments: &Value) -> Vec<Value> {
        let (mut pages, mut arguments) = (Vec::new(), arguments.clone());
        loop {
            let page = self.method(module, "getStatus", &arguments);
            assert!(page.to_string().len() <= 120 * 1024, "a page of {} bytes", page.to_string().len());
            let next = page.get("next").cloned();
            pages.push(page);
            let Some(next) = next else { return pages };
            assert!(next.as_u64() > arguments["offset"].as_u64(), "{next} after {arguments}");
            arguments["offset"] = next;
        }
    }

    /// Where the module's process listens: `ps` has it.
    pub fn address(&self, module: &str) -> String {
        self.module(module)["address"].as_str().expect("an address").to_owned()
    }

    /// The module's process.
    pub fn pid(&self, module: &str) -> u32 {
        let pid = self.module(module)["process"]["pid"].as_u64().expect("a process");
        u32::try_from(pid).unwrap()
    }

    fn module(&self, module: &str) -> Value {
        let ps = self.ps();
        let modules = ps["modules"].as_array().into_iter().flatten();
        modules.into_iter().find(|entry| entry["name"] == module).expect("a module of that name").clone()
    }

    /// The 127.0.0.1 ports that stand for a container port, in the order of the manifest.
    pub fn host_ports(&self, container: u16) -> Vec<u16> {
        self.ports.iter().filter(|(inside, _)| *inside == container).map(|(_, host)| *host).collect()
    }

    /// The state dir.
    pub fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Its folder, with `recordings` in it.
    pub fn dir(&self) -> PathBuf {
        self.dir.path().to_path_buf()
    }

    /// The process.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// SIGINT, as Ctrl-C sends it.
    pub fn interrupt(self) -> Finished {
        self.program.end("INT", Duration::from_secs(30))
    }
}

fn command(dir: &Path) -> Command {
    let mut command = Command::new(tool::binary("local-edge"));
    command.arg("--state-dir").arg(dir.join("state"));
    command
}

/// Replaces each `HostPort` by a free one; notes (container port, host port).
pub fn rebind(value: &mut Value, ports: &mut Vec<(u16, u16)>) {
    if let Some(Value::Object(bindings)) = value.get_mut("PortBindings") {
        for (inside, hosts) in bindings.iter_mut() {
            let Some(inside) = inside.strip_suffix("/tcp").and_then(|port| port.parse().ok()) else {
                continue;
            };
            let host = port::free();
            *hosts = json!([{ "HostPort": host.to_string() }]);
            ports.push((inside, host));
        }
    }
    match value {
        Value::Object(members) => members.values_mut().for_each(|member| rebind(member, ports)),
        Value::Array(members) => members.iter_mut().for_each(|member| rebind(member, ports)),
        _ => {}
    }
}
