use super::*;

fn report() -> SenderReport {
    SenderReport {
        ssrc: 0x0102_0304,
        ntp: Ntp::from_unix(Duration::new(1_800_000_000, 500_000_000)),
        rtp_time: 0xffff_fff0,
        packets: 7,
        octets: 9000,
    }
}

#[test]
fn a_sender_report_is_followed_by_the_name_of_its_source() {
    let compound = sender_report(&report(), "av@gateway");
    assert_eq!(compound[..2], [0x80, 200]);
    assert_eq!(compound.len() % 4, 0);
    let name = Message::Name { ssrc: 0x0102_0304, cname: "av@gateway".into() };
    assert_eq!(parse(&compound), [Message::SenderReport(report()), name]);
}

#[test]
fn who_leaves_says_so_behind_a_report() {
    let messages = parse(&bye(0x0102_0304, "av"));
    assert_eq!(messages.len(), 3);
    assert_eq!(messages[2], Message::Bye(vec![0x0102_0304]));
}

#[test]
fn a_receiver_report_says_what_was_lost_or_only_that_somebody_is_there() {
    let reception = Reception {
        ssrc: 5,
        fraction_lost: 3,
        lost: 70_000,
        highest: 0x0001_0002,
        jitter: 90,
        last_report: 11,
        delay: 65_536,
    };
    let compound = receiver_report(9, Some(&reception), "av");
    assert_eq!(parse(&compound)[0], Message::ReceiverReport(vec![reception]));
    assert_eq!(parse(&receiver_report(9, None, "av"))[0], Message::ReceiverReport(Vec::new()));
}

#[test]
fn a_name_of_any_length_is_cut_where_a_character_ends() {
    let compound = sender_report(&report(), &"ä".repeat(400));
    assert!(matches!(&parse(&compound)[1], Message::Name { cname, .. } if *cname == "ä".repeat(127)));
}

#[test]
fn wall_clock_times_come_out_as_they_went_in_also_beyond_2036() {
    for seconds in [978_307_200, 1_800_000_000, 2_085_978_496, 2_300_000_000] {
        let since = Duration::new(seconds, 123_456_789);
        let back = Ntp::from_unix(since).unix_nanos();
        assert_eq!(u128::try_from(back), Ok(since.as_nanos()));
    }
    for seconds in [978_307_200, 1_800_000_000, 2_300_000_000] {
        assert!(Ntp::from_unix(Duration::from_secs(seconds)).is_plausible());
    }
    for ntp in
        [Ntp(0), Ntp(1), Ntp::from_unix(Duration::ZERO), Ntp::from_unix(Duration::from_secs(86_400 * 365))]
    {
        assert!(!ntp.is_plausible(), "{ntp:?}");
    }
}

#[test]
fn all_tracks_of_a_stream_have_one_wall_clock() {
    let clock = WallClock { stream: Timestamp::from_millis(5000), unix_nanos: 1_800_000_000_000_000_000 };
    let at = |millis| clock.at(Timestamp::from_millis(millis)).unix_nanos();
    assert_eq!(at(5000), 1_800_000_000_000_000_000);
    assert!((at(7250) - at(5000) - 2_250_000_000).abs() <= 1);
    assert!((at(4000) - at(5000) + 1_000_000_000).abs() <= 1);
}

#[test]
fn what_cannot_be_understood_ends_a_compound_and_takes_nothing_with_it() {
    let good = sender_report(&report(), "av");
    for tail in [&[][..], &[0], &[0x80, 200, 0xff, 0xff], &[0x40, 201, 0, 1, 0, 0, 0, 1], &[0x81, 200, 0, 0]]
    {
        assert_eq!(parse(&[&good[..], tail].concat()).len(), 2, "{tail:?}");
    }
    // The smallest that cameras and players send: a receiver report of 8 bytes, or four bytes of anything.
    assert_eq!(parse(&[0x80, 201, 0, 1, 0, 0, 0, 1]), [Message::ReceiverReport(Vec::new())]);
    assert_eq!(parse(&[1, 2, 3, 4]), []);
    assert_eq!(parse(&[0x81, 204, 0, 2, 0, 0, 0, 1, b'n', b'a', b'm', b'e']), [Message::Other(204)]);
}

#[test]
fn reports_go_out_at_once_and_then_every_four_seconds_or_two_while_holding() {
    let mut schedule = ReportSchedule::default();
    let start = Duration::from_secs(100);
    assert!(schedule.is_due(start, false));
    schedule.sent(start);
    let at = |seconds| start + Duration::from_secs(seconds);
    assert_eq!([1, 2, 3, 4].map(|seconds| schedule.is_due(at(seconds), false)), [false, false, false, true]);
    assert_eq!([1, 2].map(|seconds| schedule.is_due(at(seconds), true)), [false, true]);
}
