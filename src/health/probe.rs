//! The task that sends the node its own status, the whole way.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::reach::Reach;
use super::{Health, PROBE_INTERVAL, PROBE_TIMEOUT, PathReport};
use crate::cluster::membership::Nodes;
use crate::cluster::peers::{Peer, Peers};
use crate::model::cause::Cause;
use crate::model::key::Key;
use crate::model::status::{Status, Update, Value, Version};
use crate::model::write_number::WriteNumber;
use crate::store::{Put, Store, StoreError, Stored};
use crate::wait::{End, Mailbox, Opened, Registered};
use crate::waiters::Waiters;

/// The beginning of the key of a node's own status. The node's id follows it.
const PROBE_KEY: &str = "holdfast-path-";
const PROBE_TTL: Duration = Duration::from_secs(60);
/// The time for which its key is leased. It is longer than the steps take, and so short that
/// the lease is renewed before it would be given back.
const PROBE_HOLD: Duration = Duration::from_millis(2500);

/// The task that sends the node its own status.
pub(crate) struct Probe {
    pub(crate) health: Arc<Health>,
    pub(crate) waiters: Arc<Waiters>,
    pub(crate) store: Arc<Store>,
    pub(crate) nodes: Arc<Nodes>,
    pub(crate) peers: Arc<Peers>,
    /// This node, at the address that others know.
    pub(crate) own: Peer,
    /// Its name in leases, if the store is shared.
    pub(crate) name: Option<String>,
}

impl Probe {
    /// Sends a status every few seconds.
    ///
    /// # Cancel safety
    /// It runs until it is dropped.
    pub(crate) async fn run(self) {
        let mut ticks = interval(PROBE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let key = Key::parse(&format!("{PROBE_KEY}{}", self.own.id))
            .expect("an id is made of hex digits");
        let mut last = Version::NONE;
        let mut reach = Reach::new(
            Arc::clone(&self.nodes),
            Arc::clone(&self.peers),
            key.clone(),
        );
        loop {
            let round = ticks.tick().await.into_std();
            let mut parts = PathReport::default();
            let sent = self.send(&key, &mut last, &mut parts);
            let (has_arrived, heard, is_reached) =
                tokio::join!(sent, reach.ask(), self.reach_itself());
            parts.address = if is_reached { "ok" } else { "failed" };
            parts.peers = match heard.others {
                0 => "none",
                _ if heard.unreachable.is_empty() => "ok",
                _ => "failed",
            };
            parts.unreachable.clone_from(&heard.unreachable);
            self.health.note(parts, has_arrived);
            self.health.note_peers(round, &heard);
        }
    }

    /// Returns whether this node is reached as itself at its own address. This does not use the
    /// update that is sent there, because that one waits for the store.
    async fn reach_itself(&self) -> bool {
        let reached = self.own.send(&[], PROBE_TIMEOUT).await;
        self.health.note_address(&reached, &self.own);
        reached.is_ok()
    }

    /// Sends one status, in the order of a get and of a set. Returns whether it arrived, and
    /// notes in `last` the version that is stored. It repeats the steps of sets instead of
    /// calling them, so that it can name the step that fails.
    async fn send(&self, key: &Key, last: &mut Version, parts: &mut PathReport) -> bool {
        let Some(opened) = self.open(key, last, parts).await else {
            return false;
        };
        let raw = serde_json::value::to_raw_value("path").expect("a JSON string");
        let value = Value::new(&raw, usize::MAX).expect("a good value");
        let put = Put {
            value: value.clone(),
            is_final: false,
            ttl: PROBE_TTL,
            after: None,
            before: None,
            number: WriteNumber::random(),
        };
        let stored = within(self.store.put(key, &put)).await;
        parts.store = if stored.is_ok() { "ok" } else { "failed" };
        let Ok(Stored {
            version, leases, ..
        }) = stored
        else {
            return false;
        };
        *last = version;
        if self
            .name
            .as_ref()
            .is_some_and(|name| !leases.iter().any(|lease| lease.name == *name))
        {
            parts.lease = "failed";
        }
        let sent = (
            key.clone(),
            Update::Status(Status {
                version,
                value,
                is_final: false,
            }),
        );
        if self.own.send(&[sent], PROBE_TIMEOUT).await.is_err() {
            return false;
        }
        parts.waiter = match opened.wait(Instant::now() + PROBE_TIMEOUT).await {
            End::News(news) if news.update.version() == version => "ok",
            End::News(_) => "another status came",
            _ => "nothing came",
        };
        parts.lease == "ok" && parts.waiter == "ok"
    }

    /// Registers a waiter and opens its key. The waiter goes on waiting if the store fails, so
    /// that the later steps are tried too.
    async fn open(
        &self,
        key: &Key,
        last: &mut Version,
        parts: &mut PathReport,
    ) -> Option<Opened<Mailbox>> {
        // An earlier probe may have stored a status, but had no answer. A key is leased only to
        // a waiter that knows the status under it, so it is then opened once more.
        for _ in 0..2 {
            let seen = *last;
            let registered = Registered::own(&self.waiters, key, seen, Mailbox::new(seen));
            let opened = within(self.store.open_own(key, seen.into(), PROBE_HOLD));
            let open = async {
                let opened = opened.await;
                parts.lease = if opened.is_ok() { "ok" } else { "failed" };
                // Counts as opened in every epoch, so that recovery leaves it alone.
                (u64::MAX, opened.or(Ok(None)))
            };
            let until = Instant::now() + 2 * PROBE_TIMEOUT;
            match registered.open_by(open, || (), until).await {
                Ok(opened) => return Some(opened),
                Err(End::News(news)) => *last = news.update.version(),
                Err(_) => break,
            }
        }
        parts.lease = "failed";
        None
    }
}

/// Waits for a step of the store, but for no longer than [`PROBE_TIMEOUT`], because
/// `--redis-timeout` may be far longer.
async fn within<T>(step: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    timeout(PROBE_TIMEOUT, step)
        .await
        .unwrap_or(Err(StoreError::Unknown(Cause::Late)))
}
