//! The servers that are this program again, each in its own process. They show the cost of
//! hyper alone, and of sockets alone.

use std::process::Command;

use super::Server;
use crate::Outcome;
use crate::client::get;
use crate::process::{Ending, Process, Scratch, free_address};
use crate::wire::Hold;

/// Starts the server of a hidden subcommand.
pub(super) fn start(name: &'static str, subcommand: &str) -> Outcome<Server> {
    let scratch = Scratch::new()?;
    let address = free_address();
    let mut command = Command::new(std::env::current_exe()?);
    command.args([subcommand, &address.to_string()]);
    let mut process = Process::start(command, name, None, Ending::Kill, &scratch)?;
    process.wait_until(|| get(address, "/held").is_ok())?;
    Ok(Server::new(&Hold, [address; 3], vec![process], scratch))
}

/// Returns the version of a library at the time when this program was built.
pub(super) fn version(library: &str) -> String {
    let (lock, package) = (
        include_str!("../../../Cargo.lock"),
        format!("name = \"{library}\"\nversion = \""),
    );
    let version = lock
        .split_once(&package)
        .and_then(|(_, rest)| rest.split_once('"'));
    format!(
        "{library} {}",
        version.map_or("unknown", |(version, _)| version)
    )
}
