//! The loopback address of each module: 127.0.1.N needs no set-up on Linux.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use tokio::net::TcpListener;

/// Held on an address as long as a module has it, so that instances of `local-edge` that run side by side
/// do not give out the same one.
const CLAIM_PORT: u16 = 29600;

/// An address that no other instance gives to a module.
#[derive(Debug)]
pub struct Address {
    /// Within 127.0.1.0/24.
    pub ip: IpAddr,
    _claim: TcpListener,
}

/// Gives out addresses in ascending order.
#[derive(Debug, Default)]
pub struct Addresses {
    last: u8,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// 254 modules, or other programs on that port.
    #[error("no address from 127.0.1.1 to 127.0.1.254 is free (claimed by a listener on port {CLAIM_PORT})")]
    Exhausted,
    /// Not Linux.
    #[error("{ip}: {source}; loopback addresses other than 127.0.0.1 must be set up on this system")]
    Bind {
        /// The address.
        ip: Ipv4Addr,
        /// What the system said.
        source: io::Error,
    },
}

impl Addresses {
    /// The next free one.
    pub async fn next(&mut self) -> Result<Address, AddressError> {
        while self.last < 254 {
            self.last += 1;
            let ip = Ipv4Addr::new(127, 0, 1, self.last);
            match TcpListener::bind((ip, CLAIM_PORT)).await {
                Ok(claim) => return Ok(Address { ip: ip.into(), _claim: claim }),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(source) => return Err(AddressError::Bind { ip, source }),
            }
        }
        Err(AddressError::Exhausted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn two_instances_give_out_different_addresses() {
        let first = Addresses::default().next().await.unwrap();
        let second = Addresses::default().next().await.unwrap();
        assert_ne!(first.ip, second.ip);
        drop(first);
    }
}
