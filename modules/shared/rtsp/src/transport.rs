//! The `Transport` header (RFC 2326 §12.39), in the spellings that are met.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

/// Two numbers of one medium: the even one for RTP, the odd one for RTCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pair<T> {
    /// RTP.
    pub rtp: T,
    /// RTCP.
    pub rtcp: T,
}

impl<T: fmt::Display> fmt::Display for Pair<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.rtp, self.rtcp)
    }
}

/// One way to carry a medium, out of those that a client lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// Inside the RTSP connection.
    Tcp {
        /// Channels, if the client names them.
        channels: Option<Pair<u8>>,
    },
    /// Datagrams to ports of the client.
    Udp {
        /// The client's ports; `rtcp` is `rtp + 1` where it names one only.
        client_ports: Pair<u16>,
    },
    /// Datagrams to a group; the server says which.
    Multicast,
}

/// Kinds of transport that an endpoint has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// [`Offer::Tcp`].
    pub tcp: bool,
    /// [`Offer::Udp`].
    pub udp: bool,
    /// [`Offer::Multicast`].
    pub multicast: bool,
}

/// All that a client offers for one medium, in its order of preference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offers {
    /// Those that are understood.
    pub list: Vec<Offer>,
    /// `mode` says that the client is going to send: `record`, `receive`, in any case, quoted or not.
    pub record: bool,
}

/// Most transports that are read of one header.
const MAX_OFFERS: usize = 16;

impl Offers {
    /// Reads the header's value. What can't be understood, and SRTP, is left out.
    pub fn parse(value: &str) -> Self {
        let mut offers = Self::default();
        for spec in value.split(',').take(MAX_OFFERS) {
            let spec = Spec::parse(spec);
            if spec.mode.iter().any(|mode| ["record", "receive"].contains(&mode.as_str())) {
                offers.record = true;
            }
            offers.list.extend(spec.offer());
        }
        offers
    }

    /// The client's first choice among what is allowed.
    pub fn choose(&self, allowed: Allowed) -> Option<Offer> {
        self.list.iter().copied().find(|offer| match offer {
            Offer::Tcp { .. } => allowed.tcp,
            Offer::Udp { .. } => allowed.udp,
            Offer::Multicast => allowed.multicast,
        })
    }
}

/// The parameters of one transport.
#[derive(Debug, Default)]
pub(crate) struct Spec {
    pub(crate) profile: String,
    pub(crate) multicast: bool,
    pub(crate) interleaved: Option<Pair<u8>>,
    pub(crate) client_ports: Option<Pair<u16>>,
    pub(crate) server_ports: Option<Pair<u16>>,
    pub(crate) source: Option<IpAddr>,
    unicast: bool,
    mode: Vec<String>,
}

impl Spec {
    pub(crate) fn parse(text: &str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let profile = parts.next().unwrap_or_default().to_ascii_uppercase();
        let mut spec = Self { profile, ..Self::default() };
        for part in parts {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let value = value.trim().trim_matches(['"', '\'']);
            match name.trim().to_ascii_lowercase().as_str() {
                "unicast" => spec.unicast = true,
                "multicast" => spec.multicast = true,
                "interleaved" => spec.interleaved = pair(value, |first: u8| first.checked_add(1)),
                "client_port" => spec.client_ports = pair(value, |first: u16| first.checked_add(1)),
                "server_port" => spec.server_ports = pair(value, |first: u16| first.checked_add(1)),
                "source" => spec.source = value.parse().ok(),
                "mode" => spec.mode.push(value.to_ascii_lowercase()),
                _ => {}
            }
        }
        spec
    }

    pub(crate) fn is_tcp(&self) -> bool {
        self.profile == "RTP/AVP/TCP" || (self.profile == "RTP/AVP" && self.interleaved.is_some())
    }

    fn offer(&self) -> Option<Offer> {
        if self.is_tcp() {
            return Some(Offer::Tcp { channels: self.interleaved });
        }
        if !["RTP/AVP", "RTP/AVP/UDP"].contains(&self.profile.as_str()) {
            return None;
        }
        match self.client_ports {
            // Ports mean unicast, said or not, unless it says multicast.
            Some(client_ports) if !self.multicast && client_ports.rtp != 0 => {
                Some(Offer::Udp { client_ports })
            }
            _ if self.unicast => None,
            _ => Some(Offer::Multicast),
        }
    }
}

/// `8000-8001`, or `8000` alone.
fn pair<T: std::str::FromStr + Copy>(text: &str, next: impl Fn(T) -> Option<T>) -> Option<Pair<T>> {
    let (rtp, rtcp) = match text.split_once('-') {
        Some((rtp, rtcp)) => (rtp.trim().parse().ok()?, rtcp.trim().parse().ok()),
        None => (text.trim().parse().ok()?, None),
    };
    Some(Pair { rtp, rtcp: rtcp.or_else(|| next(rtp))? })
}

/// The one transport of an answer to SETUP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried {
    /// Inside the RTSP connection.
    Tcp {
        /// Channels.
        channels: Pair<u8>,
    },
    /// Datagrams.
    Udp {
        /// The client's ports, as it named them.
        client_ports: Pair<u16>,
        /// Ours: what is sent comes from exactly these.
        server_ports: Pair<u16>,
    },
    /// Datagrams to a group.
    Multicast {
        /// The group.
        group: Ipv4Addr,
        /// Its ports.
        ports: Pair<u16>,
        /// Time to live.
        ttl: u8,
    },
}

impl Carried {
    /// The header's value. `ssrc` belongs to what we send; `record` echoes the mode that the client asked for.
    pub(crate) fn header(&self, ssrc: Option<u32>, record: bool) -> String {
        let mut text = match self {
            Self::Tcp { channels } => format!("RTP/AVP/TCP;unicast;interleaved={channels}"),
            Self::Udp { client_ports, server_ports } => {
                format!("RTP/AVP;unicast;client_port={client_ports};server_port={server_ports}")
            }
            Self::Multicast { group, ports, ttl } => {
                format!("RTP/AVP;multicast;destination={group};port={ports};ttl={ttl}")
            }
        };
        if let Some(ssrc) = ssrc {
            text.push_str(&format!(";ssrc={ssrc:08X}"));
        }
        if record {
            text.push_str(";mode=record");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(header: &str) -> Option<Offer> {
        Offers::parse(header).list.first().copied()
    }

    #[test]
    fn the_transports_of_ffmpeg_gstreamer_and_vlc_are_understood() {
        let channels = Some(Pair { rtp: 0, rtcp: 1 });
        assert_eq!(first("RTP/AVP/TCP;unicast;interleaved=0-1"), Some(Offer::Tcp { channels }));
        let client_ports = Pair { rtp: 5000, rtcp: 5001 };
        for header in [
            "RTP/AVP/UDP;unicast;client_port=5000-5001",
            "RTP/AVP;unicast;client_port=5000-5001",
            "rtp/avp ; unicast ; client_port=5000",
            "RTP/AVP;client_port=5000-5001",
        ] {
            assert_eq!(first(header), Some(Offer::Udp { client_ports }), "{header}");
        }
        assert_eq!(first("RTP/AVP;multicast"), Some(Offer::Multicast));
        assert_eq!(first("RTP/AVP/TCP"), Some(Offer::Tcp { channels: None }));
        assert_eq!(first("RTP/SAVP;unicast;client_port=5000-5001"), None);
        assert_eq!(first("RTP/AVP;unicast"), None);
        assert_eq!(first("RTP/AVP/TCP;unicast;interleaved=255"), Some(Offer::Tcp { channels: None }));
    }

    #[test]
    fn the_first_that_is_allowed_is_chosen() {
        let offers = Offers::parse(
            "RTP/AVP/UDP;unicast;client_port=5000-5001,RTP/AVP/UDP;multicast,RTP/AVP/TCP;unicast;interleaved=2-3",
        );
        let tcp = Allowed { tcp: true, ..Allowed::default() };
        assert_eq!(offers.choose(tcp), Some(Offer::Tcp { channels: Some(Pair { rtp: 2, rtcp: 3 }) }));
        assert_eq!(offers.choose(Allowed { multicast: true, ..tcp }), Some(Offer::Multicast));
        assert_eq!(offers.choose(Allowed::default()), None);
    }

    #[test]
    fn every_spelling_of_recording_is_understood() {
        for mode in ["record", "RECORD", "\"record\"", "receive", "\"RECEIVE\""] {
            let offers = Offers::parse(&format!("RTP/AVP/TCP;unicast;mode={mode};interleaved=0-1"));
            assert!(offers.record, "{mode}");
        }
        assert!(!Offers::parse("RTP/AVP/TCP;unicast;mode=\"PLAY\";interleaved=0-1").record);
    }
}
