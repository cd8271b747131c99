//! Where a server sends a session: the library says that there is a redirect, and not where to.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::error::PullError;
use super::source::Peer;
use crate::config::ConnectUrl;
use crate::net::Net;
use crate::rtsp::redirect::followed;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_to_is_found_in_the_head_however_it_is_spelled() {
        let head = "RTSP/1.0 302 Moved\r\nCSeq: 1\r\nlocation:  rtsp://other:8554/b\r\n\r\n";
        assert_eq!(location(head).as_deref(), Some("rtsp://other:8554/b"));
        assert_eq!(location("RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n"), None);
    }
}
