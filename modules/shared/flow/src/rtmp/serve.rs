//! `serve`: players come to us.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use av_media::Kind;
use av_rtmp::Egress;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::coop::unconstrained;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::ServeConfig;
use super::fanout::{Arrival, Fanout, Farewell, Player, Slow};
use super::packer::{Flush, Packer};
use super::port::{PlayRoute, Rtmp, listener};
use crate::config::Content;
use crate::endpoint::OutputContext;
use crate::net::Place;
use crate::stream::{Entry, Item, Reader, State};
use crate::trouble::{Reason, Trouble};

/// Players that the output's own task walks before it shares them with others.
const LOCAL_PLAYERS: usize = 256;
/// Joins and answers of sessions on their way to the output's task.
const COMMANDS: usize = 256;
/// Flushes on their way to another task's players. A task that is that far behind loses them.
const FLUSHES: usize = 256;

/// From connections to the task that owns their players.
pub(super) enum Command {
    /// A player whose `play` was accepted.
    Join(Arrival),
    /// Bytes that a player's session wants sent.
    Control(u64, Bytes),
    /// A player wants nothing for a while, or (`false`) wants the stream to go on.
    Pause(u64, bool),
    /// A player has stopped: its connection wants the way to it back.
    Return(u64),
    /// The connection ended.
    Leave(u64),
}

/// Serves until cancelled.
pub async fn serve(output: OutputContext, config: ServeConfig) {
    let (commands, arrivals) = mpsc::channel(COMMANDS);
    let (path, listeners) = (format!("{}.serve", output.path), &output.module.listeners);
    let address = listener(&config.url, &config.tls);
    let opening = listeners.open_at_last::<Rtmp>(&output.module, address, &path, &output.status.status);
    let lease = tokio::select! {
        () = output.cancel.cancelled() => return,
        lease = opening => lease,
    };
    let route = PlayRoute::new(&output, &config, commands);
    let _route = lease.port().play.add(Place::of(&config.url.path), route);
    output.status.status.set(State::Waiting, None);
    Serving::new(&output, &config).run(&output, arrivals).await;
}

struct Serving {
    packer: Packer,
    reader: Reader,
    join_instant: bool,
    protocol: &'static str,
    shards: Shards,
}

impl Serving {
    fn new(output: &OutputContext, config: &ServeConfig) -> Self {
        let protocol = config.url.scheme.name;
        Self {
            packer: Packer::new(Egress::players(), config.batch),
            reader: output.stream.reader(output.content).as_stamped(),
            join_instant: config.join_instant,
            protocol,
            shards: Shards::new(output, protocol),
        }
    }

    async fn run(mut self, output: &OutputContext, mut arrivals: mpsc::Receiver<Command>) {
        let mut entries: Vec<Entry> = Vec::new();
        let mut sweep = tokio::time::interval(Duration::from_secs(1));
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // Players' sockets are written to in walks of bounded length, so the walk counts its own turns.
        unconstrained(async {
            loop {
                let due = self.packer.due();
                tokio::select! {
                    () = output.cancel.cancelled() => break,
                    () = self.reader.recv(&mut entries) => self.entries(&mut entries, output).await,
                    Some(command) = arrivals.recv() => self.command(command, output),
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
        while let Some(command) = arrivals.recv().await {
            if let Command::Join(Arrival { sink, farewell, .. }) = command {
                let _ = farewell.send(Farewell { sink, unsent: Vec::new() });
            }
        }
    }

    async fn entries(&mut self, entries: &mut Vec<Entry>, output: &OutputContext) {
        let now = Instant::now();
        for entry in entries.drain(..) {
            if self.packer.must_flush_before(&entry) {
                self.flush().await;
            }
            match &entry.item {
                Item::Tracks(tracks) if tracks.is_empty() => {
                    let missing = match output.content {
                        Content::AudioOnly => "the stream has no audio",
                        Content::VideoOnly => "the stream has no video",
                        Content::AudioVideo => "the stream has no tracks",
                    };
                    let text = format!("{}: {missing}", output.path);
                    output.status.status.set(State::Waiting, Some(Trouble::new(Reason::Content, text)));
                }
                Item::Tracks(_) => {
                    output.status.status.set(State::Running, None);
                }
                Item::Lost(lost) => {
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
                Item::Ended => {
                    self.shards.end().await;
                    output.status.status.set(State::Waiting, None);
                }
                Item::Frame(_) | Item::Aside(_) | Item::Anchor(_) | Item::Gap(_) | Item::Away => {}
            }
            self.packer.take(entry, now);
        }
        if self.packer.is_due(now) {
            self.flush().await;
        }
        report_slow(output, self.shards.local.take_slow());
    }

    async fn flush(&mut self) {
        if let Some(flush) = self.packer.flush() {
            self.shards.flush(flush).await;
        }
    }

    fn command(&mut self, command: Command, output: &OutputContext) {
        match command {
            Command::Join(arrival) => {
                let joining = self.packer.join(self.join_instant);
                let player = Player::new(arrival, joining.seat, joining.burst, Instant::now());
                self.shards.join(player, output, self.protocol);
            }
            Command::Control(id, bytes) => self.shards.control(id, bytes),
            Command::Pause(id, paused) => self.shards.pause(id, paused),
            Command::Return(id) => self.shards.give_back(id),
            Command::Leave(id) => self.shards.leave(id),
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// At most one line a second for the whole module.
fn report_slow(output: &OutputContext, slow: Vec<Slow>) {
    for player in slow {
        let Some(suppressed) = output.module.player_log.admit() else { continue };
        let Slow { peer, skipped, gone } = player;
        let path = &output.path;
        if gone {
            tracing::warn!(%path, %peer, skipped, suppressed, "player takes nothing any more: disconnected");
        } else {
            tracing::warn!(
                %path, %peer, skipped, suppressed,
                "player is too slow: frames skipped up to the next sync frame"
            );
        }
    }
}

/// The output's players, over one task or several.
struct Shards {
    local: Fanout,
    remote: Vec<Remote>,
    most: usize,
}

/// Players that another task owns.
struct Remote {
    messages: mpsc::Sender<Message>,
    players: Arc<AtomicUsize>,
    /// The task did not take the last flush.
    missed: bool,
    _end: DropGuard,
}

enum Message {
    Flush {
        flush: Arc<Flush>,
        /// Flushes before this one were lost.
        after_gap: bool,
    },
    Join(Box<Player>),
    Control(u64, Bytes),
    Pause(u64, bool),
    Return(u64),
    Leave(u64),
    End,
}

impl Shards {
    fn new(output: &OutputContext, protocol: &'static str) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            local: Fanout::new(output.status.clone(), output.module.latency(protocol)),
            remote: Vec::new(),
            most: cores.saturating_sub(1),
        }
    }

    fn len(&self) -> usize {
        let remote = |remote: &Remote| remote.players.load(Ordering::Relaxed);
        self.local.len() + self.remote.iter().map(remote).sum::<usize>()
    }

    fn join(&mut self, player: Player, output: &OutputContext, protocol: &'static str) {
        let count = |remote: &Remote| remote.players.load(Ordering::Relaxed);
        if self.local.len() < LOCAL_PLAYERS {
            return self.local.join(player);
        }
        if self.remote.len() < self.most && self.remote.iter().all(|remote| count(remote) >= LOCAL_PLAYERS) {
            self.remote.push(Remote::spawn(output.clone(), protocol));
        }
        match self.remote.iter().min_by_key(|remote| count(remote)) {
            Some(least) if count(least) < self.local.len() => {
                least.players.fetch_add(1, Ordering::Relaxed);
                // A task that does not even take a join has enough to do.
                if let Err(TrySendError::Full(back) | TrySendError::Closed(back)) =
                    least.messages.try_send(Message::Join(Box::new(player)))
                    && let Message::Join(player) = back
                {
                    least.players.fetch_sub(1, Ordering::Relaxed);
                    self.local.join(*player);
                }
            }
            _ => self.local.join(player),
        }
    }

    async fn flush(&mut self, flush: Flush) {
        if self.remote.is_empty() {
            return self.local.flush(&flush).await;
        }
        let flush = Arc::new(flush);
        for remote in &mut self.remote {
            // Lost for these players when there is no room: they go on at the next sync frame.
            let message = Message::Flush { flush: flush.clone(), after_gap: remote.missed };
            remote.missed = remote.messages.try_send(message).is_err();
        }
        self.local.flush(&flush).await;
    }

    fn control(&mut self, id: u64, bytes: Bytes) {
        self.local.control(id, bytes.clone(), Instant::now());
        for remote in &self.remote {
            let _ = remote.messages.try_send(Message::Control(id, bytes.clone()));
        }
    }

    fn pause(&mut self, id: u64, paused: bool) {
        self.local.pause(id, paused);
        for remote in &self.remote {
            let _ = remote.messages.try_send(Message::Pause(id, paused));
        }
    }

    fn give_back(&mut self, id: u64) {
        self.local.give_back(id);
        for remote in &self.remote {
            let _ = remote.messages.try_send(Message::Return(id));
        }
    }

    fn leave(&mut self, id: u64) {
        self.local.leave(id);
        for remote in &self.remote {
            let _ = remote.messages.try_send(Message::Leave(id));
        }
    }

    async fn end(&mut self) {
        self.local.end();
        for remote in &self.remote {
            let _ = remote.messages.send(Message::End).await;
        }
    }
}

impl Remote {
    fn spawn(output: OutputContext, protocol: &'static str) -> Self {
        let (messages, mut inbox) = mpsc::channel(FLUSHES);
        let players = Arc::<AtomicUsize>::default();
        let count = players.clone();
        let end = CancellationToken::new();
        let ended = end.clone();
        tokio::spawn(unconstrained(async move {
            let mut fanout = Fanout::new(output.status.clone(), output.module.latency(protocol));
            let mut sweep = tokio::time::interval(Duration::from_secs(1));
            sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    biased;
                    message = inbox.recv() => match message {
                        Some(Message::Flush { flush, after_gap }) => {
                            if after_gap {
                                fanout.resync();
                            }
                            fanout.flush(&flush).await;
                        }
                        Some(Message::Join(player)) => fanout.join(*player),
                        Some(Message::Control(id, bytes)) => fanout.control(id, bytes, Instant::now()),
                        Some(Message::Pause(id, paused)) => fanout.pause(id, paused),
                        Some(Message::Return(id)) => fanout.give_back(id),
                        Some(Message::Leave(id)) => fanout.leave(id),
                        Some(Message::End) => fanout.end(),
                        None => break,
                    },
                    () = ended.cancelled() => break,
                    () = std::future::poll_fn(|cx| fanout.poll_stuck(cx)) => {}
                    _ = sweep.tick() => fanout.sweep(Instant::now()),
                }
                count.store(fanout.len(), Ordering::Relaxed);
                report_slow(&output, fanout.take_slow());
            }
            fanout.end();
        }));
        Self { messages, players, missed: false, _end: end.drop_guard() }
    }
}

#[cfg(test)]
mod tests;
