//! Updates of one key through different nodes at the same moment have one order, and pages see
//! that order.

use tokio::join;
use tokio::task::JoinSet;

use super::settle;
use crate::races::one_node::clients::{Answer, Place, in_order, stir};
use holdfast_testkit::{Nodes, Redis, long};
use std::time::Duration;

const KEYS: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_sets_of_one_key_through_two_nodes_take_no_page_backwards() {
    let rounds = if long() { 1000 } else { 40 };
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(3, &redis.url(), &["--hold", "30s"]).await;
    let mut tasks = JoinSet::new();
    for at in 0..KEYS {
        let places = [0, 1, 2].map(|node| Place::new(&nodes[(at + node) % 3], format!("key-{at}")));
        tasks.spawn(async move {
            let (mut page, mut same, mut one, mut other) = (
                places[0].page().await,
                places[1].page().await,
                places[1].backend().await,
                places[2].backend().await,
            );
            let (mut last, mut both) = (0, 0);
            for round in 0..rounds {
                let values = [
                    (round % 3 < 2).then_some(2 * round),
                    (round % 3 < 1).then_some(2 * round + 1),
                ];
                let get = async {
                    stir(Duration::from_millis(4)).await;
                    page.poll(last).await
                };
                let (answer, also, one, other) = join!(
                    get,
                    same.poll(last),
                    one.update(values[0]),
                    other.update(values[1])
                );
                let (older, newer) = in_order(last, one, other);
                assert!(
                    older.0.delivered + newer.0.delivered <= 2,
                    "two gets: {older:?}, {newer:?}"
                );
                for (page, answer) in [(&mut page, answer), (&mut same, also)] {
                    if answer != newer.1 {
                        assert_eq!(answer, older.1);
                        assert_eq!(page.poll(answer.version).await, newer.1);
                    }
                    assert_eq!(
                        page.poll_for(0, Duration::ZERO).await,
                        newer.1,
                        "the greater version is what is stored"
                    );
                    assert_eq!(
                        page.poll_for(newer.0.version, Duration::ZERO).await,
                        Answer::timeout(newer.0.version)
                    );
                }
                both += older.0.delivered + newer.0.delivered;
                last = newer.0.version;
            }
            page.end().await;
            same.end().await;
            both
        });
    }
    let delivered: u64 = tasks.join_all().await.into_iter().sum();
    println!(
        "{KEYS} keys, {rounds} rounds of two updates, {delivered} of {} gets were held",
        KEYS as u64 * rounds * 2
    );
    assert!(delivered > 0, "no get was held");
    settle(&nodes, &redis, 300).await;
}
