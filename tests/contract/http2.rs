//! HTTP/2 on the public listener, with clients that nobody here wrote: curl, h2load and openssl.
//!
//! `make test-http2` runs the tests of the public listener once more over HTTP/2.

use std::collections::BTreeSet;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinSet;
use tokio::time::timeout;

use holdfast_testkit::tls::{self, HOST};
use holdfast_testkit::{
    Address, Conn, Node, PATIENCE, Response, Scratch, encode, eventually, request,
};

const HTTP2: [&str; 1] = ["--http2"];

async fn start(flags: &[&str]) -> Node {
    Node::start(&[&tls::flags().await[..], flags].concat()).await
}

fn url(node: &Node, target: &str) -> String {
    format!(
        "https://127.0.0.1:{}{target}",
        node.tls.expect("TLS").port()
    )
}

async fn curl(args: &[&str]) -> Command {
    let trusted = tls::authority().await.path();
    let mut curl = Command::new("curl");
    curl.args(["-q", "-sS", "--noproxy", "*", "--cacert", &trusted])
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    curl
}

/// Runs a program. Returns all that it printed.
async fn run(mut command: Command) -> String {
    let output = timeout(3 * PATIENCE, command.output()).await;
    let output = output.expect("it ends").expect("it starts");
    let printed = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&printed).into_owned()
}

/// Asks by HTTP/2, and checks that the answer came so. Returns the answer.
async fn ask(node: &Node, target: &str, args: &[&str]) -> Response {
    let url = url(node, target);
    let args = [&["--http2", "-i", &url], args].concat();
    let printed = run(curl(&args).await).await;
    assert!(printed.starts_with("HTTP/2 "), "{printed}");
    Response::whole(printed.as_bytes())
}

async fn connections(node: &Node) -> f64 {
    node.metric(r#"holdfast_connections{listener="public"}"#)
        .await
}

/// Waits until no request and no connection of a page is left.
async fn quiet(node: &Node) {
    node.quiet().await;
    eventually(async || connections(node).await == 0.0, "no connection").await;
    assert!(
        !node.logs().iter().any(|line| line.contains("panicked")),
        "a panic"
    );
}

/// An event stream that curl reads.
struct Stream {
    curl: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Stream {
    async fn open(node: &Node, key: &str) -> Self {
        let target = url(node, &format!("/status/events?key={key}"));
        let mut curl = curl(&["--http2", "-N", &target])
            .await
            .spawn()
            .expect("curl");
        let lines = BufReader::new(curl.stdout.take().expect("piped")).lines();
        Self { curl, lines }
    }

    /// Returns the next line that begins with `field`, or `None` at the end of the stream.
    async fn next(&mut self, field: &str) -> Option<String> {
        loop {
            let line = timeout(PATIENCE, self.lines.next_line()).await;
            let line = line.expect("a line in time").expect("UTF-8")?;
            if line.starts_with(field) {
                return Some(line);
            }
        }
    }
}

#[tokio::test]
async fn a_held_get_of_curl_is_answered_at_the_set() {
    let node = start(&HTTP2).await;
    let set = async {
        node.wait_key_waiters("k", 1).await;
        node.set_ok("k", r#"{"step":"paid"}"#).await
    };
    let (answer, version) = tokio::join!(ask(&node, "/status/get?key=k&callback=cb", &[]), set);
    assert_eq!((answer.status, answer.version()), (200, version));
    assert!(answer.text().contains(r#"cb({"code":0,"#), "{answer:?}");
    assert_eq!(answer.object()["value"]["step"], "paid");
    quiet(&node).await;
}

#[tokio::test]
async fn gets_that_wait_side_by_side_share_one_connection_and_are_answered_in_any_order() {
    let node = start(&HTTP2).await;
    let scratch = Scratch::new();
    let into = scratch.path("#1").display().to_string();
    let target = url(&node, "/status/get?key=k[1-50]");
    let args = ["--http2", "--parallel", "--parallel-max", "50"];
    let all = curl(&[&args[..], &[&target, "-o", &into]].concat()).await;
    let set = async {
        node.wait_waiters(50).await;
        assert_eq!(connections(&node).await, 1.0);
        for at in (1..=50).rev() {
            node.set_ok(&format!("k{at}"), &at.to_string()).await;
        }
    };
    let (printed, ()) = tokio::join!(run(all), set);
    for at in 1..=50 {
        let path = scratch.path(&at.to_string());
        let answer =
            std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{error}: {printed}"));
        assert!(
            answer.contains(&format!(r#""value":{at},"#)),
            "{at}: {answer}"
        );
    }
    quiet(&node).await;
}

#[tokio::test]
async fn curl_reads_a_stream_to_its_end_and_one_that_it_leaves_is_not_held() {
    let node = start(&HTTP2).await;
    let mut stream = Stream::open(&node, "k").await;
    node.wait_key_waiters("k", 1).await;
    for at in 1..=3 {
        node.set_ok("k", &at.to_string()).await;
        let data = stream.next("data: ").await.expect("an event");
        assert!(data.contains(&format!(r#""value":{at},"#)), "{data}");
    }
    let last = r#"{"key":"k","value":4,"final":true}"#;
    assert_eq!(node.set(last).await.code(), 0);
    let data = stream.next("data: ").await.expect("the last event");
    assert!(data.contains(r#""final":true"#), "{data}");
    assert_eq!(stream.next("data: ").await, None);
    let ended = timeout(PATIENCE, stream.curl.wait()).await;
    assert!(
        ended.expect("it ends").expect("curl").success(),
        "the stream is complete"
    );
    let mut left = Stream::open(&node, "other").await;
    node.wait_key_waiters("other", 1).await;
    left.curl.kill().await.expect("it runs");
    quiet(&node).await;
    let end = node
        .metric(r#"holdfast_streams_ended_total{end="left"}"#)
        .await;
    assert_eq!(end, 1.0);
}

#[tokio::test]
async fn a_drain_answers_what_is_held_and_tells_the_client_to_leave() {
    let mut node = start(&["--http2", "--drain-quiet", "100ms"]).await;
    let mut stream = Stream::open(&node, "s").await;
    node.wait_key_waiters("s", 1).await;
    let drain = async {
        node.wait_key_waiters("k", 1).await;
        node.signal("TERM").await;
    };
    let (answer, ()) = tokio::join!(ask(&node, "/status/get?key=k", &[]), drain);
    assert_eq!((answer.status, answer.code()), (503, -2));
    // HTTP/2 has GOAWAY instead.
    assert_eq!(answer.header("connection"), None);
    while stream.next("data: ").await.is_some() {}
    let ended = timeout(PATIENCE, stream.curl.wait()).await;
    assert!(
        ended.expect("it ends").expect("curl").success(),
        "the stream is complete"
    );
    assert_eq!(node.wait_exit().await.code(), Some(0));
}

/// Returns an answer's fields, but for those that are the connection's, and the time.
fn fields(answer: &Response) -> Vec<(String, String)> {
    let others = ["connection", "upgrade", "date"];
    let fields = answer.headers.iter();
    fields
        .filter(|(name, _)| !others.contains(&name.as_str()))
        .cloned()
        .collect()
}

#[tokio::test]
async fn each_answer_over_http_2_is_that_of_the_plain_listener() {
    let node = start(&["--http2", "--demo"]).await;
    node.set_ok("set", r#"{"a":[1,"<é>"]}"#).await;
    node.set_ok("large", &format!("\"{}\"", "x".repeat(65_534)))
        .await;
    node.set_ok("deleted", "1").await;
    node.delete_ok("deleted").await;
    let too_long = format!("/status/get?key=set&_={}", "x".repeat(8_200));
    let longest = too_long[..8192].to_owned();
    let targets = [
        "/status/get?key=set",
        "/status/get?key=set&callback=cb",
        "/status/get?key=set&var=v",
        "/status/get?key=set&last=1",
        "/status/get?key=large&callback=cb",
        "/status/get?key=none&wait=0",
        "/status/get?key=none&wait=0&callback=cb",
        "/status/get?key=deleted",
        "/status/get",
        "/status/get?key=",
        "/status/get?key=set&callback=1bad",
        &longest,
        &too_long,
        "/status/events",
        "/status/ws",
        "/holdfast.js",
        "/holdfast.mjs",
        "/healthz",
        "/demo",
        "/demo/demo.js",
        "/",
        "/nothing/here",
        "/metrics",
    ];
    let plain = Address::Tcp(node.public.tcp());
    let sent = [("origin", "https://page.example.com"), ("accept", "*/*")];
    let scratch = Scratch::new();
    let mut seen = BTreeSet::new();
    for method in ["GET", "HEAD", "OPTIONS", "POST", "WRONG"] {
        let path = |at: usize| scratch.path(&format!("{method}{at}")).display().to_string();
        // One after the other, on one connection while it lasts.
        let mut args: Vec<String> = ["--http2", "-i", "-H", "origin: https://page.example.com"]
            .map(str::to_owned)
            .into();
        args.extend(match method {
            "HEAD" => vec!["--head".to_owned()],
            method => ["-X", method].map(str::to_owned).into(),
        });
        for (at, target) in targets.iter().enumerate() {
            args.extend([url(&node, target), "-o".to_owned(), path(at)]);
        }
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let printed = run(curl(&args).await).await;
        assert_eq!(printed, "", "{method}: no complaint of curl");
        for (at, target) in targets.iter().enumerate() {
            let came = std::fs::read(path(at)).expect("an answer");
            assert!(came.starts_with(b"HTTP/2 "), "{method} {target}");
            let came = Response::whole(&came);
            let mut conn = Conn::open(&plain).await;
            conn.send(request(method, target, &sent, b"")).await;
            let expected = match method {
                "HEAD" => conn.read_head_response().await,
                _ => conn.read_response().await,
            };
            assert_eq!(came.status, expected.status, "{method} {target}");
            assert_eq!(fields(&came), fields(&expected), "{method} {target}");
            assert!(came.body == expected.body, "{method} {target}");
            seen.insert(came.status);
        }
    }
    assert_eq!(
        Vec::from_iter(seen),
        [200, 204, 400, 404, 405, 410, 414, 426]
    );
    quiet(&node).await;
}

#[tokio::test]
async fn the_library_is_not_sent_again_to_who_has_it() {
    let node = start(&HTTP2).await;
    let first = ask(&node, "/holdfast.js", &[]).await;
    assert_eq!(first.status, 200);
    let tag = format!("if-none-match: {}", first.header("etag").expect("a tag"));
    let again = ask(&node, "/holdfast.js", &["-H", &tag]).await;
    assert_eq!((again.status, again.body.len()), (304, 0));
    assert_eq!(again.header("content-length"), None);
    let preflight = [
        "-X",
        "OPTIONS",
        "-H",
        "origin: https://shop.example",
        "-H",
        "access-control-request-method: GET",
    ];
    let preflight = ask(&node, "/status/get?key=k", &preflight).await;
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.header("content-length"), None);
    assert_eq!(preflight.header("access-control-allow-origin"), Some("*"));
}

#[tokio::test]
async fn a_browser_is_told_to_come_back_only_with_tls() {
    let node = start(&["--http2", "--hsts", "1h"]).await;
    let answer = ask(&node, "/status/get?key=k&wait=0", &[]).await;
    let hsts = "strict-transport-security";
    assert_eq!(answer.header(hsts), Some("max-age=3600"));
    let mut plain = Conn::open(&Address::Tcp(node.public.tcp())).await;
    let plain = plain
        .ask(request("GET", "/status/get?key=k&wait=0", &[], b""))
        .await;
    assert_eq!(plain.header(hsts), None);
}

/// Returns what openssl prints about a handshake.
async fn handshake(node: &Node, args: &[&str]) -> String {
    let to = node.tls.expect("TLS").to_string();
    let mut openssl = Command::new("openssl");
    openssl
        .args(["s_client", "-connect", &to, "-servername", HOST])
        .args(args)
        .stdin(Stdio::null());
    run(openssl).await
}

#[tokio::test]
async fn http_2_is_spoken_with_who_offers_it_and_only_if_the_node_is_to_speak_it() {
    let with = start(&HTTP2).await;
    let without = start(&[]).await;
    let none = "No ALPN negotiated";
    let (h2, http1) = ("ALPN protocol: h2", "ALPN protocol: http/1.1");
    for (args, by_with, by_without) in [
        (&["-alpn", "h2,http/1.1"][..], h2, http1),
        (&["-alpn", "http/1.1,h2"], h2, http1),
        (&["-alpn", "http/1.1"], http1, http1),
        (&["-alpn", "h2"], h2, "alert"),
        (&["-alpn", "h3"], "alert", "alert"),
        (&[], none, none),
    ] {
        for version in ["-tls1_2", "-tls1_3"] {
            let args = [args, &[version]].concat();
            for (node, expected) in [(&with, by_with), (&without, by_without)] {
                let printed = handshake(node, &args).await;
                assert!(printed.contains(expected), "{args:?}: {printed}");
            }
        }
    }
    for (node, args, expected) in [
        (&with, &["--http2"][..], "2 200"),
        (&with, &["--http1.1"], "1.1 200"),
        (&with, &["--no-alpn"], "1.1 200"),
        (&without, &["--http2"], "1.1 200"),
    ] {
        let target = url(node, "/status/get?key=k&wait=0");
        let print = [
            "-o",
            "/dev/null",
            "-w",
            "%{http_version} %{http_code}",
            &target,
        ];
        let printed = run(curl(&[args, &print].concat()).await).await;
        assert_eq!(printed, expected, "{args:?}");
    }
}

#[tokio::test]
async fn who_is_told_to_leave_sends_the_next_requests_on_another_connection() {
    let node = start(&HTTP2).await;
    // A target that is too long ends its connection.
    let target = format!("/status/get?key=k&_={}", "x".repeat(8_200));
    let [too_long, good] = [&target, "/status/get?key=k&wait=0"].map(|target| url(&node, target));
    let mut urls = vec![good.as_str(); 20];
    urls[2] = &too_long;
    let print = "%{http_version} %{http_code} %{num_connects}\n";
    let output = ["-o", "/dev/null"].repeat(urls.len());
    let args = [&["--http2", "-w", print], &urls[..], &output].concat();
    let printed = run(curl(&args).await).await;
    let (answers, connects): (Vec<_>, Vec<_>) = printed
        .lines()
        .filter_map(|line| line.rsplit_once(' '))
        .unzip();
    let mut expected = vec!["2 200"; urls.len()];
    expected[2] = "2 414";
    assert_eq!(answers, expected, "{printed}");
    // A request that was sent before curl heard of it is answered all the same.
    let connects: Vec<_> = (0..).zip(connects).filter(|(_, new)| *new == "1").collect();
    assert_eq!((connects.len(), connects[0].0), (2, 0), "{printed}");
    assert!(connects[1].0 > 2, "{printed}");
    quiet(&node).await;
}

#[tokio::test]
async fn a_client_of_http_2_resumes() {
    let node = start(&HTTP2).await;
    let to = node.tls.expect("TLS").to_string();
    let scratch = Scratch::new();
    for version in ["-tls1_2", "-tls1_3"] {
        let session = scratch.path(version).display().to_string();
        let ask = [
            "s_client",
            "-connect",
            &to,
            "-servername",
            HOST,
            "-alpn",
            "h2",
            version,
        ];
        let mut first = Command::new("openssl");
        first.args(ask).args(["-sess_out", &session]);
        first
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let mut first = first.spawn().expect("openssl");
        // The tickets of TLS 1.3 come after the handshake.
        let has_ticket = async || std::fs::read(&session).is_ok_and(|ticket| !ticket.is_empty());
        eventually(has_ticket, "a ticket").await;
        drop(first.stdin.take());
        let ended = timeout(PATIENCE, first.wait_with_output()).await;
        let printed = ended.expect("it ends").expect("openssl").stdout;
        let printed = String::from_utf8_lossy(&printed).into_owned();
        assert!(printed.contains("New, TLSv1."), "{printed}");
        let printed = handshake(&node, &["-alpn", "h2", version, "-sess_in", &session]).await;
        assert!(printed.contains("Reused, TLSv1."), "{printed}");
        assert!(printed.contains("ALPN protocol: h2"), "{printed}");
    }
    let count = async |kind: &str| {
        let name = format!("holdfast_tls_handshakes_total{{kind=\"{kind}\"}}");
        node.metric(&name).await
    };
    let reached = async || (count("full").await, count("resumed").await) == (2.0, 2.0);
    eventually(reached, "two of four were resumed").await;
}

#[tokio::test]
async fn streams_wait_on_while_the_certificate_is_renewed() {
    let authority = tls::authority().await;
    let name = format!("DNS:{HOST},IP:127.0.0.1");
    let certificate = async || authority.certificate_for("renewed-http2", &name).await;
    let (path, key) = certificate().await;
    let pair = ["--tls-cert", &path, "--tls-key", &key];
    let flags = ["--public-tls", "127.0.0.1:0", "--http2", "--hold", "30s"];
    let node = Node::start(&[&flags[..], &pair].concat()).await;
    let scratch = Scratch::new();
    // A connection has a hundred streams at most.
    let mut all = JoinSet::new();
    for connection in 0..3 {
        let into = scratch
            .path(&format!("{connection}-#1"))
            .display()
            .to_string();
        let target = url(&node, "/status/get?key=k&n=[1-100]");
        let args = ["--http2", "--parallel", "--parallel-max", "100", "-m", "60"];
        let args = [&args[..], &[&target, "-o", &into]].concat();
        all.spawn(run(curl(&args).await));
    }
    let shown = async || {
        let printed = handshake(&node, &["-alpn", "h2"]).await;
        let (_, rest) = printed.split_once("-----BEGIN").expect("a certificate");
        rest.split_once("-----END")
            .expect("a whole one")
            .0
            .to_owned()
    };
    node.wait_key_waiters("k", 300).await;
    assert_eq!(connections(&node).await, 3.0);
    let old = shown().await;
    certificate().await;
    node.signal("HUP").await;
    eventually(async || shown().await != old, "the new certificate").await;
    assert_eq!(node.key_waiters("k").await, 300);
    let version = node.set_ok("k", r#""new""#).await;
    let printed = all.join_all().await.concat();
    for (connection, at) in (0..3).flat_map(|connection| (1..=100).map(move |at| (connection, at)))
    {
        let path = scratch.path(&format!("{connection}-{at}"));
        let answer =
            std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{error}: {printed}"));
        assert!(
            answer.contains(&format!(r#""version":{version},"#)),
            "{answer}"
        );
    }
    quiet(&node).await;
}

/// Runs h2load, and checks that `count` answers came, all of them with 200.
async fn load(node: &Node, count: u32, args: &[&str], target: &str) {
    let mut h2load = Command::new("h2load");
    h2load.args(["-n", &count.to_string()]).args(args);
    h2load
        .arg(url(node, target))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let printed = run(h2load).await;
    for all in [
        format!("{count} done, {count} succeeded, 0 failed, 0 errored, 0 timeout"),
        format!("status codes: {count} 2xx, 0 3xx, 0 4xx, 0 5xx"),
    ] {
        assert!(printed.contains(&all), "{printed}");
    }
}

#[tokio::test]
async fn h2load_gets_an_answer_to_each_request_whether_it_is_held_or_not() {
    let node = start(&["--http2", "--max-gets-per-address", "1000000"]).await;
    load(
        &node,
        2_000,
        &["-c", "4", "-m", "100"],
        "/status/get?key=none&wait=0",
    )
    .await;
    let set = async {
        node.wait_key_waiters("k", 300).await;
        node.set_ok("k", "1").await;
    };
    tokio::join!(
        load(&node, 300, &["-c", "3", "-m", "100"], "/status/get?key=k"),
        set
    );
    // Values that are larger than the windows, of 16 KiB each.
    node.set_ok("large", &format!("\"{}\"", "x".repeat(65_534)))
        .await;
    let small = ["-c", "3", "-m", "3", "-w", "14", "-W", "14"];
    load(&node, 300, &small, "/status/get?key=large").await;
    quiet(&node).await;
}

#[tokio::test]
async fn a_value_far_larger_than_a_clients_windows_arrives_whole() {
    let value = "x".repeat(3_000_000);
    let flags = [
        "--http2",
        "--max-value-bytes",
        "4000000",
        "--max-body-bytes",
        "5000000",
    ];
    let node = start(&flags).await;
    node.set_ok("large", &format!("\"{value}\"")).await;
    load(&node, 3, &["-c", "1", "-m", "1"], "/status/get?key=large").await;
    quiet(&node).await;
}

#[tokio::test]
async fn the_demo_works_over_http_2() {
    let node = start(&["--http2", "--demo"]).await;
    for (target, kind) in [
        ("/demo", "text/html; charset=utf-8"),
        ("/demo/phone", "text/html; charset=utf-8"),
        ("/demo/demo.js", "application/javascript; charset=utf-8"),
        ("/demo/demo.css", "text/css; charset=utf-8"),
    ] {
        let answer = ask(&node, target, &[]).await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some(kind))
        );
    }
    let code = ask(&node, "/demo/code", &["-X", "POST"]).await.json();
    let (id, key) = (
        code["id"].as_str().expect("id"),
        code["key"].as_str().expect("key"),
    );
    let link = encode(url(&node, "/demo/phone"));
    let picture = ask(&node, &format!("/demo/qr.svg?link={link}"), &[]).await;
    assert_eq!(picture.header("content-type"), Some("image/svg+xml"));
    let press = async {
        node.wait_key_waiters(id, 1).await;
        let target = format!("/demo/phone?id={id}&do=scan&after=0");
        assert_eq!(ask(&node, &target, &["-X", "POST"]).await.status, 200);
    };
    let target = format!("/status/get?key={key}&callback=cb");
    let (answer, ()) = tokio::join!(ask(&node, &target, &[]), press);
    assert_eq!(answer.object()["value"]["state"], "scanned");
    quiet(&node).await;
}
