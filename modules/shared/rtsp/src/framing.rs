//! Cuts a connection's bytes into messages and interleaved frames (RFC 2326 §4, §10.12).

use bytes::{Buf, Bytes, BytesMut};

use crate::message::{Head, HttpRequest, Request, Response};
use crate::{Limits, RtspError};

/// What stands on a connection between two boundaries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A request.
    Request(Request),
    /// A response.
    Response(Response),
    /// `$`, channel, length, data (§10.12): RTP or RTCP. The data is a slice of what was read from the socket.
    Interleaved {
        /// Channel.
        channel: u8,
        /// A whole packet, as the peer calls it: up to 65,535 bytes, or none.
        data: Bytes,
    },
    /// An HTTP request. What follows it is no RTSP: take it with [`Reader::take_rest`].
    Http(HttpRequest),
}

/// Cuts bytes, as they arrived, into messages and interleaved frames.
///
/// Read from the socket into [`buffer`](Self::buffer), then call [`next`](Self::next) until `None`. Blank lines
/// and NULs between messages mean nothing; other junk is stepped over up to
/// [`Limits::max_junk_bytes`], though not in front of the first message.
#[derive(Debug)]
pub struct Reader {
    limits: Limits,
    buffer: BytesMut,
    /// A message whose body is not whole yet, and the length of that.
    open: Option<(Head, usize)>,
    /// Bytes of the buffer in which no end of a header block was found.
    searched: usize,
    position: u64,
    /// Bytes of junk since the last message.
    junk: usize,
    messages: u64,
}

impl Reader {
    /// At the start of a connection.
    pub fn new(limits: Limits) -> Self {
        Self { limits, buffer: BytesMut::new(), open: None, searched: 0, position: 0, junk: 0, messages: 0 }
    }

    /// Where to put what was read from the socket: behind what is there.
    pub const fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Bytes of the connection that are dealt with; after an error, where it was found.
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// Bytes that wait for more, or to be asked for.
    pub fn waiting(&self) -> usize {
        self.buffer.len()
    }

    /// Whether a message has begun that is not whole.
    pub fn is_inside_message(&self) -> bool {
        self.open.is_some() || !self.buffer.is_empty()
    }

    /// Messages and frames so far.
    pub const fn messages(&self) -> u64 {
        self.messages
    }

    /// All that is unread, for whoever goes on with the connection.
    pub fn take_rest(&mut self) -> BytesMut {
        self.advance_position(self.buffer.len());
        std::mem::take(&mut self.buffer)
    }

    /// The next message or frame; `None` until more bytes come.
    ///
    /// # Errors
    ///
    /// The boundaries are lost, or a bound is passed: the connection is of no use any more.
    #[allow(clippy::should_implement_trait, reason = "fallible, and not fused")]
    pub fn next(&mut self) -> Result<Option<Incoming>, RtspError> {
        loop {
            if let Some((head, length)) = self.open.take() {
                return Ok(self.finish(head, length));
            }
            self.skip_blanks();
            match self.buffer.first() {
                None => return Ok(None),
                Some(b'$') => return Ok(self.interleaved()),
                Some(_) if may_be_a_start_line(&self.buffer) => {
                    let Some(end) = self.header_end()? else { return Ok(None) };
                    match self.buffer.get(..end).and_then(Head::read) {
                        Some(head) => self.begin(head, end)?,
                        None => self.skip_line()?,
                    }
                }
                Some(_) => {
                    let is_line = self.buffer.contains(&b'\n');
                    if self.messages > 0 && !is_line && self.buffer.len() <= self.limits.max_junk_bytes {
                        return Ok(None);
                    }
                    self.skip_line()?;
                }
            }
        }
    }

    /// A frame, if it is whole.
    fn interleaved(&mut self) -> Option<Incoming> {
        let &[_, channel, high, low] = self.buffer.first_chunk::<4>()?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        if self.buffer.len() < 4 + length {
            return None;
        }
        let mut frame = self.take(4 + length);
        frame.advance(4);
        self.count();
        Some(Incoming::Interleaved { channel, data: frame })
    }

    /// Where the header block ends: behind the first empty line.
    fn header_end(&mut self) -> Result<Option<usize>, RtspError> {
        let from = self.searched.saturating_sub(3);
        let fresh = self.buffer.get(from..).unwrap_or_default();
        let mut end = None;
        for (at, _) in fresh.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
            let rest = fresh.get(at + 1..).unwrap_or_default();
            let empty = if rest.starts_with(b"\r\n") { 2 } else { usize::from(rest.starts_with(b"\n")) };
            if empty > 0 {
                end = Some(from + at + 1 + empty);
                break;
            }
        }
        self.searched = self.buffer.len();
        let limit = self.limits.max_header_bytes;
        if end.unwrap_or(self.buffer.len()) > limit {
            return Err(RtspError::HeaderTooLong { limit });
        }
        Ok(end)
    }

    /// Takes a header block that was read.
    fn begin(&mut self, head: Head, end: usize) -> Result<(), RtspError> {
        // A tunnel's POST announces a length that is never meant.
        let is_http = matches!(head, Head::Http(_));
        let announced = head.headers().get("Content-Length").filter(|_| !is_http);
        let length = announced.map_or(Ok(0), str::parse::<usize>).map_err(|_| RtspError::ContentLength)?;
        let limit = self.limits.max_body_bytes;
        if length > limit {
            return Err(RtspError::BodyTooLong { length, limit });
        }
        self.take(end);
        self.open = Some((head, length));
        Ok(())
    }

    /// A message, if its body is whole.
    fn finish(&mut self, head: Head, length: usize) -> Option<Incoming> {
        if self.buffer.len() < length {
            self.open = Some((head, length));
            return None;
        }
        let body = self.take(length);
        self.count();
        Some(match head {
            Head::Request(request) => Incoming::Request(Request { body, ..request }),
            Head::Response(response) => Incoming::Response(Response { body, ..response }),
            Head::Http(request) => Incoming::Http(request),
        })
    }

    fn skip_blanks(&mut self) {
        let blanks = self.buffer.iter().take_while(|byte| matches!(byte, b'\r' | b'\n' | b' ' | 0)).count();
        if blanks > 0 {
            self.take(blanks);
        }
    }

    /// Steps over a line that is no start line.
    fn skip_line(&mut self) -> Result<(), RtspError> {
        if self.messages == 0 {
            return Err(RtspError::NotRtsp);
        }
        let line = self.buffer.iter().position(|byte| *byte == b'\n').map_or(self.buffer.len(), |at| at + 1);
        self.junk += line;
        if self.junk > self.limits.max_junk_bytes {
            return Err(RtspError::Junk { bytes: self.junk });
        }
        self.take(line);
        Ok(())
    }

    fn take(&mut self, length: usize) -> Bytes {
        self.advance_position(length);
        self.searched = 0;
        self.buffer.split_to(length).freeze()
    }

    const fn count(&mut self) {
        self.messages += 1;
        self.junk = 0;
    }

    const fn advance_position(&mut self, length: usize) {
        self.position += length as u64;
    }
}

/// Whether bytes begin as a request or a response does: capitals up to the first blank or `/`.
fn may_be_a_start_line(bytes: &[u8]) -> bool {
    let word = bytes.iter().take_while(|byte| byte.is_ascii_uppercase() || **byte == b'_').count();
    (1..=16).contains(&word) && bytes.get(word).is_none_or(|byte| matches!(byte, b' ' | b'/'))
}

#[cfg(test)]
mod tests;
