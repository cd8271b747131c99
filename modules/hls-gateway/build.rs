//! Brings hls.js, which the player pages need, where the library embeds it.
//!
//! In this order: what `npm ci` put into `pages/node_modules`; `npm ci` of the same lock file in the build's own folder;
//! none, and then the pages play with the browser's own HLS and say so. None of this ever fails a build. Where npm failed,
//! the next build tries again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// npm is given up after this: the registry is out of reach.
const PATIENCE: Duration = Duration::from_secs(90);
/// Of the package: what is embedded, and its licence.
const SCRIPT: &str = "dist/hls.min.js";
const LICENCE: &str = "LICENSE";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // The folder: `npm ci` in it is then seen.
    println!("cargo:rerun-if-changed=pages");
    println!("cargo:rerun-if-env-changed=PATH");
    let (Some(out), Some(here)) = (std::env::var_os("OUT_DIR"), std::env::var_os("CARGO_MANIFEST_DIR"))
    else {
        return;
    };
    let (out, pages) = (PathBuf::from(out), Path::new(&here).join("pages"));
    let found =
        package(&pages.join("node_modules/hls.js"), &pages).or_else(|| install(&pages, &out.join("npm")));
    let (script, licence) = found.unwrap_or_else(|| {
        println!(
            "cargo:warning=hls-gateway: without npm and its registry the player pages have no hls.js; they use the \
             browser's own HLS. `npm ci` in modules/hls-gateway/pages and another build bring it"
        );
        ("/* hls.js is not in this build */\n".into(), "hls.js is not in this build.\n".into())
    });
    for (name, content) in [("hls.min.js", script), ("hls.js-LICENSE.txt", licence)] {
        if let Err(error) = fs::write(out.join(name), content) {
            println!("cargo:warning=hls-gateway: {name}: {error}");
        }
    }
}

/// Script and licence of a package that is of the version that the lock file names.
fn package(folder: &Path, pages: &Path) -> Option<(Vec<u8>, Vec<u8>)> {
    let version = |file: PathBuf, after: &str| {
        let text = fs::read_to_string(file).ok()?;
        let (_, rest) = text.split_once(after)?;
        let (_, rest) = rest.split_once("\"version\": \"")?;
        Some(rest.split_once('"')?.0.to_owned())
    };
    let locked = version(pages.join("package-lock.json"), "node_modules/hls.js")?;
    if version(folder.join("package.json"), "{")? != locked {
        return None;
    }
    Some((fs::read(folder.join(SCRIPT)).ok()?, fs::read(folder.join(LICENCE)).ok()?))
}

fn install(pages: &Path, folder: &Path) -> Option<(Vec<u8>, Vec<u8>)> {
    let there = folder.join("node_modules/hls.js");
    if let Some(found) = package(&there, pages) {
        return Some(found);
    }
    fs::create_dir_all(folder).ok()?;
    for name in ["package.json", "package-lock.json"] {
        fs::copy(pages.join(name), folder.join(name)).ok()?;
    }
    let npm = Command::new("npm")
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"])
        .args(["--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-timeout=20000"])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let found = ends_well(npm).then(|| package(&there, pages)).flatten();
    if found.is_none() {
        // Cargo runs a script again while what it names is missing.
        println!("cargo:rerun-if-changed={}", folder.join("installed").display());
    }
    found
}

fn ends_well(mut child: Child) -> bool {
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        match child.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) => std::thread::sleep(Duration::from_millis(50)),
            Err(_) => break,
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    false
}
