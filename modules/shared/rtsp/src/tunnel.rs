//! RTSP inside of HTTP: what opens a tunnel on the port of RTSP, and how its way up is coded.
//!
//! QuickTime's form has two connections: the answer to a GET is the way down and never ends, and the body of a POST, in
//! base64, is the way up. Both name the same `x-sessioncookie`. ONVIF's form (Streaming Specification, RTSP over WebSocket)
//! is one WebSocket connection (RFC 6455) with the subprotocol `rtsp.onvif.org`, in whose binary messages the bytes of an
//! RTSP connection travel.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;

use crate::message::HttpRequest;

/// The media type of both ways.
const MEDIA_TYPE: &str = "application/x-rtsp-tunnelled";
/// ONVIF's subprotocol.
pub const SUBPROTOCOL: &str = "rtsp.onvif.org";
/// Programs use some 20 characters.
const MAX_COOKIE: usize = 128;

/// What an HTTP request on the port of RTSP begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening {
    /// GET: the way down.
    Down {
        /// Which POST belongs to it.
        cookie: String,
    },
    /// POST: the way up. What follows is base64.
    Up {
        /// Which GET belongs to it.
        cookie: String,
    },
    /// The handshake of a WebSocket.
    WebSocket {
        /// `Sec-WebSocket-Key`.
        key: String,
    },
    /// None of these.
    Refused(Refusal),
}

/// Why an HTTP request is no tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A browser, or a scanner.
    #[error("RTSP is spoken here.")]
    NoTunnel,
    /// The cookie is longer than any that programs send, or empty.
    #[error("x-sessioncookie must have 1 to {MAX_COOKIE} characters.")]
    Cookie,
    /// Another WebSocket than ours.
    #[error("WebSocket has to be version 13 and subprotocol {SUBPROTOCOL}.")]
    WebSocket,
}

impl Opening {
    /// What a request begins.
    pub fn of(request: &HttpRequest) -> Self {
        let header = |name| request.headers.get(name);
        if header("Upgrade").is_some_and(|upgrade| upgrade.eq_ignore_ascii_case("websocket")) {
            let offered = request.headers.all("Sec-WebSocket-Protocol").flat_map(|list| list.split(','));
            let is_ours = offered.into_iter().any(|protocol| protocol.trim() == SUBPROTOCOL);
            let is_13 = header("Sec-WebSocket-Version") == Some("13");
            return match header("Sec-WebSocket-Key") {
                Some(key) if is_ours && is_13 && request.method == "GET" => {
                    Self::WebSocket { key: key.to_owned() }
                }
                _ => Self::Refused(Refusal::WebSocket),
            };
        }
        let Some(cookie) = header("x-sessioncookie") else { return Self::Refused(Refusal::NoTunnel) };
        if !(1..=MAX_COOKIE).contains(&cookie.len()) {
            return Self::Refused(Refusal::Cookie);
        }
        let cookie = cookie.to_owned();
        match request.method.as_str() {
            "GET" => Self::Down { cookie },
            "POST" => Self::Up { cookie },
            _ => Self::Refused(Refusal::NoTunnel),
        }
    }
}

/// The answer to a tunnel's GET: what follows is the way down. A POST is never answered.
pub fn accepted() -> String {
    format!(
        "HTTP/1.0 200 OK\r\nConnection: close\r\nCache-Control: no-store\r\nPragma: no-cache\r\n\
         Content-Type: {MEDIA_TYPE}\r\n\r\n"
    )
}

/// The answer to what begins no tunnel.
pub fn refused(status: &str, why: &str) -> String {
    let length = why.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{why}"
    )
}

/// The way up is not base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a tunnel's POST with bytes that are no base64")]
pub struct NotBase64;

/// Decodes the way up, split anywhere. Programs code each request by itself, so padding may stand between any two groups of
/// four.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    group: [u8; 4],
    filled: usize,
}

impl Decoder {
    /// Puts what was coded behind what is in `out`.
    ///
    /// # Errors
    ///
    /// Something else than base64 and blanks.
    pub fn decode(&mut self, coded: &[u8], out: &mut BytesMut) -> Result<(), NotBase64> {
        for byte in coded.iter().filter(|byte| !byte.is_ascii_whitespace()) {
            if let Some(place) = self.group.get_mut(self.filled) {
                *place = *byte;
                self.filled += 1;
            }
            if self.filled == self.group.len() {
                let mut bytes = [0; 3];
                let count = STANDARD.decode_slice(self.group, &mut bytes).map_err(|_| NotBase64)?;
                out.extend_from_slice(bytes.get(..count).unwrap_or_default());
                self.filled = 0;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Limits;
    use crate::framing::{Incoming, Reader};

    fn opening(text: &str) -> Opening {
        let mut reader = Reader::new(Limits::default());
        reader.buffer().extend_from_slice(text.as_bytes());
        match reader.next() {
            Ok(Some(Incoming::Http(request))) => Opening::of(&request),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_get_and_a_post_with_one_cookie_are_the_two_ways_of_a_tunnel() {
        let get =
            "GET /live/cam HTTP/1.0\r\nx-sessioncookie: a1\r\nAccept: application/x-rtsp-tunnelled\r\n\r\n";
        assert_eq!(opening(get), Opening::Down { cookie: "a1".into() });
        let post = "POST /live/cam HTTP/1.0\r\nX-SessionCookie: a1\r\nContent-Length: 32767\r\n\r\n";
        assert_eq!(opening(post), Opening::Up { cookie: "a1".into() });
        let refused = [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Refusal::NoTunnel),
            ("PUT / HTTP/1.1\r\nx-sessioncookie: a\r\n\r\n".to_owned(), Refusal::NoTunnel),
            ("GET / HTTP/1.1\r\nx-sessioncookie:\r\n\r\n".to_owned(), Refusal::Cookie),
            (format!("GET / HTTP/1.1\r\nx-sessioncookie: {}\r\n\r\n", "a".repeat(129)), Refusal::Cookie),
        ];
        for (text, refusal) in refused {
            assert_eq!(opening(&text), Opening::Refused(refusal), "{text}");
        }
    }

    #[test]
    fn a_websocket_has_to_offer_the_subprotocol_of_onvif() {
        let ask = |protocol: &str, version: u8| {
            opening(&format!(
                "GET /live/cam HTTP/1.1\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: k==\r\n\
                 Sec-WebSocket-Version: {version}\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n"
            ))
        };
        assert_eq!(ask("chat, rtsp.onvif.org", 13), Opening::WebSocket { key: "k==".into() });
        for (protocol, version) in [("chat", 13), ("rtsp.onvif.org", 8)] {
            assert_eq!(ask(protocol, version), Opening::Refused(Refusal::WebSocket), "{protocol} {version}");
        }
    }

    #[test]
    fn requests_that_were_coded_one_by_one_are_decoded_however_they_are_split() {
        let requests = ["OPTIONS * RTSP/1.0\r\n", "a", "bc", "def", ""];
        let coded: Vec<u8> =
            requests.iter().flat_map(|request| STANDARD.encode(request).into_bytes()).collect();
        for size in 1..coded.len() {
            let (mut decoder, mut out) = (Decoder::default(), BytesMut::new());
            for part in coded.chunks(size) {
                decoder.decode(part, &mut out).unwrap();
                decoder.decode(b"\r\n", &mut out).unwrap();
            }
            assert_eq!(out, requests.concat().as_bytes());
        }
        for wrong in ["OPTIONS * RTSP/1.0", "====", "a=bc", "ab=c"] {
            assert!(Decoder::default().decode(wrong.as_bytes(), &mut BytesMut::new()).is_err(), "{wrong}");
        }
    }
}
