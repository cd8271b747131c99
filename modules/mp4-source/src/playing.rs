//! The stream's writer and its clock.

use std::path::Path;
use std::time::Duration;

use av_edge::EventKind;
use av_flow::stream::{Displaced, Incoming, Kick, KickReason, LeftOut, Publisher, State};
use av_flow::{InputContext, Reason, Trouble};
use av_media::{Frame, Kind, Timestamp, Track};
use tokio::time::{Instant, sleep_until};

use crate::reading::{Announcement, Part};
use crate::watch::Watched;

/// Frames due within that time leave together.
const TOGETHER: Duration = Duration::from_millis(1);
/// After so many frames that are due together others get their turn.
const AT_A_TIME: usize = 256;
/// After a standstill of that length (a frozen disk, a frozen process) the past is not made up for.
const MAX_LATE: Duration = Duration::from_secs(5);
/// While nothing is due, the file is looked at that often.
const LOOK: Duration = Duration::from_secs(1);

/// How sending or waiting ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    All,
    /// The file was written over while nothing was due.
    Changed,
}

/// See the module's text.
pub(crate) struct Playing {
    input: InputContext,
    /// As configured, for people.
    shown: String,
    /// `None` before the first frame, and while nothing is due for longer than the idle time-out.
    publisher: Option<(Publisher, Kick)>,
    /// As the next frames are coded.
    tracks: [Option<Track>; 2],
    left_out: [Option<LeftOut>; 2],
    /// When time 0 is due; set with the first frame.
    zero: Option<Instant>,
    /// Since when pictures come of which none is a sync frame.
    unsynced: Unsynced,
    /// What was said last of a file's tracks.
    said: Option<String>,
}

/// Whether a decoder can start anywhere in the pictures.
#[derive(Debug, Default)]
enum Unsynced {
    #[default]
    NoPicture,
    Since(Instant),
    Told,
    Synced,
}

impl Playing {
    pub(crate) fn new(input: InputContext, shown: &Path) -> Self {
        Self {
            input,
            shown: shown.display().to_string(),
            publisher: None,
            tracks: [None, None],
            left_out: [None, None],
            zero: None,
            unsynced: Unsynced::default(),
            said: None,
        }
    }

    /// The stream's time now, and not before what was sent last.
    pub(crate) fn now(&self) -> Timestamp {
        let passed = self.zero.map_or(Duration::ZERO, |zero| zero.elapsed());
        Timestamp::ZERO.saturating_add(passed)
    }

    /// What a file consists of. Where a kind went or came, another publisher begins.
    pub(crate) fn announce(&mut self, announcement: Announcement) -> Result<(), Displaced> {
        self.say(&announcement);
        let Announcement { tracks, left_out, .. } = announcement;
        let mut of_kinds = [None, None];
        for track in tracks {
            let kind = track.kind();
            *of(&mut of_kinds, kind) = Some(track);
        }
        let kinds = |tracks: &[Option<Track>; 2]| tracks.each_ref().map(Option::is_some);
        if kinds(&of_kinds) != kinds(&self.tracks) {
            // The one before is lost first: readers are told in that order.
            self.publisher = None;
        }
        self.tracks = of_kinds;
        self.unsynced = Unsynced::default();
        self.left_out = left_out;
        self.tell_tracks()
    }

    /// One line for all tracks that are left aside, and one for each flaw, with the flow's name.
    fn say(&mut self, announcement: &Announcement) {
        let (flow, file) = (&self.input.flow, &self.shown);
        let news = format!("{:?} {:?}", announcement.aside, announcement.flaws);
        if self.said.as_ref() == Some(&news) {
            return;
        }
        match &announcement.aside {
            Some((tracks, true)) => {
                tracing::warn!(%flow, %file, "read: tracks that are not played: {tracks}")
            }
            Some((tracks, false)) => {
                tracing::info!(%flow, %file, "read: tracks that are not played: {tracks}")
            }
            None => {}
        }
        for flaw in &announcement.flaws {
            tracing::warn!(%flow, %file, "read: {flaw}");
        }
        self.said = Some(news);
        // Whoever does not read the log finds it beside the state.
        let lacks = (!announcement.flaws.is_empty()).then(|| announcement.flaws.join("; "));
        let place = &self.input.path;
        self.input.status.status.remark(lacks.map(|lacks| format!("{place}.read: {file}: {lacks}")));
    }

    /// Begins to publish, or says what has changed.
    fn tell_tracks(&mut self) -> Result<(), Displaced> {
        let begins = self.publisher.is_none();
        let (publisher, _) = self.publisher.get_or_insert_with(|| {
            let (flow, file) = (&self.input.flow, &self.shown);
            tracing::info!(%flow, %file, "read: playing");
            let kick = Kick::default();
            (self.input.stream.publisher(kick.clone()), kick)
        });
        let now = Instant::now();
        if begins {
            let [video, audio] = self.tracks.each_ref().map(Option::is_some);
            publisher.item(Incoming::Expect { video, audio }, now)?;
        }
        for track in self.tracks.iter().flatten() {
            publisher.track(track.clone(), now)?;
        }
        // A publisher begins with nothing left out.
        for (kind, track) in [Kind::Video, Kind::Audio].into_iter().zip(self.left_out.clone()) {
            self.input.status.leave_out(kind, track);
        }
        Ok(())
    }

    /// Sends each frame when it is due.
    pub(crate) async fn send(
        &mut self,
        parts: Vec<Part>,
        watched: Option<&Watched>,
    ) -> Result<Sent, Displaced> {
        for (number, part) in parts.into_iter().enumerate() {
            if number % AT_A_TIME == AT_A_TIME - 1 {
                tokio::task::yield_now().await;
            }
            let frame = match part {
                Part::Frame(frame) => frame,
                Part::Track(track) => {
                    if let Some((publisher, _)) = &mut self.publisher {
                        publisher.track(track.clone(), Instant::now())?;
                    }
                    let kind = track.kind();
                    *of(&mut self.tracks, kind) = Some(track);
                    continue;
                }
            };
            let zero = *self.zero.get_or_insert_with(Instant::now);
            let due = after(zero, frame.dts);
            let now = Instant::now();
            if due > now + TOGETHER {
                if self.wait(due, watched).await? == Sent::Changed {
                    return Ok(Sent::Changed);
                }
            } else if let Some(late) = now.checked_duration_since(due)
                && late > MAX_LATE
            {
                tracing::warn!(
                    flow = %self.input.flow, seconds = late.as_secs(),
                    "read: playing had stopped and continues from here"
                );
                self.zero = zero.checked_add(late);
            }
            self.frame(frame)?;
        }
        Ok(Sent::All)
    }

    /// Waits for the end of the last frame.
    pub(crate) async fn wait_until(&mut self, at: Timestamp) -> Result<(), Displaced> {
        let Some(zero) = self.zero else { return Ok(()) };
        self.wait(after(zero, at), None).await.map(|_| ())
    }

    fn frame(&mut self, frame: Frame) -> Result<(), Displaced> {
        if self.publisher.is_none() {
            self.tell_tracks()?;
        }
        if frame.kind == Kind::Video {
            self.look_for_sync(frame.is_sync);
        }
        match &mut self.publisher {
            Some((publisher, _)) => publisher.frame(frame, Instant::now()),
            None => Ok(()),
        }
    }

    /// Pictures that nobody can decode are none. That is told within the idle time-out, until one comes; where nothing
    /// else comes, by the state as well.
    fn look_for_sync(&mut self, is_sync: bool) {
        const NO_START: &str = "no picture at which a decoder can start has arrived yet";
        match self.unsynced {
            Unsynced::Synced => {}
            _ if is_sync => self.unsynced = Unsynced::Synced,
            Unsynced::NoPicture => self.unsynced = Unsynced::Since(Instant::now()),
            Unsynced::Since(since) if since.elapsed() * 5 >= self.input.idle_timeout * 4 => {
                self.unsynced = Unsynced::Told;
                // What `content` leaves out is not missed.
                let is_wanted = self.input.stream.dropped().is_none_or(|track| track.kind() != Kind::Video);
                let [video, audio] = &self.tracks;
                if let (true, Some(video)) = (is_wanted, video) {
                    let (codec, dropped) = (video.codec_string.clone(), NO_START.to_owned());
                    self.input.status.leave_out(Kind::Video, Some(LeftOut { codec, dropped }));
                }
                if is_wanted && audio.is_none() {
                    let why = "no sync frame arrived, so nothing can be decoded";
                    let text = format!("{}.read: {}: {why}", self.input.path, self.shown);
                    tracing::warn!(flow = %self.input.flow, "{text}");
                    self.input.status.status.set(State::Failed, Some(Trouble::new(Reason::File, text)));
                }
            }
            Unsynced::Since(_) | Unsynced::Told => {}
        }
    }

    /// Waits until something is due. Where that takes longer than the idle time-out the publisher is lost meanwhile,
    /// and the state says what is waited for.
    async fn wait(&mut self, due: Instant, watched: Option<&Watched>) -> Result<Sent, Displaced> {
        loop {
            let wake = due.min(Instant::now() + LOOK);
            if !self
                .pass(async { sleep_until(wake).await }, |now| {
                    format!("nothing is due for another {} s", due.saturating_duration_since(now).as_secs())
                })
                .await?
            {
                continue;
            }
            if wake == due {
                return Ok(Sent::All);
            }
            if let Some(watched) = watched.cloned() {
                let is_another = tokio::task::spawn_blocking(move || watched.is_another());
                if is_another.await.unwrap_or(false) {
                    return Ok(Sent::Changed);
                }
            }
        }
    }

    /// Lets something happen. False: the publisher was found idle before it did; `why` says what for.
    async fn pass(
        &mut self,
        what: impl Future<Output = ()>,
        why: impl FnOnce(Instant) -> String,
    ) -> Result<bool, Displaced> {
        let kick = self.publisher.as_ref().map(|(_, kick)| kick.clone());
        let fired = async {
            match kick {
                Some(kick) => kick.fired().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = what => return Ok(true),
            reason = fired => match reason {
                KickReason::Idle => {}
                KickReason::TakenOver | KickReason::Reconfigured => return Err(Displaced),
            }
        }
        self.lost(&why(Instant::now()));
        Ok(false)
    }

    /// Awaits what may take long, as a disk that does not answer.
    pub(crate) async fn during<T>(
        &mut self,
        what: impl Future<Output = T>,
        why: &str,
    ) -> Result<T, Displaced> {
        let mut what = std::pin::pin!(what);
        let mut result = None;
        loop {
            let done = self.pass(async { result = Some(what.as_mut().await) }, |_| why.to_owned()).await?;
            if let (true, Some(result)) = (done, result.take()) {
                return Ok(result);
            }
        }
    }

    /// Silent for the idle time-out.
    fn lost(&mut self, why: &str) {
        let seconds = self.input.idle_timeout.as_secs();
        let text = format!("{}.read: {}: no frame for {seconds} s: {why}", self.input.path, self.shown);
        tracing::warn!(flow = %self.input.flow, "{text}");
        self.publisher = None;
        self.input.module.emit(
            EventKind::InputLost,
            &self.input.flow,
            None,
            format!("no frame for {seconds} s: {why}"),
        );
        self.input.status.status.set(State::Waiting, Some(Trouble::new(Reason::Silent, text)));
    }
}

fn of<T>(of: &mut [T; 2], kind: Kind) -> &mut T {
    let [video, audio] = of;
    if kind == Kind::Video { video } else { audio }
}

fn after(zero: Instant, time: Timestamp) -> Instant {
    zero + Duration::from_nanos(u64::try_from(time.nanos()).unwrap_or(0))
}
