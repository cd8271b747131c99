//! The MQTT topics of edgeHub, as a module uses them.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// RFC 3986 unreserved characters stay as they are.
pub const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// A message has at most that many properties.
const MAX_PROPERTIES: usize = 200;

/// What a module publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Published {
    /// `$iothub/twin/GET/?$rid=..`
    TwinGet {
        /// To be repeated in the answer.
        rid: String,
    },
    /// `$iothub/twin/PATCH/properties/reported/?$rid=..`
    Report {
        /// Without one the patch is taken but not answered.
        rid: Option<String>,
    },
    /// `$iothub/methods/res/{status}/?$rid=..`
    MethodAnswer {
        /// Not a number when the module made a mistake.
        status: Option<u16>,
        /// Of the call.
        rid: String,
    },
    /// `devices/{d}/modules/{m}/messages/events/{bag}`
    Telemetry {
        /// The property bag, still encoded.
        bag: String,
    },
    /// Another topic below `$iothub/twin/`, or a GET without `$rid`: edgeHub closes the connection.
    Forbidden,
    /// Dropped with a warning, yet acknowledged.
    Unknown,
}

/// What a module subscribes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subscription {
    /// `$iothub/twin/res/#`
    TwinAnswers,
    /// `$iothub/twin/PATCH/properties/desired/#`
    Desired,
    /// `$iothub/methods/POST/#`
    Methods,
    /// `devices/{d}/modules/{m}/inputs/#`
    Inputs,
}

/// Reads a topic that the module `device`/`module` publishes to.
pub fn parse(topic: &str, device: &str, module: &str) -> Published {
    if let Some(rest) = topic.strip_prefix("$iothub/twin/") {
        return match rest.split_once("/?") {
            Some(("GET", query)) => rid(query).map_or(Published::Forbidden, |rid| Published::TwinGet { rid }),
            Some(("PATCH/properties/reported", query)) => Published::Report { rid: rid(query) },
            None if rest == "PATCH/properties/reported/" => Published::Report { rid: None },
            _ => Published::Forbidden,
        };
    }
    if let Some(rest) = topic.strip_prefix("$iothub/methods/res/") {
        let answer = rest.split_once("/?").and_then(|(status, query)| Some((status, rid(query)?)));
        return answer.map_or(Published::Unknown, |(status, rid)| Published::MethodAnswer {
            status: status.parse().ok(),
            rid,
        });
    }
    let own = format!("devices/{device}/modules/{module}/messages/events");
    match topic.strip_prefix(&own) {
        Some("") => Published::Telemetry { bag: String::new() },
        Some(rest) => rest.strip_prefix('/').map_or(Published::Unknown, |bag| Published::Telemetry {
            bag: bag.trim_end_matches('/').to_owned(),
        }),
        None => Published::Unknown,
    }
}

/// Reads a filter that the module subscribes to.
pub fn parse_filter(filter: &str, device: &str, module: &str) -> Option<Subscription> {
    match filter {
        "$iothub/twin/res/#" => Some(Subscription::TwinAnswers),
        "$iothub/twin/PATCH/properties/desired/#" => Some(Subscription::Desired),
        "$iothub/methods/POST/#" => Some(Subscription::Methods),
        _ => {
            let rest = filter.strip_prefix(&format!("devices/{device}/modules/{module}/"))?;
            (rest == "inputs/#" || rest == "#").then_some(Subscription::Inputs)
        }
    }
}

fn rid(query: &str) -> Option<String> {
    let pair = query.split('&').find_map(|pair| pair.strip_prefix("$rid="))?;
    (!pair.is_empty() && pair.len() <= 256).then(|| pair.to_owned())
}

/// A bag that edgeHub can't read: the message is lost, though acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BagError {
    /// `=` is missing or the key is empty, or the value holds a raw `=` or `/`.
    #[error("{0:?} is not key=value with everything else percent-encoded")]
    Pair(String),
    /// Bytes that are no UTF-8 once decoded.
    #[error("{0:?} is not UTF-8 once percent-decoded")]
    Text(String),
    /// Twice, or one of the names that overwrite the sender's.
    #[error("the property {0:?} is there twice or overwrites the sender's name")]
    Name(String),
    /// More than any message has.
    #[error("more than {MAX_PROPERTIES} properties")]
    Count,
}

/// Decodes a property bag `k=v&k=v`.
pub fn parse_bag(bag: &str) -> Result<Vec<(String, String)>, BagError> {
    let mut properties: Vec<(String, String)> = Vec::new();
    for pair in bag.split('&').filter(|pair| !pair.is_empty()) {
        let shown = || pair.chars().take(80).collect::<String>();
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if key.is_empty() || key == "?" || value.contains('=') || pair.contains('/') {
            return Err(BagError::Pair(shown()));
        }
        let decode = |text: &str| {
            percent_decode_str(text)
                .decode_utf8()
                .map(|text| text.into_owned())
                .map_err(|_| BagError::Text(shown()))
        };
        let (key, value) = (decode(key)?, decode(value)?);
        let taken = properties.iter().any(|(other, _)| *other == key);
        if taken || key.eq_ignore_ascii_case("deviceId") || key.eq_ignore_ascii_case("moduleId") {
            return Err(BagError::Name(key));
        }
        if properties.len() >= MAX_PROPERTIES {
            return Err(BagError::Count);
        }
        properties.push((key, value));
    }
    Ok(properties)
}

/// Encodes a property bag.
pub fn write_bag(properties: &[(String, String)]) -> String {
    let encode = |text: &str| utf8_percent_encode(text, UNRESERVED).to_string();
    let pairs: Vec<String> =
        properties.iter().map(|(key, value)| format!("{}={}", encode(key), encode(value))).collect();
    pairs.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(topic: &str) -> Published {
        parse(topic, "dev", "mod")
    }

    #[test]
    fn the_topics_of_the_twin_are_exact() {
        assert_eq!(topic("$iothub/twin/GET/?$rid=7"), Published::TwinGet { rid: "7".into() });
        assert_eq!(topic("$iothub/twin/GET/?a=b&$rid=7"), Published::TwinGet { rid: "7".into() });
        let report = "$iothub/twin/PATCH/properties/reported/";
        assert_eq!(topic(&format!("{report}?$rid=x")), Published::Report { rid: Some("x".into()) });
        assert_eq!(topic(report), Published::Report { rid: None });
        assert_eq!(topic(&format!("{report}?")), Published::Report { rid: None });
        for wrong in [
            "$iothub/twin/GET/",
            "$iothub/twin/GET?$rid=1",
            "$iothub/twin/GET/?$rid=",
            "$iothub/twin/PATCH/properties/reported?$rid=1",
            "$iothub/twin/PATCH/properties/desired/?$rid=1",
            "$iothub/twin/",
        ] {
            assert_eq!(topic(wrong), Published::Forbidden, "{wrong}");
        }
    }

    #[test]
    fn method_answers_carry_status_and_rid() {
        let answer = |status, rid: &str| Published::MethodAnswer { status, rid: rid.into() };
        assert_eq!(topic("$iothub/methods/res/200/?$rid=a-b"), answer(Some(200), "a-b"));
        assert_eq!(topic("$iothub/methods/res/fine/?$rid=1"), answer(None, "1"));
        assert_eq!(topic("$iothub/methods/res/200"), Published::Unknown);
    }

    #[test]
    fn telemetry_is_for_the_own_module_only() {
        let bag = |bag: &str| Published::Telemetry { bag: bag.into() };
        assert_eq!(topic("devices/dev/modules/mod/messages/events/%24.on=x"), bag("%24.on=x"));
        assert_eq!(topic("devices/dev/modules/mod/messages/events/"), bag(""));
        assert_eq!(topic("devices/dev/modules/mod/messages/events"), bag(""));
        assert_eq!(topic("devices/dev/modules/other/messages/events/"), Published::Unknown);
        assert_eq!(topic("devices/dev/modules/mod/messages/eventsX"), Published::Unknown);
        assert_eq!(topic("anything"), Published::Unknown);
    }

    #[test]
    fn the_filters_that_mean_something_are_known() {
        let filter = |text| parse_filter(text, "dev", "mod");
        assert_eq!(filter("$iothub/twin/res/#"), Some(Subscription::TwinAnswers));
        assert_eq!(filter("$iothub/twin/PATCH/properties/desired/#"), Some(Subscription::Desired));
        assert_eq!(filter("$iothub/methods/POST/#"), Some(Subscription::Methods));
        assert_eq!(filter("devices/dev/modules/mod/inputs/#"), Some(Subscription::Inputs));
        for unknown in
            ["#", "$iothub/#", "devices/dev/modules/other/inputs/#", "devices/dev/modules/mod/inputs/x"]
        {
            assert_eq!(filter(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn a_bag_is_read_in_both_forms_and_written_so_that_it_reads_back() {
        let properties = parse_bag("%24.on=events&$.ct=application%2Fjson&k%20y=a%3Db%26c").unwrap();
        let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        assert_eq!(
            properties,
            [pair("$.on", "events"), pair("$.ct", "application/json"), pair("k y", "a=b&c")]
        );
        assert_eq!(parse_bag(&write_bag(&properties)).unwrap(), properties);
        assert_eq!(parse_bag("").unwrap(), []);
    }

    #[test]
    fn a_bag_that_edge_hub_loses_is_refused() {
        for bag in ["a=b=c", "$.ct=application/json", "=x", "?a=1&=", "a=%ff", "a=1&a=2", "deviceId=x"] {
            assert!(parse_bag(bag).is_err(), "{bag} was taken");
        }
    }
}
