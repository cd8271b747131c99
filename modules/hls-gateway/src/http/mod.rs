//! HTTP on listeners: playlists, segments, parts and pages.

mod access;
mod body;
mod connection;
mod crowd;
mod listing;
mod media;
mod pace;
mod patient;
mod reply;
mod target;

use tokio::sync::watch;

use crate::channel::Channel;
use av_flow::net::listeners::{Accepted, Protocol};
use crowd::Crowd;

/// HTTP/1.1, and HTTP/2 in TLS.
pub(crate) struct Http;

impl Protocol for Http {
    const NAME: &'static str = "HTTP";
    const ALPN: &'static [&'static [u8]] = &[b"h2", b"http/1.1"];
    type State = Address;
    type Publish = ();
    type Play = Channel;

    async fn run(accepted: Accepted<Self>) {
        connection::run(accepted).await;
    }
}

/// What one address keeps.
pub(crate) struct Address {
    /// Outputs that are served there.
    outputs: watch::Sender<usize>,
    /// Who is there.
    crowd: Crowd,
}

impl Default for Address {
    fn default() -> Self {
        Self { outputs: watch::Sender::new(0), crowd: Crowd::default() }
    }
}

impl Address {
    /// One more output is served there while the answer lives.
    pub(crate) fn opened(&self) -> Open {
        self.outputs.send_modify(|outputs| *outputs += 1);
        Open(self.outputs.clone())
    }
}

/// See [`Address::opened`].
pub(crate) struct Open(watch::Sender<usize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|outputs| *outputs = outputs.saturating_sub(1));
    }
}
