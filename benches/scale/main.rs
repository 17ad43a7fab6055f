//! Measures how many scripts one machine holds, over several nodes on one Redis, and what
//! happens to them when a node is drained or killed: `cargo bench --bench scale -- --help`.
//!
//! The question: with 200,000 gets held, each of its own key, are all there? What does each
//! cost? How fast is any of them woken? When a node ends, how fast are its waiters at other
//! nodes? Is any status lost? Which limit would be reached next? A run takes some minutes, some
//! gigabytes and all cores, so no CI runs it. `--waiters 4000 --nodes 3` is a quick run within
//! a minute.
//!
//! Everything is on loopback. A process may have 20,000 files open, or as many as `ulimit -Hn`
//! says, and that decides the number of processes. There are enough nodes that the waiters of
//! two that are gone fit the others, and enough processes of pages, which are this program
//! again. Both ends of each connection are on this machine, so the kernel's share is twice that
//! on a server. Pages come from several addresses of 127.0.0.0/8, because two addresses have
//! some 28,000 ports between them.

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;

use args::Args;
use plan::Plan;
use report::Report;

mod args;
#[path = "../load/blocking.rs"]
mod blocking;
mod client;
mod cluster;
mod crowd;
#[path = "../load/deployed.rs"]
mod deployed;
#[path = "../load/interrupt.rs"]
mod interrupt;
mod limits;
#[path = "../load/machine.rs"]
mod machine;
mod memory;
mod plan;
mod protocol;
mod report;
#[path = "../load/stats.rs"]
#[expect(
    dead_code,
    reason = "shared with the load bench, which needs more of it"
)]
mod stats;
mod steps;
mod worker;

/// The result of a step. An error is reported and ends the run.
type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let is_worker = std::env::args()
        .nth(1)
        .is_some_and(|word| word == worker::SUBCOMMAND);
    let result = if is_worker {
        worker::run()
    } else {
        run(Args::parse())
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scale: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut args: Args) -> Outcome<()> {
    deployed::enter_workspace()?;
    // `cargo bench --profile dev` builds without optimisation.
    if cfg!(debug_assertions) {
        println!("scale: built without optimisation, so nothing is measured; use cargo bench");
        return Ok(());
    }
    interrupt::note_signals()?;
    // If the limit cannot be raised, the run can still start: it takes more nodes.
    let open_files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(1024);
    args.program = args.holdfast.clone().map_or_else(deployed::deployed, Ok)?;
    let args = &args;
    let plan = Plan::new(args, open_files)?;
    let redis = cluster::version(Path::new("redis-server"))
        .map_err(|error| format!("{error}. Install it: apt-get install redis-server"))?;
    let versions = vec![cluster::version(&args.program)?, redis];
    let mut report = Report::new(&plan, versions);
    let result = steps::run(args, plan, open_files, &mut report);
    // The results are reported even if the rest failed or was interrupted.
    print!("{}", report.table());
    report.write(&args.json)?;
    result?;
    if report.has_mistakes() {
        Err("something was lost, wrong or twice".into())
    } else {
        Ok(())
    }
}
