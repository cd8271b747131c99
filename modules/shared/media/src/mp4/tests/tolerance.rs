//! One bad box costs itself, and what cannot do without it.

use proptest::prelude::*;

use super::files::{self, Node, sized};
use super::*;

/// Samples of a kind: what they are, when they are decoded after the first, and how much later they are shown.
fn played(file: &[u8], kind: Kind) -> Vec<(u32, i64, i64)> {
    let Ok(mp4) = Mp4::open(Cursor::new(file.to_vec())) else { return Vec::new() };
    let samples = once(Playback::new(mp4, Duration::ZERO));
    let samples = of(kind, &samples);
    let first = samples.first().map_or(0, |sample| sample.dts.ticks);
    samples
        .iter()
        .map(|sample| (adler32(&sample.data), sample.dts.ticks - first, sample.pts.ticks - sample.dts.ticks))
        .collect()
}

fn opened(file: &[u8]) -> Mp4<File> {
    Mp4::open(Cursor::new(file.to_vec())).unwrap()
}

/// Why the only track that is left aside is.
fn reason(file: &[u8]) -> String {
    match opened(file).ignored() {
        [track] => track.to_string(),
        other => panic!("{other:?}"),
    }
}

fn bframes() -> files::File {
    files::File::of(&clip("bframes.mp4"))
}

const BOTH: [Kind; 2] = [Kind::Video, Kind::Audio];

fn assert_plays_like(file: &[u8], other: &[u8], kinds: &[Kind]) {
    for kind in kinds {
        assert_eq!(played(file, *kind), played(other, *kind), "{kind:?}");
    }
}

// ---- the property

/// A box of a file, and whose it is: a track's by its place, or nobody's.
#[derive(Clone, Debug)]
struct Spot {
    offset: usize,
    size: usize,
    kind: [u8; 4],
    owner: Option<usize>,
}

/// All boxes inside `moov` and `moof`.
fn spots(file: &[u8]) -> Vec<Spot> {
    fn walk(nodes: &[Node], mut at: usize, owner: Option<usize>, is_top: bool, out: &mut Vec<Spot>) {
        let mut track = 0;
        for node in nodes {
            let size = node.bytes().len();
            // `trak` and `traf` come in the order of the tracks.
            let owner = match &node.kind {
                b"trak" | b"traf" => {
                    track += 1;
                    Some(track - 1)
                }
                _ => owner,
            };
            if !is_top {
                out.push(Spot { offset: at, size, kind: node.kind, owner });
            }
            if let files::Content::Boxes(inside) = &node.content {
                walk(inside, at + 8, owner, false, out);
            }
            at += size;
        }
    }
    let mut out = Vec::new();
    walk(&files::parse(file), 0, None, true, &mut out);
    out
}

#[derive(Clone, Debug)]
enum Damage {
    /// From a place in the body on, bytes become others.
    Bytes { from: usize, with: Vec<u8> },
    /// The header says another size.
    Size(u32),
    /// It is called something else.
    Name,
    /// It ends early; the rest is padding.
    Short(usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        (0_usize..200, prop::collection::vec(any::<u8>(), 1..200))
            .prop_map(|(from, with)| Damage::Bytes { from, with }),
        (0_usize..40, prop::sample::select(vec![0_u8, 0xff]), 1_usize..3000)
            .prop_map(|(from, byte, count)| Damage::Bytes { from, with: vec![byte; count] }),
        prop_oneof![0_u32..64, any::<u32>(), Just(0x00ff_ffff)].prop_map(Damage::Size),
        Just(Damage::Name),
        (0_usize..100).prop_map(Damage::Short),
    ]
}

fn damaged(file: &[u8], spot: &Spot, damage: &Damage) -> Vec<u8> {
    let mut out = file.to_vec();
    let Spot { offset, size, .. } = *spot;
    match damage {
        Damage::Bytes { from, with } => {
            let body = &mut out[offset + 8..offset + size];
            for (to, with) in body.iter_mut().skip(*from).zip(with) {
                *to = *with;
            }
        }
        Damage::Size(says) => out[offset..offset + 4].copy_from_slice(&says.to_be_bytes()),
        Damage::Name => out[offset + 4..offset + 8].copy_from_slice(b"junk"),
        Damage::Short(body) => {
            let now = 8 + body;
            if now + 8 <= size {
                out[offset..offset + 4].copy_from_slice(&(now as u32).to_be_bytes());
                out[offset + now..offset + now + 4].copy_from_slice(&((size - now) as u32).to_be_bytes());
                out[offset + now + 4..offset + now + 8].copy_from_slice(b"free");
            }
        }
    }
    out
}

proptest! {
    /// One track, one table, one box that is not needed: all the others play as if nothing had happened.
    #[test]
    fn what_is_damaged_costs_nothing_beside_it(
        name in prop::sample::select(vec!["bframes.mp4", "faststart.mp4", "fragmented.mp4", "fragmented-edits.mp4", "hevc.mp4"]),
        pick in any::<prop::sample::Index>(),
        damage in damage(),
    ) {
        let file = clip(name);
        let spots = spots(&file);
        let spot = &spots[pick.index(spots.len())];
        let broken = damaged(&file, spot, &damage);
        // A wrong name of a track in a header leads to another track; a wrong timescale of the movie to other edits;
        // both can't be told from right ones.
        // So can the size of the data of one track behind which the other's lies.
        let shares_data = name == "fragmented-edits.mp4" && spot.offset > file.windows(4).position(|w| w == b"moof").unwrap();
        let can_mislead = shares_data || match &spot.kind {
            b"tkhd" | b"tfhd" | b"trak" | b"traf" | b"mvhd" => matches!(damage, Damage::Bytes { .. }),
            b"trex" | b"mvex" | b"mfhd" => true,
            _ => false,
        };
        for (owner, kind) in BOTH.into_iter().enumerate() {
            if spot.owner == Some(owner) || can_mislead {
                // Whatever it is, it is read or left aside.
                let _ = played(&broken, kind);
            } else {
                prop_assert_eq!(
                    played(&broken, kind), played(&file, kind), "{} in {}, {:?}: {:?}", name, kind.as_str(), spot, damage
                );
            }
        }
    }
}

// ---- tracks

#[test]
fn a_track_that_cannot_be_used_is_left_aside_with_its_codec_and_the_reason() {
    type Break = fn(&mut files::File);
    let broken: [(Break, &str); 9] = [
        (|file| file.trak(1).remove(b"mdia"), "track 2: it has no mdia box (box trak"),
        (|file| file.trak(1).get(&[b"mdia"]).remove(b"hdlr"), "track 2 (mp4a): it has no hdlr box (box mdia"),
        (|file| file.trak(1).stbl().remove(b"stco"), "track 2 (mp4a): it has no stco box (box stbl"),
        (
            |file| file.trak(1).get(&[b"mdia"]).put(Node::full(b"mdhd", 0, &[0, 0, 0, 0, 0])),
            "track 2 (mp4a): timescale is 0 (box mdhd",
        ),
        (
            |file| file.set_entries(1, 0, &[sized(b"mp4a", &[0; 28])]),
            "track 2 (mp4a): it has no esds box (box mp4a",
        ),
        (
            |file| file.set_entries(1, 0, &[sized(b"sowt", &[0; 28])]),
            "track 2 (sowt): codec sowt is not carried",
        ),
        (
            |file| file.set_entries(1, 0, &[sized(b"enca", &[0; 28])]),
            "track 2 (enca): its media is encrypted",
        ),
        (|file| file.set_entries(1, 0, &[]), "track 2: entry_count is 0 (box stsd"),
        (
            |file| file.trak(1).get(&[b"edts"]).put(Node::full(b"elst", 0, &[1, 1000, 9_999_999, 0x1_0000])),
            "track 2 (mp4a): its edit list shows nothing of it",
        ),
    ];
    for (damage, text) in broken {
        let mut file = bframes();
        damage(&mut file);
        let file = file.bytes();
        assert!(reason(&file).starts_with(text), "{}", reason(&file));
        assert_plays_like(&file, &clip("bframes.mp4"), &[Kind::Video]);
    }
    // An `avcC` that is cut short.
    let mut file = bframes();
    let entry = file.entry(0);
    let avcc = sized(b"avcC", &[1, 0x4d, 0x40]);
    file.set_entries(0, 0, &[sized(b"avc1", &[&entry[8..86], &avcc[..]].concat())]);
    assert!(reason(&file.bytes()).starts_with("track 1 (avc1): avcC: "), "{}", reason(&file.bytes()));
    assert_plays_like(&file.bytes(), &clip("bframes.mp4"), &[Kind::Audio]);
}

#[test]
fn when_nothing_is_left_each_track_is_named_at_the_place_of_the_index() {
    let mut file = bframes();
    file.set_entries(0, 0, &[sized(b"encv", &[0; 78])]);
    file.set_entries(1, 0, &[sized(b"alac", &[0; 28])]);
    let bytes = file.bytes();
    let moov = bytes.windows(4).position(|four| four == b"moov").unwrap() as u64 - 4;
    let error = Mp4::open(Cursor::new(bytes)).unwrap_err();
    assert_eq!((error.name, error.offset), (FourCC::new(b"moov"), moov));
    assert_eq!(
        error.source.to_string(),
        "no track of the file can be carried: track 1 (encv): its media is encrypted; \
         track 2 (alac): codec alac is not carried"
    );
}

fn disable(trak: &mut Node) {
    trak.get(&[b"tkhd"]).body()[..4].copy_from_slice(&[0; 4]);
}

#[test]
fn tracks_that_are_not_enabled_play_where_none_of_their_kind_is() {
    let mut file = bframes();
    disable(file.trak(1));
    assert_plays_like(&file.bytes(), &clip("bframes.mp4"), &BOTH);
    disable(file.trak(0));
    assert_plays_like(&file.bytes(), &clip("bframes.mp4"), &BOTH);
}

#[test]
fn the_first_track_of_a_kind_that_has_samples_is_taken() {
    let mut file = bframes();
    let mut empty = file.trak(1).clone();
    for (table, fields) in [(b"stts", &[0][..]), (b"stsc", &[0]), (b"stco", &[0]), (b"stsz", &[0, 0])] {
        empty.stbl().put(Node::full(table, 0, fields));
    }
    empty.get(&[b"tkhd"]).body()[12..16].copy_from_slice(&7_u32.to_be_bytes());
    file.moov().boxes().insert(1, empty);
    let file = file.bytes();
    assert_eq!(reason(&file), "track 7 (mp4a): the track is empty");
    assert_plays_like(&file, &clip("bframes.mp4"), &BOTH);
}

// ---- boxes that are not needed

#[test]
fn bytes_behind_the_last_box_are_no_box() {
    let whole = clip("bframes.mp4");
    let random: Vec<u8> = (0..999_u32).map(|i| (i * 37 + 11) as u8).collect();
    for junk in [&b"\0\0\0\x05junk of a camera maker"[..], &random, &[0; 1000], &[0xff; 3]] {
        assert_plays_like(&[&whole, junk].concat(), &whole, &BOTH);
    }
}

#[test]
fn an_unknown_box_may_stand_in_front() {
    // Offsets of fragments are their own.
    let whole = clip("fragmented.mp4");
    assert_plays_like(&[sized(b"abcd", &[7; 21]), whole.clone()].concat(), &whole, &BOTH);
}

#[test]
fn a_box_that_overruns_the_index_costs_no_track() {
    let whole = clip("bframes.mp4");
    for place in 0..3 {
        let mut file = bframes();
        file.moov().remove(b"udta");
        file.moov().boxes().insert(place, Node::new(b"udta", sized(b"name", b"camera")));
        let mut bytes = file.bytes();
        let at = bytes.windows(4).rposition(|four| four == b"udta").unwrap() - 4;
        bytes[at..at + 4].copy_from_slice(&4000_u32.to_be_bytes());
        assert_plays_like(&bytes, &whole, &BOTH);
    }
}

#[test]
fn a_box_that_says_too_little_costs_no_track() {
    let whole = clip("bframes.mp4");
    let at = whole.windows(4).position(|four| four == b"mvhd").unwrap() - 4;
    for size in 0..108_u32 {
        let mut file = whole.clone();
        file[at..at + 4].copy_from_slice(&size.to_be_bytes());
        assert_plays_like(&file, &whole, &BOTH);
    }
}

#[test]
fn an_index_that_is_written_twice_is_the_one_with_samples() {
    let mut early = bframes();
    for track in 0..2 {
        for (table, fields) in [(b"stts", &[0][..]), (b"stsc", &[0]), (b"stco", &[0]), (b"stsz", &[0, 0])] {
            early.trak(track).stbl().put(Node::full(table, 0, fields));
        }
    }
    let mut file = bframes();
    let whole = file.moov().clone();
    file.nodes.pop();
    // Behind the media, so that offsets stay.
    file.nodes.push(early.moov().clone());
    file.nodes.push(whole);
    assert_plays_like(&file.bytes(), &clip("bframes.mp4"), &BOTH);
}

// ---- sample entries

/// `mp4a` with the clip's `esds` behind other fields.
fn sound(file: &mut files::File, version: u16, fields: &[u8]) -> Vec<u8> {
    let entry = file.entry(1);
    let mut head = entry[8..36].to_vec();
    head[8..10].copy_from_slice(&version.to_be_bytes());
    sized(b"mp4a", &[&head[..], fields, &entry[36..]].concat())
}

#[test]
fn version_1_of_a_sound_entry_is_isos_or_quicktimes() {
    let srat = sized(b"srat", &[0, 0, 0, 0, 0, 0, 0xbb, 0x80]);
    for (stsd_version, entry_version, fields) in
        [(1, 1, &srat[..]), (1, 1, &[]), (0, 1, &[0; 16]), (0, 2, &[0; 36]), (0, 1, &[]), (0, 0, &[])]
    {
        let mut file = bframes();
        let entry = sound(&mut file, entry_version, fields);
        file.set_entries(1, stsd_version, &[entry]);
        assert_plays_like(&file.bytes(), &clip("bframes.mp4"), &BOTH);
    }
}

#[test]
fn mp3_and_ac_3_are_carried_with_rate_and_channels() {
    let track = |kind: &[u8; 4], inside: &[u8]| {
        let mut file = bframes();
        let mut fields = [0; 28];
        fields[17] = 2;
        fields[24..26].copy_from_slice(&44_100_u16.to_be_bytes());
        file.set_entries(1, 0, &[sized(kind, &[&fields[..], inside].concat())]);
        let mp4 = opened(&file.bytes());
        let track = mp4.tracks()[1].configurations[0].clone();
        (track.codec, track.audio.sample_rate, track.audio.channels, track.config.is_empty())
    };
    let esds = |object_type: u8| sized(b"esds", &[&[0, 0, 0, 0, 4, 13, object_type][..], &[0; 12]].concat());
    assert_eq!(track(b"mp4a", &esds(0x6b)), (Codec::Mp3, 44_100, 2, true));
    assert_eq!(track(b".mp3", &[]), (Codec::Mp3, 44_100, 2, true));
    // 48 kHz, 3/2, LFE: fscod 0, bsid 8, bsmod 0, acmod 7, lfeon 1.
    assert_eq!(track(b"ac-3", &sized(b"dac3", &[0x10, 0x3d, 0xe0])), (Codec::Ac3, 48_000, 6, true));
    // The same behind a data rate and a number of streams; reserved bit and asvc in front of bsmod.
    assert_eq!(track(b"ec-3", &sized(b"dec3", &[0, 0, 0x20, 0x0f, 0])), (Codec::Eac3, 48_000, 6, true));
}

#[test]
fn entries_that_say_the_same_are_one_and_a_change_amid_a_track_is_told() {
    let split = |file: &mut files::File, entries: &[Vec<u8>]| {
        file.set_entries(0, 0, entries);
        // Samples 1 to 10 by the first, the others by the second entry.
        let sizes = file.trak(0).stbl().get(&[b"stsz"]).body().clone();
        let stco = file.trak(0).stbl().get(&[b"stco"]).body().clone();
        assert_eq!(u32::from_be_bytes(stco[4..8].try_into().unwrap()), 1, "one chunk");
        let start = u32::from_be_bytes(stco[8..12].try_into().unwrap());
        let first: u32 =
            sizes[12..].chunks(4).take(10).map(|size| u32::from_be_bytes(size.try_into().unwrap())).sum();
        file.trak(0).stbl().put(Node::full(b"stco", 0, &[2, start, start + first]));
        file.trak(0).stbl().put(Node::full(b"stsc", 0, &[2, 1, 10, 1, 2, 15, 2]));
    };
    let chunked = || {
        // All pictures in one chunk.
        let whole = clip("bframes.mp4");
        let samples = once(Playback::new(opened(&whole), Duration::ZERO));
        let pictures: Vec<Vec<u8>> =
            of(Kind::Video, &samples).iter().map(|sample| sample.data.to_vec()).collect();
        let mut file = bframes();
        let start = file.bytes().len() as u32 + 8;
        file.trak(0).stbl().put(Node::full(b"stco", 0, &[1, start]));
        file.trak(0).stbl().put(Node::full(b"stsc", 0, &[1, 1, 25, 1]));
        let before = file.bytes().len() as u32;
        // The tables may have shrunk: the chunk begins behind them all the same, in padding.
        let padding = start - 8 - before;
        let mut media = vec![0; padding as usize];
        media.extend(pictures.concat());
        file.nodes.push(Node::new(b"mdat", media));
        let start = before + 8 + padding;
        file.trak(0).stbl().put(Node::full(b"stco", 0, &[1, start]));
        file
    };
    let configurations = |file: &[u8]| {
        let samples = once(Playback::new(opened(file), Duration::ZERO));
        of(Kind::Video, &samples).iter().map(|sample| sample.configuration).collect::<Vec<_>>()
    };

    let mut same = chunked();
    let entry = same.entry(0);
    // The chunk's place depends on how long the index is.
    let grow = |file: &mut files::File, entries: &[Vec<u8>]| {
        let before = file.bytes().len();
        split(file, entries);
        let more = (file.bytes().len() - before) as u32;
        let stco = file.trak(0).stbl().get(&[b"stco"]).body();
        for at in [8, 12] {
            let offset = u32::from_be_bytes(stco[at..at + 4].try_into().unwrap()) + more;
            stco[at..at + 4].copy_from_slice(&offset.to_be_bytes());
        }
    };
    grow(&mut same, &[entry.clone(), entry.clone()]);
    assert_plays_like(&same.bytes(), &clip("bframes.mp4"), &[Kind::Video]);
    assert_eq!(configurations(&same.bytes()), [0; 25]);

    let mut other = chunked();
    let mut bigger = entry.clone();
    // Another level, in the record and in its SPS.
    let record = bigger.windows(4).position(|four| four == b"avcC").unwrap() + 4;
    for at in [3, 11] {
        bigger[record + at] += 1;
    }
    grow(&mut other, &[entry, bigger]);
    assert_plays_like(&other.bytes(), &clip("bframes.mp4"), &[Kind::Video]);
    assert_eq!(configurations(&other.bytes()), [[0; 10].as_slice(), &[1; 15]].concat());
    let mp4 = opened(&other.bytes());
    let names: Vec<_> =
        mp4.tracks()[0].configurations.iter().map(|track| track.codec_string.as_str()).collect();
    assert_eq!(names, ["avc1.64000b", "avc1.64000c"]);
}

// ---- edits

#[test]
fn thousands_of_edits_are_played_and_a_media_time_below_minus_1_begins_with_the_media() {
    let mut file = files::File::of(&clip("aac44100.mp4"));
    let edits = |edits: &[[u32; 3]]| {
        let fields: Vec<u32> =
            [edits.len() as u32].into_iter().chain(edits.iter().flatten().copied()).collect();
        Node::full(b"elst", 0, &fields)
    };
    let many: Vec<[u32; 3]> = (0..3000).map(|i| [20, 2048 + 1024 * (i % 30), 0x1_0000]).collect();
    file.trak(0).get(&[b"edts"]).put(edits(&many));
    let mp4 = opened(&file.bytes());
    assert_eq!(mp4.presentation().period().millis(), 60_000);
    assert!(once(Playback::new(mp4, Duration::ZERO)).len() >= 3000);

    let too_many: Vec<[u32; 3]> = (0..9000).map(|_| [20, 2048, 0x1_0000]).collect();
    file.trak(0).get(&[b"edts"]).put(edits(&too_many));
    let error = Mp4::open(Cursor::new(file.bytes())).unwrap_err().source.to_string();
    assert!(error.contains("track 1 (mp4a): edits: 9000, at most 8192 are read (box elst"), "{error}");

    // 100 ms before the media, which ffmpeg shows at once and for so much shorter.
    file.trak(0).get(&[b"edts"]).put(edits(&[[300, (-4410_i32) as u32, 0x1_0000]]));
    let mp4 = opened(&file.bytes());
    assert_eq!((mp4.presentation().start().millis(), mp4.presentation().period().millis()), (0, 200));
    // All of it before the media: nothing is shown.
    file.trak(0).get(&[b"edts"]).put(edits(&[[300, (-44_100_i32) as u32, 0x1_0000]]));
    let error = Mp4::open(Cursor::new(file.bytes())).unwrap_err().source.to_string();
    assert!(error.contains("its edit list shows nothing of it"), "{error}");
}

#[test]
fn without_the_movies_timescale_a_track_is_shown_from_where_its_first_edit_begins() {
    let whole = clip("cut.mp4");
    let mut file = files::File::of(&whole);
    file.moov().get(&[b"mvhd"]).body()[12..16].copy_from_slice(&[0; 4]);
    for kind in BOTH {
        let (all, some) = (played(&file.bytes(), kind), played(&whole, kind));
        assert_eq!(all[0].0, some[0].0, "{kind:?}");
        assert!(all.len() >= some.len());
    }
}

// ---- fragments

#[test]
fn a_fragment_with_more_samples_announced_than_described_gives_those() {
    let whole = clip("fragmented.mp4");
    let mut file = files::File::of(&whole);
    let moofs = file.nodes.iter_mut().filter(|node| node.kind == *b"moof");
    let moof = moofs.last().unwrap();
    moof.get(&[b"traf", b"trun"]).body()[4..8].copy_from_slice(&5000_u32.to_be_bytes());
    assert_plays_like(&file.bytes(), &whole, &BOTH);
    assert!(matches!(opened(&file.bytes()).flaws(), [Flaw::Fragments { count: 1, .. }]));
}

#[test]
fn a_run_may_have_flags_for_its_first_sample_and_for_each() {
    let whole = clip("fragmented.mp4");
    let mut file = files::File::of(&whole);
    let moof = file.nodes.iter_mut().find(|node| node.kind == *b"moof").unwrap();
    let before = moof.bytes().len();
    // The video's run: the flags of the first sample, and then those of each, which count.
    let trun = moof.get(&[b"traf", b"trun"]).body();
    let has = u32::from_be_bytes(trun[..4].try_into().unwrap()) & 0x00ff_ffff;
    assert_eq!(has & 0x105, 0x5, "{has:#x}: data offset and first flags, no durations");
    let count = u32::from_be_bytes(trun[4..8].try_into().unwrap());
    let row = 4 * [0x200, 0x800].iter().filter(|bit| has & **bit != 0).count();
    let mut body = (has | 0x400).to_be_bytes().to_vec();
    body.extend(&trun[4..16]);
    for (number, entry) in trun[16..].chunks(row).enumerate() {
        // Size, flags, composition offset.
        body.extend(&entry[..4]);
        body.extend(if number == 0 { 0x0200_0000_u32 } else { 0x0101_0000 }.to_be_bytes());
        body.extend(&entry[4..]);
    }
    assert_eq!(body.len(), 16 + count as usize * (row + 4));
    *trun = body;
    // Data lies as much further behind the header as that has grown.
    let more = (moof.bytes().len() - before) as u32;
    for traf in moof.boxes().iter_mut().filter(|node| node.kind == *b"traf") {
        let trun = traf.get(&[b"trun"]).body();
        let offset = u32::from_be_bytes(trun[8..12].try_into().unwrap()) + more;
        trun[8..12].copy_from_slice(&offset.to_be_bytes());
    }
    assert_plays_like(&file.bytes(), &whole, &BOTH);
    assert_eq!(sync_of(&file.bytes()), sync_of(&whole));
}

#[test]
fn a_sample_description_of_0_or_out_of_range_is_the_first() {
    let whole = clip("fragmented.mp4");
    for index in [0, 9] {
        let mut file = files::File::of(&whole);
        for trex in file.moov().get(&[b"mvex"]).boxes() {
            if trex.kind == *b"trex" {
                trex.body()[8..12].copy_from_slice(&u32::to_be_bytes(index));
            }
        }
        assert_plays_like(&file.bytes(), &whole, &BOTH);
    }
}

#[test]
fn a_recording_whose_clock_goes_back_plays_on_behind_what_came_before() {
    let whole = clip("fragmented.mp4");
    let twice = [whole.clone(), whole.clone()].concat();
    for kind in BOTH {
        let (one, two) = (played(&whole, kind), played(&twice, kind));
        assert_eq!(two.len(), one.len() * 2, "{kind:?}");
        let step = one[1].1;
        for (first, second) in one.iter().zip(&two[one.len()..]) {
            assert_eq!(second.0, first.0);
            let moved = second.1 - two[one.len()].1;
            assert!((moved - first.1).abs() <= step, "{kind:?}: {moved} for {}", first.1);
        }
        assert!(two.is_sorted_by_key(|(_, dts, _)| *dts));
    }
}

#[test]
fn where_a_clock_goes_back_pictures_and_sound_stay_together_and_nothing_is_squeezed() {
    let whole = clip("fragmented.mp4");
    let twice = [whole.clone(), whole.clone()].concat();
    let moved = BOTH.map(|kind| {
        let (one, two) = (nanos_of(&whole, kind), nanos_of(&twice, kind));
        let (first, second) = two.split_at(one.len());
        assert_eq!(first, one, "{kind:?}");
        let moved: Vec<i64> = second.iter().zip(&one).map(|(second, first)| second - first).collect();
        assert!(moved.iter().all(|by| (by - moved[0]).abs() < 100_000), "{kind:?}: {moved:?}");
        // Behind the last one, at a distance that they have otherwise too; the last frame of sound may be a short one.
        let least = one.windows(2).map(|two| two[1] - two[0]).min().unwrap();
        let joint = second[0] - first[first.len() - 1];
        assert!(joint >= least * 4 / 5, "{kind:?}: {joint}, otherwise {least}");
        moved[0]
    });
    assert!((moved[0] - moved[1]).abs() < 100_000, "{moved:?}");
}

/// When the samples of a kind are decoded.
fn nanos_of(file: &[u8], kind: Kind) -> Vec<i64> {
    let samples = once(Playback::new(opened(file), Duration::ZERO));
    of(kind, &samples).iter().map(|sample| sample.dts.nanos()).collect()
}

#[test]
fn a_file_that_grows_keeps_its_index_and_one_that_is_another_does_not() {
    let whole = clip("fragmented.mp4");
    let fragments: Vec<usize> = spots_of_moof(&whole);
    let part = whole[..fragments[1]].to_vec();
    let mut growing = opened(&part);
    assert!(growing.is_fragmented());
    let near = fragments[0] as u64 + 500;
    growing.reader = Cursor::new(whole.clone());
    assert!(growing.has_only_grown(near));
    let mut other = whole;
    other[fragments[0] + 60] ^= 1;
    growing.reader = Cursor::new(other);
    assert!(!growing.has_only_grown(near));
    let mut progressive = opened(&clip("bframes.mp4"));
    assert!(!progressive.has_only_grown(500));
}

fn spots_of_moof(file: &[u8]) -> Vec<usize> {
    let mut at = 0;
    let mut out = Vec::new();
    for node in files::parse(file) {
        if node.kind == *b"moof" {
            out.push(at);
        }
        at += node.bytes().len();
    }
    out
}

// ---- sync frames

fn sync_of(file: &[u8]) -> Vec<bool> {
    let samples = once(Playback::new(opened(file), Duration::ZERO));
    of(Kind::Video, &samples).iter().map(|sample| sample.is_sync).collect()
}

#[test]
fn sync_frames_are_found_in_the_pictures_where_they_are_not_listed() {
    let wanted = sync_of(&clip("bframes.mp4"));
    assert_eq!(wanted.iter().filter(|sync| **sync).count(), 3);
    // Empty, not there, one left out.
    let empty = Node::full(b"stss", 0, &[0]);
    let partial = Node::full(b"stss", 0, &[1, 13]);
    for stss in [Some(empty), None, Some(partial)] {
        let mut file = bframes();
        match stss {
            Some(stss) => file.trak(0).stbl().put(stss),
            None => file.trak(0).stbl().remove(b"stss"),
        }
        let file = file.bytes();
        assert_eq!(sync_of(&file), wanted);
        // A start inside the second group of pictures begins with its sync frame.
        let start = Duration::from_millis(700);
        let mut late = Playback::new(opened(&file), start);
        let mut usual = Playback::new(open("bframes.mp4"), start);
        assert_eq!(
            late.next_sample(false).unwrap().unwrap().data,
            usual.next_sample(false).unwrap().unwrap().data
        );
    }
}

#[test]
fn an_edit_inside_a_group_of_pictures_begins_at_its_sync_frame_without_a_list_too() {
    let whole = clip("cut.mp4");
    let mut file = files::File::of(&whole);
    // In place: the index is in front of the media.
    file.trak(0).stbl().get(&[b"stss"]).body()[4..8].copy_from_slice(&[0; 4]);
    assert_plays_like(&file.bytes(), &whole, &BOTH);
    file.trak(0).stbl().get(&[b"stss"]).kind = *b"free";
    assert_plays_like(&file.bytes(), &whole, &BOTH);
}

#[test]
fn a_picture_says_what_a_decoder_makes_of_it() {
    use crate::h264::{Picture, picture};
    let unit = |nal: &[u8]| [&[0, 0, 0, nal.len() as u8][..], nal].concat();
    // first_mb_in_slice 0, slice_type 7 (I) and 5 (P).
    let (intra, inter) = (unit(&[0x41, 0b1000_1000]), unit(&[0x41, 0b1001_1000]));
    let recovery = unit(&[6, 5, 1, 0xaa, 6, 1, 0xc4, 0x80]);
    assert_eq!(picture(&unit(&[0x65, 0x88]), 4), Picture::Idr);
    assert_eq!(picture(&intra, 4), Picture::Intra);
    assert_eq!(picture(&inter, 4), Picture::Inter);
    assert_eq!(picture(&[recovery, intra].concat(), 4), Picture::Recovery);
    assert_eq!(picture(&unit(&[6, 5, 1, 0xaa, 0x80]), 4), Picture::Unknown);
}
