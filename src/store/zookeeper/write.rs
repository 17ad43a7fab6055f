//! Stores statuses and deletions. A write is carried out only if nothing was written to its key
//! since it was read, and only if nothing was swept from its shard: otherwise a key that was
//! deleted and created again could be taken for the one that was read.
//!
//! # Settling
//! A write without an answer may be carried out later, for example by a server that was frozen. So
//! the version of its shard is raised by another write: from then on the first one fails. Whether
//! it was carried out before shows the number that the key remembers.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::debug;

use super::ZooKeeper;
use super::client::{CallError, Found, Read, Refusal, Refused, Stat, Write as Operation};
use super::member::Joined;
use super::reading::{Entry, cause_of, entry_of, read_synced, version_of};
use super::record::Record;
use crate::model::cause::Cause;
use crate::model::key::Key;
use crate::model::lease::Lease;
use crate::model::status::{Status, Update, Value, Version};
use crate::model::write_number::{REMEMBERED_WRITES, WriteNumber};
use crate::runtime::clock::{MAX_AHEAD, millis};
use crate::store::permits::Purpose;
use crate::store::{MIN_GONE_TTL, Put, StoreError, Stored, StoredBy, next_version};

/// The longest time in which a write without an answer is settled.
const SETTLE_LIMIT: Duration = Duration::from_secs(1);
/// The pause between two tries to settle a write.
const SETTLE_REST: Duration = Duration::from_millis(20);

/// One write.
pub(super) struct Write {
    ttl: Duration,
    /// The version that the key must have for this to be stored.
    after: Option<Version>,
    /// The latest time at which this may be sent, by the store's clock.
    before: Option<u64>,
    /// The version of a write that is put again.
    version: Option<Version>,
    /// A version that the new one has to exceed.
    floor: Version,
    number: WriteNumber,
    /// The value, and whether it is final; `None` for a deletion.
    status: Option<(Value, bool)>,
}

/// The state of a key and of its shard before a write.
struct Before {
    shard: Stat,
    entry: Option<Entry>,
}

/// The result of one attempt.
enum Attempt {
    Stored(Stored),
    Refused(StoreError),
    /// The key or its shard has changed, or the read was stale: nothing was stored.
    Again,
    /// Nobody knows whether it was carried out with this version.
    NoAnswer(Version, Cause),
}

impl Write {
    pub(super) fn of_put(put: &Put) -> Self {
        Self {
            ttl: put.ttl,
            after: put.after,
            before: put.before,
            version: None,
            floor: Version::NONE,
            number: put.number,
            status: Some((put.value.clone(), put.is_final)),
        }
    }

    pub(super) const fn deletion(number: WriteNumber) -> Self {
        Self {
            ttl: MIN_GONE_TTL,
            after: None,
            before: None,
            version: None,
            floor: Version::NONE,
            number,
            status: None,
        }
    }

    pub(super) fn again(update: &Update, number: WriteNumber, ttl: Duration) -> Self {
        let status = match update {
            Update::Status(Status {
                value, is_final, ..
            }) => Some((value.clone(), *is_final)),
            Update::Gone(_) => None,
        };
        Self {
            ttl,
            after: None,
            before: None,
            version: Some(update.version()),
            floor: Version::NONE,
            number,
            status,
        }
    }

    /// Returns the write that replaces an update by itself, with a version above `floor`.
    pub(super) fn above(update: &Update, ttl: Duration, floor: Version) -> Self {
        Self {
            after: Some(update.version()),
            version: None,
            floor,
            ..Self::again(update, WriteNumber::random(), ttl)
        }
    }
}

impl ZooKeeper {
    /// Carries out a write within the time of a command, and settles it if there is no answer.
    pub(super) async fn write(
        &self,
        purpose: Purpose,
        key: &Key,
        write: &Write,
    ) -> Result<Stored, StoreError> {
        let permit = self.permit(purpose).await?;
        let turn = timeout(self.options.timeout, self.turn_of(key).lock()).await;
        let _turn = turn.map_err(|_| StoreError::Unavailable(Cause::Late))?;
        let deadline = Instant::now() + self.options.timeout;
        let mut is_synced = false;
        let (version, cause) = loop {
            match self.attempt(key, write, is_synced, deadline).await {
                Attempt::Stored(stored) => {
                    permit.was_answered();
                    return Ok(stored);
                }
                Attempt::Refused(error) => return Err(error),
                Attempt::Again if Instant::now() < deadline => is_synced = true,
                Attempt::Again => return Err(StoreError::Unavailable(Cause::Late)),
                Attempt::NoAnswer(version, cause) => break (version, cause),
            }
        };
        if cause == Cause::Late {
            permit.was_late();
        }
        drop(permit);
        self.settle(key, write, version, cause).await
    }

    /// Reads the key, and writes it if it has not changed since. `is_synced` says that the server has
    /// to catch up first.
    async fn attempt(
        &self,
        key: &Key,
        write: &Write,
        is_synced: bool,
        deadline: Instant,
    ) -> Attempt {
        let Some(joined) = self.joined() else {
            return Attempt::Refused(StoreError::Unavailable(Cause::Unreachable));
        };
        let before = match self.read_before(&joined, key, is_synced, deadline).await {
            Ok(before) => before,
            Err(cause) => return Attempt::Refused(StoreError::Unavailable(cause)),
        };
        if self.told.is_stale(key, version_of(before.entry.as_ref())) {
            return Attempt::Again;
        }
        let now = self.clock_ms();
        let live = before.entry.as_ref().filter(|entry| ends(entry) > now);
        if let Some((record, _)) = &before.entry
            && let Some(version) = record.version_of(write.number)
            && write.version.is_none()
        {
            return self
                .earlier(&joined, version, live, deadline)
                .await
                .map_or_else(|cause| Attempt::NoAnswer(version, cause), Attempt::Stored);
        }
        if write.before.is_some_and(|before| now > before) {
            return Attempt::Refused(StoreError::TooLate);
        }
        if write.after.is_some_and(|after| after != version_of(live)) {
            // A server that is behind must not refuse a set.
            return if is_synced {
                Attempt::Refused(StoreError::Conflict(version_of(live)))
            } else {
                Attempt::Again
            };
        }
        let stored = version_of(before.entry.as_ref());
        let version = match write.version {
            Some(version) if stored >= version => {
                return Attempt::Refused(StoreError::Conflict(stored));
            }
            Some(version) => version,
            None => {
                let floor = write
                    .floor
                    .min(Version::new(now + MAX_AHEAD).unwrap_or_default());
                match next_version(stored, floor, now) {
                    Some(version) => version,
                    None => return Attempt::Refused(StoreError::Full),
                }
            }
        };
        if before.entry.is_none() && self.is_full(before.shard) {
            return Attempt::Refused(StoreError::Full);
        }
        let left = live.map_or(0, |entry| ends(entry) - now);
        let ttl = match write.status {
            None => write.ttl.max(Duration::from_millis(left)),
            Some(_) => write.ttl,
        };
        self.write_behind(&joined, key, write, &before, (version, ttl), deadline)
            .await
    }

    /// Writes the key unless it has changed since it was read, and reads which nodes there are: those
    /// that were there when it was written.
    async fn write_behind(
        &self,
        joined: &Joined,
        key: &Key,
        write: &Write,
        before: &Before,
        (version, ttl): (Version, Duration),
        deadline: Instant,
    ) -> Attempt {
        let update = match &write.status {
            None => Update::Gone(version),
            Some((value, is_final)) => Update::Status(Status {
                version,
                value: value.clone(),
                is_final: *is_final,
            }),
        };
        let record = before.entry.as_ref().map(|(record, _)| record);
        let data = Record {
            update,
            ttl,
            writes: Record::writes_after(record, write.number, version),
        }
        .to_bytes();
        let path = self.paths.key(key);
        let check = Operation::Check {
            path: self.paths.shard_of(key),
            version: before.shard.version,
        };
        let replace = match &before.entry {
            Some((_, stat)) => Operation::Set {
                path,
                data,
                version: Some(stat.version),
            },
            None => Operation::Create {
                path,
                data,
                access: self.access(),
                is_ephemeral: false,
            },
        };
        let link = &joined.link;
        let (written, nodes) = (
            link.write(&[check, replace]),
            link.read(&[Read::Children(self.paths.nodes())]),
        );
        match timeout_at(deadline, written).await {
            Err(_) => return Attempt::NoAnswer(version, Cause::Late),
            Ok(Err(CallError::NotSent)) => {
                return Attempt::Refused(StoreError::Unavailable(Cause::Unreachable));
            }
            Ok(Err(CallError::Refused(refusal))) => return self.refused(&refusal),
            Ok(Err(error)) => return Attempt::NoAnswer(version, cause_of(error)),
            Ok(Ok(Err(Refused { why, .. }))) => match why {
                Refusal::BadVersion | Refusal::NodeExists => return Attempt::Again,
                // Someone has deleted the key, or the shard.
                Refusal::NoNode if before.entry.is_some() => return Attempt::Again,
                why => return self.refused(&why),
            },
            Ok(Ok(Ok(_))) => {}
        }
        self.told.note(key, version);
        let stat = before.entry.as_ref().map(|(_, stat)| stat.version);
        self.note_written(key, stat.map_or(0, |version| version.wrapping_add(1)), ttl);
        let leases = match timeout_at(deadline, nodes).await {
            Ok(Ok(found)) => self.leases_of(found),
            _ => match self.nodes_now(Instant::now() + SETTLE_LIMIT).await {
                Ok(leases) => leases,
                Err(cause) => return Attempt::NoAnswer(version, cause),
            },
        };
        Attempt::Stored(Stored {
            version,
            ttl,
            leases,
            generation: joined.generation,
            by: StoredBy::This,
        })
    }

    /// Returns the result of a write that was carried out before.
    async fn earlier(
        &self,
        joined: &Joined,
        version: Version,
        live: Option<&Entry>,
        deadline: Instant,
    ) -> Result<Stored, Cause> {
        let known = live.map(|entry| self.known(entry));
        Ok(Stored {
            version,
            ttl: known
                .as_ref()
                .map_or(Duration::ZERO, |known| known.expires_in),
            leases: self.nodes_now(deadline).await?,
            generation: joined.generation,
            by: StoredBy::Earlier(known),
        })
    }

    /// Finds out whether a write with this version was carried out, and makes sure that it is not
    /// carried out later.
    async fn settle(
        &self,
        key: &Key,
        write: &Write,
        version: Version,
        cause: Cause,
    ) -> Result<Stored, StoreError> {
        let deadline = Instant::now() + SETTLE_LIMIT;
        let mut state = self.state.clone();
        while Instant::now() < deadline {
            match self.joined() {
                Some(joined) => {
                    match self.settle_at(&joined, key, write, version, deadline).await {
                        Ok(settled) => {
                            debug!(key = %key.hashed(), is_stored = settled.is_some(), "a write without an answer is settled");
                            return settled.ok_or(StoreError::Unavailable(cause));
                        }
                        Err(NotSettled::Forgotten) => return Err(StoreError::Unknown(cause)),
                        Err(NotSettled::Unreachable) => sleep(SETTLE_REST).await,
                    }
                }
                None => {
                    let _ = timeout_at(deadline, state.changed()).await;
                }
            }
        }
        Err(StoreError::Unknown(cause))
    }

    /// Raises the version of the shard, then reads the key. Returns the result of the write if it was
    /// carried out.
    async fn settle_at(
        &self,
        joined: &Joined,
        key: &Key,
        write: &Write,
        version: Version,
        deadline: Instant,
    ) -> Result<Option<Stored>, NotSettled> {
        let raise = Operation::Set {
            path: self.paths.shard_of(key),
            data: bytes::Bytes::new(),
            version: None,
        };
        let raised = timeout_at(deadline, joined.link.write(&[raise])).await;
        if !matches!(raised, Ok(Ok(Ok(_)))) {
            return Err(NotSettled::Unreachable);
        }
        let reads = [Read::Data(self.paths.key(key))];
        let found = read_synced(&joined.link, self.paths.root(), &reads, deadline).await;
        let found = found.map_err(|_| NotSettled::Unreachable)?.pop();
        let entry = found.map(entry_of).and_then(Result::ok).flatten();
        let Some(entry) = entry else {
            return Ok(None);
        };
        let (record, _) = &entry;
        let Some(version) = record.version_of(write.number) else {
            // The key would remember it, unless others have written often enough since.
            let oldest = record.writes.first().map(|(_, version)| *version);
            let remembers_all = record.writes.len() < REMEMBERED_WRITES;
            return if remembers_all || oldest.is_some_and(|oldest| oldest < version) {
                Ok(None)
            } else {
                Err(NotSettled::Forgotten)
            };
        };
        let live = Some(&entry).filter(|entry| ends(entry) > self.clock_ms());
        let stored = self.earlier(joined, version, live, deadline).await;
        stored.map(Some).map_err(|_| NotSettled::Unreachable)
    }

    async fn read_before(
        &self,
        joined: &Joined,
        key: &Key,
        is_synced: bool,
        deadline: Instant,
    ) -> Result<Before, Cause> {
        // The shard comes first: if it is swept in between, the write is refused.
        let reads = [
            Read::Data(self.paths.shard_of(key)),
            Read::Data(self.paths.key(key)),
        ];
        let found = if is_synced {
            read_synced(&joined.link, self.paths.root(), &reads, deadline).await?
        } else {
            let read = timeout_at(deadline, joined.link.read(&reads)).await;
            read.map_err(|_| Cause::Late)?.map_err(cause_of)?
        };
        let [shard, entry] = <[Found; 2]>::try_from(found).map_err(|_| Cause::Nonsense)?;
        let Found::Data(_, shard) = shard else {
            return Err(Cause::Refused);
        };
        let entry = entry_of(entry)?;
        Ok(Before { shard, entry })
    }

    /// Reads which nodes there are now.
    async fn nodes_now(&self, deadline: Instant) -> Result<Vec<Lease>, Cause> {
        let mut state = self.state.clone();
        loop {
            if let Some(joined) = self.joined() {
                let reads = [Read::Children(self.paths.nodes())];
                match read_synced(&joined.link, self.paths.root(), &reads, deadline).await {
                    Ok(found) => return Ok(self.leases_of(found)),
                    Err(cause) if Instant::now() >= deadline => return Err(cause),
                    Err(_) => sleep(SETTLE_REST).await,
                }
            } else if timeout_at(deadline, state.changed()).await.is_err() {
                return Err(Cause::Unreachable);
            }
        }
    }

    fn refused(&self, refusal: &Refusal) -> Attempt {
        self.note_refusal(refusal);
        Attempt::Refused(match refusal {
            Refusal::QuotaExceeded => StoreError::Full,
            _ => StoreError::Unavailable(Cause::Refused),
        })
    }
}

/// The reason why a write could not be settled.
enum NotSettled {
    Unreachable,
    /// The key remembers only writes that came later.
    Forgotten,
}

/// Returns when an entry ends, in ms since 1970 by the leader's clock.
pub(super) fn ends((record, stat): &Entry) -> u64 {
    let set_at = u64::try_from(stat.mtime).unwrap_or(0);
    set_at.saturating_add(millis(record.ttl))
}
