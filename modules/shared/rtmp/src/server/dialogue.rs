//! Commands and their answers.

use std::collections::VecDeque;

use super::{Connect, Intent, RequestId, ServerEvent, ServerSession, State};
use crate::amf0::{Value, object};
use crate::chunk::RawMessage;
use crate::command::{Command, split_query};
use crate::message::{AUDIO, COMMAND, UserControl, VIDEO, write_peer_bandwidth, write_window};
use crate::{MediaItem, RtmpError};

/// Announced both ways: how much may be under way unacknowledged. No sender waits for it in practice.
const WINDOW: u32 = 5_000_000;
/// The one message stream of a connection.
const STREAM: u32 = 1;
/// More codecs than Enhanced RTMP defines are not worth remembering.
const MAX_FOUR_CC: usize = 32;
/// What is announced to clients that ask (Enhanced RTMP, "Enhancing NetConnection connect Command").
const FOUR_CC: [&str; 11] =
    ["avc1", "hvc1", "av01", "vp08", "vp09", "mp4a", "Opus", "fLaC", "ac-3", "ec-3", ".mp3"];

impl ServerSession {
    pub(super) fn message(&mut self, raw: &RawMessage) -> Result<(), RtmpError> {
        match (raw.type_id, self.state) {
            (_, State::Over) => Ok(()),
            (17 | COMMAND, state) => match Command::parse(raw) {
                Ok(Some(command)) => self.command(&command),
                Ok(None) => Ok(()),
                Err(error) if state == State::New => Err(error),
                Err(error) => self.leave_out(error),
            },
            (_, State::Publishing) => {
                let events = &mut self.events;
                self.ingest.message(raw, &mut |item| give(events, item))
            }
            // Frames that were on their way when the stream ended.
            (AUDIO | VIDEO | 22, _) if self.published => Ok(()),
            (type_id @ (AUDIO | VIDEO | 22), _) => Err(RtmpError::MediaBeforePublish { type_id }),
            // Data and shared objects from a peer that does not publish mean nothing here.
            _ => Ok(()),
        }
    }

    /// A publisher's malformed message counts; nobody else's means anything.
    fn leave_out(&mut self, error: RtmpError) -> Result<(), RtmpError> {
        if self.state != State::Publishing {
            return Ok(());
        }
        let events = &mut self.events;
        self.ingest.leave_out(None, error, &mut |item| give(events, item))
    }

    fn command(&mut self, command: &Command) -> Result<(), RtmpError> {
        let transaction = command.transaction;
        if self.state == State::New && command.name != "connect" {
            return Err(RtmpError::CommandOrder { command: "first command", when: "is not connect" });
        }
        match command.name.as_str() {
            "connect" => return self.connect(command),
            // There is one stream, however often it is created, and it needs no creation.
            "createStream" if matches!(self.state, State::Publishing | State::Playing) => self.say_failed(
                transaction,
                "NetConnection.Call.Failed",
                "one stream per connection: close the first before creating another",
            ),
            "createStream" => {
                self.say_result(transaction, Value::Null, Value::Number(f64::from(STREAM)));
            }
            // How Flash ends a stream and keeps the connection.
            "publish" | "play" if command.argument(0) == Some(&Value::Boolean(false)) => {
                if self.state == State::Playing {
                    self.say_status("status", "NetStream.Play.Stop", "stopped playing");
                }
                self.stop();
            }
            "publish" => return self.publish(command),
            "play" => return self.play(command),
            "deleteStream" | "closeStream" => self.stop(),
            "releaseStream" | "_checkbw" => {
                self.say_result(transaction, Value::Null, Value::Undefined);
            }
            "FCPublish" => {
                let name = command.argument(0).cloned().unwrap_or(Value::Null);
                self.say_result(transaction, Value::Null, Value::Undefined);
                self.link.command(0, &status("onFCPublish", "status", "NetStream.Publish.Start", name));
            }
            // What follows is another stream, or nothing; encoders that delete the stream as well do it twice.
            "FCUnpublish" => {
                if self.state == State::Publishing {
                    self.stop();
                }
                let name = command.argument(0).cloned().unwrap_or(Value::Null);
                self.say_result(transaction, Value::Null, Value::Undefined);
                self.link.command(0, &status("onFCUnpublish", "status", "NetStream.Unpublish.Success", name));
            }
            "FCSubscribe" => {
                let name = command.argument(0).cloned().unwrap_or(Value::Null);
                self.link.command(0, &status("onFCSubscribe", "status", "NetStream.Play.Start", name));
            }
            // Live streams have no length.
            "getStreamLength" => self.say_result(transaction, Value::Null, Value::Number(0.0)),
            "pause" | "pauseRaw" => {
                let pausing = command.argument(0) != Some(&Value::Boolean(false));
                let code = if pausing { "NetStream.Pause.Notify" } else { "NetStream.Unpause.Notify" };
                self.say_status("status", code, "a live stream goes on at what is live then");
                if self.state == State::Playing {
                    self.events.push_back(ServerEvent::Paused(pausing));
                }
            }
            "seek" => self.say_status("error", "NetStream.Seek.Failed", "a live stream cannot seek"),
            "receiveAudio" | "receiveVideo" | "_result" | "_error" | "onStatus" => {}
            _ if transaction != 0.0 => {
                self.say_failed(transaction, "NetConnection.Call.Failed", "no such command");
            }
            _ => {}
        }
        Ok(())
    }

    /// RTMP 1.0 §7.2.1.1.
    fn connect(&mut self, command: &Command) -> Result<(), RtmpError> {
        let transaction = command.transaction;
        if self.state != State::New {
            self.say_failed(transaction, "NetConnection.Call.Failed", "this connection is connected");
            return Ok(());
        }
        let text = |what| command.object().and_then(|object| object.get(what)).and_then(Value::as_str);
        let tc_url = text("tcUrl").unwrap_or_default();
        // Nobody needs it but those who put all there is into it.
        let app = text("app").unwrap_or_else(|| path_of(tc_url));
        let (app, query) = match self.named("app", app) {
            Ok(named) => named,
            Err(error) => {
                self.say_rejected(transaction, &error.to_string());
                return Err(error);
            }
        };
        let tc_query = split_query(tc_url).1.filter(|query| query.len() <= self.limits.max_query_bytes);
        let flash_ver = text("flashVer").unwrap_or_default();
        let flash_ver = flash_ver.get(..flash_ver.floor_char_boundary(self.limits.max_name_bytes));
        let flash_ver = flash_ver.unwrap_or_default().to_owned();
        let list = command.object().and_then(|object| object.get("fourCcList"));
        let four_cc = match list {
            Some(Value::StrictArray(list)) => list.as_slice(),
            _ => &[],
        };
        let four_cc = four_cc.iter().filter_map(Value::as_str).filter(|name| name.len() <= 4);
        let four_cc = four_cc.take(MAX_FOUR_CC).map(str::to_owned).collect();
        let has = |what: &str| command.object().is_some_and(|object| object.get(what).is_some());
        let intent = if has("type") && flash_ver.starts_with("FMLE/") {
            Some(Intent::Publish)
        } else if has("audioCodecs") || has("videoCodecs") {
            Some(Intent::Play)
        } else {
            None
        };
        self.state = State::Connecting { transaction, enhanced: list.is_some() };
        let tc_query = tc_query.map(str::to_owned);
        self.events.push_back(ServerEvent::Connect(Connect {
            app,
            query,
            tc_query,
            flash_ver,
            four_cc,
            intent,
        }));
        Ok(())
    }

    /// RTMP 1.0 §7.2.2.6; the type ("live", "record", "append") may be left out.
    fn publish(&mut self, command: &Command) -> Result<(), RtmpError> {
        const REFUSED: &str = "NetStream.Publish.BadName";
        let Some((name, query)) = self.stream_name("publish", REFUSED, command)? else { return Ok(()) };
        let id = self.new_id();
        self.state = State::PublishAsked { id };
        self.events.push_back(ServerEvent::Publish { id, name, query });
        Ok(())
    }

    /// RTMP 1.0 §7.2.2.1; start and duration mean nothing for a live stream.
    fn play(&mut self, command: &Command) -> Result<(), RtmpError> {
        const REFUSED: &str = "NetStream.Play.Failed";
        let Some((name, query)) = self.stream_name("play", REFUSED, command)? else { return Ok(()) };
        let reset = match command.argument(3) {
            Some(Value::Boolean(reset)) => *reset,
            Some(Value::Number(reset)) => *reset != 0.0,
            _ => true,
        };
        let id = self.new_id();
        self.state = State::PlayAsked { id, reset };
        self.events.push_back(ServerEvent::Play { id, name, query });
        Ok(())
    }

    /// What is to be published or played, and its query; `None` where that was refused and the connection goes on.
    fn stream_name(
        &mut self,
        command: &'static str,
        refused: &'static str,
        values: &Command,
    ) -> Result<Option<(String, Option<String>)>, RtmpError> {
        if self.state != State::Connected {
            self.say_status("error", refused, "this connection already has a stream");
            return Ok(None);
        }
        let Some(Value::String(name)) = values.argument(0) else {
            self.say_status("error", refused, "a stream name is missing");
            self.leave_out(RtmpError::Argument { command, argument: "a stream name" })?;
            return Ok(None);
        };
        match self.named("stream name", name) {
            Ok(named) => Ok(Some(named)),
            Err(error) => {
                self.say_status("error", refused, &error.to_string());
                Err(error)
            }
        }
    }

    /// A name and its query, within their bounds.
    fn named(&self, what: &'static str, text: &str) -> Result<(String, Option<String>), RtmpError> {
        let bounded = |what, text: &str, limit| match text.len() {
            length if length > limit => Err(RtmpError::NameTooLong { what, length, limit }),
            _ => Ok(text.to_owned()),
        };
        let (name, query) = split_query(text);
        let query = query.map(|query| bounded("query", query, self.limits.max_query_bytes)).transpose()?;
        Ok((bounded(what, name, self.limits.max_name_bytes)?, query))
    }

    const fn new_id(&mut self) -> RequestId {
        self.next_id = self.next_id.wrapping_add(1);
        RequestId(self.next_id)
    }

    /// `closeStream` or `deleteStream`.
    fn stop(&mut self) {
        match self.state {
            // What is still on its way is as long as what came before: the bounds stay those of a publisher.
            State::Publishing => {
                self.say_status("status", "NetStream.Unpublish.Success", "stopped publishing");
                self.events.push_back(ServerEvent::PublishStopped);
                self.state = State::Connected;
            }
            State::Playing => {
                self.events.push_back(ServerEvent::PlayStopped);
                self.state = State::Connected;
            }
            _ => {}
        }
    }

    pub(super) fn say_connected(&mut self, transaction: f64, enhanced: bool) {
        write_window(self.link.out(), WINDOW);
        write_peer_bandwidth(self.link.out(), WINDOW);
        self.link.raise_chunk_size();
        let server = object([
            ("fmsVer", Value::from("FMS/3,5,7,7009")),
            ("capabilities", Value::from(31.0)),
            ("mode", Value::from(1.0)),
        ]);
        let mut info = vec![
            ("level", Value::from("status")),
            ("code", Value::from("NetConnection.Connect.Success")),
            ("description", Value::from("Connection succeeded.")),
            ("objectEncoding", Value::from(0.0)),
        ];
        if enhanced {
            info.push(("fourCcList", Value::StrictArray(FOUR_CC.map(Value::from).to_vec())));
            // None of reconnect, multitrack, ModEx and nanoseconds: other tracks than the first only pass through.
            info.push(("capsEx", Value::from(0.0)));
        }
        let info = info.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        self.say_result(transaction, server, Value::Object(info));
    }

    pub(super) fn say_rejected(&mut self, transaction: f64, description: &str) {
        self.say_failed(transaction, "NetConnection.Connect.Rejected", description);
    }

    pub(super) fn say_publishing(&mut self) {
        self.link.user_control(UserControl::StreamBegin(STREAM));
        self.say_status("status", "NetStream.Publish.Start", "publishing");
    }

    pub(super) fn say_playing(&mut self, reset: bool) {
        self.link.user_control(UserControl::StreamBegin(STREAM));
        if reset {
            self.say_status("status", "NetStream.Play.Reset", "playing and resetting");
        }
        self.say_status("status", "NetStream.Play.Start", "started playing");
        let allowed = Value::Boolean(true);
        self.link.data(STREAM, &[Value::from("|RtmpSampleAccess"), allowed.clone(), allowed]);
        let info = object([("code", Value::from("NetStream.Data.Start"))]);
        self.link.data(STREAM, &[Value::from("onStatus"), info]);
    }

    pub(super) fn say_play_ended(&mut self, description: &str) {
        self.link.user_control(UserControl::StreamEof(STREAM));
        self.say_status("status", "NetStream.Play.UnpublishNotify", description);
        let complete = object([
            ("level", Value::from("status")),
            ("code", Value::from("NetStream.Play.Complete")),
            ("duration", Value::from(0.0)),
            ("bytes", Value::from(0.0)),
        ]);
        self.link.data(STREAM, &[Value::from("onPlayStatus"), complete]);
        self.say_status("status", "NetStream.Play.Stop", description);
    }

    pub(super) fn say_status(&mut self, level: &str, code: &str, description: &str) {
        self.link.command(STREAM, &status("onStatus", level, code, Value::from(description)));
    }

    fn say_result(&mut self, transaction: f64, object: Value, info: Value) {
        self.link.command(0, &[Value::from("_result"), Value::Number(transaction), object, info]);
    }

    fn say_failed(&mut self, transaction: f64, code: &str, description: &str) {
        let [_, _, object, info] = status("", "error", code, Value::from(description));
        self.link.command(0, &[Value::from("_error"), Value::Number(transaction), object, info]);
    }
}

/// Skipped messages become one event as long as nothing else comes between them.
fn give(events: &mut VecDeque<ServerEvent>, item: MediaItem) {
    if let Some(ServerEvent::Media(last)) = events.back_mut()
        && last.absorb(&item)
    {
        return;
    }
    events.push_back(ServerEvent::Media(item));
}

/// What stands behind the host of a URL.
fn path_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split_once('/').map_or("", |(_, path)| path)
}

/// A status command (RTMP 1.0 §7.2.2).
fn status(name: &str, level: &str, code: &str, description: Value) -> [Value; 4] {
    let info =
        object([("level", Value::from(level)), ("code", Value::from(code)), ("description", description)]);
    [Value::from(name), Value::Number(0.0), Value::Null, info]
}
