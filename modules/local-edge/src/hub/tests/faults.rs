//! Bad days on purpose, as a module meets them.

use super::*;
use crate::fault::Fault;

#[tokio::test]
async fn during_an_outage_nobody_gets_in_and_after_it_all_is_as_before() {
    let bench = Bench::start().await;
    let mut cam = bench.connect("cam").await;
    bench.hub.faults.set(Fault::HubDown { seconds: 86_400 });
    cam.closed().await;
    let deadline = tokio::time::Instant::now() + LONG;
    while tokio::net::TcpStream::connect(("127.0.0.1", bench.port)).await.is_ok() {
        assert!(tokio::time::Instant::now() < deadline, "it still listens");
    }
    bench.hub.faults.set(Fault::Clear);
    while tokio::net::TcpStream::connect(("127.0.0.1", bench.port)).await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "it never listens again");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    bench.connect("cam").await;
}

#[tokio::test]
async fn a_hub_that_hangs_says_nothing_until_it_is_over() {
    let bench = Bench::start().await;
    let mut cam = bench.connect("cam").await;
    cam.subscribe("$iothub/twin/res/#").await;
    bench.hub.faults.set(Fault::Hang { seconds: 86_400 });
    cam.publish("$iothub/twin/GET/?$rid=1", "").await;
    let quiet = tokio::time::timeout(Duration::from_millis(200), cam.message()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    bench.hub.faults.set(Fault::Clear);
    assert_eq!(cam.message().await.0, "$iothub/twin/res/200/?$rid=1");
}

#[tokio::test]
async fn a_get_that_is_cut_ends_the_connection_and_the_next_one_is_whole() {
    let bench = Bench::start().await;
    bench.hub.deploy("cam", &object(json!({"a": 1})));
    bench.hub.faults.set(Fault::Cut { in_get: true });
    let mut cam = bench.connect("cam").await;
    cam.subscribe("$iothub/twin/res/#").await;
    cam.publish("$iothub/twin/GET/?$rid=1", "").await;
    cam.closed().await;
    let mut again = bench.connect("cam").await;
    again.publish("$iothub/twin/GET/?$rid=2", "").await;
    let (topic, twin) = again.json().await;
    assert_eq!((topic.as_str(), &twin["desired"]["a"]), ("$iothub/twin/res/200/?$rid=2", &json!(1)));
}

#[tokio::test]
async fn an_expired_token_is_no_good_again_and_a_newer_one_is() {
    let bench = Bench::start().await;
    let token = bench.token("cam");
    let options = || bench.options("cam", &Bench::user("cam"), &token);
    let mut cam = Client::new(options());
    assert!(matches!(cam.next().await, Packet::ConnAck(_)));
    bench.hub.expire_tokens();
    cam.closed().await;
    assert_eq!(bench.refusal(options()).await, ConnectReturnCode::NotAuthorized);
    let deadline = tokio::time::Instant::now() + LONG;
    // Tokens count in seconds.
    while bench.token("cam").rsplit_once('=').unwrap().1 == token.rsplit_once('=').unwrap().1 {
        assert!(tokio::time::Instant::now() < deadline, "time stands still");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bench.connect("cam").await;
}

#[tokio::test]
async fn a_lost_patch_leaves_a_gap_of_versions() {
    let bench = Bench::start().await;
    let mut cam = bench.connect("cam").await;
    cam.subscribe("$iothub/twin/PATCH/properties/desired/#").await;
    bench.hub.faults.set(Fault::LosePatches { count: 2 });
    for value in 1..=3 {
        assert!(bench.hub.set_desired("cam", object(json!({"a": value})), false).unwrap().connected);
    }
    assert_eq!(cam.json().await.1, json!({"a": 3, "$version": 3}));
}

#[tokio::test]
async fn late_answers_are_all_as_late_and_in_order() {
    let bench = Bench::start().await;
    let mut cam = bench.connect("cam").await;
    cam.subscribe("$iothub/twin/res/#").await;
    bench.hub.faults.set(Fault::Delay { milliseconds: 300 });
    let asked = tokio::time::Instant::now();
    for rid in 0..20 {
        cam.client.try_publish(format!("$iothub/twin/GET/?$rid={rid}"), QoS::AtMostOnce, false, "").unwrap();
    }
    for rid in 0..20 {
        assert_eq!(cam.message().await.0, format!("$iothub/twin/res/200/?$rid={rid}"));
        assert!(asked.elapsed() >= Duration::from_millis(300));
    }
}

#[tokio::test]
async fn connects_are_refused_as_often_as_asked_for() {
    let bench = Bench::start().await;
    let options = || bench.options("cam", &Bench::user("cam"), &bench.token("cam"));
    for (code, meant) in [(5, ConnectReturnCode::NotAuthorized), (3, ConnectReturnCode::ServiceUnavailable)] {
        bench.hub.faults.set(Fault::Refuse { code, count: 1 });
        assert_eq!(bench.refusal(options()).await, meant);
        bench.connect("cam").await;
    }
}

#[tokio::test]
async fn after_a_rotation_the_old_bundle_is_not_enough() {
    let mut bench = Bench::start().await;
    bench.hub.ensure("cam");
    bench.authority.rotate().unwrap();
    bench.certificate.send_replace(bench.authority.server_config(&["localhost"]).unwrap());
    let mut old = Client::new(bench.options("cam", &Bench::user("cam"), &bench.token("cam")));
    assert!(matches!(old.eventloop.poll().await, Err(ConnectionError::Tls(_))));
    bench.tls = trusting(&bench.authority.trust_bundle());
    bench.connect("cam").await;
}

#[tokio::test]
async fn slow_twin_requests_are_answered_one_after_the_other_and_nothing_else_waits() {
    let bench = Bench::start().await;
    bench.hub.deploy("cam", &object(json!({"a": 1})));
    let mut cam = bench.connect("cam").await;
    cam.subscribe("$iothub/twin/res/#").await;
    cam.subscribe("$iothub/methods/POST/#").await;
    bench.hub.faults.set(Fault::SlowTwin { seconds: 1 });
    let asked = tokio::time::Instant::now();
    cam.publish("$iothub/twin/GET/?$rid=1", "").await;
    cam.publish("$iothub/twin/PATCH/properties/reported/?$rid=2", r#"{"b":2}"#).await;
    let calling = bench.hub.invoke("cam", "ping", &Value::Null, LONG);
    let answers = async {
        let mut topics = Vec::new();
        for _ in 0..3 {
            topics.push((cam.message().await.0, asked.elapsed()));
        }
        topics
    };
    let (topics, _) = tokio::join!(answers, tokio::time::timeout(Duration::from_secs(3), calling));
    assert!(topics[0].0.starts_with("$iothub/methods/POST/ping/"), "{topics:?}");
    for (index, topic) in ["$iothub/twin/res/200/?$rid=1", "$iothub/twin/res/204/?$rid=2"].iter().enumerate()
    {
        let (found, after) = &topics[index + 1];
        assert_eq!(found, topic);
        assert!(after.as_secs() > index as u64, "{topics:?}");
    }
    assert_eq!(bench.hub.twin("cam").unwrap().reported, object(json!({"b": 2})));
}

#[tokio::test]
async fn a_full_disk_closes_over_a_message_and_over_nothing_else() {
    let bench = Bench::start().await;
    bench.hub.faults.set(Fault::StoreFull { seconds: 86_400 });
    let mut cam = bench.connect("cam").await;
    cam.subscribe("$iothub/twin/res/#").await;
    cam.publish("$iothub/twin/GET/?$rid=1", "").await;
    assert_eq!(cam.message().await.0, "$iothub/twin/res/200/?$rid=1");
    cam.publish("devices/local-edge/modules/cam/messages/events/", "{}").await;
    cam.closed().await;
    bench.hub.faults.set(Fault::Clear);
    let mut again = bench.connect("cam").await;
    again.publish("devices/local-edge/modules/cam/messages/events/", "{}").await;
    while !matches!(again.next().await, Packet::PubAck(_)) {}
}

#[tokio::test]
async fn lost_subscriptions_cost_answers_until_they_are_made_again() {
    let bench = Bench::start().await;
    let mut cam = bench.connect("cam").await;
    cam.subscribe("$iothub/twin/res/#").await;
    bench.hub.lose_subscriptions();
    cam.publish("$iothub/twin/GET/?$rid=1", "").await;
    while !matches!(cam.next().await, Packet::PubAck(_)) {}
    cam.subscribe("$iothub/twin/res/#").await;
    cam.publish("$iothub/twin/GET/?$rid=2", "").await;
    assert_eq!(cam.message().await.0, "$iothub/twin/res/200/?$rid=2");
}
