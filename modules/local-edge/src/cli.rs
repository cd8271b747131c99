//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::ask;
use crate::fault::Fault;
use crate::services;
use crate::up::{Settings, up};

const ABOUT: &str = "Simulates the IoT Edge runtime on this machine, for development.

Reads a deployment manifest, starts each of its modules as a process, and gives them what edgeHub and \
the workload API give on a device: identities, twins, direct methods, telemetry, certificates. A table \
shows every flow with the address to open.";

const AFTER: &str = "Getting started:
  local-edge                                     run deployment.template.json until Ctrl-C
and in a second terminal:
  local-edge ps                                  what runs, and where to play and publish
  local-edge twin show rtmp-splitter             desired and reported properties
  local-edge twin set rtmp-splitter '{\"logLevel\": \"debug\"}'
  local-edge method rtmp-splitter getStatus      a direct method, as from the cloud
  local-edge logs -f rtmp-splitter               its log, as it is written
  local-edge events                              telemetry that a route carries to $upstream
  env $(local-edge env mine) ./my-program        any program, in any SDK, as the module `mine`

In production IoT Edge and IoT Hub do this job: the same manifest goes there.";

#[derive(Debug, Parser)]
#[command(name = "local-edge", version, about = ABOUT, after_help = AFTER)]
struct Cli {
    /// Where identities, twins, logs and sockets are kept, and where a running instance is found
    /// [default: ~/.local/state/local-edge]
    #[arg(long, global = true, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    #[command(flatten)]
    up: UpArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Clone, Debug, Args)]
struct UpArgs {
    /// The deployment manifest, or a template of one [default: deployment.template.json]
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Values of the manifest's ${VARIABLES}, one NAME=VALUE a line; the process environment wins
    /// [default: edge-config/local.env beside the manifest]
    #[arg(long, value_name = "FILE")]
    env: Option<PathBuf>,
    /// The port of 127.0.0.1 on which edgeHub speaks MQTT over TLS [default: 8883]
    #[arg(long, value_name = "N")]
    port: Option<u16>,
    /// Be as strict as a device: what would fail there is an error, modules that end are restarted as slowly as there,
    /// and none gets this desktop's screen
    #[arg(long)]
    device_rules: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the manifest until Ctrl-C (what happens without a command)
    Up(UpArgs),
    /// Run one service in the foreground, as its container does; its own --help follows its name
    Module {
        /// The service
        name: String,
        /// What the service itself takes
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Show what runs: modules, flows, and where to play and publish
    Ps {
        /// Print everything as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show or change the desired and reported properties of a module
    #[command(subcommand)]
    Twin(Twin),
    /// Call a direct method and print status and payload; the exit code is 1 unless the status is 2xx
    Method {
        /// The module
        module: String,
        /// The method, e.g. ping or getStatus
        name: String,
        /// Its payload
        #[arg(default_value = "null", value_name = "JSON")]
        payload: String,
        /// How long to wait for the answer
        #[arg(long, default_value_t = 30, value_name = "SECONDS")]
        timeout: u64,
    },
    /// Show what modules logged; the name `local-edge` shows what this program itself logged
    Logs {
        /// Show only this module [default: all]
        module: Option<String>,
        /// Keep showing new lines as they come
        #[arg(short, long)]
        follow: bool,
        /// How many of the last lines to show
        #[arg(short = 'n', long, default_value_t = 100, value_name = "N")]
        tail: usize,
    },
    /// Show telemetry that a route carries to $upstream, one JSON object a line, as it comes
    Events {
        /// Show only what has come so far
        #[arg(long)]
        no_follow: bool,
        /// The default
        #[arg(short, long, hide = true, conflicts_with = "no_follow")]
        follow: bool,
    },
    /// Stop a module as a container is stopped, and start it again
    Restart {
        /// The module
        module: String,
    },
    /// Make something go wrong, to see how modules cope (a tool for development)
    #[command(subcommand)]
    Fault(Fault),
    /// Print the environment that edgeAgent gives a module of that name, as KEY=VALUE lines
    ///
    /// Works for any name: identity and workload API are created, so that any program can run as that module. `ps`
    /// shows it while it is connected. SDKs always connect to port 8883.
    Env {
        /// The module
        module: String,
        /// Print EdgeHubConnectionString and EdgeModuleCACertificateFile instead
        #[arg(long)]
        connection_string: bool,
    },
}

#[derive(Debug, Subcommand)]
enum Twin {
    /// Print desired and reported properties
    Show {
        /// The module
        module: String,
    },
    /// Change desired properties and print what the module reports in answer
    ///
    /// A merge patch: objects are merged, null deletes, everything else replaces. The exit code is 1 if the
    /// module rejects any part of it.
    Set {
        /// The module
        module: String,
        /// JSON, @FILE, or @- for standard input
        #[arg(value_name = "JSON|@FILE")]
        desired: String,
        /// Replace the whole document instead of patching it
        #[arg(long)]
        replace: bool,
    },
}

/// Runs the program.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(64) } else { ExitCode::SUCCESS };
        }
    };
    // A service brings its own runtime.
    if let Some(Command::Module { name, args }) = cli.command {
        return services::run(&name, args);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("local-edge: cannot start threads: {error}");
            return ExitCode::from(70);
        }
    };
    runtime.block_on(async {
        // On a worker thread: modules are told to end with the thread that started them.
        tokio::spawn(dispatch(cli)).await.unwrap_or(ExitCode::from(70))
    })
}

async fn dispatch(cli: Cli) -> ExitCode {
    let state_dir = cli.state_dir;
    let asked = match cli.command {
        None => return run_up(cli.up, None, state_dir).await,
        Some(Command::Up(args)) => return run_up(args, Some(cli.up), state_dir).await,
        Some(Command::Module { .. }) => return ExitCode::from(64),
        Some(Command::Ps { json }) => ask::ps(state_dir, json).await,
        Some(Command::Twin(Twin::Show { module })) => ask::twin_show(state_dir, module).await,
        Some(Command::Twin(Twin::Set { module, desired, replace })) => {
            ask::twin_set(state_dir, module, &desired, replace).await
        }
        Some(Command::Method { module, name, payload, timeout }) => {
            ask::method(state_dir, module, name, &payload, timeout).await
        }
        Some(Command::Logs { module, follow, tail }) => ask::logs(state_dir, module, tail, follow).await,
        Some(Command::Events { no_follow, follow: _ }) => ask::events(state_dir, !no_follow).await,
        Some(Command::Restart { module }) => ask::restart(state_dir, module).await,
        Some(Command::Fault(fault)) => ask::fault(state_dir, fault).await,
        Some(Command::Env { module, connection_string }) => {
            ask::env(state_dir, module, connection_string).await
        }
    };
    asked.unwrap_or_else(|error| {
        eprintln!("local-edge: {error}");
        error.exit_code()
    })
}

/// Options may stand before or after `up`.
async fn run_up(args: UpArgs, before: Option<UpArgs>, state_dir: Option<PathBuf>) -> ExitCode {
    let before = before.unwrap_or_else(|| args.clone());
    let settings = Settings {
        manifest: args.manifest.or(before.manifest).unwrap_or_else(|| "deployment.template.json".into()),
        env: args.env.or(before.env),
        state_dir,
        port: args.port.or(before.port).unwrap_or(8883),
        device_rules: args.device_rules || before.device_rules,
    };
    match up(settings).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("local-edge: {error}");
            error.exit_code()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn up_is_what_happens_without_a_command_and_takes_its_options_either_way() {
        for line in [
            "local-edge --manifest m --port 1 --state-dir s",
            "local-edge up --manifest m --port 1 --state-dir s",
            "local-edge --state-dir s up --manifest m --port 1",
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.state_dir, Some(PathBuf::from("s")), "{line}");
            let args = match cli.command {
                Some(Command::Up(args)) => args,
                None => cli.up,
                other => panic!("{line}: {other:?}"),
            };
            assert_eq!((args.manifest, args.port), (Some("m".into()), Some(1)), "{line}");
        }
    }

    #[test]
    fn what_follows_a_services_name_is_the_services() {
        let line = ["local-edge", "module", "rtmp-splitter", "--twin", "t.json", "-h"];
        let Some(Command::Module { name, args }) = Cli::try_parse_from(line).unwrap().command else {
            panic!()
        };
        assert_eq!(
            (name.as_str(), args),
            ("rtmp-splitter", vec!["--twin".into(), "t.json".into(), "-h".into()])
        );
    }
}
