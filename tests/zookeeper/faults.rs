//! Servers that are killed, frozen or cut off while sets are under way.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::time::sleep;

use holdfast_testkit::{Nodes, ZooKeeper, eventually, long};

use super::{poll, set_stored, start};

#[tokio::test]
async fn the_leader_or_a_follower_may_be_killed() {
    let mut zookeeper = ZooKeeper::ensemble(3).await;
    let nodes = start(3, &zookeeper, &["--hold", "55s"]).await;
    for (key, is_leader) in [("leader", true), ("follower", false)] {
        let mut held = nodes.hold(0, &format!("key={key}&wait=55")).await;
        let leader = zookeeper.leader().await;
        let at = if is_leader { leader } else { (leader + 1) % 3 };
        zookeeper.servers[at].kill().await;
        set_stored(&nodes, 1, key, "1").await;
        assert_eq!(held.answer().await.json()["value"], 1);
        zookeeper.servers[at].start_again();
        zookeeper.servers[at].wait_up().await;
    }
}

#[tokio::test]
async fn a_set_without_an_answer_is_settled_and_is_not_carried_out_later() {
    let zookeeper = ZooKeeper::start().await;
    let nodes = start(1, &zookeeper, &["--zookeeper-timeout", "300ms"]).await;
    nodes[0].set_ok("a", "1").await;
    let mut unknown = 0;
    for round in 2..8 {
        zookeeper.servers[0].signal("STOP").await;
        let body = format!(r#"{{"key":"a","value":{round}}}"#);
        let set = nodes[0].set(&body).await;
        assert_eq!(set.status, 503, "{}", set.text());
        unknown += usize::from(set.json()["stored"] == "unknown");
        zookeeper.servers[0].signal("CONT").await;
        // What was written since must stay, even if the set is carried out only now.
        let newer = set_stored(&nodes, 0, "a", "\"newer\"").await;
        for _ in 0..20 {
            let found = poll(&nodes, 0, "a").await;
            if found.code() == 0 {
                assert_eq!(found.json()["version"], newer.json()["version"]);
                assert_eq!(found.json()["value"], "newer");
            }
            sleep(Duration::from_millis(10)).await;
        }
    }
    println!("{unknown} of 6 sets are unknown");
}

#[tokio::test]
async fn a_set_that_a_thawed_server_could_carry_out_is_told_in_time() {
    let zookeeper = ZooKeeper::start().await;
    let nodes = start(1, &zookeeper, &["--zookeeper-timeout", "1s"]).await;
    nodes[0].set_ok("a", "1").await;
    zookeeper.servers[0].signal("STOP").await;
    let setting = nodes[0].set(r#"{"key":"a","value":2}"#);
    let thawing = async {
        // The set is under way for longer than its time, and is settled after the thaw.
        sleep(Duration::from_millis(1_300)).await;
        zookeeper.servers[0].signal("CONT").await;
    };
    let (set, ()) = tokio::join!(setting, thawing);
    let found = poll(&nodes, 0, "a").await;
    match set.status {
        200 => assert_eq!(found.json()["version"], set.json()["version"]),
        _ if set.json()["stored"] == "unknown" => {}
        _ => assert_eq!(
            found.json()["value"],
            1,
            "it was not stored: {}",
            set.text()
        ),
    }
}

/// Pages that wait for one status after the other, and a backend that sets them, while servers
/// freeze or are killed. No page may miss a status that was confirmed.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    gets: AtomicUsize,
    confirmed: AtomicUsize,
    unknown: AtomicUsize,
}

impl Load {
    /// Sets a key and waits until a page at another node has heard of it, again and again.
    async fn run(&self, nodes: &Nodes, key: &str, at: usize) {
        let mut last = 0;
        let mut round = 0_usize;
        while !self.stop.load(Ordering::Relaxed) {
            round += 1;
            let mut held = nodes[at % 3]
                .open(&format!("key={key}&last={last}&wait=55"))
                .await;
            let body = format!(r#"{{"key":"{key}","value":{round}}}"#);
            let set = nodes[(at + round) % 3].set(&body).await;
            if set.status == 200 {
                self.confirmed.fetch_add(1, Ordering::Relaxed);
            } else {
                self.unknown.fetch_add(1, Ordering::Relaxed);
                set_stored(nodes, (at + round) % 3, key, &round.to_string()).await;
            }
            // The page hears of this set, or of one before that was stored without an answer; then it
            // asks again.
            loop {
                let answer = held.answer().await;
                self.gets.fetch_add(1, Ordering::Relaxed);
                match answer.code() {
                    0 => {
                        let json = answer.json();
                        let version = json["version"].as_u64().expect("a version");
                        assert!(version > last, "{key}: {version} after {last}");
                        last = version;
                        if json["value"] == round {
                            break;
                        }
                    }
                    -6 => {}
                    other => panic!("{key} missed round {round}: {other} {}", answer.text()),
                }
                held = nodes[at % 3]
                    .open(&format!("key={key}&last={last}&wait=55"))
                    .await;
            }
        }
    }
}

#[tokio::test]
async fn no_page_misses_a_status_while_servers_freeze() {
    let zookeeper = ZooKeeper::ensemble(3).await;
    let nodes = start(3, &zookeeper, &["--hold", "55s"]).await;
    let load = Load::default();
    let keys: Vec<_> = (0..16).map(|at| format!("key-{at}")).collect();
    let pages = keys
        .iter()
        .enumerate()
        .map(|(at, key)| load.run(&nodes, key, at));
    let time = Duration::from_secs(if long() { 60 } else { 8 });
    let freezing = async {
        let (began, mut round) = (Instant::now(), 0);
        while began.elapsed() < time {
            let frozen = &zookeeper.servers[round % 3];
            frozen.signal("STOP").await;
            sleep(Duration::from_millis(250)).await;
            frozen.signal("CONT").await;
            sleep(Duration::from_millis(100)).await;
            round += 1;
        }
        load.stop.store(true, Ordering::Relaxed);
        round
    };
    let (_, round) = tokio::join!(join_all(pages), freezing);
    let counts = [&load.gets, &load.confirmed, &load.unknown];
    let [gets, confirmed, unknown] = counts.map(|count| count.load(Ordering::Relaxed));
    println!("{gets} gets, {confirmed} sets confirmed, {unknown} not, {round} freezes");
    assert!(confirmed > 0);
}

#[tokio::test]
async fn a_leader_that_is_frozen_for_long_is_replaced() {
    let zookeeper = ZooKeeper::ensemble(3).await;
    let nodes = start(3, &zookeeper, &["--hold", "55s"]).await;
    let mut held: BTreeMap<usize, _> = BTreeMap::new();
    for at in 0..3 {
        held.insert(at, nodes.hold(at, &format!("key=a-{at}&wait=55")).await);
    }
    let leader = zookeeper.leader().await;
    zookeeper.servers[leader].signal("STOP").await;
    for (at, mut held) in held {
        let key = format!("a-{at}");
        set_stored(&nodes, (at + 1) % 3, &key, "1").await;
        assert_eq!(held.answer().await.json()["value"], 1);
    }
    zookeeper.servers[leader].signal("CONT").await;
    let has_quorum = async || zookeeper.servers[leader].mode().await.is_ok();
    eventually(has_quorum, "the frozen server is back").await;
    set_stored(&nodes, 0, "after", "1").await;
}
