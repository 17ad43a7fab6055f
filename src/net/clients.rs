//! The addresses of clients, and what each of them may take: waiters, and gets a second. Both
//! limits are for clients that crowd out others. The limits of the node hold beside them.
//!
//! An address that may stand for many clients has no limit: private, shared and loopback addresses,
//! unless a trusted proxy says that they are a client's. Of IPv6, the first 64 bits count, because
//! one client has all addresses that begin with them.
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
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tracing::warn;

use crate::log::Seldom;
use crate::metrics::{Limit, Metrics};
use crate::net::exposure::is_public;
use crate::runtime::sharded::{lock, shrink};

/// The most addresses without a waiter that are known.
const MAX_IDLE: usize = 65_536;
/// The gets that an address may ask for at once, in seconds of its rate.
const BURST_SECONDS: u64 = 10;
/// A second in nanoseconds.
const SECOND: u64 = 1_000_000_000;
/// More shards than there are cores, so that two cores seldom meet in one.
const SHARDS: usize = 64;
const MAX_IDLE_OF_SHARD: usize = MAX_IDLE / SHARDS;
/// The time in which one warning of a kind is logged.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// An address as the limits count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Source {
    V4(u32),
    /// The first 64 bits.
    V6(u64),
}

impl Source {
    fn of(ip: IpAddr) -> Self {
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
    /// No address can be forgotten before this time.
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

/// All addresses that are known.
#[derive(Debug)]
pub(crate) struct Clients {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    began: Instant,
    metrics: Arc<Metrics>,
    full_of_waiters: Seldom,
    full_of_gets: Seldom,
    full_of_addresses: Seldom,
}

impl Clients {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            began: Instant::now(),
            metrics,
            full_of_waiters: Seldom::each(WARNING_INTERVAL),
            full_of_gets: Seldom::each(WARNING_INTERVAL),
            full_of_addresses: Seldom::each(WARNING_INTERVAL),
        })
    }

    fn shard(&self, source: Source) -> &Mutex<Shard> {
        // Other bits than those by which the shard's map finds an address.
        let hash = self.hasher.hash_one(source) >> 32;
        &self.shards[hash as usize % SHARDS]
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Counts a get at time `now`. Returns whether the rate allows it.
    fn take_get(&self, source: Source, interval: u64, now: u64) -> bool {
        let mut shard = lock(self.shard(source));
        if !shard.known.contains_key(&source) && !shard.make_room(now) {
            drop(shard);
            self.metrics.limit_hit(Limit::Addresses);
            if let Some(left_out) = self.full_of_addresses.admit() {
                warn!(
                    limit = MAX_IDLE,
                    left_out, "too many client addresses: gets of further ones are not counted"
                );
            }
            return true;
        }
        let known = shard.known.entry(source).or_default();
        let busy_until = known.busy_until.max(now) + interval;
        let allowed = busy_until - now <= BURST_SECONDS * SECOND;
        if allowed {
            known.busy_until = busy_until;
            shard.sweep_at = shard.sweep_at.min(busy_until);
        }
        allowed
    }

    /// Counts a waiter. Returns whether the limit allows it.
    fn take_waiter(&self, source: Source, max: usize) -> bool {
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

    fn give_back_waiter(&self, source: Source, now: u64) {
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
    pub(crate) fn count(&self) -> usize {
        let now = self.now();
        let count = |shard: &Mutex<Shard>| {
            let mut shard = lock(shard);
            shard.sweep(now);
            shard.known.len()
        };
        self.shards.iter().map(count).sum()
    }
}

/// The limits of the clients of a listener.
#[derive(Debug)]
pub(crate) struct ClientLimits {
    pub(crate) clients: Arc<Clients>,
    /// `--max-waiters-per-address`, unless it is off.
    pub(crate) max_waiters: Option<usize>,
    /// `--max-gets-per-address`, unless it is off.
    pub(crate) max_gets: Option<usize>,
}

/// A client whose address is limited.
#[derive(Clone, Debug)]
pub struct Client {
    source: Source,
    limits: Arc<ClientLimits>,
}

impl Client {
    /// Returns the client with this address if it is limited. `is_surely_its` says that a trusted
    /// proxy vouches for the address, so that even a private one stands for one client.
    pub(crate) fn new(limits: &Arc<ClientLimits>, ip: IpAddr, is_surely_its: bool) -> Option<Self> {
        (is_surely_its || is_public(ip)).then(|| Self {
            source: Source::of(ip),
            limits: Arc::clone(limits),
        })
    }

    /// Counts a get. Returns whether it may be answered. If not, it is to be answered busy.
    pub(crate) fn may_get(&self) -> bool {
        let ClientLimits {
            clients, max_gets, ..
        } = &*self.limits;
        let Some(max) = *max_gets else {
            return true;
        };
        let interval = SECOND / max as u64;
        if clients.take_get(self.source, interval, clients.now()) {
            return true;
        }
        clients.metrics.limit_hit(Limit::GetsPerAddress);
        if let Some(left_out) = clients.full_of_gets.admit() {
            let address = self.source;
            warn!(%address, limit = max, left_out, "too many gets of an address: they are answered busy (--max-gets-per-address)");
        }
        false
    }

    /// Counts a waiter for as long as the returned value lives. Returns `None` if waiters of
    /// addresses are not limited.
    ///
    /// # Errors
    /// [`TooManyWaiters`] if the address has as many as it may have.
    pub(crate) fn count_waiter(&self) -> Result<Option<CountedWaiter>, TooManyWaiters> {
        let ClientLimits {
            clients,
            max_waiters,
            ..
        } = &*self.limits;
        let Some(max) = *max_waiters else {
            return Ok(None);
        };
        if clients.take_waiter(self.source, max) {
            return Ok(Some(CountedWaiter {
                clients: Arc::clone(clients),
                source: self.source,
                is_over: AtomicBool::new(false),
            }));
        }
        clients.metrics.limit_hit(Limit::WaitersPerAddress);
        if let Some(left_out) = clients.full_of_waiters.admit() {
            let address = self.source;
            warn!(%address, limit = max, left_out, "too many waiters of an address: further ones are answered busy (--max-waiters-per-address)");
        }
        Err(TooManyWaiters)
    }
}

/// An address has as many waiters as it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooManyWaiters;

/// A waiter that is counted for its address. Dropping it ends that.
#[derive(Debug)]
pub(crate) struct CountedWaiter {
    clients: Arc<Clients>,
    source: Source,
    is_over: AtomicBool,
}

impl CountedWaiter {
    /// Counts the waiter no more. Does nothing the second time.
    pub(crate) fn end(&self) {
        if !self.is_over.swap(true, Ordering::Relaxed) {
            self.clients
                .give_back_waiter(self.source, self.clients.now());
        }
    }
}

impl Drop for CountedWaiter {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients() -> Arc<Clients> {
        Clients::new(Arc::default())
    }

    #[test]
    fn an_address_may_ask_for_ten_seconds_of_gets_at_once_and_then_for_its_rate() {
        let clients = clients();
        let (source, interval) = (Source::V4(1), SECOND / 200);
        let asked = |count: usize, now| {
            let allowed = (0..count).filter(|_| clients.take_get(source, interval, now));
            allowed.count()
        };
        assert_eq!(asked(3_000, 0), 2_000);
        assert_eq!(asked(3_000, SECOND), 200);
        assert_eq!(asked(3_000, SECOND + interval), 1);
        assert_eq!(asked(3_000, 100 * SECOND), 2_000);
        assert!(
            clients.take_get(Source::V4(2), interval, 0),
            "another address"
        );
    }

    #[test]
    fn a_flood_of_addresses_fills_the_table_and_no_more_and_is_forgotten_in_its_time() {
        let clients = clients();
        let waiting = Source::V6(u64::MAX);
        assert!(clients.take_waiter(waiting, 1));
        for number in 0..4 * MAX_IDLE as u64 {
            assert!(clients.take_get(Source::V6(number), SECOND, 0));
        }
        let known = |shard: &Mutex<Shard>| lock(shard).known.len();
        let known = || clients.shards.iter().map(known).sum::<usize>();
        assert_eq!(known(), MAX_IDLE + 1);
        assert!(!clients.take_waiter(waiting, 1), "it is still counted");
        // Waiters have room all the same.
        assert!(clients.take_waiter(Source::V4(7), 1));
        assert!(!clients.take_waiter(Source::V4(7), 1));
        for number in 0..MAX_IDLE as u64 {
            assert!(clients.take_get(Source::V6(number << 32), SECOND, 2 * SECOND));
        }
        assert!(known() <= MAX_IDLE + 2, "{}", known());
        for source in [waiting, Source::V4(7)] {
            clients.give_back_waiter(source, 4 * SECOND);
        }
        for shard in &clients.shards {
            lock(shard).sweep(4 * SECOND);
        }
        assert_eq!(known(), 0);
    }

    #[test]
    fn addresses_that_may_stand_for_many_have_no_limit_unless_a_proxy_vouches_for_them() {
        let limits = Arc::new(ClientLimits {
            clients: clients(),
            max_waiters: Some(1),
            max_gets: None,
        });
        let source = |ip: &str, is_surely_its| {
            let ip = ip.parse().expect("an address");
            Client::new(&limits, ip, is_surely_its).map(|client| client.source.to_string())
        };
        for (ip, counted) in [
            ("203.0.113.7", "203.0.113.7"),
            ("::ffff:203.0.113.7", "203.0.113.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ] {
            assert_eq!(source(ip, false).as_deref(), Some(counted));
            assert_eq!(source(ip, true).as_deref(), Some(counted));
        }
        for ip in [
            "127.0.0.1",
            "10.1.2.3",
            "100.64.0.1",
            "169.254.0.1",
            "fd00::1",
            "fe80::1",
            "::1",
        ] {
            assert_eq!(source(ip, false), None, "{ip}");
            assert!(source(ip, true).is_some(), "{ip}");
        }
    }

    #[test]
    fn a_waiter_is_counted_until_it_ends_and_only_once() {
        let limits = Arc::new(ClientLimits {
            clients: clients(),
            max_waiters: Some(2),
            max_gets: None,
        });
        let ip = IpAddr::from([203, 0, 113, 7]);
        let client = Client::new(&limits, ip, false).expect("a public address");
        let count = || {
            client
                .count_waiter()
                .map(|counted| counted.expect("limited"))
        };
        let (first, second) = (count().expect("room"), count().expect("room"));
        assert!(count().is_err());
        first.end();
        drop(first);
        let third = count().expect("room");
        assert!(count().is_err());
        drop((second, third));
        assert_eq!(limits.clients.count(), 0);
    }
}
