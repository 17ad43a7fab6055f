//! The servers that are this program once more, each in a process of its own: what hyper alone costs, and what sockets do.

use std::process::Command;

use super::Server;
use crate::Outcome;
use crate::client::get;
use crate::process::{Ending, Process, Scratch, free_address};
use crate::wire::Hold;

/// Starts the one that a hidden subcommand stands for.
pub(super) fn start(name: &'static str, subcommand: &str) -> Outcome<Server> {
    let scratch = Scratch::new()?;
    let address = free_address();
    let mut command = Command::new(std::env::current_exe()?);
    command.args([subcommand, &address.to_string()]);
    let mut process = Process::start(command, name, None, Ending::Kill, &scratch)?;
    process.wait_until(|| get(address, "/held").is_ok())?;
    Ok(Server::new(&Hold, [address; 3], vec![process], scratch))
}

/// The version of a library, as it was when this program was built.
pub(super) fn version(library: &str) -> String {
    let (lock, package) = (include_str!("../../../Cargo.lock"), format!("name = \"{library}\"\nversion = \""));
    let version = lock.split_once(&package).and_then(|(_, rest)| rest.split_once('"'));
    format!("{library} {}", version.map_or("unknown", |(version, _)| version))
}
