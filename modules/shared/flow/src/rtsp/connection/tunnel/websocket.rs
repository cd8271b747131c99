//! RTSP in the binary messages of a WebSocket.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{Sink as _, SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, Join, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::super::{Connection, End, READ, Reader, Way};
use crate::fanout::Sink;

/// A publisher's packet and its frame fit, several times over.
const MAX_MESSAGE: usize = 1 << 20;
/// What is written at once goes into one message, up to this.
const MAX_SENT: usize = 64 << 10;

type Socket = WebSocketStream<Join<Reader, Sink>>;

impl Connection {
    pub(super) async fn websocket(&mut self, key: &str) -> Result<(), End> {
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: {}\r\n\r\n",
            derive_accept_key(key.as_bytes()),
            av_rtsp::tunnel::SUBPROTOCOL
        );
        self.send(answer.into()).await?;
        let rest = self.session.take_rest().to_vec();
        let reader = std::mem::replace(&mut self.reader, Box::new(tokio::io::empty()));
        let Way::Own(sink) = std::mem::replace(&mut self.way, Way::Gone) else { return Err(End::Done) };
        let config = WebSocketConfig::default()
            .read_buffer_size(READ)
            .write_buffer_size(0)
            .max_write_buffer_size(MAX_MESSAGE)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let joined = tokio::io::join(reader, sink);
        let socket = WebSocketStream::from_partially_read(joined, rest, Role::Server, Some(config)).await;
        let (sink, stream) = socket.split();
        self.reader = Box::new(SocketReader { stream, message: Bytes::new() });
        self.way = Way::Own(Box::new(SocketSink(sink)));
        self.start_over();
        Ok(())
    }
}

/// What binary messages carry, without their bounds.
struct SocketReader {
    stream: SplitStream<Socket>,
    /// What is unread of the newest.
    message: Bytes,
}

impl AsyncRead for SocketReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.message.is_empty() {
            match ready!(self.stream.poll_next_unpin(cx)).transpose().map_err(io_error)? {
                Some(Message::Binary(message)) => self.message = message,
                // The library answers them.
                Some(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
                Some(Message::Text(_)) => {
                    return Poll::Ready(Err(invalid("a text message, but RTSP uses binary ones")));
                }
                Some(Message::Close(_)) | None => return Poll::Ready(Ok(())),
            }
        }
        let count = self.message.len().min(out.remaining());
        out.put_slice(self.message.get(..count).unwrap_or_default());
        self.message.advance(count);
        Poll::Ready(Ok(()))
    }
}

/// Puts what is written at once into a message.
struct SocketSink(SplitSink<Socket, Message>);

impl AsyncWrite for SocketSink {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.0.poll_ready_unpin(cx)).map_err(io_error)?;
        let part = bytes.get(..bytes.len().min(MAX_SENT)).unwrap_or(bytes);
        self.0.start_send_unpin(Message::Binary(Bytes::copy_from_slice(part))).map_err(io_error)?;
        // The message is taken; what the socket does not take of it now, it takes before the next.
        if let Poll::Ready(sent) = self.0.poll_flush_unpin(cx) {
            sent.map_err(io_error)?;
        }
        Poll::Ready(Ok(part.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_flush_unpin(cx).map_err(io_error)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx).map_err(io_error)
    }
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn io_error(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        Error::ConnectionClosed | Error::AlreadyClosed => io::ErrorKind::BrokenPipe.into(),
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}
