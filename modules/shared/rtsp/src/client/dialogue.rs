//! Requests and their answers, one after the other.

use std::time::Duration;

use crate::RtspError;
use crate::framing::Incoming;
use crate::message::{Method, Request, Response, StatusCode};
use crate::sdp::Description;
use crate::transport::{Pair, Spec};

use super::{Asked, ClientEvent, ClientSession, SHORTEST_TIMEOUT, ServerPlace, name};

/// Answers that may be awaited; keep-alives are a half time-out apart.
const MOST_ASKED: usize = 4;

impl ClientSession {
    /// Sends a request, and expects its answer.
    pub(super) fn ask(&mut self, request: Request) {
        self.cseq += 1;
        self.asked_at = self.now;
        let mut sent = request.clone();
        sent.headers.push("CSeq", self.cseq.to_string());
        sent.headers.push("User-Agent", self.config.user_agent.clone());
        if let Some(session) = &self.session {
            sent.headers.push("Session", session.clone());
        }
        let proof = self.auth.as_mut().and_then(|auth| auth.header(name(&sent.method), &sent.uri));
        if let Some(proof) = proof {
            sent.headers.push("Authorization", proof);
        }
        self.out.extend_from_slice(&sent.to_bytes());
        self.asked.push_back(Asked { cseq: self.cseq, request, at: self.now });
        if self.asked.len() > MOST_ASKED {
            self.asked.pop_front();
        }
    }

    pub(super) fn take(&mut self, incoming: Incoming) -> Result<(), RtspError> {
        match incoming {
            Incoming::Response(response) => self.answered(&response),
            Incoming::Request(request) => {
                self.asked_by_server(&request);
                Ok(())
            }
            Incoming::Interleaved { channel, data } => {
                let of_channel = |place: &ServerPlace| matches!(place, ServerPlace::Tcp { channels } if channels.rtcp == channel);
                if let Some(medium) = self.media.iter().position(of_channel) {
                    self.events.push_back(ClientEvent::Interleaved { medium, data });
                }
                Ok(())
            }
            Incoming::Http(_) => Err(RtspError::WrongSide { what: "an HTTP request" }),
        }
    }

    fn answered(&mut self, response: &Response) -> Result<(), RtspError> {
        // An answer without number is to the oldest request.
        let number = response.headers.get("CSeq").and_then(|cseq| cseq.trim().parse::<u32>().ok());
        let place = self.asked.iter().position(|asked| number.is_none_or(|number| number == asked.cseq));
        let Some(asked) = place.and_then(|place| self.asked.remove(place)) else {
            return Err(RtspError::UnexpectedAnswer);
        };
        let status = u16::from(response.status);
        let method = &asked.request.method;
        match status {
            100..200 => {
                self.asked.push_front(asked);
                Ok(())
            }
            200..300 => self.granted(&asked.request, response),
            401 if self.may_retry(response) => {
                self.ask(asked.request);
                Ok(())
            }
            300..=399 if let Some(to) = response.headers.get("Location") => {
                self.redirected(to);
                Ok(())
            }
            // A sign of life is one even where it is not understood; only a forgotten session is gone.
            _ if self.established && status != 454 => Ok(()),
            // Some servers know no OPTIONS.
            _ if *method == Method::Options && [405, 501].contains(&status) => {
                self.announce();
                Ok(())
            }
            _ => {
                let reason = response.reason.chars().filter(|c| !c.is_control()).take(256).collect();
                let (method, status) = (name(method), response.status);
                self.events.push_back(ClientEvent::Refused { method, status, reason });
                self.over = true;
                Ok(())
            }
        }
    }

    fn may_retry(&mut self, refusal: &Response) -> bool {
        let challenges = refusal.headers.all("WWW-Authenticate");
        self.auth.as_mut().is_some_and(|auth| auth.challenged(challenges))
    }

    fn redirected(&mut self, to: &str) {
        self.events.push_back(ClientEvent::Redirected { to: to.chars().take(1024).collect() });
        self.over = true;
    }

    /// What comes after a yes.
    fn granted(&mut self, request: &Request, response: &Response) -> Result<(), RtspError> {
        match request.method {
            Method::Options if self.session.is_none() => {
                let public = response.headers.all("Public").collect::<Vec<_>>().join(",");
                self.has_get_parameter =
                    public.split(',').any(|method| method.trim().eq_ignore_ascii_case("GET_PARAMETER"));
                self.announce();
            }
            Method::Announce => {
                // Some servers open the session here.
                self.note_session(response);
                self.set_up();
            }
            Method::Setup => {
                if !self.note_session(response) {
                    return Err(RtspError::Answer { method: "SETUP", header: "Session" });
                }
                let transport = response.headers.get("Transport").unwrap_or_default();
                let place = self.place(transport);
                self.media.push(place.ok_or(RtspError::Answer { method: "SETUP", header: "Transport" })?);
                if self.media.len() < self.config.description.media() {
                    self.set_up();
                } else {
                    self.ask(self.about(Method::Record).with("Range", "npt=0.000-"));
                }
            }
            Method::Record => {
                self.established = true;
                self.events.push_back(ClientEvent::Established { media: self.media.clone() });
            }
            _ => {}
        }
        Ok(())
    }

    fn announce(&mut self) {
        let mut request = self.about(Method::Announce).with("Content-Type", "application/sdp");
        request.body = self.config.description.render("");
        self.ask(request);
    }

    /// Asks for the next medium. Its control goes to the end of the URL, behind a query too, as ffmpeg does.
    fn set_up(&mut self) {
        let medium = self.media.len();
        let mut uri = self.config.url.clone();
        if !uri.ends_with('/') {
            uri.push('/');
        }
        uri.push_str(&Description::control(medium));
        let transport = match self.own_ports(medium) {
            Some(ports) => format!("RTP/AVP/UDP;unicast;client_port={ports};mode=record"),
            None => format!("RTP/AVP/TCP;unicast;interleaved={};mode=record", channels(medium)),
        };
        self.ask(Request::new(Method::Setup, &uri).with("Transport", transport));
    }

    fn own_ports(&self, medium: usize) -> Option<Pair<u16>> {
        self.config.udp_ports.as_ref()?.get(medium).copied()
    }

    /// What was agreed upon, if it is what was asked for.
    fn place(&self, transport: &str) -> Option<ServerPlace> {
        let spec = Spec::parse(transport.split(',').next()?);
        let medium = self.media.len();
        if self.own_ports(medium).is_none() {
            let channels = spec.interleaved.unwrap_or(channels(medium));
            return spec.is_tcp().then_some(ServerPlace::Tcp { channels });
        }
        let ports = spec.server_ports.filter(|ports| ports.rtp != 0 && !spec.is_tcp())?;
        let source = spec.source.filter(|source| !source.is_unspecified());
        Some(ServerPlace::Udp { ports, source })
    }

    /// Takes id and time-out; false where there is none.
    fn note_session(&mut self, response: &Response) -> bool {
        let Some(header) = response.headers.get("Session") else { return self.session.is_some() };
        let mut parts = header.split(';').map(str::trim);
        let Some(id) = parts.next().filter(|id| !id.is_empty() && id.len() <= 256) else { return false };
        self.session = Some(id.to_owned());
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            if name.trim().eq_ignore_ascii_case("timeout")
                && let Ok(seconds) = value.trim().parse::<u32>()
            {
                self.timeout = Duration::from_secs(seconds.into()).max(SHORTEST_TIMEOUT);
            }
        }
        true
    }

    /// Servers ask for signs of life, and say that they end.
    fn asked_by_server(&mut self, request: &Request) {
        let status = match request.method {
            Method::Options | Method::GetParameter | Method::SetParameter => StatusCode::Ok,
            Method::Teardown => {
                self.events.push_back(ClientEvent::Ended);
                StatusCode::Ok
            }
            Method::Redirect => {
                match request.headers.get("Location") {
                    Some(to) => self.redirected(to),
                    None => self.events.push_back(ClientEvent::Ended),
                }
                StatusCode::Ok
            }
            _ => StatusCode::NotImplemented,
        };
        let mut response = Response::new(status);
        if let Some(cseq) = request.headers.get("CSeq") {
            response.headers.push("CSeq", cseq);
        }
        self.out.extend_from_slice(&response.to_bytes());
    }
}

/// Those that we propose for a medium.
fn channels(medium: usize) -> Pair<u8> {
    let rtp = u8::try_from(medium.saturating_mul(2)).unwrap_or(254) & 0xfe;
    Pair { rtp, rtcp: rtp + 1 }
}
