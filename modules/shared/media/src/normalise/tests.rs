use proptest::prelude::*;

use super::*;
use crate::fixture;
use crate::nal::{to_annex_b, to_length_prefixed};

fn avc() -> Track {
    Track::h264(fixture::config_box("bframes.mp4", b"avcC")).unwrap()
}

fn hevc() -> Track {
    Track::h265(fixture::config_box("hevc.mp4", b"hvcC")).unwrap()
}

fn sets(track: &Track) -> Vec<Bytes> {
    match track.codec {
        Codec::H264 => {
            let config = AvcConfig::parse(track.config.clone()).unwrap();
            [config.sps, config.pps].concat()
        }
        _ => HevcConfig::parse(track.config.clone())
            .unwrap()
            .arrays
            .into_iter()
            .flat_map(|a| a.units)
            .collect(),
    }
}

/// Slices of H.264: first_mb_in_slice 0 or 6, slice_type 7 (I) or 5 (P).
const IDR: &[u8] = &[0x65, 0b1000_1000, 0x80, 1, 2, 3];
const I: &[u8] = &[0x41, 0b1000_1000, 0x80, 1, 2, 3];
const P: &[u8] = &[0x41, 0b1001_1000, 1, 2, 3];
const P_MORE: &[u8] = &[0x41, 0b0011_1001, 0b1000_0000, 1];
const RECOVERY: &[u8] = &[0x06, 6, 1, 0xc4, 0x80];
const USER_DATA: &[u8] = &[0x06, 5, 2, 7, 7, 0x80];
const AUD: &[u8] = &[9, 0xf0];
const FILLER: &[u8] = &[12, 0xff, 0xff, 0x80];

fn frame(data: impl Into<Bytes>, is_sync: bool) -> Frame {
    let at = Timestamp::from_millis(40);
    Frame { kind: Kind::Video, dts: at, pts: at, is_sync, data: data.into() }
}

fn prefixed(nals: &[&[u8]], length_size: usize) -> Vec<u8> {
    let length = |nal: &[u8]| u32::try_from(nal.len()).unwrap().to_be_bytes()[4 - length_size..].to_vec();
    nals.iter().flat_map(|nal| [length(nal), nal.to_vec()].concat()).collect()
}

/// A track whose configuration announces other lengths.
fn with_lengths(track: &Track, length_size: u8) -> Track {
    let mut config = track.config.to_vec();
    let at = if track.codec == Codec::H264 { 4 } else { 21 };
    config[at] = config[at] & !3 | (length_size - 1);
    let config = config.into();
    if track.codec == Codec::H264 { Track::h264(config).unwrap() } else { Track::h265(config).unwrap() }
}

fn normal(normaliser: &mut Normaliser, data: Vec<u8>, is_sync: bool) -> Normal {
    let Normalised { track: None, frame: Some(normal), malformed: 0 } =
        normaliser.frame(frame(data, is_sync))
    else {
        panic!("another track, or no frame")
    };
    normal
}

#[test]
fn lengths_of_every_size_and_start_codes_become_four_bytes() {
    let nals = [USER_DATA, IDR];
    let expected = to_length_prefixed(nals).unwrap();
    for size in 1..=4 {
        let mut normaliser = Normaliser::default();
        assert_eq!(normaliser.track(with_lengths(&avc(), size)), avc());
        let got = normal(&mut normaliser, prefixed(&nals, size.into()), true);
        assert_eq!((&got.frame.data[..], got.frame.is_sync), (&expected[..], true), "{size}");
        assert_eq!(normal(&mut normaliser, to_annex_b(nals), true).frame.data, expected, "{size}");
    }
    let mut normaliser = Normaliser::default();
    assert_eq!(normaliser.track(with_lengths(&hevc(), 2)), hevc());
    let idr: &[u8] = &[19 << 1, 1, 0x80, 1, 2];
    assert_eq!(
        normal(&mut normaliser, prefixed(&[idr], 2), true).frame.data,
        to_length_prefixed([idr]).unwrap()
    );
}

#[test]
fn what_is_right_already_is_the_same_memory() {
    let mut normaliser = Normaliser::default();
    normaliser.track(avc());
    let data = Bytes::from(to_length_prefixed([USER_DATA, IDR]).unwrap());
    let got = normaliser.frame(frame(data.clone(), true)).frame.unwrap();
    assert_eq!((got.frame.data.as_ptr(), got.frame.data.len()), (data.as_ptr(), data.len()));
    // What goes in front of a picture is cut off, without a copy.
    let sets = sets(&avc());
    let large = [IDR, &[7; 1000]].concat();
    let data = Bytes::from(to_length_prefixed([AUD, &sets[0], &sets[1], &large, FILLER]).unwrap());
    let got = normaliser.frame(frame(data.clone(), true)).frame.unwrap().frame.data;
    assert_eq!(got, to_length_prefixed([&large[..]]).unwrap());
    assert!(data.as_ptr_range().contains(&got.as_ptr()));
    // From between others it is taken out by copying.
    let data = to_length_prefixed([USER_DATA, &sets[0], &sets[1], IDR]).unwrap();
    assert_eq!(normal(&mut normaliser, data, true).frame.data, to_length_prefixed([USER_DATA, IDR]).unwrap());
}

#[test]
fn a_changed_parameter_set_in_the_stream_is_another_track() {
    for track in [avc(), hevc()] {
        let mut normaliser = Normaliser::default();
        normaliser.track(track.clone());
        let other = match track.codec {
            Codec::H264 => Track::h264(fixture::config_box("interlaced.mp4", b"avcC")).unwrap(),
            _ => Track::h265(fixture::config_box("hevc10.mp4", b"hvcC")).unwrap(),
        };
        let idr: &[u8] = if track.codec == Codec::H264 { IDR } else { &[19 << 1, 1, 0x80, 1, 2] };
        let sets = sets(&other);
        let mut nals: Vec<&[u8]> = sets.iter().map(|set| &set[..]).collect();
        nals.push(idr);
        let data = to_length_prefixed(nals.iter().copied()).unwrap();
        let Normalised { track: Some(changed), frame: Some(normal), malformed: 0 } =
            normaliser.frame(frame(data.clone(), false))
        else {
            panic!("no other track");
        };
        assert_eq!(normal.frame.data, to_length_prefixed([idr]).unwrap());
        assert!(normal.frame.is_sync);
        assert_eq!((changed.video.width, changed.video.height), (other.video.width, other.video.height));
        assert_eq!(changed.codec_string, other.codec_string);
        // The same once more is no news, nor is the header that the source began with.
        assert_eq!(normaliser.frame(frame(data.clone(), false)).track, None);
        assert_eq!(normaliser.track(track.clone()), changed);
    }
}

#[test]
fn a_track_without_a_configuration_gets_it_from_the_stream() {
    let mut normaliser = Normaliser::default();
    let mut bare = Track::other(Codec::H264);
    bare.video.fps = Some(12.5);
    normaliser.track(bare);
    let sets = sets(&avc());
    // In a message of their own, too.
    let alone = normaliser.frame(frame(to_annex_b([&sets[0][..], &sets[1]]), false));
    assert_eq!(alone.frame, None);
    let track = alone.track.unwrap();
    assert_eq!((track.config, track.video), (avc().config, avc().video));
    assert!(normal(&mut normaliser, to_annex_b([IDR]), false).frame.is_sync);
}

#[test]
fn where_decoding_may_start_is_told_by_the_units_not_by_the_flag() {
    let mut normaliser = Normaliser::default();
    normaliser.track(avc());
    let mut is_sync = |nals: &[&[u8]], flag| {
        normal(&mut normaliser, to_length_prefixed(nals.iter().copied()).unwrap(), flag).frame.is_sync
    };
    for flag in [false, true] {
        assert!(is_sync(&[IDR], flag));
        assert!(is_sync(&[RECOVERY, P], flag), "intra refresh");
        assert!(is_sync(&[USER_DATA, RECOVERY, I], flag));
        assert!(!is_sync(&[P], flag));
        assert!(!is_sync(&[USER_DATA, P], flag));
        // A picture of intra slices may follow pictures that later ones refer to: the source has to know.
        assert_eq!(is_sync(&[I], flag), flag);
    }
    let mut normaliser = Normaliser::default();
    normaliser.track(hevc());
    let mut is_sync = |kind: u8, flag| {
        let nal: &[u8] = &[kind << 1, 1, 0x80, 1, 2];
        normal(&mut normaliser, to_length_prefixed([nal]).unwrap(), flag).frame.is_sync
    };
    for flag in [false, true] {
        assert!(is_sync(19, flag) && is_sync(21, flag) && is_sync(16, flag));
        assert!(!is_sync(1, flag) && !is_sync(0, flag));
    }
}

/// Slices by themselves share the time of their picture.
#[test]
fn a_key_picture_whose_slice_header_cannot_be_read_is_one_all_the_same_when_it_has_a_time_of_its_own() {
    for (track, nal) in [(avc(), &[0x65, 0, 0, 0, 0, 0, 0][..]), (hevc(), &[19 << 1, 1, 0, 0, 0])] {
        let mut normaliser = Normaliser::default();
        normaliser.track(track);
        let mut is_sync = |millis| {
            let at = Timestamp::from_millis(millis);
            let data = to_length_prefixed([nal]).unwrap();
            let picture = Frame { kind: Kind::Video, dts: at, pts: at, is_sync: true, data: data.into() };
            normaliser.frame(picture).frame.unwrap().frame.is_sync
        };
        assert!(is_sync(0) && is_sync(40));
        assert!(!is_sync(40), "another slice");
    }
}

#[test]
fn a_slice_that_does_not_begin_a_picture_is_told_apart() {
    let mut normaliser = Normaliser::default();
    normaliser.track(avc());
    let mut picture = |nals: &[&[u8]]| {
        normal(&mut normaliser, to_length_prefixed(nals.iter().copied()).unwrap(), false).picture
    };
    assert_eq!(picture(&[P]), Picture::Begins);
    assert_eq!(picture(&[P, P_MORE]), Picture::Begins);
    assert_eq!(picture(&[P_MORE]), Picture::Continues);
    let mut normaliser = Normaliser::default();
    normaliser.track(hevc());
    let nals: [&[u8]; 1] = [&[1 << 1, 1, 0x10, 1, 2]];
    let data = to_length_prefixed(nals).unwrap();
    assert_eq!(normal(&mut normaliser, data, false).picture, Picture::Continues);
}

#[test]
fn information_in_a_message_of_its_own_joins_the_picture_that_follows() {
    let mut normaliser = Normaliser::default();
    normaliser.track(avc());
    let alone = normaliser.frame(frame(to_length_prefixed([AUD, USER_DATA]).unwrap(), false));
    assert_eq!(alone, Normalised::default());
    let got = normal(&mut normaliser, to_length_prefixed([P]).unwrap(), false);
    assert_eq!(got.frame.data, to_length_prefixed([USER_DATA, P]).unwrap());
    assert_eq!(
        normal(&mut normaliser, to_length_prefixed([P]).unwrap(), false).frame.data.len(),
        4 + P.len()
    );
}

/// Memory that tells whether it is still kept.
struct Watched {
    data: Vec<u8>,
    _alive: std::sync::Arc<()>,
}

impl AsRef<[u8]> for Watched {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

#[test]
fn a_small_picture_does_not_keep_the_filler_around_it_in_memory() {
    let mut normaliser = Normaliser::default();
    normaliser.track(avc());
    let filler = [&[12][..], &[0xff; 100_000]].concat();
    let of_picture = |size: usize| [P, &vec![7; size]].concat();
    for (size, is_kept) in [(20, false), (100_000, false), (400_000, true)] {
        let picture = of_picture(size);
        for nals in [[&picture[..], &filler[..]], [&filler[..], &picture[..]]] {
            let alive = std::sync::Arc::new(());
            let data =
                Bytes::from_owner(Watched { data: to_length_prefixed(nals).unwrap(), _alive: alive.clone() });
            let got = normaliser.frame(frame(data, false)).frame.unwrap();
            assert_eq!(got.frame.data, to_length_prefixed([&picture[..]]).unwrap());
            assert_eq!(std::sync::Arc::strong_count(&alive) > 1, is_kept, "{size}");
        }
    }
}

/// ue(v) with the id, and bytes.
fn pps(id: u32, size: usize) -> Vec<u8> {
    let value = id + 1;
    let bits = 32 - value.leading_zeros();
    // Left-aligned, behind as many zeros as there are bits after the first.
    let code = value << (32 - (2 * bits - 1));
    [&[0x68][..], &code.to_be_bytes(), &vec![0x80; size]].concat()
}

#[test]
fn parameter_sets_beyond_what_is_taken_are_counted_and_left_out() {
    let mut normaliser = Normaliser::default();
    normaliser.track(avc());
    let mut malformed = 0;
    for id in 0..255 {
        let got = normaliser.frame(frame(to_length_prefixed([&pps(id, 6000)[..], P]).unwrap(), false));
        malformed += got.malformed;
        let size = got.track.map_or(0, |track| track.config.len());
        assert!(size <= 70_000, "{size}");
        assert!(got.frame.is_some());
    }
    assert_eq!(malformed, 245);
    // The same once more is known, one in the place of another is news.
    let again = |normaliser: &mut Normaliser, size| {
        let got = normaliser.frame(frame(to_length_prefixed([&pps(3, size)[..], P]).unwrap(), false));
        (got.track.is_some(), got.malformed)
    };
    assert_eq!(again(&mut normaliser, 6000), (false, 0));
    assert_eq!(again(&mut normaliser, 5000), (true, 0));
    // Without a number it is none.
    assert_eq!(
        normaliser.frame(frame(to_length_prefixed([&[0x68, 0, 0][..], P]).unwrap(), false)).malformed,
        1
    );
}

#[test]
fn a_recovery_point_in_a_message_of_its_own_is_that_of_the_picture_that_follows() {
    let mut normaliser = Normaliser::default();
    normaliser.track(avc());
    let alone = normaliser.frame(frame(to_length_prefixed([RECOVERY]).unwrap(), false));
    assert_eq!(alone, Normalised::default());
    let mut is_sync = |millis| {
        let at = Timestamp::from_millis(millis);
        let picture = Frame { dts: at, pts: at, ..frame(to_length_prefixed([P]).unwrap(), false) };
        normaliser.frame(picture).frame.unwrap().frame.is_sync
    };
    assert!(is_sync(40));
    assert!(!is_sync(80), "that picture alone");
}

#[test]
fn information_that_no_picture_follows_is_counted_beyond_its_bound() {
    let mut normaliser = Normaliser::default();
    normaliser.track(avc());
    let large = [USER_DATA, &[7; 40_000]].concat();
    let mut malformed =
        || normaliser.frame(frame(to_length_prefixed([&large[..]]).unwrap(), false)).malformed;
    assert_eq!([malformed(), malformed(), malformed()], [0, 1, 1]);
}

#[test]
fn what_is_not_nal_units_and_other_codecs_pass_as_they_are() {
    let mut normaliser = Normaliser::default();
    normaliser.track(avc());
    for data in [&[][..], &[1, 2, 3], &[0; 8], &[0, 0, 0, 9, 0x65]] {
        let got = normal(&mut normaliser, data.to_vec(), true);
        assert_eq!((&got.frame.data[..], got.frame.is_sync, got.picture), (data, true, Picture::Unknown));
    }
    normaliser.track(Track::other(Codec::Vp9));
    let data = to_length_prefixed([AUD, P]).unwrap();
    assert_eq!(normal(&mut normaliser, data.clone(), true).frame.data, data);
}

proptest! {
    #[test]
    fn any_bytes_are_looked_through(
        frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 1..20),
        size in 1_u8..=4,
        is_hevc: bool,
    ) {
        let mut normaliser = Normaliser::default();
        normaliser.track(with_lengths(&if is_hevc { hevc() } else { avc() }, size));
        for data in frames {
            normaliser.frame(frame(data.clone(), true));
            // Behind a length and behind a start code as well.
            normaliser.frame(frame(prefixed(&[&data], 4), false));
            normaliser.frame(frame(to_annex_b([&data[..]]), false));
        }
    }

    #[test]
    fn units_come_out_as_they_went_in(
        bodies in prop::collection::vec(prop::collection::vec(1_u8.., 0..40), 1..8),
        size in 2_u8..=4,
    ) {
        let mut normaliser = Normaliser::default();
        normaliser.track(with_lengths(&avc(), size));
        let nals: Vec<Vec<u8>> = bodies.iter().map(|body| [P, body].concat()).collect();
        let nals: Vec<&[u8]> = nals.iter().map(Vec::as_slice).collect();
        let got = normal(&mut normaliser, prefixed(&nals, size.into()), false).frame.data;
        prop_assert_eq!(got, to_length_prefixed(nals).unwrap());
    }
}
