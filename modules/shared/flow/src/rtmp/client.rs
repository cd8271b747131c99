//! A connection to another server, up to the moment when media may flow: what `pull` and `push` share.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use av_rtmp::{ClientConfig, ClientEvent, ClientOutput, ClientSession, Limits, Mode, RtmpError};
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

use super::RtmpTarget;
use super::credentials::credentials as credentials_of;
use crate::config::{ClientTls, ConnectUrl, Credentials, SecretText};
use crate::ingest::Pace;
use crate::net::{Counted, DialError, Net, SecretUnavailable};
use crate::trouble::{Reason, chain};

/// From the first look-up of the name to the moment when media may flow. Below the ten seconds within which an
/// output has to say that its target does not answer.
const ESTABLISH: Duration = Duration::from_secs(9);
/// The dialogue for user and password takes three connections.
const MAX_CONNECTIONS: usize = 3;
/// For the few bytes that a client has to say beside media.
const WRITE: Duration = Duration::from_secs(10);
const READ_BUFFER: usize = 64 * 1024;

/// Why there is no connection any more. The text names the host and, where we can do something, says what.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum ClientError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("credentials: {0}")]
    Secret(#[from] SecretUnavailable),
    #[error("{host} refused {what}; check {check} ({said})")]
    Refused { host: String, what: &'static str, check: &'static str, said: String },
    #[error("{host} asks for user and password; set credentials")]
    NeedsUser { host: String },
    #[error("{host} accepts the connection but does not finish the RTMP dialogue within {} s", ESTABLISH.as_secs())]
    Silent { host: String },
    #[error("{host} broke RTMP at byte {at}: {why}", why = chain(source))]
    Rtmp { host: String, at: u64, source: RtmpError },
    #[error("{host} closed the connection")]
    Closed { host: String },
    #[error("connection to {host} broke: {source}")]
    Io { host: String, source: io::Error },
    #[error("{host} accepted nothing for {seconds} s")]
    Stalled { host: String, seconds: u64 },
    #[error("{host} sent {what} for {seconds} s", what = nothing(instead.as_deref()))]
    Idle { host: String, seconds: u64, instead: Option<String> },
    #[error("{host} ended the stream")]
    Ended { host: String },
}

/// Bytes may come all the time, and nothing that can be passed on.
fn nothing(instead: Option<&str>) -> String {
    match instead {
        Some(instead) => format!("nothing that can be passed on ({instead})"),
        None => "nothing".to_owned(),
    }
}

impl ClientError {
    /// What kind of trouble this is.
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::Dial(error) => error.reason(),
            Self::Secret(_) => Reason::Secret,
            Self::Refused { .. } | Self::NeedsUser { .. } => Reason::Refused,
            Self::Silent { .. } | Self::Stalled { .. } | Self::Idle { .. } => Reason::Silent,
            Self::Rtmp { .. } => Reason::Protocol,
            Self::Closed { .. } | Self::Io { .. } => Reason::Lost,
            Self::Ended { .. } => Reason::Ended,
        }
    }
}

/// Connects, as often as the dialogue for user and password takes, until media may flow. Secrets are those of
/// this moment.
pub(super) async fn open(
    net: &Net,
    url: &ConnectUrl,
    credentials: Option<&Credentials>,
    tls: &ClientTls,
    mode: Mode,
    limits: Limits,
) -> Result<Client, ClientError> {
    let (mut config, hidden) = configure(net, url, credentials, mode, limits).await?;
    let host: Arc<str> = url.host.as_str().into();
    let refusals = Arc::new(Refusals {
        net: net.clone(),
        host: host.clone(),
        credentials: credentials.cloned(),
        mode,
        hidden,
    });
    let tls = url.scheme.tls.then_some(tls);
    for _ in 0..MAX_CONNECTIONS {
        let deadline = Instant::now() + ESTABLISH;
        let connection = match timeout_at(deadline, net.dial(&url.host, url.port, tls)).await {
            Ok(connection) => connection?,
            Err(_) => return Err(DialError::timed_out(&url.host, url.port, ESTABLISH).into()),
        };
        let mut client = Client {
            reader: connection.reader,
            writer: connection.writer,
            session: ClientSession::new(config.clone()),
            buffer: vec![0; READ_BUFFER],
            is_plain: tls.is_none(),
            host: host.clone(),
            refusals: refusals.clone(),
            _counted: connection.counted,
        };
        let established = match timeout_at(deadline, client.establish()).await {
            Ok(established) => established?,
            Err(_) => return Err(ClientError::Silent { host: host.to_string() }),
        };
        match established {
            Dialogue::Established => return Ok(client),
            Dialogue::NeedAuth { .. } if config.credentials.is_none() => {
                return Err(ClientError::NeedsUser { host: host.to_string() });
            }
            Dialogue::NeedAuth { query } => config.auth_query = Some(query),
        }
    }
    Err(refusals.refused("", "asks for user and password again and again"))
}

/// What the session needs to know, with secrets read, and the texts that must not be shown.
async fn configure(
    net: &Net,
    url: &ConnectUrl,
    credentials: Option<&Credentials>,
    mode: Mode,
    limits: Limits,
) -> Result<(ClientConfig, Vec<String>), ClientError> {
    let secret = match credentials {
        Some(Credentials::Key(secret) | Credentials::StreamKey(secret)) => {
            Some(net.secrets().get(secret).await?)
        }
        _ => None,
    };
    let exposed = secret.as_deref().map(SecretText::expose);
    let target = match credentials {
        Some(Credentials::StreamKey(_)) => RtmpTarget::new(url, exposed, None),
        _ => RtmpTarget::new(url, None, exposed),
    };
    let user = match credentials {
        Some(Credentials::User { username, password }) => {
            Some(credentials_of(net.secrets(), username, password).await?)
        }
        _ => None,
    };
    let (name, query) = target.name.split_once('?').unwrap_or((&target.name, ""));
    let mut hidden: Vec<String> =
        query.split('&').filter_map(|pair| Some(pair.split_once('=')?.1.to_owned())).collect();
    hidden.extend(exposed.map(str::to_owned));
    hidden.extend(user.as_ref().map(|user| user.password.clone()));
    if mode == Mode::Publish {
        // Where there is no other, the name is the stream key.
        hidden.push(name.to_owned());
    }
    hidden.retain(|text| !text.is_empty());
    // Whole values before parts of them.
    hidden.sort_by_key(|text| std::cmp::Reverse(text.len()));
    let config = ClientConfig {
        app: target.application,
        tc_url: target.tc_url,
        name: target.name,
        mode,
        limits,
        credentials: user,
        auth_query: None,
    };
    Ok((config, hidden))
}

/// Puts refusals into words that show no secret.
struct Refusals {
    net: Net,
    host: Arc<str>,
    credentials: Option<Credentials>,
    mode: Mode,
    hidden: Vec<String>,
}

impl Refusals {
    /// Secrets are read anew for the next try.
    fn refused(&self, code: &str, description: &str) -> ClientError {
        if let Some(
            Credentials::Key(secret)
            | Credentials::StreamKey(secret)
            | Credentials::User { password: secret, .. },
        ) = &self.credentials
        {
            self.net.secrets().refused(secret);
        }
        let (what, check) = match (&self.credentials, self.mode) {
            (Some(Credentials::User { .. }), _) => ("user or password", "credentials"),
            (Some(Credentials::Key(_)), _) => ("the key", "credentials"),
            (_, Mode::Publish) => ("the stream key", "credentials"),
            (_, Mode::Play) => ("to play the stream", "the URL's path and credentials"),
        };
        let mut said = match (code, description) {
            ("", said) | (said, "") => said.to_owned(),
            (code, description) => format!("{code}: {description}"),
        };
        for secret in &self.hidden {
            said = said.replace(secret.as_str(), "***");
        }
        ClientError::Refused { host: self.host.to_string(), what, check, said }
    }
}

/// How the dialogue ended.
enum Dialogue {
    Established,
    NeedAuth { query: String },
}

/// A connection on which media may flow.
pub(super) struct Client {
    pub(super) reader: Box<dyn AsyncRead + Send + Unpin>,
    pub(super) writer: Box<dyn AsyncWrite + Send + Unpin>,
    pub(super) session: ClientSession,
    pub(super) buffer: Vec<u8>,
    pub(super) is_plain: bool,
    pub(super) host: Arc<str>,
    refusals: Arc<Refusals>,
    _counted: Counted,
}

impl Client {
    async fn establish(&mut self) -> Result<Dialogue, ClientError> {
        loop {
            // What is to be sent goes first: the server waits for it.
            while let Some(output) = self.poll()? {
                match output {
                    ClientOutput::Send(bytes) => self.write(&bytes).await?,
                    ClientOutput::Event(ClientEvent::Established) => return Ok(Dialogue::Established),
                    ClientOutput::Event(ClientEvent::Refused { code, description }) => {
                        return Err(self.refused(&code, &description));
                    }
                    ClientOutput::Event(ClientEvent::NeedAuth { query }) => {
                        return Ok(Dialogue::NeedAuth { query });
                    }
                    ClientOutput::Event(_) => {}
                }
            }
            self.read().await?;
        }
    }

    /// Feeds the session with what arrives next. Cancel safe.
    pub(super) async fn read(&mut self) -> Result<(), ClientError> {
        let read = self.reader.read(&mut self.buffer).await;
        self.received(read).map(drop)
    }

    /// The same after a pause, where `pace` wants one.
    pub(super) async fn read_at(&mut self, pace: &mut Pace, patience: Duration) -> Result<(), ClientError> {
        pace.rest(patience).await;
        let read = self.reader.read(&mut self.buffer).await;
        pace.read(self.received(read)?, self.buffer.len());
        Ok(())
    }

    /// Feeds the session with what a read into `buffer` gave.
    pub(super) fn received(&mut self, read: io::Result<usize>) -> Result<usize, ClientError> {
        let read = read.map_err(|source| self.broke(source))?;
        if read == 0 {
            return Err(self.closed());
        }
        self.session.handle_input(self.buffer.get(..read).unwrap_or_default());
        Ok(read)
    }

    /// The session's next output. What the server did wrong comes once everything before it was given.
    pub(super) fn poll(&mut self) -> Result<Option<ClientOutput>, ClientError> {
        self.session.poll().map_err(|source| ClientError::Rtmp {
            host: self.host.to_string(),
            at: self.session.position(),
            source,
        })
    }

    /// Writes something short.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        let writing = async {
            self.writer.write_all(bytes).await?;
            self.writer.flush().await
        };
        match timeout(WRITE, writing).await {
            Ok(written) => written.map_err(|source| self.broke(source)),
            Err(_) => Err(self.stalled(WRITE)),
        }
    }

    /// Takes leave within `bound`: what is left of `pending`, then the end of the stream.
    pub(super) async fn finish(mut self, mut pending: BytesMut, bound: Duration) {
        self.session.finish();
        while let Ok(Some(output)) = self.session.poll() {
            if let ClientOutput::Send(bytes) = output {
                pending.extend_from_slice(&bytes);
            }
        }
        // A peer that does not listen any more needs no farewell.
        let _ = timeout(bound, async {
            self.writer.write_all(&pending).await?;
            self.writer.flush().await?;
            self.writer.shutdown().await?;
            // Closing with unread input would reset the connection and with it the farewell.
            while self.reader.read(&mut self.buffer).await? > 0 {}
            io::Result::Ok(())
        })
        .await;
    }

    /// The server said no, perhaps only after it had said yes.
    pub(super) fn refused(&self, code: &str, description: &str) -> ClientError {
        self.refusals.refused(code, description)
    }

    pub(super) fn broke(&self, source: io::Error) -> ClientError {
        match source.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => {
                self.closed()
            }
            _ => ClientError::Io { host: self.host.to_string(), source },
        }
    }

    pub(super) fn closed(&self) -> ClientError {
        ClientError::Closed { host: self.host.to_string() }
    }

    pub(super) fn stalled(&self, time: Duration) -> ClientError {
        ClientError::Stalled { host: self.host.to_string(), seconds: time.as_secs() }
    }
}

#[cfg(test)]
pub(crate) mod peer;
