//! Just enough of edgeHub: MQTT over TLS, a twin, and a record of what the real one would punish.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use futures_util::{SinkExt, StreamExt};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rumqttc::mqttbytes::v4::{Codec, ConnAck, Connect, Packet, PubAck, Publish, SubAck, SubscribeReasonCode};
use rumqttc::{ConnectReturnCode, QoS};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Map, Value};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_util::codec::Framed;

use crate::twin::merge::merge;

/// Told to the connection that is up.
enum Order {
    Send(Box<Packet>),
    Cut,
}

#[derive(Default)]
pub struct Record {
    pub connects: Vec<Connect>,
    pub server_names: Vec<Option<String>>,
    pub desired: Map<String, Value>,
    pub version: i64,
    pub reported: Map<String, Value>,
    pub reports: usize,
    pub gets: usize,
    pub telemetry: Vec<(String, Value)>,
    pub answers: Vec<(String, Value)>,
    pub acknowledged: Vec<u16>,
    pub disconnects: usize,
    /// What edgeHub would refuse, drop or close the connection for.
    pub faults: Vec<String>,
    /// Status of the next reports; 204 when empty.
    pub report_status: VecDeque<u16>,
    /// Codes of the next CONNACKs; success when empty.
    pub codes: VecDeque<ConnectReturnCode>,
    /// Gets that stay unanswered while the connection is cut.
    pub cut_on_get: usize,
    /// Whether telemetry stays unacknowledged.
    pub keep_acks: bool,
    orders: Option<mpsc::UnboundedSender<Order>>,
}

#[derive(Clone)]
pub struct MiniHub {
    pub address: SocketAddr,
    pub ca_pem: String,
    pub record: Arc<Mutex<Record>>,
}

impl MiniHub {
    /// Listens with a certificate for `name`.
    pub async fn start(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let hub = Self { address: listener.local_addr().unwrap(), ca_pem: ca.pem(), record: Arc::default() };
        hub.record.lock().unwrap().version = 1;
        let serving = hub.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serving.clone().serve(stream, acceptor.clone()));
            }
        });
        hub
    }

    /// Changes the desired properties, and tells the module unless the patch is to be lost.
    pub fn patch(&self, patch: Value, tell: bool) {
        let mut record = self.record.lock().unwrap();
        let Value::Object(mut patch) = patch else { panic!("not an object") };
        merge(&mut record.desired, &patch);
        record.version += 1;
        let version = record.version;
        patch.insert("$version".into(), version.into());
        drop(record);
        if tell {
            let topic = format!("$iothub/twin/PATCH/properties/desired/?$version={version}");
            self.publish(topic, Value::Object(patch).to_string());
        }
    }

    pub fn publish(&self, topic: String, body: String) {
        let mut publish = Publish::new(topic, QoS::AtLeastOnce, body);
        publish.pkid = 7;
        self.order(Order::Send(Box::new(Packet::Publish(publish))));
    }

    pub fn cut(&self) {
        self.order(Order::Cut);
    }

    fn order(&self, order: Order) {
        let _ = self.record.lock().unwrap().orders.as_ref().unwrap().send(order);
    }

    async fn serve(self, stream: TcpStream, acceptor: TlsAcceptor) {
        let Ok(tls) = acceptor.accept(stream).await else { return };
        let name = tls.get_ref().1.server_name().map(str::to_owned);
        let mut frames = Framed::new(tls, Codec { max_incoming_size: 262_144, max_outgoing_size: 262_144 });
        let Some(Ok(Packet::Connect(connect))) = frames.next().await else { return };
        let (sender, mut orders) = mpsc::unbounded_channel();
        let code = {
            let mut record = self.record.lock().unwrap();
            record.server_names.push(name);
            record.connects.push(connect);
            record.orders = Some(sender);
            record.codes.pop_front().unwrap_or(ConnectReturnCode::Success)
        };
        frames.send(Packet::ConnAck(ConnAck::new(code, false))).await.unwrap();
        if code != ConnectReturnCode::Success {
            return;
        }
        let mut filters = BTreeSet::new();
        loop {
            let packets = tokio::select! {
                packet = frames.next() => match packet {
                    Some(Ok(packet)) => match self.answer(packet, &mut filters) {
                        Some(packets) => packets,
                        None => return,
                    },
                    _ => return,
                },
                order = orders.recv() => match order {
                    Some(Order::Send(packet)) => vec![*packet],
                    Some(Order::Cut) | None => return,
                },
            };
            for packet in packets {
                if frames.send(packet).await.is_err() {
                    return;
                }
            }
        }
    }

    /// `None` closes the connection.
    fn answer(&self, packet: Packet, filters: &mut BTreeSet<String>) -> Option<Vec<Packet>> {
        let mut record = self.record.lock().unwrap();
        match packet {
            Packet::Subscribe(subscribe) => {
                filters.extend(subscribe.filters.iter().map(|filter| filter.path.clone()));
                let codes =
                    subscribe.filters.iter().map(|filter| SubscribeReasonCode::Success(filter.qos)).collect();
                Some(vec![Packet::SubAck(SubAck::new(subscribe.pkid, codes))])
            }
            Packet::PingReq => Some(vec![Packet::PingResp]),
            Packet::PubAck(answer) => {
                record.acknowledged.push(answer.pkid);
                Some(vec![])
            }
            Packet::Disconnect => {
                record.disconnects += 1;
                None
            }
            Packet::Publish(publish) => record.on_publish(publish, filters),
            other => {
                record.faults.push(format!("{other:?}"));
                None
            }
        }
    }
}

impl Record {
    fn on_publish(&mut self, publish: Publish, filters: &BTreeSet<String>) -> Option<Vec<Packet>> {
        let topic = publish.topic.clone();
        let send = |status: u16, rid: &str, body: String| {
            Packet::Publish(Publish::new(
                format!("$iothub/twin/res/{status}/?$rid={rid}"),
                QoS::AtMostOnce,
                body,
            ))
        };
        if publish.qos == QoS::ExactlyOnce || publish.retain {
            self.faults.push(format!("{topic}: QoS 2 or retain"));
        }
        if topic.starts_with("$iothub/twin/") && filters.len() < 3 {
            self.faults.push(format!("{topic} before the subscriptions"));
        }
        if let Some(rid) = topic.strip_prefix("$iothub/twin/GET/?$rid=") {
            self.gets += 1;
            if self.cut_on_get > 0 {
                self.cut_on_get -= 1;
                return None;
            }
            let mut desired = self.desired.clone();
            desired.insert("$version".into(), self.version.into());
            let mut reported = self.reported.clone();
            reported.insert("$version".into(), 1.into());
            let body = serde_json::json!({"desired": desired, "reported": reported});
            return Some(vec![send(200, rid, body.to_string())]);
        }
        if let Some(rid) = topic.strip_prefix("$iothub/twin/PATCH/properties/reported/?$rid=") {
            self.reports += 1;
            let status = self.report_status.pop_front().unwrap_or(204);
            match serde_json::from_slice(&publish.payload) {
                Ok(Value::Object(patch)) if status == 204 => merge(&mut self.reported, &patch),
                Ok(Value::Object(_)) => {}
                _ => self.faults.push(format!("{topic}: not an object")),
            }
            return Some(vec![send(status, rid, String::new())]);
        }
        let body = serde_json::from_slice(&publish.payload).unwrap_or_else(|_| {
            self.faults.push(format!("{topic}: not JSON"));
            Value::Null
        });
        if topic.starts_with("$iothub/methods/res/") {
            self.answers.push((topic, body));
            return Some(vec![]);
        }
        if topic.starts_with("devices/d/modules/m/messages/events/") {
            self.telemetry.push((topic, body));
            let acknowledge = publish.qos == QoS::AtLeastOnce && !self.keep_acks;
            return Some(
                acknowledge.then(|| Packet::PubAck(PubAck::new(publish.pkid))).into_iter().collect(),
            );
        }
        self.faults.push(topic);
        None
    }
}
