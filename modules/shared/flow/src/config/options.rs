//! Options: every property of an endpoint with its type, range and default. Validation, defaults, reading, the schema
//! and the tables of docs/twin.md all go by the same rows.
//!
//! An endpoint's own options are a table beside its code. Here are those that all inputs or outputs have, which this
//! crate reads itself, and those that many endpoints have, which their owners put into their tables.

use super::access::CREDENTIAL_KEY;
use super::role::Role;
use super::scheme::Scheme;
use crate::catalogue;

/// One option.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OptionSpec {
    /// The key.
    pub name: &'static str,
    /// Which endpoints have it, for people.
    pub belongs: &'static str,
    /// What it takes.
    pub shape: Shape,
    /// Which endpoints of its owner have it.
    pub when: When,
    /// What it does, for people: a line of Markdown.
    pub meaning: &'static str,
}

/// Which endpoints of those that have an option in their table really have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// All.
    Always,
    /// Those whose scheme is TLS.
    Tls,
    /// Those that listen on a pattern.
    Pattern,
}

/// Type, range and default.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// true or false.
    Flag {
        /// Where absent.
        default: bool,
    },
    /// A whole number.
    Whole {
        /// Least.
        min: u64,
        /// Most.
        max: u64,
        /// Where absent.
        default: u64,
    },
    /// Seconds, not necessarily whole, from 0; 0 where absent.
    Seconds {
        /// Most.
        max: u64,
    },
    /// One of some words; the first where absent.
    Word {
        /// The choice.
        words: &'static [&'static str],
    },
    /// A list of one or more of some words; all of them where absent.
    Words {
        /// The choice.
        words: &'static [&'static str],
    },
    /// Any text of 1 to 1024 characters.
    Text,
    /// Two ports that follow each other, the first one even, as `8000-8001`.
    PortPair {
        /// The first one where absent.
        default: u16,
    },
    /// An IPv4 address of a multicast group.
    Group,
    /// An absolute path.
    Path,
    /// A DNS name or an IP address.
    HostName,
    /// 64 hexadecimal digits; colons between them do not count.
    Sha256,
    /// 1 to 256 networks, `10.0.0.0/8`, or addresses.
    Networks,
    /// `{key}` or `{username, password}` of those who come to us.
    Auth,
    /// What we log in with: `{username, password}`, or one of these keys with a secret.
    Credentials {
        /// Which.
        keys: &'static [&'static str],
    },
    /// Properties of its own.
    Object {
        /// Which.
        properties: &'static [OptionSpec],
    },
    /// An object with no other properties than these, at which a module to come looks.
    Keys {
        /// Which.
        names: &'static [&'static str],
    },
    /// A text of 1 to 1024 characters, or a list of 1 to `most` of them.
    Texts {
        /// How many.
        most: usize,
        /// What absence means.
        default: &'static str,
    },
    /// A list of at most `most` objects.
    Objects {
        /// What each of them has, all of it.
        properties: &'static [OptionSpec],
        /// How many.
        most: usize,
    },
    /// An object that a module to come looks at.
    AnyObject,
    /// A list that a module to come looks at.
    AnyList,
}

impl OptionSpec {
    /// An option.
    pub const fn new(name: &'static str, belongs: &'static str, shape: Shape) -> Self {
        Self { name, belongs, shape, when: When::Always, meaning: "" }
    }

    /// A property of an option that is an object.
    pub const fn property(name: &'static str, shape: Shape) -> Self {
        Self::new(name, "", shape)
    }

    /// The same, which only some endpoints of its owner have.
    pub const fn only(self, when: When) -> Self {
        Self { when, ..self }
    }

    /// The same with its line in docs/twin.md.
    pub const fn means(self, meaning: &'static str) -> Self {
        Self { meaning, ..self }
    }

    /// Whether an endpoint with this scheme has it. `pattern`: it listens on one.
    pub fn fits(&self, scheme: Scheme, pattern: bool) -> bool {
        match self.when {
            When::Always => true,
            When::Tls => scheme.tls,
            When::Pattern => pattern,
        }
    }
}

/// A whole number from `min` to `max`.
pub const fn whole(min: u64, max: u64, default: u64) -> Shape {
    Shape::Whole { min, max, default }
}

/// One of some words, the first by default.
pub const fn word(words: &'static [&'static str]) -> Shape {
    Shape::Word { words }
}

/// `content`.
pub const CONTENT: OptionSpec =
    OptionSpec::new("content", "inputs and outputs", word(&["audioVideo", "videoOnly", "audioOnly"]))
        .means("Which kinds of media pass; see [content](#content).");
pub(super) const IDLE_TIMEOUT: OptionSpec =
    OptionSpec::new("idleTimeoutSeconds", "inputs", whole(1, 3600, 10)).means(
        "A track without data for this long is stalled. When all tracks are stalled, the input counts as \
             lost.",
    );
pub(super) const TRACK_WAIT: OptionSpec =
    OptionSpec::new("trackWaitMilliseconds", "inputs", whole(0, 10_000, 1000)).means(
        "How long outputs wait for the second track after the first frame arrives. A track that comes \
     later counts as a change of codec.",
    );
pub(super) const ON_PUBLISHER_LOSS: OptionSpec =
    OptionSpec::new("onPublisherLoss", "inputs", word(&["hold", "close"])).means(
        "`hold`: players and targets stay connected, and continue when media returns. `close`: they are \
             disconnected.",
    );
pub(super) const HOLD: OptionSpec =
    OptionSpec::new("holdSeconds", "inputs", whole(0, 86_400, 0)).means("How long `hold` lasts; 0: forever.");
pub(super) const ON_DEMAND: OptionSpec =
    OptionSpec::new("onDemand", "`pull` inputs", Shape::Flag { default: false }).means(
        "Connect when the first viewer comes, and disconnect 10 s after the last has left; see [on \
         demand](#on-demand).",
    );
pub(super) const MAX_INSTANCES: OptionSpec =
    OptionSpec::new("maxInstances", "`listen` inputs whose path ends in `/*`", whole(1, 10_000, 100))
        .only(When::Pattern)
        .means("How many names may be published at the same time. Further publishers are refused.");

/// What this crate reads for every endpoint with that role, whoever owns it.
pub const fn shared(role: Role) -> &'static [OptionSpec] {
    match role {
        Role::Listen => &[CONTENT, IDLE_TIMEOUT, TRACK_WAIT, ON_PUBLISHER_LOSS, HOLD, MAX_INSTANCES],
        Role::Pull => &[CONTENT, IDLE_TIMEOUT, TRACK_WAIT, ON_PUBLISHER_LOSS, HOLD, ON_DEMAND],
        Role::Read => &[CONTENT, IDLE_TIMEOUT, TRACK_WAIT, ON_PUBLISHER_LOSS, HOLD],
        Role::Serve | Role::Push | Role::Store | Role::Render => &[CONTENT],
    }
}

/// `onSecondPublisher`.
pub const ON_SECOND_PUBLISHER: OptionSpec =
    OptionSpec::new("onSecondPublisher", "`listen` inputs", word(&["takeover", "reject"])).means(
        "What happens when a second publisher uses the same name; see \
             [publishers](#publishers-that-come-and-go).",
    );
/// `auth`, read by [`Options::auth`](super::Options::auth).
pub const AUTH: OptionSpec = OptionSpec::new("auth", "`listen` inputs and `serve` outputs", Shape::Auth)
    .means("What a publisher or player must present.");
/// `allow`, read by [`Options::allow`](super::Options::allow).
pub const ALLOW: OptionSpec =
    OptionSpec::new("allow", "`listen` inputs and `serve` outputs", Shape::Networks)
        .means("Networks such as `10.0.0.0/8`, or single addresses, that may connect.");
/// `maxClients`.
pub const MAX_CLIENTS: OptionSpec = OptionSpec::new("maxClients", "`serve` outputs", whole(0, 100_000, 0))
    .means("How many players may be connected; 0: no limit but `maxConnections`.");
/// `credentials` with a user or a key, read by [`Options::credentials`](super::Options::credentials).
pub const CREDENTIALS: OptionSpec = credentials(Shape::Credentials { keys: &[CREDENTIAL_KEY] });
/// `retry`, read by [`Options::retry`](super::Options::retry).
pub const RETRY: OptionSpec = OptionSpec::new(
    "retry",
    "`pull` inputs and `push` outputs",
    Shape::Object { properties: &[RETRY_INITIAL, RETRY_MAX] },
)
.means("Pauses between attempts to connect.");
/// `tls` of a server, read by [`Options::server_tls`](super::Options::server_tls).
pub const SERVER_TLS: OptionSpec = tls(&[
    OptionSpec::property("certificateFile", Shape::Path),
    OptionSpec::property("keyFile", Shape::Path),
    OptionSpec::property("hostName", Shape::HostName),
]);
/// `tls` of a client, read by [`Options::client_tls`](super::Options::client_tls).
pub const CLIENT_TLS: OptionSpec = tls(&[
    OptionSpec::property("caFile", Shape::Path),
    OptionSpec::property("hostName", Shape::HostName),
    OptionSpec::property("pinSha256", Shape::Sha256),
]);

/// `credentials` of another shape.
pub const fn credentials(shape: Shape) -> OptionSpec {
    OptionSpec::new("credentials", "`pull` inputs and `push` and `store` outputs", shape)
        .means("What the module presents.")
}

const fn tls(properties: &'static [OptionSpec]) -> OptionSpec {
    OptionSpec::new("tls", catalogue::TLS_ENDPOINTS, Shape::Object { properties })
        .only(When::Tls)
        .means("Certificates, and how they are checked.")
}

pub(super) const RETRY_INITIAL: OptionSpec =
    OptionSpec::property("initialMilliseconds", whole(10, 60_000, 500));
pub(super) const RETRY_MAX: OptionSpec = OptionSpec::property("maxSeconds", whole(1, 3600, 30));
