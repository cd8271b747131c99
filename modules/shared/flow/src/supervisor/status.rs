//! State as documents, and the direct methods of every module.

use av_edge::{MethodReply, whole_number};
use serde_json::{Map, Value, json};

use super::flow::Flow;
use super::flows::{NotRestarted, Present, Supervisor};
use super::report::{Detail, Reporter, summary};
use crate::config;

/// The body of a method's answer, with room for what the runtime adds.
const MAX_METHOD_BYTES: usize = 110 * 1024;
/// Of an error in a flow that is too long for an answer.
const MAX_ERROR: usize = 120;
/// The name of an output, and what stands around it.
const NAME: usize = 72;
/// Flows (or instances of one flow) in one answer.
const DEFAULT_LIMIT: usize = 50;
/// Instances of every pattern flow that `/status` lists.
const STATUS_INSTANCES: usize = 1000;

fn reporter(supervisor: &Supervisor, present: &Present, detail: Detail) -> Reporter {
    let public_host =
        present.public_host.clone().or_else(|| supervisor.module().context.gateway_host.clone());
    Reporter { detail, public_host }
}

fn document(supervisor: &Supervisor, detail: Detail) -> Map<String, Value> {
    let mut present = supervisor.present();
    let reporter = reporter(supervisor, &present, detail);
    let summary = summary(present.flows.values_mut(), supervisor.extension());
    let flows = present.flows.iter_mut();
    let flows: Map<_, _> =
        flows.map(|(name, flow)| (name.clone(), reporter.flow(flow, (0, STATUS_INSTANCES)))).collect();
    Map::from_iter([("summary".to_owned(), summary), ("flows".to_owned(), flows.into())])
}

/// `summary` and `flows` of reported properties.
pub(super) fn reported(supervisor: &Supervisor) -> Map<String, Value> {
    document(supervisor, Detail::Properties)
}

/// The same with counters.
pub(super) fn all(supervisor: &Supervisor) -> Map<String, Value> {
    document(supervisor, Detail::Counters)
}

/// A direct method; `None` when there is none of that name.
pub(super) async fn method(supervisor: &Supervisor, name: &str, payload: Value) -> Option<MethodReply> {
    match name {
        "getStatus" => Some(match GetStatus::of(&payload) {
            Ok(wanted) => get_status(supervisor, &wanted),
            Err(why) => reply(400, why.to_string()),
        }),
        "restartFlow" => Some(match flow_name(&payload, &[]) {
            Some(Some(flow)) => match supervisor.restart(&flow).await {
                Ok(()) => MethodReply { status: 200, body: json!({}) },
                Err(NotRestarted::NoSuchFlow) => reply(404, no_flow(&flow)),
                Err(NotRestarted::Stopping) => reply(409, "the module is stopping".into()),
            },
            _ => reply(400, "expected {\"flow\": \"NAME\"}".into()),
        }),
        _ => match supervisor.extension() {
            Some(extension) => extension.method(name, payload).await,
            None => None,
        },
    }
}

fn reply(status: u16, why: String) -> MethodReply {
    MethodReply { status, body: json!({ "error": why }) }
}

fn no_flow(name: &str) -> String {
    let name: String = name.chars().take(64).collect();
    format!("no flow is named {name:?}")
}

/// `Some(None)`: not given. `None`: not an object with a text, or with a key that means nothing here.
fn flow_name(payload: &Value, others: &[&str]) -> Option<Option<String>> {
    match payload {
        Value::Null => Some(None),
        Value::Object(payload)
            if payload.keys().any(|key| key != "flow" && !others.contains(&key.as_str())) =>
        {
            None
        }
        Value::Object(payload) => match payload.get("flow") {
            None | Some(Value::Null) => Some(None),
            Some(Value::String(flow)) => Some(Some(flow.clone())),
            Some(_) => None,
        },
        _ => None,
    }
}

/// What `getStatus` can't make anything of.
#[derive(Debug, thiserror::Error)]
#[error("expected {{\"flow\"?: \"NAME\", \"offset\"?: 0 or more, \"limit\"?: 1 or more}}")]
struct NoRequest;

struct GetStatus {
    flow: Option<String>,
    offset: usize,
    limit: usize,
}

impl GetStatus {
    fn of(payload: &Value) -> Result<Self, NoRequest> {
        let flow = flow_name(payload, &["offset", "limit"]).ok_or(NoRequest)?;
        let number = |key: &str, default: usize| match payload.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => whole_number(value).and_then(|value| usize::try_from(value).ok()).ok_or(NoRequest),
        };
        let (offset, limit) = (number("offset", 0)?, number("limit", DEFAULT_LIMIT)?);
        if limit == 0 {
            return Err(NoRequest);
        }
        Ok(Self { flow, offset, limit })
    }
}

/// A flow with its instances from `from` on: at most `limit`, fewer where those are longer than `max` bytes, but
/// never none.
fn fitting(reporter: &Reporter, flow: &mut Flow, from: usize, limit: usize, max: usize) -> Value {
    // None is shorter than that; of ten thousand only as many are written as may fit.
    let mut limit = limit.min(max / 100);
    loop {
        let value = reporter.flow(flow, (from, limit));
        if value.to_string().len() <= max {
            return value;
        }
        if limit <= 1 {
            return shortened(value, max);
        }
        limit /= 2;
    }
}

/// A flow that is too long by itself: errors lose their ends, then all but the first outputs say only how they do.
fn shortened(mut flow: Value, max: usize) -> Value {
    let mut size = 0;
    for_each_output(&mut flow, &mut |output| {
        if let Some(Value::String(error)) = output.get_mut("error") {
            *error = config::shortened(std::mem::take(error), MAX_ERROR);
        }
        size += Value::Object(output.clone()).to_string().len() + NAME;
        if size > max / 2 {
            output.retain(|key, _| key == "state");
        }
    });
    if let Some(flow) = flow.as_object_mut() {
        flow.insert("truncated".into(), true.into());
    }
    flow
}

/// Those of the flow, and of its instances.
fn for_each_output(flow: &mut Value, work: &mut impl FnMut(&mut Map<String, Value>)) {
    let outputs = flow.get_mut("outputs").and_then(Value::as_object_mut);
    outputs.into_iter().flat_map(Map::values_mut).filter_map(Value::as_object_mut).for_each(&mut *work);
    let instances = flow.get_mut("instances").and_then(|instances| instances.get_mut("list"));
    for instance in instances.and_then(Value::as_array_mut).into_iter().flatten() {
        for_each_output(instance, work);
    }
}

fn get_status(supervisor: &Supervisor, wanted: &GetStatus) -> MethodReply {
    let mut present = supervisor.present();
    let reporter = reporter(supervisor, &present, Detail::Counters);
    let mut body =
        Map::from_iter([("summary".to_owned(), summary(present.flows.values_mut(), supervisor.extension()))]);
    let mut flows = Map::new();
    if let Some(name) = &wanted.flow {
        let Some(flow) = present.flows.get_mut(name) else { return reply(404, no_flow(name)) };
        let value = fitting(&reporter, flow, wanted.offset, wanted.limit, MAX_METHOD_BYTES);
        if let Some(next) = value.get("instances").and_then(|instances| instances.get("next")) {
            body.insert("next".into(), next.clone());
        }
        flows.insert(name.clone(), value);
    } else {
        let (total, mut size, mut taken) = (present.flows.len(), 0, 0);
        for (name, flow) in present.flows.iter_mut().skip(wanted.offset).take(wanted.limit) {
            // Others have to fit beside its instances; by its name they all come, in pages.
            let value = fitting(&reporter, flow, 0, DEFAULT_LIMIT, MAX_METHOD_BYTES / 2);
            size += name.len() + value.to_string().len() + 4;
            if taken > 0 && size > MAX_METHOD_BYTES {
                break;
            }
            taken += 1;
            flows.insert(name.clone(), value);
        }
        let next = wanted.offset.saturating_add(taken);
        if next < total {
            body.insert("next".into(), next.into());
        }
    }
    body.insert("flows".into(), flows.into());
    MethodReply { status: 200, body: body.into() }
}
