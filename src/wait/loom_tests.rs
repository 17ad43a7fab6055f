//! All orders of the steps of one wait, of the sets of its key, and of whatever else ends it,
//! tried by loom. The registry, the right to answer and the wait are the program's own. The
//! store and the request are the least that will do.
//!
//! The tests are named `loom_...` and run by `make loom`.

use std::sync::Mutex as Record;

use loom::future::block_on;
use loom::thread;

use super::*;
use crate::runtime::right_to_answer::{NextStep, RightToAnswer};
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

/// A way in which a delivery goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Delivers {
    /// The delivery answers if it may.
    Answer,
    /// The delivery leaves the answer to the task.
    News,
    /// The delivery panics before it has done anything.
    Nothing,
    /// The delivery answers if it may, and panics while it does so.
    AnswerAndPanic,
}

/// An event that ends a wait at any time, besides a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    Never,
    Deadline,
    Leave,
    Drain,
}

/// One answer: the version, or `None` if the request was answered without news.
type Answer = Option<u64>;

/// The side of a request to which news is delivered.
#[derive(Debug)]
struct Desk {
    right: Mutex<RightToAnswer<News, ()>>,
    delivers: Delivers,
    /// The greatest version that is no answer. Behind it, the request waits on.
    known: u64,
    answers: Record<Vec<Answer>>,
}

impl Desk {
    /// Answers. The caller has the lock, and the right.
    fn answer(&self, right: &mut RightToAnswer<News, ()>, answer: Answer) {
        right.answered(());
        note(&self.answers).push(answer);
    }
}

impl Taker for Desk {
    fn deliver(&self, update: &Update, since: Option<Instant>, at_once: bool) {
        if self.delivers == Delivers::Nothing {
            // The registry does this when a delivery panics. A real panic would also end what
            // loom runs.
            return self.abandon();
        }
        let news = News {
            update: update.clone(),
            since,
        };
        let mut right = lock(&self.right);
        let is_answer = update.version().get() > self.known;
        let at_once = at_once && is_answer && self.delivers != Delivers::News;
        let task = match right.deliver(news, at_once) {
            NextStep::Answer(news) => {
                self.answer(&mut right, Some(news.update.version().get()));
                if self.delivers == Delivers::AnswerAndPanic {
                    drop(right);
                    return self.abandon();
                }
                right.task_after_answer(false)
            }
            NextStep::Wake(task) => task,
        };
        drop(right);
        if let Some(task) = task {
            task.wake();
        }
    }

    fn abandon(&self) {
        let task = lock(&self.right).abandon();
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl SharedHalf for Desk {
    fn allow_answer(&self) -> Option<News> {
        lock(&self.right).allow_answer()
    }

    fn poll_delivery_end(&self, cx: &mut Context<'_>) -> Poll<DeliveryEnd<News>> {
        lock(&self.right).poll_end(cx)
    }
}

/// The side of a request on which its task waits.
struct Page {
    desk: Arc<Desk>,
    ends: Ends,
}

impl Waiting for Page {
    type Shared = Desk;

    fn shared(&self) -> &Arc<Desk> {
        &self.desk
    }

    fn poll_interrupted(&mut self, _: Instant, cx: &mut Context<'_>) -> Poll<Interruption<News>> {
        if let Poll::Ready(end) = lock(&self.desk.right).poll(cx) {
            return Poll::Ready(Interruption::Delivery(end));
        }
        match self.ends {
            Ends::Never => Poll::Pending,
            Ends::Deadline => Poll::Ready(Interruption::Deadline),
            Ends::Leave => Poll::Ready(Interruption::Left),
            Ends::Drain => Poll::Ready(Interruption::Stopping),
        }
    }
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
            // Whoever waits for a delivery alone wants to know of it. Whoever has another end
            // has to ask for it.
            right: Mutex::new(RightToAnswer::new(self.ends == Ends::Never)),
            delivers: self.delivers,
            known: self.known,
            answers: Record::default(),
        });
        let sets: Vec<_> = (0..self.sets)
            .map(|_| {
                let (waiters, store) = (Arc::clone(&waiters), Arc::clone(&store));
                thread::spawn(move || {
                    let update = store.put();
                    let count = waiters.deliver(&key(), &update);
                    (count, update.version().get())
                })
            })
            .collect();
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
        let registered = Registered::new(waiters, &key(), seen, Page { desk, ends }).expect("room");
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

/// A page that goes on to follow its key: its waiter stays in the registry.
struct Follower {
    slot: Arc<Slot>,
    ends: Ends,
}

impl Waiting for Follower {
    type Shared = Slot;

    fn shared(&self) -> &Arc<Slot> {
        &self.slot
    }

    fn poll_interrupted(&mut self, _: Instant, cx: &mut Context<'_>) -> Poll<Interruption<News>> {
        match (self.slot.poll(cx), self.ends) {
            (Poll::Ready(end), _) => Poll::Ready(Interruption::Delivery(end)),
            (Poll::Pending, Ends::Never) => Poll::Pending,
            (Poll::Pending, _) => Poll::Ready(Interruption::Deadline),
        }
    }
}

/// Follows a key from version `last` on for one wait, or until version `until` comes. Returns the
/// versions that were heard.
async fn follow(
    waiters: &Arc<Waiters>,
    store: &OneKey,
    last: u64,
    until: u64,
    ends: Ends,
) -> Vec<u64> {
    let last = Version::new(last).expect("small");
    let slot = Slot::new(last);
    let waiting = Follower { slot, ends };
    let registered = Registered::new(waiters, &key(), last, waiting).expect("room");
    let now = Instant::now();
    let version = |news: &News| news.update.version().get();
    let mut heard = Vec::new();
    let end = match registered
        .open_by(async { (1, Ok(store.open(last))) }, || (), now)
        .await
    {
        Err(end) => end,
        Ok(mut opened) => loop {
            let interruption = poll_fn(|cx| opened.poll_interrupted(now, cx)).await;
            if let Interruption::Delivery(DeliveryEnd::Handed(news)) = &interruption {
                heard.push(version(news));
                if version(news) < until {
                    continue;
                }
                return heard;
            }
            break opened.end(interruption).await;
        },
    };
    if let End::News(news) = &end {
        heard.push(version(news));
    }
    heard
}

/// Tries all orders of two sets and a page that follows their key, in one wait or in several.
fn check_follower(ends: Ends) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(move || {
        let (waiters, store) = (Waiters::new(10, 10), Arc::<OneKey>::default());
        let sets: Vec<_> = (0..2)
            .map(|_| {
                let (waiters, store) = (Arc::clone(&waiters), Arc::clone(&store));
                thread::spawn(move || {
                    let update = store.put();
                    let count = waiters.deliver(&key(), &update);
                    (count, update.version().get())
                })
            })
            .collect();
        let mut heard = block_on(follow(&waiters, &store, 0, 2, ends));
        if ends == Ends::Never {
            // The open may have found the first status. The next wait begins behind it.
            while heard.last() != Some(&2) {
                let last = heard.last().copied().unwrap_or_default();
                heard.extend(block_on(follow(&waiters, &store, last, 2, ends)));
            }
        }
        assert!(heard.is_sorted_by(|a, b| a < b), "backwards: {heard:?}");
        let last = heard.last().copied().unwrap_or_default();
        for set in sets {
            let (count, version) = set.join().expect("no panic");
            assert!(count <= 1);
            assert!(count == 0 || version <= last, "lost {version}: {heard:?}");
        }
        assert!(waiters.is_empty());
    });
}

#[test]
fn loom_a_page_that_follows_its_key_hears_of_the_newest_of_two_sets() {
    check_follower(Ends::Never);
}

#[test]
fn loom_what_a_page_that_stops_following_was_given_is_heard() {
    check_follower(Ends::Deadline);
}
