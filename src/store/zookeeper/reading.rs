//! Reads keys for gets, many at once: one `sync` and one read of up to 64 keys cost ZooKeeper little
//! more than those of one key. A get never writes.
//!
//! A key is read after its waiter has registered. If the read is stale all the same, it is repeated:
//! see [`told`](super::told).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout_at};

use super::client::{CallError, Found, Link, Read, Stat};
use super::member::State;
use super::record::{Paths, Record};
use super::told::Told;
use crate::model::cause::Cause;
use crate::model::key::Key;
use crate::model::status::Version;

/// The most keys that are read at once.
const MAX_KEYS: usize = 64;
/// The most batches that are under way. Meanwhile further keys gather for the next batch.
const MAX_BATCHES: usize = 4;
/// The pause before a stale read is repeated.
const STALE_REST: Duration = Duration::from_millis(2);

/// The record of a key, and the description of its znode.
pub(super) type Entry = (Record, Stat);

/// The answer for one key: `None` if there is no znode.
pub(super) type Answer = Result<Option<Entry>, Cause>;

/// A key to read.
pub(super) struct Ask {
    pub(super) key: Key,
    pub(super) answer: oneshot::Sender<Answer>,
}

/// Reads keys.
#[derive(Clone)]
pub(super) struct Reader {
    pub(super) state: watch::Receiver<State>,
    pub(super) paths: Paths,
    pub(super) told: Arc<Told>,
    /// The longest time that a read may take.
    pub(super) timeout: Duration,
}

impl Reader {
    /// Reads keys as they are asked for, in batches, until nobody can ask any more.
    pub(super) async fn run(self, mut asked: mpsc::UnboundedReceiver<Ask>) {
        let free = Arc::new(Semaphore::new(MAX_BATCHES));
        loop {
            let batch = Arc::clone(&free).acquire_owned().await;
            let mut asks = Vec::new();
            if asked.recv_many(&mut asks, MAX_KEYS).await == 0 {
                return;
            }
            // Those who have given up are not read for.
            asks.retain(|ask| !ask.answer.is_closed());
            let reader = self.clone();
            tokio::spawn(async move {
                reader.read_batch(asks).await;
                drop(batch);
            });
        }
    }

    /// Reads the keys of a batch, and those again that were stale.
    async fn read_batch(&self, mut asks: Vec<Ask>) {
        let deadline = Instant::now() + self.timeout;
        while !asks.is_empty() {
            let keys: Vec<_> = asks.iter().map(|ask| &ask.key).collect();
            let answers = match self.read(&keys, deadline).await {
                Ok(answers) => answers,
                Err(cause) => {
                    for ask in asks {
                        let _ = ask.answer.send(Err(cause));
                    }
                    return;
                }
            };
            let mut stale = Vec::new();
            for (ask, answer) in asks.into_iter().zip(answers) {
                let version = version_of(answer.as_ref().ok().and_then(Option::as_ref));
                if answer.is_ok() && self.told.is_stale(&ask.key, version) {
                    stale.push(ask);
                } else {
                    let _ = ask.answer.send(answer);
                }
            }
            asks = stale;
            if !asks.is_empty() {
                sleep(STALE_REST).await;
            }
        }
    }

    async fn read(&self, keys: &[&Key], deadline: Instant) -> Result<Vec<Answer>, Cause> {
        let joined = self.state.borrow().joined.clone();
        let link = joined.ok_or(Cause::Unreachable)?.link;
        let reads: Vec<_> = keys
            .iter()
            .map(|key| Read::Data(self.paths.key(key)))
            .collect();
        let found = read_synced(&link, self.paths.root(), &reads, deadline).await?;
        Ok(found.into_iter().map(entry_of).collect())
    }
}

/// Reads several things after the server has caught up. Both are sent when this is called.
pub(super) async fn read_synced(
    link: &Link,
    root: &str,
    reads: &[Read],
    deadline: Instant,
) -> Result<Vec<Found>, Cause> {
    let (synced, read) = (link.sync(root), link.read(reads));
    let both = async {
        synced.await?;
        read.await
    };
    let found = timeout_at(deadline, both).await.map_err(|_| Cause::Late)?;
    found.map_err(cause_of)
}

/// Returns the entry that was found at a key's path.
pub(super) fn entry_of(found: Found) -> Answer {
    match found {
        Found::Data(data, stat) => match Record::parse(&data) {
            Some(record) => Ok(Some((record, stat))),
            None => Err(Cause::Nonsense),
        },
        Found::Nothing => Ok(None),
        Found::Children(_) => Err(Cause::Nonsense),
    }
}

/// Returns the version of an entry, also of one that has expired.
pub(super) fn version_of(entry: Option<&Entry>) -> Version {
    entry.map_or(Version::NONE, |(record, _)| record.update.version())
}

/// Returns the cause that logs and metrics give for an error.
pub(super) const fn cause_of(error: CallError) -> Cause {
    match error {
        CallError::NotSent | CallError::NoAnswer => Cause::Unreachable,
        CallError::Refused(_) => Cause::Refused,
        CallError::Nonsense => Cause::Nonsense,
    }
}
