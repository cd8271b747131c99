//! `mp4-recorder recover`: what a device that is gone had sent of a file when it went becomes a file.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use av_flow::config::Secret;
use futures_util::{StreamExt, stream};

use crate::azure::{Committed, Credentials, Http, Pace, Store, Waiting};
use crate::folder;
use crate::name;
use crate::segment;
use crate::store::Target;

/// sysexits.h: command line usage error.
const USAGE: u8 = 64;
const MOST_NAMES: u32 = 1000;
/// Names that are looked at side by side.
const LOOKS_AT_ONCE: usize = 16;

const HELP: &str = "\
Recovers files that a lost recorder was still uploading (`uploadOpenSegment`). Do not run this while the recorder still
writes to the store.

Usage: mp4-recorder recover --store URL [--flow NAME] [--api-version DATE]

  --store URL          as in the recorder's twin: azblob://ACCOUNT/CONTAINER, azblob+http(s)://HOST/ACCOUNT/CONTAINER,
                       file:///DIR
  --flow NAME          only files of this flow (blobs)
  --api-version DATE   like `apiVersion`

For a container, set one of AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_KEY and AZURE_STORAGE_SAS_TOKEN (rcwl).

Exit code: 0 everything found was recovered, 1 something was not, 64 usage.
";

#[derive(Default)]
struct Arguments {
    store: Option<Target>,
    flow: Option<String>,
    version: Option<String>,
}

fn read(arguments: &[String]) -> Option<Arguments> {
    let mut read = Arguments::default();
    let mut rest = arguments.iter();
    while let Some(option) = rest.next() {
        let value = rest.next()?;
        match option.as_str() {
            "--store" => read.store = Some(Target::of_shown(value)?),
            "--flow" => read.flow = Some(value.clone()),
            "--api-version" => read.version = Some(value.clone()),
            _ => return None,
        }
    }
    Some(read)
}

/// Runs the subcommand with what follows its name.
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Option<Vec<String>> = arguments.map(|argument| argument.into_string().ok()).collect();
    if arguments.as_ref().is_some_and(|all| all.iter().any(|one| one == "--help" || one == "-h")) {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let Some(Arguments { store: Some(target), flow, version }) = arguments.and_then(|all| read(&all)) else {
        eprint!("{HELP}");
        return ExitCode::from(USAGE);
    };
    if let (Target::Folder(_), Some(_)) = (&target, &flow) {
        // A partial file does not say whose it is.
        eprintln!("--flow is for containers; for a folder, give the folder of the flow in --store");
        return ExitCode::from(USAGE);
    }
    let done = match &target {
        Target::Folder(folder) => in_folder(folder),
        Target::Blobs(container) => in_container(container.clone(), flow.as_deref(), version.as_deref()),
    };
    match done {
        Ok((recovered, failed)) => {
            println!("{recovered} recovered, {failed} not");
            if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(why) => {
            eprintln!("{}: {why}", target.shown());
            ExitCode::FAILURE
        }
    }
}

/// How many were, and were not.
type Done = Result<(usize, usize), Box<dyn std::error::Error>>;

fn in_container(container: crate::azure::Container, flow: Option<&str>, version: Option<&str>) -> Done {
    let given = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty()).map(Secret::Plain);
    let credentials = given("AZURE_STORAGE_CONNECTION_STRING")
        .map(Credentials::ConnectionString)
        .or_else(|| given("AZURE_STORAGE_KEY").map(Credentials::AccountKey))
        .or_else(|| given("AZURE_STORAGE_SAS_TOKEN").map(Credentials::Sas))
        .ok_or("set AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN")?;
    let secret = credentials.secret().map(|secret| secret.resolve(&av_edge::Paths::default())).transpose()?;
    let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let transport = Arc::new(Http::new(Arc::default(), roots, Arc::new(Pace::default()))?);
    let store = Store::new(container, &credentials, secret.as_ref(), version, transport)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut recovered, mut failed) = (0, 0);
        let Waiting { alone, beside } = store.uncommitted().await?;
        let mut stored = Vec::new();
        for name in alone {
            match store.recover(&name, flow).await {
                // A file without a byte may be there.
                Ok(None) => stored.push(name),
                Ok(Some(Committed { bytes, without_index })) => {
                    recovered += 1;
                    println!("{name}: {bytes} bytes");
                    if let Some(why) = without_index {
                        eprintln!("{name}: it plays, but has no index, so players seek slowly: {why}");
                    }
                }
                Err(error) => {
                    failed += 1;
                    eprintln!("{name}: {error}");
                }
            }
        }
        let look = |name: String| async { (store.passed_over(&name, flow).await, name) };
        let mut looks = stream::iter(stored.into_iter().chain(beside).map(look)).buffer_unordered(LOOKS_AT_ONCE);
        while let Some((found, name)) = looks.next().await {
            match found {
                Ok(0) => {}
                Ok(bytes) => {
                    failed += 1;
                    eprintln!(
                        "{name}: passed over: {bytes} bytes of recordings wait there that can't become a file, because \
                         another file is stored under that name or their beginning was not sent"
                    );
                }
                Err(error) => {
                    failed += 1;
                    eprintln!("{name}: {error}");
                }
            }
        }
        Ok((recovered, failed))
    })
}

fn in_folder(root: &Path) -> Done {
    let (mut recovered, mut failed) = (0, 0);
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let entries = match entries {
            Ok(entries) => entries,
            // `lost+found`, for one: what lies elsewhere comes back all the same.
            Err(error) => {
                failed += 1;
                eprintln!("{}: {error}; run this as a user who may read the folder", folder.display());
                continue;
            }
        };
        for entry in entries {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let Some(name) = folder::of_partial(&path) else { continue };
            match whole(&path, &folder, &name) {
                Ok((path, bytes)) => {
                    recovered += 1;
                    println!("{}: {bytes} bytes", path.display());
                }
                Err(error) => {
                    failed += 1;
                    eprintln!("{}: {error}", path.display());
                }
            }
        }
    }
    Ok((recovered, failed))
}

/// Gives a partial file its index and its name.
fn whole(partial: &Path, folder: &Path, name: &str) -> Result<(PathBuf, u64), Box<dyn std::error::Error>> {
    let finished = segment::repair(partial, None)?;
    for number in 1..=MOST_NAMES {
        let path = folder.join(name::numbered(name, number));
        match folder::rename_new(partial, &path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error.into()),
            Ok(()) => return Ok((path, finished.bytes)),
        }
    }
    Err(format!("{MOST_NAMES} names like {name} are taken").into())
}
