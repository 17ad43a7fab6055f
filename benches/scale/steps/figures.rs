//! The computation of the steps' figures.

use super::{HOLD, MEMORY, Mark, NEXT, Run};
use crate::limits::Measured;
use crate::memory::{Memory, available_bytes, late_connects, most_files, ports};
use crate::protocol::Tally;
use crate::{Outcome, machine};

impl Run<'_> {
    /// Reports the cost of `count` gets or sets since `mark`: how many a second there were, and
    /// the CPU time that each took of the nodes and of Redis. Returns these two CPU times in
    /// seconds.
    pub(super) fn put_costs(
        &mut self,
        step: &'static str,
        mark: &Mark,
        count: usize,
        [a_second, of_nodes, of_redis]: [&'static str; 3],
    ) -> Outcome<[f64; 2]> {
        let now = self.mark()?;
        let seconds = (now.time - mark.time).as_secs_f64();
        let each = |ns: u64| ns as f64 / 1e9 / count as f64;
        let costs = [each(now.nodes - mark.nodes), each(now.redis - mark.redis)];
        self.report.put(step, "in all", seconds, "s");
        self.report.put(step, a_second, count as f64 / seconds, "");
        self.report.put(step, of_nodes, costs[0] * 1e6, "us");
        self.report.put(step, of_redis, costs[1] * 1e6, "us");
        self.report.put(
            step,
            "CPU of this bench for each",
            each(now.pages - mark.pages) * 1e6,
            "us",
        );
        Ok(costs)
    }

    /// Reports the results of gets and sets since `before`.
    pub(super) fn put_tally(&mut self, step: &'static str, before: &Tally) -> Outcome<()> {
        self.crowd.refresh()?;
        let now = self.crowd.tally();
        let all_late = late_connects()?;
        let late_connects = all_late - std::mem::replace(&mut self.late_connects, all_late);
        let all_gone = self.cluster.redis_gone();
        let redis_gone = all_gone - std::mem::replace(&mut self.redis_gone, all_gone);
        let usual = [
            (
                "sets whose receipt names a node that is gone",
                now.named_gone - before.named_gone,
            ),
            (
                "sets whose receipt names a node that is there",
                now.named_alive - before.named_alive,
            ),
            (
                "connections that the kernel tried again after 1 s",
                late_connects,
            ),
            ("times that a node found Redis too slow", redis_gone),
            (
                "gets told to come again: node goes away",
                now.told_retry - before.told_retry,
            ),
            (
                "gets told to come again: busy",
                now.told_busy - before.told_busy,
            ),
            (
                "gets told to come again: unavailable",
                now.told_unavailable - before.told_unavailable,
            ),
            ("gets whose hold was over", now.timeouts - before.timeouts),
            ("connections refused or closed", now.broken - before.broken),
            ("sets sent again", now.sent_again - before.sent_again),
            (
                "sets not sent, since others did not end",
                now.unsent - before.unsent,
            ),
        ];
        for (what, count) in usual.into_iter().filter(|(_, count)| *count > 0) {
            self.report.put(step, what, count as f64, "");
        }
        if step != HOLD {
            self.report.put(
                step,
                "answered",
                (now.answered - before.answered) as f64,
                "",
            );
            self.report.put(
                step,
                "latest receipt so far, also after the set was sent again",
                now.latest_receipt.as_secs_f64(),
                "s",
            );
            self.report.put(
                step,
                "latest answer of a page so far, the same",
                now.latest_answer.as_secs_f64(),
                "s",
            );
        }
        self.report
            .put(step, "lost", (now.lost - before.lost) as f64, "");
        self.report.put(
            step,
            "late, by more than 10 s",
            (now.late - before.late) as f64,
            "",
        );
        self.report
            .put(step, "wrong", (now.wrong - before.wrong) as f64, "");
        self.report
            .put(step, "twice", (now.twice - before.twice) as f64, "");
        Ok(())
    }

    pub(super) fn put_memory(&mut self, before: &Memory, held: &Memory, sockets: u64) {
        let waiters = self.plan.waiters as f64;
        let each = |of: fn(&Memory) -> u64| (of(held) as f64 - of(before) as f64) / waiters;
        let figures = [
            ("nodes, PSS, per waiter", each(|memory| memory.nodes)),
            ("Redis, PSS, per waiter", each(|memory| memory.redis)),
            (
                "Redis, used_memory, per waiter",
                each(|memory| memory.redis_used),
            ),
            (
                "kernel, slab, per waiter, both ends",
                each(|memory| memory.kernel.slab_bytes),
            ),
            (
                "kernel, TCP buffers, per waiter, both ends",
                each(|memory| memory.kernel.tcp_bytes),
            ),
            ("nodes, Redis and kernel per waiter", each(Memory::server)),
            ("this bench, PSS, per waiter", held.pages as f64 / waiters),
            (
                "less available, per waiter",
                -each(|memory| memory.available),
            ),
        ];
        for (what, bytes) in figures {
            self.report.put(MEMORY, what, bytes, "B");
        }
        let megabytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        self.report.put(
            MEMORY,
            "nodes, Redis and kernel",
            megabytes(held.server()),
            "MiB",
        );
        self.report.put(
            MEMORY,
            "the same at its peak, in the whole run",
            megabytes(self.peak),
            "MiB",
        );
        self.report
            .put(MEMORY, "TCP sockets of the machine", sockets as f64, "");
    }

    /// Returns the measurements from which the next limit is computed.
    pub(super) fn measured(
        &mut self,
        before: &Memory,
        held: &Memory,
        costs: [f64; 2],
    ) -> Outcome<Measured> {
        let waiters = self.plan.waiters as f64;
        let available = available_bytes()? as f64;
        self.report
            .put(NEXT, "memory left", available / f64::from(1 << 20), "MiB");
        Ok(Measured {
            waiters,
            capacity: self.cluster.capacity() as f64,
            available_bytes: available,
            bytes_per_waiter: (held.all() as f64 - before.all() as f64) / waiters,
            most_files: most_files()?,
            ports: ports()?,
            nodes: self.cluster.alive().len() as f64,
            cores: machine::cores() as f64,
            cpu_per_get: costs.iter().sum(),
            redis_cpu_per_get: costs[1],
        })
    }
}
