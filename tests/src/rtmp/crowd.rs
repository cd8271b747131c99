//! Very many publishers at once, each as light as can be.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Publisher;
use crate::flv::Tag;

/// Each of them sends one picture in this time.
const PERIOD: Duration = Duration::from_secs(2);
/// Who shake hands at the same time.
const AT_ONCE: usize = 16;

/// Publishers that share one thread.
pub struct Crowd {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Crowd {
    /// Publishes to each of `urls` (at least one), when all have been let in: the headers of the pictures among
    /// `tags`, and the first picture over and over, every two seconds, each time another frame.
    pub fn start(urls: &[String], tags: &[Tag]) -> Self {
        let video = |tag: &&Tag| tag.kind == 9;
        let headers: Vec<_> = tags.iter().filter(video).filter(|tag| tag.is_header()).cloned().collect();
        let picture = tags.iter().find(|tag| tag.is_sync()).expect("a picture").clone();
        let mut publishers: Vec<_> = std::thread::scope(|scope| {
            let open = |urls: &[String]| urls.iter().map(|url| Publisher::to(url)).collect::<Vec<_>>();
            let parts = urls.chunks(urls.len().div_ceil(AT_ONCE));
            let threads: Vec<_> = parts.map(|part| scope.spawn(move || open(part))).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let pause = PERIOD / u32::try_from(publishers.len()).unwrap();
            let mut due = Instant::now();
            for round in 0.. {
                let again = picture.in_round(round, u32::try_from(PERIOD.as_millis()).unwrap()).unwrap();
                for publisher in &mut publishers {
                    if asked.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                    for tag in headers.iter().filter(|_| round == 0).chain([&again]) {
                        publisher.send(tag)?;
                    }
                    due += pause;
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                }
            }
            Ok(())
        });
        Self { stop, thread: Some(thread) }
    }

    /// All of them leave. Panics when the server had cut one off.
    pub fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap().expect("all of the crowd went on until the end");
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
