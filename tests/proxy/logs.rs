//! Tests of nginx's logs: no log has a key, whatever goes wrong, and the access log says what
//! the error log does not.

use holdfast_testkit::nginx::Site;
use holdfast_testkit::{Address, Nginx, Node, Scratch, free_port};

const KEY: &str = "t0psecret";

/// Returns an address that refuses connections.
fn refusing() -> Address {
    Address::Tcp(([127, 0, 0, 1], free_port()).into())
}

/// Asks over both versions of HTTP, and returns the status.
async fn ask(nginx: &Nginx, target: &str, args: &[&str]) -> u16 {
    let http1 = nginx
        .ask(target, &[&["--http1.1"], args].concat())
        .await
        .status;
    let http2 = nginx
        .ask(target, &[&["--http2"], args].concat())
        .await
        .status;
    assert_eq!(http1, http2, "{target}");
    http1
}

async fn get(nginx: &Nginx) -> u16 {
    ask(
        nginx,
        &format!("/status/get?key={KEY}&callback=cb&wait=0"),
        &[],
    )
    .await
}

#[tokio::test]
async fn no_key_is_logged_by_what_pages_and_scanners_ask() {
    let node = Node::start(&[]).await;
    let nginx = Nginx::start([&node.public]).await;
    assert_eq!(get(&nginx).await, 200);
    for (target, args, status) in [
        (format!("/status/get%3Fkey={KEY}"), &[][..], 404),
        (format!("/{KEY}"), &[], 404),
        (format!("/keys/{KEY}"), &["-X", "DELETE"], 404),
        (format!("/status/get?key={KEY}"), &["-X", "POST"], 405),
        (
            format!("/demo/phone?key={KEY}&do=scan&after=0"),
            &["-X", "POST"],
            404,
        ),
        (format!("/status/get?key={KEY}"), &["-d", "12345"], 413),
        (
            format!("/status/get?key={KEY}"),
            &["-H", "host: other.example.com"],
            421,
        ),
        (
            format!("/status/get?key={KEY}&wait=0"),
            &["-e", "https://push.example.com/?key=t0psecret"],
            200,
        ),
    ] {
        assert_eq!(
            ask(&nginx, &target, args).await,
            status,
            "{target} {args:?}"
        );
    }
    for bytes in [
        format!(
            "GET /status/get?key={KEY}&_={} HTTP/1.1\r\n\r\n",
            "x".repeat(9000)
        ),
        format!("GET /status/get?key={KEY} HTTP/1.1\r\n\r\n"),
        format!("GET /status/get?key={KEY} HTTP/1.1\r\nhost: a b\r\n\r\n"),
        format!("GET /status/get?key={KEY} HTTP/9.9\r\nhost: push.example.com\r\n\r\n"),
        format!("GET /status/get?key={KEY}%00 {KEY}\r\n\r\n"),
        format!("GET /status/%{KEY} HTTP/1.1\r\nhost: push.example.com\r\n\r\n"),
        format!("{KEY}\r\n\r\n"),
    ] {
        let mut page = nginx.open().await;
        page.conn.send(&bytes).await;
        assert!(page.conn.read_to_end().await.len() > 100, "{bytes}");
    }
    let page = nginx.hold(&format!("key={KEY}&callback=cb")).await;
    node.wait_key_waiters(KEY, 1).await;
    drop(page);
    node.quiet().await;
    let log = nginx.end();
    assert!(!log.contains(KEY), "{log}");
    assert!(log.contains(" GET /status/get HTTP/2.0 200 "), "{log}");
    assert!(
        log.contains(" POST /status/get HTTP/1.1 405 ")
            && log.contains(" DELETE other HTTP/1.1 404 "),
        "{log}"
    );
    assert!(
        log.contains(" POST /demo HTTP/2.0 404 ") && log.contains(" 499 "),
        "{log}"
    );
}

#[tokio::test]
async fn no_key_is_logged_while_nodes_are_down_and_the_access_log_tells_which() {
    let scratch = Scratch::new();
    let missing = Address::parse(&scratch.socket("missing"));
    for (list, address) in [("nodes.conf", refusing()), ("nodes-unix.conf", missing)] {
        let site = Site::new(list).nodes([&address, &address]);
        let nginx = site.clone().start().await;
        assert_eq!(get(&nginx).await, 502);
        let log = nginx.end();
        assert!(!log.contains(KEY), "{log}");
        assert!(
            log.contains(" 502 ")
                && log.contains(&format!("\"{address}, {address}\" \"502, 502\"")),
            "{log}"
        );
        // Show that this test would find a key: without the remedy the key is in the error log.
        // If a socket is missing, it is there even at level `crit`.
        let level = if list == "nodes.conf" {
            "error"
        } else {
            "crit"
        };
        let nginx = site
            .change(
                "error_log /dev/null emerg;",
                &format!("error_log error.log {level};"),
            )
            .start()
            .await;
        assert_eq!(get(&nginx).await, 502);
        assert!(nginx.end().contains(&format!("key={KEY}")), "{list}");
    }
}

#[tokio::test]
async fn no_key_is_logged_when_a_node_dies_over_a_held_get() {
    let mut node = Node::start(&[]).await;
    let nginx = Nginx::start([&node.public]).await;
    let mut page = nginx.hold(&format!("key={KEY}&callback=cb")).await;
    node.wait_key_waiters(KEY, 1).await;
    node.signal("KILL").await;
    node.wait_exit().await;
    assert_eq!(page.conn.read_response().await.status, 502);
    let log = nginx.end();
    assert!(log.contains(" 502 ") && !log.contains(KEY), "{log}");
}

#[tokio::test]
async fn no_key_is_logged_when_a_client_meets_its_limits() {
    let node = Node::start(&[]).await;
    let site = Site::new("nodes.conf").nodes([&node.public]);
    let nginx = site
        .clone()
        .change("holdfast_conn 2000;", "holdfast_conn 1;")
        .start()
        .await;
    let _page = nginx.hold(&format!("key={KEY}&callback=cb")).await;
    node.wait_key_waiters(KEY, 1).await;
    assert_eq!(get(&nginx).await, 429);
    let log = nginx.end();
    assert!(log.contains(" 429 ") && !log.contains(KEY), "{log}");
    let nginx = site
        .change("rate=200r/s", "rate=1r/m")
        .change("burst=2000 nodelay", "burst=1 nodelay")
        .start()
        .await;
    assert_eq!(get(&nginx).await, 200);
    assert_eq!(get(&nginx).await, 429);
    let log = nginx.end();
    assert!(log.contains(" 429 ") && !log.contains(KEY), "{log}");
}

#[tokio::test]
async fn no_key_is_logged_when_the_workers_connections_run_out() {
    let node = Node::start(&[]).await;
    // nginx uses some connections itself. Each held get takes two of the rest. If one is left
    // over, nginx accepts another page but cannot connect it to a node.
    let site = Site::new("nodes.conf")
        .nodes([&node.public])
        .change("worker_processes 2;", "worker_processes 1;");
    let site = site.change("worker_connections 65536;", "worker_connections 17;");
    let run_out = async |nginx: &Nginx| {
        let (mut pages, mut held) = (Vec::new(), 0);
        loop {
            let mut page = nginx.hold(&format!("key={KEY}&callback=cb")).await;
            held += 1;
            let answer = tokio::select! {
                response = page.conn.read_response() => Some(response.status),
                () = node.wait_key_waiters(KEY, held) => None,
            };
            pages.push(page);
            if let Some(status) = answer {
                return status;
            }
        }
    };
    let nginx = site.clone().start().await;
    assert_eq!(run_out(&nginx).await, 500);
    let log = nginx.end();
    assert!(log.contains(" 500 ") && !log.contains(KEY), "{log}");
    node.quiet().await;
    let nginx = site
        .change("error_log /dev/null emerg;", "error_log error.log alert;")
        .start()
        .await;
    assert_eq!(run_out(&nginx).await, 500);
    let log = nginx.end();
    assert!(log.contains(KEY), "{log}");
}
