//! The server's side of one connection: requests in, decisions and answers out.

mod dialogue;
mod event;
mod life;
mod session;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::BytesMut;

use crate::auth::{Credentials, ServerAuth, Verdict};
use crate::framing::{Incoming, Reader};
use crate::message::{Request, Response, StatusCode};
use crate::sdp::{Description, Presentation};
use crate::transport::{Carried, Offer};
use crate::uri::Target;
use crate::{Limits, RtspError};

pub use event::{Ask, FirstPacket, Ignored, ServerEvent, ServerOutput, SetupAnswer, SetupAsk};
pub use life::{Expired, Timeouts};
use session::Session;

/// Wrong keys and passwords that one connection may show.
pub const MOST_WRONG: u32 = 5;

/// What a server's connection is told at its start.
#[derive(Clone, Copy, Debug)]
pub struct ServerConfig {
    /// Bounds.
    pub limits: Limits,
    /// How long the peer may stay silent.
    pub timeouts: Timeouts,
    /// Unpredictable, and of this connection alone: nonce and session id come of it.
    pub random: [u8; 32],
    /// The connection is encrypted, so that Basic may be offered.
    pub tls: bool,
}

/// The server's side of one RTSP connection.
///
/// Read from the socket into [`buffer`](Self::buffer), call [`handle_input`](Self::handle_input), then
/// [`poll`](Self::poll) until `None`. Times are durations since any fixed moment, of a clock that never goes back.
///
/// Events that ask for a decision (see [`ServerEvent`]) are answered with one of the `accept_*` calls,
/// [`refuse`](Self::refuse) or [`challenge`](Self::challenge), sooner or later; poll again afterwards. What the peer
/// sent behind such a request waits unread, so answers leave in the order of the requests: while
/// [`is_undecided`](Self::is_undecided), read no more than [`Limits::max_waiting_bytes`] from the socket.
///
/// The session writes answers only. Interleaved media is written beside it, after what `poll` gave and between
/// whole answers: the answer to PLAY is on its way before the first packet if everything polled is written first.
#[derive(Debug)]
pub struct ServerSession {
    config: ServerConfig,
    reader: Reader,
    auth: ServerAuth,
    /// Answers that were not polled yet.
    out: BytesMut,
    events: VecDeque<ServerEvent>,
    pending: Option<Pending>,
    /// What DESCRIBE or ANNOUNCE was accepted for: SETUP of it needs no key or password.
    bound: Option<Bound>,
    session: Option<Session>,
    sessions_before: u32,
    /// Keys and passwords.
    wrong: u32,
    ignored: Ignored,
    life: life::Life,
    error: Option<RtspError>,
    over: bool,
}

/// A request that waits for a decision.
#[derive(Debug)]
struct Pending {
    request: Request,
    ask: Ask,
    setup: Option<SetupAsk>,
}

/// What this connection may set up.
#[derive(Clone, Debug)]
struct Bound {
    path: String,
    /// What control URLs begin with.
    base: String,
    /// By medium; empty where they are those of [`Description`].
    controls: Vec<String>,
    /// It was announced, not described.
    announced: bool,
}

impl ServerSession {
    /// A connection from which nothing was read yet.
    pub fn new(config: ServerConfig, now: Duration) -> Self {
        let (nonce, _) = config.random.split_first_chunk::<16>().map_or(([0; 16], &[][..]), |(a, b)| (*a, b));
        Self {
            config,
            reader: Reader::new(config.limits),
            auth: ServerAuth::new(nonce, config.tls),
            out: BytesMut::new(),
            events: VecDeque::new(),
            pending: None,
            bound: None,
            session: None,
            sessions_before: 0,
            wrong: 0,
            ignored: Ignored::default(),
            life: life::Life::new(now),
            error: None,
            over: false,
        }
    }

    /// Where to put what was read from the socket.
    pub const fn buffer(&mut self) -> &mut BytesMut {
        self.reader.buffer()
    }

    /// Looks at what was put into [`buffer`](Self::buffer).
    pub fn handle_input(&mut self, now: Duration) {
        self.life.heard(now);
        let before = self.reader.messages();
        self.read();
        if self.reader.messages() > before {
            // What is left of these bytes is of another message.
            self.life.inside_message(false, now);
        }
        self.life.inside_message(self.reader.is_inside_message() && !self.is_undecided(), now);
    }

    fn read(&mut self) {
        while !self.over && self.error.is_none() && self.pending.is_none() {
            match self.reader.next() {
                Ok(Some(incoming)) => self.take(incoming),
                Ok(None) => return,
                Err(error) => self.error = Some(error),
            }
        }
        let limit = self.config.limits.max_waiting_bytes;
        if self.pending.is_some() && self.reader.waiting() > limit {
            self.error = Some(RtspError::NotWaiting { limit });
        }
    }

    fn take(&mut self, incoming: Incoming) {
        self.life.established();
        match incoming {
            Incoming::Request(request) => self.request(request),
            Incoming::Response(_) => self.ignored.responses += 1,
            Incoming::Interleaved { channel, data } => match self.channel(channel) {
                Some((medium, rtcp)) => {
                    self.events.push_back(ServerEvent::Interleaved { medium, rtcp, data });
                }
                None => self.ignored.frames += 1,
            },
            Incoming::Http(request) => {
                self.events.push_back(ServerEvent::Http(request));
                self.over = true;
            }
        }
    }

    /// The medium of a channel, and whether it is the channel of its RTCP.
    fn channel(&self, channel: u8) -> Option<(usize, bool)> {
        self.session.as_ref()?.channel(channel)
    }

    /// The next thing to do. Bytes come before events.
    ///
    /// # Errors
    ///
    /// What the peer did wrong, once everything before it was given. Nothing that came later is read: close.
    pub fn poll(&mut self) -> Result<Option<ServerOutput>, RtspError> {
        if !self.out.is_empty() {
            return Ok(Some(ServerOutput::Send(self.out.split().freeze())));
        }
        match self.events.pop_front() {
            Some(event) => Ok(Some(ServerOutput::Event(event))),
            None => self.error.take().map_or(Ok(None), Err),
        }
    }

    /// How many bytes of the connection's input are dealt with; after an error, where it was found.
    pub const fn position(&self) -> u64 {
        self.reader.position()
    }

    /// Whether a request waits for a decision.
    pub const fn is_undecided(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether the peer was told to go: send what `poll` gives, then close.
    pub const fn is_over(&self) -> bool {
        self.over
    }

    /// What was left out so far.
    pub const fn ignored(&self) -> Ignored {
        self.ignored
    }

    /// After [`ServerEvent::Http`]: what was read behind the request.
    pub fn take_rest(&mut self) -> BytesMut {
        self.reader.take_rest()
    }

    /// How a medium is carried, once it is set up.
    pub fn carried(&self, medium: usize) -> Option<Carried> {
        self.session.as_ref()?.carried(medium)
    }

    /// The session's id, once something is set up.
    pub fn session_id(&self) -> Option<&str> {
        self.session.as_ref().map(|session| session.id.as_str())
    }

    /// Judges who sent the request that waits.
    pub fn check(&mut self, wanted: &Credentials) -> Verdict {
        let Some(Pending { request, .. }) = &self.pending else { return Verdict::Missing };
        let header = request.headers.get("Authorization");
        let verdict = self.auth.check(header, (&request.method).into(), &request.uri, wanted);
        if verdict == Verdict::Wrong {
            self.showed_wrong();
        }
        verdict
    }

    /// The request that waits showed a wrong key. A peer that was wrong [`MOST_WRONG`] times is told to go with the
    /// answer.
    pub const fn showed_wrong(&mut self) {
        self.wrong = self.wrong.saturating_add(1);
    }

    /// Whether the peer was told to go because it showed wrong keys or passwords.
    pub const fn guesses(&self) -> bool {
        self.wrong >= MOST_WRONG
    }

    /// Answers the request that waits with a question for user and password (401); a peer that was wrong
    /// [`MOST_WRONG`] times is told to go (403).
    pub fn challenge(&mut self) {
        if self.guesses() {
            return self.refuse(StatusCode::Forbidden);
        }
        let mut response = Response::new(StatusCode::Unauthorized);
        for challenge in self.auth.challenges() {
            response.headers.push("WWW-Authenticate", challenge);
        }
        self.decide(response);
    }

    /// Answers the request that waits with no.
    pub fn refuse(&mut self, status: StatusCode) {
        self.over |= self.guesses();
        self.decide(Response::new(status));
    }

    /// Answers the request that waits with no: what was described is not what there is any more. A session that was set
    /// up for it is over (454); without one it is the request that does not fit (455). DESCRIBE leads on.
    pub fn refuse_outdated(&mut self) {
        let had_session = self.session.take().is_some();
        self.sessions_before += u32::from(had_session);
        self.refuse(match had_session {
            true => StatusCode::SessionNotFound,
            false => StatusCode::MethodNotValidInThisState,
        });
    }

    /// Answers [`ServerEvent::Describe`].
    pub fn accept_describe(&mut self, description: &Description) {
        let Some(pending) = &self.pending else { return };
        let base = pending.base();
        self.bound = Some(Bound {
            path: pending.ask.path.clone(),
            base: base.clone(),
            controls: Vec::new(),
            announced: false,
        });
        let mut response = Response::new(StatusCode::Ok)
            .with("Content-Type", "application/sdp")
            .with("Content-Base", base.clone());
        response.body = description.render(&base);
        self.decide(response);
    }

    /// Answers [`ServerEvent::Announce`].
    pub fn accept_announce(&mut self, presentation: &Presentation) {
        let Some(pending) = &self.pending else { return };
        self.bound = Some(Bound {
            path: pending.ask.path.clone(),
            base: pending.base(),
            controls: presentation.media.iter().map(|medium| medium.control.clone()).collect(),
            announced: true,
        });
        self.decide(Response::new(StatusCode::Ok));
    }

    /// Answers [`ServerEvent::Setup`]; `ssrc` is ours, where we are going to send. Gives what was agreed upon; where
    /// no channels are left, the peer is told so, and it gives none.
    pub fn accept_setup(&mut self, answer: SetupAnswer, ssrc: Option<u32>) -> Option<Carried> {
        let setup = self.pending.as_mut()?.setup.take()?;
        let base = self.setup_base(&setup)?;
        let id = self.next_session_id();
        let session = self.session.get_or_insert_with(|| Session::new(id, &setup.ask.path, base));
        let carried = match answer {
            SetupAnswer::Tcp => {
                let wish = setup.offers.list.iter().find_map(|offer| match offer {
                    Offer::Tcp { channels } => *channels,
                    _ => None,
                });
                session.free_channels(setup.medium, wish).map(|channels| Carried::Tcp { channels })
            }
            SetupAnswer::Udp { client_ports, server_ports } => {
                Some(Carried::Udp { client_ports, server_ports })
            }
            SetupAnswer::Multicast { group, ports, ttl } => Some(Carried::Multicast { group, ports, ttl }),
        };
        let Some(carried) = carried else {
            self.refuse(StatusCode::UnsupportedTransport);
            return None;
        };
        session.set_up(setup.medium, carried);
        let (id, timeout) = (session.id.clone(), self.config.timeouts.session.as_secs());
        let mut response = Response::new(StatusCode::Ok);
        response.headers.push("Transport", carried.header(ssrc, setup.record));
        // Without a blank: ffmpeg reads the time-out only so.
        response.headers.push("Session", format!("{id};timeout={timeout}"));
        self.decide_with(response, false);
        Some(carried)
    }

    /// Answers [`ServerEvent::Play`]. Write what `poll` gives before the first packet.
    pub fn accept_play(&mut self, first: &[FirstPacket]) {
        let Some(session) = self.session.as_mut().filter(|_| self.pending.is_some()) else { return };
        session.state = session::State::Playing;
        let mut response = Response::new(StatusCode::Ok).with("Range", "npt=now-");
        let base = &session.base;
        let parts = first.iter().filter(|first| session.carried(first.medium).is_some()).map(|first| {
            let control = Description::control(first.medium);
            format!("url={base}{control};seq={};rtptime={}", first.sequence, first.rtp_time)
        });
        let info = parts.collect::<Vec<_>>().join(",");
        if !info.is_empty() {
            response.headers.push("RTP-Info", info);
        }
        self.decide(response);
    }

    /// Answers [`ServerEvent::Record`]: media follows.
    pub fn accept_record(&mut self) {
        let Some(session) = self.session.as_mut().filter(|_| self.pending.is_some()) else { return };
        session.state = session::State::Recording;
        self.decide(Response::new(StatusCode::Ok));
    }

    /// A sign of life that did not come by this connection's bytes: RTCP or media by UDP, or TCP bytes of ours that
    /// the peer acknowledged.
    pub const fn sign_of_life(&mut self, now: Duration) {
        self.life.heard(now);
    }

    /// When the peer will have been silent for too long, if it stays so.
    pub fn deadline(&self) -> Option<Duration> {
        let undecided = self.is_undecided();
        self.life.deadline(&self.config.timeouts, self.session.is_some(), undecided).map(|(at, _)| at)
    }

    /// Whether the deadline has passed, and which: close then.
    pub fn expired(&self, now: Duration) -> Option<Expired> {
        let undecided = self.is_undecided();
        let deadline = self.life.deadline(&self.config.timeouts, self.session.is_some(), undecided);
        deadline.filter(|(at, _)| *at <= now).map(|(_, why)| why)
    }

    fn next_session_id(&self) -> String {
        let bytes = self.config.random.get(16..24).unwrap_or_default();
        format!("{}{:x}", crate::auth::hex(bytes), self.sessions_before)
    }

    /// What the control URLs of a SETUP's stream begin with.
    fn setup_base(&self, setup: &SetupAsk) -> Option<String> {
        match self.bound.as_ref().filter(|bound| bound.path == setup.ask.path) {
            Some(bound) => Some(bound.base.clone()),
            None => self.pending.as_ref().map(Pending::base),
        }
    }
}

impl Pending {
    /// Of the stream that the request names, its medium's control taken off.
    fn base(&self) -> String {
        let uri = &self.request.uri;
        let control = self.setup.as_ref().map(|setup| Description::control(setup.medium));
        let stream = control.and_then(|control| Target::of_stream(uri, &control));
        stream.or_else(|| Target::parse(uri)).map(|target| target.base()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
