//! A stream that goes to a multicast group: it is sent once, while there are members, whose RTSP sessions say who they are.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use av_rtsp::server::SetupAnswer;
use av_rtsp::transport::Pair;
use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Mutex, oneshot, watch};

use super::described::{Described, Layout};
use super::options::Multicast;
use super::port::PlayRoute;
use super::reports;
use super::udp::{Expected, Route, UdpPair, UdpSink, Way};
use crate::endpoint::OutputContext;
use crate::fanout::{Arrival, Client, Farewell, Opening, Tie, tie};
use crate::net::{Attempts, listeners};

/// To tell the members that it is over.
const GOODBYE: Duration = Duration::from_secs(2);

/// The group of one output.
pub(super) struct Group {
    config: Multicast,
    /// By medium: from the ports that it is sent to, which is where members' reports come to as well.
    pairs: [Arc<UdpPair>; 2],
    sender: Mutex<Weak<Sender>>,
}

/// The group of an output, as soon as it can be sent to.
#[derive(Clone, Default)]
pub(super) struct GroupSlot(Arc<OnceLock<Group>>);

/// What is sent to the group, while anybody holds it.
struct Sender {
    _tie: Tie,
    over: watch::Receiver<bool>,
}

/// A player that has joined the group.
pub(super) struct Member {
    _sender: Arc<Sender>,
    over: watch::Receiver<bool>,
    expected: Vec<Expected>,
    _client: Client,
}

impl GroupSlot {
    /// The group, where it can be sent to.
    pub(super) fn get(&self) -> Option<&Group> {
        self.0.get()
    }

    /// Opens the ports that a group is sent from, however often that takes. Until then players are served alone, and the
    /// state says what is lacking. The first attempt is made before anything is waited for.
    pub(super) async fn open(&self, output: &OutputContext, config: Option<&Multicast>) {
        let Some(config) = config else { return };
        let mut attempts = Attempts::of_output(output, "multicast", listeners::RETRY);
        loop {
            let source = match Group::open(config) {
                Ok(group) => {
                    let _ = self.0.set(group);
                    return attempts.has_all();
                }
                Err(source) => source,
            };
            let Multicast { group, port, .. } = config;
            let wait = attempts.lacks(&format!(
                "the group {group}, ports {port}-{}, can't be sent to: {source}; until it can, multicast is \
                 refused and every player is served by itself; set `interface` to one that is up, or choose \
                 another port",
                port.saturating_add(3)
            ));
            tokio::time::sleep(wait).await;
        }
    }
}

impl Group {
    fn open(config: &Multicast) -> io::Result<Self> {
        let [video, audio] = [0, 1].map(|medium| UdpPair::open_group(config, config.port_of(medium)));
        Ok(Self { config: config.clone(), pairs: [video?, audio?], sender: Mutex::default() })
    }

    /// What SETUP of a medium is answered with.
    pub(super) fn answer(&self, medium: usize) -> SetupAnswer {
        let Multicast { group, ttl, .. } = self.config;
        let rtp = self.config.port_of(medium);
        SetupAnswer::Multicast { group, ports: Pair { rtp, rtcp: rtp.saturating_add(1) }, ttl }
    }

    /// Makes a player a member. The first one starts the sender, and is told where the stream begins. `None`: the
    /// output has ended.
    pub(super) async fn join(
        &self,
        route: &PlayRoute,
        described: &Described,
        peer: IpAddr,
        client: Client,
    ) -> Option<(Member, Vec<Opening>)> {
        let mut slot = self.sender.lock().await;
        let running = slot.upgrade().filter(|sender| !*sender.over.borrow());
        let (sender, openings) = match running {
            Some(sender) => (sender, Vec::new()),
            None => {
                let (sender, openings) = self.start(route, described).await?;
                *slot = Arc::downgrade(&sender);
                (sender, openings)
            }
        };
        // Reports come from whichever port: members are told apart by their addresses.
        let expected = self.pairs.iter().map(|pair| pair.expect(peer, Vec::new())).collect();
        let over = sender.over.clone();
        Some((Member { _sender: sender, over, expected, _client: client }, openings))
    }

    async fn start(&self, route: &PlayRoute, described: &Described) -> Option<(Arc<Sender>, Vec<Opening>)> {
        let mut layout = Layout::default();
        let mut routes = Vec::new();
        let mut byes = Vec::new();
        let media = described.media.iter().zip(&described.ssrcs);
        for ((medium, (kind, ssrc)), pair) in media.enumerate().zip(&self.pairs) {
            let first = u8::try_from(2 * medium).unwrap_or(0);
            layout.set(*kind, first, first + 1);
            byes.push(reports::bye(first + 1, *ssrc).freeze());
            for rtcp in [false, true] {
                let (channel, port) = (first + u8::from(rtcp), pair.port + u16::from(rtcp));
                let to = SocketAddr::from((self.config.group, port));
                let way = Way { from: None, to };
                routes.push(Route { pair: pair.clone(), channel, rtcp, way });
            }
        }
        let (tie, post) = tie();
        let (farewell, ended) = oneshot::channel();
        let (tell, told) = oneshot::channel();
        let arrival = Arrival {
            peer: (self.config.group, self.config.port).into(),
            sink: Box::new(UdpSink::new(routes, None)),
            variant: layout.variant(),
            greeting: Some(Box::new(|openings| {
                let _ = tell.send(openings.to_vec());
                Some(Bytes::new())
            })),
            client: None,
            tie: post,
            farewell,
        };
        route.arrivals.send(arrival).await.ok()?;
        let openings = told.await.ok()?;
        let (says, over) = watch::channel(false);
        let sender = Arc::new(Sender { _tie: tie, over });
        tokio::spawn(end(ended, byes, says, Arc::downgrade(&sender)));
        Some((sender, openings))
    }
}

/// Waits until the stream is over, or goes on in another coding, and tells those who are there.
async fn end(
    ended: oneshot::Receiver<Farewell>,
    byes: Vec<Bytes>,
    says: watch::Sender<bool>,
    sender: Weak<Sender>,
) {
    let farewell = ended.await;
    // Where all members have gone, another sender may have begun: nobody is told.
    if let Ok(Farewell { mut sink, unsent }) = farewell
        && sender.strong_count() > 0
    {
        let goodbye = async {
            for bytes in unsent.into_iter().chain(byes) {
                sink.write_all(&bytes).await?;
            }
            sink.flush().await
        };
        let _ = tokio::time::timeout(GOODBYE, goodbye).await;
    }
    let _ = says.send(true);
}

impl Member {
    /// Waits until nothing is sent to the group any more.
    pub(super) async fn ended(&mut self) {
        let _ = self.over.wait_for(|over| *over).await;
    }

    /// How long ago a report of it came.
    pub(super) fn silent_for(&self) -> Duration {
        self.expected.iter().map(Expected::silent_for).min().unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::UdpSocket;

    use super::*;
    use crate::rtmp::peer::soon;
    use crate::rtsp::options::Interface;

    const LOCAL: Ipv4Addr = Ipv4Addr::LOCALHOST;

    #[tokio::test]
    async fn packets_reach_a_member_on_the_chosen_interface_and_its_reports_come_back() {
        let config = |port| Multicast {
            group: Ipv4Addr::new(239, 255, 77, 1),
            port,
            ttl: 1,
            interface: Some(Interface::Address(LOCAL)),
        };
        let free = |port| Group::open(&config(port)).ok().map(|group| (port, group));
        let (port, group) = (20_000..60_000).step_by(4).find_map(free).unwrap();
        let member = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
        member.set_reuse_address(true).unwrap();
        member.set_nonblocking(true).unwrap();
        member.bind(&SocketAddr::from((config(port).group, port)).into()).unwrap();
        member.join_multicast_v4(&config(port).group, &LOCAL).unwrap();
        let member = UdpSocket::from_std(member.into()).unwrap();

        let pair = group.pairs[0].clone();
        let way = Way { from: None, to: SocketAddr::from((config(port).group, port)) };
        let mut sink = UdpSink::new(vec![Route { pair: pair.clone(), channel: 0, rtcp: false, way }], None);
        sink.write_all(&[b'$', 0, 0, 3, 1, 2, 3]).await.unwrap();
        let mut buffer = [0; 64];
        let (count, from) = soon("a packet", member.recv_from(&mut buffer)).await.unwrap();
        assert_eq!((buffer.get(..count), from.port()), (Some(&[1, 2, 3][..]), port));

        let expected = pair.expect(from.ip(), Vec::new());
        tokio::time::sleep(Duration::from_millis(30)).await;
        socket2::SockRef::from(&member).set_multicast_if_v4(&LOCAL).unwrap();
        soon("a sign of life", async {
            while expected.silent_for() > Duration::from_millis(20) {
                member.send_to(b"rr", (config(port).group, port + 1)).await.unwrap();
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}
