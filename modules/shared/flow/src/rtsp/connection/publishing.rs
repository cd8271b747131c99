//! The part of a connection that publishes.

use std::sync::Arc;
use std::time::Instant;

use av_edge::EventKind;
use av_rtsp::depacketize::AfterLoss;
use av_rtsp::message::StatusCode;
use av_rtsp::rtcp::{REPORT_INTERVAL, Reception};
use av_rtsp::sdp::{LeftAside, Presentation};
use av_rtsp::server::{Ask, ServerEvent, ServerOutput, SetupAnswer, SetupAsk};
use av_rtsp::transport::{Allowed, Carried, Offer, Pair};
use bytes::BytesMut;
use rand::Rng;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use super::asking::NotProved;
use super::{Connection, End};
use crate::endpoint::InputContext;
use crate::ingest::{Identity, NoInstance, Seat, Taken};
use crate::net::Found;
use crate::rtsp::intake::Intake;
use crate::rtsp::port::PublishRoute;
use crate::rtsp::reports;
use crate::rtsp::udp::{self, Datagram, Expected, Sent};
use crate::stream::{Kick, KickReason, Publisher};
use crate::trouble::chain;

/// A publisher's packets come many at once.
const READ: usize = 64 << 10;

/// What a publisher has said that it is going to send.
pub(super) struct Announced {
    route: Arc<PublishRoute>,
    ask: Ask,
    /// What stands for the pattern's `*`.
    name: Option<String>,
    presentation: Presentation,
    /// Its ports by medium, where it sends datagrams.
    ports: Vec<(usize, Pair<u16>)>,
}

/// A publisher in its seat.
struct Seated {
    publisher: Publisher,
    seat: Seat,
    kick: Kick,
    input: InputContext,
}

/// Why a publisher is not seated.
#[derive(Debug, thiserror::Error)]
enum NoSeat {
    #[error(transparent)]
    Instance(#[from] NoInstance),
    #[error(transparent)]
    Taken(#[from] Taken),
}

/// Where datagrams come in: nowhere, for one that sends none.
struct Datagrams {
    expected: Option<Expected>,
    receiver: Option<mpsc::Receiver<Datagram>>,
}

impl Datagrams {
    async fn next(&mut self) -> Option<Datagram> {
        match &mut self.receiver {
            Some(receiver) => receiver.recv().await,
            None => std::future::pending().await,
        }
    }
}

impl Connection {
    /// ANNOUNCE: who may publish, and whether there is anything to be taken.
    pub(super) async fn announce(&mut self, ask: &Ask, presentation: Presentation) {
        let mut found = self.port.publish.find(&ask.path);
        if found.is_none() {
            self.port.settled().await;
            found = self.port.publish.find(&ask.path);
        }
        let Some(Found { route, rest }) = found else {
            let why = format!("nothing here takes {}", ask.path);
            return self.refuse_publisher(ask, None, StatusCode::NotFound, &why);
        };
        let proved = self.proved(ask, &route.config.allow, route.config.auth.as_ref()).await;
        match proved {
            Ok(()) => {}
            Err(NotProved::Ask(wrong)) => {
                if let Some(why) = wrong {
                    self.log_publisher_refused(ask, Some(&route), why);
                }
                return self.session.challenge();
            }
            Err(NotProved::Refused(status, why)) => {
                return self.refuse_publisher(ask, Some(&route), status, &why);
            }
        }
        if presentation.media.iter().all(|medium| medium.coding.is_err()) {
            let why = presentation.media.iter().find_map(|medium| medium.coding.as_ref().err());
            let why = why.map_or_else(|| "it announces nothing".to_owned(), ToString::to_string);
            return self.refuse_publisher(ask, Some(&route), StatusCode::UnsupportedMediaType, &why);
        }
        self.session.accept_announce(&presentation);
        self.stranger = None;
        self.announced =
            Some(Announced { route, ask: ask.clone(), name: rest, presentation, ports: Vec::new() });
    }

    /// SETUP of a medium that was announced; all of them go one way.
    pub(super) fn set_up_medium(&mut self, setup: &SetupAsk) {
        let Some(announced) = &mut self.announced else {
            return self.session.refuse(StatusCode::MethodNotValidInThisState);
        };
        let (transports, udp) = (announced.route.config.transports, announced.route.udp.get());
        let allowed = Allowed { tcp: transports.tcp, udp: udp.is_some(), multicast: false };
        let answer = match (setup.offers.choose(allowed), udp) {
            (Some(Offer::Tcp { .. }), _) => SetupAnswer::Tcp,
            (Some(Offer::Udp { client_ports }), Some(pair)) => {
                let server_ports = Pair { rtp: pair.port, rtcp: pair.port.saturating_add(1) };
                SetupAnswer::Udp { client_ports, server_ports }
            }
            _ => return self.session.refuse(StatusCode::UnsupportedTransport),
        };
        if let Some(Carried::Udp { client_ports, .. }) = self.session.accept_setup(answer, None) {
            announced.ports.push((setup.medium, client_ports));
        }
    }

    /// RECORD: takes the stream until the publisher stops, or has to go.
    pub(super) async fn record(&mut self) -> Result<(), End> {
        let Some(announced) = self.announced.take() else {
            self.session.refuse(StatusCode::MethodNotValidInThisState);
            return Ok(());
        };
        let Announced { route, ask, name, presentation, ports } = announced;
        let seated = match self.seat(&route, &ask, name.as_deref()) {
            Ok(seated) => seated,
            Err(why) => {
                self.refuse_publisher(&ask, Some(&route), StatusCode::Forbidden, &why.to_string());
                return Ok(());
            }
        };
        let datagrams = match route.udp.get().filter(|_| !ports.is_empty()) {
            Some(pair) => {
                let media = ports.iter().filter_map(|&(medium, ports)| {
                    let payload_type = presentation.media.get(medium)?.payload_type;
                    Some(Sent { medium, payload_type, ports })
                });
                let (expected, receiver) = pair.take(self.peer.ip(), media);
                Datagrams { expected: Some(expected), receiver: Some(receiver) }
            }
            None => Datagrams { expected: None, receiver: None },
        };
        self.session.accept_record();
        let (peer, input) = (self.peer, seated.input.clone());
        let (path, program) = (&ask.path, &ask.user_agent);
        tracing::info!(flow = %input.flow, %peer, %path, %program, "publisher connected");
        self.module.emit(EventKind::InputConnected, &input.flow, None, format!("publisher {peer}"));
        self.buffer = vec![0; READ];
        let ended = self.take_media(seated, &presentation, route.config.after_loss, datagrams).await;
        let why = match &ended {
            Ok(None) => "it stopped publishing".to_owned(),
            Ok(Some(reason)) => kick_text(*reason, &input),
            Err(end) => chain(end),
        };
        tracing::info!(flow = %input.flow, %peer, "publisher gone: {why}");
        self.module.emit(EventKind::InputLost, &input.flow, None, format!("publisher {peer}: {why}"));
        match ended? {
            None => Ok(()),
            // RTSP 1.0 has no word for it: publishers understand that the connection is closed.
            Some(_) => Err(End::Done),
        }
    }

    fn seat(&self, route: &PublishRoute, ask: &Ask, name: Option<&str>) -> Result<Seated, NoSeat> {
        let input = route.entrance.input(name)?;
        let who = Identity { address: self.peer.ip().to_canonical(), program: ask.user_agent.clone() };
        let kick = Kick::default();
        let (publisher, seat) = route.entrance.seat(&ask.path, who, &input, kick.clone())?;
        Ok(Seated { publisher, seat, kick, input })
    }

    /// Moves media into the stream until the publisher stops (`None`) or is kicked.
    async fn take_media(
        &mut self,
        seated: Seated,
        presentation: &Presentation,
        after_loss: AfterLoss,
        datagrams: Datagrams,
    ) -> Result<Option<KickReason>, End> {
        let mut presentation = presentation.clone();
        for (index, medium) in presentation.media.iter_mut().enumerate() {
            if medium.coding.is_ok() && self.session.carried(index).is_none() {
                medium.coding = Err(LeftAside::NotSetUp);
            }
        }
        let mut intake = Intake::new(&presentation, after_loss, &seated.input.status, Instant::now());
        let mut seated = seated;
        let ended = self.move_media(&mut seated, &mut intake, datagrams).await;
        // The last pictures wait for others.
        let (now, Seated { publisher, input, .. }) = (Instant::now(), &mut seated);
        let mut written = Ok(());
        intake.finish(now, &input.status, |item| {
            written = written.and_then(|()| publisher.item(item, now));
        });
        ended
    }

    async fn move_media(
        &mut self,
        seated: &mut Seated,
        intake: &mut Intake,
        mut datagrams: Datagrams,
    ) -> Result<Option<KickReason>, End> {
        let Seated { publisher, seat, kick, input } = seated;
        for item in intake.opening() {
            if publisher.item(item, Instant::now()).is_err() {
                return Ok(Some(KickReason::TakenOver));
            }
        }
        let ssrc = rand::rng().random_range(1..=u32::MAX);
        let mut reports_due = Instant::now() + REPORT_INTERVAL;
        loop {
            let now = Instant::now();
            if reports_due <= now {
                reports_due = now + REPORT_INTERVAL;
                let receptions = intake.receptions(now);
                self.report(ssrc, &receptions, &datagrams).await?;
            }
            let mut written = Ok(());
            let mut out = BytesMut::new();
            let ended = loop {
                match self.session.poll() {
                    Ok(Some(ServerOutput::Send(bytes))) => out.extend_from_slice(&bytes),
                    Ok(Some(ServerOutput::Event(ServerEvent::Interleaved { medium, rtcp: true, data }))) => {
                        intake.rtcp(medium, &data, now);
                    }
                    Ok(Some(ServerOutput::Event(ServerEvent::Interleaved { medium, data, .. }))) => {
                        intake.rtp(medium, &data, now, &input.status, |item| {
                            written = written.and_then(|()| publisher.item(item, now));
                        });
                    }
                    Ok(Some(ServerOutput::Event(ServerEvent::Teardown))) => break Ok(true),
                    Ok(Some(ServerOutput::Event(ServerEvent::Http(_)))) => break Ok(true),
                    Ok(Some(ServerOutput::Event(ServerEvent::Pause))) => {}
                    // Who publishes has nothing else to ask for, and has to hear that.
                    Ok(Some(ServerOutput::Event(_))) => {
                        self.session.refuse(StatusCode::MethodNotValidInThisState);
                    }
                    Ok(None) => break Ok(false),
                    Err(source) => break Err(End::Broken { at: self.session.position(), source }),
                }
            };
            self.send(out.freeze()).await?;
            if ended? {
                return Ok(None);
            }
            if written.is_err() {
                return Ok(Some(KickReason::TakenOver));
            }
            input.status.said.say(&input.flow, &self.peer);
            let wait = self.session.deadline().map(|deadline| deadline.saturating_sub(self.now()));
            let wait = wait.unwrap_or(super::HANDSHAKE);
            let missing =
                intake.deadline().map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let wait = missing.map_or(wait, |missing| missing.min(wait));
            let wait = wait.min(reports_due.saturating_duration_since(Instant::now()));
            tokio::select! {
                read = self.reader.read(&mut self.buffer) => {
                    // Its end, too, tells that it was there.
                    let reset = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionReset;
                    if read.as_ref().err().is_none_or(reset) {
                        seat.heard();
                    }
                    let count = read?;
                    let bytes = self.buffer.get(..count).filter(|bytes| !bytes.is_empty()).ok_or(End::Closed)?;
                    self.session.buffer().extend_from_slice(bytes);
                    let now = self.began.elapsed();
                    self.session.handle_input(now);
                }
                Some(datagram) = datagrams.next() => {
                    self.session.sign_of_life(self.began.elapsed());
                    seat.heard();
                    let (Datagram { medium, rtcp, data }, now) = (datagram, Instant::now());
                    if rtcp {
                        intake.rtcp(medium, &data, now);
                    } else {
                        intake.rtp(medium, &data, now, &input.status, |item| {
                            written = written.and_then(|()| publisher.item(item, now));
                        });
                    }
                    if written.is_err() {
                        return Ok(Some(KickReason::TakenOver));
                    }
                }
                reason = kick.fired() => return Ok(Some(reason)),
                () = tokio::time::sleep(wait) => {
                    self.silent()?;
                    let now = Instant::now();
                    intake.expire(now, &input.status, |item| {
                        written = written.and_then(|()| publisher.item(item, now));
                    });
                    if written.is_err() {
                        return Ok(Some(KickReason::TakenOver));
                    }
                }
            }
        }
    }

    /// Tells a publisher what came of each medium, on the way that its media takes.
    async fn report(
        &mut self,
        ssrc: u32,
        receptions: &[(usize, Reception)],
        datagrams: &Datagrams,
    ) -> Result<(), End> {
        let mut interleaved = BytesMut::new();
        for (medium, reception) in receptions {
            let report = reports::reception(ssrc, reception);
            match self.session.carried(*medium) {
                Some(Carried::Tcp { channels }) => {
                    interleaved.extend_from_slice(&reports::framed(channels.rtcp, &report));
                }
                Some(Carried::Udp { client_ports, .. }) => {
                    if let Some(Expected { pair, .. }) = &datagrams.expected {
                        let to = (self.peer.ip(), client_ports.rtcp).into();
                        pair.report(udp::Way { from: self.local, to }, &report);
                    }
                }
                Some(Carried::Multicast { .. }) | None => {}
            }
        }
        self.send(interleaved.freeze()).await
    }

    fn refuse_publisher(&mut self, ask: &Ask, route: Option<&PublishRoute>, status: StatusCode, why: &str) {
        self.log_publisher_refused(ask, route, why);
        self.session.refuse(status);
    }

    /// One line, and an event where a flow is concerned.
    fn log_publisher_refused(&self, ask: &Ask, route: Option<&PublishRoute>, why: &str) {
        let (peer, path) = (self.peer, &ask.path);
        let flow = route.map_or("-", |route| &*route.entrance.flow);
        let why = route.map_or_else(|| why.to_owned(), |route| format!("{}: {why}", route.entrance.path));
        if let Some(suppressed) = self.module.peer_log.admit() {
            tracing::warn!(%peer, %path, flow, suppressed, "publisher refused: {why}");
        }
        if let Some(route) = route {
            let why = format!("publisher {peer}: {}: {why}", route.entrance.path);
            self.module.emit(EventKind::ClientRejected, &route.entrance.flow, None, why);
        }
    }
}

fn kick_text(reason: KickReason, input: &InputContext) -> String {
    match reason {
        KickReason::TakenOver => "another publisher took over".into(),
        KickReason::Idle => {
            format!("nothing that can be passed on came for {} s", input.idle_timeout.as_secs())
        }
        KickReason::Reconfigured => "the flow was changed or stopped".into(),
    }
}
