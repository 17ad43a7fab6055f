//! How the connections of a listener are told to end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};

use crate::sharded::{lock, shrink};

/// How far a listener is on its way to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    Open,
    /// Each answer ends its connection, and who waits is answered.
    Stopping,
    /// Connections that wait for a request end too.
    Closed,
}

/// What a listener tells its connections. A list of their tasks: a future of the runtime's for each of them would take
/// three times the memory, and a lock each time that one is woken for something else.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    state: AtomicU8,
    next_id: AtomicU64,
    tasks: Mutex<HashMap<u64, Waker>>,
}

impl Stop {
    pub(crate) fn state(&self) -> State {
        match self.state.load(Ordering::SeqCst) {
            0 => State::Open,
            1 => State::Stopping,
            _ => State::Closed,
        }
    }

    /// Goes on to `state`; never back.
    pub(crate) fn advance(&self, state: State) {
        if self.state.fetch_max(state as u8, Ordering::SeqCst) >= state as u8 {
            return;
        }
        let tasks: Vec<_> = lock(&self.tasks).values().cloned().collect();
        tasks.into_iter().for_each(Waker::wake);
    }
}

/// What one connection hears it by, for all of its life.
#[derive(Debug)]
pub(crate) struct Watch {
    stop: Arc<Stop>,
    /// Its place in the list, once it was polled.
    id: Option<u64>,
}

impl Watch {
    pub(crate) fn new(stop: Arc<Stop>) -> Self {
        Self { stop, id: None }
    }

    pub(crate) fn stop(&self) -> &Arc<Stop> {
        &self.stop
    }

    /// The state, and the task is woken when it changes. Always polled by the same task.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> State {
        if self.id.is_none() {
            let id = self.stop.next_id.fetch_add(1, Ordering::Relaxed);
            lock(&self.stop.tasks).insert(id, cx.waker().clone());
            self.id = Some(id);
        }
        // Behind the list: a change that is not seen here finds the task there.
        self.stop.state()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let mut tasks = lock(&self.stop.tasks);
            tasks.remove(&id);
            shrink(&mut tasks);
        }
    }
}
