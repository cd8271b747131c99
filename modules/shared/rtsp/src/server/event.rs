//! What a session tells of, what it is answered, and what it leaves out.

use std::net::Ipv4Addr;

use bytes::Bytes;

use crate::message::HttpRequest;
use crate::sdp::Presentation;
use crate::transport::{Offers, Pair};

/// What came and was left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ignored {
    /// Interleaved frames on channels that nothing was set up for.
    pub frames: u64,
    /// Responses: nothing was asked.
    pub responses: u64,
}

/// What a session wants done.
#[derive(Debug)]
pub enum ServerOutput {
    /// Write these bytes to the peer.
    Send(Bytes),
    /// Something happened.
    Event(ServerEvent),
}

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Path of the stream, percent-decoded once, without slashes at its ends and without a medium's control.
    pub path: String,
    /// What followed the first `?`: may hold `key=`.
    pub query: Option<String>,
    /// Who the client says it is; empty where it does not.
    pub user_agent: String,
}

/// SETUP of one medium.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetupAsk {
    /// Which stream.
    pub ask: Ask,
    /// Index of the medium in the description.
    pub medium: usize,
    /// What the client can do.
    pub offers: Offers,
    /// DESCRIBE or ANNOUNCE of this path was accepted on this connection; otherwise check who asks.
    pub bound: bool,
    /// The client is going to send: what it announced.
    pub record: bool,
}

/// What the peer did.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServerEvent {
    /// DESCRIBE: check who asks, then `accept_describe`, or say no.
    Describe(Ask),
    /// ANNOUNCE: check who asks, then `accept_announce`, or say no.
    Announce {
        /// Which stream.
        ask: Ask,
        /// What is going to be sent.
        presentation: Presentation,
    },
    /// SETUP: `accept_setup`, or say no (461 where none of the offers can be had).
    Setup(SetupAsk),
    /// PLAY: `accept_play`, or say no. Comes again after a pause; with `again`, while it plays already.
    Play {
        /// It plays already.
        again: bool,
    },
    /// RECORD: `accept_record`, or say no.
    Record,
    /// PAUSE, answered: send no more until the next `Play`.
    Pause,
    /// TEARDOWN, answered: the session is over, the connection may go on with another.
    Teardown,
    /// A packet from the peer: RTCP of a player, RTP and RTCP of a publisher.
    Interleaved {
        /// Index of the medium.
        medium: usize,
        /// It came on the RTCP channel.
        rtcp: bool,
        /// The packet.
        data: Bytes,
    },
    /// An HTTP request: nothing is answered. What follows it is not RTSP: see
    /// [`take_rest`](super::ServerSession::take_rest).
    Http(HttpRequest),
}

/// How a medium is going to be carried: the answer to SETUP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetupAnswer {
    /// Interleaved; the session finds channels.
    Tcp,
    /// By datagrams between these ports.
    Udp {
        /// As offered.
        client_ports: Pair<u16>,
        /// Ours.
        server_ports: Pair<u16>,
    },
    /// By datagrams to a group.
    Multicast {
        /// The group.
        group: Ipv4Addr,
        /// Its ports.
        ports: Pair<u16>,
        /// Time to live.
        ttl: u8,
    },
}

/// The first packet of one medium after PLAY: what `RTP-Info` says (RFC 2326 §12.33).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstPacket {
    /// Index of the medium.
    pub medium: usize,
    /// Its sequence number.
    pub sequence: u16,
    /// Its RTP time.
    pub rtp_time: u32,
}
