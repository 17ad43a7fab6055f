//! The events and their times, drawn from a seed. The same seed gives the same events.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::NODES;
use holdfast_testkit::Weather;

/// No clock is off by as many seconds.
pub(super) const MAX_CLOCK_OFF: i64 = 40;

/// Something that happens to a node, for a while.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum ToNode {
    /// kill -9; another is started in its place.
    Kill,
    /// SIGTERM; another is started in its place.
    Drain,
    /// SIGSTOP.
    Freeze,
    /// SIGSTOP for longer than backends wait. Afterwards it reads the requests that they gave
    /// up.
    FreezeLong,
    /// SIGSTOP while many clients connect.
    FreezeInACrowd,
    /// Its system clock is off by this many seconds.
    Clock(i64),
    /// It may open no more files.
    NoFiles,
    /// Nobody reads its log.
    StalledLog,
    /// Clients ask and do not read.
    SlowReaders,
}

/// Something that happens for a while to Redis, to a link to it, or to a link between nodes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum ToRedis {
    /// kill -9; an empty one is started in its place, or Sentinel finds another.
    Kill,
    /// SIGSTOP.
    Freeze,
    /// SIGSTOP of the master until there is another one. Then there are two, for a moment.
    FreezeUntilElection,
    /// Sentinel is asked for another master.
    Failover,
    /// Its system clock is off by this many seconds.
    Clock(i64),
    /// It has less memory than it uses, and drops nothing.
    Full,
    /// It has fewer replicas than it requires for a write.
    NoReplicas,
    /// The link between a node and Redis.
    Link(usize, Weather),
    /// The link between all other nodes and a node.
    PeerLink(usize, Weather),
}

impl ToNode {
    /// Returns the name of the kind in `HOLDFAST_CHAOS_ONLY`.
    fn name(self) -> String {
        format!("node.{}", kind(&format!("{self:?}")))
    }
}

impl ToRedis {
    fn name(self) -> String {
        match self {
            Self::Link(_, weather) => format!("link.{}", kind(&format!("{weather:?}"))),
            Self::PeerLink(_, weather) => format!("peer.{}", kind(&format!("{weather:?}"))),
            _ => format!("redis.{}", kind(&format!("{self:?}"))),
        }
    }
}

/// Returns the name of a variant without its fields.
fn kind(text: &str) -> &str {
    text.split('(').next().expect("there is a first part")
}

/// An event, the pause before it, and its duration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Event<E> {
    pub(super) pause: Duration,
    pub(super) what: E,
    pub(super) lasts: Duration,
}

/// The form in which Redis runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Plain,
    Sentinel,
}

/// An endless series of events. Nodes and Redis have one each, so that their events meet by
/// chance.
pub(super) struct Schedule {
    rng: StdRng,
    form: Form,
    /// The kinds that may come; if there are none, all kinds.
    only: Vec<String>,
    /// The kinds that were not drawn yet. Each kind comes before any comes again.
    left: Vec<usize>,
}

impl Schedule {
    /// Makes a schedule. `only` is a list of kinds, separated by commas, as in
    /// `node.Kill,link.HoldOld`.
    pub(super) fn new(seed: u64, form: Form, only: &str) -> Self {
        let only = only
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        Self {
            rng: StdRng::seed_from_u64(seed),
            form,
            only,
            left: Vec::new(),
        }
    }

    /// Returns the next event and its node, or `None` if no kind of these may come.
    pub(super) fn next_of_node(&mut self) -> Option<(usize, Event<ToNode>)> {
        let off = self.off();
        let kinds = [
            ToNode::Kill,
            ToNode::Freeze,
            ToNode::FreezeLong,
            ToNode::FreezeInACrowd,
            ToNode::NoFiles,
            ToNode::StalledLog,
            ToNode::SlowReaders,
            ToNode::Clock(off),
            ToNode::Drain,
        ];
        let names = kinds.map(ToNode::name);
        let what = kinds[self.draw(&names)?];
        Some((self.rng.random_range(0..NODES), self.event(what)))
    }

    /// Returns the next event of Redis and the links, or `None` if no kind of these may come.
    pub(super) fn next_of_redis(&mut self) -> Option<Event<ToRedis>> {
        let off = self.off();
        let delay = Duration::from_millis(self.rng.random_range(20..200));
        let weathers = [
            Weather::Cut,
            Weather::Freeze,
            Weather::HoldOld,
            Weather::HoldAnswers,
            Weather::Delay(delay),
            Weather::Loss(2 * delay),
        ];
        let at = self.rng.random_range(0..NODES);
        let mut kinds = vec![
            ToRedis::Kill,
            ToRedis::Freeze,
            ToRedis::Full,
            ToRedis::NoReplicas,
        ];
        kinds.extend(match self.form {
            Form::Plain => vec![ToRedis::Clock(off)],
            Form::Sentinel => vec![ToRedis::Failover, ToRedis::FreezeUntilElection],
        });
        // Sentinels name the servers themselves, so no proxy can be put in between.
        if self.form == Form::Plain {
            kinds.extend(weathers.map(|weather| ToRedis::Link(at, weather)));
        }
        kinds.extend(weathers.map(|weather| ToRedis::PeerLink(at, weather)));
        let names: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
        let what = kinds[self.draw(&names)?];
        Some(self.event(what))
    }

    fn draw(&mut self, names: &[String]) -> Option<usize> {
        let may_come = |name: &String| self.only.is_empty() || self.only.contains(name);
        if self.left.is_empty() {
            self.left = (0..names.len())
                .filter(|at| may_come(&names[*at]))
                .collect();
        }
        if self.left.is_empty() {
            return None;
        }
        let at = self.rng.random_range(0..self.left.len());
        Some(self.left.swap_remove(at))
    }

    fn event<E>(&mut self, what: E) -> Event<E> {
        let mut ms = |range| Duration::from_millis(self.rng.random_range(range));
        Event {
            pause: ms(100..900),
            what,
            lasts: ms(200..1800),
        }
    }

    /// Returns the number of seconds by which a clock is off. It is less than the time to live
    /// of a status, so that no clock makes Redis forget a status that a page has logged.
    fn off(&mut self) -> i64 {
        let seconds = self.rng.random_range(5..MAX_CLOCK_OFF);
        if self.rng.random() { seconds } else { -seconds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names<E: Copy>(
        mut next: impl FnMut() -> Option<Event<E>>,
        name: fn(E) -> String,
        count: usize,
    ) -> Vec<String> {
        let mut names: Vec<_> = (0..count)
            .map(|_| name(next().expect("one").what))
            .collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_seed_gives_the_same_events_again_and_each_kind_comes_once_a_round() {
        for (form, kinds) in [(Form::Plain, 17), (Form::Sentinel, 12)] {
            let [mut one, mut again, mut other, mut other_again] =
                [(); 4].map(|()| Schedule::new(7, form, ""));
            for _ in 0..20 {
                assert_eq!(one.next_of_redis(), again.next_of_redis());
                assert_eq!(other.next_of_node(), other_again.next_of_node());
            }
            let mut of_redis = Schedule::new(8, form, "");
            let mut found = names(|| of_redis.next_of_redis(), ToRedis::name, kinds);
            assert!(found.contains(&"peer.HoldOld".to_owned()), "{found:?}");
            found.dedup();
            assert_eq!(found.len(), kinds, "{found:?}");
            let mut of_node = Schedule::new(8, form, "");
            let mut found = names(
                || of_node.next_of_node().map(|(_, event)| event),
                ToNode::name,
                9,
            );
            found.dedup();
            assert_eq!(found.len(), 9, "{found:?}");
        }
    }

    #[test]
    fn only_those_kinds_come_that_are_named() {
        let mut some = Schedule::new(7, Form::Plain, "link.HoldOld, node.Kill");
        let found = names(|| some.next_of_redis(), ToRedis::name, 5);
        assert_eq!(found, ["link.HoldOld"; 5]);
        let mut some = Schedule::new(7, Form::Plain, "link.HoldOld");
        assert_eq!(some.next_of_node(), None);
    }
}
