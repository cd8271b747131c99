//! Many RTMP players, and publishers if wanted, in one process.
//!
//! `rtmp-load URL PLAYERS SECONDS [--clip FILE.flv [--streams N | --epochs N] [--one-key-frame MEGABYTES]
//! [--stamps yes]]`
//!
//! With `--clip` it publishes that file, over and over. `--streams N` makes N of each, at URL-0 and so on, players shared
//! out among them. `--epochs N` lets ten minutes of stream time pass at once between one Nth of the players and the
//! next. With `--one-key-frame` each publisher, once all players have its key frame, sends that much as fast as it is taken,
//! and never a second key frame. With `--stamps yes` each picture says when it was sent. Prints one JSON line when all
//! players have media and that much is sent, and another at the end; `ages` is how old pictures with a stamp were when
//! their first bytes were with a player, in milliseconds: median, p99 and most.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod players;
mod publishers;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use av_tests::recording::Kind;
use av_tests::rtmp::Player;
use players::Seen;
use publishers::{Clip, Source};

const EPOCH: Duration = Duration::from_secs(600);

struct Options {
    url: String,
    players: usize,
    seconds: u64,
    clip: Option<Arc<Clip>>,
    streams: usize,
    epochs: usize,
    flood: Option<usize>,
}

impl Options {
    fn parse(arguments: &[String]) -> Option<Self> {
        let [url, players, seconds, rest @ ..] = arguments else { return None };
        let (players, seconds) = (players.parse().ok()?, seconds.parse().ok()?);
        let url = url.clone();
        let mut options = Self { url, players, seconds, clip: None, streams: 1, epochs: 1, flood: None };
        let (mut clip, mut stamped) = (None, false);
        for pair in rest.chunks(2) {
            let [name, value] = pair else { return None };
            match name.as_str() {
                "--clip" => clip = Some(value),
                "--stamps" => stamped = value == "yes",
                "--streams" => options.streams = value.parse().ok()?,
                "--epochs" => options.epochs = value.parse().ok()?,
                "--one-key-frame" => options.flood = Some(value.parse::<usize>().ok()? * 1_000_000),
                _ => return None,
            }
        }
        options.clip = clip.map(|clip| Arc::new(Clip::read(Path::new(clip), stamped)));
        Some(options)
    }

    fn urls(&self) -> Vec<String> {
        if self.streams == 1 {
            return vec![self.url.clone()];
        }
        (0..self.streams).map(|number| format!("{}-{number}", self.url)).collect()
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(options) = Options::parse(&arguments) else {
        eprintln!("usage: see the head of tests/bench/src/rtmp_load.rs");
        return ExitCode::from(64);
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(load(&options))
}

async fn load(options: &Options) -> ExitCode {
    let seen = Arc::new(Seen::default());
    let stop = Arc::new(AtomicBool::new(false));
    let mut publishing = Vec::new();
    let mut witness = None;
    match &options.clip {
        Some(clip) if options.epochs > 1 => {
            let source = Source::start(&options.url, clip).expect("published");
            let (source, first) = through_epochs(source, options, &seen).await;
            witness = Some(first);
            publishing.push(source.live(true, &stop));
        }
        clip => {
            let mut waiting: Vec<_> = clip.iter().flat_map(|clip| start(options, clip)).collect();
            let live = |source: Source| source.live(options.flood.is_none(), &stop);
            if options.flood.is_none() {
                publishing.extend(std::mem::take(&mut waiting).into_iter().map(live));
            }
            for (_, url) in (0..options.players).zip(options.urls().iter().cycle()) {
                seen.play(url);
                // A crowd, but no stampede.
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            if let Some(bytes) = options.flood {
                // Who comes later has no place to start once that much was sent.
                if !seen.wait_playing(options.players).await {
                    return ExitCode::FAILURE;
                }
                let flooded = flood(waiting, bytes).await;
                publishing.extend(flooded.into_iter().map(|flooded| flooded.map_or_else(ended, live)));
            }
        }
    }
    if !seen.wait_playing(options.players).await {
        return ExitCode::FAILURE;
    }
    println!("{{\"playing\":{},\"meanFirstMilliseconds\":{:.1}}}", options.players, seen.mean_first());
    seen.ages.forget();
    let (before, start) = (seen.bytes(), Instant::now());
    tokio::time::sleep(Duration::from_secs(options.seconds)).await;
    let (bytes, lost) = (seen.bytes() - before, seen.lost());
    let cut = publishing.iter().filter(|publisher| publisher.is_finished()).count();
    let clock = witness.and_then(|player: Player| Some(player.recording().of(Kind::Video).last()?.dts));
    println!(
        "{{\"seconds\":{:.3},\"bytes\":{bytes},\"lost\":{lost},\"cut\":{cut},\"clock\":{},\"ages\":{}}}",
        start.elapsed().as_secs_f64(),
        clock.unwrap_or(0),
        seen.ages.quantiles()
    );
    if lost == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A publisher of each stream, their key frames apart in time.
fn start(options: &Options, clip: &Arc<Clip>) -> Vec<Source> {
    let gap = Duration::from_secs(2) / u32::try_from(options.streams).unwrap();
    let start = |url: &String| {
        let source = Source::start(url, clip).expect("published");
        std::thread::sleep(gap);
        source
    };
    options.urls().iter().map(start).collect()
}

/// Each sends that many bytes, all at once, as they would. A server may cut them.
async fn flood(sources: Vec<Source>, bytes: usize) -> Vec<std::io::Result<Source>> {
    let send = |mut source: Source| tokio::task::spawn_blocking(move || source.flood(bytes).map(|()| source));
    let mut flooded = Vec::new();
    for sending in sources.into_iter().map(send).collect::<Vec<_>>() {
        flooded.push(sending.await.unwrap());
    }
    flooded
}

/// A publisher that came to its end.
fn ended(error: std::io::Error) -> JoinHandle<std::io::Result<()>> {
    std::thread::spawn(move || Err(error))
}

/// Lets the players come in as many groups as there are epochs. The witness came with the first: it has seen all the
/// time that passed.
async fn through_epochs(mut source: Source, options: &Options, seen: &Arc<Seen>) -> (Source, Player) {
    let url = options.url.clone();
    let witness = Player::start(&url);
    witness.wait_frames(Kind::Video, 1);
    for epoch in 0..options.epochs {
        let (since, until) =
            (options.players * epoch / options.epochs, options.players * (epoch + 1) / options.epochs);
        (since..until).for_each(|_| seen.play(&url));
        assert!(seen.wait_playing(until).await, "the players of epoch {epoch} have no media");
        if epoch + 1 < options.epochs {
            let passing = tokio::task::spawn_blocking(move || source.forward(EPOCH).map(|()| source));
            source = passing.await.unwrap().expect("published on");
        }
    }
    (source, witness)
}
