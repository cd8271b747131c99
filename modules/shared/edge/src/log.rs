//! Log lines on stderr: IoT Edge's form or JSON, a level that changes while running, and a writer that
//! never makes the module wait for whoever reads them.

mod control;
mod line;
mod writer;

use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use crate::options::LogFormat;
pub(crate) use control::{LevelControl, control};
use line::LineLayer;
use writer::Writer;

/// The process's logging. Dropping it writes what is still queued.
pub(crate) struct Logs {
    /// Changes the level.
    pub level: LogLevel,
    _writer: Writer,
}

/// Changes the level of the module's own lines; those of libraries stay at `warn`.
#[derive(Clone)]
pub(crate) struct LogLevel {
    filter: reload::Handle<Targets, Registry>,
    service: String,
}

impl LogLevel {
    /// Takes effect at once.
    pub fn set(&self, level: Level) {
        // Fails only when the subscriber is gone, at the end of the process.
        let _ = self.filter.reload(targets(&self.service, level));
    }
}

/// The level lines have until the configuration says otherwise.
pub(crate) fn default_level() -> Level {
    std::env::var("RuntimeLogLevel").ok().and_then(|text| parse_level(&text)).unwrap_or(Level::INFO)
}

/// A level as the configuration, a method or edgeAgent names it.
pub(crate) fn parse_level(text: &str) -> Option<Level> {
    match text.to_ascii_lowercase().as_str() {
        "trace" | "verbose" => Some(Level::TRACE),
        "debug" => Some(Level::DEBUG),
        "info" | "information" => Some(Level::INFO),
        "warning" | "warn" => Some(Level::WARN),
        "error" | "fatal" => Some(Level::ERROR),
        _ => None,
    }
}

/// Makes tracing write to stderr. Where another subscriber is there already, that one stays.
pub(crate) fn install(service: &str, format: LogFormat) -> Logs {
    let (writer, queue) = Writer::start(std::io::stderr(), line::dropped(format));
    let (filter, handle) = reload::Layer::new(targets(service, default_level()));
    let _ = tracing_subscriber::registry().with(filter).with(LineLayer::new(format, queue)).try_init();
    std::panic::set_hook(Box::new(|panic| {
        let place =
            panic.location().map(|place| format!("{}:{}", place.file(), place.line())).unwrap_or_default();
        let text = panic.payload_as_str().unwrap_or("no text");
        tracing::error!(at = place, "a task panicked: {text}");
    }));
    Logs { level: LogLevel { filter: handle, service: service.to_owned() }, _writer: writer }
}

fn targets(service: &str, level: Level) -> Targets {
    Targets::new()
        .with_default(LevelFilter::WARN.min(LevelFilter::from_level(level)))
        .with_target("av_", level)
        .with_target(service.replace('-', "_"), level)
}
