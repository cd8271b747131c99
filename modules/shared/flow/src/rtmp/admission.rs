//! Who a connection has proved to be.

use std::sync::Arc;

use av_rtmp::{AuthStep, Connect};

use super::credentials::credentials;
use super::port::{Rtmp, auths_below};
use crate::config::Auth;
use crate::net::auth::{self, Denied};
use crate::net::listeners::Port;
use crate::net::{Net, Secrets};

/// What is known of a peer after `connect`.
#[derive(Default)]
pub(super) struct Admission {
    /// `auth` settings whose user and password the peer has proved to know.
    proved: Vec<Auth>,
}

/// A `connect` that is refused, if only for the next step of the dialogue.
pub(super) struct ConnectRefused {
    /// For the client; encoders read it.
    pub(super) description: String,
    /// For the log; `None` where it is a step of the dialogue.
    pub(super) log: Option<String>,
    /// The flow that it came for, where that can be only one.
    pub(super) flow: Option<Arc<str>>,
}

impl Admission {
    /// Judges a `connect`.
    ///
    /// Encoders offer user and password only when a `connect` is refused for want of them, and at that moment
    /// only the application is known. So a client without credentials is let in when anything below the
    /// application that it may have come for is open to it, and judged again at `publish` or `play`.
    pub(super) async fn connect(
        &mut self,
        net: &Net,
        port: &Port<Rtmp>,
        application: &str,
        connect: &Connect,
    ) -> Result<(), ConnectRefused> {
        let is_offer = |query: &&str| query.split('&').any(|pair| pair.starts_with("authmod="));
        let mut queries = [&connect.query, &connect.tc_query].into_iter().flatten().map(String::as_str);
        let query = queries.clone().find(is_offer).or_else(|| queries.next());
        let auths = auths_below(port, application, connect.intent);
        let offers = query.as_ref().is_some_and(is_offer);
        let users = |auth: &&Auth| matches!(auth, Auth::User { .. });
        let all = auths.iter().all(|(_, auth)| auth.as_ref().is_some_and(|auth| users(&auth)));
        let mut wanted: Vec<_> =
            auths.iter().filter_map(|(_, auth)| auth.as_ref()).filter(users).cloned().collect();
        if wanted.is_empty() || (!offers && !all) {
            return Ok(());
        }
        let named = query.and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("user=")));
        let is_named =
            |auth: &Auth| matches!(auth, Auth::User { username, .. } if Some(username.as_str()) == named);
        // An unknown user gets the same dialogue as a known one.
        if wanted.iter().any(is_named) {
            wanted.retain(is_named);
        }
        let Some(Auth::User { username, password }) = wanted.first() else { return Ok(()) };
        let known = credentials(net.secrets(), username, password).await.map_err(|error| ConnectRefused {
            description: "[ AccessManager.Reject ] : the server can't check passwords now".into(),
            log: Some(error.to_string()),
            flow: None,
        })?;
        let step = port.state.lock().check(query, &known);
        match step {
            AuthStep::Accepted => {
                for auth in wanted {
                    if let Auth::User { username, password } = &auth
                        && credentials(net.secrets(), username, password)
                            .await
                            .is_ok_and(|other| other == known)
                    {
                        self.proved.push(auth);
                    }
                }
                Ok(())
            }
            AuthStep::Challenge(description) => Err(ConnectRefused { description, log: None, flow: None }),
            AuthStep::Denied(description) => {
                net.secrets().refused(password);
                let tried = |auth: &Option<Auth>| auth.as_ref().is_some_and(|auth| wanted.contains(auth));
                let mut flows = auths.iter().filter(|(_, auth)| tried(auth)).map(|(flow, _)| flow);
                let first = flows.next();
                let flow = first.filter(|first| flows.all(|other| other == *first)).cloned();
                Err(ConnectRefused { description, log: Some("user or password is wrong".into()), flow })
            }
        }
    }

    /// Judges a `publish` or `play`; the error is a sentence without secrets.
    pub(super) async fn check(
        &self,
        secrets: &Secrets,
        wanted: Option<&Auth>,
        queries: &[String],
    ) -> Result<(), Denied> {
        match wanted {
            None => Ok(()),
            Some(Auth::Key(keys)) => {
                let mut denied = Denied::NoKey;
                for query in queries {
                    match auth::check_key(secrets, keys, Some(query)).await {
                        Ok(()) => return Ok(()),
                        Err(Denied::NoKey) => {}
                        Err(why) => denied = why,
                    }
                }
                Err(denied)
            }
            Some(user) if self.proved.contains(user) => Ok(()),
            Some(Auth::User { .. }) => Err(Denied::NoUser),
        }
    }
}
