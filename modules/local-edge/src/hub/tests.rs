//! The stand-in as a module sees it: rumqttc over real TLS.

use std::sync::Arc;

use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event as Incoming, EventLoop, MqttOptions, Packet, QoS,
    TlsConfiguration, Transport,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::json;

mod faults;

use super::*;
use crate::authority::Authority;
use crate::logs::Log;
use crate::sas;

const LONG: Duration = Duration::from_secs(20);
const HOUR: u64 = 3600;

/// A hub on a port of its own.
pub(crate) struct Bench {
    pub(crate) hub: Arc<Hub>,
    port: u16,
    tls: Arc<rustls::ClientConfig>,
    authority: Authority,
    pub(crate) certificate: watch::Sender<Arc<rustls::ServerConfig>>,
    log: Arc<Log>,
    stop: CancellationToken,
    _folder: tempfile::TempDir,
}

impl Bench {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::open(folder.path()).unwrap();
        let log = Arc::new(Log::in_memory());
        let journal = Journal::new(Arc::clone(&log), None);
        let hub = Hub::open(Names::default(), folder.path().join("twins"), journal);
        let server = authority.server_config(&["localhost"]).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let stop = CancellationToken::new();
        let (certificate, served) = watch::channel(server);
        tokio::spawn(Arc::clone(&hub).serve(listener, served, stop.clone()));

        let tls = trusting(&authority.trust_bundle());
        Self { hub, port, tls, authority, certificate, log, stop, _folder: folder }
    }

    fn options(&self, module: &str, user: &str, password: &str) -> MqttOptions {
        let mut options = MqttOptions::new(format!("local-edge/{module}"), "localhost", self.port);
        options.set_credentials(user, password);
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::clone(&self.tls))));
        options.set_max_packet_size(256 * 1024, 256 * 1024);
        options.set_clean_session(false);
        options
    }

    fn token(&self, module: &str) -> String {
        let resource = format!("local-edge.azure-devices.net%2Fdevices%2Flocal-edge%2Fmodules%2F{module}");
        let expiry = jiff::Timestamp::now().as_second() as u64 + HOUR;
        let key = self.hub.ensure(module).key;
        let signature = BASE64.encode(sas::sign(&key, format!("{resource}\n{expiry}").as_bytes()));
        let signature = percent_encoding::utf8_percent_encode(&signature, percent_encoding::NON_ALPHANUMERIC);
        format!("SharedAccessSignature sr={resource}&sig={signature}&se={expiry}")
    }

    fn user(module: &str) -> String {
        format!("local-edge.azure-devices.net/local-edge/{module}/?api-version=2021-04-12")
    }

    pub(crate) async fn connect(&self, module: &str) -> Client {
        let options = self.options(module, &Self::user(module), &self.token(module));
        let mut client = Client::new(options);
        match client.next().await {
            Packet::ConnAck(ack) => assert_eq!(ack.code, ConnectReturnCode::Success),
            other => panic!("{other:?}"),
        }
        client
    }

    async fn refusal(&self, options: MqttOptions) -> ConnectReturnCode {
        let mut client = Client::new(options);
        loop {
            match tokio::time::timeout(LONG, client.eventloop.poll()).await.unwrap() {
                Err(ConnectionError::ConnectionRefused(code)) => return code,
                Ok(_) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
    }

    fn log_has(&self, part: &str) -> bool {
        self.log.tail(1000).0.iter().any(|line| line.contains(part))
    }
}

fn trusting(bundle: &str) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

pub(crate) struct Client {
    client: AsyncClient,
    eventloop: EventLoop,
}

impl Client {
    fn new(options: MqttOptions) -> Self {
        let (client, eventloop) = AsyncClient::new(options, 20);
        Self { client, eventloop }
    }

    /// The next packet from the hub.
    async fn next(&mut self) -> Packet {
        loop {
            match tokio::time::timeout(LONG, self.eventloop.poll()).await.expect("a packet in time").unwrap()
            {
                Incoming::Incoming(packet) => return packet,
                Incoming::Outgoing(_) => {}
            }
        }
    }

    /// The next message, and its topic.
    async fn message(&mut self) -> (String, Vec<u8>) {
        loop {
            if let Packet::Publish(publish) = self.next().await {
                return (publish.topic, publish.payload.to_vec());
            }
        }
    }

    async fn json(&mut self) -> (String, Value) {
        let (topic, body) = self.message().await;
        (topic, serde_json::from_slice(&body).unwrap())
    }

    async fn subscribe(&mut self, filter: &str) {
        self.client.subscribe(filter, QoS::AtLeastOnce).await.unwrap();
        while !matches!(self.next().await, Packet::SubAck(_)) {}
    }

    async fn publish(&mut self, topic: &str, body: impl Into<Vec<u8>>) {
        self.client.publish(topic, QoS::AtLeastOnce, false, body).await.unwrap();
    }

    /// Until the hub closes the connection.
    async fn closed(&mut self) {
        while tokio::time::timeout(LONG, self.eventloop.poll()).await.expect("an end in time").is_ok() {}
    }
}

fn object(value: Value) -> Object {
    value.as_object().unwrap().clone()
}

#[tokio::test]
async fn a_module_gets_its_twin_with_the_rid_it_asked_with() {
    let bench = Bench::start().await;
    bench.hub.deploy("cam", &object(json!({"flows": {"a": {"enabled": true}}})));
    let mut cam = bench.connect("cam").await;
    cam.subscribe("$iothub/twin/res/#").await;
    cam.publish("$iothub/twin/GET/?$rid=r-1", " ").await;
    let (topic, twin) = cam.json().await;
    assert_eq!(topic, "$iothub/twin/res/200/?$rid=r-1");
    assert_eq!(
        twin,
        json!({"desired": {"flows": {"a": {"enabled": true}}, "$version": 1}, "reported": {"$version": 0}})
    );
}

#[tokio::test]
async fn a_change_of_desired_properties_arrives_as_a_patch_with_its_version() {
    let bench = Bench::start().await;
    bench.hub.deploy("cam", &object(json!({"a": 1})));
    assert!(!bench.hub.set_desired("cam", object(json!({"b": 2})), false).unwrap().connected);
    let mut cam = bench.connect("cam").await;
    cam.subscribe("$iothub/twin/PATCH/properties/desired/#").await;
    let change = bench.hub.set_desired("cam", object(json!({"a": null, "c": {"d": 3}})), false).unwrap();
    assert_eq!(change, Change { version: 3, connected: true });
    let (topic, patch) = cam.json().await;
    assert_eq!(topic, "$iothub/twin/PATCH/properties/desired/?$version=3");
    assert_eq!(patch, json!({"a": null, "c": {"d": 3}, "$version": 3}));
    let too_much = object(json!({"x": "y".repeat(40_000)}));
    assert!(matches!(bench.hub.set_desired("cam", too_much, false), Err(HubError::Desired(_))));
    assert_eq!(bench.hub.twin("cam").unwrap().desired_version, 3);
}

#[tokio::test]
async fn a_report_is_merged_or_refused_with_the_code_that_edge_hub_gives() {
    let bench = Bench::start().await;
    let mut cam = bench.connect("cam").await;
    cam.subscribe("$iothub/twin/res/#").await;
    let reported = "$iothub/twin/PATCH/properties/reported/?$rid=";
    for (rid, body, status) in [
        ("1", r#"{"state":{"a":1,"b":2}}"#.to_owned(), 204),
        ("2", r#"{"state":{"b":null}}"#.to_owned(), 204),
        ("3", r#"{"with.dot":1}"#.to_owned(), 400),
        ("4", r#"{"$version":1}"#.to_owned(), 400),
        ("5", json!({"long": "x".repeat(5000)}).to_string(), 400),
        ("6", "[1]".to_owned(), 500),
        ("7", "not json".to_owned(), 500),
    ] {
        cam.publish(&format!("{reported}{rid}"), body).await;
        let (topic, body) = cam.message().await;
        assert_eq!((topic, body), (format!("$iothub/twin/res/{status}/?$rid={rid}"), Vec::new()));
    }
    assert_eq!(bench.hub.reported_now("cam"), Some(object(json!({"state": {"a": 1}}))));
    assert!(bench.log_has("report refused (400): with.dot: '.' is not allowed in a name"));
}

#[tokio::test]
async fn a_method_is_answered_refused_or_times_out() {
    let bench = Bench::start().await;
    bench.hub.ensure("cam");
    let hub = Arc::clone(&bench.hub);
    let away = hub.invoke("cam", "ping", &Value::Null, LONG).await;
    assert_eq!(away, Err(HubError::NotConnected("cam".into())));
    assert!(matches!(hub.invoke("nobody", "ping", &Value::Null, LONG).await, Err(HubError::NoModule(..))));

    let mut cam = bench.connect("cam").await;
    cam.subscribe("$iothub/methods/POST/#").await;
    let call = tokio::spawn(async move { hub.invoke("cam", "ping", &json!({"n": 1}), LONG).await });
    let (topic, payload) = cam.json().await;
    assert_eq!(payload, json!({"n": 1}));
    let rid = topic.strip_prefix("$iothub/methods/POST/ping/?$rid=").expect(&topic);
    cam.publish(&format!("$iothub/methods/res/200/?$rid={rid}"), r#"{"ok":true}"#).await;
    while !matches!(cam.next().await, Packet::PubAck(_)) {}
    let answer = call.await.unwrap().unwrap();
    assert_eq!(answer, MethodAnswer { status: 200, payload: json!({"ok": true}) });

    // More than a device lets pass.
    let hub = Arc::clone(&bench.hub);
    let call = tokio::spawn(async move { hub.invoke("cam", "ping", &Value::Null, LONG).await });
    let (topic, _) = cam.json().await;
    let rid = topic.strip_prefix("$iothub/methods/POST/ping/?$rid=").expect(&topic);
    let large = json!("x".repeat(MAX_METHOD_BYTES)).to_string();
    cam.publish(&format!("$iothub/methods/res/200/?$rid={rid}"), large.as_str()).await;
    while !matches!(cam.next().await, Packet::PubAck(_)) {}
    let answer = call.await.unwrap().unwrap();
    assert!(answer.status == 500 && answer.payload.to_string().contains("131072"), "{}", answer.payload);

    let late = bench.hub.invoke("cam", "slow", &Value::Null, Duration::from_millis(50));
    let (late, _) = tokio::join!(late, cam.json());
    assert!(matches!(late, Err(HubError::TimedOut { .. })));

    let hub = Arc::clone(&bench.hub);
    let cut = tokio::spawn(async move { hub.invoke("cam", "ping", &Value::Null, LONG).await });
    cam.json().await;
    drop(cam);
    assert_eq!(cut.await.unwrap(), Err(HubError::Lost("cam".into())));
}

#[tokio::test]
async fn a_second_connection_with_the_same_identity_closes_the_first() {
    let bench = Bench::start().await;
    let mut first = bench.connect("cam").await;
    let mut second = bench.connect("cam").await;
    first.closed().await;
    second.subscribe("$iothub/twin/res/#").await;
    second.publish("$iothub/twin/GET/?$rid=1", "").await;
    assert_eq!(second.message().await.0, "$iothub/twin/res/200/?$rid=1");
    assert!(bench.hub.connected("cam"));
}

#[tokio::test]
async fn logins_are_refused_with_5_and_malformed_ones_with_3() {
    let bench = Bench::start().await;
    let (user, good) = (Bench::user("cam"), bench.token("cam"));
    let unauthorized = ConnectReturnCode::NotAuthorized;
    assert_eq!(bench.refusal(bench.options("cam", &user, "nonsense")).await, unauthorized);
    assert_eq!(bench.refusal(bench.options("cam", &user, &bench.token("other"))).await, unauthorized);
    assert_eq!(bench.refusal(bench.options("other", &user, &good)).await, unauthorized);
    assert_eq!(bench.refusal(bench.options("nobody", &Bench::user("nobody"), &good)).await, unauthorized);
    let slash = format!("{user}&DeviceClientType=a/b");
    let unavailable = ConnectReturnCode::ServiceUnavailable;
    assert_eq!(bench.refusal(bench.options("cam", &slash, &good)).await, unavailable);
    assert_eq!(bench.refusal(bench.options("cam", "h/local-edge/cam/?x=1", &good)).await, unavailable);
    assert!(bench.log_has("percent-encode it in DeviceClientType"));
}

#[tokio::test]
async fn what_edge_hub_punishes_closes_the_connection() {
    let bench = Bench::start().await;
    for topic in ["$iothub/twin/GET/", "$iothub/twin/nonsense/?$rid=1"] {
        let mut cam = bench.connect("cam").await;
        cam.publish(topic, "").await;
        cam.closed().await;
    }
    let mut cam = bench.connect("cam").await;
    let events = "devices/local-edge/modules/cam/messages/events/";
    cam.client.publish(events, QoS::ExactlyOnce, false, "x").await.unwrap();
    cam.closed().await;
    let mut cam = bench.connect("cam").await;
    cam.eventloop.mqtt_options.set_max_packet_size(1 << 20, 1 << 20);
    cam.client.publish("anything", QoS::AtLeastOnce, false, vec![0; 300_000]).await.unwrap();
    cam.closed().await;
}

#[tokio::test]
async fn a_client_that_is_silent_for_one_and_a_half_keep_alives_is_closed() {
    let bench = Bench::start().await;
    let mut options = bench.options("cam", &Bench::user("cam"), &bench.token("cam"));
    options.set_keep_alive(Duration::from_secs(1));
    let mut cam = Client::new(options);
    assert!(matches!(cam.next().await, Packet::ConnAck(_)));
    // Without being polled it sends no PINGREQ.
    let closed = async {
        while !bench.log_has("nothing came for 1.5 times its keep-alive") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LONG, closed).await.expect("closed in time");
}

#[tokio::test]
async fn what_iot_hub_would_refuse_is_refused_and_changes_nothing() {
    let bench = Bench::start().await;
    bench.hub.ensure("cam");
    let set = |value: Value| {
        let done = bench.hub.set_desired("cam", value.as_object().unwrap().clone(), false);
        done.map(|change| change.version).map_err(|error| error.to_string())
    };
    assert_eq!(set(serde_json::json!({"a": "x".repeat(4096)})), Ok(1));
    for (patch, said) in [
        (serde_json::json!({"flows": {"a.b": 1}}), "flows.a.b: '.' is not allowed"),
        (serde_json::json!({"b": "x".repeat(4097)}), "b: the text is 4097 bytes long"),
        (serde_json::json!({"n": 9_007_199_254_740_993_u64}), "n: 9007199254740993 is outside"),
        (serde_json::json!({"l": [null]}), "l: null in an array"),
    ] {
        let error = set(patch).unwrap_err();
        assert!(error.contains("nothing was changed") && error.contains(said), "{error}");
    }
    assert_eq!(bench.hub.twin("cam").unwrap().desired_version, 1);
    for (name, payload) in [("a/b", 1), ("a#", 1), ("", 1), ("much", 200_000)] {
        let asked = bench.hub.invoke("cam", name, &"x".repeat(payload).into(), LONG).await;
        assert!(matches!(asked, Err(HubError::MethodName(_) | HubError::Payload(_))), "{name}: {asked:?}");
    }
}

#[tokio::test]
async fn messages_for_a_module_that_is_away_are_bounded_by_number_and_by_size() {
    let bench = Bench::start().await;
    bench.hub.ensure("viewer");
    let route = Route::parse(r#"FROM /* INTO BrokeredEndpoint("/modules/viewer/inputs/in")"#).unwrap();
    bench.hub.set_routes(&BTreeMap::from([("r".to_owned(), route)]));
    let waiting = || bench.hub.modules.read("viewer", |state| state.inputs.len()).unwrap();
    for _ in 0..1100 {
        bench.hub.take_message("cam", "", "small".into());
    }
    assert_eq!(waiting(), 1000);
    for _ in 0..100 {
        bench.hub.take_message("cam", "", vec![0; 200 << 10].into());
    }
    assert!((75..=82).contains(&waiting()), "{}", waiting());
    assert!(bench.log_has("a message to viewer (1000 messages or 16 MiB wait already) is dropped"));
}

#[tokio::test]
async fn an_unknown_topic_is_acknowledged_and_said() {
    let bench = Bench::start().await;
    let mut cam = bench.connect("cam").await;
    cam.publish("my/own/topic", "x").await;
    while !matches!(cam.next().await, Packet::PubAck(_)) {}
    assert!(bench.log_has(r#"cam: published to "my/own/topic", which is not an edgeHub topic"#));
}

#[tokio::test]
async fn subscriptions_of_a_persistent_session_are_in_force_at_once() {
    let bench = Bench::start().await;
    let mut cam = bench.connect("cam").await;
    cam.subscribe("$iothub/twin/res/#").await;
    drop(cam);
    let options = bench.options("cam", &Bench::user("cam"), &bench.token("cam"));
    let mut again = Client::new(options);
    let Packet::ConnAck(ack) = again.next().await else { panic!() };
    assert!(ack.session_present);
    again.publish("$iothub/twin/GET/?$rid=9", "").await;
    assert_eq!(again.message().await.0, "$iothub/twin/res/200/?$rid=9");
}

#[tokio::test]
async fn messages_take_their_routes_upstream_and_to_inputs() {
    let bench = Bench::start().await;
    bench.hub.ensure("viewer");
    let route = |text: &str| (text.to_owned(), Route::parse(text).unwrap());
    bench.hub.set_routes(&BTreeMap::from([
        route("FROM /messages/modules/cam/outputs/events INTO $upstream"),
        route(r#"FROM /messages/modules/cam/outputs/* INTO BrokeredEndpoint("/modules/viewer/inputs/in")"#),
    ]));
    let mut cam = bench.connect("cam").await;
    let events = "devices/local-edge/modules/cam/messages/events/";
    cam.publish(&format!("{events}%24.on=events&%24.ct=application%2Fjson"), r#"{"event":"x"}"#).await;
    cam.publish(&format!("{events}%24.on=other"), "plain").await;
    cam.publish(&format!("{events}%24.on=other&a=b=c"), "lost").await;
    for _ in 0..3 {
        while !matches!(cam.next().await, Packet::PubAck(_)) {}
    }
    let (upstream, _) = bench.hub.events.since_start();
    let [event] = upstream.as_slice() else { panic!("{upstream:?}") };
    assert_eq!((event.module.as_str(), event.output.as_deref()), ("cam", Some("events")));
    assert_eq!(event.body, json!({"event": "x"}));
    assert_eq!(event.properties["$.ct"], "application/json");

    // They waited for the viewer.
    let mut viewer = bench.connect("viewer").await;
    viewer.subscribe("devices/local-edge/modules/viewer/inputs/#").await;
    let (topic, body) = viewer.message().await;
    assert_eq!(body, br#"{"event":"x"}"#);
    let bag = topic.strip_prefix("devices/local-edge/modules/viewer/inputs/in/").expect(&topic);
    let bag: BTreeMap<String, String> = topic::parse_bag(bag).unwrap().into_iter().collect();
    assert_eq!((bag["$.on"].as_str(), bag["$.cmid"].as_str()), ("events", "cam"));
    assert_eq!(viewer.message().await.1, b"plain");
    assert!(bench.log_has("a message is lost, though acknowledged"));
}

#[tokio::test]
async fn a_condition_lets_only_those_pass_that_meet_it() {
    let bench = Bench::start().await;
    let text = "FROM /messages/modules/cam/* WHERE $body.event = 'inputLost' AND kind = 'a' INTO $upstream";
    bench.hub.set_routes(&BTreeMap::from([("r".to_owned(), Route::parse(text).unwrap())]));
    let mut cam = bench.connect("cam").await;
    let json = "%24.on=events&%24.ct=application%2Fjson&%24.ce=utf-8";
    for (bag, event) in [
        (format!("{json}&kind=a"), "inputLost"),
        (format!("{json}&kind=a"), "other"),
        (format!("{json}&kind=b"), "inputLost"),
        // Its body can't be queried.
        ("%24.on=events&kind=a".to_owned(), "inputLost"),
    ] {
        let topic = format!("devices/local-edge/modules/cam/messages/events/{bag}");
        cam.publish(&topic, json!({ "event": event }).to_string()).await;
        while !matches!(cam.next().await, Packet::PubAck(_)) {}
    }
    assert_eq!(bench.hub.events.since_start().0.len(), 1);
}

#[tokio::test]
async fn a_message_that_was_not_acknowledged_comes_again() {
    let bench = Bench::start().await;
    let text = r#"FROM /messages/* INTO BrokeredEndpoint("/modules/viewer/inputs/in")"#;
    bench.hub.set_routes(&BTreeMap::from([("r".to_owned(), Route::parse(text).unwrap())]));
    let mut options = bench.options("viewer", &Bench::user("viewer"), &bench.token("viewer"));
    options.set_manual_acks(true);
    let mut viewer = Client::new(options);
    viewer.subscribe("devices/local-edge/modules/viewer/inputs/#").await;
    let mut cam = bench.connect("cam").await;
    cam.publish("devices/local-edge/modules/cam/messages/events/", "once").await;
    while !matches!(cam.next().await, Packet::PubAck(_)) {}
    assert_eq!(viewer.message().await.1, b"once");
    drop(viewer);
    let mut again = bench.connect("viewer").await;
    assert_eq!(again.message().await.1, b"once");
}

#[tokio::test]
async fn twins_and_identities_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::new(Arc::new(Log::in_memory()), None);
    let open = || Hub::open(Names::default(), folder.path().to_path_buf(), journal.clone());
    let hub = open();
    hub.deploy("a/b", &object(json!({"x": 1})));
    hub.set_desired("a/b", object(json!({"y": 2})), false).unwrap();
    let (stop, identity) = (CancellationToken::new(), hub.ensure("a/b"));
    stop.cancel();
    hub.keep(stop).await;

    let again = open();
    assert_eq!(again.ensure("a/b"), identity);
    let twin = again.twin("a/b").unwrap();
    assert_eq!((Value::Object(twin.desired), twin.desired_version), (json!({"x": 1, "y": 2}), 2));
}

#[tokio::test]
async fn connections_end_when_the_hub_stops() {
    let bench = Bench::start().await;
    let mut cam = bench.connect("cam").await;
    bench.stop.cancel();
    cam.closed().await;
}
