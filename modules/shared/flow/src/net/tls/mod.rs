//! TLS by rustls with the ring provider, named explicitly: nothing depends on a process-wide default.

mod client;
mod server;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::CertificateError;
use rustls::crypto::CryptoProvider;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

pub(super) use client::connect;
pub use server::ServerTlsAcceptor;

/// For a handshake, from the first byte to the last.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest PEM file that is read.
const MAX_PEM_BYTES: u64 = 4 << 20;

/// Why there is no TLS. The text says which option mends it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A PEM file that can't be read.
    #[error("{option}: {}: {source}", path.display())]
    File {
        /// The option that names it: `tls.certificateFile`, ...
        option: &'static str,
        /// On this machine.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// A PEM file without what it should hold.
    #[error("{option}: {}: {fault}", path.display())]
    Content {
        /// The option that names it.
        option: &'static str,
        /// On this machine.
        path: PathBuf,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// Certificate and key are not a pair, or of a kind that is not supported.
    #[error("certificate and key can't be used: {0}; check tls.certificateFile and tls.keyFile")]
    Unusable(rustls::Error),
    /// The edge runtime issues none, or its trust bundle is not to be had.
    #[error("{0}")]
    Edge(String),
    /// TLS without certificate files needs a name to have one issued for.
    #[error(
        "no name to have a certificate issued for; set tls.hostName, or tls.certificateFile and tls.keyFile"
    )]
    NoHostName,
    /// `tls.hostName` or the URL's host can't be in a certificate.
    #[error("{0:?} is no name that a certificate can hold; set tls.hostName")]
    BadHostName(String),
    /// The certificate is for somebody else.
    #[error("its certificate is for another name than {0}; check the host or set tls.hostName")]
    WrongName(String),
    /// Nobody trusted has signed it.
    #[error("its certificate is signed by nobody trusted here; set tls.caFile or tls.pinSha256")]
    UnknownIssuer,
    /// Out of date.
    #[error("its certificate is not valid now: {0}; renew it, or set this machine's clock")]
    NotValidNow(rustls::Error),
    /// Another leaf certificate than the pinned one.
    #[error("its certificate has the SHA-256 {0}, not tls.pinSha256")]
    WrongPin(String),
    /// Not finished in 10 s.
    #[error("the TLS handshake was not finished in {} s; check that the peer speaks TLS", HANDSHAKE_TIMEOUT.as_secs())]
    TimedOut,
    /// Anything else rustls says.
    #[error("TLS: {0}; check that the peer speaks TLS")]
    Protocol(rustls::Error),
    /// The connection broke.
    #[error("the TLS handshake broke off: {0}")]
    Io(io::Error),
    /// The process is shutting down.
    #[error("the module is stopping")]
    Stopping,
}

impl TlsError {
    /// What a failed handshake says; `host_name` is what was asked for.
    /// What is behind the error of a handshake with that host.
    pub fn of_handshake(error: io::Error, host_name: &str) -> Self {
        let Some(inner) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
            return Self::Io(error);
        };
        match inner {
            rustls::Error::InvalidCertificate(reason) => match reason {
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                    Self::WrongName(host_name.to_owned())
                }
                CertificateError::UnknownIssuer => Self::UnknownIssuer,
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. } => Self::NotValidNow(inner.clone()),
                CertificateError::Other(other) => match other.0.downcast_ref::<client::PinMismatch>() {
                    Some(mismatch) => Self::WrongPin(mismatch.0.clone()),
                    None => Self::Protocol(inner.clone()),
                },
                _ => Self::Protocol(inner.clone()),
            },
            _ => Self::Protocol(inner.clone()),
        }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Reads a PEM file. Blocks.
fn read_pem(option: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    use std::io::Read;
    let fail = |source| TlsError::File { option, path: path.to_path_buf(), source };
    let file = std::fs::File::open(path).map_err(fail)?;
    let mut content = Vec::new();
    file.take(MAX_PEM_BYTES + 1).read_to_end(&mut content).map_err(fail)?;
    if content.len() as u64 > MAX_PEM_BYTES {
        return Err(TlsError::Content { option, path: path.to_path_buf(), fault: "longer than 4 MiB" });
    }
    Ok(content)
}

/// All certificates of a PEM text; `None` when it is broken or holds none.
fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().ok()?;
    (!chain.is_empty()).then_some(chain)
}

#[cfg(test)]
mod tests;
