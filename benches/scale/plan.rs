//! How many nodes and how many processes of pages the waiters need. Pure.

use crate::Outcome;
use crate::args::Args;

/// The part of a process's descriptors that held gets may take. It is less than what a node allows itself, so that none
/// is refused because its waiters are not spread quite evenly.
const FULL: f64 = 0.85;

/// Nodes that are gone at the end: one is drained, one killed. None is started in their place.
pub(crate) const GONE: usize = 2;

/// See [`Plan::new`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) waiters: usize,
    pub(crate) nodes: usize,
    /// Processes that hold the pages' ends of the connections.
    pub(crate) workers: usize,
}

impl Plan {
    /// `open_files` is the limit of each process.
    ///
    /// # Errors
    /// If so many nodes as are asked for are too few.
    pub(crate) fn new(args: &Args, open_files: u64) -> Outcome<Self> {
        let waiters = args.waiters();
        let most = (open_files as f64 * FULL) as usize;
        let least = waiters.div_ceil(most.max(1)) + GONE;
        let nodes = args.nodes().unwrap_or(least.max(3));
        if nodes < least {
            let held = (nodes - GONE) * most;
            return Err(format!(
                "{nodes} nodes with {open_files} open files each hold {held} waiters when {GONE} are gone: too few for \
                 {waiters}; {least} would do"
            )
            .into());
        }
        // Never one alone, so that a short run does what a long one does.
        let workers = waiters.div_ceil(most).max(2);
        Ok(Self { waiters, nodes, workers })
    }

    /// The pages of a worker.
    pub(crate) fn pages(&self, worker: usize) -> std::ops::Range<usize> {
        worker * self.waiters / self.workers..(worker + 1) * self.waiters / self.workers
    }
}
