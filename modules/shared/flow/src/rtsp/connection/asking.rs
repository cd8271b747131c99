//! The part of a connection in which a player asks what there is, shows who it is, and sets up how it wants it.

use std::sync::Arc;
use std::time::Duration;

use av_edge::EventKind;
use av_media::Kind;
use av_rtsp::auth::{Credentials, Verdict};
use av_rtsp::message::StatusCode;
use av_rtsp::server::{Ask, SetupAnswer, SetupAsk};
use av_rtsp::transport::{Allowed, Carried, Offer, Pair};
use ipnet::IpNet;
use tokio::time::timeout;

use super::Connection;
use crate::config::Auth;
use crate::net::auth::{self, Denied};
use crate::rtsp::bridge;
use crate::rtsp::described::{Described, Layout};
use crate::rtsp::port::PlayRoute;
use crate::stream::Want;

/// A stream that is asked for may be just about to come.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked whether a publisher is there and sends what is described.
const LOOK: Duration = Duration::from_millis(50);

/// The stream that a connection is about.
pub(super) struct Chosen {
    pub(super) route: Arc<PlayRoute>,
    pub(super) described: Arc<Described>,
    pub(super) layout: Layout,
    /// The player's ports for each kind, where it is sent datagrams.
    pub(super) ports: [Option<Pair<u16>>; 2],
    /// It takes what is sent to the group.
    pub(super) in_group: bool,
    path: String,
    /// From the first question on.
    _want: Want,
}

impl Chosen {
    /// Nothing is set up.
    pub(super) fn clear(&mut self) {
        self.layout = Layout::default();
        self.ports = [None, None];
        self.in_group = false;
    }

    /// What may still be chosen: all tracks of a session go one way.
    fn allowed(&self) -> Allowed {
        let transports = self.route.config.transports;
        let (is_first, datagrams) = (self.layout == Layout::default(), self.ports != [None, None]);
        Allowed {
            tcp: transports.tcp && (is_first || !datagrams && !self.in_group),
            udp: self.route.udp.get().is_some() && (is_first || datagrams),
            multicast: self.route.group.get().is_some() && (is_first || self.in_group),
        }
    }
}

/// Why a peer is not let in.
pub(super) enum NotProved {
    /// It has to show who it is; what it showed was wrong.
    Ask(Option<&'static str>),
    /// It may not, whoever it is. The sentence is for the log alone.
    Refused(StatusCode, String),
}

/// Why a request is refused.
struct Refused {
    status: StatusCode,
    why: String,
    route: Option<Arc<PlayRoute>>,
}

impl Connection {
    pub(super) async fn describe(&mut self, ask: &Ask) {
        let described = match self.admit(ask).await {
            Ok(Some(route)) => self.description(ask, route).await,
            Ok(None) => return self.session.challenge(),
            Err(refused) => Err(refused),
        };
        match described {
            Ok(chosen) => {
                self.session.accept_describe(&chosen.described.description);
                // Asked again while it is set up, the answer is new and the set-up stays.
                let is_set_up = |before: &Chosen| {
                    Arc::ptr_eq(&before.route, &chosen.route) && before.layout != Layout::default()
                };
                if !self.chosen.as_ref().is_some_and(is_set_up) {
                    self.chosen = Some(chosen);
                }
            }
            Err(refused) => self.refuse(ask, refused),
        }
    }

    pub(super) async fn set_up(&mut self, setup: &SetupAsk) {
        if let Err(refused) = self.choose(setup).await {
            return self.refuse(&setup.ask, refused);
        }
        // Asked who it is.
        let Some(chosen) = &mut self.chosen else { return };
        if !chosen.route.still_sends(&chosen.described) {
            return self.refuse_outdated(&setup.ask.path);
        }
        let medium = chosen.described.media.get(setup.medium).zip(chosen.described.ssrcs.get(setup.medium));
        let Some((kind, ssrc)) = medium else {
            return self.session.refuse(StatusCode::NotFound);
        };
        let PlayRoute { udp, group, .. } = &*chosen.route;
        let answer = match (setup.offers.choose(chosen.allowed()), udp.get(), group.get()) {
            (Some(Offer::Tcp { .. }), ..) => SetupAnswer::Tcp,
            (Some(Offer::Udp { client_ports }), Some(pair), _) => {
                let server_ports = Pair { rtp: pair.port, rtcp: pair.port.saturating_add(1) };
                SetupAnswer::Udp { client_ports, server_ports }
            }
            (Some(Offer::Multicast), _, Some(group)) => group.answer(setup.medium),
            _ => return self.session.refuse(StatusCode::UnsupportedTransport),
        };
        // The channels that most players on the connection have: others share the bytes with them.
        let first = u8::try_from(setup.medium.saturating_mul(2)).unwrap_or(0);
        match self.session.accept_setup(answer, Some(*ssrc)) {
            Some(Carried::Tcp { channels }) => chosen.layout.set(*kind, channels.rtp, channels.rtcp),
            Some(Carried::Udp { client_ports, .. }) => {
                bridge::notice(self.peer.ip());
                chosen.layout.set(*kind, first, first.saturating_add(1));
                let [video, audio] = &mut chosen.ports;
                *(if *kind == Kind::Video { video } else { audio }) = Some(client_ports);
            }
            Some(Carried::Multicast { .. }) => {
                chosen.layout.set(*kind, first, first.saturating_add(1));
                chosen.in_group = true;
            }
            None => {}
        }
    }

    /// Makes the stream of a SETUP the one that the connection is about.
    async fn choose(&mut self, setup: &SetupAsk) -> Result<(), Refused> {
        if setup.bound && self.chosen.as_ref().is_some_and(|chosen| chosen.path == setup.ask.path) {
            return Ok(());
        }
        match self.admit(&setup.ask).await? {
            Some(route) => self.chosen = Some(self.description(&setup.ask, route).await?),
            None => {
                self.chosen = None;
                self.session.challenge();
            }
        }
        Ok(())
    }

    /// Where a path leads, if the peer may go there; `None`: it has to show who it is first.
    async fn admit(&mut self, ask: &Ask) -> Result<Option<Arc<PlayRoute>>, Refused> {
        let mut found = self.port.play.find(&ask.path);
        if found.is_none() {
            self.port.settled().await;
            found = self.port.play.find(&ask.path);
        }
        let Some(route) = found.map(|found| found.route) else {
            let why = format!("nothing here serves {}", ask.path);
            return Err(Refused { status: StatusCode::NotFound, why, route: None });
        };
        match self.proved(ask, &route.config.allow, route.config.auth.as_ref()).await {
            Ok(()) => Ok(Some(route)),
            Err(NotProved::Ask(wrong)) => {
                if let Some(why) = wrong {
                    self.log_refused(&ask.path, Some(&route), &format!("{}: {why}", route.path));
                }
                Ok(None)
            }
            Err(NotProved::Refused(status, why)) => {
                Err(Refused { status, why: format!("{}: {why}", route.path), route: Some(route) })
            }
        }
    }

    /// Whether the request that waits comes from somebody who may do what it asks for.
    pub(super) async fn proved(
        &mut self,
        ask: &Ask,
        allow: &[IpNet],
        wanted: Option<&Auth>,
    ) -> Result<(), NotProved> {
        let forbidden = |why: String| NotProved::Refused(StatusCode::Forbidden, why);
        if !auth::allowed(allow, self.peer.ip()) {
            return Err(forbidden("this address is not allowed".into()));
        }
        let secrets = self.module.net.secrets();
        match wanted {
            None => Ok(()),
            Some(Auth::Key(keys)) => {
                let checked = auth::check_key(secrets, keys, ask.query.as_deref()).await;
                checked.map_err(|why| {
                    if matches!(why, Denied::WrongKey) {
                        self.session.showed_wrong();
                    }
                    match why {
                        Denied::Unavailable(_) => {
                            NotProved::Refused(StatusCode::ServiceUnavailable, why.detail())
                        }
                        _ => forbidden(why.to_string()),
                    }
                })
            }
            Some(Auth::User { username, password }) => {
                let unavailable = StatusCode::ServiceUnavailable;
                let known = secrets.get(password).await;
                let known = known.map_err(|why| NotProved::Refused(unavailable, why.to_string()))?;
                let wanted = Credentials { username: username.clone(), password: known.expose().to_owned() };
                match self.session.check(&wanted) {
                    Verdict::Granted => Ok(()),
                    Verdict::Missing => Err(NotProved::Ask(None)),
                    Verdict::Wrong => {
                        secrets.refused(password);
                        Err(NotProved::Ask(Some("user or password is wrong")))
                    }
                }
            }
        }
    }

    /// What a stream is, as soon as it is there.
    async fn description(&self, ask: &Ask, route: Arc<PlayRoute>) -> Result<Chosen, Refused> {
        let want = route.stream.demand().want();
        let mut watching = route.described.clone();
        let waiting = timeout(PATIENCE, async {
            loop {
                let described = watching.borrow_and_update().clone();
                let published = route.stream.published().map(|tracks| tracks.filtered(route.content));
                match described.zip(published) {
                    // Where the stream has changed, what is said of it is about to.
                    Some((described, published)) if described.is_of(&published) => return described,
                    // It changes without a word when a publisher comes back.
                    _ => drop(timeout(LOOK, watching.changed()).await),
                }
            }
        });
        match waiting.await {
            Ok(described) => {
                let path = ask.path.clone();
                let (layout, ports) = (Layout::default(), [None, None]);
                Ok(Chosen { route, described, layout, ports, in_group: false, path, _want: want })
            }
            Err(_) => {
                let why = format!("{}: there is no stream at the moment", route.path);
                Err(Refused { status: StatusCode::NotFound, why, route: Some(route) })
            }
        }
    }

    /// The stream is coded in another way than the player was told: it has to ask again.
    pub(super) fn refuse_outdated(&mut self, path: &str) {
        let route = self.chosen.as_mut().map(|chosen| {
            chosen.clear();
            chosen.route.clone()
        });
        self.log_refused(path, route.as_deref(), "the stream's codec has changed since it was described");
        self.session.refuse_outdated();
    }

    fn refuse(&mut self, ask: &Ask, refused: Refused) {
        let Refused { status, why, route } = refused;
        self.log_refused(&ask.path, route.as_deref(), &why);
        self.session.refuse(status);
    }

    /// One line, and an event where a flow is concerned.
    pub(super) fn log_refused(&self, path: &str, route: Option<&PlayRoute>, why: &str) {
        let peer = self.peer;
        if let Some(suppressed) = self.module.player_log.admit() {
            let flow = route.map_or("-", |route| &*route.flow);
            tracing::warn!(%peer, %path, flow, suppressed, "player refused: {why}");
        }
        if let Some(route) = route {
            let output = Some(&*route.output_name);
            self.module.emit(EventKind::ClientRejected, &route.flow, output, format!("player {peer}: {why}"));
        }
    }
}
