//! Which endpoints a module has, and which module has the ones it lacks.

use super::types::Scheme;

/// The row of endpoints of one module: its `main.rs` in data.
#[derive(Clone, Copy, Debug, Default)]
pub struct Supports {
    /// The module's service name, for error texts.
    pub module: &'static str,
    /// Schemes of `listen`.
    pub listen: &'static [Scheme],
    /// Schemes of `pull`.
    pub pull: &'static [Scheme],
    /// Schemes of `read`.
    pub read: &'static [Scheme],
    /// Schemes of `serve`.
    pub serve: &'static [Scheme],
    /// Schemes of `push`.
    pub push: &'static [Scheme],
    /// Schemes of `store`.
    pub store: &'static [Scheme],
    /// Schemes of `render`.
    pub render: &'static [Scheme],
}

/// The seven kinds of endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Input: others push to this address.
    Listen,
    /// Input: the module connects and takes.
    Pull,
    /// Input: a file.
    Read,
    /// Output: others pull from this address.
    Serve,
    /// Output: the module connects and sends.
    Push,
    /// Output: files.
    Store,
    /// Output: screen and speaker.
    Render,
}

impl Endpoint {
    /// The kinds an input has.
    pub const INPUTS: [Self; 3] = [Self::Listen, Self::Pull, Self::Read];
    /// The kinds an output has.
    pub const OUTPUTS: [Self; 4] = [Self::Serve, Self::Push, Self::Store, Self::Render];

    /// The property that names it.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Listen => "listen",
            Self::Pull => "pull",
            Self::Read => "read",
            Self::Serve => "serve",
            Self::Push => "push",
            Self::Store => "store",
            Self::Render => "render",
        }
    }
}

const RTMP: &[Scheme] = &[Scheme::Rtmp, Scheme::Rtmps];
const RTSP: &[Scheme] = &[Scheme::Rtsp, Scheme::Rtsps];
const HTTP: &[Scheme] = &[Scheme::Http, Scheme::Https];
const STORE: &[Scheme] = &[Scheme::Azblob, Scheme::AzblobHttp, Scheme::AzblobHttps, Scheme::File];

/// For a kind of endpoint that this module lacks: the module to use instead, of all that the project is to have. First
/// match wins.
const ELSEWHERE: &[(Endpoint, &[Scheme], &str)] = &[
    (Endpoint::Listen, RTMP, "rtmp-splitter"),
    (Endpoint::Listen, RTSP, "rtsp-gateway"),
    (Endpoint::Pull, RTMP, "rtmp-splitter"),
    (Endpoint::Pull, &[Scheme::Rtsp], "rtsp-gateway"),
    (Endpoint::Read, &[Scheme::File], "mp4-source"),
    (Endpoint::Serve, RTMP, "rtmp-splitter"),
    (Endpoint::Serve, RTSP, "rtsp-gateway"),
    (Endpoint::Serve, HTTP, "hls-gateway"),
    (Endpoint::Push, RTMP, "rtmp-splitter"),
    (Endpoint::Push, RTSP, "rtsp-gateway"),
    (Endpoint::Store, STORE, "mp4-recorder"),
    (Endpoint::Render, &[Scheme::Display], "renderer"),
];

impl Supports {
    /// The schemes of one kind of endpoint; none where the module lacks it.
    pub const fn schemes(&self, endpoint: Endpoint) -> &'static [Scheme] {
        match endpoint {
            Endpoint::Listen => self.listen,
            Endpoint::Pull => self.pull,
            Endpoint::Read => self.read,
            Endpoint::Serve => self.serve,
            Endpoint::Push => self.push,
            Endpoint::Store => self.store,
            Endpoint::Render => self.render,
        }
    }

    /// The module that has `endpoint` with `scheme`, if any has.
    pub fn elsewhere(endpoint: Endpoint, scheme: Scheme) -> Option<&'static str> {
        ELSEWHERE
            .iter()
            .find(|(kind, schemes, _)| *kind == endpoint && schemes.contains(&scheme))
            .map(|(_, _, module)| *module)
    }
}
