//! The node as a service of systemd: what it reports on the socket that systemd gives it.

use tokio::net::UnixDatagram;
use tokio::time::timeout;

use holdfast_testkit::{Launch, PATIENCE, Scratch, eventually};

/// Waits for a message with `wanted` as a line of it, and returns the message.
async fn reported(socket: &UnixDatagram, wanted: &str) -> String {
    messages_until(socket, wanted)
        .await
        .pop()
        .expect("the last one")
}

/// Returns the messages up to the one with `wanted` as a line of it.
async fn messages_until(socket: &UnixDatagram, wanted: &str) -> Vec<String> {
    let next = async {
        let mut messages = Vec::new();
        loop {
            let mut bytes = vec![0; 4096];
            let length = socket.recv(&mut bytes).await.unwrap();
            let message = String::from_utf8(bytes[..length].to_vec()).unwrap();
            let is_it = message.lines().any(|line| line == wanted);
            messages.push(message);
            if is_it {
                return messages;
            }
        }
    };
    let in_time = timeout(PATIENCE, next).await;
    in_time.unwrap_or_else(|_| panic!("no {wanted}"))
}

#[tokio::test]
async fn systemd_is_told_of_the_start_a_reload_the_end_and_that_the_node_is_not_stuck() {
    let scratch = Scratch::new();
    let path = scratch.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let path = path.display().to_string();
    let tokens = scratch.file("tokens", "a-token");
    let args = [
        "--drain-notice",
        "2s",
        "--drain-quiet",
        "0s",
        "--internal-token-file",
        &tokens,
    ];
    let launch = Launch::new(&args).env("NOTIFY_SOCKET", &path);
    let mut node = launch.env("WATCHDOG_USEC", "200000").start().await;
    let ready = reported(&socket, "READY=1").await;
    assert!(ready.lines().any(|line| line == "STATUS=ready"), "{ready}");
    for _ in 0..3 {
        reported(&socket, "WATCHDOG=1").await;
    }
    node.signal("HUP").await;
    let reloading = reported(&socket, "RELOADING=1").await;
    let mut lines = reloading.lines();
    assert!(
        lines.any(|line| line.starts_with("MONOTONIC_USEC=")),
        "{reloading}"
    );
    reported(&socket, "READY=1").await;
    std::fs::write(&tokens, "").unwrap();
    node.signal("HUP").await;
    let failed = "STATUS=ready; the files were not taken over, because of mistakes: see the log";
    let ready = reported(&socket, failed).await;
    assert!(ready.lines().any(|line| line == "READY=1"), "{ready}");
    node.signal("TERM").await;
    let stopping = reported(&socket, "STOPPING=1").await;
    let notice = "STATUS=not ready any more; the drain follows";
    assert!(stopping.lines().any(|line| line == notice), "{stopping}");
    // A node that ends is not ready again because it reads files.
    node.signal("HUP").await;
    let lines = || node.logs().into_iter();
    let reloads = || {
        lines()
            .filter(|line| line.contains("nothing was changed"))
            .count()
    };
    eventually(async || reloads() == 2, "the files are read again").await;
    let until_the_drain = messages_until(&socket, "STATUS=draining").await;
    for message in &until_the_drain {
        assert!(
            !message.contains("READY") && !message.contains("RELOADING"),
            "{message}"
        );
    }
    assert_eq!(node.wait_exit().await.code(), Some(0));
}

#[tokio::test]
async fn the_watchdog_of_another_process_is_left_alone() {
    let scratch = Scratch::new();
    let path = scratch.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let path = path.display().to_string();
    let launch = Launch::new(&["--drain-quiet", "0s"]).env("NOTIFY_SOCKET", &path);
    let launch = launch.env("WATCHDOG_USEC", "1000").env("WATCHDOG_PID", "1");
    let mut node = launch.start().await;
    reported(&socket, "READY=1").await;
    assert!(node.terminate().await.success());
    let mut bytes = vec![0; 4096];
    let mut rest = String::new();
    while let Ok(length) = socket.try_recv(&mut bytes) {
        rest += &String::from_utf8_lossy(&bytes[..length]);
    }
    assert!(rest.contains("STATUS=draining"), "{rest}");
    assert!(!rest.contains("WATCHDOG"), "{rest}");
}
