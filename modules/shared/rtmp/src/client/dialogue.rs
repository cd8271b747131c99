//! Commands and the server's answers.

use std::collections::VecDeque;

use super::{ClientEvent, ClientSession, Mode, State};
use crate::amf0::Value;
use crate::auth::{Answer, answer};
use crate::chunk::RawMessage;
use crate::command::Command;
use crate::message::{AUDIO, Message, UserControl, VIDEO, write_window};
use crate::{MediaItem, RtmpError};

/// Acknowledge after so many bytes, please.
const WINDOW: u32 = 5_000_000;
/// Transactions of the commands whose answer matters. Others use numbers above.
const CONNECT: f64 = 1.0;
const CREATE_STREAM: f64 = 4.0;
const REQUEST: f64 = 5.0;
/// What a player says it buffers; servers of live streams ignore it, some want to hear it.
const BUFFER_MILLIS: u32 = 3000;
/// A server's text is shown to people: this much of it.
const MAX_DESCRIPTION: usize = 512;

impl ClientSession {
    /// RTMP 1.0 §7.2.1.1. Sent before the chunk size is raised, so it goes out in chunks of 128.
    pub(super) fn connect(&mut self) {
        let auth = self.config.auth_query.as_deref();
        let with_auth = |text: &str| match auth {
            Some(query) if text.contains('?') => format!("{text}&{query}"),
            Some(query) => format!("{text}?{query}"),
            None => text.to_owned(),
        };
        let four_cc =
            ["avc1", "hvc1", "av01", "vp08", "vp09", "mp4a", "Opus", "fLaC", "ac-3", "ec-3", ".mp3"];
        let mut properties = vec![("app", Value::String(with_auth(&self.config.app)))];
        match self.config.mode {
            Mode::Publish => properties.extend([
                ("type", Value::from("nonprivate")),
                ("flashVer", Value::from("FMLE/3.0 (compatible; av-services)")),
                ("tcUrl", Value::String(with_auth(&self.config.tc_url))),
            ]),
            Mode::Play => properties.extend([
                ("flashVer", Value::from("LNX 9,0,124,2")),
                ("tcUrl", Value::String(with_auth(&self.config.tc_url))),
                ("fpad", Value::Boolean(false)),
                ("capabilities", Value::from(15.0)),
                // Every codec that the old bit sets know.
                ("audioCodecs", Value::from(4071.0)),
                ("videoCodecs", Value::from(252.0)),
                ("videoFunction", Value::from(1.0)),
            ]),
        }
        properties.push(("fourCcList", Value::StrictArray(four_cc.map(Value::from).to_vec())));
        let properties = properties.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        self.command(0, "connect", CONNECT, [Value::Object(properties)]);
        self.state = State::Connecting;
    }

    /// Ends the stream politely: FCUnpublish, deleteStream. Send what `poll` gives, then close.
    pub fn finish(&mut self) {
        if matches!(self.state, State::Asking | State::Established) {
            if self.config.mode == Mode::Publish {
                let name = self.bare_name();
                self.command(0, "FCUnpublish", 6.0, [Value::Null, name]);
            }
            let stream = Value::Number(f64::from(self.stream_id));
            self.command(0, "deleteStream", 0.0, [Value::Null, stream]);
        }
        self.state = State::Over;
    }

    pub(super) fn message(&mut self, raw: &RawMessage) -> Result<(), RtmpError> {
        if self.state == State::Over {
            return Ok(());
        }
        let message = match Message::parse(raw) {
            Ok(message) => message,
            Err(error) => return self.leave_out(error),
        };
        match message {
            Message::Command(_) => match Command::parse(raw) {
                Ok(Some(command)) => self.answered(&command),
                Ok(None) => {}
                // Its answers are what this side waits for.
                Err(error) if self.state != State::Established => return Err(error),
                Err(error) => return self.leave_out(error),
            },
            Message::PeerBandwidth(window) => write_window(self.link.out(), window),
            Message::UserControl(UserControl::StreamEof(_)) if self.state == State::Established => {
                self.ended()
            }
            Message::Audio(_) | Message::Video(_) | Message::Data(_) | Message::Aggregate(_) => {
                self.media(raw)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn media(&mut self, raw: &RawMessage) -> Result<(), RtmpError> {
        if self.config.mode != Mode::Play || !matches!(self.state, State::Asking | State::Established) {
            // nginx-rtmp and others send statuses as data to publishers too.
            return match raw.type_id {
                type_id @ (AUDIO | VIDEO | 22) => Err(RtmpError::MediaBeforePublish { type_id }),
                _ => Ok(()),
            };
        }
        if self.state == State::Asking && matches!(raw.type_id, AUDIO | VIDEO | 22) {
            // Some servers stream without saying NetStream.Play.Start.
            self.established();
        }
        let events = &mut self.events;
        self.ingest.message(raw, &mut |item| give(events, item))
    }

    fn leave_out(&mut self, error: RtmpError) -> Result<(), RtmpError> {
        if self.config.mode == Mode::Publish {
            return Ok(());
        }
        let events = &mut self.events;
        self.ingest.leave_out(None, error, &mut |item| give(events, item))
    }

    fn answered(&mut self, command: &Command) {
        let transaction = command.transaction;
        match (command.name.as_str(), self.state) {
            ("_result", State::Connecting) if transaction == CONNECT => self.create_stream(),
            ("_result", State::CreatingStream) if transaction == CREATE_STREAM => {
                // The id is a small whole number everywhere; anything else would be nobody's stream.
                let id = command.argument(0).and_then(Value::as_number).unwrap_or(1.0);
                self.stream_id = id.clamp(0.0, f64::from(u32::MAX)) as u32;
                self.ask();
            }
            ("_error", State::Connecting) if transaction == CONNECT => self.connect_refused(command),
            ("_error", State::CreatingStream) if transaction == CREATE_STREAM => self.refused(command),
            ("_error", State::Asking) if transaction == REQUEST => self.refused(command),
            ("onStatus", _) => self.status(command),
            // The server asks to close, after it has said why.
            ("close", _) => self.ended(),
            _ => {}
        }
    }

    fn create_stream(&mut self) {
        write_window(self.link.out(), WINDOW);
        self.link.raise_chunk_size();
        if self.config.mode == Mode::Publish {
            let name = self.bare_name();
            self.command(0, "releaseStream", 2.0, [Value::Null, name.clone()]);
            self.command(0, "FCPublish", 3.0, [Value::Null, name]);
        }
        self.command(0, "createStream", CREATE_STREAM, [Value::Null]);
        self.state = State::CreatingStream;
    }

    fn ask(&mut self) {
        let name = Value::from(self.config.name.as_str());
        match self.config.mode {
            Mode::Publish => {
                self.command(self.stream_id, "publish", REQUEST, [Value::Null, name, Value::from("live")]);
            }
            Mode::Play => {
                let subscribed = self.bare_name();
                self.command(0, "FCSubscribe", 0.0, [Value::Null, subscribed]);
                // -2: live if there is such a stream, recorded otherwise (RTMP 1.0 §7.2.2.1).
                self.command(self.stream_id, "play", REQUEST, [Value::Null, name, Value::from(-2000.0)]);
                let stream_id = self.stream_id;
                self.link.user_control(UserControl::SetBufferLength { stream_id, millis: BUFFER_MILLIS });
            }
        }
        self.state = State::Asking;
    }

    /// `onStatus` (RTMP 1.0 §7.2.2).
    fn status(&mut self, command: &Command) {
        let info = command.argument(0).or_else(|| command.object());
        let text = |name| info.and_then(|info| info.get(name)).and_then(Value::as_str).unwrap_or_default();
        let code = text("code");
        match code {
            "NetStream.Publish.Start" | "NetStream.Play.Start" if self.state == State::Asking => {
                self.established();
            }
            "NetStream.Play.UnpublishNotify" => self.events.push_back(ClientEvent::Unpublished),
            "NetStream.Play.Stop" | "NetStream.Play.Complete" => self.ended(),
            "NetConnection.Connect.Closed" => self.ended(),
            // Of a connection that is up: Seek.Failed and the like concern nobody here.
            _ if text("level") == "error" && !code.starts_with("NetStream.Seek") => self.refused(command),
            _ => {}
        }
    }

    fn connect_refused(&mut self, command: &Command) {
        let info = command.argument(0).or_else(|| command.object());
        let description = info.and_then(|info| info.get("description")).and_then(Value::as_str);
        let tried = self.config.auth_query.as_deref().is_some_and(|query| query.contains("&response="));
        let credentials = self.config.credentials.as_ref();
        match answer(description.unwrap_or_default(), credentials, &self.config.app, tried) {
            Answer::Query(query) => {
                self.events.push_back(ClientEvent::NeedAuth { query });
                self.state = State::Over;
            }
            Answer::Final => self.refused(command),
        }
    }

    fn refused(&mut self, command: &Command) {
        let info = command.argument(0).or_else(|| command.object());
        let text = |name| info.and_then(|info| info.get(name)).and_then(Value::as_str).unwrap_or_default();
        let (code, description) = (printable(text("code")), printable(text("description")));
        self.events.push_back(ClientEvent::Refused { code, description });
        self.state = State::Over;
    }

    fn established(&mut self) {
        self.state = State::Established;
        self.events.push_back(ClientEvent::Established);
    }

    fn ended(&mut self) {
        self.events.push_back(ClientEvent::Ended);
        self.state = State::Over;
    }

    /// The name without its query, which may hold a key that only `publish` and `play` need.
    fn bare_name(&self) -> Value {
        Value::from(crate::command::split_query(&self.config.name).0)
    }

    fn command<const N: usize>(&mut self, stream_id: u32, name: &str, transaction: f64, rest: [Value; N]) {
        let mut values = vec![Value::from(name), Value::Number(transaction)];
        values.extend(rest);
        self.link.command(stream_id, &values);
    }
}

/// Skipped messages become one event as long as nothing else comes between them.
fn give(events: &mut VecDeque<ClientEvent>, item: MediaItem) {
    if let Some(ClientEvent::Media(last)) = events.back_mut()
        && last.absorb(&item)
    {
        return;
    }
    events.push_back(ClientEvent::Media(item));
}

/// Text of a server, safe to log.
fn printable(text: &str) -> String {
    let end = text.floor_char_boundary(MAX_DESCRIPTION);
    text.get(..end).unwrap_or_default().chars().filter(|c| !c.is_control()).collect()
}
