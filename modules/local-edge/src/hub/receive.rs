//! What modules send: reports and messages.

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;

use super::events::Event;
use super::wire::MAX_PACKET;
use super::{Hub, topic};
use crate::route::Message;
use crate::twin::{MAX_BYTES, Object, check_report, document_size};

impl Hub {
    /// The status of the answer: 204, 400 for what the validator refuses, 500 for anything else.
    pub(super) fn take_report(&self, module: &str, body: &[u8]) -> u16 {
        let Ok(patch) = serde_json::from_slice::<Object>(body) else {
            self.journal.say(&format!("{}: report refused (500): not a JSON object", module));
            return 500;
        };
        if let Err(error) = check_report(&patch) {
            self.journal.say(&format!("{}: report refused (400): {error}", module));
            return 400;
        }
        let merged = self.modules.change(module, |state| {
            state.twin.report(&patch);
            state.reported_now = true;
            document_size(&state.twin.reported)
        });
        self.store.mark(module);
        if merged.is_some_and(|bytes| bytes > MAX_BYTES) {
            self.journal.say_once(&format!(
                "{}: its reported properties are above {MAX_BYTES} bytes as a whole; edgeHub answers 204, IoT Hub \
                 will refuse them",
                module
            ));
        }
        204
    }

    /// A message to an output, along the routes.
    pub(super) fn take_message(&self, module: &str, bag: &str, body: Bytes) {
        let properties = match topic::parse_bag(bag) {
            Ok(properties) => properties,
            Err(error) => {
                return self.journal.say_once(&format!(
                    "{module}: a message is lost, though acknowledged: property bag: {error}"
                ));
            }
        };
        // edgeHub counts the properties that it adds itself too.
        if bag.len().saturating_add(body.len()) > MAX_PACKET - 1024 {
            return self.journal.say_once(&format!(
                "{module}: a message above 256 KiB with its properties is lost, though acknowledged"
            ));
        }
        let output = properties.iter().find(|(key, _)| key == "$.on").map(|(_, value)| value.clone());
        let mut forwarded = properties.clone();
        forwarded.push(("$.cdid".into(), self.names.device.clone()));
        forwarded.push(("$.cmid".into(), module.into()));
        let json = serde_json::from_slice::<Value>(&body).ok();
        let says = |key: &str, meant: &str| {
            properties.iter().any(|(name, value)| name == key && value.eq_ignore_ascii_case(meant))
        };
        let queried = says("$.ct", "application/json") && says("$.ce", "utf-8");
        let message = Message { properties: &forwarded, body: json.as_ref().filter(|_| queried) };
        let bag_on = topic::write_bag(&forwarded);
        let routed = self.modules.route(module, output.as_deref(), message, &bag_on, &body);
        for lost in &routed.lost {
            self.journal.say_once(&format!("{module}: a message to {lost} is dropped"));
        }
        if routed.upstream {
            let bytes = bag.len().saturating_add(body.len());
            let text = || String::from_utf8_lossy(&body).into_owned();
            let body = json.unwrap_or_else(|| Value::String(text()));
            let at = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
            let properties = properties.into_iter().collect();
            self.events.push(Event { at, module: module.into(), output, properties, body }, bytes);
        } else if routed.inputs == 0 && routed.lost.is_empty() && !routed.filtered {
            let output = output.as_deref().unwrap_or("(none)");
            self.journal.say_once(&format!(
                "{module}: no route carries its output {output}: messages are acknowledged and dropped"
            ));
        }
    }
}
