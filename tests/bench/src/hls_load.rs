//! Clients of HLS in one process.
//!
//! `hls-load requests URL CONNECTIONS SECONDS`: asks for the same thing as fast as it comes, on connections that are kept.
//!
//! `hls-load follow URL VIEWERS SECONDS`: viewers that follow the live edge of a multivariant or media playlist: where it
//! lists parts, by blocking requests, one viewer after the other over the first seconds; otherwise they look ten times a
//! second. Pictures carry the time at which they were sent (`rtmp-load --stamps yes`), and what counts is how old the
//! pictures are when the part or segment that brings them has come.
//!
//! Both print one JSON line when all have begun, and another at the end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod followers;
mod http;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use followers::Followers;
use http::{Connection, Failure, Url};

/// Viewers come over this time.
const COMING: Duration = Duration::from_secs(4);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [what, url, count, seconds] = &arguments[..] else {
        eprintln!("usage: see the head of tests/bench/src/hls_load.rs");
        return ExitCode::from(64);
    };
    let [count, seconds] = [count, seconds].map(|word| word.parse::<u32>().expect("a number"));
    let (url, seconds) = (Url::parse(url), Duration::from_secs(seconds.into()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ended = match what.as_str() {
        "requests" => runtime.block_on(requests(&url, count, seconds)),
        "follow" => runtime.block_on(follow(&url, count, seconds)),
        other => panic!("{other}: not requests or follow"),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hls-load: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn requests(url: &Url, connections: u32, time: Duration) -> Result<(), Failure> {
    let (answers, bytes) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    for _ in 0..connections {
        let (url, answers, bytes) = (url.clone(), answers.clone(), bytes.clone());
        let mut connection = Connection::open(&url).await?;
        tokio::spawn(async move {
            loop {
                match connection.fetch(&url.path).await {
                    Ok(body) => bytes.fetch_add(body.len() as u64, Ordering::Relaxed),
                    Err(error) => panic!("{error}"),
                };
                answers.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    while answers.load(Ordering::Relaxed) < u64::from(connections) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("{{\"connections\":{connections}}}");
    let (start, before) = (Instant::now(), [&answers, &bytes].map(|one| one.load(Ordering::Relaxed)));
    tokio::time::sleep(time).await;
    let [answers, bytes] =
        [answers.load(Ordering::Relaxed) - before[0], bytes.load(Ordering::Relaxed) - before[1]];
    let seconds = start.elapsed().as_secs_f64();
    println!("{{\"seconds\":{seconds:.3},\"answers\":{answers},\"bytes\":{bytes}}}");
    Ok(())
}

async fn follow(url: &Url, viewers: u32, time: Duration) -> Result<(), Failure> {
    let followers = Arc::new(Followers::default());
    for _ in 0..viewers {
        followers.start(url.clone());
        tokio::time::sleep(COMING / viewers).await;
    }
    followers.all_follow(viewers as usize).await?;
    println!("{{\"viewers\":{viewers}}}");
    followers.forget();
    let start = Instant::now();
    tokio::time::sleep(time).await;
    let seconds = start.elapsed().as_secs_f64();
    let report = followers.report();
    println!("{{\"seconds\":{seconds:.3},{report}}}");
    Ok(())
}
