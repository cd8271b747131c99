//! What is said once in the log of an input.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Reasons that are remembered as said. What comes beyond is counted only.
const MAX_SAID: usize = 32;

/// Reasons of one input, and those of them that whoever runs the input has still to say: it knows how the peer is
/// called.
#[derive(Debug, Default)]
pub struct Said {
    reasons: Mutex<Reasons>,
    has_news: AtomicBool,
}

#[derive(Debug, Default)]
struct Reasons {
    /// Without their numbers, which a sender can change at will.
    known: Vec<String>,
    news: Vec<String>,
}

impl Said {
    /// Notes a reason to be said, unless it was said before.
    pub fn note(&self, text: &str) {
        let mut reasons = self.reasons();
        let reason: String = text.chars().filter(|c| !c.is_ascii_digit()).collect();
        if reasons.known.len() < MAX_SAID && !reasons.known.contains(&reason) {
            reasons.known.push(reason);
            reasons.news.push(text.to_owned());
            self.has_news.store(true, Ordering::Release);
        }
    }

    /// What was not said yet.
    pub fn take_news(&self) -> Vec<String> {
        if !self.has_news.swap(false, Ordering::Acquire) {
            return Vec::new();
        }
        std::mem::take(&mut self.reasons().news)
    }

    /// Says what was not said yet of this input's peer.
    pub fn say(&self, flow: &str, peer: &dyn Display) {
        for text in self.take_news() {
            tracing::warn!(flow, %peer, "peer {text}");
        }
    }

    fn reasons(&self) -> MutexGuard<'_, Reasons> {
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_said_once_whatever_its_numbers_are_and_not_for_ever_new_ones() {
        let said = Said::default();
        assert_eq!(said.take_news(), [""; 0]);
        for length in 1..1000 {
            said.note(&format!("video tag of {length} bytes"));
        }
        assert_eq!(said.take_news(), ["video tag of 1 bytes"]);
        for reason in 0..1000 {
            said.note(&"x".repeat(reason));
        }
        assert_eq!(said.take_news().len(), MAX_SAID - 1);
    }
}
