use super::*;
use crate::model::status::Seen;

fn key(text: &str) -> Key {
    Key::parse(text).expect("good")
}

fn gone(version: u64) -> Update {
    Update::Gone(Version::new(version).expect("good"))
}

fn version(number: u64) -> Version {
    Version::new(number).expect("good")
}

/// A taker that ignores the update.
#[derive(Debug)]
struct Nobody;

impl Taker for Nobody {
    fn deliver(&self, _: &Update, _: Option<Instant>, _: bool) {}

    fn abandon(&self) {}
}

fn nobody() -> Arc<dyn Taker> {
    Arc::new(Nobody)
}

#[derive(Debug, Default)]
struct Taken(Mutex<Vec<(Update, bool)>>);

/// A taker that panics when it gets an update, and counts how often it is abandoned.
#[derive(Debug, Default)]
struct Broken(AtomicUsize);

impl Taker for Broken {
    fn deliver(&self, _: &Update, _: Option<Instant>, _: bool) {
        panic!("this panic is meant");
    }

    fn abandon(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A taker whose waiter stays in the registry.
#[derive(Debug, Default)]
struct Stays(Taken);

impl Taker for Stays {
    fn deliver(&self, update: &Update, since: Option<Instant>, at_once: bool) {
        self.0.deliver(update, since, at_once);
    }

    fn abandon(&self) {
        self.0.abandon();
    }

    fn stays(&self) -> bool {
        true
    }
}

impl Taker for Taken {
    fn deliver(&self, update: &Update, _: Option<Instant>, at_once: bool) {
        lock(&self.0).push((update.clone(), at_once));
    }

    fn abandon(&self) {
        panic!("it was given all");
    }
}

#[test]
fn all_that_a_delivery_took_out_and_does_not_give_learn_of_its_panic() {
    let waiters = Waiters::new(10, 10);
    let (given, broken) = (
        Arc::<Taken>::default(),
        [Arc::<Broken>::default(), Arc::<Broken>::default()],
    );
    let takers: [Arc<dyn Taker>; 3] = [given.clone(), broken[0].clone(), broken[1].clone()];
    let all = takers.map(|taker| {
        waiters
            .register(&key("a"), version(0), taker)
            .expect("room")
    });
    let delivers = std::panic::AssertUnwindSafe(|| waiters.deliver(&key("a"), &gone(5)));
    assert!(std::panic::catch_unwind(delivers).is_err());
    assert_eq!(lock(&given.0).len(), 1);
    assert!(
        broken
            .iter()
            .all(|broken| broken.0.load(Ordering::Relaxed) == 1)
    );
    assert!(all.into_iter().all(|waiter| waiter.leave() == Left::Taken));
    assert_eq!((waiters.len(), waiters.keys()), (0, 0));
}

#[test]
fn an_update_is_given_to_those_that_know_less() {
    let waiters = Waiters::new(10, 10);
    let (one, two, three) = (
        Arc::<Taken>::default(),
        Arc::<Taken>::default(),
        Arc::<Taken>::default(),
    );
    let behind = waiters
        .register(&key("a"), version(4), one.clone())
        .expect("room");
    let ahead = waiters
        .register(&key("a"), version(5), two.clone())
        .expect("room");
    let other = waiters
        .register(&key("b"), version(0), three.clone())
        .expect("room");
    assert_eq!(waiters.deliver(&key("a"), &gone(5)), 1);
    assert_eq!((waiters.len(), waiters.keys()), (2, 2));
    assert_eq!(*lock(&one.0), [(gone(5), true)]);
    behind.note_opened(1);
    assert_eq!(behind.leave(), Left::Taken);
    ahead.note_opened(1);
    assert_eq!(ahead.leave(), Left::Opened);
    assert_eq!(other.leave(), Left::Unopened);
    assert_eq!((waiters.len(), waiters.keys()), (0, 0));
    assert!(lock(&two.0).is_empty() && lock(&three.0).is_empty());
}

#[test]
fn a_waiter_that_stays_gets_each_newer_update_and_keeps_its_place() {
    let waiters = Waiters::new(10, 10);
    let taken = Arc::<Stays>::default();
    let register = || {
        waiters
            .register(&key("a"), version(4), taken.clone())
            .expect("room")
    };
    let stays = register();
    stays.note_opened(1);
    let counts = [4, 5, 5, 7, 6].map(|version| waiters.deliver(&key("a"), &gone(version)));
    assert_eq!(counts, [0, 1, 0, 1, 0]);
    assert_eq!(*lock(&taken.0.0), [(gone(5), false), (gone(7), false)]);
    assert_eq!((waiters.len(), waiters.count(&key("a"))), (1, 1));
    assert!(waiters.unopened(1).is_empty(), "it is still open");
    let reopens = waiters.unopened_of(&key("a"), 2).expect("in another epoch");
    assert_eq!(reopens.seen, Seen::from(version(7)));
    assert_eq!(stays.leave_after(version(7)), Left::Opened);

    // A delivery that the waiter has not heard of yet comes before its leaving.
    let behind = register();
    assert_eq!(waiters.deliver(&key("a"), &gone(5)), 1);
    assert_eq!(behind.leave_after(version(4)), Left::Behind(version(5)));
    let unopened = register();
    assert_eq!(unopened.leave_after(version(4)), Left::Unopened);
    assert_eq!((waiters.len(), waiters.keys()), (0, 0));
}

#[test]
fn of_very_many_only_some_are_answered_by_who_delivers() {
    let waiters = Waiters::new(100, 100);
    let taken = Arc::<Taken>::default();
    let all: Vec<_> = (0..50)
        .map(|_| {
            waiters
                .register(&key("a"), version(0), taken.clone())
                .expect("room")
        })
        .collect();
    assert_eq!(waiters.deliver(&key("a"), &gone(5)), 50);
    assert_eq!(
        lock(&taken.0)
            .iter()
            .filter(|(_, at_once)| *at_once)
            .count(),
        AT_ONCE
    );
    drop(all);
    assert_eq!((waiters.len(), waiters.keys()), (0, 0));
}

#[test]
fn one_that_left_is_not_counted_as_given() {
    let waiters = Waiters::new(10, 10);
    let left = waiters
        .register(&key("a"), version(0), nobody())
        .expect("room");
    let stays = waiters
        .register(&key("a"), version(0), nobody())
        .expect("room");
    drop(left);
    assert_eq!(waiters.count(&key("a")), 1);
    assert_eq!(waiters.deliver(&key("a"), &gone(1)), 1);
    drop(stays);
    assert_eq!((waiters.len(), waiters.keys()), (0, 0));
}

#[test]
fn both_limits_hold_and_leave_nothing_behind() {
    let waiters = Waiters::new(3, 2);
    let first = waiters
        .register(&key("a"), version(0), nobody())
        .expect("room");
    let _second = waiters
        .register(&key("a"), version(0), nobody())
        .expect("room");
    assert_eq!(
        waiters.register(&key("a"), version(0), nobody()).err(),
        Some(Full::Key)
    );
    let _third = waiters
        .register(&key("b"), version(0), nobody())
        .expect("room");
    assert_eq!(
        waiters.register(&key("c"), version(0), nobody()).err(),
        Some(Full::Node)
    );
    assert_eq!((waiters.len(), waiters.keys()), (3, 2));
    drop(first);
    assert!(waiters.register(&key("a"), version(0), nobody()).is_ok());
    assert_eq!(
        Waiters::new(1, 0)
            .register(&key("a"), version(0), nobody())
            .err(),
        Some(Full::Key)
    );
}

#[test]
fn threads_that_register_deliver_and_leave_end_at_zero() {
    let waiters = Waiters::new(1_000_000, 1_000_000);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let waiters = &waiters;
            scope.spawn(move || {
                for round in 0..20_000_u64 {
                    let key = key(&format!("k{}", round % 7));
                    let waiter = waiters
                        .register(&key, version(round), nobody())
                        .expect("room");
                    if (round + thread) % 3 == 0 {
                        waiters.deliver(&key, &gone(round + 1));
                    }
                    drop(waiter);
                }
            });
        }
    });
    assert_eq!((waiters.len(), waiters.keys()), (0, 0));
}

#[test]
fn the_last_waiter_that_leaves_a_key_is_noted() {
    let waiters = Waiters::new(10, 10);
    assert!(waiters.take_emptied().is_empty());
    let first = waiters
        .register(&key("a"), version(0), nobody())
        .expect("room");
    let second = waiters
        .register(&key("a"), version(0), nobody())
        .expect("room");
    let other = waiters
        .register(&key("b"), version(0), nobody())
        .expect("room");
    drop(first);
    assert!(waiters.take_emptied().is_empty());
    waiters.deliver(&key("a"), &gone(1));
    drop((second, other));
    assert_eq!(waiters.take_emptied(), [key("a"), key("b")]);
    assert!(waiters.take_emptied().is_empty());
}

#[test]
fn the_node_s_own_get_hears_of_an_update_though_there_is_room_for_none() {
    let waiters = Waiters::new(0, 0);
    let taken = Arc::<Taken>::default();
    let _waiter = waiters.register_own(&key("a"), version(0), taken.clone());
    assert_eq!(waiters.deliver(&key("a"), &gone(7)), 1);
    assert_eq!(*lock(&taken.0), [(gone(7), true)]);
}

#[test]
fn what_is_not_open_is_found_until_it_is() {
    let waiters = Waiters::new(10, 10);
    let first = waiters
        .register(&key("a"), version(4), nobody())
        .expect("room");
    let second = waiters
        .register(&key("a"), version(9), nobody())
        .expect("room");
    second.note_opened(1);
    assert_eq!(waiters.unopened(1), [key("a")]);
    let unopened = waiters.unopened_of(&key("a"), 1).expect("the first");
    assert_eq!(unopened.seen, Seen::from(version(4)));
    let third = waiters
        .register(&key("a"), version(2), nobody())
        .expect("room");
    waiters.note_opened_again(&key("a"), unopened.before, 1);
    assert_eq!(
        waiters.unopened_of(&key("a"), 1).expect("the third").seen,
        Seen::from(version(2))
    );
    third.note_opened(1);
    assert_eq!(
        (waiters.unopened(1), waiters.unopened_of(&key("a"), 1)),
        (vec![], None)
    );
    let all = Seen {
        least: version(2),
        most: version(9),
    };
    assert_eq!(waiters.unopened_of(&key("a"), 2).expect("all").seen, all);
    drop((first, second, third));
    assert!(waiters.unopened(3).is_empty());
}

#[test]
fn what_was_missed_is_opened_again_also_if_it_is_missed_while_it_is_opened() {
    let waiters = Waiters::new(10, 10);
    let waiter = waiters
        .register(&key("a"), version(4), nobody())
        .expect("room");
    let unasked = waiters
        .register(&key("b"), version(4), nobody())
        .expect("room");
    waiter.note_opened(2);
    assert!(waiters.missed(&key("a")) && !waiters.missed(&key("c")));
    assert_eq!(
        waiters.unopened_of(&key("a"), 2).expect("missed").seen,
        Seen::from(version(4))
    );
    // An update is missed after the key was opened, but before that is noted.
    waiters.missed_all();
    waiters.note_opened_again(&key("a"), u64::MAX, 2);
    let mut due = waiters.unopened(2);
    due.sort_unstable_by_key(|key| key.as_str().to_owned());
    assert_eq!(due, [key("a"), key("b")]);
    let unopened = waiters.unopened_of(&key("a"), 2).expect("missed again");
    // The key stays due until it is opened, even if an attempt to open it fails.
    assert!(waiters.unopened_of(&key("a"), 2).is_some());
    waiters.note_opened_again(&key("a"), unopened.before, 2);
    assert_eq!(waiters.unopened_of(&key("a"), 2), None);
    assert_eq!(
        (waiter.leave(), unasked.leave()),
        (Left::Opened, Left::Unopened)
    );
}
#[test]
fn what_was_missed_stays_due_if_the_get_itself_opens_its_key_while_that_is_opened_again_in_vain() {
    let waiters = Waiters::new(10, 10);
    let waiter = waiters
        .register(&key("a"), version(4), nobody())
        .expect("room");
    // The get asked the store before the update was made, and gets the store's answer after
    // it.
    waiters.missed(&key("a"));
    assert!(waiters.unopened_of(&key("a"), 2).is_some());
    waiter.note_opened(2);
    assert_eq!(waiters.unopened(2), [key("a")]);
    let unopened = waiters.unopened_of(&key("a"), 2).expect("still missed");
    waiters.note_opened_again(&key("a"), unopened.before, 2);
    assert_eq!(
        (waiters.unopened(2), waiter.leave()),
        (vec![], Left::Opened)
    );
}
