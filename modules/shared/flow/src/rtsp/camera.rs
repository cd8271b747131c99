//! A camera that does as it is told: a server of RTSP over TCP that shares no code with the project. It is pulled from, and
//! pushed to.

use std::path::Path;
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::PrivateKeyDer;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::rtmp::peer::{soon, video};

/// H.264 with its parameter sets in the stream alone.
pub(super) const VIDEO_ONLY: &str = "v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n\
    m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:track1\r\n";
/// H.264 and G.711.
pub(super) const SDP: &str = "v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n\
    m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n\
    a=fmtp:96 packetization-mode=1;sprop-parameter-sets=Z2QAHqzZQKAv+XARAAADAAEAAAMAMg8WLZY=,aO+Py/34+A==\r\n\
    a=control:track1\r\n\
    m=audio 0 RTP/AVP 8\r\na=control:track2\r\n";

trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// One connection.
pub(super) struct Camera {
    wire: Box<dyn Wire>,
    read: Vec<u8>,
    sequences: [u16; 4],
    pub(super) ssrc: u32,
    /// 0: that of the descriptions here.
    pub(super) payload_type: u8,
    /// Behind `application/sdp`, behind the id of a session, and in a transport.
    pub(super) odd: [&'static str; 3],
    cseq: String,
}

impl Camera {
    pub(super) async fn listen() -> (TcpListener, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    }

    pub(super) async fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = soon("a connection", listener.accept()).await.unwrap();
        Self::of(Box::new(stream))
    }

    pub(super) async fn accept_tls(listener: &TcpListener, dir: &Path) -> Self {
        let (stream, _) = soon("a connection", listener.accept()).await.unwrap();
        Self::of(Box::new(tls(dir, stream).await.unwrap()))
    }

    fn of(wire: Box<dyn Wire>) -> Self {
        let (read, cseq) = (Vec::new(), String::new());
        Self { wire, read, sequences: [1; 4], ssrc: 7, payload_type: 0, odd: [""; 3], cseq }
    }

    /// The next request's head; its body is dropped, and so are packets in front of it.
    pub(super) async fn request(&mut self) -> String {
        soon("a request", async {
            loop {
                while let [b'$', _, high, low, rest @ ..] = &self.read[..]
                    && let length = usize::from(u16::from_be_bytes([*high, *low]))
                    && rest.len() >= length
                {
                    self.read.drain(..4 + length);
                }
                let is_head = self.read.first().is_some_and(|first| *first != b'$');
                let end = self.read.windows(4).position(|end| end == b"\r\n\r\n");
                if let Some(end) = end.filter(|_| is_head) {
                    let head = String::from_utf8(self.read[..end + 4].to_vec()).unwrap();
                    let body = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
                    let body: usize = body.map_or(0, |length| length.parse().unwrap());
                    while self.read.len() < end + 4 + body {
                        assert!(self.wire.read_buf(&mut self.read).await.unwrap() > 0, "gone");
                    }
                    self.read.drain(..end + 4 + body);
                    let cseq = head.lines().find_map(|line| line.strip_prefix("CSeq: "));
                    self.cseq = cseq.unwrap().to_owned();
                    return head;
                }
                assert!(self.wire.read_buf(&mut self.read).await.unwrap() > 0, "gone");
            }
        })
        .await
    }

    pub(super) async fn answer(&mut self, status: &str, headers: &[&str], body: &str) {
        let mut text = format!("RTSP/1.0 {status}\r\nCSeq: {}\r\n", self.cseq);
        for header in headers {
            text.push_str(header);
            text.push_str("\r\n");
        }
        if !body.is_empty() {
            let [odd, ..] = self.odd;
            text.push_str(&format!(
                "Content-Type: application/sdp{odd}\r\nContent-Length: {}\r\n",
                body.len()
            ));
        }
        text.push_str("\r\n");
        text.push_str(body);
        self.wire.write_all(text.as_bytes()).await.unwrap();
        self.wire.flush().await.unwrap();
    }

    /// Sends what is neither a packet nor an answer.
    pub(super) async fn say(&mut self, text: &str) {
        self.wire.write_all(text.as_bytes()).await.unwrap();
        self.wire.flush().await.unwrap();
    }

    /// Takes what is announced, up to `RECORD`; the URL that was announced.
    pub(super) async fn record(&mut self) -> String {
        let mut announced = String::new();
        loop {
            let head = self.request().await;
            let mut words = head.split(' ');
            match words.next().unwrap() {
                "ANNOUNCE" => {
                    announced = words.next().unwrap().to_owned();
                    self.answer("200 OK", &[], "").await;
                }
                "SETUP" => {
                    let asked = head.lines().find_map(|line| line.strip_prefix("Transport: ")).unwrap();
                    let transport = format!("Transport: {asked}");
                    self.answer("200 OK", &["Session: 1", &transport], "").await;
                }
                "RECORD" => {
                    self.answer("200 OK", &["Session: 1"], "").await;
                    return announced;
                }
                _ => self.answer("200 OK", &[], "").await,
            }
        }
    }

    /// Everything up to `PLAY`; the URLs that were set up.
    pub(super) async fn establish(&mut self, sdp: &str, play: &[&str]) -> Vec<String> {
        let mut asked = Vec::new();
        loop {
            let head = self.request().await;
            let mut words = head.split(' ');
            match words.next().unwrap() {
                "DESCRIBE" => self.answer("200 OK", &[], sdp).await,
                "SETUP" => {
                    asked.push(words.next().unwrap().to_owned());
                    let first = 2 * (asked.len() - 1);
                    let [_, of_session, of_transport] = self.odd;
                    let transport = format!(
                        "Transport: RTP/AVP/TCP;unicast;interleaved={first}-{}{of_transport}",
                        first + 1
                    );
                    let session = format!("Session: 1;timeout=60{of_session}");
                    self.answer("200 OK", &[&session, &transport], "").await;
                }
                "PLAY" => {
                    self.answer("200 OK", &[&["Session: 1"], play].concat(), "").await;
                    return asked;
                }
                _ => self.answer("200 OK", &[], "").await,
            }
        }
    }

    /// A packet on a channel.
    pub(super) async fn rtp(&mut self, channel: u8, time: u32, marker: bool, payload: &[u8]) {
        let sequence = &mut self.sequences[usize::from(channel)];
        let payload_type = match (self.payload_type, channel) {
            (0, 0) => 96,
            (0, _) => 8,
            (own, _) => own,
        };
        let mut packet = vec![0x80, payload_type | if marker { 0x80 } else { 0 }];
        packet.extend_from_slice(&sequence.to_be_bytes());
        *sequence = sequence.wrapping_add(1);
        packet.extend_from_slice(&time.to_be_bytes());
        packet.extend_from_slice(&(self.ssrc + u32::from(channel)).to_be_bytes());
        packet.extend_from_slice(payload);
        let mut framed = vec![b'$', channel];
        framed.extend_from_slice(&u16::try_from(packet.len()).unwrap().to_be_bytes());
        framed.extend_from_slice(&packet);
        self.wire.write_all(&framed).await.unwrap();
        self.wire.flush().await.unwrap();
    }

    /// A sender report on a channel of RTCP.
    pub(super) async fn report(&mut self, channel: u8, ntp: u64, time: u32) {
        let mut packet = vec![0x80, 200, 0, 6];
        packet.extend_from_slice(&(self.ssrc + u32::from(channel - 1)).to_be_bytes());
        packet.extend_from_slice(&ntp.to_be_bytes());
        packet.extend_from_slice(&time.to_be_bytes());
        packet.extend_from_slice(&[0; 8]);
        self.wire.write_all(&[&[b'$', channel, 0, 28][..], &packet].concat()).await.unwrap();
        self.wire.flush().await.unwrap();
    }

    /// A picture of one NAL unit, on the first channel.
    pub(super) async fn video(&mut self, time: u32, nal: &[u8]) {
        self.rtp(0, time, true, nal).await;
    }

    /// A piece of sound, on the second track's channel.
    pub(super) async fn audio(&mut self, time: u32, data: &[u8]) {
        self.rtp(2, time, false, data).await;
    }
}

/// A key picture whose content is its own.
pub(super) fn idr(at: u32) -> Vec<u8> {
    [&[0x65, 0x88, 0x84][..], &own(at), &[0x80]].concat()
}

/// Any other picture.
pub(super) fn picture(at: u32) -> Vec<u8> {
    [&[0x41, 0x9a, 0x24][..], &own(at), &[0x80]].concat()
}

/// A number in bytes of which none is 0: no start code is among them.
fn own(at: u32) -> [u8; 4] {
    [at >> 12, at >> 8, at >> 4, at].map(|part| 0x40 | (part & 0xf) as u8)
}

/// SPS and PPS of the track that [`video`] has.
pub(super) fn parameter_sets() -> [Vec<u8>; 2] {
    let config = video().config;
    let sps_length = usize::from(u16::from_be_bytes([config[6], config[7]]));
    let pps = 8 + sps_length + 3;
    [config[8..8 + sps_length].to_vec(), config[pps..pps + 4].to_vec()]
}

/// Writes a certificate and its key; its SHA-256.
pub(super) fn certificate(dir: &Path) -> [u8; 32] {
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(dir.join("cert.der"), leaf.der()).unwrap();
    std::fs::write(dir.join("key.der"), key.serialize_der()).unwrap();
    Sha256::digest(leaf.der().as_ref()).into()
}

/// The server's side of TLS.
pub(super) async fn tls(dir: &Path, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
    let read = |name: &str| std::fs::read(dir.join(name)).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![read("cert.der").into()], PrivateKeyDer::Pkcs8(read("key.der").into()))
        .unwrap();
    TlsAcceptor::from(Arc::new(config)).accept(stream).await
}
