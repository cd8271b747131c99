//! Where a server sends a session.

use url::Url;

use super::options::SCHEMES;
use crate::config::ConnectUrl;

/// Redirects in a row that are followed.
pub(super) const MAX_HOPS: usize = 5;

/// The address, as far as it may be followed: TLS is not given up.
pub(super) fn followed(location: &str, from: &ConnectUrl) -> Result<ConnectUrl, &'static str> {
    let to = Url::parse(location).map_err(|_| "it names no URL")?;
    let scheme =
        SCHEMES.iter().find(|scheme| scheme.name == to.scheme()).ok_or("it is not an RTSP address")?;
    if from.scheme.tls && !scheme.tls {
        return Err("it leads out of TLS");
    }
    let host = to.host_str().filter(|host| !host.is_empty()).ok_or("it names no host")?;
    let path = percent_encoding::percent_decode_str(to.path().trim_matches('/')).decode_utf8();
    Ok(ConnectUrl {
        scheme: *scheme,
        host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
        port: to.port().unwrap_or(scheme.connect_port),
        path: path.map_err(|_| "its path is not text")?.into_owned(),
        query: to.query().map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtsp::options::{RTSP, RTSPS};

    #[test]
    fn a_redirect_is_followed_but_not_out_of_tls() {
        let from =
            |scheme| ConnectUrl { scheme, host: "cam".into(), port: 554, path: "a".into(), query: None };
        let to = followed("rtsp://[2001:db8::1]:8554/b/c?d=e", &from(RTSP)).unwrap();
        assert_eq!((to.host.as_str(), to.port, to.path.as_str()), ("2001:db8::1", 8554, "b/c"));
        assert_eq!(to.query.as_deref(), Some("d=e"));
        assert_eq!(followed("rtsp://other/x", &from(RTSPS)), Err("it leads out of TLS"));
        assert_eq!(followed("rtsps://other/x", &from(RTSP)).unwrap().port, 322);
        assert_eq!(followed("http://other/x", &from(RTSP)), Err("it is not an RTSP address"));
        assert_eq!(followed("/x", &from(RTSP)), Err("it names no URL"));
    }
}
