//! The table of clients' addresses: the waiters of each, and how far its gets are ahead of its rate.
//!
//! # Bounds
//! An address is known while it has waiters, or while its gets are ahead of its rate. There are at
//! most as many addresses with waiters as the node has waiters. Of the others, [`MAX_IDLE`] are
//! known. If there are more, the gets of further addresses are not counted: a flood from so many
//! addresses is for the limits of the node.

use std::collections::HashMap;
use std::fmt::{self, Display, Formatter};
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Mutex;
use std::time::Instant;

use crate::runtime::sharded::{lock, shrink};

/// The most addresses without a waiter that are known.
pub(super) const MAX_IDLE: usize = 65_536;
/// The gets that an address may ask for at once, in seconds of its rate.
const BURST_SECONDS: u64 = 10;
/// A second in nanoseconds.
const SECOND: u64 = 1_000_000_000;
/// More shards than there are cores, so that two cores seldom meet in one.
const SHARDS: usize = 64;
const MAX_IDLE_OF_SHARD: usize = MAX_IDLE / SHARDS;
/// An address as the limits count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Source {
    V4(u32),
    /// The first 64 bits.
    V6(u64),
}

impl Source {
    pub(super) fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self::V4(ip.to_bits()),
            IpAddr::V6(ip) => {
                let [a, b, c, d, e, f, g, h, ..] = ip.octets();
                Self::V6(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
            }
        }
    }
}

impl Display for Source {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(bits) => IpAddr::V4((*bits).into()).fmt(f),
            Self::V6(bits) => {
                let first = Ipv6Addr::from_bits(u128::from(*bits) << 64);
                write!(f, "{first}/64")
            }
        }
    }
}

/// An address that is known.
#[derive(Debug, Default)]
struct Known {
    waiters: usize,
    /// When all gets so far would have ended at the rate, in nanoseconds since the table began.
    busy_until: u64,
}

#[derive(Debug, Default)]
struct Shard {
    known: HashMap<Source, Known>,
    /// The number of addresses with waiters.
    waiting: usize,
    /// The time before which a sweep would forget no address.
    sweep_at: u64,
}

impl Shard {
    /// Makes room for one more address without a waiter. Returns whether there is room.
    fn make_room(&mut self, now: u64) -> bool {
        if self.known.len() - self.waiting < MAX_IDLE_OF_SHARD {
            return true;
        }
        if self.sweep_at > now {
            return false;
        }
        self.sweep(now);
        self.known.len() - self.waiting < MAX_IDLE_OF_SHARD
    }

    /// Forgets the addresses that have no waiter, and whose gets are not ahead of their rate.
    fn sweep(&mut self, now: u64) {
        let mut next = u64::MAX;
        self.known.retain(|_, known| {
            let stays = known.waiters > 0 || known.busy_until > now;
            if stays && known.waiters == 0 {
                next = next.min(known.busy_until);
            }
            stays
        });
        self.sweep_at = next;
        shrink(&mut self.known);
    }
}

/// The result of counting a get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Allowed,
    /// Its address asks too often.
    TooMany,
    /// It is allowed and not counted, because too many addresses are known.
    NotCounted,
}

/// All addresses that are known.
#[derive(Debug)]
pub(super) struct Table {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    began: Instant,
}

impl Table {
    pub(super) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            began: Instant::now(),
        }
    }

    fn shard(&self, source: Source) -> &Mutex<Shard> {
        // Other bits than those by which the shard's map finds an address.
        let hash = self.hasher.hash_one(source) >> 32;
        &self.shards[hash as usize % SHARDS]
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Counts a get of an address that may ask for `max` gets in a second.
    pub(super) fn take_get(&self, source: Source, max: usize) -> Taken {
        self.take_get_at(source, SECOND / max as u64, self.now())
    }

    fn take_get_at(&self, source: Source, interval: u64, now: u64) -> Taken {
        let mut shard = lock(self.shard(source));
        if !shard.known.contains_key(&source) && !shard.make_room(now) {
            return Taken::NotCounted;
        }
        let known = shard.known.entry(source).or_default();
        let busy_until = known.busy_until.max(now) + interval;
        if busy_until - now > BURST_SECONDS * SECOND {
            return Taken::TooMany;
        }
        known.busy_until = busy_until;
        shard.sweep_at = shard.sweep_at.min(busy_until);
        Taken::Allowed
    }

    /// Counts a waiter. Returns whether the limit allows it.
    pub(super) fn take_waiter(&self, source: Source, max: usize) -> bool {
        let mut shard = lock(self.shard(source));
        let Shard { known, waiting, .. } = &mut *shard;
        let of_source = known.entry(source).or_default();
        if of_source.waiters >= max {
            return false;
        }
        of_source.waiters += 1;
        *waiting += usize::from(of_source.waiters == 1);
        true
    }

    /// Counts a waiter no more.
    pub(super) fn give_back_waiter(&self, source: Source) {
        self.give_back_waiter_at(source, self.now());
    }

    fn give_back_waiter_at(&self, source: Source, now: u64) {
        let mut shard = lock(self.shard(source));
        let Some(known) = shard.known.get_mut(&source) else {
            return;
        };
        known.waiters -= 1;
        if known.waiters > 0 {
            return;
        }
        let busy_until = known.busy_until;
        shard.waiting -= 1;
        // Beyond the most idle addresses, it is forgotten that it asked often.
        if busy_until <= now || shard.known.len() - shard.waiting > MAX_IDLE_OF_SHARD {
            shard.known.remove(&source);
            shrink(&mut shard.known);
        } else {
            shard.sweep_at = shard.sweep_at.min(busy_until);
        }
    }

    /// Returns how many addresses are known. Takes each lock in turn, so it is for metrics only.
    pub(super) fn count(&self) -> usize {
        let now = self.now();
        let count = |shard: &Mutex<Shard>| {
            let mut shard = lock(shard);
            shard.sweep(now);
            shard.known.len()
        };
        self.shards.iter().map(count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_ask_for_ten_seconds_of_gets_at_once_and_then_for_its_rate() {
        let table = Table::new();
        let (source, interval) = (Source::V4(1), SECOND / 200);
        let asked = |count: usize, now| {
            let taken = (0..count).map(|_| table.take_get_at(source, interval, now));
            taken.filter(|taken| *taken == Taken::Allowed).count()
        };
        assert_eq!(asked(3_000, 0), 2_000);
        assert_eq!(asked(3_000, SECOND), 200);
        assert_eq!(asked(3_000, SECOND + interval), 1);
        assert_eq!(asked(3_000, 100 * SECOND), 2_000);
        let other = table.take_get_at(Source::V4(2), interval, 0);
        assert_eq!(other, Taken::Allowed);
    }

    #[test]
    fn a_flood_of_addresses_fills_the_table_and_no_more_and_is_forgotten_in_its_time() {
        let table = Table::new();
        let waiting = Source::V6(u64::MAX);
        assert!(table.take_waiter(waiting, 1));
        for number in 0..4 * MAX_IDLE as u64 {
            assert_ne!(
                table.take_get_at(Source::V6(number), SECOND, 0),
                Taken::TooMany
            );
        }
        let known = |shard: &Mutex<Shard>| lock(shard).known.len();
        let known = || table.shards.iter().map(known).sum::<usize>();
        assert_eq!(known(), MAX_IDLE + 1);
        assert!(!table.take_waiter(waiting, 1), "it is still counted");
        // Waiters have room all the same.
        assert!(table.take_waiter(Source::V4(7), 1));
        assert!(!table.take_waiter(Source::V4(7), 1));
        for number in 0..MAX_IDLE as u64 {
            let source = Source::V6(number << 32);
            assert_ne!(
                table.take_get_at(source, SECOND, 2 * SECOND),
                Taken::TooMany
            );
        }
        assert!(known() <= MAX_IDLE + 2, "{}", known());
        for source in [waiting, Source::V4(7)] {
            table.give_back_waiter_at(source, 4 * SECOND);
        }
        for shard in &table.shards {
            lock(shard).sweep(4 * SECOND);
        }
        assert_eq!(known(), 0);
    }
}
