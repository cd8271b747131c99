//! User and password as encoders send them: the challenge dialogue of `connect`.

/// A user and a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user's name.
    pub username: String,
    /// The password: never shown.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// The server's side of `authmod=adobe`.
///
/// The dialogue takes three connections: the first `connect` is refused with "need auth", the second (which
/// names the user) with a salt and a challenge, the third carries the response. A challenge is good once, and
/// only the newest 1024 are remembered, so one value of this type is kept per listener, not per connection.
#[derive(Debug, Default)]
pub struct AdobeAuth {}

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
    pub fn check(&mut self, query: Option<&str>, wanted: &Credentials) -> AuthStep {
        let _ = (query, wanted);
        AuthStep::Denied(String::new())
    }
}
