//! Asks sentinels which server is the master now. All are asked, each on a connection that is
//! kept. A server that they name is believed only if it does not say itself that it is a
//! replica.

use std::cmp::Reverse;
use std::time::Duration;

use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::{RedisError, cmd};
use tokio::time::timeout;

use super::conn::open;
use super::connect_error::ConnectError;
use super::inspection::is_replica;
use super::missing::Missing;
use super::url::{Account, Host, OfSentinels, Target};

/// The sentinels of one master.
pub(super) struct Sentinels {
    target: Target,
    of_sentinels: OfSentinels,
    limit: Duration,
    /// The connection to each sentinel, if there is one.
    conns: Vec<Option<MultiplexedConnection>>,
    /// Those that could not be asked the last time.
    pub(super) missing: Vec<Missing>,
}

impl Sentinels {
    pub(super) fn new(target: Target, of_sentinels: OfSentinels, limit: Duration) -> Self {
        let conns = target.hosts.iter().map(|_| None).collect();
        Self {
            target,
            of_sentinels,
            limit,
            conns,
            missing: Vec::new(),
        }
    }

    /// Connects to the server that is the master, by its own word. `before` is the master of the
    /// connection before this one. It is tried first unless the sentinels have another, because
    /// a connection that breaks does not mean that its server has failed.
    pub(super) async fn connect(
        &mut self,
        before: Option<&Host>,
    ) -> Result<(MultiplexedConnection, Host), ConnectError> {
        // A sentinel that cannot be used has time to say why.
        let answers = self.ask(2 * self.limit).await;
        let named = named(&answers);
        let mut why = ConnectError::NoMaster(self.describe(&answers));
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
            let error = match open_master(&self.target, master, self.limit).await {
                Ok(conn) => return Ok((conn, master.clone())),
                Err(error) => Box::new(error),
            };
            why = if named.contains(master) {
                ConnectError::OfMaster(error)
            } else {
                ConnectError::OfLastMaster(error, self.describe(&answers))
            };
        }
        Err(why)
    }

    /// Returns the server that more than half of the configured sentinels name instead of `master`.
    /// Sentinels that do not answer count as naming `master`: one with an old view must not lead
    /// away from a master that works.
    pub(super) async fn other_master(&mut self, master: &Host) -> Option<Host> {
        let named = named(&self.ask(self.limit).await);
        self.voted_out(master, &named).cloned()
    }

    /// Returns the same as [`Sentinels::other_master`]. `named` is the server that each
    /// answering sentinel names.
    fn voted_out<'a>(&self, master: &Host, named: &'a [Host]) -> Option<&'a Host> {
        let others = named.iter().filter(|named| *named != master);
        let other = others.max_by_key(|host| votes(named, host))?;
        (votes(named, other) * 2 > self.conns.len()).then_some(other)
    }

    /// Returns the answer of each sentinel that comes within `time`, in the order of the target's
    /// hosts.
    async fn ask(&mut self, time: Duration) -> Vec<Answer> {
        let Self {
            target,
            of_sentinels,
            limit,
            conns,
            missing,
        } = self;
        let (target, of_sentinels, limit) = (&*target, &*of_sentinels, *limit);
        let asked = target.hosts.iter().zip(conns).map(async |(host, conn)| {
            let answer = timeout(time, ask_one(target, of_sentinels, host, conn, limit)).await;
            let answer =
                answer.unwrap_or_else(|_| Answer::None(ConnectError::NoAnswer(host.clone())));
            if matches!(answer, Answer::None(_)) {
                *conn = None;
            }
            answer
        });
        let answers = join_all(asked).await;
        let asked = target.hosts.iter().zip(&answers);
        *missing = asked
            .filter_map(|(host, answer)| match answer {
                Answer::None(error) => Some(Missing::of(host, error)),
                _ => None,
            })
            .collect();
        answers
    }

    /// Describes the answer of each sentinel.
    fn describe(&self, answers: &[Answer]) -> String {
        let hosts = self.target.hosts.iter();
        let described = hosts.zip(answers).map(|(host, answer)| match answer {
            Answer::Names(master) => format!("{host} names {master}"),
            Answer::KnowsNone => format!(
                "{host} knows no master of the name {:?}",
                self.of_sentinels.name
            ),
            Answer::None(error) => error.to_string(),
        });
        described.collect::<Vec<_>>().join("; ")
    }
}

/// The answer of a sentinel.
enum Answer {
    /// It names this server as the master.
    Names(Host),
    /// It has no master of the name.
    KnowsNone,
    /// It cannot be asked.
    None(ConnectError),
}

/// Returns the server that each answering sentinel names.
fn named(answers: &[Answer]) -> Vec<Host> {
    let named = answers.iter().filter_map(|answer| match answer {
        Answer::Names(host) => Some(host.clone()),
        _ => None,
    });
    named.collect()
}

/// Returns how many sentinels name the host.
fn votes(named: &[Host], host: &Host) -> usize {
    named.iter().filter(|named| *named == host).count()
}

/// Asks one sentinel. If the kept connection has ended since, asks on a new one.
async fn ask_one(
    target: &Target,
    of_sentinels: &OfSentinels,
    host: &Host,
    conn: &mut Option<MultiplexedConnection>,
    limit: Duration,
) -> Answer {
    if let Some(kept) = conn {
        match query(kept, of_sentinels).await {
            Err(error) if error.code().is_none() => {}
            answer => return read(host, answer),
        }
    }
    match connect(target, of_sentinels, host, limit).await {
        Ok(opened) => read(host, query(conn.insert(opened), of_sentinels).await),
        Err(error) => Answer::None(error),
    }
}

/// Asks which server is the master.
async fn query(
    conn: &mut MultiplexedConnection,
    of_sentinels: &OfSentinels,
) -> Result<Option<(String, u16)>, RedisError> {
    let mut command = cmd("SENTINEL");
    command
        .arg("get-master-addr-by-name")
        .arg(&of_sentinels.name);
    command.query_async(conn).await
}

/// Reads what a sentinel answered.
fn read(host: &Host, answer: Result<Option<(String, u16)>, RedisError>) -> Answer {
    match answer {
        // A path would lead to a unix socket of this machine.
        Ok(Some((name, _))) if name.starts_with('/') => {
            let what = format!("it names {name:?}, which is no host");
            Answer::None(ConnectError::Server(host.clone(), what))
        }
        Ok(Some((name, port))) => Answer::Names(Host { name, port }),
        Ok(None) => Answer::KnowsNone,
        Err(error) if error.to_string().contains("unknown command") => {
            Answer::None(ConnectError::NotASentinel(host.clone()))
        }
        Err(error) => Answer::None(ConnectError::of_server(host, &error)),
    }
}

/// Connects to a sentinel with the account that sentinels have of their own. Otherwise connects without
/// an account, because most have none, and if it wants one, with the account for Redis.
async fn connect(
    target: &Target,
    of_sentinels: &OfSentinels,
    host: &Host,
    limit: Duration,
) -> Result<MultiplexedConnection, ConnectError> {
    let with = |account: &Account| Target {
        db: 0,
        tls: of_sentinels.tls,
        account: account.clone(),
        ..target.clone()
    };
    if let Some(account) = &of_sentinels.account {
        return open(&with(account), host, limit).await;
    }
    match open(&with(&Account::default()), host, limit).await {
        Err(ConnectError::PasswordMissing(host, said)) if target.account.password.is_some() => {
            // Whoever is on the way to the sentinel could ask for Redis's password and read it.
            if target.tls && !of_sentinels.tls {
                return Err(ConnectError::SentinelPasswordMissing(host, said));
            }
            open(&with(&target.account), &host, limit).await
        }
        opened => opened,
    }
}

/// Connects to a server that is a master by its own word.
async fn open_master(
    target: &Target,
    host: &Host,
    limit: Duration,
) -> Result<MultiplexedConnection, ConnectError> {
    let mut conn = open(target, host, limit).await?;
    match timeout(limit, role(&mut conn)).await {
        Ok(Ok(role)) if is_replica(&role) => Err(ConnectError::NotAMaster(host.clone(), role)),
        Ok(Ok(_)) => Ok(conn),
        Ok(Err(error)) => Err(ConnectError::of_server(host, &error)),
        Err(_) => Err(ConnectError::NoAnswer(host.clone())),
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
