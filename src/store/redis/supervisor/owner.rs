//! The task that owns the connection.

use std::collections::HashSet;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tracing::{debug, error, info, warn};

use super::outage::Outage;
use super::renewal::Renewal;
use super::{ConnectionState, SupervisorOptions};
use crate::log::Seldom;
use crate::runtime::clock::Clock;
use crate::store::redis::LEASE_MARGIN;
use crate::store::redis::canary::Canary;
use crate::store::redis::connect::{Connected, FoundBy};
use crate::store::redis::drift::Drift;
use crate::store::redis::inspection::{Findings, Trouble, inspect};
use crate::store::redis::metrics::RedisMetrics;
use crate::store::redis::script::Scripts;
use crate::store::redis::url::Host;

/// The time between two inspections while nobody complains.
pub(super) const INSPECTION_INTERVAL: Duration = Duration::from_secs(1);
/// The shortest time between two inspections, so that complaints that come together lead to one.
const LEAST_INSPECTION_INTERVAL: Duration = Duration::from_millis(50);
/// The first pause between two tries to connect. Each pause is shortened by up to a half, at
/// random, so that nodes that lost Redis together do not come back together.
const FIRST_REST: Duration = Duration::from_millis(50);
/// The longest such pause.
const MAX_REST: Duration = Duration::from_millis(500);
/// The time after which the reason why there is no connection is logged again.
pub(super) const FAILURE_LOG_INTERVAL: Duration = Duration::from_secs(60);
/// The longest loss of a connection to the same Redis process after which keys need not be opened
/// again. The leases are still there, and other nodes keep what they could not send meanwhile. To
/// open all keys again would give an overloaded machine more to do each time that Redis is late.
pub(super) const SHORT_LOSS: Duration = Duration::from_secs(5);
/// The most inspections in a row that may get no answer in time while Redis answers other commands.
/// There is a limit, because only an inspection finds out that Redis was emptied, or is not the
/// master any more.
const MOST_LATE_INSPECTIONS: u32 = 10;
/// The time after connecting to a cluster at which all keys are opened and all kept updates are put
/// once more. Right after a failover some nodes may not know of it yet, and what they sent to the
/// old master may be lost.
pub(super) const CLUSTER_SETTLES: Duration = Duration::from_secs(15);

/// The owner of the connection, and what it knows of Redis.
pub(super) struct Owner {
    pub(super) options: SupervisorOptions,
    pub(super) scripts: Arc<Scripts>,
    /// The greatest time of Redis's clock that this node knows of.
    pub(super) clock: Arc<Clock>,
    pub(super) metrics: Arc<RedisMetrics>,
    pub(super) state: watch::Sender<ConnectionState>,
    pub(super) complaints: Arc<Notify>,
    /// Reports that the files of Redis may have changed.
    pub(super) renewals: Arc<Notify>,
    /// The masters of the last inspection.
    pub(super) masters: HashSet<String>,
    /// The last master that sentinels named and that this node connected to.
    pub(super) named: Option<Host>,
    pub(super) canary: Canary,
    /// The measure of how much of the leases' margin Redis's clock has used up.
    pub(super) drift: Drift,
    pub(super) start: Instant,
    /// The time that the last inspection took.
    pub(super) took: Duration,
    /// When the last inspection began during which Redis answered.
    pub(super) well_at: Option<Instant>,
    pub(super) renewal: Renewal,
    /// The rate limit of log lines about refused commands of inspections.
    pub(super) refusals_logged: Seldom,
    /// When all keys are opened and all kept updates are put once more: see [`CLUSTER_SETTLES`].
    pub(super) settles: Option<Instant>,
}

/// The losses that are possible since the last inspection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Gone {
    Nothing,
    /// Leases may have ended too early, because Redis's clock was set forward or runs too fast.
    Leases,
    /// Statuses may be lost: Redis is a process that was not seen before, or was emptied.
    Statuses,
}

/// The reason why a connection is not supervised any more.
enum End {
    /// It is of no use. The text is for people.
    Gone(String),
    /// The cluster has masters that the connection may not know.
    OtherMasters,
}

impl Owner {
    /// Connects, and connects again whenever the connection is of no use any more.
    pub(super) async fn run(mut self) {
        let mut rest = FIRST_REST;
        let mut outage = None;
        while !self.state.is_closed() {
            match self.begin().await {
                Ok(connected) => {
                    (rest, outage) = (FIRST_REST, None);
                    match self.watch(connected).await {
                        End::Gone(why) => {
                            self.state.send_modify(|state| state.conn = None);
                            warn!(%why, "lost the connection to Redis");
                        }
                        // The present connection is used until there is a better one.
                        End::OtherMasters => info!("the masters of the cluster have changed"),
                    }
                }
                Err(error) => {
                    self.state.send_modify(|state| state.conn = None);
                    let outage = outage.get_or_insert_with(Outage::default);
                    outage.note(error, &self.options);
                    sleep(rest.mul_f64(rand::random_range(0.5..=1.0))).await;
                    rest = (rest * 2).min(MAX_REST);
                }
            }
        }
    }

    /// Inspects Redis until the connection has to be replaced. Returns the reason.
    async fn watch(&mut self, mut connected: Connected) -> End {
        let mut ticks = interval(INSPECTION_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.reset();
        let complaints = Arc::clone(&self.complaints);
        let state = self.state.clone();
        let mut late_inspections = 0;
        let mut missing = Vec::new();
        let renewals = Arc::clone(&self.renewals);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = complaints.notified() => {}
                () = renewals.notified() => self.renewal.is_asked = true,
                () = state.closed() => return End::Gone("the node ends".into()),
            }
            let began = Instant::now();
            if let FoundBy::Sentinels(sentinels, master) = &mut connected.found_by
                && let Some(other) = sentinels.other_master(master).await
            {
                return End::Gone(format!(
                    "the sentinels name {other} as the master instead of {master}"
                ));
            }
            let inspected = self.inspect(&mut connected).await;
            let gone = match inspected {
                Ok(found) if found.has_other_masters => return End::OtherMasters,
                Ok(mut found) => {
                    late_inspections = 0;
                    missing = mem::take(&mut found.missing);
                    if matches!(connected.found_by, FoundBy::Sentinels(..)) {
                        self.renewal.log_missing_sentinels(&missing);
                    }
                    self.meet(found)
                }
                // Redis is slow, not gone. A new connection would be no quicker, and all held
                // gets would be opened again.
                Err(Trouble::Late)
                    if late_inspections < MOST_LATE_INSPECTIONS
                        && self.answered_lately(&connected, began) =>
                {
                    debug!("Redis answers, but an inspection of it had no answer in time");
                    late_inspections += 1;
                    self.well_at = Some(began);
                    Gone::Nothing
                }
                Err(Trouble::Refused(why)) => {
                    if self.refusals_logged.admit().is_some() {
                        error!(error = why, redis = %self.options.target, "inspection of Redis refused");
                    }
                    Gone::Nothing
                }
                Err(trouble) => return End::Gone(trouble.to_string()),
            };
            self.state.send_if_modified(|state| {
                let is_other = !Arc::ptr_eq(&state.servers, &connected.servers);
                state.servers = Arc::clone(&connected.servers);
                is_other
            });
            let has_settled = self.settles.take_if(|at| *at <= began).is_some();
            // Lost statuses are announced first, because a renewal may take long.
            self.announce(gone, has_settled);
            if self.renewal.is_due(&missing)
                && let Some(renewed) = self.renewed(&missing).await
            {
                connected = renewed;
            }
            sleep(LEAST_INSPECTION_INTERVAL.saturating_sub(began.elapsed())).await;
        }
    }

    /// Reports what may be lost to the log, the metrics and the rest of the node. After
    /// [`CLUSTER_SETTLES`], everything counts as lost once more.
    fn announce(&self, gone: Gone, has_settled: bool) {
        match gone {
            Gone::Statuses => {
                self.metrics.is_another();
                warn!("Redis was replaced, restarted or emptied");
            }
            Gone::Leases => warn!("Redis's clock was set forward, or runs too fast"),
            Gone::Nothing if has_settled => {}
            Gone::Nothing => return,
        }
        let is_new_generation = gone == Gone::Statuses || has_settled;
        self.state.send_modify(|state| {
            state.epoch += 1;
            if is_new_generation {
                state.generation += 1;
                state.masters = names(&self.masters);
            }
        });
    }

    pub(super) async fn inspect(&mut self, connected: &mut Connected) -> Result<Findings, Trouble> {
        let began = Instant::now();
        let found = inspect(
            connected,
            &mut self.canary,
            &self.scripts.write,
            self.options.timeout,
        )
        .await;
        self.took = began.elapsed();
        if found.is_ok() {
            self.well_at = Some(began);
        }
        found
    }

    /// Returns whether Redis answered any command in time since shortly before an inspection that
    /// began at `began`. The time of the inspection alone would be too short: late answers do not
    /// count, and commands that were sent together are late together.
    fn answered_lately(&self, connected: &Connected, began: Instant) -> bool {
        let since = began.checked_sub(self.options.timeout).unwrap_or(began);
        connected.servers.have_answered_since(since.into())
    }

    /// Notes whether Redis takes writes again.
    pub(super) fn note_writes(&self, found: &Findings) {
        if found.takes_writes_again {
            // Recovery may be in a long pause between two tries. A change of the state ends the
            // pause.
            self.state.send_modify(|_| {});
            info!("Redis takes writes again");
        }
    }

    /// Notes the findings of an inspection. Returns what may be lost.
    pub(super) fn meet(&mut self, found: Findings) -> Gone {
        self.note_writes(&found);
        let is_another = found
            .masters
            .iter()
            .any(|master| !self.masters.contains(master));
        // A master of a cluster that did not answer this time counts as a new one when it
        // answers again. That does no harm.
        self.masters = found.masters;
        let now = found.now.unwrap_or(0);
        self.clock.saw(now);
        if is_another || found.canary_is_gone {
            self.drift.reset();
            return Gone::Statuses;
        }
        let is_ahead = found.now.is_some_and(|now| {
            self.drift.note(
                Duration::from_millis(now),
                self.start.elapsed(),
                self.took,
                LEASE_MARGIN,
            )
        });
        if is_ahead {
            Gone::Leases
        } else {
            Gone::Nothing
        }
    }
}

/// Returns the masters in one text, which is the same on each node.
pub(super) fn names(masters: &HashSet<String>) -> Arc<str> {
    let mut names: Vec<_> = masters.iter().map(String::as_str).collect();
    names.sort_unstable();
    names.join(",").into()
}
