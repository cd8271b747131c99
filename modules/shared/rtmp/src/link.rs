//! What both sides of a connection share: handshake, chunks, acknowledgement, ping.

use bytes::{Bytes, BytesMut};
use rml_rtmp::handshake::{Handshake, HandshakeProcessResult, PeerType};

use crate::amf0::{Value, encode_all};
use crate::chunk::{ChunkReader, Header, RawMessage, write_message};
use crate::message::{
    COMMAND, DATA, Message, UserControl, write_acknowledgement, write_chunk_size, write_user_control,
};
use crate::{CHUNK_SIZE, Limits, RtmpError};

/// C0 + C1 + C2, or S0 + S1 + S2 (RTMP 1.0 §5.2).
const HANDSHAKE_BYTES: usize = 1 + 1536 + 1536;

/// One side of a connection, below the commands.
pub(crate) struct Link {
    /// Until the handshake is over; 3 kB, so it goes then.
    handshake: Option<Box<Handshake>>,
    handshake_bytes: usize,
    pub(crate) chunks: ChunkReader,
    /// Waiting to be sent.
    out: BytesMut,
    out_chunk_size: u32,
    /// Acknowledge after so many bytes: half of what the peer asked for, so that it never stalls.
    acknowledge_every: Option<u64>,
    received: u64,
    acknowledged: u64,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("handshake_bytes", &self.handshake_bytes)
            .field("chunks", &self.chunks)
            .finish_non_exhaustive()
    }
}

impl Link {
    pub(crate) fn server(limits: &Limits) -> Self {
        Self {
            handshake: Some(Box::new(Handshake::new(PeerType::Server))),
            handshake_bytes: 0,
            chunks: ChunkReader::new(limits),
            out: BytesMut::new(),
            out_chunk_size: 128,
            acknowledge_every: None,
            received: 0,
            acknowledged: 0,
        }
    }

    /// With C0 and C1 ready to be sent.
    pub(crate) fn client(limits: &Limits) -> Self {
        let mut handshake = Handshake::new(PeerType::Client);
        // Making them cannot fail; if it did, the server's answer would not match and say so.
        let opening = handshake.generate_outbound_p0_and_p1().unwrap_or_default();
        let mut link = Self::server(limits);
        link.out.extend_from_slice(&opening);
        link.handshake = Some(Box::new(handshake));
        link
    }

    pub(crate) const fn handshake_done(&self) -> bool {
        self.handshake.is_none()
    }

    /// Bytes of the connection's input that are dealt with.
    pub(crate) const fn position(&self) -> u64 {
        self.handshake_bytes as u64 + self.chunks.position()
    }

    /// Takes what belongs to the handshake from `input`; true once it is over.
    pub(crate) fn shake_hands(&mut self, input: &mut &[u8]) -> Result<bool, RtmpError> {
        let Some(handshake) = &mut self.handshake else { return Ok(true) };
        if input.is_empty() {
            return Ok(false);
        }
        if let (0, Some(&version)) = (self.handshake_bytes, input.first())
            && version != 3
        {
            return Err(RtmpError::Version(version));
        }
        let taken = input.len().min(HANDSHAKE_BYTES - self.handshake_bytes);
        let (now, later) = input.split_at(taken);
        let answer = handshake.process_bytes(now).map_err(|_| RtmpError::Handshake)?;
        self.handshake_bytes += taken;
        self.received += taken as u64;
        *input = later;
        match answer {
            HandshakeProcessResult::InProgress { response_bytes } => {
                self.out.extend_from_slice(&response_bytes)
            }
            HandshakeProcessResult::Completed { response_bytes, .. } => {
                self.out.extend_from_slice(&response_bytes);
                self.handshake = None;
            }
        }
        Ok(self.handshake.is_none())
    }

    /// The next message that is not about the connection itself; `None` when `input` is used up.
    pub(crate) fn next(&mut self, input: &mut &[u8]) -> Result<Option<RawMessage>, RtmpError> {
        loop {
            let before = input.len();
            let message = self.chunks.read(input);
            self.received += (before - input.len()) as u64;
            let Some(raw) = message? else { return Ok(None) };
            match Message::parse(&raw) {
                Ok(Message::UserControl(UserControl::PingRequest(time))) => {
                    write_user_control(&mut self.out, UserControl::PingResponse(time));
                }
                // Zero would mean an acknowledgement per byte; nobody means that.
                Ok(Message::WindowAckSize(size)) => {
                    self.acknowledge_every = (size > 0).then(|| u64::from(size).div_ceil(2));
                }
                // We do not wait for acknowledgements: TCP already keeps us from sending too much.
                Ok(Message::Acknowledgement(_)) => {}
                Ok(_) | Err(_) => return Ok(Some(raw)),
            }
        }
    }

    /// Acknowledges where the peer's window asks for it (RTMP 1.0 §5.4.3). Once per input is enough.
    pub(crate) fn acknowledge(&mut self) {
        if self.acknowledge_every.is_some_and(|every| self.received - self.acknowledged >= every) {
            write_acknowledgement(&mut self.out, self.received);
            self.acknowledged = self.received;
        }
    }

    pub(crate) const fn out(&mut self) -> &mut BytesMut {
        &mut self.out
    }

    /// Everything to be sent so far.
    pub(crate) fn take_out(&mut self) -> Option<Bytes> {
        (!self.out.is_empty()).then(|| std::mem::take(&mut self.out).freeze())
    }

    /// From now on messages leave in chunks of [`CHUNK_SIZE`].
    pub(crate) fn raise_chunk_size(&mut self) {
        write_chunk_size(&mut self.out, CHUNK_SIZE);
        self.out_chunk_size = CHUNK_SIZE;
    }

    pub(crate) fn user_control(&mut self, message: UserControl) {
        write_user_control(&mut self.out, message);
    }

    pub(crate) fn command(&mut self, stream_id: u32, values: &[Value]) {
        self.amf(3, COMMAND, stream_id, values);
    }

    pub(crate) fn data(&mut self, stream_id: u32, values: &[Value]) {
        self.amf(5, DATA, stream_id, values);
    }

    fn amf(&mut self, csid: u8, type_id: u8, stream_id: u32, values: &[Value]) {
        let header = Header { csid, timestamp: 0, type_id, stream_id };
        write_message(&mut self.out, self.out_chunk_size, header, &[&encode_all(values)]);
    }

    pub(crate) fn shrink(&mut self) {
        self.chunks.shrink();
    }

    /// As if so many bytes had come before.
    #[cfg(test)]
    pub(crate) const fn pretend_received(&mut self, bytes: u64) {
        self.received = bytes;
        self.acknowledged = bytes;
    }
}
