//! What is put right when Redis is back: gets that are held are opened again, so that their node is leased to and what
//! they missed is found; sets that this node confirmed are put again where another Redis process may not have them;
//! sets that got no answer are looked after. Nothing of it depends on what a page does.
//!
//! Everything here may be done twice: a version is given once, and only what is newer is stored or delivered.

use std::collections::HashSet;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt};
use rand::seq::SliceRandom;
use tokio::sync::Notify;
use tokio::time::sleep;
use tracing::{debug, warn};

use crate::delivery::Delivery;
use crate::expiring::Expiring;
use crate::key::Key;
use crate::metrics::{Limit, Metrics};
use crate::sharded::lock;
use crate::status::{Update, Version};
use crate::store::{Store, StoreError, Stored};

/// Keys that are opened, or put again, side by side: enough to be quick, and few beside what pages and backends ask
/// of Redis meanwhile. Half of `--redis-in-flight` where that is less: more would only be refused.
const MAX_SIDE_BY_SIDE: usize = 64;
/// Between two tries, at first and at most.
const FIRST_REST: Duration = Duration::from_millis(100);
const MAX_REST: Duration = Duration::from_secs(5);
/// What is kept to be put again: updates, and the bytes of their values.
const MAX_CONFIRMED: usize = 200_000;
const MAX_CONFIRMED_BYTES: usize = 64 << 20;
/// Keys whose last set got no answer.
const MAX_DOUBTED: usize = 10_000;
/// That this is too little is told once in this time.
const TELL_INTERVAL: Duration = Duration::from_secs(60);

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Recovery {
    delivery: Arc<Delivery>,
    metrics: Arc<Metrics>,
    /// How long a get may be held, and so a lease last.
    hold: Duration,
    /// How long what was confirmed is kept.
    resend: Duration,
    side_by_side: usize,
    confirmed: Mutex<Confirmed>,
    doubted: Mutex<HashSet<Key>>,
    /// There is something to do.
    wanted: Notify,
    /// The last pass did something, so that the next may soon.
    has_progressed: AtomicBool,
}

/// What this node confirmed lately, the newest of each key.
#[derive(Debug, Default)]
struct Confirmed {
    updates: Expiring<Entry>,
    bytes: usize,
    /// No entry's process is less.
    least_process: u64,
    /// When it was last told that something was let go too early.
    told_at: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Entry {
    update: Update,
    /// When its time to live ends.
    ends: Instant,
    /// The last Redis process that is known to have had it.
    process: u64,
}

impl Recovery {
    pub(crate) fn new(
        delivery: Arc<Delivery>,
        metrics: Arc<Metrics>,
        hold: Duration,
        resend: Duration,
        in_flight: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            delivery,
            metrics,
            hold,
            resend,
            side_by_side: (in_flight / 2).clamp(1, MAX_SIDE_BY_SIDE),
            confirmed: Mutex::default(),
            doubted: Mutex::default(),
            wanted: Notify::new(),
            has_progressed: AtomicBool::new(false),
        })
    }

    /// A get is held that could not be opened.
    pub(crate) fn not_opened(&self) {
        self.wanted.notify_one();
    }

    /// An update was stored by this process, and is about to be confirmed.
    pub(crate) fn confirmed(&self, key: &Key, update: &Update, ttl: Duration, process: u64) {
        let Store::Redis(redis) = &*self.delivery.store else { return };
        if self.resend.is_zero() {
            return;
        }
        let now = Instant::now();
        let entry = Entry { update: update.clone(), ends: now + ttl, process };
        // Also beyond its own end: something older may be put again by another node.
        let let_go = lock(&self.confirmed).insert(key, entry, now, now + self.resend);
        if let_go {
            self.metrics.limit_hit(Limit::Confirmed);
        }
        // It may have been an earlier one's last word, which came when all of that was put again already.
        if redis.presence().now().process > process {
            self.wanted.notify_one();
        }
    }

    /// Nobody knows whether a set of this key was stored.
    pub(crate) fn doubt(&self, key: &Key) {
        let mut doubted = lock(&self.doubted);
        let has_room = doubted.len() < MAX_DOUBTED;
        if has_room {
            doubted.insert(key.clone());
        }
        drop(doubted);
        if !has_room {
            self.metrics.limit_hit(Limit::Doubted);
        }
        self.wanted.notify_one();
    }

    /// How many keys are doubted, and how many updates are kept to be put again.
    pub(crate) fn queued(&self) -> (usize, usize) {
        (lock(&self.doubted).len(), lock(&self.confirmed).updates.len())
    }

    /// Watches Redis, and puts right what there is to.
    ///
    /// # Cancel safety
    /// To be dropped is how it ends.
    pub(crate) async fn run(self: Arc<Self>) {
        let Store::Redis(redis) = &*self.delivery.store else { return };
        let mut presence = redis.presence();
        let mut rest = FIRST_REST;
        loop {
            let now = presence.now();
            let done = now.is_there && {
                let written = self.put_again(now.process).await;
                let settled = self.settle_doubts().await;
                written & settled & self.open_again(now.epoch).await
            };
            // Until something changes; and where something is left to do while Redis is there, for a while, which
            // grows while nothing comes of it: Redis may be full.
            let again = now.is_there && !done;
            if self.has_progressed.swap(false, Ordering::Relaxed) {
                rest = FIRST_REST;
            }
            tokio::select! {
                () = sleep(rest.mul_f64(rand::random_range(0.5..=1.0))), if again => rest = (rest * 2).min(MAX_REST),
                there_is_more = presence.changed() => {
                    if !there_is_more {
                        return;
                    }
                    rest = FIRST_REST;
                }
                () = self.wanted.notified(), if !again => {
                    rest = FIRST_REST;
                    // Many come together where Redis is slow.
                    sleep(FIRST_REST / 2).await;
                }
            }
        }
    }

    /// Takes away the leases of all that is held now, for a drain: sets need not find out one by one that this node is
    /// gone. What is not done when the grace is over, ends by itself.
    pub(crate) fn leave(&self) -> impl Future<Output = ()> + Send + use<> {
        let (store, keys) = (Arc::clone(&self.delivery.store), self.delivery.waiters.unopened(u64::MAX));
        let side_by_side = self.side_by_side;
        async move {
            let leave = async |key: Key| {
                let _ = store.leave(&key).await;
            };
            stream::iter(keys).for_each_concurrent(side_by_side, leave).await;
        }
    }

    /// Opens every key that has waiters which are not open in this epoch, in random order: nodes that hold waiters of
    /// the same keys do not go through them together. Tells whether all are open.
    async fn open_again(&self, epoch: u64) -> bool {
        let mut keys = self.delivery.waiters.unopened(epoch);
        if keys.is_empty() {
            return true;
        }
        keys.shuffle(&mut rand::rng());
        let (count, all) = (keys.len(), AtomicBool::new(true));
        let began = Instant::now();
        stream::iter(keys)
            .for_each_concurrent(self.side_by_side, async |key| {
                let waiters = &self.delivery.waiters;
                let Some(unopened) = waiters.unopened_of(&key, epoch) else { return };
                match self.delivery.store.open(&key, unopened.seen, self.hold).await {
                    Ok(update) => {
                        if let Some(update) = update {
                            waiters.deliver(&key, &update);
                        }
                        waiters.opened(&key, unopened.before, epoch);
                        self.metrics.opened_again();
                        self.has_progressed.store(true, Ordering::Relaxed);
                    }
                    Err(_) => all.store(false, Ordering::Relaxed),
                }
            })
            .await;
        let all = all.into_inner();
        debug!(keys = count, all, took = ?began.elapsed(), "opened keys that are waited for");
        all
    }

    /// Puts again what an earlier Redis process than this confirmed. Tells whether all of it is there now.
    async fn put_again(&self, process: u64) -> bool {
        let entries = lock(&self.confirmed).of_earlier(process, Instant::now());
        if entries.is_empty() {
            return true;
        }
        let (count, all, missing) = (entries.len(), AtomicBool::new(true), AtomicUsize::new(0));
        stream::iter(entries)
            .for_each_concurrent(self.side_by_side, async |(key, Entry { update, ends, .. })| {
                let ttl = ends.saturating_duration_since(Instant::now());
                let update = if ttl.is_zero() { Update::Gone(update.version()) } else { update };
                let put = self.delivery.store.put_again(&key, &update, ttl).await;
                let process = match put {
                    Ok(Stored { leases, process, .. }) => {
                        missing.fetch_add(1, Ordering::Relaxed);
                        if !ttl.is_zero() {
                            self.delivery.deliver(&key, &update, leases, None).await;
                        }
                        process
                    }
                    // It is there, or something newer.
                    Err(StoreError::Conflict(_)) => process,
                    Err(_) => return all.store(false, Ordering::Relaxed),
                };
                lock(&self.confirmed).had_by(&key, update.version(), process);
            })
            .await;
        let (all, missing) = (all.into_inner(), missing.into_inner());
        self.metrics.put_again(missing);
        warn!(count, missing, all, "put again what this node had confirmed");
        all
    }

    /// Delivers what is under the keys whose last set got no answer: it may be there, and nobody was told. Tells
    /// whether all are settled.
    async fn settle_doubts(&self) -> bool {
        let doubted = mem::take(&mut *lock(&self.doubted));
        let left = Mutex::new(HashSet::new());
        stream::iter(doubted)
            .for_each_concurrent(self.side_by_side, async |key| match self.delivery.store.look(&key).await {
                Ok(looked) => {
                    if let Some(known) = looked.known {
                        self.delivery.deliver(&key, &known.update, looked.leases, None).await;
                    }
                }
                Err(_) => {
                    lock(&left).insert(key);
                }
            })
            .await;
        let left = left.into_inner().unwrap_or_else(PoisonError::into_inner);
        let settled = left.is_empty();
        let mut doubted = lock(&self.doubted);
        let room = MAX_DOUBTED.saturating_sub(doubted.len());
        let lost = left.len().saturating_sub(room);
        doubted.extend(left.into_iter().take(room));
        drop(doubted);
        for _ in 0..lost {
            self.metrics.limit_hit(Limit::Doubted);
        }
        settled
    }
}

impl Confirmed {
    /// Keeps an entry until `until`; lets the oldest go where there are too many, and tells whether it did.
    fn insert(&mut self, key: &Key, entry: Entry, now: Instant, until: Instant) -> bool {
        while let Some((_, old)) = self.updates.pop_expired(now) {
            self.bytes -= old.update.value_bytes();
        }
        let old = self.updates.peek(key);
        if old.is_some_and(|old| old.update.version() >= entry.update.version()) {
            return false;
        }
        self.bytes -= old.map_or(0, |old| old.update.value_bytes());
        self.bytes += entry.update.value_bytes();
        self.least_process = self.least_process.min(entry.process);
        self.updates.insert(key, entry, until);
        let mut has_let_go = false;
        while self.updates.len() > MAX_CONFIRMED || self.bytes > MAX_CONFIRMED_BYTES {
            let Some((_, oldest)) = self.updates.pop_first() else { break };
            has_let_go = true;
            self.bytes -= oldest.update.value_bytes();
            if self.told_at.is_none_or(|at| at + TELL_INTERVAL < now) {
                self.told_at = Some(now);
                warn!(MAX_CONFIRMED, MAX_CONFIRMED_BYTES, "too many sets to keep each for --resend");
            }
        }
        has_let_go
    }

    /// What only processes before this one are known to have had.
    fn of_earlier(&mut self, process: u64, now: Instant) -> Vec<(Key, Entry)> {
        // There may be very many, and this is asked often.
        if self.least_process >= process {
            return Vec::new();
        }
        let earlier = self.updates.iter(now).filter(|(_, entry)| entry.process < process);
        let earlier: Vec<_> = earlier.map(|(key, entry)| (key.clone(), entry.clone())).collect();
        if earlier.is_empty() {
            self.least_process = process;
        }
        earlier
    }

    /// Notes that a process had this version.
    fn had_by(&mut self, key: &Key, version: Version, process: u64) {
        if let Some(entry) = self.updates.peek_mut(key).filter(|entry| entry.update.version() == version) {
            entry.process = entry.process.max(process);
        }
    }
}
