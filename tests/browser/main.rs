//! Runs the browser tests in Node, on the program that cargo has built. Arguments choose the files:
//! `cargo test --test browser -- demo` runs `demo.test.mjs`.

use std::cmp::Reverse;
use std::fs::{metadata, read_dir};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

/// The number of files that run at once. They wait more than they work.
const SIDE_BY_SIDE: usize = 3;

fn main() {
    let chosen: Vec<_> = std::env::args().skip(1).collect();
    let is_chosen = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.strip_suffix(".test.mjs")
            .is_some_and(|name| chosen.is_empty() || chosen.iter().any(|one| one == name))
    };
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser");
    let entries = read_dir(folder).expect("the folder of this file");
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(is_chosen)
        .collect();
    assert!(!files.is_empty(), "no such files: {chosen:?}");
    // The longest file first: at the end, it would run alone.
    files.sort_by_key(|path| Reverse(metadata(path).map_or(0, |file| file.len())));
    // By their names, because the meaning of a folder differs between versions of Node.
    let error = Command::new("node")
        .arg("--test")
        .arg(format!("--test-concurrency={SIDE_BY_SIDE}"))
        .arg("--test-reporter=spec")
        .args(files)
        .env("HOLDFAST_BIN", env!("CARGO_BIN_EXE_holdfast"))
        .exec();
    panic!("cannot run node: {error}");
}
