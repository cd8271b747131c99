//! URL schemes, as whoever speaks them defines them.

use std::fmt;
use std::hash::{Hash, Hasher};

/// A URL scheme. Two are the same when their names are.
#[derive(Clone, Copy)]
pub struct Scheme {
    /// As written in a URL, in lower case.
    pub name: &'static str,
    /// Whether the connection is TLS from its first byte.
    pub tls: bool,
    /// The port to listen on where the URL names none. Unprivileged, other than for connecting.
    pub listen_port: u16,
    /// The port to connect to where the URL names none.
    pub connect_port: u16,
    /// Whether the last segment of a path is a name that goes over the wire apart from the rest, with the query
    /// behind it. Then there has to be one, it holds no `?`, which nothing could tell from the query's, and where we
    /// send to it may be a secret.
    pub named: bool,
}

impl Scheme {
    /// A scheme without TLS whose paths are paths.
    pub const fn new(name: &'static str, listen_port: u16, connect_port: u16) -> Self {
        Self { name, tls: false, listen_port, connect_port, named: false }
    }

    /// The same in TLS.
    pub const fn in_tls(self) -> Self {
        Self { tls: true, ..self }
    }

    /// The same where paths end in a [name](Self::named).
    pub const fn with_names(self) -> Self {
        Self { named: true, ..self }
    }
}

impl PartialEq for Scheme {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Scheme {}

impl Hash for Scheme {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl fmt::Debug for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}
