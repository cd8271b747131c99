use mp4_atom::{Codec as Entry, Decode, DecodeMaybe, Moof, Moov};
use proptest::prelude::*;

use super::*;
use crate::aac::AudioConfig;
use crate::fixture::{clip, stream_of};

pub(in crate::mp4::write) const CLIPS: [&str; 6] =
    ["bframes.mp4", "hevc.mp4", "hevc10.mp4", "opus.mp4", "aac44100.mp4", "av1.mp4"];

/// Pieces of so many frames, each with the time at which the picture after it is decoded.
pub(in crate::mp4::write) fn pieces(frames: &[Frame], size: usize) -> Vec<(&[Frame], Option<Timestamp>)> {
    let next = |at: usize| frames[at..].iter().find(|frame| frame.kind == Kind::Video).map(|frame| frame.dts);
    let chunks = frames.chunks(size).enumerate();
    chunks.map(|(index, piece)| (piece, next((index * size + piece.len()).min(frames.len())))).collect()
}

/// The init segment and all fragments as one file.
fn written(tracks: &[Track], frames: &[Frame], size: usize) -> (Vec<u8>, Vec<Fragment>) {
    let origin = frames.iter().map(|frame| frame.dts).min().unwrap();
    let mut writer = FragmentWriter::new(tracks, origin).unwrap();
    let mut file = writer.init().to_vec();
    let mut fragments = Vec::new();
    for (piece, end) in pieces(frames, size) {
        let fragment = writer.fragment(piece, end).unwrap().unwrap();
        let before = file.len();
        fragment.pieces().for_each(|piece| file.extend_from_slice(piece));
        assert_eq!((file.len() - before) as u64, fragment.size);
        fragments.push(fragment);
    }
    (file, fragments)
}

fn moov_of(file: &[u8]) -> Moov {
    let mut file = file;
    mp4_atom::Ftyp::decode(&mut file).unwrap();
    Moov::decode(&mut file).unwrap()
}

/// Frames of one kind with times from the first one on, in ticks of `rate`.
pub(in crate::mp4::write) fn relative(
    frames: &[Frame],
    kind: Kind,
    rate: NonZeroU32,
) -> Vec<(i64, i64, bool, Bytes)> {
    let own: Vec<&Frame> = frames.iter().filter(|frame| frame.kind == kind).collect();
    let first = own.first().map_or(0, |frame| frame.dts.ticks(rate));
    own.iter()
        .map(|f| (f.dts.ticks(rate) - first, f.pts.ticks(rate) - first, f.is_sync, f.data.clone()))
        .collect()
}

#[test]
fn what_is_written_is_read_back_frame_by_frame() {
    for name in CLIPS {
        let (tracks, frames) = stream_of(clip(name));
        for size in [1, 7, 40, frames.len()] {
            let (file, _) = written(&tracks, &frames, size);
            let (read, back) = stream_of(file);
            for (read, track) in read.iter().zip(&tracks) {
                assert_eq!((read.codec, &read.codec_string), (track.codec, &track.codec_string), "{name}");
                assert_eq!((read.video, read.audio), (track.video, track.audio), "{name}");
            }
            for kind in [Kind::Video, Kind::Audio] {
                let rate = tracks.iter().find(|track| track.kind() == kind).map(|t| t.audio.sample_rate);
                let rate = NonZeroU32::new(rate.unwrap_or(0)).unwrap_or(NonZeroU32::new(90_000).unwrap());
                let (was, is) = (relative(&frames, kind, rate), relative(&back, kind, rate));
                assert_eq!(was.len(), is.len(), "{name} in {size}");
                for (was, is) in was.iter().zip(&is) {
                    assert_eq!(was, is, "{name} in pieces of {size}");
                }
            }
        }
    }
}

#[test]
fn a_record_that_says_something_else_than_its_parameter_sets_is_written_as_they_say() {
    // Profile, tier and level stand in the first bytes of each; all bits are flipped, but not a version's.
    for (name, kind, fields) in [
        ("bframes.mp4", b"avcC", [1, 2, 3].as_slice()),
        ("hevc10.mp4", b"hvcC", &[1, 2, 5, 6, 12]),
        ("av1.mp4", b"av1C", &[1, 2]),
    ] {
        let (tracks, frames) = stream_of(clip(name));
        let init = |tracks: &[Track]| FragmentWriter::new(tracks, frames[0].dts).unwrap().init();
        let mut lies = tracks.clone();
        let mut config = lies[0].config.to_vec();
        fields.iter().for_each(|&at| config[at] ^= 0xff);
        lies[0].config = config.into();
        let (right, written) = (init(&tracks), init(&lies));
        assert!(right == written, "{}", String::from_utf8_lossy(kind));
    }
}

#[test]
fn media_is_not_copied() {
    let (tracks, frames) = stream_of(clip("bframes.mp4"));
    let (_, fragments) = written(&tracks, &frames, 20);
    let theirs: Vec<*const u8> = frames.iter().map(|frame| frame.data.as_ptr()).collect();
    let mut count = 0;
    for piece in fragments.iter().flat_map(|fragment| &fragment.media) {
        assert!(theirs.contains(&piece.as_ptr()));
        count += 1;
    }
    assert_eq!(count, frames.len());
}

#[test]
fn pictures_come_first_and_the_names_are_those_that_apple_takes() {
    for (name, kind) in [("hevc10.mp4", b"hvc1"), ("bframes.mp4", b"avc1"), ("av1.mp4", b"av01")] {
        let (mut tracks, frames) = stream_of(clip(name));
        tracks.reverse();
        let (file, fragments) = written(&tracks, &frames, 30);
        let moov = moov_of(&file);
        let entry = &moov.trak[0].mdia.minf.stbl.stsd.codecs[0];
        match (kind, entry) {
            (b"hvc1", Entry::Hvc1(hvc1)) => {
                assert!(hvc1.hvcc.arrays.iter().all(|array| array.completeness));
            }
            (b"avc1", Entry::Avc1(avc1)) => assert!(avc1.avcc.ext.is_some(), "High profile has it"),
            (b"av01", Entry::Av01(_)) => {}
            (_, other) => panic!("{other:?}"),
        }
        for trak in &moov.trak {
            assert!(trak.edts.is_none());
        }
        let moof = Moof::decode(&mut &fragments[0].header[..]).unwrap();
        assert_eq!(moof.traf[0].tfhd.track_id, moov.trak[0].tkhd.track_id);
        assert!(moof.traf[0].tfhd.default_base_is_moof);
        let first = moof.traf[0].trun[0].samples.get(0).unwrap();
        let flags = first.flags.or(moof.traf[0].tfhd.default_sample_flags);
        assert_eq!(flags, Some(SYNC), "{name}");
    }
}

#[test]
fn sound_is_described_so_that_decoders_of_their_own_read_it() {
    let (tracks, frames) = stream_of(clip("aac44100.mp4"));
    let moov = moov_of(&written(&tracks, &frames, 10).0);
    let Entry::Mp4a(mp4a) = &moov.trak[0].mdia.minf.stbl.stsd.codecs[0] else { panic!("not mp4a") };
    assert_eq!((mp4a.audio.channel_count, mp4a.audio.sample_rate.integer()), (2, 44_100));
    let specific = mp4a.esds.es_desc.dec_config.dec_specific.as_ref().unwrap();
    assert_eq!((specific.profile, specific.freq_index, specific.chan_conf), (2, 4, 2));

    let (tracks, frames) = stream_of(clip("opus.mp4"));
    let moov = moov_of(&written(&tracks, &frames, 10).0);
    let Entry::Opus(opus) = &moov.trak[0].mdia.minf.stbl.stsd.codecs[0] else { panic!("not Opus") };
    assert_eq!((opus.dops.output_channel_count, opus.dops.pre_skip), (1, 312));
    assert_eq!(moov.trak[0].mdia.mdhd.timescale, 48_000);
}

fn aac_track(rate: u32) -> Track {
    let config = AudioConfig {
        object_type: 2,
        sample_rate: rate,
        channel_config: 2,
        program_channels: 0,
        short_frames: false,
        extension: None,
    };
    Track::aac(config.build().unwrap()).unwrap()
}

pub(in crate::mp4::write) fn frame(kind: Kind, dts: Timestamp, pts: Timestamp, is_sync: bool) -> Frame {
    Frame { kind, dts, pts, is_sync, data: Bytes::from_static(&[0, 0, 0, 1, 9]) }
}

/// Each track's decode time, durations and composition offsets in a fragment.
fn times(fragment: &Fragment) -> Vec<(u32, u64, Vec<u32>, Vec<i64>)> {
    let moof = Moof::decode_maybe(&mut &fragment.header[..]).unwrap().unwrap();
    let traf = moof.traf.iter().map(|traf| {
        let entries: Vec<_> = traf.trun[0].samples.iter().collect();
        let default = traf.tfhd.default_sample_duration;
        let durations = entries.iter().map(|entry| entry.duration.or(default).unwrap()).collect();
        let offsets = entries.iter().map(|entry| entry.cts.unwrap_or(0)).collect();
        (traf.tfhd.track_id, traf.tfdt.as_ref().unwrap().base_media_decode_time, durations, offsets)
    });
    traf.collect()
}

#[test]
fn an_hour_of_44100_has_exactly_its_samples() {
    let rate = NonZeroU32::new(44_100).unwrap();
    // An origin that is no sample's time.
    let origin = Timestamp::from_nanos(12_345_678_901);
    let mut writer = FragmentWriter::new(&[aac_track(44_100)], origin).unwrap();
    let first = origin.ticks(rate) + 1;
    let frames = 3600 * 44_100 / 1024;
    let mut next = 1;
    for piece in 0..frames / 9 {
        let frames: Vec<Frame> = (piece * 9..piece * 9 + 9)
            .map(|index| Timestamp::from_ticks(first + index * 1024, rate))
            .map(|time| frame(Kind::Audio, time, time, true))
            .collect();
        let fragment = writer.fragment(&frames, None).unwrap().unwrap();
        let span = fragment.leading.unwrap();
        assert_eq!((span.decode_time, span.duration), (next, 9 * 1024));
        assert!(fragment.is_independent);
        next += span.duration;
    }
    assert_eq!(next, 1 + (frames / 9 * 9 * 1024) as u64);
}

#[test]
fn a_picture_later_than_it_was_waited_for_leaves_no_gap_and_is_shown_when_it_should() {
    let (tracks, _) = stream_of(clip("hevc10.mp4"));
    let mut writer = FragmentWriter::new(&tracks, Timestamp::ZERO).unwrap();
    let at =
        |millis| frame(Kind::Video, Timestamp::from_millis(millis), Timestamp::from_millis(millis), false);
    let first = writer.fragment(&[at(0), at(40)], None).unwrap().unwrap();
    assert_eq!(times(&first), [(1, 0, vec![3600, 3600], vec![0, 0])]);
    let late = writer.fragment(&[at(95), at(120)], None).unwrap().unwrap();
    assert_eq!(times(&late), [(1, 7200, vec![3600, 2250], vec![1350, 0])]);
    let early = writer.fragment(&[at(150)], Some(Timestamp::from_millis(190))).unwrap().unwrap();
    assert_eq!(times(&early), [(1, 13_050, vec![4050], vec![450])]);
    // A hole is a hole.
    let behind = writer.fragment(&[at(4000)], None).unwrap().unwrap();
    assert_eq!(times(&behind)[0].1, 360_000);
}

#[test]
fn what_has_no_configuration_or_no_place_is_refused() {
    let refused = |tracks: &[Track]| FragmentWriter::new(tracks, Timestamp::ZERO).unwrap_err();
    assert_eq!(refused(&[]), MuxError::NoTrack);
    assert_eq!(refused(&[Track::other(crate::Codec::H264)]), MuxError::NoConfig(crate::Codec::H264));
    let codec = crate::Codec::PcmA;
    assert_eq!(refused(&[Track::other(codec)]), MuxError::Codec { container: "MP4", codec });
    assert_eq!(refused(&[aac_track(8000), aac_track(8000)]), MuxError::SecondTrack(Kind::Audio));
    let mut writer = FragmentWriter::new(&[aac_track(8000)], Timestamp::ZERO).unwrap();
    let picture = frame(Kind::Video, Timestamp::ZERO, Timestamp::ZERO, true);
    assert_eq!(writer.fragment(&[picture], None).unwrap(), None);
}

proptest! {
    #[test]
    fn no_tick_is_missing_or_there_twice(
        steps in prop::collection::vec((1_i64..900, 0_i64..200, any::<bool>()), 1..60),
        size in 1_usize..8,
        known in any::<bool>(),
        start in -5_000_i64..50_000_000,
    ) {
        let (tracks, _) = stream_of(clip("hevc10.mp4"));
        let mut at = start;
        let frames: Vec<Frame> = steps.iter().map(|(step, reorder, sync)| {
            at += step;
            let (dts, pts) = (Timestamp::from_millis(at), Timestamp::from_millis(at + reorder));
            frame(Kind::Video, dts, pts, *sync)
        }).collect();
        let mut writer = FragmentWriter::new(&tracks, Timestamp::from_millis(start)).unwrap();
        let mut next = None;
        for (piece, end) in pieces(&frames, size) {
            let fragment = writer.fragment(piece, end.filter(|_| known)).unwrap().unwrap();
            let (_, decode_time, durations, offsets) = times(&fragment).remove(0);
            prop_assert_eq!(next.unwrap_or(decode_time), decode_time);
            let mut tick = decode_time as i64;
            for ((frame, duration), offset) in piece.iter().zip(&durations).zip(&offsets) {
                prop_assert!(*duration > 0);
                let (dts, pts) = ((frame.dts.millis() - start) * 90, (frame.pts.millis() - start) * 90);
                prop_assert!(!known || tick == dts);
                // Shown when it should be, unless it came before its turn to be decoded.
                prop_assert_eq!(tick + offset, pts.max(tick));
                tick += i64::from(*duration);
            }
            next = Some(tick as u64);
        }
    }
}
