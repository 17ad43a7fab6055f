//! The properties that must hold in every state, and the states that a search must reach to
//! mean anything.

use stateright::Property;

use crate::Protocol;
use crate::node::{Outcome, Phase, Set};
use crate::page::Opening;
use crate::world::World;
use crate::{FIRST_TICK, HOLD, NodeId, VERSIONS_PER_TICK, Version};

/// Returns the promises.
pub fn promises() -> Vec<Property<Protocol>> {
    vec![
        Property::always("no lost status", no_lost_status),
        Property::always("never backwards", never_backwards),
        Property::always("what was answered is over", answered_is_over),
        Property::always("a set is done once", done_once),
        Property::always("one answer a get", one_answer),
    ]
}

/// Returns states that a search must reach. If it does not, it covered less than it seems.
pub fn landmarks() -> Vec<Property<Protocol>> {
    vec![
        Property::sometimes("a set is answered unknown", |_, world: &World| {
            world
                .sets
                .iter()
                .any(|set| set.phase == Phase::Answered(Outcome::Unknown))
        }),
        Property::sometimes(
            "a set that is answered unknown took effect",
            |_, world: &World| {
                let unknown = Phase::Answered(Outcome::Unknown);
                world
                    .sets
                    .iter()
                    .any(|set| set.phase == unknown && set.version > 0)
            },
        ),
        Property::sometimes("a set is answered not stored", |_, world: &World| {
            world
                .sets
                .iter()
                .any(|set| set.phase == Phase::Answered(Outcome::NotStored))
        }),
        Property::sometimes("an empty Redis has a set again", |_, world: &World| {
            // An outage lasts a tick, so a version of the first tick is from before the outage.
            let first_versions = ..(FIRST_TICK + 1) * VERSIONS_PER_TICK;
            let stored = world.redis.hash.status;
            world.redis.process > 0
                && stored.is_some_and(|status| first_versions.contains(&status.version))
        }),
        Property::sometimes("a key that a peer missed is kept", |_, world: &World| {
            world.nodes.iter().any(|node| node.missed.contains(&true))
        }),
        Property::sometimes(
            "a page is held behind all sets and faults",
            |protocol, world| {
                is_over(protocol, world) && world.pages[0].last > 0 && world.pages[0].get.is_some()
            },
        ),
    ]
}

/// Promise 1: once all that was under way has arrived and all faults have ended, Redis has the
/// newest confirmed set or a newer one, so that the next poll gets it. No get is held that does
/// not know it.
fn no_lost_status(_: &Protocol, world: &World) -> bool {
    if !is_settled(world) {
        return true;
    }
    let confirmed = newest(world, |set| set.phase == Phase::Answered(Outcome::Stored));
    let stored = world.redis.hash.status.map_or(0, |status| status.version);
    let held_know_it = world
        .pages
        .iter()
        .all(|page| page.get.is_none() || page.last >= confirmed);
    stored >= confirmed && held_know_it
}

/// Promise 2: no get is answered a version that is not greater than its `last`. A set gets a
/// greater version than all that a page had been given, and than all that an answered set had
/// got, before this set was asked for.
fn never_backwards(_: &Protocol, world: &World) -> bool {
    world.pages.iter().all(|page| !page.went_back)
        && world
            .sets
            .iter()
            .all(|set| set.version == 0 || set.version > set.above)
}

/// Promise 3: a set takes effect before its answer or never. A set that is answered as not
/// stored never takes effect.
fn answered_is_over(_: &Protocol, world: &World) -> bool {
    !world.has_late_effect
        && !world
            .sets
            .iter()
            .any(|set| set.phase == Phase::Answered(Outcome::NotStored) && set.version > 0)
}

/// Promise 3b: no repeat of a set takes effect a second time.
fn done_once(_: &Protocol, world: &World) -> bool {
    !world.has_double_effect
}

/// Promise 4: a get has one answer.
fn one_answer(_: &Protocol, world: &World) -> bool {
    world
        .pages
        .iter()
        .all(|page| page.answers <= if page.get.is_some() { 0 } else { 1 })
}

/// Returns the greatest version of the sets for which `is_meant` is true.
pub fn newest(world: &World, is_meant: fn(&Set) -> bool) -> Version {
    world
        .sets
        .iter()
        .filter(|set| is_meant(set))
        .map(|set| set.version)
        .max()
        .unwrap_or(0)
}

/// Returns whether nothing is under way, no fault lasts, and nodes have done all that they do
/// by themselves. Steps that a backend, a page or the time may still take do not count.
pub fn is_settled(world: &World) -> bool {
    let is_over = |set: &Set| matches!(set.phase, Phase::Idle | Phase::Answered(_));
    world.writes.is_empty()
        && world.tells.is_empty()
        && world.cut.is_none()
        && world.sets.iter().all(is_over)
        && (0..world.nodes.len()).all(|node| is_node_settled(world, node))
        && world
            .pages
            .iter()
            .filter_map(|page| page.get)
            .all(|get| get.opening == Opening::Done && world.tick < get.since + HOLD)
}

fn is_node_settled(world: &World, id: NodeId) -> bool {
    let node = &world.nodes[id];
    let has_missed = |peer: NodeId| node.missed[peer] && !world.nodes[peer].is_gone;
    node.is_gone
        || (!node.is_stalled
            && node.process == world.redis.process
            && node.offset == world.redis.offset
            && !node.has_to_put_again()
            && !(0..world.nodes.len()).any(has_missed))
}

/// Returns whether all sets and faults are over.
fn is_over(protocol: &Protocol, world: &World) -> bool {
    let is_answered = |set: &Set| matches!(set.phase, Phase::Answered(_));
    is_settled(world)
        && world.strikes == protocol.bounds.faults
        && world
            .sets
            .iter()
            .take(protocol.bounds.sets)
            .all(is_answered)
}
