//! Honest pages, each with a backend, at a steady pace. They measure the time from a set to its
//! page.

use std::fmt;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};

use super::Scale;
use crate::races::one_node::clients::{Answer, Place};
use holdfast_testkit::Node;

/// The result of a run.
#[derive(Debug)]
pub(super) struct Run {
    /// The time from when each set was due to the answer of its page, sorted.
    times: Vec<Duration>,
    pub(super) lost: usize,
    pub(super) took: Duration,
}

impl Run {
    pub(super) fn at(&self, share: f64) -> Duration {
        self.times[((self.times.len() - 1) as f64 * share) as usize]
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let a_second = self.times.len() as f64 / self.took.as_secs_f64();
        let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| self.at(share));
        write!(
            f,
            "{} sets, {a_second:.0} a second, {} lost; ",
            self.times.len(),
            self.lost
        )?;
        write!(f, "set to page p50 {p50:?}, p99 {p99:?}, max {max:?}")
    }
}

/// Lets pages wait and backends set for as long as the scale says.
pub(super) async fn run(node: &Node, name: &'static str, scale: &Scale) -> Run {
    let period = Duration::from_secs(1) * scale.pages / scale.sets_a_second;
    let (begun, mut lanes) = (Instant::now(), JoinSet::new());
    for lane in 0..scale.pages {
        let (place, first) = (
            Place::new(node, String::new()),
            begun + period * lane / scale.pages,
        );
        lanes.spawn(work(
            place,
            format!("honest-{name}-{lane}"),
            first,
            period,
            begun + scale.lasts,
        ));
    }
    let (mut times, mut lost) = (Vec::new(), 0);
    for (of_lane, lost_of_lane) in lanes.join_all().await {
        times.extend(of_lane);
        lost += lost_of_lane;
    }
    times.sort_unstable();
    Run {
        times,
        lost,
        took: begun.elapsed(),
    }
}

/// Runs one page and its backend, with a new key each time. Returns the times, and how many
/// statuses were lost.
async fn work(
    place: Place,
    name: String,
    first: Instant,
    period: Duration,
    until: Instant,
) -> (Vec<Duration>, usize) {
    let (mut page, mut backend) = (place.page().await, place.backend().await);
    let mut ticks = interval_at(first, period);
    // A set is due at its time even if it begins late, and its duration is counted from there.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (mut times, mut lost) = (Vec::new(), 0);
    for number in 0_u64.. {
        let due = ticks.tick().await + period / 2;
        if due > until {
            break;
        }
        page.key = format!("{name}-{number}");
        backend.key.clone_from(&page.key);
        page.ask(0, Duration::from_secs(20)).await;
        // Most of the time the page waits already when its set is due.
        sleep_until(due).await;
        let answered = async {
            let answer = page.answer().await;
            (answer, due.elapsed())
        };
        let ((answer, took), receipt) = tokio::join!(answered, backend.set(number));
        times.push(took);
        lost += usize::from(answer != Answer::status(receipt.version, number));
    }
    (times, lost)
}
