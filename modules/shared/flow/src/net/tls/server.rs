//! The server's side: a certificate from files or from the edge runtime, exchanged without cutting anybody.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use av_edge::{Certificates, Renewal};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{HANDSHAKE_TIMEOUT, TlsError, certificates, provider, read_pem};
use crate::config::ServerTls;
use crate::net::Net;

/// How often files are looked at, at most.
const FILE_CHECK: Duration = Duration::from_secs(1);
/// How often the edge runtime is asked at most, when a renewal fails or what it issues is due at once.
const RENEW_RETRY: Duration = Duration::from_secs(10);
/// How long a client waits for a renewal while the certificate at hand still serves.
const RENEW_WAIT: Duration = Duration::from_secs(5);

/// Shakes hands as a server. Shared by all connections of a listener; cloning is cheap.
///
/// The certificate is looked after whenever somebody connects: files that changed are read again, an
/// edge-issued certificate that is due is renewed. When that fails the one at hand goes on serving. Open
/// connections never notice.
#[derive(Clone)]
pub struct ServerTlsAcceptor {
    acceptor: TlsAcceptor,
    current: Arc<Current>,
    source: Arc<Mutex<Source>>,
}

impl std::fmt::Debug for ServerTlsAcceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerTlsAcceptor").finish_non_exhaustive()
    }
}

/// The certificate that handshakes get.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl Current {
    fn replace(&self, key: CertifiedKey) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
    }
}

/// Where the next certificate comes from, and when to look.
enum Source {
    Files { files: CertificateFiles, seen: Stamps, next_look: Instant },
    Edge { certificates: Certificates, host_name: String, renewal: Renewal, next_try: Instant },
}

impl ServerTlsAcceptor {
    pub(in crate::net) async fn new(
        net: &Net,
        tls: &ServerTls,
        protocols: &[&[u8]],
    ) -> Result<Self, TlsError> {
        let now = Instant::now();
        let (key, source) = match (&tls.certificate_file, &tls.key_file) {
            (Some(certificate), Some(key)) => {
                let files = CertificateFiles {
                    certificate: net.paths.resolve(certificate),
                    key: net.paths.resolve(key),
                };
                let (key, seen) = off_thread({
                    let files = files.clone();
                    move || files.load()
                })
                .await?;
                (key, Source::Files { files, seen, next_look: now + FILE_CHECK })
            }
            _ => {
                let host_name = tls.host_name.as_ref().or(net.gateway_host.as_ref());
                let host_name = host_name.ok_or(TlsError::NoHostName)?.clone();
                let certificates = net.certificates.clone();
                let (key, renewal) = issued(&certificates, &host_name).await?;
                (key, Source::Edge { certificates, host_name, renewal, next_try: now })
            }
        };
        let current = Arc::new(Current(RwLock::new(Arc::new(key))));
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Protocol)?
            .with_no_client_auth()
            .with_cert_resolver(current.clone());
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            current,
            source: Arc::new(Mutex::new(source)),
        })
    }

    /// Shakes hands, within 10 s.
    pub async fn accept(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, TlsError> {
        self.refresh().await;
        match timeout(HANDSHAKE_TIMEOUT, self.acceptor.accept(stream)).await {
            Ok(done) => done.map_err(|error| TlsError::of_handshake(error, "this server")),
            Err(_) => Err(TlsError::TimedOut),
        }
    }

    /// Looks after the certificate if it is time to. Whoever comes while another looks goes on with the one
    /// at hand.
    async fn refresh(&self) {
        let Ok(mut source) = self.source.try_lock() else { return };
        match &mut *source {
            Source::Files { files, seen, next_look } => {
                if Instant::now() < *next_look {
                    return;
                }
                *next_look = Instant::now() + FILE_CHECK;
                let (files, before) = (files.clone(), *seen);
                let looked = off_thread(move || {
                    let now = files.stamps();
                    // A pair that is being replaced does not match yet: `seen` stays, the next look decides.
                    if now == before { Ok(None) } else { files.load().map(Some) }
                });
                match looked.await {
                    Ok(None) => {}
                    Ok(Some((key, stamps))) => {
                        *seen = stamps;
                        self.current.replace(key);
                        tracing::info!("TLS certificate files changed and were read again");
                    }
                    Err(error) => tracing::warn!(
                        "the changed TLS certificate can't be used, the old one stays in use: {error}"
                    ),
                }
            }
            Source::Edge { certificates, host_name, renewal, next_try } => {
                if !renewal.is_due() || Instant::now() < *next_try {
                    return;
                }
                // Also where it succeeds: the edge runtime may hand out one that is due already.
                *next_try = Instant::now() + RENEW_RETRY;
                match timeout(RENEW_WAIT, issued(certificates, host_name)).await {
                    Ok(Ok((key, next))) => {
                        *renewal = next;
                        self.current.replace(key);
                        tracing::info!("TLS certificate renewed");
                    }
                    Ok(Err(error)) => {
                        tracing::warn!("the TLS certificate could not be renewed and stays in use: {error}");
                    }
                    Err(_) => tracing::warn!(
                        "the TLS certificate could not be renewed and stays in use: the edge runtime does not answer"
                    ),
                }
            }
        }
    }
}

async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TlsError> + Send + 'static,
) -> Result<T, TlsError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| TlsError::Stopping)?
}

/// Has the edge runtime issue a certificate; says when to renew it.
async fn issued(certificates: &Certificates, host_name: &str) -> Result<(CertifiedKey, Renewal), TlsError> {
    let issued = certificates.server(host_name).await.map_err(TlsError::Edge)?;
    let key = certified_key(issued.chain_pem.as_bytes(), issued.key_pem.as_bytes(), |part| {
        TlsError::Edge(format!("the edge runtime issued a certificate without a usable {part}"))
    })?;
    Ok((key, issued.renewal))
}

/// Chain and key, checked to belong together. `missing` names what is not in the PEM text.
fn certified_key(
    chain: &[u8],
    key: &[u8],
    missing: impl Fn(&'static str) -> TlsError,
) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(chain).ok_or_else(|| missing("certificate"))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| missing("private key"))?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(TlsError::Unusable)
}

/// `certificateFile` and `keyFile` on this machine.
#[derive(Clone, Debug)]
struct CertificateFiles {
    certificate: PathBuf,
    key: PathBuf,
}

/// What tells that a file is another one than before: when it was written, and how long it is.
type Stamps = [Option<(SystemTime, u64)>; 2];

impl CertificateFiles {
    /// Taken before the files are read: a change in between is seen at the next look. Blocks.
    fn stamps(&self) -> Stamps {
        let stamp = |path: &Path| {
            let meta = std::fs::metadata(path).ok()?;
            Some((meta.modified().ok()?, meta.len()))
        };
        [stamp(&self.certificate), stamp(&self.key)]
    }

    /// Blocks.
    fn load(&self) -> Result<(CertifiedKey, Stamps), TlsError> {
        let stamps = self.stamps();
        let chain = read_pem("tls.certificateFile", &self.certificate)?;
        let key = read_pem("tls.keyFile", &self.key)?;
        let key = certified_key(&chain, &key, |part| match part {
            "certificate" => TlsError::Content {
                option: "tls.certificateFile",
                path: self.certificate.clone(),
                fault: "no certificate in PEM form in it",
            },
            _ => TlsError::Content {
                option: "tls.keyFile",
                path: self.key.clone(),
                fault: "no private key in PEM form in it",
            },
        })?;
        Ok((key, stamps))
    }
}
