//! `hls-gateway lint URL`: follows a stream of HLS, ours or another server's, and says what in it breaks which player.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use url::Url;

mod attributes;
mod check;
mod date;
mod follow;
mod history;
mod http;
mod media;
mod playlist;
mod report;
mod rule;
mod seen;

/// sysexits.h: command line usage error.
const USAGE: u8 = 64;
/// A day.
const MOST_SECONDS: u64 = 86_400;
/// sysexits.h: a service is not available.
const UNAVAILABLE: u8 = 69;

const HELP: &str = "\
Follows an HLS stream and reports what in it breaks which player.

Usage: hls-gateway lint URL [--seconds N] [--apple] [--ca FILE]

  URL          a multivariant or media playlist, http or https
  --seconds N  how long to follow it [30]
  --apple      count Apple's advice as faults, too
  --ca FILE    certificates (PEM) to trust in addition to public authorities [$SSL_CERT_FILE]

Exit code: 0 no faults, 1 faults, 64 usage, 69 the first playlist could not be fetched.
";

struct Arguments {
    url: Url,
    time: Duration,
    apple: bool,
    ca: Option<PathBuf>,
}

/// Runs the subcommand with what follows its name.
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Option<Vec<String>> = arguments.map(|argument| argument.into_string().ok()).collect();
    if arguments.as_ref().is_some_and(|all| all.iter().any(|one| one == "--help" || one == "-h")) {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let arguments = match arguments.ok_or(UsageError::Text).and_then(|arguments| read(&arguments)) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprint!("hls-gateway lint: {}\n\n{HELP}", follow::chain(&error));
            return ExitCode::from(USAGE);
        }
    };
    // Fails only where another part of this process was first, which chose the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("the async runtime can't start: {error}");
            return ExitCode::from(70);
        }
    };
    ExitCode::from(runtime.block_on(lint(arguments, io::stdout())))
}

/// What is wrong with the arguments.
#[derive(Debug, thiserror::Error)]
enum UsageError {
    #[error("an argument is not UTF-8")]
    Text,
    #[error("a URL is missing: give the address of a playlist")]
    NoUrl,
    #[error("{0:?} is a second URL; one is followed at a time")]
    Urls(String),
    #[error("{0:?} is no URL such as \"https://example.com/live/stream/index.m3u8\"")]
    Url(String, #[source] url::ParseError),
    #[error("{0:?} can't be followed")]
    Scheme(String, #[source] http::FetchError),
    #[error("{0} needs {1} behind it")]
    Value(&'static str, &'static str),
    #[error("--seconds {0:?}: expected a whole number from 1 to {MOST_SECONDS}")]
    Seconds(String),
    #[error("there is no option {0:?}")]
    Option(String),
}

fn read(arguments: &[String]) -> Result<Arguments, UsageError> {
    let (mut url, mut seconds, mut apple, mut ca) = (None, 30, false, None);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--apple" => apple = true,
            "--ca" => ca = Some(rest.next().ok_or(UsageError::Value("--ca", "a file"))?.into()),
            "--seconds" => {
                let text = rest.next().ok_or(UsageError::Value("--seconds", "a number"))?;
                let number = text.parse().ok().filter(|seconds| (1..=MOST_SECONDS).contains(seconds));
                seconds = number.ok_or_else(|| UsageError::Seconds(text.clone()))?;
            }
            option if option.starts_with('-') => return Err(UsageError::Option(option.to_owned())),
            second if url.is_some() => return Err(UsageError::Urls(second.to_owned())),
            address => url = Some(playlist_url(address)?),
        }
    }
    let url = url.ok_or(UsageError::NoUrl)?;
    Ok(Arguments { url, time: Duration::from_secs(seconds), apple, ca })
}

fn playlist_url(address: &str) -> Result<Url, UsageError> {
    let url = Url::parse(address).map_err(|error| UsageError::Url(address.to_owned(), error))?;
    match http::is_http(&url) {
        Ok(()) => Ok(url),
        Err(error) => Err(UsageError::Scheme(address.to_owned(), error)),
    }
}

async fn lint(arguments: Arguments, out: impl Write) -> u8 {
    let ca = arguments.ca.or_else(|| std::env::var_os("SSL_CERT_FILE").map(PathBuf::from));
    let client = match http::Client::new(ca.as_deref()) {
        Ok(client) => client,
        Err(error) => {
            eprintln!("{}", follow::chain(&error));
            return USAGE;
        }
    };
    let mut report = report::Report::new(out, arguments.apple);
    let mut follower = follow::Follower::new(&client, &mut report);
    let url = arguments.url;
    let followed = follower.run(url.clone(), arguments.time).await;
    let looked = follower.looked;
    if let Err(error) = followed {
        eprintln!("{url}: {}", follow::chain(&error));
        return UNAVAILABLE;
    }
    u8::from(!report.end(looked.versions, looked.pieces))
}

#[cfg(test)]
mod tests;
