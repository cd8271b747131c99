//! The client's side of one connection: a stream is announced and recorded.

mod dialogue;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::auth::{ClientAuth, Credentials};
use crate::framing::Reader;
use crate::message::{Method, Request, StatusCode};
use crate::sdp::Description;
use crate::transport::Pair;
use crate::{Limits, RtspError};

/// A request must be answered within this time.
const ANSWER: Duration = Duration::from_secs(10);
/// What a server means that names no time-out (RFC 2326 §12.37).
const USUAL_TIMEOUT: Duration = Duration::from_secs(60);
/// Shorter is not kept up: a server that says 1 s means something else.
const SHORTEST_TIMEOUT: Duration = Duration::from_secs(4);

/// Where to and how.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// `rtsp://host[:port]/path[?query]`, without user info.
    pub url: String,
    /// For servers that ask for them.
    pub credentials: Option<Credentials>,
    /// Names us.
    pub user_agent: String,
    /// What is announced.
    pub description: Description,
    /// Our ports by medium, for UDP; `None`: media goes inside the connection, medium *n* on channels 2*n* and
    /// 2*n* + 1.
    pub udp_ports: Option<Vec<Pair<u16>>>,
    /// Bounds on what the server can make this session hold.
    pub limits: Limits,
    /// Unpredictable, and of this connection alone.
    pub random: [u8; 16],
}

/// The client's side of one RTSP connection that publishes (RFC 2326 §10.3, §10.11).
///
/// The first request is ready to be polled at once. Read from the socket into [`buffer`](Self::buffer), call
/// [`handle_input`](Self::handle_input), and [`handle_time`](Self::handle_time) when [`deadline`](Self::deadline) has
/// come, then [`poll`](Self::poll) until `None`. Times are durations since any fixed moment.
#[derive(Debug)]
pub struct ClientSession {
    config: ClientConfig,
    reader: Reader,
    auth: Option<ClientAuth>,
    out: BytesMut,
    events: VecDeque<ClientEvent>,
    /// Requests without answer, oldest first.
    asked: VecDeque<Asked>,
    /// When something was asked last.
    asked_at: Duration,
    cseq: u32,
    session: Option<String>,
    timeout: Duration,
    /// The server lists GET_PARAMETER.
    has_get_parameter: bool,
    media: Vec<ServerPlace>,
    established: bool,
    now: Duration,
    error: Option<RtspError>,
    over: bool,
}

#[derive(Debug)]
struct Asked {
    cseq: u32,
    request: Request,
    at: Duration,
}

/// Where the packets of one medium go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerPlace {
    /// Inside the RTSP connection.
    Tcp {
        /// Channels.
        channels: Pair<u8>,
    },
    /// To ports of the server.
    Udp {
        /// Its ports.
        ports: Pair<u16>,
        /// Where, if not the address of the RTSP connection.
        source: Option<IpAddr>,
    },
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
    /// RECORD is accepted: send media, the n-th medium to the n-th place.
    Established {
        /// By medium.
        media: Vec<ServerPlace>,
    },
    /// The server said no; close.
    Refused {
        /// To what.
        method: &'static str,
        /// For programs.
        status: StatusCode,
        /// For people, as the server put it: cut to 256 characters, without control characters.
        reason: String,
    },
    /// The stream is to go elsewhere; close.
    Redirected {
        /// Where to, as the server put it: cut to 1024 characters.
        to: String,
    },
    /// RTCP inside the connection.
    Interleaved {
        /// Index of the medium.
        medium: usize,
        /// The packet.
        data: Bytes,
    },
    /// The server ended the session.
    Ended,
}

impl ClientSession {
    /// A connection on which nothing was sent yet.
    pub fn new(config: ClientConfig, now: Duration) -> Self {
        let auth = config.credentials.clone().map(|credentials| ClientAuth::new(credentials, config.random));
        let mut session = Self {
            reader: Reader::new(config.limits),
            auth,
            out: BytesMut::new(),
            events: VecDeque::new(),
            asked: VecDeque::new(),
            asked_at: now,
            cseq: 0,
            session: None,
            timeout: USUAL_TIMEOUT,
            has_get_parameter: false,
            media: Vec::new(),
            established: false,
            now,
            error: None,
            over: false,
            config,
        };
        session.ask(session.about(Method::Options));
        session
    }

    /// Where to put what was read from the socket.
    pub const fn buffer(&mut self) -> &mut BytesMut {
        self.reader.buffer()
    }

    /// Looks at what was put into [`buffer`](Self::buffer).
    pub fn handle_input(&mut self, now: Duration) {
        self.now = now;
        while !self.over && self.error.is_none() {
            match self.reader.next() {
                Ok(Some(incoming)) => {
                    if let Err(error) = self.take(incoming) {
                        self.error = Some(error);
                    }
                }
                Ok(None) => return,
                Err(error) => self.error = Some(error),
            }
        }
    }

    /// Does what is due: a sign of life, or giving up on an answer that did not come.
    pub fn handle_time(&mut self, now: Duration) {
        self.now = now;
        if self.over || self.deadline() > now {
            return;
        }
        match self.asked.front() {
            Some(asked) => self.error = Some(RtspError::NoAnswer { method: name(&asked.request.method) }),
            None => {
                let method = if self.has_get_parameter { Method::GetParameter } else { Method::Options };
                self.ask(self.about(method));
            }
        }
    }

    /// When [`handle_time`](Self::handle_time) has something to do.
    pub fn deadline(&self) -> Duration {
        match self.asked.front() {
            Some(asked) => asked.at + ANSWER,
            None => self.asked_at + self.timeout / 2,
        }
    }

    /// The next thing to do. Bytes come before events.
    ///
    /// # Errors
    ///
    /// What the server did wrong, once everything before it was given. Nothing that came later is read: close.
    pub fn poll(&mut self) -> Result<Option<ClientOutput>, RtspError> {
        if !self.out.is_empty() {
            return Ok(Some(ClientOutput::Send(self.out.split().freeze())));
        }
        match self.events.pop_front() {
            Some(event) => Ok(Some(ClientOutput::Event(event))),
            None => self.error.take().map_or(Ok(None), Err),
        }
    }

    /// How many bytes of the connection's input are dealt with; after an error, where it was found.
    pub const fn position(&self) -> u64 {
        self.reader.position()
    }

    /// Takes leave: send what `poll` gives, then close.
    pub fn teardown(&mut self) {
        if self.session.is_some() {
            self.ask(self.about(Method::Teardown));
            self.session = None;
            self.over = true;
        }
    }

    /// A request about the whole stream.
    fn about(&self, method: Method) -> Request {
        Request::new(method, &self.config.url)
    }
}

/// A method's name; those that are never asked have none.
fn name(method: &Method) -> &'static str {
    match method {
        Method::Options => "OPTIONS",
        Method::Announce => "ANNOUNCE",
        Method::Setup => "SETUP",
        Method::Record => "RECORD",
        Method::GetParameter => "GET_PARAMETER",
        Method::Teardown => "TEARDOWN",
        _ => "a request",
    }
}

#[cfg(test)]
mod tests;
