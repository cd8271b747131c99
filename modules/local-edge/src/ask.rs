//! Commands that ask the running instance, and print what it says.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use av_edge::json;
use serde_json::Value;

use crate::control::{Ask, ClientError, Connection};
use crate::fault::Fault;
use crate::state_dir::{StateDir, StateDirError};
use crate::table;
use crate::twin::Object;
use crate::view::View;

/// A desired document in a file is at most this long.
const MAX_FILE_BYTES: u64 = 512 << 10;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The state dir.
    #[error(transparent)]
    State(#[from] StateDirError),
    /// The running instance.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// An argument.
    #[error("{what} is not {expected}: {source}")]
    Json {
        /// Which argument.
        what: String,
        /// What it has to be.
        expected: &'static str,
        /// Where it breaks off.
        source: serde_json::Error,
    },
    /// A file.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Standard output is gone.
    #[error("cannot write: {0}")]
    Output(std::io::Error),
}

impl AskError {
    /// 64 (`EX_USAGE`) for a bad argument, otherwise 1.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Json { .. } | Self::File { .. } => ExitCode::from(64),
            // As `head` leaves us.
            Self::Output(_) => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        }
    }
}

type Asked = Result<ExitCode, AskError>;

fn socket(state_dir: Option<PathBuf>) -> Result<PathBuf, AskError> {
    Ok(StateDir::locate(state_dir)?.control_socket()?)
}

fn print(text: &str) -> Result<(), AskError> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(AskError::Output)
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

async fn print_each(socket: &Path, ask: &Ask, text: impl Fn(&Value) -> String) -> Asked {
    let mut connection = Connection::ask(socket, ask).await?;
    while let Some(item) = connection.next().await? {
        print(&text(&item))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A text item without its quotes.
fn plain(item: &Value) -> String {
    item.as_str().map_or_else(|| item.to_string(), Into::into)
}

/// `ps`.
pub async fn ps(state_dir: Option<PathBuf>, json: bool) -> Asked {
    let item = Connection::one(&socket(state_dir)?, &Ask::Ps).await?;
    if json {
        print(&pretty(&item))?;
        return Ok(ExitCode::SUCCESS);
    }
    let view: View = serde_json::from_value(item).map_err(ClientError::from)?;
    print(&table::rows(&view).join("\n"))?;
    for (label, urls) in [("play", &view.play), ("publish", &view.publish)] {
        for url in urls {
            print(&format!("{label:<8} {url}"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `twin show`.
pub async fn twin_show(state_dir: Option<PathBuf>, module: String) -> Asked {
    print_each(&socket(state_dir)?, &Ask::TwinShow { module }, pretty).await
}

/// `twin set`.
pub async fn twin_set(state_dir: Option<PathBuf>, module: String, desired: &str, replace: bool) -> Asked {
    let (what, text) = argument(desired)?;
    let expected = "a JSON object";
    let desired: Object = json::from_slice(text.as_bytes())
        .and_then(serde_json::from_value)
        .map_err(|source| AskError::Json { what, expected, source })?;
    let ask = Ask::TwinSet { module: module.clone(), desired, replace };
    let mut connection = Connection::ask(&socket(state_dir)?, &ask).await?;
    let change = connection.next().await?.unwrap_or_default();
    let version = change.get("version").and_then(Value::as_u64).unwrap_or(0);
    if change.get("connected") != Some(&Value::Bool(true)) {
        print(&format!("version {version} is kept; {module} is not connected and gets it when it is"))?;
        // Under the rules of a device the answer may still end in an error.
        connection.next().await?;
        return Ok(ExitCode::SUCCESS);
    }
    let Some(config) = connection.next().await? else {
        print(&format!("version {version} was sent; {module} reported nothing about it within 10 s"))?;
        return Ok(ExitCode::FAILURE);
    };
    let status = config.get("status").and_then(Value::as_str).unwrap_or("no status");
    print(&format!("version {version}: {status}"))?;
    for (_, text) in config.get("errors").and_then(Value::as_object).into_iter().flatten() {
        print(&format!("  {}", plain(text)))?;
    }
    connection.next().await?;
    Ok(if status == "applied" { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The argument's name for texts, and its content: itself, or a file's.
fn argument(text: &str) -> Result<(String, String), AskError> {
    let Some(path) = text.strip_prefix('@') else {
        return Ok(("the argument".into(), text.to_owned()));
    };
    let file = |source| AskError::File { path: path.to_owned(), source };
    let mut content = String::new();
    if path == "-" {
        std::io::stdin().lock().take(MAX_FILE_BYTES).read_to_string(&mut content).map_err(file)?;
    } else {
        let opened = std::fs::File::open(path).map_err(file)?;
        opened.take(MAX_FILE_BYTES).read_to_string(&mut content).map_err(file)?;
    }
    Ok((path.to_owned(), content))
}

/// `method`.
pub async fn method(
    state_dir: Option<PathBuf>,
    module: String,
    name: String,
    payload: &str,
    timeout_seconds: u64,
) -> Asked {
    let (what, text) = argument(payload)?;
    let payload = json::from_slice(text.as_bytes()).map_err(|source| AskError::Json {
        what,
        expected: "JSON",
        source,
    })?;
    let ask = Ask::Method { module, name, payload, timeout_seconds };
    let answer = Connection::one(&socket(state_dir)?, &ask).await?;
    print(&pretty(&answer))?;
    let status = answer.get("status").and_then(Value::as_u64).unwrap_or(0);
    Ok(if (200..300).contains(&status) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `logs`.
pub async fn logs(state_dir: Option<PathBuf>, module: Option<String>, tail: usize, follow: bool) -> Asked {
    print_each(&socket(state_dir)?, &Ask::Logs { module, tail, follow }, plain).await
}

/// `events`.
pub async fn events(state_dir: Option<PathBuf>, follow: bool) -> Asked {
    print_each(&socket(state_dir)?, &Ask::Events { follow }, Value::to_string).await
}

/// `restart`.
pub async fn restart(state_dir: Option<PathBuf>, module: String) -> Asked {
    print_each(&socket(state_dir)?, &Ask::Restart { module }, plain).await
}

/// `fault`.
pub async fn fault(state_dir: Option<PathBuf>, fault: Fault) -> Asked {
    print_each(&socket(state_dir)?, &Ask::Fault { fault }, plain).await
}

/// `env`.
pub async fn env(state_dir: Option<PathBuf>, module: String, connection_string: bool) -> Asked {
    print_each(&socket(state_dir)?, &Ask::Env { module, connection_string }, plain).await
}
