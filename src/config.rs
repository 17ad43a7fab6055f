//! Every setting: its flag, environment variable, default and unit, and the checks of its
//! value. Only this module reads the environment. It opens no files but those that settings
//! name.
//!
//! All mistakes are reported together, so that an operator does not find them one restart at a
//! time.

pub(crate) mod exposure;
mod flags;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::num::NonZero;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use hyper::header::HeaderValue;
use hyper::http::uri::Uri;
use tracing_subscriber::EnvFilter;

use self::flags::Flags;
use crate::http::auth::Tokens;
use crate::http::origin::AllowOrigin;
use crate::log::LogFormat;
use crate::model::signing::Secrets;
use crate::model::status::MAX_TTL_SECONDS;
use crate::net::listener::Address;
use crate::page::script::Prefix;
use crate::store::redis::{self, Target};

/// The descriptors that connections cannot have: those of the standard streams, the runtime,
/// the listeners, the log and the peers.
const RESERVED_FILES: u64 = 32;
/// The internal listener has one in this many of the other descriptors, up to
/// [`MAX_INTERNAL_CONNECTIONS`].
const INTERNAL_PART: u64 = 8;
const MAX_INTERNAL_CONNECTIONS: u64 = 1024;
/// The number of bodies of the greatest length that may be under way together by default.
const LONGEST_BODIES: usize = 8;
/// The longest hold that the defaults of proxies do not cut off (nginx and many load balancers:
/// 60 s).
const LONG_HOLD: Duration = Duration::from_secs(55);

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// The settings that the program runs with, all of them checked.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "each is what its flag's help says")]
pub struct Settings {
    pub public: Address,
    pub internal: Address,
    pub hold: Duration,
    pub status_ttl: Duration,
    pub max_value_bytes: usize,
    pub max_body_bytes: usize,
    pub max_inbound_bytes: usize,
    pub max_batch: usize,
    pub max_statuses: usize,
    pub max_status_bytes: usize,
    pub max_waiters: usize,
    pub max_waiters_per_key: usize,
    pub max_connections: usize,
    /// Not a setting: the internal listener's part of the open-file limit.
    pub max_internal_connections: usize,
    pub head_timeout: Duration,
    pub body_timeout: Duration,
    pub write_timeout: Duration,
    pub idle_timeout: Duration,
    pub drain_quiet: Duration,
    pub drain_grace: Duration,
    pub allow_origin: AllowOrigin,
    pub callback_prefix: Prefix,
    pub resource_policy: HeaderValue,
    pub redis: Option<redis::RedisOptions>,
    pub resend: Duration,
    pub advertise: Option<Address>,
    pub peer_timeout: Duration,
    pub peer_queue: usize,
    pub internal_tokens: Tokens,
    pub key_secrets: Option<Secrets>,
    pub internal_without_token: bool,
    pub internal_hosts: Vec<String>,
    pub threads: usize,
    pub demo: bool,
    pub log: String,
    pub log_format: LogFormat,
    pub check: bool,
    /// Warnings about settings that are allowed but should be known; logged at the start.
    pub warnings: Vec<String>,
}

/// The reason why there are no settings.
#[derive(Debug)]
pub enum NoSettings {
    /// `--help` or `--version` was given; this text is to be printed.
    Asked(String),
    /// The mistakes, one text for each.
    Mistakes(Vec<String>),
}

/// Reads the settings from the arguments, which begin with the program's name, and from the
/// environment. A flag wins over its variable. `open_files` is the limit on descriptors that
/// connections have to fit.
///
/// # Errors
/// [`NoSettings`].
pub fn parse(
    args: impl IntoIterator<Item = OsString>,
    open_files: u64,
) -> Result<Settings, NoSettings> {
    let mut mistakes = Vec::new();
    let flags = flags::parse(args, &mut mistakes)?;
    let settings = flags.and_then(|flags| check(flags, open_files, &mut mistakes));
    match settings {
        Some(settings) if mistakes.is_empty() => Ok(settings),
        _ => Err(NoSettings::Mistakes(mistakes)),
    }
}

/// Collects mistakes. A setting that has one becomes `None`.
struct Checker<'a>(&'a mut Vec<String>);

impl Checker<'_> {
    fn checked<T>(&mut self, flag: &str, given: &str, checked: Result<T, String>) -> Option<T> {
        checked
            .map_err(|mistake| {
                self.0
                    .push(format!("--{flag} '{}': {mistake}", given.escape_debug()))
            })
            .ok()
    }

    fn number(&mut self, flag: &str, given: &str, range: RangeInclusive<usize>) -> Option<usize> {
        let parsed = usize::from_str(given).map_err(|_| "not a whole number".to_owned());
        let checked = parsed.and_then(|number| {
            let (least, most) = (range.start(), range.end());
            if range.contains(&number) {
                Ok(number)
            } else {
                Err(format!("must be from {least} to {most}"))
            }
        });
        self.checked(flag, given, checked)
    }

    fn duration(
        &mut self,
        flag: &str,
        given: &str,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let parsed = humantime::parse_duration(given)
            .map_err(|error| format!("{error}; write it as 25s or 500ms"));
        let checked = parsed.and_then(|duration| {
            let (least, most) = (
                humantime::format_duration(*range.start()),
                humantime::format_duration(*range.end()),
            );
            if range.contains(&duration) {
                Ok(duration)
            } else {
                Err(format!("must be from {least} to {most}"))
            }
        });
        self.checked(flag, given, checked)
    }

    /// Reads and parses a file. Returns `Some(None)` if no file is named.
    fn file<T>(
        &mut self,
        flag: &str,
        path: Option<&str>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<Option<T>> {
        let Some(path) = path else { return Some(None) };
        let text =
            std::fs::read_to_string(path).map_err(|error| format!("cannot read it: {error}"));
        self.checked(flag, path, text.and_then(|text| parse(&text)))
            .map(Some)
    }

    fn one_of<T: Copy>(&mut self, flag: &str, given: &str, choices: &[(&str, T)]) -> Option<T> {
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        let found = choices
            .iter()
            .find(|(name, _)| *name == given)
            .map(|(_, choice)| *choice);
        self.checked(
            flag,
            given,
            found.ok_or_else(|| format!("not one of {}", names.join(", "))),
        )
    }
}

fn check(flags: Flags, open_files: u64, mistakes: &mut Vec<String>) -> Option<Settings> {
    let mut check = Checker(mistakes);
    let many = 1..=usize::MAX >> 1;
    let a_while = MILLISECOND * 10..=MINUTE * 60;

    let public = check.checked("public", &flags.public, Address::parse(&flags.public));
    let internal = check.checked("internal", &flags.internal, Address::parse(&flags.internal));
    let hold = check.duration("hold", &flags.hold, SECOND..=MINUTE * 10);
    let status_ttl = check.duration(
        "status-ttl",
        &flags.status_ttl,
        SECOND..=Duration::from_secs(MAX_TTL_SECONDS),
    );
    let max_value_bytes = check.number("max-value-bytes", &flags.max_value_bytes, many.clone());
    let max_body_bytes = check.number("max-body-bytes", &flags.max_body_bytes, many.clone());
    let max_inbound_bytes = match &flags.max_inbound_bytes {
        Some(bytes) => check.number("max-inbound-bytes", bytes, many.clone()),
        None => max_body_bytes.map(|bytes| bytes.saturating_mul(LONGEST_BODIES)),
    };
    let max_batch = check.number("max-batch", &flags.max_batch, many.clone());
    let max_statuses = check.number("max-statuses", &flags.max_statuses, many.clone());
    let max_status_bytes = check.number("max-status-bytes", &flags.max_status_bytes, many.clone());
    let max_waiters_per_key = check.number(
        "max-waiters-per-key",
        &flags.max_waiters_per_key,
        many.clone(),
    );
    let head_timeout = check.duration("head-timeout", &flags.head_timeout, a_while.clone());
    let body_timeout = check.duration("body-timeout", &flags.body_timeout, a_while.clone());
    let write_timeout = check.duration("write-timeout", &flags.write_timeout, a_while.clone());
    let idle_timeout = check.duration("idle-timeout", &flags.idle_timeout, a_while.clone());
    let drain_quiet = check.duration("drain-quiet", &flags.drain_quiet, Duration::ZERO..=MINUTE);
    let drain_grace = check.duration(
        "drain-grace",
        &flags.drain_grace,
        Duration::ZERO..=MINUTE * 10,
    );
    let allow_origin = check_origins(&mut check, &flags.allow_origin);
    let callback_prefix = match &flags.callback_prefix {
        Some(prefix) => {
            let mistake = "not the beginning of a name that may be called, as cb_ or app.";
            check.checked(
                "callback-prefix",
                prefix,
                Prefix::parse(prefix).ok_or_else(|| mistake.to_owned()),
            )
        }
        None => Some(Prefix::default()),
    };
    let resource_policy = check.one_of(
        "resource-policy",
        &flags.resource_policy,
        &[
            ("cross-origin", "cross-origin"),
            ("same-site", "same-site"),
            ("same-origin", "same-origin"),
        ],
    );
    let resend = check.duration("resend", &flags.resend, Duration::ZERO..=MINUTE * 60);
    let advertise = match &flags.advertise {
        Some(url) => check
            .checked("advertise", url, Address::of_url(url))
            .map(Some),
        None => Some(None),
    };
    let peer_timeout = check.duration("peer-timeout", &flags.peer_timeout, a_while);
    let peer_queue = check.number("peer-queue", &flags.peer_queue, 1..=1 << 24);
    let internal_tokens = check.file(
        "internal-token-file",
        flags.internal_token_file.as_deref(),
        Tokens::parse,
    );
    let key_secrets = check.file(
        "key-secret-file",
        flags.key_secret_file.as_deref(),
        Secrets::parse,
    );
    let without_token = check.one_of(
        "internal-without-token",
        &flags.internal_without_token,
        &[("true", true), ("false", false)],
    );
    let names = flags
        .internal_host
        .iter()
        .map(|name| check.checked("internal-host", name, parse_name(name)));
    let internal_hosts = names
        .collect::<Vec<_>>()
        .into_iter()
        .collect::<Option<Vec<_>>>();
    let threads = match &flags.threads {
        Some(threads) => check.number("threads", threads, 1..=1024),
        None => Some(std::thread::available_parallelism().map_or(1, NonZero::get)),
    };
    check.checked(
        "log",
        &flags.log,
        EnvFilter::from_str(&flags.log).map_err(|error| error.to_string()),
    );
    let log_format = check.one_of(
        "log-format",
        &flags.log_format,
        &[("text", LogFormat::Text), ("json", LogFormat::Json)],
    );
    let demo = check.one_of("demo", &flags.demo, &[("true", true), ("false", false)]);
    let connections = check_connections(&mut check, flags.max_connections.as_deref(), open_files);
    let max_waiters = match &flags.max_waiters {
        Some(waiters) => check.number("max-waiters", waiters, many),
        None => connections.map(|(public, _)| public - public / 10),
    };
    let max_leases = match &flags.max_leases {
        Some(leases) => check.number("max-leases", leases, 1..=usize::MAX >> 1),
        None => max_waiters,
    };
    let redis = check_redis(&mut check, &flags, max_leases);

    if let (Some(ttl), false) = (
        status_ttl,
        status_ttl.is_some_and(|ttl| ttl.subsec_nanos() == 0),
    ) {
        let ttl = humantime::format_duration(ttl).to_string();
        check.checked::<()>("status-ttl", &ttl, Err("not whole seconds".into()));
    }
    if let (Some(value), Some(body)) = (max_value_bytes, max_body_bytes)
        && value > body
    {
        check.checked::<()>(
            "max-value-bytes",
            &value.to_string(),
            Err(format!("more than --max-body-bytes {body}")),
        );
    }
    if let (Some(body), Some(inbound)) = (max_body_bytes, max_inbound_bytes)
        && body > inbound
    {
        let mistake = Err(format!("less than --max-body-bytes {body}"));
        check.checked::<()>("max-inbound-bytes", &inbound.to_string(), mistake);
    }
    if let (Some(quiet), Some(grace)) = (drain_quiet, drain_grace)
        && quiet > grace
    {
        let mistake = format!("longer than --drain-grace {}", flags.drain_grace);
        check.checked::<()>("drain-quiet", &flags.drain_quiet, Err(mistake));
    }
    if public.is_some() && public == internal && !flags.public.ends_with(":0") {
        check.checked::<()>(
            "internal",
            &flags.internal,
            Err("the same address as --public".into()),
        );
    }
    if let (Some(Address::Unix(_)), Some(Some(_)), None) = (&internal, &redis, &flags.advertise) {
        let mistake =
            "other nodes do not reach a unix socket: give --advertise http://host:port too";
        check.checked::<()>("internal", &flags.internal, Err(mistake.into()));
    }
    // Only an address is checked here. A name is resolved and checked at the start.
    let is_public = flags
        .internal
        .parse()
        .is_ok_and(|address: SocketAddr| exposure::is_public(address.ip()));
    let asks_token = internal_tokens.as_ref().is_none_or(Option::is_some);
    if is_public && !asks_token && without_token == Some(false) {
        check.checked::<()>("internal", &flags.internal, Err(exposure::MISTAKE.into()));
    }
    let long_hold = hold.filter(|hold| *hold > LONG_HOLD).map(|_| {
        let hold = &flags.hold;
        format!(
            "--hold {hold} is longer than many proxies wait for an answer (60s); see that each on the way waits longer"
        )
    });
    let signs_alone = matches!(
        (demo, &redis, &key_secrets),
        (Some(true), Some(Some(_)), Some(None))
    );
    let demo_of_one = signs_alone.then(|| {
        "--demo with --redis but without --key-secret-file: a code's page is heard only by the node that made the code"
            .to_owned()
    });

    let (max_connections, max_internal_connections) = connections?;
    Some(Settings {
        public: public?,
        internal: internal?,
        hold: hold?,
        status_ttl: status_ttl?,
        max_value_bytes: max_value_bytes?,
        max_body_bytes: max_body_bytes?,
        max_inbound_bytes: max_inbound_bytes?,
        max_batch: max_batch?,
        max_statuses: max_statuses?,
        max_status_bytes: max_status_bytes?,
        max_waiters: max_waiters?,
        max_waiters_per_key: max_waiters_per_key?,
        max_connections,
        max_internal_connections,
        head_timeout: head_timeout?,
        body_timeout: body_timeout?,
        write_timeout: write_timeout?,
        idle_timeout: idle_timeout?,
        drain_quiet: drain_quiet?,
        drain_grace: drain_grace?,
        allow_origin: allow_origin?,
        callback_prefix: callback_prefix?,
        resource_policy: HeaderValue::from_static(resource_policy?),
        redis: redis?,
        resend: resend?,
        advertise: advertise?,
        peer_timeout: peer_timeout?,
        peer_queue: peer_queue?,
        internal_tokens: internal_tokens?.unwrap_or_default(),
        key_secrets: key_secrets?,
        internal_without_token: without_token?,
        internal_hosts: internal_hosts?,
        threads: threads?,
        demo: demo?,
        log: flags.log,
        log_format: log_format?,
        check: flags.check,
        warnings: long_hold.into_iter().chain(demo_of_one).collect(),
    })
}

/// Checks the settings of Redis. Returns `Some(None)` if no Redis is named. Mistakes do not
/// repeat a URL, because there may be a password in it.
fn check_redis(
    check: &mut Checker<'_>,
    flags: &Flags,
    max_leases: Option<usize>,
) -> Option<Option<redis::RedisOptions>> {
    let prefix = &flags.redis_prefix;
    let good_prefix = prefix.len() <= 64 && prefix.bytes().all(|byte| byte.is_ascii_graphic());
    let good_prefix = if good_prefix {
        Ok(())
    } else {
        Err("not up to 64 bytes of printable ASCII".to_owned())
    };
    let good_prefix = check.checked("redis-prefix", prefix, good_prefix);
    let timeout = check.duration(
        "redis-timeout",
        &flags.redis_timeout,
        MILLISECOND * 10..=MINUTE,
    );
    let in_flight = check.number("redis-in-flight", &flags.redis_in_flight, 1..=1 << 20);
    let of_file = flags.redis_file.as_ref().map(|path| {
        let text =
            std::fs::read_to_string(path).map_err(|error| format!("cannot read '{path}': {error}"));
        text.and_then(|text| Target::parse(text.trim()))
    });
    let of_flag = flags.redis.as_ref().map(|url| {
        let target = Target::parse(url)?;
        if flags.redis_is_shown && target.has_password() {
            let instead = "write the URL into HOLDFAST_REDIS, or into a file that is named instead";
            return Err(format!(
                "a password on the command line is read by every user of the machine; {instead}"
            ));
        }
        Ok(target)
    });
    let mut noted = |flag: &str, target: Option<Result<Target, String>>| {
        target.map(|target| {
            target
                .map_err(|mistake| check.0.push(format!("--{flag}: {mistake}")))
                .ok()
        })
    };
    let target = match (noted("redis", of_flag), noted("redis-file", of_file)) {
        (None, None) => return Some(None),
        (Some(Some(_)), Some(Some(_))) => {
            check
                .0
                .push("--redis: given beside --redis-file; give one of them".into());
            None
        }
        (Some(target), None) | (None, Some(target)) => target,
        _ => None,
    };
    good_prefix?;
    Some(Some(redis::RedisOptions {
        target: target?,
        prefix: prefix.clone(),
        timeout: timeout?,
        in_flight: in_flight?,
        max_leases: max_leases?,
    }))
}

/// Returns how many connections the two listeners may have, those of the public one first.
fn check_connections(
    check: &mut Checker<'_>,
    given: Option<&str>,
    open_files: u64,
) -> Option<(usize, usize)> {
    let for_connections = open_files.saturating_sub(RESERVED_FILES);
    let internal = (for_connections / INTERNAL_PART).min(MAX_INTERNAL_CONNECTIONS);
    let public = for_connections - internal;
    let as_count = |count: u64| {
        usize::try_from(count)
            .unwrap_or(usize::MAX >> 4)
            .min(usize::MAX >> 4)
    };
    if internal == 0 {
        check.0.push(format!(
            "the open-file limit is {open_files}: too few for any connection; raise it (ulimit -n)"
        ));
        return None;
    }
    let Some(given) = given else {
        return Some((as_count(public), as_count(internal)));
    };
    let asked = check.number("max-connections", given, 1..=usize::MAX >> 4)?;
    let fits = if asked <= as_count(public) {
        Ok((asked, as_count(internal)))
    } else {
        Err(format!(
            "the open-file limit of {open_files} leaves room for {public}; raise it (ulimit -n)"
        ))
    };
    check.checked("max-connections", given, fits)
}

fn check_origins(check: &mut Checker<'_>, given: &[String]) -> Option<AllowOrigin> {
    if given.iter().any(|origin| origin == "*") {
        let alone = if given.len() == 1 {
            Ok(AllowOrigin::Any)
        } else {
            Err("* allows all: give it alone".into())
        };
        return check.checked("allow-origin", "*", alone);
    }
    let origins: Vec<_> = given
        .iter()
        .map(|origin| check.checked("allow-origin", origin, parse_origin(origin)))
        .collect();
    origins
        .into_iter()
        .collect::<Option<_>>()
        .map(AllowOrigin::List)
}

/// Parses a host's name as a `host` header has it, without the port.
fn parse_name(text: &str) -> Result<String, String> {
    let good = (1..=253).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
    if good {
        Ok(text.to_owned())
    } else {
        Err("not a host's name: write push-1.example.com, without a port".into())
    }
}

/// Parses an origin as browsers send it. Origins are compared byte for byte, so one that no
/// browser sends is a mistake.
fn parse_origin(text: &str) -> Result<HeaderValue, String> {
    let uri = Uri::from_str(text)
        .map_err(|_| "not an origin: write https://host or https://host:port".to_owned())?;
    let as_sent = match (uri.scheme_str(), uri.authority()) {
        (Some(scheme), Some(authority)) => format!("{scheme}://{authority}").to_ascii_lowercase(),
        _ => return Err("not an origin: write https://host or https://host:port".into()),
    };
    let default_port = as_sent.starts_with("https://") && as_sent.ends_with(":443")
        || as_sent.starts_with("http://") && as_sent.ends_with(":80");
    if default_port {
        return Err("browsers leave the default port out".into());
    }
    if as_sent != text || text.contains('@') {
        return Err(format!("not as browsers send it, which is {as_sent}"));
    }
    HeaderValue::from_str(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(args: &[&str]) -> Result<Settings, Vec<String>> {
        let args = std::iter::once("holdfast")
            .chain(args.iter().copied())
            .map(OsString::from);
        parse(args, 20_000).map_err(|error| match error {
            NoSettings::Asked(text) => vec![text],
            NoSettings::Mistakes(mistakes) => mistakes,
        })
    }

    #[test]
    fn the_defaults_are_good() {
        let settings = settings(&[]).expect("good");
        assert_eq!(settings.hold, SECOND * 25);
        assert_eq!(
            (settings.max_connections, settings.max_internal_connections),
            (18_944, 1_024)
        );
        assert_eq!(settings.max_waiters, 17_050);
        assert!(settings.warnings.is_empty());
    }

    #[test]
    fn all_mistakes_are_told_together() {
        let args = [
            "--hold",
            "25",
            "--nonsense",
            "--public=11000",
            "--hodl=3s",
            "--max-batch",
            "0",
            "stray",
            "--log-format",
            "xml",
        ];
        let mistakes = settings(&args).expect_err("mistakes");
        for named in [
            "--hold '25'",
            "--nonsense",
            "--public '11000'",
            "--hodl",
            "--max-batch '0'",
            "stray",
            "--log-format 'xml'",
        ] {
            assert!(
                mistakes.iter().any(|mistake| mistake.contains(named)),
                "{named}: {mistakes:#?}"
            );
        }
        assert_eq!(mistakes.len(), 7, "{mistakes:#?}");
    }

    #[test]
    fn settings_that_do_not_go_together_are_mistakes() {
        for args in [
            &["--drain-quiet", "20s"][..],
            &["--max-value-bytes", "9000000"],
            &["--max-connections", "20000"],
            &["--internal", "127.0.0.1:11000"],
            &["--internal", "0.0.0.0:11001"],
            &["--max-inbound-bytes", "8388607"],
            &["--status-ttl", "1500ms"],
            &["--hold", "1s", "--hold", "2s"],
            &["--hold"],
        ] {
            let mistakes = settings(args).expect_err("a mistake");
            assert_eq!(mistakes.len(), 1, "{mistakes:?}");
        }
        for args in [
            &["--hold", "56s"][..],
            &["--demo", "--redis", "redis://localhost"],
        ] {
            assert_eq!(settings(args).expect("good").warnings.len(), 1, "{args:?}");
        }
    }

    #[test]
    fn an_origin_is_what_browsers_send() {
        for good in [
            "https://a.example",
            "http://localhost:8080",
            "http://[::1]:3000",
        ] {
            assert!(parse_origin(good).is_ok(), "{good}");
        }
        for bad in [
            "a.example",
            "https://a.example/",
            "https://A.example",
            "https://a.example:443",
            "https://u@a.example",
            "null",
            "",
        ] {
            assert!(parse_origin(bad).is_err(), "{bad}");
        }
        assert_eq!(
            settings(&["--allow-origin", "https://a.example,*"])
                .expect_err("both")
                .len(),
            1
        );
        let two = settings(&[
            "--allow-origin",
            "https://a.example",
            "--allow-origin",
            "https://b.example",
        ])
        .expect("good");
        assert!(matches!(two.allow_origin, AllowOrigin::List(origins) if origins.len() == 2));
    }
}
