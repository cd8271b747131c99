//! Secrets as they are now: read off the async threads, kept for a minute, read again after a refusal.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use av_edge::Paths;

use crate::config::{Secret, SecretError, SecretText};

/// Age at which a file is read again.
const MAX_AGE: Duration = Duration::from_secs(60);
/// Least age at which a refusal has it read again: strangers with wrong keys must not keep the disk busy.
const REFUSED_AGE: Duration = Duration::from_secs(1);
/// Files remembered; more are read each time.
const MAX_CACHED: usize = 4096;

/// Why a secret is not to be had. The text names the place, never the content.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SecretUnavailable {
    /// What reading it met.
    #[error("{0}")]
    Unreadable(Arc<SecretError>),
    /// The process is shutting down.
    #[error("the secret was not read because the module is stopping")]
    Stopping,
}

/// All secrets of a module. Cloning shares the cache.
#[derive(Clone, Debug)]
pub struct Secrets {
    paths: Paths,
    files: Arc<Mutex<HashMap<PathBuf, CachedFile>>>,
}

#[derive(Debug)]
struct CachedFile {
    text: Arc<SecretText>,
    read_at: Instant,
    /// A peer was refused with it, or refused it, since it was read.
    refused: bool,
}

impl CachedFile {
    fn is_current(&self) -> bool {
        let age = self.read_at.elapsed();
        age < REFUSED_AGE || (age < MAX_AGE && !self.refused)
    }
}

impl Secrets {
    /// With nothing read yet.
    pub fn new(paths: Paths) -> Self {
        Self { paths, files: Arc::default() }
    }

    /// The secret as it is now. A file that has gone bad is an error although an earlier content is known:
    /// what was revoked by deleting the file stays revoked.
    pub async fn get(&self, secret: &Secret) -> Result<Arc<SecretText>, SecretUnavailable> {
        let Secret::File(path) = secret else {
            return read(secret, &self.paths);
        };
        if let Some(cached) = self.lock().get(path).filter(|cached| cached.is_current()) {
            return Ok(cached.text.clone());
        }
        let (paths, wanted) = (self.paths.clone(), secret.clone());
        let text = tokio::task::spawn_blocking(move || read(&wanted, &paths))
            .await
            .map_err(|_| SecretUnavailable::Stopping)??;
        let mut files = self.lock();
        if files.len() >= MAX_CACHED {
            files.retain(|_, cached| cached.is_current());
        }
        if files.len() < MAX_CACHED {
            let fresh = CachedFile { text: text.clone(), read_at: Instant::now(), refused: false };
            files.insert(path.clone(), fresh);
        }
        Ok(text)
    }

    /// Tells that something was refused because of this secret: it may have been changed meanwhile, so the
    /// next [`get`](Self::get) reads a file again, at most once a second.
    pub fn refused(&self, secret: &Secret) {
        if let Secret::File(path) = secret
            && let Some(cached) = self.lock().get_mut(path)
        {
            cached.refused = true;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, CachedFile>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(secret: &Secret, paths: &Paths) -> Result<Arc<SecretText>, SecretUnavailable> {
    match secret.resolve(paths) {
        Ok(text) => Ok(Arc::new(text)),
        Err(error) => Err(SecretUnavailable::Unreadable(Arc::new(error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Secrets {
        /// As if so much time had passed.
        fn age(&self, by: Duration) {
            for cached in self.lock().values_mut() {
                cached.read_at = cached.read_at.checked_sub(by).unwrap();
            }
        }
    }

    async fn text(secrets: &Secrets, secret: &Secret) -> String {
        secrets.get(secret).await.unwrap().expose().to_owned()
    }

    #[tokio::test]
    async fn a_file_is_read_again_after_a_minute_or_after_a_refusal_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "one\n").unwrap();
        let (secrets, secret) = (Secrets::new(Paths::default()), Secret::File(path.clone()));
        assert_eq!(text(&secrets, &secret).await, "one");

        std::fs::write(&path, "two\n").unwrap();
        assert_eq!(text(&secrets, &secret).await, "one");
        secrets.age(MAX_AGE);
        assert_eq!(text(&secrets, &secret).await, "two");

        std::fs::write(&path, "three\n").unwrap();
        secrets.refused(&secret);
        // The age can't be less than a second by chance: that is what keeps strangers from the disk.
        assert_eq!(text(&secrets, &secret).await, "two");
        secrets.age(REFUSED_AGE);
        assert_eq!(text(&secrets, &secret).await, "three");
    }

    #[tokio::test]
    async fn a_deleted_file_is_an_error_that_names_it_once_it_is_looked_at_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "one").unwrap();
        let (secrets, secret) = (Secrets::new(Paths::default()), Secret::File(path.clone()));
        secrets.get(&secret).await.unwrap();
        std::fs::remove_file(&path).unwrap();
        secrets.age(MAX_AGE);
        let error = secrets.get(&secret).await.unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()), "{error}");
    }

    #[tokio::test]
    async fn a_plain_secret_needs_no_file() {
        let secrets = Secrets::new(Paths::default());
        assert_eq!(text(&secrets, &Secret::Plain("hunter2".into())).await, "hunter2");
    }
}
