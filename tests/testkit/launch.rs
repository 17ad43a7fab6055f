//! How a test starts the program: its flags, its environment, and the script that it runs
//! under.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::LazyLock;

use tokio::process::Command;
use tokio::time::timeout;

use crate::{Node, PATIENCE};

/// Flags that are given unless the test gives the flag or its environment variable itself.
const DEFAULTS: [(&str, &str, &str); 5] = [
    ("--public", "HOLDFAST_PUBLIC", "127.0.0.1:0"),
    ("--internal", "HOLDFAST_INTERNAL", "127.0.0.1:0"),
    // The `host` that [`request`](crate::request) sends.
    (
        "--internal-host",
        "HOLDFAST_INTERNAL_HOST",
        "push.example.com",
    ),
    ("--log-format", "HOLDFAST_LOG_FORMAT", "json"),
    // No balancer has to learn of an end, and tests would wait for it.
    ("--drain-notice", "HOLDFAST_DRAIN_NOTICE", "0s"),
];

/// Returns the path of the program: the one that `HOLDFAST_BIN` names, or else the one that cargo
/// built for the tests.
///
/// Cargo names it in the environment of the tests that it runs. For a test binary that was
/// started by hand, or by a cargo older than 1.94, it is the program one directory above.
///
/// # Panics
/// If it is not there.
fn built() -> &'static Path {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
        let named = ["HOLDFAST_BIN", "CARGO_BIN_EXE_holdfast"];
        let named = named
            .into_iter()
            .find_map(std::env::var_os)
            .map(PathBuf::from);
        let program = named.unwrap_or_else(|| {
            let own = std::env::current_exe().expect("the path of this program");
            let directory = own.ancestors().nth(2).expect("target/PROFILE/deps/NAME");
            directory.join("holdfast")
        });
        assert!(program.is_file(), "not built: {}", program.display());
        program
    });
    &PROGRAM
}

/// A prepared start:
/// `Launch::new(&["--hold", "1s"]).env("HOLDFAST_LOG", "debug").start().await`.
#[derive(Debug, Clone, Default)]
pub struct Launch {
    args: Vec<String>,
    envs: Vec<(String, String)>,
    wrapper: Option<String>,
    program: Option<PathBuf>,
    pub(crate) bearer: Option<String>,
}

/// A program that has ended.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard output. Bytes that are not UTF-8 are replaced.
    pub stdout: String,
    /// What it wrote to standard error, in the same way.
    pub stderr: String,
}

impl Launch {
    /// Prepares a start with `args`.
    pub fn new(args: &[&str]) -> Self {
        Self {
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            ..Self::default()
        }
    }

    /// Adds an environment variable. The program sees no other `HOLDFAST_*` and no `RUST_*`.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.envs.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds a flag unless the test has given it already.
    pub(crate) fn or(mut self, flag: &str, value: &str) -> Self {
        if !self.args.iter().any(|arg| arg == flag) {
            self.args.extend([flag.to_owned(), value.to_owned()]);
        }
        self
    }

    /// Adds arguments.
    pub(crate) fn and(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|&arg| arg.to_owned()));
        self
    }

    pub(crate) fn has_tls(&self) -> bool {
        self.gives("--public-tls", "HOLDFAST_PUBLIC_TLS")
    }

    /// Returns whether the harness may give the node a listener with TLS.
    pub(crate) fn may_have_tls(&self) -> bool {
        let is_unix = |arg: &String| arg.contains("unix:");
        !self.has_tls()
            && !self.args.iter().any(is_unix)
            && !self.envs.iter().any(|(_, value)| is_unix(value))
    }

    /// Runs the program under a shell script such as `ulimit -n 64; exec "$0" "$@"`. The script
    /// must end in `exec "$0" "$@"`, so that the process id is the program's.
    pub fn under(mut self, script: &str) -> Self {
        self.wrapper = Some(script.to_owned());
        self
    }

    /// Starts this program, instead of the one that cargo built for the tests.
    pub fn program(mut self, path: &Path) -> Self {
        self.program = Some(path.to_owned());
        self
    }

    /// Sets the token that the harness itself sends to the internal listener.
    pub fn bearer(mut self, token: &str) -> Self {
        self.bearer = Some(token.to_owned());
        self
    }

    /// Starts a node and waits until it is ready.
    ///
    /// # Panics
    /// If the node ends, or is not ready in time. The message has its log.
    pub async fn start(self) -> Node {
        Node::launch(self).await
    }

    /// Starts a node that need not become ready, and waits until it listens.
    ///
    /// # Panics
    /// If the node ends, or does not listen in time. The message has its log.
    pub async fn start_unready(self) -> Node {
        Node::launch_unready(self).await
    }

    /// Runs the program to its end: for `--check`, `--help` and mistakes. The defaults of
    /// [`Launch::start`] apply.
    ///
    /// # Panics
    /// If it does not end in time.
    pub async fn run(self) -> Finished {
        let output = timeout(PATIENCE, self.command().output())
            .await
            .expect("it ends")
            .expect("it starts");
        Finished {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    pub(crate) fn command(&self) -> Command {
        let program = self.program.as_deref().unwrap_or_else(|| built());
        let mut command = match &self.wrapper {
            Some(script) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", script]).arg(program);
                shell
            }
            None => Command::new(program),
        };
        for (flag, variable, default) in DEFAULTS {
            if !self.gives(flag, variable) {
                command.args([flag, default]);
            }
        }
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("HOLDFAST_") || text.starts_with("RUST_") {
                command.env_remove(&name);
            }
        }
        command
            .args(&self.args)
            .envs(self.envs.iter().map(|(name, value)| (name, value)));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    fn gives(&self, flag: &str, variable: &str) -> bool {
        let is_flag = |arg: &String| {
            arg == flag
                || arg
                    .strip_prefix(flag)
                    .is_some_and(|rest| rest.starts_with('='))
        };
        self.args.iter().any(is_flag) || self.envs.iter().any(|(name, _)| name == variable)
    }
}
