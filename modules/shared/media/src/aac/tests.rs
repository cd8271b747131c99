use super::*;
use proptest::prelude::*;

fn lc(sample_rate: u32, channel_config: u8) -> AudioConfig {
    AudioConfig {
        object_type: LC,
        sample_rate,
        channel_config,
        program_channels: 0,
        short_frames: false,
        extension: None,
    }
}

#[test]
fn the_usual_two_bytes_are_low_complexity() {
    let config = AudioConfig::parse(&[0x11, 0x90]).unwrap();
    assert_eq!(config, lc(48_000, 2));
    assert_eq!(config.codec_string(), "mp4a.40.2");
    assert_eq!(AudioConfig::parse(&[0x12, 0x10]).unwrap(), lc(44_100, 2));
    assert_eq!(lc(48_000, 2).build().unwrap()[..], [0x11, 0x90]);
}

#[test]
fn sbr_in_front_doubles_the_rate() {
    // Object type 5, 24 kHz, stereo, extension 48 kHz, object type 2.
    let config = AudioConfig::parse(&[0x2b, 0x11, 0x88, 0x00]).unwrap();
    assert_eq!((config.object_type, config.sample_rate), (LC, 24_000));
    assert_eq!((config.output_rate(), config.output_channels()), (48_000, 2));
    assert_eq!(config.codec_string(), "mp4a.40.5");
}

#[test]
fn ps_in_front_makes_stereo_of_mono() {
    // Object type 29, 22.05 kHz, mono, extension 44.1 kHz, object type 2.
    let config = AudioConfig::parse(&[0xeb, 0x8a, 0x08, 0x00]).unwrap();
    assert_eq!((config.output_rate(), config.output_channels()), (44_100, 2));
    assert_eq!(config.codec_string(), "mp4a.40.29");
}

#[test]
fn sbr_and_ps_behind_an_old_config_are_found() {
    let extension = Extension { sample_rate: 48_000, ps: true, hierarchical: false };
    let config = AudioConfig { extension: Some(extension), ..lc(24_000, 1) };
    let bytes = config.build().unwrap();
    assert_eq!(bytes[..], [0x13, 0x08, 0x56, 0xe5, 0x9d, 0x48, 0x80]);
    assert_eq!(AudioConfig::parse(&bytes).unwrap(), config);
    assert_eq!(config.output_channels(), 2);
}

#[test]
fn the_sync_extension_that_says_no_sbr_is_no_sbr() {
    // What ffmpeg's encoder writes: 48 kHz mono and 56 e5 00.
    let config = AudioConfig::parse(&[0x11, 0x88, 0x56, 0xe5, 0x00]).unwrap();
    assert_eq!(config, lc(48_000, 1));
}

#[test]
fn a_frequency_outside_the_table_is_written_out() {
    let bytes = lc(50_000, 2).build().unwrap();
    assert_eq!(AudioConfig::parse(&bytes).unwrap(), lc(50_000, 2));
    assert_eq!(bytes.len(), 5);
}

#[test]
fn a_program_config_element_tells_the_channels() {
    let mut bits = BitWriter::default();
    bits.bits(5, LC.into());
    bits.bits(4, 3); // 48 kHz
    bits.bits(4, 0); // channels follow
    bits.bits(3, 0); // frame length, core coder, extension
    bits.bits(4 + 2 + 4, 0);
    bits.bits(4, 2); // front: a centre and a pair
    bits.bits(4, 0);
    bits.bits(4, 1); // back: a pair
    bits.bits(2, 1); // low frequency
    bits.bits(3 + 4, 0);
    bits.bits(3, 0); // no mixdown
    for pair in [0, 1, 1] {
        bits.bits(1, pair);
        bits.bits(4, 0);
    }
    bits.bits(4, 0);
    bits.bits(7, 0); // to the next byte
    bits.bits(8, 0); // no comment
    let config = AudioConfig::parse(&bits.finish()).unwrap();
    assert_eq!(config.output_channels(), 6);

    let cut = AudioConfig::parse(&[0x11, 0x80]).unwrap();
    assert_eq!((cut.output_rate(), cut.output_channels()), (48_000, 0));
}

#[test]
fn a_config_without_rate_or_channels_is_refused() {
    assert!(AudioConfig::parse(&[]).is_err());
    assert!(AudioConfig::parse(&[0x11]).is_err());
}

#[test]
fn an_adts_header_describes_the_frame_behind_it() {
    // 44.1 kHz stereo LC, 7 + 364 bytes.
    let header = AdtsHeader::parse(&[0xff, 0xf1, 0x50, 0x80, 0x2e, 0x7f, 0xfc]).unwrap();
    assert_eq!((header.header_length, header.frame_length, header.blocks), (7, 371, 1));
    assert_eq!(header.config(), lc(44_100, 2));
}

#[test]
fn adts_refuses_what_it_cannot_say() {
    assert!(AdtsHeader::for_frame(&lc(50_000, 2), 100).is_err());
    assert!(AdtsHeader::for_frame(&lc(48_000, 12), 100).is_err());
    assert!(AdtsHeader::for_frame(&AudioConfig { object_type: 42, ..lc(48_000, 2) }, 100).is_err());
    assert!(AdtsHeader::for_frame(&lc(48_000, 2), 8185).is_err());
    assert!(AdtsHeader::parse(&[0x12; 7]).is_err());
    // A frame shorter than its header.
    assert!(AdtsHeader::parse(&[0xff, 0xf1, 0x50, 0x80, 0x00, 0x7f, 0xfc]).is_err());
}

fn rate() -> impl Strategy<Value = u32> {
    prop_oneof![prop::sample::select(&RATES[..]), 1..0x0100_0000_u32]
}

proptest! {
    #[test]
    fn a_config_survives_a_round_trip(
        object_type in prop::sample::select(&[1_u8, 2, 3, 4, 7, 21][..]),
        rates in (rate(), rate()),
        channel_config in 1_u8..16,
        short_frames: bool,
        extension in prop::option::of((any::<bool>(), any::<bool>())),
    ) {
        let extension = extension
            .map(|(ps, hierarchical)| Extension { sample_rate: rates.1, ps, hierarchical })
            // epConfig of the error resilient types is not written.
            .filter(|extension| extension.hierarchical || object_type < 17);
        let config = AudioConfig {
            object_type,
            sample_rate: rates.0,
            channel_config,
            program_channels: 0,
            short_frames,
            extension,
        };
        prop_assert_eq!(AudioConfig::parse(&config.build().unwrap()).unwrap(), config);
    }

    #[test]
    fn an_adts_header_survives_a_round_trip(
        object_type in 1_u8..=4,
        sample_rate in prop::sample::select(&RATES[..]),
        channel_config in 0_u8..8,
        payload in 0_usize..8185,
    ) {
        let config = AudioConfig { object_type, ..lc(sample_rate, channel_config) };
        let header = AdtsHeader::for_frame(&config, payload).unwrap();
        prop_assert_eq!(AdtsHeader::parse(&header.build()).unwrap(), header);
        prop_assert_eq!(header.config(), config);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
        let _ = AdtsHeader::parse(&bytes);
        let _ = AudioConfig::parse(&bytes).map(|config| (config.output_channels(), config.codec_string()));
    }
}
