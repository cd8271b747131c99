use bytes::Bytes;
use proptest::prelude::*;

use super::*;

fn packet(sequence: u16) -> Received {
    from(7, sequence)
}

fn from(ssrc: u32, sequence: u16) -> Received {
    Received { ssrc, payload_type: 96, sequence, time: 0, marker: false, payload: Bytes::new() }
}

#[derive(Debug, PartialEq)]
enum Seen {
    Number(u16),
    Lost(u64),
    Restart,
}

fn seen(out: Vec<Ordered>) -> Vec<Seen> {
    out.into_iter()
        .map(|ordered| match ordered {
            Ordered::Packet(packet) => Seen::Number(packet.sequence),
            Ordered::Lost(count) => Seen::Lost(count),
            Ordered::Restart => Seen::Restart,
        })
        .collect()
}

fn numbers(numbers: impl IntoIterator<Item = u16>) -> Vec<Seen> {
    numbers.into_iter().map(Seen::Number).collect()
}

fn run(reorder: &mut Reorder, sequence: impl IntoIterator<Item = u16>) -> Vec<Seen> {
    let (mut out, now) = (Vec::new(), Duration::from_secs(100));
    sequence.into_iter().for_each(|sequence| reorder.push(packet(sequence), now, &mut out));
    seen(out)
}

#[test]
fn what_overtook_waits_and_what_came_twice_is_left_out_also_where_numbers_wrap() {
    let mut reorder = Reorder::default();
    let out = run(&mut reorder, [65_533, 65_535, 65_535, 65_534, 1, 0, 0, 2]);
    assert_eq!(out, numbers([65_533, 65_534, 65_535, 0, 1, 2]));
    assert_eq!((reorder.lost(), reorder.late()), (0, 2));
}

#[test]
fn what_does_not_come_within_the_window_is_lost_and_said_where_it_is_missing() {
    let mut reorder = Reorder::default();
    let mut expected = numbers([0, 1]);
    assert_eq!(run(&mut reorder, [0, 1].into_iter().chain(3..=65)), expected);
    expected = vec![Seen::Lost(1)];
    expected.extend(numbers(3..=66));
    assert_eq!(run(&mut reorder, [66]), expected);
    assert_eq!(reorder.lost(), 1);
    assert!(run(&mut reorder, [2]).is_empty(), "too late");
}

#[test]
fn nothing_waits_longer_than_a_quarter_of_a_second() {
    let mut reorder = Reorder::default();
    let start = Duration::from_secs(100);
    let mut out = Vec::new();
    reorder.push(packet(0), start, &mut out);
    assert_eq!(reorder.deadline(), None);
    reorder.push(packet(2), start + Duration::from_millis(20), &mut out);
    reorder.push(packet(3), start + Duration::from_millis(200), &mut out);
    assert_eq!(reorder.deadline(), Some(start + Duration::from_millis(270)));
    reorder.expire(start + Duration::from_millis(269), &mut out);
    assert_eq!(seen(std::mem::take(&mut out)), numbers([0]));
    reorder.expire(start + Duration::from_millis(270), &mut out);
    assert_eq!(reorder.deadline(), None);
    assert_eq!(seen(out), [Seen::Lost(1), Seen::Number(2), Seen::Number(3)]);
}

#[test]
fn sixty_four_old_ones_in_a_row_are_a_sender_that_counts_anew() {
    let mut reorder = Reorder::default();
    assert_eq!(run(&mut reorder, 3000..3010).len(), 10);
    assert!(run(&mut reorder, 100..163).is_empty());
    assert_eq!(run(&mut reorder, [163, 164]), [Seen::Restart, Seen::Number(163), Seen::Number(164)]);
    // A few late ones among others are none.
    let mixed = (165..300).flat_map(|number| [number, 20]);
    assert_eq!(run(&mut reorder, mixed), numbers(165..300));
    assert_eq!(reorder.strays(), 0);
}

#[test]
fn another_source_is_a_sender_that_begins_anew_and_what_waited_goes_first() {
    let mut reorder = Reorder::default();
    let (mut out, now) = (Vec::new(), Duration::from_secs(100));
    for (ssrc, sequence) in [(1, 10), (1, 12), (2, 8), (2, 7), (2, 7), (2, 9), (2, 10)] {
        reorder.push(from(ssrc, sequence), now, &mut out);
    }
    let before = [Seen::Number(10), Seen::Lost(1), Seen::Number(12), Seen::Restart];
    assert_eq!(seen(out), before.into_iter().chain(numbers(7..=10)).collect::<Vec<_>>());
    assert_eq!((reorder.lost(), reorder.late(), reorder.strays()), (1, 1, 0));
}

#[test]
fn one_packet_of_another_source_is_left_out_and_counted() {
    let mut reorder = Reorder::default();
    let (mut out, now) = (Vec::new(), Duration::from_secs(100));
    for (ssrc, sequence) in [(1, 10), (2, 11), (2, 12), (1, 11), (3, 12), (1, 12)] {
        reorder.push(from(ssrc, sequence), now, &mut out);
    }
    assert_eq!(seen(out), numbers(10..=12));
    assert_eq!((reorder.lost(), reorder.late(), reorder.strays()), (0, 0, 3));
}

#[test]
fn what_is_missing_for_longer_than_the_window_is_a_loss_and_nothing_behind_it_is_left_out() {
    let mut reorder = Reorder::default();
    assert_eq!(run(&mut reorder, [0, 1, 400, 402]), numbers([0, 1]));
    let mut expected = vec![Seen::Lost(398)];
    expected.extend(numbers(400..=403));
    assert_eq!(run(&mut reorder, [401, 403]), expected);
    assert_eq!((reorder.lost(), reorder.strays()), (398, 0));
}

proptest! {
    #[test]
    fn however_packets_come_they_leave_in_order_each_once_and_every_loss_is_said(
        first: u16,
        order in prop::collection::vec((0_u64..40, any::<bool>(), 0..10_u8), 1..300),
    ) {
        // Each is late by up to 40 places; some come twice, some never.
        let mut sent: Vec<(u64, u64)> = Vec::new();
        for (index, (late, twice, lost)) in (0_u64..).zip(&order) {
            // The first has to come first.
            let late = if index == 0 { 0 } else { index + late };
            if index == 0 || *lost > 0 {
                sent.push((late, index));
            }
            if *twice && index > 0 && *lost > 0 {
                sent.push((late + 1, index));
            }
        }
        sent.sort();
        let mut reorder = Reorder::default();
        let (mut out, now) = (Vec::new(), Duration::from_secs(100));
        for (_, index) in &sent {
            reorder.push(packet(first.wrapping_add(*index as u16)), now, &mut out);
        }
        reorder.expire(now + PATIENCE, &mut out);
        let mut next = 0_u64;
        for ordered in out {
            match ordered {
                Ordered::Packet(packet) => {
                    prop_assert_eq!(packet.sequence, first.wrapping_add(next as u16));
                    next += 1;
                }
                Ordered::Lost(count) => {
                    for missing in next..next + count {
                        prop_assert!(sent.iter().all(|(_, index)| *index != missing));
                    }
                    next += count;
                }
                Ordered::Restart => prop_assert!(false, "nobody began anew"),
            }
        }
    }

    #[test]
    fn stray_packets_cost_nothing_wherever_they_are(
        first: u16,
        strays in prop::collection::vec(prop::option::weighted(0.3, (64..=u16::MAX, any::<bool>())), 1..300),
    ) {
        let mut reorder = Reorder::default();
        let (mut out, now) = (Vec::new(), Duration::from_secs(100));
        let (mut next, mut left_out) = (first, 0);
        reorder.push(packet(next), now, &mut out);
        for stray in &strays {
            next = next.wrapping_add(1);
            if let Some((off, foreign)) = stray {
                // Far ahead, or any old one.
                let number = next.wrapping_add(*off);
                reorder.push(from(if *foreign { 8 } else { 7 }, number), now, &mut out);
                left_out += 1;
            }
            reorder.push(packet(next), now, &mut out);
        }
        let sent = (0..=strays.len()).map(|index| first.wrapping_add(index as u16));
        prop_assert_eq!(seen(out), numbers(sent));
        prop_assert_eq!(reorder.lost(), 0);
        prop_assert_eq!(reorder.strays() + reorder.late(), left_out);
    }

    #[test]
    fn a_sender_that_goes_far_away_is_followed_and_no_packet_of_it_is_left_out(
        first: u16,
        off in 64..=u16::MAX - MAX_MISORDER - 64,
        count in 3_u16..100,
        foreign: bool,
        swapped: bool,
    ) {
        let mut reorder = Reorder::default();
        let (mut out, now) = (Vec::new(), Duration::from_secs(100));
        (0..10).for_each(|index| reorder.push(packet(first.wrapping_add(index)), now, &mut out));
        let there = first.wrapping_add(10).wrapping_add(off);
        let mut places: Vec<u16> = (0..count).collect();
        if swapped {
            places.swap(0, 1);
        }
        for place in places {
            reorder.push(from(if foreign { 8 } else { 7 }, there.wrapping_add(place)), now, &mut out);
        }
        let mut expected = numbers((0..10).map(|index| first.wrapping_add(index)));
        let is_hole = !foreign && off <= MAX_DROPOUT;
        expected.push(if is_hole { Seen::Lost(off.into()) } else { Seen::Restart });
        expected.extend(numbers((0..count).map(|place| there.wrapping_add(place))));
        prop_assert_eq!(seen(out), expected);
        prop_assert_eq!((reorder.strays(), reorder.late()), (0, 0));
    }
}
