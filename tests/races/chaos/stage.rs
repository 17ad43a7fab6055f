//! The stage of the chaos: three nodes, their Redis, and the proxies between them.

use std::time::Duration;

use tokio::time::sleep;

use super::clients::{Clients, connect};
use super::record::{Harm, Page};
use super::schedule::{Event, Form, ToNode, ToRedis};
use super::{ARGS, NODES, PAGES_PER_KEY};
use holdfast_testkit::{Clock, Launch, Nodes, Proxy, Redis, Sentinels, Weather, request};

/// The number of connections that come while a node is frozen.
const CROWD: usize = 100;
/// The number of clients that do not read, and the number of gets that each sends.
const SLOW: usize = 20;
const SLOW_GETS: usize = 300;
/// A time that is longer than backends wait.
const BEYOND_PATIENCE: Duration = Duration::from_millis(3200);
/// A time that is longer than a node needs to look at its Redis twice.
const TWO_LOOKS: Duration = Duration::from_millis(2200);
/// The time before the end of a master in which it may have stored statuses that no replica has.
const REPLICATION: Duration = Duration::from_secs(1);

/// The nodes, each with its own system clock.
pub(super) struct NodeSide {
    pub(super) nodes: Nodes,
    clocks: Vec<Clock>,
}

/// Redis, the links to it, and the links between nodes.
pub(super) struct RedisSide {
    pub(super) redis: AnyRedis,
    links: Vec<Proxy>,
    peer_links: Vec<Proxy>,
}

/// A Redis alone, or several behind sentinels.
pub(super) enum AnyRedis {
    Plain(Box<Redis>, Clock),
    Sentinel(Sentinels),
}

impl AnyRedis {
    async fn start(form: Form) -> Self {
        match form {
            Form::Plain => {
                let clock = Clock::new().await;
                Self::Plain(Box::new(Redis::start_by(&clock, &[]).await), clock)
            }
            Form::Sentinel => Self::Sentinel(Sentinels::start(2, &[]).await),
        }
    }

    /// Returns the Redis that is asked now.
    pub(super) async fn master(&self) -> &Redis {
        match self {
            Self::Plain(redis, _) => redis,
            Self::Sentinel(sentinels) => sentinels.master().await,
        }
    }
}

/// Starts the nodes, Redis and the links.
pub(super) async fn start(form: Form) -> (NodeSide, RedisSide) {
    let redis = AnyRedis::start(form).await;
    let places = Nodes::places(NODES);
    let (mut clocks, mut links, mut peer_links, mut launches) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for [_, internal] in &places {
        let (clock, peer_link) = (
            Clock::new().await,
            Proxy::start(internal.parse().expect("an address")).await,
        );
        let url = match &redis {
            AnyRedis::Plain(redis, _) => {
                let link = Proxy::start(([127, 0, 0, 1], redis.port).into()).await;
                let url = format!("redis://127.0.0.1:{}", link.port);
                links.push(link);
                url
            }
            // Sentinels name the servers themselves, so no proxy can be put in between.
            AnyRedis::Sentinel(sentinels) => sentinels.url(),
        };
        let advertise = format!("http://127.0.0.1:{}", peer_link.port);
        let launch = Launch::new(&ARGS)
            .env("HOLDFAST_REDIS", &url)
            .env("HOLDFAST_ADVERTISE", &advertise);
        launches.push(
            clock
                .envs()
                .iter()
                .fold(launch, |launch, (name, value)| launch.env(name, value)),
        );
        clocks.push(clock);
        peer_links.push(peer_link);
    }
    let nodes = Nodes::launch_at(places, launches).await;
    nodes.wait_connected().await;
    (
        NodeSide { nodes, clocks },
        RedisSide {
            redis,
            links,
            peer_links,
        },
    )
}

impl NodeSide {
    /// Does this to a node, and undoes it.
    pub(super) async fn suffer(&mut self, at: usize, event: Event<ToNode>, clients: &Clients) {
        sleep(event.pause).await;
        let (from, mut harm) = (clients.log.now(), Harm::None);
        match event.what {
            ToNode::Kill => {
                clients.note_killed(at);
                self.nodes.kill(at).await;
                sleep(event.lasts / 2).await;
                self.nodes.replace_unready(at).await;
                harm = Harm::NodeDied(at);
            }
            ToNode::Drain => {
                self.nodes[at].signal("TERM").await;
                assert_eq!(self.nodes[at].wait_exit().await.code(), Some(0));
                self.nodes.replace_unready(at).await;
            }
            ToNode::Freeze | ToNode::FreezeLong => {
                self.nodes[at].signal("STOP").await;
                sleep(if event.what == ToNode::Freeze {
                    event.lasts
                } else {
                    BEYOND_PATIENCE + event.lasts
                })
                .await;
                self.nodes[at].signal("CONT").await;
            }
            ToNode::FreezeInACrowd => self.freeze_in_a_crowd(at, event.lasts, clients).await,
            ToNode::Clock(seconds) => {
                self.clocks[at].jump(seconds);
                // A process looks once a second whether its clock has jumped.
                sleep(event.lasts + Duration::from_secs(1)).await;
                self.clocks[at].jump(0);
            }
            ToNode::NoFiles => {
                let node = &self.nodes[at];
                node.limit_open_files(node.open_files()).await;
                sleep(event.lasts).await;
                node.limit_open_files(node.max_open_files()).await;
            }
            ToNode::StalledLog => {
                self.nodes[at].stall_log(true);
                sleep(event.lasts).await;
                self.nodes[at].stall_log(false);
            }
            ToNode::SlowReaders => self.read_slowly(at, event.lasts).await,
        }
        clients
            .log
            .fault(format!("node {at}: {:?}", event.what), from, harm, false);
    }

    /// Freezes a node while many clients connect. They wait in the backlog, and each is
    /// answered, once.
    async fn freeze_in_a_crowd(&self, at: usize, lasts: Duration, clients: &Clients) {
        self.nodes[at].signal("STOP").await;
        let (page, mut crowd) = (
            Page {
                key: 0,
                which: PAGES_PER_KEY + NODES,
            },
            Vec::new(),
        );
        for _ in 0..CROWD {
            let Some(mut conn) = connect(self.nodes[at].public.tcp()).await else {
                continue;
            };
            let get = clients.send_get(&mut conn, page, 0, Duration::ZERO).await;
            crowd.push((conn, get));
        }
        sleep(lasts).await;
        self.nodes[at].signal("CONT").await;
        for (mut conn, get) in crowd {
            clients.read_answer(&mut conn, get, Duration::ZERO).await;
        }
    }

    async fn read_slowly(&self, at: usize, lasts: Duration) {
        let gets = request("GET", "/status/get?key=chaos-0&wait=0", &[], b"").repeat(SLOW_GETS);
        let mut slow = Vec::new();
        for _ in 0..SLOW {
            if let Some(mut conn) = connect(self.nodes[at].public.tcp()).await {
                let _ = tokio::time::timeout(Duration::from_millis(20), conn.try_send(&gets)).await;
                slow.push(conn);
            }
        }
        sleep(lasts).await;
    }
}

impl RedisSide {
    /// Does this to Redis or to a link, and undoes it.
    pub(super) async fn suffer(&mut self, event: Event<ToRedis>, clients: &Clients) {
        sleep(event.pause).await;
        let (mut from, mut harm) = (clients.log.now(), Harm::None);
        let splits = matches!(self.redis, AnyRedis::Sentinel(_))
            && !matches!(
                event.what,
                ToRedis::PeerLink(..) | ToRedis::Full | ToRedis::NoReplicas
            );
        match event.what {
            // A status that no node keeps may be lost with Redis, and its loss would prove
            // nothing.
            ToRedis::Kill if clients.wait_all_kept().await => {
                from = clients.log.now();
                harm = self.kill(event.lasts, from).await;
            }
            ToRedis::Kill => return,
            ToRedis::Full => {
                let master = self.redis.master().await;
                let used: u64 = master.info("used_memory").await.parse().expect("bytes");
                refuse(
                    master,
                    "maxmemory",
                    &(used - used / 8).to_string(),
                    TWO_LOOKS + event.lasts,
                )
                .await;
                harm = Harm::Refused { is_full: true };
            }
            ToRedis::NoReplicas => {
                refuse(
                    self.redis.master().await,
                    "min-replicas-to-write",
                    "9",
                    TWO_LOOKS + event.lasts,
                )
                .await;
                harm = Harm::Refused { is_full: false };
            }
            ToRedis::Freeze => {
                let master = self.redis.master().await;
                master.signal("STOP").await;
                // Behind sentinels, stop it for less time than they wait.
                sleep(if splits { event.lasts / 6 } else { event.lasts }).await;
                master.signal("CONT").await;
                if splits {
                    harm = Harm::RedisForgot(from.saturating_sub(REPLICATION));
                }
            }
            ToRedis::FreezeUntilElection | ToRedis::Failover => {
                self.fail_over(event.what).await;
                harm = Harm::RedisForgot(from.saturating_sub(REPLICATION));
            }
            ToRedis::Clock(seconds) => {
                if let AnyRedis::Plain(_, clock) = &self.redis {
                    clock.jump(seconds);
                    sleep(event.lasts + Duration::from_secs(1)).await;
                    clock.jump(0);
                    harm = Harm::RedisClock {
                        off: Duration::from_secs(seconds.unsigned_abs()),
                        ahead: seconds > 0,
                    };
                }
            }
            ToRedis::Link(at, weather) => pass(&self.links[at], weather, event.lasts).await,
            ToRedis::PeerLink(at, weather) => {
                pass(&self.peer_links[at], weather, event.lasts).await
            }
        }
        clients
            .log
            .fault(format!("Redis: {:?}", event.what), from, harm, splits);
    }

    async fn kill(&mut self, lasts: Duration, from: Duration) -> Harm {
        match &mut self.redis {
            AnyRedis::Plain(redis, _) => {
                redis.kill().await;
                sleep(lasts).await;
                redis.start_again().await;
                Harm::RedisForgot(Duration::ZERO)
            }
            AnyRedis::Sentinel(sentinels) => {
                let old = sentinels.kill_master().await;
                sentinels.wait_other_master(old).await;
                sentinels.restart_as_replica(old).await;
                Harm::RedisForgot(from.saturating_sub(REPLICATION))
            }
        }
    }

    async fn fail_over(&mut self, how: ToRedis) {
        let AnyRedis::Sentinel(sentinels) = &mut self.redis else {
            return;
        };
        let old = sentinels.named().await;
        if how == ToRedis::Failover {
            sentinels.failover().await;
        } else {
            sentinels.server(old).signal("STOP").await;
            sentinels.wait_other_master(old).await;
            sentinels.server(old).signal("CONT").await;
        }
        // Otherwise the next master that dies may be the last.
        sentinels.server(old).wait_in_sync().await;
    }
}

/// Changes a setting of a server so that it refuses writes, for a while.
async fn refuse(redis: &Redis, setting: &str, value: &str, lasts: Duration) {
    redis.command(&["CONFIG", "SET", setting, value]).await;
    sleep(lasts).await;
    redis.command(&["CONFIG", "SET", setting, "0"]).await;
}

async fn pass(proxy: &Proxy, weather: Weather, lasts: Duration) {
    proxy.set(weather);
    // A message that is held back comes so late that nobody waits for it any more.
    sleep(if weather == Weather::HoldOld {
        TWO_LOOKS + lasts
    } else {
        lasts
    })
    .await;
    proxy.set(Weather::Pass);
}
