//! One track and what decodes it. Starting a decoder may take long, or for ever: then its output goes on without it, and
//! the next way is taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use av_media::Track;

use crate::codec::Candidate;
use crate::decode::{Decoder, PipelineError};
use crate::hang::{self, CALLS};
use crate::ways::Ways;

/// What starts within that time is waited for.
const SOON: Duration = Duration::from_millis(300);

/// A track. `D`: its decoder, with whatever takes what comes out there.
pub(super) struct Decoding<D> {
    pub ways: Ways,
    pub running: Option<D>,
    starting: Option<Starting>,
    /// What ran before, and is to end before hardware is started once more.
    before: Option<Decoder>,
    /// Another decoder of this output is about to end.
    pub occupied: bool,
    /// Hardware that refused may have had no room beside that one.
    postponed: bool,
    raw: &'static str,
    bound: Duration,
}

impl<D> Decoding<D> {
    /// `raw` and `bound`: as [`Decoder::start`] has them.
    pub fn new(track: &Arc<Track>, raw: &'static str, bound: Duration) -> Self {
        Self {
            ways: Ways::new(track),
            running: None,
            starting: None,
            before: None,
            occupied: false,
            postponed: false,
            raw,
            bound,
        }
    }

    /// One is being started, and takes its time.
    pub fn is_starting(&self) -> bool {
        self.starting.is_some() || self.postponed
    }

    /// What ran has no more to do.
    pub fn after(&mut self, before: Decoder) {
        self.before = Some(before);
    }

    /// A decoder that has started, by the best way that is left. What does not start or hangs is told to `refused`.
    pub fn started(&mut self, mut refused: impl FnMut(&Candidate, &str)) -> Option<Decoder> {
        while !self.postponed || !self.occupied {
            self.postponed = false;
            let starting = match self.starting.take() {
                Some(starting) => Ok(starting),
                None => {
                    let candidate = self.ways.candidate();
                    // Only hardware may be short.
                    let is_hardware = candidate.as_ref().is_some_and(|candidate| candidate.hardware);
                    let before = self.before.take().filter(|_| is_hardware);
                    let candidate = candidate?;
                    Starting::begin(&self.ways.track, &candidate, self.raw, self.bound, before)
                        .map_err(|why| (candidate, why))
                }
            };
            let (candidate, Refused { why, hangs }) = match starting {
                Ok(starting) => match starting.wait() {
                    None => {
                        self.starting = Some(starting);
                        return None;
                    }
                    Some(Ok(decoder)) => {
                        self.before = None;
                        return Some(decoder);
                    }
                    Some(Err(refused)) => (starting.candidate, refused),
                },
                Err(refused) => refused,
            };
            self.postponed = candidate.hardware && self.occupied && !hangs;
            if self.postponed {
                continue;
            }
            refused(&candidate, &why);
            if hangs { self.ways.next_element(&why) } else { self.ways.next(&why) }
        }
        None
    }
}

/// Why a decoder did not start.
struct Refused {
    why: String,
    /// Nor would it in another way.
    hangs: bool,
}

/// A decoder that is being started. One that comes when nobody waits for it any more is ended again.
struct Starting {
    candidate: Candidate,
    since: Instant,
    /// What is to end first, and whether it has.
    before: Option<(&'static str, Arc<AtomicBool>)>,
    outcome: mpsc::Receiver<Result<Decoder, PipelineError>>,
}

impl Starting {
    fn begin(
        track: &Arc<Track>,
        candidate: &Candidate,
        raw: &'static str,
        bound: Duration,
        before: Option<Decoder>,
    ) -> Result<Self, Refused> {
        let element = candidate.element;
        let refused = |why| Refused { why, hangs: true };
        CALLS.room(candidate.hardware).map_err(|many| refused(format!("{element} is not tried: {many}")))?;
        let (tell, outcome) = mpsc::channel();
        let has_ended = Arc::new(AtomicBool::new(false));
        let named = before.as_ref().map(|before| (before.candidate.element, has_ended.clone()));
        let (track, wanted) = (track.clone(), candidate.clone());
        let call = move || {
            before.into_iter().for_each(Decoder::stop);
            has_ended.store(true, Ordering::Relaxed);
            let _ = tell.send(Decoder::start(&track, &wanted, raw, bound));
        };
        CALLS
            .make("decoder-starts", call)
            .map_err(|error| refused(format!("the thread for {element} can't be started: {error}")))?;
        Ok(Self { candidate: candidate.clone(), since: Instant::now(), before: named, outcome })
    }

    /// What came of it. `None`: nothing yet.
    fn wait(&self) -> Option<Result<Decoder, Refused>> {
        let soon = SOON.saturating_sub(self.since.elapsed());
        let why = match self.outcome.recv_timeout(soon) {
            Ok(outcome) => {
                return Some(outcome.map_err(|PipelineError(why)| Refused { why, hangs: false }));
            }
            Err(RecvTimeoutError::Timeout) if self.since.elapsed() < hang::BOUND => return None,
            Err(RecvTimeoutError::Timeout) => "hangs",
            Err(RecvTimeoutError::Disconnected) => "fails with an internal error (see the log)",
        };
        let why = match &self.before {
            Some((before, has_ended)) if !has_ended.load(Ordering::Relaxed) => {
                format!("{before} {why} while it ends")
            }
            _ => format!("{} {why} while it starts", self.candidate.element),
        };
        Some(Err(Refused { why, hangs: true }))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_decoder_that_hangs_while_it_starts_is_left_alone_and_the_next_one_decodes() {
        gstreamer::init().unwrap();
        let fifo = std::env::temp_dir().join(format!("renderer-hangs-{}", std::process::id()));
        let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
        assert!(made.success());
        let candidate = |element, chain: &str, hardware| Candidate { element, chain: chain.into(), hardware };
        // Opening a FIFO that nobody reads from blocks, here in the middle of a change of state.
        let writes =
            format!("tee name=t t. ! filesink async=false location={} t. ! identity", fifo.display());
        let all = vec![
            candidate("filesink", &writes, true),
            candidate("filesink", &writes, true),
            candidate("identity", "identity", false),
        ];
        let track = Arc::new(Track::aac(Bytes::from_static(b"\x12\x10")).unwrap());
        let mut decoding = Decoding::<Decoder>::new(&track, "identity", Duration::from_secs(3));
        decoding.ways = Ways::of(&track, all);
        let began = Instant::now();
        let mut longest = Duration::ZERO;
        let decoder = loop {
            let asked = Instant::now();
            let started = decoding.started(|_, _| {});
            longest = longest.max(asked.elapsed());
            if let Some(decoder) = started {
                break decoder;
            }
            assert!(began.elapsed() < 8 * hang::BOUND);
            std::thread::sleep(Duration::from_millis(10));
        };
        assert_eq!(decoder.candidate.element, "identity");
        assert!(began.elapsed() >= hang::BOUND);
        // Whoever asks does not hang.
        assert!(longest < hang::BOUND / 2, "{longest:?}");
        let refused = Some("mp4a.40.2 can't be decoded: filesink hangs while it starts");
        assert_eq!(decoding.ways.refused(), refused);
        // It comes to its senses, and ends.
        let read = std::fs::read(&fifo);
        std::fs::remove_file(&fifo).unwrap();
        assert_eq!(read.unwrap(), Vec::<u8>::new());
    }
}
