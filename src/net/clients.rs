//! The addresses of clients, and what each of them may take: waiters, and gets a second. Both
//! limits are for clients that crowd out others. The limits of the node hold beside them.
//!
//! An address that may stand for many clients has no limit: private, shared and loopback addresses,
//! unless a trusted proxy says that they are a client's. Of IPv6, the first 64 bits count, because
//! one client has all addresses that begin with them.

mod table;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tracing::warn;

use self::table::{MAX_IDLE, Source, Table, Taken};
use crate::log::Seldom;
use crate::metrics::{Limit, Metrics};
use crate::net::exposure::is_public;

/// The time in which at most one warning of a kind is logged.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// All addresses that are known.
#[derive(Debug)]
pub(crate) struct Clients {
    table: Table,
    metrics: Arc<Metrics>,
    full_of_waiters: Seldom,
    full_of_gets: Seldom,
    full_of_addresses: Seldom,
    floods: Seldom,
}

impl Clients {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            table: Table::new(),
            metrics,
            full_of_waiters: Seldom::each(WARNING_INTERVAL),
            full_of_gets: Seldom::each(WARNING_INTERVAL),
            full_of_addresses: Seldom::each(WARNING_INTERVAL),
            floods: Seldom::each(WARNING_INTERVAL),
        })
    }

    /// Returns how many addresses are known. Takes each lock in turn, so it is for metrics only.
    pub(crate) fn count(&self) -> usize {
        self.table.count()
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

    /// Reports that a connection of this client was ended as a flood of HTTP/2.
    pub(crate) fn report_flood(&self) {
        if let Some(left_out) = self.limits.clients.floods.admit() {
            let address = self.source;
            warn!(%address, left_out, "a client sent too much that only makes work over HTTP/2: its connection was closed");
        }
    }

    /// Counts a get. Returns whether it may be answered. If not, it is to be answered busy.
    pub(crate) fn may_get(&self) -> bool {
        let ClientLimits {
            clients, max_gets, ..
        } = &*self.limits;
        let Some(max) = *max_gets else {
            return true;
        };
        match clients.table.take_get(self.source, max) {
            Taken::Allowed => return true,
            Taken::TooMany => {}
            Taken::NotCounted => {
                clients.metrics.limit_hit(Limit::Addresses);
                if let Some(left_out) = clients.full_of_addresses.admit() {
                    warn!(
                        limit = MAX_IDLE,
                        left_out, "too many client addresses: gets of further ones are not counted"
                    );
                }
                return true;
            }
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
        if clients.table.take_waiter(self.source, max) {
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

/// The error if an address has as many waiters as it may have.
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
            self.clients.table.give_back_waiter(self.source);
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
