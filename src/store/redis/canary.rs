//! The canary: a hash by which a node notices that Redis was emptied, or does not run scripts.

use std::time::{Duration, Instant};

use redis::{ErrorKind, RedisError, ServerErrorKind, Value, cmd, from_redis_value};
use tokio::time::timeout;

use super::conn::Conn;
use super::inspection::Trouble;
use super::script::{Argument, Script, To};
use super::server::{Server, Servers};
use crate::runtime::clock::millis;

/// The life of the canary. Redis may refuse writes for this long, and the node still notices if
/// it was emptied meanwhile.
const CANARY_TTL: Duration = Duration::from_secs(600);
/// The time before its end at which a canary that could not be renewed counts as ended, because
/// the clocks differ.
const CANARY_MARGIN: Duration = Duration::from_secs(10);
/// The number of times that an inspection tries to write the canary: after the known version, after
/// an own write that came late, and anew.
const CANARY_TRIES: usize = 4;

/// A hash of this node's own. By it the node notices that Redis was emptied, or that scripts may
/// not be run in it.
#[derive(Debug)]
pub(super) struct Canary {
    key: String,
    /// The last version that is known to be written. 0 if there is none yet, or if the canary
    /// may have ended.
    version: i64,
    /// When it was written.
    written: Option<Instant>,
    /// Whether the canary was not there any more, and no inspection has reported that yet.
    pub(super) is_gone: bool,
    /// Whether the last write was refused.
    pub(super) is_refused: bool,
}

impl Canary {
    /// Creates a canary that was not written yet.
    pub(super) const fn new(key: String) -> Self {
        Self {
            key,
            version: 0,
            written: None,
            is_gone: false,
            is_refused: false,
        }
    }

    /// Writes the canary if it is unchanged, and notes if it is not. Returns the time of the
    /// server that has it, if that server answers.
    pub(super) async fn write(
        &mut self,
        conn: &mut Conn,
        servers: &Servers,
        write: &Script,
        limit: Duration,
    ) -> Result<Option<u64>, Trouble> {
        let is_cluster = matches!(conn, Conn::Cluster(_));
        let Some(server) = servers.of_key(&self.key) else {
            return Ok(None);
        };
        let (to, ttl) = (
            To {
                server: &server,
                asking: false,
            },
            millis(CANARY_TTL),
        );
        for _ in 0..CANARY_TRIES {
            let after: &dyn Argument = if self.version == 0 {
                &""
            } else {
                &self.version
            };
            let args: [&dyn Argument; 8] = [&ttl, after, &0, &"", &"", &"", &0, &"1"];
            let answer = match timeout(limit, write.run(conn, to, &self.key, &args)).await {
                Ok(Ok(answer)) => answer,
                // In a cluster only the keys of a failed master are unreachable, and the canary
                // is just one key.
                Ok(Err(error)) if is_cluster && is_of_one_node(&error) => return Ok(None),
                Err(_) if is_cluster => return Ok(None),
                Ok(Err(error)) if refuses_writes(&error) => {
                    // The canary may end before it can be renewed, and then its absence proves
                    // nothing. Until then it still proves that Redis was emptied, which an
                    // operator may do who finds Redis full.
                    if self
                        .written
                        .is_none_or(|at| at.elapsed() + CANARY_MARGIN >= CANARY_TTL)
                    {
                        self.version = 0;
                    }
                    self.is_refused = true;
                    return time(conn, &server, &self.key, limit).await.map(Some);
                }
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => return Err(Trouble::Late),
            };
            let number = |at: usize| {
                answer
                    .get(at)
                    .and_then(|value| from_redis_value::<i64>(value.clone()).ok())
            };
            let (kind, version) = (answer.get(1), number(2).unwrap_or(0));
            let now = number(0).and_then(|now| now.try_into().ok());
            if matches!(kind, Some(Value::BulkString(kind)) if kind == b"stored") {
                (self.version, self.written, self.is_refused) =
                    (version, Some(Instant::now()), false);
                now.inspect(|now| server.clock.saw(*now));
                return Ok(now);
            }
            // Nobody else writes here, and every write but the first is conditional on the last
            // known version. So a newer version is an earlier write of ours whose answer came
            // too late: continue from it.
            let is_own = self.version != 0 && version > self.version;
            // Otherwise the canary is written anew, whatever is there now, which may be nothing.
            self.version = if is_own { version } else { 0 };
            self.is_gone |= !is_own;
        }
        Err(Trouble::Lost("the canary cannot be written".into()))
    }
}

/// Asks a server for its time, in ms since 1970, and notes it.
async fn time(
    conn: &mut Conn,
    server: &Server,
    key: &str,
    limit: Duration,
) -> Result<u64, Trouble> {
    let answer = timeout(limit, conn.ask(cmd("TIME"), server, key, false))
        .await
        .map_err(|_| Trouble::Late)??;
    let (seconds, micros): (u64, u64) = from_redis_value(answer)
        .map_err(|_| Trouble::Lost("TIME was answered with no time".into()))?;
    let now = seconds.saturating_mul(1000).saturating_add(micros / 1000);
    server.clock.saw(now);
    Ok(now)
}

/// Returns whether an error says that Redis refuses to write. It may still answer reads.
fn refuses_writes(error: &RedisError) -> bool {
    matches!(error.code(), Some("OOM" | "NOREPLICAS" | "MISCONF"))
}

/// Returns whether an error concerns only one node of a cluster.
fn is_of_one_node(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::Io | ErrorKind::ClusterConnectionNotFound => true,
        ErrorKind::Server(kind) => {
            use ServerErrorKind::{
                Ask, BusyLoading, ClusterDown, MasterDown, Moved, ReadOnly, TryAgain,
            };
            matches!(
                kind,
                Ask | BusyLoading | ClusterDown | MasterDown | Moved | ReadOnly | TryAgain
            )
        }
        _ => false,
    }
}
