use super::*;
use proptest::prelude::*;

/// x265 at 160x90, Main, B-pyramid: the `hvcC` of testdata/hevc.mp4.
fn main_config() -> Bytes {
    crate::fixture::config_box("hevc.mp4", b"hvcC")
}

/// The same in Main 10, without B-frames: the `hvcC` of testdata/hevc10.mp4.
fn main10_config() -> Bytes {
    crate::fixture::config_box("hevc10.mp4", b"hvcC")
}

#[test]
fn an_x265_record_tells_profile_size_rate_and_reordering() {
    let config = HevcConfig::parse(main_config()).unwrap();
    assert_eq!(config.codec_string(), "hvc1.1.6.L30.90");
    assert_eq!(config.length_size, 4);

    let sps = config.first_sps().unwrap();
    assert_eq!((sps.width, sps.height), (160, 90));
    assert_eq!((sps.chroma_format, sps.bit_depth_luma, sps.bit_depth_chroma), (1, 8, 8));
    assert_eq!(sps.profile, config.profile);
    assert_eq!(sps.reorder_frames, 2);
    assert_eq!(sps.fps, Some(25.0));

    let vps = config.first_vps().unwrap();
    assert_eq!(vps.profile, config.profile);
    assert_eq!(vps.temporal_layers, 1);
}

#[test]
fn main_10_has_ten_bits() {
    let config = HevcConfig::parse(main10_config()).unwrap();
    assert_eq!(config.codec_string(), "hvc1.2.4.L30.90");
    let sps = config.first_sps().unwrap();
    assert_eq!((sps.bit_depth_luma, sps.bit_depth_chroma), (10, 10));
    assert_eq!((config.bit_depth_luma, config.bit_depth_chroma), (10, 10));
}

#[test]
fn a_codec_string_is_of_the_sps_where_the_record_says_something_else() {
    let config = HevcConfig::parse(main10_config()).unwrap();
    let wrong = ProfileTierLevel {
        high_tier: true,
        profile: 1,
        compatibility: 0x6000_0000,
        constraints: [0xb0, 0, 0, 0, 0, 0],
        level: 153,
        ..config.profile
    };
    let wrong = HevcConfig { profile: wrong, ..config };
    assert_eq!(wrong.codec_string(), "hvc1.2.4.L30.90");
    let record = wrong.build().unwrap();
    assert_eq!(crate::Track::h265(record).unwrap().codec_string, "hvc1.2.4.L30.90");
    // Of an SPS that ends behind its level, that much counts; with its parameters in the stream, the record does.
    let with = |sps: Bytes| {
        let sps = NalArray { complete: true, nal_type: NAL_SPS, units: vec![sps] };
        HevcConfig { arrays: vec![sps], ..wrong.clone() }.codec_string()
    };
    let sps = wrong.units(NAL_SPS).next().unwrap();
    let level = sps.windows(2).position(|two| two == [0, 30]).unwrap() + 2;
    assert_eq!(with(sps.slice(..level)), "hvc1.2.4.L30.90");
    assert_eq!(with(sps.slice(..level - 1)), "hvc1.1.6.H153.B0");
    assert_eq!(HevcConfig { arrays: Vec::new(), ..wrong }.codec_string(), "hvc1.1.6.H153.B0");
}

#[test]
fn the_codec_string_leaves_out_zero_constraints_and_names_tier_and_space() {
    let profile = ProfileTierLevel {
        space: 1,
        high_tier: true,
        profile: 4,
        compatibility: 0x1000_0000,
        constraints: [0xb0, 0, 0x10, 0, 0, 0],
        level: 123,
    };
    assert_eq!(profile.codec_parameters(), "A4.8.H123.B0.0.10");
    let plain = ProfileTierLevel { profile: 1, compatibility: 0x6000_0000, level: 93, ..Default::default() };
    assert_eq!(plain.codec_parameters(), "1.6.L93");
}

#[test]
fn a_record_built_from_parameter_sets_says_the_same_of_the_stream() {
    let config = HevcConfig::parse(main10_config()).unwrap();
    let units = |kind| config.units(kind).cloned().collect::<Vec<_>>();
    let built = HevcConfig::from_parameter_sets(units(NAL_VPS), units(NAL_SPS), units(NAL_PPS)).unwrap();
    let read = HevcConfig::parse(built.build().unwrap()).unwrap();
    assert_eq!(read, built);
    assert_eq!(read.codec_string(), config.codec_string());
    assert_eq!(read.first_sps(), config.first_sps());
}

#[test]
fn lengths_that_overrun_a_record_are_refused() {
    let record = main_config();
    for length in 0..record.len() {
        assert!(
            matches!(HevcConfig::parse(record.slice(..length)), Err(MediaError::Truncated { .. })),
            "{length} bytes"
        );
    }
}

#[test]
fn a_random_access_picture_is_found_behind_other_units() {
    let sei_and_cra = [0, 0, 0, 2, 39 << 1, 1, 0, 0, 0, 2, 21 << 1, 1];
    let trailing = [0, 0, 0, 2, 1 << 1, 1];
    assert!(is_irap(&sei_and_cra, 4));
    assert!(!is_irap(&trailing, 4));
}

#[test]
fn parameter_sets_with_any_bit_flipped_are_read_without_a_panic() {
    let config = HevcConfig::parse(main_config()).unwrap();
    for kind in [NAL_VPS, NAL_SPS] {
        let unit = config.units(kind).next().unwrap().to_vec();
        for bit in 0..unit.len() * 8 {
            let mut mutant = unit.clone();
            mutant[bit / 8] ^= 1 << (bit % 8);
            let _ = Vps::parse(&mutant);
            if let Ok(sps) = Sps::parse(&mutant) {
                assert!(sps.width <= 65_536 && sps.height <= 65_536 && sps.reorder_frames <= 15);
            }
        }
    }
}

proptest! {
    #[test]
    fn a_record_survives_a_round_trip(
        profile: [u8; 12],
        numbers in (0_u16..0x1000, 0_u8..4, 0_u8..4, 8_u8..16, 8_u8..16),
        rate: u16,
        layers in (0_u8..4, 0_u8..8, any::<bool>(), 1_u8..=4),
        arrays in prop::collection::vec(
            (any::<bool>(), 0_u8..64, prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..4)),
            0..6,
        ),
    ) {
        let config = HevcConfig {
            profile: ProfileTierLevel::from_record(profile),
            min_spatial_segmentation: numbers.0,
            parallelism: numbers.1,
            chroma_format: numbers.2,
            bit_depth_luma: numbers.3,
            bit_depth_chroma: numbers.4,
            average_frame_rate: rate,
            constant_frame_rate: layers.0,
            temporal_layers: layers.1,
            temporal_id_nested: layers.2,
            length_size: layers.3,
            arrays: arrays
                .into_iter()
                .map(|(complete, nal_type, units)| NalArray {
                    complete,
                    nal_type,
                    units: units.into_iter().map(Bytes::from).collect(),
                })
                .collect(),
        };
        prop_assert_eq!(HevcConfig::parse(config.build().unwrap()).unwrap(), config);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
        let _ = (Sps::parse(&bytes), Vps::parse(&bytes));
        let _ = HevcConfig::parse(bytes.into());
    }
}
