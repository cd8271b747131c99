//! A listening TCP socket, and what every accepted connection gets.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};

/// Connections that the kernel completes for us before `accept` fetches them.
const BACKLOG: i32 = 1024;
/// What the kernel may hold of a player's unsent bytes. With the default, which grows to megabytes, a dead
/// player pins all of that and is noticed late. The kernel counts twice this for its own bookkeeping.
pub const SEND_BUFFER: usize = 128 * 1024;
/// Backstop for peers that vanish without a word: bytes not acknowledged for so long end the connection.
const USER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long `accept` rests when the process or the kernel is out of something.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);
/// How often that is said of one listener: at the limit every connection that ends lets one in.
const EXHAUSTED_SAID: Duration = Duration::from_secs(10);

/// Why an address can't be listened on. The text says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// EADDRINUSE.
    #[error("{0} is in use by another program; choose another port or stop it")]
    InUse(SocketAddr),
    /// EADDRNOTAVAIL.
    #[error("{0} is not an address of this machine; listen on 0.0.0.0 or on one that is")]
    NotLocal(SocketAddr),
    /// EACCES, EPERM.
    #[error("{0} needs a privilege that this process does not have; choose a port of 1024 or above")]
    Forbidden(SocketAddr),
    /// EAFNOSUPPORT.
    #[error("{0} needs IPv6, which this machine does not have; listen on 0.0.0.0")]
    NoIpv6(SocketAddr),
    /// Anything else the kernel says.
    #[error("{address} can't be listened on: {source}")]
    Other {
        /// Where.
        address: SocketAddr,
        /// The kernel's word.
        source: io::Error,
    },
}

impl ListenError {
    fn of(address: SocketAddr, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::AddrInUse => Self::InUse(address),
            io::ErrorKind::AddrNotAvailable => Self::NotLocal(address),
            io::ErrorKind::PermissionDenied => Self::Forbidden(address),
            io::ErrorKind::Unsupported if address.is_ipv6() => Self::NoIpv6(address),
            // std has no kind for EAFNOSUPPORT.
            #[cfg(target_os = "linux")]
            _ if address.is_ipv6() && error.raw_os_error() == Some(97) => Self::NoIpv6(address),
            _ => Self::Other { address, source: error },
        }
    }
}

/// A listening TCP socket.
#[derive(Debug)]
pub struct Listener {
    inner: TcpListener,
    address: SocketAddr,
    exhausted_said: Mutex<Option<Instant>>,
}

impl Listener {
    /// Listens on exactly this address; `[::]` takes IPv4 too, `0.0.0.0` IPv4 alone. Needs a tokio runtime.
    pub fn bind(address: SocketAddr) -> Result<Self, ListenError> {
        let listen = || -> io::Result<TcpListener> {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
            if address.is_ipv6() {
                socket.set_only_v6(!address.ip().is_unspecified())?;
            }
            // A restarted module gets its port although connections of the one before are in TIME_WAIT.
            socket.set_reuse_address(true)?;
            socket.set_nonblocking(true)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            TcpListener::from_std(socket.into())
        };
        let inner = listen().map_err(|error| ListenError::of(address, error))?;
        let address = inner.local_addr().unwrap_or(address);
        Ok(Self { inner, address, exhausted_said: Mutex::default() })
    }

    /// Where it listens, with the port that port 0 became.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next connection, tuned for live media, and its peer (an IPv4 peer of `[::]` in its IPv4 form).
    /// Cancel-safe. Errors that concern one connection, or that pass, are not the caller's: it never fails.
    pub async fn accept(&self) -> (TcpStream, SocketAddr) {
        loop {
            match self.inner.accept().await {
                Ok((stream, peer)) => {
                    tune(&stream);
                    return (stream, canonical(peer));
                }
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => {
                    self.say_exhausted(&error);
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                }
            }
        }
    }

    fn say_exhausted(&self, error: &io::Error) {
        let now = Instant::now();
        let mut said = self.exhausted_said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_none_or(|said| now.duration_since(said) >= EXHAUSTED_SAID) {
            *said = Some(now);
            tracing::warn!(address = %self.address, "can't accept connections for now: {error}");
        }
    }
}

/// The connection died between the kernel's accept and ours.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

/// Pictures leave at once, unsent bytes are bounded, dead peers are noticed. None of it is worth a
/// connection, so failures are left alone.
pub(super) fn tune(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let socket = SockRef::from(stream);
    let _ = socket.set_send_buffer_size(SEND_BUFFER);
    let _ = socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(Duration::from_secs(15))
            .with_interval(Duration::from_secs(5))
            .with_retries(3),
    );
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_user_timeout(Some(USER_TIMEOUT));
    #[cfg(not(target_os = "linux"))]
    let _ = USER_TIMEOUT;
}

/// `::ffff:192.0.2.1` is 192.0.2.1: what logs show and what `allow` is compared with.
pub fn canonical(peer: SocketAddr) -> SocketAddr {
    match peer.ip() {
        IpAddr::V6(_) => SocketAddr::new(peer.ip().to_canonical(), peer.port()),
        IpAddr::V4(_) => peer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn an_accepted_connection_is_tuned_for_live_media() {
        let listener = Listener::bind(local("127.0.0.1:0")).unwrap();
        let address = listener.address();
        assert_ne!(address.port(), 0);
        let (_client, (server, peer)) =
            tokio::join!(async { TcpStream::connect(address).await.unwrap() }, listener.accept());
        assert!(peer.ip().is_loopback());
        assert!(server.nodelay().unwrap());
        let socket = SockRef::from(&server);
        let buffer = socket.send_buffer_size().unwrap();
        assert!((32 * 1024..=2 * SEND_BUFFER).contains(&buffer), "{buffer}");
        assert!(socket.keepalive().unwrap());
    }

    #[tokio::test]
    async fn a_taken_port_is_said_in_a_sentence_with_the_fix() {
        let first = Listener::bind(local("127.0.0.1:0")).unwrap();
        let error = Listener::bind(first.address()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("{} is in use by another program; choose another port or stop it", first.address())
        );
        drop(first);
    }

    #[tokio::test]
    async fn a_foreign_address_is_said_to_be_foreign() {
        let error = Listener::bind(local("192.0.2.1:0")).unwrap_err();
        assert!(matches!(error, ListenError::NotLocal(_)), "{error}");
    }

    #[tokio::test]
    async fn a_port_is_free_again_right_after_its_listener_is_gone() {
        let first = Listener::bind(local("127.0.0.1:0")).unwrap();
        let address = first.address();
        let (client, (server, _)) =
            tokio::join!(async { TcpStream::connect(address).await.unwrap() }, first.accept());
        // The side that closes first keeps the port in TIME_WAIT.
        drop(server);
        drop(client);
        drop(first);
        Listener::bind(address).unwrap();
    }

    #[tokio::test]
    async fn the_ipv6_wildcard_takes_ipv4_peers_and_names_them_in_ipv4() {
        let listener = match Listener::bind(local("[::]:0")) {
            Ok(listener) => listener,
            Err(ListenError::NoIpv6(_)) => return eprintln!("skipped: no IPv6 here"),
            Err(error) => panic!("{error}"),
        };
        let port = listener.address().port();
        let (_client, (_server, peer)) =
            tokio::join!(async { TcpStream::connect(("127.0.0.1", port)).await.unwrap() }, listener.accept());
        assert_eq!(peer.ip(), IpAddr::from([127, 0, 0, 1]));
    }
}
