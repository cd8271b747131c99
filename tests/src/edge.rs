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
    /// Runs the repository's manifest with its environment file, every host port replaced by a free one.
    pub fn start_repository() -> Self {
        let text = std::fs::read_to_string(tool::repository().join("deployment.template.json")).unwrap();
        let mut manifest: Value = serde_json::from_str(&text).unwrap();
        let mut ports = Vec::new();
        rebind(&mut manifest, &mut ports);
        Self::start(&manifest, ports)
    }

    /// Runs `manifest`.
    pub fn start(manifest: &Value, ports: Vec<(u16, u16)>) -> Self {
        let dir = tempfile::Builder::new().prefix("local-edge-").tempdir().unwrap();
        let path = dir.path().join("deployment.template.json");
        std::fs::write(&path, serde_json::to_string_pretty(manifest).unwrap()).unwrap();
        let mut command = command(dir.path());
        command
            .current_dir(tool::repository())
            .args(["up", "--port", &port::free().to_string(), "--manifest"])
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

    /// The 127.0.0.1 ports that stand for a container port, in the order of the manifest.
    pub fn host_ports(&self, container: u16) -> Vec<u16> {
        self.ports.iter().filter(|(inside, _)| *inside == container).map(|(_, host)| *host).collect()
    }

    /// The state dir.
    pub fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
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
