//! What was written lately, and where: a clip's pre-roll is read from the files again, so that no memory has to hold it.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use av_flow::stream::{Entry, Item, Tracks};
use av_media::{Frame, Kind, Timestamp};
use bytes::Bytes;
use tokio::time::Instant;

use crate::clip::{LONGEST_PRE_ROLL, nanos};

/// A pre-roll begins at a sync frame, which may lie so far before it.
const SYNC_BEFORE: Duration = Duration::from_secs(10);
/// Files that are kept open for it: more than there are of two seconds. One that was stored and removed meanwhile keeps
/// its room on the disk until then; one that has to go to make room is let go at once.
const MOST_FILES: usize = 40;

/// A frame that is in a file.
#[derive(Clone, Copy, Debug)]
pub struct Stored {
    /// Where its bytes begin.
    pub offset: u64,
    /// How many they are.
    pub bytes: u32,
    /// Whether a decoder may start at it.
    pub is_sync: bool,
    /// Of which track.
    pub kind: Kind,
    /// When it is decoded.
    pub dts: Timestamp,
    /// When it is shown.
    pub pts: Timestamp,
}

/// What one commit wrote.
#[derive(Clone, Debug)]
pub struct Written {
    /// The recording's number.
    id: u64,
    file: Arc<File>,
    tracks: Arc<Tracks>,
    /// When its first frame arrived.
    arrived: Instant,
    frames: Arc<[Stored]>,
    /// Frames before that one are not asked for, in order of decoding.
    from: Option<Timestamp>,
}

impl Written {
    /// Bytes of its frames.
    pub fn bytes(&self) -> usize {
        self.frames.iter().map(|frame| frame.bytes as usize).sum()
    }

    /// Where a decoder can start.
    fn starts(&self) -> impl Iterator<Item = Timestamp> {
        let leading = if self.tracks.video.is_some() { Kind::Video } else { Kind::Audio };
        self.frames.iter().filter(move |frame| frame.kind == leading && frame.is_sync).map(|frame| frame.dts)
    }

    fn last(&self) -> Timestamp {
        self.frames.iter().map(|frame| frame.dts).max().unwrap_or_default()
    }

    /// Reads it as the stream gave it: the tracks, then the frames.
    ///
    /// # Errors
    /// The disk's.
    pub fn read(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::with_capacity(self.frames.len() + 1);
        entries.push(Entry { item: Item::Tracks(self.tracks.clone()), arrived: self.arrived, starts: false });
        let first = self.frames.iter().map(|frame| frame.dts).min().unwrap_or_default();
        let has_pictures = self.tracks.video.is_some();
        for stored in self.frames.iter() {
            if self.from.is_some_and(|from| stored.dts < from) {
                continue;
            }
            let mut data = vec![0; stored.bytes as usize];
            self.file.read_exact_at(&mut data, stored.offset)?;
            let after = u64::try_from(stored.dts.nanos_since(first)).unwrap_or_default();
            let Stored { kind, dts, pts, is_sync, .. } = *stored;
            entries.push(Entry {
                item: Item::Frame(Frame { kind, dts, pts, is_sync, data: Bytes::from(data) }),
                arrived: self.arrived + Duration::from_nanos(after),
                starts: is_sync && (kind == Kind::Video || !has_pictures),
            });
        }
        Ok(entries)
    }
}

/// The last minute of one output.
#[derive(Debug, Default)]
pub struct Lately {
    written: VecDeque<Written>,
    /// The publisher has gone: what another one sends does not go on where this ends.
    is_over: bool,
}

impl Lately {
    /// These were made durable in the file of recording `id`, the first of which arrived then.
    pub fn wrote(
        &mut self,
        (id, file): (u64, &Arc<File>),
        tracks: &Arc<Tracks>,
        arrived: Instant,
        frames: Vec<Stored>,
    ) {
        let written = Written {
            id,
            file: file.clone(),
            tracks: tracks.clone(),
            arrived,
            frames: frames.into(),
            from: None,
        };
        let last = written.last();
        if std::mem::take(&mut self.is_over) {
            self.written.clear();
        }
        self.written.push_back(written);
        let longest = LONGEST_PRE_ROLL + SYNC_BEFORE;
        let is_old = |written: &Written| last.nanos_since(written.last()) > nanos(longest);
        while self.written.front().is_some_and(is_old) || self.files() > MOST_FILES {
            self.written.pop_front();
        }
    }

    fn files(&self) -> usize {
        let mut files = 0;
        let mut before: Option<&Arc<File>> = None;
        for written in &self.written {
            files += usize::from(!before.is_some_and(|before| Arc::ptr_eq(before, &written.file)));
            before = Some(&written.file);
        }
        files
    }

    /// A recording has to go: it is needed for nothing any more, and nothing before it.
    pub fn let_go(&mut self, id: u64) {
        if let Some(last) = self.written.iter().rposition(|written| written.id == id) {
            self.written.drain(..=last);
        }
    }

    /// What comes next does not go on where this ends, or this is deleted.
    pub fn forget(&mut self) {
        self.written.clear();
        self.is_over = false;
    }

    /// The publisher has gone. A clip may still begin in what it sent, until the next one is recorded.
    ///
    /// Its files are kept for reading alone: a disk with a file that is open for writing can't be made read-only.
    pub fn over(&mut self) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        let mut last: Option<(Arc<File>, Arc<File>)> = None;
        for written in &mut self.written {
            let again = match &last {
                Some((before, again)) if Arc::ptr_eq(before, &written.file) => again.clone(),
                _ => match for_reading(&written.file) {
                    Ok(file) => Arc::new(file),
                    Err(_) => return self.forget(),
                },
            };
            last = Some((std::mem::replace(&mut written.file, again.clone()), again));
        }
    }

    /// Lets go of what no pre-roll reaches back to any more, where nothing new is recorded.
    pub fn tidy(&mut self) {
        let longest = LONGEST_PRE_ROLL + SYNC_BEFORE;
        let is_old = |written: &Written| written.arrived.elapsed() > longest;
        if self.is_over && self.written.iter().all(is_old) {
            self.forget();
        }
    }

    /// What is needed to begin at `from`: everything behind the last place before it where a decoder can start, or behind
    /// the first at all. Nothing of it is from before `not_before`, nor, unless that `is_away`, of a publisher that has gone.
    pub fn since(&self, from: Timestamp, not_before: Option<Timestamp>, is_away: bool) -> Vec<Written> {
        if self.is_over && !is_away {
            return Vec::new();
        }
        let starts = self.written.iter().enumerate();
        let starts = starts.flat_map(|(index, written)| written.starts().map(move |start| (index, start)));
        let mut begin = None;
        for (index, start) in starts.filter(|(_, start)| not_before.is_none_or(|before| *start > before)) {
            if begin.is_some() && start > from {
                break;
            }
            begin = Some((index, start));
        }
        let Some((first, start)) = begin else { return Vec::new() };
        let mut since: Vec<Written> = self.written.iter().skip(first).cloned().collect();
        for written in &mut since {
            written.from = Some(start);
        }
        since
    }
}

/// The same file, also where it was deleted.
fn for_reading(file: &File) -> io::Result<File> {
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use av_media::Track;

    use super::*;

    /// Commits of a second: a picture each 250 ms, a sync frame each two seconds, and sound beside it.
    struct Bench {
        lately: Lately,
        id: u64,
        file: Arc<File>,
        tracks: Arc<Tracks>,
    }

    impl Bench {
        fn new(seconds: i64) -> Self {
            let video = Track::h264(Bytes::from_static(b"\x01\x42\xc0\x1e\xff\xe0\x00")).ok().map(Arc::new);
            let tracks = Arc::new(Tracks { video, ..Tracks::default() });
            let mut bench = Self {
                lately: Lately::default(),
                id: 1,
                file: Arc::new(tempfile::tempfile().unwrap()),
                tracks,
            };
            (0..seconds).for_each(|second| bench.second(second));
            bench
        }

        fn second(&mut self, second: i64) {
            let mut frames = Vec::new();
            for millis in [0, 250, 500, 750] {
                let dts = Timestamp::from_millis(second * 1000 + millis);
                let offset = self.file.metadata().unwrap().len();
                let is_sync = millis == 0 && second % 2 == 0;
                let text = format!("{}", dts.millis());
                (&*self.file).write_all(text.as_bytes()).unwrap();
                let bytes = u32::try_from(text.len()).unwrap();
                frames.push(Stored { offset, bytes, is_sync, kind: Kind::Video, dts, pts: dts });
            }
            self.lately.wrote((self.id, &self.file), &self.tracks, Instant::now(), frames);
        }

        fn read(&self, from: i64, not_before: Option<i64>) -> Vec<String> {
            self.read_when(self.lately.is_over, from, not_before)
        }

        fn read_when(&self, is_away: bool, from: i64, not_before: Option<i64>) -> Vec<String> {
            let not_before = not_before.map(Timestamp::from_millis);
            let since = self.lately.since(Timestamp::from_millis(from), not_before, is_away);
            let entries = since.iter().flat_map(|written| written.read().unwrap());
            entries
                .filter_map(|entry| match entry.item {
                    Item::Frame(frame) => Some(String::from_utf8(frame.data.to_vec()).unwrap()),
                    _ => None,
                })
                .collect()
        }
    }

    #[test]
    fn a_pre_roll_begins_at_the_last_sync_frame_before_it_and_has_every_frame_since() {
        let bench = Bench::new(7);
        let read = bench.read(4100, None);
        let expected: Vec<String> = (16..28).map(|quarter| (quarter * 250).to_string()).collect();
        assert_eq!(read, expected);
        assert_eq!(bench.read(3999, None).first().unwrap(), "2000");
    }

    #[test]
    fn it_begins_with_the_first_sync_frame_where_none_is_old_enough_and_after_what_was_deleted() {
        let mut bench = Bench::new(7);
        assert_eq!(bench.read(-5000, None).first().unwrap(), "0");
        assert_eq!(bench.read(100, Some(2000)).first().unwrap(), "4000");
        assert!(bench.read(100, Some(6000)).is_empty());
        bench.lately.forget();
        assert!(bench.read(100, None).is_empty());
    }

    #[test]
    fn what_is_older_than_the_longest_pre_roll_is_let_go() {
        let bench = Bench::new(200);
        let kept = bench.lately.written.len();
        assert!((70..=72).contains(&kept), "{kept}");
    }

    #[test]
    fn a_recording_that_has_to_go_is_not_kept_and_nothing_before_it() {
        let mut bench = Bench::new(4);
        (bench.id, bench.file) = (2, Arc::new(tempfile::tempfile().unwrap()));
        (4..8).for_each(|second| bench.second(second));
        bench.lately.let_go(3);
        assert_eq!(bench.read(0, None).first().unwrap(), "0");
        bench.lately.let_go(1);
        assert_eq!(bench.read(0, None).first().unwrap(), "4000");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_publisher_sent_that_has_gone_is_kept_for_a_minute_or_until_the_next_one() {
        let mut bench = Bench::new(4);
        bench.lately.over();
        assert_eq!(bench.read(3000, None).first().unwrap(), "2000");
        assert!(bench.lately.written.iter().all(|written| (&*written.file).write_all(b"x").is_err()));
        assert_eq!(bench.lately.files(), 1);
        // The next publisher is there, and nothing of it is durable yet.
        assert!(bench.read_when(false, 0, None).is_empty());
        bench.second(10);
        assert_eq!(bench.read(0, None).first().unwrap(), "10000");
        bench.lately.over();
        tokio::time::advance(Duration::from_secs(60)).await;
        bench.lately.tidy();
        assert!(!bench.read(0, None).is_empty());
        tokio::time::advance(Duration::from_secs(11)).await;
        bench.lately.tidy();
        assert!(bench.read(0, None).is_empty());
    }

    #[test]
    fn few_files_are_kept_open_however_short_they_are() {
        let mut bench = Bench::new(0);
        for second in 0..60 {
            bench.file = Arc::new(tempfile::tempfile().unwrap());
            bench.second(second);
        }
        assert_eq!(bench.lately.written.len(), MOST_FILES);
    }
}
