//! A Redis Cluster of three masters with a replica each, made by `redis-cli`.

use std::process::Stdio;

use tokio::process::Command;

use crate::{Redis, Reply, eventually, free_port};

/// The six servers of a cluster.
pub struct RedisCluster {
    /// The servers, masters and replicas.
    pub redis: Vec<Redis>,
}

impl RedisCluster {
    /// Starts a cluster, all servers with `args`, and waits until each server knows the whole
    /// of it.
    pub async fn start(args: &[&str]) -> Self {
        let mut redis = Vec::new();
        for _ in 0..6 {
            let bus = free_port().to_string();
            let own = [
                "--cluster-enabled",
                "yes",
                "--cluster-node-timeout",
                "1000",
                "--cluster-port",
                &bus,
            ];
            redis.push(Redis::start(&[&own, args].concat()).await);
        }
        let addresses: Vec<_> = redis
            .iter()
            .map(|redis| format!("127.0.0.1:{}", redis.port))
            .collect();
        let addresses = addresses.iter().map(String::as_str);
        let password = args
            .iter()
            .position(|arg| *arg == "--requirepass")
            .map(|at| ["-a", args[at + 1], "--no-auth-warning"]);
        let create: Vec<_> = password
            .into_iter()
            .flatten()
            .chain(["--cluster", "create"])
            .chain(addresses)
            .collect();
        redis_cli(&[&create[..], &["--cluster-replicas", "1", "--cluster-yes"]].concat()).await;
        let this = Self { redis };
        let whole = async || {
            for redis in &this.redis {
                let info = redis.command(&["CLUSTER", "INFO"]).await;
                let slots = redis.command(&["CLUSTER", "SLOTS"]).await;
                // A range has its first slot, its last slot, the master and the master's
                // replica.
                let has_replicas = slots.list().iter().all(|range| range.list().len() == 4);
                if !info.text().contains("cluster_state:ok")
                    || slots.list().len() < 3
                    || !has_replicas
                {
                    return false;
                }
            }
            true
        };
        eventually(whole, "each server knows the whole cluster").await;
        for redis in &this.redis {
            if redis.info("role").await == "slave" {
                redis.wait_in_sync().await;
            }
        }
        this
    }

    /// Returns the URL of all servers as `--redis` takes it.
    pub fn url(&self) -> String {
        let hosts: Vec<_> = self
            .redis
            .iter()
            .map(|redis| format!("127.0.0.1:{}", redis.port))
            .collect();
        format!("redis+cluster://{}", hosts.join(","))
    }

    /// Returns the servers that report the master role. Servers that do not answer are left
    /// out.
    pub async fn masters(&self) -> Vec<&Redis> {
        let mut masters = Vec::new();
        for redis in &self.redis {
            if matches!(redis.try_command(&["ROLE"]).await, Ok(role) if role.list()[0].text() == "master")
            {
                masters.push(redis);
            }
        }
        masters
    }

    /// Returns which of [`RedisCluster::redis`] is the master of a key. `name` is the whole
    /// name, with the prefix.
    pub async fn master_of(&self, name: &str) -> Option<usize> {
        for (at, redis) in self.redis.iter().enumerate() {
            let is_master = matches!(redis.try_command(&["ROLE"]).await, Ok(role) if role.list()[0].text() == "master");
            // A master of other slots would answer MOVED.
            if is_master
                && matches!(
                    redis.try_command(&["EXISTS", name]).await,
                    Ok(Reply::Number(_))
                )
            {
                return Some(at);
            }
        }
        None
    }

    /// Kills the master of a key, and returns which one it was.
    pub async fn kill_master_of(&mut self, name: &str) -> usize {
        let at = self.master_of(name).await.expect("a master");
        self.redis[at].kill().await;
        at
    }

    /// Waits until a key has a master other than the one at `old`.
    pub async fn wait_other_master_of(&self, name: &str, old: usize) {
        let other = async || matches!(self.master_of(name).await, Some(at) if at != old);
        eventually(other, &format!("{name} has another master")).await;
    }

    /// Moves the slot of a key, with all keys in it, to another master.
    pub async fn move_slot_of(&self, name: &str) {
        let from = &self.redis[self.master_of(name).await.expect("a master")];
        let to = self
            .masters()
            .await
            .into_iter()
            .find(|redis| redis.port != from.port)
            .expect("another master");
        let slot = from
            .command(&["CLUSTER", "KEYSLOT", name])
            .await
            .number()
            .to_string();
        let [from_id, to_id] = [id(from).await, id(to).await];
        to.command(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id])
            .await;
        from.command(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id])
            .await;
        loop {
            let names = from
                .command(&["CLUSTER", "GETKEYSINSLOT", &slot, "10"])
                .await
                .texts();
            let Some(name) = names.first() else { break };
            from.command(&[
                "MIGRATE",
                "127.0.0.1",
                &to.port.to_string(),
                name,
                "0",
                "5000",
            ])
            .await;
        }
        for master in self.masters().await {
            master
                .command(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id])
                .await;
        }
    }
}

/// Returns the cluster's id of a server.
async fn id(redis: &Redis) -> String {
    redis.command(&["CLUSTER", "MYID"]).await.text().to_owned()
}

async fn redis_cli(args: &[&str]) {
    let mut command = Command::new("redis-cli");
    command.args(args).stdin(Stdio::null());
    let output = command
        .output()
        .await
        .unwrap_or_else(|error| panic!("redis-cli: {error}"));
    assert!(
        output.status.success(),
        "redis-cli {args:?}: {}",
        String::from_utf8_lossy(&output.stdout)
    );
}
