//! The kernel's figures of processes and of itself: CPU time, memory, descriptors, names. Linux
//! only.

use std::fs;

use crate::Outcome;

/// Returns the CPU time, in nanoseconds, that the processes `pids` have used so far, user and
/// system.
///
/// On loopback the kernel does a receiver's network work in the sender's context, so it counts
/// for the sender.
///
/// # Errors
/// If one of them is gone.
pub(crate) fn cpu_ns(pids: &[u32]) -> Outcome<u64> {
    pids.iter()
        .map(|&pid| {
            if has_schedstat() {
                schedstat_ns(pid)
            } else {
                stat_ns(pid)
            }
        })
        .sum()
}

/// Returns the source of [`cpu_ns`], for the report.
pub(crate) fn cpu_source() -> &'static str {
    if has_schedstat() {
        "/proc/PID/task/*/schedstat"
    } else {
        "/proc/PID/stat"
    }
}

fn has_schedstat() -> bool {
    fs::metadata("/proc/self/schedstat").is_ok()
}

/// Returns the nanoseconds on a CPU, summed over the threads that exist now.
fn schedstat_ns(pid: u32) -> Outcome<u64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).map_err(|error| gone(pid, &error))?;
    let mut sum = 0;
    for task in tasks {
        // A thread may end while the list is read.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else {
            continue;
        };
        sum += text
            .split(' ')
            .next()
            .and_then(|word| word.parse::<u64>().ok())
            .unwrap_or(0);
    }
    Ok(sum)
}

/// Returns the CPU time, counted in clock ticks (10 ms), for kernels without schedstat.
fn stat_ns(pid: u32) -> Outcome<u64> {
    let text =
        fs::read_to_string(format!("/proc/{pid}/stat")).map_err(|error| gone(pid, &error))?;
    // The process name, in parentheses, may contain spaces. After it, utime and stime are the
    // 12th and the 13th field.
    let rest = text.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let ticks: u64 = rest
        .split(' ')
        .skip(11)
        .take(2)
        .filter_map(|word| word.parse::<u64>().ok())
        .sum();
    Ok(ticks * 1_000_000_000 / rustix::param::clock_ticks_per_second())
}

/// Returns the memory of the processes `pids` in bytes. Each page is divided by the number of
/// processes that share it (PSS).
///
/// # Errors
/// If one of them is gone, or if we may not inspect it.
pub(crate) fn pss_bytes(pids: &[u32]) -> Outcome<u64> {
    let of_one = |&pid: &u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
            .map_err(|error| gone(pid, &error))?;
        Ok(kilobytes(&text, "Pss:") * 1024)
    };
    pids.iter().map(of_one).sum()
}

fn gone(pid: u32, error: &std::io::Error) -> String {
    format!("process {pid} cannot be looked at (did it end?): {error}")
}

/// Kernel memory that held connections need: objects, and bytes in socket buffers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KernelMemory {
    pub(crate) slab_bytes: u64,
    pub(crate) tcp_bytes: u64,
}

impl KernelMemory {
    pub(crate) fn now() -> Outcome<Self> {
        let slab_bytes = kilobytes(&fs::read_to_string("/proc/meminfo")?, "Slab:") * 1024;
        let sockstat = fs::read_to_string("/proc/net/sockstat")?;
        let pages = sockstat.lines().find(|line| line.starts_with("TCP:"));
        let pages = pages
            .and_then(|line| line.split_once("mem "))
            .map_or("0", |(_, pages)| pages.trim());
        Ok(Self {
            slab_bytes,
            tcp_bytes: pages.parse::<u64>()? * rustix::param::page_size() as u64,
        })
    }
}

/// Returns the number after `name` in a file of `name: N kB` lines, or 0 if it is missing.
pub(crate) fn kilobytes(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next())
        .and_then(|word| word.parse().ok())
        .unwrap_or(0)
}

/// Returns the kernel's release.
pub(crate) fn kernel() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// Returns the CPU's name for itself.
pub(crate) fn cpu_model() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name"));
    line.and_then(|line| line.split_once(": "))
        .map_or("unknown", |(_, name)| name)
        .to_owned()
}

/// Returns how many processes ran or waited for a CPU, on average over the last minute. It
/// shows whether others were busy.
pub(crate) fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ')
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap_or(0.0)
}

/// Returns the number of cores that we may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
