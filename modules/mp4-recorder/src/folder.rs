//! A folder as a store: a file is there under its name, whole, or not at all.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::name;

const COPIED_AT_ONCE: usize = 1 << 20;

/// What became of a file that was to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// It is there, and was not before.
    New,
    /// It was there already, byte for byte.
    Already,
    /// Something else has that name.
    NameTaken,
    /// The file is neither in the spool nor in the store: somebody deleted it.
    Gone,
}

/// Puts `file` into `root` under `name`. Nothing that is there is overwritten. Where this ends in between, doing it
/// again does what was left. `file` itself is gone afterwards, or not. `part`: digits that no other recording has.
///
/// # Errors
/// The system's word, with the path it is about.
pub fn store(file: &Path, root: &Path, name: &str, part: &str) -> Result<Stored, FolderError> {
    let stored = put(file, root, name, part)?;
    if matches!(stored, Stored::New | Stored::Already) {
        // Sent while it was being written, to what was another disk then or had another file of these bytes.
        if let Err(error) = discard(root, name, part) {
            tracing::warn!("what was sent of {name} while it was written stays beside it: {error}");
        }
    }
    Ok(stored)
}

fn put(file: &Path, root: &Path, name: &str, part: &str) -> Result<Stored, FolderError> {
    let target = root.join(name);
    let folder = target.parent().unwrap_or(root);
    let is_durable = || sync_names(root, folder).map_err(at(folder));
    let source = match std::fs::metadata(file) {
        Ok(metadata) => metadata,
        // Moved by a process that ended before it could say so, and maybe before it was durable.
        Err(error) if error.kind() == io::ErrorKind::NotFound && target.is_file() => {
            return is_durable().map(|()| Stored::Already);
        }
        // A folder that is not mounted now may have it.
        Err(error) if error.kind() == io::ErrorKind::NotFound && root.is_dir() => return Ok(Stored::Gone),
        Err(error) => return Err(of_spool(file)(error)),
    };
    match std::fs::metadata(&target) {
        Ok(there) if is_same(file, &source, &target, &there)? => {
            return is_durable().map(|()| Stored::Already);
        }
        Ok(_) => return Ok(Stored::NameTaken),
        Err(_) => {}
    }
    std::fs::create_dir_all(folder).map_err(at(folder))?;
    // Before the file moves: whatever syncs the spool folder next makes its name there go away for good.
    is_durable()?;
    match rename_new(file, &target) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(Stored::NameTaken),
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            let aside = aside(&target, part);
            copy(file, &aside)?;
            match rename_new(&aside, &target) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(Stored::NameTaken),
                done => done.map_err(at(&target))?,
            }
        }
        Err(error) => return Err(at(&target)(error)),
    }
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(at(folder))?;
    Ok(Stored::New)
}

/// Whether `root` has `file` under `name`: it was moved there, or is there byte for byte.
///
/// # Errors
/// The system's word, with the path it is about.
pub fn has(file: &Path, root: &Path, name: &str) -> Result<bool, FolderError> {
    let target = root.join(name);
    match (std::fs::metadata(file), std::fs::metadata(&target)) {
        (_, Err(_)) => Ok(false),
        (Err(error), Ok(there)) if error.kind() == io::ErrorKind::NotFound => Ok(there.is_file()),
        (Err(error), Ok(_)) => Err(of_spool(file)(error)),
        (Ok(source), Ok(there)) => is_same(file, &source, &target, &there),
    }
}

/// Why a folder does not take a file.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}{}", path.display(), remedy(path, source))]
pub struct FolderError {
    path: PathBuf,
    source: io::Error,
    /// The file of the spool can't be read.
    is_of_spool: bool,
}

impl FolderError {
    /// Whether another file may get there where this one does not: it can't be read, or its name is refused.
    pub fn is_of_the_file(&self) -> bool {
        use rustix::io::Errno;
        const OF_ONE: [Errno; 10] = [
            Errno::NAMETOOLONG,
            Errno::INVAL,
            Errno::ISDIR,
            Errno::NOTDIR,
            Errno::EXIST,
            Errno::LOOP,
            Errno::ILSEQ,
            Errno::ACCESS,
            Errno::PERM,
            Errno::IO,
        ];
        self.is_of_spool || Errno::from_io_error(&self.source).is_some_and(|errno| OF_ONE.contains(&errno))
    }
}

/// What to do where the module may not write to a path of a store.
pub fn remedy(path: &Path, error: &io::Error) -> String {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return String::new();
    }
    let folder = path.ancestors().find(|folder| folder.is_dir()).unwrap_or(path).display();
    let user = rustix::process::getuid().as_raw();
    format!("; the module runs as user {user}, which must own the folder (`chown -R {user} {folder}`)")
}

/// What the system says of a path in the folder.
fn at(path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    let path = path.to_owned();
    move |source| FolderError { path, source, is_of_spool: false }
}

/// The same of a file of the spool.
fn of_spool(path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    let path = path.to_owned();
    move |source| FolderError { path, source, is_of_spool: true }
}

/// Copies, durably. Which of the two files an error is about shows only where each is asked by itself. What is there of
/// an earlier try is written over and not cut off first: it is all that is left if the machine is lost meanwhile.
fn copy(file: &Path, aside: &Path) -> Result<(), FolderError> {
    let mut from = File::open(file).map_err(of_spool(file))?;
    let options = OpenOptions::new().create(true).truncate(false).write(true).clone();
    let mut to = options.open(aside).map_err(at(aside))?;
    let (mut piece, mut copied) = (vec![0; COPIED_AT_ONCE], 0);
    loop {
        let read = from.read(&mut piece).map_err(of_spool(file))?;
        match piece.get(..read) {
            Some(read) if !read.is_empty() => to.write_all(read).map_err(at(aside))?,
            _ => return to.set_len(copied).and_then(|()| to.sync_all()).map_err(at(aside)),
        }
        copied += read as u64;
    }
}

/// A name that no player looks at, the same at each try.
fn aside(target: &Path, part: &str) -> PathBuf {
    let target_name = target.file_name().unwrap_or_default().to_string_lossy();
    let behind = format!(".{part}.part");
    // A name that is as long as names may be has no room for more.
    let name = name::shortened(&target_name, behind.len() + 1);
    target.with_file_name(format!(".{name}{behind}"))
}

/// Removes what was sent of a file while it was written, durably.
///
/// # Errors
/// The system's word, with the path it is about.
pub fn discard(root: &Path, name: &str, part: &str) -> Result<(), FolderError> {
    let partial = aside(&root.join(name), part);
    match std::fs::remove_file(&partial) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(at(&partial)(error)),
        Ok(()) => {
            let folder = partial.parent().unwrap_or(root);
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(at(folder))
        }
    }
}

/// The file will have another name: so does its partial file, or it would be found there later and taken for one of a
/// recorder that was lost.
///
/// # Errors
/// The system's word, with the path it is about.
pub fn call(root: &Path, before: &str, name: &str, part: &str) -> Result<(), FolderError> {
    let (before, partial) = (aside(&root.join(before), part), aside(&root.join(name), part));
    match std::fs::rename(&before, &partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(&partial)(error)),
        _ => Ok(()),
    }
}

/// What a partial file will be called; `None`: it is none. Earlier versions gave it the recording's number, of 12 digits.
pub fn of_partial(path: &Path) -> Option<String> {
    let inner = path.file_name()?.to_str()?.strip_prefix('.')?.strip_suffix(".part")?;
    let (name, id) = inner.rsplit_once('.')?;
    let is_ours = matches!(id.len(), 12 | 16)
        && id.bytes().all(|byte| byte.is_ascii_hexdigit())
        && name.ends_with(".mp4");
    is_ours.then(|| name.to_owned())
}

/// Appends to the partial file of `file` what it lacks of the first `bytes`, durably.
///
/// # Errors
/// The system's word, with the path it is about.
pub fn append(file: &Path, root: &Path, name: &str, part: &str, bytes: u64) -> Result<(), FolderError> {
    let target = root.join(name);
    let folder = target.parent().unwrap_or(root);
    std::fs::create_dir_all(folder).map_err(at(folder))?;
    let partial = aside(&target, part);
    let mut to = OpenOptions::new().create(true).append(true).open(&partial).map_err(at(&partial))?;
    let there = to.metadata().map_err(at(&partial))?.len();
    if there >= bytes {
        return Ok(());
    }
    let mut from = File::open(file).map_err(of_spool(file))?;
    from.seek(SeekFrom::Start(there)).map_err(of_spool(file))?;
    io::copy(&mut from.take(bytes - there), &mut to).and_then(|_| to.sync_data()).map_err(at(&partial))?;
    if there == 0 {
        sync_names(root, folder).map_err(at(folder))?;
    }
    Ok(())
}

/// Renames, over nothing.
///
/// # Errors
/// The system's word.
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // File systems without that flag may have links, which are never made over something either.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => match std::fs::hard_link(from, to) {
            Ok(()) => std::fs::remove_file(from),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
            Err(_) => rename_over_new(from, to),
        },
        done => Ok(done?),
    }
}

/// The same where there are no links either: takes the name with an empty file first.
fn rename_over_new(from: &Path, to: &Path) -> io::Result<()> {
    File::create_new(to)?;
    std::fs::rename(from, to).inspect_err(|_| drop(std::fs::remove_file(to)))
}

/// Makes names durable: those in `folder`, and those of the folders from `root` down to it. A power cut then takes none
/// of them away together with the files in it, whoever created them.
fn sync_names(root: &Path, folder: &Path) -> io::Result<()> {
    for dir in folder.ancestors() {
        match File::open(dir) {
            // What lies above may be closed to this user, and is not new then.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && dir != folder => {}
            opened => opened?.sync_all()?,
        }
        if dir.parent().is_none_or(|parent| parent.as_os_str().is_empty()) || Some(dir) == root.parent() {
            break;
        }
    }
    Ok(())
}

fn is_same(
    one: &Path,
    of_one: &std::fs::Metadata,
    other: &Path,
    of_other: &std::fs::Metadata,
) -> Result<bool, FolderError> {
    if (of_one.dev(), of_one.ino()) == (of_other.dev(), of_other.ino()) {
        return Ok(true);
    }
    if !of_other.is_file() || of_one.len() != of_other.len() {
        return Ok(false);
    }
    let path = one;
    let mut one = File::open(path).map_err(of_spool(path))?;
    let mut other = File::open(other).map_err(at(other))?;
    let (mut left, mut right) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let read = one.read(&mut left).map_err(of_spool(path))?;
        let (Some(left), Some(right)) = (left.get(..read), right.get_mut(..read)) else { return Ok(false) };
        if read == 0 {
            return Ok(true);
        }
        if other.read_exact(right).is_err() || left != right {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PART: &str = "0123456789abcdef";

    fn spooled(dir: &Path, content: &str) -> PathBuf {
        let path = dir.join("00000000000a.cam.disk.mp4");
        std::fs::write(&path, content).unwrap();
        path
    }

    #[test]
    fn a_file_arrives_under_its_name_and_a_second_try_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("rec");
        let file = spooled(dir.path(), "one");
        assert_eq!(store(&file, &root, "a/b/c.mp4", PART).unwrap(), Stored::New);
        assert_eq!(std::fs::read_to_string(root.join("a/b/c.mp4")).unwrap(), "one");
        assert!(!file.exists());
        assert_eq!(store(&file, &root, "a/b/c.mp4", PART).unwrap(), Stored::Already);
        // A copy that was left in the spool.
        let file = spooled(dir.path(), "one");
        assert_eq!(store(&file, &root, "a/b/c.mp4", PART).unwrap(), Stored::Already);
    }

    #[test]
    fn what_is_there_with_other_content_stays() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("rec");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(root.join("c.mp4"), "other").unwrap();
        std::fs::create_dir(root.join("d.mp4")).unwrap();
        for (content, name) in [("these", "c.mp4"), ("longer than that", "c.mp4"), ("one", "d.mp4")] {
            let file = spooled(dir.path(), content);
            assert_eq!(store(&file, &root, name, PART).unwrap(), Stored::NameTaken);
            assert!(file.exists());
        }
        assert_eq!(std::fs::read_to_string(root.join("c.mp4")).unwrap(), "other");
    }

    #[test]
    fn without_links_a_name_that_is_in_use_is_not_taken_either() {
        let dir = tempfile::tempdir().unwrap();
        let (file, to) = (spooled(dir.path(), "one"), dir.path().join("to.mp4"));
        rename_over_new(&file, &to).unwrap();
        assert_eq!((std::fs::read_to_string(&to).unwrap(), file.exists()), ("one".into(), false));
        let file = spooled(dir.path(), "other");
        assert_eq!(rename_over_new(&file, &to).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert!(rename_over_new(&dir.path().join("none"), &dir.path().join("b.mp4")).is_err());
        assert!(file.exists() && !dir.path().join("b.mp4").exists());
        assert_eq!(std::fs::read_to_string(&to).unwrap(), "one");
    }

    #[test]
    fn a_file_on_another_disk_is_copied_and_then_renamed() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let other = tempfile::tempdir().unwrap();
        let file = spooled(dir.path(), "across");
        let same_disk =
            std::fs::metadata(dir.path()).unwrap().dev() == std::fs::metadata(other.path()).unwrap().dev();
        assert_eq!(store(&file, other.path(), "x/c.mp4", PART).unwrap(), Stored::New);
        assert_eq!(std::fs::read_to_string(other.path().join("x/c.mp4")).unwrap(), "across");
        assert_eq!(std::fs::read_dir(other.path().join("x")).unwrap().count(), 1);
        assert_eq!(file.exists(), !same_disk);
    }

    #[test]
    fn a_file_that_cannot_be_read_or_whose_name_is_refused_says_nothing_of_the_next_one() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let other = tempfile::tempdir().unwrap();
        let refuses = |file: &Path, name: &str| store(file, other.path(), name, PART).unwrap_err();
        // Reading it fails.
        let folder = dir.path().join("00000000000b.cam.disk.mp4");
        std::fs::create_dir(&folder).unwrap();
        assert!(refuses(&folder, "a.mp4").is_of_the_file());
        let file = spooled(dir.path(), "one");
        assert!(refuses(&file, &format!("{}.mp4", "x".repeat(252))).is_of_the_file());
        std::fs::write(other.path().join("plain"), "").unwrap();
        assert!(refuses(&file, "plain/a.mp4").is_of_the_file());
        // The same is compared with what is there.
        std::fs::create_dir(other.path().join("b.mp4")).unwrap();
        assert_eq!(store(&file, other.path(), "b.mp4", PART).unwrap(), Stored::NameTaken);
        for errno in [rustix::io::Errno::NOSPC, rustix::io::Errno::ROFS, rustix::io::Errno::DQUOT] {
            assert!(!at(&file)(errno.into()).is_of_the_file());
        }
    }

    #[test]
    fn the_longest_name_arrives_on_another_disk_too() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let other = tempfile::tempdir().unwrap();
        let file = spooled(dir.path(), "long");
        let name = format!("{}.mp4", "\u{e9}".repeat(125));
        assert_eq!(store(&file, other.path(), &name, PART).unwrap(), Stored::New);
        let partial = aside(&other.path().join(&name), PART);
        assert!(partial.file_name().unwrap().len() <= 255);
        assert!(of_partial(&partial).unwrap().starts_with("\u{e9}\u{e9}"));
    }

    /// What lies beside the marker of a folder, in order.
    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn recordings_of_two_recorders_that_share_name_and_number_are_sent_into_partial_files_of_their_own() {
        let (spools, other) = (
            ["one", "other"].map(|_| tempfile::tempdir().unwrap()),
            tempfile::tempdir_in("/dev/shm").unwrap(),
        );
        let [one, two] = ["one one one", "two two two"];
        let files = [spooled(spools[0].path(), one), spooled(spools[1].path(), two)];
        let parts = ["00000000000000aa", "00000000000000bb"];
        for (file, part) in files.iter().zip(parts) {
            append(file, other.path(), "c.mp4", part, 7).unwrap();
        }
        let partials = parts.map(|part| other.path().join(format!(".c.mp4.{part}.part")));
        assert_eq!(
            partials.each_ref().map(|path| std::fs::read_to_string(path).unwrap()),
            ["one one", "two two"]
        );
        assert_eq!(store(&files[0], other.path(), "c.mp4", parts[0]).unwrap(), Stored::New);
        assert_eq!(std::fs::read_to_string(&partials[1]).unwrap(), "two two");
        assert_eq!(store(&files[1], other.path(), "c.mp4", parts[1]).unwrap(), Stored::NameTaken);
        // What was sent of it has the name that the file will have.
        call(other.path(), "c.mp4", "c-2.mp4", parts[1]).unwrap();
        assert_eq!(names(other.path()), [".c-2.mp4.00000000000000bb.part", "c.mp4"]);
        assert_eq!(store(&files[1], other.path(), "c-2.mp4", parts[1]).unwrap(), Stored::New);
        assert_eq!(names(other.path()), ["c-2.mp4", "c.mp4"]);
        assert_eq!(
            ["c.mp4", "c-2.mp4"].map(|name| std::fs::read_to_string(other.path().join(name)).unwrap()),
            [one, two]
        );
    }

    #[test]
    fn nothing_is_left_of_what_was_sent_where_the_whole_file_is_there_already() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("rec");
        let file = spooled(dir.path(), "one one");
        append(&file, &root, "c.mp4", PART, 3).unwrap();
        std::fs::copy(&file, root.join("c.mp4")).unwrap();
        assert_eq!(store(&file, &root, "c.mp4", PART).unwrap(), Stored::Already);
        assert_eq!(names(&root), ["c.mp4"]);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_told_with_the_user_who_must_own_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("2026/a.mp4");
        let error = at(&path)(io::ErrorKind::PermissionDenied.into()).to_string();
        assert!(
            error.contains(&format!(
                "chown -R {} {}",
                rustix::process::getuid().as_raw(),
                dir.path().display()
            )),
            "{error}"
        );
        let error = at(&path)(io::ErrorKind::StorageFull.into()).to_string();
        assert!(!error.contains("chown"), "{error}");
    }

    #[test]
    fn partial_files_of_earlier_versions_are_known_by_their_names_too() {
        for (name, of) in [
            (".c.mp4.0123456789abcdef.part", Some("c.mp4")),
            (".c.mp4.00000000000a.part", Some("c.mp4")),
            (".c.mp4.0a.part", None),
            (".c.mov.00000000000a.part", None),
            ("c.mp4", None),
        ] {
            assert_eq!(of_partial(Path::new(name)).as_deref(), of, "{name}");
        }
    }

    #[test]
    fn a_file_in_neither_place_is_gone_unless_the_folder_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let gone = dir.path().join("gone");
        assert_eq!(store(&gone, dir.path(), "c.mp4", PART).unwrap(), Stored::Gone);
        let error = store(&gone, &dir.path().join("away"), "c.mp4", PART).unwrap_err();
        assert!(error.to_string().contains("gone"), "{error}");
    }
}
