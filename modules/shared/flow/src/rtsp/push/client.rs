//! A connection to a target, up to the moment when media may flow, and its end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use av_media::Kind;
use av_rtsp::auth;
use av_rtsp::client::{ClientConfig, ClientEvent, ClientOutput, ServerPlace};
use av_rtsp::message::StatusCode;
use av_rtsp::sdp::Description;
use av_rtsp::transport::Pair;
use av_rtsp::{ClientSession, Limits};
use bytes::Bytes;
use rand::Rng;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::error::PushError;
use crate::config::Credentials;
use crate::net::{Counted, DialError, Net};
use crate::rtsp::PushConfig;
use crate::rtsp::asked::{asked, key, secret, without_secrets};
use crate::rtsp::described::Layout;
use crate::rtsp::udp::{self, Route, UdpPair, UdpSink};

/// From the first look-up of the name to the moment when media may flow. Below the ten seconds within which an
/// output has to say that its target does not answer.
const ESTABLISH: Duration = Duration::from_secs(9);
/// For the few bytes that a client has to say beside media.
const WRITE: Duration = Duration::from_secs(10);
/// A target says little.
const READ: usize = 4096;
/// Ports for datagrams are looked for that often.
const TRIES: usize = 64;

/// A connection on which media may flow.
pub(in crate::rtsp) struct Client {
    pub(super) reader: Box<dyn AsyncRead + Send + Unpin>,
    pub(super) writer: Box<dyn AsyncWrite + Send + Unpin>,
    /// The way of media, where that is another.
    pub(super) datagrams: Option<UdpSink>,
    pub(super) session: ClientSession,
    pub(super) buffer: Vec<u8>,
    /// The channels of each kind.
    pub(super) layout: Layout,
    began: Instant,
    refusals: Refusals,
    _counted: Counted,
}

/// Puts refusals into words that show no secret.
struct Refusals {
    net: Net,
    host: String,
    credentials: Option<Credentials>,
    hidden: Vec<String>,
}

/// Connects until media of these kinds may flow. Secrets are those of this moment.
pub(super) async fn open(
    net: &Net,
    config: &PushConfig,
    description: Description,
    media: &[Kind],
) -> Result<Client, PushError> {
    let host = &config.url.host;
    let opening = dial(net, config, description, media.len());
    let (mut client, peer, pairs) = match timeout(ESTABLISH, opening).await {
        Ok(opened) => opened?,
        Err(_) => return Err(DialError::timed_out(host, config.url.port, ESTABLISH).into()),
    };
    let places = match timeout(ESTABLISH.saturating_sub(client.now()), client.establish()).await {
        Ok(places) => places?,
        Err(_) => return Err(PushError::Silent { host: host.clone(), seconds: ESTABLISH.as_secs() }),
    };
    let mut routes = Vec::new();
    for (index, (kind, place)) in media.iter().zip(places).enumerate() {
        let own = u8::try_from(2 * index).unwrap_or_default();
        match place {
            ServerPlace::Tcp { channels } => client.layout.set(*kind, channels.rtp, channels.rtcp),
            ServerPlace::Udp { ports, source } => {
                client.layout.set(*kind, own, own + 1);
                let Some(pair) = pairs.get(index) else { continue };
                let address = source.unwrap_or(peer.ip());
                for (channel, rtcp, port) in [(own, false, ports.rtp), (own + 1, true, ports.rtcp)] {
                    let way = udp::Way { from: None, to: SocketAddr::new(address, port) };
                    routes.push(Route { pair: pair.clone(), channel, rtcp, way });
                }
            }
        }
    }
    client.datagrams = (!routes.is_empty()).then(|| UdpSink::new(routes, None));
    Ok(client)
}

async fn dial(
    net: &Net,
    config: &PushConfig,
    description: Description,
    media: usize,
) -> Result<(Client, SocketAddr, Vec<Arc<UdpPair>>), PushError> {
    let PushConfig { url, credentials, tls, udp, .. } = config;
    let host = &url.host;
    let key = match key(credentials.as_ref()) {
        Some(secret) => Some(net.secrets().get(secret).await?),
        None => None,
    };
    let user = match credentials {
        Some(Credentials::User { username, password }) => {
            let password = net.secrets().get(password).await?;
            let (username, password) = (username.clone(), password.expose().to_owned());
            Some(auth::Credentials { username, password })
        }
        _ => None,
    };
    let asked = asked(url, key.as_ref().map(|key| key.expose()));
    let (asked, mut hidden) = asked.map_err(|source| PushError::Url { host: host.clone(), source })?;
    hidden.extend(user.as_ref().map(|user| user.password.clone()).filter(|password| !password.is_empty()));
    let began = Instant::now();
    let connection = net.dial(host, url.port, url.scheme.tls.then_some(tls)).await?;
    let peer = connection.peer;
    let mut pairs = Vec::new();
    if *udp {
        for _ in 0..media {
            let pair = free_pair(peer).map_err(|source| PushError::NoPorts { host: host.clone(), source })?;
            pairs.push(pair);
        }
    }
    let ports = pairs.iter().map(|pair| Pair { rtp: pair.port, rtcp: pair.port.saturating_add(1) });
    let session = ClientConfig {
        url: asked.to_string(),
        credentials: user,
        user_agent: format!("av-services/{}", env!("CARGO_PKG_VERSION")),
        description,
        udp_ports: udp.then(|| ports.collect()),
        limits: Limits::default(),
        random: rand::rng().random(),
    };
    let client = Client {
        reader: connection.reader,
        writer: connection.writer,
        datagrams: None,
        session: ClientSession::new(session, began.elapsed()),
        buffer: vec![0; READ],
        layout: Layout::default(),
        began,
        refusals: Refusals { net: net.clone(), host: host.clone(), credentials: credentials.clone(), hidden },
        _counted: connection.counted,
    };
    Ok((client, peer, pairs))
}

/// Two ports in a row that are free, in the range of those that nobody is given.
fn free_pair(peer: SocketAddr) -> io::Result<Arc<UdpPair>> {
    let any = if peer.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
    let mut last = io::ErrorKind::AddrInUse.into();
    for _ in 0..TRIES {
        match UdpPair::open_own(any, rand::rng().random_range(10_000_u16..32_000) & !1) {
            Ok(pair) => return Ok(pair),
            Err(error) => last = error,
        }
    }
    Err(last)
}

impl Client {
    async fn establish(&mut self) -> Result<Vec<ServerPlace>, PushError> {
        loop {
            // What is to be sent goes first: the server waits for it.
            while let Some(output) = self.poll()? {
                match output {
                    ClientOutput::Send(bytes) => self.write(&bytes).await?,
                    ClientOutput::Event(ClientEvent::Established { media }) => return Ok(media),
                    ClientOutput::Event(event) => self.happened(&event)?,
                }
            }
            let read = self.reader.read(&mut self.buffer).await;
            self.received(read)?;
        }
    }

    /// The session's next output.
    pub(super) fn poll(&mut self) -> Result<Option<ClientOutput>, PushError> {
        let host = &self.refusals.host;
        self.session.poll().map_err(|source| PushError::Broken {
            host: host.clone(),
            at: self.session.position(),
            source,
        })
    }

    /// What the target did, where that is an end.
    pub(super) fn happened(&self, event: &ClientEvent) -> Result<(), PushError> {
        let host = self.refusals.host.clone();
        match event {
            ClientEvent::Refused { method, status, reason } => {
                Err(self.refusals.refused(method, *status, reason))
            }
            ClientEvent::Redirected { to } => Err(PushError::Elsewhere { host, to: to.clone() }),
            ClientEvent::Ended => Err(PushError::Ended { host }),
            _ => Ok(()),
        }
    }

    /// Feeds the session with what a read into `buffer` gave.
    pub(super) fn received(&mut self, read: io::Result<usize>) -> Result<(), PushError> {
        let read = read.map_err(|source| self.broke(source))?;
        if read == 0 {
            return Err(PushError::Closed { host: self.refusals.host.clone() });
        }
        self.session.buffer().extend_from_slice(self.buffer.get(..read).unwrap_or_default());
        self.session.handle_input(self.began.elapsed());
        Ok(())
    }

    /// Writes something short.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), PushError> {
        let writing = async {
            self.writer.write_all(bytes).await?;
            self.writer.flush().await
        };
        match timeout(WRITE, writing).await {
            Ok(written) => written.map_err(|source| self.broke(source)),
            Err(_) => Err(self.stalled(WRITE)),
        }
    }

    /// When the session has something to do by itself.
    pub(super) fn deadline(&self) -> Instant {
        self.began + self.session.deadline()
    }

    /// Since the session began to count.
    pub(super) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Takes leave within `bound`: what is left of `pending`, and the end of the session.
    pub(super) async fn finish(mut self, pending: Bytes, bound: Duration) {
        self.session.teardown();
        let mut farewell = Vec::new();
        while let Ok(Some(output)) = self.session.poll() {
            if let ClientOutput::Send(bytes) = output {
                farewell.extend_from_slice(&bytes);
            }
        }
        // A peer that does not listen any more needs no farewell.
        let _ = timeout(bound, async {
            match &mut self.datagrams {
                Some(datagrams) => datagrams.write_all(&pending).await?,
                None => self.writer.write_all(&pending).await?,
            }
            self.writer.write_all(&farewell).await?;
            self.writer.flush().await?;
            self.writer.shutdown().await?;
            // Closing with unread input would reset the connection and with it the farewell.
            while self.reader.read(&mut self.buffer).await? > 0 {}
            io::Result::Ok(())
        })
        .await;
    }

    pub(super) fn broke(&self, source: io::Error) -> PushError {
        PushError::of_io(&self.refusals.host, source)
    }

    pub(super) fn stalled(&self, time: Duration) -> PushError {
        PushError::Stalled { host: self.refusals.host.clone(), seconds: time.as_secs() }
    }
}

impl Refusals {
    /// Secrets are read anew for the next try.
    fn refused(&self, method: &str, status: StatusCode, reason: &str) -> PushError {
        if let (401 | 403, Some(secret)) = (u16::from(status), secret(self.credentials.as_ref())) {
            self.net.secrets().refused(secret);
        }
        let said = format!("{method}: {} {reason}", u16::from(status));
        let asked = matches!(self.credentials, Some(Credentials::User { .. }));
        PushError::refused(&self.host, status, asked, without_secrets(&said, &self.hidden))
    }
}
