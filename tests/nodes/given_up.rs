//! Gets that are given up. What they took in Redis is given back, and nobody else loses
//! anything by it.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{PREFIX, is_of_key, settle, status};
use crate::contract::sets::check_done;
use holdfast_testkit::{Nodes, Redis, eventually, long, many_files, request};

/// A hold so long that no lease ends by itself while a test waits until it is given back.
const ARGS: [&str; 2] = ["--hold", "30s"];

/// Returns how many keys of pages are in Redis.
async fn keys(redis: &Redis) -> usize {
    redis
        .names()
        .await
        .iter()
        .filter(|name| is_of_key(name))
        .count()
}

#[tokio::test]
async fn gets_of_keys_by_chance_that_are_closed_at_once_leave_nothing_in_redis() {
    let gets = if long() { 15_000 } else { 2_000 };
    let _files = many_files(gets).await;
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(1, &redis.url(), &ARGS).await;
    let address = nodes[0].public.tcp();
    let mut conns = Vec::new();
    for _ in 0..gets {
        let mut conn = TcpStream::connect(address).await.expect("a connection");
        let target = format!("/status/get?key={:032x}", rand::random::<u128>());
        conn.write_all(&request("GET", &target, &[], b""))
            .await
            .expect("sent");
        conns.push(conn);
    }
    eventually(
        async || keys(&redis).await == gets as usize,
        "each has its lease",
    )
    .await;
    drop(conns);
    nodes[0].wait_waiters(0).await;
    eventually(
        async || keys(&redis).await == 0,
        "what was leased is given back",
    )
    .await;
    settle(&nodes, &redis, 300).await;
}

#[tokio::test]
async fn a_page_that_leaves_takes_no_lease_from_one_that_stays_or_comes_back() {
    const PAGES: u64 = 24;
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(2, &redis.url(), &ARGS).await;
    let mut staying = nodes.hold(0, "key=stays").await;
    nodes.hold(0, "key=stays").await.leave();
    // Some pages come back before the lease is given back, some at that moment, and some after
    // it.
    let mut pages = JoinSet::new();
    for page in 0..PAGES {
        let held = nodes[0].open(&format!("key=back-{page}&last=1")).await;
        nodes[1].wait_key_waiters(&format!("back-{page}"), 1).await;
        held.leave();
        nodes[0].wait_key_waiters(&format!("back-{page}"), 0).await;
        pages.spawn(async move {
            sleep(Duration::from_millis(page * 4500 / PAGES)).await;
            page
        });
    }
    while let Some(page) = pages.join_next().await {
        let key = format!("back-{}", page.expect("no panic"));
        let mut held = nodes[0].open(&format!("key={key}")).await;
        nodes[1].wait_key_waiters(&key, 1).await;
        let version = check_done(
            &nodes[1]
                .set(format!(r#"{{"key":"{key}","value":1}}"#))
                .await,
            1,
        );
        assert_eq!(held.answer().await.text(), status(version, "1"), "{key}");
    }
    let version = check_done(&nodes[1].set(r#"{"key":"stays","value":1}"#).await, 1);
    assert_eq!(staying.answer().await.text(), status(version, "1"));
    settle(&nodes, &redis, 300).await;
}

#[tokio::test]
async fn a_lease_whose_end_was_moved_without_an_answer_is_given_back_too() {
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(1, &redis.url(), &["--hold", "5m"]).await;
    let held = nodes.hold(0, "key=k").await;
    // Moves the end of the lease, as an open does whose answer is lost.
    redis
        .command(&["HINCRBY", &format!("{PREFIX}k"), &nodes.name(0).await, "7"])
        .await;
    held.leave();
    eventually(
        async || keys(&redis).await == 0,
        "what was leased is given back",
    )
    .await;
    let count = async || nodes[0].metric("holdfast_leases").await;
    eventually(async || count().await <= 1.0, "and is not counted any more").await;
    nodes.quiet().await;
}
