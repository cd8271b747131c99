//! What a receiver counts of one source, for its reports (RFC 3550 §6.4.1, A.3, A.8).

use std::time::Duration;

use super::{Ntp, Reception};
use crate::Received;

/// Receiver reports are that far apart.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(5);
/// A step of more is a stray, or another beginning where the packet behind it follows (§A.1).
const MAX_STEP: u32 = 3000;

/// The counters of one track. `now` is the time since any moment, always the same.
#[derive(Clone, Copy, Debug)]
pub struct Counter {
    rate: u32,
    source: Option<Source>,
    /// The source and number that would follow the last packet that was far from the others.
    follows: Option<(u32, u16)>,
    /// The last sender report, and when it came.
    report: Option<(Ntp, Duration)>,
}

#[derive(Clone, Copy, Debug)]
struct Source {
    ssrc: u32,
    first: u32,
    highest: u32,
    received: u32,
    /// Expected and received at the last report.
    told: (u32, u32),
    /// Of the packet before, in ticks.
    transit: u32,
    /// Sixteen times the jitter, in ticks.
    jitter: u32,
}

impl Counter {
    /// For a track of so many ticks a second.
    pub const fn new(rate: u32) -> Self {
        Self { rate, source: None, follows: None, report: None }
    }

    /// A packet came.
    pub fn packet(&mut self, packet: &Received, now: Duration) {
        let ticks = now.as_nanos().wrapping_mul(u128::from(self.rate)) / 1_000_000_000;
        let transit = (ticks as u32).wrapping_sub(packet.time);
        let number = u32::from(packet.sequence);
        let known = self.source.as_mut().filter(|source| source.ssrc == packet.ssrc);
        let step = |source: &Source| packet.sequence.wrapping_sub(source.highest as u16).cast_signed();
        let Some(source) = known.filter(|source| u32::from(step(source).unsigned_abs()) <= MAX_STEP) else {
            let ssrc = packet.ssrc;
            let follows = self.follows.replace((ssrc, packet.sequence.wrapping_add(1)));
            if self.source.is_some() && follows != Some((ssrc, packet.sequence)) {
                return;
            }
            self.source = Some(Source {
                ssrc,
                first: number,
                highest: number,
                received: 1,
                told: (0, 0),
                transit,
                jitter: 0,
            });
            return;
        };
        self.follows = None;
        let ahead = step(source);
        if ahead > 0 {
            source.highest = source.highest.wrapping_add(u32::from(ahead.unsigned_abs()));
        }
        source.received = source.received.wrapping_add(1);
        let change = transit.wrapping_sub(source.transit).cast_signed().unsigned_abs();
        source.transit = transit;
        let decayed = source.jitter - (source.jitter.saturating_add(8) >> 4).min(source.jitter);
        source.jitter = decayed.saturating_add(change);
    }

    /// A sender report came.
    pub const fn report(&mut self, ntp: Ntp, now: Duration) {
        self.report = Some((ntp, now));
    }

    /// What there is to say; `None` before the first packet.
    pub fn reception(&mut self, now: Duration) -> Option<Reception> {
        let source = self.source.as_mut()?;
        let expected = source.highest.wrapping_sub(source.first).wrapping_add(1);
        let (expected_before, received_before) = source.told;
        source.told = (expected, source.received);
        let lately = expected.wrapping_sub(expected_before);
        let missing = lately.saturating_sub(source.received.wrapping_sub(received_before));
        let fraction = (u64::from(missing) * 256).checked_div(lately.into()).unwrap_or(0);
        let delay = |came: Duration| {
            let since = now.saturating_sub(came).as_nanos() * 65_536 / 1_000_000_000;
            u32::try_from(since).unwrap_or(u32::MAX)
        };
        Some(Reception {
            ssrc: source.ssrc,
            fraction_lost: u8::try_from(fraction).unwrap_or(u8::MAX),
            // What came twice may make it less than nothing.
            lost: expected.saturating_sub(source.received).min(0x007f_ffff),
            highest: source.highest,
            jitter: source.jitter >> 4,
            last_report: self.report.map_or(0, |(ntp, _)| (ntp.0 >> 16) as u32),
            delay: self.report.map_or(0, |(_, came)| delay(came)),
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    fn packet(sequence: u16, time: u32) -> Received {
        Received { ssrc: 7, payload_type: 96, sequence, time, marker: false, payload: Bytes::new() }
    }

    #[test]
    fn what_is_missing_is_told_of_all_and_of_the_time_since_the_last_report() {
        let mut counter = Counter::new(90_000);
        assert_eq!(counter.reception(Duration::ZERO), None);
        // Over the wrap; the last number of three is missing.
        for index in 0..300_u32 {
            if index % 3 != 2 {
                counter.packet(&packet(65_400_u16.wrapping_add(index as u16), index * 90), MILLI * index);
            }
        }
        let first = counter.reception(MILLI * 300).unwrap();
        assert_eq!((first.ssrc, first.highest, first.lost), (7, 65_400 + 298, 99));
        assert_eq!(first.fraction_lost, (99 * 256 / 299) as u8);
        assert!(first.jitter <= 90, "a tick of a millisecond at most: {}", first.jitter);
        counter.packet(&packet(163_u16.wrapping_add(1), 27_000), MILLI * 301);
        let second = counter.reception(MILLI * 302).unwrap();
        assert_eq!((second.lost, second.fraction_lost, second.last_report), (100, 128, 0));
    }

    #[test]
    fn jitter_grows_with_what_comes_late_and_a_sender_report_is_named_with_its_age() {
        let mut counter = Counter::new(90_000);
        for index in 0..1000_u32 {
            // Every other packet is 10 ms late.
            let late = if index % 2 == 1 { 10 } else { 0 };
            counter.packet(&packet(index as u16, index * 1800), MILLI * (index * 20 + late));
        }
        counter.report(Ntp(0x1234_5678_9abc_def0), MILLI * 20_000);
        let told = counter.reception(MILLI * 22_000).unwrap();
        assert!((890..=900).contains(&told.jitter), "{} ticks", told.jitter);
        assert_eq!((told.last_report, told.delay), (0x5678_9abc, 2 * 65_536));
    }

    #[test]
    fn another_source_and_a_far_number_begin_anew_where_the_next_packet_follows() {
        let mut counter = Counter::new(8000);
        let mut told = |packets: &[Received]| {
            packets.iter().for_each(|packet| counter.packet(packet, Duration::ZERO));
            let told = counter.reception(MILLI).unwrap();
            (told.ssrc, told.lost, told.highest)
        };
        assert_eq!(told(&[packet(10, 0), packet(20_000, 0), packet(11, 0), packet(20_001, 0)]), (7, 0, 11));
        assert_eq!(told(&[packet(20_002, 0)]), (7, 0, 20_002));
        let other = |sequence| Received { ssrc: 8, ..packet(sequence, 0) };
        assert_eq!(told(&[other(20_005)]), (7, 0, 20_002));
        assert_eq!(told(&[other(20_006), other(20_007)]), (8, 0, 20_007));
    }
}
