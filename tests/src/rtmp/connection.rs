//! Handshake and chunks.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::amf::{self, Value};

/// One RTMP message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Message type id: 8 audio, 9 video, 20 command, ...
    pub kind: u8,
    /// Milliseconds.
    pub timestamp: u32,
    /// Message stream id.
    pub stream: u32,
    /// The payload.
    pub body: Vec<u8>,
}

/// Encoders differ in whether a type 3 chunk repeats an extended timestamp (§5.3.1.3); servers must take both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // each is its own name
pub enum ContinuationTime {
    #[default]
    Repeated,
    LeftOut,
}

/// A connection after the handshake. Reading answers pings and acknowledges on the way.
pub struct Connection {
    socket: TcpStream,
    buffer: Vec<u8>,
    at: usize,
    chunk_size_in: usize,
    chunk_size_out: usize,
    incoming: HashMap<u32, Incoming>,
    received: u64,
    acknowledged: u64,
    window: u64,
    acknowledgements: Vec<u32>,
    /// How type 3 chunks are written.
    pub continuation_time: ContinuationTime,
}

/// What a chunk stream's next header may leave out.
#[derive(Default)]
struct Incoming {
    timestamp: u32,
    delta: u32,
    extended: bool,
    length: usize,
    kind: u8,
    stream: u32,
    body: Vec<u8>,
}

/// How long a read waits before it asks whether it should go on.
const TICK: Duration = Duration::from_millis(100);
const HANDSHAKE: usize = 1536;

impl Connection {
    /// Connects and shakes hands (simple form, §5.2). `receive_buffer`: the kernel's, in bytes.
    pub fn open(port: u16, receive_buffer: Option<usize>) -> io::Result<Self> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        if let Some(bytes) = receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        socket.connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)).into(), Duration::from_secs(20))?;
        let socket = TcpStream::from(socket);
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(TICK))?;
        socket.set_write_timeout(Some(Duration::from_secs(30)))?;
        let mut connection = Self {
            socket,
            buffer: Vec::new(),
            at: 0,
            chunk_size_in: 128,
            chunk_size_out: 128,
            incoming: HashMap::new(),
            received: 0,
            acknowledged: 0,
            window: u64::MAX,
            acknowledgements: Vec::new(),
            continuation_time: ContinuationTime::Repeated,
        };
        let mut hello = vec![3];
        hello.extend([0; 8]);
        hello.extend((0..HANDSHAKE - 8).map(|i| (i % 251) as u8));
        connection.socket.write_all(&hello)?;
        let deadline = Instant::now() + Duration::from_secs(20);
        let answer = connection.take(1 + 2 * HANDSHAKE, deadline)?;
        if answer[0] != 3 {
            return Err(io::Error::other(format!("S0 is {}", answer[0])));
        }
        connection.socket.write_all(&answer[1..=HANDSHAKE])?;
        Ok(connection)
    }

    /// The socket, for bytes that are no RTMP.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Announces and uses another chunk size for what follows.
    pub fn set_chunk_size(&mut self, size: usize) -> io::Result<()> {
        self.send(2, 1, 0, 0, &u32::try_from(size).unwrap().to_be_bytes())?;
        self.chunk_size_out = size;
        Ok(())
    }

    /// Sends one message: a type 0 chunk and type 3 chunks on chunk stream `csid` (2 to 63).
    pub fn send(&mut self, csid: u8, kind: u8, stream: u32, timestamp: u32, body: &[u8]) -> io::Result<()> {
        let extended = timestamp >= 0xFF_FFFF;
        let short = if extended { 0xFF_FFFF } else { timestamp };
        let mut out = vec![csid];
        out.extend(&short.to_be_bytes()[1..]);
        out.extend(&u32::try_from(body.len()).unwrap().to_be_bytes()[1..]);
        out.push(kind);
        out.extend(stream.to_le_bytes());
        if extended {
            out.extend(timestamp.to_be_bytes());
        }
        for (i, chunk) in body.chunks(self.chunk_size_out).enumerate() {
            if i > 0 {
                out.push(0xC0 | csid);
                if extended && self.continuation_time == ContinuationTime::Repeated {
                    out.extend(timestamp.to_be_bytes());
                }
            }
            out.extend(chunk);
        }
        self.socket.write_all(&out)
    }

    /// Sends a command (type 20).
    pub fn command(&mut self, stream: u32, values: &[Value]) -> io::Result<()> {
        self.send(3, 20, stream, 0, &amf::encode(values))
    }

    /// `connect` to an application; gives the first answer to it, `_result` or `_error`.
    pub fn connect(&mut self, port: u16, app: &str) -> io::Result<Vec<Value>> {
        let as_encoder = [
            ("type".to_owned(), Value::text("nonprivate")),
            ("flashVer".to_owned(), Value::text("FMLE/3.0 (compatible; av-tests)")),
        ];
        self.connect_as(port, app, as_encoder)
    }

    /// As [`connect`](Self::connect), as a player does.
    pub fn connect_to_play(&mut self, port: u16, app: &str) -> io::Result<Vec<Value>> {
        let as_player = [
            ("flashVer".to_owned(), Value::text("LNX 9,0,124,2")),
            ("audioCodecs".to_owned(), Value::Number(4071.0)),
            ("videoCodecs".to_owned(), Value::Number(252.0)),
        ];
        self.connect_as(port, app, as_player)
    }

    fn connect_as<const N: usize>(
        &mut self,
        port: u16,
        app: &str,
        who: [(String, Value); N],
    ) -> io::Result<Vec<Value>> {
        let mut arguments = vec![
            ("app".into(), Value::text(app)),
            ("tcUrl".into(), Value::text(format!("rtmp://127.0.0.1:{port}/{app}"))),
        ];
        arguments.extend(who);
        let arguments = Value::Object(arguments);
        self.command(0, &[Value::text("connect"), Value::Number(1.0), arguments])?;
        self.answer("_result", Some(1.0))
    }

    /// `createStream`; gives the message stream's id.
    pub fn create_stream(&mut self) -> io::Result<u32> {
        self.command(0, &[Value::text("createStream"), Value::Number(4.0), Value::Null])?;
        let answer = self.answer("_result", Some(4.0))?;
        let id = answer.get(3).and_then(Value::as_number).ok_or_else(|| io::Error::other("no stream id"))?;
        Ok(id as u32)
    }

    /// Reads until the command `name` (or `_error`) comes, with this transaction where one is given.
    pub fn answer(&mut self, name: &str, transaction: Option<f64>) -> io::Result<Vec<Value>> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let message = self.read(deadline)?;
            if message.kind != 20 {
                continue;
            }
            let values = amf::decode(&message.body);
            let named = values.first().and_then(Value::as_text).unwrap_or_default();
            let fits =
                transaction.is_none_or(|number| values.get(1).and_then(Value::as_number) == Some(number));
            if fits && (named == name || named == "_error") {
                return Ok(values);
            }
        }
    }

    /// The next message that is not the protocol's own business. `TimedOut` at the deadline: then call again,
    /// nothing is lost.
    pub fn read(&mut self, deadline: Instant) -> io::Result<Message> {
        loop {
            let Some(message) = self.chunk(deadline)? else { continue };
            match (message.kind, message.body.as_slice()) {
                (1, [a, b, c, d, ..]) => self.chunk_size_in = u32::from_be_bytes([*a, *b, *c, *d]) as usize,
                (5, [a, b, c, d, ..]) => self.window = u32::from_be_bytes([*a, *b, *c, *d]).into(),
                // Ping request and response (§7.1.7).
                (4, [0, 6, time @ ..]) => {
                    let pong: Vec<u8> = [0, 7].iter().chain(time).copied().collect();
                    self.send(2, 4, 0, 0, &pong)?;
                }
                (3, [a, b, c, d, ..]) => {
                    self.acknowledgements.push(u32::from_be_bytes([*a, *b, *c, *d]));
                }
                (3 | 4 | 6, _) => {}
                _ => return Ok(message),
            }
        }
    }

    /// Sequence numbers of the acknowledgements that came (§5.4.3), as far as was read.
    pub fn acknowledgements(&self) -> &[u32] {
        &self.acknowledgements
    }

    /// The window after which the server wants an acknowledgement; `u64::MAX` where it never said.
    pub fn window(&self) -> u64 {
        self.window
    }

    /// Bytes received since the connection began.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Reads one chunk; gives the message that it ended. Takes nothing from the buffer before all is there.
    fn chunk(&mut self, deadline: Instant) -> io::Result<Option<Message>> {
        let first = self.peek(0, 1, deadline)?[0];
        let (csid, mut head) = match first & 0x3F {
            0 => (64 + u32::from(self.peek(1, 1, deadline)?[0]), 2),
            1 => {
                let bytes = self.peek(1, 2, deadline)?;
                (64 + u32::from(bytes[0]) + 256 * u32::from(bytes[1]), 3)
            }
            id => (u32::from(id), 1),
        };
        let format = first >> 6;
        let fields = [11, 7, 3, 0][usize::from(format)];
        let header = self.peek(head, fields, deadline)?.to_vec();
        head += fields;
        let known = self.incoming.get(&csid).map(|known| (known.extended, known.length, known.body.len()));
        if format > 0 && known.is_none() {
            return Err(io::Error::other(format!("chunk stream {csid} begins with type {format}")));
        }
        let (was_extended, old_length, have) = known.unwrap_or_default();
        let short = header.get(..3).map(|b| u32::from_be_bytes([0, b[0], b[1], b[2]]));
        let extended = short.map_or(was_extended, |short| short == 0xFF_FFFF);
        let mut time = short.unwrap_or(0);
        if extended {
            time = u32::from_be_bytes(self.peek(head, 4, deadline)?.try_into().unwrap());
            head += 4;
        }
        let length = match header.get(3..6) {
            Some(b) => u32::from_be_bytes([0, b[0], b[1], b[2]]) as usize,
            None => old_length,
        };
        let size = (length - have).min(self.chunk_size_in);
        self.peek(head, size, deadline)?;
        let all = self.take(head + size, deadline)?;
        let state = self.incoming.entry(csid).or_default();
        let begins = state.body.is_empty();
        state.extended = extended;
        state.length = length;
        if let Some(kind) = header.get(6) {
            state.kind = *kind;
        }
        if let Some(b) = header.get(7..11) {
            state.stream = u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        }
        match format {
            0 => (state.timestamp, state.delta) = (time, 0),
            1 | 2 => {
                state.delta = time;
                state.timestamp = state.timestamp.wrapping_add(time);
            }
            _ if begins => state.timestamp = state.timestamp.wrapping_add(state.delta),
            _ => {}
        }
        state.body.extend_from_slice(&all[head..]);
        if state.body.len() < state.length {
            return Ok(None);
        }
        let body = std::mem::take(&mut state.body);
        Ok(Some(Message { kind: state.kind, timestamp: state.timestamp, stream: state.stream, body }))
    }

    /// `count` bytes from `offset` on, left in the buffer.
    fn peek(&mut self, offset: usize, count: usize, deadline: Instant) -> io::Result<&[u8]> {
        while self.buffer.len() - self.at < offset + count {
            self.fill(deadline)?;
        }
        Ok(&self.buffer[self.at + offset..self.at + offset + count])
    }

    fn take(&mut self, count: usize, deadline: Instant) -> io::Result<Vec<u8>> {
        let taken = self.peek(0, count, deadline)?.to_vec();
        self.at += count;
        Ok(taken)
    }

    fn fill(&mut self, deadline: Instant) -> io::Result<()> {
        self.buffer.drain(..self.at);
        self.at = 0;
        let mut bytes = [0; 16 * 1024];
        loop {
            match self.socket.read(&mut bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    self.buffer.extend_from_slice(&bytes[..read]);
                    self.received += read as u64;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if Instant::now() >= deadline {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                Err(error) => return Err(error),
            }
        }
        if self.received - self.acknowledged >= self.window / 2 {
            self.acknowledged = self.received;
            let total = (self.received & 0xFFFF_FFFF) as u32;
            self.send(2, 3, 0, 0, &total.to_be_bytes())?;
        }
        Ok(())
    }
}
