//! The client's side: public roots, the edge's trust bundle and `caFile`, or one pinned certificate.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{HANDSHAKE_TIMEOUT, TlsError, certificates, provider, read_pem};
use crate::config::ClientTls;
use crate::net::Net;

/// Shakes hands as a client. `host` is the URL's; `tls.hostName` goes before it.
pub(in crate::net) async fn connect(
    net: &Net,
    host: &str,
    tls: &ClientTls,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, TlsError> {
    let host = tls.host_name.as_deref().unwrap_or(host);
    let name = ServerName::try_from(host.to_owned()).map_err(|_| TlsError::BadHostName(host.to_owned()))?;
    let connector = TlsConnector::from(Arc::new(config(net, tls).await?));
    match timeout(HANDSHAKE_TIMEOUT, connector.connect(name, stream)).await {
        Ok(done) => done.map_err(|error| TlsError::of_handshake(error, host)),
        Err(_) => Err(TlsError::TimedOut),
    }
}

/// Made for each connection, so that a changed `caFile` or trust bundle counts at the next try.
async fn config(net: &Net, tls: &ClientTls) -> Result<ClientConfig, TlsError> {
    let provider = provider();
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Protocol)?;
    if let Some(pin) = tls.pin_sha256 {
        let verifier = Arc::new(Verifier { trusts: Trusts::Pin(pin), provider });
        return Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth());
    }
    let (roots, own) = roots(net, tls).await?;
    if own.is_empty() {
        return Ok(builder.with_root_certificates(roots).with_no_client_auth());
    }
    let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| TlsError::Protocol(rustls::Error::General(error.to_string())))?;
    let verifier = Arc::new(Verifier { trusts: Trusts::Own { chain, own }, provider });
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

/// Whom is trusted, and what of that is in `caFile`.
async fn roots(
    net: &Net,
    tls: &ClientTls,
) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), TlsError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    match net.certificates.trust_bundle().await {
        Ok(Some(bundle)) => {
            roots.add_parsable_certificates(certificates(bundle.as_bytes()).unwrap_or_default());
        }
        Ok(None) => {}
        // Public names can still be checked; a name that needs the bundle fails as signed by nobody known.
        Err(reason) => tracing::warn!("connecting without the trust bundle of the edge runtime: {reason}"),
    }
    if let Some(file) = &tls.ca_file {
        let path = net.paths.resolve(file);
        let read = tokio::task::spawn_blocking(move || {
            let pem = read_pem("tls.caFile", &path)?;
            certificates(&pem).ok_or(TlsError::Content {
                option: "tls.caFile",
                path,
                fault: "no certificate in PEM form in it",
            })
        });
        let own = read.await.map_err(|_| TlsError::Stopping)??;
        roots.add_parsable_certificates(own.iter().cloned());
        return Ok((roots, own));
    }
    Ok((roots, Vec::new()))
}

/// Which certificates of servers are trusted, where the usual check is not all.
#[derive(Debug)]
enum Trusts {
    /// As usual, and the very certificates of `caFile` too: what `openssl req -x509` makes calls itself an authority, which
    /// a server's certificate may not be, and is what people have who sign their own.
    Own { chain: Arc<WebPkiServerVerifier>, own: Vec<CertificateDer<'static>> },
    /// The one leaf certificate whose DER form has this SHA-256, whoever signed it and whatever it names.
    Pin([u8; 32]),
}

/// Checks as [`Trusts`] says. The peer still proves that it has the key.
#[derive(Debug)]
struct Verifier {
    trusts: Trusts,
    provider: Arc<CryptoProvider>,
}

/// What the peer showed instead of the pinned certificate: its SHA-256 in hexadecimal.
#[derive(Debug, thiserror::Error)]
#[error("leaf certificate with SHA-256 {0}")]
pub(super) struct PinMismatch(pub(super) String);

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.trusts {
            Trusts::Own { chain, own } => {
                match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
                    // Out of date and unknown are errors of their own, and come before this one.
                    Err(rustls::Error::InvalidCertificate(CertificateError::Other(_)))
                        if own.iter().any(|own| own == end_entity) =>
                    {
                        verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                        Ok(ServerCertVerified::assertion())
                    }
                    verdict => verdict,
                }
            }
            Trusts::Pin(pin) => {
                let digest: [u8; 32] = Sha256::digest(end_entity.as_ref()).into();
                if digest == *pin {
                    return Ok(ServerCertVerified::assertion());
                }
                let shown = digest.iter().map(|byte| format!("{byte:02x}")).collect();
                let mismatch = OtherError(Arc::new(PinMismatch(shown)));
                Err(rustls::Error::InvalidCertificate(CertificateError::Other(mismatch)))
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
