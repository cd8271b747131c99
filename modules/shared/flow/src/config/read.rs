//! Reading an endpoint: which it is, and what its options say.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::{Map, Value};

use super::access;
use super::error::{ConfigError, Fault, closest, join};
use super::options::{
    ALLOW, AUTH, CLIENT_TLS, CONTENT, CREDENTIALS, OptionSpec, RETRY, RETRY_INITIAL, RETRY_MAX, SERVER_TLS,
    Shape,
};
use super::role::Role;
use super::scheme::Scheme;
use super::secret::Secret;
use super::shape::{flag, group, host_name, port_pair, seconds, sha256, text, texts, whole, word, words};
use super::supports::Supports;
use super::types::{Auth, ClientTls, ConnectUrl, Content, Credentials, ListenUrl, Retry, ServerTls};
use super::url::{Stars, UserInfo, parse_file};
use crate::registry::EndpointSpec;

/// The endpoint that an input or output is.
pub(super) struct Asked {
    pub(super) role: Role,
    pub(super) scheme: Scheme,
    /// With `{flow}` replaced.
    pub(super) url: String,
    /// Of the URL.
    pub(super) path: String,
}

const INPUT_KEYS: &str = "`listen`, `pull` and `read`";
const OUTPUT_KEYS: &str = "`serve`, `push`, `store` and `render`";

/// Finds out which of `roles` there is. `flow` is the flow's name.
pub(super) fn asked(
    path: &str,
    map: &Map<String, Value>,
    roles: &[Role],
    flow: &str,
    supports: &Supports,
) -> Result<Asked, ConfigError> {
    let present = roles.iter().filter(|role| map.contains_key(role.key())).collect::<Vec<_>>();
    let (role, value) = match *present.as_slice() {
        [role] => (*role, map.get(role.key()).unwrap_or(&Value::Null)),
        _ => {
            let expected = if roles == Role::INPUTS.as_slice() { INPUT_KEYS } else { OUTPUT_KEYS };
            let names = present.iter().map(|role| format!("`{}`", role.key())).collect::<Vec<_>>();
            let got = if names.is_empty() { "none".to_owned() } else { names.join(" and ") };
            return Err(ConfigError::new(path, Fault::Endpoint { expected, got }));
        }
    };
    let path = join(path, role.key());
    let url = value.as_str().ok_or_else(|| ConfigError::expected_hidden(&path, "a URL", value))?;
    let url = url.replace("{flow}", flow);
    let scheme = supports.scheme_of(&url).map_err(|error| ConfigError::new(&path, error))?;
    Ok(Asked { role, scheme, url, path })
}

impl Asked {
    /// Whether it listens on a pattern.
    pub(super) fn is_pattern(&self) -> bool {
        is_pattern(self.role, &self.url)
    }

    /// What this module lacks: the error names the module that has it.
    pub(super) fn unsupported(&self, supports: &Supports) -> ConfigError {
        ConfigError::unsupported(&self.path, supports, self.role, self.scheme)
    }
}

/// Whether a URL is one to listen on whose last segment stands for any name.
pub(super) fn is_pattern(role: Role, url: &str) -> bool {
    role == Role::Listen && url.trim_end_matches('/').ends_with("/*")
}

/// The properties of one endpoint, all of them known and of the right shape.
pub struct Options<'a> {
    path: String,
    asked: &'a Asked,
    /// What `*` means in the URL.
    stars: Stars,
    map: &'a Map<String, Value>,
}

impl<'a> Options<'a> {
    /// Checks every property but the one that says what the endpoint is.
    pub(super) fn of(
        path: &str,
        map: &'a Map<String, Value>,
        asked: &'a Asked,
        spec: &EndpointSpec,
        stars: Stars,
        supports: &Supports,
    ) -> Result<Self, ConfigError> {
        let has = |option: &&OptionSpec| option.fits(asked.scheme, asked.is_pattern());
        for (key, value) in map.iter().filter(|(key, _)| *key != asked.role.key()) {
            let path = join(path, key);
            if let Some(option) = spec.all_options().filter(has).find(|option| option.name == key) {
                option.check(&path, value)?;
            } else if let Some(any) = supports.option_near(asked.role, key) {
                let fault = Fault::Misplaced { option: any.name, belongs: any.belongs };
                return Err(ConfigError::new(path, fault));
            } else {
                let here = spec.all_options().filter(has).map(|option| option.name);
                let closest = closest(key, here.chain([asked.role.key()]));
                return Err(ConfigError::new(path, Fault::Unknown { closest }));
            }
        }
        Ok(Self { path: path.to_owned(), asked, stars, map })
    }

    /// `flows.NAME.input` or `flows.NAME.outputs.NAME`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The scheme of the URL.
    pub fn scheme(&self) -> Scheme {
        self.asked.scheme
    }

    /// The URL as written, `{flow}` replaced. It may hold a secret.
    pub fn url(&self) -> &str {
        &self.asked.url
    }

    /// What is wrong with the URL, as an error.
    pub fn url_error(&self, fault: impl Into<Fault>) -> ConfigError {
        ConfigError::new(&self.asked.path, fault)
    }

    /// The URL as an address to listen on, with the path that tells flows apart.
    ///
    /// # Errors
    /// Whatever the grammar of such URLs does not allow.
    pub fn listen_url(&self) -> Result<ListenUrl, ConfigError> {
        ListenUrl::parse(&self.asked.url, self.asked.scheme, self.stars)
            .map_err(|error| self.url_error(error))
    }

    /// The URL as an address to connect to, and the user info in it.
    ///
    /// # Errors
    /// Whatever the grammar of such URLs does not allow.
    pub fn connect_url(&self) -> Result<(ConnectUrl, Option<UserInfo>), ConfigError> {
        ConnectUrl::parse(&self.asked.url, self.asked.scheme, self.stars)
            .map_err(|error| self.url_error(error))
    }

    /// The URL as an absolute path on this machine, before `--paths`.
    ///
    /// # Errors
    /// Whatever the grammar of such URLs does not allow.
    pub fn file_path(&self) -> Result<PathBuf, ConfigError> {
        parse_file(&self.asked.url, self.asked.scheme).map_err(|error| self.url_error(error))
    }

    /// A property and its path, where it is there.
    pub fn get(&self, spec: &OptionSpec) -> Option<(String, &'a Value)> {
        self.named(spec.name)
    }

    /// A property of an object in the table, by its name.
    fn named(&self, name: &str) -> Option<(String, &'a Value)> {
        self.map.get(name).map(|value| (join(&self.path, name), value))
    }

    /// A whole number.
    pub fn whole(&self, spec: &OptionSpec) -> Result<u64, ConfigError> {
        match (spec.shape, self.get(spec)) {
            (Shape::Whole { min, max, .. }, Some((path, value))) => whole(&path, value, min, max),
            (Shape::Whole { default, .. }, None) => Ok(default),
            _ => Ok(0),
        }
    }

    /// A whole number that counts things in memory.
    pub fn size(&self, spec: &OptionSpec) -> Result<usize, ConfigError> {
        self.whole(spec).map(|number| usize::try_from(number).unwrap_or(usize::MAX))
    }

    /// true or false.
    pub fn flag(&self, spec: &OptionSpec) -> Result<bool, ConfigError> {
        match (spec.shape, self.get(spec)) {
            (_, Some((path, value))) => flag(&path, value),
            (Shape::Flag { default }, None) => Ok(default),
            _ => Ok(false),
        }
    }

    /// A time.
    pub fn seconds(&self, spec: &OptionSpec) -> Result<Duration, ConfigError> {
        match (spec.shape, self.get(spec)) {
            (Shape::Seconds { max }, Some((path, value))) => seconds(&path, value, max),
            _ => Ok(Duration::ZERO),
        }
    }

    /// A text, where it is there.
    pub fn text(&self, spec: &OptionSpec) -> Result<Option<&'a str>, ConfigError> {
        self.get(spec).map(|(path, value)| text(&path, value, 1024)).transpose()
    }

    /// A text or a list of them, where it is there.
    pub fn texts(&self, spec: &OptionSpec) -> Result<Vec<&'a str>, ConfigError> {
        match (spec.shape, self.get(spec)) {
            (Shape::Texts { most, .. }, Some((path, value))) => texts(&path, value, most),
            _ => Ok(Vec::new()),
        }
    }

    /// The objects of a list, each with its properties.
    pub fn objects(&self, spec: &OptionSpec) -> Vec<Self> {
        let Some((path, list)) = self.get(spec).and_then(|(path, value)| Some((path, value.as_array()?)))
        else {
            return Vec::new();
        };
        let maps = list.iter().enumerate().filter_map(|(at, entry)| Some((at, entry.as_object()?)));
        maps.map(|(at, map)| Self { path: join(&path, &at.to_string()), map, ..*self }).collect()
    }

    /// Which of its words a word option has; the first is the default.
    pub fn word(&self, spec: &OptionSpec) -> Result<&'static str, ConfigError> {
        match (spec.shape, self.get(spec)) {
            (Shape::Word { words }, Some((path, value))) => word(&path, value, words),
            (Shape::Word { words }, None) => Ok(words.first().copied().unwrap_or_default()),
            _ => Ok(""),
        }
    }

    /// Which of its words a list option has.
    pub fn words(&self, spec: &OptionSpec) -> Result<Vec<&'static str>, ConfigError> {
        match (spec.shape, self.get(spec)) {
            (Shape::Words { words: choice }, Some((path, value))) => words(&path, value, choice),
            (Shape::Words { words: choice }, None) => Ok(choice.to_vec()),
            _ => Ok(Vec::new()),
        }
    }

    /// The first port of a pair.
    pub fn port_pair(&self, spec: &OptionSpec) -> Result<u16, ConfigError> {
        match (spec.shape, self.get(spec)) {
            (_, Some((path, value))) => port_pair(&path, value),
            (Shape::PortPair { default }, None) => Ok(default),
            _ => Ok(0),
        }
    }

    /// A multicast address, where it is there.
    pub fn group(&self, spec: &OptionSpec) -> Result<Option<Ipv4Addr>, ConfigError> {
        self.get(spec).map(|(path, value)| group(&path, value)).transpose()
    }

    /// Whether a word option has its first word.
    pub fn is_first_word(&self, spec: &OptionSpec) -> Result<bool, ConfigError> {
        let word = self.word(spec)?;
        Ok(matches!(spec.shape, Shape::Word { words } if words.first() == Some(&word)))
    }

    /// The same endpoint with other properties.
    fn with<'b>(&'b self, map: &'b Map<String, Value>) -> Options<'b> {
        Options { path: self.path.clone(), asked: self.asked, stars: self.stars, map }
    }

    /// An option that is an object, as properties of its own.
    pub fn object(&self, spec: &OptionSpec) -> Option<Self> {
        let (path, value) = self.get(spec)?;
        Some(Self { path, map: value.as_object()?, ..*self })
    }

    /// `content`, where it is there.
    pub(super) fn content(&self) -> Result<Option<Content>, ConfigError> {
        let Some((path, value)) = self.get(&CONTENT) else { return Ok(None) };
        [Content::AudioVideo, Content::VideoOnly, Content::AudioOnly]
            .into_iter()
            .find(|content| value.as_str() == Some(content.as_str()))
            .map(Some)
            .ok_or_else(|| ConfigError::expected(&path, "one of audioVideo, videoOnly, audioOnly", value))
    }

    /// `auth`.
    pub fn auth(&self) -> Result<Option<Auth>, ConfigError> {
        self.get(&AUTH).map(|(path, value)| access::auth(&path, value)).transpose()
    }

    /// `allow`; empty = all.
    pub fn allow(&self) -> Result<Vec<IpNet>, ConfigError> {
        self.get(&ALLOW).map_or_else(|| Ok(Vec::new()), |(path, value)| access::networks(&path, value))
    }

    /// `credentials`, or the user info of the URL. `spec`: the row that says which keys there are.
    pub fn credentials(
        &self,
        spec: &OptionSpec,
        user_info: Option<UserInfo>,
    ) -> Result<Option<Credentials>, ConfigError> {
        match (self.get(&CREDENTIALS), user_info, spec.shape) {
            (Some((path, _)), Some(_), _) => Err(ConfigError::new(path, Fault::CredentialsTwice)),
            (Some((path, value)), None, Shape::Credentials { keys }) => {
                access::credentials(&path, value, keys).map(Some)
            }
            (None, Some((username, password)), _) => {
                Ok(Some(Credentials::User { username, password: Secret::Plain(password) }))
            }
            _ => Ok(None),
        }
    }

    /// Which properties of an option that holds secrets there are, each with its own.
    ///
    /// # Errors
    /// One of them is no secret.
    pub fn secrets(&self, spec: &OptionSpec) -> Result<Vec<(&'static str, Secret)>, ConfigError> {
        let (Shape::Keys { names }, Some(object)) = (spec.shape, self.object(spec)) else {
            return Ok(Vec::new());
        };
        let named = names.iter().filter_map(|name| object.named(name).map(|found| (*name, found)));
        named.map(|(name, (path, value))| Ok((name, access::secret(&path, value)?))).collect()
    }

    /// `retry`.
    pub fn retry(&self) -> Result<Retry, ConfigError> {
        let empty = Map::new();
        let nested = self.object(&RETRY).unwrap_or_else(|| self.with(&empty));
        let initial = nested.whole(&RETRY_INITIAL)?;
        let max = nested.whole(&RETRY_MAX)?;
        if initial > max.saturating_mul(1000) {
            return Err(ConfigError::new(join(&self.path, RETRY.name), Fault::RetryOrder { initial, max }));
        }
        Ok(Retry { initial: Duration::from_millis(initial), max: Duration::from_secs(max) })
    }

    /// `tls` of a server.
    pub fn server_tls(&self) -> Result<ServerTls, ConfigError> {
        let Some(nested) = self.object(&SERVER_TLS) else { return Ok(ServerTls::default()) };
        let tls = ServerTls {
            certificate_file: nested.absolute_path("certificateFile")?,
            key_file: nested.absolute_path("keyFile")?,
            host_name: nested.host_name()?,
        };
        match (&tls.certificate_file, &tls.key_file) {
            (Some(_), None) => Err(nested.half("certificateFile", "keyFile")),
            (None, Some(_)) => Err(nested.half("keyFile", "certificateFile")),
            _ => Ok(tls),
        }
    }

    /// `tls` of a client.
    pub fn client_tls(&self) -> Result<ClientTls, ConfigError> {
        let Some(nested) = self.object(&CLIENT_TLS) else { return Ok(ClientTls::default()) };
        let pin = nested.named("pinSha256").map(|(path, value)| sha256(&path, value)).transpose()?;
        Ok(ClientTls {
            ca_file: nested.absolute_path("caFile")?,
            host_name: nested.host_name()?,
            pin_sha256: pin,
        })
    }

    fn absolute_path(&self, name: &str) -> Result<Option<PathBuf>, ConfigError> {
        self.named(name).map(|(path, value)| access::absolute_path(&path, value)).transpose()
    }

    fn host_name(&self) -> Result<Option<String>, ConfigError> {
        self.named("hostName").map(|(path, value)| host_name(&path, value)).transpose()
    }

    fn half(&self, present: &'static str, missing: &'static str) -> ConfigError {
        ConfigError::new(self.path.clone(), Fault::Half { present, missing })
    }
}

impl Content {
    /// As in a document.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AudioVideo => "audioVideo",
            Self::VideoOnly => "videoOnly",
            Self::AudioOnly => "audioOnly",
        }
    }

    /// What is left behind both filters; `None` when nothing is.
    pub fn and(self, other: Self) -> Option<Self> {
        match (self, other) {
            (Self::AudioVideo, other) => Some(other),
            (own, Self::AudioVideo) => Some(own),
            (own, other) => (own == other).then_some(own),
        }
    }
}
