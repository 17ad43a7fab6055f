//! The plain hyper server: this program once more, in a process of its own.

use std::process::Command;

use super::{Server, free_address};
use crate::client::get;
use crate::process::{Ending, Process, Scratch};
use crate::wire::Hold;
use crate::{Outcome, plain};

pub(super) fn start() -> Outcome<Server> {
    let scratch = Scratch::new()?;
    let address = free_address();
    let mut command = Command::new(std::env::current_exe()?);
    command.args([plain::SUBCOMMAND, &address.to_string()]);
    let mut process = Process::start(command, "hyper", None, Ending::Kill, &scratch)?;
    process.wait_until(|| get(address, "/held").is_ok())?;
    Ok(Server::new(&Hold, [address; 3], vec![process], scratch))
}

/// Of hyper, as it was when this program was built.
pub(super) fn version() -> String {
    let lock = include_str!("../../../Cargo.lock");
    let version = lock.split_once("name = \"hyper\"\nversion = \"").and_then(|(_, rest)| rest.split_once('"'));
    version.map_or("unknown", |(version, _)| version).to_owned()
}
