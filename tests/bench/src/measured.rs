//! What the benchmark of configuration measures with.

use std::time::{Duration, Instant};

use av_tests::clip::Clip;
use av_tests::recording::{End, Kind, Times};
use av_tests::rtmp::{Endless, Player, Publisher};
use av_tests::wait;

/// Times from a change to its effect.
pub struct Changes(Vec<Duration>);

impl Changes {
    /// Makes `count` changes; `change` gives the moments of the change and of its effect.
    pub fn measure(count: usize, mut change: impl FnMut(usize) -> (Instant, Instant)) -> Self {
        let mut times: Vec<_> = (0..count)
            .map(|round| {
                let (begun, effect) = change(round);
                effect.duration_since(begun)
            })
            .collect();
        times.sort();
        Self(times)
    }

    /// Milliseconds.
    pub fn median(&self) -> f64 {
        self.0[self.0.len() / 2].as_secs_f64() * 1e3
    }

    /// Milliseconds.
    pub fn most(&self) -> f64 {
        self.0[self.0.len() - 1].as_secs_f64() * 1e3
    }
}

/// Tries until a publisher of `url` is let in; gives that moment.
pub fn let_in(url: &str) -> Instant {
    let begun = Instant::now();
    loop {
        if let Ok(Ok(publisher)) = Publisher::start(url) {
            let moment = Instant::now();
            drop(publisher);
            return moment;
        }
        assert!(begun.elapsed() < wait::LONG, "{url} lets nobody in");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Tries until a player of `url` has a frame; gives that moment.
pub fn plays(url: &str) -> (Player, Instant) {
    let begun = Instant::now();
    loop {
        let player = Player::start(url);
        while player.ended().is_none() {
            if player.frames(Kind::Video) > 0 {
                return (player, Instant::now());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(begun.elapsed() < wait::LONG, "{url} does not play");
    }
}

/// Streams beside what is changed.
pub struct Neighbours(Vec<(Endless, Player)>);

impl Neighbours {
    /// Publishes and plays each of them.
    pub fn start(urls: [String; 4]) -> Self {
        let start = |url: String| {
            let publishing = Publisher::to(&url).run_endlessly(Clip::Plain.tags());
            (publishing, Player::start(&url))
        };
        let streams: Vec<_> = urls.into_iter().map(start).collect();
        streams.iter().for_each(|(_, player)| player.wait_frames(Kind::Video, 5));
        Self(streams)
    }

    /// Ends them; every frame must have come.
    pub fn lost_nothing(self) {
        for (publishing, player) in self.0 {
            let sent = publishing.stop();
            player.wait_last_of(&sent);
            player.recording().must_be(&sent, Times::Exact, End::Complete);
        }
    }
}

/// Of bytes.
pub fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// What all threads of a process have run (`/proc/ID/task/ID/schedstat`, in nanoseconds).
pub fn cpu(id: u32) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{id}/task")).unwrap();
    let ran = tasks.map(|task| {
        let text = std::fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap();
        text.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    });
    Duration::from_nanos(ran.sum())
}
