//! What tests of several files share.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::module::{Identity, Module};
use crate::service::{Certificates, Context, Event, EventSink, Paths, Service, StateDir};
use crate::tiny::{Numbers, Tiny};

/// A started service without a process around it.
pub(crate) struct Rig {
    pub module: Arc<Module>,
    pub numbers: Arc<Numbers>,
    pub events: Option<mpsc::Receiver<Event>>,
    /// The state dir, and a place for files.
    pub state: tempfile::TempDir,
}

pub(crate) fn rig() -> Rig {
    let state = tempfile::tempdir().unwrap();
    let (events, queue) = EventSink::channel(64);
    let identity = Identity {
        service: "tester",
        version: "1.2.3",
        module: "m".into(),
        device: "d".into(),
        iothub: "h.azure-devices.net".into(),
        instance: crate::module::new_instance(),
    };
    let module = Arc::new(Module::new(identity, events.clone()));
    let latest = Arc::new(Mutex::new(None));
    let running = Box::new(Tiny { latest: latest.clone() }).start(Context {
        service: "tester".into(),
        module: "m".into(),
        device: "d".into(),
        gateway_host: None,
        state: StateDir::new(state.path().to_owned()),
        bind: None,
        hosts: Arc::default(),
        paths: Paths::default(),
        certificates: Certificates::default(),
        events,
    });
    module.set_running(running);
    let numbers = latest.lock().unwrap().clone().unwrap();
    Rig { module, numbers, events: Some(queue), state }
}

/// Waits for a condition, at most 20 s.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
