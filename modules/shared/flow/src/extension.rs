//! What a service has beside its endpoints.

use std::any::Any;
use std::collections::BTreeMap;
use std::future::ready;
use std::sync::Arc;

use av_edge::MethodReply;
use futures_util::future::BoxFuture;
use prometheus::proto::MetricFamily;
use serde_json::{Map, Value};

use crate::config::FlowConfig;

/// What only one service has: methods, messages, top-level properties, numbers of its own. Its endpoints find it with
/// [`Module::extension`](crate::Module::extension).
pub trait Extension: Any + Send + Sync {
    /// Its [top-level properties](crate::Flows::property), checked, before the flows of the same document start; those
    /// that are absent or were wrong are not in there.
    fn configure(&self, properties: &Map<String, Value>) {
        let _ = properties;
    }

    /// The flows that run from now on, before any of them is started or changed: disabled ones and patterns too.
    fn flows(&self, flows: &BTreeMap<String, Arc<FlowConfig>>) {
        let _ = flows;
    }

    /// A direct method; `None`: no such method.
    fn method<'a>(&'a self, name: &'a str, payload: Value) -> BoxFuture<'a, Option<MethodReply>> {
        let _ = (name, payload);
        Box::pin(ready(None))
    }

    /// Whether messages that routes carry to this module are wanted.
    fn wants_inputs(&self) -> bool {
        false
    }

    /// A JSON message that a route carries to input `name` of this module. It may come twice.
    fn input<'a>(&'a self, name: &'a str, payload: Value) -> BoxFuture<'a, ()> {
        let _ = (name, payload);
        Box::pin(ready(()))
    }

    /// What `summary` holds beside the numbers of flows and clients.
    fn summary(&self) -> Map<String, Value> {
        Map::new()
    }

    /// Metric families of this moment, without the labels that all series share.
    fn metrics(&self) -> Vec<MetricFamily> {
        Vec::new()
    }

    /// Ends what is not an endpoint's. Endpoints have ended, or their time is over.
    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(ready(()))
    }
}
