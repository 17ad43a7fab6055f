//! Compares holdfast under load with nchan, plain hyper and a bare epoll loop:
//! `cargo bench --bench load -- --help`.
//!
//! This program is the client. For each run it starts each server anew, in processes of their
//! own, on free ports of loopback. Subject and peers run in turn (A B A B), because a machine
//! changes from one minute to the next: what counts are the ratios within a pair. This file has
//! only the order of steps.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;
use tikv_jemallocator::Jemalloc;

use args::{Args, PeerName, ScenarioName, Sizes, WireName};
use deployed::{deployed, enter_workspace};
use report::Report;
use server::{Beside, Subject};

mod args;
mod blocking;
mod client;
mod deployed;
mod figures;
mod floor;
mod interrupt;
mod machine;
mod plain;
mod plot;
mod report;
mod scenario;
mod server;
mod stats;
mod table;
mod wire;

/// The same allocator as in holdfast, because the servers to compare with are this program,
/// too.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// The result of a step. An error is reported and ends the run.
type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let result = match (words.next().as_deref(), words.next()) {
        (Some(plain::SUBCOMMAND), Some(address)) => plain::serve(&address),
        (Some(floor::SUBCOMMAND), Some(address)) => floor::serve(&address),
        _ => run(&Args::parse()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Outcome<()> {
    enter_workspace()?;
    // `cargo bench --profile dev` builds without optimisation.
    if cfg!(debug_assertions) {
        println!("load: built without optimisation, so nothing is measured; use cargo bench");
        return Ok(());
    }
    let report = match &args.from {
        Some(path) => Report::read(path)?,
        None => measure(args)?,
    };
    print!("{}", table::table(&report));
    if let Some(path) = &args.plot {
        plot::draw(&report, path)?;
    }
    if report.has_mistakes() {
        Err("something was lost or wrong".into())
    } else {
        Ok(())
    }
}

fn measure(args: &Args) -> Outcome<Report> {
    interrupt::note_signals()?;
    // If the limit cannot be raised, the run can still start. Too many waiters are refused with
    // the limit there is.
    let open_files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(1024);
    let (sizes, subjects) = (args.sizes(), subjects(args)?);
    let most = usize::try_from(open_files)?.saturating_sub(500);
    if sizes.waiters.max(sizes.outstanding) + sizes.setters > most {
        return Err(
            format!("the limit of {open_files} open files allows for {most} connections").into(),
        );
    }
    let names = subjects
        .iter()
        .map(|subject| subject.name().to_owned())
        .collect();
    let mut report = Report::new(names, args.threads == Some(1), args.quick);
    report.versions = versions(&subjects)?;
    report.notes = server::notes(&subjects, &args.wire, &args.scenario);
    for name in args.scenarios() {
        for wire in &args.wire {
            for pair in 0..sizes.pairs {
                eprintln!("{name:?} by {wire:?}, pair {} of {}", pair + 1, sizes.pairs);
                let step = (name, *wire, pair);
                measure_pair(step, &subjects, &sizes, &mut report, &args.json)?;
            }
        }
    }
    Ok(report)
}

/// Runs one scenario by one wire on each server in turn.
fn measure_pair(
    (name, wire, pair): (ScenarioName, WireName, usize),
    subjects: &[Subject],
    sizes: &Sizes,
    report: &mut Report,
    json: &Path,
) -> Outcome<()> {
    let able = subjects
        .iter()
        .filter(|subject| subject.can(scenario::kind(name), wire));
    for subject in able {
        eprintln!("  {}", subject.name());
        for (scenario, sample) in scenario::run(name, wire, subject, sizes)? {
            report.add(&scenario, pair, subject.name(), sample);
        }
        // The report is written after each run, so that it exists if the rest is interrupted.
        report.write(json)?;
    }
    Ok(())
}

/// Returns the servers to measure, the subject first.
fn subjects(args: &Args) -> Outcome<Vec<Subject>> {
    let program = args.holdfast.clone().map_or_else(deployed, Ok)?;
    let holdfast = |name: &str, program: &Path, beside| Subject::Holdfast {
        name: name.to_owned(),
        program: program.to_owned(),
        threads: args.threads,
        beside,
    };
    let name = args.threads.map_or("holdfast".to_owned(), |threads| {
        format!("holdfast --threads {threads}")
    });
    let mut subjects = vec![holdfast(&name, &program, None)];
    if let Some(other) = &args.vs {
        subjects.push(holdfast("the other holdfast", other, None));
    }
    for peer in args.peers() {
        match peer {
            PeerName::Nchan => subjects.push(Subject::Nchan {
                workers: args.nchan_workers,
            }),
            PeerName::Hyper => subjects.push(Subject::Hyper),
            PeerName::Floor => subjects.push(Subject::Floor),
            PeerName::None => {}
        }
    }
    let beside = [
        (report::PROXIED, Beside::Proxied),
        (report::PLAIN, Beside::Plain),
        (report::UNCOUNTED, Beside::Uncounted),
    ];
    for (name, beside) in beside {
        let mut kinds = args.scenario.iter().copied().map(scenario::kind);
        if kinds.any(|kind| beside.kind(kind).is_some()) {
            subjects.push(holdfast(name, &program, Some(beside)));
        }
    }
    Ok(subjects)
}

fn versions(subjects: &[Subject]) -> Outcome<BTreeMap<String, String>> {
    let mut versions = BTreeMap::new();
    for subject in subjects {
        versions.insert(subject.name().to_owned(), subject.version()?);
    }
    versions.extend(
        server::versions()
            .into_iter()
            .map(|(name, version)| (name.to_owned(), version)),
    );
    Ok(versions)
}
