//! Deletes the znodes of what has expired. ZooKeeper's own time to live is fixed when a znode is
//! created, so it is of no use here.
//!
//! Each node deletes what it stored itself. One of them, the sweeper, also looks for what was left
//! by nodes that have ended. Each sweep raises the version of the shard, so that no write takes a
//! key that was created again for the one that it has read.

use std::collections::HashMap;
use std::iter;
use std::sync::Weak;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::debug;

use super::ZooKeeper;
use super::client::{Found, Link, Read, Refused, Write};
use super::reading::entry_of;
use super::record::unescape;
use super::write::ends;
use crate::model::key::Key;
use crate::runtime::sharded::lock;

/// The time after its end at which a znode is deleted. It is longer than the time for which a
/// node notes the versions that it was told of, so that no read without a znode counts as stale.
const KEPT: Duration = Duration::from_secs(60);
/// The most znodes that are deleted in one step.
const AT_ONCE: usize = 100;
/// The time between two sweeps, and between two looks at a shard.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
const LOOK_EVERY: u64 = 5;
/// The most keys of which this node knows that it has to delete them. The sweeper finds the rest.
const MAX_NOTED: usize = 1_000_000;

/// Sweeps until the store is dropped.
pub(super) async fn run(zookeeper: Weak<ZooKeeper>) {
    let mut ticks = interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for round in 0_u64.. {
        ticks.tick().await;
        let Some(zookeeper) = zookeeper.upgrade() else {
            return;
        };
        zookeeper.sweep(round).await;
    }
}

impl ZooKeeper {
    /// Notes that this node stored something, as the znode's version `version`.
    pub(super) fn note_written(&self, key: &Key, version: i32, ttl: Duration) {
        let mut written = lock(&self.written);
        if written.len() < MAX_NOTED || written.contains(key) {
            written.insert(key, version, Instant::now() + ttl + KEPT);
        }
    }

    async fn sweep(&self, round: u64) {
        let Some(joined) = self.joined() else {
            return;
        };
        self.delete_own(&joined.link).await;
        if round.is_multiple_of(LOOK_EVERY) && self.is_sweeper(&joined.link, joined.session).await {
            let shard = (round / LOOK_EVERY).to_le_bytes()[0];
            self.look(&joined.link, shard).await;
        }
    }

    /// Deletes what this node stored and has expired.
    async fn delete_own(&self, link: &Link) {
        let now = Instant::now();
        let due = || lock(&self.written).pop_expired(now);
        let mut by_shard: HashMap<String, Vec<(String, i32)>> = HashMap::new();
        for (key, version) in iter::from_fn(due) {
            let of_shard = by_shard.entry(self.paths.shard_of(&key)).or_default();
            of_shard.push((self.paths.key(&key), version));
        }
        for (shard, znodes) in by_shard {
            self.delete(link, &shard, znodes).await;
        }
    }

    /// Deletes znodes that have these versions. What somebody has set since is left alone.
    async fn delete(&self, link: &Link, shard: &str, mut znodes: Vec<(String, i32)>) {
        while !znodes.is_empty() {
            let count = znodes.len().min(AT_ONCE);
            let raise = Write::Set {
                path: shard.to_owned(),
                data: Bytes::new(),
                version: None,
            };
            let deletions = znodes[..count].iter().map(|(path, version)| Write::Delete {
                path: path.clone(),
                version: Some(*version),
            });
            let writes: Vec<_> = iter::once(raise).chain(deletions).collect();
            match timeout(self.options.timeout, link.write(&writes)).await {
                Ok(Ok(Ok(_))) => {
                    debug!(shard, count, "deleted what has expired");
                    znodes.drain(..count);
                }
                // Somebody else has changed it or deleted it.
                Ok(Ok(Err(Refused { at, .. }))) if (1..=count).contains(&at) => {
                    znodes.remove(at - 1);
                }
                // The sweeper finds them.
                _ => return,
            }
        }
    }

    /// Returns whether this node is the one that looks for what others have left.
    async fn is_sweeper(&self, link: &Link, session: i64) -> bool {
        let path = self.paths.sweeper();
        let read = timeout(self.options.timeout, link.read(&[Read::Data(path.clone())])).await;
        match read {
            Ok(Ok(found)) => match found.first() {
                Some(Found::Data(_, stat)) => stat.owner == session,
                _ => {
                    let create = Write::Create {
                        path,
                        data: Bytes::new(),
                        access: self.access(),
                        is_ephemeral: true,
                    };
                    let created = timeout(self.options.timeout, link.write(&[create])).await;
                    matches!(created, Ok(Ok(Ok(_))))
                }
            },
            _ => false,
        }
    }

    /// Deletes what has expired in a shard long ago.
    async fn look(&self, link: &Link, shard: u8) {
        let shard = self.paths.shard(shard);
        let children = timeout(
            self.options.timeout,
            link.read(&[Read::Children(shard.clone())]),
        );
        let Ok(Ok(found)) = children.await else {
            return;
        };
        let Some(Found::Children(names)) = found.into_iter().next() else {
            return;
        };
        let now = self.clock_ms();
        let kept = u64::try_from(KEPT.as_millis()).unwrap_or(u64::MAX);
        for names in names.chunks(AT_ONCE) {
            let paths: Vec<_> = names.iter().map(|name| format!("{shard}/{name}")).collect();
            let reads: Vec<_> = paths.iter().cloned().map(Read::Data).collect();
            let Ok(Ok(found)) = timeout(self.options.timeout, link.read(&reads)).await else {
                return;
            };
            let is_due = |name: &str, found: Found| {
                let (record, stat) = entry_of(found).ok()??;
                let ends = ends(&(record, stat)).saturating_add(kept);
                // This node deletes its own keys in their turn.
                let key = unescape(name).and_then(|key| Key::parse(&key).ok())?;
                let is_own = lock(&self.written).contains(&key);
                (ends < now && !is_own).then_some(stat.version)
            };
            let due = names.iter().zip(paths).zip(found);
            let due = due.filter_map(|((name, path), found)| Some((path, is_due(name, found)?)));
            self.delete(link, &shard, due.collect()).await;
        }
    }
}
