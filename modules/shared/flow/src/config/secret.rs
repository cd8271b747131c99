//! Secrets: where they come from, and how they are compared without telling anything about them.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// The longest secret, in bytes: what a twin holds in one string.
pub const MAX_SECRET_BYTES: usize = 4096;

/// A secret as the document names it. Shows where it comes from, never what it is.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// The text itself.
    Plain(String),
    /// An environment variable.
    Env(String),
    /// A file that holds it, as configured (before `--paths`).
    File(PathBuf),
}

/// Why a secret can't be used. Names the place, never the content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// There is no such variable.
    #[error("environment variable {0} is not set")]
    EnvMissing(String),
    /// The file can't be read.
    #[error("secret file {}: {}", path.display(), in_words(*kind))]
    File {
        /// On this machine.
        path: PathBuf,
        /// What the system said.
        kind: std::io::ErrorKind,
    },
    /// What is there can't be a secret.
    #[error("{place}: {fault}")]
    Content {
        /// `environment variable NAME` or `secret file PATH`.
        place: String,
        /// What is wrong with it.
        fault: SecretFault,
    },
}

/// What a text needs to be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecretFault {
    /// An empty secret would let everybody in.
    #[error("a secret can't be empty")]
    Empty,
    /// Longer than [`MAX_SECRET_BYTES`].
    #[error("a secret can't be longer than {MAX_SECRET_BYTES} bytes")]
    TooLong,
    /// Not text.
    #[error("a secret must be UTF-8")]
    NotUtf8,
    /// A directory, a pipe or a device.
    #[error("not a regular file")]
    NotAFile,
    /// NUL, CR or LF would end it early in some protocol.
    #[error("a secret can't hold a line break or NUL")]
    LineBreak,
}

/// The library says that an entity was not found.
fn in_words(kind: std::io::ErrorKind) -> String {
    match kind {
        std::io::ErrorKind::NotFound => "no such file".to_owned(),
        other => other.to_string(),
    }
}

impl Secret {
    /// Reads the secret.
    ///
    /// Reading a file blocks: call this from `spawn_blocking`. A file is read anew on each call, so that the
    /// caller sees a rotated secret: every 60 s, and after each refusal. One line break at the end of a file is
    /// not part of the secret.
    ///
    /// # Errors
    /// When the variable or the file is not there, or holds no usable text.
    pub fn resolve(&self, paths: &av_edge::Paths) -> Result<SecretText, SecretError> {
        match self {
            Self::Plain(text) => checked(text.clone(), || "secret".into()),
            Self::Env(name) => match std::env::var(name) {
                Ok(text) => checked(text, || format!("environment variable {name}")),
                Err(std::env::VarError::NotPresent) => Err(SecretError::EnvMissing(name.clone())),
                Err(std::env::VarError::NotUnicode(_)) => Err(SecretError::Content {
                    place: format!("environment variable {name}"),
                    fault: SecretFault::NotUtf8,
                }),
            },
            Self::File(path) => read_file(&paths.resolve(path)),
        }
    }
}

fn read_file(path: &Path) -> Result<SecretText, SecretError> {
    let place = || format!("secret file {}", path.display());
    let failed = |error: std::io::Error| SecretError::File { path: path.to_path_buf(), kind: error.kind() };
    // Opening a pipe would wait for its other end.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(SecretError::Content { place: place(), fault: SecretFault::NotAFile });
    }
    let file = std::fs::File::open(path).map_err(failed)?;
    // Room for a line break, and one more byte to see that there is too much.
    let limit = (MAX_SECRET_BYTES as u64).saturating_add(3);
    let mut content = Vec::new();
    file.take(limit).read_to_end(&mut content).map_err(failed)?;
    let mut text = String::from_utf8(content)
        .map_err(|_| SecretError::Content { place: place(), fault: SecretFault::NotUtf8 })?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    checked(text, place)
}

fn checked(text: String, place: impl Fn() -> String) -> Result<SecretText, SecretError> {
    match check(&text) {
        Ok(()) => Ok(SecretText(text)),
        Err(fault) => Err(SecretError::Content { place: place(), fault }),
    }
}

/// Whether a text can be a secret.
pub(super) fn check(text: &str) -> Result<(), SecretFault> {
    if text.is_empty() {
        Err(SecretFault::Empty)
    } else if text.len() > MAX_SECRET_BYTES {
        Err(SecretFault::TooLong)
    } else if text.contains(['\0', '\r', '\n']) {
        Err(SecretFault::LineBreak)
    } else {
        Ok(())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(_) => f.write_str("Plain(***)"),
            Self::Env(name) => f.debug_tuple("Env").field(name).finish(),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// A secret that has been read. It is shown nowhere; [`expose`](Self::expose) is for the wire only.
#[derive(Clone)]
pub struct SecretText(String);

impl SecretText {
    /// The secret itself, to be sent or hashed.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `given` is this secret. The time taken tells nothing about the secret: what is compared are
    /// digests, to the end.
    pub fn matches(&self, given: &str) -> bool {
        let own = Sha256::digest(self.0.as_bytes());
        let other = Sha256::digest(given.as_bytes());
        let difference = own.iter().zip(other.iter()).fold(0, |all, (a, b)| all | (a ^ b));
        std::hint::black_box(difference) == 0
    }

    /// Whether `given` is any of `secrets`; all are looked at.
    pub fn any_matches<'a>(secrets: impl IntoIterator<Item = &'a Self>, given: &str) -> bool {
        secrets.into_iter().fold(false, |found, secret| secret.matches(given) | found)
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_file(content: &[u8]) -> Result<SecretText, SecretError> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("key"), content).unwrap();
        let paths = av_edge::Paths::new(vec![("/run/secrets".into(), dir.path().into())]);
        Secret::File("/run/secrets/key".into()).resolve(&paths)
    }

    #[test]
    fn a_file_secret_is_found_through_paths_and_loses_one_line_break() {
        assert_eq!(in_file(b"s3cret\n").unwrap().expose(), "s3cret");
        assert_eq!(in_file(b"s3cret\r\n").unwrap().expose(), "s3cret");
        assert_eq!(in_file(b" s3cret ").unwrap().expose(), " s3cret ");
        assert!(in_file(b"s3cret\n\n").is_err());
    }

    #[test]
    fn a_file_without_a_usable_secret_is_named_with_the_reason() {
        for (content, reason) in [
            (b"\n".to_vec(), "empty"),
            (vec![b'x'; MAX_SECRET_BYTES + 1], "longer than 4096"),
            (vec![b'x'; 1 << 20], "longer than 4096"),
            (vec![0xff, 0xfe], "UTF-8"),
        ] {
            let error = in_file(&content).unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains("/key"), "{error}");
        }
        assert_eq!(in_file(&[b'x'; MAX_SECRET_BYTES]).unwrap().expose().len(), MAX_SECRET_BYTES);
    }

    #[test]
    fn a_missing_file_or_variable_is_named() {
        let missing = Secret::File("/no/such/key".into()).resolve(&av_edge::Paths::default()).unwrap_err();
        assert_eq!(missing.to_string(), "secret file /no/such/key: no such file");
        let directory = Secret::File("/".into()).resolve(&av_edge::Paths::default()).unwrap_err();
        assert_eq!(directory.to_string(), "secret file /: not a regular file");
        let unset = Secret::Env("AV_NO_SUCH_SECRET".into()).resolve(&av_edge::Paths::default()).unwrap_err();
        assert_eq!(unset.to_string(), "environment variable AV_NO_SUCH_SECRET is not set");
    }

    #[test]
    fn an_environment_secret_is_read() {
        // Cargo sets it for every test.
        let name = Secret::Env("CARGO_PKG_NAME".into()).resolve(&av_edge::Paths::default()).unwrap();
        assert_eq!(name.expose(), "av-flow");
    }

    #[test]
    fn no_debug_text_holds_the_secret() {
        let secret = Secret::Plain("hunter2".into());
        let text = secret.resolve(&av_edge::Paths::default()).unwrap();
        assert!(!format!("{secret:?} {text:?}").contains("hunter2"));
    }

    #[test]
    fn only_the_whole_secret_matches() {
        let secrets = [SecretText("one".into()), SecretText("two".into())];
        assert!(SecretText::any_matches(&secrets, "one") && SecretText::any_matches(&secrets, "two"));
        for wrong in ["", "o", "one ", "ONE", "onetwo"] {
            assert!(!SecretText::any_matches(&secrets, wrong), "{wrong}");
        }
    }
}
