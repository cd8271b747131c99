//! Schemes and the ports that go with them.

use std::fmt;

use super::UrlError;
use crate::config::types::Scheme;

impl Scheme {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Rtmp,
        Self::Rtmps,
        Self::Rtsp,
        Self::Rtsps,
        Self::Http,
        Self::Https,
        Self::File,
        Self::Azblob,
        Self::AzblobHttp,
        Self::AzblobHttps,
        Self::Display,
    ];

    /// As written in a URL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rtmp => "rtmp",
            Self::Rtmps => "rtmps",
            Self::Rtsp => "rtsp",
            Self::Rtsps => "rtsps",
            Self::Http => "http",
            Self::Https => "https",
            Self::File => "file",
            Self::Azblob => "azblob",
            Self::AzblobHttp => "azblob+http",
            Self::AzblobHttps => "azblob+https",
            Self::Display => "display",
        }
    }

    /// The scheme of a URL, in any case.
    ///
    /// # Errors
    /// [`UrlError::NoScheme`] or [`UrlError::UnknownScheme`].
    pub fn of(url: &str) -> Result<Self, UrlError> {
        let (scheme, _) = url.split_once("://").ok_or(UrlError::NoScheme)?;
        Self::ALL
            .into_iter()
            .find(|known| known.as_str().eq_ignore_ascii_case(scheme))
            .ok_or(UrlError::UnknownScheme)
    }

    /// Whether the connection is TLS from its first byte.
    pub const fn is_tls(self) -> bool {
        matches!(self, Self::Rtmps | Self::Rtsps | Self::Https | Self::Azblob | Self::AzblobHttps)
    }

    /// `rtmp` or `rtmps`.
    pub const fn is_rtmp(self) -> bool {
        matches!(self, Self::Rtmp | Self::Rtmps)
    }

    /// The port to listen on where the URL names none. Unprivileged, other than for connecting.
    pub(super) const fn listen_port(self) -> u16 {
        match self {
            Self::Rtmp => 1935,
            Self::Rtmps => 1936,
            Self::Rtsp => 8554,
            Self::Rtsps => 8322,
            Self::Https | Self::Azblob | Self::AzblobHttps => 8443,
            Self::Http | Self::AzblobHttp | Self::File | Self::Display => 8080,
        }
    }

    /// The port to connect to where the URL names none.
    pub(super) const fn connect_port(self) -> u16 {
        match self {
            Self::Rtmp => 1935,
            Self::Rtsp => 554,
            Self::Rtsps => 322,
            Self::Rtmps | Self::Https | Self::Azblob | Self::AzblobHttps => 443,
            Self::Http | Self::AzblobHttp | Self::File | Self::Display => 80,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
