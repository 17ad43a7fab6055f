//! Pages and backends that run freely. Then their log is judged by the rules that any order of
//! concurrent requests must keep.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestCaseResult;
use tokio::task::JoinSet;

use super::{KEYS, fresh_places, holds};
use crate::races::one_node::clients::{Answer, LEAVINGS, LONG, Leaving, Place, pass};

/// The scripts of one case.
#[derive(Debug, Clone)]
struct Crowd {
    backends: Vec<Vec<Change>>,
    pages: Vec<Polls>,
}

#[derive(Debug, Clone)]
struct Change {
    key: usize,
    is_set: bool,
    pause: Duration,
}

/// A page that polls on with the version it has. If its turn says so, it leaves and comes back
/// with the same version.
#[derive(Debug, Clone)]
struct Polls {
    key: usize,
    turns: Vec<Option<(Leaving, Duration)>>,
}

fn crowd() -> impl Strategy<Value = Crowd> {
    let time = || (0..1500_u64).prop_map(Duration::from_micros);
    let change = (0..KEYS, prop::bool::weighted(0.8), time());
    let change = change.prop_map(|(key, is_set, pause)| Change { key, is_set, pause });
    let turn = prop::option::weighted(0.4, (select(&LEAVINGS[..]), time()));
    let polls = (0..KEYS, vec(turn, 0..6)).prop_map(|(key, turns)| Polls { key, turns });
    (vec(vec(change, 1..16), 1..4), vec(polls, 1..8))
        .prop_map(|(backends, pages)| Crowd { backends, pages })
}

/// A confirmed update, in the log.
#[derive(Debug)]
struct Confirmed {
    key: usize,
    began: Instant,
    ended: Instant,
    delivered: u64,
    told: Answer,
}

/// A get, in the log. It has no answer if the page left.
#[derive(Debug)]
struct Poll {
    key: usize,
    last: u64,
    wait: Duration,
    began: Instant,
    ended: Instant,
    answer: Option<Answer>,
}

#[test]
fn pages_and_backends_that_run_freely_lose_nothing_and_never_go_backwards() {
    holds(60, &crowd(), async |node, crowd| {
        let places = fresh_places(node);
        let finished = Arc::new(AtomicBool::new(false));
        let place = |key: usize| places[key].clone();
        let polls = crowd
            .pages
            .into_iter()
            .map(|page| poll_on(place(page.key), page, Arc::clone(&finished)));
        let polls: JoinSet<Vec<Poll>> = polls.collect();
        let changes = crowd
            .backends
            .into_iter()
            .enumerate()
            .map(|(index, changes)| change_on(places.clone(), index, changes));
        let changes: JoinSet<Vec<Confirmed>> = changes.collect();
        let changes: Vec<_> = changes.join_all().await;
        finished.store(true, Ordering::SeqCst);
        let polls = polls.join_all().await;
        let ends = polls
            .iter()
            .map(|polls| polls.last().expect("a page polls once at least"));
        for end in ends {
            let newest = changes
                .iter()
                .flatten()
                .filter(|one| one.key == end.key)
                .map(|one| one.told.version)
                .max();
            prop_assert_eq!(
                end.last,
                newest.unwrap_or(0),
                "a page ends at the newest version"
            );
        }
        for key in 0..KEYS {
            let changes: Vec<_> = changes
                .iter()
                .flatten()
                .filter(|one| one.key == key)
                .collect();
            let polls: Vec<_> = polls
                .iter()
                .flatten()
                .filter(|one| one.key == key)
                .collect();
            check_changes(&changes, &polls)?;
            for poll in polls {
                check_poll(poll, &changes)?;
            }
        }
        Ok(())
    });
}

async fn change_on(places: Vec<Place>, index: usize, changes: Vec<Change>) -> Vec<Confirmed> {
    let mut backend = places[0].backend().await;
    let mut log = Vec::new();
    for (count, Change { key, is_set, pause }) in changes.into_iter().enumerate() {
        pass(pause).await;
        backend.key.clone_from(&places[key].key);
        let began = Instant::now();
        let (receipt, told) = backend
            .update(is_set.then_some((1000 * index + count) as u64))
            .await;
        log.push(Confirmed {
            key,
            began,
            ended: Instant::now(),
            delivered: receipt.delivered,
            told,
        });
    }
    log
}

/// Polls until a get that began after all updates times out.
async fn poll_on(
    place: Place,
    Polls { key, turns }: Polls,
    finished: Arc<AtomicBool>,
) -> Vec<Poll> {
    let mut page = place.page().await;
    let mut log = Vec::new();
    let mut last = 0;
    // There is one turn more, in which the page stays.
    for turn in turns.iter().chain([&None]).cycle() {
        let (is_over, began) = (finished.load(Ordering::SeqCst), Instant::now());
        let mut wait = if is_over {
            Duration::ZERO
        } else {
            Duration::from_millis(20)
        };
        let answer = if let &Some((leaving, stay)) = turn {
            wait = LONG;
            let mut leaver = place.page_to_leave(leaving).await;
            leaver.ask(last, wait).await;
            pass(stay).await;
            leaver.leave().await
        } else {
            Some(page.poll_for(last, wait).await)
        };
        let is_timeout = answer == Some(Answer::timeout(last));
        let version = answer.as_ref().map_or(last, |answer| answer.version);
        let left = answer.is_none();
        log.push(Poll {
            key,
            last,
            wait,
            began,
            ended: Instant::now(),
            answer,
        });
        // An answer that is neither newer nor a timeout is a mistake, which the check of the log
        // finds.
        if (is_over && is_timeout) || (version <= last && !is_timeout && !left) {
            break;
        }
        last = version;
    }
    page.end().await;
    log
}

/// Checks that versions follow the order of confirmation, and that each delivery went to a get.
fn check_changes(changes: &[&Confirmed], polls: &[&Poll]) -> TestCaseResult {
    for one in changes {
        for other in changes {
            prop_assert!(
                one.ended >= other.began || one.told.version < other.told.version,
                "{one:?}, then {other:?}"
            );
        }
        let version = one.told.version;
        prop_assert_eq!(
            changes
                .iter()
                .filter(|other| other.told.version == version)
                .count(),
            1,
            "{:?}",
            one
        );
        // The answer may be a newer update that came before the answer was written. A page that
        // left may have been given anything.
        let is_possible = |poll: &&&Poll| match &poll.answer {
            Some(answer) => {
                answer.code != -1 && answer.version >= version && poll.ended > one.began
            }
            None => true,
        };
        let possible = polls
            .iter()
            .filter(|poll| poll.last < version && poll.began < one.ended)
            .filter(is_possible);
        prop_assert!(
            one.delivered <= possible.count() as u64,
            "{one:?}: {polls:?}"
        );
    }
    let delivered: u64 = changes.iter().map(|one| one.delivered).sum();
    let given = polls
        .iter()
        .filter(|poll| poll.answer.as_ref().is_none_or(|answer| answer.code != -1))
        .count();
    prop_assert!(
        delivered <= given as u64,
        "{delivered} delivered, {given} answered: {polls:?}"
    );
    Ok(())
}

fn check_poll(poll: &Poll, changes: &[&Confirmed]) -> TestCaseResult {
    let Some(answer) = &poll.answer else {
        return Ok(());
    };
    let confirmed = |by: Instant| {
        let versions = changes
            .iter()
            .filter(|one| one.ended < by)
            .map(|one| one.told.version);
        versions.max().unwrap_or(0)
    };
    if *answer == Answer::timeout(poll.last) {
        // A get that was held until its deadline would have been given whatever update came
        // before.
        prop_assert!(
            confirmed(poll.began + poll.wait) <= poll.last,
            "lost: {poll:?}; {changes:?}"
        );
        return Ok(());
    }
    prop_assert!(
        answer.version > poll.last && answer.version >= confirmed(poll.began),
        "{poll:?}; {changes:?}"
    );
    let told = changes
        .iter()
        .find(|one| one.told.version == answer.version);
    prop_assert!(
        told.is_some_and(|one| one.told == *answer && one.began < poll.ended),
        "{poll:?}; {changes:?}"
    );
    Ok(())
}
