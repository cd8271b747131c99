//! Many RTSP players in one process.
//!
//! `rtsp-load URL PLAYERS SECONDS tcp|udp SPREAD`
//!
//! Players come one after the other over SPREAD milliseconds, so that they meet all phases of a GOP. Prints one JSON line
//! when all have a picture, and another at the end; `ages` is how old pictures with a stamp were when their last packet was
//! with a player, in milliseconds: median, p99 and most.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod viewers;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use viewers::{Crowd, Target};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, players, seconds, transport, spread] = &arguments[..] else {
        eprintln!("usage: see the head of tests/bench/src/rtsp_load.rs");
        return ExitCode::from(64);
    };
    let [players, seconds, spread] =
        [players, seconds, spread].map(|word| word.parse::<u32>().expect("a number"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(load(Target::parse(url, transport == "udp"), players, seconds, spread))
}

async fn load(target: Target, players: u32, seconds: u32, spread: u32) -> ExitCode {
    let crowd = Arc::new(Crowd::default());
    // The first one makes a server begin, where it begins with a player.
    crowd.play(&target);
    if !crowd.wait_pictures(1).await {
        return ExitCode::FAILURE;
    }
    crowd.forget();
    for _ in 1..players {
        crowd.play(&target);
        tokio::time::sleep(Duration::from_millis(spread.into()) / players).await;
    }
    if !crowd.wait_pictures(players as usize).await {
        return ExitCode::FAILURE;
    }
    let first = crowd.first_pictures();
    let mean = first.iter().sum::<f64>() / first.len().max(1) as f64;
    let most = first.iter().copied().fold(0.0, f64::max);
    println!(
        "{{\"playing\":{players},\"meanFirstMilliseconds\":{mean:.1},\"mostFirstMilliseconds\":{most:.1}}}"
    );
    crowd.ages.forget();
    let (before, start) = (crowd.bytes(), Instant::now());
    tokio::time::sleep(Duration::from_secs(seconds.into())).await;
    let (bytes, lost) = (crowd.bytes() - before, crowd.lost());
    println!(
        "{{\"seconds\":{:.3},\"bytes\":{bytes},\"lost\":{lost},\"cut\":0,\"clock\":0,\"ages\":{}}}",
        start.elapsed().as_secs_f64(),
        crowd.ages.quantiles()
    );
    if lost == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
