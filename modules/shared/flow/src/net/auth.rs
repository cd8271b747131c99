//! Who may publish to or play from a listener.

use std::net::IpAddr;

use ipnet::IpNet;
use percent_encoding::percent_decode_str;

use super::{SecretUnavailable, Secrets};
use crate::config::{Secret, SecretText};

/// Why a peer is not let in. The text is for the peer: it tells nothing of the secret, nor of this machine.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Denied {
    /// No `key=` in the query.
    #[error("a key is needed: put ?key=... behind the stream name")]
    NoKey,
    /// None of the configured keys.
    #[error("the key is wrong")]
    WrongKey,
    /// Neither proved to be the user nor asked how.
    #[error("user and password are needed")]
    NoUser,
    /// Nobody can be let in for now.
    #[error("the key can't be checked now; see the module's log")]
    Unavailable(#[from] SecretUnavailable),
}

impl Denied {
    /// The same for the log, with names of variables and files that strangers are not told.
    pub fn detail(&self) -> String {
        match self {
            Self::Unavailable(error) => format!("the key can't be checked: {error}"),
            Self::NoKey | Self::WrongKey | Self::NoUser => self.to_string(),
        }
    }
}

/// Whether a peer's address is in `allow`; an empty list allows all. IPv4 in IPv6's clothes is IPv4.
pub fn allowed(allow: &[IpNet], peer: IpAddr) -> bool {
    let peer = peer.to_canonical();
    allow.is_empty() || allow.iter().any(|net| net.contains(&peer) || maps(net, peer))
}

/// Whether an IPv4 peer is in a network that is written as IPv4-mapped IPv6 (`::ffff:10.0.0.0/104`).
fn maps(net: &IpNet, peer: IpAddr) -> bool {
    match (net, peer) {
        (IpNet::V6(net), IpAddr::V4(peer)) => net.prefix_len() >= 96 && net.contains(&peer.to_ipv6_mapped()),
        _ => false,
    }
}

/// Checks the `key=` of a query against every configured key, in constant time. Before the answer is no, key
/// files are read again (at most once a second), so that a new key works at once.
pub async fn check_key(secrets: &Secrets, keys: &[Secret], query: Option<&str>) -> Result<(), Denied> {
    let offered = query.and_then(offered_key).ok_or(Denied::NoKey)?;
    if any_matches(secrets, keys, &offered).await? {
        return Ok(());
    }
    for key in keys {
        secrets.refused(key);
    }
    if any_matches(secrets, keys, &offered).await? { Ok(()) } else { Err(Denied::WrongKey) }
}

/// A key that can't be read does not keep out those who have another one.
async fn any_matches(secrets: &Secrets, keys: &[Secret], offered: &str) -> Result<bool, SecretUnavailable> {
    let mut known = Vec::with_capacity(keys.len());
    let mut unavailable = None;
    for key in keys {
        match secrets.get(key).await {
            Ok(text) => known.push(text),
            Err(error) => unavailable = Some(error),
        }
    }
    if SecretText::any_matches(known.iter().map(AsRef::as_ref), offered) {
        return Ok(true);
    }
    match unavailable {
        Some(error) => Err(error),
        None => Ok(false),
    }
}

/// The value of `key=` in a query, percent-decoded; the first one where there are several.
fn offered_key(query: &str) -> Option<String> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix("key="))?;
    percent_decode_str(value).decode_utf8().ok().map(|key| key.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use av_edge::Paths;

    fn nets(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|net| net.parse().unwrap()).collect()
    }

    fn is_allowed(allow: &[&str], peer: &str) -> bool {
        allowed(&nets(allow), peer.parse().unwrap())
    }

    #[test]
    fn an_empty_list_allows_all() {
        assert!(is_allowed(&[], "203.0.113.9"));
    }

    #[test]
    fn ipv4_and_its_ipv6_mapped_form_are_one() {
        for allow in ["10.0.0.0/8", "::ffff:10.0.0.0/104"] {
            assert!(is_allowed(&[allow], "10.1.2.3"), "{allow}");
            assert!(is_allowed(&[allow], "::ffff:10.1.2.3"), "{allow}");
            assert!(!is_allowed(&[allow], "::ffff:11.1.2.3"), "{allow}");
        }
        assert!(!is_allowed(&["2001:db8::/32"], "10.1.2.3"));
        assert!(is_allowed(&["10.0.0.0/8", "2001:db8::/32"], "2001:db8::7"));
    }

    #[tokio::test]
    async fn any_configured_key_opens_and_nothing_else() {
        let secrets = Secrets::new(Paths::default());
        let keys = [Secret::Plain("old".into()), Secret::Plain("new/er".into())];
        for right in ["key=old", "key=new/er", "key=new%2Fer", "a=b&key=old&c=d"] {
            check_key(&secrets, &keys, Some(right)).await.unwrap();
        }
        for wrong in ["key=", "key=ol", "key=older", "key=OLD", "key=wrong&key=old", "key=%ff"] {
            assert!(check_key(&secrets, &keys, Some(wrong)).await.is_err(), "{wrong}");
        }
        for none in [None, Some(""), Some("old"), Some("xkey=old")] {
            assert!(matches!(check_key(&secrets, &keys, none).await, Err(Denied::NoKey)), "{none:?}");
        }
    }

    #[tokio::test]
    async fn an_unreadable_key_keeps_out_only_those_who_have_no_other() {
        let secrets = Secrets::new(Paths::default());
        let keys = [Secret::File("/no/such/key".into()), Secret::Plain("good".into())];
        check_key(&secrets, &keys, Some("key=good")).await.unwrap();
        let error = check_key(&secrets, &keys, Some("key=bad")).await.unwrap_err();
        assert!(error.detail().contains("/no/such/key"), "{error:?}");
        assert_eq!(error.to_string(), "the key can't be checked now; see the module's log");
    }
}
