//! The command line and the environment, parsed by clap. Values stay text here: clap stops at the
//! first one that is wrong, and all mistakes are to be reported together.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint};

use super::declarations::ALL;
use super::setting::{Declared, Preset, Shape};
use super::{NoSettings, environment, subcommands};

/// Returns clap's form of all settings and subcommands.
pub(super) fn command() -> Command {
    Command::new("holdfast")
        .version(env!("CARGO_PKG_VERSION"))
        .about(env!("CARGO_PKG_DESCRIPTION"))
        .max_term_width(110)
        .args(ALL.map(arg))
        .subcommands(subcommands::all())
}

/// Returns clap's form of a setting.
pub(super) fn arg(setting: &dyn Declared) -> Arg {
    let about = setting.about();
    let arg = Arg::new(about.flag).long(about.flag).help(help(setting));
    let Some(variable) = about.variable() else {
        return arg.action(ArgAction::SetTrue);
    };
    // Shells complete paths of files, and nothing else.
    let hint = match setting.unit() {
        "path" => ValueHint::FilePath,
        _ => ValueHint::Other,
    };
    let arg = arg.value_name(setting.unit().to_ascii_uppercase());
    let arg = arg.value_hint(hint);
    let arg = if environment::is_empty(&variable) {
        // clap would take the empty text for the value.
        arg.help(format!("{} [env: {variable}=]", help(setting)))
    } else {
        arg.env(variable).hide_env_values(about.is_secret)
    };
    let arg = match about.default {
        Preset::Value(text) => arg.default_value(text),
        Preset::Unset | Preset::Computed(_) => arg,
    };
    match about.shape {
        Shape::One | Shape::Bare => arg,
        Shape::List => arg.action(ArgAction::Append).value_delimiter(','),
        Shape::Switch => arg
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .hide_default_value(true),
    }
}

/// Returns the text of `--help` for a setting. clap adds the variable, and a default that is a
/// value.
fn help(setting: &dyn Declared) -> String {
    let about = setting.about();
    let mut help = about.help.to_owned();
    if about.shape != Shape::Bare {
        help += &format!(" [range: {}]", setting.range());
    }
    if let Preset::Computed(words) = about.default {
        help += &format!(" [default: {words}]");
    }
    help.replace('`', "")
}

/// Parses the flags. clap reports one mistake at a time. So each mistake is noted, the argument
/// that it names is taken out, and clap is asked again, until it is content or there is nothing
/// to take out.
pub(super) fn parse(
    args: impl IntoIterator<Item = OsString>,
    mistakes: &mut Vec<String>,
) -> Result<Option<ArgMatches>, NoSettings> {
    let mut args = joined(args);
    let command = command();
    loop {
        let error = match command.clone().try_get_matches_from(&args) {
            Ok(found) => return Ok(Some(found)),
            Err(error) => error,
        };
        if matches!(
            error.kind(),
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
        ) {
            return Err(NoSettings::Asked(error.to_string()));
        }
        mistakes.push(mistake(&error));
        let Some(at) = named_argument(&error, &args) else {
            return Ok(None);
        };
        let flag = args.remove(at);
        // The argument after a flag that is unknown, or given once too often, is the flag's
        // value and no mistake of its own.
        let takes_value =
            error.kind() != ErrorKind::InvalidValue && !flag.to_string_lossy().contains('=');
        if takes_value
            && flag.to_string_lossy().starts_with("--")
            && args.get(at).is_some_and(is_value)
        {
            args.remove(at);
        }
    }
}

/// Returns the mistake that clap found, in one line, with the flag or the command that was
/// probably meant.
fn mistake(error: &clap::Error) -> String {
    let text = match error.get(ContextKind::InvalidSubcommand) {
        // A stray word is more often a value whose flag is missing than a mistyped command.
        Some(ContextValue::String(word)) => format!("unexpected argument '{word}' found"),
        _ => error.to_string(),
    };
    let first = text.trim_start_matches("error: ").split("\n\n").next();
    let first: Vec<_> = first.unwrap_or_default().split_whitespace().collect();
    let first = first.join(" ");
    let meant = error
        .get(ContextKind::SuggestedArg)
        .or_else(|| error.get(ContextKind::SuggestedSubcommand));
    match meant {
        Some(ContextValue::String(meant)) => format!("{first}; did you mean '{meant}'?"),
        Some(ContextValue::Strings(meant)) => {
            format!("{first}; did you mean '{}'?", meant.join("' or '"))
        }
        _ if is_unknown(error) => format!("{first}; see --help"),
        _ => first,
    }
}

fn is_unknown(error: &clap::Error) -> bool {
    let unknown = [ErrorKind::UnknownArgument, ErrorKind::InvalidSubcommand];
    unknown.contains(&error.kind())
}

/// Returns the arguments, each negative number joined to the flag before it. clap would read
/// `-1s` as short flags, and would not name the flag whose value it is.
fn joined(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut joined: Vec<OsString> = Vec::new();
    for arg in args {
        let is_negative = arg.to_str().is_some_and(|arg| {
            arg.strip_prefix('-').is_some_and(|rest| {
                rest.starts_with(|first: char| first.is_ascii_digit() || first == '.')
            })
        });
        match joined
            .last_mut()
            .filter(|last| is_negative && is_long_flag(last))
        {
            Some(flag) => {
                flag.push("=");
                flag.push(arg);
            }
            None => joined.push(arg),
        }
    }
    joined
}

fn is_long_flag(arg: &OsString) -> bool {
    arg.to_str()
        .is_some_and(|arg| arg.starts_with("--") && !arg.contains('='))
}

fn is_value(arg: &OsString) -> bool {
    !arg.to_string_lossy().starts_with('-')
}

/// Returns the index of the argument that an error is about.
fn named_argument(error: &clap::Error, args: &[OsString]) -> Option<usize> {
    let named = error
        .get(ContextKind::InvalidArg)
        .or_else(|| error.get(ContextKind::InvalidSubcommand));
    let Some(ContextValue::String(named)) = named else {
        return None;
    };
    // clap names it as `--flag <VALUE>`, `--flag[=<VALUE>]`, `--flag=value` or `value`.
    let flag = named.split([' ', '=', '[']).next().unwrap_or(named);
    let is_it = |arg: &OsString| {
        arg.to_str()
            .is_some_and(|arg| arg == flag || arg.split('=').next() == Some(flag))
    };
    let rest = || {
        args.iter()
            .enumerate()
            .skip(1)
            .filter(|(_, arg)| is_it(arg))
            .map(|(at, _)| at)
    };
    // If a flag is given twice, the second one is the mistake; otherwise it is the first one,
    // at which clap stopped.
    if error.kind() == ErrorKind::ArgumentConflict {
        rest().next_back()
    } else {
        rest().next()
    }
}
