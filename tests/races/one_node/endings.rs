//! The other ends of a wait against gets and sets: deletion, expiry and the drain. Also pages
//! ahead of the clock.

use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::join;
use tokio::time::{Instant, sleep, sleep_until};

use super::clients::{Answer, LEAVINGS, LONG, Place, at_rest, stir};
use super::{KEYS, SPREAD, on_keys, rounds};
use holdfast_testkit::{Conn, Node, eventually, request};

/// Returns a version that the clock reaches in half an hour.
fn ahead_of_the_clock() -> u64 {
    let later = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        + Duration::from_secs(1800);
    later.as_millis().try_into().expect("a version")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_that_races_a_get_is_its_answer_until_the_next_set() {
    let node = Node::start(&[]).await;
    on_keys(&node, KEYS, |place| async move {
        let (mut page, mut backend) = (place.page().await, place.backend().await);
        let mut last = 0;
        for round in 0..rounds(45) {
            // Sets and deletions take turns.
            let value = (round % 2 == 1).then_some(round);
            let get = async {
                stir(SPREAD).await;
                page.poll(last).await
            };
            let update = async {
                stir(SPREAD).await;
                backend.update(value).await
            };
            let (answer, (receipt, expected)) = join!(get, update);
            assert_eq!(answer, expected);
            assert!(
                receipt.version > last && receipt.delivered <= 1,
                "{receipt:?}"
            );
            assert_eq!(
                page.poll_for(last, Duration::ZERO).await,
                expected,
                "told again to who does not know it"
            );
            last = receipt.version;
            assert_eq!(
                page.poll_for(last, Duration::ZERO).await,
                Answer::timeout(last),
                "and to nobody who does"
            );
        }
        page.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_ahead_of_the_clock_gets_the_next_set() {
    let node = Node::start(&[]).await;
    on_keys(&node, KEYS, |place| async move {
        let (mut page, mut backend) = (place.page().await, place.backend().await);
        let mut last = ahead_of_the_clock();
        for (round, leaving) in (0..rounds(3)).zip(LEAVINGS.into_iter().cycle()) {
            page.ask(last, LONG).await;
            backend.wait_held(1).await;
            let first = backend.set(round).await;
            assert!(
                first.version > last && first.delivered == 1,
                "{last}, {first:?}"
            );
            assert_eq!(page.answer().await, Answer::status(first.version, round));

            let (answer, second) = join!(page.poll(first.version), backend.set(round));
            assert!(second.version > first.version, "{first:?}, {second:?}");
            assert_eq!(answer, Answer::status(second.version, round));

            // The page leaves, still further ahead, and the set comes before it is back.
            let further = second.version + 1000;
            let mut leaver = place.page_to_leave(leaving).await;
            leaver.ask(further, LONG).await;
            backend.wait_held(1).await;
            leaver.leave().await;
            backend.wait_held(0).await;
            let third = backend.set(round).await;
            assert!(
                third.version > further && third.delivered == 0,
                "{further}, {third:?}"
            );
            assert_eq!(
                page.poll(further).await,
                Answer::status(third.version, round)
            );
            last = third.version + 1000;
        }
        page.end().await;
    })
    .await;
}

/// Holds a page, ahead of the clock or not, and wakes it with a status that lives for a second.
/// Returns its version, and the earliest and the latest instant of its end.
async fn set_for_a_second(place: &Place) -> (u64, Range<Instant>) {
    const TTL: Duration = Duration::from_secs(1);
    let (mut page, mut backend) = (place.page().await, place.backend().await);
    page.ask(
        if rand::random() {
            ahead_of_the_clock()
        } else {
            0
        },
        LONG,
    )
    .await;
    backend.wait_held(1).await;
    let began = Instant::now();
    let receipt = backend.set_with(1, r#","ttl":1"#).await;
    let expiry = began + TTL..Instant::now() + TTL;
    assert_eq!(
        (page.answer().await, receipt.delivered),
        (Answer::status(receipt.version, 1), 1)
    );
    (receipt.version, expiry)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_that_expires_is_not_seen_again_and_those_who_wait_get_the_next() {
    let node = Node::start(&[]).await;
    on_keys(&node, KEYS, |place| async move {
        let (mut page, mut other, mut backend) = (
            place.page().await,
            place.page().await,
            place.backend().await,
        );
        let (first, expiry) = set_for_a_second(&place).await;
        page.ask(first, LONG).await;
        backend.wait_held(1).await;
        loop {
            let began = Instant::now();
            let answer = other.poll_for(0, Duration::ZERO).await;
            if answer == Answer::timeout(0) {
                assert!(Instant::now() >= expiry.start, "it ended too early");
                break;
            }
            assert_eq!(answer, Answer::status(first, 1));
            assert!(began < expiry.end, "it did not end");
            sleep(Duration::from_millis(5)).await;
        }
        for _ in 0..20 {
            assert_eq!(
                other.poll_for(0, Duration::from_millis(1)).await,
                Answer::timeout(0)
            );
        }
        assert_eq!(
            backend.look().await,
            (0, 1),
            "as if never set, and one waits for what comes"
        );
        other.ask(0, LONG).await;
        backend.wait_held(2).await;
        let second = backend.set(2).await;
        assert!(
            second.version > first && second.delivered == 2,
            "{first}, {second:?}"
        );
        for page in [&mut page, &mut other] {
            assert_eq!(page.answer().await, Answer::status(second.version, 2));
        }
        page.end().await;
        other.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_at_the_instant_of_expiry_is_newer_for_all() {
    let node = Node::start(&[]).await;
    on_keys(&node, KEYS, |place| async move {
        for round in 0..rounds(1) {
            let place = place.with_key(format!("{}-{round}", place.key));
            let (mut page, mut other, mut backend) = (
                place.page().await,
                place.page().await,
                place.backend().await,
            );
            let (first, expiry) = set_for_a_second(&place).await;
            page.ask(first, LONG).await;
            backend.wait_held(1).await;
            sleep_until(expiry.start - Duration::from_millis(3)).await;
            let set = async {
                stir(Duration::from_millis(4)).await;
                backend.set_with(2, r#","ttl":60"#).await
            };
            let get = async {
                stir(Duration::from_millis(4)).await;
                other.poll(0).await
            };
            let (mut seen, second) = join!(get, set);
            let expected = Answer::status(second.version, 2);
            assert!(
                second.version > first && second.delivered >= 1,
                "{first}, {second:?}"
            );
            assert_eq!(page.answer().await, expected);
            if seen == Answer::status(first, 1) {
                seen = other.poll(first).await;
            }
            assert_eq!(seen, expected);
            page.end().await;
            other.end().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_that_races_sets_answers_each_held_get_once_and_loses_no_status() {
    for _ in 0..rounds(1).min(10) {
        let mut node = Node::start(&[]).await;
        // Three gets of each key, one in each form.
        let mut held = Vec::new();
        for index in 0..KEYS {
            let place = Place::new(&node, format!("key-{index}"));
            let mut conns = Vec::new();
            for form in ["callback=cb", "assign=answer", "wait=20"] {
                let mut conn = Conn::open(&node.public).await;
                conn.send(request(
                    "GET",
                    &format!("/status/get?key={}&{form}", place.key),
                    &[],
                    b"",
                ))
                .await;
                conns.push(conn);
            }
            held.push((place, conns));
        }
        node.wait_waiters(3 * KEYS as u64).await;
        at_rest(node.pid()).await;
        let draining = async || node.internal("GET", "/health/ready", &[], b"").await.status == 503;
        let races = held
            .into_iter()
            .map(|(place, conns)| tokio::spawn(race_with_drain(place, conns)));
        let races: Vec<_> = races.collect();
        node.signal("TERM").await;
        eventually(draining, "/health/ready is 503").await;
        for race in races {
            race.await.expect("no panic");
        }
        assert!(node.wait_exit().await.success());
    }
}

/// Sets a key while the drain begins, and reads the answers of its held gets.
async fn race_with_drain(place: Place, conns: Vec<Conn>) {
    let mut backend = place.backend().await;
    // The signal comes later, because a process sends it that takes some milliseconds to start.
    stir(Duration::from_millis(8)).await;
    let receipt = backend.set(1).await;
    let expected = Answer::status(receipt.version, 1);
    let mut given = 0;
    for mut conn in conns {
        let response = conn.read_response().await;
        let answer = Answer::of(&response);
        if answer == expected {
            given += 1;
        } else {
            assert!(answer.is_refusal(-2, 0), "{response:?}");
            let json = if response.text().starts_with("/**/") {
                (200, None)
            } else {
                (503, Some("1"))
            };
            assert_eq!((response.status, response.header("retry-after")), json);
        }
        conn.shutdown_write().await;
        conn.expect_close().await;
    }
    assert_eq!(receipt.delivered, given, "what was delivered was answered");
    // A page would ask another node now. But this node still listens, and still knows the
    // status.
    assert_eq!(place.page().await.poll(0).await, expected);
}
