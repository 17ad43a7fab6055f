//! A real redis-server of a test's own: on a port that stays its own, with nothing on disk, killed when dropped.

use std::collections::BTreeMap;
use std::io::Result;
use std::process::Stdio;

use tokio::process::{Child, Command};

use super::node::signal;
use super::{Authority, Clock, PATIENCE, Reply, Resp, Scratch, clock, eventually, free_port};

/// A server, or a sentinel, which is one too.
pub(crate) struct Redis {
    child: Child,
    launch: RedisLaunch,
    /// Where it works, and logs; removed at the end.
    dir: Scratch,
    pub(crate) port: u16,
}

/// How a server is started, and started again.
#[derive(Debug, Clone)]
struct RedisLaunch {
    program: &'static str,
    args: Vec<String>,
    envs: Vec<(&'static str, String)>,
    /// What the harness logs in with.
    password: Option<String>,
}

impl Redis {
    /// Starts a server with `args`, as in `["--requirepass", "x"]`, and waits until it answers.
    pub(crate) async fn start(args: &[&str]) -> Self {
        Self::launch(args, Vec::new(), Scratch::new()).await
    }

    /// One that follows `master`; waits until it has all that the master has.
    pub(crate) async fn replica_of(master: &Self, args: &[&str]) -> Self {
        let port = master.port.to_string();
        let replica = Self::start(&[&["--replicaof", &format!("127.0.0.1 {port}")], args].concat()).await;
        replica.wait_in_sync().await;
        replica
    }

    /// One whose clock is `seconds` ahead, or behind.
    pub(crate) async fn start_with_clock(seconds: i64, args: &[&str]) -> Self {
        let envs = [("FAKETIME", format!("{seconds:+}s")), ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned())];
        Self::launch(args, under(&clock::library().await, envs), Scratch::new()).await
    }

    /// One whose clock is this.
    pub(crate) async fn start_by(clock: &Clock, args: &[&str]) -> Self {
        Self::launch(args, under(&clock::library().await, clock.envs()), Scratch::new()).await
    }

    /// One that speaks TLS on [`Redis::tls_port`] and plain on [`Redis::port`], with a certificate for 127.0.0.1.
    pub(crate) async fn start_tls(authority: &Authority, args: &[&str]) -> Self {
        let (certificate, key) = authority.certificate("redis").await;
        let (port, ca) = (free_port().to_string(), authority.path());
        let tls =
            ["--tls-port", &port, "--tls-cert-file", &certificate, "--tls-key-file", &key, "--tls-ca-cert-file", &ca];
        Self::start(&[&tls[..], &["--tls-auth-clients", "no"], args].concat()).await
    }

    /// A sentinel with this configuration, which it rewrites.
    pub(super) async fn start_sentinel(port: u16, config: &str) -> Self {
        let dir = Scratch::new();
        let config = format!("port {port}\nbind 127.0.0.1\ndir {}\n{config}", dir.path("").display());
        let args = vec![dir.file("sentinel.conf", &config)];
        let launch = RedisLaunch { program: "redis-sentinel", args, envs: Vec::new(), password: None };
        Self::run(launch, dir, port).await
    }

    async fn launch(args: &[&str], envs: Vec<(&'static str, String)>, dir: Scratch) -> Self {
        let port = free_port();
        let (port_text, dir_text) = (port.to_string(), dir.path("").display().to_string());
        let common =
            ["--port", &port_text, "--bind", "127.0.0.1", "--dir", &dir_text, "--save", "", "--appendonly", "no"];
        // Replicas follow as fast as they can.
        let replication = ["--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"];
        let password = args.iter().position(|arg| *arg == "--requirepass").map(|at| args[at + 1].to_owned());
        let args = [&common[..], &replication, args].concat().into_iter().map(str::to_owned).collect();
        Self::run(RedisLaunch { program: "redis-server", args, envs, password }, dir, port).await
    }

    async fn run(launch: RedisLaunch, dir: Scratch, port: u16) -> Self {
        let child = launch.spawn(&dir);
        let redis = Self { child, launch, dir, port };
        redis.wait_up().await;
        redis
    }

    async fn wait_up(&self) {
        let up = async || matches!(self.try_command(&["PING"]).await, Ok(Reply::Text(_)));
        eventually(up, &format!("{} on {} answers; it says: {}", self.launch.program, self.port, self.log())).await;
    }

    /// What it wrote so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path("log")).unwrap_or_default()
    }

    /// As `--redis` takes it, without a user.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Where it speaks TLS.
    pub(crate) fn tls_port(&self) -> u16 {
        let at = self.launch.args.iter().position(|arg| arg == "--tls-port").expect("one that was started so");
        self.launch.args[at + 1].parse().expect("a port")
    }

    /// # Panics
    /// If the process has ended and been waited for.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Sends a signal by name: `STOP`, `CONT`.
    pub(crate) async fn signal(&self, name: &str) {
        signal(self.pid(), name).await;
    }

    /// SIGKILL, and the end.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.expect("a child");
    }

    /// Kills it if it runs, and starts it again where it was, with nothing in it.
    pub(crate) async fn restart(&mut self) {
        self.kill().await;
        self.start_again().await;
    }

    /// Starts one that was killed where it was, with nothing in it.
    pub(crate) async fn start_again(&mut self) {
        self.child = self.launch.spawn(&self.dir);
        self.wait_up().await;
    }

    /// One command on a connection of its own.
    ///
    /// # Panics
    /// If there is no answer, or it is an error.
    pub(crate) async fn command(&self, words: &[&str]) -> Reply {
        match self.try_command(words).await {
            Ok(Reply::Error(error)) => panic!("{words:?}: {error}"),
            Ok(reply) => reply,
            Err(error) => panic!("{words:?}: {error}"),
        }
    }

    /// One command on a connection of its own.
    ///
    /// # Errors
    /// If there is no answer.
    pub(crate) async fn try_command(&self, words: &[&str]) -> Result<Reply> {
        let mut conn = Resp::open(self.port).await?;
        if let Some(password) = &self.launch.password {
            conn.command(&["AUTH", password]).await?;
        }
        conn.command(words).await
    }

    /// One field of INFO.
    pub(crate) async fn info(&self, field: &str) -> String {
        let info = self.command(&["INFO", "everything"]).await;
        let value = info.text().lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value.unwrap_or_else(|| panic!("no {field} in INFO")).to_owned()
    }

    /// The names of all keys.
    pub(crate) async fn names(&self) -> Vec<String> {
        self.command(&["KEYS", "*"]).await.texts()
    }

    /// The names of keys that would stay for ever, at one moment.
    pub(crate) async fn immortal(&self) -> Vec<String> {
        let script = "local found = {} for _, name in ipairs(redis.call('KEYS', '*')) do \
                      if redis.call('PTTL', name) < 0 then found[#found + 1] = name end end return found";
        self.command(&["EVAL", script, "0"]).await.texts()
    }

    /// The fields of a hash and what they hold.
    pub(crate) async fn hash(&self, name: &str) -> BTreeMap<String, String> {
        let fields = self.command(&["HGETALL", name]).await.texts();
        fields.chunks(2).map(|field| (field[0].clone(), field[1].clone())).collect()
    }

    /// Waits until this replica has all that its master has.
    pub(crate) async fn wait_in_sync(&self) {
        let up = async || {
            // Sentinels close all connections of a server whose role they change.
            let Ok(Reply::Text(info)) = self.try_command(&["INFO", "replication"]).await else { return false };
            info.contains("master_link_status:up") && info.contains("master_sync_in_progress:0")
        };
        eventually(up, "the replica follows its master").await;
    }
}

/// What a server is run with so that faketime's library is under it.
fn under<const N: usize>(library: &str, envs: [(&'static str, String); N]) -> Vec<(&'static str, String)> {
    // Redis' own allocator asks for the time while the library is being set up, and then both wait for ever:
    // take the one of the C library.
    let preload = ("LD_PRELOAD", format!("{library}:libc.so.6"));
    envs.into_iter().filter(|(name, _)| *name != "LD_PRELOAD").chain([preload]).collect()
}

impl RedisLaunch {
    fn spawn(&self, dir: &Scratch) -> Child {
        let log = std::fs::File::options().create(true).append(true).open(dir.path("log")).expect("a log");
        let errors = log.try_clone().expect("a log");
        let mut command = Command::new(self.program);
        command.args(&self.args).envs(self.envs.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(log).stderr(errors).kill_on_drop(true);
        command.spawn().unwrap_or_else(|error| panic!("{}: {error}; `make deps` installs it", self.program))
    }
}
