//! The scripts. Each is one atomic step on the hash of one key. It is run by its own SHA-1 hash,
//! and is sent whole only if Redis does not know it yet.

use std::collections::BTreeSet;

use redis::{
    Cmd, ErrorKind, RedisResult, ServerErrorKind, ToRedisArgs, Value, cmd, from_redis_value,
};

use super::conn::Conn;
use super::server::Server;

/// One script.
#[derive(Debug)]
pub(super) struct Script {
    /// Its name in the log.
    pub(super) name: &'static str,
    text: String,
    hash: String,
}

impl Script {
    fn new(name: &'static str, parts: &[&str]) -> Self {
        let text = [&[include_str!("common.lua")], parts].concat().join("\n");
        let hash = redis::Script::new(&text).get_hash().to_owned();
        Self { name, text, hash }
    }

    /// Runs the script on the hash `key` of a server.
    ///
    /// # Errors
    /// See [`Conn::ask`].
    ///
    /// # Cancel safety
    /// If it is dropped, it may be carried out, even much later.
    pub(super) async fn run(
        &self,
        conn: &mut Conn,
        to: To<'_>,
        key: &str,
        args: Arguments<'_>,
    ) -> RedisResult<Vec<Value>> {
        let To { server, asking } = to;
        let answer = match conn
            .ask(
                self.command("EVALSHA", &self.hash, key, args),
                server,
                key,
                asking,
            )
            .await
        {
            // This Redis process has not met the script yet, or its scripts were flushed.
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                return self.run_whole(conn, to, key, args).await;
            }
            answered => answered?,
        };
        from_redis_value(answer).map_err(Into::into)
    }

    /// Runs the script as [`Script::run`] does, and sends its whole text.
    pub(super) async fn run_whole(
        &self,
        conn: &mut Conn,
        to: To<'_>,
        key: &str,
        args: Arguments<'_>,
    ) -> RedisResult<Vec<Value>> {
        let command = self.command("EVAL", &self.text, key, args);
        let answer = conn.ask(command, to.server, key, to.asking).await?;
        from_redis_value(answer).map_err(Into::into)
    }

    /// Returns the commands that the script runs in Redis, each once.
    pub(super) fn commands(&self) -> BTreeSet<&str> {
        let calls = self.text.split("call('").skip(1);
        calls.filter_map(|rest| rest.split('\'').next()).collect()
    }

    fn command(&self, name: &str, script: &str, key: &str, args: Arguments<'_>) -> Cmd {
        let mut command = cmd(name);
        command.arg(script).arg(1).arg(key);
        for argument in args {
            argument.add_to(&mut command);
        }
        command
    }
}

/// The server that a script is run on.
#[derive(Clone, Copy)]
pub(super) struct To<'a> {
    pub(super) server: &'a Server,
    /// Whether the key's slot is being moved to that server.
    pub(super) asking: bool,
}

/// The arguments of a script, in its order.
pub(super) type Arguments<'a> = &'a [&'a dyn Argument];

/// An argument of a script: a number, a text or bytes.
pub(super) trait Argument: Sync {
    fn add_to(&self, command: &mut Cmd);
}

impl<T: ToRedisArgs + Sync> Argument for T {
    fn add_to(&self, command: &mut Cmd) {
        command.arg(self);
    }
}

/// All scripts.
#[derive(Debug)]
pub(super) struct Scripts {
    /// Opens a key for gets.
    pub(super) open: Script,
    /// Stores a status or a deletion, or either once more.
    pub(super) write: Script,
    /// Reads what is under a key.
    pub(super) read: Script,
    /// Gives a lease of this node back.
    pub(super) give_back: Script,
    /// Deletes the value of a status that has ended.
    pub(super) strip: Script,
    /// Puts a node on the list of nodes or takes it off, and reads the list.
    pub(super) nodes: Script,
}

impl Default for Scripts {
    fn default() -> Self {
        Self {
            open: Script::new("open", &[include_str!("open.lua")]),
            write: Script::new(
                "write",
                &[include_str!("leases.lua"), include_str!("write.lua")],
            ),
            read: Script::new(
                "read",
                &[include_str!("leases.lua"), include_str!("read.lua")],
            ),
            give_back: Script::new(
                "give_back",
                &[include_str!("leases.lua"), include_str!("give_back.lua")],
            ),
            strip: Script::new("strip", &[include_str!("strip.lua")]),
            nodes: Script::new("nodes", &[include_str!("nodes.lua")]),
        }
    }
}
