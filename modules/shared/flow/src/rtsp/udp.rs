//! RTP over UDP: one pair of ports for all sessions, and the way of one player that is told apart by its address.

mod pinned;
mod ports;
mod sink;

use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub(super) use pinned::Sent;
pub(super) use ports::Ports;
pub(super) use sink::{Route, UdpSink};

use super::options::{Interface, Multicast};
use pinned::{Pinned, whose};

/// A flush of many players goes out at once.
const SEND_BUFFER: usize = 4 << 20;
/// A picture of a publisher comes as hundreds of datagrams at once.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Some cameras send datagrams of 10,000 bytes, which the network takes apart and puts together.
const READ: usize = 64 << 10;
/// Datagrams of one publisher that may wait for its connection; what comes beyond is lost, as any datagram may be.
const MAX_WAITING: usize = 2048;

/// Pairs that are open, of all endpoints of the process.
static OPEN: LazyLock<Mutex<HashMap<SocketAddr, Weak<UdpPair>>>> = LazyLock::new(Mutex::default);

/// What still listened on pairs that were given up a moment ago, by the pair's first address.
static CLOSING: LazyLock<Mutex<Vec<(SocketAddr, JoinHandle<()>)>>> = LazyLock::new(Mutex::default);

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

/// From where to where a datagram goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    /// Which of this machine's addresses its receiver knows; `None`: the one that the routes decide.
    pub(super) from: Option<IpAddr>,
    /// Whereto.
    pub(super) to: SocketAddr,
}

/// One of the two sockets.
#[derive(Clone)]
pub(super) struct Half {
    socket: Arc<UdpSocket>,
    state: Arc<UdpSocketState>,
    /// That a datagram was not taken was said.
    told: Arc<AtomicBool>,
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

impl Half {
    fn open(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
        Self::bound(socket, address)
    }

    /// For datagrams to a group; with `hears`, for those that others send to it as well.
    fn open_group(config: &Multicast, port: u16, hears: bool) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        // Members on this machine listen on the same ports.
        socket.set_reuse_address(true)?;
        #[cfg(target_os = "linux")]
        socket.set_multicast_all_v4(false)?;
        socket.set_multicast_ttl_v4(config.ttl.into())?;
        let through = match &config.interface {
            None => InterfaceIndexOrAddress::Address(Ipv4Addr::UNSPECIFIED),
            Some(Interface::Address(address)) => {
                socket.set_multicast_if_v4(address)?;
                InterfaceIndexOrAddress::Address(*address)
            }
            Some(Interface::Name(name)) => {
                #[cfg(target_os = "linux")]
                socket.bind_device(Some(name.as_bytes()))?;
                InterfaceIndexOrAddress::Index(interface_index(name)?)
            }
        };
        if hears {
            socket.join_multicast_v4_n(&config.group, &through)?;
        }
        Self::bound(socket, (Ipv4Addr::UNSPECIFIED, port).into())
    }

    fn bound(socket: Socket, address: SocketAddr) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        // The system gives what it allows.
        let _ = socket.set_send_buffer_size(SEND_BUFFER);
        socket.bind(&address.into())?;
        let socket = UdpSocket::from_std(socket.into())?;
        let state = UdpSocketState::new((&socket).into())?;
        let_be_cut(&socket, address);
        Ok(Self { socket: Arc::new(socket), state: Arc::new(state), told: Arc::default() })
    }

    /// Sends datagrams of `segment` bytes each, the last perhaps shorter, with one call where the system and the interface
    /// cut them.
    fn send(&self, way: Way, contents: &[u8], segment: usize) -> io::Result<()> {
        let most = self.state.max_gso_segments();
        if contents.len() > segment && contents.len().div_ceil(segment.max(1)) <= most {
            match self.send_piece(way, contents, segment) {
                Err(error) if !is_about_room(&error) => {}
                sent => return sent,
            }
        }
        let mut first = true;
        for datagram in contents.chunks(segment.max(1)) {
            let sent = self.send_piece(way, datagram, segment);
            // Once some have left, the others go or are lost: nothing may leave twice.
            match sent {
                Err(error) if first && is_about_room(&error) => return Err(error),
                Err(error) if !is_about_room(&error) && !self.told.swap(true, Ordering::Relaxed) => {
                    tracing::warn!(
                        peer = %way.to,
                        "a datagram of {} bytes was not taken: {error}; where the network takes only smaller ones, set mtu",
                        datagram.len()
                    );
                }
                _ => {}
            }
            first = false;
        }
        Ok(())
    }

    fn send_piece(&self, Way { from, to }: Way, contents: &[u8], segment: usize) -> io::Result<()> {
        let segment_size = (contents.len() > segment).then_some(segment);
        let transmit = Transmit { destination: to, ecn: None, contents, segment_size, src_ip: from };
        self.socket.try_io(Interest::WRITABLE, || self.state.try_send((&*self.socket).into(), &transmit))
    }
}

/// What is too large for a network on the way arrives in pieces: the library forbids that for the sake of its own
/// protocol, and then it never arrives, without a word. The system may know nothing of it.
fn let_be_cut(socket: &UdpSocket, address: SocketAddr) {
    #[cfg(target_os = "linux")]
    {
        use rustix::net::sockopt::{
            Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
        };
        // IPv4 in IPv6's clothes as well.
        let _ = set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::DONT);
        if address.is_ipv6() {
            let _ = set_ipv6_mtu_discover(socket, Ipv6PathMtuDiscovery::DONT);
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (socket, address);
}

/// There is no room at the moment: no reason to try in another way.
fn is_about_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory)
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

/// The system's number of an interface.
fn interface_index(name: &str) -> io::Result<u32> {
    let text = std::fs::read_to_string(format!("/sys/class/net/{name}/ifindex"));
    text.map_err(|_| io::Error::new(io::ErrorKind::NotFound, format!("there is no interface {name}")))?
        .trim()
        .parse()
        .map_err(io::Error::other)
}

fn millis(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::net::sockopt::{Ipv4PathMtuDiscovery, ip_mtu_discover};

    use super::*;

    #[tokio::test]
    async fn a_pair_that_was_given_up_is_opened_again_at_once() {
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let opened = |port| Some((port, UdpPair::open(local, port).ok()?));
        let (port, pair) = (20_000..60_000).step_by(2).find_map(opened).unwrap();
        drop(pair);
        for _ in 0..3 {
            UdpPair::closed(local, port).await;
            // What listens has begun.
            let pair = UdpPair::open(local, port).unwrap();
            tokio::task::yield_now().await;
            drop(pair);
        }
    }

    #[tokio::test]
    async fn datagrams_may_be_cut_on_the_way() {
        for ip in ["127.0.0.1", "0.0.0.0", "::"] {
            let Ok(half) = Half::open(SocketAddr::new(ip.parse().unwrap(), 0)) else {
                assert_eq!(ip, "::", "a machine without IPv6");
                continue;
            };
            let set = ip_mtu_discover(&*half.socket).unwrap();
            assert_eq!(set, Ipv4PathMtuDiscovery::DONT, "{ip}");
        }
    }
}
