//! What a node's process holds, and how much it may: asked of the system, as the node does not tell it.

use tokio::process::Command;

use super::Node;

impl Node {
    /// Resident memory.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.number("status", "VmRSS:") * 1024
    }

    /// Resident memory without what is mapped from files, of which the kernel keeps now more and now less in RAM.
    pub(crate) fn own_bytes(&self) -> u64 {
        self.number("status", "RssAnon:") * 1024
    }

    pub(crate) fn threads(&self) -> u64 {
        self.number("status", "Threads:")
    }

    /// A number that the kernel tells of the process, in the unit it has.
    fn number(&self, file: &str, field: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/{file}", self.pid())).expect("a process");
        let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_else(|| panic!("no {field}"));
        line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
    }

    /// Open files, connections among them.
    pub(crate) fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("a process").count()
    }

    /// How many files it may open, from now on; [`Node::max_open_files`] at most.
    pub(crate) async fn limit_open_files(&self, soft: usize) {
        let args = ["--pid", &self.pid().to_string(), &format!("--nofile={soft}:")];
        assert!(Command::new("prlimit").args(args).status().await.expect("prlimit").success(), "{args:?}");
    }

    /// How many files it may be allowed to open.
    pub(crate) fn max_open_files(&self) -> usize {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", self.pid())).expect("a process");
        let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit");
        line.split_whitespace().nth(4).and_then(|hard| hard.parse().ok()).expect("a number")
    }
}
