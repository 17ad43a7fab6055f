//! The program to measure, and the directory in which the benches look for it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Outcome;

/// The directory of the workspace.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Changes to the directory of the workspace, where `cargo bench` is typed, so that paths on
/// the command line are relative to it. Cargo starts a bench in the directory of its package.
pub(crate) fn enter_workspace() -> Outcome<()> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    if env::var_os("CARGO_MANIFEST_DIR").is_some() && env::current_dir()? == package {
        env::set_current_dir(ROOT)?;
    }
    Ok(())
}

/// Builds holdfast as it is deployed, and returns the path of the program.
///
/// # Errors
/// If cargo does not build it.
pub(crate) fn deployed() -> Outcome<PathBuf> {
    let mut cargo = Command::new(env!("CARGO"));
    // Cargo sets variables about this package. Build scripts that depend on them (as ring's does)
    // would run again here, and once more with the next `cargo bench`: minutes each time.
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
        }) {
            cargo.env_remove(name);
        }
    }
    cargo
        .args([
            "build",
            "--release",
            "--locked",
            "-p",
            "holdfast",
            "--bin",
            "holdfast",
        ])
        .arg("--message-format=json-render-diagnostics")
        .current_dir(ROOT)
        .stderr(Stdio::inherit());
    let built = cargo.output()?;
    // Each line is a JSON object. The one about the program has the path of its file.
    let program = String::from_utf8_lossy(&built.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .next_back();
    program
        .filter(|_| built.status.success())
        .ok_or_else(|| "cargo does not build holdfast; name one with --holdfast".into())
}
