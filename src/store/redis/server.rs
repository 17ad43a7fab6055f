//! The Redis servers that are masters, the keys that each has, and what this node knows of the
//! clock of each.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use redis::cluster_routing::{Route, SingleNodeRoutingInfo, Slot, SlotAddr};

use super::url::Host;
use crate::runtime::clock::millis;

/// The most names that are tried to find a key of a server. A server with so few slots that none of
/// these names leads to it is left out.
const MOST_NAMES: u32 = 100_000;

/// One server.
#[derive(Debug)]
pub(super) struct Server {
    /// Its address. `None` for the one server at the other end of the connection, and for a
    /// cluster's server whose address is not known.
    pub(super) host: Option<Host>,
    pub(super) clock: ServerClock,
}

impl Server {
    pub(super) fn new(host: Option<Host>) -> Arc<Self> {
        Arc::new(Self {
            host,
            clock: ServerClock::default(),
        })
    }

    /// Returns the route to it in a cluster, for a command on `key`.
    pub(super) fn route(&self, key: &str) -> SingleNodeRoutingInfo {
        match &self.host {
            Some(Host { name, port }) => SingleNodeRoutingInfo::ByAddress {
                host: name.clone(),
                port: *port,
            },
            None => SingleNodeRoutingInfo::SpecificNode(Route::with_key(key, SlotAddr::Master)),
        }
    }
}

/// The clock of one server, as its last answer showed it.
///
/// It is not the greatest time that was seen, because a server judges a command by the clock
/// that it has now, even if that was set back.
#[derive(Debug)]
pub(super) struct ServerClock {
    start: Instant,
    /// The server's time at `start`, in ms since 1970; [`UNKNOWN`] before an answer.
    offset: AtomicI64,
    /// When the last answer came, in ms since `start`.
    answered: AtomicI64,
}

const UNKNOWN: i64 = i64::MIN;

impl Default for ServerClock {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            offset: AtomicI64::new(UNKNOWN),
            answered: AtomicI64::new(UNKNOWN),
        }
    }
}

impl ServerClock {
    /// Notes the time that an answer showed.
    pub(super) fn saw(&self, now: u64) {
        let elapsed = self.elapsed();
        self.offset
            .store(signed(now).saturating_sub(elapsed), Ordering::Relaxed);
        self.answered.store(elapsed, Ordering::Relaxed);
    }

    /// Returns whether the server has answered anything since `time`.
    pub(super) fn has_answered_since(&self, time: Instant) -> bool {
        let since = signed(millis(time.saturating_duration_since(self.start)));
        self.answered.load(Ordering::Relaxed) > since
    }

    /// Returns the server's time now, in ms since 1970; `None` before its first answer.
    pub(super) fn now(&self) -> Option<u64> {
        match self.offset.load(Ordering::Relaxed) {
            UNKNOWN => None,
            offset => Some(offset.saturating_add(self.elapsed()).max(0).unsigned_abs()),
        }
    }

    /// Returns the latest time at which a command may be carried out if it is sent now and
    /// waited for no longer than `limit`. Returns 0 before the first answer. The server then
    /// refuses the command as late, and answers its time.
    pub(super) fn until(&self, limit: Duration) -> u64 {
        self.now()
            .map_or(0, |now| now.saturating_add(millis(limit)))
    }

    fn elapsed(&self) -> i64 {
        signed(millis(self.start.elapsed()))
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The servers, and the keys that each has.
#[derive(Clone, Debug, Default)]
pub(super) struct Servers {
    /// The slots and masters that a cluster named last.
    named: Vec<SlotRange>,
    /// The server of each slot that a cluster named.
    by_slot: HashMap<Slot, Arc<Server>>,
    /// The server of all other keys. In a cluster it stands for each master whose address is not
    /// known.
    other: Option<Arc<Server>>,
}

impl Servers {
    /// Returns the one server that has every key.
    pub(super) fn one() -> Self {
        Self {
            other: Some(Server::new(None)),
            ..Self::default()
        }
    }

    /// Returns the servers of a cluster, each with what is known here of its clock; `None` if
    /// `named` is what the cluster named before.
    pub(super) fn of_cluster(&self, named: &[SlotRange]) -> Option<Self> {
        if !named.is_empty() && self.named == named {
            return None;
        }
        let mut by_host: HashMap<&Host, Arc<Server>> = HashMap::new();
        for server in self.by_slot.values() {
            by_host.extend(server.host.as_ref().map(|host| (host, Arc::clone(server))));
        }
        let mut by_slot = HashMap::new();
        for range in named {
            let new = || Server::new(Some(range.master.clone()));
            let server = by_host.entry(&range.master).or_insert_with(new);
            let slots = (range.first..=range.last).filter_map(Slot::new);
            by_slot.extend(slots.map(|slot| (slot, Arc::clone(server))));
        }
        let other = self.other.clone().unwrap_or_else(|| Server::new(None));
        Some(Self {
            named: named.to_vec(),
            by_slot,
            other: Some(other),
        })
    }

    /// Returns the server that has a key.
    pub(super) fn of_key(&self, key: &str) -> Option<Arc<Server>> {
        let named = if self.by_slot.is_empty() {
            None
        } else {
            self.by_slot.get(&Slot::for_key(key))
        };
        named.or(self.other.as_ref()).cloned()
    }

    /// Returns the least of the times that the servers show; `None` before any server has shown
    /// one.
    pub(super) fn least_time(&self) -> Option<u64> {
        self.all().filter_map(|server| server.clock.now()).min()
    }

    /// Returns whether any server has answered anything since `time`.
    pub(super) fn have_answered_since(&self, time: Instant) -> bool {
        self.all()
            .any(|server| server.clock.has_answered_since(time))
    }

    /// Returns each server that has keys, with the name of one of its keys, which begins with `begin`.
    pub(super) fn with_a_key(&self, begin: &str) -> Vec<(Arc<Server>, String)> {
        let mut found: Vec<(Arc<Server>, String)> = Vec::new();
        let several = !self.by_slot.is_empty();
        for server in self.all().filter(|server| server.host.is_some() == several) {
            let is_its = |key: &String| {
                let of_key = self.of_key(key);
                of_key.is_some_and(|of_key| Arc::ptr_eq(&of_key, server))
            };
            let is_new = found.iter().all(|(other, _)| !Arc::ptr_eq(other, server));
            let key = (0..MOST_NAMES).map(|number| format!("{begin} {number}"));
            if is_new && let Some(key) = key.into_iter().find(is_its) {
                found.push((Arc::clone(server), key));
            }
        }
        found
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Server>> {
        let named = self
            .named
            .iter()
            .filter_map(|range| self.by_slot.get(&Slot::new(range.first)?));
        named.chain(&self.other)
    }

    /// Returns the server at an address, `host:port`.
    pub(super) fn at(&self, address: &str) -> Option<Arc<Server>> {
        let range = self
            .named
            .iter()
            .find(|range| range.master.to_string() == address)?;
        self.by_slot.get(&Slot::new(range.first)?).cloned()
    }
}

/// The slots that one master of a cluster has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SlotRange {
    pub(super) first: u16,
    pub(super) last: u16,
    /// The master's id in the cluster.
    pub(super) id: String,
    pub(super) master: Host,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_the_last_answer_s_also_if_that_went_back() {
        let clock = ServerClock::default();
        assert_eq!(
            (clock.now(), clock.until(Duration::from_secs(1))),
            (None, 0)
        );
        for seen in [5_000_000, 1_000_000] {
            clock.saw(seen);
            let now = clock.now().expect("seen");
            assert!((seen..seen + 10_000).contains(&now), "{now}");
            assert!((seen + 500..seen + 10_500).contains(&clock.until(Duration::from_millis(500))));
        }
    }

    #[test]
    fn a_server_of_a_cluster_keeps_its_clock_as_slots_move() {
        let host = |name: &str| Host {
            name: name.to_owned(),
            port: 6379,
        };
        let range = |first, last, name| SlotRange {
            first,
            last,
            id: String::new(),
            master: host(name),
        };
        let before = [range(0, 9_999, "a"), range(10_000, 16_383, "b")];
        let servers = Servers::default().of_cluster(&before).expect("new");
        assert!(servers.of_cluster(&before).is_none());
        // `CLUSTER KEYSLOT foo` is 12182, that of `bar` 5061.
        let of =
            |servers: &Servers, key| servers.of_key(key).and_then(|server| server.host.clone());
        assert_eq!(
            (of(&servers, "bar"), of(&servers, "foo")),
            (Some(host("a")), Some(host("b")))
        );
        servers.at("b:6379").expect("named").clock.saw(7);
        let moved = servers
            .of_cluster(&[range(0, 16_383, "b")])
            .expect("changed");
        assert_eq!(of(&moved, "bar"), Some(host("b")));
        assert!(moved.of_key("bar").expect("named").clock.now().is_some());
        assert!(
            Servers::one()
                .of_key("bar")
                .expect("the one")
                .host
                .is_none()
        );
    }
}
