//! Sentinels: who is the master now. All are asked, each on a connection that is kept, and what they say is believed
//! only of a server that says of itself that it is a master.

use std::cmp::Reverse;
use std::time::Duration;

use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::{RedisError, cmd};
use tokio::time::timeout;

use super::conn::open;
use super::url::{Host, Target};

/// The sentinels of one master.
pub(super) struct Sentinels {
    target: Target,
    name: String,
    limit: Duration,
    /// One for each, where there is one.
    conns: Vec<Option<MultiplexedConnection>>,
}

impl Sentinels {
    pub(super) fn new(target: Target, name: String, limit: Duration) -> Self {
        let conns = target.hosts.iter().map(|_| None).collect();
        Self { target, name, limit, conns }
    }

    /// Connects to the server that is master, by its own word.
    pub(super) async fn connect(&mut self) -> Result<(MultiplexedConnection, Host), String> {
        let named = self.ask().await;
        let mut why = "no sentinel answers, or none knows a master of this name".to_owned();
        let mut masters: Vec<_> = named.iter().collect();
        // The one that most of them name first; each once.
        masters.sort_by_key(|host| (Reverse(named.iter().filter(|named| named == host).count()), host.to_string()));
        masters.dedup();
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
                Ok(Ok(role)) => why = format!("{master}, named by a sentinel as the master, is a {role}"),
                Ok(Err(error)) => why = format!("{master}: {error}"),
                Err(_) => why = format!("{master} does not answer in time"),
            }
        }
        Err(why)
    }

    /// The server that more than half of the sentinels that answer name instead of `master`.
    pub(super) async fn other_master(&mut self, master: &Host) -> Option<Host> {
        let named = self.ask().await;
        let others: Vec<_> = named.iter().filter(|named| *named != master).collect();
        if others.len() * 2 > named.len() { others.first().map(|host| (*host).clone()) } else { None }
    }

    /// What each sentinel that answers says.
    async fn ask(&mut self) -> Vec<Host> {
        let Self { target, name, limit, conns } = self;
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

/// Asks one sentinel; `None` where it does not know the name.
async fn ask_one(
    target: &Target,
    name: &str,
    host: &Host,
    conn: &mut Option<MultiplexedConnection>,
    limit: Duration,
) -> Result<Option<Host>, String> {
    let conn = match conn {
        Some(conn) => conn,
        None => conn.insert(connect(target, host, limit).await?),
    };
    let mut command = cmd("SENTINEL");
    command.arg("get-master-addr-by-name").arg(name);
    let answer: Option<(String, u16)> = command.query_async(conn).await.map_err(|error| error.to_string())?;
    Ok(answer.map(|(name, port)| Host { name, port }))
}

/// Connects to a sentinel: without an account, as most are; with Redis's where it wants one.
async fn connect(target: &Target, host: &Host, limit: Duration) -> Result<MultiplexedConnection, String> {
    let open_to_all = Target { user: None, password: None, db: 0, ..target.clone() };
    let mut conn = open(&open_to_all, host, limit).await?;
    let pong: Result<String, RedisError> = cmd("PING").query_async(&mut conn).await;
    match pong {
        Err(error) if error.code() == Some("NOAUTH") => open(&Target { db: 0, ..target.clone() }, host, limit).await,
        Err(error) => Err(format!("{host}: {error}")),
        Ok(_) => Ok(conn),
    }
}

/// What a server says it is.
async fn role(conn: &mut MultiplexedConnection) -> Result<String, RedisError> {
    let answer: Vec<redis::Value> = cmd("ROLE").query_async(conn).await?;
    answer.into_iter().next().map_or(Ok(String::new()), |role| Ok(redis::from_redis_value(role)?))
}
