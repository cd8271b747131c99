//! The life of one listening address: leased, lingering, closing, closed.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::config::ServerTls;

/// A listener that nobody needs stays open that long.
pub(super) const LINGER: Duration = Duration::from_secs(2);

/// See the module's text.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) protocol: &'static str,
    /// `None`: plain TCP.
    pub(super) tls: Option<ServerTls>,
    /// The protocol's port.
    pub(super) port: Arc<dyn Any + Send + Sync>,
    usage: watch::Sender<Usage>,
    closed: CancellationToken,
}

/// Who needs a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Usage {
    /// So many endpoints, at least one.
    Leased(usize),
    /// Nobody, but somebody may come back until then.
    Lingering(Instant),
    /// Nobody, and nobody can have it any more.
    Closing,
}

impl Slot {
    /// With one lease.
    pub(super) fn leased(
        protocol: &'static str,
        tls: Option<ServerTls>,
        port: Arc<dyn Any + Send + Sync>,
    ) -> Self {
        Self {
            protocol,
            tls,
            port,
            usage: watch::Sender::new(Usage::Leased(1)),
            closed: CancellationToken::new(),
        }
    }

    pub(super) fn is_leased(&self) -> bool {
        matches!(*self.usage.borrow(), Usage::Leased(_))
    }

    /// One more lease, unless it is being closed.
    pub(super) fn lease(&self) -> bool {
        self.usage.send_if_modified(|usage| {
            let leases = match *usage {
                Usage::Leased(leases) => leases + 1,
                Usage::Lingering(_) => 1,
                Usage::Closing => return false,
            };
            *usage = Usage::Leased(leases);
            true
        })
    }

    /// One lease less.
    pub(super) fn release(&self) {
        self.usage.send_modify(|usage| {
            *usage = match *usage {
                Usage::Leased(leases @ 2..) => Usage::Leased(leases - 1),
                Usage::Leased(_) => Usage::Lingering(Instant::now() + LINGER),
                other => other,
            }
        });
    }

    /// Closes what only lingers. Whether it is closing.
    pub(super) fn close_unless_leased(&self) -> bool {
        let mut closing = false;
        self.usage.send_if_modified(|usage| {
            let lingers = matches!(usage, Usage::Lingering(_));
            if lingers {
                *usage = Usage::Closing;
            }
            closing = *usage == Usage::Closing;
            lingers
        });
        closing
    }

    /// Waits until nobody needs it; nobody can have it from then on.
    pub(super) async fn unused(&self) {
        let mut changes = self.usage.subscribe();
        loop {
            let usage = *changes.borrow_and_update();
            // The sender is our own, so there always are changes to come.
            let until = match usage {
                Usage::Closing => return,
                Usage::Leased(_) => {
                    let _ = changes.changed().await;
                    continue;
                }
                Usage::Lingering(until) => until,
            };
            tokio::select! {
                _ = changes.changed() => {}
                () = sleep_until(until) => {
                    // Leased again at this moment, it is not ours to close.
                    self.usage.send_if_modified(|now| {
                        let still = *now == usage;
                        if still {
                            *now = Usage::Closing;
                        }
                        still
                    });
                }
            }
        }
    }

    /// Waits until the socket is closed.
    pub(super) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// The socket is closed.
    pub(super) fn has_closed(&self) {
        self.closed.cancel();
    }
}
