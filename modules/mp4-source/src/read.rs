//! `read`: an MP4 file played as if it were live.

use std::path::PathBuf;
use std::time::Duration;

use av_flow::config::Retry;
use av_flow::net::Attempts;
use av_flow::stream::{Displaced, Skip, State};
use av_flow::{InputContext, Reason, Trouble};
use av_media::{Kind, Timestamp};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::file::ReadConfig;
use crate::playing::{Playing, Sent};
use crate::reading::{Piece, ReadError, Reading, Then};
use crate::watch::{STILL, Stamp};

/// How often a file that can't be played is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// The same for one that is being written.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Plays the file until cancelled.
///
/// The time of each frame is that of the first plus its dts: nothing adds up, so an hour of media takes an hour,
/// over any number of loops.
pub(crate) async fn read(input: InputContext, config: ReadConfig) {
    let cancel = input.cancel.clone();
    let path = input.module.net.paths().resolve(&config.path);
    let attempts = Attempts::of_input(&input, "read", Retry { initial: LOOK, max: LOOK });
    let file = FileInput { input, config, path, attempts };
    tokio::select! {
        () = cancel.cancelled() => {}
        () = file.run() => {}
    }
}

struct FileInput {
    input: InputContext,
    config: ReadConfig,
    /// On this machine.
    path: PathBuf,
    attempts: Attempts,
}

/// How playing came to its end.
enum Over {
    Played,
    Displaced,
    Failed(ReadError),
}

impl From<Displaced> for Over {
    fn from(_: Displaced) -> Self {
        Self::Displaced
    }
}

impl FileInput {
    async fn run(mut self) {
        // Of the file before.
        self.input.status.status.remark(None);
        loop {
            // Taken before the file is opened: what changes from then on is worth another try.
            let before = self.stamp().await;
            let over = self.play().await.unwrap_or_else(|over| over);
            match over {
                Over::Played => {
                    let text = format!("{}.read: played to the end", self.input.path);
                    self.input.status.status.set(State::Waiting, Some(Trouble::new(Reason::Ended, text)));
                    return std::future::pending().await;
                }
                // Whoever took over has the stream now.
                Over::Displaced => return std::future::pending().await,
                Over::Failed(error) => {
                    let look = self.failed(&error);
                    self.wait_for_another(before, look, error.may_pass()).await;
                }
            }
        }
    }

    /// Plays the file, loop for loop, until there is nothing to play.
    async fn play(&mut self) -> Result<Over, Over> {
        let mut playing = Playing::new(self.input.clone(), &self.config.path);
        let reading = self.open(self.config.start, Timestamp::ZERO).await.map_err(Over::Failed)?;
        self.attempts.connected(format!("playing {}", self.config.path.display()));
        let mut next = take(reading);
        loop {
            let piece = playing.during(&mut next, "the file is not read").await?;
            let Ok(Piece { announcement, parts, too_large, watched, then }) = piece else {
                return Err(Over::Failed(ReadError::Stopped));
            };
            self.input.status.skipped.add(Skip::TooLarge, too_large);
            if let Some(announcement) = announcement {
                playing.announce(announcement)?;
            }
            // The next piece is read while this one is played.
            let (reading, end) = match then {
                Then::More(reading) => (Some(take(reading)), None),
                Then::End { at } => (None, Some(at)),
                Then::Changed => (None, None),
                Then::Failed(error) => {
                    playing.send(parts, None).await?;
                    return Err(Over::Failed(error));
                }
            };
            let sent = playing.send(parts, watched.as_ref()).await?;
            if let (Sent::All, Some(at)) = (&sent, end) {
                playing.wait_until(at).await?;
                return Ok(Over::Played);
            }
            next = match reading {
                Some(reading) if sent == Sent::All => reading,
                unplayed => {
                    // With the index that it was read by.
                    drop(unplayed);
                    let flow = &self.input.flow;
                    tracing::info!(%flow, file = %self.config.path.display(), "read: the file is being \
                         overwritten");
                    let base = playing.now();
                    let opened =
                        playing.during(self.open(Duration::ZERO, base), "the file is being written").await?;
                    // It took a while: time went on.
                    let mut reading = opened.map_err(Over::Failed)?;
                    reading.begin_at(playing.now().max(base));
                    take(reading)
                }
            };
        }
    }

    /// Opens the file, once it is whole or nobody has written to it for a second.
    async fn open(&self, start: Duration, base: Timestamp) -> Result<Box<Reading>, ReadError> {
        let mut seen: Option<(Option<Stamp>, Instant)> = None;
        loop {
            let (shown, path, repeat) = (self.config.path.clone(), self.path.clone(), self.config.repeat);
            let open = move || {
                let before = Stamp::of(&path);
                (before, Reading::open(&shown, &path, repeat, start, base))
            };
            let (stamp, opened) = tokio::task::spawn_blocking(open).await.map_err(|_| ReadError::Stopped)?;
            let since = match seen {
                Some((known, since)) if known == stamp => since,
                _ => Instant::now(),
            };
            seen = Some((stamp, since));
            let is_still = stamp.is_none_or(|stamp| stamp.is_still()) || since.elapsed() >= STILL;
            match opened {
                Ok(reading) if is_still || reading.is_whole() => return Ok(Box::new(reading)),
                Err(error) if is_still => return Err(error),
                _ => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    }

    /// How long to wait before it is looked at again.
    fn failed(&mut self, error: &ReadError) -> Duration {
        for (kind, track) in [Kind::Video, Kind::Audio].into_iter().zip(error.left_out()) {
            self.input.status.leave_out(kind, track);
        }
        let state = if error.may_pass() { State::Retrying } else { State::Failed };
        self.attempts.failed(state, Reason::File, error, Duration::ZERO)
    }

    /// Waits until it is worth trying again: for a while, or for the file to be another one.
    async fn wait_for_another(&self, before: Option<Stamp>, look: Duration, may_pass: bool) {
        loop {
            tokio::time::sleep(look).await;
            if may_pass || self.stamp().await != before {
                return;
            }
        }
    }

    async fn stamp(&self) -> Option<Stamp> {
        let path = self.path.clone();
        tokio::task::spawn_blocking(move || Stamp::of(&path)).await.ok().flatten()
    }
}

/// Takes the next piece while something else goes on.
fn take(reading: Box<Reading>) -> JoinHandle<Piece> {
    tokio::task::spawn_blocking(move || reading.piece())
}

#[cfg(test)]
mod tests;
