//! Every setting. Each is declared once, in [`declarations`]: its flag, environment variable,
//! default, unit, range and help. Only this module reads the environment. It opens no files but
//! those that settings name.
//!
//! All mistakes are reported together, so that an operator does not find them one restart at a
//! time.

pub(crate) mod check;
mod clients;
mod declarations;
mod environment;
mod file;
mod flags;
mod man_page;
mod reader;
mod redis;
mod redis_files;
mod reread;
mod setting;
mod subcommands;
mod table;
mod texts;
mod tls;
mod value_kind;
mod zookeeper;

use std::ffi::OsString;
use std::num::NonZero;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use hyper::header::HeaderValue;

pub use self::clients::ClientSettings;
use self::declarations::*;
use self::reader::SettingReader;
pub use self::reread::RereadFiles;
use self::setting::StoreKind;
pub use self::table::table;
pub use self::tls::TlsSettings;
use crate::http::auth::Tokens;
use crate::http::origin::AllowOrigin;
use crate::log::LogFormat;
use crate::model::signing::Secrets;
use crate::net::listener::Address;
use crate::net::passed::Place;
use crate::page::script::Prefix;
use crate::page::wire::Template;
use crate::store::redis::RedisOptions;
use crate::store::zookeeper::ZooKeeperOptions;

/// The descriptors that connections cannot have: those of the standard streams, the runtime,
/// the listeners, the log and the peers.
const RESERVED_FILES: u64 = 32;
/// The internal listener has one in this many of the other descriptors, up to
/// [`MAX_INTERNAL_CONNECTIONS`].
const INTERNAL_PART: u64 = 8;
const MAX_INTERNAL_CONNECTIONS: u64 = 1024;
/// The number of bodies of the greatest length that may be under way together by default.
const LONGEST_BODIES: usize = 8;

/// The settings that the program runs with, all of them checked.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "each is what its flag's help says")]
pub struct Settings {
    pub public: Place,
    /// TLS on further public listeners, if there are any.
    pub tls: Option<TlsSettings>,
    /// The proxies that name clients' addresses, and the limits of an address.
    pub clients: ClientSettings,
    pub internal: Address,
    pub hold: Duration,
    /// The longest time that an event stream lasts.
    pub stream_life: Duration,
    /// The most keys that a page may watch on one WebSocket.
    pub max_keys_per_socket: usize,
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
    pub drain_notice: Duration,
    pub drain_quiet: Duration,
    pub drain_grace: Duration,
    pub allow_origin: AllowOrigin,
    pub callback_prefix: Prefix,
    pub resource_policy: HeaderValue,
    /// The templates, each with the path of its file.
    pub wires: Vec<(String, Arc<Template>)>,
    pub redis: Option<RedisOptions>,
    pub zookeeper: Option<ZooKeeperOptions>,
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
    /// The files that are read again on SIGHUP.
    pub reread: RereadFiles,
    /// Warnings about settings that are allowed but should be known; logged at the start.
    pub warnings: Vec<String>,
}

impl Settings {
    /// Returns the kind of the store that is named.
    fn store(&self) -> StoreKind {
        match (&self.redis, &self.zookeeper) {
            (Some(_), _) => StoreKind::Redis,
            (None, Some(_)) => StoreKind::ZooKeeper,
            (None, None) => StoreKind::Embedded,
        }
    }

    /// Returns the warnings about settings, and those about the certificates that they name.
    #[must_use]
    pub fn all_warnings(&self) -> Vec<String> {
        let tls = self.tls.as_ref().and_then(|tls| tls.certificates.as_ref());
        let certificates = tls.map(|certificates| certificates.current());
        let of_certificates = certificates.iter().flat_map(|all| all.iter());
        let of_certificates = of_certificates.flat_map(|one| one.warnings.clone());
        self.warnings
            .iter()
            .cloned()
            .chain(of_certificates)
            .collect()
    }
}

/// The reason why there are no settings.
#[derive(Debug)]
pub enum NoSettings {
    /// `--help`, `--version`, `completions` or `man` was given; this text is to be printed.
    Asked(String),
    /// `holdfast health` was given: the node with this internal listener is to be asked. If that
    /// is wrong, the mistakes stand for it.
    Health(Result<Address, Vec<String>>),
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
    let Some(found) = flags::parse(args, &mut mistakes)? else {
        return Err(NoSettings::Mistakes(mistakes));
    };
    mistakes.extend(subcommands::check_beside(&found));
    if mistakes.is_empty()
        && let Some(text) = subcommands::text(&found)
    {
        return Err(NoSettings::Asked(text));
    }
    if let Some(found) = subcommands::of_health(&found) {
        let mut reader = SettingReader::new(found, mistakes);
        let internal = reader.value(&INTERNAL);
        let mistakes = reader.into_mistakes();
        let is_good = mistakes.is_empty();
        return Err(NoSettings::Health(
            is_good.then_some(internal).ok_or(mistakes),
        ));
    }
    let mut reader = SettingReader::new(found, mistakes);
    let mut settings = read(&mut reader, open_files);
    check::together(&settings, &mut reader);
    settings.warnings = check::warnings(&settings, &reader);
    settings.warnings.extend(environment::warnings());
    let mistakes = reader.into_mistakes();
    if mistakes.is_empty() {
        Ok(settings)
    } else {
        Err(NoSettings::Mistakes(mistakes))
    }
}

/// Reads all settings. If there is a mistake in one, its default stands for it: the mistake is
/// noted, and the settings are not used.
fn read(reader: &mut SettingReader, open_files: u64) -> Settings {
    let (max_connections, max_internal_connections) = connections(reader, open_files);
    let max_body_bytes = reader.value(&MAX_BODY_BYTES);
    let max_inbound_bytes = reader.optional(&MAX_INBOUND_BYTES);
    let max_waiters = reader.optional(&MAX_WAITERS);
    let max_waiters = max_waiters.unwrap_or(max_connections - max_connections / 10);
    let cores = || thread::available_parallelism().map_or(1, NonZero::get);
    Settings {
        public: reader.value(&PUBLIC),
        tls: tls::read(reader),
        clients: clients::read(reader),
        internal: reader.value(&INTERNAL),
        hold: reader.value(&HOLD),
        stream_life: reader.value(&STREAM_LIFE),
        max_keys_per_socket: reader.value(&MAX_KEYS_PER_SOCKET),
        status_ttl: reader.value(&STATUS_TTL),
        max_value_bytes: reader.value(&MAX_VALUE_BYTES),
        max_body_bytes,
        max_inbound_bytes: max_inbound_bytes
            .unwrap_or(max_body_bytes.saturating_mul(LONGEST_BODIES)),
        max_batch: reader.value(&MAX_BATCH),
        max_statuses: reader.value(&MAX_STATUSES),
        max_status_bytes: reader.value(&MAX_STATUS_BYTES),
        max_waiters,
        max_waiters_per_key: reader.value(&MAX_WAITERS_PER_KEY),
        max_connections,
        max_internal_connections,
        head_timeout: reader.value(&HEAD_TIMEOUT),
        body_timeout: reader.value(&BODY_TIMEOUT),
        write_timeout: reader.value(&WRITE_TIMEOUT),
        idle_timeout: reader.value(&IDLE_TIMEOUT),
        drain_notice: reader.value(&DRAIN_NOTICE),
        drain_quiet: reader.value(&DRAIN_QUIET),
        drain_grace: reader.value(&DRAIN_GRACE),
        allow_origin: allow_origin(reader),
        callback_prefix: reader.optional(&CALLBACK_PREFIX).unwrap_or_default(),
        resource_policy: HeaderValue::from_static(reader.value(&RESOURCE_POLICY)),
        wires: reader.named_list(&WIRE),
        redis: redis::read(reader, max_waiters),
        zookeeper: zookeeper::read(reader),
        resend: reader.value(&RESEND),
        advertise: reader.optional(&ADVERTISE),
        peer_timeout: reader.value(&PEER_TIMEOUT),
        peer_queue: reader.value(&PEER_QUEUE),
        internal_tokens: reader.optional(&INTERNAL_TOKEN_FILE).unwrap_or_default(),
        internal_hosts: reader.list(&INTERNAL_HOST),
        key_secrets: reader.optional(&KEY_SECRET_FILE),
        internal_without_token: reader.value(&INTERNAL_WITHOUT_TOKEN),
        threads: reader.optional(&THREADS).unwrap_or_else(cores),
        demo: reader.value(&DEMO),
        log: reader.value(&LOG),
        log_format: reader.value(&LOG_FORMAT),
        check: reader.is_on(&CHECK),
        reread: RereadFiles::of(reader),
        warnings: Vec::new(),
    }
}

/// Returns how many connections the two listeners may have, those of the public one first.
fn connections(reader: &mut SettingReader, open_files: u64) -> (usize, usize) {
    let for_connections = open_files.saturating_sub(RESERVED_FILES);
    let internal = (for_connections / INTERNAL_PART).min(MAX_INTERNAL_CONNECTIONS);
    let public = for_connections - internal;
    let as_count = |count: u64| {
        usize::try_from(count)
            .unwrap_or(usize::MAX >> 4)
            .min(usize::MAX >> 4)
    };
    if internal == 0 {
        reader.note(format!(
            "the open-file limit is {open_files}: too few for any connection; raise it (ulimit -n)"
        ));
        return (0, 0);
    }
    let Some(asked) = reader.optional(&MAX_CONNECTIONS) else {
        return (as_count(public), as_count(internal));
    };
    if asked > as_count(public) {
        let mistake = format!(
            "the open-file limit of {open_files} leaves room for {public}; raise it (ulimit -n)"
        );
        reader.refuse_together(&[&MAX_CONNECTIONS], &mistake);
    }
    (asked, as_count(internal))
}

fn allow_origin(reader: &mut SettingReader) -> AllowOrigin {
    let texts = reader.texts(&ALLOW_ORIGIN);
    if !texts.iter().any(|text| text == "*") {
        return AllowOrigin::List(reader.list(&ALLOW_ORIGIN));
    }
    if texts.len() > 1 {
        reader.refuse(&ALLOW_ORIGIN, "*", "* allows all: give it alone");
    }
    AllowOrigin::Any
}

#[cfg(test)]
mod tests {
    use super::setting::SHARED;
    use super::*;

    fn settings(args: &[&str]) -> Result<Settings, Vec<String>> {
        let args = std::iter::once("holdfast")
            .chain(args.iter().copied())
            .map(OsString::from);
        parse(args, 20_000).map_err(|error| match error {
            NoSettings::Asked(text) => vec![text],
            NoSettings::Health(asked) => vec![format!("{asked:?}")],
            NoSettings::Mistakes(mistakes) => mistakes,
        })
    }

    #[test]
    fn the_defaults_are_good() {
        let settings = settings(&[]).expect("good");
        assert_eq!(settings.hold, Duration::from_secs(25));
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
    fn an_unknown_flag_is_answered_with_the_one_that_was_probably_meant() {
        for (args, mistake) in [
            (
                &["--hodl", "3s"][..],
                "unexpected argument '--hodl' found; did you mean '--hold'?",
            ),
            (
                &["--max-waiter=3"],
                "unexpected argument '--max-waiter' found; did you mean '--max-waiters'?",
            ),
            (
                &["--nonsense"],
                "unexpected argument '--nonsense' found; see --help",
            ),
        ] {
            assert_eq!(settings(args).expect_err("a mistake"), [mistake]);
        }
    }

    #[test]
    fn settings_that_have_no_effect_are_warned_of() {
        let redis = ["--redis", "redis://localhost"];
        let given = ["--max-leases", "5", "--advertise", "http://a:1"];
        assert_eq!(
            settings(&given).expect("good").warnings,
            [
                "--max-leases has no effect without --redis",
                "--advertise has no effect without --redis or --zookeeper",
            ]
        );
        let with_redis = settings(&[&redis[..], &given].concat()).expect("good");
        assert!(with_redis.warnings.is_empty());
        let embedded = ["--max-statuses", "5", "--max-status-bytes", "5000"];
        assert!(settings(&embedded).expect("good").warnings.is_empty());
        assert_eq!(
            settings(&[&redis[..], &embedded].concat())
                .expect("good")
                .warnings,
            [
                "--max-statuses has no effect with --redis",
                "--max-status-bytes has no effect with --redis",
            ]
        );
        use StoreKind::{Embedded, Redis, ZooKeeper};
        for (stores, count) in [
            (&[Redis][..], 7),
            (&[ZooKeeper], 4),
            (SHARED, 4),
            (&[Embedded], 1),
            (&[Embedded, ZooKeeper], 1),
        ] {
            let declared = ALL.iter().filter(|one| one.about().stores == stores);
            assert_eq!(declared.count(), count, "{stores:?}");
        }
    }

    #[test]
    fn without_tls_an_address_has_the_limits_that_are_given_or_that_a_proxy_makes_sure() {
        let without_tls = |args: &[&str]| {
            let clients = settings(args).expect("good").clients;
            let limits = [clients.max_waiters, clients.max_gets];
            limits.map(|limit| limit.without_tls())
        };
        assert_eq!(without_tls(&[]), [None, None]);
        let given = ["--max-gets-per-address", "5"];
        assert_eq!(without_tls(&given), [None, Some(5)]);
        let proxies = ["--proxy-protocol", "--trusted-proxy", "10.0.0.0/8"];
        assert_eq!(without_tls(&proxies), [Some(2000), Some(200)]);
    }

    #[test]
    fn origins_are_listed_or_all_allowed() {
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
