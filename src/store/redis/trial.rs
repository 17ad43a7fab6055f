//! The trial of `--check`: runs every script once on each master, on a key of its own. An account
//! that lacks the right to one command would otherwise be found out only by a set or a deletion that
//! fails.

use std::time::Duration;

use redis::{RedisError, Value, cmd};
use tokio::time::timeout;

use super::conn::{Conn, words};
use super::connect_error::ConnectError;
use super::reply::parse_number;
use super::script::{Argument, Arguments, Script, Scripts, To};
use super::server::{Server, Servers};
use crate::runtime::clock::millis;

/// The life of the key, by which it ends if the trial does not.
const LIFE: Duration = Duration::from_secs(5);
/// The name of the lease on the key. It has the form of a node's, and belongs to none.
const LEASE: &str = "check@http://check";
/// The fields of a status.
const FIELDS: [&str; 6] = ["v", "x", "n", "w", "f", "d"];

/// Runs every script on each of the servers. `begin` is the beginning of the keys' names.
///
/// # Errors
/// Returns the first script that fails, on which server, and why.
pub(super) async fn run_all(
    conn: &Conn,
    servers: &Servers,
    scripts: &Scripts,
    begin: &str,
    limit: Duration,
) -> Result<(), ConnectError> {
    let begin = format!("{begin}check {:016x}", rand::random::<u64>());
    for (server, key) in servers.with_a_key(&begin) {
        let mut trial = Trial {
            conn: conn.clone(),
            server: &server,
            key,
            limit,
        };
        if let Err(error) = trial.run(scripts).await {
            trial.clean().await;
            return Err(error);
        }
    }
    Ok(())
}

/// The trial on one server.
struct Trial<'a> {
    conn: Conn,
    server: &'a Server,
    key: String,
    limit: Duration,
}

impl Trial<'_> {
    /// Runs every script so that it reaches each of its commands.
    async fn run(&mut self, scripts: &Scripts) -> Result<(), ConnectError> {
        let life = millis(LIFE);
        self.whole(&scripts.read).await?;
        // The node joins the list, then finds itself there and leaves.
        self.step(&scripts.nodes, &[&LEASE, &life, &1]).await?;
        self.step(&scripts.nodes, &[&LEASE, &life, &0]).await?;
        let lease: [&dyn Argument; 5] = [&0, &0, &life, &LEASE, &0];
        let opened = self.step(&scripts.open, &lease).await?;
        let ends = opened.get(1).and_then(parse_number).unwrap_or_default();
        let number: &[u8] = b"checking";
        let status: [&dyn Argument; 8] = [&life, &"", &0, &"", &number, &"", &0, &"1"];
        self.step(&scripts.write, &status).await?;
        // The write finds its number, and answers with the status.
        self.step(&scripts.write, &status).await?;
        let deletion: [&dyn Argument; 6] = [&life, &"", &0, &"", &"", &""];
        self.step(&scripts.write, &deletion).await?;
        self.step(&scripts.read, &[]).await?;
        self.step(&scripts.strip, &[]).await?;
        let latest = ends + life;
        self.step(&scripts.give_back, &[&LEASE, &ends, &latest])
            .await?;
        Ok(())
    }

    /// Deletes the key by its fields after a script has failed. The script may have written the key,
    /// and may not have come to the command that lets it expire.
    async fn clean(&mut self) {
        let mut fields = cmd("HDEL");
        fields.arg(&self.key).arg(LEASE).arg(&FIELDS);
        let deleted = self.conn.ask(fields, self.server, &self.key, false);
        // If it fails, nothing else can be done.
        let _ = timeout(self.limit, deleted).await;
    }

    async fn step(
        &mut self,
        script: &Script,
        args: Arguments<'_>,
    ) -> Result<Vec<Value>, ConnectError> {
        let to = To {
            server: self.server,
            asking: false,
        };
        let run = script.run(&mut self.conn, to, &self.key, args);
        let answer = timeout(self.limit, run).await;
        self.result(script, answer.ok())
    }

    /// Runs a script by `EVAL`, which is otherwise needed only if Redis does not know the script. In
    /// a cluster `ASKING` goes before it, which is otherwise needed only while a slot is moved.
    async fn whole(&mut self, script: &Script) -> Result<Vec<Value>, ConnectError> {
        let to = To {
            server: self.server,
            asking: true,
        };
        let run = script.run_whole(&mut self.conn, to, &self.key, &[]);
        let answer = timeout(self.limit, run).await;
        self.result(script, answer.ok())
    }

    /// Returns the answer to a script, or why there is none.
    fn result(
        &self,
        script: &Script,
        answer: Option<Result<Vec<Value>, RedisError>>,
    ) -> Result<Vec<Value>, ConnectError> {
        let why = match answer {
            Some(Ok(answer)) => return Ok(answer),
            Some(Err(error)) => words(&error),
            None => "no answer in time".to_owned(),
        };
        let host = self.server.host.as_ref();
        Err(ConnectError::Script {
            host: host.map_or_else(String::new, |host| format!("{host}: ")),
            name: script.name,
            commands: script.commands().into_iter().collect::<Vec<_>>().join(", "),
            why,
        })
    }
}
