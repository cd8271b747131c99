//! The server's side of one connection.

mod dialogue;

use std::collections::VecDeque;

use bytes::Bytes;

use crate::ingest::Ingest;
use crate::link::Link;
use crate::message::UserControl;
use crate::{Limits, MediaItem, RtmpError};

/// The server's side of one RTMP connection, from C0 to the last frame.
///
/// Feed it with [`handle_input`](Self::handle_input), then [`poll`](Self::poll) until `None`. Events that ask
/// for a decision ([`Connect`](ServerEvent::Connect), [`Publish`](ServerEvent::Publish),
/// [`Play`](ServerEvent::Play)) are answered with one of the `accept_*` or `reject*` calls, sooner or later;
/// poll again afterwards. What the peer sends meanwhile waits unread, so that it is held to the bounds that the answer
/// brings; read no more from the socket before, for no more than `max_unfinished_before_publish` may wait.
///
/// A refused peer: send what `poll` gives, then close the socket. ffmpeg and GStreamer end by themselves,
/// librtmp's `rtmpdump` prints the error and waits until the socket closes.
///
/// After `accept_play` the session deals with control messages only. Media is written beside it, made by
/// [`Egress::players`](crate::Egress::players); what `poll` gives must be written between whole messages.
#[derive(Debug)]
pub struct ServerSession {
    limits: Limits,
    link: Link,
    state: State,
    /// It has published on this connection: media behind the end of that is late, not wrong.
    published: bool,
    ingest: Ingest,
    events: VecDeque<ServerEvent>,
    next_id: u32,
    /// What came behind a request that is undecided, unread.
    waiting: Vec<u8>,
    /// What the peer did wrong, until it was told.
    error: Option<RtmpError>,
}

/// What may come next (RTMP 1.0 §7.2).
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// Only `connect`.
    New,
    /// `connect` waits for its answer to this transaction; `enhanced`: the client spoke of FourCCs.
    Connecting { transaction: f64, enhanced: bool },
    /// Everything but media.
    Connected,
    /// `publish` waits for its answer.
    PublishAsked { id: RequestId },
    /// Media.
    Publishing,
    /// `play` waits for its answer.
    PlayAsked { id: RequestId, reset: bool },
    /// Control messages.
    Playing,
    /// Refused or displaced: whatever comes before the peer notices is dropped.
    Over,
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
    /// The player wants nothing for a while (`true`), or wants the stream to go on.
    Paused(bool),
    /// The player ended its play; the connection may go on, even with another `play`.
    PlayStopped,
}

/// What `connect` says (RTMP 1.0 §7.2.1.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connect {
    /// Application, as sent, without query; slashes are possible.
    pub app: String,
    /// What followed the application's first `?`.
    pub query: Option<String>,
    /// What followed the first `?` of `tcUrl`.
    pub tc_query: Option<String>,
    /// `flashVer`: who the client says it is, cut to [`Limits::max_name_bytes`]; empty where absent.
    pub flash_ver: String,
    /// `fourCcList` of Enhanced RTMP: codecs that the client says it understands.
    pub four_cc: Vec<String>,
    /// What the client is about to do, as far as its properties tell.
    pub intent: Option<Intent>,
}

/// What a client connects for. RTMP does not say so before `publish` or `play`, but encoders give a `type` and
/// call themselves `FMLE/...`, as Adobe's did, and players tell what they can decode (`audioCodecs`,
/// `videoCodecs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Intent {
    /// To publish.
    Publish,
    /// To play.
    Play,
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
        Self {
            limits,
            link: Link::server(&limits),
            state: State::New,
            published: false,
            ingest: Ingest::default(),
            events: VecDeque::new(),
            next_id: 0,
            waiting: Vec::new(),
            error: None,
        }
    }

    /// Takes bytes as they arrived, split anywhere.
    pub fn handle_input(&mut self, bytes: &[u8]) {
        let read = match self.state {
            State::Over => return,
            _ if self.is_undecided() => self.wait(bytes),
            _ => self.read(bytes),
        };
        if let Err(error) = read {
            self.state = State::Over;
            self.error = Some(error);
        }
    }

    fn read(&mut self, mut input: &[u8]) -> Result<(), RtmpError> {
        if !self.link.shake_hands(&mut input)? {
            return Ok(());
        }
        while let Some(raw) = self.link.next(&mut input)? {
            self.message(&raw)?;
            if self.is_undecided() {
                self.wait(input)?;
                break;
            }
        }
        self.link.acknowledge();
        Ok(())
    }

    /// Keeps bytes until the decision.
    fn wait(&mut self, bytes: &[u8]) -> Result<(), RtmpError> {
        let limit = self.limits.max_unfinished_before_publish;
        if bytes.len() > limit.saturating_sub(self.waiting.len()) {
            return Err(RtmpError::NotWaiting { limit });
        }
        self.waiting.extend_from_slice(bytes);
        Ok(())
    }

    /// Reads what waited for a decision, up to the next one.
    fn catch_up(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        if !waiting.is_empty() {
            self.handle_input(&waiting);
        }
    }

    /// How many bytes of the connection's input are dealt with; after an error, where it was found.
    pub const fn position(&self) -> u64 {
        self.link.position()
    }

    /// The next thing to do. Bytes come before events.
    ///
    /// # Errors
    ///
    /// What the peer did wrong, once everything before it was given. Nothing that came later is read: close.
    pub fn poll(&mut self) -> Result<Option<ServerOutput>, RtmpError> {
        let send = self.link.take_out().map(ServerOutput::Send);
        let next = send.or_else(|| self.events.pop_front().map(ServerOutput::Event));
        match self.error.take_if(|_| next.is_none()) {
            Some(error) => Err(error),
            None => Ok(next),
        }
    }

    /// Whether the handshake is over.
    pub const fn handshake_done(&self) -> bool {
        self.link.handshake_done()
    }

    /// Answers [`ServerEvent::Connect`] with yes.
    pub fn accept_connect(&mut self) {
        if let State::Connecting { transaction, enhanced } = self.state {
            self.state = State::Connected;
            self.say_connected(transaction, enhanced);
            self.catch_up();
        }
    }

    /// Answers [`ServerEvent::Connect`] with no; then close.
    pub fn reject_connect(&mut self, description: &str) {
        if let State::Connecting { transaction, .. } = self.state {
            self.say_rejected(transaction, description);
            self.end();
        }
    }

    /// Answers [`ServerEvent::Publish`] with yes: media follows.
    pub fn accept_publish(&mut self, id: RequestId) {
        if self.state == (State::PublishAsked { id }) {
            self.state = State::Publishing;
            self.published = true;
            self.ingest = Ingest::default();
            self.link.chunks.set_limits(self.limits.max_message_bytes, self.limits.max_unfinished_after);
            self.say_publishing();
            self.catch_up();
        }
    }

    /// Answers [`ServerEvent::Play`] with yes: media may be written as soon as this is sent.
    pub fn accept_play(&mut self, id: RequestId) {
        if let State::PlayAsked { id: asked, reset } = self.state
            && asked == id
        {
            self.state = State::Playing;
            self.say_playing(reset);
            self.catch_up();
        }
    }

    /// Answers [`ServerEvent::Publish`] or [`ServerEvent::Play`] with no; then close.
    pub fn reject(&mut self, id: RequestId, why: Refusal) {
        let asked = match self.state {
            State::PublishAsked { id } | State::PlayAsked { id, .. } => Some(id),
            _ => None,
        };
        if asked == Some(id) {
            self.say_status("error", why.code, &why.description);
            self.end();
        }
    }

    /// Bounds messages from now on, once the route and with it `maxMessageKilobytes` is known. Unfinished
    /// messages may hold twice that.
    pub fn set_max_message_bytes(&mut self, bytes: usize) {
        self.limits.max_message_bytes = bytes;
        self.limits.max_unfinished_after = bytes.saturating_mul(2);
        if self.state == State::Publishing {
            self.link.chunks.set_limits(bytes, self.limits.max_unfinished_after);
        }
    }

    /// Tells a player that its stream is over. It may close, or play again.
    pub fn end_play(&mut self, description: &str) {
        if self.state == State::Playing {
            self.say_play_ended(description);
            self.state = State::Connected;
        }
    }

    /// Tells a publisher that it is displaced or no longer wanted; then close.
    pub fn end_publish(&mut self, code: &'static str, description: &str) {
        if self.state == State::Publishing {
            let level = if code == "NetStream.Unpublish.Success" { "status" } else { "error" };
            self.say_status(level, code, description);
            self.end();
        }
    }

    /// Frees what only handshake and parsing needed. For an established player.
    pub fn shrink(&mut self) {
        self.link.shrink();
        self.events.shrink_to_fit();
        self.waiting = Vec::new();
    }

    /// Asks the peer for a sign of life; any input answers it. `now_ms` is echoed.
    pub fn ping(&mut self, now_ms: u32) {
        if self.handshake_done() {
            self.link.user_control(UserControl::PingRequest(now_ms));
        }
    }

    const fn is_undecided(&self) -> bool {
        matches!(self.state, State::Connecting { .. } | State::PublishAsked { .. } | State::PlayAsked { .. })
    }

    fn end(&mut self) {
        self.state = State::Over;
        self.waiting = Vec::new();
    }
}

#[cfg(test)]
mod tests;
