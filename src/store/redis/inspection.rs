//! An inspection of Redis. It finds out whether masters carry out commands and scripts, and which
//! processes they are.

use std::collections::HashSet;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use redis::RedisError;
use thiserror::Error;

use super::canary::Canary;
use super::conn::words;
use super::connect::Connected;
use super::masters::{Infos, infos};
use super::missing::Missing;
use super::script::Script;

/// The findings of an inspection.
pub(super) struct Findings {
    /// The masters that answered, each as its run id and replication id. The run id is that of a
    /// process. The replication id changes when the process becomes a master.
    pub(super) masters: HashSet<String>,
    pub(super) policies: HashSet<String>,
    /// Redis's time, in ms since 1970.
    pub(super) now: Option<u64>,
    /// Whether the canary that an earlier inspection wrote is not there any more.
    pub(super) canary_is_gone: bool,
    /// Whether a cluster names masters that it did not name when the connection was made. The
    /// library learns of a new master only from a command that fails. A master to which no key
    /// of this node leads at present would stay unknown, and so would the loss of its statuses.
    pub(super) has_other_masters: bool,
    /// The masters of a cluster that do not answer, or refuse. Or the sentinels that cannot be asked.
    pub(super) missing: Vec<Missing>,
    /// Whether Redis takes writes, after it refused them at the last inspection.
    pub(super) takes_writes_again: bool,
}

/// The warning about a `maxmemory-policy` other than `noeviction`.
pub(super) const MAY_DROP: &str =
    "Redis may drop statuses when its memory is full: set maxmemory-policy to noeviction";

impl Findings {
    /// Returns each `maxmemory-policy` by which a master may drop statuses.
    pub(super) fn dropping_policies(&self) -> impl Iterator<Item = &String> {
        let policies = self.policies.iter();
        policies.filter(|policy| *policy != "noeviction")
    }
}

/// The reason why an inspection failed. The texts are for people.
#[derive(Debug, Error)]
pub(super) enum Trouble {
    /// Redis cannot be used over this connection.
    #[error("{0}")]
    Lost(String),
    #[error("no master of the cluster answers")]
    NoMaster,
    #[error("it does not answer in time")]
    Late,
    /// Redis refused a command. The connection is good.
    #[error("{0}")]
    Refused(String),
}

impl From<RedisError> for Trouble {
    fn from(error: RedisError) -> Self {
        if error.code() == Some("NOAUTH") {
            Self::Lost(format!("Redis asks for a password: {}", words(&error)))
        } else if ends_connection(&error) {
            Self::Lost(words(&error))
        } else {
            Self::Refused(words(&error))
        }
    }
}

/// Returns whether an error says that this connection is of no use. Any other error that Redis
/// itself answers concerns one command.
pub(super) fn ends_connection(error: &RedisError) -> bool {
    match error.code() {
        Some(code) => matches!(
            code,
            "READONLY" | "NOAUTH" | "WRONGPASS" | "LOADING" | "MASTERDOWN"
        ),
        None => true,
    }
}

/// Inspects Redis, and notes which servers of a cluster have which keys.
///
/// # Errors
/// Returns why Redis cannot be used now.
pub(super) async fn inspect(
    connected: &mut Connected,
    canary: &mut Canary,
    write: &Script,
    limit: Duration,
) -> Result<Findings, Trouble> {
    let Connected {
        conn,
        found_by,
        servers,
    } = connected;
    let (mut asked, was_refused) = (conn.clone(), canary.is_refused);
    let (infos, written) = tokio::join!(
        infos(&mut asked, found_by, limit),
        canary.write(conn, servers, write, limit)
    );
    let (
        Infos {
            infos,
            slots,
            has_other_masters,
            missing,
        },
        now,
    ) = match (infos, written) {
        // INFO had no answer in time, but the write of the canary has shown that the connection
        // is of no use.
        (Err(Trouble::Late), Err(lost @ Trouble::Lost(_))) => return Err(lost),
        (infos, written) => (infos?, written?),
    };
    if let Some(changed) = slots.and_then(|slots| servers.of_cluster(&slots)) {
        *servers = Arc::new(changed);
    }
    let canary_is_gone = mem::take(&mut canary.is_gone);
    let takes_writes_again = was_refused && !canary.is_refused;
    let (masters, policies) = (HashSet::new(), HashSet::new());
    let mut found = Findings {
        masters,
        policies,
        now,
        canary_is_gone,
        has_other_masters,
        missing,
        takes_writes_again,
    };
    for info in infos {
        found.masters.insert(format!(
            "{}/{}",
            field(&info, "run_id"),
            field(&info, "master_replid")
        ));
        let policy = field(&info, "maxmemory_policy");
        found
            .policies
            .extend((!policy.is_empty()).then(|| policy.to_owned()));
    }
    Ok(found)
}

/// Returns whether a server of this role cannot be written to. KeyDB's `active-replica` can, and some
/// proxies do not say a role at all.
pub(super) fn is_replica(role: &str) -> bool {
    matches!(role, "slave" | "replica" | "sentinel")
}

/// Returns a field of the answer to INFO; an empty text if the field is not there.
pub(super) fn field<'a>(info: &'a str, name: &str) -> &'a str {
    info.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .unwrap_or_default()
}
