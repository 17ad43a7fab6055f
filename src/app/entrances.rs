//! The entrances of the public listeners: who names their clients, and the limits of an address.

use std::sync::Arc;

use crate::config::ClientSettings;
use crate::metrics::Metrics;
use crate::net::clients::{ClientLimits, Clients};
use crate::net::entrance::Entrance;
use crate::net::proxies::Proxies;
use crate::net::tls::handshake::Tls;

/// The parts of the entrances of public listeners.
pub(super) struct Entrances {
    proxies: Option<Arc<Proxies>>,
    /// The limits on the listener without TLS.
    plain: Option<Arc<ClientLimits>>,
    /// The limits on listeners with TLS.
    tls: Arc<ClientLimits>,
}

impl Entrances {
    pub(super) fn new(settings: &ClientSettings, metrics: &Arc<Metrics>) -> Self {
        let clients = Clients::new(Arc::clone(metrics));
        let ClientSettings {
            trusted_proxies,
            max_waiters,
            max_gets,
        } = settings;
        let limits = |max_waiters, max_gets| {
            Arc::new(ClientLimits {
                clients: Arc::clone(&clients),
                max_waiters,
                max_gets,
            })
        };
        let (waiters, gets) = (max_waiters.without_tls(), max_gets.without_tls());
        let proxies = trusted_proxies.clone();
        Self {
            proxies: proxies.map(|trusted| Proxies::new(trusted, Arc::clone(metrics))),
            plain: (waiters.is_some() || gets.is_some()).then(|| limits(waiters, gets)),
            tls: limits(Some(max_waiters.max), Some(max_gets.max)),
        }
    }

    /// Returns the addresses that have limits.
    pub(super) fn clients(&self) -> &Arc<Clients> {
        &self.tls.clients
    }

    /// Returns the entrance of a listener without TLS.
    pub(super) fn plain(&self) -> Arc<Entrance> {
        Arc::new(Entrance {
            proxies: self.proxies.clone(),
            tls: None,
            limits: self.plain.clone(),
        })
    }

    /// Returns the entrance of the listeners with TLS.
    pub(super) fn with_tls(&self, tls: Arc<Tls>) -> Arc<Entrance> {
        Arc::new(Entrance {
            proxies: self.proxies.clone(),
            tls: Some(tls),
            limits: Some(Arc::clone(&self.tls)),
        })
    }
}
