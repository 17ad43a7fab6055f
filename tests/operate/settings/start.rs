//! Tests of a start: what the settings do, what the log says, and which mistakes make it fail.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{assert_good, assert_mistakes, run};
use holdfast_testkit::{Finished, Launch, Node, Scratch, eventually};

#[tokio::test]
async fn a_variable_is_as_good_as_a_flag() {
    let launch = Launch::new(&[])
        .env("HOLDFAST_HOLD", "1s")
        .env(
            "HOLDFAST_ALLOW_ORIGIN",
            "https://a.example,https://b.example",
        )
        .env("HOLDFAST_RESOURCE_POLICY", "same-site")
        .env("HOLDFAST_DEMO", "true")
        .env("HOLDFAST_PUBLIC", "127.0.0.1:0")
        .env("HOLDFAST_LOG_FORMAT", "json");
    let node = launch.start().await;
    for origin in [
        "https://a.example",
        "https://b.example",
        "https://c.example",
        "https://a.example,https://b.example",
    ] {
        let response = node
            .public("GET", "/status/get?key=k&wait=0", &[("origin", origin)])
            .await;
        let listed = ["https://a.example", "https://b.example"].contains(&origin);
        assert_eq!(
            response.header("access-control-allow-origin"),
            listed.then_some(origin)
        );
    }
    assert_eq!(node.get("/demo").await.status, 200);
    let begun = Instant::now();
    let response = node.get("/status/get?key=k&callback=cb").await;
    assert_eq!(
        (
            response.code(),
            response.header("cross-origin-resource-policy")
        ),
        (-1, Some("same-site"))
    );
    // The hold is 1 s less a sixteenth at most. A busy machine may add at most the harness's
    // patience, which is less than the default hold.
    let held = begun.elapsed();
    assert!(held >= Duration::from_millis(900), "held for {held:?}");
    node.quiet().await;
}

#[tokio::test]
async fn the_demo_is_served_only_where_it_is_switched_on() {
    let served = async |launch: Launch| launch.start().await.get("/demo").await.status;
    assert_eq!(served(Launch::new(&[])).await, 404);
    assert_eq!(served(Launch::new(&["--demo"])).await, 200);
    assert_eq!(
        served(Launch::new(&[]).env("HOLDFAST_DEMO", "false")).await,
        404
    );
}

#[tokio::test]
async fn a_token_file_is_there_readable_and_has_a_token() {
    let scratch = Scratch::new();
    let secret = "se\u{301}cret-3b1f";
    for bad in [
        scratch.path("missing").display().to_string(),
        scratch.file("empty", ""),
        scratch.file("blank", " \n\r\n\t\n"),
        scratch.file("spaced", "two words-3b1f\n"),
        scratch.file("accents", secret),
        scratch.file("marked", "\u{feff}secret-3b1f\n"),
    ] {
        let finished = run(&["--internal-token-file", &bad, "--check"]).await;
        assert_mistakes(&finished, &["--internal-token-file"]);
        assert!(
            finished.stderr.contains(&bad),
            "the path is told: {finished:?}"
        );
        assert!(
            !finished.stderr.contains("3b1f"),
            "the token is not: {finished:?}"
        );
    }
    std::fs::write(scratch.path("latin"), b"\xff\xfe").unwrap();
    let latin = scratch.path("latin").display().to_string();
    assert_mistakes(
        &run(&["--internal-token-file", &latin]).await,
        &["--internal-token-file"],
    );
}

#[tokio::test]
async fn a_file_that_never_ends_is_a_mistake_of_each_setting_that_names_one() {
    let flags = [
        "--wire",
        "--redis-file",
        "--internal-token-file",
        "--key-secret-file",
    ];
    let args = flags.map(|flag| [flag, "/dev/zero"]).concat();
    let finished = run(&args).await;
    assert_mistakes(&finished, &flags);
    let lines = finished.stderr.lines();
    let named = lines.filter(|line| line.ends_with("'/dev/zero': longer than 65536 bytes"));
    assert_eq!(named.count(), flags.len(), "{finished:?}");
}

/// Checks that the start failed with a line that has all of `parts`.
fn assert_failed(finished: &Finished, parts: &[&str]) {
    assert_eq!(
        (finished.status.code(), finished.stdout.as_str()),
        (Some(1), ""),
        "{finished:?}"
    );
    let last = finished.stderr.lines().last().unwrap_or_default();
    assert!(
        last.starts_with("holdfast: ") && parts.iter().all(|part| last.contains(part)),
        "{finished:?}"
    );
}

#[tokio::test]
async fn a_listener_that_cannot_bind_names_its_address_and_flag() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let in_use = taken.local_addr().unwrap().to_string();
    // A label of 64 bytes is no valid name, so no name server is asked about it. TEST-NET-1
    // (192.0.2.1) is no address of this machine.
    let unknown = format!("{}.example:80", "a".repeat(64));
    for flag in ["--public", "--internal"] {
        for address in [in_use.as_str(), &unknown, "192.0.2.1:80"] {
            assert_failed(
                &run(&[flag, address, "--internal-without-token"]).await,
                &[flag, address],
            );
        }
        // Most often it is the one before, which has not ended yet.
        let finished = run(&[flag, &in_use]).await;
        assert_failed(&finished, &["A holdfast that ends keeps its addresses"]);
        assert_failed(&run(&["--check", flag, &unknown]).await, &[flag, &unknown]);
        // A check binds nothing, because it is run beside the node that it is for.
        assert_good(&run(&["--check", flag, &in_use]).await);
    }
}

/// Checks that the start and `--check` are refused, with a line that names the ways out.
async fn assert_exposed(args: &[&str]) {
    for args in [args, &[args, &["--check"]].concat()] {
        let finished = run(args).await;
        assert_eq!(
            (finished.status.code(), finished.stdout.as_str()),
            (Some(64), ""),
            "{args:?}: {finished:?}"
        );
        let last = finished.stderr.lines().last().unwrap_or_default();
        for part in [
            "holdfast: --internal '",
            args[1],
            "--internal-token-file",
            "--internal-without-token",
        ] {
            assert!(last.contains(part), "{args:?}: {finished:?}");
        }
    }
}

#[tokio::test]
async fn an_internal_listener_that_others_may_reach_is_a_mistake_without_a_token() {
    let scratch = Scratch::new();
    let tokens = scratch.file("tokens", "one");
    // All addresses of the machine, addresses on the internet, and `0:0`, an old way to write a
    // number. The last looks like a name but needs no name server.
    for address in [
        "0.0.0.0:0",
        "[::]:0",
        "[::ffff:0.0.0.0]:0",
        "8.8.8.8:80",
        "[2001:db8::1]:80",
        "192.0.2.1:80",
        "0:0",
    ] {
        assert_exposed(&["--internal", address]).await;
        assert_exposed(&["--internal", address, "--internal-without-token=false"]).await;
        for guard in [
            &["--internal-token-file", &tokens][..],
            &["--internal-without-token"],
        ] {
            assert_good(&run(&[&["--check", "--internal", address], guard].concat()).await);
        }
    }
    let by_variable = Launch::new(&["--check", "--internal", "0.0.0.0:0"])
        .env("HOLDFAST_INTERNAL_WITHOUT_TOKEN", "true");
    assert_good(&by_variable.run().await);
    // It is reported together with other mistakes.
    assert_mistakes(
        &run(&["--internal", "0.0.0.0:0", "--hold=x"]).await,
        &["--internal", "--hold"],
    );
    let unreadable = run(&[
        "--internal",
        "0.0.0.0:0",
        "--internal-token-file",
        "/nonexistent/tokens",
    ])
    .await;
    assert_mistakes(&unreadable, &["--internal-token-file"]);
}

#[tokio::test]
async fn an_internal_listener_of_this_machine_or_a_private_network_needs_no_token() {
    let scratch = Scratch::new();
    let socket = scratch.socket("internal");
    for address in [
        "127.0.0.1:0",
        "127.9.9.9:0",
        "localhost:0",
        "[::1]:0",
        "10.1.2.3:80",
        "172.31.0.1:80",
        "192.168.1.5:80",
        "169.254.1.1:80",
        "100.64.0.1:80",
        "[fd00::5]:80",
        "[fe80::5]:80",
        "[::ffff:10.1.2.3]:80",
        &socket,
    ] {
        assert_good(&run(&["--check", "--internal", address]).await);
    }
    // A public address never needs a token either: that listener is for everybody.
    assert_good(&run(&["--check", "--public", "0.0.0.0:0"]).await);
}

#[tokio::test]
async fn one_who_may_not_use_a_port_is_told_so() {
    // Containers often let everyone use every port. Then no start is refused.
    let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    if first.trim().parse::<u16>().unwrap() <= 1 {
        return;
    }
    let script = r#"[ "$(id -u)" != 0 ] || set -- setpriv --bounding-set=-net_bind_service "$0" "$@"
        [ "$1" = setpriv ] && exec "$@"; exec "$0" "$@""#;
    assert_failed(
        &Launch::new(&["--public", "127.0.0.1:1"])
            .under(script)
            .run()
            .await,
        &["--public", "127.0.0.1:1"],
    );
}

/// Returns the whole log of a node's start.
async fn start_log(node: &Node) -> Vec<String> {
    let ready = |lines: &[String]| lines.iter().any(|line| line.contains("ready"));
    eventually(
        async || ready(&node.logs()),
        "the end of the start in the log",
    )
    .await;
    node.logs()
}

#[tokio::test]
async fn a_long_hold_is_warned_of() {
    for (hold, warned) in [("56s", true), ("55s", false)] {
        let node = Node::start(&["--hold", hold]).await;
        let warnings: Vec<_> = start_log(&node)
            .await
            .into_iter()
            .filter(|line| line.contains("WARN"))
            .collect();
        assert_eq!(warnings.len(), usize::from(warned), "{hold}: {warnings:?}");
        assert!(
            warnings.iter().all(|line| line.contains("--hold 56s")),
            "{warnings:?}"
        );
    }
}

#[tokio::test]
async fn a_setting_that_has_no_effect_is_warned_of() {
    let launch = Launch::new(&["--max-leases", "5"]).env("HOLDFAST_PEER_TIMEOUT", "2s");
    let node = launch.start().await;
    let log = start_log(&node).await;
    let warnings: Vec<_> = log.iter().filter(|line| line.contains("WARN")).collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    for (warning, flag) in warnings.iter().zip(["--max-leases", "--peer-timeout"]) {
        let text = format!("{flag} has no effect without --redis");
        assert!(warning.contains(&text), "{warnings:?}");
    }
}

#[tokio::test]
async fn the_start_tells_version_addresses_and_limits() {
    for format in ["text", "json"] {
        let limits = r#"ulimit -Sn 100; ulimit -Hn 500; exec "$0" "$@""#;
        let node = Launch::new(&["--log-format", format])
            .under(limits)
            .start()
            .await;
        let log = start_log(&node).await.join("\n");
        let field = |name: &str, value: &str| match format {
            "text" => {
                log.contains(&format!("{name}={value}"))
                    || log.contains(&format!("{name}=\"{value}\""))
            }
            _ => {
                log.contains(&format!("\"{name}\":{value}"))
                    || log.contains(&format!("\"{name}\":\"{value}\""))
            }
        };
        assert!(field("version", env!("CARGO_PKG_VERSION")), "{log}");
        assert!(
            field("address", &node.public.to_string())
                && field("address", &node.internal.to_string()),
            "{log}"
        );
        // The limit is raised from 100 to the hard limit. The connections of both listeners and
        // some other files must fit in it.
        assert!(field("open_files", "500"), "{log}");
        let of = async |listener: &str| {
            node.metric(&format!(
                "holdfast_connections_limit{{listener=\"{listener}\"}}"
            ))
            .await
        };
        let (public, internal) = (of("public").await, of("internal").await);
        assert!(
            public >= 300.0 && internal >= 1.0 && public + internal <= 480.0,
            "{public} and {internal}"
        );
        assert!(field("max_connections", &public.to_string()), "{log}");
        assert!(
            field(
                "max_waiters",
                &(public - (public / 10.0).floor()).to_string()
            ),
            "{log}"
        );
    }
}

#[tokio::test]
async fn the_start_tells_the_path_and_the_file_of_each_template() {
    let templates = [
        ("/connect/l/qrconnect", "deploy/wires/wechat-open.json"),
        ("/cgi-bin/mmwebwx-bin/login", "deploy/wires/wechat-web.json"),
    ];
    let files = templates.map(|(_, file)| file).join(",");
    let with = Launch::new(&["--log-format", "json"]).env("HOLDFAST_WIRE", &files);
    let without = Launch::new(&["--log-format", "json"]);
    for (launch, expected) in [(with, &templates[..]), (without, &[])] {
        let node = launch.start().await;
        let mut told = Vec::new();
        for line in start_log(&node).await {
            let event: Value = serde_json::from_str(&line).expect("JSON");
            let field = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
            if field("message") == "serving a template" {
                told.push((field("path"), field("file")));
            }
        }
        let told: Vec<_> = told.iter().map(|(path, file)| (&**path, &**file)).collect();
        assert_eq!(told, expected);
    }
}

#[tokio::test]
async fn an_open_file_limit_without_room_for_connections_is_a_mistake() {
    let finished = Launch::new(&["--check"])
        .under(r#"ulimit -n 20; exec "$0" "$@""#)
        .run()
        .await;
    assert_mistakes(&finished, &["open-file limit is 20"]);
}

#[tokio::test]
async fn one_thread_is_enough() {
    let node = Node::start(&["--threads", "1"]).await;
    let mut held = node.hold("key=k").await;
    let version = node.set_ok("k", r#""v""#).await;
    let response = held.answer().await;
    assert_eq!((response.code(), response.version()), (0, version));
    node.quiet().await;
}
