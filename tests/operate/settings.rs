//! Tests of the settings: the list of `--help`, the values that are accepted, and that all
//! mistakes are reported together.

mod start;

use std::collections::BTreeSet;

use holdfast_testkit::{Finished, Launch, Scratch};

/// The kind of value that a setting takes, from which follow the values that it must refuse.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Address,
    Callback,
    Duration,
    Number,
    Origin,
    Choice,
    Filter,
    File,
    Redis,
    ZooKeeper,
    Prefix,
    Url,
    Name,
    Network,
    /// A flag without a value.
    Switch,
}
use Kind::{
    Address, Callback, Choice, Duration as Time, File, Filter, Name, Network, Number, Origin,
    Prefix, Redis, Switch, Url, ZooKeeper,
};

/// The contract's settings: the flag, the default as `--help` shows it, and the kind.
const SETTINGS: [(&str, Option<&str>, Kind); 63] = [
    ("--public", Some("127.0.0.1:11000"), Address),
    ("--public-tls", None, Address),
    ("--tls-cert", None, File),
    ("--tls-key", None, File),
    ("--http2", None, Switch),
    ("--hsts", None, Time),
    ("--proxy-protocol", None, Switch),
    ("--trusted-proxy", None, Network),
    ("--internal", Some("127.0.0.1:11001"), Address),
    ("--hold", Some("25s"), Time),
    ("--stream-life", Some("10m"), Time),
    ("--max-keys-per-socket", Some("32"), Number),
    ("--status-ttl", Some("300s"), Time),
    ("--max-value-bytes", Some("65536"), Number),
    ("--max-body-bytes", Some("8388608"), Number),
    (
        "--max-inbound-bytes",
        Some("eight of the longest bodies"),
        Number,
    ),
    ("--max-batch", Some("1000"), Number),
    ("--max-statuses", Some("1000000"), Number),
    ("--max-status-bytes", Some("1073741824"), Number),
    (
        "--max-waiters",
        Some("the connections less a tenth"),
        Number,
    ),
    ("--max-waiters-per-key", Some("1000"), Number),
    ("--max-waiters-per-address", Some("2000"), Number),
    ("--max-gets-per-address", Some("200"), Number),
    ("--max-leases", Some("as many as waiters"), Number),
    (
        "--max-connections",
        Some("what the open-file limit leaves"),
        Number,
    ),
    ("--max-handshakes", Some("16"), Number),
    ("--head-timeout", Some("10s"), Time),
    ("--body-timeout", Some("10s"), Time),
    ("--write-timeout", Some("10s"), Time),
    ("--idle-timeout", Some("75s"), Time),
    ("--drain-notice", Some("8s"), Time),
    ("--drain-quiet", Some("1s"), Time),
    ("--drain-grace", Some("10s"), Time),
    ("--allow-origin", Some("*"), Origin),
    ("--callback-prefix", Some("nothing"), Callback),
    ("--resource-policy", Some("cross-origin"), Choice),
    ("--wire", None, File),
    ("--redis", None, Redis),
    ("--redis-file", None, File),
    ("--redis-ca", None, File),
    ("--redis-cert", None, File),
    ("--redis-key", None, File),
    ("--redis-prefix", Some("holdfast:1:"), Prefix),
    ("--redis-timeout", Some("500ms"), Time),
    ("--redis-in-flight", Some("1024"), Number),
    ("--zookeeper", None, ZooKeeper),
    ("--zookeeper-file", None, File),
    ("--zookeeper-timeout", Some("1s"), Time),
    ("--zookeeper-session", Some("6s"), Time),
    ("--zookeeper-in-flight", Some("1024"), Number),
    ("--zookeeper-auth-file", None, File),
    ("--resend", Some("60s"), Time),
    ("--advertise", Some("the internal listener's address"), Url),
    ("--peer-timeout", Some("1s"), Time),
    ("--peer-queue", Some("10000"), Number),
    ("--internal-token-file", None, File),
    ("--key-secret-file", None, File),
    ("--internal-host", None, Name),
    ("--internal-without-token", None, Switch),
    ("--threads", Some("one per core"), Number),
    ("--demo", None, Switch),
    ("--log", Some("info"), Filter),
    ("--log-format", Some("text"), Choice),
];

impl Kind {
    /// Returns values that no setting of this kind takes. Tests step through the lists of all
    /// kinds together.
    fn bad(self) -> &'static [&'static str] {
        match self {
            Address => &[
                "",
                "11000",
                "127.0.0.1",
                ":80",
                "localhost:http",
                "a:65536",
                "a:-1",
                "unix:run/x",
                "unix:",
            ],
            Callback => &["", "a-", "1", "this.", "a..", "alert(", "a[x"],
            Time => &[
                "",
                "25",
                "-1s",
                "1.5",
                "s",
                "25 parsecs",
                "0x10s",
                "9y",
                "99999999999999999999s",
                "25s;",
            ],
            Number => &[
                "",
                "-1",
                "0",
                "1.5",
                "1e3",
                "ten",
                "0x10",
                " 7",
                "99999999999999999999",
                "64KiB",
            ],
            Origin => &[
                "",
                "null",
                "a.example",
                "https://a.example/",
                "https://A.example",
                "http://a b",
                "https://",
                "https://*",
                "https://a.*.example",
            ],
            Choice => &["", "TEXT", "Cross-Origin", "text,json", "xml", "-"],
            Filter => &["=", "info,=", "a=b=c", "[", "x=loud"],
            File => &["", "/nonexistent/tokens", "/", "tokens-nowhere"],
            Redis => &[
                "",
                "localhost",
                "http://localhost",
                "redis://",
                "redis://a,b",
                "redis://a:x",
                "redis://a/x",
                "redis://::1",
                "redis://u:p@a",
                "redis+sentinel://a",
                "redis+cluster://a/1",
                "redis+unix://run/redis.sock",
                "redis+sentinel://a/m?password=p",
            ],
            ZooKeeper => &[
                "",
                "localhost",
                "localhost:2181",
                "zookeeper://localhost/a",
                "localhost/",
                "localhost/a/",
                "localhost//a",
                "localhost/a/../b",
                "localhost/zookeeper",
                "::1/a",
                "/a",
                "a,,b/c",
                "a:0/b",
            ],
            Prefix => &[
                "a b",
                "é",
                "ü ",
                "日本",
                "ppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppp",
            ],
            Url => &[
                "",
                "11001",
                "a:1",
                "https://a:1",
                "http://a",
                "http://:1",
                "http://a:1/x",
                "http://unix:/x:1",
            ],
            Name => &["", "a:1", "http://a", "a b", "a/b", "é", "[::1]"],
            Network => &[
                "",
                "10.0.0.1/8",
                "10.0.0.0/33",
                "::1/-1",
                "a.example",
                "unix",
            ],
            Switch => &["", "yes", "1", "maybe"],
        }
    }
}

/// Returns the environment variable of a flag.
fn variable(flag: &str) -> String {
    format!(
        "HOLDFAST_{}",
        flag.trim_start_matches("--")
            .replace('-', "_")
            .to_ascii_uppercase()
    )
}

async fn run(args: &[&str]) -> Finished {
    Launch::new(args).run().await
}

/// Returns the mistakes of a start that was refused. Each mistake is one line that names the
/// program.
fn mistakes(finished: &Finished) -> Vec<&str> {
    assert_eq!(finished.status.code(), Some(64), "{finished:?}");
    assert_eq!(finished.stdout, "", "{finished:?}");
    let lines: Vec<_> = finished
        .stderr
        .lines()
        .filter(|line| !line.starts_with("  "))
        .collect();
    assert!(
        !lines.is_empty() && lines.iter().all(|line| line.starts_with("holdfast: ")),
        "{finished:?}"
    );
    lines
}

/// Returns whether a line names `flag`, and not only a longer flag that begins with it.
fn names(line: &str, flag: &str) -> bool {
    let is_name = |byte: char| byte.is_ascii_alphanumeric() || byte == '-' || byte == '_';
    line.match_indices(flag)
        .any(|(at, _)| !line[at + flag.len()..].starts_with(is_name))
}

/// Checks that the start was refused with one mistake for each of `named`, in any order, and no
/// others.
fn assert_mistakes(finished: &Finished, named: &[&str]) {
    let lines = mistakes(finished);
    for name in named {
        assert_eq!(
            lines.iter().filter(|line| names(line, name)).count(),
            1,
            "{name}: {finished:?}"
        );
    }
    assert_eq!(lines.len(), named.len(), "{finished:?}");
}

/// The line of a good `--check` without Redis.
const NO_REDIS: &str = "holdfast: no Redis: statuses are kept in this process";

fn assert_good(finished: &Finished) {
    assert_eq!(finished.status.code(), Some(0), "{finished:?}");
    let mut lines = finished.stderr.lines();
    let is_warning = |line: &str| line.starts_with("holdfast: warning: ");
    assert!(lines.all(is_warning), "{finished:?}");
    let (store, verdict) = finished.stdout.split_once('\n').expect("two lines");
    let is_store = [NO_REDIS, "holdfast: Redis "].map(|start| store.starts_with(start));
    assert!(is_store.contains(&true), "{finished:?}");
    assert_eq!(verdict, "holdfast: the settings are good\n");
}

#[tokio::test]
async fn help_lists_every_setting_with_its_variable_and_default_and_no_other() {
    for flag in ["--help", "-h"] {
        let help = run(&[flag]).await;
        assert_eq!((help.status.code(), help.stderr.as_str()), (Some(0), ""));
        let entries = entries(&help.stdout);
        for (flag, default, _) in SETTINGS {
            let (_, text) = entries
                .iter()
                .find(|(name, _)| name == flag)
                .unwrap_or_else(|| panic!("no {flag}"));
            // `--help` shows a variable that may hold a password without its value.
            let shown = [
                format!("[env: {}=]", variable(flag)),
                format!("[env: {}]", variable(flag)),
            ];
            let is_secret = flag == "--redis";
            assert!(
                text.contains(&shown[usize::from(is_secret)]),
                "{flag}: {text}"
            );
            assert_eq!(default_of(text), default, "{flag}: {text}");
        }
        let listed: BTreeSet<_> = entries.iter().map(|(name, _)| name.as_str()).collect();
        let expected = SETTINGS
            .iter()
            .map(|(flag, ..)| *flag)
            .chain(["--check", "--help", "--version"])
            .collect();
        assert_eq!(listed, expected);
    }
}

/// Returns the flags of a help text, each with its text in one line.
pub(crate) fn entries(help: &str) -> Vec<(String, String)> {
    let mut entries: Vec<(String, String)> = Vec::new();
    for line in help.lines().map(str::trim) {
        let flag = line
            .strip_prefix("-h, ")
            .or_else(|| line.strip_prefix("-V, "))
            .unwrap_or(line);
        match (flag.starts_with("--"), entries.last_mut()) {
            (true, _) => {
                let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
                let (name, rest) = flag.split_at(flag.find(|c| !is_name(c)).unwrap_or(flag.len()));
                entries.push((name.to_owned(), rest.trim().to_owned()));
            }
            (false, Some((_, text))) => *text += &format!(" {line}"),
            (false, None) => {}
        }
    }
    entries
}

/// Returns the default in the help text of a flag.
pub(crate) fn default_of(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("[default: ")?;
    Some(rest.split_once(']').expect("a bracket that ends").0)
}

#[tokio::test]
async fn version_is_that_of_the_package() {
    for flag in ["--version", "-V"] {
        let version = run(&[flag]).await;
        assert_eq!(
            (version.status.code(), version.stderr.as_str()),
            (Some(0), "")
        );
        assert_eq!(
            version.stdout,
            concat!("holdfast ", env!("CARGO_PKG_VERSION"), "\n")
        );
    }
}

#[tokio::test]
async fn every_setting_refuses_bad_values_and_all_are_told_together() {
    let rounds = SETTINGS
        .iter()
        .map(|(.., kind)| kind.bad().len())
        .max()
        .unwrap();
    for round in 0..rounds {
        let value = |kind: Kind| kind.bad()[round % kind.bad().len()];
        let args: Vec<_> = SETTINGS
            .iter()
            .map(|(flag, _, kind)| format!("{flag}={}", value(*kind)))
            .collect();
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let finished = run(&args).await;
        assert_mistakes(&finished, &SETTINGS.map(|(flag, ..)| flag));
        // The mistake shows the value, so that nobody has to guess which one it was.
        for (flag, _, kind) in SETTINGS
            .iter()
            .filter(|(.., kind)| !matches!(kind, Switch | File | Redis))
        {
            let line = mistakes(&finished)
                .into_iter()
                .find(|line| names(line, flag))
                .unwrap();
            assert!(line.contains(value(*kind)), "{line}");
        }
    }
}

#[tokio::test]
async fn every_variable_refuses_bad_values_and_all_are_told_together() {
    let names = SETTINGS.map(|(flag, ..)| variable(flag));
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    for round in 0..3 {
        let mut launch = Launch::new(&["--check"]);
        for (flag, _, kind) in SETTINGS {
            // An empty variable is an unset one.
            let mut bad = kind.bad().iter().filter(|bad| !bad.is_empty());
            launch = launch.env(&variable(flag), bad.nth(round).expect("a bad value"));
        }
        // Each is told by the name that the operator wrote.
        assert_mistakes(&launch.run().await, &names);
    }
}

#[tokio::test]
async fn an_empty_variable_is_an_unset_one() {
    let mut launch = Launch::new(&["--check"]);
    for (flag, ..) in SETTINGS {
        launch = launch.env(&variable(flag), "");
    }
    assert_good(&launch.run().await);
    let help = Launch::new(&["--help"])
        .env("HOLDFAST_HOLD", "")
        .run()
        .await;
    let entries = entries(&help.stdout);
    let (_, hold) = entries.iter().find(|(name, _)| name == "--hold").unwrap();
    assert!(hold.contains("[env: HOLDFAST_HOLD=]"), "{hold}");
    assert_eq!(default_of(hold), Some("25s"));
}

#[tokio::test]
async fn a_variable_that_is_no_setting_is_warned_of_unless_kubernetes_made_it() {
    let check = Launch::new(&["--check"])
        .env("HOLDFAST_HODL", "3s")
        .env("HOLDFAST_TOKEN", "x")
        .env("HOLDFAST_PORT", "tcp://10.0.0.1:11000")
        .env("HOLDFAST_SERVICE_HOST", "10.0.0.1")
        .env("HOLDFAST_PORT_11000_TCP_ADDR", "10.0.0.1");
    let finished = check.run().await;
    assert_good(&finished);
    assert_eq!(
        finished.stderr,
        "holdfast: warning: the variable HOLDFAST_HODL is no setting: it has no effect\n"
    );
}

#[tokio::test]
async fn values_in_the_next_argument_are_refused_too_also_negative_ones() {
    for (flag, _, kind) in SETTINGS.iter().filter(|(.., kind)| *kind != Switch) {
        for value in kind.bad() {
            // A mistake in another setting must be reported as well.
            let other = if *flag == "--max-batch" {
                "--hold"
            } else {
                "--max-batch"
            };
            let finished = run(&[flag, value, &format!("{other}=x")]).await;
            let lines = mistakes(&finished);
            for name in [flag, other] {
                assert!(
                    lines.iter().any(|line| names(line, name)),
                    "{flag} {value:?}: {name} in {finished:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn values_out_of_range_are_refused_and_the_limits_are_not() {
    let ranges = [
        ("--hold", "1s", "10m", ["999ms", "601s"]),
        ("--stream-life", "1s", "1day", ["999ms", "86401s"]),
        ("--status-ttl", "1s", "7days", ["0s", "604801s"]),
        ("--status-ttl", "2s", "1day", ["1500ms", "999ms"]),
        ("--threads", "1", "1024", ["0", "1025"]),
        ("--max-keys-per-socket", "1", "256", ["0", "257"]),
    ];
    for (flag, least, most, bad) in ranges {
        for good in [least, most] {
            assert_good(&run(&[flag, good, "--check"]).await);
        }
        for bad in bad {
            assert_mistakes(&run(&[flag, bad, "--check"]).await, &[flag]);
        }
    }
}

#[tokio::test]
async fn settings_that_contradict_each_other_are_refused() {
    let contradictions: [(&[&str], &str); 11] = [
        (&["--drain-quiet", "11s"], "--drain-quiet"),
        (
            &["--max-value-bytes", "10", "--max-body-bytes", "9"],
            "--max-value-bytes",
        ),
        (&["--max-inbound-bytes", "8388607"], "--max-inbound-bytes"),
        (
            &["--max-body-bytes", "70000", "--max-inbound-bytes", "69999"],
            "--max-inbound-bytes",
        ),
        (
            &[
                "--public",
                "127.0.0.1:11000",
                "--internal",
                "127.0.0.1:11000",
            ],
            "--internal",
        ),
        (
            &[
                "--public",
                "unix:/run/x.sock",
                "--internal",
                "unix:/run/x.sock",
            ],
            "--internal",
        ),
        (&["--max-connections", "999999999999"], "--max-connections"),
        (
            &["--allow-origin", "*", "--allow-origin", "https://a.example"],
            "--allow-origin",
        ),
        (
            &["--allow-origin", "https://.a.example"],
            "a label of the host is empty",
        ),
        (
            &["--allow-origin", "https://b..a.example"],
            "a label of the host is empty",
        ),
        (
            &[
                "--wire",
                "deploy/wires/wechat-web.json",
                "--wire",
                "deploy/wires/wechat-web.json",
            ],
            "--wire",
        ),
    ];
    for (args, named) in contradictions {
        let finished = run(args).await;
        let lines = mistakes(&finished);
        assert!(lines.len() == 1 && names(lines[0], named), "{finished:?}");
    }
}

#[tokio::test]
async fn a_check_beside_a_command_is_a_mistake() {
    for args in [&["--check", "man"][..], &["--check", "completions", "bash"]] {
        assert_mistakes(&run(args).await, &["--check"]);
    }
}

#[tokio::test]
async fn the_command_help_prints_what_the_flag_prints() {
    let (command, flag) = (run(&["help"]).await, run(&["--help"]).await);
    assert_eq!(command.status.code(), Some(0), "{command:?}");
    assert_eq!(command.stdout, flag.stdout);
}

#[tokio::test]
async fn unknown_doubled_and_stray_arguments_are_told_beside_bad_values() {
    let both = |args: &[&'static str]| [args, &["--max-batch=x"]].concat();
    let cases: [(&[&'static str], &str); 13] = [
        (&["--nonsense"], "--nonsense"),
        (&["--nonsense=1"], "--nonsense"),
        (&["--nonsense", "1"], "--nonsense"),
        (&["--hodl", "25s"], "--hodl"),
        (&["--HOLD", "25s"], "--HOLD"),
        (&["-x"], "-x"),
        (&["stray"], "stray"),
        (&["--", "stray"], "stray"),
        (&["--check=yes"], "--check"),
        (&["--hold"], "--hold"),
        (&["--hold", "1s", "--hold", "2s"], "--hold"),
        (&["--hold=1s", "--hold=1s"], "--hold"),
        (&["--demo", "--demo"], "--demo"),
    ];
    for (args, named) in cases {
        let finished = run(&both(args)).await;
        let lines = mistakes(&finished);
        assert!(
            lines.iter().any(|line| names(line, named)),
            "{named}: {finished:?}"
        );
        assert!(
            lines.iter().any(|line| names(line, "--max-batch")),
            "--max-batch beside {named}: {finished:?}"
        );
        assert_eq!(lines.len(), 2, "{finished:?}");
    }
    // The stray word is also the value of a flag.
    assert_mistakes(
        &run(&["stray", "--log-format", "stray"]).await,
        &["argument 'stray'", "--log-format 'stray'"],
    );
    for settings_of_later in [
        "--redis",
        "--peer-timeout",
        "--advertise",
        "--key-secret-file",
    ] {
        assert_mistakes(&run(&[settings_of_later, "x"]).await, &[settings_of_later]);
    }
}

#[tokio::test]
async fn good_settings_pass_the_check_by_flag_and_by_variable() {
    let scratch = Scratch::new();
    let tokens = scratch.file("tokens", "\none\r\n\n two \n");
    let good: [(&str, &[&str]); 37] = [
        (
            "--public",
            &["localhost:0", "[::1]:11000", "unix:/run/a b.sock"],
        ),
        (
            "--internal",
            &["127.0.0.1:0", "0.0.0.0:11001", "unix:/run/i.sock"],
        ),
        ("--http2", &["true", "false"]),
        ("--proxy-protocol", &["true", "false"]),
        (
            "--trusted-proxy",
            &[
                "10.0.0.0/8",
                "192.0.2.1,2001:db8::/32,unix:",
                "0.0.0.0/0,::/0",
            ],
        ),
        ("--hold", &["1s", "2m", "1m 30s"]),
        ("--stream-life", &["1s", "1h"]),
        ("--max-keys-per-socket", &["1", "256"]),
        ("--status-ttl", &["1s", "7days", "1h"]),
        ("--max-value-bytes", &["1", "65536"]),
        ("--max-body-bytes", &["70000", "1000000000"]),
        (
            "--max-inbound-bytes",
            &["1000000000", "9000000000000000000"],
        ),
        ("--max-batch", &["1", "100000"]),
        ("--max-statuses", &["1", "1000000000000"]),
        ("--max-status-bytes", &["1", "1000000000000"]),
        ("--max-waiters", &["1", "1000000"]),
        ("--max-waiters-per-key", &["1", "1000000"]),
        ("--max-waiters-per-address", &["1", "1000000"]),
        ("--max-gets-per-address", &["1", "1000000"]),
        ("--max-leases", &["1", "1000000"]),
        ("--max-connections", &["1", "200"]),
        ("--head-timeout", &["500ms", "1m"]),
        ("--body-timeout", &["500ms", "1m"]),
        ("--write-timeout", &["500ms", "1m"]),
        ("--idle-timeout", &["500ms", "10m"]),
        ("--drain-quiet", &["0s", "10s"]),
        ("--drain-grace", &["10s", "5m"]),
        (
            "--allow-origin",
            &[
                "*",
                "https://a.example",
                "https://a.example,http://[::1]:3000",
                "https://*.a.example,https://a.example",
            ],
        ),
        (
            "--resource-policy",
            &["cross-origin", "same-site", "same-origin"],
        ),
        (
            "--wire",
            &[
                "deploy/wires/wechat-open.json",
                "deploy/wires/wechat-web.json,deploy/wires/wechat-open.json",
            ],
        ),
        ("--internal-token-file", &[&tokens]),
        (
            "--internal-host",
            &["a.example", "push-1.Example.com,b_c.internal"],
        ),
        ("--internal-without-token", &["true", "false"]),
        ("--threads", &["1", "2"]),
        ("--demo", &["true", "false"]),
        ("--log", &["error", "debug", "holdfast=trace,warn"]),
        ("--log-format", &["text", "json"]),
    ];
    for round in 0..3 {
        let (mut flags, mut variables) = (vec!["--check"], Launch::new(&["--check"]));
        for (flag, values) in &good {
            let value = values[round % values.len()];
            variables = variables.env(&variable(flag), value);
            match *flag {
                "--demo" | "--http2" | "--internal-without-token" | "--proxy-protocol" => {
                    flags.push(flag)
                }
                _ => flags.extend([flag, value]),
            }
        }
        assert_good(&run(&flags).await);
        assert_good(&variables.run().await);
    }
}

#[tokio::test]
async fn a_flag_wins_over_its_variable() {
    assert_good(
        &Launch::new(&["--check", "--hold", "9s"])
            .env("HOLDFAST_HOLD", "25")
            .run()
            .await,
    );
    assert_mistakes(
        &Launch::new(&["--check", "--hold", "25"])
            .env("HOLDFAST_HOLD", "9s")
            .run()
            .await,
        &["--hold"],
    );
    assert_mistakes(
        &Launch::new(&["--check"])
            .env("HOLDFAST_HOLD", "25")
            .run()
            .await,
        &["HOLDFAST_HOLD"],
    );
}

#[tokio::test]
async fn white_space_around_a_variable_is_dropped_and_around_a_flag_is_a_mistake() {
    let scratch = Scratch::new();
    let tokens = format!("{}\n", scratch.file("tokens", "a-token"));
    let variables = [
        ("HOLDFAST_PUBLIC", "127.0.0.1:0\n"),
        ("HOLDFAST_HOLD", "\t9s\r\n"),
        ("HOLDFAST_DEMO", " true "),
        ("HOLDFAST_LOG_FORMAT", "json\n"),
        ("HOLDFAST_MAX_BATCH", " 5"),
        ("HOLDFAST_INTERNAL_TOKEN_FILE", &tokens),
        ("HOLDFAST_ALLOW_ORIGIN", "https://a.example\n"),
        // An unset one.
        ("HOLDFAST_REDIS", " \n"),
        ("HOLDFAST_LOG", "\n"),
    ];
    let launch = Launch::new(&["--check"]);
    let launch = variables
        .iter()
        .fold(launch, |launch, (name, value)| launch.env(name, value));
    assert_good(&launch.run().await);
    for (flag, value) in [("--log-format", "json "), ("--max-batch", " 5")] {
        assert_mistakes(&run(&["--check", flag, value]).await, &[flag]);
    }
}

#[tokio::test]
async fn the_items_of_a_list_in_a_variable_may_have_spaces_around_them() {
    let finished = Launch::new(&["--check"])
        .env(
            "HOLDFAST_ALLOW_ORIGIN",
            "https://a.example, https://b.example ",
        )
        .run()
        .await;
    assert!(finished.status.success(), "{finished:?}");
}
