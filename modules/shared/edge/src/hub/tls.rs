//! TLS towards the hub: trusted is what the trust bundle holds, and nothing else.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio_rustls::TlsConnector;

/// Why a trust bundle is of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum BundleError {
    #[error("the trust bundle contains no usable certificate")]
    Empty,
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// Trusts every certificate of the bundle (PEM text; it can hold several).
pub(super) fn connector(bundle: &str) -> Result<TlsConnector, BundleError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(bundle.as_bytes()).filter_map(Result::ok));
    if roots.is_empty() {
        return Err(BundleError::Empty);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
