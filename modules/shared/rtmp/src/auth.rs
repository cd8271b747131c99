//! User and password as encoders send them: the challenge dialogue of `connect`.
//!
//! Neither scheme is published by its vendor; this follows what librtmp, OBS and ffmpeg send and expect. MD5
//! is theirs, and the stream itself is in the clear: without `rtmps` this keeps out strangers, not eavesdroppers.

use std::collections::VecDeque;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};

/// A user and a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user's name.
    pub username: String,
    /// The password: never shown.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Open challenges that are remembered: an attacker can push out those of others, not use up memory.
const MAX_OPEN: usize = 1024;

/// The server's side of `authmod=adobe`.
///
/// The dialogue takes three connections: the first `connect` is refused with "need auth", the second (which
/// names the user) with a salt and a challenge, the third carries the response. A challenge is good once, and
/// only the newest 1024 are remembered, so one value of this type is kept per listener, not per connection.
#[derive(Debug, Default)]
pub struct AdobeAuth {
    open: VecDeque<Open>,
}

/// A challenge that was sent and not answered yet.
#[derive(Debug)]
struct Open {
    salt: String,
    opaque: String,
}

/// What to do with a `connect`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthStep {
    /// The password is right.
    Accepted,
    /// Not yet: reject with this description and close; the client comes back on a new connection.
    Challenge(String),
    /// User or password is wrong: reject with this description and close.
    Denied(String),
}

impl AdobeAuth {
    /// Without open challenges.
    pub fn new() -> Self {
        Self::default()
    }

    /// Judges the query that came behind `app` (or, with some clients, `tcUrl`) in `connect`.
    ///
    /// Whether the user exists is not told apart from whether the password is right.
    pub fn check(&mut self, query: Option<&str>, wanted: &Credentials) -> AuthStep {
        let query = query.unwrap_or_default();
        let (Some("adobe"), Some(user)) = (parameter(query, "authmod"), parameter(query, "user")) else {
            return AuthStep::Challenge(
                "[ AccessManager.Reject ] : [ code=403 need auth; authmod=adobe ] : ".to_owned(),
            );
        };
        let Some(response) = parameter(query, "response") else {
            return AuthStep::Challenge(self.challenge(user));
        };
        let opaque = parameter(query, "opaque").unwrap_or_default();
        let challenge = parameter(query, "challenge").unwrap_or_default();
        let open = self.open.iter().position(|open| open.opaque == opaque);
        let accepted = open.and_then(|index| self.open.remove(index)).is_some_and(|open| {
            let expected = adobe_response(&wanted.username, &open.salt, &wanted.password, opaque, challenge);
            // Both compared in full, whatever the first says.
            same(user, &wanted.username) & same(response, &expected)
        });
        if accepted {
            return AuthStep::Accepted;
        }
        AuthStep::Denied(
            "[ AccessManager.Reject ] : [ authmod=adobe ] : ?reason=authfailed&opaque=-".to_owned(),
        )
    }

    fn challenge(&mut self, user: &str) -> String {
        let salt = STANDARD.encode(rand::random::<[u8; 6]>());
        let opaque = STANDARD.encode(rand::random::<[u8; 12]>());
        // What the client shows of itself goes back into its own refusal, but not what could break the syntax.
        let user: String = user.chars().filter(|c| c.is_ascii_graphic() && *c != '&').take(64).collect();
        let text = format!(
            "[ AccessManager.Reject ] : [ authmod=adobe ] : \
             ?reason=needauth&user={user}&salt={salt}&challenge={opaque}&opaque={opaque}"
        );
        self.open.push_back(Open { salt, opaque });
        if self.open.len() > MAX_OPEN {
            self.open.pop_front();
        }
        text
    }
}

/// The client's next step after a refused `connect`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Connect again with this query.
    Query(String),
    /// Nothing that more dialogue could mend.
    Final,
}

/// Reads the description of a refused `connect`. `tried` says that this connection carried a response already.
pub(crate) fn answer(description: &str, credentials: Option<&Credentials>, app: &str, tried: bool) -> Answer {
    let scheme =
        ["adobe", "llnw"].into_iter().find(|scheme| description.contains(&format!("authmod={scheme}")));
    let (Some(scheme), Some(Credentials { username, password })) = (scheme, credentials) else {
        return Answer::Final;
    };
    if description.contains("code=403 need auth") {
        return if tried {
            Answer::Final
        } else {
            Answer::Query(format!("authmod={scheme}&user={}", escaped(username)))
        };
    }
    let Some((_, query)) = description.split_once("?reason=needauth") else { return Answer::Final };
    if tried {
        return Answer::Final;
    }
    let query = query.trim_end().trim_end_matches(']').trim_end();
    let mine = format!("{:08x}", rand::random::<u32>());
    let user = escaped(username);
    if scheme == "llnw" {
        let nonce = parameter(query, "nonce").unwrap_or_default();
        let response = llnw_response(username, password, app, nonce, &mine);
        return Answer::Query(format!(
            "authmod=llnw&user={user}&nonce={nonce}&cnonce={mine}&nc=00000001&response={response}"
        ));
    }
    let salt = parameter(query, "salt").unwrap_or_default();
    let opaque = parameter(query, "opaque").filter(|opaque| !opaque.is_empty());
    let theirs = opaque.or_else(|| parameter(query, "challenge")).unwrap_or_default();
    let response = adobe_response(username, salt, password, theirs, &mine);
    let mut answer = format!("authmod=adobe&user={user}&challenge={mine}&response={response}");
    if let Some(opaque) = opaque {
        answer.push_str("&opaque=");
        answer.push_str(opaque);
    }
    Answer::Query(answer)
}

/// base64(MD5(base64(MD5(user + salt + password)) + server's challenge + client's challenge))
fn adobe_response(user: &str, salt: &str, password: &str, theirs: &str, mine: &str) -> String {
    let inner = STANDARD.encode(md5([user, salt, password]));
    STANDARD.encode(md5([&inner, theirs, mine]))
}

/// HTTP Digest (RFC 2617 §3.2.2) with fixed realm and method.
fn llnw_response(user: &str, password: &str, app: &str, nonce: &str, cnonce: &str) -> String {
    let app = app.split('?').next().unwrap_or_default();
    let instance = if app.contains('/') { "" } else { "/_definst_" };
    let first = hex(&md5([user, ":live:", password]));
    let second = hex(&md5(["publish:/", app, instance]));
    hex(&md5([&first, ":", nonce, ":00000001:", cnonce, ":auth:", &second]))
}

fn md5<const N: usize>(parts: [&str; N]) -> [u8; 16] {
    let mut hash = Md5::new();
    parts.iter().for_each(|part| hash.update(part.as_bytes()));
    hash.finalize().into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A parameter's value, as sent: base64 comes unescaped, so neither `+` nor `=` mean anything special.
fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query
        .split('&')
        .find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name))
        .map(|(_, value)| value)
}

/// Servers read the user's name raw; only what would end the parameter is escaped.
fn escaped(user: &str) -> String {
    user.replace('%', "%25").replace('&', "%26").replace('?', "%3F")
}

/// Compares without telling, by its time, where the first difference is.
fn same(a: &str, b: &str) -> bool {
    let differences = a.bytes().zip(b.bytes()).fold(0, |all, (a, b)| all | (a ^ b));
    a.len() == b.len() && std::hint::black_box(differences) == 0
}

#[cfg(test)]
mod tests;
