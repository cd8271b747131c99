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
        device_rules: false,
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

/// What `GetModuleLogs` answers.
fn logs_of(instance: &Instance, items: serde_json::Value, encoding: &str, kind: &str) -> serde_json::Value {
    let request = json!({"schemaVersion": "1.0", "items": items, "encoding": encoding, "contentType": kind});
    let answer = instance.agent_method("GetModuleLogs", request);
    assert_eq!(answer.status, 200, "{}", answer.payload);
    answer.payload
}

#[tokio::test]
async fn a_program_beside_this_one_gets_the_desktops_session_but_not_under_the_rules_of_a_device() {
    let beside = std::env::current_exe().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
    let module = json!({"modulesContent": {"$edgeAgent": {"properties.desired.modules.own": {
        "type": "docker", "status": "running", "restartPolicy": "always", "settings": {"image": "reg/own:1"}}}}});
    for (device_rules, pace) in [(false, Pace::DESK), (true, Pace::DEVICE)] {
        let manifest = Manifest::parse(&module.to_string(), &variables(), Path::new("/nowhere")).unwrap();
        let mut spec = manifest.modules.into_iter().next().unwrap();
        spec.service.clone_from(&beside);
        let address = Addresses::default().next().await.unwrap();
        let launch =
            Running::new(spec, address, Arc::new(Log::in_memory()), Vec::new(), device_rules).launch();
        let given: Vec<&str> = launch.env.iter().filter_map(|(name, _)| name.to_str()).collect();
        let session =
            services::SESSION.into_iter().filter(|name| !device_rules && std::env::var_os(name).is_some());
        assert_eq!(given, [services::PARENT].into_iter().chain(session).collect::<Vec<_>>());
        assert_eq!(launch.pace, pace);
    }
}

#[tokio::test]
async fn logs_come_once_a_module_by_the_first_item_that_fits_in_the_form_that_is_asked_for() {
    use base64::Engine;
    let (bench, folder) = (Bench::start().await, tempfile::tempdir().unwrap());
    let instance = instance(&bench, folder.path()).await;
    let lines =
        ["<4> 2026-01-01 00:00:00.000 +00:00 [WRN] - ü", "<3> 2026-01-01 00:00:01.500 +00:00 [ERR] - b"];
    lines.iter().for_each(|line| instance.modules[0].log.push(line));
    let all = json!([{"id": "all"}]);
    let text = format!("{}\n{}\n", lines[0], lines[1]);
    let plain = json!([{"id": "front", "payload": text}]);
    assert_eq!(logs_of(&instance, all.clone(), "none", "text"), plain);

    let several = json!([
        {"id": "nobody"}, {"id": "FRO", "filter": {"logLevel": 3}}, {"id": "front"}, {"id": "all"}
    ]);
    let error = json!([{"id": "front", "payload": format!("{}\n", lines[1])}]);
    assert_eq!(logs_of(&instance, several, "none", "text"), error);
    assert_eq!(logs_of(&instance, json!([{"id": "nobody"}]), "none", "text"), json!([]));

    let zipped = logs_of(&instance, all.clone(), "GZIP", "text");
    let bytes = base64::engine::general_purpose::STANDARD.decode(zipped[0]["payloadBytes"].as_str().unwrap());
    let mut unpacked = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&bytes.unwrap()[..]), &mut unpacked)
        .unwrap();
    assert_eq!((unpacked, zipped[0].get("payload")), (text, None));

    let messages = logs_of(&instance, all.clone(), "none", "json");
    let messages: serde_json::Value = serde_json::from_str(messages[0]["payload"].as_str().unwrap()).unwrap();
    let names = &bench.hub.names;
    assert_eq!(
        messages[1],
        json!({
            "iothub": names.iothub, "device": names.device, "id": "front", "stream": "stderr", "loglevel": 3,
            "text": "[ERR] - b", "timestamp": "2026-01-01T00:00:01.500Z",
        })
    );

    (0..2000).for_each(|_| instance.modules[0].log.push(&"x".repeat(100)));
    let request = json!({"schemaVersion": "1.0", "items": all});
    let too_much = instance.agent_method("GetModuleLogs", request);
    assert_eq!(too_much.status, 400);
    assert!(too_much.payload["message"].as_str().unwrap().contains("ask for less"), "{}", too_much.payload);
    let few = logs_of(&instance, json!([{"id": "all", "filter": {"tail": 1000}}]), "none", "text");
    assert_eq!(few[0]["payload"].as_str().unwrap().lines().count(), 1000);
}

#[tokio::test]
async fn the_agent_restarts_what_runs_and_nothing_else() {
    let (bench, folder) = (Bench::start().await, tempfile::tempdir().unwrap());
    let instance = instance(&bench, folder.path()).await;
    let restart = json!({"schemaVersion": "1.0", "id": "front"});
    let answer = instance.agent_method("RestartModule", restart);
    assert_eq!(answer.status, 500);
    assert_eq!(answer.payload["message"], "front: reg/front:1 is not run here");
}
