//! Device nodes that this process can't open, and what to write into the create options for that.

use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

const SOUND: &str = "/dev/snd";

/// Why a node was not opened, and what to do.
pub fn refused(node: &Path, error: &io::Error) -> String {
    let remedy = match (error.kind(), std::fs::metadata(node)) {
        (ErrorKind::PermissionDenied, Ok(node)) => format!(
            "; it belongs to group {gid}: add \"GroupAdd\": [\"{gid}\"] to HostConfig of createOptions",
            gid = node.gid()
        ),
        (ErrorKind::NotFound, _) => {
            "; give the container the device: \"Devices\" in HostConfig of createOptions".into()
        }
        _ => String::new(),
    };
    format!("{}: {error}{remedy}", node.display())
}

/// What keeps this process from the sound cards, if something does: ALSA says the same of everything.
pub fn sound_refused() -> Option<String> {
    let entries = match std::fs::read_dir(SOUND) {
        Ok(entries) => entries,
        Err(error) => return Some(refused(Path::new(SOUND), &error)),
    };
    // `pcmC0D0p` plays, `pcmC0D0c` records.
    let plays = |node: &PathBuf| {
        let name = node.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("pcm") && name.ends_with('p')
    };
    let mut nodes = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(plays).peekable();
    if nodes.peek().is_none() {
        return Some(format!("{SOUND} has no card that plays"));
    }
    nodes.find_map(|node| access(&node, Access::WRITE_OK).err().map(|error| refused(&node, &error.into())))
}
