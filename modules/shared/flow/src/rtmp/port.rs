//! RTMP on listeners: what an address and its paths have for RTMP's connections.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use av_rtmp::{AdobeAuth, Intent};

use super::{ListenConfig, ServeConfig};
use super::{connection, names};
use crate::config::{Auth, ListenUrl, ServerTls};
use crate::endpoint::{InputContext, OutputContext};
use crate::fanout::Arrivals;
use crate::ingest::{Entrance, Target};
use crate::net::Place;
use crate::net::listeners::{Accepted, Port, Protocol};
use crate::stream::{OutputStatus, Stream};

/// RTMP and RTMPS.
pub(super) struct Rtmp;

impl Protocol for Rtmp {
    const NAME: &'static str = "RTMP";
    type State = Challenges;
    type Publish = PublishRoute;
    type Play = PlayRoute;

    async fn run(accepted: Accepted<Self>) {
        connection::run(accepted).await;
    }
}

/// Dialogues for user and password that have begun: each step comes on a connection of its own.
pub(super) struct Challenges(Mutex<AdobeAuth>);

impl Default for Challenges {
    fn default() -> Self {
        Self(Mutex::new(AdobeAuth::new()))
    }
}

impl Challenges {
    pub(super) fn lock(&self) -> MutexGuard<'_, AdobeAuth> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a published path leads.
pub(super) struct PublishRoute {
    pub(super) entrance: Entrance,
    pub(super) config: ListenConfig,
}

impl PublishRoute {
    pub(super) fn new(input: &InputContext, config: &ListenConfig, target: Target) -> Arc<Self> {
        let entrance = Entrance::new(input, config.takeover, target);
        Arc::new(Self { entrance, config: config.clone() })
    }
}

/// Where a played path leads.
pub(super) struct PlayRoute {
    pub(super) flow: Arc<str>,
    pub(super) output_name: Arc<str>,
    /// `flows.NAME.outputs.NAME.serve`.
    pub(super) path: String,
    pub(super) config: ServeConfig,
    pub(super) output: Arc<OutputStatus>,
    pub(super) stream: Stream,
    pub(super) arrivals: Arrivals,
}

impl PlayRoute {
    pub(super) fn new(output: &OutputContext, config: &ServeConfig, arrivals: Arrivals) -> Arc<Self> {
        Arc::new(Self {
            flow: output.flow.clone(),
            output_name: output.output.clone(),
            path: format!("{}.serve", output.path),
            config: config.clone(),
            output: output.status.clone(),
            stream: output.stream.clone(),
            arrivals,
        })
    }
}

/// Address and TLS settings of a URL's listener.
pub(super) fn listener<'a>(url: &ListenUrl, tls: &'a ServerTls) -> (SocketAddr, Option<&'a ServerTls>) {
    (url.address, url.scheme.tls.then_some(tls))
}

/// The flow and the `auth` of every route below an application that a client with this intent may have come for: what
/// a `connect` is judged by.
pub(super) fn auths_below(
    port: &Port<Rtmp>,
    application: &str,
    intent: Option<Intent>,
) -> Vec<(Arc<str>, Option<Auth>)> {
    let trimmed = names::trimmed(application);
    let below = |place: &Place| is_below(place, application) || is_below(place, &trimmed);
    let publish = port.publish.all(|place| intent != Some(Intent::Play) && below(place));
    let publish = publish.into_iter().map(|route| (route.entrance.flow.clone(), route.config.auth.clone()));
    let play = port.play.all(|place| intent != Some(Intent::Publish) && below(place));
    publish.chain(play.into_iter().map(|route| (route.flow.clone(), route.config.auth.clone()))).collect()
}

/// Whether some name, or none, leads from this application to that place.
fn is_below(place: &Place, application: &str) -> bool {
    let below = |path: &str, above: &str| {
        above.is_empty()
            || path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    below(place.path(), application)
        || match place {
            Place::Exact(_) => false,
            // The application may be all of the path.
            Place::Pattern(above) => application.rsplit_once('/').map_or("", |(above, _)| above) == above,
            Place::Prefix(prefix) => below(application, prefix),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_below_every_application_from_which_a_client_may_come() {
        for (path, applications) in [
            ("live/cam", &["live", "live/cam", ""][..]),
            ("live/*", &["live", "live/cam", ""]),
            ("live/floor/*", &["live", "live/floor", "live/floor/cam", ""]),
            ("cam", &["cam", ""]),
            ("*", &["cam", ""]),
        ] {
            for application in applications {
                assert!(is_below(&Place::of(path), application), "{path} below {application:?}");
            }
        }
        for (path, application) in [
            ("live/cam", "liv"),
            ("live/cam", "live/cam/more"),
            ("live/cam", "other"),
            ("live/*", "other"),
            ("live/*", "live/floor/cam"),
            ("*", "live/cam"),
        ] {
            assert!(!is_below(&Place::of(path), application), "{path} below {application:?}");
        }
    }
}
