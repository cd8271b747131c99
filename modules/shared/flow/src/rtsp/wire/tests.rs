use std::time::UNIX_EPOCH;

use av_media::Track;

use super::*;
use crate::rtmp::peer::{audio, picture, sound, video};
use crate::stream::{Changes, KnownBy};

const BOTH: Layout = Layout { channels: [Some((0, 1)), Some((2, 3))] };

fn players() -> (Players, super::super::described::Watching) {
    let (news, watching) = tokio::sync::watch::channel(None);
    let status = OutputStatus::new(Changes::default());
    (Players::new(1400, "cam", news, status, "flows.cam.outputs.viewers".into()), watching)
}

fn tracks(list: impl IntoIterator<Item = Track>) -> Arc<Tracks> {
    let mut tracks = Tracks::default();
    list.into_iter().for_each(|track| tracks.set(Arc::new(track)));
    Arc::new(tracks)
}

fn view(layout: Layout) -> View {
    View { variant: layout.variant(), ..View::default() }
}

fn anchor() -> Anchor {
    Anchor { time: Timestamp::ZERO, utc: UNIX_EPOCH, known_by: KnownBy::Arrival, by_source: None }
}

/// Channel and packet of each frame of RTSP's framing.
fn packets(out: &mut PieceWriter) -> Vec<(u8, Vec<u8>)> {
    let bytes = out.take().concat();
    let (mut rest, mut found) = (&bytes[..], Vec::new());
    while let [b'$', channel, high, low, behind @ ..] = rest {
        let (packet, behind) = behind.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        found.push((*channel, packet.to_vec()));
        rest = behind;
    }
    assert!(rest.is_empty());
    found
}

fn number(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[2], packet[3]])
}

fn time(packet: &[u8]) -> u32 {
    u32::from_be_bytes(packet[4..8].try_into().unwrap())
}

#[test]
fn a_player_is_told_when_it_is_and_then_gets_packets_on_its_own_channels() {
    let (mut players, watching) = players();
    let tracks = tracks([video(), audio()]);
    players.tracks(&tracks);
    assert_eq!(watching.borrow().as_ref().unwrap().media, [Kind::Video, Kind::Audio]);
    players.anchor(&anchor());
    let frames = [picture(0, true), sound(10), picture(40, false)];
    let packed: Vec<_> =
        frames.iter().map(|frame| players.pack(tracks.get(frame.kind).unwrap(), frame)).collect();
    for layout in
        [BOTH, Layout { channels: [None, Some((0, 1))] }, Layout { channels: [Some((4, 5)), Some((0, 1))] }]
    {
        let mut out = PieceWriter::default();
        players.start(&mut out, &tracks, Timestamp::ZERO, view(layout));
        for (frame, packed) in frames.iter().zip(&packed) {
            players.frame(&mut out, tracks.get(frame.kind).unwrap(), frame, packed, view(layout));
        }
        let found = packets(&mut out);
        let (reports, media): (Vec<_>, Vec<_>) = found.iter().partition(|(channel, _)| channel % 2 == 1);
        let wanted: Vec<u8> = layout.channels.iter().flatten().map(|(_, rtcp)| *rtcp).collect();
        assert_eq!(reports.iter().map(|(channel, _)| *channel).collect::<Vec<_>>(), wanted);
        assert!(reports.iter().all(|(_, packet)| packet[1] == 200 && packet.len() >= 28));
        assert!(
            found.iter().position(|(channel, _)| channel % 2 == 0) >= Some(wanted.len()),
            "reports come first"
        );
        for (kind, channels) in [Kind::Video, Kind::Audio].into_iter().zip(layout.channels) {
            let of_kind: Vec<_> = media
                .iter()
                .filter(|(channel, _)| channels.is_some_and(|(rtp, _)| rtp == *channel))
                .collect();
            let numbers: Vec<_> = of_kind.iter().map(|(_, packet)| number(packet)).collect();
            assert!(
                numbers.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1)),
                "{kind:?}: {numbers:?}"
            );
            assert_eq!(of_kind.is_empty(), channels.is_none());
        }
    }
}

#[test]
fn pictures_at_other_times_keep_their_numbers_and_the_greeting_says_number_and_time_of_the_first() {
    let (mut players, _watching) = players();
    let tracks = tracks([video()]);
    players.tracks(&tracks);
    let frame = picture(0, true);
    let packed = players.pack(&video(), &frame);
    let moved = Frame { dts: Timestamp::from_millis(500), pts: Timestamp::from_millis(500), ..frame.clone() };
    let layout = Layout { channels: [Some((0, 1)), None] };
    let mut out = PieceWriter::default();
    players.frame(&mut out, &video(), &frame, &packed, view(layout));
    let own = packets(&mut out);
    players.frame(&mut out, &video(), &moved, &packed, view(layout));
    let other = packets(&mut out);
    for ((_, one), (_, two)) in own.iter().zip(&other) {
        assert_eq!(number(one), number(two));
        assert_eq!(time(two).wrapping_sub(time(one)), (500 - 80) * 90);
        assert_eq!(one[8..], two[8..]);
    }
    let first = of_mark(players.mark(Kind::Video, Some(&packed), Some(moved.pts)));
    assert_eq!(first, (number(&other[0].1), time(&other[0].1)));
    let next = of_mark(players.mark(Kind::Video, None, None));
    assert_eq!(next.0, number(&own.last().unwrap().1).wrapping_add(1));
    assert_ne!(next.1, 0);
}

#[test]
fn reports_go_on_every_two_seconds_while_the_publisher_is_away() {
    let (mut players, _watching) = players();
    players.tracks(&tracks([video()]));
    players.anchor(&anchor());
    let now = Instant::now();
    assert!(!players.speaks(now), "nothing was sent");
    players.pack(&video(), &picture(0, true));
    let seconds = |seconds| now + Duration::from_secs(seconds);
    assert!(players.speaks(now) && !players.speaks(now));
    assert_eq!(players.due(), Some(seconds(4)));
    assert!(players.speaks(seconds(4)));
    players.forget();
    assert_eq!(players.due(), Some(seconds(6)));
    assert!(!players.speaks(seconds(5)) && players.speaks(seconds(6)));
}

#[test]
fn parameter_sets_may_change_and_a_codec_may_not() {
    let (mut players, watching) = players();
    assert!(players.goes_on(&tracks([video()])));
    players.tracks(&tracks([video(), audio()]));
    let before = players.mark(Kind::Video, None, Some(Timestamp::ZERO));
    let mut config = video().config.to_vec();
    let last = config.len() - 2;
    config[last] ^= 1;
    let changed = Track::h264(config.into()).unwrap();
    assert!(players.goes_on(&tracks([changed.clone(), audio()])));
    let description = watching.borrow().clone();
    players.tracks(&tracks([changed, audio()]));
    assert!(
        !Arc::ptr_eq(description.as_ref().unwrap(), watching.borrow().as_ref().unwrap()),
        "described anew"
    );
    assert_eq!(players.mark(Kind::Video, None, Some(Timestamp::ZERO)), before, "numbers and times go on");
    assert!(!players.goes_on(&tracks([video()])));
    let other = Track::aac(bytes::Bytes::from_static(b"\x11\x90")).unwrap();
    assert!(!players.goes_on(&tracks([video(), other])));
    // Sound that is gone is described to nobody any more, and is missed by nobody.
    players.tracks(&tracks([video()]));
    assert!(players.goes_on(&tracks([video()])));
    assert!(!players.goes_on(&tracks([video(), audio()])));
}

#[test]
fn a_track_that_rtp_does_not_carry_is_left_out_and_the_state_says_so() {
    let (mut players, watching) = players();
    let flac = Track::other(av_media::Codec::Flac);
    players.tracks(&tracks([video(), flac.clone()]));
    assert_eq!(watching.borrow().as_ref().unwrap().media, [Kind::Video]);
    assert_eq!([players.sends(&video()), players.sends(&flac)], [true, false]);
    let trouble = players.status.status.get().trouble.unwrap();
    assert!(trouble.text.starts_with("flows.cam.outputs.viewers: audio is left out"), "{}", trouble.text);
}

#[test]
fn reports_tell_the_time_of_the_camera_s_own_clock_where_that_is_known() {
    let (mut players, _watching) = players();
    let tracks = tracks([video()]);
    players.tracks(&tracks);
    let camera = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    players.anchor(&Anchor { by_source: Some(camera), ..anchor() });
    players.pack(&video(), &picture(0, true));
    let mut out = PieceWriter::default();
    players.start(&mut out, &tracks, Timestamp::ZERO, view(Layout { channels: [Some((0, 1)), None] }));
    let (_, report) = packets(&mut out).remove(0);
    let seconds = u32::from_be_bytes(report[8..12].try_into().unwrap());
    let wanted = 2_208_988_800 + 1_700_000_000;
    assert!((wanted..wanted + 60).contains(&u64::from(seconds)), "{seconds}");
}
