//! A connection that begins with HTTP: one way of a tunnel, or both.

mod websocket;

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use av_rtsp::message::HttpRequest;
use av_rtsp::tunnel::{self, Decoder, Opening};
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::sync::oneshot;

use super::{Connection, End, Reader, Way};
use crate::fanout::Sink;
use crate::net::Counted;
use crate::net::listeners::Port;
use crate::rtsp::port::Rtsp;

/// From the way down to the way up.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Ways down of a listening address that wait for their ways up, by cookie.
#[derive(Default)]
pub(in crate::rtsp) struct Tunnels(Mutex<HashMap<String, oneshot::Sender<Up>>>);

impl Tunnels {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, oneshot::Sender<Up>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A way down that waits.
struct Waiting {
    port: Arc<Port<Rtsp>>,
    cookie: String,
    up: oneshot::Receiver<Up>,
}

impl Waiting {
    /// `None`: another one waits with this cookie.
    fn begin(port: &Arc<Port<Rtsp>>, cookie: String) -> Option<Self> {
        let mut tunnels = port.state.tunnels.lock();
        if tunnels.contains_key(&cookie) {
            return None;
        }
        let (sender, up) = oneshot::channel();
        tunnels.insert(cookie.clone(), sender);
        drop(tunnels);
        Some(Self { port: port.clone(), cookie, up })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.up.close();
        let mut tunnels = self.port.state.tunnels.lock();
        // Another one may have begun with the cookie since this one was found.
        if tunnels.get(&self.cookie).is_some_and(oneshot::Sender::is_closed) {
            tunnels.remove(&self.cookie);
        }
    }
}

/// The connection of a way up.
struct Up {
    reader: Reader,
    /// Nothing is ever written, but to close it would be an answer.
    _sink: Sink,
    rest: BytesMut,
    _counted: Option<Counted>,
}

impl Connection {
    /// Goes on with what an HTTP request begins.
    pub(super) async fn http(&mut self, request: &HttpRequest) -> Result<(), End> {
        if std::mem::replace(&mut self.tunnelled, true) {
            return self.refuse_http("400 Bad Request", "There is a tunnel already.").await;
        }
        match Opening::of(request) {
            Opening::Down { cookie } => self.tunnel_down(cookie).await,
            Opening::Up { cookie } => self.tunnel_up(&cookie).await,
            Opening::WebSocket { key } => self.websocket(&key).await,
            Opening::Refused(why) => self.refuse_http("400 Bad Request", &why.to_string()).await,
        }
    }

    async fn refuse_http(&mut self, status: &str, why: &str) -> Result<(), End> {
        self.send(tunnel::refused(status, why).into()).await?;
        Err(End::Done)
    }

    async fn tunnel_down(&mut self, cookie: String) -> Result<(), End> {
        let Some(mut waiting) = Waiting::begin(&self.port, cookie) else {
            return self.refuse_http("409 Conflict", "This x-sessioncookie is in use.").await;
        };
        self.send(tunnel::accepted().into()).await?;
        let up = tokio::select! {
            up = &mut waiting.up => up.map_err(|_| End::Done)?,
            closed = drained(&mut self.reader) => return Err(closed),
            () = tokio::time::sleep(PATIENCE) => return Err(End::HalfTunnel),
        };
        drop(waiting);
        let down = std::mem::replace(&mut self.reader, Box::new(tokio::io::empty()));
        self.reader = Box::new(TunnelReader::new(up, down)?);
        self.start_over();
        Ok(())
    }

    /// Hands the connection over to that of the way down.
    async fn tunnel_up(&mut self, cookie: &str) -> Result<(), End> {
        let waiting = self.port.state.tunnels.lock().remove(cookie);
        let Some(waiting) = waiting else {
            return self.refuse_http("404 Not Found", "No GET with this x-sessioncookie is waiting.").await;
        };
        let rest = self.session.take_rest();
        let reader = std::mem::replace(&mut self.reader, Box::new(tokio::io::empty()));
        if let Way::Own(sink) = std::mem::replace(&mut self.way, Way::Gone) {
            // The way down may be gone already.
            let _ = waiting.send(Up { reader, _sink: sink, rest, _counted: self.counted.take() });
        }
        Err(End::Done)
    }
}

/// Waits until the peer closes; what it sends means nothing.
async fn drained(reader: &mut Reader) -> End {
    let mut nothing = [0; 256];
    loop {
        match reader.read(&mut nothing).await {
            Ok(0) => return End::Closed,
            Ok(_) => {}
            Err(error) => return error.into(),
        }
    }
}

/// The way up, decoded. It ends with either connection.
struct TunnelReader {
    up: Up,
    down: Reader,
    decoder: Decoder,
    decoded: BytesMut,
}

impl TunnelReader {
    fn new(mut up: Up, down: Reader) -> io::Result<Self> {
        let (mut decoder, mut decoded) = (Decoder::default(), BytesMut::new());
        decode(&mut decoder, &std::mem::take(&mut up.rest), &mut decoded)?;
        Ok(Self { up, down, decoder, decoded })
    }
}

fn decode(decoder: &mut Decoder, coded: &[u8], out: &mut BytesMut) -> io::Result<()> {
    decoder.decode(coded, out).map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))
}

impl AsyncRead for TunnelReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            let mut nothing = [0; 256];
            let mut nothing = ReadBuf::new(&mut nothing);
            if let Poll::Ready(read) = Pin::new(&mut this.down).poll_read(cx, &mut nothing) {
                read?;
                if nothing.filled().is_empty() {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            if !this.decoded.is_empty() {
                let count = this.decoded.len().min(out.remaining());
                out.put_slice(&this.decoded.split_to(count));
                return Poll::Ready(Ok(()));
            }
            let mut coded = [0; 4096];
            let mut coded = ReadBuf::new(&mut coded);
            ready!(Pin::new(&mut this.up.reader).poll_read(cx, &mut coded))?;
            if coded.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            decode(&mut this.decoder, coded.filled(), &mut this.decoded)?;
        }
    }
}
