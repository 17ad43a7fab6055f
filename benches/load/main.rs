//! How much load holdfast bears, beside nchan and beside plain hyper: `cargo bench --bench load -- --help`.
//!
//! This program is the client; each server is started by it, in processes of its own, on free ports of loopback, anew for
//! each run. Subject and peers run in turn (A B A B), since a machine is not the same from one minute to the next: what
//! counts are the ratios within a pair. Here is only the order of things.

use std::error::Error;
use std::process::ExitCode;

use clap::Parser as _;
use tikv_jemallocator::Jemalloc;

mod args;
mod client;
mod machine;
mod plain;
mod process;
mod scenario;
mod server;
mod stats;
mod wire;

/// As holdfast has it: the plain hyper server is this program, too.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// What goes wrong here is told and ends the run.
type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let result = match (words.next().as_deref(), words.next()) {
        (Some(plain::SUBCOMMAND), Some(address)) => plain::serve(&address),
        _ => run(&args::Args::parse()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &args::Args) -> Outcome<()> {
    process::note_signals()?;
    rlimit::increase_nofile_limit(u64::MAX)?;
    let program = args.holdfast.clone().unwrap_or(env!("CARGO_BIN_EXE_holdfast").into());
    let a = server::Subject::Holdfast { name: "holdfast".into(), program, threads: args.threads };
    let mut all = vec![a];
    for peer in &args.peer {
        match peer {
            args::PeerName::Nchan => all.push(server::Subject::Nchan { workers: args.nchan_workers }),
            args::PeerName::Hyper => all.push(server::Subject::Hyper),
            _ => {}
        }
    }
    let sizes = args.sizes();
    for s in args.scenarios() {
        for _ in 0..sizes.pairs {
            for subject in &all {
                for (name, sample) in scenario::run(s, subject, &sizes)? {
                    println!("{name} {} {:?} {:?}", subject.name(), sample.figures, sample.tally);
                }
            }
        }
    }
    Ok(())
}
