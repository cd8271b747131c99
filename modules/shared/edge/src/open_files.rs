//! How many files and connections the process may have open at once.

#[cfg(unix)]
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to the hard one: shells and container engines often give 1,024, for the sake of programs
/// that use `select`, and every publisher and player is a connection.
pub fn raise_open_files() {
    #[cfg(unix)]
    {
        let maximum = getrlimit(Resource::Nofile).maximum;
        // What can't be raised is not worth a word: the limit is named when it is reached.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
}

/// The limit that holds now; `None` where there is none.
pub fn open_files() -> Option<u64> {
    #[cfg(unix)]
    return getrlimit(Resource::Nofile).current;
    #[cfg(not(unix))]
    None
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        raise_open_files();
        assert_eq!(open_files(), getrlimit(Resource::Nofile).maximum);
    }
}
