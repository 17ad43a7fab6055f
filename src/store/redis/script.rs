//! The scripts: each is one atomic step on one key's hash, run by its hash and sent whole only where Redis does not
//! know it yet.

use redis::{Cmd, ErrorKind, RedisResult, ServerErrorKind, ToRedisArgs, Value, cmd};

use super::conn::Conn;

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

    /// Runs it on the hash `key`.
    ///
    /// # Cancel safety
    /// Dropped, it may have been run or not.
    pub(super) async fn run(&self, conn: &mut Conn, key: &str, args: &[&dyn Argument]) -> RedisResult<Vec<Value>> {
        match self.command("EVALSHA", &self.hash, key, args).query_async(conn).await {
            // Redis is new here, or its scripts were flushed.
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.command("EVAL", &self.text, key, args).query_async(conn).await
            }
            answered => answered,
        }
    }

    fn command(&self, name: &str, script: &str, key: &str, args: &[&dyn Argument]) -> Cmd {
        let mut command = cmd(name);
        command.arg(script).arg(1).arg(key);
        for argument in args {
            argument.add_to(&mut command);
        }
        command
    }
}

/// What a script is given: a number, a text or bytes.
pub(super) trait Argument: Sync {
    fn add_to(&self, command: &mut Cmd);
}

impl<T: ToRedisArgs + Sync> Argument for T {
    fn add_to(&self, command: &mut Cmd) {
        command.arg(self);
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Scripts {
    /// A get begins.
    pub(super) open: Script,
    /// A set, a deletion, or either once more.
    pub(super) write: Script,
    /// What is under a key.
    pub(super) look: Script,
    /// A lease that nobody holds goes.
    pub(super) drop: Script,
    /// Who is there.
    pub(super) nodes: Script,
}

impl Default for Scripts {
    fn default() -> Self {
        Self {
            open: Script::new(&[include_str!("open.lua")]),
            write: Script::new(&[include_str!("leases.lua"), include_str!("write.lua")]),
            look: Script::new(&[include_str!("leases.lua"), include_str!("look.lua")]),
            drop: Script::new(&[include_str!("drop.lua")]),
            nodes: Script::new(&[include_str!("nodes.lua")]),
        }
    }
}
