//! All orders of the steps of one wait, of the sets of its key, and of whatever else ends it,
//! tried by loom. The registry, the right to answer and the wait are the program's own. The
//! store and the request are the least that will do.
//!
//! The tests are named `loom_...` and run by `make loom`.

mod desk;
mod follower;

use std::sync::Mutex as Record;

use loom::future::block_on;
use loom::thread::{self, JoinHandle};

use self::desk::{Answer, Delivers, Desk, Page};
use super::*;
use crate::runtime::right_to_answer::RightToAnswer;
use crate::runtime::sharded::lock as note;
use crate::runtime::sync::{Mutex, lock};

/// A store that knows the version of one key. Each call is one atomic step.
#[derive(Debug, Default)]
struct OneKey(Mutex<u64>);

impl OneKey {
    fn put(&self) -> Update {
        let mut version = lock(&self.0);
        *version += 1;
        gone(*version)
    }

    fn open(&self, seen: Version) -> Option<Update> {
        let version = *lock(&self.0);
        (version > seen.get()).then(|| gone(version))
    }
}

fn gone(version: u64) -> Update {
    Update::Gone(Version::new(version).expect("small"))
}

fn key() -> Key {
    Key::parse("k").expect("good")
}

/// Starts sets of the key, each on its own thread. Each returns the number of waiters that it was
/// delivered to, and its version.
fn spawn_sets(
    count: usize,
    waiters: &Arc<Waiters>,
    store: &Arc<OneKey>,
) -> Vec<JoinHandle<(usize, u64)>> {
    let spawn = |_| {
        let (waiters, store) = (Arc::clone(waiters), Arc::clone(store));
        thread::spawn(move || {
            let update = store.put();
            let count = waiters.deliver(&key(), &update);
            (count, update.version().get())
        })
    };
    (0..count).map(spawn).collect()
}

/// An event that ends a wait at any time, besides a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    Never,
    Deadline,
    Leave,
    Drain,
}

/// One run: a request, and sets of its key on other threads.
#[derive(Clone, Copy, Debug)]
struct Run {
    sets: usize,
    delivers: Delivers,
    ends: Ends,
    /// See [`Desk::known`].
    known: u64,
    /// Whether the store does not answer at once.
    is_slow: bool,
}

impl Run {
    /// Tries all orders of the run's steps. With two sets it tries those orders in which at most
    /// twice a thread has to stop for another one: all of them take too long.
    fn check(self) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = (self.sets > 1).then_some(2);
        model.check(move || self.once());
    }

    fn once(self) {
        let (waiters, store) = (Waiters::new(10, 10), Arc::<OneKey>::default());
        let desk = Arc::new(Desk {
            // If nothing else ends the wait, the task wants to know of an answer. Otherwise it asks
            // when it ends.
            right: Mutex::new(RightToAnswer::new(self.ends == Ends::Never)),
            delivers: self.delivers,
            known: self.known,
            answers: Record::default(),
        });
        let sets = spawn_sets(self.sets, &waiters, &store);
        let (end, found) = self.wait(&waiters, &store, Arc::clone(&desk));
        match &end {
            End::Answered | End::Left => {}
            End::News(news) => {
                let version = news.update.version().get();
                desk.answer(&mut lock(&desk.right), Some(version));
            }
            _ => desk.answer(&mut lock(&desk.right), None),
        }
        let sets = sets.into_iter().map(|set| set.join().expect("no panic"));
        let delivered: Vec<_> = sets
            .filter(|(count, _)| *count > 0)
            .map(|(count, version)| {
                assert_eq!(count, 1);
                version
            })
            .collect();
        assert!(waiters.is_empty());
        self.judge(&end, &note(&desk.answers), found, &delivered);
    }

    /// Waits to the end. Also returns the version that the store had when the key was opened for
    /// the last time.
    fn wait(self, waiters: &Arc<Waiters>, store: &OneKey, desk: Arc<Desk>) -> (End, u64) {
        let (mut seen, mut is_slow) = (Version::NONE, self.is_slow);
        loop {
            let (end, found) = self.wait_once(waiters, store, &desk, seen, is_slow);
            match &end {
                End::News(news) if news.update.version().get() <= self.known => {
                    lock(&desk.right).begin_again();
                    (seen, is_slow) = (news.update.version(), false);
                }
                _ => return (end, found),
            }
        }
    }

    fn wait_once(
        self,
        waiters: &Arc<Waiters>,
        store: &OneKey,
        desk: &Arc<Desk>,
        seen: Version,
        mut is_slow: bool,
    ) -> (End, u64) {
        let (desk, ends) = (Arc::clone(desk), self.ends);
        let registered =
            Registered::new(waiters, &key(), seen, Page { desk, ends }, None).expect("room");
        let mut found = 0;
        let open = async {
            poll_fn(|cx| {
                if !std::mem::take(&mut is_slow) {
                    return Poll::Ready(());
                }
                cx.waker().wake_by_ref();
                Poll::Pending
            })
            .await;
            let update = store.open(seen);
            found = update.as_ref().map_or(0, |update| update.version().get());
            (1, Ok(update))
        };
        let now = Instant::now();
        let end = block_on(async {
            match registered.open_by(open, || (), now).await {
                Ok(opened) => opened.wait(now).await,
                Err(end) => end,
            }
        });
        (end, found)
    }

    fn judge(self, end: &End, answers: &[Answer], found: u64, delivered: &[u64]) {
        let case = format!("{self:?} {end:?} {answers:?} {found} {delivered:?}");
        let waits = usize::from(self.known > 0) + 1;
        assert!(delivered.len() <= waits, "each takes it once: {case}");
        if *end == End::Left {
            assert!(answers.is_empty(), "who left is not answered: {case}");
            return;
        }
        let [answer] = answers else {
            panic!("not one answer: {case}");
        };
        assert!(
            answer.unwrap_or_default() >= found,
            "older than what was found: {case}"
        );
        if self.delivers != Delivers::Nothing
            && let Some(version) = delivered.iter().max()
            && *version > self.known
        {
            assert!(*answer >= Some(*version), "a delivery is lost: {case}");
        }
        assert!(answer.is_none_or(|version| version > self.known), "{case}");
        let has_news = answer.is_some();
        match self.ends {
            Ends::Never if self.delivers == Delivers::Nothing => {
                assert!(has_news || *end == End::Abandoned, "{case}");
            }
            Ends::Never => assert!(has_news, "{case}"),
            _ => {}
        }
    }
}

/// Checks all ways of a delivery with this end.
fn check(sets: usize, ends: Ends) {
    check_known(sets, ends, 0);
}

/// Checks all ways of a delivery with this end, if the versions up to `known` are no answers.
fn check_known(sets: usize, ends: Ends, known: u64) {
    for delivers in [
        Delivers::Answer,
        Delivers::News,
        Delivers::Nothing,
        Delivers::AnswerAndPanic,
    ] {
        for is_slow in [false, true] {
            let run = Run {
                sets,
                delivers,
                ends,
                known,
                is_slow,
            };
            run.check();
        }
    }
}

#[test]
fn loom_a_set_while_a_get_begins_ends_it() {
    check(1, Ends::Never);
}

#[test]
fn loom_two_sets_at_once_bring_one_answer() {
    check(2, Ends::Never);
}

#[test]
fn loom_a_set_at_the_deadline_brings_one_answer() {
    check(1, Ends::Deadline);
}

#[test]
fn loom_a_set_while_the_client_leaves_brings_one_answer_or_none() {
    check(1, Ends::Leave);
}

#[test]
fn loom_a_set_during_a_drain_brings_one_answer() {
    check(1, Ends::Drain);
}

#[test]
fn loom_two_sets_at_the_deadline_bring_one_answer() {
    check(2, Ends::Deadline);
}

#[test]
fn loom_a_set_behind_one_that_is_no_answer_brings_one_answer() {
    check_known(2, Ends::Never, 1);
}

#[test]
fn loom_a_set_that_is_no_answer_is_none_at_the_deadline() {
    check_known(1, Ends::Deadline, 1);
}

#[test]
fn loom_two_sets_of_which_one_is_no_answer_bring_one_answer_at_the_deadline() {
    check_known(2, Ends::Deadline, 1);
}
