//! A camera of the tests' own (RFC 2326, 3550, 6184, 3640): it shares no code with the modules, and has the habits that it
//! is told to have. It is live: whoever connects gets what is recorded from that moment on.

mod media;
mod talk;

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::recording::Recording;
use crate::wait;
use media::Media;

/// What a camera does otherwise than the one in the book. Frames are counted from 0 as they leave in a session.
#[derive(Clone, Debug, Default)]
pub struct Habits {
    /// Parameter sets are not in the description but in front of each key frame.
    pub no_sprop: bool,
    /// Behind `Content-Type: application/sdp`.
    pub content_type: &'static str,
    /// Behind the id and the time-out in `Session`.
    pub session_parameter: &'static str,
    /// `Transport` names another SSRC than packets have.
    pub other_ssrc: bool,
    /// Media descriptions in front of its own and behind them.
    pub more_media: [&'static str; 2],
    /// Whose URLs the answers name.
    pub content_base: Option<&'static str>,
    /// What PLAY's answer says of RTP times.
    pub rtp_info: RtpInfo,
    /// Digest is asked for; user and password.
    pub login: Option<[&'static str; 2]>,
    /// So many nonces are stale when SETUP comes.
    pub stale: usize,
    /// Seconds after which a session without requests is over; 0 = 60, and never.
    pub timeout: u64,
    /// `SET_PARAMETER` ends the session.
    pub breaks_on_set_parameter: bool,
    /// How the first requests are answered, as `453 Not Enough Bandwidth`; the last one holds for ever.
    pub refuses: Option<&'static str>,
    /// Where every session is sent.
    pub redirects: Option<String>,
    /// So many sessions get nothing after PLAY.
    pub hangs: usize,
    /// The first picture is none that a decoder can start at.
    pub starts_in_the_middle: bool,
    /// This picture is stamped hours away.
    pub stray: Option<usize>,
    /// All pictures and all sound from this picture on are stamped an hour later.
    pub jump: Option<usize>,
    /// At this picture of the first session the SSRC changes.
    pub new_ssrc: Option<usize>,
    /// At this picture of the first session numbers start again, far in the past.
    pub old_numbers: Option<usize>,
    /// Milliseconds by which the RTP times of sound are later than `RTP-Info` would have it.
    pub sound_is_off: i64,
    /// What its reports say.
    pub reports: Reports,
    /// By UDP every so many packets one is lost, and two change places.
    pub loses_every: Option<usize>,
}

/// See [`Habits::rtp_info`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RtpInfo {
    /// What belongs together.
    #[default]
    Right,
    /// None.
    Absent,
    /// `rtptime=0` for all tracks, as UniFi does.
    Zero,
}

/// See [`Habits::reports`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reports {
    /// None.
    #[default]
    Absent,
    /// What is true.
    Right,
    /// A time before 2000, different for each track.
    Implausible,
}

/// See the module's text.
pub struct Camera {
    /// Its address.
    pub url: String,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    habits: Habits,
    media: Media,
    began: Instant,
    over: AtomicBool,
    sessions: AtomicUsize,
    stale: AtomicUsize,
    heard: Mutex<Vec<String>>,
}

impl Camera {
    /// Starts one with these habits.
    pub fn start(habits: Habits) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("rtsp://{}/live", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            stale: AtomicUsize::new(habits.stale),
            media: Media::new(),
            habits,
            began: Instant::now(),
            over: AtomicBool::new(false),
            sessions: AtomicUsize::new(0),
            heard: Mutex::default(),
        });
        let own = shared.clone();
        let thread = std::thread::spawn(move || {
            let mut talking = Vec::new();
            while !own.over.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let own = own.clone();
                        talking.push(std::thread::spawn(move || talk::talk(stream, &own)));
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(5)),
                }
            }
            talking.into_iter().for_each(|thread| drop(thread.join()));
        });
        Self { url, shared, thread: Some(thread) }
    }

    /// Requests so far, as `SETUP rtsp://...`.
    pub fn heard(&self) -> Vec<String> {
        self.shared.heard.lock().unwrap().clone()
    }

    /// How many requests with this method came.
    pub fn count(&self, method: &str) -> usize {
        self.heard().iter().filter(|request| request.split(' ').next() == Some(method)).count()
    }

    /// Waits until so many requests with this method have come.
    pub fn wait_heard(&self, method: &str, count: usize) {
        wait::until_true(&format!("{count} {method}"), wait::LONG, || self.count(method) >= count);
    }

    /// What it has recorded so far, whoever saw it.
    pub fn recorded(&self) -> Recording {
        self.shared.media.recorded(self.shared.began.elapsed())
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
