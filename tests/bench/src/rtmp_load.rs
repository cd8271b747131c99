//! Many RTMP players in one process, as cheap as can be: after the handshake they read and discard.
//!
//! `rtmp-load URL PLAYERS SECONDS`. Prints one JSON line when all players have media, and another at the end.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use av_rtmp::{ClientConfig, ClientEvent, ClientOutput, ClientSession, Limits, Mode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What all players together have seen.
#[derive(Default)]
struct Seen {
    playing: AtomicUsize,
    bytes: AtomicU64,
    /// Milliseconds from connect to the first media byte, added up.
    first: AtomicU64,
    lost: AtomicUsize,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, players, seconds] = arguments.as_slice() else {
        eprintln!("usage: rtmp-load rtmp://HOST:PORT/APP/NAME PLAYERS SECONDS");
        return ExitCode::from(64);
    };
    let (Some(target), Ok(players), Ok(seconds)) = (Target::parse(url), players.parse(), seconds.parse())
    else {
        eprintln!("rtmp-load: a URL with application and name, and two numbers, please");
        return ExitCode::from(64);
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("rtmp-load: {error}");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(load(Arc::new(target), players, Duration::from_secs(seconds)))
}

struct Target {
    address: String,
    app: String,
    name: String,
}

impl Target {
    fn parse(url: &str) -> Option<Self> {
        let (address, path) = url.strip_prefix("rtmp://")?.split_once('/')?;
        let (app, name) = path.rsplit_once('/')?;
        Some(Self { address: address.to_owned(), app: app.to_owned(), name: name.to_owned() })
    }
}

async fn load(target: Arc<Target>, players: usize, time: Duration) -> ExitCode {
    let seen = Arc::new(Seen::default());
    for _ in 0..players {
        let (target, seen) = (target.clone(), seen.clone());
        tokio::spawn(async move {
            if let Err(error) = play(&target, &seen).await
                && seen.lost.fetch_add(1, Ordering::Relaxed) == 0
            {
                eprintln!("rtmp-load: {error}");
            }
        });
        // A crowd, but no stampede.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    while seen.playing.load(Ordering::Relaxed) < players {
        if Instant::now() > deadline {
            eprintln!("rtmp-load: only {} of {players} play", seen.playing.load(Ordering::Relaxed));
            return ExitCode::FAILURE;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let first = seen.first.load(Ordering::Relaxed) as f64 / players.max(1) as f64;
    println!("{{\"playing\":{players},\"meanFirstMilliseconds\":{first:.1}}}");
    let (before, start) = (seen.bytes.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(time).await;
    let bytes = seen.bytes.load(Ordering::Relaxed) - before;
    let lost = seen.lost.load(Ordering::Relaxed);
    println!("{{\"seconds\":{:.3},\"bytes\":{bytes},\"lost\":{lost}}}", start.elapsed().as_secs_f64());
    if lost == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn play(target: &Target, seen: &Seen) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let start = Instant::now();
    let mut stream = TcpStream::connect(&target.address).await?;
    let mut session = ClientSession::new(ClientConfig {
        app: target.app.clone(),
        tc_url: format!("rtmp://{}/{}", target.address, target.app),
        name: target.name.clone(),
        mode: Mode::Play,
        limits: Limits::default(),
        credentials: None,
        auth_query: None,
    });
    let mut buffer = vec![0; 16 * 1024];
    'dialogue: loop {
        while let Some(output) = session.poll()? {
            match output {
                ClientOutput::Send(bytes) => stream.write_all(&bytes).await?,
                ClientOutput::Event(ClientEvent::Media(_)) => break 'dialogue,
                ClientOutput::Event(ClientEvent::Refused { description, .. }) => {
                    return Err(description.into());
                }
                ClientOutput::Event(_) => {}
            }
        }
        let count = stream.read(&mut buffer).await?;
        session.handle_input(buffer.get(..count).filter(|bytes| !bytes.is_empty()).ok_or("closed")?);
    }
    seen.first.fetch_add(start.elapsed().as_millis() as u64, Ordering::Relaxed);
    seen.playing.fetch_add(1, Ordering::Relaxed);
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Err("closed".into());
        }
        seen.bytes.fetch_add(count as u64, Ordering::Relaxed);
    }
}
