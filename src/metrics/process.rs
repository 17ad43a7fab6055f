//! Metrics of the process that the system gives, under the names that Prometheus's own
//! libraries use, and one that the runtime gives. If a value cannot be read, the metric keeps
//! its last value.
//!
//! The collector of the `prometheus` crate is not used: it counts CPU time in whole seconds, so
//! that a rate over a short time is 0 or 1, and lists all open files at each reading.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{Counter, Gauge, IntGauge};
use rlimit::Resource;
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::Handle;

use super::families::Families;
use super::saturated;

/// The metrics of the process, read when somebody asks for the metrics.
#[derive(Debug)]
pub(super) struct Process {
    open_files: IntGauge,
    max_files: IntGauge,
    resident_bytes: IntGauge,
    cpu_seconds: Counter,
    tasks: IntGauge,
}

impl Process {
    pub(super) fn new(families: &Families) -> Self {
        let start: Gauge = families.gauge(
            "process_start_time_seconds",
            "When the process started, since 1970.",
        );
        start.set(
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs_f64(),
        );
        Self {
            open_files: families.gauge("process_open_fds", "Open file descriptors."),
            max_files: families.gauge(
                "process_max_fds",
                "The largest number of open file descriptors.",
            ),
            resident_bytes: families.gauge(
                "process_resident_memory_bytes",
                "Resident memory of the process, in bytes.",
            ),
            cpu_seconds: families.counter(
                "process_cpu_seconds_total",
                "CPU time of the process, user and system.",
            ),
            tasks: families.gauge(
                "holdfast_tasks",
                "Tasks of the runtime: one for each connection and each open request of HTTP/2, and some of the node's.",
            ),
        }
    }

    pub(super) fn read(&self) {
        if let Some(count) = open_files() {
            self.open_files.set(saturated(count));
        }
        if let Ok((soft, _)) = Resource::NOFILE.get() {
            self.max_files.set(i64::try_from(soft).unwrap_or(i64::MAX));
        }
        if let Some(bytes) = resident_bytes() {
            self.resident_bytes.set(saturated(bytes));
        }
        if let Ok(runtime) = Handle::try_current() {
            self.tasks
                .set(saturated(runtime.metrics().num_alive_tasks()));
        }
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let more = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9 - self.cpu_seconds.get();
        // A counter must not decrease. Of two calls at once, one may have read its time
        // slightly before the other.
        self.cpu_seconds.inc_by(more.max(0.0));
    }
}

fn open_files() -> Option<usize> {
    // Since Linux 6.2 the size of the directory is the number of open files. Before, the
    // directory has to be read.
    let count = fs::metadata("/proc/self/fd").ok()?.len();
    if count > 0 {
        usize::try_from(count).ok()
    } else {
        // Reading the directory opens a file too, which is not to be counted.
        Some(fs::read_dir("/proc/self/fd").ok()?.count() - 1)
    }
}

fn resident_bytes() -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<usize>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_tells_of_this_process() {
        let families = Families::default();
        let process = Process::new(&families);
        process.read();
        assert!(process.resident_bytes.get() > 1 << 20 && process.max_files.get() > 10);
        let files: Vec<_> = (0..100)
            .map(|_| fs::File::open("/dev/null").expect("it is there"))
            .collect();
        let before = process.open_files.get();
        process.read();
        assert!(
            process.open_files.get() >= before.max(files.len() as i64),
            "{before}"
        );
        let spent = process.cpu_seconds.get();
        let busy: u64 = (0..20_000_000_u64).map(std::hint::black_box).sum();
        process.read();
        assert!(busy > 0 && process.cpu_seconds.get() > spent);
    }
}
