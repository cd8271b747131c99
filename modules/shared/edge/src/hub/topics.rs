//! Topics of the Azure IoT device protocol, as edgeHub takes them.

use percent_encoding::{percent_decode_str, utf8_percent_encode};

use super::token::ENCODED;
use crate::telemetry::Message;

/// Answers to twin requests; edgeHub knows this exact filter only.
pub(super) const TWIN_ANSWERS: &str = "$iothub/twin/res/#";
pub(super) const DESIRED_PATCHES: &str = "$iothub/twin/PATCH/properties/desired/#";
pub(super) const METHODS: &str = "$iothub/methods/POST/#";

/// A message of the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    /// `$iothub/twin/res/{status}/?$rid={rid}`
    Answer { status: u16, rid: String },
    /// `$iothub/twin/PATCH/properties/desired/?$version={version}`
    Desired { version: Option<i64> },
    /// `$iothub/methods/POST/{name}/?$rid={rid}`
    Method { name: String, rid: String },
    /// `devices/{device}/modules/{module}/inputs/{name}/{properties}`
    Input { name: String },
    /// None of these.
    Unknown,
}

impl Incoming {
    /// Reads a topic. `inputs` is what [`inputs_filter`] gave, without its `#`.
    pub fn parse(topic: &str, inputs: &str) -> Self {
        if let Some(rest) = topic.strip_prefix("$iothub/twin/res/") {
            let (status, query) = rest.split_once('/').unwrap_or((rest, ""));
            return match (status.parse(), query_value(query, "$rid")) {
                (Ok(status), Some(rid)) => Self::Answer { status, rid: rid.to_owned() },
                _ => Self::Unknown,
            };
        }
        if let Some(query) = topic.strip_prefix("$iothub/twin/PATCH/properties/desired/") {
            return Self::Desired {
                version: query_value(query, "$version").and_then(|text| text.parse().ok()),
            };
        }
        if let Some(rest) = topic.strip_prefix("$iothub/methods/POST/") {
            // The name may hold anything; the query is behind the last slash.
            let (name, query) = rest.rsplit_once('/').unwrap_or((rest, ""));
            return match query_value(query, "$rid") {
                Some(rid) => Self::Method { name: decode(name), rid: rid.to_owned() },
                None => Self::Unknown,
            };
        }
        match topic.strip_prefix(inputs) {
            Some(rest) => Self::Input { name: decode(rest.split('/').next().unwrap_or(rest)) },
            None => Self::Unknown,
        }
    }
}

fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

fn query_value<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let pairs = query.strip_prefix('?').unwrap_or(query).split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .into_iter()
        .find(|(key, _)| {
            *key == name || key.strip_prefix("%24").is_some_and(|key| Some(key) == name.strip_prefix('$'))
        })
        .map(|(_, value)| value)
}

pub(super) fn get(rid: &str) -> String {
    format!("$iothub/twin/GET/?$rid={rid}")
}

pub(super) fn report(rid: &str) -> String {
    format!("$iothub/twin/PATCH/properties/reported/?$rid={rid}")
}

pub(super) fn method_answer(status: u16, rid: &str) -> String {
    format!("$iothub/methods/res/{status}/?$rid={rid}")
}

pub(super) fn inputs_filter(device: &str, module: &str) -> String {
    format!("devices/{device}/modules/{module}/inputs/#")
}

/// Where telemetry goes. Content type and encoding let routes and the cloud query the body; a bag that does
/// not parse loses the message although it is acknowledged, so every value is encoded.
pub(super) fn telemetry(device: &str, module: &str, instance: &str, message: &Message) -> String {
    let mid = format!("{instance}-{}", message.number);
    let encode = |text| utf8_percent_encode(text, ENCODED);
    format!(
        "devices/{device}/modules/{module}/messages/events/%24.on={}&%24.mid={}&%24.ct=application%2Fjson&%24.ce=utf-8",
        encode(message.output.name()),
        encode(&mid),
    )
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::telemetry::Output;

    const INPUTS: &str = "devices/d/modules/m/inputs/";

    #[test]
    fn topics_of_the_hub_are_told_apart() {
        let parse = |topic| Incoming::parse(topic, INPUTS);
        let answer = |status, rid: &str| Incoming::Answer { status, rid: rid.into() };
        assert_eq!(parse("$iothub/twin/res/200/?$rid=a-1"), answer(200, "a-1"));
        assert_eq!(parse("$iothub/twin/res/204/?$version=7&$rid=4"), answer(204, "4"));
        assert_eq!(
            parse("$iothub/twin/PATCH/properties/desired/?$version=7"),
            Incoming::Desired { version: Some(7) }
        );
        assert_eq!(parse("$iothub/twin/PATCH/properties/desired/"), Incoming::Desired { version: None });
        let method = Incoming::Method { name: "get Status".into(), rid: "x".into() };
        assert_eq!(parse("$iothub/methods/POST/get%20Status/?$rid=x"), method);
        assert_eq!(
            parse("devices/d/modules/m/inputs/recordEvent/%24.cdid=d"),
            Incoming::Input { name: "recordEvent".into() }
        );
        for topic in [
            "$iothub/twin/res/x/?$rid=1",
            "$iothub/twin/res/200/",
            "$iothub/methods/POST/a",
            "devices/d/x",
            "",
        ] {
            assert_eq!(parse(topic), Incoming::Unknown, "{topic}");
        }
    }

    #[test]
    fn a_property_bag_holds_no_raw_delimiter() {
        let message = Message { number: 3, output: Output::Events, body: Bytes::new() };
        assert_eq!(
            telemetry("d", "m", "guid", &message),
            "devices/d/modules/m/messages/events/%24.on=events&%24.mid=guid-3&%24.ct=application%2Fjson&%24.ce=utf-8"
        );
    }
}
