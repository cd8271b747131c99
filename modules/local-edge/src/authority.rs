//! The certificates of the stand-in: a root of its own in the state dir, an intermediate made at each
//! start (as on a device, where leaf and intermediate change and only the root stays), and leaves.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::{Timestamp, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::state_dir::write_private;

/// How long a server certificate is good for, whatever is asked (Azure/iot-identity-service, `aziot-certd`).
const LEAF_LIFE: Duration = DAY.saturating_mul(30);
/// A device's server keys.
const RSA_KEY: [&str; 5] = ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
const INTERMEDIATE_LIFE: Duration = DAY.saturating_mul(180);
const ROOT_LIFE: Duration = DAY.saturating_mul(3650);
const DAY: Duration = Duration::from_secs(86_400);

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
    /// Its end.
    pub expires: Timestamp,
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug)]
pub enum Purpose<'a> {
    /// A TLS server with these names and addresses; the first is its subject.
    Server(&'a [&'a str]),
    /// A module that shows who it is.
    Client {
        /// Its subject.
        name: &'a str,
        /// Its full name.
        uri: &'a str,
    },
}

/// Issues certificates.
pub struct Authority {
    folder: PathBuf,
    /// Root certificates, the newest last.
    bundle: RwLock<String>,
    intermediate: RwLock<Arc<CertifiedIssuer<'static, KeyPair>>>,
    /// The key of server certificates after a rotation, as PEM, where it could be made; before, each has its own.
    rsa: RwLock<Option<String>>,
}

impl Authority {
    /// Opens the root in `folder`, or makes it.
    pub fn open(folder: &Path) -> Result<Self, CertificateError> {
        let (cert_path, key_path) = (folder.join("root.pem"), folder.join("root.key.pem"));
        let file = |path: &Path, source| CertificateError::File { path: path.display().to_string(), source };
        let make = |source| CertificateError::Make { name: ROOT_NAME.into(), source };
        let read = |path: &Path| match std::fs::read_to_string(path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(file(path, error)),
        };
        let (bundle, root_key) = match (read(&cert_path)?, read(&key_path)?) {
            (Some(cert), Some(key)) => (cert, KeyPair::from_pem(&key).map_err(make)?),
            _ => new_root(folder, "")?,
        };
        let intermediate = RwLock::new(Arc::new(new_intermediate(root_key)?));
        let (folder, bundle) = (folder.to_path_buf(), RwLock::new(bundle));
        Ok(Self { folder, bundle, intermediate, rsa: RwLock::default() })
    }

    /// A new root, behind the newest one in the trust bundle; from now on it is what everything is signed by. Server
    /// certificates have an RSA key from then on, as a device's, where the program `openssl` is there to make one.
    pub fn rotate(&self) -> Result<(), CertificateError> {
        let (bundle, key) = new_root(&self.folder, &self.trust_bundle())?;
        let intermediate = new_intermediate(key)?;
        *self.bundle.write().unwrap_or_else(PoisonError::into_inner) = bundle;
        *self.intermediate.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(intermediate);
        *self.rsa.write().unwrap_or_else(PoisonError::into_inner) = new_rsa_key();
        Ok(())
    }

    /// What modules trust: PEM text.
    pub fn trust_bundle(&self) -> String {
        self.bundle.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Names that parse as addresses become such. It lives for `life`, 30 days if not said.
    pub fn issue(&self, purpose: Purpose<'_>, life: Option<Duration>) -> Result<Issued, CertificateError> {
        let (name, usage) = match purpose {
            Purpose::Server(names) => {
                (names.first().copied().unwrap_or_default(), ExtendedKeyUsagePurpose::ServerAuth)
            }
            Purpose::Client { name, .. } => (name, ExtendedKeyUsagePurpose::ClientAuth),
        };
        let make = |source| CertificateError::Make { name: name.to_owned(), source };
        let mut params = match purpose {
            Purpose::Server(names) => {
                CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
            }
            Purpose::Client { .. } => CertificateParams::new(Vec::new()),
        }
        .map_err(make)?;
        if let Purpose::Client { uri, .. } = purpose {
            params.subject_alt_names.push(SanType::URI(uri.try_into().map_err(make)?));
        }
        params.distinguished_name = distinguished(name);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![usage];
        let expires = validity(&mut params, life.unwrap_or(LEAF_LIFE));
        let rsa = self.rsa.read().unwrap_or_else(PoisonError::into_inner).clone();
        let key = match (rsa, purpose) {
            (Some(rsa), Purpose::Server(_)) => KeyPair::from_pem(&rsa),
            _ => KeyPair::generate(),
        }
        .map_err(make)?;
        let intermediate = Arc::clone(&self.intermediate.read().unwrap_or_else(PoisonError::into_inner));
        let leaf = params.signed_by(&key, &*intermediate).map_err(make)?;
        let chain_pem = format!("{}{}", leaf.pem(), intermediate.pem());
        Ok(Issued { chain_pem, key_pem: key.serialize_pem(), expires })
    }

    /// The TLS side of edgeHub: TLS 1.2 and 1.3, no client certificate.
    pub fn server_config(&self, names: &[&str]) -> Result<Arc<rustls::ServerConfig>, CertificateError> {
        let issued = self.issue(Purpose::Server(names), None)?;
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
const INTERMEDIATE_NAME: &str = "local-edge workload CA";

/// Makes a root and puts it behind the last certificate of `bundle`, on disk too.
fn new_root(folder: &Path, bundle: &str) -> Result<(String, KeyPair), CertificateError> {
    let make = |source| CertificateError::Make { name: ROOT_NAME.into(), source };
    let key = KeyPair::generate().map_err(make)?;
    let root = authority_params(ROOT_NAME, ROOT_LIFE).self_signed(&key).map_err(make)?.pem();
    let last = bundle.rfind("-----BEGIN").and_then(|at| bundle.get(at..)).unwrap_or_default();
    let bundle = format!("{last}{root}");
    for (name, content) in [("root.key.pem", key.serialize_pem()), ("root.pem", bundle.clone())] {
        let path = folder.join(name);
        write_private(&path, content.as_bytes())
            .map_err(|source| CertificateError::File { path: path.display().to_string(), source })?;
    }
    Ok((bundle, key))
}

fn new_intermediate(root_key: KeyPair) -> Result<CertifiedIssuer<'static, KeyPair>, CertificateError> {
    let make = |source| CertificateError::Make { name: INTERMEDIATE_NAME.into(), source };
    let root = Issuer::new(authority_params(ROOT_NAME, ROOT_LIFE), root_key);
    let mut params = authority_params(INTERMEDIATE_NAME, INTERMEDIATE_LIFE);
    params.use_authority_key_identifier_extension = true;
    CertifiedIssuer::signed_by(params, KeyPair::generate().map_err(make)?, &root).map_err(make)
}

/// `ring` signs with RSA keys and makes none.
fn new_rsa_key() -> Option<String> {
    let made = std::process::Command::new("openssl").args(RSA_KEY).output().ok()?;
    String::from_utf8(made.stdout).ok().filter(|pem| made.status.success() && KeyPair::from_pem(pem).is_ok())
}

fn distinguished(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    // X.520 bounds a common name to 64 characters.
    distinguished.push(DnType::CommonName, name.chars().take(64).collect::<String>());
    distinguished
}

fn authority_params(name: &str, life: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    validity(&mut params, life);
    params
}

/// From yesterday on, so that a clock that is a little behind still accepts it.
fn validity(params: &mut CertificateParams, life: Duration) -> Timestamp {
    let now = Timestamp::now();
    let until = now.checked_add(life).unwrap_or(now);
    let instant = |time: Timestamp| {
        let zoned = time.to_zoned(TimeZone::UTC);
        let midnight = zoned.start_of_day().map_or(time, |start| start.timestamp());
        let into_day = u64::try_from(time.as_second().saturating_sub(midnight.as_second())).unwrap_or(0);
        let part = |number: i8| u8::try_from(number).unwrap_or(1);
        let date = zoned.date();
        date_time_ymd(i32::from(date.year()), part(date.month()), part(date.day()))
            + Duration::from_secs(into_day)
    };
    params.not_before = instant(now.checked_sub(DAY).unwrap_or(now));
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
        assert_ne!(
            first.issue(Purpose::Server(&["gw"]), None).unwrap().chain_pem,
            second.issue(Purpose::Server(&["gw"]), None).unwrap().chain_pem
        );
    }

    #[test]
    fn a_leaf_comes_with_its_intermediate_and_without_the_root() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::open(folder.path()).unwrap();
        let issued = authority.issue(Purpose::Server(&["gw_1", "127.0.0.1"]), None).unwrap();
        assert_eq!(issued.chain_pem.matches("BEGIN CERTIFICATE").count(), 2);
        assert!(!issued.chain_pem.contains(&authority.trust_bundle()));
        assert!(issued.key_pem.contains("BEGIN PRIVATE KEY"));
    }

    #[test]
    fn a_rotation_puts_a_new_root_behind_the_one_before_and_a_restart_keeps_both() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::open(folder.path()).unwrap();
        let first = authority.trust_bundle();
        authority.rotate().unwrap();
        let second = authority.trust_bundle();
        assert!(second.starts_with(&first) && second.len() > first.len());
        assert_eq!(Authority::open(folder.path()).unwrap().trust_bundle(), second);
        // An RSA key of 2048 bits is longer than any other.
        let issued = authority.issue(Purpose::Server(&["gw"]), None).unwrap();
        assert!(new_rsa_key().is_none() || issued.key_pem.len() > 1500, "{}", issued.key_pem.len());
        assert!(
            (28..=31).contains(&((issued.expires.as_second() - Timestamp::now().as_second()) / 86_400 + 1))
        );
        authority.server_config(&["gw"]).unwrap();
        authority.rotate().unwrap();
        assert_eq!(authority.trust_bundle().matches("BEGIN CERTIFICATE").count(), 2);
        assert!(!authority.trust_bundle().contains(&first));
    }

    #[test]
    fn a_short_life_is_counted_in_seconds() {
        let folder = tempfile::tempdir().unwrap();
        let issued = Authority::open(folder.path())
            .unwrap()
            .issue(Purpose::Server(&["gw"]), Some(Duration::from_secs(15)));
        let left = issued.unwrap().expires.as_second() - Timestamp::now().as_second();
        assert!((10..=15).contains(&left), "{left}");
    }
}
