//! Writes to a key: a status or a deletion is stored, then delivered to the waiters. Both
//! listeners use this module, and it knows neither of them: a write was parsed and allowed
//! before it comes here.

use std::collections::HashMap;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::{Either, join_all};
use futures_util::stream::{self, StreamExt};
use tokio::task::yield_now;
use tokio::time::Instant;
use tracing::{Instrument, debug};

use crate::backend::receipt::Receipt;
use crate::backend::set::Set;
use crate::cluster::delivery::{Delivered, Delivery};
use crate::cluster::message::Missed;
use crate::cluster::recovery::Recovery;
use crate::http::response::{self, Response};
use crate::metrics::Metrics;
use crate::model::cause::Cause;
use crate::model::key::{Key, KeyHasher};
use crate::model::status::{Status, Update, Version};
use crate::model::write_number::WriteNumber;
use crate::runtime::finishing::Finishing;
use crate::runtime::shutdown::Drain;
use crate::store::{Known, Put, StoreError, Stored, StoredBy};

/// The most keys of one array that are written side by side.
const MAX_KEYS_SIDE_BY_SIDE: usize = 64;
/// The number of sets of an array that are stored before other connections of this core have
/// their turn, because each set may write several answers.
const AT_ONE_GO: usize = 16;
/// The time after which an array begins no further set. The last one may take 4 s with the
/// default timeouts, so the array is answered within 10 s.
const ARRAY_LIMIT: Duration = Duration::from_secs(6);

/// Stores statuses and deletions, and starts their delivery.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) delivery: Arc<Delivery>,
    /// The recovery; present if nodes share the store.
    pub(crate) recovery: Option<Arc<Recovery>>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) drain: Drain,
    /// The number of keys of one array that are written side by side: see [`side_by_side`].
    pub(crate) side_by_side: usize,
    /// The time for which a status is kept if its set gives none.
    pub(crate) status_ttl: Duration,
}

impl Writer {
    /// Stores a status, and waits until it is delivered.
    pub(crate) async fn put(&self, set: Set) -> Receipt {
        let (_, receipt) = self.store(set).await;
        receipt.await
    }

    /// Stores the statuses of an array: different keys side by side, and the sets of each key
    /// in order. A set is refused untried if it has not begun within [`ARRAY_LIMIT`] or before
    /// a drain begins, or if the store did not answer an earlier set of its key.
    pub(crate) async fn put_all(&self, sets: Vec<Set>) -> Vec<Receipt> {
        let count = sets.len();
        let deadline = Instant::now() + ARRAY_LIMIT;
        let begun = AtomicUsize::new(0);
        let keys = by_key(sets)
            .into_iter()
            .map(|sets| self.put_in_order(sets, deadline, &begun));
        let mut keys = stream::iter(keys).buffer_unordered(self.side_by_side);
        let mut receipts = Vec::with_capacity(count);
        while let Some(of_one) = keys.next().await {
            receipts.extend(of_one);
        }
        let mut receipts = join_all(receipts).await;
        receipts.sort_unstable_by_key(|(place, _)| *place);
        receipts.into_iter().map(|(_, receipt)| receipt).collect()
    }

    /// Stores the statuses of one key, each as soon as the one before is settled. Returns the
    /// future of each receipt with the set's place in the array. The next set does not wait for
    /// other nodes to confirm the one before: only the futures of the receipts do.
    async fn put_in_order(
        &self,
        sets: Vec<(usize, Set)>,
        deadline: Instant,
        begun: &AtomicUsize,
    ) -> Vec<impl Future<Output = (usize, Receipt)> + Send + use<>> {
        let mut receipts = Vec::with_capacity(sets.len());
        let mut is_settled = true;
        for (place, set) in sets {
            if begun.fetch_add(1, Ordering::Relaxed) % AT_ONE_GO == AT_ONE_GO - 1 {
                yield_now().await;
            }
            let is_begun = is_settled && !self.drain.begun() && Instant::now() < deadline;
            let receipt = if is_begun {
                let (settled, receipt) = self.store(set).await;
                is_settled = settled == Settled::Yes;
                Either::Left(receipt)
            } else {
                Either::Right(ready(self.untried()))
            };
            receipts.push(async move { (place, receipt.await) });
        }
        receipts
    }

    /// Stores a status, then has it delivered to the key's waiters.
    /// [`page::get`](crate::page::get) proves that no status is lost in this order. Only a
    /// status that was stored is delivered, so that no page sees one whose backend is answered
    /// that it was not stored. Returns the future of the receipt.
    async fn store(&self, set: Set) -> (Settled, impl Future<Output = Receipt> + Send + use<>) {
        let accepted = Instant::now();
        let Set {
            key,
            value,
            ttl,
            is_final,
            after,
            before,
            number,
        } = set;
        let number = number.unwrap_or_else(WriteNumber::random);
        let put = Put {
            value,
            is_final,
            ttl: ttl.unwrap_or(self.status_ttl),
            after,
            before,
            number,
        };
        let stored = self.delivery.store.put(&key, &put).await;
        let Put {
            value, is_final, ..
        } = put;
        let settled = if matches!(stored, Err(StoreError::Unknown(_))) {
            Settled::No
        } else {
            Settled::Yes
        };
        let update = move |version| {
            Update::Status(Status {
                version,
                value,
                is_final,
            })
        };
        let receipt = self.deliver(&key, number, stored, accepted, update);
        let metrics = Arc::clone(&self.metrics);
        let receipt = async move {
            let receipt = receipt.await;
            metrics.set_ended(receipt.end());
            debug!(key = %key.hashed(), result = receipt.end().as_str(), cause = receipt.cause(), delivered = receipt.delivered(), "set");
            receipt
        };
        (settled, receipt)
    }

    /// Refuses a set of an array without trying it.
    fn untried(&self) -> Receipt {
        let cause = if self.drain.begun() {
            Cause::Draining
        } else {
            Cause::Untried
        };
        let receipt = self.failed(StoreError::Unavailable(cause));
        self.metrics.set_ended(receipt.end());
        debug!(
            result = receipt.end().as_str(),
            cause = receipt.cause(),
            "set"
        );
        receipt
    }

    /// Deletes what is known of a key, and delivers the deletion to the key's waiters.
    pub(crate) async fn forget(&self, key: &Key) -> Receipt {
        let accepted = Instant::now();
        let number = WriteNumber::random();
        let stored = self.delivery.store.forget(key, number).await;
        let receipt = self
            .deliver(key, number, stored, accepted, Update::Gone)
            .await;
        debug!(key = %key.hashed(), result = receipt.end().as_str(), cause = receipt.cause(), delivered = receipt.delivered(), "deleted");
        receipt
    }

    /// Notes that this node may have missed updates of these keys. An embedded store has no other
    /// node that could send them.
    pub(crate) fn missed(&self, missed: Missed) {
        if let Some(recovery) = &self.recovery {
            recovery.missed(missed);
        }
    }

    /// Keeps an update that is about to be confirmed, if a shared store may lose it.
    fn confirmed(
        &self,
        key: &Key,
        update: &Update,
        number: WriteNumber,
        ttl: Duration,
        generation: u64,
    ) {
        if let Some(recovery) = &self.recovery {
            recovery.confirmed(key, update, number, ttl, generation);
        }
    }

    /// Returns the receipt of a request that the store did not carry out, and counts the cause if
    /// that is not what the request asks.
    pub(crate) fn failed(&self, error: StoreError) -> Receipt {
        if let Some(cause) = error.cause() {
            self.metrics.unavailable(cause);
        }
        Receipt::failed(error, response::retry_after_ms(self.delivery.waiters.len()))
    }

    /// Starts the delivery of what was stored, if it was, and returns the future of the
    /// receipt.
    fn deliver<U: FnOnce(Version) -> Update>(
        &self,
        key: &Key,
        number: WriteNumber,
        stored: Result<Stored, StoreError>,
        accepted: Instant,
        update: U,
    ) -> impl Future<Output = Receipt> + Send + use<U> {
        let mut fresh = None;
        let done = match stored {
            Ok(Stored {
                version,
                ttl,
                leases,
                generation,
                by: StoredBy::This,
            }) => {
                let update = update(version);
                self.confirmed(key, &update, number, ttl, generation);
                let delivered = self.delivery.deliver(key, &update, leases, Some(accepted));
                fresh = Some((key.clone(), update, ttl));
                Ok((version, Some(delivered)))
            }
            // A repeated set may bring another value, so the update that the store has is
            // delivered instead.
            Ok(Stored {
                version,
                leases,
                generation,
                by: StoredBy::Earlier(known),
                ..
            }) => {
                let delivered = known.map(|Known { update, expires_in }| {
                    // A newer update is kept for `--resend` by the node that stored it.
                    if update.version() == version {
                        self.confirmed(key, &update, number, expires_in, generation);
                    }
                    self.delivery.deliver(key, &update, leases, Some(accepted))
                });
                Ok((version, delivered))
            }
            Err(error) => {
                // The update may have been stored. The key is opened again as soon as Redis can
                // be asked, so that this node's waiters get it then.
                if let StoreError::Unknown(_) = error {
                    self.missed(Missed::Keys(vec![key.clone()]));
                }
                Err(self.failed(error))
            }
        };
        let delivery = Arc::clone(&self.delivery);
        async move {
            match done {
                Ok((version, Some(delivered))) => {
                    let delivered = delivered.await;
                    match fresh.filter(|_| delivered.ahead >= version) {
                        None => Receipt::stored(version, delivered),
                        Some((key, update, ttl)) => {
                            let above =
                                Box::pin(delivery.deliver_above(&key, &update, ttl, delivered));
                            let (version, delivered) = above.await;
                            Receipt::stored(version, delivered)
                        }
                    }
                }
                Ok((version, None)) => Receipt::stored(version, Delivered::default()),
                Err(receipt) => receipt,
            }
        }
    }
}

/// Returns how many keys of one array are written side by side. `in_flight` is how many
/// commands to Redis may be under way, or `None` with an embedded store. An embedded store
/// answers at once, so writing its keys side by side would write all of them in one go.
pub(crate) fn side_by_side(in_flight: Option<usize>) -> usize {
    // At most a quarter: an array must leave room for other sets, which would be refused
    // otherwise.
    in_flight.map_or(1, |in_flight| {
        (in_flight / 4).clamp(1, MAX_KEYS_SIDE_BY_SIDE)
    })
}

/// Whether the store reported the result of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settled {
    /// It was stored, or refused.
    Yes,
    /// The store did not answer.
    No,
}

/// Returns the sets grouped by key, each set with its place in the array. The groups are in the
/// order of their first sets, and the sets of each group in the order of the array.
fn by_key(sets: Vec<Set>) -> Vec<Vec<(usize, Set)>> {
    let mut places: HashMap<Key, usize, KeyHasher> = HashMap::default();
    let mut groups: Vec<Vec<(usize, Set)>> = Vec::new();
    for (place, set) in sets.into_iter().enumerate() {
        let group = *places.entry(set.key.clone()).or_insert(groups.len());
        match groups.get_mut(group) {
            Some(group) => group.push((place, set)),
            None => groups.push(vec![(place, set)]),
        }
    }
    groups
}

/// Carries `work` to its end even if the client leaves. If a backend hangs up after its set was
/// stored, the key's waiters must still be woken.
pub(crate) async fn finish(work: impl Future<Output = Response> + Send + 'static) -> Response {
    Finishing::new(work.in_current_span()).await
}
