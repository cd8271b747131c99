//! What flows can't have at once: one address and path twice, or one port in two ways.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Bound;
use std::sync::Arc;

use super::error::{MAX_ERROR_BYTES, join, shortened};
use super::role::Role;
use super::types::{FlowConfig, ServerTls};

/// A use of an address that no other flow may have at the same time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Where.
    pub address: SocketAddr,
    /// The one word for what is spoken there: a scheme.
    pub protocol: &'static str,
    /// How its certificate is got, where it is TLS.
    pub tls: ServerTls,
    /// Which paths of the address.
    pub path: ClaimedPath,
    /// The URL for people.
    pub shown: String,
}

/// Paths of an address, decoded, without outer slashes. Those who listen and those who serve have paths of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimedPath {
    /// This one alone.
    Exact(String),
    /// This one and all below it.
    Below(String),
}

impl ClaimedPath {
    fn as_str(&self) -> &str {
        match self {
            Self::Exact(path) | Self::Below(path) => path,
        }
    }
}

/// Why a flow can't run beside another. Names both places.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Conflict {
    /// The path.
    #[error("{path}: {url} is taken by {owner}")]
    Taken {
        /// The property.
        path: String,
        /// What it asks for.
        url: String,
        /// The property that has it.
        owner: String,
    },
    /// The port speaks something else.
    #[error("{path}: {address} is {protocol} for {owner}")]
    Protocol {
        /// The property.
        path: String,
        /// Where.
        address: SocketAddr,
        /// What is spoken there.
        protocol: &'static str,
        /// The property that has it.
        owner: String,
    },
    /// The port has another certificate.
    #[error("{path}: {address} has another `tls` in {owner}")]
    Tls {
        /// The property.
        path: String,
        /// Where.
        address: SocketAddr,
        /// The property that has it.
        owner: String,
    },
    /// A wildcard and an address that it covers.
    #[error(
        "{path}: {address} overlaps {other} of {owner}; on one port, listen on a wildcard or on addresses, not both"
    )]
    Overlap {
        /// The property.
        path: String,
        /// Where.
        address: SocketAddr,
        /// The address that is there.
        other: SocketAddr,
        /// The property that has it.
        owner: String,
    },
}

impl Conflict {
    /// The sentence for people, at most [`MAX_ERROR_BYTES`].
    pub fn sentence(&self) -> String {
        shortened(self.to_string(), MAX_ERROR_BYTES)
    }
}

/// The flows that can't run beside those before them in name order.
///
/// Give it the flows that are to run, whichever version of each. Disabled flows take no address. A flow that is
/// refused takes none either, so that one conflict does not cause the next.
pub fn conflicts(flows: &BTreeMap<String, Arc<FlowConfig>>) -> BTreeMap<String, Conflict> {
    let mut claims = Claims::default();
    flows.iter().filter_map(|(name, flow)| Some((name.clone(), claims.add(flow).err()?))).collect()
}

/// How a socket is opened, and for whom first.
struct Socket {
    owner: String,
    protocol: &'static str,
    tls: ServerTls,
}

/// Who has a path, and whether those below it too.
struct Taken {
    owner: String,
    below: bool,
}

/// The addresses that flows use which run side by side. One flow more costs the same however many there are.
#[derive(Default)]
pub struct Claims {
    /// By port, and then by address: ordered, so that all of one family are a range.
    sockets: HashMap<u16, BTreeMap<IpAddr, Socket>>,
    /// Ordered, so that what lies below a path is a range.
    paths: HashMap<(Role, SocketAddr), BTreeMap<String, Taken>>,
}

const ALL_V4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const ALL: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

impl Claims {
    /// Adds all that a flow uses, or nothing where something is in its way.
    ///
    /// # Errors
    /// What that is.
    pub fn add(&mut self, flow: &FlowConfig) -> Result<(), Conflict> {
        let claims = if flow.enabled { claims_of(flow) } else { Vec::new() };
        let mut opened = Vec::new();
        let mut taken = Vec::new();
        let outcome = claims.into_iter().try_for_each(|(role, owner, claim)| {
            if self.open(&owner, &claim)? {
                opened.push(claim.address);
            }
            let (place, path) = ((role, claim.address), claim.path.as_str().to_owned());
            let paths = self.paths.entry(place).or_default();
            if let Some(other) = in_the_way(paths, &claim.path) {
                return Err(Conflict::Taken { path: owner, url: claim.shown, owner: other.owner.clone() });
            }
            let below = matches!(claim.path, ClaimedPath::Below(_));
            paths.insert(path.clone(), Taken { owner, below });
            taken.push((place, path));
            Ok(())
        });
        if outcome.is_err() {
            for address in opened {
                if let Some(sockets) = self.sockets.get_mut(&address.port()) {
                    sockets.remove(&address.ip());
                }
            }
            for (place, path) in taken {
                if let Some(paths) = self.paths.get_mut(&place) {
                    paths.remove(&path);
                }
            }
        }
        outcome
    }

    /// Whether the socket is new.
    fn open(&mut self, owner: &str, claim: &Claim) -> Result<bool, Conflict> {
        let (address, path) = (claim.address, || owner.to_owned());
        // Datagrams go to a group: nothing listens there.
        if address.ip().is_multicast() {
            return Ok(false);
        }
        let sockets = self.sockets.entry(address.port()).or_default();
        if let Some(socket) = sockets.get(&address.ip()) {
            let owner = socket.owner.clone();
            return if socket.protocol != claim.protocol {
                Err(Conflict::Protocol { path: path(), address, protocol: socket.protocol, owner })
            } else if socket.tls != claim.tls {
                Err(Conflict::Tls { path: path(), address, owner })
            } else {
                Ok(false)
            };
        }
        if let Some((other, socket)) = overlapping(sockets, address.ip()) {
            let (other, owner) = (SocketAddr::new(other, address.port()), socket.owner.clone());
            return Err(Conflict::Overlap { path: path(), address, other, owner });
        }
        let socket = Socket { owner: path(), protocol: claim.protocol, tls: claim.tls.clone() };
        sockets.insert(address.ip(), socket);
        Ok(true)
    }
}

/// Who has a path, one above it with all below, or, where all below are wanted too, one of those.
fn in_the_way<'p>(paths: &'p BTreeMap<String, Taken>, wanted: &ClaimedPath) -> Option<&'p Taken> {
    let path = wanted.as_str();
    let above = path.match_indices('/').filter_map(|(at, _)| paths.get(path.get(..at)?));
    let found = paths.get(path).or_else(|| above.into_iter().find(|taken| taken.below));
    found.or_else(|| {
        let ClaimedPath::Below(path) = wanted else { return None };
        let first = format!("{path}/");
        let mut below = paths.range::<str, _>((Bound::Included(first.as_str()), Bound::Unbounded));
        below.next().filter(|(path, _)| path.starts_with(&first)).map(|(_, taken)| taken)
    })
}

/// Another address on the port that covers `ip` or is covered by it.
fn overlapping(sockets: &BTreeMap<IpAddr, Socket>, ip: IpAddr) -> Option<(IpAddr, &Socket)> {
    let found = if ip == ALL {
        sockets.iter().next()
    } else if ip == ALL_V4 {
        // IPv4 addresses sort before IPv6, and [::] first among those.
        sockets.range(..=ALL).next()
    } else {
        let wider = if ip.is_ipv4() { [ALL_V4, ALL] } else { [ALL, ALL] };
        wider.iter().find_map(|wide| sockets.get_key_value(wide))
    };
    found.map(|(ip, socket)| (*ip, socket))
}

/// With the property that each is for.
fn claims_of(flow: &FlowConfig) -> Vec<(Role, String, Claim)> {
    let at = join("flows", &flow.name);
    let place = |at: &str, role: Role| (role, format!("{at}.{}", role.key()));
    let (role, owner) = place(&format!("{at}.input"), flow.input.endpoint.role());
    let input = flow.input.endpoint.claims().into_iter().map(|claim| (role, owner.clone(), claim));
    let mut claims = input.collect::<Vec<_>>();
    for (name, output) in &flow.outputs {
        let (role, owner) = place(&join(&format!("{at}.outputs"), name), output.endpoint.role());
        claims.extend(output.endpoint.claims().into_iter().map(|claim| (role, owner.clone(), claim)));
    }
    claims
}
