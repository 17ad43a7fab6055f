//! A test's own, real redis-server. It has its own port, stores nothing on disk, and is killed
//! when dropped.

use std::collections::BTreeMap;
use std::io::Result;
use std::process::Stdio;

use tokio::process::{Child, Command};

use crate::node::{kill, signal};
use crate::{Authority, Clock, Reply, Resp, Scratch, clock, eventually, free_port};

/// A server or a sentinel, which is a Redis server too.
pub struct Redis {
    child: Child,
    launch: RedisLaunch,
    /// Its working directory, with its log. It is removed at the end.
    dir: Scratch,
    /// Its port for plain TCP.
    pub port: u16,
}

/// How a server is started, and started again.
#[derive(Debug, Clone)]
struct RedisLaunch {
    program: &'static str,
    args: Vec<String>,
    envs: Vec<(&'static str, String)>,
    /// The password that the harness logs in with.
    password: Option<String>,
}

impl Redis {
    /// Starts a server with `args`, for example `["--requirepass", "x"]`, and waits until it
    /// answers.
    pub async fn start(args: &[&str]) -> Self {
        Self::launch(args, Vec::new(), Scratch::new()).await
    }

    /// Starts a replica of `master`, and waits until it has all that the master has.
    pub async fn replica_of(master: &Self, args: &[&str]) -> Self {
        let port = master.port.to_string();
        let replica =
            Self::start(&[&["--replicaof", &format!("127.0.0.1 {port}")], args].concat()).await;
        replica.wait_in_sync().await;
        replica
    }

    /// Starts a server whose clock is `seconds` ahead, or behind if negative.
    pub async fn start_with_clock(seconds: i64, args: &[&str]) -> Self {
        let envs = [
            ("FAKETIME", format!("{seconds:+}s")),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ];
        Self::launch(args, under(&clock::library().await, envs), Scratch::new()).await
    }

    /// Starts a server that runs by `clock`.
    pub async fn start_by(clock: &Clock, args: &[&str]) -> Self {
        Self::launch(
            args,
            under(&clock::library().await, clock.envs()),
            Scratch::new(),
        )
        .await
    }

    /// Starts a server that speaks TLS on [`Redis::tls_port`] and plain TCP on [`Redis::port`],
    /// with a certificate for 127.0.0.1.
    pub async fn start_tls(authority: &Authority, args: &[&str]) -> Self {
        let names = "IP:127.0.0.1,DNS:localhost";
        Self::start_tls_for(authority, names, args).await
    }

    /// Starts a server like [`Redis::start_tls`], with a certificate for what `names` says in
    /// openssl's words.
    pub async fn start_tls_for(authority: &Authority, names: &str, args: &[&str]) -> Self {
        let (certificate, key) = authority.certificate_for("redis", names).await;
        let (port, ca) = (free_port().to_string(), authority.path());
        let tls = [
            "--tls-port",
            &port,
            "--tls-cert-file",
            &certificate,
            "--tls-key-file",
            &key,
            "--tls-ca-cert-file",
            &ca,
        ];
        Self::start(&[&tls[..], &["--tls-auth-clients", "no"], args].concat()).await
    }

    /// Starts a sentinel with this configuration, which the sentinel rewrites.
    pub(crate) async fn start_sentinel(port: u16, config: &str) -> Self {
        let dir = Scratch::new();
        let config = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\n{config}",
            dir.path("").display()
        );
        let args = vec![dir.file("sentinel.conf", &config)];
        let launch = RedisLaunch {
            program: "redis-sentinel",
            args,
            envs: Vec::new(),
            password: None,
        };
        Self::run(launch, dir, port).await
    }

    async fn launch(args: &[&str], envs: Vec<(&'static str, String)>, dir: Scratch) -> Self {
        let port = free_port();
        let (port_text, dir_text) = (port.to_string(), dir.path("").display().to_string());
        let common = [
            "--port",
            &port_text,
            "--bind",
            "127.0.0.1",
            "--dir",
            &dir_text,
            "--save",
            "",
            "--appendonly",
            "no",
        ];
        // Make replicas follow as fast as they can.
        let replication = [
            "--repl-diskless-sync-delay",
            "0",
            "--repl-ping-replica-period",
            "1",
        ];
        let password = args
            .iter()
            .position(|arg| *arg == "--requirepass")
            .map(|at| args[at + 1].to_owned());
        let args = [&common[..], &replication, args]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect();
        Self::run(
            RedisLaunch {
                program: "redis-server",
                args,
                envs,
                password,
            },
            dir,
            port,
        )
        .await
    }

    async fn run(launch: RedisLaunch, dir: Scratch, port: u16) -> Self {
        let child = launch.spawn(&dir);
        let redis = Self {
            child,
            launch,
            dir,
            port,
        };
        redis.wait_up().await;
        redis
    }

    async fn wait_up(&self) {
        let up = async || matches!(self.try_command(&["PING"]).await, Ok(Reply::Text(_)));
        eventually(
            up,
            &format!(
                "{} on {} answers; it says: {}",
                self.launch.program,
                self.port,
                self.log()
            ),
        )
        .await;
    }

    /// Returns its log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path("log")).unwrap_or_default()
    }

    /// Returns its URL as `--redis` takes it, without a user.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Returns the port on which it speaks TLS.
    pub fn tls_port(&self) -> u16 {
        let at = self
            .launch
            .args
            .iter()
            .position(|arg| arg == "--tls-port")
            .expect("one that was started so");
        self.launch.args[at + 1].parse().expect("a port")
    }

    /// Returns the process id.
    ///
    /// # Panics
    /// If the process has ended and been waited for.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Sends a signal by name: `STOP`, `CONT`.
    pub async fn signal(&self, name: &str) {
        signal(self.pid(), name).await;
    }

    /// Sends SIGKILL, and waits until the process has ended.
    pub async fn kill(&mut self) {
        kill(&mut self.child).await;
    }

    /// Kills the server if it runs, and starts it again, empty, on the same port.
    pub async fn restart(&mut self) {
        self.kill().await;
        self.start_again().await;
    }

    /// Starts a server that was killed, empty, on the same port.
    pub async fn start_again(&mut self) {
        self.child = self.launch.spawn(&self.dir);
        self.wait_up().await;
    }

    /// Sends one command on a new connection, and returns the reply.
    ///
    /// # Panics
    /// If there is no reply, or if it is an error.
    pub async fn command(&self, words: &[&str]) -> Reply {
        match self.try_command(words).await {
            Ok(Reply::Error(error)) => panic!("{words:?}: {error}"),
            Ok(reply) => reply,
            Err(error) => panic!("{words:?}: {error}"),
        }
    }

    /// Sends one command on a new connection, and returns the reply, which may be an error.
    ///
    /// # Errors
    /// If there is no reply.
    pub async fn try_command(&self, words: &[&str]) -> Result<Reply> {
        let mut conn = Resp::open(self.port).await?;
        if let Some(password) = &self.launch.password {
            conn.command(&["AUTH", password]).await?;
        }
        conn.command(words).await
    }

    /// Returns one field of INFO.
    pub async fn info(&self, field: &str) -> String {
        let info = self.command(&["INFO", "everything"]).await;
        let value = info
            .text()
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value
            .unwrap_or_else(|| panic!("no {field} in INFO"))
            .to_owned()
    }

    /// Returns the names of all keys.
    pub async fn names(&self) -> Vec<String> {
        self.command(&["KEYS", "*"]).await.texts()
    }

    /// Returns the names of the keys that never expire, at one moment.
    pub async fn immortal(&self) -> Vec<String> {
        let script = "local found = {} for _, name in ipairs(redis.call('KEYS', '*')) do \
                      if redis.call('PTTL', name) < 0 then found[#found + 1] = name end end return found";
        self.command(&["EVAL", script, "0"]).await.texts()
    }

    /// Returns the fields of a hash with their values.
    pub async fn hash(&self, name: &str) -> BTreeMap<String, String> {
        let fields = self.command(&["HGETALL", name]).await.texts();
        fields
            .chunks(2)
            .map(|field| (field[0].clone(), field[1].clone()))
            .collect()
    }

    /// Waits until this replica has all that its master has.
    pub async fn wait_in_sync(&self) {
        let up = async || {
            // Sentinels close all connections of a server when they change its role.
            let Ok(Reply::Text(info)) = self.try_command(&["INFO", "replication"]).await else {
                return false;
            };
            info.contains("master_link_status:up") && info.contains("master_sync_in_progress:0")
        };
        eventually(up, "the replica follows its master").await;
    }
}

/// Returns the environment that runs a server with faketime's library.
fn under<const N: usize>(
    library: &str,
    envs: [(&'static str, String); N],
) -> Vec<(&'static str, String)> {
    // Redis's own allocator asks for the time while faketime's library is being set up, and
    // then both wait forever. So load the C library first, whose allocator is used instead.
    let preload = ("LD_PRELOAD", format!("{library}:libc.so.6"));
    envs.into_iter()
        .filter(|(name, _)| *name != "LD_PRELOAD")
        .chain([preload])
        .collect()
}

impl RedisLaunch {
    fn spawn(&self, dir: &Scratch) -> Child {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(dir.path("log"))
            .expect("a log");
        let errors = log.try_clone().expect("a log");
        let mut command = Command::new(self.program);
        command
            .args(&self.args)
            .envs(self.envs.iter().map(|(name, value)| (name, value)));
        command
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .kill_on_drop(true);
        command
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}; `make deps` installs it", self.program))
    }
}
