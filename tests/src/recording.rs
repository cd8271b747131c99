//! What was played against what was published: every frame's hash, and every time.

use md5::{Digest, Md5};

use crate::flv::Tag;

/// Pictures or sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Pictures.
    Video,
    /// Sound.
    Audio,
}

/// One coded frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Pictures or sound.
    pub kind: Kind,
    /// Milliseconds.
    pub dts: i64,
    /// Milliseconds.
    pub pts: i64,
    /// MD5 of the data, as `framemd5` prints it.
    pub hash: String,
}

impl Packet {
    /// Hashes `data`.
    pub fn new(kind: Kind, dts: i64, pts: i64, data: &[u8]) -> Self {
        let hash = Md5::digest(data).iter().map(|byte| format!("{byte:02x}")).collect();
        Self { kind, dts, pts, hash }
    }
}

/// Frames in the order in which they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recording(pub Vec<Packet>);

/// How exact the times of a recording are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// As they were on the wire.
    Exact,
    /// `ffmpeg -c copy` counts audio in samples and rounds back to milliseconds, so that single audio times
    /// differ by one from what it was given; pictures are exact.
    AudioWithinOneMillisecond,
}

/// How far the end of a recording must reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// To the last frame that was published.
    Complete,
    /// Wherever the player was stopped.
    Anywhere,
}

/// What a comparison found to be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    /// Pictures published before the first one that was played.
    pub head: usize,
    /// Pictures played.
    pub video: usize,
    /// Audio frames played.
    pub audio: usize,
    /// Played time minus published time, the same for all frames.
    pub shift: i64,
}

impl Recording {
    /// The coded frames among `tags`.
    pub fn of_tags(tags: &[Tag]) -> Self {
        Self(tags.iter().filter_map(Tag::packet).collect())
    }

    /// From the output of `ffmpeg -c copy -f framemd5 -` on an RTMP or FLV input, whose ticks are milliseconds.
    pub fn of_framemd5(text: &str) -> Self {
        let ticks = text.lines().filter(|line| line.starts_with("#tb "));
        ticks.for_each(|line| assert!(line.ends_with(": 1/1000"), "not in milliseconds: {line}"));
        Self::of_framemd5_in_milliseconds(text)
    }

    /// From the output of `ffmpeg -c copy -f framemd5 -`, rounded to milliseconds.
    pub fn of_framemd5_in_milliseconds(text: &str) -> Self {
        let mut kinds = Vec::new();
        let mut bases = Vec::new();
        let mut packets = Vec::new();
        for line in text.lines() {
            if let Some((_, base)) = line.strip_prefix("#tb ").and_then(|rest| rest.split_once(": ")) {
                let (over, under) = base.split_once('/').unwrap();
                bases.push((over.parse::<i64>().unwrap(), under.parse::<i64>().unwrap()));
            } else if let Some(rest) = line.strip_prefix("#media_type ") {
                kinds.push(if rest.ends_with("video") { Kind::Video } else { Kind::Audio });
            } else if !line.starts_with('#') {
                let fields: Vec<_> = line.split(',').map(str::trim).collect();
                let [stream, dts, pts, _, _, hash, ..] = fields[..] else { continue };
                let stream: usize = stream.parse().unwrap();
                let (over, under) = bases[stream];
                let millis = |ticks: &str| {
                    let scaled = ticks.parse::<i64>().unwrap() * over * 1000;
                    (scaled + under / 2).div_euclid(under)
                };
                let (dts, pts) = (millis(dts), millis(pts));
                packets.push(Packet { kind: kinds[stream], dts, pts, hash: hash.to_owned() });
            }
        }
        Self(packets)
    }

    /// From the output of `ffprobe -show_packets -show_data_hash MD5 -of compact` on an RTMP or FLV input.
    pub fn of_ffprobe(text: &str) -> Self {
        let field = |line: &str, name: &str| {
            let found = line.split('|').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
            found.unwrap_or_else(|| panic!("no {name} in {line}")).to_owned()
        };
        // Metadata in the stream are packets too, of type `data`.
        let media = |line: &&str| ["video", "audio"].contains(&field(line, "codec_type").as_str());
        let lines = text.lines().filter(|line| line.starts_with("packet|")).filter(media);
        let packet = |line: &str| Packet {
            kind: if field(line, "codec_type") == "video" { Kind::Video } else { Kind::Audio },
            dts: field(line, "dts").parse().unwrap(),
            pts: field(line, "pts").parse().unwrap(),
            hash: field(line, "data_hash").trim_start_matches("MD5:").to_owned(),
        };
        Self(lines.map(packet).collect())
    }

    /// Frames of one kind.
    pub fn of(&self, kind: Kind) -> Vec<&Packet> {
        self.0.iter().filter(|packet| packet.kind == kind).collect()
    }

    /// Leaves out what comes behind the last frame of each kind that `taken` has.
    pub fn end_with(&mut self, taken: &Self) {
        for kind in [Kind::Video, Kind::Audio] {
            let Some(last) = taken.of(kind).last().map(|packet| packet.hash.clone()) else { continue };
            let end = self.0.iter().rposition(|packet| packet.kind == kind && packet.hash == last);
            let end = end.unwrap_or(self.0.len());
            let mut place = 0;
            self.0.retain(|packet| {
                place += 1;
                packet.kind != kind || place - 1 <= end
            });
        }
    }

    /// Checks that this is what was `published`, from some frame on and without a hole: equal hashes, equal
    /// `pts - dts`, equal differences between successive frames, and one shift of time for both tracks.
    pub fn compare(&self, published: &Self, times: Times, end: End) -> Result<Match, String> {
        let video = self.align(published, Kind::Video, end)?;
        let audio = self.align(published, Kind::Audio, end)?;
        let pairs = video.pairs.iter().map(|pair| (pair, 0)).chain(audio.pairs.iter().map(|pair| {
            let slack = if times == Times::Exact { 0 } else { 1 };
            (pair, slack)
        }));
        let mut shift = None;
        for ((played, sent), slack) in pairs {
            if played.pts - played.dts != sent.pts - sent.dts {
                return Err(format!("pts - dts changed: sent {sent:?}, played {played:?}"));
            }
            let this = played.dts - sent.dts;
            let first = *shift.get_or_insert(this);
            if (this - first).abs() > slack {
                return Err(format!(
                    "time moved by {this} instead of {first}: sent {sent:?}, played {played:?}"
                ));
            }
        }
        let shift = shift.ok_or("nothing was played")?;
        Ok(Match { head: video.head, video: video.pairs.len(), audio: audio.pairs.len(), shift })
    }

    /// As [`compare`](Self::compare); panics with what is wrong.
    pub fn must_be(&self, published: &Self, times: Times, end: End) -> Match {
        self.compare(published, times, end).unwrap_or_else(|wrong| {
            let counts =
                |recording: &Self| (recording.of(Kind::Video).len(), recording.of(Kind::Audio).len());
            panic!("{wrong}\n(video, audio) frames: sent {:?}, played {:?}", counts(published), counts(self))
        })
    }

    fn align<'a>(&'a self, published: &'a Self, kind: Kind, end: End) -> Result<Aligned<'a>, String> {
        let (played, sent) = (self.of(kind), published.of(kind));
        let run =
            |head: usize| played.iter().zip(&sent[head..]).take_while(|(a, b)| a.hash == b.hash).count();
        // The same data may come twice in a clip: the start is where the longest run begins.
        let head = (0..=sent.len()).max_by_key(|head| (run(*head), usize::MAX - head)).unwrap_or(0);
        let same = run(head);
        if same < played.len() {
            return Err(match sent.get(head + same) {
                Some(lost) => {
                    format!("{kind:?}: {same} frames as sent, then {:?} instead of {lost:?}", played[same])
                }
                None => format!(
                    "{kind:?}: {same} frames as sent, then {:?} after the last one sent",
                    played[same]
                ),
            });
        }
        if end == End::Complete && head + same < sent.len() {
            return Err(format!(
                "{kind:?}: the last {} of {} frames are missing",
                sent.len() - head - same,
                sent.len()
            ));
        }
        Ok(Aligned { head, pairs: played.into_iter().zip(sent.into_iter().skip(head)).collect() })
    }
}

struct Aligned<'a> {
    head: usize,
    pairs: Vec<(&'a Packet, &'a Packet)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clip() -> Recording {
        let video =
            (0..10u8).map(|i| Packet::new(Kind::Video, i64::from(i) * 40, i64::from(i) * 40 + 80, &[i]));
        let audio =
            (0..10u8).map(|i| Packet::new(Kind::Audio, i64::from(i) * 21, i64::from(i) * 21, &[100 + i]));
        Recording(video.chain(audio).collect())
    }

    fn without(recording: &Recording, gone: &[usize]) -> Recording {
        let kept = recording.0.iter().enumerate().filter(|(i, _)| !gone.contains(i));
        Recording(kept.map(|(_, packet)| packet.clone()).collect())
    }

    #[test]
    fn a_late_start_is_no_loss() {
        let played = without(&clip(), &[0, 1, 10, 11, 12]);
        let found = played.must_be(&clip(), Times::Exact, End::Complete);
        assert_eq!(found, Match { head: 2, video: 8, audio: 7, shift: 0 });
    }

    #[test]
    fn a_hole_is_a_loss() {
        let wrong = without(&clip(), &[5]).compare(&clip(), Times::Exact, End::Complete).unwrap_err();
        assert!(wrong.starts_with("Video: 5 frames as sent, then"), "{wrong}");
    }

    #[test]
    fn a_frame_that_comes_twice_is_a_fault() {
        let mut played = clip();
        played.0.insert(3, played.0[2].clone());
        assert!(played.compare(&clip(), Times::Exact, End::Complete).is_err());
    }

    #[test]
    fn an_early_end_is_a_loss_unless_the_player_was_stopped() {
        let played = without(&clip(), &[9]);
        let wrong = played.compare(&clip(), Times::Exact, End::Complete).unwrap_err();
        assert_eq!(wrong, "Video: the last 1 of 10 frames are missing");
        assert!(played.compare(&clip(), Times::Exact, End::Anywhere).is_ok());
    }

    #[test]
    fn one_shift_holds_for_both_tracks() {
        let mut played = clip();
        played.0.iter_mut().for_each(|packet| {
            packet.dts += 500;
            packet.pts += 500;
        });
        assert_eq!(played.must_be(&clip(), Times::Exact, End::Complete).shift, 500);
        played.0[15].dts += 1;
        played.0[15].pts += 1;
        assert!(played.compare(&clip(), Times::Exact, End::Complete).is_err());
        assert!(played.compare(&clip(), Times::AudioWithinOneMillisecond, End::Complete).is_ok());
    }

    #[test]
    fn a_changed_composition_offset_is_a_fault() {
        let mut played = clip();
        played.0[4].pts += 40;
        assert!(
            played
                .compare(&clip(), Times::Exact, End::Complete)
                .unwrap_err()
                .starts_with("pts - dts changed")
        );
    }
}
