//! The client's side of one connection.

mod dialogue;

use std::collections::VecDeque;

use bytes::Bytes;

use crate::ingest::Ingest;
use crate::link::Link;
use crate::message::UserControl;
use crate::{CHUNK_SIZE, Credentials, Egress, Limits, MediaItem, Role, RtmpError};

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
    link: Link,
    state: State,
    stream_id: u32,
    ingest: Ingest,
    events: VecDeque<ClientEvent>,
    /// What the server did wrong, until it was told.
    error: Option<RtmpError>,
}

/// How far the dialogue is (RTMP 1.0 §7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Handshake,
    Connecting,
    CreatingStream,
    Asking,
    Established,
    /// Refused, ended or finished: whatever comes is dropped.
    Over,
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
        let mut link = Link::client(&config.limits);
        link.chunks.set_limits(config.limits.max_message_bytes, config.limits.max_unfinished_after);
        Self {
            config,
            link,
            state: State::Handshake,
            stream_id: 0,
            ingest: Ingest::default(),
            events: VecDeque::new(),
            error: None,
        }
    }

    /// Takes bytes as they arrived, split anywhere.
    pub fn handle_input(&mut self, bytes: &[u8]) {
        if self.state == State::Over {
            return;
        }
        if let Err(error) = self.read(bytes) {
            self.state = State::Over;
            self.error = Some(error);
        }
    }

    fn read(&mut self, mut input: &[u8]) -> Result<(), RtmpError> {
        if !self.link.shake_hands(&mut input)? {
            return Ok(());
        }
        if self.state == State::Handshake {
            self.connect();
        }
        while let Some(raw) = self.link.next(&mut input)? {
            self.message(&raw)?;
        }
        self.link.acknowledge();
        Ok(())
    }

    /// How many bytes of the connection's input are dealt with; after an error, where it was found.
    pub const fn position(&self) -> u64 {
        self.link.position()
    }

    /// The next thing to do. Bytes come before events.
    ///
    /// # Errors
    ///
    /// What the server did wrong, once everything before it was given. Nothing that came later is read: close.
    pub fn poll(&mut self) -> Result<Option<ClientOutput>, RtmpError> {
        let send = self.link.take_out().map(ClientOutput::Send);
        let next = send.or_else(|| self.events.pop_front().map(ClientOutput::Event));
        match self.error.take_if(|_| next.is_none()) {
            Some(error) => Err(error),
            None => Ok(next),
        }
    }

    /// Whether the handshake is over.
    pub const fn handshake_done(&self) -> bool {
        self.link.handshake_done()
    }

    /// How to write media, once `Established`. What [`poll`](Self::poll) gives must be written before.
    pub const fn egress(&self) -> Egress {
        Egress { chunk_size: CHUNK_SIZE, stream_id: self.stream_id, role: Role::Server }
    }

    /// Asks the server for a sign of life; any input answers it. `now_ms` is echoed.
    pub fn ping(&mut self, now_ms: u32) {
        if self.handshake_done() {
            self.link.user_control(UserControl::PingRequest(now_ms));
        }
    }
}

#[cfg(test)]
mod tests;
