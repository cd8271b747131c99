//! The part of a connection in which a stream is played.

use std::net::SocketAddr;
use std::time::Duration;

use av_media::Kind;
use av_rtsp::ServerSession;
use av_rtsp::message::StatusCode;
use av_rtsp::server::{FirstPacket, ServerConfig, ServerOutput, Timeouts};
use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc::error::SendError;
use tokio::sync::oneshot;

use super::asking::Chosen;
use super::{Connection, End, GOODBYE, Way};
use crate::fanout::{Arrival, Client, Farewell, Opening, Sink, Tie, tie};
use crate::rtsp::described::{Described, Layout};
use crate::rtsp::reports;
use crate::rtsp::udp::{self, Expected, Route, UdpSink};
use crate::rtsp::wire::of_mark;

/// A player's connection, while the fan-out has a sink of it.
pub(super) struct Playing {
    pub(super) tie: Tie,
    ended: oneshot::Receiver<Farewell>,
    farewell: Option<Farewell>,
    /// Where it is sent datagrams: what is heard of it.
    expected: Option<Expected>,
}

impl Way {
    fn playing(&self) -> Option<&Playing> {
        match self {
            Self::Shared(playing) | Self::Beside(_, playing) => Some(playing),
            Self::Own(_) | Self::InGroup(..) | Self::Gone => None,
        }
    }

    /// Waits until the fan-out gives the sink back, or lets it go.
    pub(super) async fn ended(&mut self) {
        match self {
            Self::Shared(playing) | Self::Beside(_, playing) => {
                playing.farewell = (&mut playing.ended).await.ok();
            }
            Self::InGroup(_, member) => member.ended().await,
            Self::Own(_) | Self::Gone => std::future::pending().await,
        }
    }

    /// Whether there is a sign of life beside requests.
    pub(super) fn is_alive(&self) -> bool {
        let long = Timeouts::default().session;
        if let Self::InGroup(_, member) = self {
            return member.silent_for() < long;
        }
        self.playing().is_some_and(|playing| {
            playing.expected.as_ref().is_none_or(|expected| expected.silent_for() < long)
        })
    }
}

impl Connection {
    /// PLAY: the answer is made where the first packet is known, and goes in front of it.
    pub(super) async fn play(&mut self, again: bool) -> Result<(), End> {
        if let Some(playing) = self.way.playing() {
            if !again {
                playing.tie.pause(false);
            }
            self.session.accept_play(&[]);
            return Ok(());
        }
        if let Way::InGroup(..) = self.way {
            // What goes to many does not pause for one.
            self.session.accept_play(&[]);
            return Ok(());
        }
        let Some(chosen) = &self.chosen else {
            self.session.refuse(StatusCode::MethodNotValidInThisState);
            return Ok(());
        };
        let (route, described, layout) = (chosen.route.clone(), chosen.described.clone(), chosen.layout);
        if !route.still_sends(&described) {
            self.refuse_outdated(&route.config.url.path);
            return Ok(());
        }
        let (datagrams, in_group) = (self.datagrams(chosen), chosen.in_group);
        let Some(client) = Client::admit(&route.output, &route.stream, route.config.max_clients) else {
            let why = format!("{}: maxClients ({}) is reached", route.path, route.config.max_clients);
            self.log_refused(&route.config.url.path, Some(&route), &why);
            self.session.refuse(StatusCode::NotEnoughBandwidth);
            return Ok(());
        };
        let Way::Own(own_sink) = std::mem::replace(&mut self.way, Way::Gone) else { return Err(End::Done) };
        if let Some(group) = route.group.get().filter(|_| in_group) {
            let joined = group.join(&route, &described, self.peer.ip(), client).await;
            let Some((member, openings)) = joined else {
                self.way = Way::Own(own_sink);
                return Err(End::Done);
            };
            self.stranger = None;
            self.session.accept_play(&first_packets(&described, &openings));
            self.way = Way::InGroup(own_sink, Box::new(member));
            return Ok(());
        }
        let (own, post) = tie();
        let (farewell, ended) = oneshot::channel();
        let (give_back, given_back) = oneshot::channel();
        let mut session = std::mem::replace(&mut self.session, placeholder());
        let beside = datagrams.is_some();
        let asked = route.clone();
        let greeting = move |openings: &[Opening]| {
            // It may have changed on the way here, where nothing can come in between any more.
            let holds = asked.still_sends(&described);
            if holds {
                session.accept_play(&first_packets(&described, openings));
            } else {
                session.refuse_outdated();
            }
            let mut answer = BytesMut::new();
            let mut events = Vec::new();
            while let Ok(Some(output)) = session.poll() {
                match output {
                    ServerOutput::Send(bytes) => answer.extend_from_slice(&bytes),
                    ServerOutput::Event(event) => events.push(event),
                }
            }
            let answer = answer.freeze();
            let _ = give_back.send((session, answer.clone(), events, holds));
            holds.then(|| if beside { Bytes::new() } else { answer })
        };
        let (sink, own_sink, expected, gate): (Sink, _, _, _) = match datagrams {
            Some(Datagrams { sink, expected, gate }) => {
                (Box::new(sink), Some(own_sink), Some(expected), Some(gate))
            }
            None => (own_sink, None, None, None),
        };
        let arrival = Arrival {
            peer: self.peer,
            sink,
            variant: layout.variant(),
            greeting: Some(Box::new(greeting)),
            client: Some(client),
            tie: post,
            farewell,
        };
        if let Err(SendError(Arrival { sink, .. })) = route.arrivals.send(arrival).await {
            // The output ended at this moment.
            self.way = Way::Own(own_sink.unwrap_or(sink));
            return Err(End::Done);
        }
        // Otherwise the output ended before it took the player.
        let Ok((session, answer, events, holds)) = given_back.await else { return Err(End::Done) };
        self.session = session;
        if !holds {
            let Ok(Farewell { sink, .. }) = ended.await else { return Err(End::Done) };
            self.way = Way::Own(own_sink.unwrap_or(sink));
            self.chosen.as_mut().into_iter().for_each(Chosen::clear);
            self.waiting.extend(events);
            return self.send(answer).await;
        }
        let playing = Box::new(Playing { tie: own, ended, farewell: None, expected });
        self.stranger = None;
        tracing::debug!(flow = %route.flow, peer = %self.peer, path = %route.config.url.path, "player connected");
        match own_sink {
            Some(own_sink) => {
                self.way = Way::Beside(own_sink, playing);
                self.send(answer).await?;
                // The player may be gone already.
                let _ = gate.map(|gate| gate.send(()));
            }
            None => self.way = Way::Shared(playing),
        }
        // Requests that came behind PLAY.
        self.waiting.extend(events);
        Ok(())
    }

    /// The way of datagrams, where the player has set that up.
    fn datagrams(&self, chosen: &Chosen) -> Option<Datagrams> {
        let pair = chosen.route.udp.get()?;
        let address = self.peer.ip();
        let mut routes = Vec::new();
        for (kind, ports) in [Kind::Video, Kind::Audio].into_iter().zip(chosen.ports) {
            let Some((ports, (rtp, rtcp))) = ports.zip(chosen.layout.get(kind)) else { continue };
            for (channel, rtcp, port) in [(rtp, false, ports.rtp), (rtcp, true, ports.rtcp)] {
                // Players take nothing from an address that they do not know.
                let way = udp::Way { from: self.local, to: SocketAddr::new(address, port) };
                routes.push(Route { pair: pair.clone(), channel, rtcp, way });
            }
        }
        let ports: Vec<u16> = routes.iter().map(|route| route.way.to.port()).collect();
        if ports.is_empty() {
            return None;
        }
        let (gate, open) = oneshot::channel();
        let expected = pair.expect(address, ports);
        Some(Datagrams { sink: UdpSink::new(routes, Some(open)), expected, gate })
    }

    pub(super) fn pause(&self) {
        if let Some(playing) = self.way.playing() {
            playing.tie.pause(true);
        }
    }

    /// TEARDOWN: the sink comes back, so that another session may follow on the connection.
    pub(super) async fn torn_down(&mut self) -> Result<(), End> {
        if let Some(chosen) = &mut self.chosen {
            chosen.clear();
        }
        let (own_sink, playing) = match std::mem::replace(&mut self.way, Way::Gone) {
            Way::Shared(playing) => (None, playing),
            Way::Beside(own_sink, playing) => (Some(own_sink), playing),
            Way::InGroup(own_sink, _) => {
                self.way = Way::Own(own_sink);
                return Ok(());
            }
            other => {
                self.way = other;
                return Ok(());
            }
        };
        playing.tie.leave();
        let returned = tokio::time::timeout(GOODBYE, playing.ended).await;
        if let Some(own_sink) = own_sink {
            self.way = Way::Own(own_sink);
            return Ok(());
        }
        let Ok(Ok(Farewell { sink, unsent })) = returned else { return Err(End::Done) };
        self.way = Way::Own(sink);
        for bytes in unsent {
            self.send(bytes).await?;
        }
        Ok(())
    }

    /// The stream is over, or goes on in another coding: the player is told, and the connection closed.
    pub(super) async fn ended(&mut self) -> Result<(), End> {
        let (own_sink, playing) = match std::mem::replace(&mut self.way, Way::Gone) {
            Way::Shared(playing) => (None, playing),
            Way::Beside(own_sink, playing) => (Some(own_sink), playing),
            Way::InGroup(own_sink, _) => {
                self.way = Way::Own(own_sink);
                return Ok(());
            }
            Way::Own(_) | Way::Gone => return Err(End::Done),
        };
        let Some(Farewell { mut sink, unsent }) = playing.farewell else {
            self.way = own_sink.map_or(Way::Gone, Way::Own);
            return Err(End::Done);
        };
        let byes = self.chosen.as_ref().map(|chosen| byes(&chosen.described, chosen.layout));
        let farewell = async {
            for bytes in unsent.into_iter().chain(byes) {
                sink.write_all(&bytes).await?;
            }
            sink.flush().await
        };
        let said = tokio::time::timeout(GOODBYE, farewell).await;
        self.way = Way::Own(own_sink.unwrap_or(sink));
        match said {
            Ok(said) => Ok(said?),
            Err(_) => Err(End::Stuck),
        }
    }
}

/// A player's way by UDP.
struct Datagrams {
    sink: UdpSink,
    expected: Expected,
    gate: oneshot::Sender<()>,
}

fn byes(described: &Described, layout: Layout) -> Bytes {
    let mut out = BytesMut::new();
    for (kind, ssrc) in described.media.iter().zip(&described.ssrcs) {
        if let Some((_, channel)) = layout.get(*kind) {
            out.extend_from_slice(&reports::bye(channel, *ssrc));
        }
    }
    out.freeze()
}

fn first_packets(described: &Described, openings: &[Opening]) -> Vec<FirstPacket> {
    let media = described.media.iter().enumerate();
    let first = media.filter_map(|(medium, kind)| {
        let opening = openings.iter().find(|opening| opening.kind == *kind)?;
        let (sequence, rtp_time) = of_mark(opening.mark);
        Some(FirstPacket { medium, sequence, rtp_time })
    });
    first.collect()
}

/// Stands for a session that is elsewhere for a moment.
fn placeholder() -> ServerSession {
    let config = ServerConfig {
        limits: av_rtsp::Limits::default(),
        timeouts: Timeouts::default(),
        random: [0; 32],
        tls: false,
    };
    ServerSession::new(config, Duration::ZERO)
}
