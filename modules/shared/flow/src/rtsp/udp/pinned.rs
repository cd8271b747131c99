//! Whose a publisher's datagrams are.
//!
//! Several publishers may stand behind one address, and networks rewrite their ports. Each medium belongs to the port that
//! was announced for it, or to the first one that sends what nobody else could have sent; what could be of several goes to
//! none of them.

use av_rtsp::transport::Pair;

/// A medium that a publisher is going to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::rtsp) struct Sent {
    /// Its index.
    pub(in crate::rtsp) medium: usize,
    /// As it was announced.
    pub(in crate::rtsp) payload_type: u8,
    /// The ports that it is said to come from.
    pub(in crate::rtsp) ports: Pair<u16>,
}

/// The same, and where it came from so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pinned {
    sent: Sent,
    /// The port of its RTP, and that of its RTCP.
    ports: [Option<u16>; 2],
    ssrc: Option<u32>,
}

impl Pinned {
    pub(super) const fn new(sent: Sent) -> Self {
        Self { sent, ports: [None, None], ssrc: None }
    }

    /// Its index.
    pub(super) const fn medium(&self) -> usize {
        self.sent.medium
    }

    fn came_from(&self, port: u16, rtcp: bool) -> bool {
        let [rtp, reports] = self.ports;
        (if rtcp { reports } else { rtp }) == Some(port)
    }

    /// It was announced from this port, and did not come from another one so far.
    fn expects(&self, port: u16, rtcp: bool) -> bool {
        let [rtp, reports] = self.ports;
        let (announced, known) =
            if rtcp { (self.sent.ports.rtcp, reports) } else { (self.sent.ports.rtp, rtp) };
        announced == port && known.is_none()
    }

    /// Nothing of it came so far, and it may begin with this packet.
    fn may_begin_with(&self, head: Head) -> bool {
        self.ports[0].is_none() && Some(self.sent.payload_type) == head.payload_type
    }

    fn pin(&mut self, port: u16, rtcp: bool, head: Head) {
        let [rtp, reports] = &mut self.ports;
        *(if rtcp { reports } else { rtp }) = Some(port);
        if !rtcp && head.payload_type.is_some() {
            self.ssrc = Some(head.ssrc);
        }
    }
}

/// What tells a packet's sender.
#[derive(Clone, Copy, Debug)]
struct Head {
    ssrc: u32,
    /// `None` where it is RTCP, or only keeps the way open.
    payload_type: Option<u8>,
}

impl Head {
    /// `None`: it is neither RTP nor RTCP.
    fn of(packet: &[u8], rtcp: bool) -> Option<Self> {
        let word = |at: usize| Some(u32::from_be_bytes(*packet.get(at..)?.first_chunk()?));
        let [first, second, ..] = packet else { return None };
        if first >> 6 != 2 {
            return None;
        }
        if rtcp {
            return Some(Self { ssrc: word(4)?, payload_type: None });
        }
        Some(Self { ssrc: word(8)?, payload_type: (packet.len() > 12).then_some(second & 0x7f) })
    }
}

/// Whose a packet from that port of their address is; it is theirs from then on. Of several publishers, by any key, each
/// with its media.
pub(super) fn whose<'a, K: Copy>(
    all: impl Iterator<Item = (K, &'a mut Pinned)>,
    port: u16,
    rtcp: bool,
    packet: &[u8],
) -> Option<(K, usize)> {
    let head = Head::of(packet, rtcp);
    let (mut announced, mut begins, mut known) = (Only::default(), Only::default(), Only::default());
    for (key, pinned) in all {
        if pinned.came_from(port, rtcp) {
            // Also with another source: encoders start anew.
            if let Some(head) = head {
                pinned.pin(port, rtcp, head);
            }
            return Some((key, pinned.medium()));
        }
        if pinned.expects(port, rtcp) {
            announced.add(key, pinned);
        } else if let Some(head) = head {
            if pinned.ssrc == Some(head.ssrc) {
                known.add(key, pinned);
            } else if !rtcp && pinned.may_begin_with(head) {
                begins.add(key, pinned);
            }
        }
    }
    let head = head?;
    let found = match (announced, known, begins) {
        (Only::One(found), ..)
        | (Only::None, Only::One(found), Only::None)
        | (Only::None, Only::None, Only::One(found)) => found,
        _ => return None,
    };
    let (key, pinned) = found;
    pinned.pin(port, rtcp, head);
    Some((key, pinned.medium()))
}

/// At most one is of use.
#[derive(Default)]
enum Only<T> {
    #[default]
    None,
    One(T),
    Several,
}

impl<'a, K> Only<(K, &'a mut Pinned)> {
    fn add(&mut self, key: K, pinned: &'a mut Pinned) {
        *self = match self {
            Self::None => Self::One((key, pinned)),
            Self::One(_) | Self::Several => Self::Several,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn media(first: u16) -> [Pinned; 2] {
        [0, 1].map(|medium| {
            let rtp = first + 2 * medium as u16;
            let (payload_type, ports) = (96 + medium as u8, Pair { rtp, rtcp: rtp + 1 });
            Pinned::new(Sent { medium, payload_type, ports })
        })
    }

    fn rtp(payload_type: u8, ssrc: u32) -> Vec<u8> {
        let mut packet = vec![0x80, payload_type, 0, 1, 0, 0, 0, 0];
        packet.extend(ssrc.to_be_bytes());
        packet.push(1);
        packet
    }

    fn rtcp(ssrc: u32) -> Vec<u8> {
        let mut packet = vec![0x80, 200, 0, 6];
        packet.extend(ssrc.to_be_bytes());
        packet
    }

    /// Publishers by their number.
    fn of(all: &mut [[Pinned; 2]], port: u16, reports: bool, packet: &[u8]) -> Option<(usize, usize)> {
        let all = all.iter_mut().enumerate();
        whose(
            all.flat_map(|(number, media)| media.iter_mut().map(move |m| (number, m))),
            port,
            reports,
            packet,
        )
    }

    #[test]
    fn what_comes_from_announced_ports_is_told_by_them_alone() {
        let mut all = [media(5000), media(6000)];
        // All have the same payload types, and these even the same sources.
        for (port, wanted) in [(5000, (0, 0)), (6002, (1, 1)), (5002, (0, 1)), (6000, (1, 0)), (5000, (0, 0))]
        {
            assert_eq!(of(&mut all, port, false, &rtp(96, 7)), Some(wanted), "{port}");
            assert_eq!(of(&mut all, port + 1, true, &rtcp(7)), Some(wanted), "{port}");
        }
        assert_eq!(of(&mut all, 9000, false, &rtp(96, 8)), None, "of nobody");
    }

    #[test]
    fn a_publisher_behind_rewritten_ports_is_pinned_to_the_first_that_sends_what_only_it_can() {
        let mut all = vec![media(5000)];
        assert_eq!(of(&mut all, 41_000, false, &rtp(96, 1)), Some((0, 0)));
        assert_eq!(of(&mut all, 41_001, false, &rtp(97, 2)), Some((0, 1)));
        // The next one comes from the same address, and announces the same ports.
        all.push(media(5000));
        assert_eq!(of(&mut all, 42_000, false, &rtp(96, 3)), Some((1, 0)));
        assert_eq!(of(&mut all, 42_001, false, &rtp(97, 4)), Some((1, 1)));
        for (port, wanted) in [(41_000, (0, 0)), (42_001, (1, 1)), (41_001, (0, 1)), (42_000, (1, 0))] {
            assert_eq!(of(&mut all, port, false, &rtp(96, 9)), Some(wanted), "{port}");
        }
        // Reports are told by the source, which they were pinned to last.
        assert_eq!(of(&mut all, 43_000, true, &rtcp(5)), None);
    }

    #[test]
    fn what_may_be_of_two_publishers_is_given_to_neither() {
        let mut all = [media(5000), media(6000)];
        assert_eq!(of(&mut all, 41_000, false, &rtp(96, 1)), None);
        // The first one is found by its port, so the others are the second one's.
        assert_eq!(of(&mut all, 5000, false, &rtp(96, 2)), Some((0, 0)));
        assert_eq!(of(&mut all, 41_000, false, &rtp(96, 1)), Some((1, 0)));
        // The first one's way is another now: that is its source, and nobody else is waited for.
        assert_eq!(of(&mut all, 44_000, false, &rtp(96, 2)), Some((0, 0)));
        assert_eq!(of(&mut all, 44_001, true, &rtcp(2)), Some((0, 0)));
    }

    #[test]
    fn what_only_opens_a_way_pins_nothing() {
        let mut all = [media(5000)];
        for punch in [&[0_u8; 4][..], &[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[0x40; 200], &[]] {
            assert_eq!(of(&mut all, 41_000, false, punch), None);
        }
        assert_eq!(of(&mut all, 42_000, false, &rtp(96, 1)), Some((0, 0)));
    }
}
