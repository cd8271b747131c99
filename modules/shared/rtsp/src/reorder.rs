//! Packets in the order in which they were sent.
//!
//! Datagrams overtake each other and come twice. A packet that comes early waits for the ones before it: until 64 more
//! have come, or for a quarter of a second. Over TCP nothing ever waits.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::received::Received;

#[cfg(test)]
mod tests;

/// So many packets may be waited for.
pub const WINDOW: u64 = 64;
/// So many old ones in a row are no late ones: the sender counts anew.
const RESTART: u32 = 64;
/// And nothing waits longer than that.
const PATIENCE: Duration = Duration::from_millis(250);

/// What comes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ordered {
    /// The next packet.
    Packet(Received),
    /// So many packets are missing here.
    Lost(u64),
    /// The sender began anew: another source, or other numbers.
    Restart,
}

/// Orders the packets of one track.
#[derive(Debug, Default)]
pub struct Reorder {
    source: Option<Source>,
    /// Packets that never came.
    lost: u64,
    /// Packets that came twice or too late.
    late: u64,
}

#[derive(Debug)]
struct Source {
    ssrc: u32,
    /// The next packet's number, wraps counted.
    next: u64,
    held: BTreeMap<u64, (Received, Duration)>,
    /// Old ones in a row.
    old: u32,
}

impl Source {
    fn starting_with(packet: &Received) -> Self {
        // Room for numbers before the first.
        let next = (1 << 32) | u64::from(packet.sequence);
        Self { ssrc: packet.ssrc, next, held: BTreeMap::new(), old: 0 }
    }

    /// What is next, as far as it is here.
    fn drain(&mut self, out: &mut Vec<Ordered>) {
        while let Some((packet, _)) = self.held.remove(&self.next) {
            out.push(Ordered::Packet(packet));
            self.next += 1;
        }
    }

    /// Does not wait for what is missing before the first packet that is held.
    fn give_up(&mut self, out: &mut Vec<Ordered>) -> u64 {
        let Some((&first, _)) = self.held.first_key_value() else { return 0 };
        let missing = first.saturating_sub(self.next);
        if missing > 0 {
            out.push(Ordered::Lost(missing));
        }
        self.next = first;
        self.drain(out);
        missing
    }
}

impl Reorder {
    /// Packets that never came.
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    /// Packets that came twice, or when they were not waited for any more.
    pub const fn late(&self) -> u64 {
        self.late
    }

    /// The highest number that was passed on, with its wraps in the upper half: what receiver reports say.
    pub fn highest(&self) -> u32 {
        // Modulo 2^32.
        self.source.as_ref().map_or(0, |source| source.next.wrapping_sub(1) as u32)
    }

    /// Takes a packet as it came at `now` (since any moment, always the same); appends what is in order now.
    pub fn push(&mut self, packet: Received, now: Duration, out: &mut Vec<Ordered>) {
        let source = match &mut self.source {
            None => self.source.insert(Source::starting_with(&packet)),
            Some(source) if source.ssrc != packet.ssrc => {
                while !source.held.is_empty() {
                    self.lost += source.give_up(out);
                }
                out.push(Ordered::Restart);
                *source = Source::starting_with(&packet);
                source
            }
            Some(source) => source,
        };
        // How far ahead of what is next, whatever wrapped in between.
        let ahead = packet.sequence.wrapping_sub(source.next as u16).cast_signed();
        if ahead < 0 {
            self.late += 1;
            source.old += 1;
            if source.old < RESTART {
                return;
            }
            while !source.held.is_empty() {
                self.lost += source.give_up(out);
            }
            out.push(Ordered::Restart);
            *source = Source::starting_with(&packet);
        } else {
            let number = source.next + u64::from(ahead.unsigned_abs());
            if source.held.contains_key(&number) {
                self.late += 1;
                return;
            }
            source.old = 0;
            source.held.insert(number, (packet, now));
            source.drain(out);
            while source.held.last_key_value().is_some_and(|(&last, _)| last >= source.next + WINDOW) {
                self.lost += source.give_up(out);
            }
            self.expire(now, out);
            return;
        }
        let number = source.next;
        source.held.insert(number, (packet, now));
        source.drain(out);
    }

    /// When [`expire`](Self::expire) has something to do; `None` while nothing waits.
    pub fn deadline(&self) -> Option<Duration> {
        let (_, (_, since)) = self.source.as_ref()?.held.first_key_value()?;
        Some(since.saturating_add(PATIENCE))
    }

    /// Does not wait any more for what is missing before packets that have waited long enough.
    pub fn expire(&mut self, now: Duration, out: &mut Vec<Ordered>) {
        let Some(source) = &mut self.source else { return };
        let waited = |since: Duration| now.saturating_sub(since) >= PATIENCE;
        while source.held.first_key_value().is_some_and(|(_, (_, since))| waited(*since)) {
            self.lost += source.give_up(out);
        }
    }
}
