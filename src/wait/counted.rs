//! A waiter that also counts for the address of its client.

use std::sync::Arc;

use tokio::time::Instant;

use super::SharedHalf;
use crate::model::status::Update;
use crate::net::clients::CountedWaiter;
use crate::waiters::Taker;

/// The half of a wait that is in the registry, with the count of its client's waiters. Only waiters
/// of limited addresses have one, so the others take no memory for it.
#[derive(Debug)]
pub(super) struct CountedTaker<S> {
    pub(super) shared: Arc<S>,
    pub(super) counted: CountedWaiter,
}

impl<S: SharedHalf> Taker for CountedTaker<S> {
    fn deliver(&self, update: &Update, since: Option<Instant>, at_once: bool) {
        // Before the answer: the page may ask again as soon as it has the answer.
        if !self.stays() {
            self.counted.end();
        }
        self.shared.deliver(update, since, at_once);
    }

    fn abandon(&self) {
        self.shared.abandon();
    }

    fn stays(&self) -> bool {
        self.shared.stays()
    }
}
