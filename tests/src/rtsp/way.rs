//! What an RTSP conversation may travel in.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Bytes there and back.
pub trait Way: Read + Write + Send {
    /// How long a read waits.
    fn wait_at_most(&self, limit: Duration);
}

impl Way for TcpStream {
    fn wait_at_most(&self, limit: Duration) {
        self.set_read_timeout(Some(limit)).unwrap();
    }
}

/// Reads the head of an HTTP answer, and nothing behind it.
fn head(stream: &mut TcpStream) -> String {
    stream.wait_at_most(Duration::from_secs(30));
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// HTTP: a GET whose answer is the way down, and a POST that is the way up.
pub struct Tunnel {
    down: TcpStream,
    up: TcpStream,
}

impl Tunnel {
    /// Opens both.
    pub fn open(port: u16, path: &str, cookie: &str) -> Self {
        let mut down = TcpStream::connect(("127.0.0.1", port)).unwrap();
        write!(
            down,
            "GET {path} HTTP/1.0\r\nx-sessioncookie: {cookie}\r\nAccept: application/x-rtsp-tunnelled\r\n\r\n"
        )
        .unwrap();
        let answer = head(&mut down);
        assert!(answer.starts_with("HTTP/1.0 200 "), "{answer}");
        let mut up = TcpStream::connect(("127.0.0.1", port)).unwrap();
        write!(
            up,
            "POST {path} HTTP/1.0\r\nx-sessioncookie: {cookie}\r\nContent-Type: application/x-rtsp-tunnelled\r\n\
             Content-Length: 32767\r\n\r\n"
        )
        .unwrap();
        Self { down, up }
    }

    /// Sends bytes up as they are.
    pub fn write_up(&mut self, bytes: &[u8]) {
        self.up.write_all(bytes).unwrap();
    }
}

impl Read for Tunnel {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.down.read(buffer)
    }
}

impl Write for Tunnel {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.up.write_all(base64(bytes).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Way for Tunnel {
    fn wait_at_most(&self, limit: Duration) {
        self.down.wait_at_most(limit);
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let at = |index: usize| u32::from(three.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..4 {
            let value = (bits >> (18 - 6 * digit)) & 63;
            text.push(if digit <= three.len() { char::from(DIGITS[value as usize]) } else { '=' });
        }
    }
    text
}

/// A WebSocket (RFC 6455) with ONVIF's subprotocol; each write is a message, in two fragments.
pub struct WebSocket {
    stream: TcpStream,
    /// What was read and is no whole message yet.
    input: Vec<u8>,
    /// What messages carried.
    carried: Vec<u8>,
    /// Payloads of pongs, for who has given the socket away.
    pub pongs: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl WebSocket {
    /// Connects, with the key of RFC 6455 §1.3.
    pub fn open(port: u16, path: &str) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Protocol: rtsp.onvif.org\r\n\r\n"
        )
        .unwrap();
        let answer = head(&mut stream);
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        assert!(answer.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{answer}");
        assert!(answer.contains("Sec-WebSocket-Protocol: rtsp.onvif.org\r\n"), "{answer}");
        Self { stream, input: Vec::new(), carried: Vec::new(), pongs: Arc::default() }
    }

    /// Sends a ping.
    pub fn ping(&mut self, payload: &[u8]) {
        self.send(0x89, payload).unwrap();
    }

    fn send(&mut self, first: u8, payload: &[u8]) -> io::Result<()> {
        const MASK: [u8; 4] = [7, 99, 200, 31];
        let length = u16::try_from(payload.len()).unwrap();
        let mut frame = vec![first];
        if length < 126 {
            frame.push(0x80 | length as u8);
        } else {
            frame.push(0x80 | 126);
            frame.extend(length.to_be_bytes());
        }
        frame.extend(MASK);
        frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.stream.write_all(&frame)
    }

    /// Takes the next message off the input, if it is whole.
    fn take_message(&mut self) -> bool {
        let [first, second, ..] = self.input[..] else { return false };
        let (start, length) = match second {
            126 if self.input.len() >= 4 => {
                (4, usize::from(u16::from_be_bytes([self.input[2], self.input[3]])))
            }
            127 if self.input.len() >= 10 => {
                (10, u64::from_be_bytes(self.input[2..10].try_into().unwrap()) as usize)
            }
            0..126 => (2, usize::from(second)),
            126 | 127 => return false,
            _ => panic!("a server does not mask"),
        };
        if self.input.len() < start + length {
            return false;
        }
        let payload = self.input[start..start + length].to_vec();
        self.input.drain(..start + length);
        match first {
            0x82 => self.carried.extend(payload),
            0x8a => self.pongs.lock().unwrap().push(payload),
            0x88 => {}
            other => panic!("a message of kind {other:#x}"),
        }
        true
    }
}

impl Read for WebSocket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.carried.is_empty() {
            if self.take_message() {
                continue;
            }
            let mut read = vec![0; 16 << 10];
            let count = self.stream.read(&mut read)?;
            if count == 0 {
                return Ok(0);
            }
            self.input.extend_from_slice(&read[..count]);
        }
        let count = buffer.len().min(self.carried.len());
        buffer[..count].copy_from_slice(&self.carried[..count]);
        self.carried.drain(..count);
        Ok(count)
    }
}

impl Write for WebSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (one, two) = bytes.split_at(bytes.len() / 2);
        self.send(0x02, one)?;
        self.send(0x80, two)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Way for WebSocket {
    fn wait_at_most(&self, limit: Duration) {
        self.stream.wait_at_most(limit);
    }
}
