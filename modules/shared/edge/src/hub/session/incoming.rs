//! What the hub sends, and what becomes of it.

use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use rumqttc::QoS;
use rumqttc::mqttbytes::v4::{Packet, PubAck, Publish, SubAck, SubscribeReasonCode};
use serde_json::Value;

use super::{Done, LOOK_EVERY, MAX_CALLS, Session};
use crate::hub::methods;
use crate::hub::mqtt::MqttError;
use crate::hub::topics::{self, Incoming};
use crate::json;
use crate::twin::desired::Step;
use crate::twin::reported::Verdict;

impl Session<'_> {
    pub(super) async fn on_packet(&mut self, packet: Packet) -> Result<(), MqttError> {
        match packet {
            Packet::Publish(publish) => self.on_publish(publish).await,
            Packet::SubAck(answer) => self.on_sub_ack(&answer),
            Packet::PubAck(answer) => {
                if self.in_flight.remove(&answer.pkid).is_some() {
                    self.hub.hold.taken();
                }
                Ok(())
            }
            Packet::PingResp => {
                self.ping = None;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn on_sub_ack(&mut self, answer: &SubAck) -> Result<(), MqttError> {
        if answer.return_codes.contains(&SubscribeReasonCode::Failure) {
            return Err(MqttError::Subscription);
        }
        if self.subscribing_anew.contains(&answer.pkid) {
            self.subscribing_anew.retain(|id| *id != answer.pkid);
            if self.subscribing_anew.is_empty() {
                self.gets.subscribed(Instant::now());
            }
            return Ok(());
        }
        let before = self.subscribing.len();
        self.subscribing.retain(|id| *id != answer.pkid);
        if self.is_subscribed() && before > 0 {
            self.hub.subscribed = Some(Instant::now());
            if self.hub.module.hub_connected.swap(true, Ordering::Relaxed) {
                tracing::debug!("hub reconnected");
            } else {
                tracing::info!(gateway = self.hub.edge.gateway, "hub connected");
            }
            let step = self.hub.desired.connected();
            self.on_step(step);
        }
        Ok(())
    }

    async fn on_publish(&mut self, publish: Publish) -> Result<(), MqttError> {
        let mut acknowledge = publish.qos == QoS::AtLeastOnce;
        match Incoming::parse(&publish.topic, &self.inputs) {
            Incoming::Answer { status, rid } => {
                let id = rid.strip_prefix(&self.request_prefix).and_then(|id| id.parse().ok());
                match id {
                    Some(id) => self.on_answer(id, status, &publish.payload),
                    None => tracing::debug!(rid, "an answer to a request of somebody else"),
                }
            }
            Incoming::Desired { version } => {
                let patch = serde_json::from_slice(&publish.payload).ok();
                let step = self.hub.desired.on_patch(version, patch);
                self.on_step(step);
            }
            Incoming::Method { name, rid } => self.on_method(name, rid, publish.payload).await?,
            Incoming::Input { name } => acknowledge = !self.on_input(name, &publish),
            Incoming::Unknown => tracing::debug!(topic = publish.topic, "a message that nobody asked for"),
        }
        if acknowledge {
            self.mqtt.send(Packet::PubAck(PubAck::new(publish.pkid))).await?;
        }
        Ok(())
    }

    fn on_answer(&mut self, id: u64, status: u16, payload: &[u8]) {
        let now = Instant::now();
        if self.gets.on_answer(id) {
            let twin = serde_json::from_slice::<Value>(payload).ok().filter(|_| status == 200);
            let Some(mut twin) = twin else {
                tracing::warn!(status, "hub: no twin in the answer, asking again");
                return self.gets.ask_later(now);
            };
            if !self.compared {
                let reported = twin.get_mut("reported").map(Value::take);
                // Without a version the hub does not know what the cloud holds: compared again next time.
                self.compared = reported.as_ref().is_some_and(|reported| reported.get("$version").is_some());
                self.hub.reported.connected(reported);
                // What the answer desires is applied meanwhile, and told in the same report.
                self.looked = Some(now);
                self.look_after(LOOK_EVERY);
            }
            let step = self.hub.desired.on_full(twin.get_mut("desired").map(Value::take));
            let is_known = matches!(step, Step::Apply { .. });
            self.on_step(step);
            if self.hub.desired.take_gap() {
                let step = self.hub.desired.ask();
                self.on_step(step);
            } else if is_known {
                self.gets.settled(now);
            }
            return;
        }
        match self.hub.reported.on_answer(id, status, now) {
            Verdict::Stored => self.look_after(LOOK_EVERY),
            Verdict::Refused => {
                // Something may have been applied meanwhile.
                self.look_after(LOOK_EVERY);
                let text = String::from_utf8_lossy(payload.get(..300).unwrap_or(payload)).into_owned();
                tracing::error!(
                    status,
                    text,
                    "hub: reported properties refused; sent again much later, or when they change"
                );
            }
            Verdict::Later => {
                tracing::warn!(status, "hub: reported properties were not accepted, trying again")
            }
            Verdict::Stranger => tracing::debug!(id, "a late answer"),
        }
    }

    fn on_step(&mut self, step: Step) {
        let now = Instant::now();
        match step {
            Step::Nothing => {}
            Step::Get => self.gets.ask(now),
            Step::GetLater => {
                tracing::debug!("hub: no configuration known there yet");
                self.gets.ask_later(now);
            }
            Step::Apply { version, document } => {
                self.hub.wanted.send_replace(Some((document, version)));
            }
        }
    }

    async fn on_method(&mut self, name: String, rid: String, payload: Bytes) -> Result<(), MqttError> {
        if self.calls >= MAX_CALLS {
            let body = format!("{{\"error\":\"{MAX_CALLS} calls are running already\"}}");
            return self.publish(topics::method_answer(500, &rid), body.into()).await;
        }
        self.calls += 1;
        let (module, level, done) =
            (self.hub.module.clone(), self.hub.level.clone(), self.done_sender.clone());
        // Its end outlives the connection, its answer does not: on another one nobody waits for it.
        tokio::spawn(async move {
            let (status, body) = methods::answer(module, level, &name, &payload).await;
            tracing::info!(status, "method {name}");
            let _ = done.send(Done::Method { rid, status, body }).await;
        });
        Ok(())
    }

    /// Whether the message will be acknowledged when it has been handled.
    fn on_input(&mut self, name: String, publish: &Publish) -> bool {
        let Some(running) = self.hub.module.running().cloned() else { return false };
        let payload = match json::from_slice(&publish.payload) {
            Ok(payload) => payload,
            Err(error) => {
                tracing::warn!(input = name, "a message to this input can't be read as JSON: {error}");
                return false;
            }
        };
        let acknowledge = publish.qos == QoS::AtLeastOnce;
        let (done, packet) = (self.done_sender.clone(), publish.pkid);
        tokio::spawn(async move {
            running.input(&name, payload).await;
            if acknowledge {
                let _ = done.send(Done::Input { packet }).await;
            }
        });
        acknowledge
    }

    pub(super) async fn on_done(&mut self, done: Done) -> Result<(), MqttError> {
        match done {
            Done::Method { rid, status, body } => {
                self.calls = self.calls.saturating_sub(1);
                self.publish(topics::method_answer(status, &rid), body.into()).await
            }
            Done::Input { packet } => self.mqtt.send(Packet::PubAck(PubAck::new(packet))).await,
        }
    }
}
