//! One MQTT 3.1.1 connection over TLS, on rumqttc's packets.
//!
//! rumqttc's own event loop is not used: it takes one name for the TCP address and for the certificate (here
//! the address may come from `--hosts`), sends `$iothub` requests of an old connection again on the next one,
//! and does not say which publish was acknowledged.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::stream::SplitStream;
use futures_util::{SinkExt, StreamExt};
use rumqttc::mqttbytes::v4::{Codec, Connect, Login, Packet};
use rumqttc::{ConnectReturnCode, mqttbytes};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::codec::Framed;

/// What edgeHub takes and sends at most.
const MAX_PACKET: usize = 256 * 1024;
/// TCP and TLS together.
const CONNECT_TIME: Duration = Duration::from_secs(60);
/// The hub may have to ask the cloud who we are, and to read all its identities anew.
const CONNACK_TIME: Duration = Duration::from_secs(120);
/// A write that takes longer means that nobody reads.
const WRITE_TIME: Duration = Duration::from_secs(30);
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// The hub closes when it has read DISCONNECT.
const DRAIN_TIME: Duration = Duration::from_millis(300);
const WRITE_QUEUE: usize = 64;

/// Where the hub is.
#[derive(Clone, Debug)]
pub(crate) struct HubAddress {
    pub port: u16,
    /// Names resolved here first, in lower case.
    pub hosts: BTreeMap<String, IpAddr>,
}

/// Who connects.
pub(super) struct Credentials {
    pub client_id: String,
    pub user_name: String,
    pub password: String,
}

/// Why there is no connection, or no longer one.
#[derive(Debug, thiserror::Error)]
pub(super) enum MqttError {
    #[error(
        "the name {host} can't be resolved: {source}; it must be edgeHub's name on this network, and edgeHub \
         must be running"
    )]
    Resolve { host: String, source: std::io::Error },
    #[error("the name {0} resolves to no address")]
    NoAddress(String),
    #[error(
        "{0} can't be the name in a certificate; IOTEDGE_GATEWAYHOSTNAME must be a host name or an IP \
             address"
    )]
    Name(String),
    #[error("{address} can't be reached: {source}{}", advice(.source.kind()))]
    Tcp { address: SocketAddr, source: std::io::Error },
    #[error("TLS with {host}: {source}{}", tls_advice(.source))]
    Tls { host: String, source: std::io::Error },
    #[error("no connection within {} s: is there a firewall or proxy between this module and its hub?", CONNECT_TIME.as_secs())]
    Slow,
    #[error("no answer to CONNECT within {} s", CONNACK_TIME.as_secs())]
    SlowConnAck,
    #[error(
        "refused, not authorised (5): the identity is not known yet or was deleted, its key changed, or a clock is wrong"
    )]
    NotAuthorised,
    #[error("refused, server unavailable (3): the hub is not ready or did not understand the user name")]
    Unavailable,
    #[error("refused: {0:?}")]
    Refused(ConnectReturnCode),
    #[error("an answer to CONNECT was expected")]
    NoConnAck,
    #[error("closed before CONNECT was answered; whatever listens there is not ready, or is not edgeHub")]
    ClosedEarly,
    #[error("closed by the hub")]
    Closed,
    #[error("closed by the hub while it was given telemetry")]
    ClosedOverTelemetry,
    #[error("the connection broke off: {0}")]
    Broken(std::io::ErrorKind),
    #[error("not MQTT: {0}")]
    Protocol(mqttbytes::Error),
    #[error("{0}")]
    Silent(&'static str),
    #[error("a subscription was refused")]
    Subscription,
    #[error("nothing could be written for {} s", WRITE_TIME.as_secs())]
    Stuck,
}

impl From<mqttbytes::Error> for MqttError {
    fn from(error: mqttbytes::Error) -> Self {
        match error {
            mqttbytes::Error::Io(error) => Self::Broken(error.kind()),
            other => Self::Protocol(other),
        }
    }
}

/// What to look at when there is no TCP connection.
fn advice(kind: std::io::ErrorKind) -> &'static str {
    use std::io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, TimedOut};
    match kind {
        ConnectionRefused => {
            "; nothing listens there: edgeHub is not running yet, or its MQTT is switched off \
             (mqttSettings__enabled in its environment)"
        }
        HostUnreachable | NetworkUnreachable | TimedOut => {
            "; is this module on the network of edgeHub, with no firewall between them?"
        }
        _ => "",
    }
}

/// What to look at when the other side is there and TLS does not come about.
fn tls_advice(error: &std::io::Error) -> &'static str {
    use rustls::CertificateError::{
        Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet, NotValidYetContext,
        UnknownIssuer,
    };
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(UnknownIssuer)) => {
            "; its certificate is from another authority than the trust bundle's: was the device's CA changed \
             without restarting edgeHub?"
        }
        Some(rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. })) => {
            "; IOTEDGE_GATEWAYHOSTNAME must be the name in edgeHub's certificate: was hostname in config.toml changed?"
        }
        Some(rustls::Error::InvalidCertificate(
            Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. },
        )) => "; is this device's clock right, and was edgeHub restarted since its certificate was renewed?",
        Some(rustls::Error::InvalidMessage(_)) => {
            "; whatever listens there does not speak TLS: is it \
             edgeHub?"
        }
        None => {
            "; the connection broke off: is edgeHub running, and does anything between it and this module \
             inspect TLS?"
        }
        _ => "",
    }
}

type Frames = Framed<TlsStream<TcpStream>, Codec>;

/// A connection that the hub has accepted.
pub(super) struct Mqtt {
    incoming: SplitStream<Frames>,
    outgoing: mpsc::Sender<Packet>,
    writer: JoinHandle<()>,
}

impl Mqtt {
    /// Connects to `host`, whose certificate must carry that name whatever the address is. `pause` goes before
    /// CONNECT.
    pub async fn connect(
        address: &HubAddress,
        host: &str,
        tls: TlsConnector,
        credentials: Credentials,
        pause: Duration,
    ) -> Result<Self, MqttError> {
        let connect = async {
            let name = ServerName::try_from(host.to_owned()).map_err(|_| MqttError::Name(host.to_owned()))?;
            let tcp = tcp(address, host).await?;
            let stream = tls.connect(name, tcp).await;
            let stream = stream.map_err(|source| MqttError::Tls { host: host.to_owned(), source })?;
            let codec = Codec { max_incoming_size: MAX_PACKET, max_outgoing_size: MAX_PACKET };
            Ok(Framed::new(stream, codec))
        };
        let mut frames = tokio::time::timeout(CONNECT_TIME, connect).await.unwrap_or(Err(MqttError::Slow))?;
        tokio::time::sleep(pause).await;
        let log_in = async {
            let mut connect = Connect::new(credentials.client_id);
            connect.keep_alive = KEEP_ALIVE.as_secs() as u16;
            // Subscriptions are made again and unacknowledged telemetry is sent again by us on every connection:
            // there is nothing for the hub to keep.
            connect.clean_session = true;
            connect.login = Some(Login::new(credentials.user_name, credentials.password));
            frames.send(Packet::Connect(connect)).await?;
            match frames.next().await {
                Some(Ok(Packet::ConnAck(answer))) => match answer.code {
                    ConnectReturnCode::Success => Ok(()),
                    ConnectReturnCode::NotAuthorized => Err(MqttError::NotAuthorised),
                    ConnectReturnCode::ServiceUnavailable => Err(MqttError::Unavailable),
                    other => Err(MqttError::Refused(other)),
                },
                Some(Ok(_)) => Err(MqttError::NoConnAck),
                Some(Err(mqttbytes::Error::Io(_))) | None => Err(MqttError::ClosedEarly),
                Some(Err(error)) => Err(error.into()),
            }
        };
        tokio::time::timeout(CONNACK_TIME, log_in).await.unwrap_or(Err(MqttError::SlowConnAck))?;
        let (sink, incoming) = frames.split();
        let (outgoing, queue) = mpsc::channel(WRITE_QUEUE);
        let writer = tokio::spawn(async move {
            if let Err(error) = write(sink, queue).await {
                tracing::debug!("hub connection: {error}");
            }
        });
        Ok(Self { incoming, outgoing, writer })
    }

    /// The next packet. May be dropped and called again.
    pub async fn receive(&mut self) -> Result<Packet, MqttError> {
        match self.incoming.next().await {
            Some(packet) => Ok(packet?),
            None => Err(MqttError::Closed),
        }
    }

    /// Hands a packet to the writer.
    pub async fn send(&mut self, packet: Packet) -> Result<(), MqttError> {
        match self.outgoing.send_timeout(packet, WRITE_TIME).await {
            Ok(()) => Ok(()),
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => Err(MqttError::Stuck),
            Err(mpsc::error::SendTimeoutError::Closed(_)) => Err(MqttError::Closed),
        }
    }

    /// Writes what is queued, says goodbye and closes.
    pub async fn disconnect(mut self) {
        let _ = self.send(Packet::Disconnect).await;
        let Self { outgoing, mut writer, mut incoming } = self;
        drop(outgoing);
        let _ = tokio::time::timeout(Duration::from_secs(2), &mut writer).await;
        writer.abort();
        // Closing while packets are unread resets the connection, and takes from the hub what it has not read.
        let rest = async { while let Some(Ok(_)) = incoming.next().await {} };
        let _ = tokio::time::timeout(DRAIN_TIME, rest).await;
    }
}

async fn tcp(address: &HubAddress, host: &str) -> Result<TcpStream, MqttError> {
    let addresses: Vec<SocketAddr> = match address.hosts.get(&host.to_ascii_lowercase()) {
        Some(ip) => vec![SocketAddr::new(*ip, address.port)],
        None => {
            let found = tokio::net::lookup_host((host, address.port)).await;
            found.map_err(|source| MqttError::Resolve { host: host.to_owned(), source })?.collect()
        }
    };
    let mut last = MqttError::NoAddress(host.to_owned());
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(source) => last = MqttError::Tcp { address, source },
        }
    }
    Err(last)
}

/// Writes packets until the queue is closed, then closes the stream; several at once where they wait.
async fn write(
    mut sink: futures_util::stream::SplitSink<Frames, Packet>,
    mut queue: mpsc::Receiver<Packet>,
) -> Result<(), MqttError> {
    while let Some(packet) = queue.recv().await {
        let write = async {
            sink.feed(packet).await?;
            while let Ok(packet) = queue.try_recv() {
                sink.feed(packet).await?;
            }
            sink.flush().await
        };
        tokio::time::timeout(WRITE_TIME, write).await.map_err(|_| MqttError::Stuck)??;
    }
    tokio::time::timeout(WRITE_TIME, sink.close()).await.map_err(|_| MqttError::Stuck)??;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use rustls::{CertificateError, Error, InvalidMessage};

    use super::*;

    #[test]
    fn each_trouble_of_the_transport_says_what_to_look_at() {
        let address = "192.0.2.1:8883".parse().unwrap();
        let tcp = |kind: ErrorKind| MqttError::Tcp { address, source: kind.into() };
        let tls = |source: std::io::Error| MqttError::Tls { host: "gw".into(), source };
        let of_certificate =
            |error| tls(std::io::Error::new(ErrorKind::InvalidData, Error::InvalidCertificate(error)));
        let no_tls = Error::InvalidMessage(InvalidMessage::InvalidContentType);
        for (error, advice) in [
            (tcp(ErrorKind::ConnectionRefused), "mqttSettings__enabled"),
            (tcp(ErrorKind::HostUnreachable), "on the network of edgeHub"),
            (tcp(ErrorKind::NetworkUnreachable), "no firewall"),
            (tcp(ErrorKind::TimedOut), "no firewall"),
            (
                MqttError::Resolve { host: "gw".into(), source: ErrorKind::Other.into() },
                "edgeHub must be running",
            ),
            (MqttError::Slow, "a firewall or proxy"),
            (of_certificate(CertificateError::UnknownIssuer), "trust bundle"),
            (of_certificate(CertificateError::NotValidForName), "hostname in config.toml"),
            (of_certificate(CertificateError::Expired), "clock"),
            (of_certificate(CertificateError::NotValidYet), "clock"),
            (tls(std::io::Error::new(ErrorKind::InvalidData, no_tls)), "does not speak TLS"),
            (tls(ErrorKind::UnexpectedEof.into()), "the connection broke off"),
        ] {
            assert!(error.to_string().contains(advice), "{error}");
        }
    }
}
