//! The presence of Redis, and a watch on it.

use tokio::sync::watch;

use super::supervisor::ConnectionState;

/// The presence of Redis: whether it is there, and whether it is still the same one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Presence {
    /// Whether commands can be sent.
    pub(crate) is_there: bool,
    /// The epoch. A key that was opened in an earlier one has to be opened again. 0 before the
    /// first connection.
    pub(crate) epoch: u64,
    /// The number of the Redis process. Statuses that an earlier process confirmed may be lost.
    pub(crate) process: u64,
}

/// A watch on the presence of Redis; see [`Redis::presence`](super::Redis::presence).
pub(crate) struct Watch(pub(super) watch::Receiver<ConnectionState>);

impl Watch {
    pub(crate) fn now(&self) -> Presence {
        let state = self.0.borrow();
        Presence {
            is_there: state.conn.is_some(),
            epoch: state.epoch,
            process: state.process,
        }
    }

    /// Waits for a change. Returns `false` if there will be no more changes.
    ///
    /// # Cancel safety
    /// If it is dropped, the next call sees the change.
    pub(crate) async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}
