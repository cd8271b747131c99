//! The table of options: every property of an endpoint with its place, type, range and default. Validation,
//! defaults and reading all go by it.

use super::supports::Endpoint::{self, Listen, Pull, Push, Read, Render, Serve, Store};
use super::types::Scheme;

/// One option.
#[derive(Clone, Copy, Debug)]
pub struct OptionSpec {
    /// The key.
    pub name: &'static str,
    /// Where it has a meaning.
    pub places: &'static [Place],
    /// The same for people.
    pub belongs: &'static str,
    /// What it takes.
    pub shape: Shape,
}

/// A kind of endpoint with some schemes.
pub type Place = (Endpoint, &'static [Scheme]);

/// Type, range and default.
#[derive(Clone, Copy, Debug)]
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
    /// Any text of 1 to 1024 characters.
    Text,
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
    /// What we log in with; the form depends on the place.
    Credentials,
    /// Properties of its own.
    Object {
        /// Which.
        properties: &'static [OptionSpec],
    },
    /// An object that a module to come looks at.
    AnyObject,
    /// A list that a module to come looks at.
    AnyList,
}

const ANY: &[Scheme] = &Scheme::ALL;
const RTMP: &[Scheme] = &[Scheme::Rtmp, Scheme::Rtmps];
const RTSP: &[Scheme] = &[Scheme::Rtsp, Scheme::Rtsps];
const RTMP_RTSP: &[Scheme] = &[Scheme::Rtmp, Scheme::Rtmps, Scheme::Rtsp, Scheme::Rtsps];
const HTTP: &[Scheme] = &[Scheme::Http, Scheme::Https];
const TLS: &[Scheme] = &[Scheme::Rtmps, Scheme::Rtsps, Scheme::Https];

const INPUTS: &[Place] = &[(Listen, ANY), (Pull, ANY), (Read, ANY)];
const SERVERS: &[Place] = &[(Listen, ANY), (Serve, ANY)];
const CLIENTS: &[Place] = &[(Pull, ANY), (Push, ANY)];

const fn option(
    name: &'static str,
    places: &'static [Place],
    belongs: &'static str,
    shape: Shape,
) -> OptionSpec {
    OptionSpec { name, places, belongs, shape }
}

const fn property(name: &'static str, shape: Shape) -> OptionSpec {
    OptionSpec { name, places: &[], belongs: "", shape }
}

const fn whole(min: u64, max: u64, default: u64) -> Shape {
    Shape::Whole { min, max, default }
}

const fn word(words: &'static [&'static str]) -> Shape {
    Shape::Word { words }
}

macro_rules! table {
    ($($constant:ident = $spec:expr;)*) => {
        $(pub(super) const $constant: OptionSpec = $spec;)*
        /// Every option. A name may occur twice, with other places.
        pub const TABLE: &[OptionSpec] = &[$($constant),*];
    };
}

table! {
    CONTENT = option("content", &[(Listen, ANY), (Pull, ANY), (Read, ANY), (Serve, ANY), (Push, ANY), (Store, ANY), (Render, ANY)],
        "inputs and outputs", word(&["audioVideo", "videoOnly", "audioOnly"]));
    IDLE_TIMEOUT = option("idleTimeoutSeconds", INPUTS, "inputs", whole(1, 3600, 10));
    TRACK_WAIT = option("trackWaitMilliseconds", INPUTS, "inputs", whole(0, 10_000, 1000));
    ON_PUBLISHER_LOSS = option("onPublisherLoss", INPUTS, "inputs", word(&["hold", "close"]));
    HOLD = option("holdSeconds", INPUTS, "inputs", whole(0, 86_400, 0));
    ON_SECOND_PUBLISHER =
        option("onSecondPublisher", &[(Listen, ANY)], "`listen` inputs", word(&["takeover", "reject"]));
    AUTH = option("auth", SERVERS, "`listen` inputs and `serve` outputs", Shape::Auth);
    ALLOW = option("allow", SERVERS, "`listen` inputs and `serve` outputs", Shape::Networks);
    MAX_INSTANCES =
        option("maxInstances", &[(Listen, ANY)], "`listen` inputs whose path ends in `/*`", whole(1, 10_000, 100));
    MAX_MESSAGE = option("maxMessageKilobytes", &[(Listen, RTMP), (Pull, RTMP)], "RTMP `listen` and `pull` inputs",
        whole(64, 65_536, 8192));
    CREDENTIALS = option("credentials", &[(Pull, ANY), (Push, ANY), (Store, ANY)],
        "`pull` inputs and `push` and `store` outputs", Shape::Credentials);
    RETRY = option("retry", CLIENTS, "`pull` inputs and `push` outputs",
        Shape::Object { properties: &[RETRY_INITIAL, RETRY_MAX] });
    SERVER_TLS = option("tls", &[(Listen, TLS), (Serve, TLS)], "endpoints with TLS (rtmps, rtsps, https)",
        Shape::Object { properties: &[
            property("certificateFile", Shape::Path),
            property("keyFile", Shape::Path),
            property("hostName", Shape::HostName),
        ] });
    CLIENT_TLS = option("tls", &[(Pull, TLS), (Push, TLS)], "endpoints with TLS (rtmps, rtsps, https)",
        Shape::Object { properties: &[
            property("caFile", Shape::Path),
            property("hostName", Shape::HostName),
            property("pinSha256", Shape::Sha256),
        ] });
    TRANSPORT = option("transport", &[(Pull, RTSP), (Push, RTSP)], "RTSP `pull` inputs and `push` outputs",
        word(&["tcp", "udp"]));
    TRANSPORTS = option("transports", &[(Listen, RTSP), (Serve, RTSP)], "RTSP `listen` inputs and `serve` outputs",
        Shape::AnyList);
    UDP_PORTS = option("udpPorts", &[(Listen, RTSP), (Serve, RTSP)], "RTSP `listen` inputs and `serve` outputs",
        Shape::Text);
    MULTICAST = option("multicast", &[(Serve, RTSP)], "RTSP `serve` outputs", Shape::AnyObject);
    MTU = option("mtu", &[(Serve, RTSP), (Push, RTSP)], "RTSP `serve` and `push` outputs", whole(576, 9000, 1400));
    MAX_CLIENTS = option("maxClients", &[(Serve, ANY)], "`serve` outputs", whole(0, 100_000, 0));
    JOIN = option("join", &[(Serve, RTMP_RTSP)], "RTMP and RTSP `serve` outputs", word(&["instant", "live"]));
    BATCH = option("batchMilliseconds", &[(Serve, RTMP_RTSP)], "RTMP and RTSP `serve` outputs", whole(0, 350, 0));
    VARIANT = option("variant", &[(Serve, HTTP)], "HLS `serve` outputs", word(&["lowLatency", "fmp4", "mpegts"]));
    HLS_SEGMENT = option("segmentSeconds", &[(Serve, HTTP)], "HLS `serve` and `store` outputs", whole(1, 10, 2));
    STORE_SEGMENT = option("segmentSeconds", &[(Store, ANY)], "HLS `serve` and `store` outputs", whole(2, 3600, 60));
    PART = option("partMilliseconds", &[(Serve, HTTP)], "HLS `serve` outputs", whole(100, 1000, 200));
    WINDOW = option("windowSeconds", &[(Serve, HTTP)], "HLS `serve` outputs", whole(6, 86_400, 30));
    CORS = option("cors", &[(Serve, HTTP)], "HLS `serve` outputs", Shape::Text);
    LINKS = option("links", &[(Serve, HTTP)], "HLS `serve` outputs", Shape::AnyList);
    LOOP = option("loop", &[(Read, ANY)], "`read` inputs", Shape::Flag { default: true });
    START = option("startSeconds", &[(Read, ANY)], "`read` inputs", Shape::Seconds { max: 86_400 });
    NAME = option("name", &[(Store, ANY)], "`store` outputs", Shape::Text);
    RECORD = option("record", &[(Store, ANY)], "`store` outputs", word(&["continuous", "events"]));
    RETENTION = option("retentionDays", &[(Store, ANY)], "`store` outputs", whole(0, 36_500, 0));
    TAGS = option("tags", &[(Store, ANY)], "`store` outputs", Shape::AnyObject);
    UPLOAD_RATE =
        option("uploadKilobitsPerSecond", &[(Store, ANY)], "`store` outputs", whole(0, 100_000_000, 0));
    UPLOAD_ORDER =
        option("uploadOrder", &[(Store, ANY)], "`store` outputs", word(&["oldestFirst", "newestFirst"]));
    API_VERSION = option("apiVersion", &[(Store, ANY)], "`store` outputs", Shape::Text);
    WHEN_FULL = option("whenFull", &[(Store, ANY)], "`store` outputs", word(&["deleteOldest", "denyNew"]));
    FULLSCREEN = option("fullscreen", &[(Render, ANY)], "`render` outputs", Shape::Flag { default: true });
    AUDIO = option("audio", &[(Render, ANY)], "`render` outputs", Shape::Flag { default: true });
    VOLUME = option("volume", &[(Render, ANY)], "`render` outputs", whole(0, 100, 100));
    ROTATE = option("rotate", &[(Render, ANY)], "`render` outputs", whole(0, 270, 0));
    LATENCY = option("latencyMilliseconds", &[(Render, ANY)], "`render` outputs", whole(0, 5000, 200));
    LAYOUT = option("layout", &[(Render, ANY)], "`render` outputs", Shape::AnyObject);
}

pub(super) const RETRY_INITIAL: OptionSpec = property("initialMilliseconds", whole(10, 60_000, 500));
pub(super) const RETRY_MAX: OptionSpec = property("maxSeconds", whole(1, 3600, 30));

impl OptionSpec {
    /// Whether it has a meaning for such an endpoint.
    pub fn fits(&self, endpoint: Endpoint, scheme: Scheme) -> bool {
        self.places.iter().any(|(kind, schemes)| *kind == endpoint && schemes.contains(&scheme))
    }

    /// All that bear a name.
    pub fn named(name: &str) -> impl Iterator<Item = &'static Self> + use<'_> {
        TABLE.iter().filter(move |spec| spec.name == name)
    }
}
