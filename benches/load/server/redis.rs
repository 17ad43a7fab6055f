//! A redis-server for two nodes, which stores nothing on disk.

use std::net::TcpStream;
use std::process::Command;

use super::{first_line, local};
use crate::Outcome;
use crate::process::{Ending, Process, Scratch, free_port};

/// Starts Redis, and returns its process and its port.
pub(super) fn start(scratch: &Scratch) -> Outcome<(Process, u16)> {
    let port = free_port();
    let mut command = Command::new("redis-server");
    command.args([
        "--port",
        &port.to_string(),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
    ]);
    command.arg("--dir").arg(scratch.path(""));
    let mut process = Process::start(
        command,
        "redis",
        Some("redis-server"),
        Ending::Kill,
        scratch,
    )?;
    process.wait_until(|| TcpStream::connect(local(port)).is_ok())?;
    Ok((process, port))
}

pub(super) fn version() -> Outcome<String> {
    first_line(Command::new("redis-server").arg("--version"))
}
