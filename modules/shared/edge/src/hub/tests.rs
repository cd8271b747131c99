mod mini_hub;

use std::collections::{BTreeMap, BTreeSet};

use rumqttc::ConnectReturnCode;
use rumqttc::mqttbytes::v4::Packet;
use serde_json::json;
use tokio::task::JoinHandle;
use tracing::Level;

use super::*;
use crate::options::Options;
use crate::service::EventKind;
use crate::source::Source;
use crate::testing::{Rig, rig, until};
use mini_hub::{MiniHub, Record};

/// A name that no resolver knows: only the table of hosts leads to the hub.
const GATEWAY: &str = "edge_gateway.invalid";

struct Walk {
    hub: MiniHub,
    rig: Rig,
    wishes: mpsc::Receiver<(Level, Duration)>,
    goodbye: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Walk {
    async fn start() -> Self {
        Self::with(MiniHub::start(GATEWAY).await, TOKEN_SECONDS)
    }

    fn with(hub: MiniHub, token_seconds: u64) -> Self {
        let mut rig = rig();
        let ca_file = rig.state.path().join("ca.pem");
        std::fs::write(&ca_file, &hub.ca_pem).unwrap();
        let string = format!(
            "HostName=h.azure-devices.net;GatewayHostName={GATEWAY};DeviceId=d;ModuleId=m;SharedAccessKey=a2V5MQ=="
        );
        let options = Options::parse_from_arguments("tester", "1.2.3", std::iter::empty()).unwrap();
        let source = Source::find(&options, |name| match name {
            "EdgeHubConnectionString" => Some(string.clone()),
            "EdgeModuleCACertificateFile" => Some(ca_file.display().to_string()),
            _ => None,
        });
        let Ok(Source::Edge(edge)) = source else { panic!("no edge identity") };
        let hosts = BTreeMap::from([(GATEWAY.to_owned(), hub.address.ip())]);
        let address = HubAddress { port: hub.address.port(), hosts };
        let (level, wishes) = LevelControl::to_test();
        let events = rig.events.take().unwrap();
        let mut client = Hub::new(rig.module.clone(), edge, address, events, level);
        client.token_seconds = token_seconds;
        let (goodbye, asked) = oneshot::channel();
        let task = tokio::spawn(client.run(asked));
        Self { hub, rig, wishes, goodbye: Some(goodbye), task }
    }

    fn record<T>(&self, read: impl Fn(&Record) -> T) -> T {
        read(&self.hub.record.lock().unwrap())
    }

    async fn until(&self, what: &str, condition: impl Fn(&Record) -> bool) {
        until(what, || self.record(&condition)).await;
    }

    async fn until_reported(&self, pointer: &str, expected: Value) {
        let what = format!("{pointer} is reported as {expected}");
        self.until(&what, |record| {
            Value::Object(record.reported.clone()).pointer(pointer) == Some(&expected)
        })
        .await;
    }

    fn assert_no_faults(&self) {
        assert_eq!(self.record(|record| record.faults.clone()), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_module_gets_its_twin_reports_and_follows_patches() {
    let walk = Walk::start().await;
    walk.until_reported("/config/status", json!("applied")).await;
    walk.record(|record| {
        let connect = &record.connects[0];
        assert_eq!(connect.client_id, "d/m");
        let login = connect.login.as_ref().unwrap();
        assert_eq!(
            login.username,
            "h.azure-devices.net/d/m/?api-version=2021-04-12&DeviceClientType=av-services%2Ftester%2F1.2.3"
        );
        let start = "SharedAccessSignature sr=h.azure-devices.net%2Fdevices%2Fd%2Fmodules%2Fm&sig=";
        assert!(login.password.starts_with(start), "{}", login.password);
        assert_eq!(record.server_names[0].as_deref(), Some(GATEWAY));
    });
    walk.hub.patch(json!({"flows": {"a": {"value": 1}, "b": {}}}), true);
    walk.until_reported("/flows/a/value", json!(1)).await;
    walk.until_reported("/config/errors/b", json!("flows.b.value: expected a number")).await;
    walk.hub.patch(json!({"flows": {"b": null}}), true);
    walk.until_reported("/config/desiredVersion", json!(3)).await;
    walk.until("errors are gone", |record| record.reported["config"].get("errors").is_none()).await;
    assert!(walk.rig.module.hub_connected.load(Ordering::Relaxed));
    assert_eq!(
        Value::Object(walk.record(|record| record.reported.clone())),
        Value::Object(walk.rig.module.reported())
    );
    walk.until("patches are acknowledged", |record| record.acknowledged.len() == 2).await;
    walk.assert_no_faults();
}

#[tokio::test]
async fn a_state_change_of_the_service_is_reported() {
    let walk = Walk::start().await;
    walk.hub.record.lock().unwrap().desired = Map::new();
    walk.until_reported("/config/status", json!("applied")).await;
    walk.rig.numbers.set_state("cam", "retrying");
    walk.until_reported("/flows/cam/state", json!("retrying")).await;
}

#[tokio::test]
async fn a_lost_patch_is_found_by_the_gap_and_by_a_reconnect() {
    let walk = Walk::start().await;
    walk.until_reported("/config/status", json!("applied")).await;
    walk.hub.patch(json!({"flows": {"lost": {"value": 1}}}), false);
    walk.hub.patch(json!({"flows": {"seen": {"value": 2}}}), true);
    walk.until_reported("/flows/lost/value", json!(1)).await;
    walk.until_reported("/flows/seen/value", json!(2)).await;
    walk.hub.patch(json!({"flows": {"away": {"value": 3}}}), false);
    walk.hub.record.lock().unwrap().cut_on_get = 1;
    walk.hub.cut();
    walk.until_reported("/flows/away/value", json!(3)).await;
    assert_eq!(walk.record(|record| record.connects.len()), 3);
    walk.assert_no_faults();
}

#[tokio::test]
async fn every_method_is_answered() {
    let mut walk = Walk::start().await;
    walk.until_reported("/config/status", json!("applied")).await;
    let calls = [
        ("ping", "", 200),
        ("echo", r#"{"a":1}"#, 200),
        ("nothing", "null", 404),
        ("echo", "{", 400),
        ("boom", "", 500),
        ("huge", "", 500),
        ("setLogLevel", r#"{"level":"loud"}"#, 400),
        ("setLogLevel", r#"{"level":"debug","seconds":5}"#, 200),
    ];
    for (number, (name, body, status)) in calls.into_iter().enumerate() {
        walk.hub.publish(format!("$iothub/methods/POST/{name}/?$rid=r{number}"), body.to_owned());
        let topic = format!("$iothub/methods/res/{status}/?$rid=r{number}");
        walk.until(&topic, |record| record.answers.iter().any(|(answered, _)| *answered == topic)).await;
    }
    let answer = |number: usize| walk.record(|record| record.answers[number].1.clone());
    assert_eq!((&answer(0)["name"], &answer(0)["version"]), (&json!("tester"), &json!("1.2.3")));
    assert_eq!(answer(1), json!({"a": 1}));
    assert!(answer(6)["error"].as_str().unwrap().starts_with("expected {\"level\""));
    assert_eq!(walk.wishes.recv().await, Some((Level::DEBUG, Duration::from_secs(5))));
    walk.assert_no_faults();
}

#[tokio::test]
async fn inputs_reach_the_service_and_are_acknowledged() {
    let walk = Walk::start().await;
    walk.until_reported("/config/status", json!("applied")).await;
    walk.hub.publish("devices/d/modules/m/inputs/recordEvent/%24.cdid=d".into(), r#"{"id":1}"#.into());
    walk.hub.publish("devices/d/modules/m/inputs/recordEvent/".into(), "no JSON".into());
    walk.until("both are acknowledged", |record| record.acknowledged.len() == 2).await;
    assert_eq!(*walk.rig.numbers.inputs.lock().unwrap(), [("recordEvent".to_owned(), json!({"id": 1}))]);
}

#[tokio::test]
async fn telemetry_is_sent_again_until_it_is_acknowledged_and_last_words_arrive() {
    let mut walk = Walk::start().await;
    walk.hub.record.lock().unwrap().keep_acks = true;
    walk.until_reported("/config/status", json!("applied")).await;
    let kinds = [EventKind::FlowStarted, EventKind::InputConnected, EventKind::InputLost];
    for kind in kinds {
        walk.rig.numbers.emit(kind, "a");
    }
    let mids = |record: &Record| -> Vec<String> {
        record.telemetry.iter().map(|(topic, _)| topic.split("mid=").nth(1).unwrap().to_owned()).collect()
    };
    walk.until("all are sent", |record| {
        record.telemetry.iter().filter(|(_, body)| body["flow"] == "a").count() == 3
    })
    .await;
    let sent = walk.record(mids);
    walk.hub.record.lock().unwrap().keep_acks = false;
    walk.hub.cut();
    walk.until("all are sent again", |record| mids(record).len() == sent.len() * 2).await;
    assert_eq!(walk.record(mids)[sent.len()..], sent[..], "in the same order under the same ids");
    assert_eq!(sent.iter().collect::<BTreeSet<_>>().len(), sent.len());
    let (topic, body) = walk.record(|record| record.telemetry.last().unwrap().clone());
    assert!(
        topic.contains("/%24.on=events&") && topic.ends_with("&%24.ct=application%2Fjson&%24.ce=utf-8"),
        "{topic}"
    );
    assert_eq!((&body["event"], &body["count"]), (&json!("inputLost"), &json!(1)));
    assert!(body["at"].as_str().unwrap().ends_with('Z'));

    walk.rig.numbers.emit(EventKind::FlowStopped, "a");
    drop(walk.goodbye.take());
    (&mut walk.task).await.unwrap();
    walk.until("goodbye", |record| record.disconnects == 1).await;
    assert_eq!(walk.record(|record| record.telemetry.last().unwrap().1["event"].clone()), "flowStopped");
    walk.assert_no_faults();
}

#[tokio::test]
async fn refusals_of_any_kind_are_tried_again() {
    let hub = MiniHub::start(GATEWAY).await;
    let codes = [ConnectReturnCode::NotAuthorized, ConnectReturnCode::ServiceUnavailable];
    hub.record.lock().unwrap().codes.extend(codes);
    hub.record.lock().unwrap().report_status.push_back(500);
    let walk = Walk::with(hub, TOKEN_SECONDS);
    walk.until_reported("/config/status", json!("applied")).await;
    assert_eq!(walk.record(|record| record.connects.len()), 3);
    assert!(walk.record(|record| record.reports) >= 2);
}

#[tokio::test]
async fn a_token_near_its_end_is_renewed_without_an_outage_or_a_lost_patch() {
    let hub = MiniHub::start(GATEWAY).await;
    let walk = Walk::with(hub, RENEW_SECONDS + 2);
    walk.until_reported("/config/status", json!("applied")).await;
    // The change is made while the connection is being renewed, and nobody is told.
    walk.hub.patch(json!({"flows": {"a": {"value": 1}}}), false);
    let deadline = Instant::now() + Duration::from_secs(20);
    while walk.record(|record| record.connects.len()) < 2 {
        assert!(Instant::now() < deadline, "the connection is renewed");
        assert!(walk.rig.module.hub_connected.load(Ordering::Relaxed));
        // Any news makes the session look at the clock.
        walk.rig.numbers.set_state("cam", "running");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    walk.until_reported("/flows/a/value", json!(1)).await;
    let passwords = walk.record(|record| {
        record
            .connects
            .iter()
            .map(|connect| connect.login.as_ref().unwrap().password.clone())
            .collect::<Vec<_>>()
    });
    assert_ne!(passwords[0], passwords[1]);
    assert!(walk.record(|record| record.disconnects) >= 1);
    walk.assert_no_faults();
}

async fn connect(hub: &MiniHub) -> Result<Mqtt, MqttError> {
    let ca = tls::connector(&hub.ca_pem).unwrap();
    let hosts = BTreeMap::from([(GATEWAY.to_owned(), hub.address.ip())]);
    let address = HubAddress { port: hub.address.port(), hosts };
    let credentials = Credentials { client_id: "d/m".into(), user_name: "u".into(), password: "p".into() };
    Mqtt::connect(&address, GATEWAY, ca, credentials, Duration::ZERO).await
}

#[tokio::test]
async fn the_last_packet_arrives_although_the_hub_is_still_talking() {
    let hub = MiniHub::start(GATEWAY).await;
    let mut mqtt = connect(&hub).await.unwrap();
    for _ in 0..500 {
        hub.publish("$iothub/methods/POST/a/?$rid=1".into(), "x".repeat(200));
        mqtt.send(Packet::PingReq).await.unwrap();
    }
    mqtt.disconnect().await;
    until("goodbye", || hub.record.lock().unwrap().disconnects == 1).await;
}

#[tokio::test]
async fn a_certificate_for_another_name_is_not_accepted() {
    let hub = MiniHub::start("another.invalid").await;
    let error = connect(&hub).await.err().unwrap().to_string();
    assert!(
        error.starts_with("TLS with edge_gateway.invalid: ") && error.contains("not valid for name"),
        "{error}"
    );
}

#[tokio::test]
async fn what_is_not_edge_hub_is_told_from_edge_hub() {
    for (answer, said) in
        [(&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "does not speak TLS"), (b"", "the connection broke off")]
    {
        let mut hub = MiniHub::start(GATEWAY).await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        hub.address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let (mut stream, _) = listener.accept().await.unwrap();
            // All of the greeting is read: closing before would reset the connection.
            let mut greeting = [0; 5];
            stream.read_exact(&mut greeting).await.unwrap();
            let length = usize::from(u16::from_be_bytes([greeting[3], greeting[4]]));
            stream.read_exact(&mut vec![0; length]).await.unwrap();
            stream.write_all(answer).await.unwrap();
        });
        let error = connect(&hub).await.err().unwrap().to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn of_a_bundle_every_certificate_is_trusted_and_nothing_else() {
    assert!(matches!(tls::connector("no PEM at all"), Err(tls::BundleError::Empty)));
}

#[test]
fn the_same_trouble_with_another_figure_is_no_news() {
    let mut trouble = Trouble::default();
    let late = |seconds: u32| ConnectError::Token(format!("not valid yet, {seconds} s in future"));
    trouble.after(&late(10), Duration::ZERO, Duration::ZERO);
    let (_, said) = trouble.said.clone().unwrap();
    trouble.after(&late(9), Duration::ZERO, Duration::ZERO);
    assert_eq!(trouble.said.as_ref().unwrap().1, said);
    trouble.after(&ConnectError::Panic, Duration::ZERO, Duration::ZERO);
    assert_ne!(trouble.said.as_ref().unwrap().1, said);
}

#[test]
fn waiting_grows_and_starts_over_after_a_connection_that_held() {
    let mut trouble = Trouble::default();
    let error = ConnectError::Mqtt(MqttError::Slow);
    assert_eq!(trouble.pause(), Duration::ZERO);
    // However long a connection lives that is never subscribed to.
    let waits: Vec<Duration> = (0..10).map(|_| trouble.after(&error, HELD * 3, Duration::ZERO)).collect();
    assert!(waits[0] <= FIRST_BACK_OFF && waits[0] >= FIRST_BACK_OFF / 2);
    assert!(waits[9] >= MAX_BACK_OFF / 2 && waits.iter().all(|wait| *wait <= MAX_BACK_OFF));
    assert_eq!(trouble.pause(), BEFORE_CONNECT);
    assert!(trouble.after(&error, HELD * 3, HELD) <= FIRST_BACK_OFF);
}
