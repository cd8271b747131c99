//! One accepted RTSP connection, from its first byte to its last.

mod asking;
mod playing;
mod publishing;
mod tunnel;

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use av_rtsp::server::{Expired, MOST_WRONG, ServerConfig, ServerEvent, ServerOutput, Timeouts};
use av_rtsp::{Limits, RtspError, ServerSession};
use bytes::{Bytes, BytesMut};
use rand::Rng;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::group::Member;
use super::port::{Rtsp, Stranger};
use crate::endpoint::Module;
use crate::fanout::Sink;
use crate::net::listeners::{Accepted, Port};
use crate::net::{Counted, TlsError};
use crate::trouble::chain;
use asking::Chosen;
use playing::Playing;
use publishing::Announced;
pub(super) use tunnel::Tunnels;

/// TLS.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A peer that takes nothing of what it is answered for so long is gone.
const WRITE: Duration = Duration::from_secs(10);
/// To tell a peer that it is over.
const GOODBYE: Duration = Duration::from_secs(2);
/// Requests are short.
const READ: usize = 4096;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("closed by the peer")]
    Closed,
    #[error("no TLS handshake within {} s", HANDSHAKE.as_secs())]
    Handshake,
    #[error("accepted none of the data sent to it for {} s", WRITE.as_secs())]
    Stuck,
    #[error("{0} in time")]
    Expired(Expired),
    #[error("broke RTSP at byte {at}")]
    Broken { at: u64, source: RtspError },
    #[error("sends requests faster than it reads the answers")]
    Greedy,
    #[error("showed {MOST_WRONG} wrong keys or passwords")]
    Guesses,
    #[error("opened the way down of a tunnel, and no way up within {} s", tunnel::PATIENCE.as_secs())]
    HalfTunnel,
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Refused, or served to the end: said where it happened.
    #[error("done")]
    Done,
}

/// Runs a connection to its end. Nothing that a peer does here touches anything but its own session.
pub(super) async fn run(accepted: Accepted<Rtsp>) {
    let Accepted { stream, peer, port, module, counted } = accepted;
    let Some(stranger) = port.state.strangers.admit(peer.ip()) else {
        if let Some(suppressed) = module.peer_log.admit() {
            tracing::warn!(%peer, address = %port.address, suppressed, "refused: too many connections from \
                 this address");
        }
        return;
    };
    let end = match Connection::open(stream, peer, port.clone(), module.clone(), stranger).await {
        Ok(mut connection) => {
            connection.counted = Some(counted);
            let end = match connection.talk().await {
                Ok(()) => End::Done,
                Err(end) => end,
            };
            let _ = tokio::time::timeout(GOODBYE, connection.close()).await;
            end
        }
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

/// The way from the peer.
type Reader = Box<dyn AsyncRead + Send + Sync + Unpin>;

struct Connection {
    peer: SocketAddr,
    /// Which of this machine's addresses the peer knows.
    local: Option<IpAddr>,
    port: Arc<Port<Rtsp>>,
    module: Arc<Module>,
    session: ServerSession,
    /// Since when the session counts time.
    began: Instant,
    reader: Reader,
    way: Way,
    buffer: Vec<u8>,
    /// The stream that was described or set up.
    chosen: Option<Chosen>,
    /// What was announced.
    announced: Option<Announced>,
    /// Until it is let in somewhere.
    stranger: Option<Stranger>,
    /// Its place among the module's connections.
    counted: Option<Counted>,
    /// It began with HTTP.
    tunnelled: bool,
    /// What the session gave while it was elsewhere.
    waiting: VecDeque<ServerEvent>,
}

/// How answers leave.
enum Way {
    /// Nothing else is written.
    Own(Sink),
    /// Between the packets of a stream.
    Shared(Box<Playing>),
    /// Beside a stream that goes another way.
    Beside(Sink, Box<Playing>),
    /// Beside a stream that goes to many.
    InGroup(Sink, Box<Member>),
    Gone,
}

/// What comes next.
enum Next {
    Event(ServerEvent),
    /// The stream that is played has ended.
    Ended,
}

impl Connection {
    async fn open(
        stream: TcpStream,
        peer: SocketAddr,
        port: Arc<Port<Rtsp>>,
        module: Arc<Module>,
        stranger: Stranger,
    ) -> Result<Self, End> {
        let local = stream.local_addr().ok().map(|local| local.ip().to_canonical());
        let (reader, sink): (Reader, Sink) = match &port.tls {
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
        let session = session(port.tls.is_some(), Duration::ZERO);
        Ok(Self {
            peer,
            local,
            port,
            module,
            session,
            began: Instant::now(),
            reader,
            way: Way::Own(sink),
            buffer: vec![0; READ],
            chosen: None,
            announced: None,
            stranger: Some(stranger),
            counted: None,
            tunnelled: false,
            waiting: VecDeque::new(),
        })
    }

    async fn talk(&mut self) -> Result<(), End> {
        loop {
            match self.next().await? {
                Next::Ended => return self.ended().await,
                Next::Event(event) => match event {
                    ServerEvent::Describe(ask) => self.describe(&ask).await,
                    ServerEvent::Setup(setup) if setup.record => self.set_up_medium(&setup),
                    ServerEvent::Setup(setup) => self.set_up(&setup).await,
                    ServerEvent::Play { again } => self.play(again).await?,
                    ServerEvent::Pause => self.pause(),
                    ServerEvent::Teardown => self.torn_down().await?,
                    ServerEvent::Announce { ask, presentation } => self.announce(&ask, presentation).await,
                    ServerEvent::Record => self.record().await?,
                    ServerEvent::Http(request) => self.http(&request).await?,
                    _ => {}
                },
            }
        }
    }

    /// Speaks RTSP from the start, on what HTTP has made of the connection.
    fn start_over(&mut self) {
        self.session = session(self.port.tls.is_some(), self.now());
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Reads and answers until something has to be decided or done.
    async fn next(&mut self) -> Result<Next, End> {
        if let Some(event) = self.waiting.pop_front() {
            return Ok(Next::Event(event));
        }
        loop {
            let mut out = BytesMut::new();
            let event = loop {
                match self.session.poll() {
                    Ok(Some(ServerOutput::Send(bytes))) => out.extend_from_slice(&bytes),
                    Ok(Some(ServerOutput::Event(event))) => break Ok(Some(event)),
                    Ok(None) => break Ok(None),
                    Err(source) => break Err(End::Broken { at: self.session.position(), source }),
                }
            };
            // A peer that broke a rule may be owed the reason.
            self.send(out.freeze()).await?;
            if let Some(event) = event? {
                return Ok(Next::Event(event));
            }
            if self.session.is_over() {
                return Err(if self.session.guesses() { End::Guesses } else { End::Done });
            }
            let deadline = self.session.deadline().unwrap_or(Duration::MAX);
            let wait = deadline.saturating_sub(self.now());
            tokio::select! {
                read = self.reader.read(&mut self.buffer) => {
                    let count = read?;
                    let bytes = self.buffer.get(..count).filter(|bytes| !bytes.is_empty()).ok_or(End::Closed)?;
                    self.session.buffer().extend_from_slice(bytes);
                    let now = self.began.elapsed();
                    self.session.handle_input(now);
                }
                () = self.way.ended() => return Ok(Next::Ended),
                () = tokio::time::sleep(wait) => self.silent()?,
            }
        }
    }

    /// The peer said nothing for long. One that takes what it is sent is alive: the fan-out ends those that do not. Of
    /// datagrams nobody knows whether they arrive: there it is the peer's own that count.
    fn silent(&mut self) -> Result<(), End> {
        let now = self.now();
        match self.session.expired(now) {
            Some(Expired::Session) if self.way.is_alive() => self.session.sign_of_life(now),
            Some(expired) => return Err(End::Expired(expired)),
            None => {}
        }
        Ok(())
    }

    /// Sends an answer.
    async fn send(&mut self, bytes: Bytes) -> Result<(), End> {
        if bytes.is_empty() {
            return Ok(());
        }
        match &mut self.way {
            Way::Own(sink) | Way::Beside(sink, _) | Way::InGroup(sink, _) => {
                let written = tokio::time::timeout(WRITE, async {
                    sink.write_all(&bytes).await?;
                    sink.flush().await
                });
                Ok(written.await.map_err(|_| End::Stuck)??)
            }
            Way::Shared(playing) if playing.tie.answer(bytes) => Ok(()),
            Way::Shared(_) => Err(End::Greedy),
            Way::Gone => Err(End::Done),
        }
    }

    /// Closes so that what was sent last arrives: with unread input the system would reset the connection.
    async fn close(&mut self) -> io::Result<()> {
        if let Way::Own(sink) = &mut self.way {
            sink.shutdown().await?;
            while self.reader.read(&mut self.buffer).await? > 0 {}
        }
        Ok(())
    }
}

/// A session that begins.
fn session(tls: bool, now: Duration) -> ServerSession {
    let config = ServerConfig {
        limits: Limits::default(),
        timeouts: Timeouts::default(),
        random: rand::rng().random(),
        tls,
    };
    ServerSession::new(config, now)
}

#[cfg(test)]
mod tests;
