//! The memory and the open files of a node's process, and their limits. They come from the
//! kernel, not from the node's own metrics.

use tokio::process::Command;

use crate::Node;

impl Node {
    /// Returns the resident memory.
    pub fn resident_bytes(&self) -> u64 {
        self.number("status", "VmRSS:") * 1024
    }

    /// Returns the resident memory without file mappings. How much of these is in RAM is up to
    /// the kernel and varies.
    pub fn own_bytes(&self) -> u64 {
        self.number("status", "RssAnon:") * 1024
    }

    /// Returns the number of its threads.
    pub fn threads(&self) -> u64 {
        self.number("status", "Threads:")
    }

    /// Returns a number that the kernel reports of the process, in the kernel's unit.
    fn number(&self, file: &str, field: &str) -> u64 {
        let text =
            std::fs::read_to_string(format!("/proc/{}/{file}", self.pid())).expect("a process");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(field))
            .unwrap_or_else(|| panic!("no {field}"));
        line.split_whitespace()
            .next()
            .and_then(|number| number.parse().ok())
            .expect("a number")
    }

    /// Returns the number of open files, connections included.
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .expect("a process")
            .count()
    }

    /// Limits how many files the process may open from now on: [`Node::max_open_files`] at
    /// most.
    pub async fn limit_open_files(&self, soft: usize) {
        let args = [
            "--pid",
            &self.pid().to_string(),
            &format!("--nofile={soft}:"),
        ];
        assert!(
            Command::new("prlimit")
                .args(args)
                .status()
                .await
                .expect("prlimit")
                .success(),
            "{args:?}"
        );
    }

    /// Returns the highest limit of open files that the process may get.
    pub fn max_open_files(&self) -> usize {
        let limits =
            std::fs::read_to_string(format!("/proc/{}/limits", self.pid())).expect("a process");
        let line = limits
            .lines()
            .find(|line| line.starts_with("Max open files"))
            .expect("a limit");
        line.split_whitespace()
            .nth(4)
            .and_then(|hard| hard.parse().ok())
            .expect("a number")
    }
}
