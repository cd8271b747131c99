//! RTP over UDP: one pair of ports for all sessions, and the way of one player that is told apart by its address.

mod sink;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use quinn_udp::{Transmit, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

pub(super) use sink::UdpSink;

/// A flush of many players goes out at once.
const SEND_BUFFER: usize = 4 << 20;
/// RTCP of players, and the packets with which they open their firewalls.
const READ: usize = 2048;

/// Pairs that are open, of all endpoints of the process.
static OPEN: LazyLock<Mutex<HashMap<SocketAddr, Weak<UdpPair>>>> = LazyLock::new(Mutex::default);

/// A pair of ports.
pub(super) struct UdpPair {
    rtp: Half,
    rtcp: Half,
    /// The first port.
    pub(super) port: u16,
    began: Instant,
    players: Arc<Mutex<HashMap<IpAddr, Vec<Heard>>>>,
    listening: [JoinHandle<()>; 2],
}

/// One of the two sockets.
pub(super) struct Half {
    socket: Arc<UdpSocket>,
    state: UdpSocketState,
}

/// When a player was last heard of.
#[derive(Clone)]
pub(super) struct Heard {
    /// Its ports of RTP and RTCP.
    ports: Vec<u16>,
    /// Milliseconds since the pair was opened.
    at: Arc<AtomicU64>,
}

impl UdpPair {
    /// Opens the pair, or joins those who have it.
    pub(super) fn open(ip: IpAddr, port: u16) -> io::Result<Arc<Self>> {
        let mut open = lock(&OPEN);
        let address = SocketAddr::new(ip, port);
        if let Some(pair) = open.get(&address).and_then(Weak::upgrade) {
            return Ok(pair);
        }
        let (rtp, rtcp) = (Half::open(address)?, Half::open(SocketAddr::new(ip, port.saturating_add(1)))?);
        let (began, players) = (Instant::now(), Arc::default());
        let listening =
            [&rtp, &rtcp].map(|half| tokio::spawn(listen(half.socket.clone(), Arc::clone(&players), began)));
        let pair = Arc::new(Self { rtp, rtcp, port, began, players, listening });
        open.retain(|_, pair| pair.strong_count() > 0);
        open.insert(address, Arc::downgrade(&pair));
        Ok(pair)
    }

    /// Listens for a player at that address, while the answer lives.
    pub(super) fn expect(self: &Arc<Self>, address: IpAddr, ports: Vec<u16>) -> Expected {
        let heard = Heard { ports, at: Arc::new(AtomicU64::new(millis(self.began))) };
        lock(&self.players).entry(address).or_default().push(heard.clone());
        Expected { pair: self.clone(), address, heard }
    }
}

impl Drop for UdpPair {
    fn drop(&mut self) {
        self.listening.iter().for_each(JoinHandle::abort);
    }
}

impl Half {
    fn open(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.set_nonblocking(true)?;
        // The system gives what it allows.
        let _ = socket.set_send_buffer_size(SEND_BUFFER);
        socket.bind(&address.into())?;
        let socket = UdpSocket::from_std(socket.into())?;
        let state = UdpSocketState::new((&socket).into())?;
        Ok(Self { socket: Arc::new(socket), state })
    }

    /// Sends datagrams of `segment` bytes each, the last perhaps shorter, with one call.
    fn send(&self, to: SocketAddr, contents: &[u8], segment: usize) -> io::Result<()> {
        let segment_size = (contents.len() > segment).then_some(segment);
        let transmit = Transmit { destination: to, ecn: None, contents, segment_size, src_ip: None };
        self.socket.try_io(Interest::WRITABLE, || self.state.try_send((&*self.socket).into(), &transmit))
    }
}

/// A player that may be heard of.
pub(super) struct Expected {
    pair: Arc<UdpPair>,
    address: IpAddr,
    heard: Heard,
}

impl Expected {
    /// How long ago anything came from it.
    pub(super) fn silent_for(&self) -> Duration {
        let now = millis(self.pair.began);
        Duration::from_millis(now.saturating_sub(self.heard.at.load(Ordering::Relaxed)))
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        let mut players = lock(&self.pair.players);
        if let Some(of_address) = players.get_mut(&self.address) {
            of_address.retain(|heard| !Arc::ptr_eq(&heard.at, &self.heard.at));
            if of_address.is_empty() {
                players.remove(&self.address);
            }
        }
    }
}

/// Hears what players send. Networks rewrite ports: what comes from an unknown one of a known address is a sign of life of
/// all players there.
async fn listen(socket: Arc<UdpSocket>, players: Arc<Mutex<HashMap<IpAddr, Vec<Heard>>>>, began: Instant) {
    let mut buffer = vec![0; READ];
    loop {
        // What a router says of a datagram that was sent is no fault of the socket.
        let Ok((_, from)) = socket.recv_from(&mut buffer).await else {
            tokio::task::yield_now().await;
            continue;
        };
        let players = lock(&players);
        let Some(of_address) = players.get(&from.ip().to_canonical()) else { continue };
        let is_known = of_address.iter().any(|heard| heard.ports.contains(&from.port()));
        for heard in of_address.iter().filter(|heard| !is_known || heard.ports.contains(&from.port())) {
            heard.at.store(millis(began), Ordering::Relaxed);
        }
    }
}

fn millis(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
