//! The subcommands. Without one, the program serves.

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, value_parser};
use clap_complete::Shell;

use super::declarations::{CHECK, INTERNAL};
use super::setting::Declared;
use super::{flags, man_page};

const HEALTH: &str = "health";
const COMPLETIONS: &str = "completions";
const MAN: &str = "man";
/// The argument of `holdfast completions`.
const SHELL: &str = "shell";

/// Returns clap's forms of all subcommands.
pub(super) fn all() -> [Command; 3] {
    [health(), completions(), man()].map(|command| command.max_term_width(110))
}

fn health() -> Command {
    Command::new(HEALTH)
        .about("Ask the node of this machine whether it is ready: ends with 0 if it is, else with 1")
        .long_about(
            "Ask the node of this machine for /health/ready. Ends with 0 if it is ready, and with 1, \
             and the reason, if it is not, does not answer within 5s, or if --internal is wrong. \
             Reads no other setting.",
        )
        .arg(flags::arg(&INTERNAL))
}

fn completions() -> Command {
    let shell = Arg::new(SHELL)
        .value_name("SHELL")
        .help("The shell that completes the command line")
        .value_parser(value_parser!(Shell))
        .required(true);
    Command::new(COMPLETIONS)
        .about("Print the script by which a shell completes the command line of holdfast")
        .arg(shell)
}

fn man() -> Command {
    Command::new(MAN).about("Print the man page: holdfast man | man -l -")
}

/// Returns the mistake of `--check` before a command. The command would be carried out, and
/// nothing checked.
pub(super) fn check_beside(found: &ArgMatches) -> Option<String> {
    let name = found.subcommand_name()?;
    let is_given = found.get_flag(CHECK.about().flag);
    is_given.then(|| format!("--check: does not go with the command {name}; leave out one of them"))
}

/// Returns the flags of `holdfast health`, if that was given. `--internal` may stand before it.
pub(super) fn of_health(found: &ArgMatches) -> Option<ArgMatches> {
    let of_health = found.subcommand_matches(HEALTH)?;
    let flag = INTERNAL.about().flag;
    let is_behind = of_health.value_source(flag) == Some(ValueSource::CommandLine);
    Some(if is_behind { of_health } else { found }.clone())
}

/// Returns the text that a subcommand prints, if one that only prints was given.
pub(super) fn text(found: &ArgMatches) -> Option<String> {
    let (name, found) = found.subcommand()?;
    match name {
        COMPLETIONS => {
            let shell = *found.get_one::<Shell>(SHELL)?;
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut flags::command(), "holdfast", &mut script);
            Some(String::from_utf8_lossy(&script).into_owned())
        }
        MAN => Some(man_page::text(flags::command())),
        _ => None,
    }
}
