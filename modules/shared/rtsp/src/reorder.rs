//! Packets in the order in which they were sent.
//!
//! Datagrams overtake each other and come twice. A packet that comes early waits for the ones before it: until 64 more
//! have come, or for a quarter of a second. Over TCP nothing ever waits.
//!
//! A packet far from all others, or of another source, is a stray and left out, unless the next ones are found where it
//! is: then the sender has gone there (RFC 3550 §A.1, with wider bounds: networks hold back more than a hundred packets).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::received::Received;

#[cfg(test)]
mod tests;

/// So many packets may be waited for.
pub const WINDOW: u64 = 64;
/// So many old ones in a row are no late ones: the sender counts anew.
const RESTART: u32 = 64;
/// What is older is no late one.
const MAX_MISORDER: u16 = 3000;
/// A hole of so many numbers is a loss; a larger one is a sender that counts anew.
const MAX_DROPOUT: u16 = 3000;
/// So many packets in one place far from the others are no strays.
const AGREE: usize = 3;
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
    /// Packets far from the others that may be where the sender is now: fewer than [`AGREE`].
    far: Vec<Received>,
    /// Packets that were nowhere near the others.
    strays: u64,
}

/// Where a packet belongs.
enum Place {
    /// It is waited for, or ahead by less than the window.
    Near(u64),
    Late,
    Far,
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

    /// How far ahead of what is next, whatever wrapped in between.
    fn ahead(&self, packet: &Received) -> i16 {
        packet.sequence.wrapping_sub(self.next as u16).cast_signed()
    }

    fn place(&self, packet: &Received) -> Place {
        if packet.ssrc != self.ssrc {
            return Place::Far;
        }
        let ahead = self.ahead(packet);
        if ahead < 0 {
            return if ahead.unsigned_abs() <= MAX_MISORDER { Place::Late } else { Place::Far };
        }
        let number = self.next + u64::from(ahead.unsigned_abs());
        let newest = self.held.last_key_value().map_or(self.next - 1, |(&last, _)| last);
        if number > newest + WINDOW { Place::Far } else { Place::Near(number) }
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

    /// Packets that were nowhere near the others, or of another source, and were left out.
    pub const fn strays(&self) -> u64 {
        self.strays
    }

    /// The highest number that was passed on, with its wraps in the upper half: what receiver reports say.
    pub fn highest(&self) -> u32 {
        // Modulo 2^32.
        self.source.as_ref().map_or(0, |source| source.next.wrapping_sub(1) as u32)
    }

    /// Takes a packet as it came at `now` (since any moment, always the same); appends what is in order now.
    pub fn push(&mut self, packet: Received, now: Duration, out: &mut Vec<Ordered>) {
        let source = self.source.get_or_insert_with(|| Source::starting_with(&packet));
        match source.place(&packet) {
            Place::Near(number) => {
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
                self.strays += self.far.len() as u64;
                self.far.clear();
                self.expire(now, out);
            }
            Place::Late => {
                self.late += 1;
                source.old += 1;
                if source.old >= RESTART {
                    self.move_to(vec![packet], now, out);
                }
            }
            Place::Far => self.weigh(packet, now, out),
        }
    }

    /// Keeps a packet that is far from the others until the next ones tell whether it is a stray.
    fn weigh(&mut self, packet: Received, now: Duration, out: &mut Vec<Ordered>) {
        let behind = |other: &Received| packet.sequence.wrapping_sub(other.sequence).cast_signed();
        let is_near =
            |other: &Received| other.ssrc == packet.ssrc && u64::from(behind(other).unsigned_abs()) < WINDOW;
        if !self.far.iter().all(is_near) {
            self.strays += self.far.len() as u64;
            self.far.clear();
        } else if self.far.iter().any(|other| behind(other) == 0) {
            self.late += 1;
            return;
        }
        self.far.push(packet);
        if self.far.len() >= AGREE {
            let packets = std::mem::take(&mut self.far);
            self.move_to(packets, now, out);
        }
    }

    /// Goes on where these packets are, which are near each other: behind a hole, or from the start.
    fn move_to(&mut self, mut packets: Vec<Received>, now: Duration, out: &mut Vec<Ordered>) {
        let Some(source) = &mut self.source else { return };
        while !source.held.is_empty() {
            self.lost += source.give_up(out);
        }
        if let Some(any) = packets.first().map(|packet| packet.sequence) {
            packets.sort_by_key(|packet| packet.sequence.wrapping_sub(any).cast_signed());
        }
        let Some(first) = packets.first() else { return };
        let is_hole =
            first.ssrc == source.ssrc && (0..=MAX_DROPOUT.cast_signed()).contains(&source.ahead(first));
        if !is_hole {
            out.push(Ordered::Restart);
            *source = Source::starting_with(first);
        }
        source.old = 0;
        for packet in packets {
            let number = source.next + u64::from(source.ahead(&packet).unsigned_abs());
            source.held.insert(number, (packet, now));
        }
        if is_hole {
            self.lost += source.give_up(out);
        }
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
