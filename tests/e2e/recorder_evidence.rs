//! `uploadOpenSegment`: the plug is pulled in the middle of a file and the disk is lost, and what was recorded comes back
//! from the store.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use av_tests::clip::Clip;
use av_tests::module::{Module, Setup};
use av_tests::program::Program;
use av_tests::recording::{End, Kind, Recording, Times};
use av_tests::rtmp::Publisher;
use av_tests::tool::Tool;
use av_tests::{needs, port, tool, wait};
use serde_json::{Value, json};

use crate::recorder_blobs::{Azurite, KEY};
use crate::{rtmp, twin};

fn document(listen: &str, mut output: Value) -> Value {
    output["segmentSeconds"] = json!(60);
    output["uploadOpenSegment"] = json!(true);
    output["name"] = json!("{flow}/%Y%m%dT%H%M%S.%3f.mp4");
    let mut document =
        twin(json!({ "cam": { "input": { "listen": listen }, "outputs": { "away": output } } }));
    document["spool"] = json!({ "megabytes": 200, "minFreeMegabytes": 16 });
    document
}

fn frames(module: &Module) -> u64 {
    module.status()["flows"]["cam"]["outputs"]["away"]["frames"].as_u64().unwrap_or(0)
}

/// `mp4-recorder recover` with a key for containers; what it prints.
fn recover(store: &str, more: &[&str]) -> String {
    let mut command = Command::new(tool::binary("mp4-recorder"));
    command.args(["recover", "--store", store]).args(more).env("AZURE_STORAGE_KEY", KEY);
    let ran = Program::run(&mut command, wait::LONG);
    assert!(ran.status.success(), "{}{}", ran.stdout, ran.stderr);
    ran.stdout
}

/// Plays the pictures of a file (what tells one round of sound from another is nothing for decoders), and reads all of it.
fn read(file: &Path) -> Recording {
    let name = file.to_str().unwrap();
    let ffmpeg = |arguments: &[&str]| {
        let mut command = Tool::Ffmpeg.command();
        command.args(["-hide_banner", "-nostdin", "-loglevel", "error", "-i", name]).args(arguments);
        let ran = Program::run(&mut command, wait::LONG);
        assert!(ran.status.success() && ran.stderr.trim().is_empty(), "{command:?}: {}", ran.stderr);
        ran.stdout
    };
    ffmpeg(&["-map", "0:v", "-f", "null", "-"]);
    let base = ["-map", "0", "-c", "copy", "-copyts", "-enc_time_base", "1:1000000", "-f", "framemd5", "-"];
    Recording::of_framemd5_in_milliseconds(&ffmpeg(&base))
}

/// The same frames, one after the other. Where one round of a clip ends and the next begins, times are made even.
pub fn must_be_a_part(recorded: &Recording, published: &Recording) {
    for kind in [Kind::Video, Kind::Audio] {
        let hashes = |of: &Recording| of.of(kind).iter().map(|one| one.hash.clone()).collect::<Vec<_>>();
        let (got, sent) = (hashes(recorded), hashes(published));
        assert!(
            !got.is_empty() && sent.windows(got.len()).any(|part| part == got),
            "{kind:?}: {} frames",
            got.len()
        );
    }
}

/// Records until `is_further` says so, and then once more: whatever was counted before is in the store. Pulls the plug,
/// takes the disk, and gives what `come_back` finds.
fn lost(module: Module, url: &str, sent: impl Fn() -> u64, come_back: impl FnOnce() -> PathBuf) {
    let publishing = Publisher::to(url).run_endlessly(Clip::Plain.tags());
    // Some six seconds, of a file of sixty.
    wait::until_true("six seconds are recorded", wait::LONG, || frames(&module) >= 400);
    let (counted, before) = (frames(&module), sent());
    // The one that comes now may have been cut before the frames were counted.
    wait::until_true("what was counted was sent", wait::LONG, || sent() >= before + 2);
    let at_the_end = frames(&module);
    // SIGKILL, and the state dir with the spool is gone.
    let dir = module.dir();
    drop(module);
    assert!(!dir.exists());
    // It has lost its server.
    drop(publishing);
    let file = come_back();
    let recovered = read(&file);
    println!("{} of {at_the_end} frames came back, {counted} were due", recovered.0.len());
    assert!(recovered.0.len() as u64 >= counted, "{} of {counted}", recovered.0.len());
    let tags = Clip::Plain.tags();
    let period = tags.iter().map(|tag| tag.timestamp).max().unwrap() + 40;
    let rounds = (0..20).flat_map(|round| tags.iter().filter_map(move |tag| tag.in_round(round, period)));
    let published = Recording::of_tags(&rounds.collect::<Vec<_>>());
    must_be_a_part(&recovered, &published);
}

#[test]
fn what_a_lost_device_had_sent_of_an_open_file_comes_back_from_its_container() {
    needs!(Ffmpeg, Azurite, BlobSdk);
    let folder = tempfile::tempdir().unwrap();
    let azurite = Azurite::start(folder.path(), port::free());
    azurite.python("box.create_container()\nbox.upload_blob('empty.mp4', b'')");
    let listen = rtmp(port::free(), "live/cam");
    let output = json!({ "store": azurite.url(), "credentials": { "accountKey": KEY } });
    let module = Setup::new("mp4-recorder").twin(&document(&listen, output)).start();
    let read_to = folder.path().join("read");
    lost(
        module,
        &listen,
        || azurite.staged().len() as u64,
        || {
            assert!(recover(&azurite.url(), &["--flow", "other"]).starts_with("0 recovered, 0 not"));
            let said = recover(&azurite.url(), &["--flow", "cam"]);
            assert!(said.contains("1 recovered, 0 not"), "{said}");
            assert!(recover(&azurite.url(), &[]).starts_with("0 recovered, 0 not"));
            std::fs::create_dir(&read_to).unwrap();
            let path = read_to.join("back.mp4");
            azurite.python(&format!(
                "blobs = [b for b in box.list_blobs(include=['metadata']) if b.name != 'empty.mp4']\n\
                 assert len(blobs) == 1 and blobs[0].metadata == {{'recovered': 'true'}}, blobs\n\
                 data = box.download_blob(blobs[0].name).readall()\n\
                 import hashlib\n\
                 assert hashlib.md5(data).digest() == bytes(blobs[0].content_settings.content_md5)\n\
                 open({:?}, 'wb').write(data)",
                path.display().to_string()
            ));
            has_its_index_in_front(&path);
            path
        },
    );
}

/// The second box of a finished file is its index.
fn has_its_index_in_front(file: &Path) {
    let bytes = std::fs::read(file).unwrap();
    let size = u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize;
    assert_eq!((&bytes[4..8], &bytes[size + 4..size + 8]), (&b"ftyp"[..], &b"moov"[..]));
}

#[test]
fn what_a_lost_device_had_sent_of_an_open_file_comes_back_from_a_folder_on_another_disk() {
    needs!(Ffmpeg);
    let other = tempfile::tempdir_in("/dev/shm").unwrap();
    let listen = rtmp(port::free(), "live/cam");
    let store = format!("file://{}", other.path().display());
    let module = Setup::new("mp4-recorder").twin(&document(&listen, json!({ "store": store }))).start();
    let cam = other.path().join("cam");
    let only = || std::fs::read_dir(&cam).ok().and_then(|mut entries| Some(entries.next()?.ok()?.path()));
    // Whole pieces of a second or more.
    let pieces = std::cell::RefCell::new(std::collections::BTreeSet::new());
    let sent = || {
        let length = only().and_then(|path| std::fs::metadata(path).ok()).map_or(0, |file| file.len());
        let mut pieces = pieces.borrow_mut();
        pieces.insert(length);
        pieces.len() as u64
    };
    lost(module, &listen, sent, || {
        let partial = only().expect("a partial file");
        assert!(partial.to_str().unwrap().ends_with(".part"), "{}", partial.display());
        let mut of_flow = Command::new(tool::binary("mp4-recorder"));
        of_flow.args(["recover", "--store", &store, "--flow", "cam"]);
        let refused = Program::run(&mut of_flow, wait::LONG);
        assert_eq!(refused.status.code(), Some(64), "{}", refused.stderr);
        assert!(refused.stderr.starts_with("--flow is for containers"), "{}", refused.stderr);
        let said = recover(&store, &[]);
        assert!(said.contains("1 recovered, 0 not"), "{said}");
        let file = only().expect("a file");
        assert!(file.extension().is_some_and(|extension| extension == "mp4"), "{}", file.display());
        file
    });
}

#[test]
fn what_two_lost_devices_had_sent_under_one_name_comes_back_as_two_files() {
    needs!(Ffmpeg);
    let other = tempfile::tempdir_in("/dev/shm").unwrap();
    let store = format!("file://{}", other.path().display());
    let lost = [Clip::Plain, Clip::Pyramid].map(|clip| {
        let listen = rtmp(port::free(), "live/cam");
        let mut document = document(&listen, json!({ "store": store }));
        document["flows"]["cam"]["outputs"]["away"]["name"] = json!("{flow}/one.mp4");
        let module = Setup::new("mp4-recorder").twin(&document).start();
        let publishing = Publisher::to(&listen).run_endlessly(clip.tags());
        (module, publishing, clip.tags())
    });
    let cam = other.path().join("cam");
    let partial = || std::fs::read_dir(&cam).into_iter().flatten().flatten().map(|entry| entry.path());
    let length = |path: &PathBuf| std::fs::metadata(path).map_or(0, |file| file.len());
    wait::until_true("both have sent some of their files", wait::LONG, || {
        lost.iter().all(|(module, ..)| frames(module) >= 300)
            && partial().filter(|path| length(path) > 50_000).count() >= 2
    });
    let published = lost.map(|(module, publishing, tags)| {
        drop((module, publishing));
        let period = tags.iter().map(|tag| tag.timestamp).max().unwrap() + 40;
        let rounds = (0..20).flat_map(|round| tags.iter().filter_map(move |tag| tag.in_round(round, period)));
        Recording::of_tags(&rounds.collect::<Vec<_>>())
    });
    // As an earlier version called it; and a folder that nobody may read.
    let first = partial().min().unwrap();
    std::fs::rename(&first, cam.join(".one.mp4.000000000001.part")).unwrap();
    let closed = other.path().join("lost+found");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).unwrap();
    let mut command = Command::new(tool::binary("mp4-recorder"));
    command.args(["recover", "--store", &store]);
    if std::fs::metadata(&closed).is_ok_and(|own| own.uid() == 0) {
        // Whoever runs this owns what was sent, and not that folder.
        for path in [other.path(), &cam].into_iter().map(Path::to_owned).chain(partial()) {
            std::os::unix::fs::chown(path, Some(10_001), Some(10_001)).unwrap();
        }
        command.uid(10_001).gid(10_001);
    } else {
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o000)).unwrap();
    }
    let ran = Program::run(&mut command, wait::LONG);
    assert!(ran.stdout.contains("2 recovered, 1 not"), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stderr.contains("lost+found: Permission denied"), "{}", ran.stderr);
    assert_eq!(ran.status.code(), Some(1));
    let found: Vec<_> = partial().map(|path| read(&path)).collect();
    assert_eq!(found.len(), 2);
    // The first picture tells whose it is.
    let first = |of: &Recording| of.of(Kind::Video).first().map(|one| one.hash.clone());
    for published in &published {
        let own = found.iter().find(|found| first(found) == first(published)).expect("a file of each device");
        must_be_a_part(own, published);
    }
}

#[test]
fn nothing_is_left_of_what_was_sent_when_the_store_is_changed_or_the_name_is_taken() {
    needs!(Ffmpeg);
    let other = tempfile::tempdir_in("/dev/shm").unwrap();
    let listen = rtmp(port::free(), "live/cam");
    let into = |folder: &str| {
        let store = format!("file://{}", other.path().join(folder).display());
        let mut document = document(&listen, json!({ "store": store }));
        document["flows"]["cam"]["outputs"]["away"]["name"] = json!(format!("{{flow}}/{folder}.mp4"));
        document
    };
    let names = |folder: &str| -> Vec<String> {
        let entries =
            std::fs::read_dir(other.path().join(folder).join("cam")).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let module = Setup::new("mp4-recorder").twin(&into("one")).start();
    let publishing = Publisher::to(&listen).run_endlessly(Clip::Plain.tags());
    let is_sent = |folder: &str| names(folder).iter().any(|name| name.ends_with(".part"));
    wait::until_true("it is sent to the first folder", wait::LONG, || is_sent("one"));
    module.set_twin(&into("two"));
    wait::until_true("it is sent to the second folder", wait::LONG, || {
        names("two").contains(&"one.mp4".to_owned()) && is_sent("two")
    });
    assert_eq!(names("one"), Vec::<String>::new());
    std::fs::write(other.path().join("two/cam/two.mp4"), "somebody else's").unwrap();
    publishing.stop();
    wait::until_true("it is stored under the next name", wait::LONG, || {
        names("two") == ["one.mp4", "two-2.mp4", "two.mp4"]
    });
    assert_eq!(module.terminate().status.code(), Some(0));
}

#[test]
fn what_is_sent_under_a_name_that_a_file_before_has_is_not_lost_when_that_one_is_stored() {
    needs!(Azurite, BlobSdk);
    let folder = tempfile::tempdir().unwrap();
    let azurite = Azurite::start(folder.path(), port::free());
    azurite.python("box.create_container()");
    let listen = rtmp(port::free(), "live/cam");
    let output = json!({
        "store": azurite.url(), "credentials": { "accountKey": KEY }, "uploadKilobitsPerSecond": 6000,
    });
    let mut document = document(&listen, output);
    let away = &mut document["flows"]["cam"]["outputs"]["away"];
    away["name"] = json!("{flow}/one.mp4");
    away["segmentSeconds"] = json!(10);
    let module = Setup::new("mp4-recorder").twin(&document).start();
    // More comes in than gets away: the first file is still being sent when the next one begins.
    let publishing = Publisher::to(&listen).run_endlessly(Clip::Heavy.tags());
    let names = |more: &str| azurite.python(&format!("print(*[b.name for b in box.list_blobs({more})])"));
    let waiting = || names("include=['uncommittedblobs']");
    wait::until_true("two files are sent", wait::LONG, || waiting().contains("one-2.mp4"));
    drop((module, publishing));
    let stored = names("").split_whitespace().count();
    let sent = waiting().split_whitespace().count();
    let said = recover(&azurite.url(), &[]);
    assert!(said.contains(&format!("{} recovered, 0 not", sent - stored)), "{stored} of {sent}: {said}");
    // What waits under the name of a stored file can't come back, and is not kept quiet.
    azurite.python(
        "blob = box.get_blob_client('x.mp4')\nblob.upload_blob(b'stored')\n\
         blob.stage_block('a' * 24 + '0' * 12, b'sent')",
    );
    let mut command = Command::new(tool::binary("mp4-recorder"));
    command.args(["recover", "--store", &azurite.url()]).env("AZURE_STORAGE_KEY", KEY);
    let ran = Program::run(&mut command, wait::LONG);
    assert!(ran.stdout.contains("0 recovered, 1 not"), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stderr.contains("x.mp4: passed over: 4 bytes"), "{}", ran.stderr);
    assert_eq!(ran.status.code(), Some(1));
}

#[test]
fn a_file_that_was_sent_while_it_was_written_is_stored_whole_and_nothing_of_it_is_sent_twice_but_its_head() {
    needs!(Ffmpeg, Azurite, BlobSdk);
    let folder = tempfile::tempdir().unwrap();
    let azurite = Azurite::start(folder.path(), port::free());
    azurite.python("box.create_container()");
    let listen = rtmp(port::free(), "live/cam");
    let output = json!({ "store": azurite.url(), "credentials": { "accountKey": KEY } });
    let module = Setup::new("mp4-recorder").twin(&document(&listen, output)).start();
    let mut publisher = Publisher::to(&listen);
    let tags = Clip::Heavy.tags();
    publisher.play_out(&tags).unwrap();
    publisher.finish().unwrap();
    module.wait_value("/flows/cam/outputs/away/state", "waiting");
    module.wait_value("/summary/spoolBytes", 0);
    let blobs = azurite.blobs(&folder.path().join("read"));
    assert_eq!(blobs.len(), 1, "{blobs:?}");
    assert_eq!(
        (&blobs[0]["same"], &blobs[0]["metadata"]["flow"]),
        (&json!(true), &json!("cam")),
        "{blobs:?}"
    );
    let stored = read(Path::new(blobs[0]["path"].as_str().unwrap()));
    stored.must_be(&Recording::of_tags(&tags), Times::AudioWithinOneMillisecond, End::Complete);
    let staged = azurite.staged();
    let different: std::collections::BTreeSet<_> = staged.iter().collect();
    assert!(different.len() >= 3, "{staged:?}");
    assert_eq!(staged.len(), different.len(), "{staged:?}");
    // The head goes again at the close, under an id of its own: so ends the base64 of it.
    let again = staged.iter().filter(|id| id.ends_with("MTAwMDAwMDAwMDAw"));
    assert_eq!(again.count(), 1, "{staged:?}");
    assert_eq!(module.terminate().status.code(), Some(0));
}

#[test]
fn a_file_whose_index_needs_several_blocks_is_stored_as_it_is_in_the_spool() {
    needs!(Ffmpeg, Azurite, BlobSdk);
    let folder = tempfile::tempdir().unwrap();
    let azurite = Azurite::start(folder.path(), port::free());
    azurite.python("box.create_container()");
    let listen = rtmp(port::free(), "live/cam");
    let output = json!({ "store": azurite.url(), "credentials": { "accountKey": KEY } });
    let mut document = document(&listen, output);
    document["flows"]["cam"]["outputs"]["away"]["segmentSeconds"] = json!(3600);
    let module = Setup::new("mp4-recorder").twin(&document).start();
    // A picture each 9 ms, shown 10 and 12 ms after they are decoded, in turn: the next file keeps room for an hour of
    // them, some 9 MB.
    let mut tags = Clip::Heavy.tags();
    tags.retain(|tag| tag.kind == 9);
    for (at, tag) in tags.iter_mut().enumerate() {
        tag.timestamp = tag.timestamp * 9 / 40;
        if !tag.is_header() {
            tag.body[4] = if at % 2 == 0 { 10 } else { 12 };
        }
    }
    let media: usize = tags.iter().map(|tag| tag.body.len()).sum();
    for round in 1..=2 {
        let mut publisher = Publisher::to(&listen);
        let before = azurite.staged().len();
        publisher.play_out(&tags).unwrap();
        // The file is open still.
        wait::until_true("the head is in the store", wait::LONG, || azurite.staged().len() >= before + 2);
        publisher.finish().unwrap();
        module.wait_value("/summary/spoolBytes", 0);
        let blobs = azurite.blobs(&folder.path().join("read"));
        assert_eq!(blobs.len(), round, "{blobs:?}");
        let last = blobs.last().unwrap();
        assert_eq!(last["same"], true, "{last}");
        let file = Path::new(last["path"].as_str().unwrap());
        has_its_index_in_front(file);
        let room = std::fs::metadata(file).unwrap().len() - media as u64;
        assert!(round == 1 || room > 8 << 20, "{room}: {last}");
        read(file).must_be(&Recording::of_tags(&tags), Times::AudioWithinOneMillisecond, End::Complete);
    }
    assert_eq!(module.terminate().status.code(), Some(0));
}
