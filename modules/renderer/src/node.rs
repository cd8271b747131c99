//! Device nodes that this process can't open, and what to write into the create options for that.

use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

const SOUND: &str = "/dev/snd";
/// Where decoders in hardware are: folder and beginning of the name.
const DECODERS: [(&str, &str); 2] = [("/dev/dri", "renderD"), ("/dev", "video")];

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
        return Some(format!("{SOUND} has no card for playback"));
    }
    nodes.find_map(|node| access(&node, Access::WRITE_OK).err().map(|error| refused(&node, &error.into())))
}

/// Which decoders in hardware are there for others: without them everything silently goes on in software.
pub fn decoders_refused() -> Option<String> {
    let open = |node: &Path| access(node, Access::READ_OK | Access::WRITE_OK).map_err(io::Error::from);
    DECODERS.iter().find_map(|(folder, prefix)| refused_in(Path::new(folder), prefix, open))
}

/// A node that may not be opened where no other may be.
fn refused_in(folder: &Path, prefix: &str, open: impl Fn(&Path) -> io::Result<()>) -> Option<String> {
    let entries = std::fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let is_meant = |node: &PathBuf| {
        node.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(prefix))
    };
    let mut nodes = entries.filter(is_meant).collect::<Vec<_>>();
    nodes.sort();
    let mut errors = Vec::new();
    for node in &nodes {
        errors.push((node, open(node).err()?));
    }
    errors.first().map(|(node, error)| refused(node, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_may_not_be_opened_is_named_with_its_group_unless_another_may_be() {
        let folder = std::env::temp_dir().join(format!("renderer-nodes-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let denied = || io::Error::from(ErrorKind::PermissionDenied);
        assert_eq!(refused_in(&folder, "renderD", |_| Err(denied())), None);
        for name in ["card0", "renderD129", "renderD128"] {
            std::fs::write(folder.join(name), "").unwrap();
        }
        let gid = std::fs::metadata(folder.join("renderD128")).unwrap().gid();
        let none_may = refused_in(&folder, "renderD", |_| Err(denied()));
        let one_may =
            refused_in(
                &folder,
                "renderD",
                |node| {
                    if node.ends_with("renderD129") { Ok(()) } else { Err(denied()) }
                },
            );
        std::fs::remove_dir_all(&folder).unwrap();
        let text = none_may.unwrap();
        assert!(text.starts_with(folder.join("renderD128").to_str().unwrap()), "{text}");
        assert!(
            text.ends_with(&format!("add \"GroupAdd\": [\"{gid}\"] to HostConfig of createOptions")),
            "{text}"
        );
        assert_eq!(one_may, None);
    }
}
