//! What an output says of itself: recording and storing go on side by side, and the worse of them is its state.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use av_flow::stream::{OutputStatus, State};
use av_flow::{Reason, Trouble};
use tokio::time::Instant;

/// The state of one output, or of one instance of it.
#[derive(Debug)]
pub struct Report {
    status: Arc<OutputStatus>,
    /// `flows.NAME.outputs.NAME.store`, which every sentence begins with.
    path: String,
    said: Mutex<Said>,
}

#[derive(Debug, Default)]
struct Said {
    /// Something is being recorded.
    recording: bool,
    /// Why nothing is.
    writing: Option<(State, Trouble)>,
    /// Why files do not get to their store.
    storing: Option<Trouble>,
    /// What the stream lacks of which this output records nothing.
    nothing: Option<Trouble>,
    /// What of the stream is in no file.
    left_out: Option<Trouble>,
    /// What the log knows.
    logged: Option<String>,
    /// When the oldest frame arrived that was handed to the disk and is not durable yet.
    behind: Option<Instant>,
}

impl Report {
    /// Nothing is recorded yet.
    pub fn new(status: Arc<OutputStatus>, output_path: &str) -> Arc<Self> {
        Arc::new(Self { status, path: format!("{output_path}.store"), said: Mutex::default() })
    }

    /// State and counters.
    pub fn status(&self) -> &OutputStatus {
        &self.status
    }

    /// Something was recorded and is durable.
    pub fn recorded(&self) {
        let mut said = self.said();
        if !said.recording || said.writing.is_some() {
            if said.writing.take().is_some() {
                tracing::info!("{}: records again", self.path);
            }
            said.recording = true;
            self.refresh(said);
        }
    }

    /// What of the stream files can't carry, if anything.
    pub fn leaves_out(&self, what: Option<&str>) {
        let mut said = self.said();
        let text = |what| format!("{}: left out, because MP4 can't carry it: {what}", self.path);
        said.left_out = what.map(|what| Trouble::new(Reason::Content, text(what)));
        self.refresh(said);
    }

    /// What the stream lacks, where that leaves nothing to record.
    pub fn lacks(&self, what: Option<&str>) {
        let mut said = self.said();
        said.nothing = what.map(|what| Trouble::new(Reason::Content, format!("{}: {what}", self.path)));
        self.refresh(said);
    }

    /// The disk is writing frames, the oldest of which arrived then; `None`: everything is durable.
    pub fn behind(&self, since: Option<Instant>) {
        self.said().behind = since;
    }

    /// The age of the oldest frame that was handed to the disk and is not durable yet.
    pub fn lag(&self) -> Duration {
        self.said().behind.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Whatever hindered recording is over; nothing is recorded yet.
    pub fn ready(&self) {
        let mut said = self.said();
        said.writing = None;
        self.refresh(said);
    }

    /// There is nothing to record.
    pub fn idle(&self) {
        let mut said = self.said();
        said.recording = false;
        self.refresh(said);
    }

    /// Nothing can be recorded.
    pub fn fails(&self, state: State, reason: Reason, why: &dyn std::fmt::Display) {
        let mut said = self.said();
        said.writing = Some((state, Trouble::new(reason, format!("{}: {why}", self.path))));
        self.refresh(said);
    }

    /// Why files do not get to their store; `None`: they do.
    pub fn storing(&self, why: Option<(Reason, &str)>) {
        let mut said = self.said();
        said.storing = why.map(|(reason, why)| Trouble::new(reason, format!("{}: {why}", self.path)));
        self.refresh(said);
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refresh(&self, mut said: MutexGuard<'_, Said>) {
        let (state, trouble) = match (&said.writing, &said.storing) {
            (Some((state, trouble)), _) => (*state, Some(trouble.clone())),
            (None, Some(trouble)) => (State::Retrying, Some(trouble.clone())),
            (None, None) if said.recording => (State::Running, said.left_out.clone()),
            (None, None) => (State::Waiting, said.nothing.clone()),
        };
        let text = trouble.as_ref().map(|trouble| trouble.text.clone());
        if said.logged != text {
            if let Some(text) = &text {
                tracing::warn!("{text}");
            }
            said.logged = text;
        }
        self.status.status.set(state, trouble);
    }
}

#[cfg(test)]
mod tests {
    use av_flow::stream::Changes;

    use super::*;

    #[test]
    fn what_hinders_recording_is_told_before_what_hinders_storing() {
        let report = Report::new(OutputStatus::new(Changes::default()), "flows.a.outputs.b");
        let state = || (report.status.status.get().state, report.status.status.get().trouble.map(|t| t.text));
        assert_eq!(state(), (State::Waiting, None));
        report.recorded();
        assert_eq!(state(), (State::Running, None));
        report.storing(Some((Reason::File, "no such folder")));
        assert_eq!(state(), (State::Retrying, Some("flows.a.outputs.b.store: no such folder".into())));
        report.fails(State::Failed, Reason::File, &"the disk is full");
        assert_eq!(state(), (State::Failed, Some("flows.a.outputs.b.store: the disk is full".into())));
        report.recorded();
        assert_eq!(state().0, State::Retrying);
        report.storing(None);
        assert_eq!(state(), (State::Running, None));
        report.leaves_out(Some("audio (mp3)"));
        let why = "flows.a.outputs.b.store: left out, because MP4 can't carry it: audio (mp3)";
        assert_eq!(state(), (State::Running, Some(why.into())));
        report.leaves_out(None);
        report.lacks(Some("the stream has no audio"));
        assert_eq!(state(), (State::Running, None));
        report.idle();
        let why = "flows.a.outputs.b.store: the stream has no audio";
        assert_eq!(state(), (State::Waiting, Some(why.into())));
        report.lacks(None);
        assert_eq!(state(), (State::Waiting, None));
    }
}
