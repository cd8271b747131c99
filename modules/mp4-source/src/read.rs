//! `read`: an MP4 file played as if it were live.

use std::path::PathBuf;
use std::time::Duration;

use crate::file::ReadConfig;
use av_flow::config::Retry;
use av_flow::net::Attempts;
use av_flow::stream::{Displaced, Kick, Publisher, State};
use av_flow::{InputContext, Reason, Trouble};
use av_media::{Frame, Kind, Track};
use tokio::time::{Instant, sleep_until};

use super::reading::{Piece, ReadError, Reading, Stamp, Then};

/// Frames due within that time leave together.
const TOGETHER: Duration = Duration::from_millis(1);
/// After a standstill of that length (a frozen disk, a frozen process) the past is not made up for.
const MAX_LATE: Duration = Duration::from_secs(5);
/// How often a file that can't be played is looked at.
const LOOK: Duration = Duration::from_secs(2);

/// Plays the file until cancelled.
///
/// The time of each frame is that of the first plus its dts: nothing adds up, so an hour of media takes an hour,
/// over any number of loops.
pub(crate) async fn read(input: InputContext, config: ReadConfig) {
    let cancel = input.cancel.clone();
    let path = input.module.net.paths().resolve(&config.path);
    let retry = Retry { initial: LOOK, max: LOOK };
    let attempts = Attempts::of_input(&input, "read", retry);
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

/// The stream's writer and its clock.
struct Playing {
    publisher: Publisher,
    kinds: Vec<Kind>,
    /// When millisecond 0 is due; set with the first frame.
    zero: Option<Instant>,
}

impl FileInput {
    async fn run(mut self) {
        loop {
            // Taken before the file is opened: what changes from then on is worth another try.
            let before = self.stamp().await;
            match self.play().await {
                Over::Played => {
                    let text = format!("{}.read: played to the end", self.input.path);
                    self.input.status.status.set(State::Waiting, Some(Trouble::new(Reason::Ended, text)));
                    return std::future::pending().await;
                }
                // Whoever took over has the stream now.
                Over::Displaced => return std::future::pending().await,
                Over::Failed(error) => {
                    let state = if error.may_pass() { State::Retrying } else { State::Failed };
                    let look = self.attempts.failed(state, Reason::File, &error, Duration::ZERO);
                    self.wait_for_another(before, look, error.may_pass()).await;
                }
            }
        }
    }

    /// Plays the file, loop for loop, until there is nothing to play.
    async fn play(&mut self) -> Over {
        let mut playing: Option<Playing> = None;
        let mut next = Some(self.first_piece());
        while let Some(piece) = next.take() {
            let Piece { tracks, frames, then } = match piece.await {
                Ok(piece) => piece,
                Err(_) => return Over::Failed(ReadError::Stopped),
            };
            // The next piece is read while this one is played.
            let end = match then {
                Then::More(reading) => {
                    next = Some(tokio::task::spawn_blocking(move || reading.piece()));
                    None
                }
                Then::End { at } => Some(Ok(at)),
                Then::Failed(error) => Some(Err(error)),
            };
            if let Some(tracks) = tracks
                && self.announce(&mut playing, tracks).is_err()
            {
                return Over::Displaced;
            }
            if let Some(playing) = &mut playing {
                if playing.send(frames).await.is_err() {
                    return Over::Displaced;
                }
                if let Some(Ok(at)) = end {
                    playing.wait_until(at).await;
                }
            }
            if let Some(Err(error)) = end {
                return Over::Failed(error);
            }
        }
        Over::Played
    }

    /// Opens the file and takes its first frames.
    fn first_piece(&self) -> tokio::task::JoinHandle<Piece> {
        let (shown, path) = (self.config.path.clone(), self.path.clone());
        let (repeat, start) = (self.config.repeat, self.config.start);
        tokio::task::spawn_blocking(move || match Reading::open(&shown, &path, repeat, start, 0) {
            Ok(reading) => Box::new(reading).piece(),
            Err(error) => Piece { tracks: None, frames: Vec::new(), then: Then::Failed(error) },
        })
    }

    /// Tells the stream what a file consists of. Where a kind went or came, another publisher begins.
    fn announce(&mut self, playing: &mut Option<Playing>, tracks: Vec<Track>) -> Result<(), Displaced> {
        let kinds: Vec<Kind> = tracks.iter().map(Track::kind).collect();
        let same = playing.as_ref().is_some_and(|playing| playing.kinds == kinds);
        if !same {
            let zero = playing.as_ref().and_then(|playing| playing.zero);
            // The one before is lost first: readers are told in that order.
            *playing = None;
            let file = self.config.path.display();
            tracing::info!(flow = %self.input.flow, %file, "read: playing");
            self.attempts.connected(format!("playing {file}"));
            let publisher = self.input.stream.publisher(Kick::default());
            *playing = Some(Playing { publisher, kinds, zero });
        }
        if let Some(playing) = playing {
            for track in tracks {
                playing.publisher.track(track, Instant::now().into_std())?;
            }
        }
        Ok(())
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

impl Playing {
    /// Sends each frame when it is due.
    async fn send(&mut self, frames: Vec<Frame>) -> Result<(), Displaced> {
        for frame in frames {
            let zero = *self.zero.get_or_insert_with(Instant::now);
            let due = after(zero, frame.dts.millis());
            let now = Instant::now();
            if due > now + TOGETHER {
                sleep_until(due).await;
            } else if let Some(late) = now.checked_duration_since(due)
                && late > MAX_LATE
            {
                tracing::warn!(seconds = late.as_secs(), "read: playing stood still and goes on from here");
                self.zero = zero.checked_add(late);
            }
            self.publisher.frame(frame, Instant::now().into_std())?;
        }
        Ok(())
    }

    /// Waits for the end of the last frame.
    async fn wait_until(&self, millis: i64) {
        if let Some(zero) = self.zero {
            sleep_until(after(zero, millis)).await;
        }
    }
}

fn after(zero: Instant, millis: i64) -> Instant {
    zero + Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

#[cfg(test)]
mod tests;
