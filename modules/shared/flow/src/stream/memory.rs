//! How much memory this process may use.

use std::path::Path;

/// Files of the kernel are a few hundred bytes.
fn read(root: &Path, path: &str) -> Option<String> {
    std::fs::read_to_string(root.join(path.trim_start_matches('/'))).ok()
}

/// The least of what the machine has and what control groups, version 1 or 2, allow; in bytes. `None` where none of
/// them can be read.
pub fn usable() -> Option<u64> {
    least(Path::new("/"), "MemTotal:")
}

/// The same of what the machine has left, its caches included.
pub fn available() -> Option<u64> {
    least(Path::new("/"), "MemAvailable:")
}

fn least(root: &Path, name: &str) -> Option<u64> {
    let machine = read(root, "proc/meminfo").and_then(|meminfo| field(&meminfo, name));
    let groups = read(root, "proc/self/cgroup").unwrap_or_default();
    let bounds = groups.lines().flat_map(|line| limits(root, line));
    machine.into_iter().chain(bounds).min()
}

/// `MemTotal:  16384256 kB`
fn field(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The limits of one group, `0::/path` or `4:memory:/path`, and of those above it. In a container the group's own
/// path is often not there: its files are at the top.
fn limits(root: &Path, line: &str) -> Vec<u64> {
    let mut parts = line.splitn(3, ':');
    let (Some(id), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
        return Vec::new();
    };
    let (top, file) = if id == "0" && controllers.is_empty() {
        ("sys/fs/cgroup", "memory.max")
    } else if controllers.split(',').any(|controller| controller == "memory") {
        ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
    } else {
        return Vec::new();
    };
    let ancestors = Path::new(path.trim_start_matches('/')).ancestors().filter_map(Path::to_str);
    // `max`, which is none, is no number.
    let limit = |above: &str| read(root, &format!("{top}/{above}/{file}"))?.trim().parse().ok();
    ancestors.filter(|above| !above.contains("..")).filter_map(limit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> Option<u64> {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        least(dir.path(), "MemTotal:")
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:        1024 kB\nMemFree:  7 kB\n");

    #[test]
    fn without_groups_it_is_what_the_machine_has() {
        assert_eq!(machine(&[MEMINFO]), Some(1 << 20));
        assert_eq!(machine(&[]), None);
        assert!(usable().is_some_and(|bytes| bytes > 16 << 20), "this machine");
        assert!(available().is_some_and(|bytes| bytes > 0 && Some(bytes) <= usable()), "this machine");
    }

    #[test]
    fn groups_of_both_versions_bound_it_wherever_their_files_are() {
        let second = [MEMINFO, ("proc/self/cgroup", "0::/a/b\n")];
        let limit = |path, content| [second.as_slice(), &[(path, content)]].concat();
        assert_eq!(machine(&limit("sys/fs/cgroup/a/b/memory.max", "4096\n")), Some(4096));
        assert_eq!(machine(&limit("sys/fs/cgroup/a/memory.max", "8192\n")), Some(8192));
        assert_eq!(machine(&limit("sys/fs/cgroup/memory.max", "2048\n")), Some(2048));
        assert_eq!(machine(&limit("sys/fs/cgroup/memory.max", "max\n")), Some(1 << 20));
        let first = [
            MEMINFO,
            ("proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/docker/1\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes", "16384\n"),
        ];
        assert_eq!(machine(&first), Some(16_384));
    }
}
