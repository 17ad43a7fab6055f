//! The whole model: Redis, nodes, pages, sets, the messages between them, and the steps that
//! can happen next.

use stateright::{Model, Property};

use crate::node::{Confirmed, Node, Outcome, Phase, Sent, Set};
use crate::page::{Opening, Page};
use crate::properties::{landmarks, newest, promises};
use crate::redis::{KeyHash, Leases, Redis, Status, Write, WriteAnswer};
use crate::{
    CLOCK_SHIFT, COMMAND_TIMEOUT, FIRST_TICK, HOLD, LEASE, LooksFor, MAX_NODES, MAX_PAGES,
    MAX_SETS, NodeId, PageId, Protocol, SetId, Time, Version,
};

/// A state of the model.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    /// The time by the clock that all nodes share.
    pub tick: Time,
    /// The Redis that is master now.
    pub redis: Redis,
    /// The nodes. Those beyond [`crate::Bounds::nodes`] are gone from the start.
    pub nodes: [Node; MAX_NODES],
    /// The pages.
    pub pages: [Page; MAX_PAGES],
    /// The sets.
    pub sets: [Set; MAX_SETS],
    /// Sets on their way to the present Redis process.
    pub writes: Vec<SentWrite>,
    /// Leases that are being given back to the present Redis process.
    pub give_backs: Vec<GiveBack>,
    /// Updates on their way between nodes.
    pub tells: Vec<Tell>,
    /// The connection that is cut: the first node cannot reach the second.
    pub cut: Option<(NodeId, NodeId)>,
    /// How often each kind of fault has struck. It is cleared when no fault can strike any
    /// more.
    pub spent: [u8; Fault::ALL.len()],
    /// How many faults have struck.
    pub strikes: u8,
    /// Whether a set took effect after its answer.
    pub has_late_effect: bool,
    /// Whether a set took effect twice.
    pub has_double_effect: bool,
}

/// A set on its way to Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SentWrite {
    /// The write to be run.
    pub write: Write,
    /// Whether its node waits for the answer. If not, the set is in an old socket or in Redis's
    /// queue.
    pub is_waited_for: bool,
}

/// A lease on its way back to Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GiveBack {
    /// The node that gives it back.
    pub node: NodeId,
    /// The lease's end, as the node saw it.
    pub end: Time,
    /// The latest time at which it may run, by Redis's clock.
    pub until: Time,
}

/// An update on its way to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tell {
    /// The node that wrote it.
    pub from: NodeId,
    /// A node that holds gets of the key.
    pub to: NodeId,
    /// The version of the update.
    pub version: Version,
}

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// A set is still on its way when its node gives it up. It may run later.
    Delay,
    /// A set is lost before Redis runs it.
    LoseCommand,
    /// Redis runs a command, and its answer is lost.
    LoseAnswer,
    /// Redis comes back empty.
    Restart,
    /// A replica takes over. It has all that was written, or it lacks the last set and all
    /// opens. Its clock equals the master's, or is behind or ahead.
    FailOver,
    /// Redis's clock is set ahead.
    StepClock,
    /// A node stands still.
    Stall,
    /// One node cannot reach another.
    Cut,
    /// A node drains.
    Drain,
    /// A page gives up its get.
    Leave,
}

impl Fault {
    /// All kinds, in the order of [`World::spent`].
    pub const ALL: [Self; 10] = [
        Self::Delay,
        Self::LoseCommand,
        Self::LoseAnswer,
        Self::Restart,
        Self::FailOver,
        Self::StepClock,
        Self::Stall,
        Self::Cut,
        Self::Drain,
        Self::Leave,
    ];
}

/// A step of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Time passes.
    Tick,

    /// A backend asks a node for a set, which the node sends to Redis.
    AskSet(SetId, NodeId),
    /// Redis runs a set. Its node, if it waits for it, gets the answer.
    Run(SentWrite),
    /// A node gives up a set, because no answer came in time or its connection ended.
    GiveUp(SetId),
    /// A node repeats a set to learn its fate.
    Repeat(SetId),
    /// A node answers unknown, because it could not learn the fate of a set within a second.
    AnswerUnknown(SetId),

    /// A page asks a node, which registers its get.
    Poll(PageId, NodeId),
    /// A node opens a get, and Redis runs the open.
    Open(PageId),
    /// The answer to an open arrives.
    HearOpen(PageId),
    /// A get is answered because it has been held long enough.
    Deadline(PageId),
    /// A node reads the end of its lease, to give it back.
    ReadEnd(NodeId),
    /// The node gives back its lease, if it holds no get of the key any more.
    SendGiveBack(NodeId),
    /// Redis runs the return of a lease.
    RunGiveBack(GiveBack),

    /// An update arrives at a peer, which answers its gets.
    Deliver(Tell),
    /// An update cannot be delivered, because its peer stalls or cannot be reached.
    FailToDeliver(Tell),
    /// The first node tells the second which key the second missed.
    TellMissed(NodeId, NodeId),

    /// A node connects to the present Redis process, and opens the gets it holds again.
    Connect(NodeId),
    /// A node sees that Redis's clock has stepped, and opens the gets it holds again.
    SeeClock(NodeId),
    /// A node puts its confirmed set again, because Redis is another process.
    PutAgain(NodeId),

    /// [`Fault::LoseCommand`].
    LoseCommand(SentWrite),
    /// [`Fault::LoseAnswer`] for a set.
    LoseAnswer(SentWrite),
    /// [`Fault::LoseAnswer`] for an open.
    LoseOpenAnswer(PageId),
    /// [`Fault::LoseAnswer`] for a set that is put again.
    LosePutAgainAnswer(NodeId),
    /// [`Fault::Restart`].
    Restart,
    /// [`Fault::FailOver`].
    FailOver {
        /// Whether the replica lacks the last set and all opens.
        is_behind: bool,
        /// By how much the replica's clock differs.
        clock_shift: i8,
    },
    /// [`Fault::StepClock`].
    StepClock,
    /// [`Fault::Stall`].
    Stall(NodeId),
    /// The end of a stall.
    Wake(NodeId),
    /// [`Fault::Cut`].
    Cut(NodeId, NodeId),
    /// The end of a cut.
    Heal,
    /// [`Fault::Drain`]: the first node hands on to the second.
    Drain(NodeId, NodeId),
    /// [`Fault::Leave`].
    Leave(PageId),
}

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.tick < FIRST_TICK + self.bounds.ticks {
            actions.push(Action::Tick);
        }
        self.set_actions(world, actions);
        self.page_actions(world, actions);
        self.node_actions(world, actions);
        self.fault_actions(world, actions);
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        self.take(&mut world, action);
        self.forget(&mut world);
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        match self.looks_for {
            LooksFor::BrokenPromises => promises(),
            LooksFor::Landmarks => landmarks(),
        }
    }
}

/// The steps that are possible.
impl Protocol {
    fn set_actions(&self, world: &World, actions: &mut Vec<Action>) {
        let next = (0..self.bounds.sets).find(|&set| world.sets[set].phase == Phase::Idle);
        if let Some(set) = next {
            // All nodes are alike at the start, so the first set may as well be node 0's.
            let nodes = if set == 0 { 1 } else { self.bounds.nodes };
            let able = (0..nodes).filter(|&node| world.is_connected(node));
            actions.extend(able.map(|node| Action::AskSet(set, node)));
        }
        for (index, &sent) in world.writes.iter().enumerate() {
            let is_seen = index > 0 && world.writes[index - 1] == sent;
            let node = world.sets[sent.write.set].node;
            // A node that stands still reads no answer.
            let is_waiting_for_node = sent.is_waited_for && world.nodes[node].is_stalled;
            if !is_seen && !is_waiting_for_node {
                actions.push(Action::Run(sent));
            }
        }
        for set in 0..self.bounds.sets {
            self.settle_actions(world, set, actions);
        }
    }

    fn settle_actions(&self, world: &World, set: SetId, actions: &mut Vec<Action>) {
        let Set { node, phase, .. } = world.sets[set];
        let (Phase::Waiting(sent) | Phase::Settling(sent)) = phase else {
            return;
        };
        if world.nodes[node].is_stalled {
            return;
        }
        let is_under_way = world.waited_for(set).is_some();
        let is_cut_off = sent.process != world.redis.process && !is_under_way;
        let is_overdue = world.tick >= sent.at + COMMAND_TIMEOUT;
        let is_waiting = matches!(phase, Phase::Waiting(_));
        if is_under_way {
            if is_overdue && self.may_strike(world, Fault::Delay) {
                actions.push(Action::GiveUp(set));
            }
        } else if is_waiting {
            if is_overdue || is_cut_off {
                actions.push(Action::GiveUp(set));
            }
        } else {
            if world.is_connected(node) {
                actions.push(Action::Repeat(set));
            }
            if world.tick > sent.at + COMMAND_TIMEOUT {
                actions.push(Action::AnswerUnknown(set));
            }
        }
    }

    fn page_actions(&self, world: &World, actions: &mut Vec<Action>) {
        for page in 0..self.bounds.pages {
            let Some(get) = world.pages[page].get else {
                if world.pages[page].gets == self.bounds.gets {
                    continue;
                }
                let able = (0..self.bounds.nodes).filter(|&node| world.is_up(node));
                actions.extend(able.map(|node| Action::Poll(page, node)));
                continue;
            };
            if self.may_strike(world, Fault::Leave) {
                actions.push(Action::Leave(page));
            }
            if !world.is_up(get.node) {
                continue;
            }
            if world.tick >= get.since + HOLD {
                actions.push(Action::Deadline(page));
            }
            match get.opening {
                Opening::Wanted if world.is_connected(get.node) => {
                    actions.push(Action::Open(page));
                    if self.may_strike(world, Fault::LoseAnswer) {
                        actions.push(Action::LoseOpenAnswer(page));
                    }
                }
                Opening::Found(_) => actions.push(Action::HearOpen(page)),
                Opening::Wanted | Opening::Done => {}
            }
        }
    }

    fn node_actions(&self, world: &World, actions: &mut Vec<Action>) {
        for id in (0..self.bounds.nodes).filter(|&id| world.is_up(id)) {
            let node = &world.nodes[id];
            if node.process != world.redis.process {
                actions.push(Action::Connect(id));
                continue;
            }
            if node.offset != world.redis.offset {
                actions.push(Action::SeeClock(id));
            }
            if node.has_to_put_again() {
                actions.push(Action::PutAgain(id));
                if self.may_strike(world, Fault::LoseAnswer) {
                    actions.push(Action::LosePutAgainAnswer(id));
                }
            }
            let is_held = world.pages.iter().any(|page| page.is_held_at(id));
            let now = node.store_time(world.tick);
            let is_under_way = |other: &GiveBack| other.node == id && other.until >= now;
            let is_next =
                !self.mends.give_backs_go_one_by_one || !world.give_backs.iter().any(is_under_way);
            // Without the safeguard it sees that nobody waits, and only then reads the end.
            let may_read = self.mends.ends_are_read_before_the_count || !is_held;
            if node.give_back != 0 {
                actions.push(Action::SendGiveBack(id));
            } else if self.bounds.gives_back && may_read && is_next && node.lease_end > now {
                actions.push(Action::ReadEnd(id));
            }
        }
        for from in (0..self.bounds.nodes).filter(|&id| world.is_up(id)) {
            let missed = (0..self.bounds.nodes).filter(|&to| world.nodes[from].missed[to]);
            let able = missed.filter(|&to| world.can_reach(from, to));
            actions.extend(able.map(|to| Action::TellMissed(from, to)));
        }
        actions.extend(
            world
                .give_backs
                .iter()
                .map(|&give_back| Action::RunGiveBack(give_back)),
        );
        actions.extend(world.tells.iter().map(|&tell| {
            let is_reached = world.can_reach(tell.from, tell.to);
            if is_reached {
                Action::Deliver(tell)
            } else {
                Action::FailToDeliver(tell)
            }
        }));
    }

    fn fault_actions(&self, world: &World, actions: &mut Vec<Action>) {
        let may = |fault| self.may_strike(world, fault);
        let nodes = 0..self.bounds.nodes;
        let is_heard = !self.mends.clocks_are_heard_in_time || world.all_know_the_clock();
        // An outage lasts a tick, so the tick after it must be within the run.
        let may_replace = is_heard && world.tick < FIRST_TICK + self.bounds.ticks;
        let waited_for = world.writes.iter().filter(|sent| sent.is_waited_for);
        if may(Fault::LoseCommand) {
            actions.extend(waited_for.clone().map(|&sent| Action::LoseCommand(sent)));
        }
        if may(Fault::LoseAnswer) {
            actions.extend(waited_for.map(|&sent| Action::LoseAnswer(sent)));
        }
        if may(Fault::Restart) && may_replace {
            actions.push(Action::Restart);
        }
        if may(Fault::FailOver) && may_replace {
            for clock_shift in [0, -CLOCK_SHIFT, CLOCK_SHIFT] {
                actions.push(Action::FailOver {
                    is_behind: false,
                    clock_shift,
                });
                if world.redis.hash != world.redis.hash.without_last_set() {
                    actions.push(Action::FailOver {
                        is_behind: true,
                        clock_shift,
                    });
                }
            }
        }
        if may(Fault::StepClock) {
            actions.push(Action::StepClock);
        }
        for node in nodes.clone().filter(|&node| !world.nodes[node].is_gone) {
            if world.nodes[node].is_stalled {
                actions.push(Action::Wake(node));
            } else if may(Fault::Stall) {
                actions.push(Action::Stall(node));
            }
            for peer in nodes
                .clone()
                .filter(|&peer| peer != node && world.is_up(peer))
            {
                if world.cut.is_none() && may(Fault::Cut) {
                    actions.push(Action::Cut(node, peer));
                }
                if may(Fault::Drain) && world.can_drain(node, peer) {
                    actions.push(Action::Drain(node, peer));
                }
            }
        }
        if world.cut.is_some() {
            actions.push(Action::Heal);
        }
    }

    /// Returns whether a fault can still strike.
    fn may_strike(&self, world: &World, fault: Fault) -> bool {
        self.bounds.kinds.contains(&fault)
            && world.spent[fault as usize] < self.bounds.faults_of_a_kind
            && world.strikes < self.bounds.faults
    }

    /// Forgets everything that no step looks at any more, so that fewer states differ.
    fn forget(&self, world: &mut World) {
        let now = world.redis.now(world.tick);
        world.redis.remove_ended(now);
        // Forget writes that would do nothing in Redis and that no node waits for.
        let (hash, keeps_numbers) = (world.redis.hash, self.mends.redis_keeps_numbers);
        world.writes.retain(
            |&SentWrite {
                 write,
                 is_waited_for,
             }| {
                let is_known = keeps_numbers && hash.numbers[write.set] > 0;
                is_waited_for || (now <= write.until && !is_known)
            },
        );
        world.give_backs.retain(|give_back| now <= give_back.until);
        // Forget ends that were read for leases that have waiters again: such a lease is not given
        // back. If the waiters leave soon enough, the end may be read again.
        if self.mends.ends_are_read_before_the_count {
            for id in 0..MAX_NODES {
                if world.pages.iter().any(|page| page.is_held_at(id)) {
                    world.nodes[id].give_back = 0;
                }
            }
        }
        if world.strikes == self.bounds.faults {
            world.spent = Default::default();
        }
    }
}

/// The effects of the steps.
impl Protocol {
    fn take(&self, world: &mut World, action: Action) {
        match action {
            Action::Tick => world.tick += 1,
            Action::AskSet(set, node) => self.ask_set(world, set, node),
            Action::Run(sent) => self.run(world, sent),
            Action::GiveUp(set) => self.give_up(world, set),
            Action::Repeat(set) => self.repeat(world, set),
            Action::AnswerUnknown(set) => world.answer(set, Outcome::Unknown),

            Action::Poll(page, node) => world.pages[page].ask(node, world.tick),
            Action::Open(page) => self.open(world, page),
            Action::HearOpen(page) => world.hear_open(page),
            Action::Deadline(page) => world.pages[page].answer_without_status(),
            Action::ReadEnd(node) => world.nodes[node].give_back = world.nodes[node].lease_end,
            Action::SendGiveBack(node) => self.send_give_back(world, node),
            Action::RunGiveBack(give_back) => {
                remove(&mut world.give_backs, &give_back);
                let now = world.redis.now(world.tick);
                if now <= give_back.until {
                    world.redis.give_back(give_back.node, give_back.end, now);
                }
            }

            Action::Deliver(tell) => {
                remove(&mut world.tells, &tell);
                world.answer_gets(tell.to, tell.version);
            }
            Action::FailToDeliver(tell) => self.fail_to_deliver(world, tell),
            Action::TellMissed(from, to) => {
                world.nodes[from].missed[to] = false;
                world.open_again(to);
            }

            Action::Connect(node) => self.connect(world, node),
            Action::SeeClock(node) => world.see_clock(node),
            Action::PutAgain(node) => self.put_again(world, node),

            Action::LoseCommand(sent) => {
                world.strike(Fault::LoseCommand);
                remove(&mut world.writes, &sent);
            }
            Action::LoseAnswer(sent) => {
                world.strike(Fault::LoseAnswer);
                remove(&mut world.writes, &sent);
                self.run_write(world, sent.write);
            }
            Action::LoseOpenAnswer(page) => {
                world.strike(Fault::LoseAnswer);
                self.run_open(world, page);
            }
            Action::LosePutAgainAnswer(node) => {
                world.strike(Fault::LoseAnswer);
                if let Some(confirmed) = world.nodes[node].confirmed {
                    let now = world.redis.now(world.tick);
                    world.redis.put_again(confirmed.status, now);
                }
            }
            Action::Restart => world.replace_redis(Fault::Restart, KeyHash::default(), 0),
            Action::FailOver {
                is_behind,
                clock_shift,
            } => {
                let hash = world.redis.hash;
                let hash = if is_behind {
                    hash.without_last_set()
                } else {
                    hash
                };
                world.replace_redis(Fault::FailOver, hash, clock_shift);
            }
            Action::StepClock => {
                world.strike(Fault::StepClock);
                world.redis.offset += CLOCK_SHIFT;
            }
            Action::Stall(node) => {
                world.strike(Fault::Stall);
                world.nodes[node].is_stalled = true;
            }
            Action::Wake(node) => world.nodes[node].is_stalled = false,
            Action::Cut(from, to) => {
                world.strike(Fault::Cut);
                world.cut = Some((from, to));
            }
            Action::Heal => world.cut = None,
            Action::Drain(node, peer) => self.drain(world, node, peer),
            Action::Leave(page) => {
                world.strike(Fault::Leave);
                world.pages[page].get = None;
            }
        }
    }

    fn ask_set(&self, world: &mut World, set: SetId, node: NodeId) {
        // A `last` that a page came with was given by nobody, so it does not count.
        let lasts = world.pages.iter().map(|page| page.last);
        let given = lasts
            .filter(|&last| last > self.bounds.first_last)
            .max()
            .unwrap_or(0);
        let over = newest(world, |set| matches!(set.phase, Phase::Answered(_)));
        world.sets[set] = Set {
            node,
            above: given.max(over),
            ..Set::default()
        };
        let until = world.nodes[node].store_time(world.tick) + COMMAND_TIMEOUT;
        self.send(world, set, until, false);
    }

    fn send(&self, world: &mut World, set: SetId, until: Time, is_second: bool) {
        let until = if self.mends.sets_have_a_latest_time {
            until
        } else {
            Time::MAX
        };
        let (at, process) = (world.tick, world.redis.process);
        world.sets[set].phase = Phase::Waiting(Sent {
            at,
            process,
            until,
            is_second,
        });
        world.send_write(set, until);
    }

    /// Runs a set in Redis, and records its effect.
    fn run_write(&self, world: &mut World, write: Write) -> WriteAnswer {
        let now = world.redis.now(world.tick);
        let before = world.redis.hash.status;
        let answer = world
            .redis
            .write(write, now, self.mends.redis_keeps_numbers);
        let after = world.redis.hash.status;
        if let Some(status) = after.filter(|_| after != before) {
            let set = &mut world.sets[write.set];
            world.has_late_effect |= matches!(set.phase, Phase::Answered(_));
            world.has_double_effect |= set.version > 0;
            set.version = status.version;
        }
        answer
    }

    fn run(&self, world: &mut World, sent: SentWrite) {
        remove(&mut world.writes, &sent);
        let answer = self.run_write(world, sent.write);
        if !sent.is_waited_for {
            return;
        }
        let id = sent.write.set;
        let Set { node, phase, .. } = world.sets[id];
        world.see_clock(node);
        match (answer, phase) {
            (WriteAnswer::Stored(version, leases), _) => {
                world.confirm(Status { version, set: id }, leases);
                world.answer(id, Outcome::Stored);
            }
            (WriteAnswer::Late, Phase::Waiting(first)) if !first.is_second => {
                let until = world.nodes[node].store_time(world.tick) + COMMAND_TIMEOUT;
                self.send(world, id, until, true);
            }
            (WriteAnswer::Late, Phase::Waiting(first) | Phase::Settling(first)) => {
                // Another process may have run the set and lost it.
                let is_same = first.process == world.redis.process;
                world.answer(
                    id,
                    if is_same {
                        Outcome::NotStored
                    } else {
                        Outcome::Unknown
                    },
                );
            }
            (WriteAnswer::Late, Phase::Idle | Phase::Answered(_)) => {}
        }
    }

    fn give_up(&self, world: &mut World, set: SetId) {
        if let Some(sent) = world.waited_for(set) {
            world.strike(Fault::Delay);
            remove(&mut world.writes, &sent);
            insert(
                &mut world.writes,
                SentWrite {
                    is_waited_for: false,
                    ..sent
                },
            );
        }
        if !self.mends.sets_have_a_latest_time {
            world.answer(set, Outcome::Unknown);
        } else if let Phase::Waiting(sent) = world.sets[set].phase {
            world.sets[set].phase = Phase::Settling(sent);
        }
    }

    fn repeat(&self, world: &mut World, set: SetId) {
        let Phase::Settling(first) = world.sets[set].phase else {
            return;
        };
        let is_same = first.process == world.redis.process;
        let may_run = is_same || !self.mends.latest_time_is_of_its_server;
        world.send_write(set, if may_run { first.until } else { 0 });
    }

    fn run_open(&self, world: &mut World, page: PageId) -> Option<(Time, Version)> {
        let Page { last, get, .. } = world.pages[page];
        let now = world.redis.now(world.tick);
        let moves_end = self.mends.opens_move_the_end;
        get.map(|get| world.redis.open(get.node, last, now, LEASE, moves_end))
    }

    fn open(&self, world: &mut World, page: PageId) {
        let last = world.pages[page].last;
        let Some((end, found)) = self.run_open(world, page) else {
            return;
        };
        if let Some(get) = &mut world.pages[page].get {
            // An answer without news changes nothing, whenever it arrives.
            get.opening = if found > last {
                Opening::Found(found)
            } else {
                Opening::Done
            };
            let lease_end = &mut world.nodes[get.node].lease_end;
            *lease_end = end.max(*lease_end);
        }
    }

    fn fail_to_deliver(&self, world: &mut World, tell: Tell) {
        remove(&mut world.tells, &tell);
        let is_refused = world.cut == Some((tell.from, tell.to));
        if is_refused && !self.mends.leases_are_their_nodes_own {
            world.redis.hash.leases[tell.to] = 0;
        } else if self.mends.missed_keys_are_kept {
            world.nodes[tell.from].missed[tell.to] = true;
        }
    }

    fn send_give_back(&self, world: &mut World, id: NodeId) {
        let is_held = world.pages.iter().any(|page| page.is_held_at(id));
        let node = &mut world.nodes[id];
        let mut end = std::mem::take(&mut node.give_back);
        if !self.mends.ends_are_read_before_the_count {
            end = node.lease_end;
        } else if is_held {
            return;
        }
        if end == node.lease_end {
            node.lease_end = 0;
        }
        let until = node.store_time(world.tick) + COMMAND_TIMEOUT;
        let give_back = GiveBack {
            node: id,
            end,
            until,
        };
        insert(&mut world.give_backs, give_back);
    }

    fn connect(&self, world: &mut World, id: NodeId) {
        let node = &mut world.nodes[id];
        node.process = world.redis.process;
        if self.mends.ends_are_of_their_server {
            (node.lease_end, node.give_back) = (0, 0);
        }
        world.see_clock(id);
        world.open_again(id);
    }

    fn put_again(&self, world: &mut World, id: NodeId) {
        let process = world.redis.process;
        let Some(confirmed) = &mut world.nodes[id].confirmed else {
            return;
        };
        confirmed.process = process;
        let status = confirmed.status;
        let now = world.redis.now(world.tick);
        if let Some(leases) = world.redis.put_again(status, now) {
            world.tell(id, status.version, leases);
        }
        world.see_clock(id);
    }

    fn drain(&self, world: &mut World, id: NodeId, peer: NodeId) {
        world.strike(Fault::Drain);
        let gone = std::mem::replace(
            &mut world.nodes[id],
            Node {
                is_gone: true,
                ..Node::default()
            },
        );
        for page in world.pages.iter_mut().filter(|page| page.is_held_at(id)) {
            page.answer_without_status();
        }
        world.tells.retain(|tell| tell.to != id);
        for node in &mut world.nodes {
            node.missed[id] = false;
        }
        if !self.mends.drains_hand_on {
            return;
        }
        if let Some(confirmed) = gone.confirmed {
            world.nodes[peer].keep(confirmed);
        }
        for to in (0..MAX_NODES).filter(|&to| gone.missed[to]) {
            if to == peer {
                world.open_again(peer);
            } else {
                world.nodes[peer].missed[to] = !world.nodes[to].is_gone;
            }
        }
    }
}

impl World {
    fn new(protocol: &Protocol) -> Self {
        let mut nodes = [Node::default(); MAX_NODES];
        for node in &mut nodes[protocol.bounds.nodes..] {
            node.is_gone = true;
        }
        Self {
            tick: FIRST_TICK,
            redis: Redis::default(),
            nodes,
            pages: [Page {
                last: protocol.bounds.first_last,
                ..Page::default()
            }; MAX_PAGES],
            sets: [Set::default(); MAX_SETS],
            writes: Vec::new(),
            give_backs: Vec::new(),
            tells: Vec::new(),
            cut: None,
            spent: [0; Fault::ALL.len()],
            strikes: 0,
            has_late_effect: false,
            has_double_effect: false,
        }
    }

    /// Returns whether a node runs: it is not gone and does not stall.
    fn is_up(&self, node: NodeId) -> bool {
        !self.nodes[node].is_gone && !self.nodes[node].is_stalled
    }

    /// Returns whether a node can send commands.
    fn is_connected(&self, node: NodeId) -> bool {
        self.is_up(node) && self.nodes[node].process == self.redis.process
    }

    /// Returns whether all nodes have seen a clock as far ahead as Redis's.
    fn all_know_the_clock(&self) -> bool {
        self.nodes
            .iter()
            .all(|node| node.is_gone || node.max_offset >= self.redis.offset)
    }

    fn can_reach(&self, from: NodeId, to: NodeId) -> bool {
        self.is_up(to) && self.cut != Some((from, to))
    }

    /// Returns whether a node has nothing under way and can reach the peer to hand on to.
    fn can_drain(&self, node: NodeId, peer: NodeId) -> bool {
        let is_under_way = |set: &Set| {
            set.node == node && matches!(set.phase, Phase::Waiting(_) | Phase::Settling(_))
        };
        self.is_up(node)
            && self.can_reach(node, peer)
            && !self.sets.iter().any(is_under_way)
            && !self.tells.iter().any(|tell| tell.from == node)
    }

    /// Returns the copy of a set that its node waits for.
    fn waited_for(&self, set: SetId) -> Option<SentWrite> {
        self.writes
            .iter()
            .copied()
            .find(|sent| sent.is_waited_for && sent.write.set == set)
    }

    fn strike(&mut self, fault: Fault) {
        self.spent[fault as usize] += 1;
        self.strikes += 1;
    }

    fn send_write(&mut self, set: SetId, until: Time) {
        let memory = self.nodes[self.sets[set].node].memory(self.tick);
        let write = Write { set, until, memory };
        insert(
            &mut self.writes,
            SentWrite {
                write,
                is_waited_for: true,
            },
        );
    }

    fn answer(&mut self, set: SetId, outcome: Outcome) {
        self.sets[set].phase = Phase::Answered(outcome);
        self.sets[set].node = 0;
    }

    /// Keeps a stored set, delivers it to the node's own gets, and sends it to the node's
    /// peers.
    fn confirm(&mut self, status: Status, leases: Leases) {
        let node = self.sets[status.set].node;
        self.nodes[node].keep(Confirmed {
            status,
            process: self.redis.process,
        });
        self.tell(node, status.version, leases);
    }

    fn tell(&mut self, from: NodeId, version: Version, leases: Leases) {
        self.answer_gets(from, version);
        for (to, lease_end) in leases.into_iter().enumerate() {
            if lease_end > 0 && to != from && !self.nodes[to].is_gone {
                insert(&mut self.tells, Tell { from, to, version });
            }
        }
    }

    fn answer_gets(&mut self, node: NodeId, version: Version) {
        for page in self.pages.iter_mut().filter(|page| page.is_held_at(node)) {
            page.answer_if_newer(version);
        }
    }

    fn open_again(&mut self, node: NodeId) {
        for page in self.pages.iter_mut().filter(|page| page.is_held_at(node)) {
            page.open_again();
        }
    }

    fn hear_open(&mut self, page: PageId) {
        let Some(get) = &mut self.pages[page].get else {
            return;
        };
        let (Opening::Found(found), node) = (get.opening, get.node) else {
            return;
        };
        get.opening = Opening::Done;
        self.pages[page].answer_if_newer(found);
        if self.is_connected(node) {
            self.see_clock(node);
        }
    }

    /// Takes the time from an answer. If the clock has stepped, leases may have lapsed, so the
    /// node opens its gets again.
    fn see_clock(&mut self, id: NodeId) {
        let node = &mut self.nodes[id];
        if node.offset != self.redis.offset {
            node.offset = self.redis.offset;
            node.max_offset = node.max_offset.max(node.offset);
            self.open_again(id);
        }
    }

    fn replace_redis(&mut self, fault: Fault, hash: KeyHash, clock_shift: i8) {
        self.strike(fault);
        // An outage lasts a tick.
        self.tick += 1;
        self.redis.replace(hash, clock_shift);
        // Messages to the old process are lost with its connections.
        self.writes.clear();
        self.give_backs.clear();
    }
}

/// Inserts into a list whose order does not matter, sorted so that equal states are equal.
fn insert<T: Ord>(list: &mut Vec<T>, item: T) {
    let index = list.partition_point(|other| *other < item);
    list.insert(index, item);
}

/// Removes one equal item.
fn remove<T: Ord>(list: &mut Vec<T>, item: &T) {
    if let Ok(index) = list.binary_search(item) {
        list.remove(index);
    }
}
