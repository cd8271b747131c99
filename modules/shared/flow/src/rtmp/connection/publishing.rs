//! The part of a connection that publishes.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Instant;

use av_edge::EventKind;
use av_rtmp::{MediaItem, RequestId, ServerEvent, ServerOutput, SkipReason};

use super::{BUFFERS, Connection, Denied, End, GOODBYE, NOTHING_GOOD};
use crate::endpoint::InputContext;
use crate::ingest::{Identity, Pace, Seat};
use crate::net::{Found, auth};
use crate::rtmp::incoming::Intake;
use crate::rtmp::port::PublishRoute;
use crate::rtmp::skipped::{self, Omissions};
use crate::stream::{Kick, KickReason, Publisher};
use crate::trouble::chain;

impl Connection {
    pub(super) async fn publish(
        &mut self,
        id: RequestId,
        name: &str,
        query: Option<String>,
    ) -> Result<(), End> {
        let (path, queries) = self.target(name, query);
        let peer = self.peer;
        let Admitted { route, path, publisher, seat, kick, input } =
            match self.admit_publisher(&path, &queries).await {
                Ok(admitted) => admitted,
                Err(Denied { code, why, detail, route }) => {
                    let flow = route.as_ref().map_or("-", |route| &*route.entrance.flow);
                    if let Some(suppressed) = self.module.peer_log.admit() {
                        let why = detail.as_ref().unwrap_or(&why);
                        tracing::warn!(%peer, %path, flow, suppressed, "publisher refused: {why}");
                    }
                    if let Some(route) = route {
                        self.module.emit(
                            EventKind::ClientRejected,
                            &route.entrance.flow,
                            None,
                            format!("publisher {peer}: {why}"),
                        );
                    }
                    return Err(self.refuse(id, code, why).await);
                }
            };
        self.session.set_max_message_bytes(route.config.max_message_bytes);
        self.seat = Some(seat);
        self.session.accept_publish(id);
        let program = self.program();
        tracing::info!(flow = %input.flow, %peer, %path, %program, "publisher connected");
        self.module.emit(EventKind::InputConnected, &input.flow, None, format!("publisher {peer}"));
        let [_, large, _] = BUFFERS;
        self.buffer = vec![0; large];
        let mut omissions = Omissions::default();
        let ended = self.take_media(publisher, &kick, &input, &mut omissions).await;
        if let Err(End::Broken { source, .. }) = &ended {
            skipped::told_too_long(&input.status, &route.entrance.path, source);
        }
        let why = match &ended {
            Ok(None) => "it stopped publishing".to_owned(),
            Ok(Some(reason)) => kick_text(*reason, &input, &omissions),
            Err(end) => chain(end),
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
    async fn take_media(
        &mut self,
        mut publisher: Publisher,
        kick: &Kick,
        input: &InputContext,
        omissions: &mut Omissions,
    ) -> Result<Option<KickReason>, End> {
        let mut intake = Intake::default();
        let mut nonsense = Nonsense::default();
        let mut pace = Pace::new(self.port.tls.is_none(), Instant::now());
        loop {
            let now = Instant::now();
            loop {
                match self.session.poll().map_err(|error| self.broken(error))? {
                    Some(ServerOutput::Send(bytes)) => self.write(&bytes).await?,
                    Some(ServerOutput::Event(ServerEvent::Media(MediaItem::Skipped { reason, count }))) => {
                        omissions.skipped(&input.status, &reason, count, now);
                        if let SkipReason::Malformed { error: source, .. } = reason
                            && nonsense.lasts_too_long(now)
                        {
                            return Err(End::NothingGood { source });
                        }
                    }
                    Some(ServerOutput::Event(ServerEvent::Media(item))) => {
                        nonsense = Nonsense::default();
                        omissions.passed(&input.status, &item, now);
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
            input.status.said.say(&input.flow, &self.peer);
            publisher.take_turns().await;
            let (patience, room) = (publisher.patience(), self.buffer.len());
            let read = async {
                pace.rest(patience).await;
                self.read().await
            };
            tokio::select! {
                read = read => pace.read(read?, room),
                reason = kick.fired() => return Ok(Some(reason)),
            }
        }
    }

    async fn admit_publisher(
        &self,
        path: &str,
        queries: &[String],
    ) -> Result<Admitted, Denied<PublishRoute>> {
        let bad_name =
            |why: String, route| Denied { code: "NetStream.Publish.BadName", why, detail: None, route };
        let Some((Found { route, rest }, path)) = self.find(&self.port.publish, path).await else {
            return Err(bad_name(format!("nothing here takes {path}"), None));
        };
        let denied = |why: String| Denied {
            code: "NetStream.Publish.Denied",
            why: format!("{}: {why}", route.entrance.path),
            detail: None,
            route: Some(route.clone()),
        };
        if !auth::allowed(&route.config.allow, self.peer.ip()) {
            return Err(denied("this address is not allowed".into()));
        }
        let secrets = self.module.net.secrets();
        let checked = self.admission.check(secrets, route.config.auth.as_ref(), queries).await;
        checked.map_err(|why| Denied {
            detail: Some(format!("{}: {}", route.entrance.path, why.detail())),
            ..denied(why.to_string())
        })?;
        let refused =
            |why: &dyn Display| bad_name(format!("{}: {why}", route.entrance.path), Some(route.clone()));
        let input = route.entrance.input(rest.as_deref()).map_err(|why| refused(&why))?;
        let who = Identity { address: self.peer.ip().to_canonical(), program: self.program() };
        let kick = Kick::default();
        let seating = route.entrance.seat(&path, who, &input, kick.clone());
        let (publisher, seat) = seating.map_err(|taken| refused(&taken))?;
        Ok(Admitted { route, path, publisher, seat, kick, input })
    }
}

/// Since when nothing but malformed messages came; a silence says nothing.
#[derive(Default)]
struct Nonsense(Option<Instant>);

impl Nonsense {
    /// Notes a malformed message.
    fn lasts_too_long(&mut self, now: Instant) -> bool {
        let since = *self.0.get_or_insert(now);
        now.saturating_duration_since(since) >= NOTHING_GOOD
    }
}

struct Admitted {
    route: Arc<PublishRoute>,
    /// As it is written where it is configured.
    path: String,
    publisher: Publisher,
    seat: Seat,
    kick: Kick,
    input: InputContext,
}

fn kick_text(reason: KickReason, input: &InputContext, omissions: &Omissions) -> String {
    let idle = input.idle_timeout;
    match reason {
        KickReason::TakenOver => "another publisher took over".into(),
        KickReason::Idle => match omissions.within(idle, Instant::now()) {
            Some(instead) => {
                format!("nothing that can be passed on came for {} s ({instead})", idle.as_secs())
            }
            None => format!("nothing came for {} s", idle.as_secs()),
        },
        KickReason::Reconfigured => "the flow was changed or stopped".into(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_first_malformed_message_after_a_silence_is_forgiven_and_ten_seconds_of_them_are_not() {
        let now = Instant::now();
        let mut nonsense = Nonsense::default();
        // However long ago the last good message came.
        assert!(!nonsense.lasts_too_long(now + Duration::from_secs(3600)));
        let later = |millis| now + Duration::from_secs(3600) + Duration::from_millis(millis);
        assert!(!nonsense.lasts_too_long(later(9999)));
        assert!(nonsense.lasts_too_long(later(10_000)));
    }
}
