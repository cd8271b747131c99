//! Digest (RFC 7616, RFC 2617) and Basic (RFC 7617).

mod client;
mod parameters;
mod server;

use std::fmt;

use md5::Md5;
use sha2::{Digest as _, Sha256};

pub use client::ClientAuth;
pub use server::{ServerAuth, Verdict};

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

/// What Digest hashes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Md5,
    Sha256,
}

impl Algorithm {
    /// By its name; without one it is MD5 (RFC 2617 §3.2.1). `None` for others, the `-sess` forms included.
    fn named(name: Option<&str>) -> Option<Self> {
        match name {
            None => Some(Self::Md5),
            Some(name) if name.eq_ignore_ascii_case("MD5") => Some(Self::Md5),
            Some(name) if name.eq_ignore_ascii_case("SHA-256") => Some(Self::Sha256),
            Some(_) => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Sha256 => "SHA-256",
        }
    }

    fn hash(self, text: &str) -> String {
        match self {
            Self::Md5 => hex(&Md5::digest(text.as_bytes())),
            Self::Sha256 => hex(&Sha256::digest(text.as_bytes())),
        }
    }
}

/// What goes into a Digest response beside the password.
struct Exchange<'a> {
    realm: &'a str,
    nonce: &'a str,
    method: &'a str,
    uri: &'a str,
    /// `nc` and `cnonce`, with `qop=auth`.
    quality: Option<(&'a str, &'a str)>,
}

impl Exchange<'_> {
    /// `response` (RFC 7616 §3.4.1; without quality RFC 2617 §3.2.2.1).
    fn response(&self, algorithm: Algorithm, who: &Credentials) -> String {
        let Self { realm, nonce, method, uri, quality } = self;
        let ha1 = algorithm.hash(&format!("{}:{realm}:{}", who.username, who.password));
        let ha2 = algorithm.hash(&format!("{method}:{uri}"));
        match quality {
            Some((nc, cnonce)) => algorithm.hash(&format!("{ha1}:{nonce}:{nc}:{cnonce}:auth:{ha2}")),
            None => algorithm.hash(&format!("{ha1}:{nonce}:{ha2}")),
        }
    }
}

/// Hexadecimal, lower case.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Compares without telling, by its time, where the first difference is.
fn same(a: &str, b: &str) -> bool {
    let differences = a.bytes().zip(b.bytes()).fold(0, |all, (a, b)| all | (a ^ b));
    a.len() == b.len() && std::hint::black_box(differences) == 0
}

#[cfg(test)]
mod tests;
