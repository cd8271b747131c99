//! Where a server sends a session: the library says that there is a redirect, and not where to.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use url::Url;

use super::error::PullError;
use super::source::Peer;
use crate::config::ConnectUrl;
use crate::net::Net;
use crate::rtsp::options::SCHEMES;

/// The head of an answer.
const MAX_HEAD: usize = 16 << 10;
const ANSWER: Duration = Duration::from_secs(5);

/// Asks once more, and reads where to.
pub(super) async fn target(net: &Net, peer: &Peer) -> Result<ConnectUrl, PullError> {
    let lost = |why: &str| PullError::Lost { host: peer.host.clone(), why: why.to_owned() };
    let tls = peer.url.scheme.tls.then_some(&peer.tls);
    let mut connection = net.dial(&peer.url.host, peer.url.port, tls).await?;
    let asked = peer.asked.as_str();
    let request = format!("DESCRIBE {asked} RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp\r\n\r\n");
    let asking = async {
        connection.writer.write_all(request.as_bytes()).await?;
        connection.writer.flush().await?;
        let mut head = Vec::new();
        while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < MAX_HEAD {
            if connection.reader.read_buf(&mut head).await? == 0 {
                break;
            }
        }
        std::io::Result::Ok(head)
    };
    let head = match timeout(ANSWER, asking).await {
        Ok(Ok(head)) => head,
        Ok(Err(_)) => return Err(PullError::Closed { host: peer.host.clone() }),
        Err(_) => return Err(PullError::Silent { host: peer.host.clone(), seconds: ANSWER.as_secs() }),
    };
    let location = location(&String::from_utf8_lossy(&head)).ok_or_else(|| lost("it does not say where"))?;
    let to = followed(&location, &peer.url).map_err(lost)?;
    Ok(to)
}

/// `Location` of an answer's head (RFC 2326 §12.25).
fn location(head: &str) -> Option<String> {
    let field = |line: &str| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("Location").then(|| value.trim().to_owned())
    };
    head.lines().skip(1).find_map(field)
}

/// The address, as far as it may be followed: TLS is not given up.
fn followed(location: &str, from: &ConnectUrl) -> Result<ConnectUrl, &'static str> {
    let to = Url::parse(location).map_err(|_| "it names no URL")?;
    let scheme = SCHEMES.iter().find(|scheme| scheme.name == to.scheme()).ok_or("it is no RTSP address")?;
    if from.scheme.tls && !scheme.tls {
        return Err("it leads out of TLS");
    }
    let host = to.host_str().filter(|host| !host.is_empty()).ok_or("it names no host")?;
    let path = percent_encoding::percent_decode_str(to.path().trim_matches('/')).decode_utf8();
    Ok(ConnectUrl {
        scheme: *scheme,
        host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
        port: to.port().unwrap_or(scheme.connect_port),
        path: path.map_err(|_| "its path is no text")?.into_owned(),
        query: to.query().map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtsp::options::{RTSP, RTSPS};

    fn from(scheme: crate::config::Scheme) -> ConnectUrl {
        ConnectUrl { scheme, host: "cam".into(), port: 554, path: "a".into(), query: None }
    }

    #[test]
    fn a_redirect_is_followed_wherever_its_header_leads_but_not_out_of_tls() {
        let head = "RTSP/1.0 302 Moved\r\nCSeq: 1\r\nlocation:  rtsp://[2001:db8::1]:8554/b/c?d=e\r\n\r\n";
        let to = followed(&location(head).unwrap(), &from(RTSP)).unwrap();
        assert_eq!((to.host.as_str(), to.port, to.path.as_str()), ("2001:db8::1", 8554, "b/c"));
        assert_eq!(to.query.as_deref(), Some("d=e"));
        assert_eq!(followed("rtsp://other/x", &from(RTSPS)), Err("it leads out of TLS"));
        assert_eq!(followed("rtsps://other/x", &from(RTSP)).unwrap().port, 322);
        assert_eq!(followed("http://other/x", &from(RTSP)), Err("it is no RTSP address"));
        assert_eq!(followed("/x", &from(RTSP)), Err("it names no URL"));
        assert_eq!(location("RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n"), None);
    }
}
