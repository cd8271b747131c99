//! The server's side of one connection.

use bytes::Bytes;

use crate::{Limits, MediaItem, RtmpError};

/// The server's side of one RTMP connection, from C0 to the last frame.
///
/// Feed it with [`handle_input`](Self::handle_input), then [`poll`](Self::poll) until `None`. Events that ask
/// for a decision ([`Connect`](ServerEvent::Connect), [`Publish`](ServerEvent::Publish),
/// [`Play`](ServerEvent::Play)) are answered with one of the `accept_*` or `reject*` calls, sooner or later;
/// poll again afterwards. What the peer sends meanwhile is kept, within `max_unfinished_before_publish`.
///
/// A refused peer: send what `poll` gives, then close the socket. ffmpeg and GStreamer end by themselves,
/// librtmp's `rtmpdump` prints the error and waits until the socket closes.
///
/// After `accept_play` the session deals with control messages only. Media is written beside it, made by
/// [`Egress::players`](crate::Egress::players); what `poll` gives must be written between whole messages.
#[derive(Debug)]
pub struct ServerSession {
    limits: Limits,
}

/// What a session wants done.
#[derive(Debug)]
pub enum ServerOutput {
    /// Write these bytes to the peer.
    Send(Bytes),
    /// Something happened.
    Event(ServerEvent),
}

/// Names a `publish` or `play` that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(pub(crate) u32);

/// What the peer did.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServerEvent {
    /// `connect`: answer with `accept_connect` or `reject_connect`.
    Connect(Connect),
    /// `publish`: answer with `accept_publish` or `reject`.
    Publish {
        /// For the answer.
        id: RequestId,
        /// Stream name, as sent, without query; slashes are possible.
        name: String,
        /// What followed the name's first `?`.
        query: Option<String>,
    },
    /// `play`: answer with `accept_play` or `reject`.
    Play {
        /// For the answer.
        id: RequestId,
        /// Stream name, as sent, without query; slashes are possible.
        name: String,
        /// What followed the name's first `?`.
        query: Option<String>,
    },
    /// From a publisher that was accepted.
    Media(MediaItem),
    /// The publisher ended its stream; the connection may go on, even with another `publish`.
    PublishStopped,
    /// The player ended its play; the connection may go on, even with another `play`.
    PlayStopped,
}

/// What `connect` says (RTMP 1.0 §7.2.1.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connect {
    /// Application, as sent, without query; slashes are possible.
    pub app: String,
    /// What followed the application's first `?`, or that of `tcUrl` where the application had none.
    pub query: Option<String>,
    /// `tcUrl`, as sent; empty where absent.
    pub tc_url: String,
    /// `flashVer`: who the client says it is; empty where absent.
    pub flash_ver: String,
    /// `fourCcList` of Enhanced RTMP: codecs that the client says it understands.
    pub four_cc: Vec<String>,
}

/// Why a `publish` or `play` is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// For programs: `NetStream.Publish.BadName`, `NetStream.Play.StreamNotFound`, ...
    pub code: &'static str,
    /// For people.
    pub description: String,
}

impl ServerSession {
    /// A connection from which nothing was read yet.
    pub fn new(limits: Limits) -> Self {
        Self { limits }
    }

    /// Takes bytes as they arrived, split anywhere.
    ///
    /// # Errors
    ///
    /// What the peer did wrong; the session is of no use afterwards, but what was queued before can be polled.
    pub fn handle_input(&mut self, bytes: &[u8]) -> Result<(), RtmpError> {
        let _ = (bytes, self.limits);
        Ok(())
    }

    /// How many bytes of the connection's input are dealt with; after an error, where it was found.
    pub fn position(&self) -> u64 {
        0
    }

    /// The next thing to do, in order.
    pub fn poll(&mut self) -> Option<ServerOutput> {
        None
    }

    /// Whether the handshake is over.
    pub fn handshake_done(&self) -> bool {
        false
    }

    /// Answers [`ServerEvent::Connect`] with yes.
    pub fn accept_connect(&mut self) {}

    /// Answers [`ServerEvent::Connect`] with no; then close.
    pub fn reject_connect(&mut self, description: &str) {
        let _ = description;
    }

    /// Answers [`ServerEvent::Publish`] with yes: media follows.
    pub fn accept_publish(&mut self, id: RequestId) {
        let _ = id;
    }

    /// Answers [`ServerEvent::Play`] with yes: media may be written as soon as this is sent.
    pub fn accept_play(&mut self, id: RequestId) {
        let _ = id;
    }

    /// Answers [`ServerEvent::Publish`] or [`ServerEvent::Play`] with no; then close.
    pub fn reject(&mut self, id: RequestId, why: Refusal) {
        let _ = (id, why);
    }

    /// Bounds messages from now on, once the route and with it `maxMessageKilobytes` is known. Unfinished
    /// messages may hold twice that.
    pub fn set_max_message_bytes(&mut self, bytes: usize) {
        let _ = bytes;
    }

    /// Tells a player that its stream is over.
    pub fn end_play(&mut self, description: &str) {
        let _ = description;
    }

    /// Tells a publisher that it is displaced or no longer wanted; then close.
    pub fn end_publish(&mut self, code: &'static str, description: &str) {
        let _ = (code, description);
    }

    /// Frees what only handshake and parsing needed. For an established player.
    pub fn shrink(&mut self) {}

    /// Asks the peer for a sign of life; any input answers it. `now_ms` is echoed.
    pub fn ping(&mut self, now_ms: u32) {
        let _ = now_ms;
    }
}
