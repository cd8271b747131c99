//! What an instance shows of itself.

use std::sync::PoisonError;

use super::Instance;
use crate::process::ProcessState;
use crate::view::{ModuleView, Reach, View, publish_urls};

impl Instance {
    /// What runs now.
    pub fn view(&self) -> View {
        let mut view = View::default();
        for module in self.modules.iter() {
            let name = &module.spec.name;
            let forwarded = module.forwarded.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let reach = Reach {
                gateway: &self.hub.names.gateway,
                address: Some(module.address.ip),
                ports: &module.spec.ports,
                forwarded: &forwarded,
            };
            let mut shown = ModuleView {
                name: name.clone(),
                service: module.spec.service.clone(),
                address: Some(module.address.ip),
                process: module.status(),
                connected: self.hub.connected(name),
                ..ModuleView::default()
            };
            // What it reported before it went away is not what is.
            if shown.connected
                && let Some(reported) = self.hub.reported_now(name)
            {
                shown.set_reported(&reported, reach);
            }
            // Before its ports are forwarded, the addresses would be others.
            if shown.process.state != ProcessState::Starting
                && let Ok(twin) = self.hub.twin(name)
            {
                view.publish.extend(publish_urls(&twin.desired, reach));
            }
            view.modules.push(shown);
        }
        view.modules.extend(self.run_by_hand());
        view.collect_play();
        view
    }

    /// Modules that `env` made and that are connected.
    fn run_by_hand(&self) -> Vec<ModuleView> {
        let of_manifest = |name: &String| self.modules.iter().any(|module| module.spec.name == *name);
        let names =
            self.hub.known().into_iter().filter(|name| !of_manifest(name) && self.hub.connected(name));
        let shown = |name: String| {
            let process = ProcessState::NotRunHere { image: None }.into();
            let mut shown = ModuleView { name, process, connected: true, ..ModuleView::default() };
            if let Some(reported) = self.hub.reported_now(&shown.name) {
                let gateway = &self.hub.names.gateway;
                shown.set_reported(&reported, Reach { gateway, address: None, ports: &[], forwarded: &[] });
            }
            shown
        };
        names.map(shown).collect()
    }
}
