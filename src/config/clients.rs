//! The settings of clients' addresses: the proxies that name them, and their limits.

use super::declarations::{
    MAX_GETS_PER_ADDRESS, MAX_WAITERS_PER_ADDRESS, PROXY_PROTOCOL, TRUSTED_PROXY,
};
use super::reader::SettingReader;
use super::setting::Setting;
use crate::net::network::Network;

/// The proxies that name clients' addresses, and the limits of an address.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// `--trusted-proxy`; present with `--proxy-protocol`.
    pub trusted_proxies: Option<Vec<Network>>,
    /// `--max-waiters-per-address`.
    pub max_waiters: AddressLimit,
    /// `--max-gets-per-address`.
    pub max_gets: AddressLimit,
}

/// A limit of an address.
#[derive(Clone, Copy, Debug)]
pub struct AddressLimit {
    /// The limit.
    pub max: usize,
    /// Whether it holds on all public listeners. Otherwise it holds only on those with TLS: behind
    /// a proxy that does not name its clients, they all have the address of the proxy.
    pub is_for_all: bool,
}

impl AddressLimit {
    /// Returns the limit on the listener without TLS, if it holds there.
    pub(crate) fn without_tls(self) -> Option<usize> {
        self.is_for_all.then_some(self.max)
    }
}

pub(super) fn read(reader: &mut SettingReader) -> ClientSettings {
    let trusted = reader.list(&TRUSTED_PROXY);
    let is_named = reader.value(&PROXY_PROTOCOL);
    if is_named && reader.texts(&TRUSTED_PROXY).is_empty() {
        reader.note("--proxy-protocol: needs --trusted-proxy".to_owned());
    }
    let mut limit = |setting: &Setting<usize>| AddressLimit {
        max: reader.value(setting),
        is_for_all: is_named || reader.is_given(setting),
    };
    ClientSettings {
        max_waiters: limit(&MAX_WAITERS_PER_ADDRESS),
        max_gets: limit(&MAX_GETS_PER_ADDRESS),
        trusted_proxies: is_named.then_some(trusted),
    }
}
