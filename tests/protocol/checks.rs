//! Runs the checks of the model. With all safeguards no promise breaks. Without any one of
//! them, a promise breaks.

use std::time::Duration;

use holdfast_protocol::world::{Action, Fault};
use holdfast_protocol::{Bounds, LooksFor, Mends, Protocol};
use stateright::{Checker, HasDiscoveries, Model, UniformChooser};

/// The time after which a search has failed. Most searches take seconds.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(1_200);

#[test]
fn nothing_breaks_with_any_two_faults() {
    let gets = if is_long() { 2 } else { 1 };
    search_all(Bounds {
        gets,
        ..Bounds::small(&Fault::ALL, 2)
    });
}

#[test]
fn nothing_breaks_with_any_fault_while_leases_are_given_back() {
    search_all(Bounds {
        gives_back: true,
        ..Bounds::small(&Fault::ALL, 1)
    });
}

#[test]
fn nothing_breaks_when_sets_are_delayed_and_lost() {
    let kinds = &[Fault::Delay, Fault::LoseCommand, Fault::LoseAnswer];
    search_all(Bounds {
        gets: 1,
        ..Bounds::small(kinds, 3)
    });
}

#[test]
fn nothing_breaks_when_redis_fails_over_under_a_delayed_set() {
    search_all(Bounds::small(&[Fault::Delay, Fault::FailOver], 2));
}

#[test]
fn nothing_breaks_when_nodes_stall_lose_each_other_and_drain() {
    search_all(Bounds::small(&[Fault::Stall, Fault::Cut, Fault::Drain], 3));
}

#[test]
fn nothing_breaks_when_leases_are_given_back_to_a_redis_that_fails() {
    let kinds = &[Fault::Leave, Fault::Restart, Fault::FailOver];
    search_all(Bounds {
        sets: 1,
        gets: 3,
        gives_back: true,
        ..Bounds::small(kinds, 2)
    });
}

#[test]
fn nothing_breaks_in_random_runs_of_three_nodes() {
    let checker = protocol(Bounds::large(), Mends::all())
        .checker()
        .finish_when(HasDiscoveries::AnyFailures)
        .target_state_count(if is_long() { 100_000_000 } else { 2_000_000 })
        .timeout(SEARCH_TIMEOUT)
        .spawn_simulation(1, UniformChooser)
        .join();
    println!("{} states", checker.state_count());
    assert_eq!(broken(&checker), None);
}

#[test]
fn searches_come_by_what_they_are_about() {
    let kinds = &[
        Fault::Delay,
        Fault::LoseAnswer,
        Fault::Restart,
        Fault::StepClock,
        Fault::Stall,
    ];
    let bounds = Bounds {
        faults: 2,
        ..Bounds::small(kinds, 2)
    };
    let model = Protocol {
        bounds,
        mends: Mends::all(),
        looks_for: LooksFor::Landmarks,
    };
    let checker = model
        .checker()
        .timeout(SEARCH_TIMEOUT)
        .spawn_simulation(1, UniformChooser)
        .join();
    checker.assert_properties();
}

#[test]
fn a_set_without_a_latest_time_comes_back_over_newer_ones() {
    let mends = Mends {
        sets_have_a_latest_time: false,
        ..Mends::all()
    };
    counterexample("what was answered is over", &[Fault::Delay], mends, 0);
}

/// The repeat of a set reaches a server whose clock is behind.
#[test]
fn a_latest_time_means_nothing_to_another_server() {
    let mends = Mends {
        latest_time_is_of_its_server: false,
        ..Mends::all()
    };
    counterexample(
        "what was answered is over",
        &[Fault::Delay, Fault::FailOver],
        mends,
        0,
    );
}

/// The node repeats a set to learn its fate.
#[test]
fn a_repeat_without_numbers_is_done_twice() {
    let mends = Mends {
        redis_keeps_numbers: false,
        ..Mends::all()
    };
    counterexample("a set is done once", &[Fault::LoseAnswer], mends, 0);
}

#[test]
fn a_lease_that_another_node_deletes_leaves_a_page_deaf() {
    let mends = Mends {
        leases_are_their_nodes_own: false,
        ..Mends::all()
    };
    counterexample("no lost status", &[Fault::Cut], mends, 0);
}

#[test]
fn a_peer_that_stalls_and_is_forgotten_leaves_a_page_deaf() {
    let mends = Mends {
        missed_keys_are_kept: false,
        ..Mends::all()
    };
    counterexample("no lost status", &[Fault::Stall], mends, 0);
}

#[test]
fn a_drain_that_forgets_loses_a_confirmed_set() {
    let mends = Mends {
        drains_hand_on: false,
        ..Mends::all()
    };
    counterexample("no lost status", &[Fault::Drain, Fault::Restart], mends, 0);
}

#[test]
fn a_lease_whose_end_stands_is_given_back_under_a_new_get() {
    let mends = Mends {
        opens_move_the_end: false,
        ..Mends::all()
    };
    counterexample("no lost status", &[], mends, 2);
}

/// A node sees that nobody waits, and then reads the end that a new get has just moved.
#[test]
fn an_end_that_is_read_too_late_takes_the_lease_of_a_new_get() {
    let mends = Mends {
        ends_are_read_before_the_count: false,
        ..Mends::all()
    };
    counterexample("no lost status", &[], mends, 2);
}

/// A lease gets an end that it had before.
#[test]
fn two_give_backs_under_way_take_a_lease_with_an_end_of_before() {
    let mends = Mends {
        give_backs_go_one_by_one: false,
        ..Mends::all()
    };
    counterexample("no lost status", &[], mends, 3);
}

/// A lease gets, at another server, an end that it had before.
#[test]
fn an_end_seen_at_another_server_takes_a_new_lease() {
    let mends = Mends {
        ends_are_of_their_server: false,
        ..Mends::all()
    };
    counterexample("no lost status", &[Fault::FailOver], mends, 2);
}

/// Shows why the model assumes that no page has a `last` ahead of the clock once Redis has lost
/// its statuses.
#[test]
fn a_last_ahead_of_the_clock_brings_an_old_set_back_over_a_newer_one() {
    let far = |kinds| Bounds {
        first_last: 40,
        ..Bounds::small(kinds, 1)
    };
    // Nothing breaks as long as Redis keeps its statuses.
    search_all(far(&[Fault::Delay, Fault::LoseAnswer, Fault::Stall]));
    find("never backwards", far(&[Fault::Restart]), Mends::all());
}

/// Shows why the model assumes that nodes hear of a clock that is ahead before a failover.
#[test]
fn a_clock_ahead_that_one_node_alone_saw_gives_versions_that_turn_back() {
    let mends = Mends {
        clocks_are_heard_in_time: false,
        ..Mends::all()
    };
    counterexample(
        "never backwards",
        &[Fault::StepClock, Fault::FailOver],
        mends,
        0,
    );
}

/// Returns whether the long forms are asked for, as `make test-protocol-long` does.
fn is_long() -> bool {
    std::env::var_os("HOLDFAST_TEST_LONG").is_some()
}

fn protocol(bounds: Bounds, mends: Mends) -> Protocol {
    Protocol {
        bounds,
        mends,
        looks_for: LooksFor::BrokenPromises,
    }
}

/// Searches all states within these bounds, with all safeguards on, and checks that no promise
/// breaks.
fn search_all(bounds: Bounds) {
    let checker = protocol(bounds, Mends::all())
        .checker()
        .finish_when(HasDiscoveries::AnyFailures)
        .timeout(SEARCH_TIMEOUT)
        .spawn_dfs()
        .join();
    println!(
        "{} states, depth {}",
        checker.unique_state_count(),
        checker.max_depth()
    );
    assert_eq!(broken(&checker), None);
    assert!(
        checker.is_done(),
        "not searched to the end within {SEARCH_TIMEOUT:?}"
    );
}

/// Finds a shortest run that breaks this promise. If `gets` is above 0, leases are given back.
fn counterexample(promise: &'static str, kinds: &'static [Fault], mends: Mends, gets: u8) {
    let small = Bounds::small(kinds, kinds.len() as u8);
    find(
        promise,
        Bounds {
            gets: gets.max(1),
            gives_back: gets > 0,
            ..small
        },
        mends,
    );
}

fn find(promise: &'static str, bounds: Bounds, mends: Mends) {
    let checker = protocol(bounds, mends)
        .checker()
        .finish_when(HasDiscoveries::AnyOf([promise].into()))
        .timeout(SEARCH_TIMEOUT)
        .spawn_bfs()
        .join();
    let path = checker
        .discovery(promise)
        .expect("a run that breaks the promise")
        .into_actions();
    println!("{promise}: {path:?}");
}

/// Returns a broken promise and the run that breaks it.
fn broken(checker: &impl Checker<Protocol>) -> Option<(&'static str, Vec<Action>)> {
    let mut found = checker.discoveries().into_iter();
    found
        .next()
        .map(|(promise, path)| (promise, path.into_actions()))
}
