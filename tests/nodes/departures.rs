//! Nodes come and go in the usual way, and are reached at the address that they give.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{is_of_key, leases, poll, settle, status};
use crate::contract::sets::{check, check_done};
use holdfast_testkit::{
    Launch, Nodes, Proxy, Redis, Response, Scratch, Weather, eventually, free_port, wait_connected,
};

#[tokio::test]
async fn a_drained_node_leaves_no_lease_and_its_pages_go_on_elsewhere() {
    let redis = Redis::start(&[]).await;
    let mut nodes = Nodes::start(3, &redis.url(), &[]).await;
    let mut drained = nodes.hold(0, "key=k").await;
    let mut other = nodes.hold(1, "key=k").await;
    nodes[0].signal("TERM").await;
    let answer = drained.answer().await;
    assert_eq!((answer.status, answer.code()), (503, -2), "{answer:?}");
    let mut elsewhere = nodes[2].open("key=k&wait=9").await;
    assert_eq!(nodes[0].wait_exit().await.code(), Some(0));
    let mut expected = vec![nodes.name(1).await, nodes.name(2).await];
    expected.sort_unstable();
    eventually(
        async || leases(&redis, "k").await == expected,
        "the leases of those that stay",
    )
    .await;
    let version = check_done(&nodes[1].set(r#"{"key":"k","value":1}"#).await, 2);
    for held in [&mut other, &mut elsewhere] {
        assert_eq!(held.answer().await.text(), status(version, "1"));
    }
    nodes.replace(0).await;
    settle(&nodes, &redis, 300).await;
}

#[tokio::test]
async fn a_drain_waits_until_the_leases_of_all_that_was_held_are_gone() {
    const KEYS: usize = 1200;
    let redis = Redis::start(&[]).await;
    let proxy = Proxy::start(([127, 0, 0, 1], redis.port).into()).await;
    // The timeout is long enough for a busy machine, because a lease stays if Redis does not
    // answer in time when it is given back.
    let args = ["--redis-timeout", "10s", "--drain-grace", "15s"];
    let mut nodes = Nodes::start(1, &format!("redis://127.0.0.1:{}", proxy.port), &args).await;
    let mut held = Vec::new();
    for key in 0..KEYS {
        held.push(nodes[0].open(&format!("key=k{key}")).await);
    }
    let count = async || {
        let names = redis.names().await;
        names.iter().filter(|name| is_of_key(name)).count()
    };
    eventually(async || count().await == KEYS, "a lease for each").await;
    // With this delay, giving back all leases takes far longer than answering the pages and
    // the quiet time that ends the drain.
    proxy.set(Weather::Delay(Duration::from_millis(20)));
    nodes[0].signal("TERM").await;
    for held in &mut held {
        assert_eq!(held.answer().await.code(), -2);
    }
    assert_eq!(nodes[0].wait_exit().await.code(), Some(0));
    for key in 0..KEYS {
        assert_eq!(
            leases(&redis, &format!("k{key}")).await,
            Vec::<String>::new(),
            "k{key}"
        );
    }
}

#[tokio::test]
async fn a_drain_gives_back_the_leases_of_what_was_just_being_opened() {
    let redis = Redis::start(&[]).await;
    let proxy = Proxy::start(([127, 0, 0, 1], redis.port).into()).await;
    let args = ["--redis-timeout", "5s", "--hold", "60s"];
    let mut nodes = Nodes::start(1, &format!("redis://127.0.0.1:{}", proxy.port), &args).await;
    proxy.set(Weather::Delay(Duration::from_millis(400)));
    let mut opening = Vec::new();
    for key in 0..20 {
        opening.push(nodes[0].open(&format!("key=k{key}")).await);
    }
    nodes[0].wait_waiters(20).await;
    nodes[0].signal("TERM").await;
    for held in &mut opening {
        assert_eq!(held.answer().await.code(), -2);
    }
    assert_eq!(nodes[0].wait_exit().await.code(), Some(0));
    for key in 0..20 {
        assert_eq!(
            leases(&redis, &format!("k{key}")).await,
            Vec::<String>::new(),
            "k{key}"
        );
    }
}

#[tokio::test]
async fn a_drain_ends_in_its_grace_where_redis_does_not_answer() {
    let redis = Redis::start(&[]).await;
    let mut nodes = Nodes::start(
        1,
        &redis.url(),
        &["--drain-grace", "2s", "--redis-timeout", "60s"],
    )
    .await;
    let mut held = nodes.hold(0, "key=k").await;
    redis.signal("STOP").await;
    let begun = Instant::now();
    nodes[0].signal("TERM").await;
    assert_eq!(held.answer().await.code(), -2);
    assert_eq!(nodes[0].wait_exit().await.code(), Some(0));
    let took = begun.elapsed();
    assert!(
        (1800..10_000).contains(&took.as_millis()),
        "not the grace: {took:?}"
    );
    redis.signal("CONT").await;
    let told = nodes[0]
        .logs()
        .iter()
        .any(|line| line.contains("not all leases were given back"));
    assert!(told, "{:?}", nodes[0].logs());
}

#[tokio::test]
async fn a_node_on_all_addresses_is_reached_at_that_of_the_way_to_redis() {
    let redis = Redis::start(&[]).await;
    let port = free_port();
    let address = format!("0.0.0.0:{port}");
    let everywhere = Launch::new(&[
        "--internal",
        &address,
        "--internal-without-token",
        "--hold",
        "9s",
    ]);
    let everywhere = everywhere.env("HOLDFAST_REDIS", &redis.url()).start().await;
    wait_connected(&everywhere).await;
    let nodes = Nodes::start(1, &redis.url(), &[]).await;
    let mut held = everywhere.open("key=k").await;
    nodes[0].wait_key_waiters("k", 1).await;
    let lease = leases(&redis, "k").await;
    assert!(
        lease.len() == 1 && lease[0].ends_with(&format!("@http://127.0.0.1:{port}")),
        "{lease:?}"
    );
    let version = check_done(&nodes[0].set(r#"{"key":"k","value":1}"#).await, 1);
    assert_eq!(held.answer().await.text(), status(version, "1"));
    everywhere.quiet().await;
    settle(&nodes, &redis, 300).await;
}

#[tokio::test]
async fn nodes_show_each_other_the_token() {
    let scratch = Scratch::new();
    let redis = Redis::start(&[]).await;
    let launch = |tokens: &str, bearer: &str| {
        let file = scratch.file(bearer, tokens);
        let launch = Launch::new(&[
            "--internal-token-file",
            &file,
            "--hold",
            "9s",
            "--peer-timeout",
            "1s",
        ]);
        launch.env("HOLDFAST_REDIS", &redis.url()).bearer(bearer)
    };
    // Two nodes know both tokens while these are being changed, and one node was forgotten.
    let old = Nodes::launch(1, launch("old\nnew\n", "old")).await;
    let new = Nodes::launch(1, launch("new\nold\n", "new")).await;
    let forgotten = Nodes::launch(1, launch("forgotten\n", "forgotten")).await;
    for (get, set) in [(&old, &new), (&new, &old)] {
        let key = format!("k{}", get[0].pid());
        let mut held = get[0].open(&format!("key={key}")).await;
        set[0].wait_key_waiters(&key, 1).await;
        let version = check_done(
            &set[0].set(format!(r#"{{"key":"{key}","value":1}}"#)).await,
            1,
        );
        assert_eq!(held.answer().await.text(), status(version, "1"));
    }
    let mut held = old[0].open("key=k").await;
    eventually(async || leases(&redis, "k").await.len() == 1, "it waits").await;
    let response = forgotten[0].set(r#"{"key":"k","value":1}"#).await;
    let (version, url) = (response.version(), old.url(0));
    let body = format!(
        r#"{{"code":0,"message":"success","version":{version},"delivered":0,"unreachable":["{url}"]}}"#
    );
    check(&response, 200, &body);
    assert_eq!(
        poll(&old[0], "k", 0).await.text(),
        status(version, "1"),
        "the next poll has it"
    );
    // The lease was dropped, or is found again. Either way the page hears of the next status
    // or asks again.
    let receipt = new[0].set(r#"{"key":"k","value":2}"#).await;
    if receipt.json()["delivered"] == 1 {
        assert_eq!(held.answer().await.text(), status(receipt.version(), "2"));
    }
    held.leave();
    for nodes in [&old, &new, &forgotten] {
        nodes.quiet().await;
    }
}

#[tokio::test]
async fn a_node_that_is_not_reached_as_itself_says_so() {
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(1, &redis.url(), &[]).await;
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let mut wrong = Vec::new();
    for advertise in [nobody, nodes.url(0)] {
        let launch = Launch::new(&["--advertise", &advertise]).env("HOLDFAST_REDIS", &redis.url());
        wrong.push(launch.start_unready().await);
    }
    // A single failed try may be a moment's trouble, so the node reports it after ten seconds.
    let until = Instant::now() + Duration::from_secs(20);
    for node in &wrong {
        let ready = async || node.internal("GET", "/health/ready", &[], b"").await;
        let names_address = |answer: &Response| {
            let parts = &answer.json()["parts"];
            ["failed", "another node has this address"]
                .iter()
                .any(|text| parts["address"] == *text)
        };
        while !names_address(&ready().await) {
            assert!(
                Instant::now() < until,
                "it is not told: {:?}",
                ready().await
            );
            sleep(Duration::from_millis(50)).await;
        }
        let unready = ready().await;
        assert_eq!((unready.status, unready.code()), (503, -6), "{unready:?}");
        let told = async || {
            node.logs()
                .iter()
                .any(|line| line.contains("ERROR") && line.contains("--advertise"))
        };
        eventually(told, "the mistake in the log").await;
    }
    assert_eq!(
        nodes[0]
            .internal("GET", "/health/ready", &[], b"")
            .await
            .status,
        200
    );
}
