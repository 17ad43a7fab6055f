//! The scripts. Each is one atomic step on the hash of one key. It is run by its own SHA-1 hash,
//! and is sent whole only if Redis does not know it yet.

use redis::{
    Cmd, ErrorKind, RedisResult, ServerErrorKind, ToRedisArgs, Value, cmd, from_redis_value,
};

use super::conn::Conn;
use super::server::Server;

/// One script.
#[derive(Debug)]
pub(super) struct Script {
    text: String,
    hash: String,
}

impl Script {
    fn new(parts: &[&str]) -> Self {
        let text = [&[include_str!("common.lua")], parts].concat().join("\n");
        let hash = redis::Script::new(&text).get_hash().to_owned();
        Self { text, hash }
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
                conn.ask(
                    self.command("EVAL", &self.text, key, args),
                    server,
                    key,
                    asking,
                )
                .await?
            }
            answered => answered?,
        };
        from_redis_value(answer).map_err(Into::into)
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
            open: Script::new(&[include_str!("open.lua")]),
            write: Script::new(&[include_str!("leases.lua"), include_str!("write.lua")]),
            read: Script::new(&[include_str!("leases.lua"), include_str!("read.lua")]),
            give_back: Script::new(&[include_str!("leases.lua"), include_str!("give_back.lua")]),
            strip: Script::new(&[include_str!("strip.lua")]),
            nodes: Script::new(&[include_str!("nodes.lua")]),
        }
    }
}
