//! Connecting: host name to addresses to a connection, with TLS where the scheme says so.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{Counted, Net, TlsError, listen, tls};
use crate::config::ClientTls;
use crate::trouble::Reason;

/// For the name and the connection together; the TLS handshake has its own.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Lead that each address has over the next one (RFC 8305 §5).
const STAGGER: Duration = Duration::from_millis(250);
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 16;

/// An open connection, in two halves that need each other's company only inside.
pub struct Connection {
    /// What the peer sends.
    pub reader: Box<dyn AsyncRead + Send + Unpin>,
    /// What goes to the peer. Dropping both halves closes the connection.
    pub writer: Box<dyn AsyncWrite + Send + Unpin>,
    /// The address that answered.
    pub peer: SocketAddr,
    /// The address of this machine from which it is reached.
    pub local: SocketAddr,
    /// One of [`Net::dialled`]; whoever takes the halves out keeps it with them.
    pub counted: Counted,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// Why there is no connection. The text names host and port and says what to check; `host` is shown as
/// `host:port`, IPv6 in brackets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// Neither `--hosts` nor DNS knows the name.
    #[error("{host} is not a host name known here; check the URL, the DNS or --hosts")]
    NameNotFound {
        /// What was looked up.
        host: String,
    },
    /// A TCP reset in answer.
    #[error("{host} refused the connection; check that the server runs and the port is right")]
    Refused {
        /// Where.
        host: String,
    },
    /// Nothing in answer, from DNS or from any address.
    #[error("{host} did not answer within {seconds} s; check the address and firewalls between")]
    TimedOut {
        /// Where.
        host: String,
        /// How long we waited.
        seconds: u64,
    },
    /// The kernel or a router says that there is no way.
    #[error("{host} can't be reached: {source}")]
    Unreachable {
        /// Where.
        host: String,
        /// The kernel's word.
        source: io::Error,
    },
    /// Connected, but not as safely as asked.
    #[error("{host}: {source}")]
    Tls {
        /// Where.
        host: String,
        /// What is wrong with the certificate or the handshake.
        source: TlsError,
    },
}

impl DialError {
    /// What kind of trouble this is.
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::NameNotFound { .. } => Reason::Name,
            Self::Refused { .. } | Self::TimedOut { .. } | Self::Unreachable { .. } => Reason::Unreachable,
            Self::Tls { .. } => Reason::Tls,
        }
    }

    /// Nothing came in answer for so long.
    pub(crate) fn timed_out(host: &str, port: u16, waited: Duration) -> Self {
        Self::TimedOut { host: shown(host, port), seconds: waited.as_secs() }
    }
}

/// `host:port` as URLs write it.
fn shown(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

pub(super) async fn dial(
    net: &Net,
    host: &str,
    port: u16,
    tls: Option<&ClientTls>,
) -> Result<Connection, DialError> {
    let counted = net.dialled.add();
    let deadline = Instant::now() + CONNECT_TIMEOUT;
    let connected = timeout_at(deadline, async {
        let addresses = resolve(net, host, port).await?;
        connect(&addresses).await.map_err(|error| refused_or_unreachable(host, port, error))
    });
    let stream = match connected.await {
        Ok(connected) => connected?,
        Err(_) => return Err(DialError::timed_out(host, port, CONNECT_TIMEOUT)),
    };
    listen::tune(&stream);
    let unreachable = |source| DialError::Unreachable { host: shown(host, port), source };
    let (peer, local) = (stream.peer_addr().map_err(unreachable)?, stream.local_addr().map_err(unreachable)?);
    let Some(tls) = tls else {
        let (reader, writer) = stream.into_split();
        return Ok(Connection { reader: Box::new(reader), writer: Box::new(writer), peer, local, counted });
    };
    let stream = tls::connect(net, host, tls, stream)
        .await
        .map_err(|source| DialError::Tls { host: shown(host, port), source })?;
    let (reader, writer) = tokio::io::split(stream);
    Ok(Connection { reader: Box::new(reader), writer: Box::new(writer), peer, local, counted })
}

fn refused_or_unreachable(host: &str, port: u16, source: io::Error) -> DialError {
    let host = shown(host, port);
    match source.kind() {
        io::ErrorKind::ConnectionRefused => DialError::Refused { host },
        io::ErrorKind::TimedOut => DialError::TimedOut { host, seconds: CONNECT_TIMEOUT.as_secs() },
        _ => DialError::Unreachable { host, source },
    }
}

/// `--hosts`, then IP literals, then DNS. Never empty.
async fn resolve(net: &Net, host: &str, port: u16) -> Result<Vec<SocketAddr>, DialError> {
    if let Some(address) = net.hosts.get(host) {
        return Ok(vec![SocketAddr::new(*address, port)]);
    }
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    // The resolver tells "no such name" and "no answer" apart only in words that differ by system.
    let found: Vec<_> = match tokio::net::lookup_host((host, port)).await {
        Ok(found) => found.take(MAX_ADDRESSES).collect(),
        Err(_) => Vec::new(),
    };
    if found.is_empty() {
        return Err(DialError::NameNotFound { host: host.to_owned() });
    }
    Ok(found)
}

/// The first address that answers; each has a short lead over the next, so that a dead one (IPv6 without a
/// route, often) costs a quarter of a second. The error is the last one.
async fn connect(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut waiting = addresses.iter();
    let mut tries = FuturesUnordered::new();
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    let mut next_start = Instant::now();
    loop {
        if tries.is_empty() || Instant::now() >= next_start {
            match waiting.next() {
                Some(address) => {
                    tries.push(TcpStream::connect(*address));
                    next_start = Instant::now() + STAGGER;
                }
                None if tries.is_empty() => return Err(last),
                None => {}
            }
        }
        tokio::select! {
            Some(done) = tries.next() => match done {
                Ok(stream) => return Ok(stream),
                Err(error) => {
                    last = error;
                    next_start = Instant::now();
                }
            },
            () = sleep_until(next_start), if waiting.len() > 0 => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Listener;
    use super::super::tests::{net, net_with_hosts};
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_name_in_hosts_is_dialled_where_hosts_says() {
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = listener.address().port();
        let net = net_with_hosts([("splitter.invalid", [127, 0, 0, 1])]);
        let (connection, (mut server, _)) =
            tokio::join!(net.dial("splitter.invalid", port, None), listener.accept());
        let mut connection = connection.unwrap();
        assert_eq!(connection.peer, listener.address());
        connection.writer.write_all(b"hello").await.unwrap();
        let mut heard = [0; 5];
        server.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"hello");
    }

    #[tokio::test]
    async fn a_closed_port_is_refused_and_named() {
        let port = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap().address().port();
        let error = net().dial("127.0.0.1", port, None).await.unwrap_err();
        assert!(matches!(error, DialError::Refused { .. }), "{error}");
        assert!(error.to_string().contains(&format!("127.0.0.1:{port}")), "{error}");
    }

    #[tokio::test]
    async fn a_connection_is_counted_while_it_is_there() {
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let closed = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap().address().port();
        let net = net();
        let connection = net.clone().dial("127.0.0.1", listener.address().port(), None).await.unwrap();
        net.dial("127.0.0.1", closed, None).await.unwrap_err();
        assert_eq!(net.dialled().now(), 1);
        drop(connection);
        assert_eq!(net.dialled().now(), 0);
    }

    #[tokio::test]
    async fn an_unknown_name_is_said_to_be_unknown() {
        let error = net().dial("no-such-host.invalid", 1935, None).await.unwrap_err();
        assert!(matches!(error, DialError::NameNotFound { .. } | DialError::TimedOut { .. }), "{error}");
    }

    #[tokio::test]
    async fn every_address_is_tried_until_one_answers() {
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let closed = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap().address();
        let stream = connect(&[closed, listener.address()]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), listener.address());
    }

    #[test]
    fn ipv6_hosts_are_shown_in_brackets() {
        assert_eq!(shown("2001:db8::1", 1935), "[2001:db8::1]:1935");
        assert_eq!(shown("example.com", 443), "example.com:443");
    }
}
