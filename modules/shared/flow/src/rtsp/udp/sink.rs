//! A player's way by UDP, as the fan-out writes to it: the bytes that go into an RTSP connection are taken apart into
//! datagrams again, and those of one size leave together.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::AsyncWrite;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{UdpPair, Way};

/// Datagrams that leave with one call, and bytes of them.
const MAX_SEGMENTS: usize = 60;
const MAX_BATCH: usize = 60_000;
/// What a player joins with comes in pieces: sockets have room for some hundred packets only.
const PACE: usize = 64 << 10;
const PAUSE: Duration = Duration::from_millis(2);

/// Where a channel leads.
pub(in crate::rtsp) struct Route {
    /// Whence.
    pub(in crate::rtsp) pair: Arc<UdpPair>,
    /// Its number in the framing.
    pub(in crate::rtsp) channel: u8,
    /// From the port of RTCP.
    pub(in crate::rtsp) rtcp: bool,
    /// From where to where.
    pub(in crate::rtsp) way: Way,
}

/// See the module's text.
pub(in crate::rtsp) struct UdpSink {
    routes: Vec<Route>,
    /// Nothing leaves before the answer to PLAY has.
    gate: Option<oneshot::Receiver<()>>,
    batch: Vec<u8>,
    sent: usize,
    since: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl UdpSink {
    /// For a peer at these addresses; it waits for `gate` where there is one.
    pub(in crate::rtsp) fn new(routes: Vec<Route>, gate: Option<oneshot::Receiver<()>>) -> Self {
        Self { routes, gate, batch: Vec::new(), sent: 0, since: Instant::now(), sleep: None }
    }

    /// The next frame in `bytes`: its channel, its packet, and what is behind it.
    fn frame(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
        let [b'$', channel, high, low, rest @ ..] = bytes else { return None };
        let (packet, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low])))?;
        Some((*channel, packet, rest))
    }

    /// Waits until so much was not sent just now.
    fn poll_pace(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(sleep) = &mut self.sleep {
            ready!(sleep.as_mut().poll(cx));
            self.sleep = None;
            self.sent = 0;
            self.since = Instant::now();
        }
        if self.since.elapsed() >= PAUSE {
            self.sent = 0;
            self.since = Instant::now();
        }
        if self.sent >= PACE {
            let mut sleep = Box::pin(sleep_until(self.since + PAUSE));
            let polled = sleep.as_mut().poll(cx);
            self.sleep = Some(sleep);
            ready!(polled);
            self.sleep = None;
            self.sent = 0;
            self.since = Instant::now();
        }
        Poll::Ready(())
    }
}

impl AsyncWrite for UdpSink {
    /// Takes whole frames only.
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if let Some(gate) = &mut this.gate {
            // Dropped, there is no connection any more.
            if ready!(Pin::new(gate).poll(cx)).is_err() {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            this.gate = None;
        }
        ready!(this.poll_pace(cx));
        let mut rest = bytes;
        let mut target = None;
        let mut segment = 0;
        this.batch.clear();
        for _ in 0..MAX_SEGMENTS {
            let Some((channel, packet, behind)) = Self::frame(rest) else { break };
            let Some(route) = this.routes.iter().position(|route| route.channel == channel) else {
                rest = behind;
                continue;
            };
            let fits = match target {
                None => {
                    (target, segment) = (Some(route), packet.len());
                    true
                }
                // All are as long as the first, but for the last.
                Some(before) => {
                    before == route
                        && packet.len() <= segment
                        && this.batch.len().is_multiple_of(segment.max(1))
                        && this.batch.len() + packet.len() <= MAX_BATCH
                }
            };
            if !fits {
                break;
            }
            this.batch.extend_from_slice(packet);
            rest = behind;
        }
        let taken = bytes.len() - rest.len();
        if taken == 0 {
            // No whole frame: nothing that can be sent.
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidInput, "half a frame")));
        }
        if let Some(Route { pair, rtcp, way, .. }) = target.and_then(|route| this.routes.get(route)) {
            let half = if *rtcp { &pair.rtcp } else { &pair.rtp };
            loop {
                match half.send(*way, &this.batch, segment) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        ready!(half.socket.poll_send_ready(cx))?;
                    }
                    // A datagram that the network does not take is lost, as any may be.
                    Ok(()) | Err(_) => break,
                }
            }
            this.sent += this.batch.len();
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};

    use av_rtsp::transport::Pair;
    use tokio::io::AsyncWriteExt;
    use tokio::net::UdpSocket;

    use super::super::Sent;
    use super::*;
    use crate::rtmp::peer::soon;

    const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn framed(channel: u8, packet: &[u8]) -> Vec<u8> {
        let length = u16::try_from(packet.len()).unwrap().to_be_bytes();
        [&[b'$', channel, length[0], length[1]], packet].concat()
    }

    async fn received(socket: &UdpSocket) -> Vec<u8> {
        let mut buffer = vec![0; 2048];
        let count = soon("a datagram", socket.recv(&mut buffer)).await.unwrap();
        buffer.truncate(count);
        buffer
    }

    fn pair() -> Arc<UdpPair> {
        // Whichever pair is free.
        (20_000..60_000).step_by(2).find_map(|port| UdpPair::open_own(LOCAL, port).ok()).unwrap()
    }

    #[tokio::test]
    async fn frames_become_datagrams_of_their_channel_in_order_once_the_gate_is_open() {
        let [rtp, rtcp] =
            [UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap()];
        let pair = pair();
        let routes = [(0, false, &rtp), (1, true, &rtcp)].map(|(channel, rtcp, socket)| {
            let way = Way { from: Some(LOCAL), to: socket.local_addr().unwrap() };
            Route { pair: pair.clone(), channel, rtcp, way }
        });
        let (open, gate) = oneshot::channel();
        let mut sink = UdpSink::new(routes.into(), Some(gate));
        let packets: Vec<Vec<u8>> =
            (0..100_u8).map(|at| vec![at; if at % 7 == 6 { 300 } else { 1000 }]).collect();
        let mut bytes = framed(1, b"report");
        for packet in &packets {
            bytes.extend(framed(0, packet));
            // Nobody set that channel up.
            bytes.extend(framed(9, b"nothing"));
        }
        let early = tokio::time::timeout(Duration::from_millis(20), sink.write_all(&bytes)).await;
        assert!(early.is_err(), "nothing leaves before the answer");
        open.send(()).unwrap();
        let writing = tokio::spawn(async move { sink.write_all(&bytes).await });
        assert_eq!(received(&rtcp).await, b"report");
        for packet in &packets {
            assert_eq!(&received(&rtp).await, packet);
        }
        soon("writing", writing).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_player_is_heard_by_its_port_and_by_its_address_where_the_port_is_unknown() {
        let pair = pair();
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let to = SocketAddr::new(LOCAL, pair.port + 1);
        let own = socket.local_addr().unwrap().port();
        for ports in [vec![own, 1], vec![1, 2]] {
            let expected = pair.expect(LOCAL, ports);
            tokio::time::sleep(Duration::from_millis(30)).await;
            soon("a sign of life", async {
                while expected.silent_for() > Duration::from_millis(20) {
                    socket.send_to(b"rr", to).await.unwrap();
                    tokio::task::yield_now().await;
                }
            })
            .await;
        }
        assert!(super::super::lock(&pair.players).is_empty());
    }

    #[tokio::test]
    async fn packets_that_leave_together_are_taken_one_by_one() {
        let (from, to) = (pair(), pair());
        let ports = Pair { rtp: from.port, rtcp: from.port + 1 };
        let (_expected, mut datagrams) = to.take(LOCAL, [Sent { medium: 1, payload_type: 96, ports }]);
        let way = Way { from: None, to: SocketAddr::new(LOCAL, to.port) };
        let mut sink = UdpSink::new(vec![Route { pair: from, channel: 0, rtcp: false, way }], None);
        let packet = |at| [&[0x80, 96][..], &vec![at; if at == 19 { 300 } else { 1000 }]].concat();
        let packets: Vec<Vec<u8>> = (0..20_u8).map(packet).collect();
        let bytes: Vec<u8> = packets.iter().flat_map(|packet| framed(0, packet)).collect();
        sink.write_all(&bytes).await.unwrap();
        for packet in &packets {
            let datagram = soon("a datagram", datagrams.recv()).await.unwrap();
            assert_eq!((datagram.medium, datagram.rtcp, &datagram.data[..]), (1, false, &packet[..]));
        }
    }
}
