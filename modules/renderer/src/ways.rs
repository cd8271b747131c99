//! The ways to decode one track, tried one after the other.

use std::sync::Arc;
use std::time::Duration;

use av_media::{Kind, Track};
use tokio::time::Instant;

use crate::codec::{Candidate, candidates};
use crate::{elements, node};

/// After every way has failed.
const PATIENCE: Duration = Duration::from_secs(5);
/// Where there is no way at all: a package may be installed meanwhile.
const UNINSTALLED: Duration = Duration::from_secs(10);
/// A decoder that has worked for so long is worth another try.
const PROVED: Duration = Duration::from_secs(10);

/// How one track is decoded.
pub struct Ways {
    /// What is decoded.
    pub track: Arc<Track>,
    all: Vec<Candidate>,
    at: usize,
    /// Pictures that had left the decoder when this one began.
    pub decoded: u64,
    began: Instant,
    /// This one was started anew after it had worked.
    retried: bool,
    /// Nothing is tried before that.
    again: Option<Instant>,
    /// Why nothing decodes the track.
    pub error: Option<String>,
    /// Why those before the one in use are not in use.
    refused: Option<String>,
}

impl Ways {
    /// Of this machine.
    pub fn new(track: &Arc<Track>) -> Self {
        let mut ways = Self {
            track: track.clone(),
            all: Vec::new(),
            at: 0,
            decoded: 0,
            began: Instant::now(),
            retried: false,
            again: None,
            error: None,
            refused: None,
        };
        ways.find();
        ways
    }

    /// These.
    #[cfg(test)]
    pub fn of(track: &Arc<Track>, all: Vec<Candidate>) -> Self {
        Self { all, again: None, error: None, ..Self::new(track) }
    }

    fn find(&mut self) {
        match candidates(&self.track) {
            Ok(all) => {
                let is_software = !all.iter().any(|candidate| candidate.hardware);
                if self.track.kind() == Kind::Video
                    && is_software
                    && let Some(why) = node::decoders_refused()
                {
                    let why = format!("{} is not decoded in hardware: {why}", self.track.codec_string);
                    tracing::warn!("{why}");
                    self.refused = Some(why);
                }
                self.all = all;
            }
            Err(error) => {
                self.error = Some(error.to_string());
                self.again = Some(Instant::now() + UNINSTALLED);
            }
        }
    }

    /// What to try now.
    pub fn candidate(&self) -> Option<Candidate> {
        self.again.is_none().then(|| self.all.get(self.at).cloned()).flatten()
    }

    /// The one that is tried has started; `decoded` pictures had been decoded before.
    pub fn began(&mut self, decoded: u64) {
        self.decoded = decoded;
        self.began = Instant::now();
    }

    /// For how long it has been running.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.began)
    }

    /// Whether there is something to try now after all had failed.
    pub fn is_due_again(&mut self, now: Instant) -> bool {
        let is_due = self.again.is_some_and(|again| now >= again);
        if is_due {
            self.again = None;
            if self.all.is_empty() {
                elements::look();
                self.error = None;
                self.find();
            }
        }
        is_due && self.again.is_none()
    }

    /// This way failed: the next one, or all of them again after a while.
    pub fn next(&mut self, why: &str) {
        let why = format!("{} can't be decoded: {why}", self.track.codec_string);
        self.at += 1;
        self.retried = false;
        if self.at < self.all.len() {
            self.refused = Some(why);
        } else {
            self.at = 0;
            self.again = Some(Instant::now() + PATIENCE);
            self.error = Some(why);
            self.refused = None;
        }
    }

    /// The element fails whatever is around it.
    pub fn next_element(&mut self, why: &str) {
        let element = self.all.get(self.at).map(|candidate| candidate.element);
        while self.all.get(self.at + 1).map(|candidate| candidate.element) == element && element.is_some() {
            self.at += 1;
        }
        self.next(why);
    }

    /// A decoder that ran stopped working. One that has worked is started once more; hardware that stops again gives way
    /// to software, since each start may leave something behind in its driver.
    pub fn stopped(&mut self, why: &str, has_decoded: bool, now: Instant) {
        let is_hardware = self.all.get(self.at).is_some_and(|candidate| candidate.hardware);
        let had_its_turn = self.retried && is_hardware;
        if has_decoded && self.age(now) >= PROVED && !had_its_turn {
            self.retried = true;
        } else {
            self.next(why);
        }
    }

    /// Why a better way is not in use.
    pub fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn ways(elements: &[(&'static str, bool)]) -> Ways {
        gstreamer::init().unwrap();
        let track = Arc::new(Track::aac(Bytes::from_static(b"\x12\x10")).unwrap());
        let candidate = |(element, hardware): &(&'static str, bool)| Candidate {
            element,
            chain: (*element).to_owned(),
            hardware: *hardware,
        };
        Ways::of(&track, elements.iter().map(candidate).collect())
    }

    fn element(ways: &Ways) -> Option<&'static str> {
        ways.candidate().map(|candidate| candidate.element)
    }

    #[test]
    fn hardware_that_stops_twice_gives_way_to_software_for_good() {
        let mut ways = ways(&[("vah264dec", true), ("avdec_h264", false)]);
        let later = Instant::now() + 2 * PROVED;
        ways.stopped("it puts nothing out", true, later);
        assert_eq!((element(&ways), ways.refused()), (Some("vah264dec"), None));
        ways.stopped("it puts nothing out", true, later);
        assert_eq!(element(&ways), Some("avdec_h264"));
        assert_eq!(ways.refused(), Some("mp4a.40.2 can't be decoded: it puts nothing out"));
        // There is nothing that software could give way to.
        for _ in 0..3 {
            ways.stopped("it broke", true, later);
            assert_eq!(element(&ways), Some("avdec_h264"));
        }
    }

    #[test]
    fn an_element_that_hangs_is_not_tried_in_another_way() {
        let mut ways = ways(&[("vah264dec", true), ("vah264dec", true), ("avdec_h264", false)]);
        ways.next_element("it hangs");
        assert_eq!(element(&ways), Some("avdec_h264"));
        ways.next_element("it hangs too");
        assert_eq!(element(&ways), None);
    }

    #[test]
    fn hardware_that_never_worked_has_one_try() {
        let mut ways = ways(&[("vah264dec", true), ("avdec_h264", false)]);
        ways.stopped("not negotiated", false, Instant::now());
        assert_eq!(element(&ways), Some("avdec_h264"));
    }

    #[test]
    fn after_all_have_failed_they_are_tried_again_later() {
        let mut ways = ways(&[("vah264dec", true), ("avdec_h264", false)]);
        ways.next("no");
        ways.next("neither");
        assert_eq!(
            (element(&ways), ways.error.as_deref()),
            (None, Some("mp4a.40.2 can't be decoded: neither"))
        );
        assert!(!ways.is_due_again(Instant::now()));
        assert!(ways.is_due_again(Instant::now() + PATIENCE));
        assert_eq!(element(&ways), Some("vah264dec"));
    }
}
