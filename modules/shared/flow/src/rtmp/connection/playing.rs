//! The part of a connection that plays.

use std::sync::Arc;

use av_edge::EventKind;
use av_rtmp::{RequestId, ServerEvent, ServerOutput};
use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc::error::SendError;
use tokio::sync::oneshot;

use super::{BUFFERS, Connection, Denied, End, GOODBYE};
use crate::fanout::{Arrival, Client, Farewell, Tie, tie};
use crate::net::{Found, auth};
use crate::rtmp::port::PlayRoute;

impl Connection {
    pub(super) async fn play(&mut self, id: RequestId, name: &str, query: Option<String>) -> Result<(), End> {
        let (path, queries) = self.target(name, query);
        let (peer, module) = (self.peer, self.module.clone());
        let (route, client) = match self.admit_player(&path, &queries).await {
            Ok(admitted) => admitted,
            Err(Denied { code, why, detail, route }) => {
                if let Some(suppressed) = module.player_log.admit() {
                    let flow = route.as_ref().map_or("-", |route| &*route.flow);
                    let why = detail.as_ref().unwrap_or(&why);
                    tracing::warn!(%peer, %path, flow, suppressed, "player refused: {why}");
                }
                if let Some(route) = route {
                    let output = Some(&*route.output_name);
                    module.emit(
                        EventKind::ClientRejected,
                        &route.flow,
                        output,
                        format!("player {peer}: {why}"),
                    );
                }
                return Err(self.refuse(id, code, why).await);
            }
        };
        self.session.accept_play(id);
        let mut paused = false;
        while let Some(event) = self.poll_session().await? {
            match event {
                ServerEvent::Paused(now) => paused = now,
                // Said in the same breath; what comes next is another request.
                ServerEvent::PlayStopped => return Ok(()),
                _ => {}
            }
        }
        self.session.shrink();
        let [.., tiny] = BUFFERS;
        self.buffer = vec![0; tiny];
        let (own, post) = tie();
        let (farewell, ended) = oneshot::channel();
        let Some(sink) = self.sink.take() else { return Err(End::Done) };
        let arrival =
            Arrival { peer, sink, client: Some(client), variant: 0, greeting: None, tie: post, farewell };
        if let Err(SendError(Arrival { sink, .. })) = route.arrivals.send(arrival).await {
            // The output ended at this moment.
            self.sink = Some(sink);
            let _ = tokio::time::timeout(GOODBYE, self.say_goodbye(Vec::new())).await;
            return Err(End::Done);
        }
        tracing::debug!(flow = %route.flow, %peer, %path, "player connected");
        if paused {
            own.pause(true);
        }
        self.listen_to_player(own, ended).await
    }

    /// A player says little: acknowledgements, answers to pings, that it pauses or stops. When it stops, the
    /// connection goes on.
    async fn listen_to_player(
        &mut self,
        tie: Tie,
        mut ended: oneshot::Receiver<Farewell>,
    ) -> Result<(), End> {
        loop {
            tokio::select! {
                farewell = &mut ended => {
                    let Ok(Farewell { sink, unsent }) = farewell else { return Err(End::Done) };
                    self.sink = Some(sink);
                    let _ = tokio::time::timeout(GOODBYE, self.say_goodbye(unsent)).await;
                    return Err(End::Done);
                }
                read = self.read() => drop(read?),
            }
            let mut answer = BytesMut::new();
            loop {
                match self.session.poll().map_err(|error| self.broken(error))? {
                    Some(ServerOutput::Send(bytes)) => answer.extend_from_slice(&bytes),
                    Some(ServerOutput::Event(ServerEvent::Paused(paused))) => tie.pause(paused),
                    Some(ServerOutput::Event(ServerEvent::PlayStopped)) => {
                        tie.leave();
                        let returned = tokio::time::timeout(GOODBYE, &mut ended).await;
                        let Ok(Ok(Farewell { sink, unsent })) = returned else { return Err(End::Done) };
                        self.sink = Some(sink);
                        for bytes in unsent {
                            self.write(&bytes).await?;
                        }
                        return self.write(&answer).await;
                    }
                    Some(ServerOutput::Event(_)) => {}
                    None => break,
                }
            }
            if !answer.is_empty() && !tie.answer(answer.freeze()) {
                return Err(End::Greedy);
            }
        }
    }

    async fn say_goodbye(&mut self, unsent: Vec<Bytes>) -> Result<(), End> {
        for bytes in unsent {
            self.write(&bytes).await?;
        }
        self.session.end_play("the stream has ended");
        self.write_queued().await
    }

    async fn admit_player(
        &self,
        path: &str,
        queries: &[String],
    ) -> Result<(Arc<PlayRoute>, Client), Denied<PlayRoute>> {
        let Some((Found { route, .. }, _)) = self.find(&self.port.play, path).await else {
            let why = format!("nothing here serves {path}");
            return Err(Denied { code: "NetStream.Play.StreamNotFound", why, detail: None, route: None });
        };
        let failed = |why: String| Denied {
            code: "NetStream.Play.Failed",
            why: format!("{}: {why}", route.path),
            detail: None,
            route: Some(route.clone()),
        };
        if !auth::allowed(&route.config.allow, self.peer.ip()) {
            return Err(failed("this address is not allowed".into()));
        }
        let secrets = self.module.net.secrets();
        let checked = self.admission.check(secrets, route.config.auth.as_ref(), queries).await;
        checked.map_err(|why| Denied {
            detail: Some(format!("{}: {}", route.path, why.detail())),
            ..failed(why.to_string())
        })?;
        let client = Client::admit(&route.output, &route.stream, route.config.max_clients)
            .ok_or_else(|| failed(format!("maxClients ({}) is reached", route.config.max_clients)))?;
        Ok((route, client))
    }
}
