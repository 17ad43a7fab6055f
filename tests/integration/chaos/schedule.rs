//! What is done when, drawn from a seed: the same seed gives the same run of events.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::NODES;
use crate::support::Weather;

/// Something that happens to a node, for a while.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum ToNode {
    /// kill -9; another is started in its place.
    Kill,
    /// SIGTERM; another is started in its place.
    Drain,
    /// SIGSTOP.
    Freeze,
    /// SIGSTOP, while many connect.
    FreezeInACrowd,
    /// Its system clock is so many seconds off.
    Clock(i64),
    /// It may open no more files.
    NoFiles,
    /// Nobody reads its log.
    StalledLog,
    /// Clients that ask and do not read.
    SlowReaders,
}

/// Something that happens to Redis, or on the way to it or between nodes, for a while.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum ToRedis {
    /// kill -9; an empty one is started in its place, or Sentinel finds another.
    Kill,
    /// SIGSTOP.
    Freeze,
    /// SIGSTOP of the master until there is another: then there are two, for a moment.
    FreezeUntilElection,
    /// Sentinel is asked for another master.
    Failover,
    /// Its system clock is so many seconds off.
    Clock(i64),
    /// Between a node and Redis.
    Link(usize, Weather),
    /// Between all others and a node.
    PeerLink(usize, Weather),
}

/// When, what, how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Event<E> {
    pub(super) pause: Duration,
    pub(super) what: E,
    pub(super) lasts: Duration,
}

/// Which Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Plain,
    Sentinel,
}

/// Endless events; nodes and Redis have each their own, so that they meet by chance.
pub(super) struct Schedule {
    rng: StdRng,
    form: Form,
    /// What was not yet drawn: each kind comes before any comes again.
    left: Vec<usize>,
}

impl Schedule {
    pub(super) fn new(seed: u64, form: Form) -> Self {
        Self { rng: StdRng::seed_from_u64(seed), form, left: Vec::new() }
    }

    pub(super) fn next_of_node(&mut self) -> (usize, Event<ToNode>) {
        let off = self.off();
        let kinds = [
            ToNode::Kill,
            ToNode::Freeze,
            ToNode::FreezeInACrowd,
            ToNode::NoFiles,
            ToNode::StalledLog,
            ToNode::SlowReaders,
            ToNode::Clock(off),
            ToNode::Drain,
        ];
        let what = kinds[self.draw(kinds.len())];
        (self.rng.random_range(0..NODES), self.event(what))
    }

    pub(super) fn next_of_redis(&mut self) -> Event<ToRedis> {
        let off = self.off();
        let (link, peer) = (self.rng.random_range(0..NODES), self.rng.random_range(0..NODES));
        let (one, other) = (self.weather(), self.weather());
        let kinds = match self.form {
            Form::Plain => [
                ToRedis::Kill,
                ToRedis::Link(link, one),
                ToRedis::Freeze,
                ToRedis::PeerLink(peer, other),
                ToRedis::Clock(off),
                ToRedis::Link(peer, other),
            ],
            Form::Sentinel => [
                ToRedis::Kill,
                ToRedis::PeerLink(peer, one),
                ToRedis::Failover,
                ToRedis::Freeze,
                ToRedis::FreezeUntilElection,
                ToRedis::PeerLink(link, other),
            ],
        };
        let what = kinds[self.draw(kinds.len())];
        self.event(what)
    }

    fn draw(&mut self, kinds: usize) -> usize {
        if self.left.is_empty() {
            self.left = (0..kinds).collect();
        }
        let at = self.rng.random_range(0..self.left.len());
        self.left.swap_remove(at)
    }

    fn event<E>(&mut self, what: E) -> Event<E> {
        let mut ms = |range| Duration::from_millis(self.rng.random_range(range));
        Event { pause: ms(100..900), what, lasts: ms(200..1800) }
    }

    /// What is in the log of a page is forgotten by no clock: its time to live is more.
    fn off(&mut self) -> i64 {
        let seconds = self.rng.random_range(5..40);
        if self.rng.random() { seconds } else { -seconds }
    }

    fn weather(&mut self) -> Weather {
        let delay = Duration::from_millis(self.rng.random_range(20..200));
        *[Weather::Cut, Weather::Freeze, Weather::Delay(delay)].choose(&mut self.rng).expect("there are some")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_events_again_and_each_kind_comes() {
        for form in [Form::Plain, Form::Sentinel] {
            let (mut one, mut again) = (Schedule::new(7, form), Schedule::new(7, form));
            let (mut kinds, mut others) = (Vec::new(), Vec::new());
            for _ in 0..6 {
                let event = one.next_of_redis();
                assert_eq!(event, again.next_of_redis());
                kinds.push(std::mem::discriminant(&event.what));
            }
            kinds.sort_unstable_by_key(|kind| format!("{kind:?}"));
            kinds.dedup();
            assert_eq!(kinds.len(), 5, "one comes twice");
            let (mut one, mut again) = (Schedule::new(8, form), Schedule::new(8, form));
            for _ in 0..8 {
                let event = one.next_of_node();
                assert_eq!(event, again.next_of_node());
                others.push(event.1.what);
            }
            assert!(others.contains(&ToNode::Kill) && others.contains(&ToNode::NoFiles), "{others:?}");
        }
    }
}
