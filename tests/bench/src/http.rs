//! HTTP/1.1 as small as can be: one request after the other on one connection, answers with a length.

use std::error::Error;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub type Failure = Box<dyn Error + Send + Sync>;

/// `http://HOST:PORT/PATH`, taken apart.
#[derive(Clone)]
pub struct Url {
    address: String,
    pub path: String,
}

impl Url {
    pub fn parse(url: &str) -> Self {
        let parts = url.strip_prefix("http://").and_then(|rest| rest.split_once('/'));
        let (address, path) = parts.unwrap_or_else(|| panic!("{url}: not http://HOST:PORT/PATH"));
        Self { address: address.to_owned(), path: format!("/{path}") }
    }

    /// What a URI in the playlist at this address means.
    pub fn join(&self, uri: &str) -> String {
        if uri.starts_with('/') {
            return uri.to_owned();
        }
        let folder = self.path.split('?').next().unwrap().rsplit_once('/').unwrap().0;
        format!("{folder}/{uri}")
    }
}

/// A connection that is kept.
pub struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    host: String,
}

impl Connection {
    pub async fn open(url: &Url) -> Result<Self, Failure> {
        let stream = TcpStream::connect(&url.address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, input: Vec::with_capacity(1 << 20), host: url.address.clone() })
    }

    /// Status and content of an answer; the content is valid until the next request.
    pub async fn get(&mut self, path: &str) -> Result<(u16, &[u8]), Failure> {
        let head = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.host);
        self.stream.write_all(head.as_bytes()).await?;
        self.input.clear();
        let end = loop {
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err("closed".into());
            }
            if let Some(end) = self.input.windows(4).position(|end| end == b"\r\n\r\n") {
                break end + 4;
            }
        };
        let head = std::str::from_utf8(&self.input[..end])?;
        let status = head.split(' ').nth(1).unwrap_or_default().parse()?;
        let field = |line: &str| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        };
        let length = head.lines().find_map(field).ok_or("an answer without a length")?;
        while self.input.len() < end + length {
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err("closed".into());
            }
        }
        Ok((status, &self.input[end..]))
    }

    /// The content of an answer that has to be good.
    pub async fn fetch(&mut self, path: &str) -> Result<&[u8], Failure> {
        let (status, body) = self.get(path).await?;
        if status == 200 { Ok(body) } else { Err(format!("{path}: {status}").into()) }
    }

    /// The same as text.
    pub async fn text(&mut self, path: &str) -> Result<String, Failure> {
        Ok(String::from_utf8(self.fetch(path).await?.to_vec())?)
    }
}
