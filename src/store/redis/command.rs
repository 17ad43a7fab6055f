//! Sends a command: waits for a permit, runs a script on the server that has the key, and follows
//! a slot that has moved.

use std::sync::Arc;
use std::time::Duration;

use redis::{ErrorKind, ServerErrorKind, Value};
use tokio::time::{Instant, sleep, timeout};

use super::Redis;
use super::failure::{Failure, NoReply, NotSent};
use super::metrics::RedisFailure;
use super::reply::parse_number;
use super::script::{Arguments, Script, To};
use super::server::Server;
use super::supervisor::Way;
use crate::metrics::Limit;
use crate::model::cause::Cause;
use crate::model::key::Key;
use crate::store::permits::{Permit, Purpose};

/// The pause before a command is sent again because its slot has moved.
const MOVED_REST: Duration = Duration::from_millis(50);

/// An answer, and the generation of the data that it comes from.
pub(super) struct Answer {
    pub(super) reply: Vec<Value>,
    pub(super) generation: u64,
}

impl Redis {
    /// Waits for the permit to send a command. Waits for a command's time limit at most, except
    /// for recovery, because no request waits for that.
    pub(super) async fn permit(&self, purpose: Purpose) -> Result<Permit, NotSent> {
        if let Purpose::Recovery = purpose {
            return Ok(self.permits.acquire(purpose).await);
        }
        let permit = timeout(self.options.timeout, self.permits.acquire(purpose)).await;
        permit.map_err(|_| {
            self.metrics.limit_hit(Limit::RedisInFlight);
            self.note_failure(
                RedisFailure::NoPermit,
                &"too many commands are under way: Redis is slow, or --redis-in-flight too little",
            );
            NotSent(Cause::NoPermit)
        })
    }

    /// Runs a script on a page's key with a permit. If the slot of the key has moved, sends the
    /// command again to the server that has the slot now, while there is time.
    pub(super) async fn run(
        &self,
        permit: Permit,
        script: &Script,
        key: &Key,
        args: Arguments<'_>,
    ) -> Result<Answer, Failure> {
        let key = self.key_text(key.as_str());
        let deadline = Instant::now() + self.options.timeout;
        let mut way = self.way_to(&key)?;
        loop {
            match self.exchange(Some(&permit), &way, script, &key, args).await {
                Ok(answer) => return Ok(answer),
                Err(error) => match self.elsewhere(&error, &way, &key, deadline).await {
                    Some(elsewhere) => way = elsewhere,
                    None => return Err(self.failure(script, error)),
                },
            }
        }
    }

    /// Runs a script once. Counts and logs a failure.
    pub(super) async fn send(
        &self,
        permit: Option<&Permit>,
        way: &Way,
        script: &Script,
        key: &str,
        args: Arguments<'_>,
    ) -> Result<Answer, Failure> {
        self.exchange(permit, way, script, key, args)
            .await
            .map_err(|error| self.failure(script, error))
    }

    /// Runs a script once. Notes the server's time in its answer, and whether the answer came in
    /// time.
    pub(super) async fn exchange(
        &self,
        permit: Option<&Permit>,
        way: &Way,
        script: &Script,
        key: &str,
        args: Arguments<'_>,
    ) -> Result<Answer, NoReply> {
        let Way {
            conn,
            generation,
            server,
            asking,
            ..
        } = way;
        let to = To {
            server,
            asking: *asking,
        };
        let mut conn = conn.clone();
        let reply = timeout(self.options.timeout, script.run(&mut conn, to, key, args)).await;
        let reply = match reply {
            Ok(Err(error)) if error.is_timeout() => Err(NoReply::Late),
            Ok(reply) => reply.map_err(NoReply::Error),
            Err(_) => Err(NoReply::Late),
        };
        if let Some(permit) = permit {
            match &reply {
                Ok(_) => permit.was_answered(),
                Err(NoReply::Error(error)) if error.code().is_some() => permit.was_answered(),
                // A server of a cluster that answers nothing at all is no reason to send fewer
                // commands to the others.
                Err(NoReply::Late)
                    if server.host.is_none() || server.clock.has_answered_since(permit.began()) =>
                {
                    permit.was_late();
                }
                Err(_) => {}
            }
        }
        let reply = reply?;
        if let Some(now) = reply.first().and_then(parse_number) {
            self.saw(server, now);
        }
        Ok(Answer {
            reply,
            generation: *generation,
        })
    }

    pub(super) fn saw(&self, server: &Server, now: u64) {
        server.clock.saw(now);
        self.clock.saw(now);
    }

    /// Returns the way on which to send a command again because its slot has moved, or `None` if
    /// the error is another one or no time is left. Unless the error names the server, waits for
    /// [`MOVED_REST`], in which the supervisor can find out where the slot is.
    pub(super) async fn elsewhere(
        &self,
        error: &NoReply,
        way: &Way,
        key: &str,
        deadline: Instant,
    ) -> Option<Way> {
        let NoReply::Error(error) = error else {
            return None;
        };
        if !self.options.target.is_cluster() || Instant::now() + MOVED_REST > deadline {
            return None;
        }
        match error.kind() {
            ErrorKind::Server(ServerErrorKind::Ask) => {
                let (address, _) = error.redirect_node()?;
                // Without a name it is that of the server which answered.
                let address = match (address.starts_with(':'), &way.server.host) {
                    (true, Some(host)) => format!("{}{address}", host.name),
                    _ => address.to_owned(),
                };
                let server = way.servers.at(&address)?;
                Some(Way {
                    server,
                    asking: true,
                    conn: way.conn.clone(),
                    generation: way.generation,
                    servers: Arc::clone(&way.servers),
                })
            }
            ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::TryAgain) => {
                // The complaint leads to an inspection, which finds out where the slots are.
                self.supervisor.complain();
                sleep(MOVED_REST).await;
                self.supervisor.way_to(key)
            }
            _ => None,
        }
    }

    /// Returns the way on which to send a command on a key. Fails if there is none.
    pub(super) fn way_to(&self, key: &str) -> Result<Way, NotSent> {
        self.supervisor.way_to(key).ok_or_else(|| {
            self.note_failure(
                RedisFailure::Unreachable,
                &"there is no connection to Redis",
            );
            NotSent(Cause::Unreachable)
        })
    }
}
