//! Questions and answers over a real socket, against an instance without processes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::authority::Authority;
use crate::hub::{Hub, Names};
use crate::instance::{Instance, Parts};
use crate::journal::Journal;
use crate::logs::Log;
use crate::manifest::Manifest;
use crate::state_dir::{StateDir, bind_socket};

const LONG: Duration = Duration::from_secs(20);

struct Bench {
    hub: Arc<Hub>,
    log: Arc<Log>,
    socket: PathBuf,
    stop: CancellationToken,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::locate(Some(folder.path().join("s"))).unwrap();
        drop(state.open().unwrap());
        let log = Arc::new(Log::in_memory());
        let journal = Journal::new(Arc::clone(&log), None);
        let hub = Hub::open(Names::default(), state.twins(), journal.clone());
        let authority = Arc::new(Authority::open(&state.certificates()).unwrap());
        let tls = authority.server_config(&["localhost"]).unwrap();
        let (socket, stop) = (state.control_socket().unwrap(), CancellationToken::new());
        let parts = Parts {
            state,
            hub: Arc::clone(&hub),
            authority,
            tls: tokio::sync::watch::channel(tls).0,
            journal,
            own_log: Arc::clone(&log),
            hub_port: 1234,
            env_file: "local.env".into(),
            manifest: Manifest::default(),
            device_rules: false,
            stop: stop.clone(),
        };
        let instance = Arc::new(Instance::new(parts, Vec::new()).unwrap());
        tokio::spawn(serve(instance, bind_socket(&socket).unwrap(), stop.clone()));
        Self { hub, log, socket, stop, _folder: folder }
    }

    async fn all(&self, ask: Ask) -> Result<Vec<Value>, ClientError> {
        let mut connection = Connection::ask(&self.socket, &ask).await?;
        let mut items = Vec::new();
        while let Some(item) = connection.next().await? {
            items.push(item);
        }
        Ok(items)
    }
}

#[tokio::test]
async fn a_twin_is_set_and_shown() {
    let bench = Bench::start();
    bench.hub.ensure("cam");
    let desired = json!({"a": 1}).as_object().unwrap().clone();
    let set = Ask::TwinSet { module: "cam".into(), desired, replace: false };
    // Nobody is connected: it returns at once.
    assert_eq!(bench.all(set).await.unwrap(), [json!({"version": 1, "connected": false})]);
    let shown = bench.all(Ask::TwinShow { module: "cam".into() }).await.unwrap();
    assert_eq!(shown, [json!({"desired": {"a": 1, "$version": 1}, "reported": {"$version": 0}})]);
}

#[tokio::test]
async fn the_environment_of_any_name_comes_with_a_workload_api_that_answers() {
    let bench = Bench::start();
    let env = Ask::Env { module: "mine".into(), connection_string: false };
    let lines = bench.all(env).await.unwrap();
    let value = |name: &str| {
        let line = lines.iter().find_map(|line| line.as_str()?.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("{name} in {lines:?}")).to_owned()
    };
    assert_eq!((value("IOTEDGE_MODULEID"), value("IOTEDGE_AUTHSCHEME")), ("mine".into(), "sasToken".into()));
    assert_eq!(value("AV_HUB_PORT"), "1234");
    assert_eq!(value("IOTEDGE_MODULEGENERATIONID"), bench.hub.ensure("mine").generation);
    let socket = value("IOTEDGE_WORKLOADURI");
    let socket = socket.strip_prefix("unix://").unwrap();
    assert!(tokio::net::UnixStream::connect(socket).await.is_ok());
    let other = bench.all(Ask::Env { module: "mine".into(), connection_string: true }).await.unwrap();
    assert!(other[0].as_str().unwrap().starts_with("EdgeHubConnectionString=HostName="), "{other:?}");
    let ca = other[1].as_str().unwrap().strip_prefix("EdgeModuleCACertificateFile=").unwrap();
    assert!(std::fs::read_to_string(ca).unwrap().contains("BEGIN CERTIFICATE"));
}

#[tokio::test]
async fn what_cannot_be_done_says_why() {
    let bench = Bench::start();
    let refused = |ask: Ask| async { bench.all(ask).await.unwrap_err().to_string() };
    let nobody = refused(Ask::TwinShow { module: "nobody".into() }).await;
    assert_eq!(nobody, r#"no module "nobody"; there are: "#);
    let restart = refused(Ask::Restart { module: "nobody".into() }).await;
    assert!(restart.contains("no module \"nobody\" in the manifest"), "{restart}");
    let env = refused(Ask::Env { module: "a/b".into(), connection_string: false }).await;
    assert!(env.contains("can't be a module's name"), "{env}");
    bench.hub.ensure("cam");
    let (module, name) = ("cam".to_owned(), "ping".to_owned());
    let method = refused(Ask::Method { module, name, payload: Value::Null, timeout_seconds: 5 }).await;
    assert!(method.starts_with("404: cam is not connected"), "{method}");
}

#[tokio::test]
async fn the_agent_answers_its_methods_in_any_case_and_says_what_it_does_not_do() {
    let bench = Bench::start();
    let call = |name: &str, payload: Value| {
        let ask = Ask::Method { module: "$edgeAgent".into(), name: name.into(), payload, timeout_seconds: 5 };
        async { bench.all(ask).await.unwrap().remove(0) }
    };
    assert_eq!(call("Ping", Value::Null).await, json!({"status": 200, "payload": null}));
    let asked = |rest: Value| {
        let mut payload = json!({"schemaVersion": "1.0", "items": [{"id": "cam"}]});
        payload.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        payload
    };
    for (name, payload, status, said) in [
        ("RestartModule", json!({"schemaVersion": "1.0", "id": "nobody"}), 500, "no module"),
        ("RestartModule", json!({"schemaVersion": "1.0"}), 400, "missing field `id`"),
        ("RestartModule", json!({"id": "nobody"}), 400, "missing field `schemaversion`"),
        ("GetModuleLogs", json!({"items": []}), 400, "missing field `schemaversion`"),
        ("GetModuleLogs", asked(json!({"schemaVersion": "2.0"})), 500, "schemaVersion"),
        ("GetModuleLogs", asked(json!({"items": [{"id": "("}]})), 400, "is not a regular expression"),
        ("GetModuleLogs", asked(json!({"items": [{"filter": {}}]})), 400, "missing field `id`"),
        (
            "GetModuleLogs",
            asked(json!({"items": {"id": "a", "filter": {"tail": "x"}}})),
            400,
            "a whole number",
        ),
        (
            "GetModuleLogs",
            asked(json!({"items": {"id": "a", "filter": {"since": "x"}}})),
            400,
            "how long ago",
        ),
        ("GetModuleLogs", asked(json!({"encoding": "zip"})), 400, "encoding is"),
        ("GetModuleLogs", asked(json!({"contentType": "xml"})), 400, "contentType is"),
        ("UploadModuleLogs", json!({}), 400, "sends to a storage account"),
        ("UploadSupportBundle", json!({}), 400, "sends to a storage account"),
        ("Dance", json!({}), 400, "no method"),
    ] {
        let answer = call(name, payload.clone()).await;
        let message = answer["payload"]["message"].as_str().unwrap_or_default();
        assert!(answer["status"] == status && message.contains(said), "{name} {payload}: {answer}");
    }
    let none = call("getmodulelogs", asked(json!({"items": {"id": "all"}, "encoding": "None"}))).await;
    assert_eq!(none, json!({"status": 200, "payload": []}));
}

#[tokio::test]
async fn logs_are_followed_until_the_asker_goes() {
    let bench = Bench::start();
    bench.log.push("before");
    let ask = Ask::Logs { module: None, tail: 10, follow: true };
    let mut connection = Connection::ask(&bench.socket, &ask).await.unwrap();
    let mut next = async || tokio::time::timeout(LONG, connection.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(next().await, "before");
    bench.log.push("after");
    assert_eq!(next().await, "after");
}

#[tokio::test]
async fn without_an_instance_the_asker_is_told_what_to_start() {
    let bench = Bench::start();
    bench.stop.cancel();
    let nowhere = bench.socket.with_file_name("other.sock");
    let error = Connection::ask(&nowhere, &Ask::Ps).await.err().unwrap().to_string();
    assert!(error.starts_with("no local-edge runs with the state dir "), "{error}");
}

#[tokio::test]
async fn a_line_that_is_no_question_is_answered_with_an_error() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let bench = Bench::start();
    let mut stream = tokio::net::UnixStream::connect(&bench.socket).await.unwrap();
    stream.write_all(b"{\"ask\":\"dance\"}\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with(r#"{"error":"not a request"#), "{answer}");
}
