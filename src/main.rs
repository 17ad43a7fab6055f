//! The order of the start: limits, settings, log, node, exit code. No rules.

use std::io::Write;
use std::process::ExitCode;

use holdfast::app::{self, Ended, StartError};
use holdfast::config::{self, NoSettings, Settings};
use holdfast::log::Log;

/// The memory of gets that left is given back to the system: 0.89 of it within a minute, where glibc's allocator gives back
/// nothing (15,000 held gets that left). One that is held takes 0.96 of what it takes there; CPU 0.97 to 1.09.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Wrong settings (`EX_USAGE` of sysexits.h).
const WRONG_SETTINGS: u8 = 64;

fn main() -> ExitCode {
    // What TLS towards Redis is made with. An error would say that there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // A limit that cannot be raised or read is no reason not to start: the connections will fit what it is.
    let open_files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(1024);
    match config::parse(std::env::args_os(), open_files) {
        Ok(settings) => start(settings, open_files),
        Err(NoSettings::Asked(text)) => {
            // Whoever asked may have closed the pipe after the first line.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(NoSettings::Mistakes(mistakes)) => {
            for mistake in mistakes {
                eprintln!("holdfast: {mistake}");
            }
            ExitCode::from(WRONG_SETTINGS)
        }
    }
}

fn start(settings: Settings, open_files: u64) -> ExitCode {
    // One for all cores. One for each, with connections of its own, was tried: 0.91 to 0.99 of the CPU of a paced set and its
    // answer, 1.04 to 1.10 saturated.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(settings.threads).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("cannot start the runtime: {error}")),
    };
    if settings.check {
        return match runtime.block_on(app::check(&settings)) {
            Ok(()) => {
                println!("holdfast: the settings are good");
                ExitCode::SUCCESS
            }
            Err(error) => not_started(&error),
        };
    }
    let log = Log::start(&settings.log, settings.log_format);
    tracing::info!(open_files, "the open-file limit");
    let ended = runtime.block_on(app::run(settings, log.lines_dropped(), log.recent()));
    // Connections that outlived the grace are not waited for.
    runtime.shutdown_background();
    drop(log);
    match ended {
        Ok(Ended::Drained) => ExitCode::SUCCESS,
        Ok(Ended::Forced | Ended::Broken) => ExitCode::FAILURE,
        Err(error) => not_started(&error),
    }
}

fn not_started(error: &StartError) -> ExitCode {
    match error {
        StartError::Mistake(_) => {
            eprintln!("holdfast: {error}");
            ExitCode::from(WRONG_SETTINGS)
        }
        StartError::Failed(..) => failed(&error.to_string()),
    }
}

fn failed(what: &str) -> ExitCode {
    eprintln!("holdfast: {what}");
    ExitCode::FAILURE
}
