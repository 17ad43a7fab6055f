//! The limits of pages' WebSockets ([`crate::page::socket`]).

use std::sync::Arc;

use tokio::sync::Semaphore;

/// The limits of pages' sockets.
#[derive(Debug)]
pub(crate) struct SocketLimits {
    /// The most keys of one socket.
    pub(crate) max_keys: usize,
    /// The keys beyond the first of each socket that may still be waited for, on all sockets
    /// together.
    pub(crate) further_keys: Arc<Semaphore>,
}

impl SocketLimits {
    /// Returns the limits of a node with this many waiters at most. Without a limit of their own,
    /// a few sockets could use up what all pages have.
    pub(crate) fn new(max_keys: usize, max_waiters: usize) -> Self {
        let further = (max_waiters / 4).min(Semaphore::MAX_PERMITS);
        Self {
            max_keys,
            further_keys: Arc::new(Semaphore::new(further)),
        }
    }
}
