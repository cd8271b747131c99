//! Streams that change while they are recorded, and spools that fill.

use std::path::PathBuf;

use av_tests::clip::Clip;
use av_tests::flv::Tag;
use av_tests::module::{Module, Setup};
use av_tests::recording::{Kind, Recording};
use av_tests::rtmp::Publisher;
use av_tests::tool::Tool;
use av_tests::{needs, port, wait};
use serde_json::{Value, json};

use crate::recorder::{document, files, hashes, read};
use crate::rtmp;

/// What a clip begins with, `start` milliseconds later than it says.
fn beginning(clip: Clip, start: u32) -> Vec<Tag> {
    let tags = clip.tags().into_iter().filter(|tag| tag.kind != 18 && tag.timestamp < 2500);
    tags.map(|tag| Tag { timestamp: tag.timestamp + start, ..tag }).collect()
}

fn is_sync(tag: &Tag) -> bool {
    tag.kind == 9 && !tag.is_header() && tag.body[0] >> 4 == 1
}

#[test]
fn another_size_another_codec_and_a_jump_of_time_begin_a_file_each_and_cost_no_frame() {
    needs!(Ffmpeg, Ffmpeg9, Ffprobe);
    let url = rtmp(port::free(), "live/cam");
    let setup = Setup::new("mp4-recorder");
    let document = document(setup.dir(), &url, json!({ "segmentSeconds": 60 }));
    let module = setup.twin(&document).start();
    let last = beginning(Clip::Plain, 6000);
    let jump = last.iter().rposition(is_sync).unwrap();
    let (before, after) = last.split_at(jump);
    let after: Vec<Tag> =
        after.iter().map(|tag| Tag { timestamp: tag.timestamp + 3_600_000, ..tag.clone() }).collect();
    let parts = [beginning(Clip::Smaller, 0), beginning(Clip::H265, 3000), before.to_vec(), after];
    let mut publisher = Publisher::to(&url);
    for part in &parts {
        publisher.play_out(part).unwrap();
    }
    let published = Recording::of_tags(&parts.concat());
    module.wait_status("/flows/cam/outputs/disk/frames", |frames| {
        frames.as_u64() >= Some(published.0.len() as u64)
    });
    drop(publisher);
    module.wait_value("/flows/cam/outputs/disk/state", "waiting");
    module.wait_value("/summary/spoolBytes", 0);
    let files = files(&module.dir().join("files"));
    assert_eq!(files.len(), parts.len(), "{files:?}");
    let recorded: Vec<_> = files.iter().map(|file| read(Tool::Ffmpeg9, file)).collect();
    for (file, part) in recorded.iter().zip(&parts) {
        let pictures = |recording: &Recording| hashes(std::slice::from_ref(recording), Kind::Video);
        assert!(pictures(file) == pictures(&Recording::of_tags(part)), "other pictures than were sent");
    }
    for kind in [Kind::Video, Kind::Audio] {
        assert!(hashes(&recorded, kind) == hashes(std::slice::from_ref(&published), kind), "{kind:?}");
    }
}

/// A recorder with room for few files, whose store takes none.
struct Stuck {
    module: Module,
    url: String,
    in_the_way: PathBuf,
}

impl Stuck {
    fn start(output: Value) -> Self {
        let url = rtmp(port::free(), "live/cam");
        let setup = Setup::new("mp4-recorder");
        let in_the_way = setup.dir().join("files");
        std::fs::write(&in_the_way, "in the way").unwrap();
        let mut output = output;
        output["segmentSeconds"] = json!(2);
        let mut document = document(setup.dir(), &url, output);
        document["spool"] = json!({ "megabytes": 3, "minFreeMegabytes": 16 });
        Self { module: setup.twin(&document).start(), url, in_the_way }
    }

    fn dropped(&self) -> Option<f64> {
        self.module.metrics().sum("av_spool_dropped_total", &[("flow", "cam"), ("output", "disk")])
    }

    /// What is stored in the end, by the numbers of the pictures among those that were published.
    fn numbers(&self, published: &Recording) -> Vec<Vec<usize>> {
        std::fs::remove_file(&self.in_the_way).unwrap();
        // What found no room is in memory until then.
        self.module.wait_value("/flows/cam/outputs/disk/state", "waiting");
        self.module.wait_value("/summary/spoolBytes", 0);
        let sent = hashes(std::slice::from_ref(published), Kind::Video);
        let files = files(&self.in_the_way);
        let read = files.iter().map(|file| hashes(&[read(Tool::Ffmpeg, file)], Kind::Video));
        read.map(|file| {
            let number = |hash| sent.iter().position(|sent| *sent == hash).expect("a picture that was sent");
            file.into_iter().map(number).collect()
        })
        .collect()
    }
}

#[test]
fn a_full_spool_costs_the_oldest_files_and_that_is_counted_and_the_newest_stay() {
    needs!(Ffmpeg, Ffprobe);
    let stuck = Stuck::start(json!({ "whenFull": "deleteOldest" }));
    let tags: Vec<Tag> = Clip::Heavy.tags();
    Publisher::to(&stuck.url).play_out(&tags).unwrap();
    stuck.module.wait_value("/flows/cam/input/state", "waiting");
    wait::until_true("files were dropped", wait::LONG, || stuck.dropped() >= Some(1.0));
    let published = Recording::of_tags(&tags);
    let numbers = stuck.numbers(&published).concat();
    // Without a hole up to the last picture.
    let last = hashes(std::slice::from_ref(&published), Kind::Video).len() - 1;
    assert_eq!(numbers.last(), Some(&last), "{numbers:?}");
    assert!(numbers[0] > 0 && numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
}

#[test]
fn a_full_spool_that_may_not_drop_keeps_the_oldest_files_and_says_that_nothing_is_recorded() {
    needs!(Ffmpeg, Ffprobe);
    let stuck = Stuck::start(json!({ "whenFull": "denyNew" }));
    let tags: Vec<Tag> = Clip::Heavy.tags();
    let mut publisher = Publisher::to(&stuck.url);
    publisher.play_out(&tags).unwrap();
    let error = stuck.module.wait_status("/flows/cam/outputs/disk/error", |error| {
        error.as_str().is_some_and(|error| error.contains("spool"))
    });
    assert!(error.as_str().unwrap().starts_with("flows.cam.outputs.disk.store: "), "{error}");
    stuck.module.wait_value("/flows/cam/outputs/disk/state", "failed");
    assert_eq!(stuck.dropped().unwrap_or(0.0), 0.0);
    drop(publisher);
    let numbers = stuck.numbers(&Recording::of_tags(&tags)).concat();
    assert_eq!(numbers[0], 0);
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
}

#[test]
fn files_that_wait_are_stored_newest_first_where_that_is_wanted() {
    needs!(Ffmpeg, Ffprobe);
    for (order, newest_first) in [("newestFirst", true), ("oldestFirst", false)] {
        let url = rtmp(port::free(), "live/cam");
        let setup = Setup::new("mp4-recorder");
        let folder = setup.dir().join("files");
        std::fs::write(&folder, "in the way").unwrap();
        let document = document(setup.dir(), &url, json!({ "segmentSeconds": 2, "uploadOrder": order }));
        let module = setup.twin(&document).start();
        Publisher::to(&url).play_out(&Clip::Plain.tags()).unwrap();
        module.wait_value("/flows/cam/input/state", "waiting");
        module.wait_value("/flows/cam/outputs/disk/state", "retrying");
        std::fs::remove_file(&folder).unwrap();
        module.wait_value("/flows/cam/outputs/disk/state", "waiting");
        module.wait_value("/summary/spoolBytes", 0);
        let log = module.log();
        let stored: Vec<&str> =
            log.lines().filter_map(|line| line.split_once("stored file://")).map(|(_, rest)| rest).collect();
        let mut sorted = stored.clone();
        sorted.sort_unstable();
        if newest_first {
            sorted.reverse();
        }
        assert!(stored.len() >= 3 && stored == sorted, "{order}: {stored:#?}");
    }
}

#[test]
fn a_file_that_a_folder_on_another_disk_does_not_take_holds_up_no_other() {
    needs!(Ffmpeg, Ffprobe);
    let other = tempfile::tempdir_in("/dev/shm").unwrap();
    let folder = other.path().join("files");
    // Until it goes nothing is stored.
    std::fs::write(&folder, "in the way").unwrap();
    let url = rtmp(port::free(), "live/cam");
    let setup = Setup::new("mp4-recorder");
    let store = format!("file://{}", folder.display());
    let document = document(setup.dir(), &url, json!({ "store": store, "segmentSeconds": 2 }));
    let module = setup.twin(&document).start();
    let tags = Clip::Plain.tags();
    Publisher::to(&url).play_out(&tags).unwrap();
    module.wait_value("/flows/cam/input/state", "waiting");
    module.wait_status("/flows/cam/outputs/disk/error", Value::is_string);
    let spooled = || {
        let mut files = files(&module.dir().join("state/spool"));
        files.retain(|file| file.extension().is_some_and(|is| is == "mp4"));
        files
    };
    wait::until_true("files wait", wait::LONG, || spooled().len() >= 3);
    let (first, aside) = (spooled()[0].clone(), other.path().join("aside"));
    std::fs::copy(&first, &aside).unwrap();
    std::fs::remove_file(&first).unwrap();
    // What is there opens, and can't be read.
    std::fs::create_dir(&first).unwrap();
    std::fs::remove_file(&folder).unwrap();
    wait::until_true("the others are stored", wait::LONG, || spooled().is_empty());
    let name = first.file_name().unwrap().to_str().unwrap();
    module.wait_status("/flows/cam/outputs/disk/error", |error| {
        error.as_str().is_some_and(|error| error.contains(name))
    });
    std::fs::remove_dir(&first).unwrap();
    std::fs::copy(&aside, &first).unwrap();
    module.wait_value("/flows/cam/outputs/disk/state", "waiting");
    module.wait_value("/summary/spoolBytes", 0);
    let read = files(&folder).iter().map(|file| read(Tool::Ffmpeg, file)).collect::<Vec<_>>();
    let published = Recording::of_tags(&tags);
    for kind in [Kind::Video, Kind::Audio] {
        assert!(hashes(&read, kind) == hashes(std::slice::from_ref(&published), kind), "{kind:?}");
    }
}

#[test]
fn sound_that_comes_within_a_gop_begins_a_file_at_the_next_sync_picture_and_costs_no_frame() {
    needs!(Ffmpeg, Ffprobe);
    let url = rtmp(port::free(), "live/cam");
    let setup = Setup::new("mp4-recorder");
    let mut document = document(setup.dir(), &url, json!({ "segmentSeconds": 60 }));
    document["flows"]["cam"]["input"]["trackWaitMilliseconds"] = json!(100);
    let module = setup.twin(&document).start();
    let is_sound = |tag: &Tag| tag.kind == 8;
    let tags: Vec<Tag> = Clip::Plain.tags().into_iter().filter(|tag| tag.kind != 18).collect();
    let syncs: Vec<u32> = tags.iter().filter(|tag| is_sync(tag)).map(|tag| tag.timestamp).collect();
    // In the middle between two sync pictures.
    let begins = syncs[1] + (syncs[2] - syncs[1]) / 2;
    let (mut head, mut rest): (Vec<Tag>, Vec<Tag>) =
        tags.into_iter().partition(|tag| is_sound(tag) && tag.is_header());
    rest.retain(|tag| !is_sound(tag) || tag.timestamp >= begins);
    let at = rest.iter().position(is_sound).unwrap();
    head[0].timestamp = rest[at].timestamp;
    rest.insert(at, head.remove(0));
    let mut publisher = Publisher::to(&url);
    publisher.play_out(&rest).unwrap();
    publisher.finish().unwrap();
    module.wait_value("/flows/cam/input/state", "waiting");
    module.wait_value("/flows/cam/outputs/disk/state", "waiting");
    module.wait_value("/summary/spoolBytes", 0);
    let files = files(&module.dir().join("files"));
    let recorded: Vec<_> = files.iter().map(|file| read(Tool::Ffmpeg, file)).collect();
    assert_eq!(recorded.len(), 2, "{files:?}");
    let published = Recording::of_tags(&rest);
    for kind in [Kind::Video, Kind::Audio] {
        assert!(hashes(&recorded, kind) == hashes(std::slice::from_ref(&published), kind), "{kind:?}");
    }
    let sync = rest.iter().filter(|tag| is_sync(tag)).cloned().collect::<Vec<_>>();
    let sync = hashes(&[Recording::of_tags(&sync)], Kind::Video);
    for file in &recorded {
        assert!(sync.contains(&file.of(Kind::Video)[0].hash));
    }
    // The sound that waited is in front of the picture that it waited for, by as much as it came earlier.
    let (sound, picture) = (recorded[1].of(Kind::Audio)[0], recorded[1].of(Kind::Video)[0]);
    let offset = i64::from(syncs[2]) - i64::from(rest[at].timestamp);
    assert!((picture.dts - sound.dts - offset).abs() < 100, "{} of {offset} ms", picture.dts - sound.dts);
}
