//! Commands and their answers.

use super::{Connect, Intent, RequestId, ServerEvent, ServerSession, State};
use crate::RtmpError;
use crate::amf0::{Value, object};
use crate::chunk::RawMessage;
use crate::command::{Command, split_query};
use crate::message::{AUDIO, COMMAND, UserControl, VIDEO, write_peer_bandwidth, write_window};

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
            (17 | COMMAND, _) => match Command::parse(raw)? {
                Some(command) => self.command(&command),
                None => Ok(()),
            },
            (_, State::Publishing) => {
                let events = &mut self.events;
                self.ingest.message(raw, &mut |item| events.push_back(ServerEvent::Media(item)))
            }
            (type_id @ (AUDIO | VIDEO | 22), _) => Err(RtmpError::MediaBeforePublish { type_id }),
            // Data and shared objects from a peer that does not publish mean nothing here.
            _ => Ok(()),
        }
    }

    fn command(&mut self, command: &Command) -> Result<(), RtmpError> {
        let transaction = command.transaction;
        if self.state == State::New && command.name != "connect" {
            return Err(RtmpError::CommandOrder { command: "first command", when: "is not connect" });
        }
        match command.name.as_str() {
            "connect" => return self.connect(command),
            "createStream" if self.has_stream => self.say_failed(
                transaction,
                "NetConnection.Call.Failed",
                "one stream per connection: delete the first before creating another",
            ),
            "createStream" => {
                self.has_stream = true;
                self.say_result(transaction, Value::Null, Value::Number(f64::from(STREAM)));
            }
            "publish" => return self.publish(command),
            "play" => return self.play(command),
            "deleteStream" => {
                self.stop();
                self.has_stream = false;
            }
            "closeStream" => self.stop(),
            "releaseStream" | "FCPublish" | "_checkbw" => {
                self.say_result(transaction, Value::Null, Value::Undefined);
            }
            "FCUnpublish" => {
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
            "pause" => {
                let pausing = command.argument(0) != Some(&Value::Boolean(false));
                let code = if pausing { "NetStream.Pause.Notify" } else { "NetStream.Unpause.Notify" };
                self.say_status("status", code, "a live stream goes on");
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
        if self.state != State::New {
            return Err(RtmpError::CommandOrder { command: "connect", when: "came twice" });
        }
        let text = |what: &'static str| match command.object().and_then(|object| object.get(what)) {
            Some(Value::String(text)) => self.bounded(what, text),
            _ => Ok(String::new()),
        };
        let (app, tc_url, flash_ver) = (text("app")?, text("tcUrl")?, text("flashVer")?);
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
        let (app, query) = split_query(&app);
        let query = query.or_else(|| split_query(&tc_url).1).map(str::to_owned);
        self.state = State::Connecting { transaction: command.transaction, enhanced: list.is_some() };
        let app = app.to_owned();
        self.events.push_back(ServerEvent::Connect(Connect {
            app,
            query,
            tc_url,
            flash_ver,
            four_cc,
            intent,
        }));
        Ok(())
    }

    /// RTMP 1.0 §7.2.2.6; the type ("live", "record", "append") may be left out.
    fn publish(&mut self, command: &Command) -> Result<(), RtmpError> {
        let (name, query) = self.stream_name("publish", command)?;
        if self.state != State::Connected {
            self.say_status("error", "NetStream.Publish.BadName", "this connection already has a stream");
            return Ok(());
        }
        let id = self.new_id();
        self.state = State::PublishAsked { id };
        self.events.push_back(ServerEvent::Publish { id, name, query });
        Ok(())
    }

    /// RTMP 1.0 §7.2.2.1; start and duration mean nothing for a live stream.
    fn play(&mut self, command: &Command) -> Result<(), RtmpError> {
        let (name, query) = self.stream_name("play", command)?;
        if self.state != State::Connected {
            self.say_status("error", "NetStream.Play.Failed", "this connection already has a stream");
            return Ok(());
        }
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

    fn stream_name(
        &self,
        command: &'static str,
        values: &Command,
    ) -> Result<(String, Option<String>), RtmpError> {
        if !self.has_stream {
            return Err(RtmpError::CommandOrder { command, when: "came before createStream" });
        }
        let Some(Value::String(name)) = values.argument(0) else {
            return Err(RtmpError::Argument { command, argument: "a stream name" });
        };
        let name = self.bounded("stream name", name)?;
        let (name, query) = split_query(&name);
        Ok((name.to_owned(), query.map(str::to_owned)))
    }

    fn bounded(&self, what: &'static str, text: &str) -> Result<String, RtmpError> {
        let (length, limit) = (text.len(), self.limits.max_name_bytes);
        if length > limit {
            return Err(RtmpError::NameTooLong { what, length, limit });
        }
        Ok(text.to_owned())
    }

    const fn new_id(&mut self) -> RequestId {
        self.next_id = self.next_id.wrapping_add(1);
        RequestId(self.next_id)
    }

    /// `closeStream` or `deleteStream`.
    fn stop(&mut self) {
        match self.state {
            State::Publishing => {
                self.link.chunks.set_limits(
                    self.limits.max_message_bytes.min(self.limits.max_unfinished_before_publish),
                    self.limits.max_unfinished_before_publish,
                );
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
            // None of reconnect, multitrack, ModEx and nanoseconds.
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

/// A status command (RTMP 1.0 §7.2.2).
fn status(name: &str, level: &str, code: &str, description: Value) -> [Value; 4] {
    let info =
        object([("level", Value::from(level)), ("code", Value::from(code)), ("description", description)]);
    [Value::from(name), Value::Number(0.0), Value::Null, info]
}
