//! The server's side: challenges, and what is said to them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::parameters::Parameters;
use super::{Algorithm, Credentials, Exchange, hex, same};
use crate::uri::Target;

/// Hexadecimal digits of a SHA-256.
const SHA256_DIGITS: usize = 64;

/// What a request proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It comes from the user.
    Granted,
    /// It says nothing, or not in a way that is understood: ask.
    Missing,
    /// It is wrong. Whether the user or the password is, is not told apart.
    Wrong,
}

/// Asks the peer of one connection who it is.
///
/// The nonce lasts as long as the connection: few clients answer a second challenge in mid-session. SHA-256 is
/// offered first and MD5 last: ffmpeg takes the last challenge that it understands, others the first.
#[derive(Debug)]
pub struct ServerAuth {
    realm: &'static str,
    nonce: String,
    /// Basic sends the password itself.
    basic: bool,
}

impl ServerAuth {
    /// `random` must be unpredictable and of this connection alone. `tls`: the connection is encrypted.
    pub fn new(random: [u8; 16], tls: bool) -> Self {
        Self { realm: "av-services", nonce: hex(&random), basic: tls }
    }

    /// Values for `WWW-Authenticate`, one header each, in order.
    pub fn challenges(&self) -> Vec<String> {
        let Self { realm, nonce, basic } = self;
        let mut all = vec![format!("Digest realm=\"{realm}\", nonce=\"{nonce}\", algorithm=SHA-256")];
        if *basic {
            all.push(format!("Basic realm=\"{realm}\""));
        }
        // Without `algorithm`, which some clients understand only unquoted and others only quoted.
        all.push(format!("Digest realm=\"{realm}\", nonce=\"{nonce}\""));
        all
    }

    /// Judges a request's `Authorization`.
    pub fn check(&self, header: Option<&str>, method: &str, uri: &str, wanted: &Credentials) -> Verdict {
        let Some((scheme, rest)) = header.and_then(|header| header.trim().split_once(' ')) else {
            return Verdict::Missing;
        };
        if scheme.eq_ignore_ascii_case("Digest") {
            self.digest(&Parameters::parse(rest), method, uri, wanted)
        } else if scheme.eq_ignore_ascii_case("Basic") && self.basic {
            let sent = STANDARD.decode(rest.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let right = format!("{}:{}", wanted.username, wanted.password);
            if sent.is_some_and(|sent| same(&sent, &right)) { Verdict::Granted } else { Verdict::Wrong }
        } else {
            Verdict::Missing
        }
    }

    fn digest(&self, sent: &Parameters, method: &str, uri: &str, wanted: &Credentials) -> Verdict {
        let Some(response) = sent.get("response") else { return Verdict::Missing };
        let algorithm = match sent.get("algorithm") {
            // Some clients (retina, which pulls by RTSP use) answer the first challenge without repeating its algorithm.
            None if response.len() == SHA256_DIGITS => Some(Algorithm::Sha256),
            name => Algorithm::named(name),
        };
        let Some(algorithm) = algorithm else { return Verdict::Missing };
        // Another connection's nonce: not wrong, only old.
        if sent.get("nonce").is_none_or(|nonce| !same(nonce, &self.nonce)) {
            return Verdict::Missing;
        }
        // The hash is over the URI that the header names. It must name this resource.
        let hashed = sent.get("uri").unwrap_or(uri);
        let quality = match (sent.get("qop"), sent.get("nc"), sent.get("cnonce")) {
            (Some("auth"), Some(nc), Some(cnonce)) => Some((nc, cnonce)),
            _ => None,
        };
        let exchange = Exchange { realm: self.realm, nonce: &self.nonce, method, uri: hashed, quality };
        let right = exchange.response(algorithm, wanted);
        let is_user = same(sent.get("username").unwrap_or_default(), &wanted.username);
        let is_right = same(&response.to_ascii_lowercase(), &right);
        if is_user & is_right & names_the_same(hashed, uri) { Verdict::Granted } else { Verdict::Wrong }
    }
}

/// Whether the `uri` of a Digest header stands for the request's. Cameras and players put there the path alone
/// (Bosch), the base with a slash (VLC) or without it, and leave out what SETUP appends.
fn names_the_same(hashed: &str, uri: &str) -> bool {
    if hashed == uri {
        return true;
    }
    let (Some(hashed), Some(asked)) = (Target::parse(hashed), Target::parse(uri)) else {
        return false;
    };
    let under = asked.path.strip_prefix(&hashed.path);
    under.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || hashed.path.is_empty())
}
