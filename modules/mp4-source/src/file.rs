//! `read` as a document describes it.

use std::path::PathBuf;
use std::time::Duration;

use av_flow::config::{ConfigError, OptionSpec, Options, Role, Shape};
use av_flow::{EndpointSpec, Input, InputContext, InputSpec, catalogue};

use crate::read::read;

const LOOP: OptionSpec = OptionSpec::new("loop", "`read` inputs", Shape::Flag { default: true })
    .means("Start again at the end of the file.");
const START: OptionSpec = OptionSpec::new("startSeconds", "`read` inputs", Shape::Seconds { max: 86_400 })
    .means("Where in the file to begin.");

/// An MP4 file, played as if it were live.
pub const READ: InputSpec = InputSpec::of::<ReadConfig>();

/// `read`.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadConfig {
    /// As configured (before `--paths`).
    pub path: PathBuf,
    /// `loop`.
    pub repeat: bool,
    /// `startSeconds`.
    pub start: Duration,
}

impl Input for ReadConfig {
    const SPEC: EndpointSpec =
        EndpointSpec { role: Role::Read, schemes: &[catalogue::FILE], options: &[LOOP, START] };

    fn read(options: &Options<'_>) -> Result<Self, ConfigError> {
        Ok(Self { path: options.file_path()?, repeat: options.flag(&LOOP)?, start: options.seconds(&START)? })
    }

    fn run(self, context: InputContext) -> impl Future<Output = ()> + Send + 'static {
        read(context, self)
    }
}

#[cfg(test)]
mod tests;
