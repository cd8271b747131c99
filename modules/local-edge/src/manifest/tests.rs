use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::options::HostPath;
use super::*;

fn variables(text: &str) -> Variables {
    Variables::parse(Path::new("/repo/edge-config/local.env"), text, BTreeMap::new()).unwrap()
}

fn parse(manifest: Value) -> Result<Manifest, ManifestError> {
    let env = "PORT=2935\nMEDIA_DIR=.\nLEVEL=debug\n";
    Manifest::parse(&manifest.to_string(), &variables(env), Path::new("/repo"))
}

fn with_module(module: Value) -> Value {
    with_modules(json!({ "cam": module }))
}

/// As a layer has them; what every module must have is added where it is missing.
fn with_modules(modules: Value) -> Value {
    let Value::Object(modules) = modules else { panic!("not an object") };
    let complete = modules.into_iter().map(|(name, mut module)| {
        for (key, value) in [("type", "docker"), ("status", "running"), ("restartPolicy", "always")] {
            module.as_object_mut().unwrap().entry(key).or_insert(value.into());
        }
        (name, module)
    });
    let modules: serde_json::Map<String, Value> = complete.collect();
    json!({"modulesContent": {"$edgeAgent": {"properties.desired.modules": modules}}})
}

fn refusal(module: Value) -> String {
    parse(with_module(module)).unwrap_err().to_string()
}

#[test]
fn a_module_is_read_with_everything_that_a_process_can_honour() {
    let manifest = parse(with_module(json!({
        "type": "docker", "status": "stopped", "restartPolicy": "on-failure", "startupOrder": 3,
        "env": {"LOG": {"value": "${LEVEL}"}, "N": {"value": 3}},
        "settings": {"image": "${MODULES.rtmp-splitter}", "createOptions": {
            "Env": ["A=b=c", "LOG=loses"], "StopTimeout": 3,
            "HostConfig": {
                "PortBindings": {"1935/tcp": [{"HostPort": "${PORT}"}], "8000/udp": [{"HostPort": "8000"}]},
                "Binds": ["${MEDIA_DIR}:/media:ro", "/abs:/data", "spool:/spool", "../up:/up"],
                "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m"}}}}}
    })))
    .unwrap();
    let [module] = manifest.modules.as_slice() else { panic!("{manifest:?}") };
    assert_eq!((module.name.as_str(), module.service.as_str()), ("cam", "rtmp-splitter"));
    assert!(!module.running);
    assert_eq!((module.restart, module.startup_order), (RestartPolicy::OnFailure, 3));
    let env: Vec<(&str, &str)> = module.env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(env, [("A", "b=c"), ("LOG", "debug"), ("N", "3")]);
    assert_eq!(
        module.ports,
        [
            Port { container: 1935, protocol: Protocol::Tcp, host: 2935, variable: Some("PORT".into()) },
            Port { container: 8000, protocol: Protocol::Udp, host: 8000, variable: None },
        ]
    );
    let directory = |path: &str| HostPath::Directory(PathBuf::from(path));
    let binds: Vec<(&str, &HostPath)> =
        module.binds.iter().map(|bind| (bind.container.to_str().unwrap(), &bind.host)).collect();
    assert_eq!(
        binds,
        [
            ("/media", &directory("/repo/edge-config")),
            ("/data", &directory("/abs")),
            ("/spool", &HostPath::Volume("spool".into())),
            ("/up", &directory("/repo/up")),
        ]
    );
    assert_eq!((module.stop_timeout, module.log_bytes), (Duration::from_secs(3), 10 << 20));
    assert_eq!(manifest.notes, [] as [String; 0]);
}

#[test]
fn create_options_as_a_text_in_pieces_are_the_same_as_an_object() {
    let object = json!({"HostConfig": {"PortBindings": {"1935/tcp": [{"HostPort": "${PORT}"}]}}});
    let text = object.to_string();
    let (first, rest) = text.split_at(20);
    let (second, third) = rest.split_at(20);
    let pieces =
        json!({"image": "x", "createOptions": first, "createOptions01": second, "createOptions02": third});
    let whole = parse(with_module(json!({"settings": {"image": "x", "createOptions": object}}))).unwrap();
    assert_eq!(parse(with_module(json!({"settings": pieces}))).unwrap(), whole);
    for none in ["", "null", "{}"] {
        let manifest =
            parse(with_module(json!({"settings": {"image": "x", "createOptions": none}}))).unwrap();
        assert!(manifest.modules[0].ports.is_empty());
    }
}

#[test]
fn modules_start_in_the_order_of_startup_order_and_last_without_one() {
    let image = |order: Value| json!({"settings": {"image": "x"}, "startupOrder": order});
    let modules = json!({
        "d": {"settings": {"image": "x"}}, "c": image(json!(2)), "b": image(json!(1)), "a": image(json!(2))
    });
    let manifest = parse(with_modules(modules));
    let order: Vec<String> = manifest.unwrap().modules.into_iter().map(|module| module.name).collect();
    assert_eq!(order, ["b", "c", "a", "d"]);
}

#[test]
fn dotted_keys_of_layered_deployments_set_their_part() {
    let manifest = parse(json!({"modulesContent": {
        "$edgeAgent": {"properties.desired.modules.extra": {
            "type": "docker", "status": "running", "restartPolicy": "always", "settings": {"image": "reg/mp4-source:1"}}},
        "$edgeHub": {"properties.desired.routes.r2": "FROM /messages/* INTO $upstream"},
        "extra": {
            "properties.desired": {"flows": {"a": {"enabled": true}}},
            "properties.desired.flows.b": {"enabled": false},
            "properties.desired.flows.a.enabled": false
        }
    }}))
    .unwrap();
    assert_eq!(manifest.modules[0].service, "mp4-source");
    assert!(manifest.routes["r2"].carries("extra", Some("events")));
    assert_eq!(
        Value::Object(manifest.desired["extra"].clone()),
        json!({"flows": {"a": {"enabled": false}, "b": {"enabled": false}}})
    );
}

#[test]
fn routes_are_texts_or_objects_and_what_is_not_understood_of_them_is_said() {
    let manifest = parse(json!({"modulesContent": {"$edgeHub": {"properties.desired": {"schemaVersion": "1.1", "routes": {
        "up": "FROM /messages/* INTO $upstream",
        "first": {"route": "FROM /messages/* WHERE a = 1 INTO $upstream", "priority": 0, "timeToLiveSecs": 60},
        "gone": null
    }}}}}))
    .unwrap();
    assert_eq!(manifest.routes.keys().collect::<Vec<_>>(), ["first", "up"]);
    let bad = parse(json!({"modulesContent": {"$edgeHub": {"properties.desired.routes.r": "x"}}}));
    let condition = "FROM /* WHERE length(a) > 1 INTO $upstream";
    let odd = parse(json!({"modulesContent": {"$edgeHub": {"properties.desired.routes.r": condition}}}));
    let said = odd.unwrap_err().to_string();
    assert!(said.contains(r#"routes.r: condition "length(a) > 1": "length" is not understood"#), "{said}");
    assert_eq!(
        bad.unwrap_err().to_string(),
        r#"$edgeHub.routes.r: expected `FROM <source> INTO <sink>`, found "x""#
    );
}

#[test]
fn what_a_process_cannot_honour_is_one_note_a_module() {
    let options = json!({"NetworkingConfig": {}, "HostConfig": {"PidsLimit": 1, "Privileged": true}});
    let manifest = parse(with_module(json!({"settings": {"image": "x", "createOptions": options}}))).unwrap();
    assert_eq!(
        manifest.notes,
        ["cam: createOptions with no meaning for a process are ignored here: NetworkingConfig, \
             HostConfig.PidsLimit, HostConfig.Privileged"]
    );
}

#[test]
fn an_address_for_ports_is_said_to_be_ignored_where_it_is_not_the_one_they_have_anyway() {
    let notes = |bindings| parse(with_module(bound(bindings))).unwrap().notes;
    let others = json!({
        "1935/tcp": [{"HostIp": "192.0.2.7", "HostPort": "1"}, {"HostIp": "::", "HostPort": "2"}],
        "80/tcp": null
    });
    assert_eq!(
        notes(others),
        [
            "cam: createOptions with no meaning for a process are ignored here: HostIp of HostConfig.PortBindings"
        ]
    );
    let same =
        json!({"1935/tcp": [{"HostIp": "127.0.0.1", "HostPort": "1"}, {"HostIp": "", "HostPort": "2"}]});
    assert_eq!(notes(same), [] as [String; 0]);
}

/// A module with these `PortBindings`.
fn bound(bindings: Value) -> Value {
    json!({"settings": {"image": "x", "createOptions": {"HostConfig": {"PortBindings": bindings}}}})
}

#[test]
fn each_fault_names_its_place() {
    assert_eq!(
        refusal(json!({"settings": {"image": "x"}, "env": {"A": {"value": "${NOPE}"}}})),
        "modulesContent.$edgeAgent.properties.desired.modules.cam.env.A.value: ${NOPE} has no value: set \
         NOPE=... in /repo/edge-config/local.env or in the environment"
    );
    for (module, text) in [
        (json!({}), "$edgeAgent.modules.cam.settings: expected a value, found nothing"),
        (json!({"settings": {}}), "$edgeAgent.modules.cam.settings.image: expected a value, found nothing"),
        (
            json!({"type": "process", "settings": {"image": "x"}}),
            "$edgeAgent.modules.cam.type: expected \"docker\"",
        ),
        (
            json!({"settings": {"image": "${MODULES.}"}}),
            "$edgeAgent.modules.cam.settings.image: expected an image",
        ),
        (
            json!({"settings": {"image": "x"}, "status": "up"}),
            "cam.status: expected \"running\" or \"stopped\"",
        ),
        (
            json!({"settings": {"image": "x"}, "restartPolicy": 1}),
            "cam.restartPolicy: expected a text, found 1",
        ),
        (
            json!({"settings": {"image": "x"}, "startupOrder": -1}),
            "cam.startupOrder: expected a whole number",
        ),
        (
            json!({"settings": {"image": "x", "createOptions": "{"}}),
            "cam.settings.createOptions: createOptions is not JSON",
        ),
        (bound(json!({"1935/tcp": [{"HostPort": "x"}]})), "1935/tcp.0.HostPort: expected a port number"),
        (bound(json!({"0/tcp": []})), "expected PORT/tcp or PORT/udp"),
        (
            json!({"settings": {"image": "x", "createOptions": {"HostConfig": {"Binds": ["a"]}}}}),
            "Binds: expected \"HOST:CONTAINER\"",
        ),
    ] {
        let found = refusal(module.clone());
        assert!(found.contains(text), "{module}\n  expected {text}\n  found    {found}");
    }
    let wrong_key = parse(json!({"modulesContent": {"cam": {"desired": {}}}})).unwrap_err().to_string();
    assert!(wrong_key.contains("modulesContent.cam.desired"), "{wrong_key}");
    let no_content = parse(json!({"modules": {}})).unwrap_err().to_string();
    assert_eq!(no_content, "modulesContent: expected a value, found nothing");
}

/// A manifest as `az iot edge set-modules` takes it.
fn whole() -> Value {
    let module = |image: &str| json!({"type": "docker", "status": "running", "restartPolicy": "always", "settings": {"image": image}});
    json!({"modulesContent": {
        "$edgeAgent": {"properties.desired": {
            "schemaVersion": "1.1",
            "runtime": {"type": "docker", "settings": {
                "minDockerVersion": "v1.25",
                "registryCredentials": {"reg": {"username": "u", "password": "p", "address": "reg.example.com"}}}},
            "systemModules": {"edgeAgent": module("agent:1.6.8"), "edgeHub": module("hub:1.6.8")},
            "modules": {"cam": module("reg/rtmp-splitter:1")}
        }},
        "$edgeHub": {"properties.desired": {
            "schemaVersion": "1.1",
            "routes": {"up": {"route": "FROM /messages/* INTO $upstream", "priority": 3, "timeToLiveSecs": 60}},
            "storeAndForwardConfiguration": {"timeToLiveSecs": 7200}
        }},
        "cam": {"properties.desired": {"schemaVersion": "1.0"}}
    }})
}

#[test]
fn what_set_modules_refuses_is_refused_by_its_path() {
    parse(whole()).unwrap();
    let mut for_ever = whole();
    for_ever["modulesContent"]["$edgeHub"]["properties.desired"]["storeAndForwardConfiguration"]["timeToLiveSecs"] =
        (-1).into();
    parse(for_ever).unwrap();
    let agent = "/modulesContent/$edgeAgent/properties.desired";
    let hub = "/modulesContent/$edgeHub/properties.desired";
    let nothing = Value::Null;
    for (object, key, value, text) in [
        ("/modulesContent", "$edgeHub", &nothing, "modulesContent.$edgeHub: expected a value"),
        (agent, "schemaVersion", &nothing, "$edgeAgent.schemaVersion: expected a value"),
        (agent, "runtime", &nothing, "$edgeAgent.runtime: expected a value"),
        (agent, "systemModules", &nothing, "$edgeAgent.systemModules: expected a value"),
        (agent, "modules", &nothing, "$edgeAgent.modules: expected a value"),
        (agent, "moduls", &json!({}), "$edgeAgent.moduls: a deployment manifest has no such member there"),
        (hub, "routes", &nothing, "$edgeHub.routes: expected a value"),
        (hub, "rotes", &json!({}), "$edgeHub.rotes: a deployment manifest has no such member"),
    ] {
        refused(object, key, value, text);
    }
    let cam = &format!("{agent}/modules/cam");
    for (object, key, value, text) in [
        (
            &format!("{agent}/systemModules"),
            "edgeHub",
            &nothing,
            "$edgeAgent.systemModules.edgeHub: expected a value",
        ),
        (
            &format!("{agent}/systemModules/edgeHub"),
            "restartPolicy",
            &nothing,
            "edgeHub.restartPolicy: expected a value",
        ),
        (&format!("{agent}/runtime"), "type", &json!("podman"), "runtime.type: expected \"docker\""),
        (
            &format!("{agent}/runtime/settings/registryCredentials/reg"),
            "address",
            &nothing,
            "reg.address: expected a value",
        ),
        (cam, "type", &nothing, "$edgeAgent.modules.cam.type: expected a value, found nothing"),
        (cam, "status", &nothing, "$edgeAgent.modules.cam.status: expected a value"),
        (cam, "restartPolicy", &nothing, "$edgeAgent.modules.cam.restartPolicy: expected a value"),
        (
            cam,
            "restartPolcy",
            &json!("always"),
            "$edgeAgent.modules.cam.restartPolcy: a deployment manifest has no",
        ),
        (
            cam,
            "imagePullPolicy",
            &json!("always"),
            "cam.imagePullPolicy: expected \"on-create\" or \"never\"",
        ),
        (
            &format!("{agent}/runtime/settings/registryCredentials/reg"),
            "address",
            &json!("reg .example.com"),
            "reg.address: expected a host name without blanks",
        ),
        (
            &format!("{agent}/runtime/settings"),
            "minDockerVersion",
            &json!(1.25),
            "settings.minDockerVersion: expected a text",
        ),
        (cam, "version", &json!(1.0), "cam.version: expected a text, found 1.0"),
        (cam, "env", &json!({"A.B": {"value": "x"}}), "cam.env: expected names without blanks"),
        (
            &format!("{hub}/routes"),
            "a.b",
            &json!("FROM /* INTO $upstream"),
            "routes: expected names without blanks",
        ),
        (cam, "env", &json!({"A": "x"}), "cam.env.A: expected an object"),
        (cam, "env", &json!({"A": {"value": []}}), "cam.env.A.value: expected a text, a number or a boolean"),
        (
            &format!("{cam}/settings"),
            "creatOptions",
            &json!({}),
            "cam.settings.creatOptions: a deployment manifest has",
        ),
        (&format!("{agent}/modules"), "a.b", &json!({}), "$edgeAgent.modules"),
        (
            &format!("{hub}/routes/up"),
            "priority",
            &json!(10),
            "routes.up.priority: expected a whole number from 0 to 9",
        ),
        (
            &format!("{hub}/routes/up"),
            "ttl",
            &json!(10),
            "routes.up.ttl: a deployment manifest has no such member",
        ),
        (
            &format!("{hub}/storeAndForwardConfiguration"),
            "timeToLiveSecs",
            &json!("7200"),
            "storeAndForwardConfiguration.timeToLiveSecs: expected a whole number",
        ),
    ] {
        refused(object, key, value, text);
    }
}

/// Puts a value (null: nothing) at a place of the whole manifest, which is refused for it.
fn refused(object: &str, key: &str, value: &Value, text: &str) {
    let mut manifest = whole();
    let place = manifest.pointer_mut(object).and_then(Value::as_object_mut).unwrap();
    match value {
        Value::Null => drop(place.shift_remove(key).expect("a member")),
        value => drop(place.insert(key.to_owned(), value.clone())),
    }
    let error = parse(manifest).expect_err(text).to_string();
    assert!(error.contains(text), "expected {text}\n  found    {error}");
}

#[test]
fn a_schema_version_that_a_device_refuses_is_refused() {
    for (section, version, good) in [
        ("$edgeAgent", "1.0", true),
        ("$edgeAgent", "1.1", true),
        ("$edgeAgent", "1.2", false),
        ("$edgeHub", "1.3", true),
        ("$edgeHub", "2.0", false),
        ("$edgeHub", "one", false),
    ] {
        let manifest = json!({"modulesContent": {section: {"properties.desired.schemaVersion": version}}});
        assert_eq!(parse(manifest).is_ok(), good, "{section} {version}");
    }
}

#[test]
fn names_that_would_leave_the_state_dir_are_refused() {
    for name in ["", ".", "..", "a/b", "a b", "é"] {
        assert!(check_module_name(name).is_err(), "{name:?} was taken");
    }
    for name in ["rtmp-splitter", "a.b", "cam(1)", "x%20"] {
        assert!(check_module_name(name).is_ok(), "{name:?} was refused");
    }
}

#[test]
fn desired_properties_that_iot_hub_would_refuse_are_refused_here() {
    let flows: serde_json::Map<String, Value> =
        (0..10).map(|i| (i.to_string(), "x".repeat(4000).into())).collect();
    let error = parse(json!({"modulesContent": {"cam": {"properties.desired": flows}}})).unwrap_err();
    let said =
        "cam.properties.desired: IoT Hub refuses this: 40010 bytes are too many, at most 32768 are allowed";
    assert_eq!(error.to_string(), said);
    let dotted = json!({"modulesContent": {"cam": {"properties.desired": {"flows": {"a.b": {}}}}}});
    let error = parse(dotted).unwrap_err().to_string();
    assert_eq!(
        error,
        "cam.properties.desired: IoT Hub refuses this: flows.a.b: '.' is not allowed in a name"
    );
}

/// The repository's own manifest, as `cargo run` takes it.
#[test]
fn the_manifest_of_this_repository_runs_the_test_card_through_the_splitter() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = std::fs::read_to_string(root.join("edge-config/local.env")).unwrap();
    let variables = Variables::parse(&root.join("edge-config/local.env"), &text, BTreeMap::new()).unwrap();
    let manifest = Manifest::load(&root.join("deployment.template.json"), &variables).unwrap();
    assert_eq!(manifest.notes, [] as [String; 0]);
    let names: Vec<&str> = manifest.modules.iter().map(|module| module.name.as_str()).collect();
    let ours = ["rtmp-splitter", "hls-gateway", "mp4-source", "rtsp-gateway", "mp4-recorder", "renderer"];
    assert_eq!(names, [ours.as_slice(), &["metrics-collector"]].concat());
    let own = manifest.modules.iter().filter(|module| is_placeholder(&module.image));
    let services: Vec<&str> = own.map(|module| module.service.as_str()).collect();
    assert_eq!(services, ours);
    let splitter = &manifest.modules[0];
    assert_eq!((splitter.ports[0].host, splitter.ports[0].variable.as_deref()), (1935, Some("RTMP_PORT")));
    let media = &manifest.modules[2].binds[0];
    let HostPath::Directory(folder) = &media.host else { panic!("{media:?}") };
    assert_eq!(folder.file_name().unwrap(), "edge-config");
    for module in &services {
        assert!(manifest.desired.contains_key(*module), "{module} has no desired properties");
        assert!(manifest.routes.values().any(|route| route.carries(module, Some("events"))), "{module}");
        let image = format!("${{MODULES.{module}}}");
        assert_eq!(image::service_of(&image, &root).as_deref(), Some(*module));
    }
}

#[test]
fn a_document_that_is_no_object_is_said_to_be_none() {
    let error = parse(json!([])).unwrap_err().to_string();
    assert_eq!(error, "the whole document: expected an object, found []");
}
