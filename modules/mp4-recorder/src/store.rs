//! `store` as a document describes it.

use std::path::PathBuf;
use std::time::Duration;

use av_flow::config::{ConfigError, Fault, FlowConfig, OptionSpec, Options, Role, Shape, whole, word};
use av_flow::{EndpointSpec, Output, OutputContext, OutputSpec, catalogue};

use crate::name::{self, NameTemplate};
use crate::recording;

const STORES: &str = "`store` outputs";

const SEGMENT: OptionSpec =
    OptionSpec::new("segmentSeconds", "HLS `serve` and `store` outputs", whole(2, 3600, 60))
        .means("How long a file is; it ends at the first sync frame after that.");
const NAME: OptionSpec = OptionSpec::new("name", STORES, Shape::Text)
    .means("What files are called; see [names](recording.md#names).");
const RETENTION: OptionSpec = OptionSpec::new("retentionDays", STORES, whole(0, 36_500, 0))
    .means("Files that this output stored are deleted that long after their end; 0: kept.");
const UPLOAD_ORDER: OptionSpec =
    OptionSpec::new("uploadOrder", STORES, word(&["oldestFirst", "newestFirst"]))
        .means("Which of the files that wait goes first.");
const WHEN_FULL: OptionSpec = OptionSpec::new("whenFull", STORES, word(&["deleteOldest", "denyNew"]))
    .means("What a full spool costs: the oldest files that wait, or what would be recorded.");

/// Files in a store.
pub const STORE: OutputSpec = OutputSpec::of::<StoreConfig>();

/// `store`.
#[derive(Clone, Debug, PartialEq)]
pub struct StoreConfig {
    /// Where files go.
    pub target: Target,
    /// `name`; `None`: the default.
    pub name: Option<NameTemplate>,
    /// `segmentSeconds`.
    pub segment: Duration,
    /// `retentionDays`.
    pub retention: Option<Duration>,
    /// `uploadOrder`.
    pub newest_first: bool,
    /// `whenFull`: recordings of this output are never deleted to make room.
    pub deny_new: bool,
    /// The name of the instance, on a pattern.
    pub instance: Option<String>,
}

/// Where files go.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// A folder, as configured (before `--paths`).
    Folder(PathBuf),
}

impl Target {
    /// For people, and what the spool remembers.
    pub fn shown(&self) -> String {
        match self {
            Self::Folder(path) => format!("file://{}", path.display()),
        }
    }

    /// What the spool remembers, read again.
    pub fn of_shown(text: &str) -> Option<Self> {
        text.strip_prefix("file://").map(|path| Self::Folder(PathBuf::from(path)))
    }
}

impl Output for StoreConfig {
    const SPEC: EndpointSpec = EndpointSpec {
        role: Role::Store,
        schemes: &[catalogue::FILE],
        options: &[SEGMENT, NAME, RETENTION, UPLOAD_ORDER, WHEN_FULL],
    };

    fn read(options: &Options<'_>) -> Result<Self, ConfigError> {
        let name = options.text(&NAME)?.map(NameTemplate::parse).transpose();
        let days = options.whole(&RETENTION)?;
        Ok(Self {
            target: Target::Folder(options.file_path()?),
            name: name.map_err(|error| rule(options, &NAME, &error))?,
            segment: Duration::from_secs(options.whole(&SEGMENT)?),
            retention: (days > 0).then(|| Duration::from_secs(days.saturating_mul(86_400))),
            newest_first: !options.is_first_word(&UPLOAD_ORDER)?,
            deny_new: !options.is_first_word(&WHEN_FULL)?,
            instance: None,
        })
    }

    fn url(&self, _public_host: Option<&str>) -> String {
        self.target.shown()
    }

    fn instance(&self, name: &str) -> Self {
        let template = self.template(true).of_instance(name);
        Self { name: Some(template), instance: Some(name.to_owned()), ..self.clone() }
    }

    fn run(self, context: OutputContext) -> impl Future<Output = ()> + Send + 'static {
        recording::record(context, self)
    }
}

impl StoreConfig {
    /// `name`, or what stands for it.
    pub fn template(&self, pattern: bool) -> NameTemplate {
        let default = if pattern { name::DEFAULT_OF_PATTERN } else { name::DEFAULT };
        // The defaults are names: a test says so.
        self.name.clone().or_else(|| NameTemplate::parse(default).ok()).unwrap_or_else(NameTemplate::plain)
    }
}

fn rule(options: &Options<'_>, option: &OptionSpec, why: &dyn std::fmt::Display) -> ConfigError {
    ConfigError { path: format!("{}.{}", options.path(), option.name), fault: Fault::Rule(why.to_string()) }
}

/// Instances of a pattern need names of their own, and nobody else has a `{match}`.
///
/// # Errors
/// An output whose `name` does not fit its input.
pub fn names_fit(flow: &FlowConfig) -> Result<(), ConfigError> {
    for (output, config) in &flow.outputs {
        let Some(store) = config.endpoint.get::<StoreConfig>() else { continue };
        let has_match = store.name.as_ref().map(NameTemplate::has_match);
        let why = match (flow.is_pattern(), has_match) {
            (true, Some(false)) => "the input listens on a pattern, so `name` needs a {match}",
            (false, Some(true)) => "{match} is for inputs that listen on a pattern",
            _ => continue,
        };
        return Err(ConfigError::rule(format!("flows.{}.outputs.{output}.name", flow.name), why));
    }
    Ok(())
}
