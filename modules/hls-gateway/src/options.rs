//! HLS `serve` as a document describes it.

use std::time::Duration;

use av_flow::config::{
    ALLOW, AUTH, Auth, Claim, ClaimedPath, ConfigError, ListenUrl, MAX_CLIENTS, OptionSpec, Options, Role,
    SERVER_TLS, ServerTls, Shape, whole, word,
};
use av_flow::{EndpointSpec, Output, OutputContext, OutputSpec, catalogue};
use ipnet::IpNet;
use url::Url;

const OUTPUTS: &str = "HLS `serve` outputs";
const VARIANT: OptionSpec = OptionSpec::new("variant", OUTPUTS, word(&["lowLatency", "fmp4", "mpegts"]))
    .means(
        "`lowLatency`: parts of a fraction of a second. `fmp4`: whole segments. `mpegts`: for old players; \
     see [variants](hls.md#what-to-choose).",
    );
const SEGMENT: OptionSpec = OptionSpec::new("segmentSeconds", catalogue::SEGMENTS, whole(1, 10, 2))
    .means("How long segments are, if the key frame interval allows it.");
const PART: OptionSpec = OptionSpec::new("partMilliseconds", OUTPUTS, whole(100, 1000, 200))
    .means("The maximum length of a part of `lowLatency`, in whole frames.");
const WINDOW: OptionSpec = OptionSpec::new("windowSeconds", OUTPUTS, whole(6, 86_400, 30))
    .means("How far back a player can seek; never less than three target durations.");
const CORS: OptionSpec = OptionSpec::new("cors", OUTPUTS, Shape::Texts { most: MAX_ORIGINS, default: "*" })
    .means(
        "Origins whose pages may play the stream: a text or a list; `*` alone allows all. A listed origin may \
     send credentials.",
    );
const LINKS: OptionSpec =
    OptionSpec::new("links", OUTPUTS, Shape::Objects { properties: LINK, most: MAX_LINKS })
        .means("More addresses of the stream for the player page.");
const LABEL: OptionSpec = OptionSpec::property("label", Shape::Text);
const URL: OptionSpec = OptionSpec::property("url", Shape::Text);
const LINK: &[OptionSpec] = &[LABEL, URL];
/// Bounds of lists.
const MAX_ORIGINS: usize = 64;
const MAX_LINKS: usize = 16;

/// HLS over HTTP.
pub const SERVE: OutputSpec = OutputSpec::of::<ServeConfig>();

/// What a stream is packaged as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// CMAF segments and their parts.
    LowLatency,
    /// CMAF segments.
    Fmp4,
    /// MPEG-TS segments.
    Mpegts,
}

impl Variant {
    /// As in a document.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LowLatency => "lowLatency",
            Self::Fmp4 => "fmp4",
            Self::Mpegts => "mpegts",
        }
    }

    /// Of the names of segments.
    pub(crate) const fn ending(self) -> &'static str {
        match self {
            Self::Mpegts => "ts",
            Self::LowLatency | Self::Fmp4 => "m4s",
        }
    }
}

/// `cors`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cors {
    /// `*`.
    All,
    /// These origins.
    Listed(Vec<String>),
}

/// An address for the player page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// For people.
    pub label: String,
    /// Where.
    pub url: String,
}

/// HLS `serve`.
#[derive(Clone, Debug, PartialEq)]
pub struct ServeConfig {
    /// Address and path; holds `*` in a pattern flow.
    pub url: ListenUrl,
    /// What is packaged, and how.
    pub shape: Shaped,
    /// `auth`.
    pub auth: Option<Auth>,
    /// `allow`; empty = all.
    pub allow: Vec<IpNet>,
    /// `maxClients`; 0 = no bound.
    pub max_clients: usize,
    /// `cors`.
    pub cors: Cors,
    /// `links`.
    pub links: Vec<Link>,
    /// `tls`, for `https`.
    pub tls: ServerTls,
}

/// What makes the packaging of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shaped {
    /// `variant`.
    pub variant: Variant,
    /// `segmentSeconds`.
    pub segment: Duration,
    /// `partMilliseconds`.
    pub part: Duration,
    /// `windowSeconds`.
    pub window: Duration,
}

impl Output for ServeConfig {
    const SPEC: EndpointSpec = EndpointSpec {
        role: Role::Serve,
        schemes: &[catalogue::HTTP, catalogue::HTTPS],
        options: &[AUTH, ALLOW, SERVER_TLS, MAX_CLIENTS, VARIANT, SEGMENT, PART, WINDOW, CORS, LINKS],
    };

    fn read(options: &Options<'_>) -> Result<Self, ConfigError> {
        let auth = options.auth()?;
        if matches!(auth, Some(Auth::User { .. })) && !options.scheme().tls {
            return Err(ConfigError::rule(
                format!("{}.auth", options.path()),
                "user and password are accepted over https only; serve https, or use `key`",
            ));
        }
        let variant = match options.word(&VARIANT)? {
            "fmp4" => Variant::Fmp4,
            "mpegts" => Variant::Mpegts,
            _ => Variant::LowLatency,
        };
        Ok(Self {
            url: options.listen_url()?,
            shape: Shaped {
                variant,
                segment: Duration::from_secs(options.whole(&SEGMENT)?),
                part: Duration::from_millis(options.whole(&PART)?),
                window: Duration::from_secs(options.whole(&WINDOW)?),
            },
            auth,
            allow: options.allow()?,
            max_clients: options.size(&MAX_CLIENTS)?,
            cors: cors(options)?,
            links: links(options)?,
            tls: options.server_tls()?,
        })
    }

    fn claims(&self) -> Vec<Claim> {
        let below = self.url.claim_below(&self.tls);
        // The older form of the address lies beside the path.
        let beside = ClaimedPath::Exact(format!("{}.m3u8", self.url.path));
        vec![Claim { path: beside, ..below.clone() }, below]
    }

    fn url(&self, public_host: Option<&str>) -> String {
        format!("{}/index.m3u8", self.url.shown(public_host))
    }

    fn instance(&self, name: &str) -> Self {
        Self { url: self.url.instance(name), ..self.clone() }
    }

    fn run(self, context: OutputContext) -> impl Future<Output = ()> + Send + 'static {
        crate::serve::serve(context, self)
    }
}

fn cors(options: &Options<'_>) -> Result<Cors, ConfigError> {
    let texts = options.texts(&CORS)?;
    let path = format!("{}.{}", options.path(), CORS.name);
    if let Some(wrong) = texts.iter().find(|text| text.contains('*') && **text != "*") {
        return Err(ConfigError::rule(
            path,
            format!(
                "{wrong:?} is not an origin: `*` stands for all origins, and for no part of one; list each origin \
                 such as \"https://www.example.com\", or \"*\" alone"
            ),
        ));
    }
    let read = |text: &&str| {
        let wrong = || {
            let sentence = format!("{text:?} is not an origin such as \"https://www.example.com\"");
            ConfigError::rule(path.clone(), sentence)
        };
        origin(text).ok_or_else(wrong)
    };
    let origins = texts.iter().filter(|text| **text != "*").map(read).collect::<Result<Vec<_>, _>>()?;
    let all = origins.is_empty() || texts.contains(&"*");
    Ok(if all { Cors::All } else { Cors::Listed(origins) })
}

/// `null`, or scheme, host and perhaps port, as browsers send it: in lower case, and without the port that the scheme has
/// anyway.
fn origin(text: &str) -> Option<String> {
    if text == "null" {
        return Some(text.to_owned());
    }
    let (scheme, host) = text.split_once("://")?;
    let is_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"/?#@\\".contains(&byte);
    if scheme.is_empty() || !scheme.bytes().all(is_scheme) || host.is_empty() || !host.bytes().all(is_plain) {
        return None;
    }
    let text = text.to_ascii_lowercase();
    if !text.starts_with("http://") && !text.starts_with("https://") {
        return Some(text);
    }
    Some(Url::parse(&text).ok()?.origin().ascii_serialization())
}

fn links(options: &Options<'_>) -> Result<Vec<Link>, ConfigError> {
    let text = |link: &Options<'_>, spec| Ok(link.text(spec)?.unwrap_or_default().to_owned());
    let link = |link: &Options<'_>| {
        let url = text(link, &URL)?;
        match unfit(&url) {
            Some(why) => Err(ConfigError::rule(format!("{}.{}", link.path(), URL.name), why)),
            None => Ok(Link { label: text(link, &LABEL)?, url }),
        }
    };
    options.objects(&LINKS).iter().map(link).collect()
}

/// What is wrong with an address that everybody is shown.
fn unfit(url: &str) -> Option<&'static str> {
    let url = url.trim_start().to_ascii_lowercase();
    let scripts = ["javascript:", "vbscript:", "data:"];
    if scripts.iter().any(|scheme| url.starts_with(scheme)) {
        return Some("a link is an address, not a script; give one such as \"rtsp://192.0.2.7/stream\"");
    }
    let (_, rest) = url.split_once("//")?;
    let has_user = rest.split(['/', '?', '#']).next().is_some_and(|authority| authority.contains('@'));
    has_user.then_some("a link is shown to everybody; leave user and password out of it")
}

#[cfg(test)]
mod tests;
