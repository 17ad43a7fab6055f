//! Tests of pages that come while a node drains, many of them and at the worst moments. Each
//! sees a whole answer or a refused connection, never a reset, and never an end without an
//! answer.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::{drain, log_line, wait_backlog};
use holdfast_testkit::{Conn, Node, PATIENCE, eventually, request};

/// The result that a page gets during a drain.
#[derive(Debug, PartialEq)]
enum Met {
    Answer,
    Refused,
    /// Anything else, which must not happen.
    Fault(String),
}

/// Connects, sends one get after `slowness`, and reports how the connection ended.
async fn meet(address: SocketAddr, slowness: Duration) -> Met {
    let asked = async {
        let mut stream = match TcpStream::connect(address).await {
            Ok(stream) => stream,
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => return Met::Refused,
            Err(error) => return Met::Fault(format!("connect: {error}")),
        };
        sleep(slowness).await;
        if let Err(error) = stream
            .write_all(&request("GET", "/status/get?key=k&callback=cb", &[], b""))
            .await
        {
            return Met::Fault(format!("write: {error}"));
        }
        let mut read = Vec::new();
        let end = stream.read_to_end(&mut read).await;
        let text = String::from_utf8_lossy(&read);
        match end {
            Ok(_) if text.starts_with("HTTP/1.1 200 ") && text.ends_with("});") => Met::Answer,
            end => Met::Fault(format!("read: {end:?} after {text:?}")),
        }
    };
    timeout(PATIENCE, asked)
        .await
        .unwrap_or_else(|_| Met::Fault("nothing in time".into()))
}

#[tokio::test]
async fn pages_that_keep_coming_are_answered_or_refused_and_extend_the_drain_to_its_grace() {
    const QUIET: Duration = Duration::from_millis(500);
    // The pause before each request. Because of it, whenever the drain ends, some connections
    // have not sent their request yet.
    const SLOWNESS: Duration = Duration::from_millis(20);
    let mut node = Node::start(&["--drain-quiet", "500ms", "--drain-grace", "3s"]).await;
    drain(&node).await;
    let (address, begun) = (node.public.tcp(), Instant::now());
    let mut pages = JoinSet::new();
    for page in 0..8 {
        pages.spawn(async move {
            sleep(SLOWNESS * page / 8).await;
            loop {
                match meet(address, SLOWNESS).await {
                    Met::Answer => {}
                    Met::Refused => return begun.elapsed(),
                    Met::Fault(fault) => panic!("{fault} at {:?} of the drain", begun.elapsed()),
                }
                assert!(
                    begun.elapsed() < 2 * PATIENCE,
                    "accepted far beyond the grace"
                );
            }
        });
    }
    let refused = pages.join_all().await.into_iter().min().unwrap();
    assert!(
        refused > 3 * QUIET,
        "not extended: refused after {refused:?}"
    );
    assert_eq!(node.wait_exit().await.code(), Some(0));
}

/// Stops the process, so that new connections stay in the backlog.
async fn freeze(node: &Node) {
    node.signal("STOP").await;
    let stat = format!("/proc/{}/stat", node.pid());
    // The state follows the process name, which is in parentheses.
    let stopped = || {
        std::fs::read_to_string(&stat)
            .unwrap()
            .rsplit_once(") ")
            .unwrap()
            .1
            .starts_with('T')
    };
    eventually(async || stopped(), "the process is stopped").await;
}

/// Makes 300 connections with a get each, more than a task may accept in one go.
fn crowd(node: &Node) -> JoinSet<Met> {
    let address = node.public.tcp();
    (0..300).map(|_| meet(address, Duration::ZERO)).collect()
}

#[tokio::test]
async fn connections_in_the_backlog_at_the_end_of_the_quiet_are_answered() {
    const QUIET: Duration = Duration::from_secs(2);
    let mut node = Node::start(&["--drain-quiet", "2s", "--drain-grace", "10m"]).await;
    node.signal("TERM").await;
    log_line(&node, "draining").await;
    freeze(&node).await;
    let crowd = crowd(&node);
    wait_backlog(&node, Some(300)).await;
    // Time has to pass here; this does not wait for something to happen.
    sleep(QUIET).await;
    node.signal("CONT").await;
    for met in crowd.join_all().await {
        assert_eq!(met, Met::Answer);
    }
    assert_eq!(node.wait_exit().await.code(), Some(0));
}

#[tokio::test]
async fn connections_in_the_backlog_at_the_beginning_of_the_drain_are_answered_even_without_a_quiet()
 {
    let mut node = Node::start(&["--drain-quiet", "0s", "--drain-grace", "10m"]).await;
    freeze(&node).await;
    let crowd = crowd(&node);
    wait_backlog(&node, Some(300)).await;
    node.signal("TERM").await;
    node.signal("CONT").await;
    for met in crowd.join_all().await {
        assert_eq!(met, Met::Answer);
    }
    assert_eq!(node.wait_exit().await.code(), Some(0));
}

#[tokio::test]
async fn connections_beyond_the_limit_are_answered_although_idle_ones_take_all_places() {
    let args = [
        "--max-connections",
        "1",
        "--idle-timeout",
        "10m",
        "--drain-quiet",
        "100ms",
        "--drain-grace",
        "5s",
    ];
    let mut node = Node::start(&args).await;
    let mut idle = Conn::open(&node.public).await;
    assert_eq!(
        idle.ask(request("GET", "/status/get?key=k&wait=0", &[], b""))
            .await
            .code(),
        -1
    );
    let address = node.public.tcp();
    let waiting = tokio::spawn(meet(address, Duration::ZERO));
    // A listener takes one more connection out of the backlog only when it has room for it.
    wait_backlog(&node, Some(1)).await;
    node.signal("TERM").await;
    assert_eq!(waiting.await.unwrap(), Met::Answer);
    idle.expect_close().await;
    assert_eq!(node.wait_exit().await.code(), Some(0));
}
