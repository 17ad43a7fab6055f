//! Many gets of one key or on one connection: the limits under a rush, the waiters that are
//! woken, pipelining, long polling, and a check that all this leaves no memory behind.

use std::time::Duration;

use tokio::join;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::clients::{Answer, LEAVINGS, LONG, Leaving, Place, at_rest, stir};
use super::{KEYS, SPREAD, on_keys, rounds};
use holdfast_testkit::{Conn, Node, PATIENCE, long, request};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_rush_on_one_key_a_hundred_are_held_and_one_set_wakes_them_all() {
    let node = Node::start(&["--max-waiters-per-key", "100"]).await;
    on_keys(&node, 2, |place| async move {
        let mut backend = place.backend().await;
        let mut last = 0;
        for round in 0..rounds(3) {
            let rush = (0..120)
                .map(|_| place.clone())
                .map(|place| async move { place.page().await.poll(last).await });
            let mut answers: JoinSet<Answer> = rush.collect();
            for _ in 0..20 {
                let answer = answers
                    .join_next()
                    .await
                    .expect("an answer")
                    .expect("no panic");
                assert!(answer.is_refusal(-3, last), "{answer:?}");
            }
            backend.wait_held(100).await;
            let receipt = backend.set(round).await;
            assert_eq!(receipt.delivered, 100);
            for answer in answers.join_all().await {
                assert_eq!(answer, Answer::status(receipt.version, round));
            }
            last = receipt.version;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_rush_on_many_keys_no_more_are_held_than_the_node_may() {
    let node = Node::start(&["--max-waiters", "20"]).await;
    for round in 0..rounds(3) {
        let places: Vec<_> = (0..15)
            .map(|index| Place::new(&node, format!("key-{round}-{index}")))
            .collect();
        let gets = [&places[..], &places[..]].concat();
        let mut answers: JoinSet<_> = gets
            .into_iter()
            .map(|place| async move { place.page().await.poll(0).await })
            .collect();
        let (mut busy, mut held) = (0, 0);
        let deadline = Instant::now() + PATIENCE;
        while busy + held < 30 {
            assert!(Instant::now() < deadline, "{busy} refused, {held} held");
            while let Some(answer) = answers.try_join_next() {
                let answer = answer.expect("no panic");
                assert!(answer.is_refusal(-3, 0), "{answer:?}");
                busy += 1;
            }
            held = 0;
            for place in &places {
                held += place.backend().await.look().await.1;
            }
        }
        // The node's own probe may have been the twentieth.
        assert!((19..=20).contains(&held), "{held}");
        at_rest(node.pid()).await;
        let mut delivered = 0;
        for place in &places {
            delivered += place.backend().await.set(round).await.delivered;
        }
        assert_eq!(delivered, held);
        assert!(
            answers
                .join_all()
                .await
                .iter()
                .all(|answer| answer.code == 0 && answer.value == round)
        );
        node.quiet().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_wakes_only_those_that_know_less() {
    let node = Node::start(&[]).await;
    let id = node.internal("GET", "/health/live", &[], b"").await.json()["node"]
        .as_str()
        .expect("an id")
        .to_owned();
    on_keys(&node, KEYS, |place| {
        let id = id.clone();
        async move {
            let (mut one, mut other) = (place.backend().await, place.backend().await);
            let mut pages = Vec::new();
            for _ in 0..4 {
                pages.push(place.page().await);
            }
            let update = |update: &str| {
                format!(
                    r#"{{"to":"{id}","updates":[{{"key":"{}",{update}}}]}}"#,
                    place.key
                )
            };
            let delivered = |response: holdfast_testkit::Response| {
                assert_eq!((response.status, response.code()), (200, 0), "{response:?}");
                response.json()["delivered"][0].as_u64().expect("a number")
            };
            for _ in 0..rounds(12) {
                for (page, last) in pages.iter_mut().zip([10, 20, 30, 40]) {
                    page.ask(last, LONG).await;
                }
                one.wait_held(4).await;
                let older = update(r#""version":25,"value":25"#);
                let newer = update(r#""version":35,"value":35"#);
                let (to_older, to_newer) = join!(
                    one.post("/channel/set", &older),
                    other.post("/channel/set", &newer)
                );
                let mut got = Vec::new();
                for page in &mut pages[..3] {
                    got.push(page.answer().await);
                }
                let count = |version: u64| {
                    got.iter()
                        .filter(|answer| **answer == Answer::status(version, version))
                        .count()
                };
                assert_eq!(
                    (delivered(to_older), delivered(to_newer)),
                    (count(25) as u64, count(35) as u64)
                );
                assert_eq!((count(25) + count(35), got[2].version), (3, 35), "{got:?}");
                for known in [25, 35, 40] {
                    let response = one
                        .post(
                            "/channel/set",
                            &update(&format!(r#""version":{known},"value":0"#)),
                        )
                        .await;
                    assert_eq!(delivered(response), 0);
                }
                assert_eq!(
                    one.look().await,
                    (0, 1),
                    "one still waits, and a channel set stores nothing"
                );
                assert_eq!(
                    delivered(
                        one.post("/channel/set", &update(r#""version":41,"gone":true"#))
                            .await
                    ),
                    1
                );
                assert_eq!(pages[3].answer().await, Answer::gone(41));
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_gets_are_each_answered_once_and_in_order() {
    const GETS: usize = 5;
    let node = Node::start(&[]).await;
    on_keys(&node, KEYS / 2, |place| {
        let public = node.public.clone();
        async move {
            let mut conn = Conn::open(&public).await;
            let mut lasts = [0; GETS];
            for _ in 0..rounds(20) {
                let key = |index: usize| format!("{}-{index}", place.key);
                let get = |index: usize| {
                    let target = format!(
                        "/status/get?key={}&callback=cb&last={}",
                        key(index),
                        lasts[index]
                    );
                    request("GET", &target, &[], b"")
                };
                conn.send((0..GETS).map(get).collect::<Vec<_>>().concat())
                    .await;
                let sets = (0..GETS).map(|index| {
                    let place = place.with_key(key(index));
                    async move {
                        let mut backend = place.backend().await;
                        stir(SPREAD).await;
                        (index, backend.set(index).await.version)
                    }
                });
                let sets: JoinSet<_> = sets.collect();
                let mut answers = Vec::new();
                for _ in 0..GETS {
                    answers.push(Answer::of(&conn.read_response().await));
                }
                for (index, version) in sets.join_all().await {
                    assert_eq!(answers[index], Answer::status(version, index));
                    lasts[index] = version;
                }
            }
            conn.shutdown_write().await;
            conn.expect_close().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_gets_of_a_client_that_left_end_with_their_deadlines() {
    let node = Node::start(&[]).await;
    on_keys(&node, KEYS, |place| async move {
        let mut backend = place.backend().await;
        for leaving in [Leaving::Fin, Leaving::Reset] {
            let mut page = place.page_to_leave(leaving).await;
            for _ in 0..3 {
                page.ask(0, Duration::from_millis(300)).await;
            }
            backend.wait_held(1).await;
            page.leave().await;
            backend.wait_held(0).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_that_poll_on_while_it_is_set_go_forward_and_see_the_last() {
    let node = Node::start(&[]).await;
    let sets = rounds(200);
    on_keys(&node, 4, move |place| async move {
        let pages = (0..3).map(|_| place.clone()).map(|place| async move {
            let (mut page, mut last, mut seen) = (place.page().await, 0, None);
            while seen != Some(sets - 1) {
                let wait =
                    [Duration::ZERO, Duration::from_millis(1), LONG][rand::random_range(0..3)];
                let answer = page.poll_for(last, wait).await;
                if answer == Answer::timeout(last) && wait < LONG {
                    continue;
                }
                let value = answer.value.as_u64();
                assert!(
                    answer.code == 0 && answer.version > last && value > seen,
                    "{last}: {answer:?}"
                );
                (last, seen) = (answer.version, value);
                stir(SPREAD).await;
            }
            page.end().await;
            last
        });
        let pages: JoinSet<_> = pages.collect();
        let mut backend = place.backend().await;
        let mut newest = 0;
        for value in 0..sets {
            newest = backend.set(value).await.version;
            stir(SPREAD).await;
        }
        assert_eq!(pages.join_all().await, [newest; 3]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gets_sets_and_leaving_clients_leave_no_memory_behind() {
    const WORKERS: usize = 16;
    const MOST_GROWTH_KB: u64 = 8 << 10;
    let node = Node::start(&[]).await;
    let cycles = if long() { 200_000 } else { 20_000 };
    let mut resident = Vec::new();
    for batch in 0..4 {
        on_keys(&node, WORKERS, move |place| {
            get_set_and_leave(place, batch, cycles / 4 / WORKERS)
        })
        .await;
        resident.push(resident_kb(node.pid()));
    }
    assert!(
        resident[3] < resident[1] + MOST_GROWTH_KB,
        "{resident:?} kB"
    );
}

/// Runs in turns a page that stays, one that leaves at the instant of the set, and one whose
/// status never comes.
async fn get_set_and_leave(place: Place, batch: usize, cycles: usize) {
    let (mut page, mut backend) = (place.page().await, place.backend().await);
    let mut last = backend.set(0).await.version;
    for cycle in 0..cycles {
        let leaving = LEAVINGS[cycle / 3 % 3];
        if cycle % 3 == 2 {
            let mut leaver = place
                .with_key(format!("{}-{batch}-{cycle}", place.key))
                .page_to_leave(leaving)
                .await;
            leaver.ask(0, LONG).await;
            leaver.leave().await;
            continue;
        }
        let (answer, receipt) = if cycle % 3 == 1 {
            let mut leaver = place.page_to_leave(leaving).await;
            leaver.ask(last, LONG).await;
            let (_, receipt) = join!(leaver.leave(), backend.set(cycle));
            (page.poll(last).await, receipt)
        } else {
            join!(page.poll(last), backend.set(cycle))
        };
        assert_eq!(answer, Answer::status(receipt.version, cycle));
        last = receipt.version;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statuses_that_expired_leave_no_memory_behind() {
    // The statuses of two rounds, because one round may not be swept yet. If the statuses of
    // four rounds were kept, they would take twice as much. The first round is not counted,
    // because the allocator takes its room then.
    const MOST_GROWTH_KB: u64 = 12 << 10;
    let node = Node::start(&[]).await;
    let mut resident = Vec::new();
    for round in 0..if long() { 20 } else { 6 } {
        let mut backend = Place::new(&node, format!("key-{round}-3-999"))
            .backend()
            .await;
        for part in 0..4 {
            let value = "x".repeat(1000);
            let set =
                |n| format!(r#"{{"key":"key-{round}-{part}-{n}","value":"{value}","ttl":1}}"#);
            let sets: Vec<_> = (0..1000).map(set).collect();
            let response = backend
                .post("/status/set", &format!("[{}]", sets.join(",")))
                .await;
            assert_eq!((response.status, response.code()), (200, 0), "{response:?}");
        }
        let deadline = Instant::now() + PATIENCE;
        while backend.look().await.0 > 0 {
            assert!(Instant::now() < deadline, "{} does not expire", backend.key);
            sleep(Duration::from_millis(50)).await;
        }
        resident.push(resident_kb(node.pid()));
    }
    assert!(
        resident[resident.len() - 1] < resident[1] + MOST_GROWTH_KB,
        "{resident:?} kB"
    );
    node.quiet().await;
}

/// Returns the resident memory of a process, in kB.
fn resident_kb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("its memory");
    line.trim_end_matches("kB")
        .trim()
        .parse()
        .expect("a number")
}
