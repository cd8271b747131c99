//! How much one address may ask for at once: whoever parks thousands of requests has them refused, and takes nothing from
//! others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What counts as one address: of IPv6 everybody has 2^64 of them.
fn counted(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & !u128::from(u64::MAX)).into()),
    }
}

/// Connections of one peer's address: behind one there may be a whole company, or a cache.
const MOST_CONNECTIONS: u32 = 2000;
/// Requests of one peer's address that wait for something to come.
const MOST_WAITING: u32 = 2000;
/// And of all together.
const MOST_WAITING_IN_ALL: u32 = 50_000;

/// Reports of one peer's address in ten seconds: behind one there may be many who watch.
const MOST_REPORTS: u32 = 100;
const REPORTS_IN: Duration = Duration::from_secs(10);
/// Addresses whose reports are counted at once.
const MOST_REPORTERS: usize = 10_000;

/// Everybody at one listening address. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Crowd(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    peers: HashMap<IpAddr, Peer>,
    waiting: u32,
    /// Reports of each address, and since when they are counted: that stays when its last connection ends.
    reports: HashMap<IpAddr, (Instant, u32)>,
}

#[derive(Debug, Default)]
struct Peer {
    connections: u32,
    waiting: u32,
}

impl Crowd {
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a connection while the answer lives; `None`: this address has too many.
    pub(crate) fn enter(&self, address: IpAddr) -> Option<Guest> {
        let address = counted(address);
        let mut counts = self.lock();
        let peer = counts.peers.entry(address).or_default();
        if peer.connections >= MOST_CONNECTIONS {
            return None;
        }
        peer.connections += 1;
        Some(Guest { crowd: self.clone(), address })
    }
}

impl Crowd {
    /// Whether a report of this address is listened to.
    pub(crate) fn may_report(&self, address: IpAddr, now: Instant) -> bool {
        let address = counted(address);
        let reports = &mut self.lock().reports;
        let is_over = |since: Instant| now.saturating_duration_since(since) >= REPORTS_IN;
        if reports.len() >= MOST_REPORTERS && !reports.contains_key(&address) {
            reports.retain(|_, (since, _)| !is_over(*since));
            if reports.len() >= MOST_REPORTERS {
                return false;
            }
        }
        let (since, count) = reports.entry(address).or_insert((now, 0));
        if is_over(*since) {
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        *count <= MOST_REPORTS
    }
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Guest {
    crowd: Crowd,
    address: IpAddr,
}

impl Guest {
    /// Counts a request that waits while the answer lives; `None`: too many do.
    pub(crate) fn wait(&self) -> Option<Waiting<'_>> {
        let mut counts = self.crowd.lock();
        if counts.waiting >= MOST_WAITING_IN_ALL {
            return None;
        }
        let peer = counts.peers.entry(self.address).or_default();
        if peer.waiting >= MOST_WAITING {
            return None;
        }
        peer.waiting += 1;
        counts.waiting += 1;
        Some(Waiting(self))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut counts = self.crowd.lock();
        if let Some(peer) = counts.peers.get_mut(&self.address) {
            peer.connections = peer.connections.saturating_sub(1);
            if peer.connections == 0 {
                counts.peers.remove(&self.address);
            }
        }
    }
}

/// A request that waits.
#[derive(Debug)]
pub(crate) struct Waiting<'a>(&'a Guest);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut counts = self.0.crowd.lock();
        counts.waiting = counts.waiting.saturating_sub(1);
        if let Some(peer) = counts.peers.get_mut(&self.0.address) {
            peer.waiting = peer.waiting.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_ipv6_counts_as_one_address() {
        let crowd = Crowd::default();
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let guests = (0..MOST_CONNECTIONS).map(|one| crowd.enter(address(&format!("2001:db8::{one:x}"))));
        let guests = guests.collect::<Option<Vec<_>>>().unwrap();
        assert!(crowd.enter(address("2001:db8:0:0:ffff::1")).is_none());
        assert!(crowd.enter(address("2001:db8:0:1::1")).is_some());
        drop(guests);
        assert!(crowd.lock().peers.is_empty());
    }

    #[test]
    fn an_address_has_so_many_reports_in_ten_seconds_whether_or_not_it_stays_connected() {
        let (crowd, now) = (Crowd::default(), Instant::now());
        let reports = |last: u128, after: Duration| {
            let guest = crowd.enter(IpAddr::V6(last.into()));
            assert!(guest.is_some());
            crowd.may_report(IpAddr::V6(last.into()), now + after)
        };
        for one in 0..u128::from(MOST_REPORTS) {
            assert!(reports(one, Duration::ZERO));
        }
        assert!(!reports(7, REPORTS_IN / 2), "one /64 network is one address");
        assert!(reports(1 << 64, Duration::ZERO), "another has its own");
        assert!(reports(7, REPORTS_IN));
        // However many addresses report, few are kept.
        for one in 2..MOST_REPORTERS as u128 + 10 {
            crowd.may_report(IpAddr::V6((one << 64).into()), now + REPORTS_IN);
        }
        assert!(crowd.lock().reports.len() <= MOST_REPORTERS);
        assert!(reports(1 << 80, REPORTS_IN * 2), "those before are forgotten");
    }

    #[test]
    fn one_address_has_its_share_and_others_have_theirs() {
        let crowd = Crowd::default();
        let [one, other] = [1, 2].map(|last| IpAddr::from([192, 0, 2, last]));
        let guests = (0..MOST_CONNECTIONS).map(|_| crowd.enter(one).unwrap()).collect::<Vec<_>>();
        assert!(crowd.enter(one).is_none());
        let guest = crowd.enter(other).unwrap();
        let first = guests.first().unwrap();
        let waiting = (0..MOST_WAITING).map(|_| first.wait().unwrap()).collect::<Vec<_>>();
        assert!(first.wait().is_none() && guest.wait().is_some());
        drop(waiting);
        assert!(first.wait().is_some());
        drop((guests, guest));
        assert!(crowd.enter(one).is_some());
        assert!(crowd.lock().peers.is_empty() && crowd.lock().waiting == 0);
    }
}
