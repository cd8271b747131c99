//! Hands the crate the short hash of the commit it is built from, as `AV_BUILD`.

use std::process::Command;

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    (output.status.success() && !text.is_empty()).then(|| text.to_owned())
}

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=AV_BUILD");
    // A container build has no repository: it sets the variable.
    let given = std::env::var("AV_BUILD").ok().filter(|text| !text.is_empty());
    // Each commit would rebuild everything while developing; only what is released must name it exactly.
    let watched = if std::env::var("PROFILE").as_deref() == Ok("release") { "logs/HEAD" } else { "HEAD" };
    if let Some(path) =
        git(&["rev-parse", "--git-path", watched]).filter(|path| std::path::Path::new(path).exists())
    {
        println!("cargo:rerun-if-changed={path}");
    }
    let build =
        given.or_else(|| git(&["rev-parse", "--short=7", "HEAD"])).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo:rustc-env=AV_BUILD={build}");
}
