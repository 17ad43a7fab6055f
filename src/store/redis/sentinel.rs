//! Asks sentinels which server is the master now. All are asked, each on a connection that is
//! kept. A server that they name is believed only if it says itself that it is a master.

use std::cmp::Reverse;
use std::time::Duration;

use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::{RedisError, cmd};
use tokio::time::timeout;

use super::conn::open;
use super::connect_error::ConnectError;
use super::url::{Host, Target};

/// The sentinels of one master.
pub(super) struct Sentinels {
    target: Target,
    name: String,
    limit: Duration,
    /// The connection to each sentinel, if there is one.
    conns: Vec<Option<MultiplexedConnection>>,
}

impl Sentinels {
    pub(super) fn new(target: Target, name: String, limit: Duration) -> Self {
        let conns = target.hosts.iter().map(|_| None).collect();
        Self {
            target,
            name,
            limit,
            conns,
        }
    }

    /// Connects to the server that is the master, by its own word. `before` is the master of the
    /// connection before this one. It is tried first unless the sentinels have another, because
    /// a connection that breaks does not mean that its server has failed.
    pub(super) async fn connect(
        &mut self,
        before: Option<&Host>,
    ) -> Result<(MultiplexedConnection, Host), ConnectError> {
        let named = self.ask().await;
        let mut why = ConnectError::NoMaster;
        let mut masters: Vec<_> = named.iter().collect();
        // The server that most of them name comes first. Each server is tried once.
        masters.sort_by_key(|host| (Reverse(votes(&named, host)), host.to_string()));
        masters.dedup();
        if let Some(before) = before
            && self.voted_out(before, &named).is_none()
        {
            masters.retain(|host| *host != before);
            masters.insert(0, before);
        }
        for master in masters {
            let mut conn = match open(&self.target, master, self.limit).await {
                Ok(conn) => conn,
                Err(error) => {
                    why = error;
                    continue;
                }
            };
            let role = timeout(self.limit, role(&mut conn)).await;
            match role {
                Ok(Ok(role)) if role == "master" => return Ok((conn, master.clone())),
                Ok(Ok(role)) => why = ConnectError::NotAMaster(master.clone(), role),
                Ok(Err(error)) => why = ConnectError::of_server(master, &error),
                Err(_) => why = ConnectError::NoAnswer(master.clone()),
            }
        }
        Err(why)
    }

    /// Returns the server that more than half of the configured sentinels name instead of `master`.
    /// Sentinels that do not answer count as naming `master`: one with an old view must not lead
    /// away from a master that works.
    pub(super) async fn other_master(&mut self, master: &Host) -> Option<Host> {
        let named = self.ask().await;
        self.voted_out(master, &named).cloned()
    }

    /// Returns the same as [`Sentinels::other_master`]. `named` is the server that each
    /// answering sentinel names.
    fn voted_out<'a>(&self, master: &Host, named: &'a [Host]) -> Option<&'a Host> {
        let others = named.iter().filter(|named| *named != master);
        let other = others.max_by_key(|host| votes(named, host))?;
        (votes(named, other) * 2 > self.conns.len()).then_some(other)
    }

    /// Returns the server that each answering sentinel names.
    async fn ask(&mut self) -> Vec<Host> {
        let Self {
            target,
            name,
            limit,
            conns,
        } = self;
        let (target, name, limit) = (&*target, &*name, *limit);
        let asked = target.hosts.iter().zip(conns).map(async |(host, conn)| {
            let answer = timeout(limit, ask_one(target, name, host, conn, limit)).await;
            if !matches!(answer, Ok(Ok(_))) {
                *conn = None;
            }
            answer.ok()?.ok()?
        });
        join_all(asked).await.into_iter().flatten().collect()
    }
}

/// Returns how many sentinels name the host.
fn votes(named: &[Host], host: &Host) -> usize {
    named.iter().filter(|named| *named == host).count()
}

/// Asks one sentinel. Returns `None` if it does not know the name.
async fn ask_one(
    target: &Target,
    name: &str,
    host: &Host,
    conn: &mut Option<MultiplexedConnection>,
    limit: Duration,
) -> Result<Option<Host>, ConnectError> {
    let conn = match conn {
        Some(conn) => conn,
        None => conn.insert(connect(target, host, limit).await?),
    };
    let mut command = cmd("SENTINEL");
    command.arg("get-master-addr-by-name").arg(name);
    let answer: Option<(String, u16)> = command.query_async(conn).await?;
    Ok(answer.map(|(name, port)| Host { name, port }))
}

/// Connects to a sentinel without an account, because most have none. If it wants one, uses the
/// account for Redis.
async fn connect(
    target: &Target,
    host: &Host,
    limit: Duration,
) -> Result<MultiplexedConnection, ConnectError> {
    let open_to_all = Target {
        user: None,
        password: None,
        db: 0,
        ..target.clone()
    };
    let mut conn = open(&open_to_all, host, limit).await?;
    let pong: Result<String, RedisError> = cmd("PING").query_async(&mut conn).await;
    match pong {
        Err(error) if error.code() == Some("NOAUTH") => {
            open(
                &Target {
                    db: 0,
                    ..target.clone()
                },
                host,
                limit,
            )
            .await
        }
        Err(error) => Err(ConnectError::of_server(host, &error)),
        Ok(_) => Ok(conn),
    }
}

/// Returns the role that a server says it has.
async fn role(conn: &mut MultiplexedConnection) -> Result<String, RedisError> {
    let answer: Vec<redis::Value> = cmd("ROLE").query_async(conn).await?;
    answer
        .into_iter()
        .next()
        .map_or(Ok(String::new()), |role| Ok(redis::from_redis_value(role)?))
}
