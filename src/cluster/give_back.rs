//! Gives back the leases of keys whose last waiter has left, so that gets that strangers give
//! up leave nothing in the store. A page that asks again within a second costs nothing more,
//! unless there is little room for leases.

use std::mem;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::model::key::Key;
use crate::runtime::sharded::lock;
use crate::store::{GivenBack, Shared};
use crate::waiters::Waiters;

/// The time between two rounds. A lease is given back in the second round after its last waiter
/// left: one to two seconds later.
const INTERVAL: Duration = Duration::from_secs(1);
/// The time between two checks whether there is little room for leases. If there is, each lease
/// is given back as soon as its last waiter has left. Otherwise, with many short waits, leases
/// that nobody needs would take the room.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);
/// The most leases that are given back at once.
const SIDE_BY_SIDE: usize = 64;

/// Gives leases back for as long as the node runs. A drain gives back all that are left.
///
/// # Cancel safety
/// It runs until it is dropped. Leases that are left end by themselves.
pub(crate) async fn run(waiters: Arc<Waiters>, store: Shared) {
    let mut ticks = interval(CHECK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut left = waiters.take_emptied();
    let mut round_at = Instant::now() + INTERVAL;
    loop {
        let now = ticks.tick().await;
        let is_short = store.is_short_of_leases();
        if now < round_at && !is_short {
            continue;
        }
        if now >= round_at {
            round_at = now + INTERVAL;
        }
        // Leases that have ended must not count as taking room.
        store.tidy().await;
        let mut due = mem::replace(&mut left, waiters.take_emptied());
        if is_short {
            // Without room, gets that come now are refused. That is worse than a new lease for
            // a page that asks again.
            due.append(&mut left);
        }
        left.extend(give_back(due, is_short, &waiters, &store).await);
    }
}

/// Gives back the leases of keys that nobody waits for. Returns those that have to be tried again.
async fn give_back(keys: Vec<Key>, is_short: bool, waiters: &Waiters, store: &Shared) -> Vec<Key> {
    let again = Mutex::new(Vec::new());
    stream::iter(keys)
        .for_each_concurrent(SIDE_BY_SIDE, async |key| {
            // A get registers before it opens its key, and the lease's end is read before the gets
            // are counted. So a get that is not counted opens the key later, and thereby moves
            // the end. The store keeps a lease whose end has moved.
            let is_held = || waiters.count(&key) > 0;
            match store.give_back(&key, is_short, is_held).await {
                Ok(GivenBack::Done | GivenBack::LeftAlone) => {}
                Ok(GivenBack::NotYet) | Err(_) => lock(&again).push(key),
            }
        })
        .await;
    mem::take(&mut *lock(&again))
}
