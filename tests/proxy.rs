//! Tests of the files of `nginx/` with a real nginx: what they let through, and how it comes
//! out.

mod crowd;
mod events;
mod faults;
mod held;
mod http2;
mod limits;
mod logs;
mod routes;
mod sockets;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::operate::settings::{default_of, entries};
use holdfast_testkit::nginx::{NAME, Site, directory, shipped};
use holdfast_testkit::{Launch, Nginx, Node, Response, Scratch};

/// Returns a directive's arguments in a file of `nginx/`.
///
/// # Panics
/// If the directive is not there exactly once.
fn argument(file: &str, directive: &str) -> String {
    let text = std::fs::read_to_string(directory().join(file)).unwrap();
    let lines = text.lines().filter_map(|line| {
        line.trim()
            .split_once('#')
            .map_or(Some(line), |(code, _)| Some(code))
    });
    let found: Vec<_> = lines
        .filter_map(|line| line.trim().strip_prefix(directive)?.strip_prefix(' '))
        .collect();
    assert_eq!(found.len(), 1, "{directive} in {file}: {found:?}");
    found[0].trim().trim_end_matches(';').to_owned()
}

fn duration(text: &str) -> Duration {
    humantime(text).unwrap_or_else(|| panic!("no duration: {text}"))
}

/// Parses whole seconds or milliseconds: `25s`, `500ms`.
fn humantime(text: &str) -> Option<Duration> {
    match text.strip_suffix("ms") {
        Some(count) => Some(Duration::from_millis(count.parse().ok()?)),
        None => Some(Duration::from_secs(text.strip_suffix('s')?.parse().ok()?)),
    }
}

#[tokio::test]
async fn nginx_accepts_each_list_of_nodes_without_a_warning() {
    for list in ["nodes.conf", "nodes-unix.conf", "nodes-addresses.conf"] {
        let (accepted, said) = Site::new(list).test().await;
        // nginx warns that it ignores the directive `user` unless root starts it.
        let mut warnings = said
            .lines()
            .filter(|line| line.contains('[') && !line.contains("\"user\" directive"));
        assert!(accepted && warnings.next().is_none(), "{list}: {said}");
    }
    let lists = shipped()
        .into_iter()
        .filter(|path| path.to_string_lossy().starts_with("nodes"));
    assert_eq!(lists.count(), 3, "each list is in this test");
}

#[tokio::test]
async fn each_shipped_file_is_used() {
    let (mut included, mut files) = (Vec::new(), shipped());
    for file in &files {
        let text = std::fs::read_to_string(directory().join(file)).unwrap();
        let names = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("include "));
        included.extend(names.map(|name| name.split(';').next().unwrap().to_owned()));
    }
    files.retain(|file| !included.iter().any(|name| Path::new(name) == file));
    files.retain(|file| !file.to_string_lossy().starts_with("nodes-"));
    assert_eq!(files, [Path::new("nginx.conf")]);
}

#[tokio::test]
async fn the_timeouts_stand_in_their_order_around_the_settings_of_the_nodes() {
    let help = Launch::new(&["--help"]).run().await;
    let listed: BTreeMap<_, _> = entries(&help.stdout).into_iter().collect();
    let setting = |flag| duration(default_of(&listed[flag]).expect("a default"));
    let nginx = |file, directive| duration(&argument(file, directive));
    let hold = setting("--hold");
    let next = nginx("holdfast/proxy.conf", "proxy_next_upstream_timeout");
    let read = nginx("holdfast/proxy.conf", "proxy_read_timeout");
    assert!(hold < next && next < read, "{hold:?} {next:?} {read:?}");
    assert!(nginx("holdfast/upstream.conf", "keepalive_timeout") < setting("--idle-timeout"));
    assert!(nginx("nginx.conf", "worker_shutdown_timeout") > hold);
    // Escapes may double the length of the longest value.
    let value: u64 = default_of(&listed["--max-value-bytes"])
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(argument("holdfast/proxy.conf", "proxy_buffers"), "32 8k");
    assert!(32 * 8 * 1024 >= 2 * value);
}

#[test]
fn descriptors_suffice_for_the_connections() {
    let number = |directive| argument("nginx.conf", directive).parse::<u64>().unwrap();
    assert!(number("worker_rlimit_nofile") > number("worker_connections"));
}

/// Returns header names and values, without those that nginx adds or that differ each time.
fn contract_headers(response: &Response) -> Vec<(String, String)> {
    let ours =
        |(name, _): &(String, String)| !["server", "date", "connection"].contains(&name.as_str());
    let mut headers: Vec<_> = response
        .headers
        .iter()
        .map(|(n, v)| (n.to_lowercase(), v.clone()))
        .filter(ours)
        .collect();
    headers.sort();
    headers
}

#[tokio::test]
async fn answers_pass_unchanged_with_the_headers_of_the_contract() {
    let node = Node::start(&["--allow-origin", "https://shop.example.com"]).await;
    let nginx = Nginx::start([&node.public]).await;
    node.set_ok("k", "{\"a\":[1, 2.50],\"__proto__\":\"\u{2028}\u{e9}\"}")
        .await;
    node.set_ok("long", &format!("\"{}\"", "\u{2028}".repeat(65_530 / 3)))
        .await;
    let origin = ["-H", "origin: https://shop.example.com"];
    for query in [
        "key=k&callback=a.b[0]",
        "key=k&assign=qr&_=17",
        "key=k",
        "key=long&callback=cb",
        "key=%6B",
        "key=",
    ] {
        let target = format!("/status/get?{query}");
        let direct = node
            .public("GET", &target, &[("origin", "https://shop.example.com")])
            .await;
        for version in ["--http2", "--http1.1"] {
            let through = nginx
                .ask(&target, &[&[version], &origin[..]].concat())
                .await;
            assert_eq!(
                (through.status, &through.body),
                (direct.status, &direct.body),
                "{query}"
            );
            assert_eq!(
                contract_headers(&through),
                contract_headers(&direct),
                "{query}"
            );
            assert_eq!(through.header("server"), Some("nginx"));
        }
    }
}

#[tokio::test]
async fn the_library_passes_compressed_to_browsers_that_accept_gzip() {
    let node = Node::start(&[]).await;
    let nginx = Nginx::start([&node.public]).await;
    for accepts in ["gzip", "identity"] {
        let direct = node
            .public("GET", "/holdfast.js", &[("accept-encoding", accepts)])
            .await;
        let accept_encoding = format!("accept-encoding: {accepts}");
        for version in ["--http2", "--http1.1"] {
            let through = nginx
                .ask("/holdfast.js", &[version, "-H", &accept_encoding])
                .await;
            assert_eq!(
                (through.status, &through.body),
                (direct.status, &direct.body),
                "{accepts}"
            );
            for name in ["content-encoding", "etag", "vary", "cache-control"] {
                assert_eq!(through.header(name), direct.header(name), "{name}");
            }
        }
    }
}

#[tokio::test]
async fn what_the_node_decides_by_headers_it_decides_behind_nginx() {
    let node = Node::start(&["--allow-origin", "https://shop.example.com"]).await;
    let nginx = Nginx::start([&node.public]).await;
    let preflight = [
        "-X",
        "OPTIONS",
        "-H",
        "origin: https://shop.example.com",
        "-H",
        "access-control-request-method: GET",
        "-H",
        "access-control-request-headers: sentry-trace,baggage",
    ];
    let response = nginx.ask("/status/get?key=k", &preflight).await;
    assert_eq!(response.status, 204, "{response:?}");
    assert_eq!(response.header("access-control-allow-methods"), Some("GET"));
    assert_eq!(
        response.header("access-control-allow-headers"),
        Some("sentry-trace, baggage")
    );
    let shown = nginx
        .ask(
            "/status/get?key=k&callback=cb&wait=0",
            &["-H", "sec-fetch-dest: document"],
        )
        .await;
    assert_eq!(shown.status, 403, "{shown:?}");
    // More than a node takes, for example the cookies of all applications of the domain.
    let cookies: Vec<_> = (0..3)
        .map(|n| format!("cookie: c{n}={}", "x".repeat(7000)))
        .collect();
    let cookies: Vec<_> = cookies.iter().flat_map(|cookie| ["-H", cookie]).collect();
    assert_eq!(
        nginx.ask("/status/get?key=k&wait=0", &cookies).await.code(),
        -1
    );
    assert_eq!(
        node.public(
            "GET",
            "/status/get?key=k",
            &[("cookie", &"x".repeat(20_000))]
        )
        .await
        .status,
        431
    );
}

#[tokio::test]
async fn connections_to_a_node_are_used_again() {
    let node = Node::start(&[]).await;
    let nginx = Nginx::start([&node.public]).await;
    let url = format!("https://{NAME}/status/get?key=k&callback=cb&wait=0&n=[1-300]");
    assert!(
        nginx
            .curl(&["-o", "/dev/null", &url])
            .output()
            .await
            .unwrap()
            .status
            .success()
    );
    // The requests come one after another, so one connection for each worker is enough.
    let open = node
        .metric(r#"holdfast_connections{listener="public"}"#)
        .await;
    assert!((1.0..=2.0).contains(&open), "{open}");
    assert_eq!(nginx.end().matches(" 200 ").count(), 300);
}

#[tokio::test]
async fn nodes_are_reached_over_unix_sockets() {
    let scratch = Scratch::new();
    let node = Node::start(&["--public", &scratch.socket("public")]).await;
    let nginx = Site::new("nodes-unix.conf")
        .nodes([&node.public])
        .start()
        .await;
    let mut page = nginx.hold("key=k&callback=cb").await;
    node.wait_key_waiters("k", 1).await;
    let version = node.set_ok("k", "1").await;
    let response = page.conn.read_response().await;
    assert_eq!((response.code(), response.version()), (0, version));
}

#[tokio::test]
async fn a_node_is_reached_at_several_addresses() {
    let node = Node::start(&["--public", "0.0.0.0:0"]).await;
    let port = node.public.tcp().port();
    // The list is unchanged but for the port.
    let nginx = Site::new("nodes-addresses.conf")
        .change(":11000 max_fails", &format!(":{port} max_fails"))
        .start()
        .await;
    let version = node.set_ok("k", "1").await;
    for _ in 0..6 {
        assert_eq!(nginx.get("/status/get?key=k").await.version(), version);
    }
    let log = nginx.end();
    for address in ["127.0.0.1", "127.0.0.2", "127.0.0.3"] {
        assert!(
            log.contains(&format!("\"{address}:{port}\" \"200\"")),
            "{log}"
        );
    }
}

#[tokio::test]
async fn pages_get_tls_1_2_and_1_3_and_come_back_without_a_full_handshake() {
    let node = Node::start(&[]).await;
    let nginx = Nginx::start([&node.public]).await;
    for version in ["-tls1_2", "-tls1_3"] {
        let session = nginx.path(version);
        let first = nginx.handshake(&[version, "-sess_out", &session]).await;
        assert!(
            first.contains("\nNew, TLSv1.") && first.contains("HTTP/1.1 404"),
            "{version}: {first}"
        );
        let again = nginx.handshake(&[version, "-sess_in", &session]).await;
        assert!(
            again.contains("\nReused, TLSv1.") && again.contains("HTTP/1.1 404"),
            "{version}: {again}"
        );
    }
    for version in ["-tls1", "-tls1_1"] {
        let refused = nginx
            .handshake(&[version, "-cipher", "ALL:@SECLEVEL=0"])
            .await;
        assert!(refused.contains("\nNew, (NONE)"), "{version}: {refused}");
    }
}

#[tokio::test]
async fn other_names_meet_no_certificate_and_no_node() {
    let node = Node::start(&[]).await;
    let nginx = Nginx::start([&node.public]).await;
    let args = [
        "-i",
        "-k",
        "https://other.example.com/status/get?key=k&wait=0",
    ];
    let output = nginx.curl(&args).output().await.unwrap();
    assert!(
        !output.status.success() && output.stdout.is_empty(),
        "{output:?}"
    );
    for version in ["--http2", "--http1.1"] {
        let response = nginx
            .ask(
                "/status/get?key=k&wait=0",
                &[version, "-H", "host: other.example.com"],
            )
            .await;
        assert_eq!(response.status, 421, "{response:?}");
    }
    assert_eq!(
        nginx.get("/status/get?key=k&wait=0").await.code(),
        -1,
        "{NAME} is served"
    );
}
