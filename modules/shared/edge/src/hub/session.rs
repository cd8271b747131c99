//! One connection's life: subscribe, get, follow, report, answer, tell.

mod incoming;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rumqttc::QoS;
use rumqttc::mqttbytes::v4::{Packet, Publish, Subscribe};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};

use super::gets::{ANSWER_TIME, Due, Gets};
use super::mqtt::{KEEP_ALIVE, Mqtt, MqttError};
use super::{Hub, methods, topics};
use crate::renewal::Renewal;
use crate::telemetry::Message;

const SUBSCRIBE_TIME: Duration = Duration::from_secs(60);
const PING_EVERY: Duration = Duration::from_secs(KEEP_ALIVE.as_secs() / 2);
const PING_TIME: Duration = Duration::from_secs(20);
/// The wall clock can jump: whether a token nears its end is looked at this often.
const LOOK_AT_CLOCK: Duration = Duration::from_secs(30);
/// Telemetry under way; edgeHub stops reading from those with many.
const MAX_IN_FLIGHT: usize = 10;
const MAX_CALLS: usize = 128;
/// The service is asked for its state at most this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOOK_IN_HURRY: Duration = Duration::from_millis(200);
/// What a renewal waits for answers, and the end of the process for acknowledgements.
const RENEWAL_PATIENCE: Duration = Duration::from_secs(5);
const GOODBYE_PATIENCE: Duration = Duration::from_millis(500);

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
    renewal: Renewal,
    /// Since when the connection is to be renewed, and methods that run are waited for.
    renewing: Option<Instant>,
    inputs: String,
    request_prefix: String,
    last_packet: u16,
    /// Packet ids of subscriptions that are not acknowledged: the first ones, and those that are made anew.
    subscribing: Vec<u16>,
    subscribing_anew: Vec<u16>,
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
    pub fn new(hub: &'a mut Hub, mqtt: Mqtt, renewal: Renewal) -> Self {
        let (done_sender, done) = mpsc::channel(MAX_CALLS * 2);
        let filter = topics::inputs_filter(&hub.edge.device, &hub.edge.module);
        let instance = &hub.module.identity.instance;
        let request_prefix = format!("{}-", instance.get(..8).unwrap_or(instance));
        let now = Instant::now();
        Self {
            hub,
            mqtt,
            renewal,
            renewing: None,
            inputs: filter.trim_end_matches('#').to_owned(),
            request_prefix,
            last_packet: 0,
            subscribing: Vec::new(),
            subscribing_anew: Vec::new(),
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
        let mut end = self.serve(goodbye).await.unwrap_or_else(End::Lost);
        if matches!(end, End::Lost(MqttError::Closed | MqttError::Broken(_))) && !self.in_flight.is_empty() {
            self.hub.hold.closed(Instant::now());
            end = End::Lost(MqttError::ClosedOverTelemetry);
        }
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
        self.subscribing = self.subscribe().await?;
        loop {
            if let Some(end) = self.work().await? {
                return Ok(end);
            }
            let deadline = tokio::time::Instant::from_std(self.deadline());
            let has_room = self.may_tell(Instant::now());
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

    /// Makes all subscriptions; says under which packet ids they are acknowledged.
    async fn subscribe(&mut self) -> Result<Vec<u16>, MqttError> {
        let mut ids = Vec::new();
        let wants_inputs = self.hub.module.running().is_some_and(|running| running.wants_inputs());
        let inputs = wants_inputs.then(|| format!("{}#", self.inputs));
        let filters = [topics::TWIN_ANSWERS, topics::DESIRED_PATCHES, topics::METHODS].map(str::to_owned);
        for filter in filters.into_iter().chain(inputs) {
            let mut packet = Subscribe::new(filter, QoS::AtLeastOnce);
            packet.pkid = self.packet_id();
            ids.push(packet.pkid);
            self.mqtt.send(Packet::Subscribe(packet)).await?;
        }
        Ok(ids)
    }

    fn is_subscribed(&self) -> bool {
        self.subscribing.is_empty()
    }

    /// Whether telemetry may be sent. On each connection twin and report go first: telemetry is what a hub with a full
    /// disk closes it over.
    fn may_tell(&mut self, now: Instant) -> bool {
        let is_renewing = matches!(self.leaving, Some(Leaving { end: End::Renewal, .. }));
        let waited = self.hub.subscribed.is_some_and(|since| now.duration_since(since) >= ANSWER_TIME);
        let is_told = self.compared && self.hub.reported.is_told();
        let has_room = self.in_flight.len() < MAX_IN_FLIGHT;
        self.is_subscribed() && !is_renewing && has_room && (is_told || waited) && !self.hub.hold.holds(now)
    }

    /// Whether the connection is to be renewed now. There is a quarter of an hour left for it: methods that run are
    /// waited for, since their answers would be void on the next connection.
    fn is_renewal_due(&mut self, now: Instant) -> bool {
        if !self.renewal.is_due() {
            return false;
        }
        let since = *self.renewing.get_or_insert(now);
        self.calls == 0 || now.duration_since(since) >= methods::PATIENCE
    }

    fn packet_id(&mut self) -> u16 {
        loop {
            self.last_packet = self.last_packet.wrapping_add(1);
            let id = self.last_packet;
            let is_free = !self.in_flight.contains_key(&id)
                && !self.subscribing.contains(&id)
                && !self.subscribing_anew.contains(&id);
            if id != 0 && is_free {
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
        if self.is_subscribed() && self.leaving.is_none() {
            let gets = self.gets.deadline();
            let reports = [self.hub.reported.deadline(), self.look].into_iter().flatten();
            let reports = reports.filter(|_| !self.hub.module.is_stopping());
            deadline = reports.chain(gets).fold(deadline, Instant::min);
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
        while self.may_tell(now) {
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
        if self.is_renewal_due(now) {
            tracing::debug!("hub: the token expires soon, reconnecting");
            self.leaving = Some(Leaving { until: now + RENEWAL_PATIENCE, end: End::Renewal });
            return Ok(None);
        }
        let hub = &mut *self.hub;
        match self.gets.poll(now, || hub.request_id()) {
            Some(Due::Get(id)) => {
                self.hub.desired.requested();
                let topic = topics::get(&format!("{}{id}", self.request_prefix));
                self.publish(topic, Bytes::new()).await?;
            }
            Some(Due::Subscribe) => self.subscribing_anew = self.subscribe().await?,
            None => {}
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
}

/// Waits for a change; `false` when none can come any more.
async fn changed(service: &mut Option<watch::Receiver<u64>>) -> bool {
    match service {
        Some(service) => service.changed().await.is_ok(),
        None => std::future::pending().await,
    }
}
