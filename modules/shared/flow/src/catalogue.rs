//! The whole project's endpoints, those of other modules and of modules to come included: so that a message can name
//! the module that has what this one lacks, and `defaults` may hold options for modules that stand beside it.
//!
//! Rows of endpoints that this crate has itself are its tables. Rows of others must be those that their owners have: a
//! test of the repository compares them where the module exists.

use crate::config::{
    ALLOW, AUTH, MAX_CLIENTS, OptionSpec, Role, SERVER_TLS, Scheme, Shape, credentials, whole, word,
};
use crate::registry::EndpointSpec;
use crate::rtmp::options as rtmp;
use crate::rtsp::options as rtsp;

/// An endpoint and the module to use for it. Of several that fit the first counts.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// What it answers to.
    pub spec: EndpointSpec,
    /// Who has it.
    pub module: &'static str,
}

/// Which endpoints have `tls`, for people.
pub const TLS_ENDPOINTS: &str = "endpoints with TLS (rtmps, rtsps, https)";

/// Keys of `credentials` that only some endpoints take, and which those are.
pub const CREDENTIAL_KEYS: &[(&str, &str)] = &[
    ("streamKey", "RTMP `push` outputs"),
    ("connectionString", STORES),
    ("accountKey", STORES),
    ("sas", STORES),
    ("managedIdentity", STORES),
    ("clientId", STORES),
];

/// Top-level properties of one module, and which it is.
pub const PROPERTIES: &[(&str, &str)] = &[("spool", "mp4-recorder")];

/// HTTP.
pub const HTTP: Scheme = Scheme::new("http", 8080, 80);
/// HTTP in TLS.
pub const HTTPS: Scheme = Scheme::new("https", 8443, 443).in_tls();
/// Paths on this machine. Nobody listens on it or connects to it.
pub const FILE: Scheme = Scheme::new("file", 8080, 80);
/// Blob storage.
pub const AZBLOB: Scheme = Scheme::new("azblob", 8443, 443).in_tls();
/// Blob storage.
pub const AZBLOB_HTTP: Scheme = Scheme::new("azblob+http", 8080, 80);
/// Blob storage.
pub const AZBLOB_HTTPS: Scheme = Scheme::new("azblob+https", 8443, 443).in_tls();
/// Screens and speakers of this machine.
pub const DISPLAY: Scheme = Scheme::new("display", 8080, 80);

/// Every scheme, in the order of messages.
pub const SCHEMES: &[Scheme] = &[
    rtmp::RTMP,
    rtmp::RTMPS,
    rtsp::RTSP,
    rtsp::RTSPS,
    HTTP,
    HTTPS,
    FILE,
    AZBLOB,
    AZBLOB_HTTP,
    AZBLOB_HTTPS,
    DISPLAY,
];

const fn entry(
    module: &'static str,
    role: Role,
    schemes: &'static [Scheme],
    options: &'static [OptionSpec],
) -> Entry {
    Entry { spec: EndpointSpec { role, schemes, options }, module }
}

/// Every endpoint.
pub const ENDPOINTS: &[Entry] = &[
    entry("rtmp-splitter", Role::Listen, rtmp::SCHEMES, rtmp::LISTEN),
    entry("rtsp-gateway", Role::Listen, rtsp::SCHEMES, rtsp::LISTEN),
    entry("rtmp-splitter", Role::Pull, rtmp::SCHEMES, rtmp::PULL),
    entry("rtsp-gateway", Role::Pull, rtsp::SCHEMES, rtsp::PULL),
    entry("mp4-source", Role::Read, &[FILE], &[LOOP, START]),
    entry("rtmp-splitter", Role::Serve, rtmp::SCHEMES, rtmp::SERVE),
    entry("rtsp-gateway", Role::Serve, rtsp::SCHEMES, rtsp::SERVE),
    entry(
        "hls-gateway",
        Role::Serve,
        &[HTTP, HTTPS],
        &[AUTH, ALLOW, SERVER_TLS, MAX_CLIENTS, VARIANT, HLS_SEGMENT, PART, WINDOW, CORS, LINKS],
    ),
    entry("rtmp-splitter", Role::Push, rtmp::SCHEMES, rtmp::PUSH),
    entry("rtsp-gateway", Role::Push, rtsp::SCHEMES, rtsp::PUSH),
    entry(
        "mp4-recorder",
        Role::Store,
        &[FILE],
        &[STORE_SEGMENT, NAME, RECORD, RETENTION, UPLOAD_OPEN, UPLOAD_ORDER, WHEN_FULL],
    ),
    entry(
        "mp4-recorder",
        Role::Store,
        &[AZBLOB, AZBLOB_HTTP, AZBLOB_HTTPS],
        &[
            STORE_SEGMENT,
            NAME,
            RECORD,
            RETENTION,
            UPLOAD_OPEN,
            STORE_CREDENTIALS,
            TAGS,
            UPLOAD_RATE,
            UPLOAD_ORDER,
            API_VERSION,
            WHEN_FULL,
        ],
    ),
    entry(
        "renderer",
        Role::Render,
        &[DISPLAY],
        &[FULLSCREEN, AUDIO, AUDIO_DEVICE, VOLUME, ROTATE, LATENCY, LAYOUT],
    ),
];

/// The module that has such an endpoint, if any has.
pub(crate) fn module_with(role: Role, scheme: Scheme) -> Option<&'static str> {
    let fits = |entry: &&Entry| entry.spec.role == role && entry.spec.schemes.contains(&scheme);
    ENDPOINTS.iter().find(fits).map(|entry| entry.module)
}

const READS: &str = "`read` inputs";
const STORES: &str = "`store` outputs";
const BLOBS: &str = "`store` outputs with azblob";
const RENDERS: &str = "`render` outputs";
const HLS: &str = "HLS `serve` outputs";
/// Which outputs have `segmentSeconds`.
pub const SEGMENTS: &str = "HLS `serve` and `store` outputs";

const LOOP: OptionSpec = OptionSpec::new("loop", READS, Shape::Flag { default: true });
const START: OptionSpec = OptionSpec::new("startSeconds", READS, Shape::Seconds { max: 86_400 });
const VARIANT: OptionSpec = OptionSpec::new("variant", HLS, word(&["lowLatency", "fmp4", "mpegts"]));
const HLS_SEGMENT: OptionSpec = OptionSpec::new("segmentSeconds", SEGMENTS, whole(1, 10, 2));
const PART: OptionSpec = OptionSpec::new("partMilliseconds", HLS, whole(100, 1000, 200));
const WINDOW: OptionSpec = OptionSpec::new("windowSeconds", HLS, whole(6, 86_400, 30));
const CORS: OptionSpec = OptionSpec::new("cors", HLS, Shape::Texts { most: 64, default: "*" });
const LINKS: OptionSpec = OptionSpec::new("links", HLS, Shape::Objects { properties: LINK, most: 16 });
const LINK: &[OptionSpec] =
    &[OptionSpec::property("label", Shape::Text), OptionSpec::property("url", Shape::Text)];
const STORE_CREDENTIALS: OptionSpec = OptionSpec {
    belongs: BLOBS,
    ..credentials(Shape::Keys {
        names: &["connectionString", "accountKey", "sas", "managedIdentity", "clientId"],
    })
};
const STORE_SEGMENT: OptionSpec = OptionSpec::new("segmentSeconds", SEGMENTS, whole(2, 3600, 60));
const NAME: OptionSpec = OptionSpec::new("name", STORES, Shape::Text);
const RECORD: OptionSpec = OptionSpec::new("record", STORES, word(&["continuous", "events"]));
const RETENTION: OptionSpec = OptionSpec::new("retentionDays", STORES, whole(0, 36_500, 0));
const UPLOAD_OPEN: OptionSpec = OptionSpec::new("uploadOpenSegment", STORES, Shape::Flag { default: false });
const TAGS: OptionSpec = OptionSpec::new("tags", BLOBS, Shape::AnyObject);
const UPLOAD_RATE: OptionSpec = OptionSpec::new("uploadKilobitsPerSecond", BLOBS, whole(0, 100_000_000, 0));
const API_VERSION: OptionSpec = OptionSpec::new("apiVersion", BLOBS, Shape::Text);
const UPLOAD_ORDER: OptionSpec =
    OptionSpec::new("uploadOrder", STORES, word(&["oldestFirst", "newestFirst"]));
const WHEN_FULL: OptionSpec = OptionSpec::new("whenFull", STORES, word(&["deleteOldest", "denyNew"]));
const FULLSCREEN: OptionSpec = OptionSpec::new("fullscreen", RENDERS, Shape::Flag { default: true });
const AUDIO: OptionSpec = OptionSpec::new("audio", RENDERS, Shape::Flag { default: true });
const AUDIO_DEVICE: OptionSpec = OptionSpec::new("audioDevice", RENDERS, Shape::Text);
const VOLUME: OptionSpec = OptionSpec::new("volume", RENDERS, whole(0, 100, 100));
const ROTATE: OptionSpec = OptionSpec::new("rotate", RENDERS, whole(0, 270, 0));
const LATENCY: OptionSpec = OptionSpec::new("latencyMilliseconds", RENDERS, whole(0, 5000, 200));
const LAYOUT: OptionSpec = OptionSpec::new("layout", RENDERS, Shape::Object { properties: CELL });
const CELL: &[OptionSpec] = &[
    OptionSpec::property("row", whole(1, 8, 1)),
    OptionSpec::property("column", whole(1, 8, 1)),
    OptionSpec::property("rows", whole(1, 8, 1)),
    OptionSpec::property("columns", whole(1, 8, 1)),
];
