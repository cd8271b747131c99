//! How many bytes a system leaves unwritten for half a minute.

use std::path::Path;

use crate::live::STAYS;

/// Bytes that files which stay for [`STAYS`] may have together, so that next to nothing of them is written to the disk: half
/// of what the system begins to write at, as others write as well. 0, where it writes sooner, or none of this is known.
pub(super) fn most() -> usize {
    most_below(Path::new("/"), av_flow::stream::available_memory())
}

fn most_below(root: &Path, memory: Option<u64>) -> usize {
    let text = |name: &str| std::fs::read_to_string(root.join("proc/sys/vm").join(name)).ok();
    let setting = |name: &str| text(name)?.trim().parse::<u64>().ok();
    let expire = setting("dirty_expire_centisecs").unwrap_or(0);
    if u128::from(expire) * 10 <= STAYS.as_millis() {
        return 0;
    }
    let begins = setting("dirty_background_bytes")
        .filter(|bytes| *bytes > 0)
        .or_else(|| Some(memory? / 100 * setting("dirty_background_ratio")?.min(100)));
    usize::try_from(begins.unwrap_or(0) / 2).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn most_of(files: &[(&str, &str)], memory: Option<u64>) -> usize {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = dir.path().join("proc/sys/vm").join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        most_below(dir.path(), memory)
    }

    const EXPIRE: (&str, &str) = ("dirty_expire_centisecs", "3000\n");
    const RATIO: (&str, &str) = ("dirty_background_ratio", "10\n");
    const BYTES: (&str, &str) = ("dirty_background_bytes", "0\n");

    #[test]
    fn half_of_what_a_system_begins_to_write_at_may_wait() {
        let usual = [EXPIRE, RATIO, BYTES];
        assert_eq!(most_of(&usual, Some(1_024_000_000)), 51_200_000);
        assert_eq!(most_of(&usual, Some(100_000_000)), 5_000_000);
        let bytes = ("dirty_background_bytes", "64000000\n");
        assert_eq!(most_of(&[EXPIRE, bytes], None), 32_000_000);
    }

    #[test]
    fn where_the_system_writes_sooner_or_does_not_say_nothing_may() {
        let soon = ("dirty_expire_centisecs", "1500\n");
        assert_eq!(most_of(&[soon, RATIO, BYTES], Some(1 << 30)), 0);
        assert_eq!(most_of(&[RATIO, BYTES], Some(1 << 30)), 0);
        assert_eq!(most_of(&[EXPIRE, RATIO, BYTES], None), 0);
    }
}
