//! RTP over UDP: one pair of ports for all sessions, and the way of one player that is told apart by its address.

mod half;
mod pinned;
mod ports;
mod sink;

use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn_udp::RecvMeta;
use tokio::io::Interest;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub(super) use half::Way;
pub(super) use pinned::Sent;
pub(super) use ports::Ports;
pub(super) use sink::{Route, UdpSink};

use super::options::Multicast;
use half::Half;
use pinned::{Pinned, whose};

/// Some cameras send datagrams of 10,000 bytes, which the network takes apart and puts together.
const READ: usize = 64 << 10;
/// Datagrams of one publisher that may wait for its connection; what comes beyond is lost, as any datagram may be.
const MAX_WAITING: usize = 2048;

/// Pairs that are open, of all endpoints of the process.
static OPEN: LazyLock<Mutex<HashMap<SocketAddr, Weak<UdpPair>>>> = LazyLock::new(Mutex::default);

/// What still listened on pairs that were given up a moment ago.
static CLOSING: LazyLock<Mutex<Vec<Closing>>> = LazyLock::new(Mutex::default);

/// With the pair's first address.
type Closing = (SocketAddr, JoinHandle<()>);

/// A pair of ports.
pub(super) struct UdpPair {
    rtp: Half,
    rtcp: Half,
    /// The first port.
    pub(super) port: u16,
    began: Instant,
    players: Arc<Mutex<HashMap<IpAddr, Vec<Heard>>>>,
    listening: Vec<JoinHandle<()>>,
}

/// When a player or publisher was last heard of.
struct Heard {
    /// Milliseconds since the pair was opened.
    at: Arc<AtomicU64>,
    who: Who,
}

enum Who {
    /// Its ports of RTP and RTCP.
    Player(Vec<u16>),
    /// Where its datagrams go, and which are its own.
    Publisher(mpsc::Sender<Datagram>, Vec<Pinned>),
}

/// What came from a publisher.
pub(super) struct Datagram {
    /// Of which medium.
    pub(super) medium: usize,
    /// It came to the port of RTCP.
    pub(super) rtcp: bool,
    /// The packet.
    pub(super) data: Bytes,
}

impl UdpPair {
    /// Opens the pair, or joins those who have it.
    pub(super) fn open(ip: IpAddr, port: u16) -> io::Result<Arc<Self>> {
        let mut open = lock(&OPEN);
        let address = SocketAddr::new(ip, port);
        if let Some(pair) = open.get(&address).and_then(Weak::upgrade) {
            return Ok(pair);
        }
        let pair = Self::open_own(ip, port)?;
        open.retain(|_, pair| pair.strong_count() > 0);
        open.insert(address, Arc::downgrade(&pair));
        Ok(pair)
    }

    /// Waits until nothing of a pair that was given up holds its ports any more.
    pub(super) async fn closed(ip: IpAddr, port: u16) {
        let address = SocketAddr::new(ip, port);
        let closing: Vec<_> = lock(&CLOSING).extract_if(.., |(closing, _)| *closing == address).collect();
        for (_, listening) in closing {
            // It was cancelled, and says so.
            let _ = listening.await;
        }
    }

    /// Opens a pair that nobody joins.
    pub(super) fn open_own(ip: IpAddr, port: u16) -> io::Result<Arc<Self>> {
        let [rtp, rtcp] = [port, port.saturating_add(1)].map(|port| Half::open(SocketAddr::new(ip, port)));
        Ok(Self::of(rtp?, rtcp?, port))
    }

    /// Opens the pair that a group is sent from, and where reports to the group come in.
    pub(super) fn open_group(config: &Multicast, port: u16) -> io::Result<Arc<Self>> {
        let rtp = Half::open_group(config, port, false)?;
        let rtcp = Half::open_group(config, port.saturating_add(1), true)?;
        Ok(Self::of(rtp, rtcp, port))
    }

    fn of(rtp: Half, rtcp: Half, port: u16) -> Arc<Self> {
        let (began, players) = (Instant::now(), Arc::default());
        let listening = [(&rtp, false), (&rtcp, true)]
            .map(|(half, rtcp)| tokio::spawn(listen(half.clone(), rtcp, Arc::clone(&players), began)))
            .into();
        Arc::new(Self { rtp, rtcp, port, began, players, listening })
    }

    /// Sends a report, if the socket takes it.
    pub(super) fn report(&self, way: Way, packet: &[u8]) {
        // A datagram that is not taken is lost, as any may be.
        let _ = self.rtcp.send(way, packet, packet.len());
    }

    /// Listens for a player at that address, while the answer lives.
    pub(super) fn expect(self: &Arc<Self>, address: IpAddr, ports: Vec<u16>) -> Expected {
        self.enter(address, Who::Player(ports))
    }

    /// Takes the datagrams of a publisher at that address, while the first answer lives.
    pub(super) fn take(
        self: &Arc<Self>,
        address: IpAddr,
        media: impl IntoIterator<Item = Sent>,
    ) -> (Expected, mpsc::Receiver<Datagram>) {
        let (taker, datagrams) = mpsc::channel(MAX_WAITING);
        let media = media.into_iter().map(Pinned::new).collect();
        (self.enter(address, Who::Publisher(taker, media)), datagrams)
    }

    fn enter(self: &Arc<Self>, address: IpAddr, who: Who) -> Expected {
        let address = address.to_canonical();
        let at = Arc::new(AtomicU64::new(millis(self.began)));
        lock(&self.players).entry(address).or_default().push(Heard { at: at.clone(), who });
        Expected { pair: self.clone(), address, at }
    }
}

impl Drop for UdpPair {
    fn drop(&mut self) {
        let Ok(address) = self.rtp.socket.local_addr() else { return };
        let mut closing = lock(&CLOSING);
        closing.retain(|(_, listening)| !listening.is_finished());
        for listening in self.listening.drain(..) {
            listening.abort();
            closing.push((address, listening));
        }
    }
}

/// A player that may be heard of.
pub(super) struct Expected {
    pub(super) pair: Arc<UdpPair>,
    address: IpAddr,
    at: Arc<AtomicU64>,
}

impl Expected {
    /// How long ago anything came from it.
    pub(super) fn silent_for(&self) -> Duration {
        let now = millis(self.pair.began);
        Duration::from_millis(now.saturating_sub(self.at.load(Ordering::Relaxed)))
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        let mut players = lock(&self.pair.players);
        if let Some(of_address) = players.get_mut(&self.address) {
            of_address.retain(|heard| !Arc::ptr_eq(&heard.at, &self.at));
            if of_address.is_empty() {
                players.remove(&self.address);
            }
        }
    }
}

/// Hears what players and publishers send. Networks rewrite ports: what comes from an unknown one of a known address is a
/// sign of life of all players there; for publishers see [`pinned`].
async fn listen(half: Half, rtcp: bool, players: Arc<Mutex<HashMap<IpAddr, Vec<Heard>>>>, began: Instant) {
    let Half { socket, state, .. } = half;
    let mut buffer = vec![0; READ];
    let mut meta = RecvMeta::default();
    loop {
        let received = socket.async_io(Interest::READABLE, || {
            let buffers = &mut [IoSliceMut::new(&mut buffer)];
            state.recv((&*socket).into(), buffers, std::slice::from_mut(&mut meta))
        });
        // What a router says of a datagram that was sent is no fault of the socket.
        if received.await.is_err() {
            tokio::task::yield_now().await;
            continue;
        }
        let from = meta.addr;
        let mut players = lock(&players);
        let Some(of_address) = players.get_mut(&from.ip().to_canonical()) else { continue };
        let mut is_publisher = false;
        // The system hands on datagrams of one size that came together as one piece.
        for data in buffer.get(..meta.len).unwrap_or_default().chunks(meta.stride.max(1)) {
            is_publisher |= published(of_address, (from.port(), rtcp), data, began);
        }
        if !is_publisher {
            player_is_heard(of_address, from.port(), began);
        }
    }
}

/// Hands a datagram to the publisher that sent it, if it was one.
fn published(of_address: &mut [Heard], (port, rtcp): (u16, bool), data: &[u8], began: Instant) -> bool {
    let media = of_address.iter_mut().enumerate().filter_map(|(index, heard)| match &mut heard.who {
        Who::Publisher(_, media) => Some(media.iter_mut().map(move |pinned| (index, pinned))),
        Who::Player(_) => None,
    });
    let Some((index, medium)) = whose(media.flatten(), port, rtcp, data) else { return false };
    if let Some(Heard { at, who: Who::Publisher(taker, _) }) = of_address.get(index) {
        at.store(millis(began), Ordering::Relaxed);
        let _ = taker.try_send(Datagram { medium, rtcp, data: Bytes::copy_from_slice(data) });
    }
    true
}

fn player_is_heard(of_address: &[Heard], port: u16, began: Instant) {
    let players = || {
        of_address.iter().filter_map(|heard| match &heard.who {
            Who::Player(ports) => Some((ports, &heard.at)),
            Who::Publisher(..) => None,
        })
    };
    let is_known = players().any(|(ports, _)| ports.contains(&port));
    for (_, at) in players().filter(|(ports, _)| !is_known || ports.contains(&port)) {
        at.store(millis(began), Ordering::Relaxed);
    }
}

fn millis(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[tokio::test]
    async fn a_pair_that_was_given_up_is_opened_again_at_once() {
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        // Where no other test looks for ports.
        let opened = |port| Some((port, UdpPair::open(local, port).ok()?));
        let (port, pair) = (61_000..65_000).step_by(2).find_map(opened).unwrap();
        drop(pair);
        for _ in 0..3 {
            UdpPair::closed(local, port).await;
            // What listens has begun.
            let pair = UdpPair::open(local, port).unwrap();
            tokio::task::yield_now().await;
            drop(pair);
        }
    }
}
