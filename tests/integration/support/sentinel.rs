//! A Redis master with replicas, and three sentinels that watch over them with short timeouts.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{PATIENCE, PAUSE, Redis, Reply, eventually, free_port};

/// What an election takes, if nobody votes for himself.
const ELECTION: Duration = Duration::from_secs(3);
/// Until they must have another master, however busy the machine is.
pub(crate) const MAX_ELECTION: Duration = PATIENCE.saturating_mul(2);
/// What the sentinels call their master.
const NAME: &str = "mymaster";
/// How often the sentinels look, in milliseconds: that is no setting, but they can be told. Where a version cannot be,
/// a failover takes some seconds more.
const PERIODS: [&str; 12] = [
    "info-period",
    "200",
    "ping-period",
    "100",
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
pub(crate) struct Sentinels {
    /// The first one is the master at first.
    pub(crate) redis: Vec<Redis>,
    pub(crate) sentinels: Vec<Redis>,
}

impl Sentinels {
    /// A master and `replicas` of it, all with `args`.
    pub(crate) async fn start(replicas: usize, args: &[&str]) -> Self {
        let mut redis = vec![Redis::start(args).await];
        for _ in 0..replicas {
            redis.push(Redis::replica_of(&redis[0], args).await);
        }
        Self::over(redis).await
    }

    /// Three sentinels over servers that are there, the first of them being the master; waits until they agree.
    pub(crate) async fn over(redis: Vec<Redis>) -> Self {
        let sentinels: Vec<_> = (0..3).map(|_| (format!("{:040x}", rand::random::<u128>()), free_port())).collect();
        let mut config = format!("sentinel monitor {NAME} 127.0.0.1 {} 1\n", redis[0].port);
        config += &format!("sentinel failover-timeout {NAME} 2000\n");
        for replica in &redis[1..] {
            config += &format!("sentinel known-replica {NAME} 127.0.0.1 {}\n", replica.port);
        }
        let mut started = Vec::new();
        // One after the other takes a master to be down, and each may then ask for the votes of two: where all did at
        // the same moment, each would vote for itself, again and again.
        for ((id, port), down_after) in sentinels.iter().zip([500, 800, 1100]) {
            let others = sentinels.iter().filter(|(other, _)| other != id);
            let others = others.map(|(id, port)| format!("sentinel known-sentinel {NAME} 127.0.0.1 {port} {id}\n"));
            let down_after = format!("sentinel down-after-milliseconds {NAME} {down_after}\n");
            let config = format!("sentinel myid {id}\n{config}{down_after}{}", others.collect::<String>());
            started.push(Redis::start_sentinel(*port, &config).await);
        }
        let this = Self { redis, sentinels: started };
        for sentinel in &this.sentinels {
            let _ = sentinel.try_command(&[&["SENTINEL", "DEBUG"], &PERIODS[..]].concat()).await;
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

    /// Whether this sentinel sees enough others, and every replica following.
    async fn is_at_ease(&self, sentinel: &Redis) -> bool {
        let quorum = sentinel.try_command(&["SENTINEL", "CKQUORUM", NAME]).await;
        let is_quorum = matches!(quorum, Ok(Reply::Text(text)) if text.starts_with("OK 3 "));
        let replicas = sentinel.command(&["SENTINEL", "REPLICAS", NAME]).await;
        let mut following = replicas.list().iter().map(Reply::texts).filter(|fields| {
            let has = |name: &str, value: &str| fields.chunks(2).any(|field| field[0] == name && field[1] == value);
            has("flags", "slave") && has("master-link-status", "ok")
        });
        is_quorum && following.by_ref().count() == self.redis.len() - 1
    }

    pub(crate) fn url(&self) -> String {
        let hosts: Vec<_> = self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port)).collect();
        format!("redis+sentinel://{}/{NAME}", hosts.join(","))
    }

    /// The port of the master that most sentinels name.
    pub(crate) async fn named(&self) -> u16 {
        let mut named = Vec::new();
        for sentinel in &self.sentinels {
            let address = sentinel.command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME]).await;
            named.push(u16::try_from(address.list()[1].number()).expect("a port"));
        }
        named.sort_unstable();
        named[1]
    }

    /// The server that is the master as most sentinels have it.
    pub(crate) async fn master(&self) -> &Redis {
        self.server(self.named().await)
    }

    /// The server on a port.
    pub(crate) fn server(&self, port: u16) -> &Redis {
        self.redis.iter().find(|redis| redis.port == port).expect("one of ours")
    }

    /// Asks for a failover while all is well, and waits until another is the master.
    pub(crate) async fn failover(&self) {
        let old = self.named().await;
        // Where one is under way already, that is as good.
        let _ = self.sentinels[0].try_command(&["SENTINEL", "FAILOVER", NAME]).await;
        self.wait_other_master(old).await;
    }

    /// Kills the master; gives the port it had.
    pub(crate) async fn kill_master(&mut self) -> u16 {
        let port = self.named().await;
        self.redis.iter_mut().find(|redis| redis.port == port).expect("one of ours").kill().await;
        port
    }

    /// Starts a server that was killed where it was, empty, and waits until it follows the master of now.
    pub(crate) async fn restart_as_replica(&mut self, port: u16) {
        self.redis.iter_mut().find(|redis| redis.port == port).expect("one of ours").start_again().await;
        // The sentinels would do that too, some seconds later.
        let master = self.named().await.to_string();
        self.server(port).command(&["REPLICAOF", "127.0.0.1", &master]).await;
        self.server(port).wait_in_sync().await;
    }

    /// Waits until the sentinels name another master than the one on `old`, and it is one.
    pub(crate) async fn wait_other_master(&self, old: u16) {
        let other = async || {
            let now = self.named().await;
            now != old
                && matches!(self.server(now).try_command(&["ROLE"]).await, Ok(role) if role.list()[0].text() == "master")
        };
        let until = Instant::now() + MAX_ELECTION;
        let mut asks = Instant::now() + ELECTION;
        while !other().await {
            // Sentinels that vote for themselves may take many rounds on a busy machine; how soon they agree is not
            // what is tested. One that is asked needs nobody's vote.
            if Instant::now() > asks {
                let _ = self.sentinels[0].try_command(&["SENTINEL", "FAILOVER", NAME]).await;
                asks += ELECTION;
            }
            let logs: Vec<_> = self.sentinels.iter().map(Redis::log).collect();
            assert!(Instant::now() < until, "the sentinels have no other master than {old}:\n{}", logs.join("\n"));
            sleep(PAUSE).await;
        }
    }
}
