//! A port of 127.0.0.1 that leads to a module's own address.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::accept::accept;

/// At once, a port.
const MAX_CONNECTIONS: usize = 4096;
/// Each way.
const BUFFER: usize = 64 << 10;

/// Carries connections until cancelled. A module that does not listen (yet) looks like a closed connection.
pub async fn forward(listener: TcpListener, to: SocketAddr, stop: CancellationToken) {
    let carry = move |mut client: TcpStream| async move {
        let carried = async {
            let mut module = TcpStream::connect(to).await?;
            // A hop must not wait for more to send.
            client.set_nodelay(true)?;
            module.set_nodelay(true)?;
            copy_bidirectional_with_sizes(&mut client, &mut module, BUFFER, BUFFER).await
        };
        drop(carried.await);
    };
    accept(listener, MAX_CONNECTIONS, stop, carry).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn bytes_go_both_ways_and_the_end_of_one_side_reaches_the_other() {
        let module = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, to) = (front.local_addr().unwrap(), module.local_addr().unwrap());
        let stop = CancellationToken::new();
        tokio::spawn(forward(front, to, stop.clone()));

        let mut client = TcpStream::connect(address).await.unwrap();
        let (mut served, _) = module.accept().await.unwrap();
        client.write_all(b"hello").await.unwrap();
        client.shutdown().await.unwrap();
        let mut text = String::new();
        served.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello");
        served.write_all(b"there").await.unwrap();
        drop(served);
        text.clear();
        client.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "there");
        stop.cancel();
    }

    #[tokio::test]
    async fn a_module_that_does_not_listen_closes_the_connection() {
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = gone.local_addr().unwrap();
        drop(gone);
        let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = front.local_addr().unwrap();
        tokio::spawn(forward(front, to, CancellationToken::new()));
        let mut client = TcpStream::connect(address).await.unwrap();
        assert_eq!(client.read(&mut [0; 1]).await.unwrap_or(0), 0);
    }
}
