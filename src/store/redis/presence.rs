//! A watch on the presence of Redis.

use tokio::sync::watch;

use super::supervisor::ConnectionState;
use crate::store::Presence;

/// A watch on the presence of Redis; see [`Redis::presence`](super::Redis::presence).
pub(crate) struct Watch(pub(super) watch::Receiver<ConnectionState>);

impl Watch {
    pub(in crate::store) fn now(&self) -> Presence {
        let state = self.0.borrow();
        Presence {
            is_there: state.conn.is_some(),
            epoch: state.epoch,
            generation: state.generation,
        }
    }

    /// Waits for a change. Returns `false` if there will be no more changes.
    ///
    /// # Cancel safety
    /// If it is dropped, the next call sees the change.
    pub(in crate::store) async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}
