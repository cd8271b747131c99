//! A container engine's proxy in front of a client: datagrams to the address that it shows do not find the client.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Once;

/// Says once that a client that asked for datagrams shows the address of the container network's own end.
pub(super) fn notice(peer: IpAddr) {
    static SAID: Once = Once::new();
    let routes = || std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    if SAID.is_completed() || gateway(&routes()).is_none_or(|gateway| IpAddr::V4(gateway) != peer) {
        return;
    }
    SAID.call_once(|| {
        tracing::warn!(
            %peer,
            "a UDP player appears with the address of this container's bridge, so datagrams will not reach \
             it; use host networking, a bridge that keeps addresses, or set transports to tcp only"
        );
    });
}

/// Where packets for everywhere else go, by the kernel's table (`/proc/net/route`).
fn gateway(routes: &str) -> Option<Ipv4Addr> {
    routes.lines().skip(1).find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (to, gateway) = (fields.next()?, fields.next()?);
        let gateway = u32::from_str_radix(gateway, 16).ok().filter(|gateway| *gateway != 0)?;
        // In the byte order of the network, printed as a number of this machine.
        (to == "00000000").then(|| Ipv4Addr::from(gateway.to_ne_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateway_is_that_of_the_default_route() {
        let number = u32::from_ne_bytes([172, 17, 0, 1]);
        let table = format!(
            "Iface\tDestination\tGateway \tFlags\n\
             eth0\t000011AC\t00000000\t0001\n\
             eth0\t00000000\t{number:08X}\t0003\n"
        );
        assert_eq!(gateway(&table), Some(Ipv4Addr::new(172, 17, 0, 1)));
        assert_eq!(gateway("Iface\n"), None);
        assert_eq!(gateway("Iface\nlo x\nlo 00000000 zz"), None);
    }
}
