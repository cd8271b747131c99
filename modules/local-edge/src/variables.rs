//! The `${NAME}` variables of a manifest: an env file beside it, and the process environment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// An env file is read up to this size.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// What `${NAME}` stands for. A variable of the process environment wins over the file, as with every
/// tool that reads `.env` files.
#[derive(Clone, Debug, Default)]
pub struct Variables {
    file: BTreeMap<String, String>,
    process: BTreeMap<String, String>,
    /// Where the env file is named in texts for the operator.
    shown: String,
    /// Relative paths in values are meant from here.
    folder: PathBuf,
}

/// Why an env file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum EnvFileError {
    /// Reading failed.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line that is neither empty, a comment nor `NAME=VALUE`.
    #[error("{path}, line {line}: expected NAME=VALUE, found {text:?}")]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Its first 40 characters.
        text: String,
    },
}

/// `${name}` is in the manifest but has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// Neither the file nor the environment has it.
    #[error("${{{name}}} has no value: set {name}=... in {file} or in the environment")]
    Unknown {
        /// The variable.
        name: String,
        /// The env file that would be read.
        file: String,
    },
    /// `${` without `}`.
    #[error("`${{` without `}}` in {0:?}")]
    Open(String),
}

impl Variables {
    /// Reads `path`, and takes a copy of the process environment. A missing file is an error only where
    /// `required` (it was named on the command line).
    pub fn load(path: &Path, required: bool) -> Result<Self, EnvFileError> {
        use std::io::Read;
        let read = |source| EnvFileError::Read { path: path.to_path_buf(), source };
        let mut text = String::new();
        match std::fs::File::open(path) {
            Ok(file) => file.take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(read)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !required => 0,
            Err(error) => return Err(read(error)),
        };
        let process = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self::parse(path, &text, process)
    }

    /// From the text of an env file and a process environment.
    pub fn parse(path: &Path, text: &str, process: BTreeMap<String, String>) -> Result<Self, EnvFileError> {
        let mut file = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let line = line.strip_prefix("export ").unwrap_or(line);
            let pair = line.split_once('=').map(|(name, value)| (name.trim(), value.trim()));
            let Some((name, value)) = pair.filter(|(name, _)| is_name(name)) else {
                return Err(EnvFileError::Line {
                    path: path.to_path_buf(),
                    line: index + 1,
                    text: line.chars().take(40).collect(),
                });
            };
            file.insert(name.to_owned(), unquote(value).to_owned());
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new(".")).to_path_buf();
        let folder = std::path::absolute(&folder).unwrap_or(folder);
        Ok(Self { file, process, shown: path.display().to_string(), folder })
    }

    /// The folder that relative paths are meant from.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The env file, as named to the operator.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// A variable's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.process.get(name).or_else(|| self.file.get(name)).map(String::as_str)
    }

    /// Replaces every `${NAME}`. Placeholders for images (`${MODULES.x}`, `${MODULEDIR<..>}`) stay.
    pub fn expand(&self, text: &str) -> Result<String, ExpandError> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            out.push_str(before);
            let Some((name, tail)) = after.split_once('}') else {
                return Err(ExpandError::Open(text.chars().take(80).collect()));
            };
            if name.starts_with("MODULES.") || name.starts_with("MODULEDIR<") {
                out.push_str("${");
                out.push_str(name);
                out.push('}');
            } else {
                let value = self.get(name).ok_or_else(|| ExpandError::Unknown {
                    name: name.to_owned(),
                    file: self.shown.clone(),
                })?;
                out.push_str(value);
            }
            rest = tail;
        }
        out.push_str(rest);
        Ok(out)
    }
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn unquote(value: &str) -> &str {
    for quote in ['"', '\''] {
        let inner = value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
        if let Some(inner) = inner {
            return inner;
        }
    }
    // A comment after a bare value needs a blank before it, so that `#` may be part of a password.
    value.split_once(" #").map_or(value, |(value, _)| value.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(text: &str, process: &[(&str, &str)]) -> Variables {
        let process = process.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        Variables::parse(Path::new("/repo/edge-config/local.env"), text, process).unwrap()
    }

    #[test]
    fn lines_quotes_and_comments_are_read_as_in_other_env_files() {
        let v = variables("# a comment\n\nexport A=1\nB = 'two words'\nC=\"x # y\"\nD=p#w # note\n", &[]);
        assert_eq!(v.get("A"), Some("1"));
        assert_eq!(v.get("B"), Some("two words"));
        assert_eq!(v.get("C"), Some("x # y"));
        assert_eq!(v.get("D"), Some("p#w"));
    }

    #[test]
    fn the_process_environment_wins_over_the_file() {
        let v = variables("PORT=1935", &[("PORT", "2935")]);
        assert_eq!(v.expand("port ${PORT}").unwrap(), "port 2935");
    }

    #[test]
    fn a_variable_without_a_value_is_named_with_the_file_to_set_it_in() {
        let error = variables("", &[]).expand("a ${NOPE} b").unwrap_err();
        assert_eq!(
            error.to_string(),
            "${NOPE} has no value: set NOPE=... in /repo/edge-config/local.env or in the environment"
        );
        assert!(matches!(variables("", &[]).expand("${NOPE"), Err(ExpandError::Open(_))));
    }

    #[test]
    fn image_placeholders_are_left_alone() {
        let v = variables("", &[]);
        assert_eq!(v.expand("${MODULES.rtmp-splitter}").unwrap(), "${MODULES.rtmp-splitter}");
        assert_eq!(v.expand("${MODULEDIR<../x>}").unwrap(), "${MODULEDIR<../x>}");
    }

    #[test]
    fn a_line_that_is_no_pair_is_named_by_number() {
        let error = Variables::parse(Path::new("local.env"), "A=1\nnonsense\n", BTreeMap::new()).unwrap_err();
        assert_eq!(error.to_string(), r#"local.env, line 2: expected NAME=VALUE, found "nonsense""#);
    }
}
