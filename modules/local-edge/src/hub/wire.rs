//! MQTT packets over a byte stream, and why it ended.

use std::time::Duration;

use bytes::BytesMut;
use rumqttc::mqttbytes;
use rumqttc::mqttbytes::v4::Packet;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The largest packet as a whole; rumqttc counts without the fixed header, which is at most 5 bytes.
pub(super) const MAX_PACKET: usize = 256 * 1024 - 5;
/// A peer that takes nothing is cut off.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error("it disconnected")]
    Disconnected,
    #[error("it went away without a DISCONNECT")]
    Gone,
    #[error("the connection broke: {0}")]
    Io(std::io::Error),
    #[error("not MQTT 3.1.1, or a packet above 256 KiB: {0}")]
    Protocol(#[from] mqttbytes::Error),
    #[error("no CONNECT within 60 s")]
    NoConnect,
    #[error("the first packet was not CONNECT")]
    NotConnect,
    #[error("CONNACK {code}: {reason}")]
    Refused { code: u8, reason: String },
    #[error("another connection came with the same identity")]
    Displaced,
    #[error("nothing came for 1.5 times its keep-alive ({0} s)")]
    Silent(u64),
    #[error("its token expired and it did not connect again")]
    TokenExpired,
    #[error("a second CONNECT")]
    SecondConnect,
    #[error("publishing with QoS 2 is not possible with edgeHub")]
    Qos2,
    #[error("it published to {0:?}, which is not an edgeHub topic below $iothub/twin/")]
    TwinTopic(String),
    #[error("it read nothing for 30 s")]
    Stuck,
    #[error("a packet that only servers send")]
    ServerPacket,
    #[error("there is no room for its message (on purpose)")]
    StoreFull,
    #[error("cut on purpose")]
    Cut,
    #[error("local-edge stops")]
    Stopping,
}

impl From<std::io::Error> for End {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            // A process that was killed says no TLS goodbye either.
            std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset => Self::Gone,
            _ => Self::Io(error),
        }
    }
}

/// Packets over a byte stream.
pub(super) struct Wire<S> {
    stream: S,
    received: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, received: BytesMut::with_capacity(4096) }
    }

    /// The next packet. Cancelling it loses nothing.
    pub async fn next(&mut self) -> Result<Packet, End> {
        loop {
            match Packet::read(&mut self.received, MAX_PACKET) {
                Ok(packet) => return Ok(packet),
                Err(mqttbytes::Error::InsufficientBytes(_)) => {}
                Err(error) => return Err(error.into()),
            }
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(End::Gone);
            }
        }
    }

    pub async fn send(&mut self, packet: &Packet) -> Result<(), End> {
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, MAX_PACKET + 5)?;
        let written = async {
            self.stream.write_all(&bytes).await?;
            self.stream.flush().await
        };
        Ok(tokio::time::timeout(WRITE_TIMEOUT, written).await.map_err(|_| End::Stuck)??)
    }

    /// Sends the first half of a packet, and that is all.
    pub async fn send_half(&mut self, packet: &Packet) -> Result<(), End> {
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, MAX_PACKET + 5)?;
        bytes.truncate(bytes.len() / 2);
        self.stream.write_all(&bytes).await?;
        self.stream.flush().await?;
        Err(End::Cut)
    }

    /// Tells the peer that nothing more comes, as far as it still listens.
    pub async fn close(&mut self) {
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.stream.shutdown()).await;
    }
}
