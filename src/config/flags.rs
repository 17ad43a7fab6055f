//! The flags and variables as clap reads them: names, defaults, help. `config` checks and
//! interprets them.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args as _, Command, FromArgMatches, Parser};

use super::NoSettings;

/// The flags as they are given. All are text here, so that each is checked even if another is
/// wrong.
#[derive(Debug, Parser)]
#[command(
    name = "holdfast",
    version,
    about,
    max_term_width = 110,
    disable_help_subcommand = true
)]
pub(super) struct Flags {
    /// Address of the public listener, for browsers: host:port or unix:/path
    #[arg(
        long,
        env = "HOLDFAST_PUBLIC",
        default_value = "127.0.0.1:11000",
        value_name = "ADDRESS"
    )]
    pub(super) public: String,
    /// Address of the internal listener, for backends and operators: host:port or unix:/path
    #[arg(
        long,
        env = "HOLDFAST_INTERNAL",
        default_value = "127.0.0.1:11001",
        value_name = "ADDRESS"
    )]
    pub(super) internal: String,
    /// Longest time that a get is held, 1s to 10m
    #[arg(
        long,
        env = "HOLDFAST_HOLD",
        default_value = "25s",
        value_name = "DURATION"
    )]
    pub(super) hold: String,
    /// Time to live of a status if its set gives none, 1s to 7days, whole seconds
    #[arg(
        long,
        env = "HOLDFAST_STATUS_TTL",
        default_value = "300s",
        value_name = "DURATION"
    )]
    pub(super) status_ttl: String,
    /// Largest size of a value
    #[arg(
        long,
        env = "HOLDFAST_MAX_VALUE_BYTES",
        default_value = "65536",
        value_name = "BYTES"
    )]
    pub(super) max_value_bytes: String,
    /// Largest size of the body of an internal request
    #[arg(
        long,
        env = "HOLDFAST_MAX_BODY_BYTES",
        default_value = "8388608",
        value_name = "BYTES"
    )]
    pub(super) max_body_bytes: String,
    /// Largest total size of the bodies of sets under way, not counting the first 16 KiB of each.
    /// Beyond it, sets are refused with 507. Messages of other nodes have a limit of the same
    /// size [default: eight of the longest bodies]
    #[arg(long, env = "HOLDFAST_MAX_INBOUND_BYTES", value_name = "BYTES")]
    pub(super) max_inbound_bytes: Option<String>,
    /// Largest number of sets in one array
    #[arg(
        long,
        env = "HOLDFAST_MAX_BATCH",
        default_value = "1000",
        value_name = "COUNT"
    )]
    pub(super) max_batch: String,
    /// Largest number of statuses in the embedded store. Beyond it, sets are refused with 507
    #[arg(
        long,
        env = "HOLDFAST_MAX_STATUSES",
        default_value = "1000000",
        value_name = "COUNT"
    )]
    pub(super) max_statuses: String,
    /// Largest total size of the embedded store. A status counts its key, its value and 256
    /// bytes. Beyond it, sets are refused with 507
    #[arg(
        long,
        env = "HOLDFAST_MAX_STATUS_BYTES",
        default_value = "1073741824",
        value_name = "BYTES"
    )]
    pub(super) max_status_bytes: String,
    /// Largest number of held gets. Beyond it, gets are answered busy [default: the connections
    /// less a tenth]
    #[arg(long, env = "HOLDFAST_MAX_WAITERS", value_name = "COUNT")]
    pub(super) max_waiters: Option<String>,
    /// Largest number of held gets of one key. Beyond it, gets are answered busy
    #[arg(
        long,
        env = "HOLDFAST_MAX_WAITERS_PER_KEY",
        default_value = "1000",
        value_name = "COUNT"
    )]
    pub(super) max_waiters_per_key: String,
    /// Largest number of leases in Redis, one for each key that this node holds a get for. Beyond
    /// it, gets are answered busy [default: as many as waiters]
    #[arg(long, env = "HOLDFAST_MAX_LEASES", value_name = "COUNT")]
    pub(super) max_leases: Option<String>,
    /// Largest number of public connections. Beyond it, new ones wait to be accepted [default:
    /// what the open-file limit leaves]
    #[arg(long, env = "HOLDFAST_MAX_CONNECTIONS", value_name = "COUNT")]
    pub(super) max_connections: Option<String>,
    /// Time in which a client must send the head of a request
    #[arg(
        long,
        env = "HOLDFAST_HEAD_TIMEOUT",
        default_value = "10s",
        value_name = "DURATION"
    )]
    pub(super) head_timeout: String,
    /// Time in which a client must send the body of a request
    #[arg(
        long,
        env = "HOLDFAST_BODY_TIMEOUT",
        default_value = "10s",
        value_name = "DURATION"
    )]
    pub(super) body_timeout: String,
    /// Time in which a client must take the next bytes of an answer
    #[arg(
        long,
        env = "HOLDFAST_WRITE_TIMEOUT",
        default_value = "10s",
        value_name = "DURATION"
    )]
    pub(super) write_timeout: String,
    /// Time for which a connection is kept between two requests
    #[arg(
        long,
        env = "HOLDFAST_IDLE_TIMEOUT",
        default_value = "75s",
        value_name = "DURATION"
    )]
    pub(super) idle_timeout: String,
    /// Time without a new connection after which a drain stops accepting
    #[arg(
        long,
        env = "HOLDFAST_DRAIN_QUIET",
        default_value = "1s",
        value_name = "DURATION"
    )]
    pub(super) drain_quiet: String,
    /// Longest time that a drain takes
    #[arg(
        long,
        env = "HOLDFAST_DRAIN_GRACE",
        default_value = "10s",
        value_name = "DURATION"
    )]
    pub(super) drain_grace: String,
    /// Origins whose pages may read JSON answers, or * for all. Repeatable
    #[arg(
        long,
        env = "HOLDFAST_ALLOW_ORIGIN",
        default_value = "*",
        value_name = "ORIGIN",
        value_delimiter = ','
    )]
    pub(super) allow_origin: Vec<String>,
    /// Prefix that the names in callback and assign must have [default: nothing]
    #[arg(long, env = "HOLDFAST_CALLBACK_PREFIX", value_name = "NAME")]
    pub(super) callback_prefix: Option<String>,
    /// Cross-Origin-Resource-Policy of scripts: cross-origin, same-site or same-origin
    #[arg(
        long,
        env = "HOLDFAST_RESOURCE_POLICY",
        default_value = "cross-origin",
        value_name = "POLICY"
    )]
    pub(super) resource_policy: String,
    /// URL of the Redis that several nodes share: redis://, redis+sentinel:// or
    /// redis+cluster://, or rediss for TLS. Without it, this process keeps the statuses itself
    #[arg(
        long,
        env = "HOLDFAST_REDIS",
        value_name = "URL",
        hide_env_values = true
    )]
    pub(super) redis: Option<String>,
    /// File that contains the URL of --redis, for a URL with a password
    #[arg(long, env = "HOLDFAST_REDIS_FILE", value_name = "PATH")]
    pub(super) redis_file: Option<String>,
    /// Prefix of all keys in Redis
    #[arg(
        long,
        env = "HOLDFAST_REDIS_PREFIX",
        default_value = "holdfast:1:",
        value_name = "TEXT"
    )]
    pub(super) redis_prefix: String,
    /// Longest time that a command to Redis may take
    #[arg(
        long,
        env = "HOLDFAST_REDIS_TIMEOUT",
        default_value = "500ms",
        value_name = "DURATION"
    )]
    pub(super) redis_timeout: String,
    /// Largest number of commands to Redis under way
    #[arg(
        long,
        env = "HOLDFAST_REDIS_IN_FLIGHT",
        default_value = "1024",
        value_name = "COUNT"
    )]
    pub(super) redis_in_flight: String,
    /// Time for which this node keeps confirmed sets, to put them again if Redis loses them. 0s:
    /// none
    #[arg(
        long,
        env = "HOLDFAST_RESEND",
        default_value = "60s",
        value_name = "DURATION"
    )]
    pub(super) resend: String,
    /// URL at which other nodes reach this one: http://host:port [default: the internal
    /// listener's address]
    #[arg(long, env = "HOLDFAST_ADVERTISE", value_name = "URL")]
    pub(super) advertise: Option<String>,
    /// Longest time that another node may take to answer. A node that takes longer is skipped for
    /// as long again
    #[arg(
        long,
        env = "HOLDFAST_PEER_TIMEOUT",
        default_value = "1s",
        value_name = "DURATION"
    )]
    pub(super) peer_timeout: String,
    /// Largest number of updates that wait for one other node
    #[arg(
        long,
        env = "HOLDFAST_PEER_QUEUE",
        default_value = "10000",
        value_name = "COUNT"
    )]
    pub(super) peer_queue: String,
    /// File with bearer tokens for the internal listener, one a line
    #[arg(long, env = "HOLDFAST_INTERNAL_TOKEN_FILE", value_name = "PATH")]
    pub(super) internal_token_file: Option<String>,
    /// Host name by which the internal listener may be called if it has no token. Repeatable. IP
    /// addresses, localhost, names without a dot, and the hosts of --internal and --advertise are
    /// always allowed
    #[arg(
        long,
        env = "HOLDFAST_INTERNAL_HOST",
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub(super) internal_host: Vec<String>,
    /// File with secrets that sign keys, one a line, 32 bytes or more each. With it, only signed
    /// keys are accepted
    #[arg(long, env = "HOLDFAST_KEY_SECRET_FILE", value_name = "PATH")]
    pub(super) key_secret_file: Option<String>,
    /// Allow an internal listener on a public address without a token
    #[arg(long, env = "HOLDFAST_INTERNAL_WITHOUT_TOKEN", value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(
        default_value = "false",
        default_missing_value = "true",
        hide_default_value = true
    )]
    pub(super) internal_without_token: String,
    /// Number of runtime threads [default: one per core]
    #[arg(long, env = "HOLDFAST_THREADS", value_name = "COUNT")]
    pub(super) threads: Option<String>,
    /// Serve a demo at /demo: a login by QR code
    #[arg(long, env = "HOLDFAST_DEMO", value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(
        default_value = "false",
        default_missing_value = "true",
        hide_default_value = true
    )]
    pub(super) demo: String,
    /// Log level (error, warn, info, debug, trace) or a tracing filter
    #[arg(
        long,
        env = "HOLDFAST_LOG",
        default_value = "info",
        value_name = "FILTER"
    )]
    pub(super) log: String,
    /// Format of log lines: text or json
    #[arg(
        long,
        env = "HOLDFAST_LOG_FORMAT",
        default_value = "text",
        value_name = "FORMAT"
    )]
    pub(super) log_format: String,
    /// Check the settings and what they name, then exit
    #[arg(long)]
    pub(super) check: bool,
    /// Whether --redis was given as an argument, which every user of the machine can read.
    #[arg(skip)]
    pub(super) redis_is_shown: bool,
}

/// Parses the flags. clap reports one mistake at a time. So each mistake is noted, the argument
/// that it names is taken out, and clap is asked again, until it is content or there is nothing
/// to take out.
pub(super) fn parse(
    args: impl IntoIterator<Item = OsString>,
    mistakes: &mut Vec<String>,
) -> Result<Option<Flags>, NoSettings> {
    let mut args = joined(args);
    let command = Flags::augment_args(Command::new("holdfast"));
    loop {
        let read = |found: ArgMatches| {
            let redis_is_shown = found.value_source("redis") == Some(ValueSource::CommandLine);
            Ok(Flags {
                redis_is_shown,
                ..Flags::from_arg_matches(&found)?
            })
        };
        let error = match command.clone().try_get_matches_from(&args).and_then(read) {
            Ok(flags) => return Ok(Some(flags)),
            Err(error) => error,
        };
        if matches!(
            error.kind(),
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
        ) {
            return Err(NoSettings::Asked(error.to_string()));
        }
        let text = error.to_string();
        mistakes.push(
            text.trim_start_matches("error: ")
                .split("\n\n")
                .next()
                .unwrap_or_default()
                .trim()
                .to_owned(),
        );
        let Some(at) = named_argument(&error, &args) else {
            return Ok(None);
        };
        let flag = args.remove(at);
        // The argument behind a flag that is unknown, or given once too often, is the flag's
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
    let Some(ContextValue::String(named)) = error.get(ContextKind::InvalidArg) else {
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
