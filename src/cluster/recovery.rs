//! Recovery when the shared store is back. The keys of held gets are opened again, which renews this node's
//! leases and finds the statuses that the gets missed. Sets that this node confirmed are put again
//! if the store is a different one or was emptied, because that may not have them. Keys are also opened
//! again if another node could not send this one their updates, or if this process stood still.
//! None of this depends on what a page does.
//!
//! Each step may be done twice, because no version is given twice, and only a newer version is
//! stored or delivered.

mod confirmed;
mod handover;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt};
use prometheus::IntCounter;
use rand::seq::SliceRandom;
use tokio::sync::Notify;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use self::confirmed::{Confirmed, Entry};
use crate::cluster::delivery::Delivery;
use crate::cluster::message::Missed;
use crate::metrics::{Families, Limit, Metrics};
use crate::model::key::Key;
use crate::model::status::Update;
use crate::model::write_number::WriteNumber;
use crate::runtime::sharded::lock;
use crate::store::{Shared, StoreError, StoredBy};

/// The most keys that are opened or put again at once. It is enough to be quick, and little beside
/// the commands that pages and backends cause meanwhile. If half of `--redis-in-flight` is less,
/// that is the limit: more would only wait for a permit.
const MAX_SIDE_BY_SIDE: usize = 64;
/// The pause between two tries, at first and at most.
const FIRST_REST: Duration = Duration::from_millis(100);
const MAX_REST: Duration = Duration::from_secs(5);
/// The time between two checks whether this process stood still.
const TICK: Duration = Duration::from_millis(250);
/// A check that is late by this much shows that this process stood still. Other nodes may have
/// given up sending it updates meanwhile.
const STALL: Duration = Duration::from_secs(1);
/// The least time between two rounds in which all keys are opened again because updates may have
/// been missed.
const ALL_AGAIN_INTERVAL: Duration = Duration::from_secs(10);
/// The time between two checks, by a node that drains, whether all opens are over.
const LEAVE_REST: Duration = Duration::from_millis(10);

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Recovery {
    delivery: Arc<Delivery>,
    store: Shared,
    metrics: Arc<Metrics>,
    /// The metrics that only a node with recovery has.
    own_metrics: RecoveryMetrics,
    /// The longest time for which a get may be held, and so for which a key is leased.
    hold: Duration,
    /// The time for which confirmed updates are kept (`--resend`).
    resend: Duration,
    side_by_side: usize,
    confirmed: Mutex<Confirmed>,
    /// Wakes [`Recovery::run`] because there is something to do.
    wanted: Notify,
    /// Wakes it because updates were missed, even during the pause after a failed try.
    has_missed: Notify,
    /// Whether the last pass did something, so that the next may begin soon.
    has_progressed: AtomicBool,
    /// Whether updates of any key may have been missed.
    has_missed_all: AtomicBool,
}

/// The metrics that only a node with recovery has.
#[derive(Debug)]
struct RecoveryMetrics {
    keys_opened: IntCounter,
    statuses_put: IntCounter,
}

impl RecoveryMetrics {
    fn new(all: &Families) -> Self {
        Self {
            keys_opened: all.counter(
                "holdfast_recovery_keys_opened_total",
                "Keys that were opened again in the store for held gets, after an outage or a missed update.",
            ),
            statuses_put: all.counter(
                "holdfast_recovery_statuses_put_total",
                "Statuses and deletions that were put again because the store had lost them.",
            ),
        }
    }
}

impl Recovery {
    pub(crate) fn new(
        delivery: Arc<Delivery>,
        store: Shared,
        metrics: Arc<Metrics>,
        hold: Duration,
        resend: Duration,
    ) -> Arc<Self> {
        Arc::new(Self {
            delivery,
            own_metrics: RecoveryMetrics::new(metrics.families()),
            metrics,
            hold,
            resend,
            side_by_side: (store.in_flight() / 2).clamp(1, MAX_SIDE_BY_SIDE),
            store,
            confirmed: Mutex::default(),
            wanted: Notify::new(),
            has_missed: Notify::new(),
            has_progressed: AtomicBool::new(false),
            has_missed_all: AtomicBool::new(false),
        })
    }

    /// Notes that a get is held whose key could not be opened.
    pub(crate) fn not_opened(&self) {
        self.wanted.notify_one();
    }

    /// Keeps an update that is about to be confirmed. `generation` is the generation of the store
    /// that has it.
    pub(crate) fn confirmed(
        &self,
        key: &Key,
        update: &Update,
        number: WriteNumber,
        ttl: Duration,
        generation: u64,
    ) {
        if self.resend.is_zero() {
            return;
        }
        let now = Instant::now();
        let entry = Entry {
            update: update.clone(),
            number,
            ends: now + ttl,
            generation: Some(generation),
        };
        // Keep it also beyond the end of its time to live, because another node may put
        // something older again.
        self.insert(key, entry, now, now + self.resend);
        // The reply may come late, from an earlier generation, when the updates of that one have
        // already been put again.
        if self.store.presence().now().generation > generation {
            self.wanted.notify_one();
        }
    }

    fn insert(&self, key: &Key, entry: Entry, now: Instant, until: Instant) {
        if lock(&self.confirmed).insert(key, entry, now, until) {
            self.metrics.limit_hit(Limit::Confirmed);
        }
    }

    /// Notes that another node could not send updates of these keys to this node. The keys are then
    /// opened again if they have waiters.
    pub(crate) fn missed(&self, missed: Missed) {
        match missed {
            Missed::All => self.has_missed_all.store(true, Ordering::Relaxed),
            Missed::Keys(keys) => {
                let waiters = &self.delivery.waiters;
                // Every key has to be noted; `any` would end at the first.
                if keys.iter().filter(|key| waiters.missed(key)).count() > 0 {
                    self.has_missed.notify_one();
                }
            }
        }
    }

    /// Notes that all waiters may have missed updates, if another node says so or this process
    /// stood still. Then all keys are opened again. This is done at most once in
    /// [`ALL_AGAIN_INTERVAL`]. Also drops the updates that were kept for long enough.
    ///
    /// # Cancel safety
    /// It runs until it is dropped.
    pub(crate) async fn watch(self: Arc<Self>) {
        let (mut last, mut opened_at) = (Instant::now(), None::<Instant>);
        loop {
            sleep(TICK).await;
            let now = Instant::now();
            let stood = (now - last).saturating_sub(TICK);
            last = now;
            lock(&self.confirmed).drop_expired(now);
            if stood >= STALL {
                warn!(time = ?stood, "this process was suspended: opening all keys of waiters again");
                self.has_missed_all.store(true, Ordering::Relaxed);
            }
            let may_again = opened_at.is_none_or(|at| at + ALL_AGAIN_INTERVAL <= now);
            if may_again && self.has_missed_all.swap(false, Ordering::Relaxed) {
                opened_at = Some(now);
                self.delivery.waiters.missed_all();
                self.has_missed.notify_one();
            }
        }
    }

    /// Returns how many updates are kept to be put again.
    pub(crate) fn kept_count(&self) -> usize {
        lock(&self.confirmed).updates.len()
    }

    /// Watches the store. Puts confirmed updates again and opens keys again whenever there is a need.
    ///
    /// # Cancel safety
    /// It runs until it is dropped.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut presence = self.store.presence();
        let mut rest = FIRST_REST;
        loop {
            let now = presence.now();
            let done = now.is_there && {
                let written = self.put_again(now.generation).await;
                written & self.open_again(now.epoch).await
            };
            // Wait until something changes. If something is left to do while the store is there,
            // wait only for a pause. The pause grows while no pass does anything, because Redis
            // may be full.
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
                () = self.has_missed.notified() => sleep(FIRST_REST / 2).await,
                () = self.wanted.notified(), if !again => {
                    rest = FIRST_REST;
                    // Wait a little, because many gets report this together if Redis is slow.
                    sleep(FIRST_REST / 2).await;
                }
            }
        }
    }

    /// Gives back, in a drain, the leases of all keys that are held now or are just being opened.
    /// Otherwise each set would have to find out that this node has left. A lease that is not given
    /// back before the grace is over ends by itself.
    pub(crate) fn leave(&self) -> impl Future<Output = ()> + Send + use<> {
        let (store, side_by_side) = (self.store.clone(), self.side_by_side);
        let leases = store.leases();
        async move {
            let give_back = async |(key, ends)| {
                let _ = store.give_back_lease(&key, ends).await;
            };
            stream::iter(leases)
                .for_each_concurrent(side_by_side, give_back)
                .await;
            // An open may write its lease until Redis answers it, even if its get was answered
            // before that.
            while store.opening() > 0 {
                sleep(LEAVE_REST).await;
            }
            stream::iter(store.leases())
                .for_each_concurrent(side_by_side, give_back)
                .await;
        }
    }

    /// Opens every key that is not open for all of its waiters in this epoch. The order is random,
    /// so that nodes with waiters of the same keys do not open each of them at the same time.
    /// Returns whether all are open.
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
                // There may be very many keys. If Redis has become unreachable meanwhile, the rest
                // is not tried.
                if !self.store.is_there() || !self.open_key_again(&key, epoch).await {
                    all.store(false, Ordering::Relaxed);
                }
            })
            .await;
        let all = all.into_inner();
        debug!(keys = count, all, took = ?began.elapsed(), "opened the keys of waiters");
        all
    }

    /// Opens one key for those waiters for which it is not open in this epoch. Returns whether it
    /// is then open for all of them.
    async fn open_key_again(&self, key: &Key, epoch: u64) -> bool {
        let waiters = &self.delivery.waiters;
        // Some waiters may already know the status that the first try finds. For them the key is
        // open only if there is a lease, but a full Redis returns a status without writing a lease.
        // So the second try, when only they are left, opens the key for them.
        for _ in 0..2 {
            let Some(unopened) = waiters.unopened_of(key, epoch) else {
                return true;
            };
            let Ok(update) = self.store.open_again(key, unopened.seen, self.hold).await else {
                return false;
            };
            if let Some(update) = &update {
                waiters.deliver(key, update);
            }
            if update.is_none_or(|update| update.version() > unopened.seen.most) {
                waiters.note_opened_again(key, unopened.before, epoch);
                self.own_metrics.keys_opened.inc();
                self.has_progressed.store(true, Ordering::Relaxed);
                return true;
            }
        }
        false
    }

    /// Puts again the updates that this generation of the store is not known to have had. Returns
    /// whether it has all of them now.
    async fn put_again(&self, generation: u64) -> bool {
        let entries = lock(&self.confirmed).of_earlier(generation, Instant::now());
        if entries.is_empty() {
            return true;
        }
        let (count, all, missing) = (entries.len(), AtomicBool::new(true), AtomicUsize::new(0));
        stream::iter(entries)
            .for_each_concurrent(self.side_by_side, async |(key, entry)| {
                match self.put_one_again(&key, entry, generation).await {
                    Some(was_missing) => {
                        missing.fetch_add(usize::from(was_missing), Ordering::Relaxed);
                    }
                    None => all.store(false, Ordering::Relaxed),
                }
            })
            .await;
        let (all, missing) = (all.into_inner(), missing.into_inner());
        self.own_metrics.statuses_put.inc_by(missing as u64);
        if missing == 0 && all {
            info!(
                count,
                "{} has all that this node had confirmed",
                self.store.name()
            );
        } else {
            warn!(
                count,
                missing, all, "stored again what this node had confirmed"
            );
        }
        all
    }

    /// Puts one update again. Returns whether it was missing; `None` if that is not known.
    async fn put_one_again(&self, key: &Key, entry: Entry, generation: u64) -> Option<bool> {
        if !self.store.is_there() {
            return None;
        }
        let version = entry.update.version();
        let ttl = entry.ends.saturating_duration_since(Instant::now());
        let update = if ttl.is_zero() {
            Update::Gone(version)
        } else {
            entry.update
        };
        let put = self.store.put_again(key, &update, entry.number, ttl).await;
        let (generation, was_missing) = match put {
            Ok(stored) if matches!(stored.by, StoredBy::Earlier(_)) => (stored.generation, false),
            Ok(stored) => {
                if !ttl.is_zero() {
                    self.delivery
                        .deliver(key, &update, stored.leases, None)
                        .await;
                }
                (stored.generation, true)
            }
            // The store has this update or a newer one.
            Err(StoreError::Conflict(_)) => (generation, false),
            Err(_) => return None,
        };
        lock(&self.confirmed).had_by(key, version, generation);
        Some(was_missing)
    }
}
