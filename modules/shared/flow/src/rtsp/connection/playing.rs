//! The part of a connection in which a stream is played.

use std::time::Duration;

use av_media::Kind;
use av_rtsp::ServerSession;
use av_rtsp::message::StatusCode;
use av_rtsp::server::{FirstPacket, ServerConfig, ServerOutput, Timeouts};
use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc::error::SendError;
use tokio::sync::oneshot;

use super::{Connection, End, GOODBYE, Way};
use crate::fanout::{Arrival, Beginning, Client, Farewell, Tie, tie};
use crate::rtsp::described::{Described, Layout};
use crate::rtsp::reports;

/// A player's connection, while the fan-out has its sink.
pub(super) struct Playing {
    pub(super) tie: Tie,
    ended: oneshot::Receiver<Farewell>,
    farewell: Option<Farewell>,
}

impl Way {
    /// Waits until the fan-out gives the sink back, or lets it go.
    pub(super) async fn ended(&mut self) {
        match self {
            Self::Shared(playing) => playing.farewell = (&mut playing.ended).await.ok(),
            Self::Own(_) | Self::Gone => std::future::pending().await,
        }
    }
}

impl Connection {
    /// PLAY: the answer is made where the first packet is known, and goes in front of it.
    pub(super) async fn play(&mut self, again: bool) -> Result<(), End> {
        if let Way::Shared(playing) = &self.way {
            if !again {
                playing.tie.pause(false);
            }
            self.session.accept_play(&[]);
            return Ok(());
        }
        let Some(chosen) = &self.chosen else {
            self.session.refuse(StatusCode::MethodNotValidInThisState);
            return Ok(());
        };
        let (route, described, layout) = (chosen.route.clone(), chosen.described.clone(), chosen.layout);
        let Some(client) = Client::admit(&route.output, route.config.max_clients) else {
            let why = format!("{}: maxClients ({}) is reached", route.path, route.config.max_clients);
            self.log_refused(&route.config.url.path, Some(&route), &why);
            self.session.refuse(StatusCode::NotEnoughBandwidth);
            return Ok(());
        };
        let Way::Own(sink) = std::mem::replace(&mut self.way, Way::Gone) else { return Err(End::Done) };
        let (own, post) = tie();
        let (farewell, ended) = oneshot::channel();
        let (give_back, given_back) = oneshot::channel();
        let mut session = std::mem::replace(&mut self.session, placeholder());
        let greeting = move |beginning: Option<Beginning>| {
            session.accept_play(&first_packets(&described, beginning));
            let mut answer = BytesMut::new();
            let mut events = Vec::new();
            while let Ok(Some(output)) = session.poll() {
                match output {
                    ServerOutput::Send(bytes) => answer.extend_from_slice(&bytes),
                    ServerOutput::Event(event) => events.push(event),
                }
            }
            let _ = give_back.send((session, events));
            answer.freeze()
        };
        let arrival = Arrival {
            peer: self.peer,
            sink,
            variant: layout.variant(),
            greeting: Some(Box::new(greeting)),
            client,
            tie: post,
            farewell,
        };
        if let Err(SendError(Arrival { sink, .. })) = route.arrivals.send(arrival).await {
            // The output ended at this moment.
            self.way = Way::Own(sink);
            return Err(End::Done);
        }
        // The output ended before it took the player.
        let Ok((session, events)) = given_back.await else { return Err(End::Done) };
        self.session = session;
        self.way = Way::Shared(Box::new(Playing { tie: own, ended, farewell: None }));
        self.stranger = None;
        tracing::debug!(flow = %route.flow, peer = %self.peer, path = %route.config.url.path, "player connected");
        drop(events);
        Ok(())
    }

    pub(super) fn pause(&self) {
        if let Way::Shared(playing) = &self.way {
            playing.tie.pause(true);
        }
    }

    /// TEARDOWN: the sink comes back, so that another session may follow on the connection.
    pub(super) async fn torn_down(&mut self) -> Result<(), End> {
        if let Some(chosen) = &mut self.chosen {
            chosen.layout = Layout::default();
        }
        let Way::Shared(playing) = std::mem::replace(&mut self.way, Way::Gone) else { return Ok(()) };
        playing.tie.leave();
        let returned = tokio::time::timeout(GOODBYE, playing.ended).await;
        let Ok(Ok(Farewell { sink, unsent })) = returned else { return Err(End::Done) };
        self.way = Way::Own(sink);
        for bytes in unsent {
            self.send(bytes).await?;
        }
        Ok(())
    }

    /// The stream is over, or goes on in another coding: the player is told, and the connection closed.
    pub(super) async fn ended(&mut self) -> Result<(), End> {
        let Way::Shared(playing) = std::mem::replace(&mut self.way, Way::Gone) else { return Err(End::Done) };
        let Some(Farewell { sink, unsent }) = playing.farewell else { return Err(End::Done) };
        self.way = Way::Own(sink);
        let byes = self.chosen.as_ref().map(|chosen| byes(&chosen.described, chosen.layout));
        let farewell = async {
            for bytes in unsent.into_iter().chain(byes) {
                self.send(bytes).await?;
            }
            Ok(())
        };
        tokio::time::timeout(GOODBYE, farewell).await.unwrap_or(Err(End::Stuck))
    }
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

fn first_packets(described: &Described, beginning: Option<Beginning>) -> Vec<FirstPacket> {
    let [video, audio] = beginning.unwrap_or_default();
    let media = described.media.iter().enumerate();
    let first = media.filter_map(|(medium, kind)| {
        let mark = if *kind == Kind::Video { video } else { audio }?;
        Some(FirstPacket { medium, sequence: mark.number, rtp_time: mark.time })
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
