//! The environment variables of modules.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Instance;
use super::running::absence;
use crate::manifest::{HostPath, Module, check_module_name};
use crate::state_dir::StateDirError;
use crate::workload::NEWEST_VERSION;

impl Instance {
    /// The environment of a module, whether the manifest has it or not; its identity and workload API are
    /// made if they are not there.
    pub fn environment(&self, name: &str, connection_string: bool) -> Result<Vec<(String, String)>, String> {
        check_module_name(name).map_err(|error| error.to_string())?;
        if connection_string {
            let ca = self.state.certificates().join("root.pem");
            return Ok(vec![
                ("EdgeHubConnectionString".into(), self.hub.connection_string(name)),
                ("EdgeModuleCACertificateFile".into(), ca.display().to_string()),
                ("AV_HUB_PORT".into(), self.hub_port.to_string()),
            ]);
        }
        self.serve_workload(name).map_err(|error| error.to_string())?;
        if let Some(module) = self.modules.iter().find(|module| module.spec.name == name) {
            return Ok(module.env.clone());
        }
        let mut env = self.identity_environment(name).map_err(|error| error.to_string())?;
        env.push(("RuntimeLogLevel".into(), "Information".into()));
        let hosts: Vec<String> =
            self.modules.iter().map(|module| format!("{}={}", module.spec.name, module.address.ip)).collect();
        if !hosts.is_empty() {
            env.push(("AV_HOSTS".into(), hosts.join(",")));
        }
        Ok(env)
    }

    /// What edgeAgent gives, and what our own modules need where no container does it for them.
    fn identity_environment(&self, name: &str) -> Result<Vec<(String, String)>, StateDirError> {
        let identity = self.hub.ensure(name);
        let socket = self.state.workload_socket(name)?;
        let names = &self.hub.names;
        let pair = |name: &str, value: String| (name.to_owned(), value);
        Ok(vec![
            pair("IOTEDGE_WORKLOADURI", format!("unix://{}", socket.display())),
            pair("IOTEDGE_DEVICEID", names.device.clone()),
            pair("IOTEDGE_MODULEID", name.to_owned()),
            pair("IOTEDGE_MODULEGENERATIONID", identity.generation),
            pair("IOTEDGE_IOTHUBHOSTNAME", names.iothub.clone()),
            pair("IOTEDGE_GATEWAYHOSTNAME", names.gateway.clone()),
            pair("IOTEDGE_APIVERSION", NEWEST_VERSION.to_owned()),
            pair("IOTEDGE_AUTHSCHEME", "sasToken".to_owned()),
            pair("AV_HUB_PORT", self.hub_port.to_string()),
            pair("AV_STATE_DIR", self.state.module(name)?.display().to_string()),
        ])
    }

    pub(super) fn module_environment(
        &self,
        spec: &Module,
        ip: IpAddr,
        hosts: &[String],
    ) -> Result<Vec<(String, String)>, StateDirError> {
        // As in a container: what the manifest sets comes first, and what the runtime sets wins; but for the log
        // level, which edgeAgent only sets where the manifest does not.
        let mut env: BTreeMap<String, String> = spec.env.clone();
        env.entry("RuntimeLogLevel".into()).or_insert_with(|| "Information".into());
        env.extend(self.identity_environment(&spec.name)?);
        env.insert("AV_BIND".into(), ip.to_string());
        env.insert("AV_HOSTS".into(), hosts.join(","));
        let mut paths = Vec::new();
        for bind in &spec.binds {
            let host = match &bind.host {
                HostPath::Directory(path) => path.clone(),
                HostPath::Volume(name) => self.state.volume(name)?,
            };
            // What is not run here needs its folders only where somebody runs it.
            if !host.exists() && absence(spec).is_none() {
                self.journal.say(&format!(
                    "{}: {} does not exist on this machine; the module sees it as {}",
                    spec.name,
                    host.display(),
                    bind.container.display()
                ));
            }
            paths.push(format!("{}={}", bind.container.display(), host.display()));
        }
        if !paths.is_empty() {
            env.insert("AV_PATHS".into(), paths.join(","));
        }
        Ok(env.into_iter().collect())
    }
}
