//! The program that is measured. Cargo builds the holdfast beside a bench with features that only tests need (tokio's
//! `test-util`, for one), so it is built once more, as it is deployed.

use std::path::PathBuf;
use std::process::Command;

use crate::Outcome;

/// Builds holdfast as it is deployed; gives the program.
///
/// # Errors
/// If cargo does not build it.
pub(crate) fn deployed() -> Outcome<PathBuf> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--release", "--locked", "--bin", "holdfast"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    if !cargo.status()?.success() {
        return Err("cargo does not build holdfast; name one with --holdfast".into());
    }
    Ok(PathBuf::from(env!("CARGO_BIN_EXE_holdfast")))
}
