//! A camera's session: connecting, what it offers, which tracks are taken.

use std::sync::Arc;
use std::time::Duration;

use av_media::Kind;
use av_rtsp::sdp::{Direction, LeftAside, Medium, Presentation};
use retina::client::{
    Described, InitialSequenceNumberPolicy, InitialTimestampPolicy, PlayOptions, Playing, Session,
    SessionGroup, SessionIdPolicy, SessionOptions, SetupOptions, TcpTransportOptions, Transport,
    UdpTransportOptions, UnknownRtcpSsrcPolicy,
};
use tokio::time::timeout;
use url::Url;

use super::error::PullError;
use super::forwarder::Forwarder;
use super::mending::Mender;
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
    pub(super) session: Session<Playing>,
    /// What the camera describes, and which media of it are taken: of pictures and of sound.
    pub(super) presentation: Presentation,
    pub(super) taken: [Option<usize>; 2],
    /// By the library's number of a stream: which medium it is.
    pub(super) media: Vec<Option<usize>>,
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
            let told = own.map(|track| LeftOut { codec: track.codec.clone(), dropped: track.why.clone() });
            status.leave_out(kind, told);
        }
        for track in &self.left_out {
            status.said.note(&format!("offers a track {:?}, which is left out: {}", track.codec, track.why));
        }
    }
}

/// A track that is offered and not taken.
pub(super) struct LeftOutTrack {
    pub(super) kind: Option<Kind>,
    pub(super) codec: String,
    pub(super) why: String,
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

/// Opens a session up to the moment when media may flow. `mends`: the library refused an answer before.
pub(super) async fn open(
    net: &Net,
    config: &PullConfig,
    peer: &Peer,
    group: &Arc<SessionGroup>,
    content: Content,
    mends: bool,
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
    if peer.url.scheme.tls || mends {
        let tls = peer.url.scheme.tls.then_some(&peer.tls);
        let dialled = timeout(ESTABLISH, net.dial(&peer.url.host, peer.url.port, tls)).await;
        let dialled =
            dialled.map_err(|_| DialError::timed_out(&peer.url.host, peer.url.port, ESTABLISH))??;
        let mender = mends.then(|| Mender::new(config.udp.then_some(dialled.peer.ip())));
        let opened = Forwarder::open(dialled, mender, config.udp).await;
        let opened = opened.map_err(|error| peer.unreachable(&error.to_string()))?;
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
    let presentation = Presentation::parse(described.sdp())
        .map_err(|error| PullError::Broken { host: peer.host.clone(), said: error.to_string() })?;
    let offer = Offer::of(&described, &presentation, content);
    if offer.taken == [None, None] {
        return Err(PullError::Nothing { host: peer.host.clone(), offers: offer.names, content });
    }
    match timeout(ESTABLISH, start(described, &offer, config.udp)).await {
        Ok(started) => Ok(Source {
            session: started.map_err(|error| PullError::of(&error, peer))?,
            presentation,
            taken: offer.taken,
            media: offer.media,
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

async fn start(
    mut session: Session<Described>,
    offer: &Offer,
    udp: bool,
) -> Result<Session<Playing>, retina::Error> {
    for medium in offer.taken.into_iter().flatten() {
        let Some(stream) = offer.media.iter().position(|found| *found == Some(medium)) else { continue };
        let transport = if udp {
            Transport::Udp(UdpTransportOptions::default())
        } else {
            Transport::Tcp(TcpTransportOptions::default())
        };
        session.setup(stream, SetupOptions::default().transport(transport)).await?;
    }
    let options = PlayOptions::default()
        .initial_timestamp(InitialTimestampPolicy::Permissive)
        // What comes first is the first: some name another number.
        .initial_seq(InitialSequenceNumberPolicy::Ignore)
        // Whose a report is, is seen when packets have come.
        .unknown_rtcp_ssrc(UnknownRtcpSsrcPolicy::ProcessPackets);
    session.play(options).await
}

/// What a camera offers, and what is taken of it: of each kind the first that can be passed on.
struct Offer {
    taken: [Option<usize>; 2],
    media: Vec<Option<usize>>,
    left_out: Vec<LeftOutTrack>,
    names: String,
    expects_sound: bool,
}

impl Offer {
    fn of(session: &Session<Described>, presentation: &Presentation, content: Content) -> Self {
        let controls = session.streams().iter().map(|stream| stream.control().map_or("", Url::as_str));
        let media = matched(controls, presentation);
        let to_camera = to_camera(presentation);
        let mut taken = [None; 2];
        // A track towards the camera is a loudspeaker, unless the camera has its directions wrong: then it is the only one.
        for wanted in [false, true] {
            for index in
                media.iter().flatten().copied().filter(|index| to_camera.get(*index) == Some(&wanted))
            {
                let medium = presentation.media.get(index).filter(|medium| medium.coding.is_ok());
                let slot = match medium.and_then(|medium| medium.kind).filter(|kind| content.admits(*kind)) {
                    Some(Kind::Video) => &mut taken[0],
                    Some(Kind::Audio) => &mut taken[1],
                    None => continue,
                };
                slot.get_or_insert(index);
            }
        }
        let mut left_out = Vec::new();
        for (stream, index) in session.streams().iter().zip(&media) {
            let Some((index, medium)) = index.and_then(|index| Some((index, presentation.media.get(index)?)))
            else {
                continue;
            };
            if taken.contains(&Some(index)) {
                continue;
            }
            let why = match (&medium.coding, medium.kind) {
                (Err(LeftAside::Kind(_)), _) => "it is neither video nor audio".to_owned(),
                (Err(LeftAside::Encoding(_) | LeftAside::NoRtpMap(_)), _) => "it is not carried".to_owned(),
                (Err(why), _) => why.to_string(),
                (_, Some(Kind::Video)) if !content.admits(Kind::Video) => "content is audioOnly".to_owned(),
                (_, Some(Kind::Audio)) if !content.admits(Kind::Audio) => "content is videoOnly".to_owned(),
                _ if to_camera.get(index) == Some(&true) => "it is a back channel".to_owned(),
                _ => "another one of its kind came first".to_owned(),
            };
            let codec = stream.encoding_name().chars().filter(|c| !c.is_control()).take(32).collect();
            left_out.push(LeftOutTrack { kind: medium.kind, codec, why });
        }
        let names: Vec<_> = session
            .streams()
            .iter()
            .take(8)
            .map(|stream| format!("{}/{}", stream.media(), stream.encoding_name()))
            .collect();
        let expects_sound = taken[1].is_some_and(|index| to_camera.get(index) == Some(&false));
        Self { taken, media, left_out, names: names.join(", "), expects_sound }
    }
}

/// Which medium of a description each stream of the library's is. It passes over those that it can't read: the others are
/// in order, and known by the end of their URL.
fn matched<'a>(controls: impl Iterator<Item = &'a str>, presentation: &Presentation) -> Vec<Option<usize>> {
    let mut at = 0;
    let next = |control: &str| {
        let is_it = |medium: &Medium| control.ends_with(&medium.control);
        let found = at + presentation.media.get(at..)?.iter().position(is_it)?;
        at = found + 1;
        Some(found)
    };
    controls.map(next).collect()
}

/// Which media go from us to the camera (RFC 8866 §6.7: directions are the receiver's).
fn to_camera(presentation: &Presentation) -> Vec<bool> {
    let sends = |medium: &Medium| medium.direction == Some(Direction::Send);
    let found: Vec<_> = presentation.media.iter().map(sends).collect();
    // Where all are said to, the server speaks of its own side.
    if found.iter().all(|to_camera| *to_camera) { vec![false; found.len()] } else { found }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn presentation(media: &str) -> Presentation {
        let session = "v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n";
        Presentation::parse(format!("{session}{media}").as_bytes()).unwrap()
    }

    #[test]
    fn tracks_towards_the_camera_are_told_by_their_media_description() {
        let both = presentation(
            "a=sendonly\r\nm=video 0 RTP/AVP 96\r\na=recvonly\r\nm=audio 0 RTP/AVP 0\r\na=sendonly\r\n",
        );
        assert_eq!(to_camera(&both), [false, true]);
        assert_eq!(to_camera(&presentation("m=video 0 RTP/AVP 96\r\na=sendonly\r\n")), [false]);
    }

    #[test]
    fn streams_that_the_library_passes_over_move_no_other() {
        let three = presentation(
            "m=video 0 RTP/AVP 96\r\na=control:track1\r\nm=application 0 TCP/X 1\r\na=control:track2\r\n\
             m=audio 0 RTP/AVP 0\r\na=control:track3\r\n",
        );
        let of = |controls: &[&'static str]| matched(controls.iter().copied(), &three);
        assert_eq!(
            of(&["rtsp://c/track1", "rtsp://c/track2", "rtsp://c/track3"]),
            [Some(0), Some(1), Some(2)]
        );
        assert_eq!(of(&["rtsp://c/track1", "rtsp://c/track3"]), [Some(0), Some(2)]);
        assert_eq!(of(&["rtsp://c/else", "rtsp://c/track3"]), [None, Some(2)]);
    }
}
