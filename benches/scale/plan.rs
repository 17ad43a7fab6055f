//! How many nodes and how many processes of pages the waiters need. Only computed here.

use crate::Outcome;
use crate::args::Args;

/// The share of a process's descriptors that held gets may take. It is less than a node allows
/// itself, so that no get is refused because waiters are spread unevenly.
const FULL: f64 = 0.85;

/// The nodes that are gone at the end: one is drained, one is killed. None is started in their
/// place.
pub(crate) const GONE: usize = 2;

/// The sizes of a run; see [`Plan::new`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) waiters: usize,
    pub(crate) nodes: usize,
    /// The number of processes that hold the pages' ends of the connections.
    pub(crate) workers: usize,
}

impl Plan {
    /// Plans a run. `open_files` is the limit of each process.
    ///
    /// # Errors
    /// If the number of nodes that is asked for is too low.
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
        // There are at least two, so that a short run does the same as a long one.
        let workers = waiters.div_ceil(most).max(2);
        Ok(Self {
            waiters,
            nodes,
            workers,
        })
    }

    /// Returns the pages of a worker.
    pub(crate) fn pages(&self, worker: usize) -> std::ops::Range<usize> {
        worker * self.waiters / self.workers..(worker + 1) * self.waiters / self.workers
    }
}
