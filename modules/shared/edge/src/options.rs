//! The command line of every module, and the environment variables that stand for its options.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use crate::hub::HubAddress;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

const METRICS_PORT: u16 = 9600;

/// What a module is started with.
#[derive(Clone, Debug, Parser)]
#[command(
    disable_help_subcommand = true,
    about = "Runs this module until SIGTERM or SIGINT, configured by --twin FILE or by IoT Edge",
    long_about = None
)]
pub(crate) struct Options {
    /// Run standalone, with the desired properties in this JSON file, which is read again when it changes
    #[arg(long, value_name = "FILE", global = true)]
    pub twin: Option<PathBuf>,
    /// Where to keep the last good configuration and the spool [default: /var/lib/<module>]
    #[arg(long, value_name = "DIR", env = "AV_STATE_DIR", global = true)]
    pub state_dir: Option<PathBuf>,
    /// Where to serve the page, /metrics, /healthz, /readyz and /status [default: 0.0.0.0:9600; with --twin 127.0.0.1:9600]
    #[arg(long, value_name = "IP:PORT", env = "AV_METRICS_ADDRESS", global = true)]
    pub metrics_address: Option<SocketAddr>,
    /// Format of the log lines on stderr
    #[arg(long, value_name = "FORMAT", env = "AV_LOG_FORMAT", default_value = "edge", global = true)]
    pub log_format: LogFormat,
    /// Address for listeners on 0.0.0.0 or [::] to bind to instead
    #[arg(long, value_name = "IP", env = "AV_BIND", value_parser = parse_bind, default_value = "", hide_default_value = true, global = true)]
    pub bind: Bind,
    /// Host names to resolve before asking the DNS: name=ip,...
    #[arg(long, value_name = "NAME=IP,..", env = "AV_HOSTS", value_parser = parse_hosts, default_value = "", hide_default_value = true, global = true)]
    pub hosts: BTreeMap<String, IpAddr>,
    /// For directories that the configuration names, where they are on this machine: /container/dir=/host/dir,...
    #[arg(long, value_name = "DIR=DIR,..", env = "AV_PATHS", value_parser = parse_paths, default_value = "", hide_default_value = true, global = true)]
    pub paths: PathPairs,
    /// TCP port of the IoT Edge hub
    #[arg(long, value_name = "PORT", env = "AV_HUB_PORT", default_value_t = 8883, value_parser = clap::value_parser!(u16).range(1..), global = true)]
    pub hub_port: u16,
    /// Name of this device in file names and labels [default: IOTEDGE_DEVICEID, else the host name]
    #[arg(long, value_name = "NAME", env = "AV_DEVICE", global = true)]
    pub device: Option<String>,
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do instead of running the module.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Command {
    /// Ask the running module whether it is alive; exits with 0 if it is
    Healthcheck {
        /// Ask whether it has handled a configuration instead
        #[arg(long)]
        ready: bool,
    },
}

/// `--log-format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// As IoT Edge's log filter reads it.
    Edge,
    /// One JSON object a line.
    Json,
}

/// `--bind`; an empty variable means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bind(pub Option<IpAddr>);

/// `--paths` as given: pairs (container dir, host dir).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PathPairs(pub Vec<(PathBuf, PathBuf)>);

impl Options {
    /// Reads `arguments`, which leave the program's name out, and the environment.
    pub fn parse_from_arguments(
        name: &'static str,
        version: &'static str,
        arguments: impl Iterator<Item = OsString>,
    ) -> Result<Self, clap::Error> {
        // A variable that is there and empty is how a compose file or `createOptions` says that there is none.
        let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
        let without_empty = |argument: clap::Arg| match argument.get_env().is_some_and(is_empty) {
            true => argument.env(clap::builder::Resettable::Reset),
            false => argument,
        };
        let mut command = Self::command().mut_args(without_empty).name(name).version(version);
        let all = std::iter::once(OsString::from(name)).chain(arguments);
        let matches = command.try_get_matches_from_mut(all)?;
        Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
    }

    /// Where the HTTP endpoints listen.
    pub fn metrics_listener(&self) -> SocketAddr {
        let default_ip = if self.twin.is_some() { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED };
        let mut address = self.metrics_address.unwrap_or(SocketAddr::new(default_ip.into(), METRICS_PORT));
        if let Some(bind) = self.bind.0.filter(|_| address.ip().is_unspecified()) {
            address.set_ip(bind);
        }
        address
    }

    /// Where the hub is.
    pub fn hub_address(&self) -> HubAddress {
        HubAddress { port: self.hub_port, hosts: self.hosts.clone() }
    }

    /// Where a program on this machine reaches the HTTP endpoints.
    pub fn metrics_target(&self) -> SocketAddr {
        let mut address = self.metrics_listener();
        if address.ip().is_unspecified() {
            address.set_ip(match address.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            });
        }
        address
    }
}

fn parse_bind(text: &str) -> Result<Bind, std::net::AddrParseError> {
    if text.is_empty() {
        return Ok(Bind(None));
    }
    text.trim_start_matches('[').trim_end_matches(']').parse().map(|ip| Bind(Some(ip)))
}

fn pairs(text: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(|part| match part.split_once('=') {
        Some((left, right)) => (left.trim(), Some(right.trim())),
        None => (part, None),
    })
}

fn parse_hosts(text: &str) -> Result<BTreeMap<String, IpAddr>, String> {
    pairs(text)
        .map(|(name, ip)| match ip.and_then(|ip| ip.parse().ok()) {
            Some(ip) if !name.is_empty() => Ok((name.to_ascii_lowercase(), ip)),
            _ => Err(format!("`{name}`: expected name=ip")),
        })
        .collect()
}

fn parse_paths(text: &str) -> Result<PathPairs, String> {
    pairs(text)
        .map(|(from, to)| match to {
            Some(to) if from.starts_with('/') && !to.is_empty() => {
                Ok((PathBuf::from(from), PathBuf::from(to)))
            }
            _ => Err(format!("`{from}`: expected /container/dir=/host/dir")),
        })
        .collect::<Result<_, _>>()
        .map(PathPairs)
}

/// The machine's name, for devices that nobody named.
pub(crate) fn host_name() -> String {
    ["/proc/sys/kernel/hostname", "/etc/hostname"]
        .iter()
        .filter_map(|file| std::fs::read_to_string(file).ok())
        .map(|text| text.trim().to_owned())
        .find(|text| !text.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, clap::Error> {
        Options::parse_from_arguments("tester", "1.2.3", arguments.iter().map(OsString::from))
    }

    #[test]
    fn the_metrics_address_is_local_only_when_standalone() {
        assert_eq!(parse(&[]).unwrap().metrics_listener().to_string(), "0.0.0.0:9600");
        assert_eq!(parse(&["--twin", "a.json"]).unwrap().metrics_listener().to_string(), "127.0.0.1:9600");
    }

    #[test]
    fn bind_replaces_wildcards_and_nothing_else() {
        let options = parse(&["--bind", "127.0.1.3"]).unwrap();
        assert_eq!(options.metrics_listener().to_string(), "127.0.1.3:9600");
        let options = parse(&["--bind", "127.0.1.3", "--metrics-address", "127.0.0.9:1"]).unwrap();
        assert_eq!(options.metrics_listener().to_string(), "127.0.0.9:1");
    }

    #[test]
    fn healthcheck_asks_where_the_module_listens() {
        let options = parse(&["healthcheck", "--ready", "--metrics-address", "0.0.0.0:77"]).unwrap();
        assert!(matches!(options.command, Some(Command::Healthcheck { ready: true })));
        assert_eq!(options.metrics_target().to_string(), "127.0.0.1:77");
    }

    #[test]
    fn hosts_and_paths_are_lists_of_pairs() {
        let options = parse(&["--hosts", "Cam=10.0.0.1, b=::1", "--paths", "/a=/b,/c=/d"]).unwrap();
        assert_eq!(options.hosts["cam"].to_string(), "10.0.0.1");
        assert_eq!(options.hosts["b"].to_string(), "::1");
        assert_eq!(options.paths.0.len(), 2);
        assert!(parse(&["--hosts", "cam"]).is_err());
        assert!(parse(&["--paths", "a=/b"]).is_err());
    }
}
