//! The flags and variables as clap reads them: names, defaults, help. What they mean is `config`'s.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args as _, Command, FromArgMatches, Parser};

use super::NoSettings;

/// The flags as they are given. All are text here, so that each is checked even where another is wrong.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, about, max_term_width = 110, disable_help_subcommand = true)]
pub(super) struct Flags {
    /// Public listener, for browsers: host:port or unix:/path
    #[arg(long, env = "HOLDFAST_PUBLIC", default_value = "127.0.0.1:11000", value_name = "ADDRESS")]
    pub(super) public: String,
    /// Internal listener, for backends and operators: host:port or unix:/path
    #[arg(long, env = "HOLDFAST_INTERNAL", default_value = "127.0.0.1:11001", value_name = "ADDRESS")]
    pub(super) internal: String,
    /// Longest time that a get is held, 1s to 10m
    #[arg(long, env = "HOLDFAST_HOLD", default_value = "25s", value_name = "DURATION")]
    pub(super) hold: String,
    /// Time to live of a status whose set gives none, 1s to 7days, whole seconds
    #[arg(long, env = "HOLDFAST_STATUS_TTL", default_value = "300s", value_name = "DURATION")]
    pub(super) status_ttl: String,
    /// Longest value
    #[arg(long, env = "HOLDFAST_MAX_VALUE_BYTES", default_value = "65536", value_name = "BYTES")]
    pub(super) max_value_bytes: String,
    /// Longest body of an internal request
    #[arg(long, env = "HOLDFAST_MAX_BODY_BYTES", default_value = "8388608", value_name = "BYTES")]
    pub(super) max_body_bytes: String,
    /// Most bytes of bodies under way, the first 16 KiB of each not counted; beyond, they are refused with 507. What nodes
    /// tell each other has as much for itself [default: eight of the longest bodies]
    #[arg(long, env = "HOLDFAST_MAX_INBOUND_BYTES", value_name = "BYTES")]
    pub(super) max_inbound_bytes: Option<String>,
    /// Most sets in one array
    #[arg(long, env = "HOLDFAST_MAX_BATCH", default_value = "1000", value_name = "COUNT")]
    pub(super) max_batch: String,
    /// Most statuses in the embedded store; beyond, sets are refused with 507
    #[arg(long, env = "HOLDFAST_MAX_STATUSES", default_value = "1000000", value_name = "COUNT")]
    pub(super) max_statuses: String,
    /// Most bytes in the embedded store, a status counting its key, its value and 256; beyond, sets are refused with 507
    #[arg(long, env = "HOLDFAST_MAX_STATUS_BYTES", default_value = "1073741824", value_name = "BYTES")]
    pub(super) max_status_bytes: String,
    /// Most gets held at once; beyond, they are answered busy [default: the connections less a tenth]
    #[arg(long, env = "HOLDFAST_MAX_WAITERS", value_name = "COUNT")]
    pub(super) max_waiters: Option<String>,
    /// Most gets held for one key; beyond, they are answered busy
    #[arg(long, env = "HOLDFAST_MAX_WAITERS_PER_KEY", default_value = "1000", value_name = "COUNT")]
    pub(super) max_waiters_per_key: String,
    /// Most public connections; beyond, they wait to be accepted [default: what the open-file limit leaves]
    #[arg(long, env = "HOLDFAST_MAX_CONNECTIONS", value_name = "COUNT")]
    pub(super) max_connections: Option<String>,
    /// Time that a request's head may take
    #[arg(long, env = "HOLDFAST_HEAD_TIMEOUT", default_value = "10s", value_name = "DURATION")]
    pub(super) head_timeout: String,
    /// Time that a request's body may take
    #[arg(long, env = "HOLDFAST_BODY_TIMEOUT", default_value = "10s", value_name = "DURATION")]
    pub(super) body_timeout: String,
    /// Time until a client must take the next bytes of an answer
    #[arg(long, env = "HOLDFAST_WRITE_TIMEOUT", default_value = "10s", value_name = "DURATION")]
    pub(super) write_timeout: String,
    /// Time that a connection may wait for its next request
    #[arg(long, env = "HOLDFAST_IDLE_TIMEOUT", default_value = "75s", value_name = "DURATION")]
    pub(super) idle_timeout: String,
    /// A drain goes on accepting until no connection came for this long
    #[arg(long, env = "HOLDFAST_DRAIN_QUIET", default_value = "1s", value_name = "DURATION")]
    pub(super) drain_quiet: String,
    /// A drain ends after this at the latest
    #[arg(long, env = "HOLDFAST_DRAIN_GRACE", default_value = "10s", value_name = "DURATION")]
    pub(super) drain_grace: String,
    /// Origins whose pages may read JSON answers, or * for all; repeatable
    #[arg(long, env = "HOLDFAST_ALLOW_ORIGIN", default_value = "*", value_name = "ORIGIN", value_delimiter = ',')]
    pub(super) allow_origin: Vec<String>,
    /// Cross-origin-resource-policy of scripts: cross-origin, same-site or same-origin
    #[arg(long, env = "HOLDFAST_RESOURCE_POLICY", default_value = "cross-origin", value_name = "POLICY")]
    pub(super) resource_policy: String,
    /// Redis that several nodes share: redis://, redis+sentinel:// or redis+cluster://, or rediss for TLS; without it
    /// statuses live in this process
    #[arg(long, env = "HOLDFAST_REDIS", value_name = "URL", hide_env_values = true)]
    pub(super) redis: Option<String>,
    /// File with the URL of --redis, for one with a password
    #[arg(long, env = "HOLDFAST_REDIS_FILE", value_name = "PATH")]
    pub(super) redis_file: Option<String>,
    /// What all keys in Redis begin with
    #[arg(long, env = "HOLDFAST_REDIS_PREFIX", default_value = "holdfast:1:", value_name = "TEXT")]
    pub(super) redis_prefix: String,
    /// Time that a command to Redis may take
    #[arg(long, env = "HOLDFAST_REDIS_TIMEOUT", default_value = "500ms", value_name = "DURATION")]
    pub(super) redis_timeout: String,
    /// Most commands to Redis under way
    #[arg(long, env = "HOLDFAST_REDIS_IN_FLIGHT", default_value = "1024", value_name = "COUNT")]
    pub(super) redis_in_flight: String,
    /// Sets that were confirmed within this time are put again where Redis may have lost them; 0s: none
    #[arg(long, env = "HOLDFAST_RESEND", default_value = "60s", value_name = "DURATION")]
    pub(super) resend: String,
    /// URL at which other nodes reach this one: http://host:port [default: the internal listener's address]
    #[arg(long, env = "HOLDFAST_ADVERTISE", value_name = "URL")]
    pub(super) advertise: Option<String>,
    /// Time that another node may take to answer; then it is passed over for as long
    #[arg(long, env = "HOLDFAST_PEER_TIMEOUT", default_value = "1s", value_name = "DURATION")]
    pub(super) peer_timeout: String,
    /// Most updates that wait for one other node
    #[arg(long, env = "HOLDFAST_PEER_QUEUE", default_value = "10000", value_name = "COUNT")]
    pub(super) peer_queue: String,
    /// File with bearer tokens for the internal listener, one a line
    #[arg(long, env = "HOLDFAST_INTERNAL_TOKEN_FILE", value_name = "PATH")]
    pub(super) internal_token_file: Option<String>,
    /// Name by which the internal listener may be asked for what it knows, where it asks for no token; repeatable. Addresses,
    /// localhost, names without a dot, and the hosts of --internal and --advertise need not be given
    #[arg(long, env = "HOLDFAST_INTERNAL_HOST", value_name = "NAME", value_delimiter = ',')]
    pub(super) internal_host: Vec<String>,
    /// File with secrets that keys are signed with, one a line of 32 bytes or more; with it only signed keys are good
    #[arg(long, env = "HOLDFAST_KEY_SECRET_FILE", value_name = "PATH")]
    pub(super) key_secret_file: Option<String>,
    /// Serve the internal listener to a public address without a token
    #[arg(long, env = "HOLDFAST_INTERNAL_WITHOUT_TOKEN", value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_value = "false", default_missing_value = "true", hide_default_value = true)]
    pub(super) internal_without_token: String,
    /// Runtime threads [default: one per core]
    #[arg(long, env = "HOLDFAST_THREADS", value_name = "COUNT")]
    pub(super) threads: Option<String>,
    /// Serve a login by QR code to try, at /demo
    #[arg(long, env = "HOLDFAST_DEMO", value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_value = "false", default_missing_value = "true", hide_default_value = true)]
    pub(super) demo: String,
    /// What to log: error, warn, info, debug, trace, or a tracing filter
    #[arg(long, env = "HOLDFAST_LOG", default_value = "info", value_name = "FILTER")]
    pub(super) log: String,
    /// Form of log lines: text or json
    #[arg(long, env = "HOLDFAST_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    pub(super) log_format: String,
    /// Check the settings and what they name, and exit
    #[arg(long)]
    pub(super) check: bool,
    /// Whether --redis was given as an argument, which every user of the machine can read.
    #[arg(skip)]
    pub(super) redis_is_shown: bool,
}

/// Parses the flags. clap tells one mistake at a time; so what it names is noted and taken out, and it is asked
/// again, until it is content or has nothing to take out.
pub(super) fn parse(
    args: impl IntoIterator<Item = OsString>,
    mistakes: &mut Vec<String>,
) -> Result<Option<Flags>, NoSettings> {
    let mut args = joined(args);
    let command = Flags::augment_args(Command::new("holdfast"));
    loop {
        let read = |found: ArgMatches| {
            let redis_is_shown = found.value_source("redis") == Some(ValueSource::CommandLine);
            Ok(Flags { redis_is_shown, ..Flags::from_arg_matches(&found)? })
        };
        let error = match command.clone().try_get_matches_from(&args).and_then(read) {
            Ok(flags) => return Ok(Some(flags)),
            Err(error) => error,
        };
        if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
            return Err(NoSettings::Asked(error.to_string()));
        }
        let text = error.to_string();
        mistakes.push(text.trim_start_matches("error: ").split("\n\n").next().unwrap_or_default().trim().to_owned());
        let Some(at) = named_argument(&error, &args) else { return Ok(None) };
        let flag = args.remove(at);
        // What follows a flag that is not known, or is one too many, is its value and no mistake of its own.
        let takes_value = error.kind() != ErrorKind::InvalidValue && !flag.to_string_lossy().contains('=');
        if takes_value && flag.to_string_lossy().starts_with("--") && args.get(at).is_some_and(is_value) {
            args.remove(at);
        }
    }
}

/// The arguments, with a negative number joined to the flag before it: clap would read `-1s` as short flags, and say
/// nothing of the flag whose value it is.
fn joined(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut joined: Vec<OsString> = Vec::new();
    for arg in args {
        let is_negative = arg.to_str().is_some_and(|arg| {
            arg.strip_prefix('-')
                .is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit() || first == '.'))
        });
        match joined.last_mut().filter(|last| is_negative && is_long_flag(last)) {
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
    arg.to_str().is_some_and(|arg| arg.starts_with("--") && !arg.contains('='))
}

fn is_value(arg: &OsString) -> bool {
    !arg.to_string_lossy().starts_with('-')
}

/// The argument that an error is about, by its place.
fn named_argument(error: &clap::Error, args: &[OsString]) -> Option<usize> {
    let Some(ContextValue::String(named)) = error.get(ContextKind::InvalidArg) else { return None };
    // It is named as `--flag <VALUE>`, `--flag[=<VALUE>]`, `--flag=value` or `value`.
    let flag = named.split([' ', '=', '[']).next().unwrap_or(named);
    let is_it = |arg: &OsString| arg.to_str().is_some_and(|arg| arg == flag || arg.split('=').next() == Some(flag));
    let rest = || args.iter().enumerate().skip(1).filter(|(_, arg)| is_it(arg)).map(|(at, _)| at);
    // Of a flag that is given twice the second is the mistake; else it is the first that clap stopped at.
    if error.kind() == ErrorKind::ArgumentConflict { rest().next_back() } else { rest().next() }
}
