//! What an endpoint does that connects, listens or opens something, for ever: each reason is in the log once, in the
//! state always, and the next attempt comes after a growing wait.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use av_edge::EventKind;

use super::Backoff;
use crate::config::Retry;
use crate::endpoint::{InputContext, Module, OutputContext};
use crate::stream::{InputStatus, OutputStatus, State, Status};
use crate::trouble::{Reason, Trouble};

/// The attempts of one endpoint.
pub struct Attempts {
    module: Arc<Module>,
    flow: Arc<str>,
    whose: Whose,
    /// `flows.NAME.input.pull`, ...
    path: String,
    backoff: Backoff,
    /// The last reason that was logged.
    said: Option<String>,
    connected: bool,
}

enum Whose {
    Input(Arc<InputStatus>),
    Output(Arc<str>, Arc<OutputStatus>),
}

impl Attempts {
    /// Of an input; `key` is what it is called in its document.
    pub fn of_input(input: &InputContext, key: &str, retry: Retry) -> Self {
        let whose = Whose::Input(input.status.clone());
        Self::new(&input.module, &input.flow, whose, format!("{}.{key}", input.path), retry)
    }

    /// Of an output; `key` is what it is called in its document.
    pub fn of_output(output: &OutputContext, key: &str, retry: Retry) -> Self {
        let whose = Whose::Output(output.output.clone(), output.status.clone());
        Self::new(&output.module, &output.flow, whose, format!("{}.{key}", output.path), retry)
    }

    fn new(module: &Arc<Module>, flow: &Arc<str>, whose: Whose, path: String, retry: Retry) -> Self {
        Self {
            module: module.clone(),
            flow: flow.clone(),
            whose,
            path,
            backoff: Backoff::new(retry),
            said: None,
            connected: false,
        }
    }

    /// It works: an event says so, and whatever goes wrong next is said anew.
    pub fn connected(&mut self, detail: impl Into<String>) {
        self.said = None;
        self.connected = true;
        self.emit([EventKind::InputConnected, EventKind::OutputConnected], detail.into());
    }

    /// It ended as it should.
    pub fn ended(&mut self, detail: impl Into<String>) {
        if std::mem::take(&mut self.connected) {
            self.emit([EventKind::InputLost, EventKind::OutputLost], detail.into());
        }
    }

    /// It did not work, or does not any more; media had `flowed` that long. The answer is how long to wait before the
    /// next attempt.
    pub fn failed(
        &mut self,
        state: State,
        reason: Reason,
        error: &dyn Display,
        flowed: Duration,
    ) -> Duration {
        self.ended(error.to_string());
        self.backoff.media_flowed(flowed);
        let text = self.say(error);
        self.status().set(state, Some(Trouble::new(reason, text)));
        self.backoff.next_wait()
    }

    /// It did not work, and the endpoint works without it, whatever its state is. The answer is how long to wait before
    /// the next attempt.
    pub fn lacks(&mut self, error: &dyn Display) -> Duration {
        let text = self.say(error);
        self.status().remark(Some(text));
        self.backoff.next_wait()
    }

    /// What was lacking is there. What else is lacking stays.
    pub fn has_all(&mut self) {
        if let Some(said) = self.said.take() {
            self.status().forget_remark(&said);
        }
    }

    /// The whole sentence, which is in the log once.
    fn say(&mut self, error: &dyn Display) -> String {
        let text = format!("{}: {error}", self.path);
        if self.said.as_ref() != Some(&text) {
            let output = match &self.whose {
                Whose::Input(_) => None,
                Whose::Output(name, _) => Some(&**name),
            };
            tracing::warn!(flow = %self.flow, output, "{text}");
            self.said = Some(text.clone());
        }
        text
    }

    fn status(&self) -> &Status {
        match &self.whose {
            Whose::Input(status) => &status.status,
            Whose::Output(_, status) => &status.status,
        }
    }

    fn emit(&self, [of_input, of_output]: [EventKind; 2], detail: String) {
        match &self.whose {
            Whose::Input(_) => self.module.emit(of_input, &self.flow, None, detail),
            Whose::Output(name, _) => self.module.emit(of_output, &self.flow, Some(name), detail),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::rtmp::peer::{module, retry, stream};

    #[tokio::test]
    async fn a_reason_is_in_the_state_with_its_path_and_waits_grow_until_media_has_flowed() {
        let stream = stream();
        let input = InputContext {
            module: module(),
            flow: "cam".into(),
            path: "flows.cam.input".into(),
            status: stream.input().clone(),
            stream,
            idle_timeout: Duration::from_secs(10),
            cancel: CancellationToken::new(),
            instances: None,
        };

        let mut attempts = Attempts::of_input(&input, "pull", retry());
        let mut fails = |flowed| {
            attempts.failed(State::Retrying, Reason::Lost, &"the camera is gone", Duration::from_secs(flowed))
        };
        let first = retry().initial;
        assert!(fails(0) <= first);
        assert!(fails(0) > first);
        assert!(fails(9) > first);
        assert!(fails(10) <= first);
        let current = input.status.status.get();
        assert_eq!(current.state, State::Retrying);
        let trouble = Trouble::new(Reason::Lost, "flows.cam.input.pull: the camera is gone");
        assert_eq!(current.trouble, Some(trouble));
        // Said once.
        assert!(attempts.said.is_some());
        attempts.connected("camera");
        assert!(attempts.said.is_none());
    }
}
