//! The client's side of one connection.

use bytes::Bytes;

use crate::{Credentials, Egress, Limits, MediaItem, RtmpError};

/// What a client is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Sends a stream.
    Publish,
    /// Takes a stream.
    Play,
}

/// Where to and what for.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Application, with its query if it has one.
    pub app: String,
    /// `rtmp://host[:port]/app`, without user info.
    pub tc_url: String,
    /// Stream name, with its query if it has one.
    pub name: String,
    /// Publish or play.
    pub mode: Mode,
    /// Bounds on what the server can make this session hold.
    pub limits: Limits,
    /// For servers that ask for them.
    pub credentials: Option<Credentials>,
    /// The query of [`ClientEvent::NeedAuth`], on the connection that follows it.
    pub auth_query: Option<String>,
}

/// The client's side of one RTMP connection.
///
/// C0 and C1 are ready to be polled at once. Feed it with [`handle_input`](Self::handle_input), then
/// [`poll`](Self::poll) until `None`.
#[derive(Debug)]
pub struct ClientSession {
    config: ClientConfig,
}

/// What a session wants done.
#[derive(Debug)]
pub enum ClientOutput {
    /// Write these bytes to the peer.
    Send(Bytes),
    /// Something happened.
    Event(ClientEvent),
}

/// What the server did.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientEvent {
    /// Publish or play is accepted. A publisher may write media now, made by [`ClientSession::egress`].
    Established,
    /// From the server, when playing.
    Media(MediaItem),
    /// The server said no, before or after `Established`; close.
    Refused {
        /// For programs, for example `NetStream.Publish.BadName`.
        code: String,
        /// For people, as the server put it: cut to 512 bytes, without control characters.
        description: String,
    },
    /// The server wants user and password: close, connect again with this as
    /// [`auth_query`](ClientConfig::auth_query). Comes at most twice in a row; a wrong password is `Refused`.
    NeedAuth {
        /// Begins with `authmod=`.
        query: String,
    },
    /// The stream that is played has no publisher any more.
    Unpublished,
    /// The stream that is played is over.
    Ended,
}

impl ClientSession {
    /// A connection on which nothing was sent yet.
    pub fn new(config: ClientConfig) -> Self {
        Self { config }
    }

    /// Takes bytes as they arrived, split anywhere.
    ///
    /// # Errors
    ///
    /// What the server did wrong; the session is of no use afterwards.
    pub fn handle_input(&mut self, bytes: &[u8]) -> Result<(), RtmpError> {
        let _ = (bytes, &self.config);
        Ok(())
    }

    /// How many bytes of the connection's input are dealt with; after an error, where it was found.
    pub fn position(&self) -> u64 {
        0
    }

    /// The next thing to do, in order.
    pub fn poll(&mut self) -> Option<ClientOutput> {
        None
    }

    /// How to write media, once `Established`.
    pub fn egress(&self) -> Egress {
        Egress::players()
    }

    /// Ends the stream politely: FCUnpublish, deleteStream. Send what `poll` gives, then close.
    pub fn finish(&mut self) {}

    /// Asks the server for a sign of life; any input answers it. `now_ms` is echoed.
    pub fn ping(&mut self, now_ms: u32) {
        let _ = now_ms;
    }
}
