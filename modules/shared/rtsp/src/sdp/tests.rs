use av_media::aac::AudioConfig;
use av_media::{AudioFormat, Codec, Track};
use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Presentation {
    Presentation::parse(text.as_bytes()).unwrap()
}

fn lone(text: &str) -> Medium {
    parse(&format!("v=0\n{text}")).media.remove(0)
}

fn about() -> About {
    About { name: "one\r\nm=x".into(), id: 7, version: 2 }
}

/// A Baseline SPS of 320x240 and its PPS.
const SPS: [u8; 12] = [0x67, 0x42, 0xc0, 0x0d, 0xda, 0x05, 0x07, 0xe8, 0x40, 0x00, 0x00, 0x03];
const PPS: [u8; 4] = [0x68, 0xce, 0x3c, 0x80];

fn avc() -> Track {
    let sets = |unit: &'static [u8]| vec![Bytes::from_static(unit)];
    let config = av_media::h264::AvcConfig::from_parameter_sets(sets(&SPS), sets(&PPS)).unwrap();
    Track::h264(config.build().unwrap()).unwrap()
}

fn pcm(codec: Codec, sample_rate: u32, channels: u16) -> Track {
    Track { audio: AudioFormat { sample_rate, channels }, ..Track::other(codec) }
}

fn aac() -> Track {
    Track::aac(Bytes::from_static(&[0x11, 0x90])).unwrap()
}

#[test]
fn what_is_written_is_read_by_a_strict_reader_and_by_ours() {
    let opus =
        Track { audio: AudioFormat { sample_rate: 48_000, channels: 2 }, ..Track::opus(None).unwrap() };
    let tracks = [
        avc(),
        aac(),
        opus,
        pcm(Codec::PcmA, 8000, 1),
        pcm(Codec::PcmU, 16_000, 2),
        pcm(Codec::G722, 16_000, 1),
        pcm(Codec::L16, 44_100, 2),
        Track::other(Codec::Mp3),
    ];
    let formats: Vec<_> = tracks.iter().map(|track| Format::of(track).unwrap()).collect();
    let text = Description::new(&about(), &formats).render("rtsp://h/live/one/");
    let strict = sdp_types::Session::parse(&text).unwrap();
    assert_eq!((strict.medias.len(), strict.session_name.as_str()), (8, "onem=x"));
    assert!(strict.connection.is_some_and(|connection| connection.connection_address == "0.0.0.0"));
    assert!(strict.medias.iter().all(|media| media.port == 0));

    let read = Presentation::parse(&text).unwrap();
    for (index, (medium, format)) in read.media.iter().zip(&formats).enumerate() {
        assert_eq!((medium.payload_type, medium.clock_rate), (format.payload_type, format.clock_rate.get()));
        assert_eq!(medium.control, format!("rtsp://h/live/one/trackID={index}"));
        assert!(medium.coding.is_ok(), "{medium:?}");
        assert!(!(72..=76).contains(&medium.payload_type));
    }
    for index in [0, 1, 3, 4, 5, 6] {
        let told = read.media[index].coding.as_ref().unwrap().track();
        assert_eq!(told.as_ref().map(|track| (track.codec, &track.config, track.audio)), {
            let track = &tracks[index];
            Some((track.codec, &track.config, track.audio))
        });
    }
}

#[test]
fn nothing_is_described_without_its_parameter_sets() {
    let sets = |unit: &'static [u8]| vec![Bytes::from_static(unit)];
    let config = av_media::h264::AvcConfig::from_parameter_sets(sets(&SPS), vec![]).unwrap();
    let no_pps = Track::h264(config.build().unwrap()).unwrap();
    for track in [no_pps, Track::other(Codec::H264), Track::other(Codec::H265), Track::other(Codec::Aac)] {
        assert_eq!(Format::of(&track), Err(NotCarried::NoParameterSets), "{track:?}");
    }
    assert_eq!(Format::of(&Track::other(Codec::Flac)), Err(NotCarried::Codec(Codec::Flac)));
    let fmtp = Format::of(&avc()).unwrap().fmtp.unwrap();
    assert!(fmtp.contains("profile-level-id=42c00d;sprop-parameter-sets=Z0L"), "{fmtp}");
}

/// ffmpeg 5.1, `-f rtsp`.
#[test]
fn the_announcement_of_ffmpeg_is_read() {
    let read = parse(
        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=No Name\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
         a=tool:libavformat 59.27.100\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n\
         a=fmtp:96 packetization-mode=1; sprop-parameter-sets=Z0LADdoFB+hAAAAD,aM48gA==; profile-level-id=42C00D\r\n\
         a=control:streamid=0\r\nm=audio 0 RTP/AVP 97\r\nb=AS:128\r\na=rtpmap:97 MPEG4-GENERIC/48000/2\r\n\
         a=fmtp:97 profile-level-id=1;mode=AAC-hbr;sizelength=13;indexlength=3;indexdeltalength=3; config=1190\r\n\
         a=control:streamid=1\r\n",
    );
    let (index, medium, coding) = read.first(Kind::Video).unwrap();
    assert_eq!((index, medium.control.as_str()), (0, "streamid=0"));
    assert_eq!(
        coding,
        &Coding::H264 { sps: vec![Bytes::from_static(&SPS)], pps: vec![Bytes::from_static(&PPS)] }
    );
    assert_eq!(coding.track().map(|track| track.config), Some(avc().config));
    let (_, _, coding) = read.first(Kind::Audio).unwrap();
    assert_eq!(coding.track(), Some(aac()));
}

#[test]
fn the_only_fmtp_counts_whatever_payload_type_it_names() {
    let medium = lone(
        "m=audio 0 RTP/AVP 104\na=rtpmap:104 mpeg4-generic/16000/1\n\
         a=fmtp:97 profile-level-id=15;mode=AAC-hbr;sizelength=13;indexlength=3;indexdeltalength=3;config=1408",
    );
    let Ok(Coding::Aac { config, .. }) = medium.coding else { panic!("{medium:?}") };
    assert_eq!(&config[..], [0x14, 0x08]);
}

#[test]
fn a_missing_aac_configuration_is_made_of_rate_and_channels() {
    let medium = lone("m=audio 0 RTP/AVP 97\na=rtpmap:97 mpeg4-generic/44100/2\na=fmtp:97 mode=AAC-hbr");
    let Ok(Coding::Aac { config, size_length: 13, index_length: 3, .. }) = medium.coding else {
        panic!("{medium:?}")
    };
    let config = AudioConfig::parse(&config).unwrap();
    assert_eq!((config.object_type, config.sample_rate, config.channel_config), (2, 44_100, 2));
}

#[test]
fn latm_is_read_where_its_configuration_is_told() {
    let medium =
        |fmtp| lone(&format!("m=audio 0 RTP/AVP 97\na=rtpmap:97 MP4A-LATM/44100/2\na=fmtp:97 {fmtp}"));
    let Ok(Coding::Latm { config }) = medium("cpresent=0; config=400024203fc0").coding else { panic!() };
    let config = AudioConfig::parse(&config).unwrap();
    assert_eq!((config.object_type, config.sample_rate, config.channel_config), (2, 44_100, 2));
    for fmtp in ["cpresent=0", "config=400024203fc0", "cpresent=0;config=c0", "cpresent=0;config=zz"] {
        assert!(medium(fmtp).coding.is_err(), "{fmtp}");
    }
}

#[test]
fn static_payload_types_need_no_rtpmap() {
    let coding = |payload_type| lone(&format!("m=audio 0 RTP/AVP {payload_type}")).coding;
    let mono = |sample_rate| AudioFormat { sample_rate, channels: 1 };
    assert_eq!(coding(0), Ok(Coding::PcmU { audio: mono(8000) }));
    assert_eq!(coding(8), Ok(Coding::PcmA { audio: mono(8000) }));
    assert_eq!(coding(9), Ok(Coding::G722 { channels: 1 }));
    assert_eq!(coding(14), Ok(Coding::Mpa));
    assert_eq!(coding(97), Err(LeftAside::NoRtpMap("97".into())));
    let both = lone("m=audio 0 RTP/AVP 97 8\na=rtpmap:97 G726-32/8000");
    assert_eq!((both.payload_type, both.coding.is_ok()), (8, true));
}

#[test]
fn what_can_t_be_read_is_left_aside_with_a_reason_and_the_rest_goes_on() {
    let read = parse(
        "v=0\nm=application 0 RTP/AVP 107\na=rtpmap:107 vnd.onvif.metadata/90000\n\
         m=video 0 RTP/SAVP 96\na=rtpmap:96 H264/90000\n\
         m=video 0 RTP/AVP 26\n\
         m=video 0 RTP/AVP 96\na=rtpmap:96 H264/90000\na=fmtp:96 packetization-mode=2\n\
         m=video 0 RTP/AVP 96\na=rtpmap:96 H265/90000\na=fmtp:96 sprop-max-don-diff=1\n\
         m=video 0 RTP/AVP 96\na=rtpmap:96 H264/90000\na=sendonly\n\
         m=audio 0 RTP/AVP 97\na=rtpmap:97 mpeg4-generic/44100\na=fmtp:97 mode=CELP-vbr\n",
    );
    let why: Vec<_> = read.media.iter().map(|medium| medium.coding.is_ok()).collect();
    assert_eq!(why, [false, false, false, false, false, true, false]);
    let (index, medium, _) = read.first(Kind::Video).unwrap();
    assert_eq!((index, medium.direction), (5, Some(Direction::Send)));
    assert!(read.first(Kind::Audio).is_none());
    let text = read.media[0].coding.as_ref().unwrap_err().to_string();
    assert_eq!(text, "application is neither video nor audio");
}

#[test]
fn lines_that_are_repeated_missing_or_broken_do_no_harm() {
    let read = parse(
        "\n o=- 1\no=x\ns=a\ns=b\nc=IN IP4\nt=now\nb=AS\nm=video 99999/x RTP/AVP 96 \n i=x\ni=y\na=rtpmap:96  H264/90000 \n\
         a=\na=control:  track1\nm=broken\nk=\0",
    );
    assert_eq!((read.name.as_str(), read.media.len()), ("a", 1));
    assert_eq!((read.media[0].control.as_str(), read.media[0].payload_type), ("track1", 96));
    assert_eq!(Presentation::parse(b"hello"), Err(SdpError::NoMedia));
}

#[test]
fn parameter_sets_with_start_codes_zeros_or_bad_base64_are_cleaned() {
    // 00 00 00 01 in front, two zeros behind; no padding; one that is no base64.
    let medium = lone(
        "m=video 0 RTP/AVP 96\na=rtpmap:96 H264/90000\n\
         a=fmtp:96 sprop-parameter-sets=AAAAAWdCwA3aBQfoQAAAAwAA,aM48gA,!!,",
    );
    assert_eq!(
        medium.coding,
        Ok(Coding::H264 { sps: vec![Bytes::from_static(&SPS)], pps: vec![Bytes::from_static(&PPS)] })
    );
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "(([a-z]=)?[ -~]{0,40}\r?\n){0,30}") {
        let _ = Presentation::parse(text.as_bytes());
        let _ = Presentation::parse(format!("v=0\nm=audio 0 RTP/AVP 97\na=rtpmap:97 MP4A-LATM/1\n{text}").as_bytes());
    }

    #[test]
    fn no_parameters_make_it_panic(fmtp in "[a-z-]{0,12}(=[0-9a-zA-Z+/,=;-]{0,40};?){0,8}", config in "[0-9a-f]{0,32}") {
        for encoding in ["H264", "H265", "mpeg4-generic/8000/2", "MP4A-LATM/1", "opus"] {
            let text = format!("v=0\nm=audio 0 RTP/AVP 96\na=rtpmap:96 {encoding}\n\
                a=fmtp:96 cpresent=0;config={config};sprop-parameter-sets=Z0L;sprop-sps=QgE;{fmtp}");
            if let Ok(coding) = &parse(&text).media[0].coding {
                let _ = coding.track();
            }
        }
    }
}
