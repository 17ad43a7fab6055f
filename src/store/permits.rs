//! Permits bound the commands to a shared store that are under way. Each purpose has its own share, so
//! that gets do not starve sets, and neither starve operators or the recovery after an outage.
//!
//! A share shrinks while answers come late. A command that is answered too late has cost the store as
//! much as any other and is sent again, so too many commands at once would leave no answer in time.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::runtime::sharded::lock;

/// The purpose of a command.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) enum Purpose {
    /// A get: half of all.
    Get,
    /// A set or a deletion: a quarter.
    Write,
    /// A read by a backend or an operator: an eighth.
    Read,
    /// Recovery after an outage, and leases that are given back: an eighth.
    Recovery,
}

/// The divisor that gives the smallest size of a share: a sixteenth of its full size, and not
/// below [`LEAST`].
const LEAST_PART: usize = 16;
/// The permits that a share always keeps, unless it never had so many.
const LEAST: usize = 8;
/// The number of quick answers after which a share grows by one permit. So it grows by an eighth
/// in the time of one answer: soon after a short outage, and slowly if the store is slow.
const GROWS_AFTER: u32 = 8;
/// The number of slow answers that count as one quick answer. An answer is slow if it took more
/// than half of the time limit.
const SLOW_PART: u32 = 4;

/// See the module's documentation.
#[derive(Debug)]
pub(in crate::store) struct Permits {
    shares: [Arc<Share>; 4],
}

/// The permits of one purpose.
#[derive(Debug)]
struct Share {
    free: Semaphore,
    least: usize,
    most: usize,
    /// The longest time that a command may take.
    limit: Duration,
    size: Mutex<Size>,
}

/// The number of permits in a share.
#[derive(Debug)]
struct Size {
    now: usize,
    /// The permits in use that end when they are returned, because the share has shrunk.
    surplus: usize,
    /// The answers in time since the size last changed, in parts of a quick one: see
    /// [`SLOW_PART`].
    in_time: u32,
    shrunk_at: Option<Instant>,
}

/// The permit to send one command. Dropping it returns it.
#[derive(Debug)]
pub(in crate::store) struct Permit {
    share: Arc<Share>,
    began: Instant,
}

impl Permits {
    /// Divides `all` among the purposes. Each has one at least. `limit` is the longest time that
    /// a command may take.
    pub(in crate::store) fn new(all: usize, limit: Duration) -> Self {
        Self {
            shares: [all / 2, all / 4, all / 8, all / 8]
                .map(|most| Arc::new(Share::new(most.max(1), limit))),
        }
    }

    /// Waits for a permit.
    ///
    /// # Cancel safety
    /// If it is dropped, it only loses its place in the queue.
    pub(in crate::store) async fn acquire(&self, purpose: Purpose) -> Permit {
        let share = Arc::clone(&self.shares[purpose as usize]);
        // The returned `Permit` gives it back to the share when it is dropped.
        share
            .free
            .acquire()
            .await
            .expect("it is never closed")
            .forget();
        Permit {
            share,
            began: Instant::now(),
        }
    }

    /// Returns how many permits are in use, and how many may be now.
    pub(in crate::store) fn in_use(&self) -> [usize; 2] {
        let each = self.shares.iter().map(|share| {
            let size = lock(&share.size);
            [
                (size.now + size.surplus).saturating_sub(share.free.available_permits()),
                size.now,
            ]
        });
        each.fold([0; 2], |[used, all], [more, size]| {
            [used + more, all + size]
        })
    }
}

impl Share {
    fn new(most: usize, limit: Duration) -> Self {
        let size = Size {
            now: most,
            surplus: 0,
            in_time: 0,
            shrunk_at: None,
        };
        let least = (most / LEAST_PART).max(LEAST).min(most);
        Self {
            free: Semaphore::new(most),
            least,
            most,
            limit,
            size: Mutex::new(size),
        }
    }

    /// Makes one more permit free, unless more are in use than there may be.
    fn add_one(&self, size: &mut Size) {
        match size.surplus.checked_sub(1) {
            Some(surplus) => size.surplus = surplus,
            None => self.free.add_permits(1),
        }
    }
}

impl Permit {
    /// Returns when the permit was given.
    pub(in crate::store) const fn began(&self) -> Instant {
        self.began
    }

    /// Notes that the store answered in time.
    pub(in crate::store) fn was_answered(&self) {
        let share = &self.share;
        let mut size = lock(&share.size);
        if size.now == share.most {
            return;
        }
        size.in_time += if self.began.elapsed() > share.limit / 2 {
            1
        } else {
            SLOW_PART
        };
        if size.in_time < GROWS_AFTER * SLOW_PART {
            return;
        }
        size.in_time = 0;
        size.now += 1;
        share.add_one(&mut size);
    }

    /// Notes that no answer came in time. The share shrinks by half, once for all commands that
    /// were under way together.
    pub(in crate::store) fn was_late(&self) {
        let share = &self.share;
        let mut size = lock(&share.size);
        if size.shrunk_at.is_some_and(|at| self.began < at) {
            return;
        }
        let smaller = (size.now / 2).max(share.least);
        let ended = share.free.forget_permits(size.now - smaller);
        size.surplus += size.now - smaller - ended;
        (size.now, size.in_time, size.shrunk_at) = (smaller, 0, Some(Instant::now()));
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.share.add_one(&mut lock(&self.share.size));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    /// Takes all permits that may be taken now.
    async fn take(permits: &Permits) -> Vec<Permit> {
        let mut taken = Vec::new();
        while permits.shares[Purpose::Get as usize]
            .free
            .available_permits()
            > 0
        {
            taken.push(permits.acquire(Purpose::Get).await);
        }
        taken
    }

    #[tokio::test]
    async fn a_share_halves_once_for_all_that_were_late_together_and_keeps_the_least() {
        let permits = Permits::new(1_024, LIMIT);
        let mut sizes = Vec::new();
        for _ in 0..7 {
            let taken = take(&permits).await;
            sizes.push(taken.len());
            taken.iter().for_each(Permit::was_late);
            assert_eq!(
                permits.in_use()[0],
                sizes[sizes.len() - 1],
                "those under way stay so"
            );
        }
        assert_eq!(sizes, [512, 256, 128, 64, 32, 32, 32]);
        assert_eq!(permits.in_use(), [0, 32 + 256 + 128 + 128]);
    }

    #[tokio::test]
    async fn a_share_grows_to_its_size_again_with_answers_in_time() {
        let permits = Permits::new(128, LIMIT);
        let taken = take(&permits).await;
        taken[0].was_late();
        // The share may grow while more permits are in use than it has.
        (0..GROWS_AFTER).for_each(|_| taken[1].was_answered());
        assert_eq!(permits.in_use(), [64, 33 + 32 + 16 + 16]);
        drop(taken);
        assert_eq!(take(&permits).await.len(), 33);
        let one = permits.acquire(Purpose::Get).await;
        (0..1_000).for_each(|_| one.was_answered());
        drop(one);
        assert_eq!(take(&permits).await.len(), 64);
    }

    #[tokio::test]
    async fn no_purpose_takes_the_permits_of_another() {
        let permits = Permits::new(64, LIMIT);
        let _all = take(&permits).await;
        for (purpose, part) in [
            (Purpose::Write, 4),
            (Purpose::Read, 8),
            (Purpose::Recovery, 8),
        ] {
            assert_eq!(
                permits.shares[purpose as usize].free.available_permits(),
                64 / part,
                "{purpose:?}"
            );
            permits.acquire(purpose).await;
        }
    }

    #[tokio::test]
    async fn the_smallest_shares_have_one_permit_always() {
        let permits = Permits::new(1, LIMIT);
        for _ in 0..3 {
            permits.acquire(Purpose::Write).await.was_late();
        }
        assert_eq!(permits.in_use(), [0, 4]);
    }
}
