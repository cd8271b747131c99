//! What an instance says of modules that are no processes of its own.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use super::*;
use crate::addresses::Addresses;
use crate::hub::tests::Bench;
use crate::manifest::Manifest;
use crate::process::{Pace, ProcessState};
use crate::variables::Variables;

fn variables() -> Variables {
    Variables::parse(Path::new("local.env"), "", BTreeMap::new()).unwrap()
}

/// With a module `front`, whose image is somebody else's, and where anybody may publish.
async fn instance(bench: &Bench, folder: &Path) -> Instance {
    let manifest = json!({"modulesContent": {
        "$edgeAgent": {"properties.desired.modules.front": {
            "type": "docker", "status": "running", "restartPolicy": "always", "settings": {"image": "reg/front:1"}}},
        "front": {"properties.desired.flows.live": {"input": {"listen": "rtmp://0.0.0.0:1935/live/*"}}}
    }});
    let manifest = Manifest::parse(&manifest.to_string(), &variables(), folder).unwrap();
    for (module, desired) in &manifest.desired {
        bench.hub.deploy(module, desired);
    }
    let mut addresses = Addresses::default();
    let mut modules = Vec::new();
    for module in manifest.modules {
        modules.push((module, addresses.next().await.unwrap()));
    }
    let state = StateDir::locate(Some(folder.to_owned())).unwrap();
    // Makes the folders; nobody else wants these.
    drop(state.open().unwrap());
    let own_log = Arc::new(Log::in_memory());
    let parts = Parts {
        authority: Arc::new(Authority::open(&state.certificates()).unwrap()),
        state,
        hub: Arc::clone(&bench.hub),
        tls: bench.certificate.clone(),
        journal: Journal::new(Arc::clone(&own_log), None),
        own_log,
        hub_port: 0,
        env_file: "local.env".into(),
        manifest: Manifest::default(),
        pace: Pace::DESK,
        stop: CancellationToken::new(),
    };
    Instance::new(parts, modules).unwrap()
}

#[test]
fn a_placeholder_whose_service_is_nowhere_is_a_failure_and_an_image_of_a_registry_is_not_run_here() {
    let absence = |image: &str| {
        let module = json!({"modulesContent": {
            "$edgeAgent": {"properties.desired.modules.m": {
            "type": "docker", "status": "running", "restartPolicy": "always", "settings": {"image": image}}}}});
        let manifest = Manifest::parse(&module.to_string(), &variables(), Path::new("/nowhere")).unwrap();
        running::absence(&manifest.modules[0])
    };
    for image in ["${MODULES.rtmp-splitter}", "reg/rtmp-splitter:0.1.0-amd64"] {
        assert_eq!(absence(image), None, "{image}");
    }
    let Some(ProcessState::Failed { error }) = absence("${MODULES.nothing}") else { panic!("not a failure") };
    assert!(error.contains("cargo build --release -p nothing"), "{error}");
    let image = Some("reg/nothing:0.1.0-amd64".to_owned());
    assert_eq!(absence("reg/nothing:0.1.0-amd64"), Some(ProcessState::NotRunHere { image }));
}

#[tokio::test]
async fn a_module_that_nobody_runs_offers_no_address_and_by_hand_it_does() {
    let (bench, folder) = (Bench::start().await, tempfile::tempdir().unwrap());
    let instance = instance(&bench, folder.path()).await;
    assert_eq!(instance.view().publish, [] as [String; 0]);
    let _client = bench.connect("front").await;
    let view = instance.view();
    let address = view.modules[0].address.unwrap();
    assert_eq!(view.publish, [format!("rtmp://{address}:1935/live/NAME")]);
}

#[tokio::test]
async fn who_is_run_by_hand_is_in_the_roster_as_in_the_table() {
    let (bench, folder) = (Bench::start().await, tempfile::tempdir().unwrap());
    let instance = instance(&bench, folder.path()).await;
    let roster = instance.roster();
    bench.hub.ensure("away");
    let names = |rows: Vec<crate::view::ModuleView>| {
        rows.into_iter().map(|row| (row.name.clone(), row.runs())).collect::<Vec<_>>()
    };
    assert_eq!(names(roster()), [("front".into(), false)]);
    let _clients = [bench.connect("front").await, bench.connect("extra").await];
    assert_eq!(roster()[0].process.state, ProcessState::NotRunHere { image: Some("reg/front:1".into()) });
    assert_eq!(names(roster()), [("front".into(), true), ("extra".into(), true)]);
    assert_eq!(names(instance.view().modules), names(roster()));
}
