//! The store that an output uses now, and the certificates that it trusts.

use std::sync::Arc;

use av_flow::config::SecretText;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::{BlobError, Container, Http, Pace, Store};
use crate::belief::Belief;
use crate::store::StoreConfig;

/// The store of one output, as long as nothing about it changes: its connection is kept.
#[derive(Default)]
pub struct Blobs {
    pace: Arc<Pace>,
    open: tokio::sync::Mutex<Option<Open>>,
}

struct Open {
    config: StoreConfig,
    secret: Option<Arc<SecretText>>,
    store: Arc<Store>,
}

impl Blobs {
    /// Blocks that arrived until now.
    pub fn blocks(&self) -> u64 {
        self.pace.blocks()
    }

    /// The store as it is configured now.
    ///
    /// # Errors
    /// The credentials can't be used.
    pub async fn store(
        &self,
        context: &av_edge::Context,
        belief: &Arc<Belief>,
        container: &Container,
        config: &StoreConfig,
        secret: Option<&Arc<SecretText>>,
    ) -> Result<Arc<Store>, BlobError> {
        self.pace.set(config.upload_rate);
        let mut open = self.open.lock().await;
        if let Some(open) = &*open
            && open.config == *config
            && open.secret.as_ref().map(|secret| secret.expose()) == secret.map(|secret| secret.expose())
        {
            return Ok(open.store.clone());
        }
        let transport = Http::new(context.hosts.clone(), roots(context).await, self.pace.clone())
            .map_err(|error| BlobError::Other(error.to_string()))?
            .telling(belief.clone());
        let credentials =
            config.credentials.as_ref().ok_or_else(|| BlobError::Access("no credentials".into()))?;
        let version = config.version.as_deref();
        let store = Arc::new(Store::new(
            container.clone(),
            credentials,
            secret.map(AsRef::as_ref),
            version,
            Arc::new(transport),
        )?);
        *open = Some(Open { config: config.clone(), secret: secret.cloned(), store: store.clone() });
        Ok(store)
    }
}

/// Public roots and those of the edge.
async fn roots(context: &av_edge::Context) -> RootCertStore {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    match context.certificates.trust_bundle().await {
        Ok(Some(bundle)) => {
            let certificates = CertificateDer::pem_slice_iter(bundle.as_bytes()).filter_map(Result::ok);
            roots.add_parsable_certificates(certificates);
        }
        Ok(None) => {}
        Err(reason) => tracing::warn!("connecting without the trust bundle of the edge runtime: {reason}"),
    }
    roots
}
