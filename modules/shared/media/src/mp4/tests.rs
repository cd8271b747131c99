use std::io::Cursor;

use mp4_atom::{Co64, Decode, Encode, Moov};

use super::*;
use crate::Codec;
use crate::fixture::{clip, path};
use std::time::Duration;

mod files;
mod hostile;
mod loops;
mod tables;
mod tolerance;

type File = Cursor<Vec<u8>>;

fn open(name: &str) -> Mp4<File> {
    Mp4::open(Cursor::new(clip(name))).unwrap()
}

fn play(name: &str) -> Playback<File> {
    Playback::new(open(name), Duration::ZERO)
}

/// Every sample of one loop.
fn once(mut playback: Playback<File>) -> Vec<Sample> {
    let mut samples = Vec::new();
    while let Some(sample) = playback.next_sample(false).unwrap() {
        samples.push(sample);
    }
    samples
}

fn of(kind: Kind, samples: &[Sample]) -> Vec<&Sample> {
    samples.iter().filter(|sample| sample.kind == kind).collect()
}

/// A packet as ffprobe saw it: on the presentation timeline, before any shift.
struct Packet {
    kind: Kind,
    pts: i64,
    dts: i64,
    size: usize,
    key: bool,
    hidden: bool,
    adler32: Option<u32>,
}

/// Reads `testdata/NAME.packets`.
fn packets(name: &str) -> Vec<Packet> {
    let text = std::fs::read_to_string(path(&format!("{name}.packets"))).unwrap();
    let lines = text.lines().filter(|line| line.starts_with(['v', 'a']) && !line.starts_with("adler"));
    lines
        .map(|line| {
            let field: Vec<&str> = line.split(',').collect();
            Packet {
                kind: if field[0] == "video" { Kind::Video } else { Kind::Audio },
                pts: field[1].parse().unwrap(),
                dts: field[2].parse().unwrap(),
                size: field[3].parse().unwrap(),
                key: field[4].contains('K'),
                hidden: field[4].contains('D'),
                adler32: field
                    .get(5)
                    .map(|sum| u32::from_str_radix(sum.strip_prefix("adler32:").unwrap(), 16).unwrap()),
            }
        })
        .collect()
}

fn adler32(data: &[u8]) -> u32 {
    let (a, b) = data.iter().fold((1, 0), |(a, b), &byte| {
        let a = (a + u32::from(byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    b << 16 | a
}

fn assert_same_as_ffprobe(name: &str) {
    assert_same_packets(name, packets(name));
}

/// That a clip's samples are those that ffprobe found, moved by one shift for all, hidden audio left out.
fn assert_same_packets(name: &str, packets: Vec<Packet>) {
    let playback = play(&format!("{name}.mp4"));
    let timescale = |kind| playback.tracks().find(|track| track.kind == kind).map(|track| track.timescale);
    let timescales = [timescale(Kind::Video), timescale(Kind::Audio)];
    let samples = once(playback);
    let packets: Vec<Packet> =
        packets.into_iter().filter(|packet| packet.kind == Kind::Video || !packet.hidden).collect();
    assert_eq!(samples.len(), packets.len(), "{name}: number of samples");
    assert!(samples.is_sorted_by_key(|sample| sample.dts.nanos()), "{name}: order");

    let least = packets
        .iter()
        .map(|packet| MediaTime::new(packet.dts, timescales[packet.kind as usize].unwrap()))
        .min_by_key(|dts| dts.nanos())
        .unwrap();
    for kind in [Kind::Video, Kind::Audio] {
        let Some(timescale) = timescales[kind as usize] else { continue };
        let shift = least.rescale(timescale).ticks;
        let packets = packets.iter().filter(|packet| packet.kind == kind);
        for (number, (sample, packet)) in of(kind, &samples).into_iter().zip(packets).enumerate() {
            let at = format!("{name}: {kind:?} {number}");
            assert_eq!(sample.dts, MediaTime::new(packet.dts - shift, timescale), "{at}: dts");
            assert_eq!(sample.pts, MediaTime::new(packet.pts - shift, timescale), "{at}: pts");
            assert_eq!(sample.is_sync, packet.key, "{at}: sync");
            assert_eq!(sample.data.len(), packet.size, "{at}: size");
            if let Some(sum) = packet.adler32 {
                assert_eq!(adler32(&sample.data), sum, "{at}: data");
            }
        }
    }
}

#[test]
fn a_clip_with_b_frames_and_audio_priming_is_read_as_ffprobe_reads_it() {
    assert_same_as_ffprobe("bframes");
}

#[test]
fn an_index_in_front_makes_no_difference() {
    assert_same_as_ffprobe("faststart");
    assert_eq!(once(play("faststart.mp4")), once(play("bframes.mp4")));
}

#[test]
fn fragments_are_read_as_ffprobe_reads_them() {
    // ffprobe does not mark the priming frame of a fragmented file as hidden.
    let mut with_edits = packets("fragmented-edits");
    for packet in with_edits.iter_mut().filter(|packet| packet.kind == Kind::Audio) {
        packet.hidden = packet.pts + 1024 <= 0;
    }
    assert_same_packets("fragmented-edits", with_edits);

    // Negative composition offsets: ffprobe shows all pictures two frames later, and with that later than
    // the sound. Here they are decoded two frames earlier, which is what the writer took off.
    let mut packets = packets("fragmented");
    for packet in packets.iter_mut().filter(|packet| packet.kind == Kind::Video) {
        packet.pts -= 1024;
        packet.dts -= 1024;
    }
    assert_same_packets("fragmented", packets);
}

#[test]
fn fragments_with_edit_lists_give_what_the_whole_file_gives() {
    assert_eq!(once(play("fragmented-edits.mp4")), once(play("bframes.mp4")));
}

#[test]
fn hevc_is_read_as_ffprobe_reads_it() {
    assert_same_as_ffprobe("hevc");
    assert_same_as_ffprobe("hevc10");
}

#[test]
fn other_codecs_are_read_as_ffprobe_reads_them() {
    for name in ["opus", "aac44100", "av1", "interlaced"] {
        assert_same_as_ffprobe(name);
    }
}

#[test]
fn the_tracks_tell_codec_size_rate_and_channels() {
    let mp4 = open("bframes.mp4");
    let [video, audio] = mp4.tracks() else { panic!("two tracks") };
    assert_eq!((video.timescale.get(), video.sample_count), (12_800, 25));
    let ([video], [audio]) = (&video.configurations[..], &audio.configurations[..]) else {
        panic!("one each")
    };
    assert_eq!(video.codec_string, "avc1.64000b");
    assert_eq!((video.video.width, video.video.height), (160, 90));
    assert_eq!(audio.codec_string, "mp4a.40.2");
    assert_eq!((audio.audio.sample_rate, audio.audio.channels), (48_000, 1));

    let tracks =
        |name| open(name).tracks().iter().map(|track| track.configurations[0].clone()).collect::<Vec<_>>();
    assert_eq!(tracks("hevc.mp4")[0].codec_string, "hvc1.1.6.L30.90");
    assert_eq!(tracks("hevc10.mp4")[0].codec, Codec::H265);
    assert_eq!(tracks("av1.mp4")[0].video.fps, Some(25.0));
    let opus = &tracks("opus.mp4")[0];
    assert_eq!((opus.codec, opus.audio.sample_rate, opus.audio.channels), (Codec::Opus, 48_000, 1));
    assert!(opus.config.starts_with(b"OpusHead"));
}

#[test]
fn pictures_before_a_cut_go_to_the_decoder_and_hidden_audio_does_not() {
    let samples = once(play("cut.mp4"));
    let video = of(Kind::Video, &samples);
    let packets = packets("cut");
    let of_ffprobe: Vec<&Packet> = packets.iter().filter(|packet| packet.kind == Kind::Video).collect();

    // The sync sample before the cut, the first picture that is shown, and two hidden ones that are
    // decoded behind it go out at once.
    assert!(video[0].is_sync);
    assert_eq!(
        of_ffprobe[..5].iter().map(|packet| packet.hidden).collect::<Vec<_>>(),
        [true, false, true, true, false]
    );
    let times = video[..4].iter().map(|sample| (sample.dts.ticks, sample.pts.ticks));
    assert_eq!(times.collect::<Vec<_>>(), [(0, 0), (0, 1024), (0, 0), (0, 0)]);
    assert_eq!(video.len(), of_ffprobe.len());
    // From there on all is as ffprobe has it, one frame of 512 ticks later.
    for (sample, packet) in video.iter().zip(&of_ffprobe).skip(4) {
        assert_eq!((sample.dts.ticks, sample.pts.ticks), (packet.dts + 512, packet.pts + 512));
    }
    // 512 of 12,800 ticks are 1920 of 48,000; the frame at -128 is shown from its 128th sample on.
    assert_eq!(of(Kind::Audio, &samples)[0].pts.ticks, 1920 - 128);
}

#[test]
fn every_sample_of_a_picture_track_is_whole_nal_units() {
    for name in ["bframes.mp4", "fragmented.mp4", "cut.mp4"] {
        for sample in once(play(name)).iter().filter(|sample| sample.kind == Kind::Video) {
            assert_eq!(crate::h264::is_idr(&sample.data, 4), sample.is_sync);
            assert!(crate::nal::NalUnits::new(&sample.data, 4).all(|nal| nal.is_ok()));
        }
    }
    for sample in once(play("hevc10.mp4")) {
        assert_eq!(crate::h265::is_irap(&sample.data, 4), sample.is_sync);
    }
}

#[test]
fn sixty_four_bit_boxes_and_offsets_are_read() {
    let mut file = clip("bframes.mp4");
    // ffmpeg leaves an empty `free` box before `mdat` for the long form of its header.
    let free = file.windows(4).position(|four| four == b"free").unwrap() - 4;
    assert_eq!(&file[free + 12..free + 16], b"mdat");
    let size = u64::from(u32::from_be_bytes(file[free + 8..free + 12].try_into().unwrap())) + 8;
    file[free..free + 4].copy_from_slice(&1_u32.to_be_bytes());
    file[free + 4..free + 8].copy_from_slice(b"mdat");
    file[free + 8..free + 16].copy_from_slice(&size.to_be_bytes());

    // `moov` is last: it may grow.
    let at = file.windows(4).position(|four| four == b"moov").unwrap() - 4;
    let mut moov = Moov::decode(&mut &file[at..]).unwrap();
    for trak in &mut moov.trak {
        let stbl = &mut trak.mdia.minf.stbl;
        let entries = stbl.stco.take().unwrap().entries.into_iter().map(u64::from).collect();
        stbl.co64 = Some(Co64 { entries });
    }
    file.truncate(at);
    moov.encode(&mut file).unwrap();

    let wide = Playback::new(Mp4::open(Cursor::new(file)).unwrap(), Duration::ZERO);
    assert_eq!(once(wide), once(play("bframes.mp4")));
}

#[test]
fn a_second_track_of_a_kind_and_a_disabled_one_are_left_aside() {
    let mut file = clip("bframes.mp4");
    let at = file.windows(4).position(|four| four == b"moov").unwrap() - 4;
    let mut moov = Moov::decode(&mut &file[at..]).unwrap();
    let mut second = moov.trak[0].clone();
    second.tkhd.track_id = 7;
    let mut disabled = moov.trak[1].clone();
    disabled.tkhd.track_id = 8;
    disabled.tkhd.enabled = false;
    moov.trak.insert(1, disabled);
    moov.trak.push(second);
    file.truncate(at);
    moov.encode(&mut file).unwrap();

    let mp4 = Mp4::open(Cursor::new(file)).unwrap();
    assert_eq!(mp4.tracks(), open("bframes.mp4").tracks());
    assert_eq!(
        mp4.ignored(),
        [
            IgnoredTrack {
                id: 8,
                kind: Some(Kind::Audio),
                codec: Some(FourCC::new(b"mp4a")),
                reason: IgnoredReason::Disabled,
            },
            IgnoredTrack {
                id: 7,
                kind: Some(Kind::Video),
                codec: Some(FourCC::new(b"avc1")),
                reason: IgnoredReason::Second(Kind::Video),
            },
        ]
    );
}

#[test]
fn a_track_with_an_edit_list_of_two_parts_plays_both() {
    let mut file = clip("aac44100.mp4");
    let at = file.windows(4).position(|four| four == b"moov").unwrap() - 4;
    let mut moov = Moov::decode(&mut &file[at..]).unwrap();
    let elst = moov.trak[0].edts.as_mut().unwrap().elst.as_mut().unwrap();
    let part = |duration, media_time| mp4_atom::ElstEntry {
        segment_duration: duration,
        media_time,
        media_rate: 1.into(),
    };
    // 100 ms of nothing, 200 ms from frame 2 on, then 100 ms from frame 20 on.
    elst.entries = vec![part(100, None), part(200, Some(2048)), part(100, Some(20_480))];
    file.truncate(at);
    moov.encode(&mut file).unwrap();

    let all = of_table(&clip("aac44100.mp4"));
    let playback = Playback::new(Mp4::open(Cursor::new(file)).unwrap(), Duration::ZERO);
    // What is not shown at the start of all tracks is not waited for.
    assert_eq!(playback.presentation().period().millis(), 300);
    let samples = once(playback);
    let data: Vec<usize> = samples.iter().map(|sample| sample.data.len()).collect();
    assert_eq!(data, [&all[2..11], &all[20..25]].concat());
    assert_eq!(samples[0].dts.ticks, 0);
    assert_eq!(samples[9].dts.ticks, 8820);
}

/// The sizes in the only `stsz` of a file.
fn of_table(file: &[u8]) -> Vec<usize> {
    let at = file.windows(4).position(|four| four == b"moov").unwrap() - 4;
    let moov = Moov::decode(&mut &file[at..]).unwrap();
    match &moov.trak[0].mdia.minf.stbl.stsz.samples {
        mp4_atom::StszSamples::Different { sizes } => sizes.iter().map(|&size| size as usize).collect(),
        mp4_atom::StszSamples::Identical { .. } => panic!("sizes differ"),
    }
}

#[test]
fn neighbouring_samples_share_one_block() {
    let samples = once(play("aac44100.mp4"));
    for pair in samples.windows(2) {
        assert_eq!(pair[0].data.as_ptr_range().end, pair[1].data.as_ptr());
    }
}

#[test]
fn a_long_index_stays_small() {
    // Two hours of pictures with B-frames, each of its own size, every other in a chunk of its own.
    let mut table = samples::SampleTable::new(NonZeroU32::new(12_800).unwrap());
    let mut offset = 0;
    for index in 0..216_000_u32 {
        let size = 1000 + index % 977;
        if index % 2 == 0 {
            offset += 400;
            table.place(offset);
        }
        let composition = [512, 1536, 0][index as usize % 3];
        let is_sync = index % 60 == 0;
        table.push(samples::NewSample { duration: 512, composition, size, is_sync, description: 0 });
        offset += u64::from(size);
    }
    assert!(table.bytes() < 40 * 216_000, "{} bytes", table.bytes());
    let mut cursor = table.cursor();
    let mut count = 0;
    while let Some(sample) = cursor.next(&table) {
        assert_eq!((sample.size, sample.dts), (1000 + count % 977, i64::from(count) * 512));
        count += 1;
    }
    assert_eq!(count, 216_000);
}
