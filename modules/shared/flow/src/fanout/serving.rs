//! The task of one output that has players.

use std::time::{Duration, Instant};

use av_media::Kind;
use tokio::sync::mpsc;
use tokio::task::coop::unconstrained;

use super::packer::{Join, Packer, Wire};
use super::player::Player;
use super::shards::{Shards, report_slow};
use super::{Arrival, Farewell};
use crate::endpoint::OutputContext;
use crate::fitting::{Fitting, tell_tracks};
use crate::stream::{Entry, Item, Lost, Reader, State};
use crate::trouble::{Reason, Trouble};

/// Players on their way to the output's task.
const ARRIVALS: usize = 256;

/// Where connections send players whose `play` was accepted.
pub type Arrivals = mpsc::Sender<Arrival>;

/// For players on their way to an output's task.
pub fn arrivals() -> (Arrivals, mpsc::Receiver<Arrival>) {
    mpsc::channel(ARRIVALS)
}

/// How players are served.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Where the stream of a player begins.
    pub join: Join,
    /// How long pictures are held back so that more of them leave together.
    pub batch: Duration,
    /// For the metrics.
    pub protocol: &'static str,
}

/// See the module's text.
pub struct Serving<W: Wire> {
    packer: Packer<W>,
    reader: Reader,
    join: Join,
    shards: Shards,
    fitting: Fitting,
}

impl<W: Wire> Serving<W> {
    /// For the players of an output, whose stream is read by `reader`.
    pub fn new(output: &OutputContext, reader: Reader, wire: W, options: Options) -> Self {
        Self {
            packer: Packer::new(wire, options.batch),
            reader,
            join: options.join,
            shards: Shards::new(output, options.protocol),
            fitting: Fitting::new(W::MOST),
        }
    }

    /// Serves until the output is cancelled; players are given their sinks back then.
    pub async fn run(mut self, output: &OutputContext, mut arrivals: mpsc::Receiver<Arrival>) {
        let mut entries: Vec<Entry> = Vec::new();
        let mut sweep = tokio::time::interval(Duration::from_secs(1));
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let news = self.shards.local.news();
        // Players' sockets are written to in walks of bounded length, so the walk counts its own turns.
        unconstrained(async {
            loop {
                let due = self.packer.due();
                tokio::select! {
                    () = output.cancel.cancelled() => break,
                    () = self.reader.recv(&mut entries) => self.entries(&mut entries, output).await,
                    Some(arrival) = arrivals.recv() => self.join(arrival),
                    () = news.notified() => self.shards.local.hear(Instant::now()),
                    () = sleep_until(due) => self.flush().await,
                    () = std::future::poll_fn(|cx| self.shards.local.poll_stuck(cx)) => {}
                    _ = sweep.tick(), if self.shards.local.len() > 0 => {
                        self.shards.local.sweep(Instant::now());
                        report_slow(output, self.shards.local.take_slow());
                    }
                }
            }
        })
        .await;
        self.shards.end().await;
        // Who is on the way in is told the same.
        arrivals.close();
        while let Some(Arrival { sink, farewell, .. }) = arrivals.recv().await {
            let _ = farewell.send(Farewell { sink, unsent: Vec::new() });
        }
    }

    async fn entries(&mut self, entries: &mut Vec<Entry>, output: &OutputContext) {
        let now = Instant::now();
        for entry in entries.drain(..) {
            if let Item::Frame(frame) = &entry.item
                && !self.fitting.admits(frame, entry.starts, output, now)
            {
                continue;
            }
            if self.packer.must_flush_before(&entry) {
                self.flush().await;
            }
            if let Item::Tracks(tracks) = &entry.item
                && !self.packer.goes_on(tracks)
            {
                self.shards.end().await;
            }
            match &entry.item {
                Item::Tracks(tracks) if tracks.is_empty() => nothing_to_serve(output),
                Item::Tracks(tracks) => tell_tracks(tracks, output, W::carries),
                Item::Lost(lost) => self.lost(*lost, output),
                Item::Ended => {
                    self.shards.end().await;
                    output.status.status.set(State::Waiting, None);
                }
                Item::Frame(frame) if self.packer.leaves_out(frame.kind) => {
                    output.status.dropped.add(frame.kind, 1);
                }
                Item::Frame(_)
                | Item::Aside(_)
                | Item::Anchor(_)
                | Item::Gap(_)
                | Item::GivenUp
                | Item::Away => {}
            }
            self.packer.take(entry, now);
        }
        if self.packer.is_due(now) {
            self.flush().await;
        }
        report_slow(output, self.shards.local.take_slow());
    }

    async fn flush(&mut self) {
        if let Some(flush) = self.packer.flush(Instant::now()) {
            self.shards.flush(flush).await;
        }
    }

    fn join(&mut self, mut arrival: Arrival) {
        let joining = self.packer.join(self.join, arrival.variant);
        let greeting = match arrival.greeting.take().map(|greeting| greeting(&joining.openings)) {
            Some(None) => {
                let Arrival { sink, farewell, .. } = arrival;
                let _ = farewell.send(Farewell { sink, unsent: Vec::new() });
                return;
            }
            greeting => greeting.flatten(),
        };
        self.shards.join(Player::new(arrival, joining, greeting, Instant::now()));
    }

    fn lost(&self, lost: Lost, output: &OutputContext) {
        let players = self.shards.len() as u64;
        for kind in [Kind::Video, Kind::Audio] {
            output.status.dropped.add(kind, lost.get(kind).saturating_mul(players));
        }
        if let Some(before) = output.module.player_log.admit() {
            tracing::warn!(
                path = %output.path, frames = lost.total(), suppressed = before,
                "this machine is too slow for the stream: frames skipped"
            );
        }
    }
}

/// The stream has only what `content` filters out.
fn nothing_to_serve(output: &OutputContext) {
    let text = format!("{}: {}", output.path, output.content.missing());
    output.status.status.set(State::Waiting, Some(Trouble::new(Reason::Content, text)));
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
