//! The endpoints as a document describes them: schemes, options, and what becomes of them.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use av_rtsp::depacketize::AfterLoss;
use ipnet::IpNet;

use crate::config::{
    ALLOW, AUTH, Auth, CLIENT_TLS, CREDENTIALS, Claim, ClaimedPath, ClientTls, ConfigError, ConnectUrl,
    Credentials, ListenUrl, MAX_CLIENTS, ON_SECOND_PUBLISHER, OptionSpec, Options, RETRY, Retry, Role,
    SERVER_TLS, Scheme, ServerTls, Shape, whole, word,
};
use crate::endpoint::{InputContext, OutputContext};
use crate::fanout::Join;
use crate::registry::{EndpointSpec, Input, Output};
use crate::rtmp::options::BATCH;

/// `rtsp`.
pub const RTSP: Scheme = Scheme::new("rtsp", 8554, 554);
/// `rtsps`: RTSP in TLS.
pub const RTSPS: Scheme = Scheme::new("rtsps", 8322, 322).in_tls();
/// Both.
pub const SCHEMES: &[Scheme] = &[RTSP, RTSPS];

const CLIENTS: &str = "RTSP `pull` inputs and `push` outputs";
const SERVERS: &str = "RTSP `listen` inputs and `serve` outputs";

/// `transport`.
pub const TRANSPORT: OptionSpec = OptionSpec::new("transport", CLIENTS, word(&["tcp", "udp"])).means(
    "How media travels: `tcp` in the RTSP connection, `udp` in datagrams beside it (not with \
         `rtsps`).",
);
/// `transports`.
pub const TRANSPORTS: OptionSpec =
    OptionSpec::new("transports", SERVERS, Shape::Words { words: &["tcp", "udp"] }).means(
        "How media may travel: `tcp` in the RTSP connection, `udp` in datagrams beside it. `rtsps` uses \
             only the connection.",
    );
/// `onPacketLoss`.
pub const ON_PACKET_LOSS: OptionSpec =
    OptionSpec::new("onPacketLoss", "RTSP `listen` and `pull` inputs", word(&["drop", "keep"])).means(
        "What to do with pictures when packets are lost. `drop`: leave them out up to the next key frame, \
         so that no broken picture is shown. `keep`: leave out only incomplete pictures, and pass on \
         those that follow with whatever the loss did to them.",
    );
/// `udpPorts`.
pub const UDP_PORTS: OptionSpec = OptionSpec::new("udpPorts", SERVERS, Shape::PortPair { default: 8000 })
    .means("The UDP ports of RTP and RTCP, shared by all sessions.");
/// `multicast`.
pub const MULTICAST: OptionSpec = OptionSpec::new(
    "multicast",
    "RTSP `serve` outputs",
    Shape::Object { properties: &[GROUP, GROUP_PORT, TTL, INTERFACE] },
)
.means("A multicast group to send the stream to, once for all players that ask for it (not with `rtsps`).");
const GROUP: OptionSpec = OptionSpec::property("group", Shape::Group);
const GROUP_PORT: OptionSpec = OptionSpec::property("port", whole(2, 65_532, 5004));
const TTL: OptionSpec = OptionSpec::property("ttl", whole(1, 255, 1));
const INTERFACE: OptionSpec = OptionSpec::property("interface", Shape::Text);
/// `mtu`.
pub const MTU: OptionSpec = OptionSpec::new("mtu", "RTSP `serve` and `push` outputs", whole(576, 9000, 1400))
    .means("The largest RTP packet in bytes, IP and UDP headers included.");

/// `join`.
pub const JOIN: OptionSpec =
    OptionSpec::new("join", "RTMP and RTSP `serve` outputs", word(&["edge", "instant", "live"])).means(
        "What a player gets when it joins. `edge`: pictures from the last key frame on, squeezed together \
         just before now, and sound from now on: it sees a picture at once, and is live. `instant`: \
         everything from the last key frame on, with its own timestamps. `live`: nothing until the next \
         key frame.",
    );

/// Options of `listen`.
pub const LISTEN: &[OptionSpec] =
    &[ON_SECOND_PUBLISHER, AUTH, ALLOW, SERVER_TLS, TRANSPORTS, UDP_PORTS, ON_PACKET_LOSS];
/// Options of `pull`.
pub const PULL: &[OptionSpec] = &[CREDENTIALS, RETRY, CLIENT_TLS, TRANSPORT, ON_PACKET_LOSS];
/// Options of `serve`.
pub const SERVE: &[OptionSpec] =
    &[AUTH, ALLOW, SERVER_TLS, TRANSPORTS, UDP_PORTS, MULTICAST, MTU, MAX_CLIENTS, JOIN, BATCH];
/// Options of `push`.
pub const PUSH: &[OptionSpec] = &[CREDENTIALS, RETRY, CLIENT_TLS, TRANSPORT, MTU];

/// `pull`.
#[derive(Clone, Debug, PartialEq)]
pub struct PullConfig {
    /// Where to.
    pub url: ConnectUrl,
    /// `credentials` or user info.
    pub credentials: Option<Credentials>,
    /// `retry`.
    pub retry: Retry,
    /// `tls`.
    pub tls: ClientTls,
    /// `transport`: true for `udp`.
    pub udp: bool,
    /// `onPacketLoss`.
    pub after_loss: AfterLoss,
}

/// `push`.
#[derive(Clone, Debug, PartialEq)]
pub struct PushConfig {
    /// Where to.
    pub url: ConnectUrl,
    /// `credentials` or user info.
    pub credentials: Option<Credentials>,
    /// `retry`.
    pub retry: Retry,
    /// `tls`.
    pub tls: ClientTls,
    /// `transport`: true for `udp`.
    pub udp: bool,
    /// `mtu`.
    pub mtu: u16,
}

/// `listen`.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenConfig {
    /// Address and path.
    pub url: ListenUrl,
    /// `onSecondPublisher`: true for `takeover`.
    pub takeover: bool,
    /// `auth`.
    pub auth: Option<Auth>,
    /// `allow`; empty = all.
    pub allow: Vec<IpNet>,
    /// `transports`.
    pub transports: Transports,
    /// `udpPorts`: the first of them.
    pub udp_port: u16,
    /// `onPacketLoss`.
    pub after_loss: AfterLoss,
    /// `tls`, for `rtsps`.
    pub tls: ServerTls,
}

/// Which transports are to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transports {
    /// In the RTSP connection.
    pub tcp: bool,
    /// Datagrams.
    pub udp: bool,
}

/// `multicast`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Multicast {
    /// Whereto.
    pub group: Ipv4Addr,
    /// Even: pictures go here, what is said of them to the next one, sound to the two behind that.
    pub port: u16,
    /// How many routers may pass it on, and one.
    pub ttl: u8,
    /// Through which interface; `None`: the one that leads to the group.
    pub interface: Option<Interface>,
}

/// An interface of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interface {
    /// The one with this address.
    Address(Ipv4Addr),
    /// By its name, as `eth0`.
    Name(String),
}

/// `serve`.
#[derive(Clone, Debug, PartialEq)]
pub struct ServeConfig {
    /// Address and path; holds `*` in a pattern flow.
    pub url: ListenUrl,
    /// `auth`.
    pub auth: Option<Auth>,
    /// `allow`; empty = all.
    pub allow: Vec<IpNet>,
    /// `maxClients`; 0 = no bound.
    pub max_clients: usize,
    /// `transports`.
    pub transports: Transports,
    /// `udpPorts`: the first of them.
    pub udp_port: u16,
    /// `multicast`.
    pub multicast: Option<Multicast>,
    /// `mtu`.
    pub mtu: u16,
    /// `join`.
    pub join: Join,
    /// `batchMilliseconds`.
    pub batch: Duration,
    /// `tls`, for `rtsps`.
    pub tls: ServerTls,
}

impl Input for ListenConfig {
    const SPEC: EndpointSpec = EndpointSpec { role: Role::Listen, schemes: SCHEMES, options: LISTEN };

    fn read(options: &Options<'_>) -> Result<Self, ConfigError> {
        Ok(Self {
            url: options.listen_url()?,
            takeover: options.is_first_word(&ON_SECOND_PUBLISHER)?,
            auth: options.auth()?,
            allow: options.allow()?,
            transports: transports(options)?,
            udp_port: options.port_pair(&UDP_PORTS)?,
            after_loss: after_loss(options)?,
            tls: options.server_tls()?,
        })
    }

    fn claims(&self) -> Vec<Claim> {
        vec![self.url.claim(&self.tls)]
    }

    fn run(self, context: InputContext) -> impl Future<Output = ()> + Send + 'static {
        super::listen(context, self)
    }
}

impl Input for PullConfig {
    const SPEC: EndpointSpec = EndpointSpec { role: Role::Pull, schemes: SCHEMES, options: PULL };

    fn read(options: &Options<'_>) -> Result<Self, ConfigError> {
        let (url, user_info) = options.connect_url()?;
        Ok(Self {
            udp: is_udp(options)?,
            url,
            credentials: options.credentials(&CREDENTIALS, user_info)?,
            retry: options.retry()?,
            tls: options.client_tls()?,
            after_loss: after_loss(options)?,
        })
    }

    fn run(self, context: InputContext) -> impl Future<Output = ()> + Send + 'static {
        super::pull(context, self)
    }
}

impl Output for ServeConfig {
    const SPEC: EndpointSpec = EndpointSpec { role: Role::Serve, schemes: SCHEMES, options: SERVE };

    fn read(options: &Options<'_>) -> Result<Self, ConfigError> {
        let url = options.listen_url()?;
        Ok(Self {
            multicast: multicast(options, &url)?,
            url,
            auth: options.auth()?,
            allow: options.allow()?,
            max_clients: options.size(&MAX_CLIENTS)?,
            transports: transports(options)?,
            udp_port: options.port_pair(&UDP_PORTS)?,
            mtu: mtu(options)?,
            join: Join::of(options.word(&JOIN)?),
            batch: Duration::from_millis(options.whole(&BATCH)?),
            tls: options.server_tls()?,
        })
    }

    fn claims(&self) -> Vec<Claim> {
        let own = std::iter::once(self.url.claim(&self.tls));
        own.chain(self.multicast.iter().flat_map(Multicast::claims)).collect()
    }

    fn url(&self, public_host: Option<&str>) -> String {
        self.url.shown(public_host)
    }

    fn instance(&self, name: &str) -> Self {
        Self { url: self.url.instance(name), ..self.clone() }
    }

    fn run(self, context: OutputContext) -> impl Future<Output = ()> + Send + 'static {
        super::serve(context, self)
    }
}

impl Output for PushConfig {
    const SPEC: EndpointSpec = EndpointSpec { role: Role::Push, schemes: SCHEMES, options: PUSH };

    fn read(options: &Options<'_>) -> Result<Self, ConfigError> {
        let (url, user_info) = options.connect_url()?;
        Ok(Self {
            udp: is_udp(options)?,
            url,
            credentials: options.credentials(&CREDENTIALS, user_info)?,
            retry: options.retry()?,
            tls: options.client_tls()?,
            mtu: mtu(options)?,
        })
    }

    fn url(&self, _public_host: Option<&str>) -> String {
        self.url.shown(false)
    }

    fn instance(&self, name: &str) -> Self {
        Self { url: self.url.instance(name), ..self.clone() }
    }

    fn run(self, context: OutputContext) -> impl Future<Output = ()> + Send + 'static {
        super::push(context, self)
    }
}

fn mtu(options: &Options<'_>) -> Result<u16, ConfigError> {
    Ok(u16::try_from(options.whole(&MTU)?).unwrap_or(u16::MAX))
}

fn after_loss(options: &Options<'_>) -> Result<AfterLoss, ConfigError> {
    Ok(if options.is_first_word(&ON_PACKET_LOSS)? { AfterLoss::Drop } else { AfterLoss::Keep })
}

/// With TLS nothing would protect datagrams beside it.
fn transports(options: &Options<'_>) -> Result<Transports, ConfigError> {
    let (words, tls) = (options.words(&TRANSPORTS)?, options.scheme().tls);
    match options.get(&TRANSPORTS) {
        Some((path, value)) if tls && words.contains(&"udp") => Err(ConfigError::expected(
            &path,
            "only tcp with rtsps, because datagrams would not be encrypted",
            value,
        )),
        _ => Ok(Transports { tcp: words.contains(&"tcp"), udp: words.contains(&"udp") && !tls }),
    }
}

fn multicast(options: &Options<'_>, url: &ListenUrl) -> Result<Option<Multicast>, ConfigError> {
    let Some(((path, value), nested)) = options.get(&MULTICAST).zip(options.object(&MULTICAST)) else {
        return Ok(None);
    };
    let refused = |wanted: &str| Err(ConfigError::expected(&path, wanted, value));
    if options.scheme().tls {
        return refused("nothing with rtsps, because datagrams would not be encrypted");
    }
    if url.path.contains('*') {
        return refused("nothing in a flow with a pattern, because its streams would share the group");
    }
    let Some(group) = nested.group(&GROUP)? else {
        return refused("an object with a group, as {\"group\": \"239.1.2.3\"}");
    };
    let port = nested.whole(&GROUP_PORT)?;
    let interface = nested.text(&INTERFACE)?.map(|text| match text.parse() {
        Ok(address) => Interface::Address(address),
        Err(_) => Interface::Name(text.to_owned()),
    });
    match (&interface, nested.get(&INTERFACE), nested.get(&GROUP_PORT)) {
        (_, _, Some((path, value))) if !port.is_multiple_of(2) => {
            Err(ConfigError::expected(&path, "an even port", value))
        }
        (Some(Interface::Name(name)), Some((path, value)), _) if !is_interface(name) => {
            Err(ConfigError::expected(&path, "an interface's name or IPv4 address, as eth0", value))
        }
        _ => Ok(Some(Multicast {
            group,
            port: u16::try_from(port).unwrap_or(u16::MAX),
            ttl: u8::try_from(nested.whole(&TTL)?).unwrap_or(u8::MAX),
            interface,
        })),
    }
}

/// Whether Linux would give that name to an interface.
fn is_interface(name: &str) -> bool {
    let is_odd = |byte: u8| byte == b'/' || byte == b':' || byte.is_ascii_whitespace();
    (1..16).contains(&name.len()) && ![".", ".."].contains(&name) && !name.bytes().any(is_odd)
}

impl Multicast {
    /// RTP's port of a medium, by its number; RTCP's is the next one.
    pub fn port_of(&self, medium: usize) -> u16 {
        u16::try_from(2 * medium.min(1)).map_or(self.port, |behind| self.port.saturating_add(behind))
    }

    fn claims(&self) -> impl Iterator<Item = Claim> {
        [0, 1]
            .map(|medium| {
                let address = SocketAddr::from((self.group, self.port_of(medium)));
                Claim {
                    address,
                    protocol: RTSP.name,
                    tls: ServerTls::default(),
                    path: ClaimedPath::Exact(String::new()),
                    shown: format!("multicast {address}"),
                }
            })
            .into_iter()
    }
}

/// Whether a client wants datagrams, which nothing would protect beside TLS.
fn is_udp(options: &Options<'_>) -> Result<bool, ConfigError> {
    let udp = !options.is_first_word(&TRANSPORT)?;
    match options.get(&TRANSPORT) {
        Some((path, value)) if udp && options.scheme().tls => Err(ConfigError::expected(
            &path,
            "tcp with rtsps, because datagrams would not be encrypted",
            value,
        )),
        _ => Ok(udp),
    }
}
