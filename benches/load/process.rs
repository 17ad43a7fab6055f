//! Programs that this one starts, inspects and ends. None may outlive this one, whether it
//! ends, fails, panics or is interrupted. This module does not know what they speak.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use std::os::unix::process::CommandExt as _;

use crate::{Outcome, machine};

/// Whether to end, set by SIGINT and SIGTERM. Every wait checks it and returns an error, so
/// that the guards that end programs are dropped.
static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// The longest time in which a program must answer after its start, or end after it was told
/// to.
const PATIENCE: Duration = Duration::from_secs(10);

/// Makes SIGINT and SIGTERM set a flag instead of ending this program.
pub(crate) fn note_signals() -> Outcome<()> {
    let flag = INTERRUPTED.get_or_init(Arc::default);
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(flag))?;
    }
    Ok(())
}

/// Returns whether to go on.
///
/// # Errors
/// If a signal told this program to end.
pub(crate) fn go_on() -> Outcome<()> {
    let told = INTERRUPTED
        .get()
        .is_some_and(|flag| flag.load(Ordering::Relaxed));
    if told {
        Err("interrupted".into())
    } else {
        Ok(())
    }
}

/// Sleeps for `time`.
///
/// # Errors
/// If a signal told this program to end.
pub(crate) fn pause(time: Duration) -> Outcome<()> {
    let end = Instant::now() + time;
    while let Some(left) = end
        .checked_duration_since(Instant::now())
        .filter(|left| !left.is_zero())
    {
        std::thread::sleep(left.min(Duration::from_millis(100)));
        go_on()?;
    }
    Ok(())
}

/// A running program in its own process group. A Ctrl-C in the terminal reaches only this
/// program, which then ends the others in order.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    name: String,
    log: PathBuf,
    /// How it is ended.
    ending: Ending,
}

/// How a program must be ended so that it leaves nothing behind.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ending {
    /// With SIGKILL.
    Kill,
    /// With SIGTERM, because it has to end its own processes first.
    Terminate,
}

impl Process {
    /// Starts the program with its output in `scratch`. `package` is the Debian package of a
    /// program that is not of this repository.
    ///
    /// # Errors
    /// If there is no such program.
    pub(crate) fn start(
        mut command: Command,
        name: impl Into<String>,
        package: Option<&str>,
        ending: Ending,
        scratch: &Scratch,
    ) -> Outcome<Self> {
        let name = name.into();
        let log = scratch.path(&format!("{name}.log"));
        let file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&log)?;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0);
        // The program gets only the settings that its command gives.
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("HOLDFAST_") {
                command.env_remove(variable);
            }
        }
        let child = command.spawn().map_err(|error| {
            let program = command.get_program().to_string_lossy();
            let of = package.map_or(String::new(), |package| {
                format!(". Install it: apt-get install {package}")
            });
            format!("{program}: {error}{of}")
        })?;
        Ok(Self {
            child,
            name,
            log,
            ending,
        })
    }

    /// Returns its process and those that it started.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let pid = self.child.id();
        [vec![pid], machine::children(pid)].concat()
    }

    /// Waits until `up` returns true.
    ///
    /// # Errors
    /// If the program ends, or if it takes too long. The error has the program's output.
    pub(crate) fn wait_until(&mut self, mut up: impl FnMut() -> bool) -> Outcome<()> {
        let deadline = Instant::now() + PATIENCE;
        while !up() {
            let ended = self.child.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                let how = ended.map_or("is not up in time".to_owned(), |status| {
                    format!("ended ({status})")
                });
                return Err(format!("{} {how}; it says:\n{log}", self.name).into());
            }
            pause(Duration::from_millis(20))?;
        }
        Ok(())
    }

    /// Sends it a signal. Returns false if that fails.
    pub(crate) fn signal(&self, signal: Signal) -> bool {
        kill_process(Pid::from_child(&self.child), signal).is_ok()
    }

    /// Returns whether it has not ended yet.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    fn terminate(&mut self) {
        if !self.signal(Signal::TERM) {
            return;
        }
        let deadline = Instant::now() + PATIENCE;
        while self.is_running() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let children = machine::children(self.child.id());
        if matches!(self.ending, Ending::Terminate) {
            self.terminate();
        }
        if self.is_running() {
            let _ = self.child.kill();
            let _ = self.child.wait();
            // A program that was killed could not end the processes it had started.
            for pid in children
                .into_iter()
                .filter_map(|pid| Pid::from_raw(i32::try_from(pid).unwrap_or(0)))
            {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

/// A new directory in the system's temporary directory. It is removed when dropped.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Outcome<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "holdfast-load-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file, creates its directories, and returns its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> Outcome<PathBuf> {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
        std::fs::write(&path, text)?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Returns a TCP port of 127.0.0.1 on which nobody listens. It is below the ports that Linux
/// gives out by itself (32768 and up), so that none of our connections takes it before the
/// program listens on it.
pub(crate) fn free_port() -> u16 {
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    let next = NEXT.get_or_init(|| AtomicU16::new(std::process::id() as u16));
    loop {
        let port = 12_000 + next.fetch_add(1, Ordering::Relaxed) % 20_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Returns an address of 127.0.0.1 with a free port.
pub(crate) fn free_address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()))
}
