//! The servers that are this program again, each in its own process. They show the cost of
//! hyper alone, and of sockets alone.

use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use holdfast_testkit::{eventually, free_address};

use super::{Program, Server};
use crate::Outcome;
use crate::blocking::wait;
use crate::wire::Hold;

/// This program as a server. It is killed when dropped.
pub(super) struct Own(Child);

impl Own {
    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the server of a hidden subcommand.
pub(super) fn start(subcommand: &str) -> Outcome<Server> {
    let address = free_address();
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args([subcommand, &address.to_string()])
        .stdin(Stdio::null());
    let own = Own(command.spawn()?);
    wait(eventually(
        async || TcpStream::connect(address).is_ok(),
        &format!("{subcommand} listens"),
    ));
    Ok(Server::new(&Hold, [address; 3], vec![Program::Own(own)]))
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
