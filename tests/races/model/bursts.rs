//! Bursts of requests against a model of a key: its updates, and the newest of them.
//!
//! The requests of a burst begin in the order given and are under way together. Between two
//! bursts all is settled, so that the model knows which gets must be held and which must be
//! answered.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestCaseResult;
use tokio::task::JoinSet;

use super::{KEYS, fresh_places, holds};
use crate::races::one_node::clients::{
    Answer, Backend, HalfClosed, LEAVINGS, LONG, Leaving, Page, Place, Receipt,
};
use holdfast_testkit::PATIENCE;

const BRIEF: Duration = Duration::from_millis(2);

#[derive(Debug, Clone)]
enum Step {
    Burst(Vec<Op>),
    /// A status that lives for a second, and its expiry. A page may wait through it.
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
    /// The leaving of one of the gets that are under way.
    Leave {
        which: usize,
    },
}

#[derive(Debug, Clone, Copy)]
enum Last {
    /// A version that the key had, counted back from the newest; 0 beyond the oldest.
    Known(usize),
    /// A version ten seconds ahead of the clock, or of the key's newest version if that is
    /// greater.
    AheadOfTheClock,
}

fn op() -> impl Strategy<Value = Op> {
    let last =
        prop_oneof![9 => (0..4_usize).prop_map(Last::Known), 1 => Just(Last::AheadOfTheClock)];
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
    holds(200, &vec(burst(), 1..8), async |node, steps| {
        run(fresh_places(node), steps).await
    });
}

#[test]
fn what_expires_is_as_if_never_set_and_nobody_goes_backwards() {
    // Expiry takes a second, so many scripts run side by side.
    let steps = vec(prop_oneof![3 => burst(), 1 => expiry()], 1..6);
    holds(3, &vec(steps, 24), async |node, scripts| {
        let runs: JoinSet<_> = scripts
            .into_iter()
            .map(|steps| run(fresh_places(node), steps))
            .collect();
        runs.join_all().await.into_iter().collect()
    });
}

/// Runs a script against the model.
async fn run(places: Vec<Place>, steps: Vec<Step>) -> TestCaseResult {
    let mut world = World {
        lines: Vec::new(),
        gets: Vec::new(),
        updates: 0,
    };
    for place in places {
        let look = place.backend().await;
        world.lines.push(Line {
            place,
            look,
            updates: BTreeMap::new(),
            newest: 0,
        });
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
    /// The number of updates so far. It makes each one's value unique.
    updates: u64,
}

/// A key.
struct Line {
    place: Place,
    look: Backend,
    /// All updates that there ever were, by version, as a page is told of them.
    updates: BTreeMap<u64, Answer>,
    /// The version that is stored; 0 if there is none, or no longer.
    newest: u64,
}

impl Line {
    fn version(&self, last: Last) -> u64 {
        match last {
            Last::Known(back) => self.updates.keys().rev().nth(back).copied().unwrap_or(0),
            Last::AheadOfTheClock => {
                let now = SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .expect("after 1970")
                    .as_millis();
                u64::try_from(now)
                    .expect("a version")
                    .max(self.version(Last::Known(0)))
                    + 10_000
            }
        }
    }
}

/// A get that is under way.
struct Get {
    key: usize,
    last: u64,
    /// Whether the get is over when its burst is settled, one way or the other.
    brief: bool,
    /// Whether the get was held when the burst began. Then only an update of this burst can be
    /// its answer, and only by delivery.
    held: bool,
    page: Page,
}

/// The effect of one burst on one key.
#[derive(Debug, Default)]
struct Tally {
    receipts: Vec<Receipt>,
    /// The version that was stored when the burst began.
    newest: u64,
    /// The greatest `last` of a get that was held.
    floor: u64,
    /// For each get that was answered with an update: its `last`, the update's version, and
    /// whether the get was held.
    answered: Vec<(u64, u64, bool)>,
    /// The `last` of each get that left. An update may have been delivered to it.
    left: Vec<u64>,
}

impl Tally {
    /// Checks an answer. It must be an update that the page did not know and that is no older
    /// than the stored one, unless there was none in time.
    fn check(&self, line: &Line, last: u64, brief: bool, answer: &Answer) -> TestCaseResult {
        if brief && self.newest <= last && *answer == Answer::timeout(last) {
            return Ok(());
        }
        prop_assert!(
            answer.version > last && answer.version >= self.newest,
            "last {last}: {answer:?}; {self:?}"
        );
        prop_assert_eq!(
            line.updates.get(&answer.version),
            Some(answer),
            "last {}; {:?}",
            last,
            self
        );
        Ok(())
    }

    /// Checks that each version is above the stored one and the held ones, and that each
    /// delivery went to a get, and to no more than one.
    fn check_receipts(&self) -> TestCaseResult {
        let mut versions: Vec<_> = self
            .receipts
            .iter()
            .map(|receipt| receipt.version)
            .collect();
        versions.sort_unstable();
        prop_assert!(versions.is_sorted_by(|one, next| one < next), "{self:?}");
        let all: u64 = self.receipts.iter().map(|receipt| receipt.delivered).sum();
        let count = |those: &dyn Fn(&&(u64, u64, bool)) -> bool| {
            self.answered.iter().filter(those).count() as u64
        };
        prop_assert!(
            count(&|get| get.2) <= all && all <= (self.answered.len() + self.left.len()) as u64,
            "{self:?}"
        );
        for &Receipt { version, delivered } in &self.receipts {
            prop_assert!(version > self.newest.max(self.floor), "{self:?}");
            // A get that was not open yet keeps an older update that is delivered to it, and is
            // answered with the newer one.
            let least = count(&|&&(_, got, held)| held && got == version);
            let most = count(&|&&(last, got, _)| last < version && got >= version);
            let left = self.left.iter().filter(|last| **last < version).count() as u64;
            prop_assert!(
                (least..=most + left).contains(&delivered),
                "{version}: {self:?}"
            );
        }
        Ok(())
    }
}

impl World {
    /// Begins all requests, in order, then waits until all is settled.
    async fn burst(&mut self, ops: Vec<Op>) -> TestCaseResult {
        let mut tallies = self.tallies();
        let mut sent = Vec::new();
        let mut leaving = Vec::new();
        for op in ops {
            match op {
                Op::Set { key } => sent.push(self.send_update(key, true).await),
                Op::Delete { key } => sent.push(self.send_update(key, false).await),
                Op::Get {
                    key,
                    last,
                    wait,
                    leaving,
                } => {
                    let last = self.lines[key].version(last);
                    let mut page = self.lines[key].place.page_to_leave(leaving).await;
                    page.ask(last, wait).await;
                    self.gets.push(Get {
                        key,
                        last,
                        brief: wait < LONG,
                        held: false,
                        page,
                    });
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
        let floor = |key| {
            self.gets
                .iter()
                .filter(|get| get.key == key)
                .map(|get| get.last)
                .max()
                .unwrap_or(0)
        };
        let tally = |(key, line): (usize, &Line)| Tally {
            newest: line.newest,
            floor: floor(key),
            ..Tally::default()
        };
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
        line.updates.insert(
            receipt.version,
            Answer {
                version: receipt.version,
                ..told
            },
        );
        line.newest = line.newest.max(receipt.version);
        tally.receipts.push(receipt);
    }

    /// Reads the answers that must come, and checks that all other gets are held.
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
            self.lines[key].look.wait_held(held as u64).await;
        }
        Ok(())
    }

    async fn expire(&mut self, key: usize, watched: bool) -> TestCaseResult {
        let mut tallies = self.tallies();
        let mut backend = self.lines[key].place.backend().await;
        self.updates += 1;
        backend.send_set(self.updates, r#","ttl":1"#).await;
        self.note(
            key,
            backend,
            Answer::status(0, self.updates),
            &mut tallies[key],
        )
        .await;
        let newest = self.lines[key].newest;
        // No get asks the store meanwhile, because the status may expire at any time.
        self.settle(tallies).await?;
        if watched {
            let mut page = self.lines[key].place.page().await;
            page.ask(newest, LONG).await;
            self.gets.push(Get {
                key,
                last: newest,
                brief: false,
                held: true,
                page,
            });
        }
        let line = &mut self.lines[key];
        line.look.wait_held(u64::from(watched)).await;
        let deadline = Instant::now() + PATIENCE;
        while line.look.look().await.0 > 0 {
            prop_assert!(
                Instant::now() < deadline,
                "version {newest} does not expire"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        line.newest = 0;
        Ok(())
    }

    /// Checks that the next poll of a page returns the newest update, or says that there is
    /// nothing newer, whatever the page knows.
    async fn all_know_the_newest(self) -> TestCaseResult {
        for line in self.lines {
            let mut page = line.place.page().await;
            for &last in [0].iter().chain(line.updates.keys()) {
                let expected = if last < line.newest {
                    line.updates[&line.newest].clone()
                } else {
                    Answer::timeout(last)
                };
                prop_assert_eq!(page.poll_for(last, Duration::ZERO).await, expected);
            }
        }
        Ok(())
    }
}

async fn rest_of(left: Option<HalfClosed>) -> Option<Answer> {
    left?.rest().await
}
