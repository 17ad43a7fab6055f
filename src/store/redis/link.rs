//! The link to Redis, and the one task that owns it: it resolves, connects, looks every second whether all is well,
//! and resolves again where it is not.
//!
//! Everyone else asks [`Link::conn`], and complains where a command failed in a way that may be the link's fault.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tracing::{error, info, warn};

use super::conn::Conn;
use super::connect::{Connected, ToldBy, connect};
use super::look::{Canary, Found, look};
use super::script::Scripts;
use super::url::Target;
use crate::clock::{Clock, millis};
use crate::metrics::Metrics;

/// How often a link is looked at that nobody complains of.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Complaints that come together are one.
const LEAST_LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Between two tries to connect, at first and at most; each is shortened by up to a half, by chance, so that nodes
/// that lost it together do not come back together.
const FIRST_REST: Duration = Duration::from_millis(50);
const MAX_REST: Duration = Duration::from_millis(500);
/// A time that is this far ahead of what was expected was set forward, and leases ended by it.
const STEP: Duration = Duration::from_secs(1);
/// In a cluster that has just failed over some nodes may not know it yet; what went to an old master until then is
/// looked after once more, this long after connecting.
const CLUSTER_SETTLES: Duration = Duration::from_secs(15);

/// How the link is.
#[derive(Clone, Default)]
pub(super) struct State {
    /// Where to send commands, while there is somewhere.
    pub(super) conn: Option<Conn>,
    /// Grows whenever what gets have opened may be gone, or sets may have been missed: with each connection, and
    /// with [`State::process`]. 0 before the first connection.
    pub(super) epoch: u64,
    /// Grows whenever statuses may be gone: with a Redis process that was not seen before, or was emptied.
    pub(super) process: u64,
}

/// How to reach Redis.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) target: Target,
    /// Of one command, and of connecting.
    pub(super) timeout: Duration,
    /// A hash of this node's own.
    pub(super) canary: String,
}

/// The link as its users see it.
pub(super) struct Link {
    state: watch::Receiver<State>,
    complaints: Arc<Notify>,
}

impl Link {
    /// Starts the task that owns the link. It ends when the link is dropped.
    pub(super) fn spawn(options: Options, scripts: Arc<Scripts>, clock: Arc<Clock>, metrics: Arc<Metrics>) -> Self {
        let (sender, state) = watch::channel(State::default());
        let complaints = Arc::new(Notify::new());
        let canary = Canary::new(options.canary.clone());
        let masters = HashSet::new();
        let owner = Owner {
            options,
            scripts,
            clock,
            metrics,
            state: sender,
            complaints: Arc::clone(&complaints),
            masters,
            canary,
        };
        tokio::spawn(owner.run());
        Self { state, complaints }
    }

    /// Where to send a command, if anywhere, and to which process.
    pub(super) fn conn(&self) -> Option<(Conn, u64)> {
        let state = self.state.borrow();
        state.conn.clone().map(|conn| (conn, state.process))
    }

    /// How the link is, and how it will be.
    pub(super) fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// A command failed in a way that may be the link's fault.
    pub(super) fn complain(&self) {
        self.complaints.notify_one();
    }
}

/// Connects once, and says what is wrong with the Redis that is there.
///
/// # Errors
/// A text for people, without a password.
pub(super) async fn check(options: Options, scripts: Arc<Scripts>) -> Result<(), String> {
    let mut connected = connect(&options.target, options.timeout).await?;
    let mut canary = Canary::new(options.canary);
    look(&mut connected, &mut canary, &scripts.write, options.timeout).await.map(drop)
}

struct Owner {
    options: Options,
    scripts: Arc<Scripts>,
    /// What this node remembers of Redis's clock.
    clock: Arc<Clock>,
    metrics: Arc<Metrics>,
    state: watch::Sender<State>,
    complaints: Arc<Notify>,
    /// The masters of the last look.
    masters: HashSet<String>,
    canary: Canary,
}

/// What may be gone since the last look.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Gone {
    Nothing,
    /// Leases: the clock was set forward.
    Leases,
    /// All that was not heard by a process that was not met before, or was in one that was emptied.
    Statuses,
}

/// Why a link is not looked at any more.
enum End {
    /// It is of no use; for people.
    Gone(String),
    /// The cluster has masters that the connection may not know.
    OtherMasters,
}

impl Owner {
    async fn run(mut self) {
        let mut rest = FIRST_REST;
        let mut told = String::new();
        while !self.state.is_closed() {
            match self.begin().await {
                Ok(connected) => {
                    (rest, told) = (FIRST_REST, String::new());
                    match self.watch(connected).await {
                        End::Gone(why) => {
                            self.state.send_modify(|state| state.conn = None);
                            warn!(%why, "Redis is gone");
                        }
                        // What is there is good until there is something better.
                        End::OtherMasters => info!("the cluster has other masters"),
                    }
                }
                Err(why) => {
                    self.state.send_modify(|state| state.conn = None);
                    if why != told {
                        error!(%why, redis = %self.options.target, "no Redis; trying again and again");
                        told = why;
                    }
                    sleep(rest.mul_f64(rand::random_range(0.5..=1.0))).await;
                    rest = (rest * 2).min(MAX_REST);
                }
            }
        }
    }

    /// Connects, looks whether all is well, and lets the others use it.
    async fn begin(&mut self) -> Result<Connected, String> {
        let mut connected = connect(&self.options.target, self.options.timeout).await?;
        let found = self.look(&mut connected).await?;
        for policy in found.policies.iter().filter(|policy| *policy != "noeviction") {
            warn!(policy, "Redis may drop statuses when its memory is full: set maxmemory-policy to noeviction");
        }
        let is_first = self.masters.is_empty();
        let is_another = self.meet(found) == Gone::Statuses && !is_first;
        if is_another {
            self.metrics.redis_is_another();
        }
        let master = match &connected.told_by {
            ToldBy::Sentinels(_, master) => Some(tracing::field::display(master)),
            _ => None,
        };
        info!(redis = %self.options.target, master, another_process = is_another, "connected to Redis");
        self.metrics.redis_connected();
        self.state.send_modify(|state| {
            state.conn = Some(connected.conn.clone());
            state.epoch += 1;
            state.process += u64::from(is_another);
        });
        Ok(connected)
    }

    /// Looks at the link until it is not well; says why.
    async fn watch(&mut self, mut connected: Connected) -> End {
        let mut ticks = interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.reset();
        let complaints = Arc::clone(&self.complaints);
        let state = self.state.clone();
        let mut settles = matches!(connected.told_by, ToldBy::Cluster(_)).then(|| Instant::now() + CLUSTER_SETTLES);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = complaints.notified() => {}
                () = state.closed() => return End::Gone("the node ends".into()),
            }
            let began = Instant::now();
            if let ToldBy::Sentinels(sentinels, master) = &mut connected.told_by
                && let Some(other) = sentinels.other_master(master).await
            {
                return End::Gone(format!("the sentinels name {other} as the master instead of {master}"));
            }
            let gone = match self.look(&mut connected).await {
                Ok(found) if found.has_other_masters => return End::OtherMasters,
                Ok(found) => self.meet(found),
                Err(why) => return End::Gone(why),
            };
            let has_settled = settles.take_if(|at| *at <= began).is_some();
            match gone {
                Gone::Statuses => {
                    self.metrics.redis_is_another();
                    warn!("another Redis process, or an emptied one");
                }
                Gone::Leases => warn!("Redis's clock was set forward"),
                Gone::Nothing => {}
            }
            if gone != Gone::Nothing || has_settled {
                self.state.send_modify(|state| {
                    state.epoch += 1;
                    state.process += u64::from(gone == Gone::Statuses || has_settled);
                });
            }
            sleep(LEAST_LOOK_INTERVAL.saturating_sub(began.elapsed())).await;
        }
    }

    async fn look(&mut self, connected: &mut Connected) -> Result<Found, String> {
        look(connected, &mut self.canary, &self.scripts.write, self.options.timeout).await
    }

    /// Notes what was found; tells what may be gone.
    fn meet(&mut self, found: Found) -> Gone {
        let is_another = found.masters.iter().any(|master| !self.masters.contains(master));
        // Of a cluster's masters one may not have answered this time; that it does next time is no harm.
        self.masters = found.masters;
        let expected = self.clock.known();
        let now = found.now.unwrap_or(0);
        self.clock.saw(now);
        if is_another || found.canary_is_gone {
            return Gone::Statuses;
        }
        if now > expected.saturating_add(millis(STEP)) { Gone::Leases } else { Gone::Nothing }
    }
}
