//! A desired document after validation: typed, with every default filled in.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::scheme::Scheme;
use super::secret::Secret;
use crate::registry::{AnyInput, AnyOutput};

/// A whole desired document. Flows that are faulty are in `errors` instead of `flows`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    /// What concerns the runtime.
    pub settings: av_edge::Settings,
    /// `publicHost`.
    pub public_host: Option<String>,
    /// `maxConnections`: all listeners together.
    pub max_connections: usize,
    /// `cacheMegabytes`: what all streams together keep for readers; 0 is a quarter of the memory.
    pub cache_megabytes: u64,
    /// Top-level properties that the service brought, checked.
    pub properties: Map<String, Value>,
    /// How many flows the document holds, usable or not.
    pub wanted: usize,
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
        self.input.pattern
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
    /// What a stream lacks of which nothing passes.
    pub fn missing(self) -> &'static str {
        match self {
            Self::AudioOnly => "the stream has no audio",
            Self::VideoOnly => "the stream has no video",
            Self::AudioVideo => "the stream has no tracks",
        }
    }

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
    /// What its owner read.
    pub endpoint: AnyInput,
    /// Whether it listens on a pattern.
    pub pattern: bool,
    /// `maxInstances` of a pattern.
    pub max_instances: usize,
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
    /// `onDemand` of a `pull`.
    pub on_demand: bool,
    /// `auth`. The endpoint has it too; here it is for whoever looks after its secrets.
    pub auth: Option<Auth>,
}

/// An address to listen on, with the path that tells flows apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListenUrl {
    /// Scheme.
    pub scheme: Scheme,
    /// As configured (before `--bind`).
    pub address: SocketAddr,
    /// Decoded, without leading or trailing `/`; the last segment of a pattern's `listen` is `*`; in a
    /// pattern's `serve`, `{match}` has become `*`.
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

/// One output.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputConfig {
    /// `content`, the input's where the output has none of its own.
    pub content: Content,
    /// What its owner read.
    pub endpoint: AnyOutput,
    /// `auth`. The endpoint has it too; here it is for whoever looks after its secrets.
    pub auth: Option<Auth>,
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

/// `credentials` of those who connect.
#[derive(Clone, Debug, PartialEq)]
pub enum Credentials {
    /// `{username, password}`.
    User {
        /// Not a secret.
        username: String,
        /// Secret.
        password: Secret,
    },
    /// `{key}`.
    Key(Secret),
    /// `{streamKey}`: the stream name itself.
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
