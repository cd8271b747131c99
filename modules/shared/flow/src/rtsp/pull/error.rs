//! Why a camera's stream ended or never came, and what that means for the next attempt.

use std::time::Duration;

use super::source::Peer;
use crate::config::Content;
use crate::net::{DialError, SecretUnavailable};
use crate::trouble::Reason;

/// A server that is full keeps dead sessions that long: 60 s is what it has to assume without another word (RFC 2326
/// §12.37), and some look only every few seconds.
const FULL: Duration = Duration::from_secs(70);

/// See the module's text. Each names the host and, where we can do something, says what.
#[derive(Debug, thiserror::Error)]
pub(super) enum PullError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("credentials: {0}")]
    Secret(#[from] SecretUnavailable),
    #[error("{host}: the URL can't be requested: {source}")]
    Url { host: String, source: url::ParseError },
    #[error("{host} asks for user and password; set credentials")]
    NeedsUser { host: String },
    #[error("{host} refused {what}; check {check} ({said})")]
    Refused { host: String, what: &'static str, check: &'static str, said: String },
    #[error(
        "{host} has no room for another session ({said}); close one, or wait until it has forgotten a dead one"
    )]
    Full { host: String, said: String },
    #[error("{host} has nothing that can be passed on with content at {}: it offers {offers}", content.as_str())]
    Nothing { host: String, offers: String, content: Content },
    /// Nobody's fault.
    #[error("content was changed: other tracks are requested from {host}")]
    Content { host: String },
    #[error("{host} accepts the connection but does not finish the RTSP dialogue within {seconds} s")]
    Silent { host: String, seconds: u64 },
    /// No fault of the camera's, and nothing to wait for.
    #[error("{host} {why}; setting up a new session")]
    Anew { host: String, why: &'static str },
    #[error("{host} {what}")]
    Odd { host: String, what: &'static str },
    #[error("{host} redirects the session")]
    Moved { host: String },
    #[error(
        "{host} redirects the session to an address that can't be used: {why}; set the URL to where the stream is"
    )]
    Lost { host: String, why: String },
    #[error("{host} broke RTSP: {said}")]
    Broken { host: String, said: String },
    #[error("{host} closed the connection")]
    Closed { host: String },
    #[error("{host} sent no frame for {seconds} s")]
    Idle { host: String, seconds: u64 },
    #[error("{host} ended the stream")]
    Ended { host: String },
}

impl PullError {
    /// What the library's error means. Its text is the only thing that tells some of them apart.
    pub(super) fn of(error: &retina::Error, peer: &Peer) -> Self {
        let said = peer.said(error);
        let host = peer.host.clone();
        let refused = |what, check, said| Self::Refused { host: peer.host.clone(), what, check, said };
        match error.status_code() {
            Some(401) if said.contains("no credentials supplied") => Self::NeedsUser { host },
            Some(401) if said.contains("response to DESCRIBE") => {
                refused("user or password", "credentials", said)
            }
            Some(401) => Self::Anew { host, why: "asks for user and password again in the middle of it" },
            Some(300..=399) => Self::Moved { host },
            Some(404) => refused("the path", "the URL's path", said),
            Some(453 | 503) => Self::Full { host, said },
            Some(461) => refused("the transport", "transport", said),
            Some(200..=299) => Self::of_answer(said, host),
            Some(_) => refused("the session", "the URL and credentials", said),
            None => Self::without_status(said, peer),
        }
    }

    /// An answer that the library does not read.
    fn of_answer(said: String, host: String) -> Self {
        let odd = [
            ("content type", "sends a description that it does not call application/sdp alone"),
            ("Session header", "writes more into Session than id and time-out"),
            ("Unparseable timeout", "writes more into Session than id and time-out"),
            ("RTP-Info", "breaks RTP-Info"),
        ];
        match odd.into_iter().find(|(words, _)| said.contains(words)) {
            Some((_, what)) => Self::Odd { host, what },
            None => Self::Broken { host, said },
        }
    }

    fn without_status(said: String, peer: &Peer) -> Self {
        let host = peer.host.clone();
        let anew = |why| Self::Anew { host: peer.host.clone(), why };
        if said.starts_with("wrong ssrc after 0 RTP") {
            Self::Odd { host, what: "names another SSRC than its packets have" }
        } else if said.starts_with("wrong ssrc") {
            anew("changed the SSRC of a track")
        } else if said.starts_with("Out-of-order packet") {
            anew("sent a sequence number from the past")
        } else if said.contains("unassigned channel") {
            anew("sent packets of a session that is over")
        } else if let Some(source) = said.strip_prefix("Unable to connect to RTSP server: ") {
            Self::Dial(peer.unreachable(source))
        } else if said.starts_with("Error reading") || said.starts_with("Error writing") {
            Self::Closed { host }
        } else if said == "Timeout" {
            Self::Silent { host, seconds: super::source::ESTABLISH.as_secs() }
        } else {
            Self::Broken { host, said }
        }
    }

    /// What kind of trouble this is.
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::Dial(error) => error.reason(),
            Self::Secret(_) => Reason::Secret,
            Self::Url { .. } | Self::NeedsUser { .. } | Self::Refused { .. } | Self::Full { .. } => {
                Reason::Refused
            }
            Self::Nothing { .. } | Self::Content { .. } => Reason::Content,
            Self::Silent { .. } | Self::Idle { .. } => Reason::Silent,
            Self::Anew { .. }
            | Self::Odd { .. }
            | Self::Moved { .. }
            | Self::Lost { .. }
            | Self::Broken { .. } => Reason::Protocol,
            Self::Closed { .. } => Reason::Lost,
            Self::Ended { .. } => Reason::Ended,
        }
    }

    /// Whether the stream is over: said, or waited for long enough.
    pub(super) const fn is_end(&self) -> bool {
        matches!(self, Self::Ended { .. } | Self::Idle { .. })
    }

    /// How long to wait before the next attempt, where the usual pauses would say `usual`. A session that ended for no
    /// fault is made anew at once, unless the one before was `hurried` as well and no media `flowed` since.
    pub(super) fn wait(&self, usual: Duration, flowed: Duration, hurried: bool) -> Duration {
        match self {
            Self::Full { .. } => usual.max(FULL),
            Self::Moved { .. } | Self::Content { .. } => Duration::ZERO,
            Self::Anew { .. } if is_proof(flowed) || !hurried => Duration::ZERO,
            _ => usual,
        }
    }
}

/// Whether media `flowed` for so long that the camera is in order.
pub(super) fn is_proof(flowed: Duration) -> bool {
    flowed >= Duration::from_secs(1)
}
