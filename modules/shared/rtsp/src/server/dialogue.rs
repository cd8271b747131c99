//! Requests, one after the other (RFC 2326 §10).

use crate::message::{Method, Request, Response, StatusCode};
use crate::sdp::{Description, Presentation};
use crate::transport::Offers;
use crate::uri::Target;

use super::session::State;
use super::{Ask, Pending, ServerEvent, ServerSession, SetupAsk};

/// Everything that is understood. VLC keeps a session alive only where GET_PARAMETER is listed, others prefer
/// SET_PARAMETER.
const PUBLIC: &str =
    "OPTIONS, DESCRIBE, ANNOUNCE, SETUP, PLAY, RECORD, PAUSE, GET_PARAMETER, SET_PARAMETER, TEARDOWN";

/// Names us in answers.
const SERVER: &str = "av-services";

/// A user agent is cut to so many characters.
const MAX_USER_AGENT: usize = 256;

impl ServerSession {
    pub(super) fn request(&mut self, request: Request) {
        let required: Vec<_> = ["Require", "Proxy-Require"]
            .into_iter()
            .flat_map(|name| request.headers.all(name))
            .map(str::to_owned)
            .collect();
        if !request.version.starts_with("RTSP/1.") {
            return self.answer(&request, Response::new(StatusCode::RTSPVersionNotSupported));
        }
        if !required.is_empty() {
            let response = Response::new(StatusCode::OptionNotSupported);
            return self.answer(&request, response.with("Unsupported", required.join(", ")));
        }
        if request.method == Method::Options {
            // Without asking who it is: some clients send nonsense in Authorization here.
            return self.answer(&request, Response::new(StatusCode::Ok).with("Public", PUBLIC));
        }
        if !self.names_this_session(&request) {
            return self.answer(&request, Response::new(StatusCode::SessionNotFound));
        }
        if matches!(request.method, Method::GetParameter | Method::SetParameter) {
            return self.answer(&request, Response::new(StatusCode::Ok));
        }
        let Some(target) = Target::parse(&request.uri) else {
            return self.answer(&request, Response::new(StatusCode::BadRequest));
        };
        match request.method {
            Method::Describe => {
                let ask = ask(&request, target);
                self.wait(request, ask.clone(), ServerEvent::Describe(ask));
            }
            Method::Announce => self.announce(request, target),
            Method::Setup => self.setup(request, &target),
            Method::Play => self.play(request, target),
            Method::Record => self.record(request, target),
            Method::Pause => self.pause(&request),
            Method::Teardown => self.teardown(&request),
            _ => self.answer(&request, Response::new(StatusCode::NotImplemented)),
        }
    }

    /// A `Session` header, if there is one, names the session of this connection. Parameters behind it are
    /// those that we sent.
    fn names_this_session(&self, request: &Request) -> bool {
        let Some(named) = request.headers.get("Session") else { return true };
        let named = named.split(';').next().unwrap_or_default().trim();
        match &self.session {
            Some(session) => session.id == named,
            // After the end of a session, keep-alives of it may still be on their way.
            None => request.method == Method::Describe,
        }
    }

    fn announce(&mut self, request: Request, target: Target) {
        if self.session.is_some() {
            return self.not_now(&request);
        }
        let kind = request.headers.get("Content-Type").unwrap_or("application/sdp");
        if !kind.trim().to_ascii_lowercase().starts_with("application/sdp") {
            return self.answer(&request, Response::new(StatusCode::UnsupportedMediaType));
        }
        let Ok(presentation) = Presentation::parse(&request.body) else {
            return self.answer(&request, Response::new(StatusCode::BadRequest));
        };
        let ask = ask(&request, target);
        self.wait(request, ask.clone(), ServerEvent::Announce { ask, presentation });
    }

    fn setup(&mut self, request: Request, target: &Target) {
        let offers = request.headers.all("Transport").collect::<Vec<_>>().join(",");
        let offers = Offers::parse(&offers);
        if self.session.as_ref().is_some_and(|session| session.state != State::Ready) {
            return self.not_now(&request);
        }
        let Some((medium, stream)) = self.medium(&request.uri, target) else {
            return self.answer(&request, Response::new(StatusCode::NotFound));
        };
        let other = self.session.as_ref().is_some_and(|session| session.path != stream.path);
        if other {
            return self.answer(&request, Response::new(StatusCode::AggregateOperationNotAllowed));
        }
        let bound = self.bound.as_ref().filter(|bound| bound.path == stream.path);
        let announced = bound.is_some_and(|bound| bound.announced);
        if offers.record && !announced {
            return self.not_now(&request);
        }
        let ask = ask(&request, stream);
        let setup = SetupAsk { ask: ask.clone(), medium, offers, bound: bound.is_some(), record: announced };
        self.pending = Some(Pending { request, ask, setup: Some(setup.clone()) });
        self.events.push_back(ServerEvent::Setup(setup));
    }

    /// Which medium a SETUP means, and the stream's own URI.
    fn medium(&self, uri: &str, target: &Target) -> Option<(usize, Target)> {
        let announced = self.bound.as_ref().filter(|bound| bound.announced);
        let Some(bound) = announced else { return described(uri, target) };
        for (medium, control) in bound.controls.iter().enumerate() {
            if control.contains("://") {
                let is_it = Target::parse(control)
                    .is_some_and(|own| own.path == target.path && own.query == target.query);
                if is_it || control == uri {
                    return Some((medium, Target { path: bound.path.clone(), ..target.clone() }));
                }
            } else if let Some(stream) =
                Target::of_stream(uri, control).filter(|stream| stream.path == bound.path)
            {
                return Some((medium, stream));
            }
        }
        // A lone medium may be named by the stream's own URI.
        (bound.controls.len() == 1 && target.path == bound.path).then(|| (0, target.clone()))
    }

    fn play(&mut self, request: Request, target: Target) {
        let Some(session) = self.session.as_ref().filter(|session| session.state != State::Recording) else {
            return self.not_now(&request);
        };
        let announced = self.bound.as_ref().is_some_and(|b| b.announced && b.path == session.path);
        if announced {
            return self.not_now(&request);
        }
        let again = session.state == State::Playing;
        let ask = ask(&request, target);
        self.wait(request, ask, ServerEvent::Play { again });
    }

    fn record(&mut self, request: Request, target: Target) {
        let ready = self.session.as_ref().is_some_and(|session| session.state == State::Ready);
        let announced = self.bound.as_ref().is_some_and(|bound| bound.announced);
        if !ready || !announced {
            return self.not_now(&request);
        }
        let ask = ask(&request, target);
        self.wait(request, ask, ServerEvent::Record);
    }

    /// A live stream does not wait, but a client that pauses before TEARDOWN takes a no for a failure.
    fn pause(&mut self, request: &Request) {
        let Some(session) = &mut self.session else { return self.not_now(request) };
        if session.state == State::Playing {
            session.state = State::Ready;
            self.events.push_back(ServerEvent::Pause);
        }
        self.answer(request, Response::new(StatusCode::Ok));
    }

    /// Of one medium means the whole session: a client that leaves starts somewhere.
    fn teardown(&mut self, request: &Request) {
        self.answer(request, Response::new(StatusCode::Ok));
        if self.session.take().is_some() {
            self.sessions_before += 1;
            self.events.push_back(ServerEvent::Teardown);
        }
        if self.bound.as_ref().is_some_and(|bound| bound.announced) {
            self.bound = None;
        }
    }

    fn not_now(&mut self, request: &Request) {
        self.answer(request, Response::new(StatusCode::MethodNotValidInThisState).with("Allow", PUBLIC));
    }

    fn wait(&mut self, request: Request, ask: Ask, event: ServerEvent) {
        self.pending = Some(Pending { request, ask, setup: None });
        self.events.push_back(event);
    }

    /// Answers the request that waits, and goes on with what came behind it.
    pub(super) fn decide(&mut self, response: Response) {
        self.decide_with(response, true);
    }

    /// The same; `name_session` adds the plain session id.
    pub(super) fn decide_with(&mut self, response: Response, name_session: bool) {
        let Some(pending) = self.pending.take() else { return };
        self.write(&pending.request, response, name_session);
        self.read();
    }

    fn answer(&mut self, request: &Request, response: Response) {
        self.write(request, response, true);
    }

    fn write(&mut self, request: &Request, mut response: Response, name_session: bool) {
        if let Some(cseq) = request.headers.get("CSeq") {
            response.headers.push("CSeq", cseq);
        }
        response.headers.push("Server", SERVER);
        if let Some(session) = self.session.as_ref().filter(|_| name_session) {
            response.headers.push("Session", session.id.clone());
        }
        self.out.extend_from_slice(&response.to_bytes());
    }
}

/// A medium of ours. The stream's own URI means its first one: that is how a lone medium may be named.
fn described(uri: &str, target: &Target) -> Option<(usize, Target)> {
    let last = |text: &str| text.rsplit('/').next().and_then(Description::medium);
    let named = target.query.as_deref().and_then(last).or_else(|| last(&target.raw_path));
    match named {
        Some(medium) => Some((medium, Target::of_stream(uri, &Description::control(medium))?)),
        None => Some((0, target.clone())),
    }
}

fn ask(request: &Request, target: Target) -> Ask {
    let agent = request.headers.get("User-Agent").unwrap_or_default();
    let user_agent = agent.chars().filter(|c| !c.is_control()).take(MAX_USER_AGENT).collect();
    Ask { path: target.path, query: target.query, user_agent }
}
