//! Tests of the log: it reports gets and sets, it never contains a secret, and the node works
//! on if nobody reads it.

use std::process::Stdio;

use serde_json::Value;
use tokio::process::Command;
use tokio::time::{Instant, timeout};

use holdfast_testkit::{
    Address, Conn, Launch, Node, PATIENCE, Scratch, encode, eventually, request,
};

/// Returns the events in a node's log so far. With `--log-format json`, each line is an object.
fn events(node: &Node) -> Vec<Value> {
    let parse = |line: String| {
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    };
    node.logs().into_iter().map(parse).collect()
}

/// Returns a field of an event, or of the span that the event is in.
fn field<'a>(event: &'a Value, name: &str) -> &'a Value {
    event.get(name).unwrap_or(&event["span"][name])
}

/// Waits for the one event that has this `listener` and `route` and whose `name` is `value`,
/// and returns it.
async fn event(node: &Node, listener: &str, route: &str, name: &str, value: &str) -> Value {
    let find = || {
        let is = |event: &Value, name: &str, value: &str| field(event, name) == value;
        let all = events(node).into_iter().filter(|event| {
            is(event, "listener", listener) && is(event, "route", route) && is(event, name, value)
        });
        all.collect::<Vec<_>>()
    };
    eventually(
        async || !find().is_empty(),
        &format!("{listener} {route} {name} {value} in the log"),
    )
    .await;
    let mut found = find();
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

#[tokio::test]
async fn each_ending_of_a_get_and_each_set_is_told_once_with_the_same_hashed_key() {
    const KEY: &str = "key-of-the-log-5d1c";
    let node = Node::start(&[
        "--log",
        "debug",
        "--log-format",
        "json",
        "--max-waiters-per-key",
        "1",
    ])
    .await;
    let mut held = node.hold(&format!("key={KEY}")).await;
    assert_eq!(node.get(&format!("/status/get?key={KEY}")).await.code(), -3);
    let version = node.set_ok(KEY, r#""v""#).await;
    assert_eq!(held.answer().await.code(), 0);
    node.get(&format!(
        "/status/get?key={KEY}&last={version}&wait=0.05&callback=cb"
    ))
    .await;
    node.hold(&format!("key={KEY}&last={version}"))
        .await
        .leave();
    node.quiet().await;
    node.delete_ok(KEY).await;
    node.get(&format!("/status/get?key={KEY}&assign=qr")).await;

    let set = event(&node, "internal", "/status/set", "result", "success").await;
    let hashed = field(&set, "key")
        .as_str()
        .expect("a hashed key")
        .to_owned();
    assert!(
        !hashed.is_empty() && hashed.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{hashed}"
    );
    assert_eq!(field(&set, "delivered"), 1);
    for outcome in ["success", "timeout", "busy", "left", "gone"] {
        let get = event(&node, "public", "/status/get", "outcome", outcome).await;
        assert_eq!(
            (field(&get, "key"), field(&get, "level")),
            (&Value::from(hashed.as_str()), &Value::from("DEBUG"))
        );
        let held_ms = field(&get, "held_ms").as_u64().expect("a number");
        assert!(outcome != "timeout" || held_ms >= 50, "{get}");
    }
    let deleted = event(&node, "internal", "/keys/{key}", "result", "success").await;
    assert_eq!(field(&deleted, "key"), hashed.as_str());
    // Another key has another hash.
    node.set_ok("another", "1").await;
    let sets = || {
        events(&node)
            .into_iter()
            .filter(|event| field(event, "route") == "/status/set")
            .collect::<Vec<_>>()
    };
    eventually(async || sets().len() == 2, "the other set in the log").await;
    assert_ne!(field(&sets()[1], "key"), hashed.as_str());
}

/// Returns the text that stands for a key in the log of a node.
async fn hashed_by(launch: Launch, key: &str) -> String {
    let node = launch.start().await;
    node.set_ok(key, "1").await;
    let set = event(&node, "internal", "/status/set", "result", "success").await;
    field(&set, "key")
        .as_str()
        .expect("a hashed key")
        .to_owned()
}

#[tokio::test]
async fn nodes_hash_a_key_alike_with_one_token_and_each_in_its_own_way_without() {
    const KEY: &str = "key-of-the-log-77b0";
    let scratch = Scratch::new();
    let args = ["--log", "debug", "--log-format", "json"];
    let with_token = async |token: &str| {
        let file = scratch.file(token, &format!("{token}\n"));
        hashed_by(
            Launch::new(&[&args[..], &["--internal-token-file", &file]].concat()).bearer(token),
            KEY,
        )
        .await
    };
    let one = with_token("token-one").await;
    assert_eq!(one, with_token("token-one").await);
    assert_ne!(one, with_token("token-two").await);
    let alone = hashed_by(Launch::new(&args), KEY).await;
    assert_ne!(alone, hashed_by(Launch::new(&args), KEY).await);
    assert_ne!(alone, one);
}

#[tokio::test]
async fn a_mistake_is_told_with_listener_and_route() {
    let node = Node::start(&["--log", "debug"]).await;
    assert_eq!(node.get("/status/get?key=k&last=x").await.code(), -5);
    assert_eq!(node.set(r#"{"key":"k"}"#).await.code(), -5);
    event(&node, "internal", "/status/set", "message", "refused").await;
    event(&node, "public", "/status/get", "outcome", "invalid").await;
}

#[tokio::test]
async fn endings_of_gets_are_told_at_debug_and_not_at_info() {
    let mut node = Node::start(&["--log", "info"]).await;
    node.get("/status/get?key=k&wait=0").await;
    node.set_ok("k", "1").await;
    assert_eq!(node.get("/status/get?key=k").await.code(), 0);
    assert_eq!(node.terminate().await.code(), Some(0));
    eventually(
        async || {
            events(&node)
                .iter()
                .any(|event| event["message"] == "drained")
        },
        "the end of the log",
    )
    .await;
    assert!(
        events(&node).iter().all(|event| event["level"] == "INFO"),
        "{:?}",
        node.logs()
    );
    assert!(
        events(&node)
            .iter()
            .all(|event| field(event, "route").is_null()),
        "{:?}",
        node.logs()
    );
}

#[tokio::test]
async fn text_lines_have_a_time_a_level_and_the_same_fields() {
    let node = Node::start(&["--log", "debug", "--log-format", "text"]).await;
    node.get("/status/get?key=k&wait=0").await;
    let find = || {
        node.logs()
            .into_iter()
            .find(|line| line.contains("timeout"))
    };
    eventually(async || find().is_some(), "the get in the log").await;
    let line = find().unwrap();
    assert!(
        line.starts_with("20") && line.contains("Z DEBUG "),
        "{line}"
    );
    for part in [
        r#"listener="public""#,
        r#"route="/status/get""#,
        "key=",
        r#"outcome="timeout""#,
        "held_ms=",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
    assert!(
        !line.contains('\u{1b}'),
        "no colours in what is no terminal: {line:?}"
    );
}

/// Texts that must not be in a log. Each is used for one kind of input only, so a leak shows
/// its source.
const KEY: &str = "mK3yq7Zt0aWv5n";
const OTHER_KEY: &str = "mK3yUnkn0wnQx2";
const VALUE: &str = "mVa1ueR8sLp4Jd";
const TOKEN: &str = "mT0kenB6hYc9Fg";
const WRONG_TOKEN: &str = "mT0kenWr0ngU3e";
const QUERY: &str = "mQu3ryE1iXo7Sb";
const HEADER: &str = "mHeadN4rGz8Mk2";
const SECRETS: [&str; 7] = [KEY, OTHER_KEY, VALUE, TOKEN, WRONG_TOKEN, QUERY, HEADER];

/// Sends gets with all endings and mistakes to the public listener.
async fn gets_with_secrets(node: &Node) {
    let version = node
        .set_ok(KEY, &format!("{{\"{VALUE}\":[\"{VALUE}\"]}}"))
        .await;
    let encoded: String = KEY.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let headers = [
        ("cookie", HEADER),
        ("referer", HEADER),
        ("origin", HEADER),
        ("user-agent", HEADER),
    ];
    for query in [
        format!("key={KEY}&callback=cb&_={QUERY}"),
        format!("key={encoded}&assign={QUERY}"),
        format!("key={KEY}&{QUERY}&wait=0&last={version}"),
        format!("key={KEY}&last={QUERY}"),
        format!("key={KEY}&wait={QUERY}"),
        format!("key={KEY}&key={OTHER_KEY}&callback={QUERY}"),
        format!("key={KEY}%zz&callback={QUERY}.a"),
        format!("key={}", KEY.repeat(20)),
        format!("callback={QUERY}(1)&key={KEY}"),
        format!("key={OTHER_KEY}&wait=0.001&callback={QUERY}"),
    ] {
        node.public("GET", &format!("/status/get?{query}"), &headers)
            .await;
    }
    node.hold(&format!("key={OTHER_KEY}&_={QUERY}"))
        .await
        .leave();
    for target in [
        format!("/{QUERY}?{QUERY}"),
        format!("/status/get/{KEY}"),
        "/status/set".to_owned(),
    ] {
        node.public("GET", &target, &headers).await;
        node.public("POST", &target, &headers).await;
    }
    node.public(QUERY, &format!("/status/get?key={KEY}"), &headers)
        .await;
    // Requests that hyper cannot parse, or that it is configured to refuse.
    for bytes in [
        format!("{QUERY}\r\n\r\n"),
        format!("GET /status/get?key={KEY} HTTP/9.9\r\n{HEADER}\r\n\r\n"),
        format!("GET /status/get?key={KEY} HTTP/1.1\r\nhost: {HEADER}@a\r\n\r\n"),
        format!(
            "GET /status/get?key={KEY} HTTP/1.1\r\nhost: a\r\ncontent-length: {HEADER}\r\n\r\n"
        ),
        format!(
            "GET /status/get?key={KEY} HTTP/1.1\r\nhost: a\r\n{HEADER}: {}\r\n\r\n",
            HEADER.repeat(2000)
        ),
    ] {
        let mut conn = Conn::open(&node.public).await;
        conn.try_send(bytes).await;
        conn.shutdown_write().await;
        conn.read_to_end().await;
    }
}

/// Sends sets, channel sets, looks, deletes, and mistakes in them to the internal listener.
async fn sets_with_secrets(node: &Node) {
    let live = node.internal("GET", "/health/live", &[], b"").await.json();
    let id = live["node"].as_str().expect("an id");
    let good = format!(r#"{{"key":"{KEY}","value":"{VALUE}"}}"#);
    for (content_type, body) in [
        ("application/json", good.clone()),
        ("application/json", format!("[{good},{good}]")),
        (
            "application/x-www-form-urlencoded",
            format!("key={KEY}&value={VALUE}"),
        ),
        // Mistakes: names and values in each other's place, incomplete JSON, unknown members.
        ("application/json", format!(r#"{{"{KEY}":"{VALUE}"}}"#)),
        (
            "application/json",
            format!(r#"{{"key":"{KEY}","value":"{VALUE}","ttl":"{VALUE}"}}"#),
        ),
        (
            "application/json",
            format!(r#"{{"key":"{KEY}{KEY}\u0000","value":"{VALUE}"}}"#),
        ),
        (
            "application/json",
            format!(r#"{{"key":"{KEY}","value":"{VALUE}\ud800"}}"#),
        ),
        (
            "application/json",
            format!(r#"{{"key":"{KEY}","after":1,"value":"{VALUE}"}}"#),
        ),
        (
            "application/json",
            format!(r#"{{"key":"{KEY}","value":"{VALUE}""#),
        ),
        ("application/json", format!(r#"[{good},"{VALUE}"]"#)),
        (
            "application/x-www-form-urlencoded",
            format!("key={KEY}&value={VALUE}%zz&{KEY}={VALUE}"),
        ),
        (VALUE, format!("key={KEY}&value={VALUE}")),
    ] {
        node.internal(
            "POST",
            "/status/set",
            &[("content-type", content_type)],
            body.as_bytes(),
        )
        .await;
    }
    let update =
        format!(r#"{{"key":"{KEY}","version":9007199254740000,"value":"{VALUE}","final":false}}"#);
    for body in [
        format!(r#"{{"to":"{id}","updates":[{update}]}}"#),
        format!(r#"{{"to":"{OTHER_KEY}","updates":[{update}]}}"#),
        format!(r#"{{"to":"{id}","updates":[{{"key":"{KEY}","value":"{VALUE}"}}],"{KEY}":1}}"#),
    ] {
        node.internal("POST", "/channel/set", &[], body.as_bytes())
            .await;
    }
    for (method, target) in [
        ("GET", format!("/keys/{KEY}?{QUERY}")),
        ("DELETE", format!("/keys/{KEY}?{QUERY}")),
        ("GET", format!("/keys/{OTHER_KEY}")),
        ("PUT", format!("/keys/{KEY}")),
        ("GET", format!("/keys/{KEY}%zz")),
        ("GET", format!("/keys/{KEY}/{OTHER_KEY}")),
        ("GET", format!("/{QUERY}")),
    ] {
        node.internal(method, &target, &[("cookie", HEADER)], b"")
            .await;
    }
    for authorization in [
        format!("Bearer {WRONG_TOKEN}"),
        format!("Basic {WRONG_TOKEN}"),
        TOKEN.to_owned(),
    ] {
        let set = request(
            "POST",
            "/status/set",
            &[("authorization", &authorization)],
            good.as_bytes(),
        );
        assert_eq!(Conn::open(&node.internal).await.ask(set).await.status, 401);
    }
    node.internal(
        "POST",
        "/status/set",
        &[("origin", HEADER)],
        good.as_bytes(),
    )
    .await;
    // The body is incomplete.
    let mut conn = Conn::open(&node.internal).await;
    let token = format!("Bearer {TOKEN}");
    let set = request(
        "POST",
        "/status/set",
        &[("authorization", &token)],
        good.as_bytes(),
    );
    conn.send(&set[..set.len() - 5]).await;
    conn.shutdown_write().await;
    conn.read_to_end().await;
}

#[tokio::test]
async fn no_key_value_token_or_query_is_ever_told() {
    let scratch = Scratch::new();
    let file = scratch.file("tokens", &format!("{TOKEN}\n"));
    for format in ["json", "text"] {
        let args = [
            "--log",
            "trace",
            "--log-format",
            format,
            "--internal-token-file",
            &file,
            "--max-waiters-per-key",
            "9",
        ];
        let mut node = Launch::new(&args).bearer(TOKEN).start().await;
        gets_with_secrets(&node).await;
        sets_with_secrets(&node).await;
        let mut held = node
            .hold(&format!("key={OTHER_KEY}&callback={QUERY}"))
            .await;
        let exit = node.terminate().await;
        assert_eq!((exit.code(), held.answer().await.code()), (Some(0), -2));
        let ended = async || {
            node.logs()
                .last()
                .is_some_and(|line| line.contains("drained"))
        };
        eventually(ended, "the end of the log").await;
        let log = node.logs();
        // The log has the whole session: each kind of line, and the text about each mistake.
        for told in [
            "get ended",
            "refused",
            "/status/set",
            "/keys/{key}",
            "left",
            "retry",
            "unauthorized",
        ] {
            assert!(
                log.iter().any(|line| line.contains(told)),
                "{told} in {log:#?}"
            );
        }
        for secret in SECRETS {
            let lines: Vec<_> = log
                .iter()
                .filter(|line| line.contains(secret) || line.contains(&encode(secret)))
                .collect();
            assert!(lines.is_empty(), "{secret} in {lines:#?}");
        }
    }
}

#[tokio::test]
async fn a_log_that_nobody_reads_stops_nothing() {
    let scratch = Scratch::new();
    let (public, internal) = (scratch.socket("public"), scratch.socket("internal"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    command.args([
        "--public",
        &public,
        "--internal",
        &internal,
        "--log",
        "trace",
        "--drain-quiet",
        "100ms",
    ]);
    command.args(["--internal-host", "push.example.com"]);
    // A pipe takes 64 KiB. The rest of the log has to wait, or is dropped.
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut program = command.spawn().expect("the program starts");
    let (public, internal) = (Address::parse(&public), Address::parse(&internal));
    eventually(
        async || scratch.path("internal").exists(),
        "the socket is there",
    )
    .await;

    let begun = Instant::now();
    let mut backend = Conn::open(&internal).await;
    let mut page = Conn::open(&public).await;
    let dropped = async |backend: &mut Conn| {
        let metrics = backend.ask(request("GET", "/metrics", &[], b"")).await;
        let line = metrics
            .text()
            .lines()
            .find(|line| line.starts_with("holdfast_log_lines_dropped_total "))
            .map(str::to_owned);
        line.expect("the metric")
            .rsplit_once(' ')
            .unwrap()
            .1
            .parse::<f64>()
            .unwrap()
    };
    assert_eq!(dropped(&mut backend).await, 0.0);
    // Each request logs a thousand lines, until the pipe and the queue are full.
    let set = r#"{"key":"k","value":1}"#;
    let sets = request(
        "POST",
        "/status/set",
        &[],
        format!("[{set}{}]", format!(",{set}").repeat(999)).as_bytes(),
    );
    while dropped(&mut backend).await < 5000.0 {
        assert_eq!(backend.ask(&sets).await.status, 200);
        assert!(begun.elapsed() < 6 * PATIENCE, "lines are thrown away");
    }
    for _ in 0..200 {
        assert_eq!(
            page.ask(request("GET", "/status/get?key=k", &[], b""))
                .await
                .code(),
            0
        );
    }
    // A get can still be held, and is answered by the drain.
    page.send(request("GET", "/status/get?key=held&callback=cb", &[], b""))
        .await;
    let look = request("GET", "/keys/held", &[], b"");
    eventually(
        async || backend.ask(&look).await.status == 200,
        "the get is held",
    )
    .await;
    let pid = program.id().expect("it runs").to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .await
            .unwrap()
            .success()
    );
    assert_eq!(page.read_response().await.code(), -2);
    let exit = timeout(2 * PATIENCE, program.wait())
        .await
        .expect("it ends")
        .unwrap();
    assert_eq!(exit.code(), Some(0));
}

/// Each is asked for twice, and logged once: the time between two lines is a minute.
#[tokio::test]
async fn who_has_to_be_set_up_in_another_way_is_logged_once_with_the_reason() {
    let scratch = Scratch::new();
    let tokens = scratch.file("tokens", "token");
    let secrets = scratch.file("secrets", &"s".repeat(32));
    let args = [
        "--internal-token-file",
        &tokens,
        "--key-secret-file",
        &secrets,
    ];
    let node = Launch::new(&args).bearer("token").start().await;
    let forged = format!("a.4102444800000.{}", "A".repeat(43));
    let expired = "a.1000.Z3d2RcQjiFSiUaZ-DyT7veBJuKQ_YefHStBfbvM_Ukg";
    let page = [("origin", "https://a.example")];
    let wrong = ("authorization", "Bearer wrong");
    let without_token: [&[(&str, &str)]; 3] = [&[wrong], &[], &[wrong, wrong]];
    for _ in 0..2 {
        assert_eq!(node.internal("GET", "/nodes", &page, b"").await.status, 403);
        for headers in without_token {
            let mut stranger = Conn::open(&node.internal).await;
            let response = stranger.ask(request("GET", "/nodes", headers, b"")).await;
            assert_eq!(response.status, 401);
        }
        for key in ["plain", &forged, expired] {
            let get = node.get(&format!("/status/get?key={key}&wait=0")).await;
            assert_eq!(get.status, 410, "{key}");
            let events = node.get(&format!("/status/events?key={key}")).await;
            assert_eq!(events.status, 410, "{key}");
        }
    }
    for told in [
        "the internal listener asks for a token",
        "keys must be signed",
        "refused on the internal listener: forbidden: requests from web pages are refused",
        "refused on the internal listener: unauthorized: this token is not in the file",
        "refused on the internal listener: unauthorized: send authorization: Bearer TOKEN",
        "refused on the internal listener: unauthorized: authorization is given twice",
        "refused a page's key: it is not signed",
        "no secret of --key-secret-file has signed it",
    ] {
        let count = || {
            node.logs()
                .iter()
                .filter(|line| line.contains(told))
                .count()
        };
        eventually(async || count() > 0, told).await;
        assert_eq!(count(), 1, "{told}");
    }
    let secrets = ["plain", "wrong", &forged, expired, "a.example"];
    let logs = node.logs();
    assert!(
        !logs
            .iter()
            .any(|line| secrets.iter().any(|secret| line.contains(secret))),
        "{logs:#?}"
    );
}
