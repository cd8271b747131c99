//! The client's side: answers to challenges.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::parameters::Parameters;
use super::{Algorithm, Credentials, Exchange, hex};

/// Answers a server's challenges: Digest where it is offered, Basic where nothing else is.
#[derive(Clone, Debug)]
pub struct ClientAuth {
    credentials: Credentials,
    cnonce: String,
    answering: Option<Challenge>,
    /// Requests that were answered with the present nonce.
    count: u32,
}

/// The best of a server's challenges.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Digest {
        algorithm: Algorithm,
        realm: String,
        nonce: String,
        opaque: Option<String>,
        quality: bool,
        /// As it was named, if it was.
        named: bool,
    },
}

impl Challenge {
    fn parse(header: &str) -> Option<Self> {
        let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("Basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("Digest") {
            return None;
        }
        let sent = Parameters::parse(rest);
        let qualities = sent.get("qop").unwrap_or_default();
        Some(Self::Digest {
            algorithm: Algorithm::named(sent.get("algorithm"))?,
            realm: sent.get("realm")?.to_owned(),
            nonce: sent.get("nonce")?.to_owned(),
            opaque: sent.get("opaque").map(str::to_owned),
            quality: qualities.split(',').any(|one| one.trim().eq_ignore_ascii_case("auth")),
            named: sent.get("algorithm").is_some(),
        })
    }

    const fn strength(&self) -> u8 {
        match self {
            Self::Basic => 0,
            Self::Digest { algorithm: Algorithm::Md5, .. } => 1,
            Self::Digest { algorithm: Algorithm::Sha256, .. } => 2,
        }
    }
}

impl ClientAuth {
    /// `random` makes the client's nonce.
    pub fn new(credentials: Credentials, random: [u8; 16]) -> Self {
        Self { credentials, cnonce: hex(&random), answering: None, count: 0 }
    }

    /// Takes the values of a refusal's `WWW-Authenticate`. False where none of them can be answered, or the answer
    /// to the very same challenge was just refused.
    pub fn challenged<'a>(&mut self, headers: impl Iterator<Item = &'a str>) -> bool {
        let usable = headers.filter_map(Challenge::parse);
        let Some(best) = usable.max_by_key(Challenge::strength) else { return false };
        if self.count > 0 && self.answering.as_ref() == Some(&best) {
            return false;
        }
        self.answering = Some(best);
        self.count = 0;
        true
    }

    /// The next request's `Authorization`; `None` while nothing was asked.
    pub fn header(&mut self, method: &str, uri: &str) -> Option<String> {
        let challenge = self.answering.as_ref()?;
        self.count = self.count.saturating_add(1);
        let Credentials { username, password } = &self.credentials;
        let Challenge::Digest { algorithm, realm, nonce, opaque, quality, named } = challenge else {
            return Some(format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))));
        };
        let nc = format!("{:08x}", self.count);
        let quality = quality.then_some((nc.as_str(), self.cnonce.as_str()));
        let exchange = Exchange { realm, nonce, method, uri, quality };
        let response = exchange.response(*algorithm, &self.credentials);
        let (user, realm) = (quoted(username), quoted(realm));
        let mut header = format!(
            "Digest username={user}, realm={realm}, nonce={}, uri={}, response=\"{response}\"",
            quoted(nonce),
            quoted(uri),
        );
        if *named {
            header.push_str(&format!(", algorithm={}", algorithm.name()));
        }
        if let Some(opaque) = opaque {
            header.push_str(&format!(", opaque={}", quoted(opaque)));
        }
        if let Some((nc, cnonce)) = quality {
            header.push_str(&format!(", qop=auth, nc={nc}, cnonce=\"{cnonce}\""));
        }
        Some(header)
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
