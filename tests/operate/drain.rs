//! Tests of the drain: nobody is left waiting, no connection is reset, and the process ends by
//! itself.
//!
//! A test that looks at a drain keeps it open by a long quiet (`OPEN`). If the public listener
//! is closed, a client that does not read its answer keeps it open (`brake`). So no test has to
//! be faster than the program.

mod crowd;
mod returning;
mod signals;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use holdfast_testkit::{Address, Conn, Node, PATIENCE, Response, eventually, request};

/// Settings of a drain that does not end while a test runs.
const OPEN: [&str; 6] = [
    "--hold",
    "10m",
    "--drain-quiet",
    "1m",
    "--drain-grace",
    "10m",
];
/// Settings of a drain that ends as soon as it may, and that would wait long for anything that
/// does not end.
const SHORT: [&str; 6] = [
    "--drain-quiet",
    "100ms",
    "--drain-grace",
    "10m",
    "--head-timeout",
    "10m",
];
/// Settings that let clients take their time, and that let values be as long as `LONG`.
const PATIENT: [&str; 6] = [
    "--write-timeout",
    "10m",
    "--body-timeout",
    "10m",
    "--max-value-bytes",
    "8000000",
];
const LONG: usize = 7_000_000;

/// The beginning of a query in each form, and the HTTP status of -2 in that form.
const FORMS: [(&str, u16); 3] = [("callback=cb&", 200), ("assign=qr&", 200), ("", 503)];

/// Sends SIGTERM, and waits until the public listener drains.
async fn drain(node: &Node) {
    node.signal("TERM").await;
    let ends = async || node.get("/nothing").await.header("connection") == Some("close");
    eventually(ends, "answers end their connections").await;
}

/// Checks that the answer is -2 and repeats `last`, and returns its `retry_after_ms`.
fn check_retry(http_status: u16, last: u64, response: &Response) -> u64 {
    let object = response.object();
    let after = object["retry_after_ms"]
        .as_u64()
        .unwrap_or_else(|| panic!("no retry_after_ms: {response:?}"));
    let text = format!(
        r#"{{"code":-2,"message":"retry","value":null,"version":{last},"final":false,"retry_after_ms":{after}}}"#
    );
    assert_eq!(
        (response.status, response.object_text()),
        (http_status, text.as_str())
    );
    // A page that comes in the drain of a lone node is asked to stay away for longer.
    assert!((100..=5000).contains(&after), "{response:?}");
    let seconds = after.div_ceil(1000).to_string();
    assert_eq!(
        response.header("retry-after"),
        (http_status == 503).then_some(seconds.as_str())
    );
    assert_eq!(response.header("connection"), Some("close"), "{response:?}");
    after
}

/// Asks for `query` on a new connection. The connection must end with the answer.
async fn ask_last(node: &Node, query: &str) -> Response {
    let mut held = node.open(query).await;
    let response = held.answer().await;
    assert_eq!(
        response.header("connection"),
        Some("close"),
        "{query}: {response:?}"
    );
    held.conn.expect_close().await;
    response
}

/// Waits for the line of the node's log whose message is `message`, and returns it.
async fn log_line(node: &Node, message: &str) -> Value {
    let find = || {
        let lines = node
            .logs()
            .into_iter()
            .map(|line| serde_json::from_str(&line).expect("JSON"));
        lines
            .into_iter()
            .find(|line: &Value| line["message"] == message)
    };
    eventually(
        async || find().is_some(),
        &format!("{message:?} in the log"),
    )
    .await;
    find().unwrap()
}

/// Opens a public connection that keeps a drain from ending: its client does not read an answer
/// that is larger than all buffers.
async fn brake(node: &Node) -> TcpStream {
    node.set_ok("long", &format!("\"{}\"", "x".repeat(LONG)))
        .await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(node.public.tcp()).await.unwrap();
    stream
        .write_all(&request("GET", "/status/get?key=long", &[], b""))
        .await
        .unwrap();
    let mut begun = [0; 12];
    timeout(PATIENCE, stream.read_exact(&mut begun))
        .await
        .expect("an answer that begins")
        .unwrap();
    assert_eq!(&begun, b"HTTP/1.1 200");
    stream
}

/// Opens an internal connection that keeps a drain from ending: the node waits for the body of
/// its request.
async fn internal_brake(node: &Node) -> Conn {
    let mut conn = Conn::open(&node.internal).await;
    conn.send(
        "POST /status/set HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n",
    )
    .await;
    assert_eq!(conn.read_response().await.status, 100);
    conn
}

/// Returns how many connections to a listener wait to be accepted, or `None` if nothing
/// listens. The kernel reports it; a test connection would delay the end of a drain.
fn backlog(address: &Address) -> Option<u64> {
    let address = address.tcp();
    let local = format!(": 0100007F:{:04X} ", address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
    // The format is `sl: local_address rem_address st tx_queue:rx_queue`. In the line of a
    // listening socket (st is 0A), rx_queue is the backlog.
    let line = table
        .lines()
        .find(|line| line.contains(&local) && line.contains(" 0A "))?;
    let (_, waiting) = line.split_whitespace().nth(4)?.split_once(':')?;
    Some(u64::from_str_radix(waiting, 16).expect("a number"))
}

async fn wait_backlog(node: &Node, count: Option<u64>) {
    let reached = async || backlog(&node.public) == count;
    eventually(reached, &format!("{count:?} connections in the backlog")).await;
}

#[tokio::test]
async fn each_signal_answers_every_held_get_at_once_and_turns_ready_503() {
    for signal in ["TERM", "INT"] {
        let node = Node::start(&OPEN).await;
        let mut held = Vec::new();
        for (form, http_status) in FORMS {
            held.push((
                http_status,
                7,
                node.hold(&format!("{form}key=one&last=7")).await,
            ));
            held.push((
                http_status,
                0,
                node.hold(&format!("{form}key=other&wait=600")).await,
            ));
        }
        node.signal(signal).await;
        for (http_status, last, held) in &mut held {
            let after = check_retry(*http_status, *last, &held.answer().await);
            assert!(after <= 1000, "{after}");
            held.conn.expect_close().await;
        }
        let ready = node.internal("GET", "/health/ready", &[], b"").await;
        assert_eq!((ready.status, ready.code()), (503, -6), "{ready:?}");
        assert_eq!(
            node.internal("GET", "/health/live", &[], b"").await.status,
            200
        );
        assert_eq!(
            node.metric(r#"holdfast_gets_total{outcome="retry"}"#).await,
            6.0
        );
        assert_eq!(
            log_line(&node, "draining").await["signal"],
            format!("SIG{signal}")
        );
        node.quiet().await;
    }
}

#[tokio::test]
async fn pages_are_told_different_times_to_come_back() {
    const COUNT: usize = 200;
    let node = Node::start(&OPEN).await;
    let mut held = Vec::new();
    for _ in 0..COUNT {
        held.push(node.open("key=k&callback=cb").await);
    }
    node.wait_key_waiters("k", COUNT as u64).await;
    node.signal("TERM").await;
    let mut times = Vec::new();
    for held in &mut held {
        times.push(check_retry(200, 0, &held.answer().await));
    }
    // The times are uniform in 100 to 1000. The chance that none of 200 falls into an outer
    // quarter is one in 10^24.
    let (least, most) = (times.iter().min().unwrap(), times.iter().max().unwrap());
    assert!(*least < 325 && *most > 775, "{least} to {most}");
    node.quiet().await;
}

#[tokio::test]
async fn new_connections_are_accepted_answered_and_closed() {
    let node = Node::start(&OPEN).await;
    drain(&node).await;
    for (form, http_status) in FORMS {
        for more in ["", "&wait=0", "&wait=5"] {
            check_retry(
                http_status,
                3,
                &ask_last(&node, &format!("{form}key=k&last=3{more}")).await,
            );
        }
        assert_eq!(ask_last(&node, &format!("{form}last=3")).await.code(), -5);
    }
    assert_eq!(
        ask_last(&node, "key=k&callback=alert(1)").await.text(),
        "/**/"
    );
    node.quiet().await;
}

/// The node checks every few seconds whether it reaches itself. In a drain it does not, and that
/// is no fault.
#[tokio::test]
async fn a_drain_that_lasts_logs_no_fault_of_the_health_check() {
    let args = ["--drain-grace", "8s", "--body-timeout", "1m"];
    let mut node = Node::start(&args).await;
    let mut slow = Conn::open(&node.internal).await;
    slow.send("POST /status/set HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{")
        .await;
    eventually(
        async || {
            node.metric("holdfast_connections{listener=\"internal\"}")
                .await
                >= 2.0
        },
        "the slow set is accepted",
    )
    .await;
    node.signal("TERM").await;
    node.wait_exit().await;
    let faults: Vec<_> = node
        .logs()
        .into_iter()
        .filter(|line| line.contains("ERROR") || line.contains("did not arrive"))
        .collect();
    assert_eq!(faults, Vec::<String>::new());
}

#[tokio::test]
async fn a_get_during_the_drain_gets_the_status_that_is_newer() {
    let node = Node::start(&OPEN).await;
    let before = node.set_ok("k", r#""before""#).await;
    drain(&node).await;
    for (form, http_status) in FORMS {
        let response = ask_last(&node, &format!("{form}key=k&last={}", before - 1)).await;
        assert_eq!(
            (response.status, response.code(), response.version()),
            (200, 0, before),
            "{response:?}"
        );
        check_retry(
            http_status,
            before,
            &ask_last(&node, &format!("{form}key=k&last={before}")).await,
        );
    }
    // Sets work until the end of the drain, and pages that still come get the new status.
    let during = node.set_ok("k", r#""during""#).await;
    let response = ask_last(&node, &format!("key=k&last={before}")).await;
    assert_eq!(
        (response.code(), response.version()),
        (0, during),
        "{response:?}"
    );
    let gone = node.delete_ok("k").await;
    let response = ask_last(&node, &format!("key=k&last={during}")).await;
    assert_eq!(
        (response.code(), response.version()),
        (-4, gone),
        "{response:?}"
    );
    node.quiet().await;
}

#[tokio::test]
async fn connections_from_before_the_drain_are_answered_retry_and_closed() {
    let node = Node::start(&OPEN).await;
    let get = request("GET", "/status/get?key=k&wait=0", &[], b"");
    let mut idle = Conn::open(&node.public).await;
    assert_eq!(idle.ask(&get).await.header("connection"), None);
    let mut unused = Conn::open(&node.public).await;
    let mut in_head = Conn::open(&node.public).await;
    in_head.send(&get[..20]).await;
    drain(&node).await;
    for (conn, rest) in [
        (&mut idle, &get[..]),
        (&mut unused, &get),
        (&mut in_head, &get[20..]),
    ] {
        check_retry(503, 0, &conn.ask(rest).await);
        conn.expect_close().await;
    }
    node.quiet().await;
}

/// Reads one JSON answer, and leaves the stream open.
async fn skip_answer(stream: &mut TcpStream, request: &[u8]) {
    stream.write_all(request).await.unwrap();
    let mut read = Vec::new();
    while !read.ends_with(b"}") {
        assert_ne!(
            timeout(PATIENCE, stream.read_buf(&mut read))
                .await
                .expect("in time")
                .unwrap(),
            0
        );
    }
}

#[tokio::test]
async fn idle_connections_end_without_a_reset_and_the_process_with_0() {
    let mut node = Node::start(&SHORT).await;
    let mut streams = Vec::new();
    for (address, target) in [
        (&node.public, "/status/get?key=k&wait=0"),
        (&node.internal, "/health/live"),
    ] {
        let mut stream = TcpStream::connect(address.tcp()).await.unwrap();
        skip_answer(&mut stream, &request("GET", target, &[], b"")).await;
        streams.push((target, stream));
        streams.push(("unused", TcpStream::connect(address.tcp()).await.unwrap()));
    }
    node.quiet().await;
    node.signal("TERM").await;
    // Each closes when it has seen the end, as a client does.
    let mut ends = JoinSet::new();
    for (name, mut stream) in streams {
        ends.spawn(async move {
            let mut rest = Vec::new();
            let end = timeout(PATIENCE, stream.read_to_end(&mut rest))
                .await
                .expect("an end in time");
            assert_eq!(
                (end.map_err(|error| error.kind()), rest.len()),
                (Ok(0), 0),
                "{name}"
            );
        });
    }
    ends.join_all().await;
    assert_eq!(node.wait_exit().await.code(), Some(0));
    assert_eq!(log_line(&node, "drained").await["cut_off"], 0);
}

#[tokio::test]
async fn the_public_listener_closes_first_and_the_internal_one_last() {
    let mut node = Node::start(&[&SHORT[..], &PATIENT].concat()).await;
    let brake = brake(&node).await;
    node.signal("TERM").await;
    wait_backlog(&node, None).await;
    node.set_ok("k", "1").await;
    node.quiet().await;
    assert_eq!(
        node.internal("GET", "/health/live", &[], b"").await.status,
        200
    );
    assert_eq!(
        node.internal("GET", "/health/ready", &[], b"").await.status,
        503
    );
    drop(brake);
    assert_eq!(node.wait_exit().await.code(), Some(0));
    assert_eq!(backlog(&node.internal), None);
}

#[tokio::test]
async fn a_connection_that_does_not_end_is_cut_off_at_the_grace() {
    let args = [
        &["--drain-quiet", "100ms", "--drain-grace", "1s"],
        &PATIENT[..],
    ]
    .concat();
    let mut node = Node::start(&args).await;
    let (_public, _internal) = (brake(&node).await, internal_brake(&node).await);
    assert_eq!(node.terminate().await.code(), Some(0));
    assert_eq!(log_line(&node, "drained").await["cut_off"], 2);
}

#[tokio::test]
async fn a_second_signal_ends_the_process_at_once_with_1() {
    for (first, second) in [
        ("TERM", "TERM"),
        ("INT", "INT"),
        ("TERM", "INT"),
        ("INT", "TERM"),
    ] {
        let mut node = Node::start(&OPEN).await;
        node.signal(first).await;
        log_line(&node, "draining").await;
        // Within a second of the first one it counts as the same.
        let ended = async || {
            let has_ended = node.has_ended();
            if !has_ended {
                node.signal(second).await;
            }
            has_ended
        };
        eventually(ended, "a second signal ends it").await;
        // Both limits of the drain are much longer than the time waited here.
        assert_eq!(
            node.wait_exit().await.code(),
            Some(1),
            "{first}, then {second}"
        );
    }
}
