//! Sends sets and deletions to Redis, new ones and those that are put again. A write takes effect
//! before it is answered, or never.
//!
//! # The latest time
//! A command without an answer may still be on its way: the system sends its bytes again, or a
//! server that was frozen reads them later. So each write carries the latest time at which it
//! may be carried out, by the clock of the very server that it is sent to. After that time the
//! script does nothing and answers `late`.
//!
//! # Settling
//! A write without an answer is sent again with the same number and the same latest time, until a
//! server answers. This goes on for a second at most, or until the latest time if that is later,
//! because a copy on its way may be carried out until then. The write is carried out only once,
//! because the script knows the numbers of the key's last eight writes. If the answer is `late`,
//! the write was not carried out and never will be, because any copy on its way is late too. The
//! exception is a key that may have forgotten the number: then the result is unknown.
//!
//! If another server has the key by now, the latest time cannot be compared with that server's
//! clock. So that server is only asked whether it knows the number. If it does not, the result is
//! unknown, because a page may have been given the status before.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tracing::debug;

use super::Redis;
use super::command::Answer;
use super::failure::{Failure, NoReply, NotSent};
use super::reply::{Late, Written, parse_written};
use super::script::Argument;
use super::supervisor::Way;
use super::url::Host;
use crate::model::cause::Cause;
use crate::model::key::Key;
use crate::model::status::{Status, Update};
use crate::model::write_number::{REMEMBERED_WRITES, WriteNumber};
use crate::runtime::clock::millis;
use crate::store::permits::{Permit, Purpose};
use crate::store::{MIN_GONE_TTL, Put, StoreError, Stored};

/// The longest time in which a write without an answer is settled, unless its latest time is
/// further away.
const SETTLE_LIMIT: Duration = Duration::from_secs(1);
/// The pause between two tries to settle a write.
const SETTLE_REST: Duration = Duration::from_millis(20);

/// One write.
struct Write<'a> {
    ttl: Duration,
    /// The version that the key must have for this to be stored; empty if any will do.
    after: String,
    /// The latest time at which this may be stored, by the store's clock.
    before: Option<u64>,
    /// The version of a write that is put again; empty if the write gets the next one.
    version: String,
    number: WriteNumber,
    /// Whether the status is final, and its value; `None` for a deletion.
    status: Option<(bool, &'a [u8])>,
}

/// A write that was sent.
struct Sent {
    /// The latest time at which it may be carried out.
    until: u64,
    /// The server's time when it was sent; 0 if it was not known.
    since: u64,
    /// The generation that it was sent to.
    generation: u64,
    /// The server of a cluster that it was sent to.
    host: Option<Host>,
    at: Instant,
}

impl Sent {
    /// Returns whether `way` leads to the server that the write was sent to.
    fn is_of(&self, way: &Way) -> bool {
        self.generation == way.generation && self.host == way.server.host
    }
}

/// The result of one attempt.
enum Attempt {
    Written(Written),
    /// The server is not the one that the write was sent to, and does not know its number.
    NotKnownElsewhere,
    NotSent(Cause),
    Refused(StoreError),
    NoAnswer(Sent, Cause),
}

impl Redis {
    /// See [`Store::put`](crate::store::Store::put).
    pub(in crate::store) async fn put(&self, key: &Key, put: &Put) -> Result<Stored, StoreError> {
        let write = Write {
            ttl: put.ttl,
            after: put.after.map_or(String::new(), |after| after.to_string()),
            before: put.before,
            version: String::new(),
            number: put.number,
            status: Some((put.is_final, put.value.as_bytes())),
        };
        self.write(key, &write).await
    }

    /// See [`Store::forget`](crate::store::Store::forget).
    pub(in crate::store) async fn forget(
        &self,
        key: &Key,
        number: WriteNumber,
    ) -> Result<Stored, StoreError> {
        let (after, version) = (String::new(), String::new());
        self.write(
            key,
            &Write {
                ttl: MIN_GONE_TTL,
                after,
                before: None,
                version,
                number,
                status: None,
            },
        )
        .await
    }

    /// See [`Shared::put_again`](crate::store::Shared::put_again).
    pub(in crate::store) async fn put_again(
        &self,
        key: &Key,
        update: &Update,
        number: WriteNumber,
        ttl: Duration,
    ) -> Result<Stored, StoreError> {
        let status = match update {
            Update::Status(Status {
                value, is_final, ..
            }) => Some((*is_final, value.as_bytes())),
            Update::Gone(_) => None,
        };
        let version = update.version().to_string();
        let write = Write {
            ttl,
            after: String::new(),
            before: None,
            version,
            number,
            status,
        };
        // It is not settled: the caller tries again anyway, and the script never replaces an update
        // that is as new or newer.
        match self.attempt(Purpose::Recovery, key, &write, None).await {
            Attempt::Written(written) => self.result(&write, written, None),
            Attempt::NotSent(cause) => Err(StoreError::Unavailable(cause)),
            Attempt::Refused(error) => Err(error),
            Attempt::NoAnswer(_, cause) => Err(StoreError::Unknown(cause)),
            Attempt::NotKnownElsewhere => Err(StoreError::Unknown(Cause::Late)),
        }
    }

    /// Sends a write, and settles it if there is no answer.
    async fn write(&self, key: &Key, write: &Write<'_>) -> Result<Stored, StoreError> {
        let began = Instant::now();
        let mut attempt = self.attempt(Purpose::Write, key, write, None).await;
        if let Attempt::Written(Written::Late(late)) = &attempt
            && began.elapsed() < self.options.timeout
            && write.before.is_none_or(|before| late.now <= before)
        {
            // This node did not know the server's clock, or knew it wrong. The answer has shown the
            // clock, so a second attempt is not late.
            attempt = self.attempt(Purpose::Write, key, write, None).await;
        }
        let stored = match attempt {
            Attempt::Written(written) => self.result(write, written, None),
            Attempt::NotSent(cause) => Err(StoreError::Unavailable(cause)),
            Attempt::Refused(error) => Err(error),
            Attempt::NoAnswer(sent, cause) => self.settle(key, write, sent, cause).await,
            Attempt::NotKnownElsewhere => Err(StoreError::Unknown(Cause::Late)),
        };
        stored.inspect(|stored| self.note_outlived(key, stored))
    }

    /// Sends a write that got no answer again, until it is known whether it was carried out.
    /// `cause` is the reason why it got none.
    async fn settle(
        &self,
        key: &Key,
        write: &Write<'_>,
        sent: Sent,
        cause: Cause,
    ) -> Result<Stored, StoreError> {
        // If the connection broke, its last command may still be carried out until the latest
        // time.
        let deadline = (Instant::now() + SETTLE_LIMIT).max(sent.at + self.options.timeout);
        let settled = timeout_at(deadline, async {
            // A refusal of a later attempt is not final, because the first attempt may still be
            // carried out until it is late.
            let mut refusal = StoreError::Unavailable(cause);
            let mut connection = self.supervisor.state();
            loop {
                connection.mark_unchanged();
                let attempt = tokio::select! {
                    attempt = self.attempt(Purpose::Write, key, write, Some(&sent)) => attempt,
                    // The state has changed: there may be another connection, which may work.
                    _ = connection.changed() => continue,
                };
                match attempt {
                    Attempt::Written(written @ (Written::Stored(_) | Written::Late(_))) => {
                        return match self.result(write, written, Some((&sent, cause))) {
                            Err(StoreError::Unavailable(_)) => Err(refusal),
                            result => result,
                        };
                    }
                    Attempt::Written(Written::Conflict(version)) => {
                        refusal = StoreError::Conflict(version)
                    }
                    Attempt::Written(Written::Full) => refusal = StoreError::Full,
                    Attempt::NotKnownElsewhere => return Err(StoreError::Unknown(cause)),
                    Attempt::Refused(error) => refusal = error,
                    Attempt::NotSent(_) | Attempt::NoAnswer(..) => {}
                }
                sleep(SETTLE_REST).await;
            }
        });
        settled.await.unwrap_or_else(|_| {
            debug!(key = %key.hashed(), "it is unknown whether a write was carried out");
            Err(StoreError::Unknown(cause))
        })
    }

    /// Sends a write once: as a new one, or as the write that was `sent` before.
    async fn attempt(
        &self,
        purpose: Purpose,
        key: &Key,
        write: &Write<'_>,
        sent: Option<&Sent>,
    ) -> Attempt {
        let permit = match self.permit(purpose).await {
            Ok(permit) => permit,
            Err(NotSent(cause)) => return Attempt::NotSent(cause),
        };
        let key = self.key_text(key.as_str());
        let mut way = match self.way_to(&key) {
            Ok(way) => way,
            Err(NotSent(cause)) => return Attempt::NotSent(cause),
        };
        let deadline = Instant::now() + self.options.timeout;
        loop {
            let clock = &way.server.clock;
            let is_elsewhere = sent.is_some_and(|sent| !sent.is_of(&way));
            let until = match sent {
                None => clock.until(self.options.timeout),
                // A latest time of 0 has long passed. So this server only says whether it knows
                // the number, and does not carry out the write.
                Some(_) if is_elsewhere => 0,
                Some(sent) => sent.until,
            };
            let until = write.before.map_or(until, |before| before.min(until));
            let since = clock.now().unwrap_or(0);
            let now = Sent {
                until,
                since,
                generation: way.generation,
                host: way.server.host.clone(),
                at: Instant::now(),
            };
            let error = match self.exchange_write(&permit, &way, &key, write, until).await {
                Ok(Answer { reply, generation }) => {
                    return match parse_written(&reply, generation) {
                        Some(Written::Late(_)) if is_elsewhere => Attempt::NotKnownElsewhere,
                        Some(written) => Attempt::Written(written),
                        None => {
                            self.nonsense();
                            Attempt::NoAnswer(now, Cause::Nonsense)
                        }
                    };
                }
                Err(error) => error,
            };
            if let Some(elsewhere) = self.elsewhere(&error, &way, &key, deadline).await {
                way = elsewhere;
                continue;
            }
            return match self.failure(&self.scripts.write, error) {
                Failure::NotSent(cause) => Attempt::NotSent(cause),
                Failure::Refused(error) => Attempt::Refused(error),
                Failure::NoAnswer(cause) => Attempt::NoAnswer(now, cause),
            };
        }
    }

    /// Sends a write to one server, which carries it out at `until` at the latest.
    async fn exchange_write(
        &self,
        permit: &Permit,
        way: &Way,
        key: &str,
        write: &Write<'_>,
        until: u64,
    ) -> Result<Answer, NoReply> {
        let (ttl, memory, number) = (
            millis(write.ttl),
            self.clock.known(),
            write.number.to_bytes(),
        );
        let number: &[u8] = &number;
        let mut args: Vec<&dyn Argument> =
            vec![&ttl, &write.after, &memory, &write.version, &number, &until];
        let (is_final, value);
        if let Some((final_given, value_given)) = write.status {
            (is_final, value) = (u8::from(final_given), value_given);
            args.extend([&is_final as &dyn Argument, &value]);
        }
        let script = &self.scripts.write;
        self.exchange(Some(permit), way, script, key, &args).await
    }

    /// Converts an answer to the result of a write. `unanswered` is present if the same write was
    /// sent before and got no answer, with the cause of that.
    fn result(
        &self,
        write: &Write<'_>,
        written: Written,
        unanswered: Option<(&Sent, Cause)>,
    ) -> Result<Stored, StoreError> {
        let late = match written {
            Written::Stored(stored) => return Ok(stored),
            Written::Conflict(version) => return Err(StoreError::Conflict(version)),
            Written::Full => return Err(StoreError::Full),
            Written::Late(late) => late,
        };
        if let Some((sent, cause)) = unanswered
            && !self.remembers_all(write, late, sent)
        {
            return Err(StoreError::Unknown(cause));
        }
        if write.before.is_some_and(|before| late.now > before) {
            return Err(StoreError::TooLate);
        }
        Err(StoreError::Unavailable(Cause::Late))
    }

    /// Returns whether the server would still know the number of the write if it had carried it
    /// out since it was sent.
    fn remembers_all(&self, write: &Write<'_>, late: Late, sent: &Sent) -> bool {
        // The key may have been forgotten at the end of its time to live, and the number with
        // it.
        if sent.at.elapsed() >= write.ttl {
            return false;
        }
        if late.remembered >= REMEMBERED_WRITES as u64 {
            // A version is never below the time at which it was given. So if the oldest remembered
            // version is below the time at which this write was sent, the write with that version
            // came before this one, and all writes since are remembered.
            return late.oldest.get() < sent.since;
        }
        true
    }
}
