//! The certificates of the stand-in: a root of its own in the state dir, an intermediate made at each
//! start (as on a device, where leaf and intermediate change and only the root stays), and leaves.

use std::io;
use std::path::Path;
use std::sync::Arc;

use jiff::civil::Date;
use jiff::{Span, Timestamp, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::state_dir::write_private;

/// How long a server certificate is good for; edgeHub asks for 90 days.
const LEAF_DAYS: i32 = 90;
const ROOT_DAYS: i32 = 3650;

/// Why a certificate could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The state dir.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// A name that no certificate can carry, or a spoilt key file.
    #[error("certificate for {name}: {source}")]
    Make {
        /// The subject.
        name: String,
        /// What the library said.
        source: rcgen::Error,
    },
    /// Our own certificate was not accepted by our own TLS.
    #[error("server certificate: {0}")]
    Tls(#[from] rustls::Error),
    /// Our own PEM text could not be read back.
    #[error("server certificate: {0}")]
    Pem(#[from] rustls_pki_types::pem::Error),
}

/// A leaf with its chain, and its key.
#[derive(Clone, Debug)]
pub struct Issued {
    /// Leaf, then intermediate.
    pub chain_pem: String,
    /// PKCS#8.
    pub key_pem: String,
    /// Its last day (UTC, at 00:00).
    pub expires: Date,
}

/// Issues certificates.
pub struct Authority {
    root_pem: String,
    intermediate: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// Opens the root in `folder`, or makes it.
    pub fn open(folder: &Path) -> Result<Self, CertificateError> {
        let (cert_path, key_path) = (folder.join("root.pem"), folder.join("root.key.pem"));
        let file = |path: &Path, source| CertificateError::File { path: path.display().to_string(), source };
        let make = |source| CertificateError::Make { name: ROOT_NAME.into(), source };
        let params = authority_params(ROOT_NAME, ROOT_DAYS);
        let read = |path: &Path| match std::fs::read_to_string(path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(file(path, error)),
        };
        let (root_pem, root_key) = match (read(&cert_path)?, read(&key_path)?) {
            (Some(cert), Some(key)) => (cert, KeyPair::from_pem(&key).map_err(make)?),
            _ => {
                let key = KeyPair::generate().map_err(make)?;
                let cert = params.self_signed(&key).map_err(make)?.pem();
                write_private(&key_path, key.serialize_pem().as_bytes()).map_err(|e| file(&key_path, e))?;
                write_private(&cert_path, cert.as_bytes()).map_err(|e| file(&cert_path, e))?;
                (cert, key)
            }
        };
        let root = Issuer::new(params, root_key);
        let key = KeyPair::generate().map_err(make)?;
        let mut params = authority_params("local-edge workload CA", LEAF_DAYS * 2);
        params.use_authority_key_identifier_extension = true;
        let intermediate = CertifiedIssuer::signed_by(params, key, &root).map_err(make)?;
        Ok(Self { root_pem, intermediate })
    }

    /// What modules trust: PEM text.
    pub fn trust_bundle(&self) -> &str {
        &self.root_pem
    }

    /// A server certificate; the first name is its subject. Names that parse as addresses become such.
    pub fn issue(&self, names: &[&str]) -> Result<Issued, CertificateError> {
        let name = names.first().copied().unwrap_or_default();
        let make = |source| CertificateError::Make { name: name.to_owned(), source };
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).map_err(make)?;
        params.distinguished_name = distinguished(name);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let expires = validity(&mut params, LEAF_DAYS);
        let key = KeyPair::generate().map_err(make)?;
        let leaf = params.signed_by(&key, &self.intermediate).map_err(make)?;
        let chain_pem = format!("{}{}", leaf.pem(), self.intermediate.pem());
        Ok(Issued { chain_pem, key_pem: key.serialize_pem(), expires })
    }

    /// The TLS side of edgeHub: TLS 1.2 and 1.3, no client certificate.
    pub fn server_config(&self, names: &[&str]) -> Result<Arc<rustls::ServerConfig>, CertificateError> {
        let issued = self.issue(names)?;
        let chain =
            CertificateDer::pem_slice_iter(issued.chain_pem.as_bytes()).collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        Ok(Arc::new(config))
    }
}

const ROOT_NAME: &str = "local-edge root CA (development only)";

fn distinguished(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    // X.520 bounds a common name to 64 characters.
    distinguished.push(DnType::CommonName, name.chars().take(64).collect::<String>());
    distinguished
}

fn authority_params(name: &str, days: i32) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    validity(&mut params, days);
    params
}

/// From yesterday on, so that a clock that is a little behind still accepts it.
fn validity(params: &mut CertificateParams, days: i32) -> Date {
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    let from = today.yesterday().unwrap_or(today);
    let until = today.checked_add(Span::new().days(days)).unwrap_or(today);
    let part = |number: i8| u8::try_from(number).unwrap_or(1);
    let instant = |date: Date| date_time_ymd(i32::from(date.year()), part(date.month()), part(date.day()));
    params.not_before = instant(from);
    params.not_after = instant(until);
    until
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_the_same_after_a_restart_and_the_chain_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let first = Authority::open(folder.path()).unwrap();
        let second = Authority::open(folder.path()).unwrap();
        assert_eq!(first.trust_bundle(), second.trust_bundle());
        assert_ne!(first.issue(&["gw"]).unwrap().chain_pem, second.issue(&["gw"]).unwrap().chain_pem);
    }

    #[test]
    fn a_leaf_comes_with_its_intermediate_and_without_the_root() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::open(folder.path()).unwrap();
        let issued = authority.issue(&["gw_1", "127.0.0.1"]).unwrap();
        assert_eq!(issued.chain_pem.matches("BEGIN CERTIFICATE").count(), 2);
        assert!(!issued.chain_pem.contains(authority.trust_bundle()));
        assert!(issued.key_pem.contains("BEGIN PRIVATE KEY"));
    }
}
