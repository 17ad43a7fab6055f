//! Ports that stay a test's own, also while nothing listens there.

use std::net::TcpListener;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below those that Linux gives out by itself (32768 and up): what is closed and opened again, or killed and looked for,
/// must not be another test's meanwhile.
const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;

/// A TCP port of 127.0.0.1 that nobody uses, and that no other test of this process is given.
pub(crate) fn free_port() -> u16 {
    // Where two test processes run side by side, each begins somewhere else.
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(rand::random()));
    loop {
        let port = FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
