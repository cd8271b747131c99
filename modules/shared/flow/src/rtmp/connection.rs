//! One accepted RTMP connection, from the handshake to the last byte.

mod playing;
mod publishing;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use av_edge::EventKind;
use av_rtmp::{Connect, Limits, Refusal, RequestId, RtmpError, ServerEvent, ServerOutput, ServerSession};
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::admission::Admission;
use super::joined;
use super::names;
use super::port::Rtmp;
use crate::endpoint::Module;
use crate::fanout::Sink;
use crate::ingest::Seat;
use crate::net::listeners::{Accepted, Port};
use crate::net::{Found, Routes, TlsError};
use crate::trouble::chain;

/// TLS and RTMP handshake, each.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// From the handshake to `publish` or `play`, and from the end of one to the next.
const COMMAND: Duration = Duration::from_secs(15);
/// A peer that takes nothing of what a session answers for so long is gone.
const WRITE: Duration = Duration::from_secs(10);
/// To tell a peer why it has to go.
const GOODBYE: Duration = Duration::from_secs(2);
/// A publisher that sends malformed messages, and nothing good for so long, has no stream to lose.
const NOTHING_GOOD: Duration = Duration::from_secs(10);
/// Read buffers: before it is known what the peer wants, for media, for a player's acknowledgements.
const BUFFERS: [usize; 3] = [4096, 16_384, 512];

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("closed by the peer")]
    Closed,
    #[error("no handshake within {} s", HANDSHAKE.as_secs())]
    Handshake,
    #[error("neither publish nor play within {} s", COMMAND.as_secs())]
    NoCommand,
    #[error("accepted none of the data sent to it for {} s", WRITE.as_secs())]
    Stuck,
    #[error("broke RTMP at byte {at}")]
    Broken { at: u64, source: RtmpError },
    #[error("broke RTMP, and sent nothing valid for {} s", NOTHING_GOOD.as_secs())]
    NothingGood { source: RtmpError },
    #[error("sends requests faster than it reads the answers")]
    Greedy,
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Refused, kicked or served to the end: said where it happened.
    #[error("done")]
    Done,
}

/// Runs a connection to its end. Nothing that a peer does here touches anything but its own stream.
pub(super) async fn run(accepted: Accepted<Rtmp>) {
    let Accepted { stream, peer, port, module, counted: _counted } = accepted;
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
                let why = chain(&end);
                tracing::warn!(%peer, %address, suppressed, "connection ended: peer {why}");
            }
        }
    }
}

/// Why a peer may not publish or play.
struct Denied<R> {
    code: &'static str,
    /// For the peer.
    why: String,
    /// For the log, where that says more.
    detail: Option<String>,
    /// Where it would have gone.
    route: Option<Arc<R>>,
}

struct Connection {
    peer: SocketAddr,
    port: Arc<Port<Rtmp>>,
    module: Arc<Module>,
    session: ServerSession,
    reader: Box<dyn AsyncRead + Send + Sync + Unpin>,
    /// `None` once a player's sink has gone to its fan-out.
    sink: Option<Sink>,
    buffer: Vec<u8>,
    connect: Connect,
    admission: Admission,
    /// Where it publishes, or last did.
    seat: Option<Seat>,
}

impl Connection {
    async fn open(
        stream: TcpStream,
        peer: SocketAddr,
        port: Arc<Port<Rtmp>>,
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
            seat: None,
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
                ServerEvent::Play { id, name, query } => {
                    self.play(id, &name, query).await?;
                    deadline = Instant::now() + COMMAND;
                }
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
                Ok(Some(ServerOutput::Send(bytes))) => out.extend_from_slice(&bytes),
                Ok(Some(ServerOutput::Event(event))) => break Ok(Some(event)),
                Ok(None) => break Ok(None),
                Err(error) => break Err(self.broken(error)),
            }
        };
        // A peer that broke a rule may be owed the reason.
        self.write(&out).await?;
        event
    }

    /// Feeds the session with what arrives next, and says how many bytes that was.
    async fn read(&mut self) -> Result<usize, End> {
        let count = self.hear().await?;
        let bytes = self.buffer.get(..count).filter(|bytes| !bytes.is_empty()).ok_or(End::Closed)?;
        self.session.handle_input(bytes);
        Ok(count)
    }

    const fn broken(&self, source: RtmpError) -> End {
        End::Broken { at: self.session.position(), source }
    }

    /// Reads into the buffer; what is heard of a publisher, its end too, tells that it is there.
    async fn hear(&mut self) -> io::Result<usize> {
        let read = self.reader.read(&mut self.buffer).await;
        let reset = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionReset;
        if let Some(seat) = &self.seat
            && read.as_ref().err().is_none_or(reset)
        {
            seat.heard();
        }
        read
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
        while self.hear().await? > 0 {}
        Ok(())
    }

    /// Says why, sends it, and ends the connection: librtmp waits for that.
    async fn refuse(&mut self, id: RequestId, code: &'static str, description: String) -> End {
        self.session.reject(id, Refusal { code, description });
        let _ = tokio::time::timeout(GOODBYE, self.write_queued()).await;
        End::Done
    }

    async fn connected(&mut self, connect: Connect) -> Result<(), End> {
        let application = joined(&connect.app, "");
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
                    if let Some(flow) = refused.flow {
                        self.module.emit(EventKind::ClientRejected, &flow, None, format!("{peer}: {why}"));
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

    /// The path that the peer means, and every query in which a key may be.
    fn target(&self, name: &str, query: Option<String>) -> (String, Vec<String>) {
        let Connect { app, query: of_app, tc_query, .. } = &self.connect;
        let queries = query.into_iter().chain(of_app.clone()).chain(tc_query.clone());
        (joined(app, name), queries.collect())
    }

    /// Where a path leads, and how it is written there. What is not there may come, as long as the listener is young.
    async fn find<T>(&self, routes: &Routes<T>, path: &str) -> Option<(Found<T>, String)> {
        if let Some(found) = names::find(routes, path) {
            return Some(found);
        }
        self.port.settled().await;
        names::find(routes, path)
    }
}

#[cfg(test)]
mod tests;
