//! Events at the same instant, many times over: sets, gets, clients that leave, deletions,
//! expiry and the drain. They race on a few nodes and many keys side by side, always through
//! sockets.
//!
//! Offsets of less than a millisecond let each race run in both orders. The checks are for
//! whatever must hold in any order: no confirmed status is lost, no page goes backwards, and
//! nothing is left afterwards.

pub(crate) mod clients;
mod endings;
mod many;
mod wires;

use std::time::Duration;

use tokio::join;
use tokio::task::JoinSet;

use clients::{Answer, LEAVINGS, LONG, Leaving, Place, in_order, stir};
use holdfast_testkit::{Node, long};

/// The number of keys that are raced side by side.
const KEYS: usize = 24;
/// The longest time between the beginnings of two events that race. It is longer than a request
/// takes, so that each comes first at times.
const SPREAD: Duration = Duration::from_micros(800);

/// Returns how often each key is raced.
fn rounds(short: u64) -> u64 {
    if long() { 20 * short } else { short }
}

/// Runs `work` for `keys` keys of a node side by side, then checks that nothing is left of it.
async fn on_keys<T, F>(node: &Node, keys: usize, work: impl Fn(Place) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let tasks: JoinSet<T> = (0..keys)
        .map(|index| work(Place::new(node, format!("key-{index}"))))
        .collect();
    let results = tasks.join_all().await;
    node.quiet().await;
    results
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_before_during_or_between_gets_is_their_answer() {
    let node = Node::start(&[]).await;
    on_keys(&node, KEYS, |place| async move {
        let (mut page, mut backend) = (place.page().await, place.backend().await);
        let mut last = 0;
        for round in 0..rounds(3) {
            let before = backend.set(round).await;
            assert_eq!(
                (page.poll(last).await, before.delivered),
                (Answer::status(before.version, round), 0)
            );

            page.ask(before.version, LONG).await;
            backend.wait_held(1).await;
            let during = backend.set(round).await;
            assert_eq!(
                (page.answer().await, during.delivered),
                (Answer::status(during.version, round), 1)
            );

            let brief = page
                .poll_for(during.version, Duration::from_millis(1))
                .await;
            assert_eq!(brief, Answer::timeout(during.version));
            let between = backend.set(round).await;
            assert_eq!(
                (page.poll(during.version).await, between.delivered),
                (Answer::status(between.version, round), 0)
            );
            last = between.version;
        }
        page.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_that_races_a_get_is_its_answer() {
    // Few keys, so that most requests meet within microseconds and not in a queue.
    const KEYS: usize = 6;
    let node = Node::start(&[]).await;
    let rounds = rounds(600);
    let woken = on_keys(&node, KEYS, move |place| async move {
        let (mut page, mut backend) = (place.page().await, place.backend().await);
        let (mut last, mut woken) = (0, 0);
        for round in 0..rounds {
            let spread = if round % 4 == 0 {
                SPREAD
            } else {
                Duration::ZERO
            };
            let get = async {
                stir(spread).await;
                page.poll(last).await
            };
            let set = async {
                stir(spread).await;
                backend.set(round).await
            };
            let (answer, receipt) = join!(get, set);
            assert_eq!(answer, Answer::status(receipt.version, round));
            assert!(
                receipt.version > last && receipt.delivered <= 1,
                "{receipt:?}"
            );
            (last, woken) = (receipt.version, woken + receipt.delivered);
        }
        page.end().await;
        woken
    })
    .await;
    let (woken, races) = (woken.iter().sum::<u64>(), KEYS as u64 * rounds);
    assert!(
        0 < woken && woken < races,
        "one order only: {woken} of {races} gets were held"
    );
}

/// Checks that a get that is told -1 was not given the status. `delivered` says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_at_the_deadline_is_the_answer_or_is_kept_for_the_next_poll() {
    const WAIT: Duration = Duration::from_millis(3);
    let node = Node::start(&[]).await;
    on_keys(&node, KEYS, |place| async move {
        let (mut page, mut backend) = (place.page().await, place.backend().await);
        let mut last = 0;
        for round in 0..rounds(60) {
            let set = async {
                stir(2 * WAIT).await;
                backend.set(round).await
            };
            let (mut answer, receipt) = join!(page.poll_for(last, WAIT), set);
            if answer == Answer::timeout(last) {
                assert_eq!(
                    receipt.delivered, 0,
                    "round {round}: delivered to a get that was told -1"
                );
                answer = page.poll(last).await;
            }
            assert_eq!(answer, Answer::status(receipt.version, round));
            last = receipt.version;
        }
        page.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn set_after_client_left_is_kept_for_the_next_poll() {
    let node = Node::start(&[]).await;
    on_keys(&node, KEYS, |place| async move {
        let (mut next, mut backend) = (place.page().await, place.backend().await);
        let mut last = 0;
        for (round, leaving) in (0..rounds(6)).zip(LEAVINGS.into_iter().cycle()) {
            let mut page = place.page_to_leave(leaving).await;
            page.ask(last, LONG).await;
            backend.wait_held(1).await;
            assert_eq!(page.leave().await, None, "half-closing counts as leaving");
            backend.wait_held(0).await;
            let receipt = backend.set(round).await;
            assert_eq!(receipt.delivered, 0);
            assert_eq!(
                next.poll(last).await,
                Answer::status(receipt.version, round)
            );
            last = receipt.version;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_at_the_instant_of_the_set_has_it_by_its_next_poll() {
    let node = Node::start(&[]).await;
    on_keys(&node, KEYS, |place| async move {
        let (mut next, mut backend) = (place.page().await, place.backend().await);
        let mut last = 0;
        for (round, leaving) in (0..rounds(45)).zip(LEAVINGS.into_iter().cycle()) {
            let mut page = place.page_to_leave(leaving).await;
            page.ask(last, LONG).await;
            if rand::random() {
                backend.wait_held(1).await;
            }
            let leave = async {
                stir(SPREAD).await;
                page.leave().await
            };
            let set = async {
                stir(SPREAD).await;
                backend.set(round).await
            };
            let (answer, receipt) = join!(leave, set);
            let expected = Answer::status(receipt.version, round);
            assert!(
                answer.is_none_or(|answer| answer == expected && leaving == Leaving::HalfClose)
            );
            assert!(receipt.delivered <= 1, "{receipt:?}");
            assert_eq!(next.poll(last).await, expected);
            last = receipt.version;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_at_the_instant_of_the_set_takes_no_other_with_it() {
    let node = Node::start(&[]).await;
    on_keys(&node, KEYS / 2, |place| async move {
        let mut backend = place.backend().await;
        let mut stayers = [place.page().await, place.page().await, place.page().await];
        let mut last = 0;
        for round in 0..rounds(27) {
            let mut leavers = Vec::new();
            for leaving in LEAVINGS {
                leavers.push(place.page_to_leave(leaving).await);
            }
            // In turns, so that a client that leaves was registered before, between or after
            // those that stay.
            for (stayer, leaver) in stayers.iter_mut().zip(&mut leavers) {
                leaver.ask(last, LONG).await;
                stayer.ask(last, LONG).await;
            }
            backend.wait_held(6).await;
            let leave = async {
                for leaver in leavers {
                    stir(SPREAD / 3).await;
                    leaver.leave().await;
                }
            };
            let set = async {
                stir(SPREAD).await;
                backend.set(round).await
            };
            let ((), receipt) = join!(leave, set);
            // It may be less than 3, because a get that was registered but not open yet may find
            // the status itself.
            assert!(receipt.delivered <= 6, "{receipt:?}");
            for stayer in &mut stayers {
                assert_eq!(
                    stayer.answer().await,
                    Answer::status(receipt.version, round)
                );
            }
            last = receipt.version;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_updates_at_once_each_has_its_version_and_a_page_ends_at_the_greater() {
    let node = Node::start(&[]).await;
    on_keys(&node, KEYS, |place| async move {
        let (mut page, mut one, mut other) = (
            place.page().await,
            place.backend().await,
            place.backend().await,
        );
        let mut last = 0;
        for round in 0..rounds(60) {
            // In turns two sets, a set and a deletion, and two deletions.
            let values = [
                (round % 3 < 2).then_some(2 * round),
                (round % 3 < 1).then_some(2 * round + 1),
            ];
            let get = async {
                stir(SPREAD).await;
                page.poll(last).await
            };
            let (answer, one, other) = join!(get, one.update(values[0]), other.update(values[1]));
            let (older, newer) = in_order(last, one, other);
            assert!(
                older.0.delivered + newer.0.delivered <= 1,
                "one get was held: {older:?}, {newer:?}"
            );
            if answer != newer.1 {
                assert_eq!(answer, older.1);
                assert_eq!(page.poll(answer.version).await, newer.1);
            }
            last = newer.0.version;
            assert_eq!(
                page.poll_for(0, Duration::ZERO).await,
                newer.1,
                "the greater version is what is stored"
            );
        }
        page.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sets_of_one_key_in_one_array_have_growing_versions_and_a_page_ends_at_the_last() {
    const SETS: u64 = 200;
    let node = Node::start(&[]).await;
    on_keys(&node, KEYS / 3, |place| async move {
        let (mut page, mut backend) = (place.page().await, place.backend().await);
        let mut last = 0;
        for _ in 0..rounds(8) {
            let sets: Vec<_> = (0..SETS)
                .map(|n| format!(r#"{{"key":"{}","value":{n}}}"#, place.key))
                .collect();
            let body = format!("[{}]", sets.join(","));
            let pages = async {
                let mut answers = vec![page.poll(last).await];
                while answers
                    .last()
                    .is_some_and(|answer| answer.value != SETS - 1)
                {
                    answers.push(page.poll(answers[answers.len() - 1].version).await);
                }
                answers
            };
            let (answers, response) = join!(pages, backend.post("/status/set", &body));
            let json = response.json();
            let versions: Vec<_> = json["results"]
                .as_array()
                .expect("results")
                .iter()
                .map(|one| &one["version"])
                .collect();
            let versions: Vec<_> = versions
                .into_iter()
                .map(|version| version.as_u64().expect("a version"))
                .collect();
            assert_eq!(versions.len() as u64, SETS);
            assert!(
                last < versions[0] && versions.is_sorted_by(|one, next| one < next),
                "{versions:?}"
            );
            assert!(
                answers.is_sorted_by(|one, next| one.version < next.version),
                "{answers:?}"
            );
            for Answer {
                code,
                version,
                value,
                ..
            } in answers
            {
                let at = usize::try_from(value.as_u64().expect("a number")).expect("an index");
                assert_eq!((code, version), (0, versions[at]));
            }
            last = versions[versions.len() - 1];
        }
        page.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_sets_after_the_same_version_one_is_stored() {
    let node = Node::start(&[]).await;
    on_keys(&node, KEYS, |place| async move {
        let (mut page, mut one, mut other) = (
            place.page().await,
            place.backend().await,
            place.backend().await,
        );
        let mut last = 0;
        for round in 0..rounds(40) {
            let set = |n| format!(r#"{{"key":"{}","value":{n},"after":{last}}}"#, place.key);
            let bodies = [set(2 * round), set(2 * round + 1)];
            let (answer, one, other) = join!(
                page.poll(last),
                one.post("/status/set", &bodies[0]),
                other.post("/status/set", &bodies[1])
            );
            let (value, stored, refused) = if one.status == 200 {
                (2 * round, one, other)
            } else {
                (2 * round + 1, other, one)
            };
            assert_eq!(
                (stored.code(), refused.status, refused.code()),
                (0, 409, -7),
                "{stored:?}, {refused:?}"
            );
            assert_eq!(refused.version(), stored.version());
            assert_eq!(answer, Answer::status(stored.version(), value));
            last = stored.version();
        }
        page.end().await;
    })
    .await;
}
