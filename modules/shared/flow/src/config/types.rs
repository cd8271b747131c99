//! A desired document after validation: typed, with every default filled in.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::{Map, Value};

use super::secret::Secret;

/// A whole desired document. Flows that are faulty are in `errors` instead of `flows`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    /// What concerns the runtime.
    pub settings: av_edge::Settings,
    /// `publicHost`.
    pub public_host: Option<String>,
    /// `maxConnections`: all listeners together.
    pub max_connections: usize,
    /// Usable flows by name.
    pub flows: BTreeMap<String, Arc<FlowConfig>>,
    /// One sentence of at most 512 bytes, starting with the path, by flow name. What is wrong outside of flows,
    /// or with a flow whose name can't be a key, is under `_module`.
    pub errors: BTreeMap<String, String>,
    /// Why the document was not understood as a whole; then everything else is empty.
    pub rejected: Option<String>,
}

/// One flow. Two flows are the same exactly when they compare equal.
#[derive(Clone, PartialEq)]
pub struct FlowConfig {
    /// 1 to 64 of `A-Z a-z 0-9 - _`.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// A disabled flow is validated and reported, and runs nothing.
    pub enabled: bool,
    /// Where the stream comes from.
    pub input: InputConfig,
    /// Where it goes, by output name.
    pub outputs: BTreeMap<String, OutputConfig>,
    /// The flow as it stood in the document with `defaults` merged in and secrets as written: what the state
    /// dir keeps, so that it can be validated again at the next start.
    pub source: Map<String, Value>,
}

impl FlowConfig {
    /// Whether this flow runs one instance for each published name.
    pub fn is_pattern(&self) -> bool {
        matches!(&self.input.endpoint, InputEndpoint::Listen(listen) if listen.url.is_pattern())
    }
}

/// Without `source`, which holds secrets as written.
impl std::fmt::Debug for FlowConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlowConfig")
            .field("name", &self.name)
            .field("enabled", &self.enabled)
            .field("input", &self.input)
            .field("outputs", &self.outputs)
            .finish_non_exhaustive()
    }
}

/// `content`: which kinds pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Content {
    /// Both kinds.
    #[default]
    AudioVideo,
    /// Pictures.
    VideoOnly,
    /// Sound.
    AudioOnly,
}

impl Content {
    /// Whether frames of `kind` pass.
    pub fn admits(self, kind: av_media::Kind) -> bool {
        match self {
            Self::AudioVideo => true,
            Self::VideoOnly => kind == av_media::Kind::Video,
            Self::AudioOnly => kind == av_media::Kind::Audio,
        }
    }
}

/// `input`.
#[derive(Clone, Debug, PartialEq)]
pub struct InputConfig {
    /// What kind of endpoint, and its own options.
    pub endpoint: InputEndpoint,
    /// `content`.
    pub content: Content,
    /// `idleTimeoutSeconds`.
    pub idle_timeout: Duration,
    /// `trackWaitMilliseconds`.
    pub track_wait: Duration,
    /// `onPublisherLoss`: true for `hold`.
    pub hold: bool,
    /// `holdSeconds`; `None` = for ever.
    pub hold_for: Option<Duration>,
}

/// The three ways in.
#[derive(Clone, Debug, PartialEq)]
pub enum InputEndpoint {
    /// Others push to this address.
    Listen(ListenConfig),
    /// The module connects and takes.
    Pull(PullConfig),
    /// A file.
    Read(ReadConfig),
}

/// An address to listen on, with the path that tells flows apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListenUrl {
    /// Scheme: `rtmp`, `rtmps`, ...
    pub scheme: Scheme,
    /// As configured (before `--bind`).
    pub address: SocketAddr,
    /// Decoded, without leading or trailing `/`; for RTMP application + `/` + name. The last segment of a pattern's
    /// `listen` is `*`; in a pattern's `serve`, `{match}` has become `*`.
    pub path: String,
}

/// An address to connect to.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ConnectUrl {
    /// Scheme.
    pub scheme: Scheme,
    /// Name or IP literal (IPv6 without brackets).
    pub host: String,
    /// Port, the scheme's default filled in.
    pub port: u16,
    /// Decoded, without leading or trailing `/`. In a pattern's `push`, `{match}` has become `*`.
    pub path: String,
    /// The query as written, without `?`; may hold secrets, and `{match}` in a pattern's `push`.
    pub query: Option<String>,
}

/// URL schemes, as docs/twin.md has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)] // each is its own name
pub enum Scheme {
    Rtmp,
    Rtmps,
    Rtsp,
    Rtsps,
    Http,
    Https,
    File,
    Azblob,
    AzblobHttp,
    AzblobHttps,
    Display,
}

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
    /// `maxInstances` of a pattern.
    pub max_instances: usize,
    /// `maxMessageKilobytes` in bytes.
    pub max_message_bytes: usize,
    /// `tls`, for TLS schemes.
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

/// `read`.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadConfig {
    /// As configured (before `--paths`).
    pub path: PathBuf,
    /// `loop`.
    pub repeat: bool,
    /// `startSeconds`.
    pub start: Duration,
}

/// One output.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputConfig {
    /// `content`, the input's where the output has none of its own.
    pub content: Content,
    /// What kind of endpoint, and its own options.
    pub endpoint: OutputEndpoint,
}

/// The ways out that exist so far.
#[derive(Clone, Debug, PartialEq)]
pub enum OutputEndpoint {
    /// Others pull from this address.
    Serve(ServeConfig),
    /// The module connects and sends.
    Push(PushConfig),
}

/// `serve`.
#[derive(Clone, Debug, PartialEq)]
pub struct ServeConfig {
    /// Address and path; holds `*` in a pattern flow (see [`FlowConfig::instance`]).
    pub url: ListenUrl,
    /// `auth`.
    pub auth: Option<Auth>,
    /// `allow`; empty = all.
    pub allow: Vec<IpNet>,
    /// `maxClients`; 0 = no bound.
    pub max_clients: usize,
    /// `join`: true for `instant`.
    pub join_instant: bool,
    /// `batchMilliseconds`.
    pub batch: Duration,
    /// `tls`, for TLS schemes.
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

/// `retry`: exponential with jitter, for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// `initialMilliseconds`.
    pub initial: Duration,
    /// `maxSeconds`.
    pub max: Duration,
}

/// `auth` of `listen` and `serve`.
#[derive(Clone, Debug, PartialEq)]
pub enum Auth {
    /// Any of up to four keys.
    Key(Vec<Secret>),
    /// User and password.
    User {
        /// Not a secret.
        username: String,
        /// Secret.
        password: Secret,
    },
}

/// `credentials` of `pull` and `push`.
#[derive(Clone, Debug, PartialEq)]
pub enum Credentials {
    /// `{username, password}`.
    User {
        /// Not a secret.
        username: String,
        /// Secret.
        password: Secret,
    },
    /// `{key}`: sent as `?key=` on the stream name.
    Key(Secret),
    /// `{streamKey}`, RTMP push only: the stream name itself.
    StreamKey(Secret),
}

/// `tls` of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ServerTls {
    /// PEM chain; the edge runtime issues one where it is absent.
    pub certificate_file: Option<PathBuf>,
    /// PEM key.
    pub key_file: Option<PathBuf>,
    /// Name to have a certificate issued for.
    pub host_name: Option<String>,
}

/// `tls` of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClientTls {
    /// PEM bundle trusted besides the public roots and the edge's.
    pub ca_file: Option<PathBuf>,
    /// Name checked instead of the URL's host.
    pub host_name: Option<String>,
    /// SHA-256 of the leaf certificate (DER): trusted instead of a chain.
    pub pin_sha256: Option<[u8; 32]>,
}
