//! Random interleavings of gets, sets, deletions, clients that leave and expiry, against a model of a key: its updates
//! and the newest of them.
//!
//! The first two properties run bursts: the requests of one begin in the order given and are under way together, and
//! between two bursts all is settled, so that the model knows who must be held and who must be answered. The third lets
//! pages and backends run freely and judges the log of it. Cases share a node and have keys of their own.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestCaseResult, TestRunner};
use tokio::task::JoinSet;

use crate::races::clients::{Answer, Backend, HalfClosed, LEAVINGS, LONG, Leaving, Page, Place, Receipt, pass};
use crate::support::{Node, PATIENCE, long};

/// Keys of one case.
const KEYS: usize = 3;
const BRIEF: Duration = Duration::from_millis(2);

/// Checks a property on a node, and that each case leaves nothing behind.
fn holds<S>(cases: u32, strategy: &S, case: impl AsyncFn(&Node, S::Value) -> TestCaseResult)
where
    S: Strategy<Value: Debug>,
{
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let node = runtime.block_on(Node::start(&[]));
    let cases = if long() { 20 * cases } else { cases };
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 500,
        max_shrink_time: 60_000,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(strategy, |value| {
        runtime.block_on(async {
            case(&node, value).await?;
            node.quiet().await;
            Ok(())
        })
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

/// Keys that no case had before.
fn fresh_places(node: &Node) -> Vec<Place> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let case = NEXT.fetch_add(1, Ordering::Relaxed);
    (0..KEYS).map(|index| Place::new(node, format!("case-{case}-{index}"))).collect()
}

#[derive(Debug, Clone)]
enum Step {
    Burst(Vec<Op>),
    /// A status that lives for a second, and its end; a page may wait through it.
    Expiry {
        key: usize,
        watched: bool,
    },
}

#[derive(Debug, Clone)]
enum Op {
    Set {
        key: usize,
    },
    Delete {
        key: usize,
    },
    Get {
        key: usize,
        last: Last,
        wait: Duration,
        leaving: Leaving,
    },
    /// One of the gets that are under way.
    Leave {
        which: usize,
    },
}

#[derive(Debug, Clone, Copy)]
enum Last {
    /// A version that the key had, counted from the newest; beyond the oldest: 0.
    Known(usize),
    AheadOfTheClock,
}

fn op() -> impl Strategy<Value = Op> {
    let last = prop_oneof![9 => (0..4_usize).prop_map(Last::Known), 1 => Just(Last::AheadOfTheClock)];
    let wait = prop_oneof![1 => Just(Duration::ZERO), 2 => Just(BRIEF), 6 => Just(LONG)];
    let get = (0..KEYS, last, wait, select(&LEAVINGS[..]));
    prop_oneof![
        4 => (0..KEYS).prop_map(|key| Op::Set { key }),
        1 => (0..KEYS).prop_map(|key| Op::Delete { key }),
        6 => get.prop_map(|(key, last, wait, leaving)| Op::Get { key, last, wait, leaving }),
        2 => (0..8_usize).prop_map(|which| Op::Leave { which }),
    ]
}

fn burst() -> impl Strategy<Value = Step> {
    vec(op(), 1..8).prop_map(Step::Burst)
}

fn expiry() -> impl Strategy<Value = Step> {
    (0..KEYS, any::<bool>()).prop_map(|(key, watched)| Step::Expiry { key, watched })
}

#[test]
fn in_any_interleaving_no_status_is_lost_and_no_page_goes_backwards() {
    holds(200, &vec(burst(), 1..8), async |node, steps| run(fresh_places(node), steps).await);
}

#[test]
fn what_expires_is_as_if_never_set_and_nobody_goes_backwards() {
    // Expiry takes a second, so many scripts run side by side.
    let steps = vec(prop_oneof![3 => burst(), 1 => expiry()], 1..6);
    holds(3, &vec(steps, 24), async |node, scripts| {
        let runs: JoinSet<_> = scripts.into_iter().map(|steps| run(fresh_places(node), steps)).collect();
        runs.join_all().await.into_iter().collect()
    });
}

/// Runs a script against the model.
async fn run(places: Vec<Place>, steps: Vec<Step>) -> TestCaseResult {
    let mut world = World { lines: Vec::new(), gets: Vec::new(), updates: 0 };
    for place in places {
        let look = place.backend().await;
        world.lines.push(Line { place, look, updates: BTreeMap::new(), newest: 0 });
    }
    for step in steps {
        match step {
            Step::Burst(ops) => world.burst(ops).await?,
            Step::Expiry { key, watched } => world.expire(key, watched).await?,
        }
    }
    world.all_know_the_newest().await
}

/// The model of a node, and the connections to the real one.
struct World {
    lines: Vec<Line>,
    gets: Vec<Get>,
    /// So many, which makes each one's value its own.
    updates: u64,
}

/// A key.
struct Line {
    place: Place,
    look: Backend,
    /// All there ever was: what a page is told, by version.
    updates: BTreeMap<u64, Answer>,
    /// The version that is stored; 0 where nothing is, or no longer.
    newest: u64,
}

impl Line {
    fn version(&self, last: Last) -> u64 {
        match last {
            Last::Known(back) => self.updates.keys().rev().nth(back).copied().unwrap_or(0),
            Last::AheadOfTheClock => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
                u64::try_from(now).expect("a version").max(self.version(Last::Known(0))) + 1_000_000
            }
        }
    }
}

/// A get that is under way.
struct Get {
    key: usize,
    last: u64,
    /// It is over when its burst is settled, one way or the other.
    brief: bool,
    /// It was held when the burst began: only an update of this burst can be its answer, and by delivery.
    held: bool,
    page: Page,
}

/// What one burst did to one key.
#[derive(Debug, Default)]
struct Tally {
    receipts: Vec<Receipt>,
    /// What was stored when it began.
    newest: u64,
    /// The greatest `last` that was held.
    floor: u64,
    /// Of each get that was answered with an update: `last`, the update's version, and whether it was held.
    answered: Vec<(u64, u64, bool)>,
    /// `last` of those that left: they may have been delivered to.
    left: Vec<u64>,
}

impl Tally {
    /// An answer is an update that the page did not know, no older than what was stored; or there was none in time.
    fn check(&self, line: &Line, last: u64, brief: bool, answer: &Answer) -> TestCaseResult {
        if brief && self.newest <= last && *answer == Answer::timeout(last) {
            return Ok(());
        }
        prop_assert!(answer.version > last && answer.version >= self.newest, "last {last}: {answer:?}; {self:?}");
        prop_assert_eq!(line.updates.get(&answer.version), Some(answer), "last {}; {:?}", last, self);
        Ok(())
    }

    /// Each version is above what was stored and what was held; each delivery is a get's, and no more than one.
    fn check_receipts(&self) -> TestCaseResult {
        let mut versions: Vec<_> = self.receipts.iter().map(|receipt| receipt.version).collect();
        versions.sort_unstable();
        prop_assert!(versions.is_sorted_by(|one, next| one < next), "{self:?}");
        let all: u64 = self.receipts.iter().map(|receipt| receipt.delivered).sum();
        let count = |those: &dyn Fn(&&(u64, u64, bool)) -> bool| self.answered.iter().filter(those).count() as u64;
        prop_assert!(count(&|get| get.2) <= all && all <= (self.answered.len() + self.left.len()) as u64, "{self:?}");
        for &Receipt { version, delivered } in &self.receipts {
            prop_assert!(version > self.newest.max(self.floor), "{self:?}");
            // Delivered to a get that was not open yet, an older one is kept and the newer is its answer.
            let least = count(&|&&(_, got, held)| held && got == version);
            let most = count(&|&&(last, got, _)| last < version && got >= version);
            let left = self.left.iter().filter(|last| **last < version).count() as u64;
            prop_assert!((least..=most + left).contains(&delivered), "{version}: {self:?}");
        }
        Ok(())
    }
}

impl World {
    /// Begins all of it, in order, then waits until it is settled.
    async fn burst(&mut self, ops: Vec<Op>) -> TestCaseResult {
        let mut tallies = self.tallies();
        let mut sent = Vec::new();
        let mut leaving = Vec::new();
        for op in ops {
            match op {
                Op::Set { key } => sent.push(self.send_update(key, true).await),
                Op::Delete { key } => sent.push(self.send_update(key, false).await),
                Op::Get { key, last, wait, leaving } => {
                    let last = self.lines[key].version(last);
                    let mut page = self.lines[key].place.page_to_leave(leaving).await;
                    page.ask(last, wait).await;
                    self.gets.push(Get { key, last, brief: wait < LONG, held: false, page });
                }
                Op::Leave { .. } if self.gets.is_empty() => {}
                Op::Leave { which } => {
                    let get = self.gets.remove(which % self.gets.len());
                    tallies[get.key].left.push(get.last);
                    leaving.push((get.key, get.last, get.brief, get.page.go().await));
                }
            }
        }
        for (key, backend, told) in sent {
            self.note(key, backend, told, &mut tallies[key]).await;
        }
        for (key, last, brief, rest) in leaving {
            if let Some(answer) = rest_of(rest).await {
                tallies[key].check(&self.lines[key], last, brief, &answer)?;
            }
        }
        self.settle(tallies).await
    }

    fn tallies(&self) -> Vec<Tally> {
        let floor = |key| self.gets.iter().filter(|get| get.key == key).map(|get| get.last).max().unwrap_or(0);
        let tally = |(key, line): (usize, &Line)| Tally { newest: line.newest, floor: floor(key), ..Tally::default() };
        self.lines.iter().enumerate().map(tally).collect()
    }

    async fn send_update(&mut self, key: usize, is_set: bool) -> (usize, Backend, Answer) {
        let mut backend = self.lines[key].place.backend().await;
        self.updates += 1;
        let told = if is_set {
            backend.send_set(self.updates, "").await;
            Answer::status(0, self.updates)
        } else {
            backend.send_delete().await;
            Answer::gone(0)
        };
        (key, backend, told)
    }

    /// Takes a receipt into the model.
    async fn note(&mut self, key: usize, mut backend: Backend, told: Answer, tally: &mut Tally) {
        let receipt = backend.receipt().await;
        let line = &mut self.lines[key];
        line.updates.insert(receipt.version, Answer { version: receipt.version, ..told });
        line.newest = line.newest.max(receipt.version);
        tally.receipts.push(receipt);
    }

    /// Reads the answers that there must be, and sees that all other gets are held.
    async fn settle(&mut self, mut tallies: Vec<Tally>) -> TestCaseResult {
        for mut get in std::mem::take(&mut self.gets) {
            let (line, tally) = (&mut self.lines[get.key], &mut tallies[get.key]);
            if !get.brief && line.newest <= get.last {
                self.gets.push(Get { held: true, ..get });
                continue;
            }
            let answer = get.page.answer().await;
            tally.check(line, get.last, get.brief, &answer)?;
            if answer.code != -1 {
                tally.answered.push((get.last, answer.version, get.held));
            }
            get.page.end().await;
        }
        for (key, tally) in tallies.iter().enumerate() {
            tally.check_receipts()?;
            let held = self.gets.iter().filter(|get| get.key == key).count();
            self.lines[key].look.wait_waiters(held as u64).await;
        }
        Ok(())
    }

    async fn expire(&mut self, key: usize, watched: bool) -> TestCaseResult {
        let mut tallies = self.tallies();
        let mut backend = self.lines[key].place.backend().await;
        self.updates += 1;
        backend.send_set(self.updates, r#","ttl":1"#).await;
        self.note(key, backend, Answer::status(0, self.updates), &mut tallies[key]).await;
        let newest = self.lines[key].newest;
        // Nothing is asked of the store meanwhile: it may be over at any time.
        self.settle(tallies).await?;
        if watched {
            let mut page = self.lines[key].place.page().await;
            page.ask(newest, LONG).await;
            self.gets.push(Get { key, last: newest, brief: false, held: true, page });
        }
        let line = &mut self.lines[key];
        line.look.wait_waiters(u64::from(watched)).await;
        let deadline = Instant::now() + PATIENCE;
        while line.look.look().await.0 > 0 {
            prop_assert!(Instant::now() < deadline, "version {newest} does not expire");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        line.newest = 0;
        Ok(())
    }

    /// Whatever a page knows, its next poll tells it the newest, or that there is nothing newer.
    async fn all_know_the_newest(self) -> TestCaseResult {
        for line in self.lines {
            let mut page = line.place.page().await;
            for &last in [0].iter().chain(line.updates.keys()) {
                let expected =
                    if last < line.newest { line.updates[&line.newest].clone() } else { Answer::timeout(last) };
                prop_assert_eq!(page.poll_for(last, Duration::ZERO).await, expected);
            }
        }
        Ok(())
    }
}

async fn rest_of(left: Option<HalfClosed>) -> Option<Answer> {
    left?.rest().await
}

/// Pages and backends that run freely.
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

/// A page that polls on with the version it has; where its turn says so, it leaves and comes back with the same one.
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
    (vec(vec(change, 1..16), 1..4), vec(polls, 1..8)).prop_map(|(backends, pages)| Crowd { backends, pages })
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

/// A get, in the log; without an answer, the page left.
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
        let polls = crowd.pages.into_iter().map(|page| poll_on(place(page.key), page, Arc::clone(&finished)));
        let polls: JoinSet<Vec<Poll>> = polls.collect();
        let changes =
            crowd.backends.into_iter().enumerate().map(|(index, changes)| change_on(places.clone(), index, changes));
        let changes: JoinSet<Vec<Confirmed>> = changes.collect();
        let changes: Vec<_> = changes.join_all().await;
        finished.store(true, Ordering::SeqCst);
        let polls = polls.join_all().await;
        let ends = polls.iter().map(|polls| polls.last().expect("a page polls once at least"));
        for end in ends {
            let newest = changes.iter().flatten().filter(|one| one.key == end.key).map(|one| one.told.version).max();
            prop_assert_eq!(end.last, newest.unwrap_or(0), "a page ends at the newest version");
        }
        for key in 0..KEYS {
            let changes: Vec<_> = changes.iter().flatten().filter(|one| one.key == key).collect();
            let polls: Vec<_> = polls.iter().flatten().filter(|one| one.key == key).collect();
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
        let (receipt, told) = backend.update(is_set.then_some((1000 * index + count) as u64)).await;
        log.push(Confirmed { key, began, ended: Instant::now(), delivered: receipt.delivered, told });
    }
    log
}

/// Polls until a get that began after all updates has nothing to tell.
async fn poll_on(place: Place, Polls { key, turns }: Polls, finished: Arc<AtomicBool>) -> Vec<Poll> {
    let mut page = place.page().await;
    let mut log = Vec::new();
    let mut last = 0;
    // One turn more, in which it stays.
    for turn in turns.iter().chain([&None]).cycle() {
        let (is_over, began) = (finished.load(Ordering::SeqCst), Instant::now());
        let mut wait = if is_over { Duration::ZERO } else { Duration::from_millis(20) };
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
        log.push(Poll { key, last, wait, began, ended: Instant::now(), answer: answer.clone() });
        if is_over && is_timeout {
            break;
        }
        last = answer.map_or(last, |answer| answer.version);
    }
    page.end().await;
    log
}

/// Versions follow the order of confirmation, and each delivery was a get's.
fn check_changes(changes: &[&Confirmed], polls: &[&Poll]) -> TestCaseResult {
    for one in changes {
        for other in changes {
            prop_assert!(one.ended >= other.began || one.told.version < other.told.version, "{one:?}, then {other:?}");
        }
        let version = one.told.version;
        prop_assert_eq!(changes.iter().filter(|other| other.told.version == version).count(), 1, "{:?}", one);
        // The answer may be a newer one that came before it was written; one who left may have been given anything.
        let is_possible = |poll: &&&Poll| match &poll.answer {
            Some(answer) => answer.code != -1 && answer.version >= version && poll.ended > one.began,
            None => true,
        };
        let possible = polls.iter().filter(|poll| poll.last < version && poll.began < one.ended).filter(is_possible);
        prop_assert!(one.delivered <= possible.count() as u64, "{one:?}: {polls:?}");
    }
    let delivered: u64 = changes.iter().map(|one| one.delivered).sum();
    let given = polls.iter().filter(|poll| poll.answer.as_ref().is_none_or(|answer| answer.code != -1)).count();
    prop_assert!(delivered <= given as u64, "{delivered} delivered, {given} answered: {polls:?}");
    Ok(())
}

fn check_poll(poll: &Poll, changes: &[&Confirmed]) -> TestCaseResult {
    let Some(answer) = &poll.answer else { return Ok(()) };
    let confirmed = |by: Instant| {
        let versions = changes.iter().filter(|one| one.ended < by).map(|one| one.told.version);
        versions.max().unwrap_or(0)
    };
    if *answer == Answer::timeout(poll.last) {
        // Held until its deadline, it would have been given whatever came before.
        prop_assert!(confirmed(poll.began + poll.wait) <= poll.last, "lost: {poll:?}; {changes:?}");
        return Ok(());
    }
    prop_assert!(answer.version > poll.last && answer.version >= confirmed(poll.began), "{poll:?}; {changes:?}");
    let told = changes.iter().find(|one| one.told.version == answer.version);
    prop_assert!(told.is_some_and(|one| one.told == *answer && one.began < poll.ended), "{poll:?}; {changes:?}");
    Ok(())
}
