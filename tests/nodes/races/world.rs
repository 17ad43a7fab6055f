//! The state that pages and backends share, what they saw, and what must be true of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::{backend, page};
use holdfast_testkit::{MAX_ELECTION, Nodes, PATIENCE};

const KEYS: usize = 10;
/// The time for which sets may be refused, and the usual [`Shared::recovery`]. An election of
/// sentinels fits into it.
pub(crate) const RECOVERY: Duration = MAX_ELECTION.saturating_add(PATIENCE);
pub(super) const PAGES_PER_KEY: usize = 2;

/// Returns the name of a key.
pub(super) fn key(at: usize) -> String {
    format!("race-{at}")
}

/// The faults that a race may show.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Tolerance {
    /// Nothing that was confirmed may be lost.
    None,
    /// Something that was confirmed may be lost, and is counted.
    Loss,
    /// Two servers may both be masters for a moment, because one that was frozen goes on. Then
    /// a version may be given twice, or may be behind. A version that the losing master gave
    /// is not above what pages have seen. All this is counted.
    TwoMasters,
}

/// A value that is set once, or `None` for a deletion.
pub(super) type Update = Option<u64>;

/// The answer that a backend got.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Outcome {
    /// Stored, with this version.
    Confirmed(u64),
    /// Not stored, so nobody may see it.
    Refused,
    /// Nobody knows whether it is stored.
    Unknown,
}

/// One key, with all updates of it and all that pages saw of it.
#[derive(Default)]
pub(super) struct Key {
    pub(super) name: String,
    /// The version that each page has seen last.
    pub(super) lasts: [AtomicU64; PAGES_PER_KEY],
    pub(super) progress: Notify,
    pub(super) seen: Mutex<BTreeSet<(u64, Update)>>,
    pub(super) updates: Mutex<Vec<(Update, Outcome)>>,
}

/// Counts of what happened.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tally {
    pub(super) asked: u64,
    pub(super) statuses: u64,
    pub(super) deletions: u64,
    pub(super) timeouts: u64,
    /// Answers with code -6. Those with -2 and -3 are `sent_away`.
    pub(super) unavailable: u64,
    pub(super) sent_away: u64,
    /// Gets whose connection ended without an answer: their node was killed.
    pub(super) broken: u64,
    pub(super) set: u64,
    pub(crate) confirmed: u64,
    pub(super) refused: u64,
    pub(super) unknown: u64,
    /// Sets that were done twice, because their values were seen with two versions.
    pub(super) repeated: u64,
    /// Updates that have the version of another update.
    pub(super) doubled: u64,
    /// Updates whose version is not above that of an update that was confirmed before they
    /// were sent.
    pub(super) behind: u64,
    pub(crate) lost: u64,
    /// The times from a backend's first try until all pages have what was confirmed.
    pub(super) until_seen: Vec<Duration>,
}

/// A race, with its pages and backends.
pub(crate) struct World {
    name: &'static str,
    shared: Arc<Shared>,
    pages: JoinSet<()>,
    backends: JoinSet<()>,
}

/// The state that all pages and backends share.
pub(super) struct Shared {
    /// The public and the internal address of each node.
    pub(super) places: Vec<[SocketAddr; 2]>,
    pub(super) keys: Vec<Key>,
    pub(super) tally: Mutex<Tally>,
    /// Whether backends are to set once more and end.
    pub(super) is_ending: AtomicBool,
    /// Whether pages are to end.
    pub(super) is_over: AtomicBool,
    /// The time that pages may take to have what was confirmed, whatever happens meanwhile.
    pub(super) recovery: Duration,
}

impl Shared {
    pub(super) fn count(&self, count: impl FnOnce(&mut Tally)) {
        count(&mut self.tally.lock().unwrap());
    }

    /// Returns an address of a random node: its public one for 0, its internal one for 1.
    pub(super) fn any_place(&self, listener: usize) -> SocketAddr {
        self.places[rand::random_range(0..self.places.len())][listener]
    }
}

impl World {
    /// Starts the pages and backends.
    pub(crate) fn begin(name: &'static str, nodes: &Nodes) -> Self {
        Self::begin_with(name, nodes, RECOVERY)
    }

    /// Starts them like [`World::begin`], with another limit on how long a confirmed update
    /// may stay unseen.
    pub(super) fn begin_with(name: &'static str, nodes: &Nodes, recovery: Duration) -> Self {
        let shared = Arc::new(Shared {
            places: nodes
                .iter()
                .map(|node| [node.public.tcp(), node.internal.tcp()])
                .collect(),
            keys: (0..KEYS)
                .map(|at| Key {
                    name: key(at),
                    ..Key::default()
                })
                .collect(),
            tally: Mutex::default(),
            is_ending: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            recovery,
        });
        let (mut pages, mut backends) = (JoinSet::new(), JoinSet::new());
        for at in 0..KEYS {
            for which in 0..PAGES_PER_KEY {
                pages.spawn(page::run(Arc::clone(&shared), at, which));
            }
            backends.spawn(backend::run(Arc::clone(&shared), at));
        }
        Self {
            name,
            shared,
            pages,
            backends,
        }
    }

    /// Lets each backend set once more, which must be stored and seen. Then ends all, and
    /// checks what they saw.
    pub(crate) async fn end(self, tolerance: Tolerance) -> Tally {
        self.shared.is_ending.store(true, Ordering::Relaxed);
        self.backends.join_all().await;
        self.shared.is_over.store(true, Ordering::Relaxed);
        self.pages.join_all().await;
        for key in &self.shared.keys {
            let (repeated, doubled) = check(key);
            self.shared.count(|tally| {
                tally.repeated += repeated;
                tally.doubled += doubled;
            });
        }
        let mut tally = self.shared.tally.lock().unwrap().clone();
        tally.until_seen.sort_unstable();
        print(self.name, &tally);
        assert!(
            tolerance == Tolerance::Loss || tally.lost == 0,
            "{} confirmed statuses were lost",
            tally.lost
        );
        assert!(
            tolerance == Tolerance::TwoMasters || tally.doubled == 0,
            "{} versions were given twice",
            tally.doubled
        );
        assert!(
            tolerance == Tolerance::TwoMasters || tally.behind == 0,
            "{} versions were behind",
            tally.behind
        );
        let answers =
            tally.statuses + tally.deletions + tally.timeouts + tally.unavailable + tally.sent_away;
        assert_eq!(
            tally.asked,
            answers + tally.broken,
            "one answer each: {tally:?}"
        );
        assert_eq!(
            tally.set,
            tally.confirmed + tally.refused + tally.unknown,
            "one answer each: {tally:?}"
        );
        assert!(
            tally.confirmed > 50 && tally.statuses > 50,
            "hardly a race: {tally:?}"
        );
        tally
    }
}

/// Checks that every update that pages saw of a key was sent and not refused, and that a
/// confirmed version was seen only with its own update. Returns how many sets were done twice,
/// and how many updates have the version of another.
fn check(key: &Key) -> (u64, u64) {
    let (seen, updates) = (key.seen.lock().unwrap(), key.updates.lock().unwrap());
    let (mut confirmed, mut doubled) = (BTreeMap::<u64, BTreeSet<Update>>::new(), 0);
    for (update, outcome) in &*updates {
        if let Outcome::Confirmed(version) = outcome {
            let of_version = confirmed.entry(*version).or_default();
            doubled += u64::from(!of_version.is_empty());
            of_version.insert(*update);
        }
    }
    let may_be_stored: BTreeSet<_> = updates
        .iter()
        .filter(|(_, outcome)| *outcome != Outcome::Refused)
        .map(|(update, _)| *update)
        .collect();
    let mut versions: BTreeMap<u64, u64> = BTreeMap::new();
    for (version, update) in &*seen {
        assert!(
            may_be_stored.contains(update),
            "{}: {update:?} was refused, and seen as {version}",
            key.name
        );
        if let Some(expected) = confirmed.get(version) {
            assert!(
                expected.contains(update),
                "{}: {update:?} instead of {expected:?}, as {version}",
                key.name
            );
        }
        if let Some(value) = update {
            *versions.entry(*value).or_default() += 1;
        }
    }
    let different = seen
        .iter()
        .map(|(version, _)| version)
        .collect::<BTreeSet<_>>()
        .len();
    (
        versions.values().map(|count| count - 1).sum(),
        doubled.max((seen.len() - different) as u64),
    )
}

fn print(name: &str, tally: &Tally) {
    let Tally {
        asked,
        statuses,
        deletions,
        timeouts,
        unavailable,
        sent_away,
        broken,
        ..
    } = tally;
    let Tally {
        set,
        confirmed,
        refused,
        unknown,
        repeated,
        doubled,
        behind,
        lost,
        until_seen,
        ..
    } = tally;
    let at = |share: f64| {
        until_seen
            .get(((until_seen.len() as f64 - 1.0) * share) as usize)
            .copied()
            .unwrap_or_default()
    };
    println!(
        "{name}: asked {asked} = statuses {statuses} + deletions {deletions} + timeouts {timeouts} + unavailable \
         {unavailable} + sent away {sent_away} + broken {broken}; set {set} = confirmed {confirmed} + refused {refused} + \
         unknown {unknown}; done twice {repeated}, of another's version {doubled}, behind {behind}, lost {lost}; until all pages had it: p50 {:?}, p99 {:?}, max {:?}",
        at(0.5),
        at(0.99),
        at(1.0),
    );
}
