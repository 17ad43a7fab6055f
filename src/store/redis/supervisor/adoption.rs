//! The steps from a new connection to one that commands are sent on: it is made and inspected, and then
//! adopted, or discarded for another one.

use std::mem;
use std::sync::Arc;

use tokio::time::Instant;
use tracing::{info, warn};

use super::owner::{CLUSTER_SETTLES, Gone, Owner, SHORT_LOSS, names};
use crate::store::redis::connect::{Connected, FoundBy, connect};
use crate::store::redis::connect_error::ConnectError;
use crate::store::redis::inspection::{Findings, MAY_DROP};
use crate::store::redis::url::Target;

/// A connection that was made and inspected, and is not used yet.
pub(super) struct Opened {
    pub(super) connected: Connected,
    pub(super) found: Findings,
    /// When its inspection began.
    well_at: Option<Instant>,
}

impl Owner {
    /// Connects, and makes the connection available to the senders of commands.
    pub(super) async fn connect(&mut self) -> Result<Connected, ConnectError> {
        let target = self.options.target.clone();
        let opened = self.open(&target).await?;
        Ok(self.adopt(opened))
    }

    /// Connects to `target`, and inspects Redis.
    pub(super) async fn open(&mut self, target: &Target) -> Result<Opened, ConnectError> {
        let timeout = self.options.timeout;
        let mut connected = connect(target, self.named.as_ref(), timeout).await?;
        // If another connection is adopted instead, Redis counts as not seen.
        let seen_before = self.well_at;
        let found = self.inspect(&mut connected).await?;
        let well_at = mem::replace(&mut self.well_at, seen_before);
        Ok(Opened {
            connected,
            found,
            well_at,
        })
    }

    /// Gives up a connection for another one. What its inspection found is found again.
    pub(super) fn discard(&mut self, opened: Opened) {
        self.canary.is_gone |= opened.found.canary_is_gone;
        self.note_writes(&opened.found);
    }

    /// Makes a connection available to the senders of commands.
    pub(super) fn adopt(&mut self, opened: Opened) -> Connected {
        let Opened {
            connected,
            found,
            well_at,
        } = opened;
        let seen_before = mem::replace(&mut self.well_at, well_at);
        for policy in found.dropping_policies() {
            warn!(policy, "{MAY_DROP}");
        }
        let (is_first, is_cluster) = (
            self.masters.is_empty(),
            matches!(connected.found_by, FoundBy::Cluster { .. }),
        );
        let gone = self.meet(found);
        let is_another = gone == Gone::Statuses && !is_first;
        let is_short =
            gone == Gone::Nothing && seen_before.is_some_and(|at| at.elapsed() <= SHORT_LOSS);
        if !is_short && is_cluster {
            self.settles = Some(Instant::now() + CLUSTER_SETTLES);
        }
        if is_another {
            self.metrics.is_another();
        }
        self.named = match &connected.found_by {
            FoundBy::Sentinels(_, master) => Some(master.clone()),
            _ => None,
        };
        let master = self.named.as_ref().map(tracing::field::display);
        info!(redis = %self.options.target, master, another_process = is_another, "connected to Redis");
        self.metrics.connected();
        self.state.send_modify(|state| {
            state.conn = Some(connected.conn.clone());
            state.servers = Arc::clone(&connected.servers);
            state.epoch += u64::from(!is_short);
            state.generation += u64::from(is_another);
            if is_first || is_another {
                state.masters = names(&self.masters);
            }
        });
        connected
    }
}
