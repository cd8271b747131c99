//! The URL that a server is asked for.

use url::Url;

use crate::config::{ConnectUrl, Credentials, Secret, encoded_value};

/// The URL as it goes out, the key in its query, and what of it must not be shown: long texts first, so that none leaves
/// a part of another.
pub(super) fn asked(url: &ConnectUrl, key: Option<&str>) -> Result<(Url, Vec<String>), url::ParseError> {
    // UniFi puts an option for its own programs behind its `rtsps` addresses.
    let query = url.query.iter().flat_map(|query| query.split('&')).filter(|pair| *pair != "enableSrtp");
    let query: Vec<_> =
        query.map(str::to_owned).chain(key.map(|key| format!("key={}", encoded_value(key)))).collect();
    let mut hidden: Vec<_> =
        query.iter().filter_map(|pair| Some(pair.split_once('=')?.1.to_owned())).collect();
    hidden.extend(key.map(str::to_owned));
    hidden.retain(|text| !text.is_empty());
    hidden.sort_by_key(|text| std::cmp::Reverse(text.len()));
    let mut asked = Url::parse(&url.shown(false))?;
    asked.set_query((!query.is_empty()).then(|| query.join("&")).as_deref());
    // Said always: readers fill in no other port than that of `rtsp`.
    let _ = asked.set_port(Some(url.port));
    Ok((asked, hidden))
}

/// The secret that goes into the query.
pub(super) fn key(credentials: Option<&Credentials>) -> Option<&Secret> {
    match credentials {
        Some(Credentials::Key(secret) | Credentials::StreamKey(secret)) => Some(secret),
        _ => None,
    }
}

/// Which secret a refusal may be about.
pub(super) fn secret(credentials: Option<&Credentials>) -> Option<&Secret> {
    match credentials? {
        Credentials::Key(secret)
        | Credentials::StreamKey(secret)
        | Credentials::User { password: secret, .. } => Some(secret),
    }
}

/// What a peer said, in one line and without secrets.
pub(super) fn without_secrets(text: &str, hidden: &[String]) -> String {
    let mut line = text.lines().next().unwrap_or_default().to_owned();
    for secret in hidden {
        line = line.replace(secret.as_str(), "***");
    }
    line.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtsp::options::RTSPS;

    #[test]
    fn an_option_of_unifi_is_taken_off_and_what_else_is_asked_stays() {
        let url = |query: &str| ConnectUrl {
            scheme: RTSPS,
            host: "192.0.2.7".into(),
            port: 7441,
            path: "aBcD".into(),
            query: Some(query.into()),
        };
        let of = |query, key| asked(&url(query), key).unwrap();
        assert_eq!(of("enableSrtp", None).0.as_str(), "rtsps://192.0.2.7:7441/aBcD");
        let (url, hidden) = of("channel=1&enableSrtp", Some("se cret"));
        assert_eq!(url.as_str(), "rtsps://192.0.2.7:7441/aBcD?channel=1&key=se%20cret");
        assert!(hidden.contains(&"se cret".to_owned()), "{hidden:?}");
    }
}
