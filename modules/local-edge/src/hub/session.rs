//! One MQTT 3.1.1 connection of a module.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use rumqttc::mqttbytes::v4::{
    ConnAck, Connect, ConnectReturnCode, Packet, PubAck, Publish, SubAck, Subscribe, SubscribeReasonCode,
    UnsubAck,
};
use rumqttc::mqttbytes::{self, QoS};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::login;
use super::modules::{Attached, Command, Message, Shared};
use super::topic::{self, Published};
use super::wire::{End, Wire};
use super::{MAX_METHOD_BYTES, MethodAnswer};

/// edgeHub waits that long for CONNECT.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);
/// edgeHub looks at stored tokens this often, and drops those that expired meanwhile.
const TOKEN_CHECK: Duration = Duration::from_secs(300);
/// A keep-alive of 0 means this, and no other is longer.
const MAX_IDLE: Duration = Duration::from_secs(600);
/// Messages to inputs that are sent and not acknowledged.
const MAX_IN_FLIGHT: usize = 16;
/// Method calls that wait for their answer.
const MAX_CALLS: usize = 1000;

/// Packets that wait to be sent late, and twin requests that wait for their turn.
const MAX_LATE: usize = 10_000;

/// A request that edgeHub handles after the one before it.
enum TwinRequest {
    Get { rid: String },
    Report { rid: Option<String>, patch: Bytes },
}

/// Serves one connection to its end.
pub(super) async fn serve<S>(hub: Shared, stream: S, peer: SocketAddr, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut wire = Wire::new(stream);
    let (login, connect) = match greet(&hub, &mut wire, &stop).await {
        Ok(greeted) => greeted,
        Err(end) => {
            let text = format!("edgeHub: {peer}: {end}");
            if matches!(end, End::Refused { .. }) {
                hub.journal.say_once(&text)
            } else {
                hub.journal.note(&text)
            }
            return;
        }
    };
    let module = login.module.clone();
    let Some(attached) = hub.modules.attach(&module, connect.clean_session) else { return };
    hub.journal.note(&format!("{module} connected from {peer}"));
    let id = attached.id;
    let mut session = Session {
        hub: &hub,
        wire,
        module: &module,
        id,
        expires: login.expires,
        next_id: 0,
        calls: HashMap::new(),
        in_flight: BTreeMap::new(),
        late: VecDeque::new(),
        slow: VecDeque::new(),
    };
    let end = session.run(&connect, attached, stop).await;
    let unacknowledged = std::mem::take(&mut session.in_flight).into_values().collect();
    hub.modules.detach(&module, id, unacknowledged);
    hub.journal.note(&format!("{module} at {peer}: connection closed: {end}"));
}

/// CONNECT and the answer to it where that is no.
async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
    hub: &Shared,
    wire: &mut Wire<S>,
    stop: &CancellationToken,
) -> Result<(login::Login, Connect), End> {
    let first = tokio::select! {
        first = tokio::time::timeout(CONNECT_TIMEOUT, wire.next()) => first.map_err(|_| End::NoConnect)?,
        () = stop.cancelled() => return Err(End::Stopping),
    };
    let connect = match first {
        Ok(Packet::Connect(connect)) if connect.protocol == mqttbytes::Protocol::V4 => connect,
        Ok(Packet::Connect(_)) | Err(End::Protocol(mqttbytes::Error::InvalidProtocolLevel(_))) => {
            let code = ConnectReturnCode::RefusedProtocolVersion;
            wire.send(&Packet::ConnAck(ConnAck::new(code, false))).await?;
            return Err(End::Refused {
                code: code as u8,
                reason: "only MQTT 3.1.1 is supported here".into(),
            });
        }
        Ok(_) => return Err(End::NotConnect),
        Err(end) => return Err(end),
    };
    tokio::time::sleep(hub.faults.delay()).await;
    if let Some(code) = hub.faults.refuses_this_connect() {
        let code =
            if code == 3 { ConnectReturnCode::ServiceUnavailable } else { ConnectReturnCode::NotAuthorized };
        wire.send(&Packet::ConnAck(ConnAck::new(code, false))).await?;
        return Err(End::Refused { code: code as u8, reason: "on purpose".into() });
    }
    match login::check(hub, &connect, now()) {
        Ok(login) => Ok((login, connect)),
        Err(refusal) => {
            let code = refusal.code();
            wire.send(&Packet::ConnAck(ConnAck::new(code, false))).await?;
            Err(End::Refused { code: code as u8, reason: refusal.to_string() })
        }
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    u64::try_from(Timestamp::now().as_second()).unwrap_or(0)
}

struct Session<'a, S> {
    hub: &'a Shared,
    wire: Wire<S>,
    module: &'a str,
    id: u64,
    /// When its token ends, in seconds since 1970.
    expires: u64,
    /// The last packet identifier given out.
    next_id: u16,
    /// Methods by `$rid`.
    calls: HashMap<String, oneshot::Sender<MethodAnswer>>,
    /// Messages to inputs by packet identifier.
    in_flight: BTreeMap<u16, Message>,
    /// Packets that are sent late on purpose, and when.
    late: VecDeque<(Instant, Packet)>,
    /// Twin requests that take their time on purpose, and when each is done.
    slow: VecDeque<(Instant, TwinRequest)>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<'_, S> {
    async fn run(&mut self, connect: &Connect, mut at: Attached, stop: CancellationToken) -> End {
        let answer = ConnAck::new(ConnectReturnCode::Success, at.session_present);
        if let Err(end) = self.wire.send(&Packet::ConnAck(answer)).await {
            return end;
        }
        let idle = match u64::from(connect.keep_alive) {
            0 => MAX_IDLE,
            seconds => Duration::from_millis(seconds * 1500).min(MAX_IDLE),
        };
        let mut token_check = tokio::time::interval_at(Instant::now() + TOKEN_CHECK, TOKEN_CHECK);
        let mut heard = Instant::now();
        // Messages may wait from before, for subscriptions that are still in force.
        if let Err(end) = self.send_inputs().await {
            return end;
        }
        loop {
            let done = tokio::select! {
                packet = self.wire.next() => match packet {
                    Ok(packet) => {
                        heard = Instant::now();
                        self.take(packet).await
                    }
                    Err(end) => Err(end),
                },
                Some(command) = at.commands.recv() => self.obey(command).await,
                () = at.close.cancelled() => Err(End::Displaced),
                () = stop.cancelled() => Err(End::Stopping),
                () = self.hub.faults.hang.begins() => tokio::select! {
                    () = self.hub.faults.hang.is_over() => Ok(()),
                    () = stop.cancelled() => Err(End::Stopping),
                },
                () = until(self.late.front().map(|(due, _)| *due)) => self.send_late().await,
                () = until(self.slow.front().map(|(due, _)| *due)) => match self.slow.pop_front() {
                    Some((_, request)) => self.answer(request).await,
                    None => Ok(()),
                },
                () = tokio::time::sleep_until(heard + idle) => Err(End::Silent(idle.as_secs())),
                _ = token_check.tick() => if self.expires <= now() { Err(End::TokenExpired) } else { Ok(()) },
            };
            if let Err(end) = done {
                if !matches!(end, End::Cut) {
                    self.wire.close().await;
                }
                return end;
            }
        }
    }

    async fn take(&mut self, packet: Packet) -> Result<(), End> {
        match packet {
            Packet::Publish(publish) => self.published(publish).await,
            Packet::PubAck(ack) => {
                self.in_flight.remove(&ack.pkid);
                self.send_inputs().await
            }
            Packet::Subscribe(subscribe) => self.subscribed(subscribe).await,
            Packet::Unsubscribe(unsubscribe) => {
                let device = &self.hub.names.device;
                for filter in &unsubscribe.topics {
                    if let Some(subscription) = topic::parse_filter(filter, device, self.module) {
                        self.hub
                            .modules
                            .change(self.module, |state| state.subscriptions.set(subscription, None));
                    }
                }
                self.send(Packet::UnsubAck(UnsubAck::new(unsubscribe.pkid))).await
            }
            Packet::PingReq => self.send(Packet::PingResp).await,
            Packet::Disconnect => Err(End::Disconnected),
            Packet::Connect(_) => Err(End::SecondConnect),
            _ => Err(End::ServerPacket),
        }
    }

    async fn subscribed(&mut self, subscribe: Subscribe) -> Result<(), End> {
        let mut codes = Vec::new();
        for filter in &subscribe.filters {
            // edgeHub grants at most QoS 1.
            let granted = if filter.qos == QoS::AtMostOnce { QoS::AtMostOnce } else { QoS::AtLeastOnce };
            match topic::parse_filter(&filter.path, &self.hub.names.device, self.module) {
                Some(subscription) => {
                    let set = |state: &mut super::modules::ModuleState| {
                        state.subscriptions.set(subscription, Some(granted));
                    };
                    self.hub.modules.change(self.module, set);
                }
                None => self.hub.journal.say_once(&format!(
                    "{}: subscribed to {:?}, which edgeHub never publishes",
                    self.module, filter.path
                )),
            }
            codes.push(SubscribeReasonCode::Success(granted));
        }
        self.send(Packet::SubAck(SubAck::new(subscribe.pkid, codes))).await?;
        self.send_inputs().await
    }

    async fn published(&mut self, publish: Publish) -> Result<(), End> {
        if publish.qos == QoS::ExactlyOnce {
            return Err(End::Qos2);
        }
        match topic::parse(&publish.topic, &self.hub.names.device, self.module) {
            Published::TwinGet { rid } => self.take_turn(TwinRequest::Get { rid }).await?,
            Published::Report { rid } => {
                self.take_turn(TwinRequest::Report { rid, patch: publish.payload.clone() }).await?;
            }
            Published::MethodAnswer { status, rid } => self.method_answered(status, &rid, &publish.payload),
            Published::Telemetry { .. } if self.hub.faults.is_store_full() => return Err(End::StoreFull),
            Published::Telemetry { bag } => self.hub.take_message(self.module, &bag, publish.payload.clone()),
            Published::Forbidden => return Err(End::TwinTopic(publish.topic)),
            Published::Unknown => self.hub.journal.say_once(&format!(
                "{}: published to {:?}, which is not an edgeHub topic: dropped",
                self.module,
                publish.topic.chars().take(200).collect::<String>()
            )),
        }
        if publish.qos == QoS::AtLeastOnce {
            self.send(Packet::PubAck(PubAck::new(publish.pkid))).await?;
        }
        Ok(())
    }

    /// At once, or after those before it and as slowly as is asked for.
    async fn take_turn(&mut self, request: TwinRequest) -> Result<(), End> {
        let takes = self.hub.faults.slow_twin();
        if takes.is_zero() && self.slow.is_empty() {
            return self.answer(request).await;
        }
        if self.slow.len() >= MAX_LATE {
            return Err(End::Stuck);
        }
        let now = Instant::now();
        let begins = self.slow.back().map_or(now, |(due, _)| now.max(*due));
        self.slow.push_back((begins + takes, request));
        Ok(())
    }

    async fn answer(&mut self, request: TwinRequest) -> Result<(), End> {
        match request {
            TwinRequest::Get { rid } => {
                let document = self.hub.modules.read(self.module, |state| state.twin.document());
                let body = document.unwrap_or_default().to_string();
                if self.hub.faults.cuts_this_get() {
                    let topic = format!("$iothub/twin/res/200/?$rid={rid}");
                    let answer = Publish::from_bytes(topic, QoS::AtMostOnce, body.into());
                    return self.wire.send_half(&Packet::Publish(answer)).await;
                }
                self.answer_twin(200, &rid, body).await
            }
            TwinRequest::Report { rid, patch } => {
                let status = self.hub.take_report(self.module, &patch);
                match rid {
                    Some(rid) => self.answer_twin(status, &rid, String::new()).await,
                    None => Ok(()),
                }
            }
        }
    }

    async fn answer_twin(&mut self, status: u16, rid: &str, body: String) -> Result<(), End> {
        let subscribed =
            self.hub.modules.read(self.module, |state| state.subscriptions.twin_answers).flatten();
        let Some(qos) = subscribed else {
            self.hub.journal.say_once(&format!(
                "{}: asks for its twin without a subscription to $iothub/twin/res/#: edgeHub drops the answers",
                self.module
            ));
            return Ok(());
        };
        self.publish(format!("$iothub/twin/res/{status}/?$rid={rid}"), qos, body.into()).await.map(|_| ())
    }

    fn method_answered(&mut self, status: Option<u16>, rid: &str, body: &[u8]) {
        let Some(caller) = self.calls.remove(rid) else {
            return self
                .hub
                .journal
                .note(&format!("{}: an answer to a method call that nobody is waiting for", self.module));
        };
        let text = String::from_utf8_lossy(body);
        let payload = if body.is_empty() { Ok(Value::Null) } else { serde_json::from_str(&text) };
        let answer = match (status, payload) {
            _ if body.len() > MAX_METHOD_BYTES => MethodAnswer {
                status: 500,
                payload: format!(
                    "the module's answer is {} bytes long, IoT Hub accepts at most {MAX_METHOD_BYTES}",
                    body.len()
                )
                .into(),
            },
            (Some(status), Ok(payload)) => MethodAnswer { status, payload },
            (None, _) => MethodAnswer { status: 500, payload: "the module's status is not a number".into() },
            (_, Err(error)) => MethodAnswer {
                status: 500,
                payload: format!("the module's answer is not JSON: {error}").into(),
            },
        };
        let _ = caller.send(answer);
    }

    async fn obey(&mut self, command: Command) -> Result<(), End> {
        match command {
            Command::Desired(_) if self.hub.faults.loses_this_patch() => Ok(()),
            Command::Desired(patch) => {
                let subscribed =
                    self.hub.modules.read(self.module, |state| state.subscriptions.desired).flatten();
                let Some(qos) = subscribed else { return Ok(()) };
                let version = patch.get("$version").and_then(Value::as_u64).unwrap_or(0);
                let topic = format!("$iothub/twin/PATCH/properties/desired/?$version={version}");
                self.publish(topic, qos, Value::Object(patch).to_string().into()).await.map(|_| ())
            }
            Command::Method { name, payload, answer } => {
                let subscribed =
                    self.hub.modules.read(self.module, |state| state.subscriptions.methods).flatten();
                // Dropping `answer` tells the caller.
                let Some(qos) = subscribed else { return Ok(()) };
                self.calls.retain(|_, caller| !caller.is_closed());
                if self.calls.len() >= MAX_CALLS {
                    return Ok(());
                }
                let rid = format!("{:032x}", rand::random::<u128>());
                let topic = format!("$iothub/methods/POST/{name}/?$rid={rid}");
                self.calls.insert(rid, answer);
                self.publish(topic, qos, payload.into()).await.map(|_| ())
            }
            Command::Inputs => self.send_inputs().await,
            Command::Cut => Err(End::Cut),
            Command::ExpireToken => {
                let expires = self.expires;
                self.hub.modules.change(self.module, |state| state.expired = expires);
                Err(End::TokenExpired)
            }
        }
    }

    async fn send_inputs(&mut self) -> Result<(), End> {
        let subscribed = self.hub.modules.read(self.module, |state| state.subscriptions.inputs).flatten();
        let Some(qos) = subscribed else { return Ok(()) };
        while self.in_flight.len() < MAX_IN_FLIGHT {
            let Some(message) = self.hub.modules.take_input(self.module, self.id) else { break };
            let topic = format!(
                "devices/{}/modules/{}/inputs/{}/{}",
                self.hub.names.device, self.module, message.input, message.bag
            );
            let id = self.next_free_id();
            let body = message.body.clone();
            if qos == QoS::AtLeastOnce {
                self.in_flight.insert(id, message);
            }
            self.publish_as(id, topic, qos, body).await?;
        }
        Ok(())
    }

    fn next_free_id(&mut self) -> u16 {
        loop {
            self.next_id = self.next_id.checked_add(1).unwrap_or(1);
            if !self.in_flight.contains_key(&self.next_id) {
                return self.next_id;
            }
        }
    }

    /// Sends, or has it sent later.
    async fn send(&mut self, packet: Packet) -> Result<(), End> {
        let delay = self.hub.faults.delay();
        if delay.is_zero() && self.late.is_empty() {
            return self.wire.send(&packet).await;
        }
        if self.late.len() >= MAX_LATE {
            return Err(End::Stuck);
        }
        self.late.push_back((Instant::now() + delay, packet));
        Ok(())
    }

    async fn send_late(&mut self) -> Result<(), End> {
        match self.late.pop_front() {
            Some((_, packet)) => self.wire.send(&packet).await,
            None => Ok(()),
        }
    }

    async fn publish(&mut self, topic: String, qos: QoS, body: Bytes) -> Result<(), End> {
        let id = self.next_free_id();
        self.publish_as(id, topic, qos, body).await
    }

    async fn publish_as(&mut self, id: u16, topic: String, qos: QoS, body: Bytes) -> Result<(), End> {
        let mut publish = Publish::from_bytes(topic, qos, body);
        publish.pkid = if qos == QoS::AtMostOnce { 0 } else { id };
        self.send(Packet::Publish(publish)).await
    }
}

/// Until that time; without one, for ever.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
