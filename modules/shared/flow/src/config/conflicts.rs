//! What flows can't have at once: one address and path twice, or one port in two ways.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::error::{MAX_ERROR_BYTES, join, shortened};
use super::types::{FlowConfig, InputEndpoint, ListenUrl, OutputEndpoint, Scheme, ServerTls};

/// The flows that can't run beside those before them in name order, each with a sentence that names both.
///
/// Give it the flows that are to run, whichever version of each. Disabled flows take no address. A flow that is
/// refused takes none either, so that one conflict does not cause the next.
pub fn conflicts(flows: &BTreeMap<String, Arc<FlowConfig>>) -> BTreeMap<String, String> {
    let mut claims = Claims::default();
    flows.iter().filter_map(|(name, flow)| Some((name.clone(), claims.add(flow).err()?))).collect()
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Side {
    Listen,
    Serve,
}

/// One use of an address.
struct Claim<'a> {
    side: Side,
    path: String,
    url: &'a ListenUrl,
    tls: &'a ServerTls,
}

/// How a socket is opened, and for whom first.
struct Socket<'a> {
    owner: String,
    scheme: Scheme,
    tls: &'a ServerTls,
}

/// The addresses that flows use which run side by side. One flow more costs the same however many there are.
#[derive(Default)]
pub struct Claims<'a> {
    /// By port, and then by address: ordered, so that all of one family are a range.
    sockets: HashMap<u16, BTreeMap<IpAddr, Socket<'a>>>,
    paths: HashMap<(Side, SocketAddr, &'a str), String>,
}

const ALL_V4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const ALL: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

impl<'a> Claims<'a> {
    /// Adds all that a flow uses, or nothing where a sentence says what is in its way.
    pub fn add(&mut self, flow: &'a FlowConfig) -> Result<(), String> {
        let claims = if flow.enabled { claims_of(flow) } else { Vec::new() };
        let mut opened = Vec::new();
        let mut taken = Vec::new();
        let outcome = claims.iter().try_for_each(|claim| {
            if self.open(claim)? {
                opened.push(claim.url.address);
            }
            let key = (claim.side, claim.url.address, claim.url.path.as_str());
            if let Some(owner) = self.paths.get(&key) {
                return Err(format!("{}: {} is taken by {owner}", claim.path, claim.url));
            }
            self.paths.insert(key, claim.path.clone());
            taken.push(key);
            Ok(())
        });
        if outcome.is_err() {
            for address in opened {
                if let Some(sockets) = self.sockets.get_mut(&address.port()) {
                    sockets.remove(&address.ip());
                }
            }
            for key in taken {
                self.paths.remove(&key);
            }
        }
        outcome.map_err(|error| shortened(error, MAX_ERROR_BYTES))
    }

    /// Whether the socket is new.
    fn open(&mut self, claim: &Claim<'a>) -> Result<bool, String> {
        let (ip, port) = (claim.url.address.ip(), claim.url.address.port());
        let sockets = self.sockets.entry(port).or_default();
        if let Some(socket) = sockets.get(&ip) {
            let differs = if socket.scheme != claim.url.scheme {
                format!("is {} for", socket.scheme)
            } else if socket.tls != claim.tls {
                "has another `tls` in".to_owned()
            } else {
                return Ok(false);
            };
            return Err(format!("{}: {} {differs} {}", claim.path, claim.url.address, socket.owner));
        }
        if let Some((other, socket)) = overlapping(sockets, ip) {
            let other = SocketAddr::new(other, port);
            return Err(format!(
                "{}: {} overlaps {other} of {}; on one port, listen on a wildcard or on addresses, not both",
                claim.path, claim.url.address, socket.owner
            ));
        }
        let socket = Socket { owner: claim.path.clone(), scheme: claim.url.scheme, tls: claim.tls };
        sockets.insert(ip, socket);
        Ok(true)
    }
}

/// Another address on the port that covers `ip` or is covered by it.
fn overlapping<'s, 'a>(
    sockets: &'s BTreeMap<IpAddr, Socket<'a>>,
    ip: IpAddr,
) -> Option<(IpAddr, &'s Socket<'a>)> {
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

fn claims_of(flow: &FlowConfig) -> Vec<Claim<'_>> {
    let at = join("flows", &flow.name);
    let mut claims = Vec::new();
    if let InputEndpoint::Listen(listen) = &flow.input.endpoint {
        let path = format!("{at}.input.listen");
        claims.push(Claim { side: Side::Listen, path, url: &listen.url, tls: &listen.tls });
    }
    for (name, output) in &flow.outputs {
        if let OutputEndpoint::Serve(serve) = &output.endpoint {
            let path = format!("{}.serve", join(&format!("{at}.outputs"), name));
            claims.push(Claim { side: Side::Serve, path, url: &serve.url, tls: &serve.tls });
        }
    }
    claims
}
