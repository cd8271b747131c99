use super::*;

#[test]
fn an_svt_av1_record_tells_codec_string_and_size() {
    let config = Av1Config::parse(crate::fixture::config_box("av1.mp4", b"av1C")).unwrap();
    assert_eq!(config.codec_string(), "av01.0.00M.08");
    assert_eq!(config.size, Some((160, 90)));
}

#[test]
fn tier_and_depth_are_named() {
    // Profile 1, level 13, High tier, 12 bits; no sequence header.
    let config = Av1Config::parse(Bytes::from_static(&[0x81, 0x2d, 0xe0, 0])).unwrap();
    assert_eq!(config.codec_string(), "av01.1.13H.12");
    assert_eq!(config.size, None);
}

#[test]
fn the_sequence_header_counts_where_the_fields_in_front_of_it_say_something_else() {
    let record = crate::fixture::config_box("av1.mp4", b"av1C");
    // Profile 1, level 13, High tier, 12 bits.
    let wrong = Bytes::from([&[0x81, 0x2d, 0xe0, 0], &record[4..]].concat());
    assert_eq!(Av1Config::parse(wrong.clone()).unwrap(), Av1Config::parse(record.clone()).unwrap());
    assert_eq!(crate::Track::av1(wrong.clone()).unwrap().codec_string, "av01.0.00M.08");
    // One that ends early says nothing of depth and tier.
    let cut = Av1Config::parse(wrong.slice(..wrong.len() - 4)).unwrap();
    assert_eq!(cut.codec_string(), "av01.1.13H.12");
}

#[test]
fn a_record_that_is_cut_is_refused_and_a_cut_sequence_header_is_not() {
    let record = crate::fixture::config_box("av1.mp4", b"av1C");
    assert!(Av1Config::parse(record.slice(..3)).is_err());
    for length in 4..record.len() - 2 {
        let config = Av1Config::parse(record.slice(..length)).unwrap();
        assert_eq!(config.codec_string(), "av01.0.00M.08");
    }
}

#[test]
fn a_record_made_of_a_sequence_header_is_the_encoders_own() {
    let record = crate::fixture::config_box("av1.mp4", b"av1C");
    assert_eq!(Av1Config::from_sequence_header(&record[4..]).unwrap(), record);
    for cut in 4..record.len() {
        // It is read or refused, wherever it ends.
        let _ = Av1Config::from_sequence_header(&record[4..cut]);
    }
    assert!(Av1Config::from_sequence_header(&[0x12, 0]).is_err());
}
