//! One connection's life: subscribe, get, follow, report, answer, tell.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rumqttc::QoS;
use rumqttc::mqttbytes::v4::{Packet, PubAck, Publish, SubAck, Subscribe, SubscribeReasonCode};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};

use super::gets::Gets;
use super::mqtt::{KEEP_ALIVE, Mqtt, MqttError};
use super::topics::{self, Incoming};
use super::{Hub, methods};
use crate::telemetry::Message;
use crate::twin::desired::Step;
use crate::twin::reported::Verdict;
use crate::workload::wall_seconds;

const SUBSCRIBE_TIME: Duration = Duration::from_secs(60);
const PING_EVERY: Duration = Duration::from_secs(KEEP_ALIVE.as_secs() / 2);
const PING_TIME: Duration = Duration::from_secs(20);
/// The wall clock can jump: whether a token nears its end is looked at this often.
const LOOK_AT_CLOCK: Duration = Duration::from_secs(30);
/// Telemetry under way; edgeHub stops reading from those with many.
const MAX_IN_FLIGHT: usize = 10;
const MAX_CALLS: usize = 32;
/// The service is asked for its state at most this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOOK_IN_HURRY: Duration = Duration::from_millis(200);
/// What a renewal waits for answers, and the end of the process for acknowledgements.
const RENEWAL_PATIENCE: Duration = Duration::from_secs(5);
const GOODBYE_PATIENCE: Duration = Duration::from_millis(600);

/// How a connection ended.
pub(super) enum End {
    /// The process ends.
    Goodbye,
    /// Its token nears its end: connect again at once.
    Renewal,
    /// Anything else.
    Lost(MqttError),
}

/// What a task of the session has finished.
enum Done {
    Method { rid: String, status: u16, body: String },
    Input { packet: u16 },
}

/// A connection that is being left.
struct Leaving {
    until: Instant,
    end: End,
}

pub(super) struct Session<'a> {
    hub: &'a mut Hub,
    mqtt: Mqtt,
    /// Seconds since 1970.
    renew_at: u64,
    inputs: String,
    request_prefix: String,
    last_packet: u16,
    /// Packet ids of subscriptions that are not acknowledged.
    subscribing: Vec<u16>,
    started: Instant,
    gets: Gets,
    compared: bool,
    in_flight: HashMap<u16, Message>,
    calls: usize,
    done: mpsc::Receiver<Done>,
    done_sender: mpsc::Sender<Done>,
    next_ping: Instant,
    ping: Option<Instant>,
    /// When to look at the service's state, and when that was last done.
    look: Option<Instant>,
    looked: Option<Instant>,
    leaving: Option<Leaving>,
}

impl<'a> Session<'a> {
    pub fn new(hub: &'a mut Hub, mqtt: Mqtt, renew_at: u64) -> Self {
        let (done_sender, done) = mpsc::channel(MAX_CALLS * 2);
        let filter = topics::inputs_filter(&hub.edge.device, &hub.edge.module);
        let instance = &hub.module.identity.instance;
        let request_prefix = format!("{}-", instance.get(..8).unwrap_or(instance));
        let now = Instant::now();
        Self {
            hub,
            mqtt,
            renew_at,
            inputs: filter.trim_end_matches('#').to_owned(),
            request_prefix,
            last_packet: 0,
            subscribing: Vec::new(),
            started: now,
            gets: Gets::default(),
            compared: false,
            in_flight: HashMap::new(),
            calls: 0,
            done,
            done_sender,
            next_ping: now + PING_EVERY,
            ping: None,
            look: None,
            looked: None,
            leaving: None,
        }
    }

    /// Until the connection is lost, its token old, or the process at its end.
    pub async fn run(mut self, goodbye: &mut oneshot::Receiver<()>) -> End {
        let end = self.serve(goodbye).await.unwrap_or_else(End::Lost);
        self.hub.outbox.put_back(std::mem::take(&mut self.in_flight).into_values().collect());
        if !matches!(end, End::Lost(_)) {
            self.mqtt.disconnect().await;
        }
        end
    }

    async fn serve(&mut self, goodbye: &mut oneshot::Receiver<()>) -> Result<End, MqttError> {
        let module = self.hub.module.clone();
        let outbox = self.hub.outbox.clone();
        let mut config = module.config_changes();
        let mut service = module.running().map(|running| running.changes());
        self.subscribe().await?;
        loop {
            if let Some(end) = self.work().await? {
                return Ok(end);
            }
            let deadline = tokio::time::Instant::from_std(self.deadline());
            let has_room = self.has_room();
            let is_staying = !matches!(self.leaving, Some(Leaving { end: End::Goodbye, .. }));
            tokio::select! {
                packet = self.mqtt.receive() => self.on_packet(packet?).await?,
                Some(done) = self.done.recv() => self.on_done(done).await?,
                () = tokio::time::sleep_until(deadline) => {}
                alive = changed(&mut service) => match alive {
                    true => self.look_after(LOOK_EVERY),
                    false => service = None,
                },
                Ok(()) = config.changed() => {
                    self.hub.reported.hurry();
                    self.look_after(LOOK_IN_HURRY);
                }
                () = outbox.filled(), if has_room => {}
                _ = &mut *goodbye, if is_staying => {
                    self.leaving = Some(Leaving { until: Instant::now() + GOODBYE_PATIENCE, end: End::Goodbye });
                }
            }
        }
    }

    async fn subscribe(&mut self) -> Result<(), MqttError> {
        let wants_inputs = self.hub.module.running().is_some_and(|running| running.wants_inputs());
        let inputs = wants_inputs.then(|| format!("{}#", self.inputs));
        let filters = [topics::TWIN_ANSWERS, topics::DESIRED_PATCHES, topics::METHODS].map(str::to_owned);
        for filter in filters.into_iter().chain(inputs) {
            let mut packet = Subscribe::new(filter, QoS::AtLeastOnce);
            packet.pkid = self.packet_id();
            self.subscribing.push(packet.pkid);
            self.mqtt.send(Packet::Subscribe(packet)).await?;
        }
        Ok(())
    }

    fn is_subscribed(&self) -> bool {
        self.subscribing.is_empty()
    }

    fn has_room(&self) -> bool {
        let renewing = matches!(self.leaving, Some(Leaving { end: End::Renewal, .. }));
        self.is_subscribed() && !renewing && self.in_flight.len() < MAX_IN_FLIGHT
    }

    fn packet_id(&mut self) -> u16 {
        loop {
            self.last_packet = self.last_packet.wrapping_add(1);
            let id = self.last_packet;
            if id != 0 && !self.in_flight.contains_key(&id) && !self.subscribing.contains(&id) {
                return id;
            }
        }
    }

    fn look_after(&mut self, pause: Duration) {
        let now = Instant::now();
        let time = self.looked.map_or(now, |looked| (looked + pause).max(now));
        self.look = Some(self.look.map_or(time, |look| look.min(time)));
    }

    /// When [`work`](Self::work) has something to do, packets and changes apart.
    fn deadline(&self) -> Instant {
        let now = Instant::now();
        let ping = self.ping.map_or(self.next_ping, |sent| sent + PING_TIME);
        let mut deadline = ping.min(now + LOOK_AT_CLOCK);
        if self.is_subscribed() {
            let times = [self.gets.deadline(), self.hub.reported.deadline(), self.look];
            deadline = times.into_iter().flatten().fold(deadline, Instant::min);
        }
        if let Some(leaving) = &self.leaving {
            deadline = deadline.min(leaving.until);
        }
        deadline
    }

    /// Everything that is due.
    async fn work(&mut self) -> Result<Option<End>, MqttError> {
        let now = Instant::now();
        if self.ping.is_some_and(|sent| now.duration_since(sent) >= PING_TIME) {
            return Err(MqttError::Silent("no answer to PINGREQ"));
        }
        if now >= self.next_ping {
            self.next_ping = now + PING_EVERY;
            self.ping = self.ping.or(Some(now));
            self.mqtt.send(Packet::PingReq).await?;
        }
        if !self.is_subscribed() {
            if now.duration_since(self.started) >= SUBSCRIBE_TIME {
                return Err(MqttError::Silent("no answer to SUBSCRIBE"));
            }
            return Ok(self.leaving.take().map(|leaving| leaving.end));
        }
        while self.has_room() {
            let Some(message) = self.hub.outbox.take() else { break };
            self.tell(message).await?;
        }
        if let Some(leaving) = &self.leaving {
            let waits = match leaving.end {
                End::Renewal => self.calls > 0,
                _ => !self.hub.module.events.is_drained(),
            };
            let is_done = self.in_flight.is_empty() && !waits;
            if is_done || now >= leaving.until {
                return Ok(self.leaving.take().map(|leaving| leaving.end));
            }
            return Ok(None);
        }
        if wall_seconds() >= self.renew_at {
            tracing::debug!("hub: the token nears its end, connecting anew");
            self.leaving = Some(Leaving { until: now + RENEWAL_PATIENCE, end: End::Renewal });
            return Ok(None);
        }
        if self.gets.wants_reconnect() || self.hub.reported.wants_reconnect() {
            return Err(MqttError::Silent("no answers to twin requests"));
        }
        let hub = &mut *self.hub;
        if let Some(id) = self.gets.poll(now, || hub.request_id()) {
            let topic = topics::get(&format!("{}{id}", self.request_prefix));
            self.publish(topic, Bytes::new()).await?;
        }
        self.report(now).await?;
        Ok(None)
    }

    async fn report(&mut self, now: Instant) -> Result<(), MqttError> {
        let is_due = self.look.is_some_and(|look| now >= look);
        let is_awaited = self.hub.reported.deadline().is_some_and(|deadline| now >= deadline);
        // While the service ends its flows their states mean nothing any more.
        if !(is_due || is_awaited) || self.hub.module.is_stopping() {
            self.look = self.look.filter(|_| !is_due);
            return Ok(());
        }
        self.look = None;
        if !self.hub.reported.may_send(now) {
            return Ok(());
        }
        self.looked = Some(now);
        let document = self.hub.module.reported();
        let id = self.hub.request_id();
        if let Some(patch) = self.hub.reported.poll(&document, id, now) {
            let topic = topics::report(&format!("{}{id}", self.request_prefix));
            self.publish(topic, Bytes::from(Value::Object(patch).to_string())).await?;
        }
        Ok(())
    }

    /// Twin requests and answers: at most once, since a later connection makes them void.
    async fn publish(&mut self, topic: String, body: Bytes) -> Result<(), MqttError> {
        self.mqtt.send(Packet::Publish(Publish::from_bytes(topic, QoS::AtMostOnce, body))).await
    }

    async fn tell(&mut self, message: Message) -> Result<(), MqttError> {
        let edge = &self.hub.edge;
        let topic =
            topics::telemetry(&edge.device, &edge.module, &self.hub.module.identity.instance, &message);
        let mut publish = Publish::from_bytes(topic, QoS::AtLeastOnce, message.body.clone());
        publish.pkid = self.packet_id();
        self.in_flight.insert(publish.pkid, message);
        self.mqtt.send(Packet::Publish(publish)).await
    }

    async fn on_packet(&mut self, packet: Packet) -> Result<(), MqttError> {
        match packet {
            Packet::Publish(publish) => self.on_publish(publish).await,
            Packet::SubAck(answer) => self.on_sub_ack(&answer),
            Packet::PubAck(answer) => {
                self.in_flight.remove(&answer.pkid);
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
        let before = self.subscribing.len();
        self.subscribing.retain(|id| *id != answer.pkid);
        if self.is_subscribed() && before > 0 {
            if self.hub.module.hub_connected.swap(true, Ordering::Relaxed) {
                tracing::debug!("hub connected anew");
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
                tracing::warn!(status, "hub: the twin could not be had, asking again");
                return self.gets.ask_later(now);
            };
            if !std::mem::replace(&mut self.compared, true) {
                self.hub.reported.connected(twin.get_mut("reported").map(Value::take));
                self.look_after(LOOK_IN_HURRY);
            }
            let step = self.hub.desired.on_full(twin.get_mut("desired").map(Value::take));
            if let Step::Apply { .. } = step {
                self.gets.settled(now);
            }
            self.on_step(step);
            if self.hub.desired.take_gap() {
                let step = self.hub.desired.ask();
                self.on_step(step);
            }
            return;
        }
        match self.hub.reported.on_answer(id, status, now) {
            Verdict::Stored => self.look_after(LOOK_EVERY),
            Verdict::Refused => {
                let text = String::from_utf8_lossy(payload.get(..300).unwrap_or(payload)).into_owned();
                tracing::error!(
                    status,
                    text,
                    "hub: reported properties refused; not sent again until they change"
                );
            }
            Verdict::Later => tracing::warn!(status, "hub: reported properties not taken, trying again"),
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
        let payload = match serde_json::from_slice(&publish.payload) {
            Ok(payload) => payload,
            Err(error) => {
                tracing::warn!(input = name, "a message that is not JSON: {error}");
                return false;
            }
        };
        if publish.qos != QoS::AtLeastOnce {
            return false;
        }
        let (done, packet) = (self.done_sender.clone(), publish.pkid);
        tokio::spawn(async move {
            running.input(&name, payload).await;
            let _ = done.send(Done::Input { packet }).await;
        });
        true
    }

    async fn on_done(&mut self, done: Done) -> Result<(), MqttError> {
        match done {
            Done::Method { rid, status, body } => {
                self.calls = self.calls.saturating_sub(1);
                self.publish(topics::method_answer(status, &rid), body.into()).await
            }
            Done::Input { packet } => self.mqtt.send(Packet::PubAck(PubAck::new(packet))).await,
        }
    }
}

/// Waits for a change; `false` when none can come any more.
async fn changed(service: &mut Option<watch::Receiver<u64>>) -> bool {
    match service {
        Some(service) => service.changed().await.is_ok(),
        None => std::future::pending().await,
    }
}
