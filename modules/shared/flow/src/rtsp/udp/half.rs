//! One socket of a pair: how it is opened, and how datagrams leave it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use quinn_udp::{Transmit, UdpSocketState};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::rtsp::options::{Interface, Multicast};

/// A flush of many players goes out at once.
const SEND_BUFFER: usize = 4 << 20;
/// A picture of a publisher comes as hundreds of datagrams at once.
const RECEIVE_BUFFER: usize = 4 << 20;

/// From where to where a datagram goes.
#[derive(Clone, Copy, Debug)]
pub(in crate::rtsp) struct Way {
    /// Which of this machine's addresses its receiver knows; `None`: the one that the routes decide.
    pub(in crate::rtsp) from: Option<IpAddr>,
    /// Whereto.
    pub(in crate::rtsp) to: SocketAddr,
}

/// One of the two sockets.
#[derive(Clone)]
pub(super) struct Half {
    pub(super) socket: Arc<UdpSocket>,
    pub(super) state: Arc<UdpSocketState>,
    /// That a datagram was not taken was said.
    told: Arc<AtomicBool>,
}

impl Half {
    pub(super) fn open(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
        Self::bound(socket, address)
    }

    /// For datagrams to a group; with `hears`, for those that others send to it as well.
    pub(super) fn open_group(config: &Multicast, port: u16, hears: bool) -> io::Result<Self> {
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
    pub(super) fn send(&self, way: Way, contents: &[u8], segment: usize) -> io::Result<()> {
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
                        "a datagram of {} bytes could not be sent: {error}; if the network allows only \
                         smaller ones, set mtu",
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

/// The system's number of an interface.
fn interface_index(name: &str) -> io::Result<u32> {
    let text = std::fs::read_to_string(format!("/sys/class/net/{name}/ifindex"));
    text.map_err(|_| io::Error::new(io::ErrorKind::NotFound, format!("there is no interface {name}")))?
        .trim()
        .parse()
        .map_err(io::Error::other)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::net::sockopt::{Ipv4PathMtuDiscovery, ip_mtu_discover};

    use super::*;

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
