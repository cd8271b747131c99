//! `encrypt` and `decrypt` of the workload API: AES-256-GCM, as the daemon's key service does it.

use hyper::StatusCode;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use super::Refused;
use crate::sas;

/// The first byte of every ciphertext: form 2 of the key service, data and then the tag.
const FORM: u8 = 2;
/// Keeps these keys apart from what the module has signed with its own.
const LABEL: &[u8] = b"local-edge workload encryption\0";

/// The key of one module and initialization vector, and what is authenticated beside the data.
pub(super) struct Sealing {
    key: LessSafeKey,
    named: Vec<u8>,
}

impl Sealing {
    /// The caller chooses the vector, of any length, where GCM in `ring` takes 12 bytes: so the vector is in the key
    /// and the nonce is always the same. Whoever uses a vector twice loses as much as with the daemon.
    pub fn new(secret: &[u8], vector: &[u8], module: &str, generation: &str) -> Result<Self, Refused> {
        if vector.is_empty() {
            return Err(failed("the initialization vector is empty"));
        }
        let key = sas::sign(secret, &[LABEL, vector].concat());
        let key = UnboundKey::new(&AES_256_GCM, &key).map_err(|_| failed("no key can be made"))?;
        // As the daemon has it: data of another module or generation can't be decrypted.
        Ok(Self { key: LessSafeKey::new(key), named: format!("{module}{generation}").into_bytes() })
    }

    /// Encrypts.
    pub fn seal(&self, mut data: Vec<u8>) -> Result<Vec<u8>, Refused> {
        let sealed = self.key.seal_in_place_append_tag(nonce(), Aad::from(&self.named), &mut data);
        sealed.map_err(|_| failed("the data can't be encrypted"))?;
        data.insert(0, FORM);
        Ok(data)
    }

    /// Decrypts what [`seal`](Self::seal) made with the same module, generation and vector.
    pub fn open(&self, mut data: Vec<u8>) -> Result<Vec<u8>, Refused> {
        if data.first() != Some(&FORM) {
            return Err(failed("the ciphertext is not one of this workload API"));
        }
        data.remove(0);
        let opened = self.key.open_in_place(nonce(), Aad::from(&self.named), &mut data);
        let length =
            opened.map_err(|_| failed("the ciphertext is not of this module, generation and vector"))?.len();
        data.truncate(length);
        Ok(data)
    }
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

/// The daemon gives this status to everything that its key service refuses.
fn failed(text: &str) -> Refused {
    Refused(StatusCode::INTERNAL_SERVER_ERROR, text.into())
}
