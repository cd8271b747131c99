//! Shared access signatures of modules, checked as edgeHub checks them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac};
use percent_encoding::percent_decode_str;
use sha2::Sha256;

/// Whom a token has to be for.
#[derive(Clone, Copy, Debug)]
pub struct Audience<'a> {
    /// Host names that its first part may be: the IoT Hub's and the gateway's.
    pub hosts: &'a [&'a str],
    /// The device.
    pub device: &'a str,
    /// The module.
    pub module: &'a str,
}

/// Why edgeHub answers CONNACK 5 to a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SasError {
    /// Not `SharedAccessSignature sr=..&sig=..&se=..`.
    #[error("the password is not `SharedAccessSignature sr=..&sig=..&se=..`: {0}")]
    Form(&'static str),
    /// Made with another key, or over other bytes than were sent.
    #[error("the token's signature is wrong: it must be HMAC-SHA256 over the encoded sr, \\n and se as sent")]
    Signature,
    /// For somebody else.
    #[error("the token is for {found:?}, expected {expected:?}")]
    Audience {
        /// The decoded `sr`.
        found: String,
        /// What would be right.
        expected: String,
    },
    /// `se` is in the past.
    #[error("the token expired {0} s ago")]
    Expired(u64),
}

/// HMAC-SHA256, as the workload API's `sign` and a module with a key of its own compute it.
pub fn sign(key: &[u8], data: &[u8]) -> Vec<u8> {
    mac(key).chain_update(data).finalize().into_bytes().to_vec()
}

fn mac(key: &[u8]) -> Hmac<Sha256> {
    match Hmac::new_from_slice(key) {
        Ok(mac) => mac,
        // An HMAC takes a key of any length (RFC 2104 §3); the type alone says that it may not.
        Err(_) => unreachable!("HMAC-SHA256 refused a key"),
    }
}

/// Checks a token and returns its expiry, in seconds since 1970. `now` likewise.
pub fn check(token: &str, key: &[u8], audience: Audience<'_>, now: u64) -> Result<u64, SasError> {
    let fields = token.strip_prefix("SharedAccessSignature ").ok_or(SasError::Form("no such prefix"))?;
    let field = |name: &str| {
        fields.split('&').find_map(|field| field.split_once('=').filter(|(key, _)| *key == name)).map(|f| f.1)
    };
    let resource = field("sr").ok_or(SasError::Form("no sr"))?;
    let signature = field("sig").ok_or(SasError::Form("no sig"))?;
    let expiry_text = field("se").ok_or(SasError::Form("no se"))?;
    let expiry: u64 = expiry_text.parse().map_err(|_| SasError::Form("se is not a number of seconds"))?;

    let signature = percent_decode_str(signature).decode_utf8().map_err(|_| SasError::Signature)?;
    let signature = BASE64.decode(signature.as_bytes()).map_err(|_| SasError::Signature)?;
    let signed = format!("{resource}\n{expiry_text}");
    mac(key).chain_update(signed).verify_slice(&signature).map_err(|_| SasError::Signature)?;

    let found = percent_decode_str(resource).decode_utf8_lossy().into_owned();
    let parts: Vec<&str> = found.split('/').collect();
    let same = |a: &str, b: &str| a.eq_ignore_ascii_case(b);
    let fits = match parts.as_slice() {
        [host, devices, device, modules, module] => {
            audience.hosts.iter().any(|expected| same(host, expected))
                && same(devices, "devices")
                && same(device, audience.device)
                && same(modules, "modules")
                && same(module, audience.module)
        }
        _ => false,
    };
    if !fits {
        let host = audience.hosts.first().copied().unwrap_or_default();
        let expected = format!("{host}/devices/{}/modules/{}", audience.device, audience.module);
        return Err(SasError::Audience { found, expected });
    }
    if expiry <= now {
        return Err(SasError::Expired(now.saturating_sub(expiry)));
    }
    Ok(expiry)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"a key of the module";
    const AUDIENCE: Audience<'_> =
        Audience { hosts: &["hub.azure-devices.net", "gw"], device: "dev", module: "mod" };

    fn token(resource: &str, expiry: &str) -> String {
        let signature = BASE64.encode(sign(KEY, format!("{resource}\n{expiry}").as_bytes()));
        let signature = percent_encoding::utf8_percent_encode(&signature, percent_encoding::NON_ALPHANUMERIC);
        format!("SharedAccessSignature sr={resource}&sig={signature}&se={expiry}")
    }

    #[test]
    fn a_token_for_this_module_that_is_still_good_passes() {
        let good = token("hub.azure-devices.net%2Fdevices%2Fdev%2Fmodules%2Fmod", "2000");
        assert_eq!(check(&good, KEY, AUDIENCE, 1999), Ok(2000));
        let other_case = token("GW%2fDevices%2fDEV%2fmodules%2fMod", "2000");
        assert_eq!(check(&other_case, KEY, AUDIENCE, 0), Ok(2000));
    }

    #[test]
    fn the_hmac_is_taken_over_what_was_sent_not_over_its_decoded_form() {
        let encoded = "hub.azure-devices.net%2Fdevices%2Fdev%2Fmodules%2Fmod";
        let good = token(encoded, "2000");
        let decoded = good.replace("%2Fdevices%2F", "/devices/");
        assert_eq!(check(&decoded, KEY, AUDIENCE, 0), Err(SasError::Signature));
        assert_eq!(check(&good, b"another key", AUDIENCE, 0), Err(SasError::Signature));
        assert_eq!(check(&good.replace("se=2000", "se=9000"), KEY, AUDIENCE, 0), Err(SasError::Signature));
    }

    #[test]
    fn the_order_of_fields_is_free() {
        let good = token("gw%2Fdevices%2Fdev%2Fmodules%2Fmod", "2000");
        let fields = good.strip_prefix("SharedAccessSignature ").unwrap();
        let mut fields: Vec<&str> = fields.split('&').collect();
        fields.reverse();
        let turned = format!("SharedAccessSignature {}", fields.join("&"));
        assert_eq!(check(&turned, KEY, AUDIENCE, 0), Ok(2000));
    }

    #[test]
    fn a_token_for_another_or_an_old_one_says_so() {
        for resource in [
            "other%2Fdevices%2Fdev%2Fmodules%2Fmod",
            "gw%2Fdevices%2Fother%2Fmodules%2Fmod",
            "gw%2Fdevices%2Fdev%2Fmodules%2Fother",
            "gw%2Fdevices%2Fdev",
            "gw",
        ] {
            let refused = check(&token(resource, "2000"), KEY, AUDIENCE, 0);
            assert!(matches!(refused, Err(SasError::Audience { .. })), "{resource}: {refused:?}");
        }
        let good = token("gw%2Fdevices%2Fdev%2Fmodules%2Fmod", "2000");
        assert_eq!(check(&good, KEY, AUDIENCE, 2030), Err(SasError::Expired(30)));
    }

    #[test]
    fn a_password_of_another_form_says_what_is_missing() {
        assert_eq!(check("", KEY, AUDIENCE, 0), Err(SasError::Form("no such prefix")));
        let none = check("SharedAccessSignature sr=x&se=1", KEY, AUDIENCE, 0);
        assert_eq!(none, Err(SasError::Form("no sig")));
        let word = check("SharedAccessSignature sr=x&sig=y&se=soon", KEY, AUDIENCE, 0);
        assert!(matches!(word, Err(SasError::Form(_))));
    }
}
