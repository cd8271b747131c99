//! A camera's session: connecting, what it offers, which tracks are taken.

use std::sync::Arc;
use std::time::Duration;

use av_media::Kind;
use retina::client::{
    Demuxed, Described, InitialTimestampPolicy, PlayOptions, Session, SessionGroup, SessionIdPolicy,
    SessionOptions, SetupOptions, TcpTransportOptions, Transport, UdpTransportOptions, UnknownRtcpSsrcPolicy,
};
use retina::codec::FrameFormat;
use tokio::time::timeout;
use url::Url;

use super::error::PullError;
use super::forwarder::Forwarder;
use crate::config::{ClientTls, ConnectUrl, Content, Credentials};
use crate::net::{Counted, DialError, Net};
use crate::rtsp::asked::{asked, key, without_secrets};
use crate::rtsp::options::RTSP;
use crate::rtsp::pull::PullConfig;
use crate::stream::{InputStatus, LeftOut};

/// To connect and to learn what there is, and once more to set up and play it.
pub(super) const ESTABLISH: Duration = Duration::from_secs(9);

/// Whom the session is with, and what must not be shown of it.
pub(super) struct Peer {
    pub(super) host: String,
    pub(super) url: ConnectUrl,
    pub(super) tls: ClientTls,
    /// As it is asked for, query included.
    pub(super) asked: Url,
    hidden: Vec<String>,
}

impl Peer {
    /// One line of what the library says, without secrets.
    pub(super) fn said(&self, error: &retina::Error) -> String {
        without_secrets(&error.to_string(), &self.hidden)
    }

    /// What the system said when connecting.
    pub(super) fn unreachable(&self, said: &str) -> DialError {
        let host = format!("{}:{}", crate::config::bracketed(&self.url.host), self.url.port);
        if said.contains("lookup") {
            DialError::NameNotFound { host: self.host.clone() }
        } else if said.contains("refused") {
            DialError::Refused { host }
        } else {
            DialError::Unreachable { host, source: std::io::Error::other(said.to_owned()) }
        }
    }
}

/// A session that plays.
pub(super) struct Source {
    pub(super) demuxed: Demuxed,
    /// Of pictures and of sound.
    pub(super) taken: [Option<usize>; 2],
    /// What the camera offers and nobody takes: kind where it has one, name, reason.
    pub(super) left_out: Vec<LeftOutTrack>,
    /// Whether the camera says that it sends sound.
    pub(super) expects_sound: bool,
    _forwarder: Option<Forwarder>,
    _counted: Counted,
}

impl Source {
    /// Tells what is left out of the session.
    pub(super) fn tell(&self, status: &InputStatus) {
        for (kind, taken) in [Kind::Video, Kind::Audio].into_iter().zip(self.taken) {
            let own = self.left_out.iter().find(|track| track.kind == Some(kind) && taken.is_none());
            let told = own.map(|track| LeftOut { codec: track.codec.clone(), dropped: track.why.to_owned() });
            status.leave_out(kind, told);
        }
        for track in &self.left_out {
            status.said.note(&format!("offers a track {:?} that is left out: {}", track.codec, track.why));
        }
    }
}

/// A track that is offered and not taken.
pub(super) struct LeftOutTrack {
    pub(super) kind: Option<Kind>,
    pub(super) codec: String,
    pub(super) why: &'static str,
}

/// Who is asked, with the secrets of this moment. `url` is the configured one or where that led.
pub(super) async fn peer(net: &Net, config: &PullConfig, url: &ConnectUrl) -> Result<Peer, PullError> {
    let key = match key(config.credentials.as_ref()) {
        Some(secret) => Some(net.secrets().get(secret).await?),
        None => None,
    };
    let (asked, hidden) = asked(url, key.as_ref().map(|key| key.expose()))
        .map_err(|source| PullError::Url { host: url.host.clone(), source })?;
    Ok(Peer { host: url.host.clone(), url: url.clone(), tls: config.tls.clone(), asked, hidden })
}

/// Opens a session up to the moment when media may flow.
pub(super) async fn open(
    net: &Net,
    config: &PullConfig,
    peer: &Peer,
    group: &Arc<SessionGroup>,
    content: Content,
) -> Result<Source, PullError> {
    let same_host = peer.url.host == config.url.host;
    let credentials = match &config.credentials {
        // Another host that the camera names has no right to them.
        Some(Credentials::User { username, password }) if same_host => {
            Some((username, net.secrets().get(password).await?))
        }
        _ => None,
    };
    let options = SessionOptions::default()
        .creds(credentials.map(|(username, password)| retina::client::Credentials {
            username: username.clone(),
            password: password.expose().to_owned(),
        }))
        .user_agent(format!("av-services/{}", env!("CARGO_PKG_VERSION")))
        .session_group(group.clone())
        .session_id(SessionIdPolicy::UseFirst);
    let counted = net.dialled().add();
    let mut url = peer.asked.clone();
    let mut forwarder = None;
    if peer.url.scheme.tls {
        let dialled = timeout(ESTABLISH, net.dial(&peer.url.host, peer.url.port, Some(&peer.tls))).await;
        let dialled =
            dialled.map_err(|_| DialError::timed_out(&peer.url.host, peer.url.port, ESTABLISH))??;
        let opened = Forwarder::open(dialled).await.map_err(|error| peer.unreachable(&error.to_string()))?;
        let _ = url.set_scheme(RTSP.name);
        let _ = url.set_ip_host(opened.address.ip());
        let _ = url.set_port(Some(opened.address.port()));
        forwarder = Some(opened);
    } else if let Some(address) = net.known_host(&peer.url.host) {
        let _ = url.set_ip_host(address);
    }
    let described = match timeout(ESTABLISH, Session::describe(url, options)).await {
        Ok(described) => described.map_err(|error| PullError::of(&error, peer))?,
        Err(_) => return Err(silent(peer)),
    };
    let offer = Offer::of(&described, content);
    if offer.taken == [None, None] {
        return Err(PullError::Nothing { host: peer.host.clone(), offers: offer.names, content });
    }
    match timeout(ESTABLISH, start(described, &offer, config.udp)).await {
        Ok(started) => Ok(Source {
            demuxed: started.map_err(|error| PullError::of(&error, peer))?,
            taken: offer.taken,
            left_out: offer.left_out,
            expects_sound: offer.expects_sound,
            _forwarder: forwarder,
            _counted: counted,
        }),
        Err(_) => Err(silent(peer)),
    }
}

fn silent(peer: &Peer) -> PullError {
    PullError::Silent { host: peer.host.clone(), seconds: ESTABLISH.as_secs() }
}

async fn start(mut session: Session<Described>, offer: &Offer, udp: bool) -> Result<Demuxed, retina::Error> {
    for index in offer.taken.into_iter().flatten() {
        let transport = if udp {
            Transport::Udp(UdpTransportOptions::default())
        } else {
            Transport::Tcp(TcpTransportOptions::default())
        };
        let options = SetupOptions::default().transport(transport).frame_format(FrameFormat::MP4);
        session.setup(index, options).await?;
    }
    let options = PlayOptions::default()
        .initial_timestamp(InitialTimestampPolicy::Permissive)
        .unknown_rtcp_ssrc(UnknownRtcpSsrcPolicy::DropPackets);
    session.play(options).await?.demuxed()
}

/// What a camera offers, and what is taken of it: of each kind the first that can be passed on.
struct Offer {
    taken: [Option<usize>; 2],
    left_out: Vec<LeftOutTrack>,
    names: String,
    expects_sound: bool,
}

impl Offer {
    fn of(session: &Session<Described>, content: Content) -> Self {
        let to_camera = to_camera(session.sdp());
        let streams = session.streams();
        let mut taken = [None; 2];
        // A track towards the camera is a loudspeaker, unless the camera has its directions wrong: then it is the only one.
        let is_to_camera = |index: usize| to_camera.get(index).copied().unwrap_or(false);
        for wanted in [false, true] {
            for (index, stream) in
                streams.iter().enumerate().filter(|(index, _)| is_to_camera(*index) == wanted)
            {
                let kind = usable(stream.media(), stream.encoding_name());
                let slot = match kind.filter(|kind| content.admits(*kind)) {
                    Some(Kind::Video) => &mut taken[0],
                    Some(Kind::Audio) => &mut taken[1],
                    None => continue,
                };
                slot.get_or_insert(index);
            }
        }
        let mut left_out = Vec::new();
        for (index, stream) in streams.iter().enumerate().filter(|(index, _)| !taken.contains(&Some(*index)))
        {
            let kind = match stream.media() {
                "video" => Some(Kind::Video),
                "audio" => Some(Kind::Audio),
                _ => None,
            };
            let why = match (kind, usable(stream.media(), stream.encoding_name())) {
                (_, Some(Kind::Video)) if !content.admits(Kind::Video) => "content is audioOnly",
                (_, Some(Kind::Audio)) if !content.admits(Kind::Audio) => "content is videoOnly",
                (_, Some(_)) if is_to_camera(index) => "it is a back channel",
                (_, Some(_)) => "another one of its kind came first",
                (None, _) => "it is neither video nor audio",
                (Some(_), None) => "it is not carried",
            };
            let codec = stream.encoding_name().chars().filter(|c| !c.is_control()).take(32).collect();
            left_out.push(LeftOutTrack { kind, codec, why });
        }
        let names: Vec<_> = streams
            .iter()
            .take(8)
            .map(|stream| format!("{}/{}", stream.media(), stream.encoding_name()))
            .collect();
        let expects_sound = taken[1].is_some_and(|index| !is_to_camera(index));
        Self { taken, left_out, names: names.join(", "), expects_sound }
    }
}

/// What an encoding is, where it can be passed on.
fn usable(media: &str, encoding: &str) -> Option<Kind> {
    match (media, encoding) {
        ("video", "h264" | "h265") => Some(Kind::Video),
        ("audio", "mpeg4-generic" | "pcma" | "pcmu") => Some(Kind::Audio),
        _ => None,
    }
}

/// Which media descriptions of an SDP go from us to the camera (RFC 8866 §6.7: directions are the receiver's).
fn to_camera(sdp: &[u8]) -> Vec<bool> {
    let mut found = Vec::new();
    for line in String::from_utf8_lossy(sdp).lines() {
        let line = line.trim_end();
        if line.starts_with("m=") {
            found.push(false);
        } else if line == "a=sendonly"
            && let Some(last) = found.last_mut()
        {
            *last = true;
        }
    }
    // Where all are said to, the server speaks of its own side.
    if found.iter().all(|to_camera| *to_camera) {
        found.fill(false);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tracks_towards_the_camera_are_told_by_their_media_description() {
        let sdp = b"v=0\r\na=sendonly\r\nm=video 0 RTP/AVP 96\r\na=recvonly\r\nm=audio 0 RTP/AVP 0\r\na=sendonly\r\n";
        assert_eq!(to_camera(sdp), [false, true]);
        assert_eq!(to_camera(b"m=video 0 RTP/AVP 96\na=sendonly\n"), [false]);
        assert_eq!(to_camera(b"\xff\xfe"), [false; 0]);
    }
}
