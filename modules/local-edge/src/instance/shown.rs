//! What an instance shows of itself.

use std::sync::{Arc, PoisonError};

use super::Instance;
use super::running::Running;
use crate::hub::Hub;
use crate::process::ProcessState;
use crate::view::{ModuleView, Reach, View, publish_urls};
use crate::workload::Roster;

impl Instance {
    /// What runs now.
    pub fn view(&self) -> View {
        let mut view = View { modules: rows(&self.hub, &self.modules), ..View::default() };
        for (index, shown) in view.modules.iter_mut().enumerate() {
            // Whoever the manifest lacks has no address and no ports of its own.
            let module = self.modules.get(index);
            let forwarded =
                module.map(|module| module.forwarded.lock().unwrap_or_else(PoisonError::into_inner).clone());
            let reach = Reach {
                gateway: &self.hub.names.gateway,
                address: shown.address,
                ports: module.map_or(&[], |module| &module.spec.ports),
                forwarded: forwarded.as_deref().unwrap_or_default(),
            };
            // What it reported before it went away is not what is.
            if shown.connected
                && let Some(reported) = self.hub.reported_now(&shown.name)
            {
                shown.set_reported(&reported, reach);
            }
            // Nobody listens for a module that is not there.
            if shown.runs()
                && let Ok(twin) = self.hub.twin(&shown.name)
            {
                view.publish.extend(publish_urls(&twin.desired, reach));
                view.udp.extend(reach.udp(&shown.name));
            }
        }
        view.collect_play();
        view
    }

    /// For `GET /modules` of the workload API: the rows of [`view`](Self::view).
    pub(super) fn roster(&self) -> Roster {
        let (hub, modules) = (Arc::clone(&self.hub), Arc::clone(&self.modules));
        Arc::new(move || rows(&hub, &modules))
    }
}

/// The modules of the manifest in their order, then those that `env` made and that are connected. What they report is
/// not in it.
fn rows(hub: &Hub, modules: &[Running]) -> Vec<ModuleView> {
    let of_manifest = modules.iter().map(|module| ModuleView {
        name: module.spec.name.clone(),
        service: module.spec.service.clone(),
        address: Some(module.address.ip),
        process: module.status(),
        connected: hub.connected(&module.spec.name),
        ..ModuleView::default()
    });
    let is_other = |name: &String| modules.iter().all(|module| module.spec.name != *name);
    let by_hand = hub.known().into_iter().filter(|name| is_other(name) && hub.connected(name));
    let by_hand = by_hand.map(|name| {
        let process = ProcessState::NotRunHere { image: None }.into();
        ModuleView { name, process, connected: true, ..ModuleView::default() }
    });
    of_manifest.chain(by_hand).collect()
}
