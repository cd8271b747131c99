//! `HTTPS_PROXY` and `NO_PROXY`: a way out for devices that have no other.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use url::Url;

/// The longest answer to `CONNECT`.
const MOST_HEAD: usize = 16 * 1024;

/// What the environment says.
#[derive(Clone, Debug, Default)]
pub struct Proxy {
    https: Option<Way>,
    except: Vec<String>,
}

/// A proxy.
#[derive(Clone, PartialEq, Eq)]
pub struct Way {
    /// Of it.
    pub host: String,
    /// Of it.
    pub port: u16,
    /// `Proxy-Authorization`.
    authorization: Option<String>,
}

impl std::fmt::Debug for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Why there is no way through the proxy.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The connection to it.
    #[error("the proxy (HTTPS_PROXY): {0}")]
    Io(#[from] std::io::Error),
    /// It does not let us through.
    #[error("the proxy (HTTPS_PROXY) answers {0:?}")]
    Refused(String),
}

impl Proxy {
    /// Of this process; the names in capitals go first.
    pub fn of_environment() -> Self {
        let read = |name: &str| {
            let value = std::env::var(name).or_else(|_| std::env::var(name.to_lowercase()));
            value.ok().filter(|value| !value.is_empty())
        };
        Self::of(read("HTTPS_PROXY").as_deref(), read("NO_PROXY").as_deref())
    }

    fn of(https: Option<&str>, except: Option<&str>) -> Self {
        let parsed = https.and_then(|text| {
            let url =
                if text.contains("://") { Url::parse(text) } else { Url::parse(&format!("http://{text}")) };
            let url = url.ok()?;
            let decoded = |text: &str| percent_decode_str(text).collect::<Vec<u8>>();
            let authorization = (!url.username().is_empty()).then(|| {
                let password = decoded(url.password().unwrap_or_default());
                format!("Basic {}", STANDARD.encode([decoded(url.username()), password].join(&b':')))
            });
            let port = url.port_or_known_default().unwrap_or(80);
            Some(Way { host: url.host_str()?.to_owned(), port, authorization })
        });
        let except = except.unwrap_or_default().split(',').map(|name| name.trim().to_lowercase());
        Self { https: parsed, except: except.filter(|name| !name.is_empty()).collect() }
    }

    /// The proxy for a host; plain HTTP goes straight.
    pub fn of_host(&self, host: &str, is_tls: bool) -> Option<&Way> {
        let host = host.to_lowercase();
        let spared = self.except.iter().any(|name| {
            let name = name.trim_start_matches("*.").trim_start_matches('.');
            name == "*" || host == name || host.ends_with(&format!(".{name}"))
        });
        self.https.as_ref().filter(|_| is_tls && !spared)
    }
}

/// Asks a proxy for a way to `host`.
pub async fn tunnel(stream: &mut TcpStream, way: &Way, host: &str, port: u16) -> Result<(), ProxyError> {
    let authorization = way.authorization.as_ref();
    let authorization = authorization.map(|value| format!("Proxy-Authorization: {value}\r\n"));
    let authorization = authorization.unwrap_or_default();
    let ask = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n{authorization}\r\n");
    stream.write_all(ask.as_bytes()).await?;
    let mut head = Vec::new();
    // One byte at a time: what follows belongs to somebody else.
    while !head.ends_with(b"\r\n\r\n") && head.len() < MOST_HEAD {
        head.push(stream.read_u8().await?);
    }
    let line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
    let status = line.split(' ').nth(1).unwrap_or_default();
    if status.starts_with('2') { Ok(()) } else { Err(ProxyError::Refused(line.chars().take(80).collect())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_are_spared_and_plain_http_go_straight() {
        let proxy = Proxy::of(Some("http://proxy.corp:3128"), Some("localhost, .corp,*.internal"));
        let way = |host: &str, port| Way { host: host.to_owned(), port, authorization: None };
        assert_eq!(proxy.of_host("acc.blob.core.windows.net", true), Some(&way("proxy.corp", 3128)));
        for host in ["localhost", "blob.corp", "corp", "a.b.internal", "BLOB.CORP"] {
            assert_eq!(proxy.of_host(host, true), None, "{host}");
        }
        assert_eq!(proxy.of_host("acc.blob.core.windows.net", false), None);
        assert_eq!(Proxy::of(Some("proxy:8080"), None).of_host("a", true), Some(&way("proxy", 8080)));
        let named = Proxy::of(Some("http://us%40er:p@proxy"), None);
        let named = named.of_host("a", true).unwrap();
        assert_eq!((named.port, named.authorization.as_deref()), (80, Some("Basic dXNAZXI6cA==")));
        assert_eq!(Proxy::of(None, None).of_host("a", true), None);
    }
}
