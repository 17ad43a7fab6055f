//! The limits when statuses are in Redis: commands in flight, the memory of Redis, requests to
//! a peer.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{poll, settle, status};
use holdfast_testkit::{
    Address, Conn, Launch, Nodes, Proxy, Redis, Weather, eventually, free_port, request,
    wait_connected,
};

/// Sends `POST /status/set`. Returns the HTTP status and the code.
async fn set(internal: Address, body: String) -> (u16, i64) {
    let response = Conn::open(&internal)
        .await
        .ask(request("POST", "/status/set", &[], body.as_bytes()))
        .await;
    (response.status, response.code())
}

#[tokio::test]
async fn sets_beyond_the_commands_under_way_are_refused_and_gets_are_opened_later() {
    const SETS: usize = 40;
    const GETS: usize = 12;
    let redis = Redis::start(&[]).await;
    let proxy = Proxy::start(([127, 0, 0, 1], redis.port).into()).await;
    let args = ["--redis-in-flight", "4", "--redis-timeout", "2s"];
    let nodes = Nodes::start(1, &format!("redis://127.0.0.1:{}", proxy.port), &args).await;
    proxy.set(Weather::Delay(Duration::from_millis(100)));
    let mut sets = JoinSet::new();
    for at in 0..SETS {
        sets.spawn(set(
            nodes[0].internal.clone(),
            format!(r#"{{"key":"set-{at}","value":1}}"#),
        ));
    }
    let mut held = Vec::new();
    for at in 0..GETS {
        held.push(nodes[0].open(&format!("key=get-{at}&wait=9")).await);
    }
    let outcomes = sets.join_all().await;
    let stored = outcomes
        .iter()
        .filter(|outcome| **outcome == (200, 0))
        .count();
    let refused = outcomes
        .iter()
        .filter(|outcome| **outcome == (503, -6))
        .count();
    assert_eq!(stored + refused, SETS, "{outcomes:?}");
    assert!(
        stored > 0 && refused > 0,
        "{stored} were stored, {refused} refused"
    );
    // The held gets were not refused. They are opened as soon as there is room.
    proxy.set(Weather::Pass);
    let other = Nodes::start(1, &redis.url(), &[]).await;
    for (at, mut held) in held.into_iter().enumerate() {
        other.wait_key_waiters(&format!("get-{at}"), 1).await;
        let version = other[0].set_ok(&format!("get-{at}"), "1").await;
        assert_eq!(held.answer().await.text(), status(version, "1"));
    }
    nodes.quiet().await;
    settle(&other, &redis, 300).await;
}

#[tokio::test]
async fn a_full_redis_refuses_sets_and_drops_no_status() {
    let redis = Redis::start(&["--maxmemory", "4mb", "--maxmemory-policy", "noeviction"]).await;
    let nodes = Nodes::start(2, &redis.url(), &[]).await;
    let value = format!("\"{}\"", "x".repeat(50_000));
    let mut known = Vec::new();
    let refused = loop {
        let key = format!("k{}", known.len());
        let response = nodes[0]
            .set(format!(r#"{{"key":"{key}","value":{value}}}"#))
            .await;
        if response.status != 200 {
            break response;
        }
        known.push((key, response.version()));
        assert!(known.len() < 200, "it is never full");
    };
    assert_eq!((refused.status, refused.code()), (507, -3), "{refused:?}");
    assert!(refused.json()["retry_after_ms"].is_u64(), "{refused:?}");
    assert!(!known.is_empty());
    // There is still room for small values, and for what nodes write for themselves once a
    // second. Take that room away, too.
    let used: u64 = redis.info("used_memory").await.parse().expect("bytes");
    redis
        .command(&["CONFIG", "SET", "maxmemory", &(used - used / 8).to_string()])
        .await;
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        let refused = nodes[0].set(r#"{"key":"small","value":1}"#).await;
        assert_eq!((refused.status, refused.code()), (507, -3), "{refused:?}");
        for (key, version) in &known {
            assert_eq!(
                poll(&nodes[1], key, 0).await.text(),
                status(*version, &value)
            );
        }
    }
    redis
        .command(&["CONFIG", "SET", "maxmemory", "100mb"])
        .await;
    let mut held = nodes.hold(0, "key=after").await;
    let version = nodes[1].set_ok("after", &value).await;
    assert_eq!(held.answer().await.text(), status(version, &value));
    settle(&nodes, &redis, 300).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sets_are_not_refused_because_gets_take_all_commands_under_way() {
    const PAGES: usize = 200;
    const SETS: usize = 150;
    let redis = Redis::start(&[]).await;
    let proxy = Proxy::start(([127, 0, 0, 1], redis.port).into()).await;
    let args = ["--redis-in-flight", "128", "--redis-timeout", "8s"];
    let nodes = Nodes::start(1, &format!("redis://127.0.0.1:{}", proxy.port), &args).await;
    proxy.set(Weather::Delay(Duration::from_millis(25)));
    let mut pages = JoinSet::new();
    for page in 0..PAGES {
        let address = nodes[0].public.clone();
        pages.spawn(async move {
            let mut conn = Conn::open(&address).await;
            loop {
                conn.ask(request(
                    "GET",
                    &format!("/status/get?key=page-{page}&wait=0"),
                    &[],
                    b"",
                ))
                .await;
            }
        });
    }
    // Gets take as many commands as they may, which need not be all.
    let all_poll = async || nodes[0].metric("holdfast_redis_commands_in_flight").await > 20.0;
    eventually(all_poll, "gets take commands under way").await;
    let mut sets = JoinSet::new();
    for at in 0..SETS {
        sets.spawn(set(
            nodes[0].internal.clone(),
            format!(r#"{{"key":"set-{at}","value":1}}"#),
        ));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let outcomes = sets.join_all().await;
    let refused = outcomes
        .iter()
        .filter(|outcome| **outcome != (200, 0))
        .count();
    assert_eq!(refused, 0, "of {SETS} sets: {outcomes:?}");
    pages.shutdown().await;
    proxy.set(Weather::Pass);
    settle(&nodes, &redis, 300).await;
}

#[tokio::test]
async fn another_eviction_policy_is_warned_of() {
    for (policy, is_warned) in [
        ("noeviction", false),
        ("allkeys-lru", true),
        ("volatile-ttl", true),
    ] {
        let redis = Redis::start(&["--maxmemory", "100mb", "--maxmemory-policy", policy]).await;
        let nodes = Nodes::start(1, &redis.url(), &[]).await;
        let told = async || {
            nodes[0]
                .logs()
                .iter()
                .any(|line| line.contains("connected to Redis"))
        };
        eventually(told, "what is told behind the warning").await;
        let warned = nodes[0]
            .logs()
            .iter()
            .any(|line| line.contains("WARN") && line.contains("maxmemory-policy"));
        assert_eq!(warned, is_warned, "{policy}: {:?}", nodes[0].logs());
        let check = Launch::new(&["--check", "--redis-timeout", "5s", "--redis", &redis.url()]);
        let check = check.run().await;
        assert_eq!(check.status.code(), Some(0), "{check:?}");
        let warned = check.stderr.contains("maxmemory-policy") && check.stderr.contains(policy);
        assert_eq!(warned, is_warned, "{policy}: {check:?}");
        let answered = format!("holdfast: Redis {}", redis.url());
        assert!(check.stdout.starts_with(&answered), "{check:?}");
    }
}

#[tokio::test]
async fn updates_for_one_peer_go_together() {
    const KEYS: usize = 400;
    let redis = Redis::start(&[]).await;
    let internal = format!("127.0.0.1:{}", free_port());
    let proxy = Proxy::start(internal.parse().unwrap()).await;
    let url = format!("http://127.0.0.1:{}", proxy.port);
    let far = Launch::new(&[
        "--internal",
        &internal,
        "--advertise",
        &url,
        "--hold",
        "15s",
    ]);
    let far = far.env("HOLDFAST_REDIS", &redis.url()).start().await;
    wait_connected(&far).await;
    let nodes = Nodes::start(1, &redis.url(), &[]).await;
    let mut held = Vec::new();
    for at in 0..KEYS {
        held.push(far.open(&format!("key=k{at}&wait=14")).await);
    }
    let leased = async || {
        let look = nodes[0].key_waiters(&format!("k{}", KEYS - 1)).await;
        look == 1 && far.metric("holdfast_waiters").await >= KEYS as f64
    };
    eventually(leased, "all wait").await;
    proxy.set(Weather::Delay(Duration::from_millis(40)));
    let sets: Vec<_> = (0..KEYS)
        .map(|at| format!(r#"{{"key":"k{at}","value":{at}}}"#))
        .collect();
    let begun = Instant::now();
    let response = nodes[0].set(format!("[{}]", sets.join(","))).await;
    let took = begun.elapsed();
    let delivered: u64 = response.json()["results"]
        .as_array()
        .expect("results")
        .iter()
        .map(|one| {
            assert!(one.get("unreachable").is_none(), "{one}");
            one["delivered"].as_u64().expect("a number")
        })
        .sum();
    assert_eq!((response.code(), delivered), (0, KEYS as u64));
    // One by one the updates would take half a minute.
    assert!(
        took < Duration::from_secs(9),
        "{took:?} for {KEYS} updates over 80 ms"
    );
    println!("{KEYS} updates of one array to a peer 80 ms away took {took:?}");
    for (at, held) in held.iter_mut().enumerate() {
        assert_eq!(held.answer().await.object()["value"], at);
    }
    far.quiet().await;
    settle(&nodes, &redis, 300).await;
}

#[tokio::test]
async fn what_is_kept_for_resend_is_dropped_in_its_time_even_if_no_further_set_comes() {
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(1, &redis.url(), &["--resend", "1s"]).await;
    let kept = async || {
        nodes[0]
            .metric(r#"holdfast_queue_length{queue="confirmed"}"#)
            .await
    };
    nodes[0].set_ok("k", "1").await;
    assert_eq!(kept().await, 1.0);
    eventually(async || kept().await == 0.0, "nothing is kept").await;
}
