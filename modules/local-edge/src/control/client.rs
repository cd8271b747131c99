//! The asking side.

use std::io;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::{Answer, Ask};
use serde_json::Value;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "no local-edge runs with the state dir {0}; start one with `local-edge up`, or name its --state-dir"
    )]
    NotRunning(PathBuf),
    /// It broke off.
    #[error("the running local-edge did not answer: {0}")]
    Io(#[from] io::Error),
    /// A line of another version.
    #[error("the running local-edge gave an unexpected answer: {0}")]
    Form(#[from] serde_json::Error),
    /// It said no.
    #[error("{0}")]
    Refused(String),
}

/// A question that was asked.
pub struct Connection {
    lines: Lines<BufReader<OwnedReadHalf>>,
    /// Kept open: its end means that nobody listens any more.
    _write: OwnedWriteHalf,
}

impl Connection {
    /// Asks the instance behind `socket`.
    pub async fn ask(socket: &Path, ask: &Ask) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(socket).await.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NotRunning(socket.parent().unwrap_or(socket).to_path_buf())
            }
            _ => ClientError::Io(error),
        })?;
        let (read, mut write) = stream.into_split();
        let mut line = serde_json::to_string(ask)?;
        line.push('\n');
        write.write_all(line.as_bytes()).await?;
        Ok(Self { lines: BufReader::new(read).lines(), _write: write })
    }

    /// The next item; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<Value>, ClientError> {
        let Some(line) = self.lines.next_line().await? else {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        };
        match serde_json::from_str(&line)? {
            Answer::Item(item) => Ok(Some(item)),
            Answer::Done => Ok(None),
            Answer::Error(text) => Err(ClientError::Refused(text)),
        }
    }

    /// The only item.
    pub async fn one(socket: &Path, ask: &Ask) -> Result<Value, ClientError> {
        let mut connection = Self::ask(socket, ask).await?;
        Ok(connection.next().await?.unwrap_or_default())
    }
}
