//! Why a target does not take the stream, or does not any more.

use std::io;

use av_rtsp::RtspError;
use av_rtsp::message::StatusCode;

use crate::net::{DialError, SecretUnavailable};
use crate::trouble::{Reason, chain};

/// See the module's text. Each names the host and, where we can do something, says what.
#[derive(Debug, thiserror::Error)]
pub(in crate::rtsp) enum PushError {
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
    #[error("{host} redirects the stream")]
    Elsewhere { host: String, to: String },
    #[error(
        "{host} redirects the stream to an address that can't be used: {why}; set the URL to where it goes"
    )]
    Astray { host: String, why: &'static str },
    #[error("no free UDP ports for {host}: {source}; set transport to tcp")]
    NoPorts { host: String, source: io::Error },
    #[error("{host} accepts the connection but does not finish the RTSP dialogue within {seconds} s")]
    Silent { host: String, seconds: u64 },
    #[error("{host} broke RTSP at byte {at}: {why}", why = chain(source))]
    Broken { host: String, at: u64, source: RtspError },
    #[error("{host} closed the connection")]
    Closed { host: String },
    #[error("connection to {host} broke: {source}")]
    Io { host: String, source: io::Error },
    #[error("{host} accepted nothing for {seconds} s")]
    Stalled { host: String, seconds: u64 },
    #[error("{host} ended the session")]
    Ended { host: String },
}

impl PushError {
    /// What a refusal means; `said` shows no secret. `asked`: whether there were user and password to show.
    pub(super) fn refused(host: &str, status: StatusCode, asked: bool, said: String) -> Self {
        let host = host.to_owned();
        let (what, check) = match u16::from(status) {
            401 if !asked => return Self::NeedsUser { host },
            401 => ("user or password", "credentials"),
            403 => ("this publisher", "credentials"),
            404 => ("the path", "the URL's path"),
            415 => ("how the stream is coded", "what it takes"),
            461 => ("the transport", "transport"),
            _ => ("the stream", "the URL, credentials and what it takes"),
        };
        Self::Refused { host, what, check, said }
    }

    /// What the system said of a connection.
    pub(super) fn of_io(host: &str, source: io::Error) -> Self {
        let host = host.to_owned();
        match source.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => {
                Self::Closed { host }
            }
            _ => Self::Io { host, source },
        }
    }

    /// What kind of trouble this is.
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::Dial(error) => error.reason(),
            Self::Secret(_) => Reason::Secret,
            Self::Url { .. } | Self::NeedsUser { .. } | Self::Refused { .. } => Reason::Refused,
            Self::NoPorts { .. } => Reason::Address,
            Self::Silent { .. } | Self::Stalled { .. } => Reason::Silent,
            Self::Elsewhere { .. } | Self::Astray { .. } | Self::Broken { .. } => Reason::Protocol,
            Self::Closed { .. } | Self::Io { .. } => Reason::Lost,
            Self::Ended { .. } => Reason::Ended,
        }
    }
}
