//! The part of a connection that publishes.

use std::sync::Arc;
use std::time::Instant;

use av_edge::EventKind;
use av_rtmp::{RequestId, ServerEvent, ServerOutput};

use super::{BUFFERS, Connection, End, GOODBYE};
use crate::endpoint::InputContext;
use crate::net::auth;
use crate::rtmp::incoming::Intake;
use crate::rtmp::ports::{PublishRoute, Target};
use crate::rtmp::takeover::Identity;
use crate::stream::{Kick, KickReason, Publisher};

impl Connection {
    pub(super) async fn publish(
        &mut self,
        id: RequestId,
        name: &str,
        query: Option<String>,
    ) -> Result<(), End> {
        let (path, query) = self.target(name, query);
        let peer = self.peer;
        let (route, publisher, kick, input) = match self.admit_publisher(&path, query.as_deref()).await {
            Ok(admitted) => admitted,
            Err(Denied { code, why, route }) => {
                let flow = route.as_ref().map_or("-", |route| &*route.flow);
                if let Some(suppressed) = self.module.peer_log.admit() {
                    tracing::warn!(%peer, %path, flow, suppressed, "publisher refused: {why}");
                }
                if let Some(route) = route {
                    self.module.emit(
                        EventKind::ClientRejected,
                        &route.flow,
                        None,
                        format!("publisher {peer}: {why}"),
                    );
                }
                return Err(self.refuse(id, code, why).await);
            }
        };
        self.session.set_max_message_bytes(route.config.max_message_bytes);
        self.session.accept_publish(id);
        let program = self.program();
        tracing::info!(flow = %input.flow, %peer, %path, %program, "publisher connected");
        self.module.emit(EventKind::InputConnected, &input.flow, None, format!("publisher {peer}"));
        let [_, large, _] = BUFFERS;
        self.buffer = vec![0; large];
        let ended = self.take_media(publisher, &kick).await;
        let why = match &ended {
            Ok(None) => "it stopped publishing".to_owned(),
            Ok(Some(reason)) => kick_text(*reason, &input),
            Err(end) => end.to_string(),
        };
        tracing::info!(flow = %input.flow, %peer, "publisher gone: {why}");
        self.module.emit(EventKind::InputLost, &input.flow, None, format!("publisher {peer}: {why}"));
        match ended? {
            None => Ok(()),
            Some(reason) => {
                let code = match reason {
                    KickReason::TakenOver => "NetStream.Publish.BadName",
                    KickReason::Idle => "NetStream.Publish.Idle",
                    KickReason::Reconfigured => "NetStream.Failed",
                };
                self.session.end_publish(code, &why);
                let _ = tokio::time::timeout(GOODBYE, self.write_queued()).await;
                Err(End::Done)
            }
        }
    }

    /// Moves media into the stream until the publisher stops (`None`) or is kicked.
    async fn take_media(&mut self, mut publisher: Publisher, kick: &Kick) -> Result<Option<KickReason>, End> {
        let mut intake = Intake::default();
        loop {
            let now = Instant::now();
            loop {
                match self.session.poll() {
                    Some(ServerOutput::Send(bytes)) => self.write(&bytes).await?,
                    Some(ServerOutput::Event(ServerEvent::Media(item))) => {
                        let mut written = Ok(());
                        intake.take(item, |item| written = written.and_then(|()| publisher.item(item, now)));
                        if written.is_err() {
                            return Ok(Some(KickReason::TakenOver));
                        }
                    }
                    Some(ServerOutput::Event(ServerEvent::PublishStopped)) => return Ok(None),
                    Some(ServerOutput::Event(_)) => {}
                    None => break,
                }
            }
            tokio::select! {
                read = self.read() => read?,
                reason = kick.fired() => return Ok(Some(reason)),
            }
        }
    }

    async fn admit_publisher(&self, path: &str, query: Option<&str>) -> Result<Admitted, Denied> {
        let bad_name = |why: String, route| Denied { code: "NetStream.Publish.BadName", why, route };
        let Some((route, matched)) = self.port.publish_route(path) else {
            return Err(bad_name(format!("nothing here takes {path}"), None));
        };
        let denied = |why: String| Denied {
            code: "NetStream.Publish.Denied",
            why: format!("{}: {why}", route.path),
            route: Some(route.clone()),
        };
        if !auth::allowed(&route.config.allow, self.peer.ip()) {
            return Err(denied("this address is not allowed".into()));
        }
        let secrets = self.module.net.secrets();
        self.admission.check(secrets, route.config.auth.as_ref(), query).await.map_err(denied)?;
        let input = match (&route.target, matched) {
            (Target::Stream(input), _) => input.clone(),
            (Target::Pattern(instances), Some(name)) => instances
                .open(&name)
                .map_err(|why| bad_name(format!("{}: {why}", route.path), Some(route.clone())))?,
            (Target::Pattern(_), None) => {
                return Err(bad_name("a name is missing".into(), Some(route.clone())));
            }
        };
        let who = Identity { address: self.peer.ip().to_canonical(), program: self.program() };
        let kick = Kick::default();
        let publisher = route
            .seat(path, who, &input, kick.clone())
            .map_err(|taken| bad_name(format!("{}: {taken}", route.path), Some(route.clone())))?;
        Ok((route, publisher, kick, input))
    }
}

type Admitted = (Arc<PublishRoute>, Publisher, Kick, InputContext);

struct Denied {
    code: &'static str,
    why: String,
    route: Option<Arc<PublishRoute>>,
}

fn kick_text(reason: KickReason, input: &InputContext) -> String {
    match reason {
        KickReason::TakenOver => "another publisher took over".into(),
        KickReason::Idle => format!("nothing came for {} s", input.idle_timeout.as_secs()),
        KickReason::Reconfigured => "the flow was changed or stopped".into(),
    }
}
