//! TLS for a library that has none: a port on loopback for one connection, behind which the camera is.
//!
//! The connection to the camera is made, and its certificate checked or its pin compared, before anything is asked.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncWriteExt, copy};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::net::Connection;

/// The library connects at once.
const CONNECT: Duration = Duration::from_secs(5);
/// After the library is done: its farewell is still on its way.
const FAREWELL: Duration = Duration::from_secs(2);

/// Runs until either side is done.
pub(super) struct Forwarder {
    /// Where to connect to, once.
    pub(super) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Forwarder {
    /// Puts `connection` behind a port.
    pub(super) async fn open(connection: Connection) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            // What goes wrong on either side is seen by the library as the end of its connection.
            let _ = forward(listener, connection).await;
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

async fn forward(listener: TcpListener, connection: Connection) -> io::Result<()> {
    let Ok(accepted) = timeout(CONNECT, listener.accept()).await else { return Ok(()) };
    let (near, _) = accepted?;
    drop(listener);
    near.set_nodelay(true)?;
    let Connection { mut reader, mut writer, counted: _counted, .. } = connection;
    let (mut near_reader, mut near_writer) = near.into_split();
    let out = async {
        copy(&mut near_reader, &mut writer).await?;
        writer.shutdown().await
    };
    let back = async {
        copy(&mut reader, &mut near_writer).await?;
        near_writer.shutdown().await
    };
    tokio::select! {
        done = out => done,
        done = back => done,
    }
}
