use super::*;
use proptest::prelude::*;

/// x264 at 160x90, High, B-pyramid: the `avcC` of testdata/bframes.mp4.
fn x264_config() -> Bytes {
    crate::fixture::config_box("bframes.mp4", b"avcC")
}

/// x264 at 1920x1080i, 30000/1001 frames: the `avcC` of testdata/interlaced.mp4.
fn interlaced_config() -> Bytes {
    crate::fixture::config_box("interlaced.mp4", b"avcC")
}

#[test]
fn a_codec_string_is_of_the_sps_where_the_record_says_something_else() {
    let config = AvcConfig::parse(x264_config()).unwrap();
    let wrong = AvcConfig { profile: 66, compatibility: 0xc0, level: 10, ..config };
    assert_eq!(wrong.codec_string(), "avc1.64000b");
    assert_eq!(AvcConfig { sps: Vec::new(), ..wrong }.codec_string(), "avc1.42c00a");
}

#[test]
fn an_x264_record_tells_profile_size_rate_and_reordering() {
    let config = AvcConfig::parse(x264_config()).unwrap();
    assert_eq!(config.codec_string(), "avc1.64000b");
    assert_eq!(config.length_size, 4);
    assert_eq!((config.sps.len(), config.pps.len()), (1, 1));
    assert_eq!(nal_type(&config.sps[0]), NAL_SPS);
    assert_eq!(nal_type(&config.pps[0]), NAL_PPS);

    let sps = config.first_sps().unwrap();
    assert_eq!((sps.width, sps.height), (160, 90));
    assert_eq!((sps.profile, sps.level), (100, 11));
    assert_eq!((sps.chroma_format, sps.bit_depth_luma, sps.bit_depth_chroma), (1, 8, 8));
    assert_eq!(sps.fps, Some(25.0));
    assert!(!sps.interlaced);
    assert_eq!(sps.declared_reorder_frames, Some(2));
    assert_eq!(sps.reorder_frames(), 2);
}

#[test]
fn interlaced_1080_lines_are_cropped_from_1088() {
    let sps = AvcConfig::parse(interlaced_config()).unwrap().first_sps().unwrap();
    assert_eq!((sps.width, sps.height), (1920, 1080));
    assert!(sps.interlaced);
    assert_eq!(sps.fps, Some(30_000.0 / 1001.0));
    assert_eq!(sps.reorder_frames(), 0);
}

#[test]
fn a_camera_sps_without_timing_leaves_the_rate_unknown() {
    // Baseline 3.0, 640x480, no VUI.
    let sps = Sps::parse(&[0x67, 0x42, 0x00, 0x1e, 0xf4, 0x05, 0x01, 0xe8, 0x80]).unwrap();
    assert_eq!((sps.width, sps.height, sps.fps), (640, 480, None));
    assert_eq!(sps.reorder_frames(), 0);
}

#[test]
fn without_a_declared_depth_the_whole_picture_buffer_may_reorder() {
    let mut sps = AvcConfig::parse(x264_config()).unwrap().first_sps().unwrap();
    sps.declared_reorder_frames = None;
    // Level 1.1 holds 900 macroblocks: fifteen pictures of 10x6.
    assert_eq!(sps.reorder_frames(), 15);
    sps.poc_type = 2;
    assert_eq!(sps.reorder_frames(), 0);
}

#[test]
fn an_sps_cut_in_its_vui_still_tells_the_size() {
    let config = AvcConfig::parse(x264_config()).unwrap();
    let whole = config.sps[0].clone();
    let cut = Sps::parse(&whole[..whole.len() - 8]).unwrap();
    assert_eq!((cut.width, cut.height), (160, 90));
    assert_eq!(cut.declared_reorder_frames, None);
}

#[test]
fn a_record_is_built_from_parameter_sets_as_x264_builds_it() {
    let config = AvcConfig::parse(x264_config()).unwrap();
    let built = AvcConfig::from_parameter_sets(config.sps.clone(), config.pps.clone()).unwrap();
    assert_eq!(built.build().unwrap(), x264_config());
}

#[test]
fn lengths_that_overrun_a_record_are_refused() {
    let record = x264_config();
    for length in 0..8 + 25 {
        assert!(
            matches!(AvcConfig::parse(record.slice(..length)), Err(MediaError::Truncated { .. })),
            "{length} bytes"
        );
    }
    let mut version = record.to_vec();
    version[0] = 2;
    assert_eq!(AvcConfig::parse(version.into()), Err(MediaError::Version { what: "avcC", found: 2 }));
}

#[test]
fn an_idr_is_found_behind_other_units() {
    let sei_and_idr = [0, 0, 0, 2, 0x06, 0x05, 0, 0, 0, 1, 0x65];
    let delta = [0, 0, 0, 2, 0x41, 0x65];
    assert!(is_idr(&sei_and_idr, 4));
    assert!(!is_idr(&delta, 4));
}

proptest! {
    #[test]
    fn a_record_survives_a_round_trip(
        fields: [u8; 3],
        length_size in 1_u8..=4,
        sps in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..32),
        pps in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..40),
        extension: Vec<u8>,
    ) {
        let config = AvcConfig {
            profile: fields[0],
            compatibility: fields[1],
            level: fields[2],
            length_size,
            sps: sps.into_iter().map(Bytes::from).collect(),
            pps: pps.into_iter().map(Bytes::from).collect(),
            extension: extension.into(),
        };
        prop_assert_eq!(AvcConfig::parse(config.build().unwrap()).unwrap(), config);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
        let _ = Sps::parse(&bytes).map(|sps| sps.reorder_frames());
        let _ = AvcConfig::parse(bytes.into());
    }
}

#[test]
fn an_sps_with_any_bit_flipped_is_read_without_a_panic() {
    let sps = AvcConfig::parse(interlaced_config()).unwrap().sps[0].to_vec();
    for bit in 0..sps.len() * 8 {
        let mut mutant = sps.clone();
        mutant[bit / 8] ^= 1 << (bit % 8);
        if let Ok(sps) = Sps::parse(&mutant) {
            assert!(sps.width <= 65_536 && sps.height <= 131_072);
            assert!(sps.reorder_frames() <= 16);
        }
    }
}
