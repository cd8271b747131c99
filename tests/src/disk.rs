//! What a disk may hold after a power cut.
//!
//! `strace` logs what a program writes, names and syncs below a folder. From that log any state can be built in which a
//! file system may leave the folder when the power goes: what was synced is there, and of everything else any part.
//! Sectors of 512 bytes are written whole or not at all; a rename happens or does not.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::chance::Chance;
use crate::wait;

/// Written whole or not at all.
const SECTOR: u64 = 512;

/// What `strace` is asked for; `-D`: the program keeps its process id.
pub fn strace(log: &Path) -> Vec<String> {
    let calls = "openat,open,creat,write,writev,pwrite64,pwritev,pwritev2,lseek,fallocate,ftruncate,fsync,fdatasync,\
                 close,rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat,copy_file_range,sendfile";
    let line = ["strace", "-D", "-f", "-q", "-y", "-xx", "-s", "16777216", "-e"];
    let mut line: Vec<String> = line.map(str::to_owned).to_vec();
    line.extend([format!("trace={calls}"), "-o".into(), log.display().to_string()]);
    line
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Node {
    File(usize),
    Folder(PathBuf),
}

#[derive(Debug)]
enum Event {
    Write {
        file: usize,
        offset: u64,
        data: Vec<u8>,
    },
    Length {
        file: usize,
        length: u64,
        cuts: bool,
    },
    /// Names that change together; `None`: the name is gone.
    Names(Vec<(PathBuf, Option<Node>)>),
    /// Everything before `began` is on the disk.
    Sync {
        node: Node,
        began: usize,
    },
}

/// What a program did to the files below a folder, in order.
#[derive(Debug, Default)]
pub struct Log {
    root: PathBuf,
    events: Vec<Event>,
    names: BTreeMap<PathBuf, Node>,
    files: usize,
    direct: usize,
}

/// What is left of everything that was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Nothing.
    Nothing,
    /// All of it, as when only the program dies.
    All,
    /// What came first, up to some moment, and of the write of that moment some sectors.
    Torn,
    /// Any sectors, any lengths, and any names.
    Any,
}

/// A folder as it may be found after a power cut.
#[derive(Debug)]
pub struct Image {
    folders: BTreeSet<PathBuf>,
    files: Vec<(PathBuf, Vec<u8>)>,
}

/// One call of the log.
struct Call<'a> {
    name: &'a str,
    arguments: &'a str,
    result: i64,
}

impl<'a> Call<'a> {
    /// `None`: it is none, or it failed.
    fn parse(line: &'a str) -> Option<Self> {
        let (call, result) = line.rsplit_once(" = ")?;
        let (name, arguments) = call.trim_end().strip_suffix(')')?.split_once('(')?;
        let digits = result.split(|c: char| !c.is_ascii_digit()).next()?;
        Some(Self { name, arguments, result: digits.parse().ok()? })
    }

    /// Every text among the arguments.
    fn texts(&self) -> Vec<Vec<u8>> {
        self.arguments.split('"').skip(1).step_by(2).map(unescaped).collect()
    }

    fn path(&self, at: usize) -> PathBuf {
        PathBuf::from(String::from_utf8(self.texts()[at].clone()).unwrap())
    }

    fn descriptor(&self) -> i32 {
        let digits = self.arguments.split(|c: char| !c.is_ascii_digit()).next();
        digits.and_then(|digits| digits.parse().ok()).unwrap_or(-1)
    }

    /// The number at the end, `back` arguments before it.
    fn number(&self, back: usize) -> u64 {
        let field = self.arguments.rsplit(", ").nth(back).unwrap();
        field.parse().unwrap_or_else(|_| panic!("{}({}): no number {back}", self.name, self.arguments))
    }
}

/// `\x2f\x61` as bytes.
fn unescaped(text: &str) -> Vec<u8> {
    text.split("\\x").skip(1).map(|hex| u8::from_str_radix(hex, 16).unwrap()).collect()
}

struct Open {
    node: Node,
    at: u64,
    appends: bool,
    /// Past the page cache.
    direct: bool,
}

impl Log {
    /// Of programs that change files below `root`, which was empty.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), ..Self::default() }
    }

    /// Adds what a program did that has ended. Waits for the end of its log.
    pub fn add(&mut self, log: &Path, process: u32) {
        let process = process.to_string();
        let is_end = |line: &str| {
            let mut words = line.split_whitespace();
            words.next() == Some(process.as_str()) && words.next() == Some("+++")
        };
        let text = wait::until("the log ends", wait::LONG, || {
            let text = std::fs::read_to_string(log).unwrap();
            text.lines().any(is_end).then_some(text)
        });
        let mut unfinished: HashMap<&str, (String, usize)> = HashMap::new();
        let mut open: HashMap<i32, Open> = HashMap::new();
        for line in text.lines() {
            let Some((thread, line)) = line.split_once(' ') else { continue };
            let line = line.trim_start();
            let began = self.events.len();
            if let Some(part) = line.strip_suffix(" <unfinished ...>") {
                unfinished.insert(thread, (part.to_owned(), began));
            } else if line.starts_with("<... ") {
                let (_, rest) = line.split_once(" resumed>").unwrap();
                let (part, began) = unfinished.remove(thread).unwrap();
                let line = part + rest;
                if let Some(call) = Call::parse(&line) {
                    self.call(&call, began, &mut open);
                }
            } else if let Some(call) = Call::parse(line) {
                self.call(&call, began, &mut open);
            }
        }
    }

    fn call(&mut self, call: &Call<'_>, began: usize, open: &mut HashMap<i32, Open>) {
        match call.name {
            "open" | "openat" | "creat" => self.open(call, open),
            "close" => drop(open.remove(&call.descriptor())),
            "lseek" => {
                if let Some(file) = open.get_mut(&call.descriptor()) {
                    file.at = call.result as u64;
                }
            }
            "write" | "writev" | "pwrite64" | "pwritev" => {
                let Some(Open { node: Node::File(file), at, appends, direct }) =
                    open.get_mut(&call.descriptor())
                else {
                    return;
                };
                self.direct += usize::from(*direct);
                let mut data = call.texts().concat();
                data.truncate(call.result as usize);
                let offset = if call.name.starts_with('p') {
                    call.number(0)
                } else if *appends {
                    self.length(*file)
                } else {
                    *at
                };
                if !call.name.starts_with('p') {
                    *at = offset + data.len() as u64;
                }
                self.events.push(Event::Write { file: *file, offset, data });
            }
            "fallocate" | "ftruncate" => {
                let Some(Open { node: Node::File(file), .. }) = open.get(&call.descriptor()) else { return };
                let (file, cuts) = (*file, call.name == "ftruncate");
                let length = if cuts { call.number(0) } else { call.number(0) + call.number(1) };
                self.events.push(Event::Length { file, length, cuts });
            }
            "fsync" | "fdatasync" => {
                if let Some(Open { node, .. }) = open.get(&call.descriptor()) {
                    self.events.push(Event::Sync { node: node.clone(), began });
                }
            }
            "rename" | "renameat" | "renameat2" => {
                let (from, to) = (call.path(0), call.path(1));
                let node = self.names.get(&from).cloned();
                self.name(vec![(from, None), (to, node)]);
            }
            "link" | "linkat" => {
                let node = self.names.get(&call.path(0)).cloned();
                self.name(vec![(call.path(1), node)]);
            }
            "unlink" | "unlinkat" => self.name(vec![(call.path(0), None)]),
            "mkdir" | "mkdirat" => self.name(vec![(call.path(0), Some(Node::Folder(call.path(0))))]),
            "copy_file_range" | "sendfile" | "pwritev2" => {
                let of_ours = open.contains_key(&call.descriptor());
                assert!(!of_ours, "{} writes what the log does not hold", call.name);
            }
            _ => {}
        }
    }

    fn open(&mut self, call: &Call<'_>, open: &mut HashMap<i32, Open>) {
        let path = call.path(0);
        if !path.starts_with(&self.root) {
            return;
        }
        let node = match self.names.get(&path).cloned() {
            Some(node) => node,
            None if call.arguments.contains("O_CREAT") => {
                let node = Node::File(self.files);
                self.files += 1;
                self.name(vec![(path, Some(node.clone()))]);
                node
            }
            None => Node::Folder(path),
        };
        if let Node::File(file) = node
            && call.arguments.contains("O_TRUNC")
        {
            self.events.push(Event::Length { file, length: 0, cuts: true });
        }
        let has = |flag| call.arguments.contains(flag);
        let (appends, direct) = (has("O_APPEND"), has("O_DIRECT"));
        open.insert(call.result as i32, Open { node, at: 0, appends, direct });
    }

    fn name(&mut self, changes: Vec<(PathBuf, Option<Node>)>) {
        if !changes.iter().any(|(path, _)| path.starts_with(&self.root)) {
            return;
        }
        apply(&mut self.names, &changes);
        self.events.push(Event::Names(changes));
    }

    /// Of a file, after everything so far.
    fn length(&self, file: usize) -> u64 {
        self.events.iter().fold(0, |length, event| match event {
            Event::Write { file: of, offset, data } if *of == file => length.max(offset + data.len() as u64),
            Event::Length { file: of, length: to, cuts: true } if *of == file => *to,
            Event::Length { file: of, length: to, cuts: false } if *of == file => length.max(*to),
            _ => length,
        })
    }

    /// How many moments there are at which the power may go.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether nothing happened.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// How many writes went past the page cache.
    pub fn direct_writes(&self) -> usize {
        self.direct
    }

    /// How often something was written over what was durable in a file whose name ends so.
    pub fn rewrites(&self, extension: &str) -> usize {
        let is_so = |(path, node): &(PathBuf, Option<Node>), file: usize| {
            *node == Some(Node::File(file)) && path.extension().is_some_and(|found| found == extension)
        };
        let named = |file: usize| {
            let mut names = self.events.iter().filter_map(|event| match event {
                Event::Names(changes) => Some(changes),
                _ => None,
            });
            names.any(|changes| changes.iter().any(|change| is_so(change, file)))
        };
        let is_rewrite = |(at, event): &(usize, &Event)| match event {
            Event::Write { file, offset, data } => {
                let end = offset + data.len() as u64;
                let before = &self.events[..self.durable(&Node::File(*file), *at)];
                let is_below = |event: &Event| matches!(event, Event::Write { file: of, offset, data } if of == file && offset + data.len() as u64 >= end);
                named(*file) && before.iter().any(is_below)
            }
            _ => false,
        };
        self.events.iter().enumerate().filter(is_rewrite).count()
    }

    /// The moments at which a file or a folder became durable: the first ones at which it has to be there.
    pub fn syncs(&self) -> Vec<usize> {
        let is_sync = |(_, event): &(usize, &Event)| matches!(event, Event::Sync { .. });
        self.events.iter().enumerate().filter(is_sync).map(|(at, _)| at + 1).collect()
    }

    /// Whether `bytes` of the file that is at `path` in the end were on the disk for sure at the moment `cut`. What was
    /// written there again since, as it is, changes nothing.
    pub fn was_durable(&self, path: &Path, bytes: Range<u64>, cut: usize) -> bool {
        let Some(Node::File(file)) = self.names.get(path) else { return false };
        let durable = self.durable(&Node::File(*file), cut);
        let mut content = vec![None; (bytes.end - bytes.start) as usize];
        for (at, event) in self.events[..cut].iter().enumerate() {
            let Event::Write { file: of, offset, data } = event else { continue };
            let (from, to) = (bytes.start.max(*offset), bytes.end.min(offset + data.len() as u64));
            if of != file || from >= to {
                continue;
            }
            let there = &mut content[(from - bytes.start) as usize..(to - bytes.start) as usize];
            let written = &data[(from - offset) as usize..(to - offset) as usize];
            for (there, written) in there.iter_mut().zip(written) {
                if at < durable {
                    *there = Some(*written);
                } else if *there != Some(*written) {
                    return false;
                }
            }
        }
        content.iter().all(Option::is_some)
    }

    /// What happened to `node` before that is on the disk for sure at the moment `cut`.
    fn durable(&self, node: &Node, cut: usize) -> usize {
        let of_node = |event: &Event| match event {
            Event::Sync { node: of, began } if of == node => Some(*began),
            _ => None,
        };
        self.events[..cut].iter().filter_map(of_node).max().unwrap_or(0)
    }

    /// The folder after a power cut at the moment `cut`.
    pub fn image(&self, cut: usize, left: Left, chance: &mut Chance) -> Image {
        let mut names = BTreeMap::new();
        for changes in self.changes_left(cut, left, chance) {
            apply(&mut names, changes);
        }
        let mut folders = BTreeSet::from([self.root.clone()]);
        let mut files = Vec::new();
        // In order: a folder comes before what is in it.
        for (path, node) in names {
            if !path.parent().is_some_and(|parent| folders.contains(parent)) {
                continue;
            }
            match node {
                Node::Folder(_) => drop(folders.insert(path)),
                Node::File(file) => files.push((path, self.content(file, cut, left, chance))),
            }
        }
        let inside = |path: &Path| path.strip_prefix(&self.root).unwrap().to_owned();
        Image {
            folders: folders.iter().map(|path| inside(path)).collect(),
            files: files.into_iter().map(|(path, content)| (inside(&path), content)).collect(),
        }
    }

    fn changes_left(
        &self,
        cut: usize,
        left: Left,
        chance: &mut Chance,
    ) -> Vec<&Vec<(PathBuf, Option<Node>)>> {
        let mut changes = Vec::new();
        for (at, event) in self.events[..cut].iter().enumerate() {
            if let Event::Names(names) = event {
                let folder = |path: &Path| Node::Folder(path.parent().unwrap().to_owned());
                let synced = names.iter().any(|(path, _)| self.durable(&folder(path), cut) > at);
                changes.push((names, synced));
            }
        }
        // A journal keeps the order; without one any may be lost that was not synced.
        let least = changes.iter().rposition(|(_, synced)| *synced).map_or(0, |at| at + 1);
        let first = match left {
            Left::Nothing => least,
            Left::All => changes.len(),
            Left::Torn | Left::Any => chance.of(least..changes.len() + 1),
        };
        let is_left = |(at, (names, synced)): (usize, (_, bool))| {
            let is_left = match left {
                Left::Any => synced || chance.of(0..2) == 0,
                _ => at < first,
            };
            is_left.then_some(names)
        };
        changes.into_iter().enumerate().filter_map(is_left).collect()
    }

    fn content(&self, file: usize, cut: usize, left: Left, chance: &mut Chance) -> Vec<u8> {
        let durable = self.durable(&Node::File(file), cut);
        let of_file = |event: &Event| match event {
            Event::Write { file: of, .. } | Event::Length { file: of, .. } => *of == file,
            _ => false,
        };
        let events: Vec<_> =
            self.events[..cut].iter().enumerate().filter(|(_, event)| of_file(event)).collect();
        let least = events.iter().take_while(|(at, _)| *at < durable).count();
        let mut length = 0;
        let lengths: Vec<u64> = events
            .iter()
            .map(|(_, event)| {
                length = match event {
                    Event::Write { offset, data, .. } => length.max(offset + data.len() as u64),
                    Event::Length { length: to, cuts: true, .. } => *to,
                    Event::Length { length: to, .. } => length.max(*to),
                    _ => length,
                };
                length
            })
            .collect();
        // Up to which event each sector is, and up to which the length.
        let most = lengths.iter().max().copied().unwrap_or(0);
        let sectors = most.div_ceil(SECTOR) as usize;
        let moment = chance.of(least..events.len() + 1);
        let mut of_sector = || match left {
            Left::Nothing => least,
            Left::All => events.len(),
            Left::Torn => (moment + chance.of(0..2)).min(events.len()),
            Left::Any => chance.of(least..events.len() + 1),
        };
        let upto: Vec<usize> = (0..sectors).map(|_| of_sector()).collect();
        let of_length = of_sector();
        let mut content = vec![0; most as usize];
        for (at, (_, event)) in events.iter().enumerate() {
            let (range, data) = match event {
                Event::Write { offset, data, .. } => {
                    (*offset as usize..*offset as usize + data.len(), Some(data))
                }
                Event::Length { length, cuts: true, .. } => {
                    ((*length).min(most) as usize..most as usize, None)
                }
                _ => continue,
            };
            let mut from = range.start;
            while from < range.end {
                let sector = from / SECTOR as usize;
                let to = ((sector + 1) * SECTOR as usize).min(range.end);
                if at < upto[sector] {
                    match data {
                        Some(data) => {
                            content[from..to].copy_from_slice(&data[from - range.start..to - range.start])
                        }
                        None => content[from..to].fill(0),
                    }
                }
                from = to;
            }
        }
        let length = of_length.checked_sub(1).map_or(0, |last| lengths[last]);
        content.resize(length as usize, 0);
        content
    }
}

fn apply(names: &mut BTreeMap<PathBuf, Node>, changes: &[(PathBuf, Option<Node>)]) {
    for (path, node) in changes {
        match node {
            Some(node) => drop(names.insert(path.clone(), node.clone())),
            None => drop(names.remove(path)),
        }
    }
}

impl Image {
    /// Its files and their sizes.
    pub fn files(&self) -> Vec<(&Path, usize)> {
        self.files.iter().map(|(path, content)| (path.as_path(), content.len())).collect()
    }

    /// Puts it into `dir`.
    pub fn write_to(&self, dir: &Path) {
        self.folders.iter().for_each(|folder| std::fs::create_dir_all(dir.join(folder)).unwrap());
        self.files.iter().for_each(|(path, content)| std::fs::write(dir.join(path), content).unwrap());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(text: &str) -> Log {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let hex = |text: &str| text.bytes().map(|byte| format!("\\x{byte:02x}")).collect::<String>();
        let mut out = String::new();
        for (at, part) in text.split('"').enumerate() {
            out += &if at % 2 == 0 { part.to_owned() } else { format!("\"{}\"", hex(part)) };
        }
        std::fs::write(&path, out + "1 +++ exited with 0 +++\n").unwrap();
        let mut log = Log::new(Path::new("/d"));
        log.add(&path, 1);
        log
    }

    fn found(image: &Image) -> BTreeMap<&str, &[u8]> {
        image.files.iter().map(|(path, content)| (path.to_str().unwrap(), &content[..])).collect()
    }

    const TEXT: &str = "1 openat(AT_FDCWD, \"/d/a.new\", O_RDWR|O_CREAT, 0666) = 7</d/a.new>\n\
        2 openat(AT_FDCWD, \"/elsewhere\", O_RDWR|O_CREAT, 0666) = 9</elsewhere>\n\
        1 write(7</d/a.new>, \"one\", 3) = 3\n\
        1 fsync(7</d/a.new> <unfinished ...>\n\
        2 write(9</elsewhere>, \"no\", 2) = 2\n\
        1 <... fsync resumed>)  = 0\n\
        1 writev(7</d/a.new>, [{iov_base=\"tw\", iov_len=2}, {iov_base=\"o\", iov_len=1}], 2) = 3\n\
        1 rename(\"/d/a.new\", \"/d/a\") = 0\n\
        1 openat(AT_FDCWD, \"/d\", O_RDONLY|O_CLOEXEC) = 8</d>\n\
        1 fsync(8</d>) = 0\n";

    #[test]
    fn what_was_synced_is_always_there_and_all_is_where_only_the_program_died() {
        let log = log(TEXT);
        assert_eq!((log.len(), log.syncs()), (6, vec![3, 6]));
        let all = log.image(6, Left::All, &mut Chance(1));
        assert_eq!(found(&all), BTreeMap::from([("a", &b"onetwo"[..])]));
        let nothing = log.image(6, Left::Nothing, &mut Chance(1));
        assert_eq!(found(&nothing), BTreeMap::from([("a", &b"one"[..])]));
        assert!(found(&log.image(5, Left::Nothing, &mut Chance(1))).is_empty());
        assert!(log.was_durable(Path::new("/d/a"), 0..3, 6));
        assert!(!log.was_durable(Path::new("/d/a"), 0..3, 2));
        assert!(!log.was_durable(Path::new("/d/a"), 2..4, 6));
    }

    #[test]
    fn what_is_written_again_past_the_page_cache_stays_durable_as_long_as_it_is_the_same() {
        let log = log("1 openat(AT_FDCWD, \"/d/a\", O_RDWR|O_CREAT, 0666) = 7</d/a>\n\
            1 openat(AT_FDCWD, \"/d/a\", O_WRONLY|O_DIRECT|O_CLOEXEC) = 8</d/a>\n\
            1 openat(AT_FDCWD, \"/d\", O_RDONLY|O_CLOEXEC) = 9</d>\n\
            1 fsync(9</d>) = 0\n\
            1 fallocate(8</d/a>, 0, 0, 10) = 0\n\
            1 pwrite64(8</d/a>, \"one00\", 5, 0) = 5\n\
            1 fdatasync(7</d/a>) = 0\n\
            1 pwrite64(8</d/a>, \"two00\", 5, 3) = -1 EINVAL (Invalid argument)\n\
            1 pwrite64(8</d/a>, \"onetwo\", 6, 0) = 6\n\
            1 ftruncate(7</d/a>, 6) = 0\n\
            1 fdatasync(7</d/a>) = 0\n");
        assert_eq!((log.len(), log.direct_writes()), (8, 2));
        let durable = |bytes, cut| log.was_durable(Path::new("/d/a"), bytes, cut);
        assert!(durable(0..3, 6) && !durable(0..6, 6) && durable(0..6, 8) && !durable(0..3, 4));
        let seen: BTreeSet<_> =
            (0..200).map(|seed| found(&log.image(7, Left::Any, &mut Chance(seed)))["a"].to_vec()).collect();
        for some in [&b"one00\0\0\0\0\0"[..], b"onetwo\0\0\0\0", b"onetwo"] {
            assert!(seen.contains(some), "{seen:?}");
        }
        assert_eq!(found(&log.image(8, Left::Nothing, &mut Chance(1)))["a"], b"onetwo");
    }

    #[test]
    fn what_is_written_over_something_durable_is_counted() {
        let log = log("1 openat(AT_FDCWD, \"/d/a.new\", O_RDWR|O_CREAT, 0666) = 7</d/a.new>\n\
            1 write(7</d/a.new>, \"one\", 3) = 3\n\
            1 pwrite64(7</d/a.new>, \"two\", 3, 0) = 3\n\
            1 rename(\"/d/a.new\", \"/d/a.json\") = 0\n\
            1 fdatasync(7</d/a.json>) = 0\n\
            1 pwrite64(7</d/a.json>, \"two\", 3, 0) = 3\n\
            1 pwrite64(7</d/a.json>, \"more\", 4, 0) = 4\n");
        assert_eq!((log.rewrites("json"), log.rewrites("mp4")), (1, 0));
    }

    #[test]
    fn what_was_not_synced_is_there_in_every_part() {
        let log = log(TEXT);
        let seen: BTreeSet<_> = (0..200)
            .map(|seed| {
                let image = log.image(5, Left::Any, &mut Chance(seed));
                found(&image).iter().map(|(path, content)| format!("{path} {content:?}")).collect::<String>()
            })
            .collect();
        for some in ["", "a.new [111, 110, 101]", "a [111, 110, 101]", "a [111, 110, 101, 116, 119, 111]"] {
            assert!(seen.contains(some), "{some}: {seen:?}");
        }
        // Lengthened by what never arrived.
        assert!(seen.contains("a [111, 110, 101, 0, 0, 0]") || seen.len() >= 5, "{seen:?}");
    }
}
