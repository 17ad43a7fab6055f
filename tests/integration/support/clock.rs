//! A system clock of a process's own, which jumps when it is told to: by Debian's faketime.

use tokio::process::Command;

use super::Scratch;

/// What a process runs under that is started with [`Clock::envs`]. Only the time of day is faked: what counts time
/// goes on as it does.
pub(crate) struct Clock {
    dir: Scratch,
    library: String,
}

impl Clock {
    /// One that is right.
    pub(crate) async fn new() -> Self {
        let clock = Self { dir: Scratch::new(), library: library().await };
        clock.jump(0);
        clock
    }

    /// From now on, within a second, it is so much ahead of the machine's, or behind.
    pub(crate) fn jump(&self, seconds: i64) {
        // In one step: a file that is being written would be read as no time at all.
        let written = self.dir.file("new", &format!("{seconds:+}s"));
        std::fs::rename(written, self.dir.path("offset")).expect("a file in its place");
    }

    pub(crate) fn envs(&self) -> [(&'static str, String); 4] {
        [
            ("LD_PRELOAD", self.library.clone()),
            ("FAKETIME_TIMESTAMP_FILE", self.dir.path("offset").display().to_string()),
            ("FAKETIME_CACHE_DURATION", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }
}

/// Where faketime's library is. Its wrapper knows, but stays in between, so that the process id would be its own.
pub(super) async fn library() -> String {
    let print = Command::new("faketime").args(["-m", "-f", "+0s", "printenv", "LD_PRELOAD"]).output().await;
    let print = print.unwrap_or_else(|error| panic!("faketime: {error}; `make deps` installs it"));
    String::from_utf8_lossy(&print.stdout).trim().to_owned()
}
