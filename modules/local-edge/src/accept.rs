//! Accepting connections: of the control socket, the workload APIs, the forwarded ports.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::net::Listener;
use tokio_util::sync::CancellationToken;

/// After a failure: out of files, most likely.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves each connection in a task of its own, at most `limit` at once, until cancelled; that ends them too.
pub async fn accept<L, F>(
    mut listener: L,
    limit: usize,
    stop: CancellationToken,
    serve: impl Fn(L::Io) -> F + Send,
) where
    L: Listener,
    F: Future<Output = ()> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(limit));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let (connection, stop) = (serve(stream), stop.clone());
        tokio::spawn(async move {
            let _permit = permit;
            tokio::select! { () = connection => {}, () = stop.cancelled() => {} }
        });
    }
}
