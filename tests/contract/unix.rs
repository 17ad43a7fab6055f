//! Listeners on unix sockets: they do all that TCP does, and take care of the socket's file.

use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use tokio::process::Command;

use holdfast_testkit::{Conn, Finished, Launch, Node, Scratch, eventually, request};

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|data| data.file_type().is_socket())
}

/// Starts a node whose listeners are the sockets `public` and `internal` in `scratch`.
async fn start(scratch: &Scratch, more: &[&str]) -> Node {
    let (public, internal) = (scratch.socket("public"), scratch.socket("internal"));
    Node::start(&[&["--public", &public, "--internal", &internal], more].concat()).await
}

/// Checks that the start failed because of `address`.
fn assert_failed(finished: &Finished, flag: &str, address: &str) {
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    let last = finished.stderr.lines().last().unwrap_or_default();
    assert!(
        last.contains(flag) && last.contains(address),
        "{finished:?}"
    );
}

#[tokio::test]
async fn gets_sets_and_health_work_over_unix_sockets() {
    let scratch = Scratch::new();
    let node = start(&scratch, &[]).await;
    let mut held = node.hold("key=k&callback=cb").await;
    let looked = node.internal("GET", "/keys/k", &[], b"").await.json();
    let (name, count) = looked["waiters"]
        .as_object()
        .unwrap()
        .iter()
        .next()
        .unwrap();
    assert!(
        name.ends_with(&format!("@{}", scratch.socket("internal"))) && *count == 1,
        "{looked}"
    );
    let version = node.set_ok("k", r#""v""#).await;
    let response = held.answer().await;
    assert_eq!((response.code(), response.version()), (0, version));
    // The node's own address, through which its own status goes, is a socket too.
    let path = async || node.internal("GET", "/health/path", &[], b"").await.status == 200;
    eventually(path, "/health/path is 200").await;
    node.quiet().await;
}

#[tokio::test]
async fn one_listener_may_be_a_socket_and_the_other_not() {
    let scratch = Scratch::new();
    for args in [
        ["--public", &scratch.socket("p")],
        ["--internal", &scratch.socket("i")],
    ] {
        let node = Node::start(&args).await;
        let version = node.set_ok("k", "1").await;
        assert_eq!(node.get("/status/get?key=k").await.version(), version);
    }
}

#[tokio::test]
async fn a_held_get_is_answered_retry_in_the_drain_and_the_files_are_removed() {
    let scratch = Scratch::new();
    let mut node = start(
        &scratch,
        &["--drain-quiet", "100ms", "--drain-grace", "10m"],
    )
    .await;
    let mut idle = Conn::open(&node.public).await;
    idle.ask(request("GET", "/status/get?key=k&wait=0", &[], b""))
        .await;
    let mut held = node.hold("key=k&callback=cb").await;
    assert!(is_socket(&scratch.path("public")) && is_socket(&scratch.path("internal")));
    node.signal("TERM").await;
    assert_eq!(held.answer().await.code(), -2);
    held.conn.expect_close().await;
    idle.expect_close().await;
    assert_eq!(node.wait_exit().await.code(), Some(0));
    assert!(!scratch.path("public").exists() && !scratch.path("internal").exists());
}

#[tokio::test]
async fn the_socket_that_a_killed_node_left_is_replaced() {
    let scratch = Scratch::new();
    let mut node = start(&scratch, &[]).await;
    node.signal("KILL").await;
    node.wait_exit().await;
    assert!(is_socket(&scratch.path("public")) && is_socket(&scratch.path("internal")));
    let node = start(&scratch, &[]).await;
    let version = node.set_ok("k", "1").await;
    assert_eq!(node.get("/status/get?key=k").await.version(), version);
}

#[tokio::test]
async fn a_socket_that_somebody_listens_on_is_refused_and_left_alone() {
    let scratch = Scratch::new();
    let node = start(&scratch, &[]).await;
    for (flag, name) in [("--public", "public"), ("--internal", "internal")] {
        let address = scratch.socket(name);
        assert_failed(&Launch::new(&[flag, &address]).run().await, flag, &address);
        // The other listener of the start that failed leaves no file behind.
        let other = if flag == "--public" {
            "--internal"
        } else {
            "--public"
        };
        assert_failed(
            &Launch::new(&[flag, &address, other, &scratch.socket("new")])
                .run()
                .await,
            flag,
            &address,
        );
        assert!(!scratch.path("new").exists());
    }
    let version = node.set_ok("k", "1").await;
    assert_eq!(node.get("/status/get?key=k").await.version(), version);
    // The same holds if the socket is another program's, which never accepts.
    let _listener = UnixListener::bind(scratch.path("busy")).unwrap();
    assert_failed(
        &Launch::new(&["--public", &scratch.socket("busy")])
            .run()
            .await,
        "--public",
        &scratch.socket("busy"),
    );
    assert!(UnixStream::connect(scratch.path("busy")).is_ok());
}

#[tokio::test]
async fn what_is_no_socket_is_refused_and_not_deleted() {
    let scratch = Scratch::new();
    scratch.file("file", "precious");
    std::fs::create_dir(scratch.path("directory")).unwrap();
    std::os::unix::fs::symlink(scratch.path("file"), scratch.path("link")).unwrap();
    std::os::unix::fs::symlink(scratch.path("nothing"), scratch.path("dangling")).unwrap();
    for name in ["file", "directory", "link", "dangling"] {
        let address = scratch.socket(name);
        assert_failed(
            &Launch::new(&["--public", &address]).run().await,
            "--public",
            &address,
        );
        assert!(
            std::fs::symlink_metadata(scratch.path(name)).is_ok(),
            "{name} is still there"
        );
    }
    assert_eq!(
        std::fs::read_to_string(scratch.path("file")).unwrap(),
        "precious"
    );
}

#[tokio::test]
async fn a_path_that_cannot_be_a_socket_is_refused() {
    let scratch = Scratch::new();
    let long = scratch.socket(&"x".repeat(120));
    for address in [scratch.socket("nowhere/x.sock"), long] {
        assert_failed(
            &Launch::new(&["--internal", &address]).run().await,
            "--internal",
            &address,
        );
    }
    for address in ["unix:x.sock", "unix:./x.sock", "unix:"] {
        let finished = Launch::new(&["--public", address]).run().await;
        assert_eq!(finished.status.code(), Some(64), "{finished:?}");
        assert!(
            finished.stderr.contains("--public") && finished.stderr.lines().count() == 1,
            "{finished:?}"
        );
    }
}

/// Returns the value of an attribute in HTML, with its references decoded.
fn unescaped(text: &str) -> String {
    text.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&#39;", "'")
        .replace("&amp;", "&")
}

#[tokio::test]
async fn the_line_that_the_demo_page_shows_reaches_the_socket() {
    let scratch = Scratch::new();
    // Paths may hold any character, even those that a shell would take apart.
    for name in ["internal", "in ter'nal"] {
        let node = Node::start(&["--demo", "--internal", &scratch.socket(name)]).await;
        let page = node.get("/demo").await;
        let (_, rest) = page
            .text()
            .split_once(r#"<meta name="holdfast-internal" content=""#)
            .expect("the address");
        let internal = unescaped(rest.split_once('"').unwrap().0);
        assert!(internal.contains("--unix-socket "), "{internal}");
        // The page's script puts the text into this line, which its reader pastes into a shell.
        let line = format!(r#"curl -s -d '{{"key":"k","value":1}}' {internal}/status/set"#);
        let output = Command::new("sh")
            .args(["-c", &line])
            .output()
            .await
            .unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
        assert!(
            output.stdout.starts_with(br#"{"code":0,"#),
            "{line}: {output:?}"
        );
        assert_eq!(node.get("/status/get?key=k").await.code(), 0);
    }
}
