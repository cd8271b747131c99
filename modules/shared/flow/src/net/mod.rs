//! Sockets: listening, connecting, TLS, secrets, who may enter, and how long to wait before the next try.

mod attempts;
pub mod auth;
pub mod backoff;
mod capacity;
pub mod count;
pub mod dial;
pub mod listen;
pub mod listeners;
mod routes;
pub mod secrets;
pub mod tls;
pub(crate) mod unreadable;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use av_edge::{Certificates, Context, Paths};

pub use attempts::Attempts;
pub use backoff::Backoff;
pub use count::{Count, Counted};
pub use dial::{Connection, DialError};
pub use listen::{ListenError, Listener};
pub use listeners::Listeners;
pub use routes::{Found, Place, RouteGuard, Routes};
pub use secrets::{SecretUnavailable, Secrets};
pub use tls::{ServerTlsAcceptor, TlsError};

use crate::config::{ClientTls, ServerTls};

/// What all sockets of one module share. Cloning is cheap.
#[derive(Clone)]
pub struct Net {
    bind: Option<IpAddr>,
    hosts: Arc<BTreeMap<String, IpAddr>>,
    paths: Paths,
    certificates: Certificates,
    gateway_host: Option<String>,
    secrets: Secrets,
    dialled: Count,
}

impl Net {
    /// Takes from the runtime's context what concerns sockets.
    pub fn new(context: &Context) -> Self {
        Self {
            bind: context.bind,
            hosts: context.hosts.clone(),
            paths: context.paths.clone(),
            certificates: context.certificates.clone(),
            gateway_host: context.gateway_host.clone(),
            secrets: Secrets::new(context.paths.clone()),
            dialled: Count::default(),
        }
    }

    /// Secrets of `auth` and `credentials`, as they are now.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// Connections that [`dial`](Self::dial) made or is making.
    pub fn dialled(&self) -> &Count {
        &self.dialled
    }

    /// What `--hosts` says of a name.
    pub fn known_host(&self, host: &str) -> Option<IpAddr> {
        self.hosts.get(host).copied()
    }

    /// `--paths`.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// Where a configured address really binds: `--bind` stands in for `0.0.0.0` and `[::]`.
    pub fn bind_address(&self, configured: SocketAddr) -> SocketAddr {
        match self.bind {
            Some(bind) if configured.ip().is_unspecified() => SocketAddr::new(bind, configured.port()),
            _ => configured,
        }
    }

    /// Connects to `host`, a name or an IP literal without brackets; with `tls` when that is given.
    /// Takes at most 10 s, and 10 s more for the TLS handshake.
    pub async fn dial(
        &self,
        host: &str,
        port: u16,
        tls: Option<&ClientTls>,
    ) -> Result<Connection, DialError> {
        dial::dial(self, host, port, tls).await
    }

    /// A TLS acceptor with the certificate that `tls` names or that the edge runtime issues.
    /// The certificate is there when this returns; the error says why it can't be had.
    pub async fn tls_acceptor(&self, tls: &ServerTls) -> Result<ServerTlsAcceptor, TlsError> {
        self.tls_acceptor_for(tls, &[]).await
    }

    /// The same, which agrees with the client on one of these protocols (ALPN).
    pub async fn tls_acceptor_for(
        &self,
        tls: &ServerTls,
        protocols: &[&[u8]],
    ) -> Result<ServerTlsAcceptor, TlsError> {
        ServerTlsAcceptor::new(self, tls, protocols).await
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use av_edge::{EventSink, StateDir};

    /// A runtime context without edge, with these names in `--hosts`.
    pub(crate) fn context<const N: usize>(hosts: [(&str, [u8; 4]); N]) -> Context {
        Context {
            service: "test".into(),
            module: "test".into(),
            device: "device".into(),
            gateway_host: None,
            state: StateDir::new(std::env::temp_dir()),
            bind: None,
            hosts: Arc::new(hosts.into_iter().map(|(name, ip)| (name.to_owned(), ip.into())).collect()),
            paths: Paths::default(),
            certificates: Certificates::default(),
            events: EventSink::channel(16).0,
        }
    }

    pub(crate) fn net_with_hosts<const N: usize>(hosts: [(&str, [u8; 4]); N]) -> Net {
        Net::new(&context(hosts))
    }

    pub(crate) fn net() -> Net {
        net_with_hosts([])
    }

    #[test]
    fn bind_replaces_wildcards_and_nothing_else() {
        let net = Net::new(&Context { bind: Some([127, 0, 1, 3].into()), ..context([]) });
        let bound = |address: &str| net.bind_address(address.parse().unwrap()).to_string();
        assert_eq!(bound("0.0.0.0:1935"), "127.0.1.3:1935");
        assert_eq!(bound("[::]:1935"), "127.0.1.3:1935");
        assert_eq!(bound("192.0.2.7:1935"), "192.0.2.7:1935");
    }
}
