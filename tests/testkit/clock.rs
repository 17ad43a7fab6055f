//! A process's own system clock, which a test makes jump. Debian's faketime fakes it.

use tokio::process::Command;

use crate::Scratch;

/// How often the wrapper of faketime is asked for its library.
const TRIES: usize = 20;

/// The clock of processes that are started with [`Clock::envs`]. Only the time of day is faked:
/// monotonic clocks go on unchanged.
pub struct Clock {
    dir: Scratch,
    library: String,
}

impl Clock {
    /// Creates a clock that is right.
    pub async fn new() -> Self {
        let clock = Self {
            dir: Scratch::new(),
            library: library().await,
        };
        clock.jump(0);
        clock
    }

    /// Sets the clock so many seconds ahead of the machine's clock, or behind it. It takes
    /// effect within a second.
    pub fn jump(&self, seconds: i64) {
        self.jump_ms(seconds * 1000);
    }

    /// Sets the clock as [`Clock::jump`] does, in milliseconds.
    pub fn jump_ms(&self, milliseconds: i64) {
        // Rename the file in one step: faketime would read a half-written one as no time at
        // all.
        let (sign, off) = (
            if milliseconds < 0 { '-' } else { '+' },
            milliseconds.unsigned_abs(),
        );
        let written = self
            .dir
            .file("new", &format!("{sign}{}.{:03}s", off / 1000, off % 1000));
        std::fs::rename(written, self.dir.path("offset")).expect("a file in its place");
    }

    /// Returns the environment of a process that runs by this clock.
    pub fn envs(&self) -> [(&'static str, String); 4] {
        [
            ("LD_PRELOAD", self.library.clone()),
            (
                "FAKETIME_TIMESTAMP_FILE",
                self.dir.path("offset").display().to_string(),
            ),
            ("FAKETIME_CACHE_DURATION", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }
}

/// Returns the path of faketime's library. The `faketime` wrapper is asked only for the path:
/// if the process ran under it, the process id would be the wrapper's.
pub(crate) async fn library() -> String {
    // The wrapper fails if a process that had its id before has left a file of shared memory, which
    // is named after the id. The next one has another id.
    for _ in 0..TRIES {
        let print = Command::new("faketime")
            .args(["-m", "-f", "+0s", "printenv", "LD_PRELOAD"])
            .output()
            .await;
        let print =
            print.unwrap_or_else(|error| panic!("faketime: {error}; `make deps` installs it"));
        let library = String::from_utf8_lossy(&print.stdout).trim().to_owned();
        if !library.is_empty() {
            return library;
        }
    }
    panic!("faketime does not name its library");
}
