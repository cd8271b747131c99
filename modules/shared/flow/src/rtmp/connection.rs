//! One accepted RTMP connection, from the handshake to the last byte.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use av_edge::EventKind;
use av_rtmp::{Connect, Limits, Refusal, RequestId, RtmpError, ServerEvent, ServerOutput, ServerSession};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::error::SendError;
use tokio::sync::oneshot;

use super::admission::Admission;
use super::fanout::{Arrival, Client, Farewell, Sink};
use super::ports::{Permit, PlayRoute, Port, PublishRoute, Target};
use super::serve::Command;
use super::takeover::Identity;
use crate::config::RtmpPath;
use crate::endpoint::{InputContext, Module};
use crate::net::{TlsError, auth};
use crate::stream::{Kick, KickReason, Publisher};

/// TLS and RTMP handshake, each.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// From the handshake to `publish` or `play`, and from the end of one to the next.
const COMMAND: Duration = Duration::from_secs(15);
/// A peer that takes nothing of what a session answers for so long is gone.
const WRITE: Duration = Duration::from_secs(10);
/// To tell a peer why it has to go.
const GOODBYE: Duration = Duration::from_secs(2);
/// Read buffers: before it is known what the peer wants, for media, for a player's acknowledgements.
const BUFFERS: [usize; 3] = [4096, 65_536, 512];

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("closed by the peer")]
    Closed,
    #[error("no handshake within {} s", HANDSHAKE.as_secs())]
    Handshake,
    #[error("neither publish nor play within {} s", COMMAND.as_secs())]
    NoCommand,
    #[error("took nothing of what was sent for {} s", WRITE.as_secs())]
    Stuck,
    #[error("broke RTMP at byte {at}: {error}")]
    Broken { at: u64, error: RtmpError },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Refused, kicked or served to the end: said where it happened.
    #[error("done")]
    Done,
}

/// Runs a connection to its end. Nothing that a peer does here touches anything but its own stream.
pub(super) async fn run(
    stream: TcpStream,
    peer: SocketAddr,
    port: Arc<Port>,
    module: Arc<Module>,
    permit: Permit,
) {
    let _permit = permit;
    let end = match Connection::open(stream, peer, port.clone(), module.clone()).await {
        Ok(mut connection) => match connection.talk().await {
            Ok(()) | Err(End::Done) => End::Done,
            Err(end) => {
                // What was queued before, for example a refusal, is still owed.
                let _ = tokio::time::timeout(GOODBYE, connection.write_queued()).await;
                end
            }
        },
        Err(end) => end,
    };
    let address = port.address;
    match end {
        End::Done | End::Closed => tracing::debug!(%peer, %address, "connection ended: {end}"),
        End::Io(ref error) if error.kind() != io::ErrorKind::InvalidData => {
            tracing::debug!(%peer, %address, "connection ended: {end}");
        }
        _ => {
            if let Some(suppressed) = module.peer_log.admit() {
                tracing::warn!(%peer, %address, suppressed, "connection ended: peer {end}");
            }
        }
    }
}

struct Connection {
    peer: SocketAddr,
    port: Arc<Port>,
    module: Arc<Module>,
    session: ServerSession,
    reader: Box<dyn AsyncRead + Send + Sync + Unpin>,
    /// `None` once a player's sink has gone to its fan-out.
    sink: Option<Sink>,
    buffer: Vec<u8>,
    connect: Connect,
    admission: Admission,
}

impl Connection {
    async fn open(
        stream: TcpStream,
        peer: SocketAddr,
        port: Arc<Port>,
        module: Arc<Module>,
    ) -> Result<Self, End> {
        let (reader, sink): (Box<dyn AsyncRead + Send + Sync + Unpin>, Sink) = match &port.tls {
            None => {
                let (reader, writer) = stream.into_split();
                (Box::new(reader), Box::new(writer))
            }
            Some(tls) => {
                let accepted = tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await;
                let (reader, writer) = tokio::io::split(accepted.map_err(|_| End::Handshake)??);
                (Box::new(reader), Box::new(writer))
            }
        };
        let [small, ..] = BUFFERS;
        Ok(Self {
            peer,
            port,
            module,
            session: ServerSession::new(Limits::default()),
            reader,
            sink: Some(sink),
            buffer: vec![0; small],
            connect: Connect::default(),
            admission: Admission::default(),
        })
    }

    async fn talk(&mut self) -> Result<(), End> {
        let mut deadline = Instant::now() + HANDSHAKE;
        loop {
            let event = loop {
                let shaken = self.session.handshake_done();
                match tokio::time::timeout_at(deadline.into(), self.next_event()).await {
                    Ok(event) => break event?,
                    Err(_) if self.session.handshake_done() && !shaken => {
                        deadline = Instant::now() + COMMAND;
                    }
                    Err(_) if shaken => return Err(End::NoCommand),
                    Err(_) => return Err(End::Handshake),
                }
            };
            match event {
                ServerEvent::Connect(connect) => {
                    self.connected(connect).await?;
                    deadline = Instant::now() + COMMAND;
                }
                ServerEvent::Publish { id, name, query } => {
                    self.publish(id, &name, query).await?;
                    deadline = Instant::now() + COMMAND;
                }
                ServerEvent::Play { id, name, query } => return self.play(id, &name, query).await,
                _ => {}
            }
        }
    }

    /// Reads and answers until something has to be decided.
    async fn next_event(&mut self) -> Result<ServerEvent, End> {
        loop {
            if let Some(event) = self.poll_session().await? {
                return Ok(event);
            }
            self.read().await?;
        }
    }

    /// The session's next event; what it wants sent before is sent.
    async fn poll_session(&mut self) -> Result<Option<ServerEvent>, End> {
        let mut out = BytesMut::new();
        let event = loop {
            match self.session.poll() {
                Some(ServerOutput::Send(bytes)) => out.extend_from_slice(&bytes),
                Some(ServerOutput::Event(event)) => break Some(event),
                None => break None,
            }
        };
        self.write(&out).await?;
        Ok(event)
    }

    async fn read(&mut self) -> Result<(), End> {
        let count = self.reader.read(&mut self.buffer).await?;
        let bytes = self.buffer.get(..count).filter(|bytes| !bytes.is_empty()).ok_or(End::Closed)?;
        self.session.handle_input(bytes).map_err(|error| End::Broken { at: self.session.position(), error })
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), End> {
        let Some(sink) = self.sink.as_mut().filter(|_| !bytes.is_empty()) else { return Ok(()) };
        let written = tokio::time::timeout(WRITE, async {
            sink.write_all(bytes).await?;
            sink.flush().await
        });
        Ok(written.await.map_err(|_| End::Stuck)??)
    }

    /// Sends what the session queued before it was of no use any more.
    async fn write_queued(&mut self) -> Result<(), End> {
        while self.poll_session().await?.is_some() {}
        if let Some(sink) = &mut self.sink {
            sink.shutdown().await?;
        }
        // Closing with unread input would reset the connection, and with it what was just sent.
        while self.reader.read(&mut self.buffer).await? > 0 {}
        Ok(())
    }

    /// Says why, sends it, and ends the connection: librtmp waits for that.
    async fn refuse(&mut self, id: RequestId, code: &'static str, description: String) -> End {
        self.session.reject(id, Refusal { code, description });
        let _ = tokio::time::timeout(GOODBYE, self.write_queued()).await;
        End::Done
    }

    async fn connected(&mut self, connect: Connect) -> Result<(), End> {
        let application = RtmpPath::join(&connect.app, "").path;
        let verdict = self.admission.connect(&self.module.net, &self.port, &application, &connect).await;
        self.connect = connect;
        match verdict {
            Ok(()) => {
                self.session.accept_connect();
                Ok(())
            }
            Err(refused) => {
                if let Some(why) = refused.log {
                    let (peer, address) = (self.peer, self.port.address);
                    if let Some(suppressed) = self.module.peer_log.admit() {
                        tracing::warn!(%peer, %address, %application, suppressed, "connect refused: {why}");
                    }
                }
                self.session.reject_connect(&refused.description);
                let _ = tokio::time::timeout(GOODBYE, self.write_queued()).await;
                Err(End::Done)
            }
        }
    }

    /// What the peer's program calls itself.
    fn program(&self) -> String {
        self.connect.flash_ver.chars().filter(|c| !c.is_control()).take(64).collect()
    }

    fn target(&self, name: &str, query: Option<String>) -> (String, Option<String>) {
        let path = RtmpPath::join(&self.connect.app, name).path;
        (path, query.or_else(|| self.connect.query.clone()))
    }

    // ---- publishing ------------------------------------------------------------------------------------

    async fn publish(&mut self, id: RequestId, name: &str, query: Option<String>) -> Result<(), End> {
        let (path, query) = self.target(name, query);
        let peer = self.peer;
        let (route, publisher, kick, input) = match self.admit_publisher(&path, query.as_deref()).await {
            Ok(admitted) => admitted,
            Err(Denied { code, why, route }) => {
                let flow = route.as_ref().map_or("-", |route| &*route.flow);
                if let Some(suppressed) = self.module.peer_log.admit() {
                    tracing::warn!(%peer, %path, flow, suppressed, "publisher refused: {why}");
                }
                if let Some(route) = route {
                    self.module.emit(
                        EventKind::ClientRejected,
                        &route.flow,
                        None,
                        format!("publisher {peer}: {why}"),
                    );
                }
                return Err(self.refuse(id, code, why).await);
            }
        };
        self.session.set_max_message_bytes(route.config.max_message_bytes);
        self.session.accept_publish(id);
        let program = self.program();
        tracing::info!(flow = %input.flow, %peer, %path, %program, "publisher connected");
        self.module.emit(EventKind::InputConnected, &input.flow, None, format!("publisher {peer}"));
        let [_, large, _] = BUFFERS;
        self.buffer = vec![0; large];
        let ended = self.take_media(publisher, &kick).await;
        let why = match &ended {
            Ok(None) => "it stopped publishing".to_owned(),
            Ok(Some(reason)) => kick_text(*reason, &input),
            Err(end) => end.to_string(),
        };
        tracing::info!(flow = %input.flow, %peer, "publisher gone: {why}");
        self.module.emit(EventKind::InputLost, &input.flow, None, format!("publisher {peer}: {why}"));
        match ended? {
            None => Ok(()),
            Some(reason) => {
                let code = match reason {
                    KickReason::TakenOver => "NetStream.Publish.BadName",
                    KickReason::Idle => "NetStream.Publish.Idle",
                    KickReason::Reconfigured => "NetStream.Failed",
                };
                self.session.end_publish(code, &why);
                let _ = tokio::time::timeout(GOODBYE, self.write_queued()).await;
                Err(End::Done)
            }
        }
    }

    /// Moves media into the stream until the publisher stops (`None`) or is kicked.
    async fn take_media(&mut self, mut publisher: Publisher, kick: &Kick) -> Result<Option<KickReason>, End> {
        loop {
            let now = Instant::now();
            loop {
                match self.session.poll() {
                    Some(ServerOutput::Send(bytes)) => self.write(&bytes).await?,
                    Some(ServerOutput::Event(ServerEvent::Media(item))) => {
                        if publisher.item(item, now).is_err() {
                            return Ok(Some(KickReason::TakenOver));
                        }
                    }
                    Some(ServerOutput::Event(ServerEvent::PublishStopped)) => return Ok(None),
                    Some(ServerOutput::Event(_)) => {}
                    None => break,
                }
            }
            tokio::select! {
                read = self.read() => read?,
                reason = kick.fired() => return Ok(Some(reason)),
            }
        }
    }

    async fn admit_publisher(&self, path: &str, query: Option<&str>) -> Result<Admitted, Denied> {
        let bad_name = |why: String, route| Denied { code: "NetStream.Publish.BadName", why, route };
        let Some((route, matched)) = self.port.publish_route(path) else {
            return Err(bad_name(format!("nothing here takes {path}"), None));
        };
        let denied = |why: String| Denied {
            code: "NetStream.Publish.Denied",
            why: format!("{}: {why}", route.path),
            route: Some(route.clone()),
        };
        if !auth::allowed(&route.config.allow, self.peer.ip()) {
            return Err(denied("this address is not allowed".into()));
        }
        let secrets = self.module.net.secrets();
        self.admission.check(secrets, route.config.auth.as_ref(), query).await.map_err(denied)?;
        let input = match (&route.target, matched) {
            (Target::Stream(input), _) => input.clone(),
            (Target::Pattern(instances), Some(name)) => instances
                .open(&name)
                .map_err(|why| bad_name(format!("{}: {why}", route.path), Some(route.clone())))?,
            (Target::Pattern(_), None) => {
                return Err(bad_name("a name is missing".into(), Some(route.clone())));
            }
        };
        let who = Identity { address: self.peer.ip().to_canonical(), program: self.program() };
        let kick = Kick::default();
        let publisher = route
            .seat(path, who, &input, kick.clone())
            .map_err(|taken| bad_name(format!("{}: {taken}", route.path), Some(route.clone())))?;
        Ok((route, publisher, kick, input))
    }

    // ---- playing ---------------------------------------------------------------------------------------

    async fn play(&mut self, id: RequestId, name: &str, query: Option<String>) -> Result<(), End> {
        let (path, query) = self.target(name, query);
        let (peer, module) = (self.peer, self.module.clone());
        let (route, client) = match self.admit_player(&path, query.as_deref()).await {
            Ok(admitted) => admitted,
            Err((code, why, route)) => {
                if let Some(suppressed) = module.player_log.admit() {
                    let flow = route.as_ref().map_or("-", |route| &*route.flow);
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
        if self.poll_session().await?.is_some() {
            // Whatever it asks for next, it is a player now.
            tracing::debug!(%peer, "a player asked for more than one stream");
        }
        self.session.shrink();
        let [.., tiny] = BUFFERS;
        self.buffer = vec![0; tiny];
        let id = route.next_player();
        let (farewell, ended) = oneshot::channel();
        let Some(sink) = self.sink.take() else { return Err(End::Done) };
        let arrival = Arrival { id, peer, sink, client, farewell };
        if let Err(SendError(command)) = route.commands.send(Command::Join(arrival)).await {
            // The output ended at this moment.
            if let Command::Join(Arrival { sink, .. }) = command {
                self.sink = Some(sink);
                let _ = tokio::time::timeout(GOODBYE, self.say_goodbye(Vec::new())).await;
            }
            return Err(End::Done);
        }
        tracing::debug!(flow = %route.flow, %peer, %path, "player connected");
        let result = self.listen_to_player(id, &route, ended).await;
        let _ = route.commands.send(Command::Leave(id)).await;
        result
    }

    /// A player says little: acknowledgements, answers to pings, that it stops.
    async fn listen_to_player(
        &mut self,
        id: u64,
        route: &PlayRoute,
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
                read = self.read() => read?,
            }
            let mut answer = BytesMut::new();
            loop {
                match self.session.poll() {
                    Some(ServerOutput::Send(bytes)) => answer.extend_from_slice(&bytes),
                    Some(ServerOutput::Event(ServerEvent::PlayStopped)) => return Err(End::Done),
                    Some(ServerOutput::Event(_)) => {}
                    None => break,
                }
            }
            if !answer.is_empty() {
                let control = Command::Control(id, answer.freeze());
                if route.commands.send(control).await.is_err() {
                    return Err(End::Done);
                }
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
        query: Option<&str>,
    ) -> Result<(Arc<PlayRoute>, Client), (&'static str, String, Option<Arc<PlayRoute>>)> {
        let Some(route) = self.port.play_route(path) else {
            return Err(("NetStream.Play.StreamNotFound", format!("nothing here serves {path}"), None));
        };
        let failed =
            |why: String| ("NetStream.Play.Failed", format!("{}: {why}", route.path), Some(route.clone()));
        if !auth::allowed(&route.config.allow, self.peer.ip()) {
            return Err(failed("this address is not allowed".into()));
        }
        let secrets = self.module.net.secrets();
        self.admission.check(secrets, route.config.auth.as_ref(), query).await.map_err(failed)?;
        let client = Client::admit(&route.output, route.config.max_clients)
            .ok_or_else(|| failed(format!("maxClients ({}) is reached", route.config.max_clients)))?;
        Ok((route, client))
    }
}

type Admitted = (Arc<PublishRoute>, Publisher, Kick, InputContext);

struct Denied {
    code: &'static str,
    why: String,
    route: Option<Arc<PublishRoute>>,
}

fn kick_text(reason: KickReason, input: &InputContext) -> String {
    match reason {
        KickReason::TakenOver => "another publisher took over".into(),
        KickReason::Idle => format!("nothing came for {} s", input.idle_timeout.as_secs()),
        KickReason::Reconfigured => "the flow was changed or stopped".into(),
    }
}

#[cfg(test)]
mod tests;
