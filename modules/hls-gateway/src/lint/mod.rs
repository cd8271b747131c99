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

/// sysexits.h: command line usage error.
const USAGE: u8 = 64;
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
    let Some(arguments) = arguments.and_then(|arguments| read(&arguments)) else {
        eprint!("{HELP}");
        return ExitCode::from(USAGE);
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

fn read(arguments: &[String]) -> Option<Arguments> {
    let (mut url, mut seconds, mut apple, mut ca) = (None, 30, false, None);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--apple" => apple = true,
            "--ca" => ca = Some(rest.next()?.into()),
            "--seconds" => {
                seconds = rest.next()?.parse().ok().filter(|seconds| (1..=86_400).contains(seconds))?
            }
            address if !address.starts_with('-') && url.is_none() => url = Some(Url::parse(address).ok()?),
            _ => return None,
        }
    }
    Some(Arguments { url: url?, time: Duration::from_secs(seconds), apple, ca })
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
    let followed = follower.run(arguments.url, arguments.time).await;
    let looked = follower.looked;
    if let Err(error) = followed {
        eprintln!("{}", follow::chain(&error));
        return UNAVAILABLE;
    }
    u8::from(!report.end(looked.versions, looked.pieces))
}

#[cfg(test)]
mod tests;
