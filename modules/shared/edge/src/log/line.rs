//! One event, one line.

use std::fmt::{self, Write};

use jiff::Timestamp;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::writer::Queue;
use crate::options::LogFormat;

/// Docker cuts lines at 16 KiB; a line of ours ends well before.
const MAX_LINE: usize = 8 * 1024;

/// Turns events into lines for the writer.
pub(super) struct LineLayer {
    format: LogFormat,
    queue: Queue,
}

impl LineLayer {
    pub fn new(format: LogFormat, queue: Queue) -> Self {
        Self { format, queue }
    }
}

impl<S: Subscriber> Layer<S> for LineLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let now = Timestamp::now();
        let level = event.metadata().level();
        let line = match self.format {
            LogFormat::Edge => {
                let mut text = Text::default();
                event.record(&mut text);
                edge_line(now, level, &text)
            }
            LogFormat::Json => {
                let mut fields = Fields(Map::new());
                event.record(&mut fields);
                json_line(now, level, event.metadata().target(), fields.0)
            }
        };
        self.queue.push(line);
    }
}

/// The line that tells how many lines found no room.
pub(super) fn dropped(format: LogFormat) -> fn(u64) -> String {
    const TEXT: &str = "log lines were dropped, because stderr is not read fast enough";
    match format {
        LogFormat::Edge => |lost| {
            let text = Text { message: TEXT.to_owned(), fields: format!(" count={lost}") };
            edge_line(Timestamp::now(), &Level::WARN, &text)
        },
        LogFormat::Json => |lost| {
            let fields =
                Map::from_iter([("message".to_owned(), TEXT.into()), ("count".to_owned(), lost.into())]);
            json_line(Timestamp::now(), &Level::WARN, "av_edge", fields)
        },
    }
}

/// `<6> 2026-01-01 00:00:00.000 +00:00 [INF] - text key=value`: one digit of syslog severity, exactly three
/// decimals and a numeric offset are what edgeAgent's log filter looks for (Azure/iotedge,
/// `LogMessageParser.cs`).
fn edge_line(now: Timestamp, level: &Level, text: &Text) -> String {
    let (digit, name) = match *level {
        Level::ERROR => (3, "ERR"),
        Level::WARN => (4, "WRN"),
        Level::INFO => (6, "INF"),
        Level::DEBUG => (7, "DBG"),
        Level::TRACE => (7, "VRB"),
    };
    let time = now.strftime("%Y-%m-%d %H:%M:%S%.3f");
    let mut line = format!("<{digit}> {time} +00:00 [{name}] - {}{}", text.message, text.fields);
    if line.len() > MAX_LINE {
        line.truncate(line.floor_char_boundary(MAX_LINE));
        line.push('…');
    }
    line.push('\n');
    line
}

fn json_line(now: Timestamp, level: &Level, target: &str, fields: Map<String, Value>) -> String {
    let mut line = Map::new();
    line.insert("at".into(), format!("{now:.3}").into());
    line.insert("level".into(), level.as_str().to_ascii_lowercase().into());
    line.insert("target".into(), target.into());
    for (name, mut value) in fields {
        if let Value::String(text) = &mut value
            && text.len() > MAX_LINE
        {
            text.truncate(text.floor_char_boundary(MAX_LINE));
        }
        line.insert(name, value);
    }
    let mut line = Value::Object(line).to_string();
    line.push('\n');
    line
}

/// The words of an event, free of anything that would break the line.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    fn add(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            push_escaped(&mut self.message, value);
            return;
        }
        self.fields.push(' ');
        self.fields.push_str(field.name());
        self.fields.push('=');
        if value.is_empty() || value.contains([' ', '"', '=']) {
            self.fields.push('"');
            push_escaped(&mut self.fields, &value.replace('"', "\\\""));
            self.fields.push('"');
        } else {
            push_escaped(&mut self.fields, value);
        }
    }
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, &format!("{value:?}"));
    }
}

fn push_escaped(line: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            control if control.is_control() => {
                let _ = write!(line, "\\u{{{:x}}}", u32::from(control));
            }
            other => line.push(other),
        }
    }
}

struct Fields(Map<String, Value>);

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().into(), format!("{value:?}").into());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    fn logged(format: LogFormat, log: impl FnOnce()) -> String {
        let (sender, lines) = mpsc::sync_channel(16);
        let layer = LineLayer::new(format, Queue::to(sender));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        lines.try_iter().map(|item| item.text()).collect()
    }

    #[test]
    fn an_event_is_one_line_that_edge_agent_can_filter() {
        let line = logged(LogFormat::Edge, || tracing::warn!(peer = "a b", count = 3, "lost\nit"));
        let (head, text) = line.split_at(line.find("[WRN]").unwrap());
        assert_eq!(text, "[WRN] - lost\\nit peer=\"a b\" count=3\n");
        assert!(head.starts_with("<4> 20") && head.ends_with(" +00:00 "), "{head}");
        assert_eq!(head.len(), "<4> 2026-01-01 00:00:00.000 +00:00 ".len());
    }

    #[test]
    fn control_characters_of_a_peer_never_reach_the_terminal() {
        let line = logged(LogFormat::Edge, || tracing::info!(name = "\u{1b}[2J\u{85}", "x"));
        assert!(line.contains("name=\\u{1b}[2J\\u{85}"), "{line}");
        assert_eq!(line.matches('\n').count(), 1);
    }

    #[test]
    fn a_long_line_is_cut_before_docker_would() {
        let line = logged(LogFormat::Edge, || tracing::info!("{}", "ä".repeat(20_000)));
        assert!(line.len() < 9_000 && line.ends_with("…\n"));
    }

    #[test]
    fn json_lines_keep_numbers_as_numbers() {
        let line = logged(LogFormat::Json, || tracing::error!(count = 3, "lost"));
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((value["level"].as_str(), value["count"].as_u64()), (Some("error"), Some(3)));
        assert_eq!(value["message"], "lost");
    }
}
