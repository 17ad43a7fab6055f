//! A Redis master with replicas, watched by three sentinels with short timeouts.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{PATIENCE, PAUSE, Redis, Reply, eventually, free_port};

/// How long an election takes unless sentinels vote for themselves.
const ELECTION: Duration = Duration::from_secs(3);
/// The time within which the sentinels must have another master, however busy the machine is.
pub const MAX_ELECTION: Duration = PATIENCE.saturating_mul(2);
/// How many lines of each sentinel's log a report has.
const LAST_LINES: usize = 25;
/// The sentinels' name of their master.
const NAME: &str = "mymaster";
/// How often the sentinels look, in milliseconds. It is not a setting, but `SENTINEL DEBUG`
/// changes it. In a version without that command, a failover takes some seconds more.
///
/// If a master is down, sentinels ask its replicas for INFO once a second, whatever `info-period`
/// says. A replica whose INFO is older than five times `ping-period` is not chosen. So that must be
/// more than a second, or an election finds no replica, again and again.
const PERIODS: [&str; 12] = [
    "info-period",
    "200",
    "ping-period",
    "250",
    "ask-period",
    "100",
    "publish-period",
    "200",
    "min-link-reconnect-period",
    "100",
    "election-timeout",
    "1000",
];

/// Redis behind sentinels.
pub struct Sentinels {
    /// The servers. The first one is the first master.
    pub redis: Vec<Redis>,
    /// The three sentinels.
    pub sentinels: Vec<Redis>,
}

impl Sentinels {
    /// Starts a master and `replicas` replicas of it, all with `args`, and their sentinels.
    pub async fn start(replicas: usize, args: &[&str]) -> Self {
        let mut redis = vec![Redis::start(args).await];
        for _ in 0..replicas {
            redis.push(Redis::replica_of(&redis[0], args).await);
        }
        Self::over(redis).await
    }

    /// Starts three sentinels for servers that run, the first of which is the master, and waits
    /// until the sentinels agree.
    pub async fn over(redis: Vec<Redis>) -> Self {
        let sentinels: Vec<_> = (0..3)
            .map(|_| (format!("{:040x}", rand::random::<u128>()), free_port()))
            .collect();
        let mut config = format!("sentinel monitor {NAME} 127.0.0.1 {} 1\n", redis[0].port);
        config += &format!("sentinel failover-timeout {NAME} 2000\n");
        for replica in &redis[1..] {
            config += &format!("sentinel known-replica {NAME} 127.0.0.1 {}\n", replica.port);
        }
        let mut started = Vec::new();
        // The sentinels find a master down one after another, and each may then ask for the
        // votes of the other two. If all found it down at the same moment, each would vote for
        // itself, again and again.
        for ((id, port), down_after) in sentinels.iter().zip([500, 800, 1100]) {
            let others = sentinels.iter().filter(|(other, _)| other != id);
            let others = others.map(|(id, port)| {
                format!("sentinel known-sentinel {NAME} 127.0.0.1 {port} {id}\n")
            });
            let down_after = format!("sentinel down-after-milliseconds {NAME} {down_after}\n");
            let config = format!(
                "sentinel myid {id}\n{config}{down_after}{}",
                others.collect::<String>()
            );
            started.push(Redis::start_sentinel(*port, &config).await);
        }
        let this = Self {
            redis,
            sentinels: started,
        };
        for sentinel in &this.sentinels {
            let _ = sentinel
                .try_command(&[&["SENTINEL", "DEBUG"], &PERIODS[..]].concat())
                .await;
        }
        let at_ease = async || {
            for sentinel in &this.sentinels {
                if !this.is_at_ease(sentinel).await {
                    return false;
                }
            }
            true
        };
        eventually(at_ease, "the sentinels know each other and the replicas").await;
        this
    }

    /// Starts sentinels that know nothing of each other, each with its own master. Returns them
    /// and the URL that gives a node all of them.
    pub async fn apart(masters: &[&Redis]) -> (Vec<Redis>, String) {
        let (mut sentinels, mut hosts) = (Vec::new(), Vec::new());
        for master in masters {
            let port = free_port();
            let config = format!("sentinel monitor {NAME} 127.0.0.1 {} 1\n", master.port);
            sentinels.push(Redis::start_sentinel(port, &config).await);
            hosts.push(format!("127.0.0.1:{port}"));
        }
        (
            sentinels,
            format!("redis+sentinel://{}/{NAME}", hosts.join(",")),
        )
    }

    /// Starts one sentinel for the master on a port of 127.0.0.1, with further lines of
    /// configuration. Returns it and the name that it has for the master.
    pub async fn one(master: u16, config: &str) -> (Redis, &'static str) {
        let config = format!("{config}\nsentinel monitor {NAME} 127.0.0.1 {master} 1\n");
        (Redis::start_sentinel(free_port(), &config).await, NAME)
    }

    /// Returns whether this sentinel sees the others, and every replica in sync with its
    /// master.
    async fn is_at_ease(&self, sentinel: &Redis) -> bool {
        let quorum = sentinel.try_command(&["SENTINEL", "CKQUORUM", NAME]).await;
        let is_quorum = matches!(quorum, Ok(Reply::Text(text)) if text.starts_with("OK 3 "));
        let replicas = sentinel.command(&["SENTINEL", "REPLICAS", NAME]).await;
        let mut following = replicas.list().iter().map(Reply::texts).filter(|fields| {
            let has = |name: &str, value: &str| {
                fields
                    .chunks(2)
                    .any(|field| field[0] == name && field[1] == value)
            };
            has("flags", "slave") && has("master-link-status", "ok")
        });
        is_quorum && following.by_ref().count() == self.redis.len() - 1
    }

    /// Returns the URL of all sentinels as `--redis` takes it.
    pub fn url(&self) -> String {
        let hosts: Vec<_> = self
            .sentinels
            .iter()
            .map(|sentinel| format!("127.0.0.1:{}", sentinel.port))
            .collect();
        format!("redis+sentinel://{}/{NAME}", hosts.join(","))
    }

    /// Returns the port of the master that most sentinels name.
    pub async fn named(&self) -> u16 {
        let mut named = Vec::new();
        for sentinel in &self.sentinels {
            let address = sentinel
                .command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME])
                .await;
            named.push(u16::try_from(address.list()[1].number()).expect("a port"));
        }
        named.sort_unstable();
        named[1]
    }

    /// Returns the server that most sentinels name as the master.
    pub async fn master(&self) -> &Redis {
        self.server(self.named().await)
    }

    /// Returns the server on a port.
    pub fn server(&self, port: u16) -> &Redis {
        self.redis
            .iter()
            .find(|redis| redis.port == port)
            .expect("one of ours")
    }

    /// Asks for a failover while all is well, and waits until another server is the master.
    pub async fn failover(&self) {
        let old = self.named().await;
        // The command fails if a failover is under way already, which does as well.
        let _ = self.sentinels[0]
            .try_command(&["SENTINEL", "FAILOVER", NAME])
            .await;
        self.wait_other_master(old).await;
    }

    /// Kills the master, and returns its port.
    pub async fn kill_master(&mut self) -> u16 {
        let port = self.named().await;
        self.redis
            .iter_mut()
            .find(|redis| redis.port == port)
            .expect("one of ours")
            .kill()
            .await;
        port
    }

    /// Starts a server that was killed, empty, on the same port. Waits until it follows the
    /// present master.
    pub async fn restart_as_replica(&mut self, port: u16) {
        self.redis
            .iter_mut()
            .find(|redis| redis.port == port)
            .expect("one of ours")
            .start_again()
            .await;
        // The sentinels would do that too, but some seconds later.
        let master = self.named().await.to_string();
        self.server(port)
            .command(&["REPLICAOF", "127.0.0.1", &master])
            .await;
        self.server(port).wait_in_sync().await;
    }

    /// Waits until the sentinels name a master other than the one on port `old`, and it has
    /// that role.
    pub async fn wait_other_master(&self, old: u16) {
        let other = async || {
            let now = self.named().await;
            now != old
                && matches!(self.server(now).try_command(&["ROLE"]).await, Ok(role) if role.list()[0].text() == "master")
        };
        let until = Instant::now() + MAX_ELECTION;
        let mut asks = Instant::now() + ELECTION;
        while !other().await {
            // Sentinels that vote for themselves may take many rounds on a busy machine, and no
            // test checks how soon they agree. A sentinel that is asked for a failover needs no
            // votes.
            if Instant::now() > asks {
                let _ = self.sentinels[0]
                    .try_command(&["SENTINEL", "FAILOVER", NAME])
                    .await;
                asks += ELECTION;
            }
            if Instant::now() > until {
                panic!(
                    "the sentinels have no other master than {old}:\n{}",
                    self.report().await
                );
            }
            sleep(PAUSE).await;
        }
    }

    /// Describes what each sentinel and each server says at the moment, and what the sentinels
    /// did last.
    async fn report(&self) -> String {
        let mut report = String::new();
        for sentinel in &self.sentinels {
            let log = sentinel.log();
            let lines: Vec<_> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
            let knows = sentinel.try_command(&["SENTINEL", "MASTER", NAME]).await;
            let replicas = sentinel.try_command(&["SENTINEL", "REPLICAS", NAME]).await;
            report += &format!(
                "sentinel {}:\n{}\n{knows:?}\n{replicas:?}\n",
                sentinel.port,
                last.join("\n")
            );
        }
        for redis in &self.redis {
            let role = redis.try_command(&["ROLE"]).await;
            report += &format!("server {}: {role:?}\n", redis.port);
        }
        report
    }
}
