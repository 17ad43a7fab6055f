//! Clients that are slow, are idle, or never read, and the answer that a refused client still
//! gets although it goes on sending.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::{LINE, SET, long_head, target, with};
use holdfast_testkit::{Address, Conn, Node, PATIENCE, eventually, request};

/// The time limit that a test sets. It is long enough for the harness to ask within it on a busy
/// machine.
const SHORT: Duration = Duration::from_millis(500);

/// Waits until the node closes the connection without an answer, not sooner than [`SHORT`] after
/// `since`.
async fn expect_close_after(conn: &mut Conn, since: Instant, what: &str) {
    let rest = conn.read_to_end().await;
    assert!(
        rest.is_empty(),
        "{what}: {}",
        String::from_utf8_lossy(&rest)
    );
    assert!(
        since.elapsed() >= SHORT,
        "{what}: closed after {:?}",
        since.elapsed()
    );
}

#[tokio::test]
async fn a_head_that_is_not_complete_in_time_is_closed() {
    let node = Node::start(&["--head-timeout", "500ms"]).await;
    for address in [&node.public, &node.internal] {
        let head = format!("GET {} HTTP/1.1\r\nhost: a\r\n", target(address, &node));
        let mut slow = JoinSet::new();
        for sent in ["", "\r\n", "G", "GET /status", &head] {
            let (address, sent) = (address.clone(), sent.to_owned());
            slow.spawn(async move {
                let since = Instant::now();
                let mut conn = Conn::open(&address).await;
                conn.send(&sent).await;
                expect_close_after(&mut conn, since, &sent).await;
            });
        }
        slow.join_all().await;
        // The second head of a connection has the same limit, though the connection may be idle
        // for longer.
        let mut conn = Conn::open(address).await;
        conn.ask(format!("{head}\r\n")).await;
        let since = Instant::now();
        conn.send(&head).await;
        expect_close_after(&mut conn, since, "a second head").await;
    }
}

#[tokio::test]
async fn a_head_that_began_behind_another_request_has_no_longer() {
    let node = Node::start(&["--head-timeout", "500ms", "--hold", "2s"]).await;
    let begun = "GET /status";
    let mut conn = Conn::open(&node.public).await;
    conn.send([&with("")[..], begun.as_bytes()].concat()).await;
    assert_eq!(conn.read_response().await.status, 200);
    conn.expect_close().await;
    // The time for which a request in front is held does not count against the head behind it.
    let mut held = node.hold("key=k").await;
    held.conn.send(begun).await;
    assert_eq!(held.answer().await.code(), -1);
    held.conn.expect_close().await;
    node.quiet().await;
}

#[tokio::test]
async fn a_head_that_drips_is_closed_all_the_same() {
    let node = Node::start(&["--head-timeout", "500ms"]).await;
    let mut conn = Conn::open(&node.public).await;
    conn.send(with("")).await;
    conn.read_response().await;
    conn.send(LINE).await;
    let drip = async {
        // This stays far below the 16 KiB that a head may have. A write fails once the close is
        // known.
        while conn.try_send("x").await {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, drip)
        .await
        .expect("closed though bytes come");
    conn.expect_close().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_in_its_time() {
    let node = Node::start(&["--idle-timeout", "500ms"]).await;
    for address in [&node.public, &node.internal] {
        let mut conn = Conn::open(address).await;
        let mut since = Instant::now();
        for _ in 0..3 {
            since = Instant::now();
            assert_eq!(
                conn.ask(request("GET", target(address, &node), &[], b""))
                    .await
                    .status,
                200
            );
        }
        expect_close_after(&mut conn, since, "idle").await;
    }
}

#[tokio::test]
async fn a_connection_whose_get_was_answered_early_is_idle_from_then_on() {
    let node = Node::start(&["--idle-timeout", "500ms", "--hold", "10m"]).await;
    let mut held = node.hold("key=k&callback=cb").await;
    let answered = Instant::now();
    node.set_ok("k", "1").await;
    assert_eq!(held.answer().await.code(), 0);
    expect_close_after(&mut held.conn, answered, "an idle connection").await;
}

#[tokio::test]
async fn neither_the_idle_nor_the_held_are_cut_by_shorter_limits_of_others() {
    let short = [
        "--head-timeout",
        "500ms",
        "--body-timeout",
        "500ms",
        "--write-timeout",
        "500ms",
    ];
    let node = Node::start(&[&short[..], &["--hold", "1s"]].concat()).await;
    let mut idle = Conn::open(&node.public).await;
    idle.ask(with("")).await;
    assert_eq!(node.open("key=k").await.answer().await.code(), -1);
    assert!(
        idle.is_silent_for(Duration::from_millis(100)).await,
        "idle for longer than a head may take"
    );
    assert_eq!(idle.ask(with("")).await.status, 200);
    // A held get is not idle either, and its wait does not count as a slow head.
    let node =
        Node::start(&[&short[..], &["--hold", "1s", "--idle-timeout", "500ms"]].concat()).await;
    assert_eq!(node.open("key=k").await.answer().await.code(), -1);
    node.quiet().await;
}

#[tokio::test]
async fn a_body_that_is_not_complete_in_time_is_a_408() {
    let node = Node::start(&["--body-timeout", "500ms"]).await;
    for framing in ["content-length: 1000", "transfer-encoding: chunked"] {
        let mut conn = Conn::open(&node.internal).await;
        conn.send(format!("{SET}{framing}\r\n\r\n")).await;
        conn.send("1").await;
        let response = conn.read_response().await;
        assert_eq!(
            (
                response.status,
                response.code(),
                response.header("connection")
            ),
            (408, -5, Some("close"))
        );
        conn.expect_close().await;
    }
}

/// Opens a connection that can take only little before its reader reads.
async fn small_reader(address: &Address) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    timeout(PATIENCE, socket.connect(address.tcp()))
        .await
        .expect("in time")
        .expect("a connection")
}

#[tokio::test]
async fn a_client_that_never_reads_is_cut_off_and_costs_no_memory() {
    let node = Node::start(&["--write-timeout", "500ms"]).await;
    node.set_ok("k", &format!("\"{}\"", "x".repeat(65_534)))
        .await;
    let before = node.resident_bytes();
    let mut streams = Vec::new();
    for _ in 0..4 {
        let mut stream = small_reader(&node.public).await;
        // 1,000 answers of 64 KiB are 64 MB. The requests fit the socket buffers, or are not
        // sent.
        let asked = request("GET", "/status/get?key=k", &[], b"").repeat(1000);
        let _ = timeout(Duration::from_millis(100), stream.write_all(&asked)).await;
        streams.push(stream);
    }
    let mut most = 0;
    let cut_off = async || {
        most = most.max(node.resident_bytes());
        node.connections().await == 0.0
    };
    eventually(cut_off, "who does not read is cut off").await;
    assert!(
        most < before + 16 * 1024 * 1024,
        "{before} bytes before, {most} at most"
    );
    assert_eq!(node.get("/status/get?key=k").await.code(), 0);
}

#[tokio::test]
async fn a_client_that_has_sent_further_heads_has_the_write_timeout_to_read() {
    let limits = ["--head-timeout", "500ms", "--write-timeout", "10s"];
    let node = Node::start(&limits).await;
    let library = request("GET", "/holdfast.js", &[], b"");
    let mut conn = Conn::open(&node.public).await;
    let answer = conn.ask(&library).await.bytes().len();
    // Far more than the sockets' buffers hold, and half a head after each.
    let count = 10_000;
    let (mut from, mut to) = TcpStream::connect(node.public.tcp())
        .await
        .unwrap()
        .into_split();
    let asked = library.repeat(count);
    let sending = tokio::spawn(async move { to.write_all(&asked).await.map(|()| to) });
    sleep(3 * SHORT).await;
    let (mut buffer, mut total) = (vec![0; 65_536], 0);
    while total < count * answer {
        let read = timeout(PATIENCE, from.read(&mut buffer)).await;
        let read = read.expect("in time").expect("no reset");
        assert!(
            read > 0,
            "cut off after {total} of {} bytes",
            count * answer
        );
        total += read;
    }
    assert_eq!(total, count * answer);
    sending.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_that_reads_slowly_gets_everything() {
    let node = Node::start(&["--write-timeout", "2s"]).await;
    node.set_ok("k", &format!("\"{}\"", "x".repeat(65_534)))
        .await;
    let all = 400 * node.get("/status/get?key=k").await.bytes().len();
    let (mut from, mut to) = TcpStream::connect(node.public.tcp())
        .await
        .unwrap()
        .into_split();
    // 26 MB are more than the sockets' buffers hold, so the writer waits for the reader. All its
    // waits together are longer than a single one may be.
    let asked = request("GET", "/status/get?key=k", &[], b"").repeat(400);
    let sending = tokio::spawn(async move { to.write_all(&asked).await.map(|()| to) });
    let (mut buffer, mut total, since) = (vec![0; 65_536], 0, Instant::now());
    while total < all {
        // For three seconds read at most 4 MB a second, however seldom the machine lets us read.
        let slow = since.elapsed() < Duration::from_secs(3);
        if slow && total as f64 > 4e6 * since.elapsed().as_secs_f64() {
            sleep(Duration::from_millis(1)).await;
            continue;
        }
        let count = timeout(PATIENCE, from.read(&mut buffer))
            .await
            .expect("in time")
            .expect("no reset");
        assert!(
            count > 0,
            "cut off after {total} of {all} bytes, {:?}",
            since.elapsed()
        );
        total += count;
    }
    assert_eq!(total, all);
    sending.await.unwrap().expect("all was sent");
}

/// Has a reader begin an answer of 8 MB only when the idle timeout would long have ended the
/// connection.
#[tokio::test]
async fn a_connection_is_not_idle_while_its_answer_is_being_written() {
    let node = Node::start(&["--idle-timeout", "500ms", "--max-value-bytes", "8000000"]).await;
    node.set_ok("k", &format!("\"{}\"", "x".repeat(7_999_998)))
        .await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(65_536).unwrap();
    let mut stream = socket.connect(node.public.tcp()).await.unwrap();
    stream
        .write_all(&request("GET", "/status/get?key=k", &[], b""))
        .await
        .unwrap();
    sleep(3 * SHORT).await;
    let response = Conn::over(stream).read_response().await;
    assert_eq!(
        (response.status, response.body.len() > 8_000_000),
        (200, true)
    );
}

/// Reads to the end. Returns the bytes, and whether the end was a close and no reset.
async fn read_all(from: &mut (impl AsyncReadExt + Unpin)) -> (Vec<u8>, bool) {
    let mut all = Vec::new();
    let ended: io::Result<usize> = timeout(PATIENCE, from.read_to_end(&mut all))
        .await
        .expect("it ends in time");
    (all, ended.is_ok())
}

/// Returns requests that are refused whatever their body is, each with the beginning of its
/// refusal. Each body has 200,000 bytes.
fn unwanted(public: bool) -> Vec<(&'static str, Vec<u8>)> {
    let body = vec![b'x'; 200_000];
    let chunked = ["30d40\r\n".as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
    let head = |line: &str, framing: &str| {
        format!("{line} HTTP/1.1\r\nhost: a\r\n{framing}\r\n\r\n").into_bytes()
    };
    let asked = |line, framing, body: &[u8]| [&head(line, framing)[..], body].concat();
    let length = "content-length: 200000";
    match public {
        true => vec![
            (
                "HTTP/1.1 400 ",
                asked("GET /status/get?key=k", length, &body),
            ),
            (
                "HTTP/1.1 400 ",
                asked(
                    "GET /status/get?key=k",
                    "transfer-encoding: chunked",
                    &chunked,
                ),
            ),
            ("HTTP/1.1 400 ", asked("oops", "", &body)),
            ("HTTP/1.1 431 ", long_head(200_000)),
        ],
        false => vec![
            ("HTTP/1.1 413 ", asked("POST /status/set", length, &body)),
            (
                "HTTP/1.1 413 ",
                asked("POST /status/set", "transfer-encoding: chunked", &chunked),
            ),
            ("HTTP/1.1 404 ", asked("POST /nowhere", length, &body)),
            (
                "HTTP/1.1 501 ",
                asked(
                    "POST /status/set",
                    "transfer-encoding: gzip, chunked",
                    &chunked,
                ),
            ),
        ],
    }
}

#[tokio::test]
async fn a_refusal_reaches_who_sends_all_of_its_body_first() {
    let node = Node::start(&["--max-body-bytes", "100000"]).await;
    for (address, public) in [(&node.public, true), (&node.internal, false)] {
        for (line, asked) in unwanted(public) {
            let mut stream = TcpStream::connect(address.tcp()).await.unwrap();
            let sent = timeout(PATIENCE, stream.write_all(&asked))
                .await
                .expect("sent in time");
            let (came, closed) = read_all(&mut stream).await;
            let came = String::from_utf8(came).unwrap();
            assert!(sent.is_ok() && closed, "{line}: reset; {came}");
            assert!(
                came.starts_with(line) && came.contains("connection: close\r\n"),
                "{line}: {came}"
            );
            assert!(
                came.ends_with('}') || came.contains("content-length: 0\r\n"),
                "{line}: {came}"
            );
        }
    }
}

/// Neither many bytes nor many seconds hold a refused connection open. Its client reads the
/// answer all the same.
#[tokio::test]
async fn who_goes_on_sending_after_a_413_is_answered_and_then_cut_off() {
    let node = Node::start(&["--max-body-bytes", "1000", "--max-value-bytes", "1000"]).await;
    let head = format!("{SET}content-length: 1000000000\r\n\r\n");
    for (size, pause) in [(65_536, Duration::ZERO), (1, Duration::from_millis(20))] {
        let mut stream = TcpStream::connect(node.internal.tcp()).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let (mut from, mut to) = stream.split();
        let part = vec![b'x'; size];
        let send = async {
            let mut sent = 0;
            while to.write_all(&part).await.is_ok() {
                sent += size;
                assert!(sent < 1 << 28, "still read");
                sleep(pause).await;
            }
        };
        let both = async { tokio::join!(timeout(PATIENCE, send), read_all(&mut from)) };
        let (sending, (came, _)) = both.await;
        sending.expect("cut off");
        let came = String::from_utf8(came).unwrap();
        assert!(
            came.starts_with("HTTP/1.1 413 ")
                && came.ends_with(r#""body: longer than 1000 bytes"}"#),
            "{came}"
        );
    }
    eventually(
        async || node.metrics().await[r#"holdfast_connections{listener="internal"}"#] == 1.0,
        "only ours",
    )
    .await;
}
