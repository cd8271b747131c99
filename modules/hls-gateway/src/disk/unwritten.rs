//! How many bytes a system leaves unwritten for half a minute.

use std::path::Path;

use crate::live::STAYS;

/// Bytes that files which stay for [`STAYS`] may have together, so that next to nothing of them is written to the disk: half
/// of what the system begins to write at, as others write as well. 0, where it writes sooner, or none of this is known.
pub(super) fn most() -> usize {
    most_below(Path::new("/"), av_flow::stream::usable_memory())
}

fn most_below(root: &Path, usable: Option<u64>) -> usize {
    let text = |path: &str| std::fs::read_to_string(root.join(path)).ok();
    let setting = |name: &str| text(&format!("proc/sys/vm/{name}"))?.trim().parse::<u64>().ok();
    let expire = setting("dirty_expire_centisecs").unwrap_or(0);
    if u128::from(expire) * 10 <= STAYS.as_millis() {
        return 0;
    }
    let begins = setting("dirty_background_bytes").filter(|bytes| *bytes > 0).or_else(|| {
        let meminfo = text("proc/meminfo")?;
        let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        let available = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.saturating_mul(1024);
        let memory = available.min(usable.unwrap_or(u64::MAX));
        Some(memory / 100 * setting("dirty_background_ratio")?.min(100))
    });
    usize::try_from(begins.unwrap_or(0) / 2).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn most_of(files: &[(&str, &str)], usable: Option<u64>) -> usize {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = dir.path().join("proc").join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        most_below(dir.path(), usable)
    }

    const EXPIRE: (&str, &str) = ("sys/vm/dirty_expire_centisecs", "3000\n");
    const RATIO: (&str, &str) = ("sys/vm/dirty_background_ratio", "10\n");
    const BYTES: (&str, &str) = ("sys/vm/dirty_background_bytes", "0\n");
    const MEMINFO: (&str, &str) = ("meminfo", "MemTotal:  2000000 kB\nMemAvailable:    1000000 kB\n");

    #[test]
    fn half_of_what_a_system_begins_to_write_at_may_wait() {
        let usual = [EXPIRE, RATIO, BYTES, MEMINFO];
        assert_eq!(most_of(&usual, None), 51_200_000);
        // A container has less.
        assert_eq!(most_of(&usual, Some(100_000_000)), 5_000_000);
        let bytes = ("sys/vm/dirty_background_bytes", "64000000\n");
        assert_eq!(most_of(&[EXPIRE, bytes], None), 32_000_000);
    }

    #[test]
    fn where_the_system_writes_sooner_or_does_not_say_nothing_may() {
        let soon = ("sys/vm/dirty_expire_centisecs", "1500\n");
        assert_eq!(most_of(&[soon, RATIO, BYTES, MEMINFO], None), 0);
        assert_eq!(most_of(&[RATIO, BYTES, MEMINFO], None), 0);
        assert_eq!(most_of(&[EXPIRE, RATIO, BYTES], None), 0);
        assert_eq!(most_of(&[EXPIRE, RATIO, BYTES, ("meminfo", "MemAvailable: many\n")], None), 0);
    }
}
