//! Descriptions that come from outside.

use av_media::Kind;

use super::coding::{Coding, LeftAside};
use super::fmtp::{Fmtp, RtpMap};

/// A description that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SdpError {
    /// Not even after leaving out what can be left out.
    #[error("no SDP: {0}")]
    Malformed(String),
    /// No `m=` line.
    #[error("SDP without media")]
    NoMedia,
}

/// What a publisher or a camera says of its stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presentation {
    /// `s=`.
    pub name: String,
    /// `a=control` of the whole.
    pub control: Option<String>,
    /// Every `m=`, in order: the n-th of them is medium n.
    pub media: Vec<Medium>,
}

/// One `m=`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Medium {
    /// Pictures or sound; `None` for all else.
    pub kind: Option<Kind>,
    /// `a=control` as it stands: absolute, or relative to the base, or empty.
    pub control: String,
    /// The payload type of `coding`; where nothing is read, the first that is listed.
    pub payload_type: u8,
    /// RTP ticks a second.
    pub clock_rate: u32,
    /// Which way it goes, as it says: cameras are often wrong about it.
    pub direction: Option<Direction>,
    /// How it is coded, or why it is left aside.
    pub coding: Result<Coding, LeftAside>,
}

/// `a=sendrecv` and its like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// `sendonly`.
    Send,
    /// `recvonly`.
    Receive,
    /// `sendrecv`.
    Both,
    /// `inactive`.
    None,
}

/// Most media that are read; cameras have up to six.
const MAX_MEDIA: usize = 32;

impl Presentation {
    /// Reads SDP. Lines that matter to nobody here, and those that can't be understood, are left out.
    ///
    /// # Errors
    ///
    /// There is no medium in it.
    pub fn parse(body: &[u8]) -> Result<Self, SdpError> {
        let text = what_matters(&String::from_utf8_lossy(body));
        let session = sdp_types::Session::parse(text.as_bytes())
            .map_err(|error| SdpError::Malformed(error.to_string()))?;
        if session.medias.is_empty() {
            return Err(SdpError::NoMedia);
        }
        let control = session.get_first_attribute_value("control").flatten().map(str::to_owned);
        let direction = direction(&session.attributes);
        let media =
            session.medias.iter().take(MAX_MEDIA).map(|media| Medium::new(media, direction)).collect();
        Ok(Self { name: session.session_name, control, media })
    }

    /// The first medium of a kind that can be read, and its index.
    pub fn first(&self, kind: Kind) -> Option<(usize, &Medium, &Coding)> {
        let of_kind = self.media.iter().enumerate().filter(|(_, medium)| medium.kind == Some(kind));
        of_kind.filter_map(|(index, medium)| Some((index, medium, medium.coding.as_ref().ok()?))).next()
    }
}

impl Medium {
    fn new(media: &sdp_types::Media, direction_above: Option<Direction>) -> Self {
        let kind = match media.media.to_ascii_lowercase().as_str() {
            "video" => Some(Kind::Video),
            "audio" => Some(Kind::Audio),
            _ => None,
        };
        let types: Vec<u8> = media.fmt.split_ascii_whitespace().filter_map(|one| one.parse().ok()).collect();
        let read = types.iter().map(|payload_type| (*payload_type, coding(media, *payload_type)));
        // The first that is understood; of those that are not, the first.
        let mut best = None;
        for (payload_type, coding) in read {
            let good = coding.is_ok();
            if good || best.is_none() {
                best = Some((payload_type, coding));
            }
            if good {
                break;
            }
        }
        let (payload_type, found) =
            best.unwrap_or_else(|| (0, Err(LeftAside::NoRtpMap(media.fmt.chars().take(16).collect()))));
        let (clock_rate, coding) = match found {
            Ok((clock_rate, coding)) => (clock_rate, Ok(coding)),
            Err(why) => (0, Err(why)),
        };
        let proto = media.proto.to_ascii_uppercase();
        let coding = match kind {
            None => Err(LeftAside::Kind(media.media.chars().take(32).collect())),
            Some(_) if !["RTP/AVP", "RTP/AVP/TCP", "RTP/AVP/UDP", "RTP/AVPF"].contains(&proto.as_str()) => {
                Err(LeftAside::Profile(proto.chars().take(32).collect()))
            }
            Some(_) => coding,
        };
        Self {
            kind,
            control: value(media, "control").unwrap_or_default().trim().to_owned(),
            payload_type,
            clock_rate,
            direction: direction(&media.attributes).or(direction_above),
            coding,
        }
    }
}

/// Clock rate and coding of one payload type of a medium.
fn coding(media: &sdp_types::Media, payload_type: u8) -> Result<(u32, Coding), LeftAside> {
    let map = of_type(media, "rtpmap", payload_type).map(RtpMap::parse);
    let Some(map) = map.or_else(|| RtpMap::fixed(payload_type)) else {
        return Err(LeftAside::NoRtpMap(payload_type.to_string()));
    };
    // Some cameras write another payload type in the only fmtp.
    let mut all = values(media, "fmtp");
    let only = all.next().filter(|_| all.next().is_none()).and_then(|one| one.split_once([' ', '\t']));
    let fmtp = of_type(media, "fmtp", payload_type).or(only.map(|(_, parameters)| parameters));
    let coding = Coding::new(&map, &fmtp.map(Fmtp::parse).unwrap_or_default())?;
    Ok((if map.clock_rate == 0 { coding.usual_clock() } else { map.clock_rate }, coding))
}

fn values<'a>(media: &'a sdp_types::Media, name: &'a str) -> impl Iterator<Item = &'a str> {
    let of_name = move |attribute: &&sdp_types::Attribute| attribute.attribute.eq_ignore_ascii_case(name);
    media.attributes.iter().filter(of_name).filter_map(|attribute| attribute.value.as_deref())
}

fn value<'a>(media: &'a sdp_types::Media, name: &'a str) -> Option<&'a str> {
    values(media, name).next()
}

/// The value of the attribute that begins with this payload type, without it.
fn of_type<'a>(media: &'a sdp_types::Media, name: &'a str, payload_type: u8) -> Option<&'a str> {
    values(media, name).find_map(|value| {
        let (own, rest) = value.trim().split_once([' ', '\t'])?;
        (own.parse() == Ok(payload_type)).then_some(rest)
    })
}

fn direction(attributes: &[sdp_types::Attribute]) -> Option<Direction> {
    attributes.iter().find_map(|attribute| match attribute.attribute.trim() {
        "sendonly" => Some(Direction::Send),
        "recvonly" => Some(Direction::Receive),
        "sendrecv" => Some(Direction::Both),
        "inactive" => Some(Direction::None),
        _ => None,
    })
}

/// Version, name, media and attributes alone, each in a form that a strict reader takes: cameras repeat lines, leave
/// out others, and write ports that are none.
fn what_matters(text: &str) -> String {
    let mut kept = String::from("v=0\r\n");
    let mut named = false;
    for line in text.split(['\r', '\n']).map(|line| line.trim_matches(['\0', ' ', '\t'])) {
        let line = line.replace(|c: char| c.is_control() && c != '\t', "");
        match line.split_once('=') {
            Some(("s", _)) if !named => named = true,
            Some(("a", value)) if !value.is_empty() => {}
            Some(("m", value)) => {
                let mut words = value.split_ascii_whitespace();
                let (kind, _port) = (words.next(), words.next());
                let (Some(kind), Some(profile)) = (kind, words.next()) else { continue };
                let types = words.collect::<Vec<_>>().join(" ");
                kept.push_str(&format!("m={kind} 0 {profile} {types}\r\n"));
                continue;
            }
            _ => continue,
        }
        kept.push_str(&line);
        kept.push_str("\r\n");
    }
    kept
}
