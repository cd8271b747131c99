//! Who may see a stream: addresses, keys, user and password.

use av_flow::config::{Auth, SecretText};
use av_flow::net::Secrets;
use av_flow::net::auth::{self, Denied};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Response, StatusCode};

use super::body::Body;
use super::{reply, target};
use crate::channel::Channel;

/// Where the key came from, and so where it goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    None,
    /// `?key=K`: behind each URI of a playlist.
    Query(String),
    /// `/k/K/...`: relative URIs keep it.
    Path(String),
}

impl Key {
    /// What URIs of playlists end with.
    pub(crate) fn suffix(&self) -> String {
        match self {
            Self::Query(key) => format!("?key={}", target::encoded(key)),
            Self::None | Self::Path(_) => String::new(),
        }
    }
}

/// Why somebody is not let in.
pub(crate) struct Shut {
    pub why: String,
    pub answer: Response<Body>,
}

/// Lets somebody in, or says why not. The answer is the key as far as URIs have to carry it.
pub(crate) async fn enter(
    channel: &Channel,
    peer: std::net::IpAddr,
    secrets: &Secrets,
    key: Key,
    headers: &HeaderMap,
) -> Result<Key, Shut> {
    if !auth::allowed(&channel.config.allow, peer) {
        return Err(shut(StatusCode::FORBIDDEN, "this address is not allowed"));
    }
    match &channel.config.auth {
        None => Ok(Key::None),
        Some(Auth::Key(keys)) => {
            let query = match &key {
                Key::None => None,
                Key::Query(key) | Key::Path(key) => Some(format!("key={}", target::encoded(key))),
            };
            match auth::check_key(secrets, keys, query.as_deref()).await {
                Ok(()) => Ok(key),
                Err(denied @ Denied::Unavailable(_)) => {
                    Err(unavailable(denied.detail(), &denied.to_string()))
                }
                Err(Denied::NoKey) => {
                    Err(shut(StatusCode::FORBIDDEN, "a key is required: append ?key=... to the address"))
                }
                Err(denied) => Err(shut(StatusCode::FORBIDDEN, &denied.to_string())),
            }
        }
        Some(Auth::User { username, password }) => {
            let given = headers.get(header::AUTHORIZATION).and_then(basic);
            let known = match given {
                Some((user, given)) if user == *username => match secrets.get(password).await {
                    Ok(text) if SecretText::any_matches([&*text], &given) => true,
                    Ok(_) => {
                        // The file may have changed.
                        secrets.refused(password);
                        let again = secrets.get(password).await;
                        again.is_ok_and(|text| SecretText::any_matches([&*text], &given))
                    }
                    Err(error) => {
                        let why = format!("the password can't be checked: {error}");
                        let told = "the password can't be checked now; see the module's log";
                        return Err(unavailable(why, told));
                    }
                },
                _ => false,
            };
            if known {
                return Ok(Key::None);
            }
            let mut shut = shut(StatusCode::UNAUTHORIZED, "user and password are required");
            let challenge = HeaderValue::from_static("Basic realm=\"stream\", charset=\"UTF-8\"");
            shut.answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            Err(shut)
        }
    }
}

fn shut(status: StatusCode, why: &str) -> Shut {
    Shut { why: why.to_owned(), answer: reply::words(status, why) }
}

/// Nobody can be let in for now: the log says why, and strangers are not told names of this machine.
fn unavailable(why: String, told: &str) -> Shut {
    Shut { why, answer: reply::words(StatusCode::SERVICE_UNAVAILABLE, told) }
}

/// User and password of `Basic` (RFC 7617).
fn basic(value: &HeaderValue) -> Option<(String, String)> {
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    let bytes = STANDARD.decode(token.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    let text = String::from_utf8(bytes).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}
