//! Players as cheap as can be: after the dialogue they read and discard.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use av_bench::stamp::{self, Ages};
use av_rtmp::{ClientConfig, ClientEvent, ClientOutput, ClientSession, Limits, Mode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What all players together have seen.
#[derive(Default)]
pub struct Seen {
    playing: AtomicUsize,
    bytes: AtomicU64,
    /// Milliseconds from connect to the first media byte, added up.
    first: AtomicU64,
    lost: AtomicUsize,
    /// Of pictures with a stamp, when their first bytes have come.
    pub ages: Ages,
}

impl Seen {
    /// Starts a player of `url`.
    pub fn play(self: &Arc<Self>, url: &str) {
        let (target, seen) = (Target::parse(url), Arc::clone(self));
        tokio::spawn(async move {
            if let Err(error) = play(&target, &seen).await
                && seen.lost.fetch_add(1, Ordering::Relaxed) == 0
            {
                eprintln!("rtmp-load: {error}");
            }
        });
    }

    /// Until that many players have media; `false` when they do not come to it.
    pub async fn wait_playing(&self, players: usize) -> bool {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.playing.load(Ordering::Relaxed) < players {
            if Instant::now() > deadline {
                eprintln!("rtmp-load: only {} of {players} play", self.playing.load(Ordering::Relaxed));
                return false;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        true
    }

    /// Milliseconds from connect to the first media, the mean of all that play.
    pub fn mean_first(&self) -> f64 {
        self.first.load(Ordering::Relaxed) as f64 / self.playing.load(Ordering::Relaxed).max(1) as f64
    }

    /// Bytes of media so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Players that ended.
    pub fn lost(&self) -> usize {
        self.lost.load(Ordering::Relaxed)
    }
}

struct Target {
    address: String,
    app: String,
    name: String,
}

impl Target {
    fn parse(url: &str) -> Self {
        let parts = url.strip_prefix("rtmp://").and_then(|rest| rest.split_once('/'));
        let parts = parts.and_then(|(address, path)| Some((address, path.rsplit_once('/')?)));
        let (address, (app, name)) = parts.unwrap_or_else(|| panic!("{url}: not rtmp://HOST:PORT/APP/NAME"));
        Self { address: address.to_owned(), app: app.to_owned(), name: name.to_owned() }
    }
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
        stamp::ages(&buffer[..count]).for_each(|age| seen.ages.add(age));
    }
}
