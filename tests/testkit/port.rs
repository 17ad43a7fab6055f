//! Ports that belong to one test, also while nothing listens on them.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

/// The first port. All are below the ports that Linux gives out by itself (32768 and up),
/// because another test must not get a port that is closed and opened again, or whose process
/// was killed.
const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;

/// Returns a TCP port of 127.0.0.1 that nobody uses and that no other test of this process
/// gets.
pub fn free_port() -> u16 {
    // If two test processes run side by side, each begins at another port.
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(rand::random()));
    loop {
        let port = FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Returns an address of 127.0.0.1 with a port as [`free_port`] returns it.
pub fn free_address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()))
}
