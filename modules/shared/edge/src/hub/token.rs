//! Shared access signatures: the password of an MQTT connection.

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_util::future::BoxFuture;
use hmac::{Hmac, Mac};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::Sha256;

use crate::service::{CertificateSource, ServerCertificate};

/// RFC 3986 §2.3: everything but unreserved characters is encoded, `/` too.
pub(crate) const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Trust bundles are small; a file that is not says it was named by mistake.
const MAX_CA_FILE: u64 = 1024 * 1024;

/// Computes HMAC-SHA256 with the module's key, base64.
pub(crate) trait Signer: Send + Sync {
    fn sign<'a>(&'a self, data: &'a [u8]) -> BoxFuture<'a, Result<String, String>>;
}

/// A token for `{iothub}/devices/{device}/modules/{module}` that ends at `expiry` (seconds since 1970).
///
/// What is signed is the encoded resource exactly as sent, a line feed, and the expiry.
pub(crate) async fn module_token(
    signer: &dyn Signer,
    iothub: &str,
    device: &str,
    module: &str,
    expiry: u64,
) -> Result<String, String> {
    let resource = format!("{iothub}/devices/{device}/modules/{module}");
    let resource = utf8_percent_encode(&resource, ENCODED).to_string();
    let signature = signer.sign(format!("{resource}\n{expiry}").as_bytes()).await?;
    let signature = utf8_percent_encode(&signature, ENCODED);
    Ok(format!("SharedAccessSignature sr={resource}&sig={signature}&se={expiry}"))
}

/// The identity of the developer's form: the key itself and a CA file.
pub(crate) struct ModuleKey {
    key: Vec<u8>,
    ca_file: PathBuf,
}

impl ModuleKey {
    pub fn new(key: Vec<u8>, ca_file: PathBuf) -> Self {
        Self { key, ca_file }
    }

    async fn read_ca_file(&self) -> std::io::Result<String> {
        use tokio::io::AsyncReadExt;
        let mut text = String::new();
        tokio::fs::File::open(&self.ca_file).await?.take(MAX_CA_FILE).read_to_string(&mut text).await?;
        Ok(text)
    }
}

impl Signer for ModuleKey {
    fn sign<'a>(&'a self, data: &'a [u8]) -> BoxFuture<'a, Result<String, String>> {
        let signed = Hmac::<Sha256>::new_from_slice(&self.key).map(|mut mac| {
            mac.update(data);
            BASE64.encode(mac.finalize().into_bytes())
        });
        Box::pin(std::future::ready(signed.map_err(|error| error.to_string())))
    }
}

impl CertificateSource for ModuleKey {
    fn server(&self, _: &str) -> BoxFuture<'_, Result<ServerCertificate, String>> {
        Box::pin(std::future::ready(Err("a module with a connection string gets no certificates; set \
             tls.certificateFile and tls.keyFile"
            .to_owned())))
    }

    fn trust_bundle(&self) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(async move {
            let read = self.read_ca_file().await;
            read.map_err(|error| format!("EdgeModuleCACertificateFile, {}: {error}", self.ca_file.display()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_signs_the_encoded_resource_and_encodes_the_signature() {
        let key = ModuleKey::new(b"secret".to_vec(), PathBuf::new());
        let token = module_token(&key, "h.azure-devices.net", "d 1", "m", 1_700_000_000).await.unwrap();
        let signed =
            key.sign(b"h.azure-devices.net%2Fdevices%2Fd%201%2Fmodules%2Fm\n1700000000").await.unwrap();
        let signature = signed.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
        assert_eq!(
            token,
            format!(
                "SharedAccessSignature sr=h.azure-devices.net%2Fdevices%2Fd%201%2Fmodules%2Fm&sig={signature}&se=1700000000"
            )
        );
    }

    /// RFC 4231 §4.3, test case 2.
    #[tokio::test]
    async fn the_signature_is_hmac_sha256() {
        let key = ModuleKey::new(b"Jefe".to_vec(), PathBuf::new());
        let signed = BASE64.decode(key.sign(b"what do ya want for nothing?").await.unwrap()).unwrap();
        let hex: String = signed.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }
}
