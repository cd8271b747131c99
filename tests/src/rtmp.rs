//! An RTMP peer of the tests' own (Adobe RTMP 1.0): it shares no code with the modules, and sends what it is
//! told to, right or wrong.

mod amf;
mod connection;
mod crowd;
mod player;
mod publisher;

pub use amf::Value;
pub use connection::{Connection, ContinuationTime, Message};
pub use crowd::Crowd;
pub use player::{Player, Reading};
pub use publisher::{Endless, Publisher, Refused};

/// An `rtmp://127.0.0.1:PORT/APP/NAME` address in its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// On 127.0.0.1.
    pub port: u16,
    /// Everything but the last segment.
    pub app: String,
    /// The last segment, with its query.
    pub name: String,
}

impl Address {
    /// Panics at anything but a loopback RTMP address.
    pub fn parse(url: &str) -> Self {
        let rest = url.strip_prefix("rtmp://127.0.0.1:").unwrap_or_else(|| panic!("{url}: not on loopback"));
        let (port, path) = rest.split_once('/').expect("a path");
        let (path, query) = match path.split_once('?') {
            Some((path, query)) => (path, format!("?{query}")),
            None => (path, String::new()),
        };
        let (app, name) = path.rsplit_once('/').unwrap_or((path, ""));
        Self { port: port.parse().unwrap(), app: app.into(), name: format!("{name}{query}") }
    }
}
