//! Every setting, in the order of `--help`: its flag, kind, default and help. The environment
//! variable, `--help`, the check of the value and the table in docs/settings.md follow from it.
//!
//! A new setting is a constant here, its line in [`ALL`], and its field in
//! [`Settings`](super::Settings).

use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::file;
use super::setting::Preset::{Computed, Unset, Value};
use super::setting::{Declared, SHARED, Setting, Shape, StoreKind};
use super::texts;
use super::tls::{parse_path, parse_tls_place};
use super::value_kind::{Choice, Content, Number, Text, Time, WholeSeconds};
use super::zookeeper::{
    ZOOKEEPER, ZOOKEEPER_AUTH_FILE, ZOOKEEPER_FILE, ZOOKEEPER_IN_FLIGHT, ZOOKEEPER_SESSION,
    ZOOKEEPER_TIMEOUT,
};
use crate::http::auth::Tokens;
use crate::http::origin::OriginPattern;
use crate::log::LogFormat;
use crate::model::signing::Secrets;
use crate::model::status::MAX_TTL_SECONDS;
use crate::net::listener::Address;
use crate::net::network::Network;
use crate::net::passed::Place;
use crate::page::script::Prefix;
use crate::page::wire::Template;
use crate::store::redis::Target;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const YEAR: Duration = Duration::from_secs(31_557_600);

const BYTES: Number = Number {
    unit: "bytes",
    range: 1..=usize::MAX >> 1,
};
const COUNT: Number = count(usize::MAX >> 1);
const TIMEOUT: Time = Time(Duration::from_millis(10)..=HOUR);
const BOOL: Choice<bool> = Choice {
    unit: "bool",
    choices: &[("true", true), ("false", false)],
};
const ADDRESS: Text<Address> = Text {
    unit: "address",
    range: "`host:port` or `unix:/path`",
    parse: |text| Address::parse(text).map_err(for_people),
};

const FILE: Text<PathBuf> = Text {
    unit: "path",
    range: "a readable file",
    parse: parse_path,
};

const PLACE: Text<Place> = Text {
    unit: "address",
    range: "`host:port`, `unix:/path`, or `fd:3` for a socket that systemd passes",
    parse: |text| Place::parse(text).map_err(for_people),
};

/// Returns an error as its text. Every mistake in a setting is only printed.
fn for_people(error: impl Display) -> String {
    error.to_string()
}

const fn count(most: usize) -> Number {
    Number {
        unit: "count",
        range: 1..=most,
    }
}

/// All settings, in the order of `--help`.
pub(super) const ALL: [&dyn Declared; 64] = [
    &PUBLIC,
    &PUBLIC_TLS,
    &TLS_CERT,
    &TLS_KEY,
    &HTTP2,
    &HSTS,
    &PROXY_PROTOCOL,
    &TRUSTED_PROXY,
    &INTERNAL,
    &HOLD,
    &STREAM_LIFE,
    &MAX_KEYS_PER_SOCKET,
    &STATUS_TTL,
    &MAX_VALUE_BYTES,
    &MAX_BODY_BYTES,
    &MAX_INBOUND_BYTES,
    &MAX_BATCH,
    &MAX_STATUSES,
    &MAX_STATUS_BYTES,
    &MAX_WAITERS,
    &MAX_WAITERS_PER_KEY,
    &MAX_WAITERS_PER_ADDRESS,
    &MAX_GETS_PER_ADDRESS,
    &MAX_LEASES,
    &MAX_CONNECTIONS,
    &MAX_HANDSHAKES,
    &HEAD_TIMEOUT,
    &BODY_TIMEOUT,
    &WRITE_TIMEOUT,
    &IDLE_TIMEOUT,
    &DRAIN_NOTICE,
    &DRAIN_QUIET,
    &DRAIN_GRACE,
    &ALLOW_ORIGIN,
    &CALLBACK_PREFIX,
    &RESOURCE_POLICY,
    &WIRE,
    &REDIS,
    &REDIS_FILE,
    &REDIS_CA,
    &REDIS_CERT,
    &REDIS_KEY,
    &REDIS_PREFIX,
    &REDIS_TIMEOUT,
    &REDIS_IN_FLIGHT,
    &ZOOKEEPER,
    &ZOOKEEPER_FILE,
    &ZOOKEEPER_TIMEOUT,
    &ZOOKEEPER_SESSION,
    &ZOOKEEPER_IN_FLIGHT,
    &ZOOKEEPER_AUTH_FILE,
    &RESEND,
    &ADVERTISE,
    &PEER_TIMEOUT,
    &PEER_QUEUE,
    &INTERNAL_TOKEN_FILE,
    &INTERNAL_HOST,
    &KEY_SECRET_FILE,
    &INTERNAL_WITHOUT_TOKEN,
    &THREADS,
    &DEMO,
    &LOG,
    &LOG_FORMAT,
    &CHECK,
];

pub(super) const PUBLIC: Setting<Place> = Setting::new(
    "public",
    &PLACE,
    Value("127.0.0.1:11000"),
    "Address of the public listener, for browsers",
);

pub(super) const PUBLIC_TLS: Setting<Place> = Setting::new(
    "public-tls",
    &Text {
        unit: "address",
        range: "`host:port`, or `fd:3` for a socket that systemd passes",
        parse: parse_tls_place,
    },
    Unset,
    "Address of a public listener with TLS, beside that without. Repeatable",
)
.shape(Shape::List)
.notes("Needs `--tls-cert` and `--tls-key`");

pub(super) const TLS_CERT: Setting<PathBuf> = Setting::new(
    "tls-cert",
    &FILE,
    Unset,
    "File with a certificate for `--public-tls` and those that signed it, in PEM. Repeatable, each \
     with its `--tls-key`",
)
.shape(Shape::List)
.notes(
    "A client gets the certificate of the name that it asks for. The first one also serves clients \
     that ask for no name. The files are read again on SIGHUP, and when they change",
);

pub(super) const TLS_KEY: Setting<PathBuf> = Setting::new(
    "tls-key",
    &FILE,
    Unset,
    "File with the private key of the `--tls-cert` at the same place, in PEM. Repeatable",
)
.shape(Shape::List);

pub(super) const HTTP2: Setting<bool> = Setting::new(
    "http2",
    &BOOL,
    Value("false"),
    "Clients of `--public-tls` may choose HTTP/2",
)
.shape(Shape::Switch)
.notes(
    "All browsers then choose it, and the tabs of a site share one connection for up to 100 \
     requests. That connection takes some 27 KB of memory with one held script, and some 2 KB for \
     each further one. Over HTTP/1.1 each held script has a connection of some 5 KB, and a browser \
     opens at most six to a host",
);

pub(super) const HSTS: Setting<Duration> = Setting::new(
    "hsts",
    &WholeSeconds(Time(SECOND..=YEAR.saturating_mul(2))),
    Unset,
    "Time for which browsers come back to this host only with TLS (`strict-transport-security`)",
)
.notes("Only answers over TLS have the header. It concerns every service of the host");

pub(super) const PROXY_PROTOCOL: Setting<bool> = Setting::new(
    "proxy-protocol",
    &BOOL,
    Value("false"),
    "Each connection of a public listener begins with a header of the PROXY protocol, by which a \
     proxy names its client. Needs `--trusted-proxy`",
)
.shape(Shape::Switch)
.notes(
    "Versions 1 and 2. The header comes before TLS. A connection without a good one is closed, and \
     so is one that does not come from a trusted proxy",
);

pub(super) const TRUSTED_PROXY: Setting<Network> = Setting::new(
    "trusted-proxy",
    &Text {
        unit: "network",
        range: "an IP address, a network such as `10.0.0.0/8`, or `unix:`",
        parse: Network::parse,
    },
    Unset,
    "Network of the proxies that may name their clients with `--proxy-protocol`. Repeatable",
)
.shape(Shape::List)
.notes("`unix:` stands for all that connect to a unix socket");

pub(super) const INTERNAL: Setting<Address> = Setting::new(
    "internal",
    &ADDRESS,
    Value("127.0.0.1:11001"),
    "Address of the internal listener, for backends and operators",
);

pub(super) const HOLD: Setting<Duration> = Setting::new(
    "hold",
    &Time(SECOND..=Duration::from_secs(600)),
    Value("25s"),
    "Longest time that a get is held",
)
.notes("Above 55 s holdfast warns at its start, because many proxies end a request after 60 s");

pub(super) const STREAM_LIFE: Setting<Duration> = Setting::new(
    "stream-life",
    &Time(SECOND..=Duration::from_secs(86_400)),
    Value("10m"),
    "Longest time that an event stream lasts. The browser then reconnects by itself",
)
.notes("Shortened at random by up to a sixteenth");

pub(super) const MAX_KEYS_PER_SOCKET: Setting<usize> = Setting::new(
    "max-keys-per-socket",
    &count(256),
    Value("32"),
    "Largest number of keys that a page may watch on one WebSocket",
);

pub(super) const STATUS_TTL: Setting<Duration> = Setting::new(
    "status-ttl",
    &WholeSeconds(Time(SECOND..=Duration::from_secs(MAX_TTL_SECONDS))),
    Value("300s"),
    "Time to live of a status if its set gives none",
);

pub(super) const MAX_VALUE_BYTES: Setting<usize> = Setting::new(
    "max-value-bytes",
    &BYTES,
    Value("65536"),
    "Largest size of a value",
)
.notes("Must be at most `--max-body-bytes`");

pub(super) const MAX_BODY_BYTES: Setting<usize> = Setting::new(
    "max-body-bytes",
    &BYTES,
    Value("8388608"),
    "Largest size of the body of an internal request",
)
.notes(
    "A longer body is refused with 413. Messages between nodes may be 4 KiB longer than the \
     greater of this and 1 MiB",
);

pub(super) const MAX_INBOUND_BYTES: Setting<usize> = Setting::new(
    "max-inbound-bytes",
    &BYTES,
    Computed("eight of the longest bodies"),
    "Largest total size of the bodies of sets under way, not counting the first 16 KiB of each. \
     Beyond it, sets are refused with 507. Messages of other nodes have a limit of the same size",
)
.notes("A body is under way until its request is answered. Must be at least `--max-body-bytes`");

pub(super) const MAX_BATCH: Setting<usize> = Setting::new(
    "max-batch",
    &COUNT,
    Value("1000"),
    "Largest number of sets in one array",
);

pub(super) const MAX_STATUSES: Setting<usize> = Setting::new(
    "max-statuses",
    &COUNT,
    Value("1000000"),
    "Largest number of statuses in the embedded store. Beyond it, sets are refused with 507",
)
.only_with(&[StoreKind::Embedded, StoreKind::ZooKeeper]);

pub(super) const MAX_STATUS_BYTES: Setting<usize> = Setting::new(
    "max-status-bytes",
    &BYTES,
    Value("1073741824"),
    "Largest total size of the embedded store. A status counts its key, its value and 256 bytes. \
     Beyond it, sets are refused with 507",
)
.notes("Each write of a status that is remembered because of an `id` counts 24 bytes more")
.only_with(&[StoreKind::Embedded]);

pub(super) const MAX_WAITERS: Setting<usize> = Setting::new(
    "max-waiters",
    &COUNT,
    Computed("the connections less a tenth"),
    "Largest number of waiters: held gets, event streams and watched keys of WebSockets. Beyond it, pages are answered busy (-3)",
);

pub(super) const MAX_WAITERS_PER_KEY: Setting<usize> = Setting::new(
    "max-waiters-per-key",
    &COUNT,
    Value("1000"),
    "Largest number of waiters of one key. Beyond it, pages are answered busy (-3)",
)
.notes("The gets of this node are counted, not those of others");

pub(super) const MAX_WAITERS_PER_ADDRESS: Setting<usize> = Setting::new(
    "max-waiters-per-address",
    &COUNT,
    Value("2000"),
    "Largest number of waiters of one client's address. Beyond it, pages are answered busy (-3). \
     For `--public-tls` and with `--proxy-protocol`. If given, for `--public` as well",
)
.notes(ADDRESSES);

pub(super) const MAX_GETS_PER_ADDRESS: Setting<usize> = Setting::new(
    "max-gets-per-address",
    &count(1_000_000),
    Value("200"),
    "Largest number of gets of one client's address in a second. Ten times as many may come at \
     once. Beyond it, pages are answered busy (-3). For `--public-tls` and with \
     `--proxy-protocol`. If given, for `--public` as well",
)
.notes(
    "A request of a page for a status, an event stream or a WebSocket is a get, and so is each \
     message that watches a key. The addresses are counted as for `--max-waiters-per-address`",
);

/// The notes on how addresses are counted.
const ADDRESSES: &str = "IPv6 addresses count by their first 64 bits. Private, shared and loopback \
    addresses have no limit, because they may stand for many clients, unless a trusted proxy names \
    them as its client's. An address of `--trusted-proxy` has none either";

pub(super) const MAX_LEASES: Setting<usize> = Setting::new(
    "max-leases",
    &COUNT,
    Computed("as many as waiters"),
    "Largest number of leases in Redis, one for each key that this node holds a get for. Beyond \
     it, gets are answered busy (-3)",
)
.only_with(&[StoreKind::Redis])
.notes(
    "A lease stays for up to 3 s after the last get of its key has left. Gets that were held \
     while Redis could not be reached get their leases even beyond this limit. There are at most \
     `--max-waiters` of these",
);

pub(super) const MAX_CONNECTIONS: Setting<usize> = Setting::new(
    "max-connections",
    &count(usize::MAX >> 4),
    Computed("what the open-file limit leaves"),
    "Largest number of public connections. Beyond it, new ones wait to be accepted",
);

pub(super) const MAX_HANDSHAKES: Setting<usize> = Setting::new(
    "max-handshakes",
    &count(100_000),
    Value("16"),
    "Largest number of TLS handshakes that are computed at once. Others wait for their turn",
)
.notes(
    "A handshake takes the processor for some 0.1 ms with an ECDSA key, and some 0.8 ms with RSA. \
     Deliveries of statuses come between the turns. A client that is silent has no turn",
);

pub(super) const HEAD_TIMEOUT: Setting<Duration> = Setting::new(
    "head-timeout",
    &TIMEOUT,
    Value("10s"),
    "Time in which a client must send the head of a request, and before that complete the TLS \
     handshake",
);

pub(super) const BODY_TIMEOUT: Setting<Duration> = Setting::new(
    "body-timeout",
    &TIMEOUT,
    Value("10s"),
    "Time in which a client must send the body of a request",
);

pub(super) const WRITE_TIMEOUT: Setting<Duration> = Setting::new(
    "write-timeout",
    &TIMEOUT,
    Value("10s"),
    "Time in which a client must take the next bytes of an answer",
);

pub(super) const IDLE_TIMEOUT: Setting<Duration> = Setting::new(
    "idle-timeout",
    &TIMEOUT,
    Value("75s"),
    "Time for which a connection is kept between two requests",
);

pub(super) const DRAIN_NOTICE: Setting<Duration> = Setting::new(
    "drain-notice",
    &Time(Duration::ZERO..=HOUR),
    Value("8s"),
    "Time between SIGTERM or SIGQUIT and the drain, in which `/health/ready` is 503 already",
)
.notes(
    "Load balancers learn in it that this node ends. `0s`: none. See [how long the notice must \
     be](deployment.md#how-long-the-notice-must-be)",
);

pub(super) const DRAIN_QUIET: Setting<Duration> = Setting::new(
    "drain-quiet",
    &Time(Duration::ZERO..=MINUTE),
    Value("1s"),
    "Time without a new connection after which a drain stops accepting",
)
.notes("Must be at most `--drain-grace`");

pub(super) const DRAIN_GRACE: Setting<Duration> = Setting::new(
    "drain-grace",
    &Time(Duration::ZERO..=Duration::from_secs(600)),
    Value("10s"),
    "Longest time that a drain takes",
);

pub(super) const ALLOW_ORIGIN: Setting<OriginPattern> = Setting::new(
    "allow-origin",
    &Text {
        unit: "origin",
        range: "`https://host`, `http://host:port`, `https://*.example.com` or `*`",
        parse: texts::parse_origin,
    },
    Value("*"),
    "Origins whose pages may read JSON answers and event streams, and open WebSockets, or `*` for all. Repeatable",
)
.shape(Shape::List)
.notes("`https://*.example.com` stands for all hosts below `example.com`, by one label or more, and not for `example.com` itself");

pub(super) const CALLBACK_PREFIX: Setting<Prefix> = Setting::new(
    "callback-prefix",
    &Text {
        unit: "name",
        range: "the beginning of a callback name",
        parse: texts::parse_callback_prefix,
    },
    Computed("nothing"),
    "Prefix that the names in `callback` and `assign` must have",
)
.notes(
    "Other names are refused like [bad names](contract.md#callback-names). A prefix is for \
     example `cb_` or `app.`. If it has a dot or a bracket, assignments are refused. The names of \
     holdfast.js begin with `holdfast_`",
);

pub(super) const RESOURCE_POLICY: Setting<&str> = Setting::new(
    "resource-policy",
    &Choice {
        unit: "policy",
        choices: &[
            ("cross-origin", "cross-origin"),
            ("same-site", "same-site"),
            ("same-origin", "same-origin"),
        ],
    },
    Value("cross-origin"),
    "Cross-Origin-Resource-Policy of scripts",
);

pub(super) const WIRE: Setting<Arc<Template>> = Setting::new(
    "wire",
    &Content(|text| {
        let wire = Template::parse(text).map(Arc::new);
        wire.map_err(|mistakes| mistakes.join("\n"))
    }),
    Unset,
    "File with a template of another service's wire, in JSON. Pages written for that service then \
     wait here. Repeatable",
)
.shape(Shape::List)
.notes("See [Wires of other services](wires.md)");

pub(super) const REDIS: Setting<Target> = Setting::new(
    "redis",
    &Text {
        unit: "URL",
        range: "`redis://`, `redis+sentinel://` or `redis+cluster://`, `rediss` in them for TLS, or `redis+unix:///path`",
        parse: |url| Target::parse(url).map_err(for_people),
    },
    Unset,
    "URL of the Redis that several nodes share. Without it, this process keeps the statuses \
     itself",
)
.secret()
.notes("See [Many nodes, over Redis](cluster.md#many-nodes-over-redis)");

pub(super) const REDIS_FILE: Setting<String> = Setting::new(
    "redis-file",
    &Text {
        unit: "path",
        range: file::RANGE,
        parse: |path| Ok(path.to_owned()),
    },
    Unset,
    "File that contains the URL of `--redis`, for a URL with a password",
)
.notes(
    "Such a URL is refused on the command line. The file is read again for each connection, so \
     that its user and password may change",
);

pub(super) const REDIS_CA: Setting<PathBuf> = Setting::new(
    "redis-ca",
    &FILE,
    Unset,
    "File with the certificates of authorities, in PEM, that sign the certificate of Redis",
)
.only_with(&[StoreKind::Redis])
.notes(
    "Without it, those of the system are trusted, or those in the file that `SSL_CERT_FILE` names. \
     Needs a URL of `rediss`. The file is read again like `--redis-file`",
);

pub(super) const REDIS_CERT: Setting<PathBuf> = Setting::new(
    "redis-cert",
    &FILE,
    Unset,
    "File with the client certificate that Redis asks for, and those that signed it, in PEM. Needs \
     `--redis-key`",
)
.only_with(&[StoreKind::Redis])
.notes("Needs a URL of `rediss`. The file is read again like `--redis-file`");

pub(super) const REDIS_KEY: Setting<PathBuf> = Setting::new(
    "redis-key",
    &FILE,
    Unset,
    "File with the private key of `--redis-cert`, in PEM",
)
.only_with(&[StoreKind::Redis]);

pub(super) const REDIS_PREFIX: Setting<String> = Setting::new(
    "redis-prefix",
    &Text {
        unit: "text",
        range: "up to 64 bytes of printable ASCII",
        parse: texts::parse_redis_prefix,
    },
    Value("holdfast:1:"),
    "Prefix of all keys in Redis",
)
.only_with(&[StoreKind::Redis])
.notes("1 is the number of the layout");

pub(super) const REDIS_TIMEOUT: Setting<Duration> = Setting::new(
    "redis-timeout",
    &Time(Duration::from_millis(10)..=MINUTE),
    Value("500ms"),
    "Longest time that a command to Redis may take",
)
.only_with(&[StoreKind::Redis])
.notes("Redis must accept a connection within the same time");

pub(super) const REDIS_IN_FLIGHT: Setting<usize> = Setting::new(
    "redis-in-flight",
    &count(1 << 20),
    Value("1024"),
    "Largest number of commands to Redis under way",
)
.only_with(&[StoreKind::Redis])
.notes(
    "Half of them are for gets, a quarter for sets and deletions, an eighth for reads by \
     backends, an eighth for recovery and for leases that are given back. If its share is used \
     up, a command waits for up to `--redis-timeout`. After that, sets and short polls are \
     answered -6, and a held get is opened a moment later",
);

pub(super) const RESEND: Setting<Duration> = Setting::new(
    "resend",
    &Time(Duration::ZERO..=HOUR),
    Value("60s"),
    "Time for which this node keeps confirmed sets, to put them again if Redis loses them. `0s`: \
     none",
)
.only_with(SHARED)
.notes("It keeps at most 200,000 keys and 64 MiB for that");

pub(super) const ADVERTISE: Setting<Address> = Setting::new(
    "advertise",
    &Text {
        unit: "URL",
        range: "`http://host:port`",
        parse: |url| Address::of_url(url).map_err(for_people),
    },
    Computed("the internal listener's address"),
    "URL at which other nodes reach this one",
)
.only_with(SHARED)
.notes(
    "If the listener is on all addresses (`0.0.0.0`), the default is the local address from \
     which the node reaches Redis. A loopback address is a mistake if Redis is on another \
     machine. A name is resolved for each new connection",
);

pub(super) const PEER_TIMEOUT: Setting<Duration> = Setting::new(
    "peer-timeout",
    &TIMEOUT,
    Value("1s"),
    "Longest time that another node may take to answer. A node that takes longer is skipped for \
     as long again",
)
.only_with(SHARED)
.notes("Sets name a node that does not answer in `unreachable`");

pub(super) const PEER_QUEUE: Setting<usize> = Setting::new(
    "peer-queue",
    &count(1 << 24),
    Value("10000"),
    "Largest number of updates that wait for one other node",
)
.only_with(SHARED);

pub(super) const INTERNAL_TOKEN_FILE: Setting<Tokens> = Setting::new(
    "internal-token-file",
    &Content(|text| Tokens::parse(text).map_err(for_people)),
    Unset,
    "File with bearer tokens for the internal listener, one a line",
)
.notes(
    "The node accepts all of them, and sends the first to other nodes. Replace a token in three \
     steps, and finish each on all nodes before the next: add the new token as the last line; \
     make it the first line; remove the old token. The file is read again on SIGHUP",
);

pub(super) const INTERNAL_HOST: Setting<String> = Setting::new(
    "internal-host",
    &Text {
        unit: "name",
        range: "a host name, without a port",
        parse: texts::parse_host_name,
    },
    Unset,
    "Host name by which the internal listener may be called if it has no token. Repeatable. IP \
     addresses, localhost, names without a dot, and the hosts of `--internal` and `--advertise` \
     are always allowed",
)
.shape(Shape::List)
.notes(
    "The name is for `GET /keys/{key}`, `/nodes` and `/`. A request under any other name is \
     refused with 403: a web site could point its own name at this address, so that its pages \
     could read the answers (DNS rebinding)",
);

pub(super) const KEY_SECRET_FILE: Setting<Secrets> = Setting::new(
    "key-secret-file",
    &Content(|text| Secrets::parse(text).map_err(for_people)),
    Unset,
    "File with secrets that sign keys, one a line, 32 bytes or more each. With it, only signed \
     keys are accepted",
)
.notes(
    "The first secret signs new keys, and all of them verify keys. The file is read again on \
     SIGHUP. See [Signed keys](signed-keys.md#signed-keys)",
);

pub(super) const INTERNAL_WITHOUT_TOKEN: Setting<bool> = Setting::new(
    "internal-without-token",
    &BOOL,
    Value("false"),
    "Allow an internal listener on a public address without a token",
)
.shape(Shape::Switch)
.notes(
    "Otherwise such a listener needs `--internal-token-file`. Give it only if something else \
     keeps strangers away, such as a firewall or a container's network. `0.0.0.0` and `[::]` \
     count as public. Unix sockets, loopback, link-local and private networks (RFC 1918, 4193, \
     6598) do not",
);

pub(super) const THREADS: Setting<usize> = Setting::new(
    "threads",
    &count(1024),
    Computed("one per core"),
    "Number of runtime threads",
);

pub(super) const DEMO: Setting<bool> = Setting::new(
    "demo",
    &BOOL,
    Value("false"),
    "Serve a demo at `/demo`: a login by QR code",
)
.shape(Shape::Switch)
.notes(
    "It is for trying out, not for production. The demo's keys are signed. Without \
     `--key-secret-file`, each node signs with a secret of its own, so that only that node \
     accepts its keys",
);

pub(super) const LOG: Setting<String> = Setting::new(
    "log",
    &Text {
        unit: "filter",
        range: "`error`, `warn`, `info`, `debug`, `trace`, or a filter of the `tracing` crate",
        parse: texts::parse_log_filter,
    },
    Value("info"),
    "Level of log lines",
);

pub(super) const LOG_FORMAT: Setting<LogFormat> = Setting::new(
    "log-format",
    &Choice {
        unit: "format",
        choices: &[("text", LogFormat::Text), ("json", LogFormat::Json)],
    },
    Value("text"),
    "Format of log lines",
);

pub(super) const CHECK: Setting<bool> = Setting::new(
    "check",
    &BOOL,
    Value("false"),
    "Check the settings and what they name, then exit",
)
.shape(Shape::Bare)
.notes(
    "It connects to the Redis that they name, and binds no address, so it can run beside a node",
);
