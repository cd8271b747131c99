//! Answers that the library refuses, and that mean what others mean: they are put right on their way to it.
//!
//! Some cameras write a parameter behind `application/sdp`, others behind the time-out of a session, and some name another
//! SSRC in `Transport` than their packets have. What follows the answers, packets within the connection, passes untouched.

use std::net::IpAddr;

use bytes::{BufMut, BytesMut};

/// The head of an answer; what is longer passes as it is.
const MAX_HEAD: usize = 16 << 10;

/// One connection's answers, from the first byte on.
pub(super) struct Mender {
    /// Where datagrams come from, for answers that do not say it.
    source: Option<IpAddr>,
    held: BytesMut,
    /// Bytes of a body that pass.
    body: usize,
    /// Packets have begun.
    is_over: bool,
}

impl Mender {
    /// For a connection that begins. `source`: for a session whose media comes in datagrams.
    pub(super) fn new(source: Option<IpAddr>) -> Self {
        Self { source, held: BytesMut::new(), body: 0, is_over: false }
    }

    /// Takes what came, and appends what goes on.
    pub(super) fn push(&mut self, bytes: &[u8], out: &mut BytesMut) {
        self.held.extend_from_slice(bytes);
        while !self.held.is_empty() {
            if self.body > 0 {
                let passing = self.body.min(self.held.len());
                out.unsplit(self.held.split_to(passing));
                self.body -= passing;
                continue;
            }
            let head = self.held.windows(4).position(|end| end == b"\r\n\r\n");
            self.is_over |= self.held.first() == Some(&b'$') || head.is_none() && self.held.len() > MAX_HEAD;
            if self.is_over {
                return out.unsplit(self.held.split());
            }
            let Some(end) = head else { return };
            let head = self.held.split_to(end + 4);
            match std::str::from_utf8(&head) {
                Ok(head) => self.head(head, out),
                Err(_) => out.unsplit(head),
            }
        }
    }

    fn head(&mut self, head: &str, out: &mut BytesMut) {
        for line in head.split_inclusive('\n') {
            let field = line.split_once(':').map(|(name, value)| (name.trim(), value.trim()));
            let mended = field.and_then(|(name, value)| {
                let is = |wanted: &str| name.eq_ignore_ascii_case(wanted);
                if is("Content-Length") {
                    self.body = value.parse().unwrap_or(0);
                }
                let mended = if is("Content-Type") {
                    media_type(value)?.to_owned()
                } else if is("Session") {
                    session(value)
                } else if is("Transport") {
                    self.transport(value)
                } else if is("RTP-Info") && !is_read(value) {
                    return Some(String::new());
                } else {
                    return None;
                };
                Some(format!("{name}: {mended}\r\n"))
            });
            out.put_slice(mended.as_deref().unwrap_or(line).as_bytes());
        }
    }

    /// Without an SSRC: the packets have one. With the camera's address where the library would take another.
    fn transport(&self, value: &str) -> String {
        let parts = value.split(';').filter(|part| !part.trim().to_ascii_lowercase().starts_with("ssrc="));
        let mut kept = parts.collect::<Vec<_>>().join(";");
        if let Some(source) = self.source.filter(|_| !kept.contains("source=")) {
            kept.push_str(&format!(";source={source}"));
        }
        kept
    }
}

/// A description's, without what is behind it.
fn media_type(value: &str) -> Option<&'static str> {
    let (own, _) = value.split_once(';').unwrap_or((value, ""));
    own.trim().eq_ignore_ascii_case("application/sdp").then_some("application/sdp")
}

/// The id and the time-out in seconds (RFC 2326 §12.37).
fn session(value: &str) -> String {
    let mut parts = value.split(';').map(str::trim);
    let id = parts.next().unwrap_or_default();
    let timeout = parts.filter_map(|part| part.split_once('=')).find_map(|(name, value)| {
        let seconds = value.trim().parse::<u32>().ok()?;
        (name.trim().eq_ignore_ascii_case("timeout") && seconds > 0).then_some(seconds)
    });
    timeout.map_or_else(|| id.to_owned(), |seconds| format!("{id};timeout={seconds}"))
}

/// Whether each part of `RTP-Info` begins with a URL (RFC 2326 §12.33).
fn is_read(value: &str) -> bool {
    value.split(',').all(|part| {
        let mut fields = part.trim().split(';');
        fields.next().is_some_and(|first| first.starts_with("url="))
            && fields.all(|field| field.is_empty() || field.contains('='))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mended(source: Option<IpAddr>, pieces: &[&[u8]]) -> String {
        let (mut mender, mut out) = (Mender::new(source), BytesMut::new());
        pieces.iter().for_each(|piece| mender.push(piece, &mut out));
        String::from_utf8_lossy(&out).into_owned()
    }

    const ODD: &[u8] = b"RTSP/1.0 200 OK\r\nCSeq: 2\r\ncontent-type: Application/SDP; charset=utf-8\r\n\
        Content-Length: 12\r\n\r\nContent-Typ:RTSP/1.0 200 OK\r\nSession: 47 ; Timeout=30;x=y\r\n\
        Transport: RTP/AVP/TCP;unicast;interleaved=0-1;ssrc=DEADBEEF;mode=play\r\n\r\n$\0\0\x03RTSP\r\n\r\nx";
    const PLAIN: &str = "RTSP/1.0 200 OK\r\nCSeq: 2\r\ncontent-type: application/sdp\r\nContent-Length: 12\r\n\r\n\
        Content-Typ:RTSP/1.0 200 OK\r\nSession: 47;timeout=30\r\n\
        Transport: RTP/AVP/TCP;unicast;interleaved=0-1;mode=play\r\n\r\n$\0\0\x03RTSP\r\n\r\nx";

    #[test]
    fn answers_are_put_right_and_bodies_and_packets_pass_wherever_bytes_are_split() {
        assert_eq!(mended(None, &[ODD]), PLAIN);
        for at in 1..ODD.len() {
            let (one, other) = ODD.split_at(at);
            assert_eq!(mended(None, &[one, other]), PLAIN, "split at {at}");
        }
    }

    #[test]
    fn answers_that_nobody_refuses_stay_as_they_are() {
        let plain = "RTSP/1.0 200 OK\r\nCSeq: 4\r\nSession: 1\r\n\
            RTP-Info: url=rtsp://c/1;seq=1;rtptime=7,url=rtsp://c/2;seq=2;rtptime=9\r\n\r\n";
        assert_eq!(mended(None, &[plain.as_bytes()]), plain);
        let other = b"RTSP/1.0 200 OK\r\nContent-Type: text/plain; x\r\nServer: \xff\r\n\r\n";
        let (mut mender, mut out) = (Mender::new(None), BytesMut::new());
        mender.push(other, &mut out);
        assert_eq!(out[..], other[..]);
    }

    #[test]
    fn where_datagrams_come_from_is_said_once_and_broken_rtp_info_is_left_out() {
        let source = Some(IpAddr::from([192, 0, 2, 7]));
        let answer = |transport: &str| format!("RTSP/1.0 200 OK\r\nTransport: {transport}\r\n\r\n");
        let own = answer("RTP/AVP;unicast;server_port=6-7");
        assert_eq!(
            mended(source, &[own.as_bytes()]),
            answer("RTP/AVP;unicast;server_port=6-7;source=192.0.2.7")
        );
        let told = answer("RTP/AVP;unicast;source=192.0.2.9;server_port=6-7");
        assert_eq!(mended(source, &[told.as_bytes()]), told);
        let broken = b"RTSP/1.0 200 OK\r\nRTP-Info: rtsp://c/1;seq=1\r\nSession: 1\r\n\r\n";
        assert_eq!(mended(None, &[broken]), "RTSP/1.0 200 OK\r\nSession: 1\r\n\r\n");
    }

    #[test]
    fn a_head_without_end_is_not_kept() {
        let (mut mender, mut out) = (Mender::new(None), BytesMut::new());
        for _ in 0..40 {
            mender.push(&[b'x'; 1 << 10], &mut out);
        }
        assert_eq!(out.len(), 40 << 10);
    }
}
