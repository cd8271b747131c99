//! What the library can't connect to or read: it is given a port on this machine, and what is behind that does it instead.
//! It dials with TLS, its certificate checked or its pin compared, before anything is asked, and puts answers right.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::mending::Mender;
use crate::net::Connection;

/// The library connects at once.
const CONNECT: Duration = Duration::from_secs(5);
/// After the library is done: its farewell is still on its way.
const FAREWELL: Duration = Duration::from_secs(2);
const READ: usize = 64 << 10;

/// Runs until either side is done.
pub(super) struct Forwarder {
    /// Where to connect to, once.
    pub(super) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Forwarder {
    /// Puts `connection` behind a port; `mender`: what is done to answers. With `udp` the port is on the address of this
    /// machine from which the camera is reached, because the library has its datagrams come to there.
    pub(super) async fn open(connection: Connection, mender: Option<Mender>, udp: bool) -> io::Result<Self> {
        let ip = if udp { connection.local.ip() } else { Ipv4Addr::LOCALHOST.into() };
        let listener = TcpListener::bind((ip, 0)).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            // What goes wrong on either side is seen by the library as the end of its connection.
            let _ = forward(listener, connection, mender).await;
        });
        Ok(Self { address, task })
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        // The library takes leave in a task of its own.
        let task = self.task.abort_handle();
        tokio::spawn(async move {
            tokio::time::sleep(FAREWELL).await;
            task.abort();
        });
    }
}

async fn forward(listener: TcpListener, connection: Connection, mender: Option<Mender>) -> io::Result<()> {
    let own = listener.local_addr()?.ip();
    let Ok(accepted) = timeout(CONNECT, own_connection(&listener, own)).await else { return Ok(()) };
    let near = accepted?;
    drop(listener);
    near.set_nodelay(true)?;
    let Connection { mut reader, mut writer, counted: _counted, .. } = connection;
    let (mut near_reader, mut near_writer) = near.into_split();
    let out = async {
        copy(&mut near_reader, &mut writer).await?;
        writer.shutdown().await
    };
    let back = async {
        if let Some(mut mender) = mender {
            let (mut read, mut mended) = (BytesMut::with_capacity(READ), BytesMut::new());
            while reader.read_buf(&mut read).await? > 0 {
                mender.push(&read, &mut mended);
                near_writer.write_all(&mended).await?;
                read.clear();
                mended.clear();
            }
        } else {
            copy(&mut reader, &mut near_writer).await?;
        }
        near_writer.shutdown().await
    };
    tokio::select! {
        done = out => done,
        done = back => done,
    }
}

/// A connection of this machine with itself.
async fn own_connection(listener: &TcpListener, own: IpAddr) -> io::Result<tokio::net::TcpStream> {
    loop {
        let (stream, from) = listener.accept().await?;
        if from.ip() == own {
            return Ok(stream);
        }
    }
}
