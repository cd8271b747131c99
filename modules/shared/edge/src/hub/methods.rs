//! Direct methods: those of the runtime here, all others in the service.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use serde_json::{Value, json};

use crate::json;
use crate::log::{LevelControl, parse_level};
use crate::module::Module;
use crate::service::{MethodReply, whole_number};

/// The longest that a caller can wait; how long this one does the module is not told.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);
/// A caller takes 128 KB.
const MAX_ANSWER: usize = 120 * 1000;
const MAX_LEVEL_SECONDS: u64 = 86_400;
const DEFAULT_LEVEL_SECONDS: u64 = 600;

/// Runs a method to its answer: status and JSON body. Every call gets one.
pub(super) async fn answer(
    module: Arc<Module>,
    level: LevelControl,
    name: &str,
    payload: &[u8],
) -> (u16, String) {
    let reply = match parse(payload) {
        Ok(payload) => {
            let call = AssertUnwindSafe(call(&module, &level, name, payload)).catch_unwind();
            match tokio::time::timeout(PATIENCE, call).await {
                Ok(Ok(reply)) => reply,
                Ok(Err(_)) => failed(500, format!("{name} failed inside the module; its log has the place")),
                Err(_) => failed(500, format!("{name} took longer than {} s", PATIENCE.as_secs())),
            }
        }
        Err(error) => {
            let not = if error.is_data() { "" } else { " must be JSON" };
            failed(400, format!("the payload{not}: {error}"))
        }
    };
    let body = reply.body.to_string();
    if body.len() > MAX_ANSWER {
        let text = format!("the answer has {} bytes, {MAX_ANSWER} are possible; ask for less", body.len());
        return (500, failed(500, text).body.to_string());
    }
    (reply.status, body)
}

/// An empty payload is null.
fn parse(payload: &[u8]) -> Result<Value, serde_json::Error> {
    if payload.trim_ascii().is_empty() { Ok(Value::Null) } else { json::from_slice(payload) }
}

fn failed(status: u16, message: String) -> MethodReply {
    MethodReply { status, body: json!({ "error": message }) }
}

async fn call(module: &Module, level: &LevelControl, name: &str, payload: Value) -> MethodReply {
    match name {
        "ping" => {
            let identity = &module.identity;
            let body = json!({
                "name": identity.service, "version": identity.version, "uptimeSeconds": module.uptime().as_secs(),
            });
            MethodReply { status: 200, body }
        }
        "setLogLevel" => set_log_level(level, &payload).await,
        _ => {
            let reply = match module.running() {
                Some(running) => running.method(name, payload).await,
                None => None,
            };
            if name == "getStatus" {
                return reply.map_or_else(
                    || failed(404, format!("no method `{name}`")),
                    |reply| whole(module, reply),
                );
            }
            reply.unwrap_or_else(|| failed(404, format!("no method `{name}`")))
        }
    }
}

/// The service gives its flows; the rest of the reported properties is the runtime's.
fn whole(module: &Module, reply: MethodReply) -> MethodReply {
    let Value::Object(service) = reply.body else { return reply };
    if reply.status != 200 {
        return MethodReply { body: service.into(), ..reply };
    }
    let mut document = module.document(Some(service));
    // Flows are asked for page by page, errors are not: with very many of them only their count is told.
    if Value::Object(document.clone()).to_string().len() > MAX_ANSWER
        && let Some(config) = document.get_mut("config").and_then(Value::as_object_mut)
    {
        let count = config.remove("errors").and_then(|errors| errors.as_object().map(serde_json::Map::len));
        config.insert("truncated".into(), true.into());
        config.insert("errorCount".into(), count.into());
    }
    MethodReply { status: 200, body: document.into() }
}

async fn set_log_level(level: &LevelControl, payload: &Value) -> MethodReply {
    let wished = payload.get("level").and_then(Value::as_str).and_then(parse_level);
    let seconds = match payload.get("seconds") {
        None | Some(Value::Null) => Some(DEFAULT_LEVEL_SECONDS),
        Some(seconds) => whole_number(seconds).filter(|seconds| (1..=MAX_LEVEL_SECONDS).contains(seconds)),
    };
    let known =
        payload.as_object().is_some_and(|object| object.keys().all(|key| key == "level" || key == "seconds"));
    let (Some(wished), Some(seconds), true) = (wished, seconds, known) else {
        return failed(
            400,
            "expected {\"level\": trace, debug, info, warning or error, \"seconds\": 1 to 86400 [600]}"
                .to_owned(),
        );
    };
    level.set_for(wished, Duration::from_secs(seconds)).await;
    MethodReply {
        status: 200,
        body: json!({ "level": wished.as_str().to_ascii_lowercase(), "seconds": seconds }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::rig;

    #[tokio::test]
    async fn a_payload_with_one_name_twice_is_refused_with_its_place_and_one_that_is_no_json_too() {
        let rig = rig();
        let (level, _wishes) = LevelControl::to_test();
        for (payload, error) in [
            (
                r#"{"level": "info", "level": "debug"}"#,
                "the payload: \"level\" occurs twice in one object at line 1",
            ),
            (r#"{"level": }"#, "the payload must be JSON: expected value at line 1 column 11"),
        ] {
            let (status, body) =
                answer(rig.module.clone(), level.clone(), "setLogLevel", payload.as_bytes()).await;
            let told: Value = serde_json::from_str(&body).unwrap();
            assert_eq!(status, 400, "{body}");
            assert!(told["error"].as_str().unwrap().starts_with(error), "{body}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_method_may_take_as_long_as_a_caller_can_wait_and_no_longer() {
        let rig = rig();
        let (level, _wishes) = LevelControl::to_test();
        for (seconds, status) in [(290, 200), (310, 500)] {
            let payload = json!({ "seconds": seconds }).to_string();
            let (found, body) = answer(rig.module.clone(), level.clone(), "slow", payload.as_bytes()).await;
            assert_eq!(found, status, "{seconds} s: {body}");
        }
    }
}
