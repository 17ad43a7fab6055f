//! A model of the protocol by which nodes and Redis keep holdfast's promises. `checks.rs` has
//! the [stateright](https://docs.rs/stateright) checker try all orders of its steps.
//!
//! The model is written from the protocol and not from the code, so it also documents what the
//! code must do. Start at [`world::Action`], which lists every step that can happen. Then read
//! [`properties`], which lists what must hold.
//!
//! # What is bounded
//! - There is one key, with at most three versions.
//! - [`Bounds::small`] has two nodes, two sets and one page, and is searched exhaustively. A
//!   page makes one to three gets. Each kind of [`world::Fault`] strikes at most once. One
//!   search has any two faults of all kinds. Others have up to three faults of kinds that
//!   affect each other.
//! - [`Bounds::large`] has three nodes, three sets and two pages. Each kind of fault strikes at
//!   most twice, and six faults strike in all. It is simulated by random runs, the same ones
//!   each time.
//! - `make test-protocol-long` gives each page two gets instead of one, and makes fifty times
//!   as many random runs.
//! - Time is a handful of ticks: enough to send, give up and settle a set, and for a lease to
//!   lapse.
//!
//! # What is abstracted
//! - A tick is as long as `--redis-timeout`. It is also as long as [`VERSIONS_PER_TICK`]
//!   milliseconds, which are more than a run has sets. So a version made as `stored + 1` passes
//!   the clock within a tick, but never goes beyond the tick. An outage of Redis lasts at least
//!   a tick.
//! - The monotonic clocks of all nodes run at one speed. Redis's clock differs from them by an
//!   offset, which a failover or a step changes. No clock drifts slowly.
//! - A command either reaches Redis or is lost with its connection. An open, and a set that is
//!   put again, run at once, or run and their answer is lost. A set, and a lease that is given
//!   back, can be under way for any time. A set that its node gave up can still run.
//! - A deletion is a set. Statuses do not expire, values have no size, and nothing is full.
//! - A node never crashes: it loses what it keeps only by a drain that hands nothing on.
//!   `--resend` does not end.
//! - An update to a peer is delivered, however late, or fails because the peer stalls or cannot
//!   be reached. A backend is answered before its update is delivered to peers.
//! - All nodes hear of a clock that is ahead before Redis fails over
//!   ([`Mends::clocks_are_heard_in_time`]).
//! - No page comes with a `last` that nobody gave ([`Bounds::first_last`]).
//! - A key that a peer missed is kept until the peer is told, not only until its lease ends.
//! - Not modelled: `after`, `before`, `id`, arrays, permits, the limit on missed keys, a node
//!   that finds its own tick late and opens all keys, and more writes than the eight numbers
//!   that Redis keeps.

pub mod node;
pub mod page;
pub mod properties;
pub mod redis;
pub mod world;

use crate::world::Fault;

/// A node, by its index.
pub type NodeId = usize;
/// A set, by its index. The index is also its number.
pub type SetId = usize;
/// A page, by its index.
pub type PageId = usize;
/// A point in time, in ticks.
pub type Time = u8;
/// A version of the key. 0 means no version.
pub type Version = u8;

/// The greatest number of nodes in any bounds.
pub const MAX_NODES: usize = 3;
/// The greatest number of sets in any bounds.
pub const MAX_SETS: usize = 3;
/// The greatest number of pages in any bounds.
pub const MAX_PAGES: usize = 2;
/// The number of versions in a tick: more than a run has sets.
pub const VERSIONS_PER_TICK: u8 = 4;
/// `--redis-timeout`, in ticks.
pub const COMMAND_TIMEOUT: Time = 1;
/// How long a get is held, in ticks.
pub const HOLD: Time = 1;
/// The length of a lease, in ticks: a hold and a margin.
pub const LEASE: Time = HOLD + 1;
/// The tick at which a run begins: late enough that no clock that is behind is below 0.
pub const FIRST_TICK: Time = 3;
/// By how much a clock is behind or ahead after a failover or a step, in ticks.
pub const CLOCK_SHIFT: i8 = 2;

/// The protocol within bounds, with its safeguards.
#[derive(Clone, Debug)]
pub struct Protocol {
    /// How much of the protocol is searched.
    pub bounds: Bounds,
    /// The safeguards that are on.
    pub mends: Mends,
    /// The purpose of the search.
    pub looks_for: LooksFor,
}

/// The purpose of a search.
#[derive(Clone, Copy, Debug)]
pub enum LooksFor {
    /// States that break a promise.
    BrokenPromises,
    /// States that a search must reach. They are searched apart, because the checker writes
    /// down each state that it finds.
    Landmarks,
}

/// How much of the protocol is searched.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Nodes at the start.
    pub nodes: usize,
    /// Sets that a backend may ask for.
    pub sets: usize,
    /// The number of pages.
    pub pages: usize,
    /// The number of ticks of a run.
    pub ticks: Time,
    /// The `last` of each page's first get.
    pub first_last: Version,
    /// The number of gets that a page makes.
    pub gets: u8,
    /// Whether nodes give leases back, which can happen at almost any time.
    pub gives_back: bool,
    /// The kinds of faults that strike.
    pub kinds: &'static [Fault],
    /// How often each kind may strike.
    pub faults_of_a_kind: u8,
    /// How many faults may strike in all.
    pub faults: u8,
}

impl Bounds {
    /// Returns bounds that can be searched exhaustively.
    pub fn small(kinds: &'static [Fault], faults: u8) -> Self {
        Self {
            nodes: 2,
            sets: 2,
            pages: 1,
            ticks: 2,
            first_last: 0,
            gets: 2,
            gives_back: false,
            kinds,
            faults_of_a_kind: 1,
            faults,
        }
    }

    /// Returns bounds for simulation.
    pub fn large() -> Self {
        Self {
            nodes: 3,
            sets: 3,
            pages: 2,
            ticks: 6,
            first_last: 0,
            gets: 8,
            gives_back: true,
            kinds: &Fault::ALL,
            faults_of_a_kind: 2,
            faults: 6,
        }
    }
}

/// The safeguards of the protocol. Each can be switched off to show what it prevents.
#[derive(Clone, Debug)]
pub struct Mends {
    /// A set carries the latest time at which it may run. Its node tries to settle the set
    /// before it answers.
    pub sets_have_a_latest_time: bool,
    /// A set is repeated to another Redis process only to learn its fate, because its latest
    /// time was made from another clock.
    pub latest_time_is_of_its_server: bool,
    /// Redis keeps the numbers of the last writes, and carries out none of them twice.
    pub redis_keeps_numbers: bool,
    /// Only its own node removes a lease.
    pub leases_are_their_nodes_own: bool,
    /// A node keeps the key of an update that it could not send to a peer, and tells the peer
    /// later.
    pub missed_keys_are_kept: bool,
    /// A node that drains hands on the set that it confirmed and the keys that its peers
    /// missed.
    pub drains_hand_on: bool,
    /// Each open moves the end of its lease forward.
    pub opens_move_the_end: bool,
    /// A node gives back the lease of a key only if an earlier attempt can have no effect any
    /// more: it was answered, or its latest time is over.
    pub give_backs_go_one_by_one: bool,
    /// A node that gives a lease back reads the lease's end before it sees that nobody waits.
    pub ends_are_read_before_the_count: bool,
    /// All nodes have heard of a clock that is ahead before Redis fails over or restarts,
    /// because they ask Redis for its clock each second. This is an assumption; nothing
    /// enforces it.
    pub clocks_are_heard_in_time: bool,
    /// A node that connects to another Redis process forgets the end of its lease at the old one.
    pub ends_are_of_their_server: bool,
}

impl Mends {
    /// Returns the protocol as it is, with all safeguards.
    pub fn all() -> Self {
        Self {
            sets_have_a_latest_time: true,
            latest_time_is_of_its_server: true,
            redis_keeps_numbers: true,
            leases_are_their_nodes_own: true,
            missed_keys_are_kept: true,
            drains_hand_on: true,
            opens_move_the_end: true,
            give_backs_go_one_by_one: true,
            ends_are_read_before_the_count: true,
            clocks_are_heard_in_time: true,
            ends_are_of_their_server: true,
        }
    }
}
