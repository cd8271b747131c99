//! `store` as a document describes it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use av_flow::config::{
    ConfigError, Fault, FlowConfig, OptionSpec, Options, OutputConfig, Role, Shape, credentials, whole, word,
};
use av_flow::{EndpointSpec, Output, OutputContext, OutputSpec, catalogue};
use serde_json::{Map, Value};

use crate::azure::{Container, Credentials};
use crate::name::{self, Fields, NameTemplate};
use crate::recording;

const STORES: &str = "`store` outputs";
const BLOBS: &str = "`store` outputs with azblob";

const SEGMENT: OptionSpec =
    OptionSpec::new("segmentSeconds", "HLS `serve` and `store` outputs", whole(2, 3600, 60))
        .means("The length of a file. It ends at the first key frame after that.");
const NAME: OptionSpec = OptionSpec::new("name", STORES, Shape::Text)
    .means("How files are named; see [names](recording.md#names).");
const RETENTION: OptionSpec = OptionSpec::new("retentionDays", STORES, whole(0, 36_500, 0))
    .means("Delete the files that this output stored this many days after their end; 0: keep them.");
const UPLOAD_ORDER: OptionSpec =
    OptionSpec::new("uploadOrder", STORES, word(&["oldestFirst", "newestFirst"]))
        .means("Which of the waiting files is stored first.");
const RECORD: OptionSpec = OptionSpec::new("record", STORES, word(&["continuous", "events"]))
    .means("`continuous`: everything. `events`: only the clips that `recordEvent` asks for.");
const OPEN: OptionSpec = OptionSpec::new("uploadOpenSegment", STORES, Shape::Flag { default: false }).means(
    "Send the file that is being written to the store every two seconds; see \
     [evidence](recording.md#evidence).",
);
const WHEN_FULL: OptionSpec = OptionSpec::new("whenFull", STORES, word(&["deleteOldest", "denyNew"])).means(
    "What to give up when the spool is full. `deleteOldest`: the oldest waiting files. `denyNew`: new \
     recordings.",
);

const CREDENTIALS: OptionSpec = OptionSpec {
    belongs: BLOBS,
    ..credentials(Shape::Keys {
        names: &["connectionString", "accountKey", "sas", "managedIdentity", "clientId"],
    })
};
const TAGS: OptionSpec = OptionSpec::new("tags", BLOBS, Shape::AnyObject)
    .means("Index tags for each blob: an object of up to ten texts.");
const UPLOAD_RATE: OptionSpec = OptionSpec::new("uploadKilobitsPerSecond", BLOBS, whole(0, 100_000_000, 0))
    .means("A limit for the uploads of this output; 0: none.");
const API_VERSION: OptionSpec = OptionSpec::new("apiVersion", BLOBS, Shape::Text)
    .means("The REST version to use, such as `2017-04-17`. If it is not set, 2023-11-03.");

/// Files in a folder.
pub const FOLDER_STORE: OutputSpec = OutputSpec::of::<FolderStore>();
/// Blobs in a container.
pub const BLOB_STORE: OutputSpec = OutputSpec::of::<BlobStore>();

/// `store` with `file`.
#[derive(Clone, Debug, PartialEq)]
pub struct FolderStore(StoreConfig);

/// `store` with `azblob`, `azblob+http` and `azblob+https`.
#[derive(Clone, Debug, PartialEq)]
pub struct BlobStore(StoreConfig);

/// `store`.
#[derive(Clone, Debug, PartialEq)]
pub struct StoreConfig {
    /// Where files go.
    pub target: Target,
    /// `name`; `None`: the default.
    pub name: Option<NameTemplate>,
    /// `segmentSeconds`.
    pub segment: Duration,
    /// `record`: nothing but clips.
    pub events_only: bool,
    /// `uploadOpenSegment`.
    pub upload_open: bool,
    /// `retentionDays`.
    pub retention: Option<Duration>,
    /// `uploadOrder`.
    pub newest_first: bool,
    /// `whenFull`: recordings of this output are never deleted to make room.
    pub deny_new: bool,
    /// The name of the instance, on a pattern.
    pub instance: Option<String>,
    /// What opens the container.
    pub credentials: Option<Credentials>,
    /// `tags`.
    pub tags: BTreeMap<String, String>,
    /// `uploadKilobitsPerSecond`, in bytes per second; 0: no bound.
    pub upload_rate: u64,
    /// `apiVersion`.
    pub version: Option<String>,
}

/// An output as a document configures it.
#[derive(Clone, Debug, PartialEq)]
pub struct Configured {
    /// The output.
    pub config: StoreConfig,
    /// Its `name`, everything but times and the instance filled in.
    pub template: NameTemplate,
}

/// Where files go.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// A folder, as configured (before `--paths`).
    Folder(PathBuf),
    /// A container of blobs.
    Blobs(Container),
}

impl Target {
    /// For people, and what the spool remembers.
    pub fn shown(&self) -> String {
        match self {
            Self::Folder(path) => format!("file://{}", path.display()),
            Self::Blobs(container) => container.shown.clone(),
        }
    }

    /// What the spool remembers, read again.
    pub fn of_shown(text: &str) -> Option<Self> {
        match text.strip_prefix("file://") {
            Some(path) => Some(Self::Folder(PathBuf::from(path))),
            None => Container::parse(text).ok().map(Self::Blobs),
        }
    }
}

impl Output for FolderStore {
    const SPEC: EndpointSpec = EndpointSpec {
        role: Role::Store,
        schemes: &[catalogue::FILE],
        options: &[SEGMENT, NAME, RECORD, RETENTION, OPEN, UPLOAD_ORDER, WHEN_FULL],
    };

    fn read(options: &Options<'_>) -> Result<Self, ConfigError> {
        if options.url().contains(['*', '{', '}']) {
            let why = "a folder can't contain `*` or {match}; with a pattern, {match} in `name` tells the \
                       instances apart";
            return Err(options.url_error(Fault::Rule(why.into())));
        }
        Ok(Self(StoreConfig::read(options, Target::Folder(options.file_path()?))?))
    }

    fn url(&self, _public_host: Option<&str>) -> String {
        self.0.target.shown()
    }

    fn instance(&self, name: &str) -> Self {
        Self(self.0.of_instance(name))
    }

    fn run(self, context: OutputContext) -> impl Future<Output = ()> + Send + 'static {
        recording::record(context, self.0)
    }
}

impl Output for BlobStore {
    const SPEC: EndpointSpec = EndpointSpec {
        role: Role::Store,
        schemes: &[catalogue::AZBLOB, catalogue::AZBLOB_HTTP, catalogue::AZBLOB_HTTPS],
        options: &[
            SEGMENT,
            NAME,
            RECORD,
            RETENTION,
            OPEN,
            CREDENTIALS,
            TAGS,
            UPLOAD_RATE,
            UPLOAD_ORDER,
            API_VERSION,
            WHEN_FULL,
        ],
    };

    fn read(options: &Options<'_>) -> Result<Self, ConfigError> {
        let container = Container::parse(options.url())
            .map_err(|error| options.url_error(Fault::Rule(error.to_string())))?;
        let credentials = opens(options, &container)?;
        let version = options.text(&API_VERSION)?;
        if version.is_some_and(|version| version.parse::<jiff::civil::Date>().is_err()) {
            return Err(rule(options, &API_VERSION, &"expected a date such as 2017-04-17"));
        }
        Ok(Self(StoreConfig {
            credentials: Some(credentials),
            tags: tags(options)?,
            upload_rate: options.whole(&UPLOAD_RATE)?.saturating_mul(125),
            version: version.map(str::to_owned),
            ..StoreConfig::read(options, Target::Blobs(container))?
        }))
    }

    fn url(&self, _public_host: Option<&str>) -> String {
        self.0.target.shown()
    }

    fn instance(&self, name: &str) -> Self {
        Self(self.0.of_instance(name))
    }

    fn run(self, context: OutputContext) -> impl Future<Output = ()> + Send + 'static {
        recording::record(context, self.0)
    }
}

/// `credentials`.
fn opens(options: &Options<'_>, container: &Container) -> Result<Credentials, ConfigError> {
    let given = options.get(&CREDENTIALS).and_then(|(_, value)| value.as_object());
    if let Some(given) = given.filter(|given| given.contains_key("managedIdentity")) {
        return managed_identity(given, container).map_err(|why| rule(options, &CREDENTIALS, &why));
    }
    match options.secrets(&CREDENTIALS)?.as_slice() {
        [("connectionString", secret)] => Ok(Credentials::ConnectionString(secret.clone())),
        [("accountKey", secret)] => Ok(Credentials::AccountKey(secret.clone())),
        [("sas", secret)] => Ok(Credentials::Sas(secret.clone())),
        _ => {
            let one = "expected exactly one of connectionString, accountKey, sas and managedIdentity";
            Err(rule(options, &CREDENTIALS, &one))
        }
    }
}

fn managed_identity(given: &Map<String, Value>, container: &Container) -> Result<Credentials, &'static str> {
    if container.service.starts_with("http://") {
        return Err(
            "the token of a managed identity is sent over TLS only; use azblob:// or azblob+https://",
        );
    }
    let id = |id: &Value| Some(id.as_str().filter(|id| (1..=128).contains(&id.len()))?.to_owned());
    let is_alone = given.keys().all(|key| ["managedIdentity", "clientId"].contains(&key.as_str()));
    match (given.get("managedIdentity"), given.get("clientId").map(id)) {
        (Some(Value::Bool(true)), None) if is_alone => Ok(Credentials::ManagedIdentity { client_id: None }),
        (Some(Value::Bool(true)), Some(Some(client_id))) if is_alone => {
            Ok(Credentials::ManagedIdentity { client_id: Some(client_id) })
        }
        _ => Err("expected {\"managedIdentity\": true}, with or without a clientId, and nothing else"),
    }
}

/// `tags`, by Azure's rules.
fn tags(options: &Options<'_>) -> Result<BTreeMap<String, String>, ConfigError> {
    let Some((_, value)) = options.get(&TAGS) else { return Ok(BTreeMap::new()) };
    let wrong = || rule(options, &TAGS, &"expected up to 10 texts; letters, digits, space and + - . / : = _");
    let fits = |text: &str, most: usize| {
        text.len() <= most && text.chars().all(|c| c.is_ascii_alphanumeric() || " +-./:=_".contains(c))
    };
    let map = value.as_object().filter(|map| map.len() <= 10).ok_or_else(wrong)?;
    map.iter()
        .map(|(key, value)| match value.as_str() {
            Some(text) if !key.is_empty() && fits(key, 128) && fits(text, 256) => {
                Ok((key.clone(), text.to_owned()))
            }
            _ => Err(wrong()),
        })
        .collect()
}

impl StoreConfig {
    /// Of an output that is a store.
    pub fn of(output: &OutputConfig) -> Option<&Self> {
        let folder = output.endpoint.get::<FolderStore>().map(|store| &store.0);
        folder.or_else(|| output.endpoint.get::<BlobStore>().map(|store| &store.0))
    }

    /// What all stores have.
    fn read(options: &Options<'_>, target: Target) -> Result<Self, ConfigError> {
        let days = options.whole(&RETENTION)?;
        let name = options.text(&NAME)?.map(NameTemplate::parse).transpose();
        Ok(Self {
            target,
            name: name.map_err(|error| rule(options, &NAME, &error))?,
            segment: Duration::from_secs(options.whole(&SEGMENT)?),
            upload_open: options.flag(&OPEN)?,
            events_only: !options.is_first_word(&RECORD)?,
            retention: (days > 0).then(|| Duration::from_secs(days.saturating_mul(86_400))),
            newest_first: !options.is_first_word(&UPLOAD_ORDER)?,
            deny_new: !options.is_first_word(&WHEN_FULL)?,
            instance: None,
            credentials: None,
            tags: BTreeMap::new(),
            upload_rate: 0,
            version: None,
        })
    }

    fn of_instance(&self, name: &str) -> Self {
        let template = self.template(true).of_instance(name);
        Self { name: Some(template), instance: Some(name.to_owned()), ..self.clone() }
    }

    /// `name`, or what stands for it.
    pub fn template(&self, pattern: bool) -> NameTemplate {
        let default = if pattern { name::DEFAULT_OF_PATTERN } else { name::DEFAULT };
        // The defaults are names: a test says so.
        let name = self.name.clone().or_else(|| NameTemplate::parse(default).ok());
        let name = name.unwrap_or_else(NameTemplate::plain);
        if pattern { name.of_pattern() } else { name }
    }
}

fn rule(options: &Options<'_>, option: &OptionSpec, why: &dyn std::fmt::Display) -> ConfigError {
    ConfigError { path: format!("{}.{}", options.path(), option.name), fault: Fault::Rule(why.to_string()) }
}

/// Instances of a pattern need names of their own, and nobody else has a `{match}`. Every store takes the names.
///
/// # Errors
/// An output whose `name` does not fit its input.
pub fn names_fit(flow: &FlowConfig) -> Result<(), ConfigError> {
    // A document does not know the device and the module: their names have at least a character.
    let fields = Fields { device: "d", module: "m", flow: &flow.name };
    for (output, config) in &flow.outputs {
        let Some(store) = StoreConfig::of(config) else { continue };
        let has_match = store.name.as_ref().map(|_| store.template(flow.is_pattern()).has_match());
        let why = match (flow.is_pattern(), has_match) {
            (true, Some(false)) => {
                "the input listens on a pattern, so `name` needs a `*` or {match}".to_owned()
            }
            (false, Some(true)) => "{match} is for inputs that listen on a pattern".to_owned(),
            _ => match store.template(flow.is_pattern()).filled(fields) {
                Err(error) => error.to_string(),
                Ok(_) => continue,
            },
        };
        return Err(ConfigError::rule(format!("flows.{}.outputs.{output}.name", flow.name), why));
    }
    Ok(())
}
