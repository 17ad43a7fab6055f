//! The updates that wait for one node, bounded in number and in bytes. Each has a deadline of
//! its own. Small ones have a lane to themselves, so that they do not wait behind long ones.

use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout};

use crate::model::key::Key;
use crate::model::status::Update;
use crate::runtime::sharded::lock;
use crate::waiters::Reached;

/// The most updates and bytes in one request. A single update may be longer.
const MAX_BATCH: usize = 512;
const MAX_BATCH_BYTES: usize = 512 * 1024;
/// The longest update, with its key, that counts as small.
const SMALL_BYTES: usize = 4096;
/// The most bytes of keys and values that wait for one node. A single update may be longer.
const MAX_QUEUED_BYTES: usize = 16 << 20;
/// The time after which a line ends if nothing is queued on it. It is below the other side's
/// idle timeout of 75 s, so that a connection is seldom found closed.
const LINE_IDLE: Duration = Duration::from_secs(60);

/// One update for one node.
pub(super) struct Job {
    pub(super) key: Key,
    pub(super) update: Update,
    /// When the set that made it was accepted, if that is known.
    pub(super) since: Option<Instant>,
    /// The time from which on it is not sent any more.
    pub(super) deadline: Instant,
    /// When the node's lease of the key ends.
    pub(super) lease_ends: Instant,
    /// Receives how the waiters took the update. It is dropped if the node did not
    /// confirm.
    pub(super) confirm: oneshot::Sender<Reached>,
    /// An owner of the counter of jobs in [`Peers`](super::Peers), until the job is dropped.
    pub(super) _under_way: Arc<()>,
}

impl Job {
    fn bytes(&self) -> usize {
        self.key.as_str().len() + self.update.value_bytes()
    }
}

/// The updates that a lane takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// Small ones.
    Small,
    /// Long ones, or small ones if there is no long one.
    All,
}

/// The reason why an update was not queued.
pub(super) enum Refused {
    /// The line has ended. Holds the update.
    Ended(Box<Job>),
    /// Too many wait.
    TooMany,
    /// Too many bytes wait.
    TooLong,
}

/// The queue to one node.
pub(super) struct Queue {
    jobs: Mutex<Jobs>,
    /// The most updates that it holds.
    max: usize,
    /// Wakes the lane for small updates.
    small_came: Notify,
    /// Wakes the other lane.
    any_came: Notify,
}

struct Jobs {
    small: VecDeque<Job>,
    long: VecDeque<Job>,
    bytes: usize,
    /// Whether the lane for small updates waits to be woken.
    small_lane_waits: bool,
    /// Whether the other lane does.
    other_lane_waits: bool,
    used_at: Instant,
    has_ended: bool,
}

impl Queue {
    /// Returns an empty queue for at most `max` updates.
    pub(super) fn new(max: usize) -> Self {
        let jobs = Jobs {
            small: VecDeque::new(),
            long: VecDeque::new(),
            bytes: 0,
            small_lane_waits: false,
            other_lane_waits: false,
            used_at: Instant::now(),
            has_ended: false,
        };
        Self {
            jobs: Mutex::new(jobs),
            max,
            small_came: Notify::new(),
            any_came: Notify::new(),
        }
    }

    /// Queues an update.
    ///
    /// # Errors
    /// If it is not queued: see [`Refused`].
    pub(super) fn push(&self, job: Job) -> Result<(), Refused> {
        let bytes = job.bytes();
        let mut jobs = lock(&self.jobs);
        if jobs.has_ended {
            return Err(Refused::Ended(Box::new(job)));
        }
        if jobs.len() >= self.max {
            return Err(Refused::TooMany);
        }
        if jobs.bytes + bytes > MAX_QUEUED_BYTES && jobs.len() > 0 {
            return Err(Refused::TooLong);
        }
        jobs.bytes += bytes;
        jobs.used_at = Instant::now();
        let is_small = bytes <= SMALL_BYTES;
        if is_small {
            &mut jobs.small
        } else {
            &mut jobs.long
        }
        .push_back(job);
        // One lane is enough. A lane that is at work is not woken: it looks again when it is
        // done.
        let came = if is_small && mem::take(&mut jobs.small_lane_waits) {
            Some(&self.small_came)
        } else if mem::take(&mut jobs.other_lane_waits) {
            Some(&self.any_came)
        } else {
            None
        };
        drop(jobs);
        if let Some(came) = came {
            came.notify_one();
        }
        Ok(())
    }

    /// Waits for updates and takes those that go in one request. Returns `None` once the line has
    /// ended, because nothing was sent for a while.
    ///
    /// # Cancel safety
    /// If it is dropped, no update is lost. But a lane that does not wait is not woken.
    pub(super) async fn take(&self, takes: Takes) -> Option<Vec<Job>> {
        let came = if takes == Takes::Small {
            &self.small_came
        } else {
            &self.any_came
        };
        loop {
            {
                let mut jobs = lock(&self.jobs);
                let batch = jobs.take(takes);
                if !batch.is_empty() {
                    return Some(batch);
                }
                if jobs.has_ended {
                    return None;
                }
                match takes {
                    Takes::Small => jobs.small_lane_waits = true,
                    Takes::All => jobs.other_lane_waits = true,
                }
            }
            if timeout(LINE_IDLE, came.notified()).await.is_err() {
                let mut jobs = lock(&self.jobs);
                // No queued update is lost by the end: the lanes take it first. The other lane
                // may do so later, because it may still be at work.
                jobs.has_ended |= jobs.used_at.elapsed() >= LINE_IDLE;
            }
        }
    }

    /// Returns whether nothing can be queued any more.
    pub(super) fn has_ended(&self) -> bool {
        lock(&self.jobs).has_ended
    }

    /// Returns how many updates wait.
    pub(super) fn len(&self) -> usize {
        lock(&self.jobs).len()
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Queue({})", self.len())
    }
}

impl Jobs {
    fn len(&self) -> usize {
        self.small.len() + self.long.len()
    }

    fn take(&mut self, takes: Takes) -> Vec<Job> {
        let queue = if takes == Takes::All && !self.long.is_empty() {
            &mut self.long
        } else {
            &mut self.small
        };
        let (mut count, mut bytes) = (0, 0);
        for job in queue.iter().take(MAX_BATCH) {
            if count > 0 && bytes + job.bytes() > MAX_BATCH_BYTES {
                break;
            }
            (count, bytes) = (count + 1, bytes + job.bytes());
        }
        self.bytes -= bytes;
        queue.drain(..count).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::status::{Status, Value, Version};

    fn job(key: &str, bytes: usize) -> (Job, oneshot::Receiver<Reached>) {
        let raw = serde_json::value::to_raw_value(&"x".repeat(bytes)).expect("a JSON string");
        let value = Value::new(&raw, usize::MAX).expect("good");
        let version = Version::new(1).expect("good");
        let update = Update::Status(Status {
            version,
            value,
            is_final: false,
        });
        let (confirm, confirmed) = oneshot::channel();
        let now = Instant::now();
        let key = Key::parse(key).expect("good");
        let job = Job {
            key,
            update,
            since: None,
            deadline: now,
            lease_ends: now,
            confirm,
            _under_way: Arc::default(),
        };
        (job, confirmed)
    }

    fn names(batch: Option<Vec<Job>>) -> Vec<String> {
        batch
            .expect("not ended")
            .iter()
            .map(|job| job.key.as_str().to_owned())
            .collect()
    }

    #[tokio::test]
    async fn small_updates_do_not_wait_behind_long_ones() {
        let queue = Queue::new(100);
        for (key, bytes) in [
            ("long-1", 300_000),
            ("long-2", 300_000),
            ("small-1", 10),
            ("small-2", 10),
        ] {
            assert!(queue.push(job(key, bytes).0).is_ok());
        }
        assert_eq!(
            names(queue.take(Takes::Small).await),
            ["small-1", "small-2"]
        );
        assert_eq!(names(queue.take(Takes::All).await), ["long-1"]);
        assert!(queue.push(job("small-3", 10).0).is_ok());
        assert_eq!(names(queue.take(Takes::All).await), ["long-2"]);
        assert_eq!(names(queue.take(Takes::All).await), ["small-3"]);
        assert_eq!((queue.len(), lock(&queue.jobs).bytes), (0, 0));
    }

    #[tokio::test]
    async fn updates_and_bytes_are_bounded() {
        let queue = Queue::new(2);
        assert!(
            queue
                .push(job("longer-than-all-may-be", MAX_QUEUED_BYTES + 1).0)
                .is_ok()
        );
        assert!(matches!(queue.push(job("a", 1).0), Err(Refused::TooLong)));
        assert_eq!(
            names(queue.take(Takes::All).await),
            ["longer-than-all-may-be"]
        );
        assert!(queue.push(job("a", 1).0).is_ok() && queue.push(job("b", 1).0).is_ok());
        assert!(matches!(queue.push(job("c", 1).0), Err(Refused::TooMany)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_ends_when_nothing_was_sent_for_a_while() {
        let queue = Queue::new(100);
        let (small, all) = tokio::join!(queue.take(Takes::Small), queue.take(Takes::All));
        assert!(small.is_none() && all.is_none() && queue.has_ended());
        assert!(matches!(
            queue.push(job("late", 1).0),
            Err(Refused::Ended(_))
        ));
    }
}
