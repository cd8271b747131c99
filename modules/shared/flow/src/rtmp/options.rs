//! The endpoints as a document describes them: schemes, options, and what becomes of them.

use std::time::Duration;

use ipnet::IpNet;

use crate::config::{
    ALLOW, AUTH, Auth, CLIENT_TLS, CREDENTIALS, Claim, ClientTls, ConfigError, ConnectUrl, Credentials,
    ListenUrl, MAX_CLIENTS, ON_SECOND_PUBLISHER, OptionSpec, Options, RETRY, Retry, Role, SERVER_TLS, Scheme,
    ServerTls, Shape, credentials, whole, word,
};
use crate::endpoint::{InputContext, OutputContext};
use crate::fanout::Join;
use crate::registry::{EndpointSpec, Input, Output};

/// `rtmp`.
pub const RTMP: Scheme = Scheme::new("rtmp", 1935, 1935).with_names();
/// `rtmps`: RTMP in TLS.
pub const RTMPS: Scheme = Scheme::new("rtmps", 1936, 443).with_names().in_tls();
/// Both.
pub const SCHEMES: &[Scheme] = &[RTMP, RTMPS];

const MAX_MESSAGE: OptionSpec =
    OptionSpec::new("maxMessageKilobytes", "RTMP `listen` and `pull` inputs", whole(64, 65_536, 8192))
        .means("A longer RTMP message ends the connection, before memory is taken for it.");
const STREAM_KEY: OptionSpec = credentials(Shape::Credentials { keys: &["key", "streamKey"] });
/// `join`.
pub const JOIN: OptionSpec = OptionSpec::new("join", "RTMP and RTSP `serve` outputs", word(&Join::WORDS))
    .means(
        "What a player gets when it joins. `edge`: pictures from the last key frame on, squeezed together \
     just before now, and sound from now on: it sees a picture at once, and is live. `instant`: \
     everything from the last key frame on, with its own timestamps. `live`: nothing until the next \
     key frame.",
    );
/// `batchMilliseconds`.
pub const BATCH: OptionSpec =
    OptionSpec::new("batchMilliseconds", "RTMP and RTSP `serve` outputs", whole(0, 350, 0))
        .means("How long pictures may be held back to be sent together: less CPU, more delay.");

/// Options of `listen`.
pub const LISTEN: &[OptionSpec] = &[ON_SECOND_PUBLISHER, AUTH, ALLOW, MAX_MESSAGE, SERVER_TLS];
/// Options of `pull`.
pub const PULL: &[OptionSpec] = &[MAX_MESSAGE, CREDENTIALS, RETRY, CLIENT_TLS];
/// Options of `serve`.
pub const SERVE: &[OptionSpec] = &[AUTH, ALLOW, MAX_CLIENTS, JOIN, BATCH, SERVER_TLS];
/// Options of `push`.
pub const PUSH: &[OptionSpec] = &[STREAM_KEY, RETRY, CLIENT_TLS];

/// `listen`.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenConfig {
    /// Address and path.
    pub url: ListenUrl,
    /// `onSecondPublisher`: true for `takeover`.
    pub takeover: bool,
    /// `auth`.
    pub auth: Option<Auth>,
    /// `allow`; empty = all.
    pub allow: Vec<IpNet>,
    /// `maxMessageKilobytes` in bytes.
    pub max_message_bytes: usize,
    /// `tls`, for `rtmps`.
    pub tls: ServerTls,
}

/// `pull`.
#[derive(Clone, Debug, PartialEq)]
pub struct PullConfig {
    /// Where to.
    pub url: ConnectUrl,
    /// `credentials` or user info.
    pub credentials: Option<Credentials>,
    /// `retry`.
    pub retry: Retry,
    /// `maxMessageKilobytes` in bytes.
    pub max_message_bytes: usize,
    /// `tls`.
    pub tls: ClientTls,
}

/// `serve`.
#[derive(Clone, Debug, PartialEq)]
pub struct ServeConfig {
    /// Address and path; holds `*` in a pattern flow.
    pub url: ListenUrl,
    /// `auth`.
    pub auth: Option<Auth>,
    /// `allow`; empty = all.
    pub allow: Vec<IpNet>,
    /// `maxClients`; 0 = no bound.
    pub max_clients: usize,
    /// `join`.
    pub join: Join,
    /// `batchMilliseconds`.
    pub batch: Duration,
    /// `tls`, for `rtmps`.
    pub tls: ServerTls,
}

/// `push`.
#[derive(Clone, Debug, PartialEq)]
pub struct PushConfig {
    /// Where to; the last path segment is the stream name unless `credentials.streamKey` is set.
    pub url: ConnectUrl,
    /// `credentials` or user info.
    pub credentials: Option<Credentials>,
    /// `retry`.
    pub retry: Retry,
    /// `tls`.
    pub tls: ClientTls,
}

impl Input for ListenConfig {
    const SPEC: EndpointSpec = EndpointSpec { role: Role::Listen, schemes: SCHEMES, options: LISTEN };

    fn read(options: &Options<'_>) -> Result<Self, ConfigError> {
        Ok(Self {
            url: options.listen_url()?,
            takeover: options.is_first_word(&ON_SECOND_PUBLISHER)?,
            auth: options.auth()?,
            allow: options.allow()?,
            max_message_bytes: max_message_bytes(options)?,
            tls: options.server_tls()?,
        })
    }

    fn claims(&self) -> Vec<Claim> {
        vec![self.url.claim(&self.tls)]
    }

    fn run(self, context: InputContext) -> impl Future<Output = ()> + Send + 'static {
        super::listen(context, self)
    }
}

impl Input for PullConfig {
    const SPEC: EndpointSpec = EndpointSpec { role: Role::Pull, schemes: SCHEMES, options: PULL };

    fn read(options: &Options<'_>) -> Result<Self, ConfigError> {
        let (url, user_info) = options.connect_url()?;
        Ok(Self {
            url,
            credentials: options.credentials(&CREDENTIALS, user_info)?,
            retry: options.retry()?,
            max_message_bytes: max_message_bytes(options)?,
            tls: options.client_tls()?,
        })
    }

    fn run(self, context: InputContext) -> impl Future<Output = ()> + Send + 'static {
        super::pull(context, self)
    }
}

impl Output for ServeConfig {
    const SPEC: EndpointSpec = EndpointSpec { role: Role::Serve, schemes: SCHEMES, options: SERVE };

    fn read(options: &Options<'_>) -> Result<Self, ConfigError> {
        Ok(Self {
            url: options.listen_url()?,
            auth: options.auth()?,
            allow: options.allow()?,
            max_clients: options.size(&MAX_CLIENTS)?,
            join: Join::of(options.word(&JOIN)?),
            batch: Duration::from_millis(options.whole(&BATCH)?),
            tls: options.server_tls()?,
        })
    }

    fn claims(&self) -> Vec<Claim> {
        vec![self.url.claim(&self.tls)]
    }

    fn url(&self, public_host: Option<&str>) -> String {
        self.url.shown(public_host)
    }

    fn instance(&self, name: &str) -> Self {
        Self { url: self.url.instance(name), ..self.clone() }
    }

    fn run(self, context: OutputContext) -> impl Future<Output = ()> + Send + 'static {
        super::serve(context, self)
    }
}

impl Output for PushConfig {
    const SPEC: EndpointSpec = EndpointSpec { role: Role::Push, schemes: SCHEMES, options: PUSH };

    fn read(options: &Options<'_>) -> Result<Self, ConfigError> {
        let (url, user_info) = options.connect_url()?;
        Ok(Self {
            url,
            credentials: options.credentials(&STREAM_KEY, user_info)?,
            retry: options.retry()?,
            tls: options.client_tls()?,
        })
    }

    /// The last segment is the stream name, and with most services that is the key; with a stream key of its own the
    /// path has none.
    fn url(&self, _public_host: Option<&str>) -> String {
        self.url.shown(!matches!(self.credentials, Some(Credentials::StreamKey(_))))
    }

    fn instance(&self, name: &str) -> Self {
        Self { url: self.url.instance(name), ..self.clone() }
    }

    fn run(self, context: OutputContext) -> impl Future<Output = ()> + Send + 'static {
        super::push(context, self)
    }
}

fn max_message_bytes(options: &Options<'_>) -> Result<usize, ConfigError> {
    options.size(&MAX_MESSAGE).map(|kilobytes| kilobytes.saturating_mul(1024))
}
