//! Templates of other services' wires (`--wire`), with those that `deploy/wires/` ships.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::races::one_node::clients::stir;
use holdfast_testkit::{
    Conn, Launch, Node, Nodes, Proxy, Redis, Response, Scratch, Weather, ahead, long, now_ms,
    project_file, request,
};

const OPEN: &str = "deploy/wires/wechat-open.json";
const WEB: &str = "deploy/wires/wechat-web.json";
/// The answers of these templates.
const OPEN_WAITING: &str = r#"window.wx_errcode=408;window.wx_code="";"#;
const SCANNED: &str = r#"{"state":"scanned"}"#;

/// Starts a node with the shipped templates.
async fn start(args: &[&str]) -> Node {
    Node::start(&[&["--wire", OPEN, "--wire", WEB], args].concat()).await
}

/// Returns the target of a poll of WeChat's open wire.
fn open(key: &str, more: &str) -> String {
    format!("/connect/l/qrconnect?uuid={key}&_=1700000000000{more}")
}

fn open_script(errcode: u16, code: &str) -> String {
    format!("window.wx_errcode={errcode};window.wx_code=\"{code}\";")
}

/// Sends a poll, and does not wait for its answer.
async fn send(node: &Node, target: &str) -> Conn {
    let mut conn = Conn::open(&node.public).await;
    conn.send(request("GET", target, &[], b"")).await;
    conn
}

/// Sends a poll, and waits until the key has one waiter.
async fn hold(node: &Node, key: &str, target: &str) -> Conn {
    let conn = send(node, target).await;
    node.wait_key_waiters(key, 1).await;
    conn
}

/// Checks that an answer is this script, with the headers of every script.
fn check(response: &Response, script: &str) {
    assert_eq!((response.status, response.text()), (200, script));
    for (name, value) in [
        ("content-type", "application/javascript; charset=utf-8"),
        ("x-content-type-options", "nosniff"),
        ("cache-control", "no-store, no-transform"),
        ("content-disposition", "attachment; filename=f.txt"),
        ("cross-origin-resource-policy", "cross-origin"),
    ] {
        assert_eq!(response.header(name), Some(value), "{name}");
    }
}

/// Returns a template with the path `/poll` that gives each status by a call of the callback.
fn called(last: &Value) -> Value {
    let call = |arguments: Value| json!({"call": {"arguments": arguments}});
    json!({
        "path": "/poll",
        "key": "id",
        "callback": "cb",
        "last": last,
        "waiting": call(json!(["waiting", {"answer": "version"}])),
        "gone": call(json!(["gone", {"answer": "version"}])),
        "wrong": call(json!(["wrong"])),
        "busy": call(json!(["busy"])),
        "value": {"by": "state", "cases": [], "else": {
            "answer": call(json!([{"answer": "value"}, {"answer": "version"}])),
        }},
    })
}

fn call(arguments: &str) -> String {
    format!("/**/typeof f===\"function\"&&f({arguments});")
}

/// Starts a node with this template.
async fn start_with(scratch: &Scratch, wire: &Value, args: &[&str]) -> Node {
    let file = scratch.file("wire.json", &wire.to_string());
    Node::start(&[&["--wire", &file], args].concat()).await
}

#[tokio::test]
async fn each_state_of_wechats_open_wire_is_answered_as_that_service_does() {
    let node = start(&[]).await;
    for (at, (value, errcode, code)) in [
        (json!({"state": "scanned"}), 404, ""),
        (json!({"state": "done", "code": "021-x"}), 405, "021-x"),
        (json!({"state": "refused"}), 403, ""),
        (json!({"state": "of tomorrow"}), 408, ""),
        (json!(null), 408, ""),
    ]
    .into_iter()
    .enumerate()
    {
        let key = format!("k{at}");
        let mut held = hold(&node, &key, &open(&key, "")).await;
        node.set_ok(&key, &value.to_string()).await;
        check(&held.read_response().await, &open_script(errcode, code));
        // Without `last`, a page gets the status that is there.
        for more in ["", "&last="] {
            let again = node.get(&open(&key, more)).await;
            check(&again, &open_script(errcode, code));
        }
        let mut held = send(&node, &open(&key, "&last=404")).await;
        node.delete_ok(&key).await;
        let gone = held.read_response().await;
        if errcode == 404 {
            check(&gone, &open_script(402, ""));
        }
        check(&node.get(&open(&key, "")).await, &open_script(402, ""));
    }
    node.quiet().await;
}

#[tokio::test]
async fn each_state_of_wechats_web_wire_is_answered_as_that_service_does() {
    let (node, short) = (start(&[]).await, start(&["--hold", "1s"]).await);
    let target = |tip: u8| format!("/cgi-bin/mmwebwx-bin/login?loginicon=true&uuid=k&tip={tip}");
    check(&short.get(&target(1)).await, "window.code=408;");
    let value = r#"{"state":"scanned","avatar":"data:image/png;base64,AA"}"#;
    let scanned = "window.code=201;window.userAvatar=\"data:image/png;base64,AA\";";
    for node in [&node, &short] {
        node.set_ok("k", value).await;
        check(&node.get(&target(1)).await, scanned);
    }
    // `tip=0` says that the page knows of the scan.
    check(&short.get(&target(0)).await, "window.code=408;");
    let mut held = hold(&node, "k", &target(0)).await;
    let value = r#"{"state":"done","redirect_uri":"https://a.example/?t=1&u=2"}"#;
    node.set_ok("k", value).await;
    let done = "window.code=200;window.redirect_uri=\"https://a.example/?t=1&u=2\";";
    check(&held.read_response().await, done);
    node.set_ok("k", r#"{"state":"refused"}"#).await;
    check(&node.get(&target(0)).await, "window.code=400;");
    node.delete_ok("k").await;
    check(&node.get(&target(1)).await, "window.code=400;");
    node.quiet().await;
}

#[tokio::test]
async fn mistakes_and_limits_have_their_scripts() {
    let node = start(&["--max-waiters-per-key", "1"]).await;
    for target in [
        "/connect/l/qrconnect",
        "/connect/l/qrconnect?key=k",
        &open("", ""),
        &open("k", "&uuid=k"),
        &open("%zz", ""),
        &open("k", "&last=404&last=404"),
        &open("k", "&last=%ff"),
    ] {
        check(&node.get(target).await, &open_script(500, ""));
    }
    let mut held = hold(&node, "k", &open("k", "&wait=0")).await;
    check(&node.get(&open("k", "")).await, OPEN_WAITING);
    let web = "/cgi-bin/mmwebwx-bin/login?uuid=k";
    check(&node.get(web).await, "window.code=500;");
    node.set_ok("k", SCANNED).await;
    check(&held.read_response().await, &open_script(404, ""));
    let statuses = r#"holdfast_statuses_total{wire="template"}"#;
    assert_eq!(node.metric(statuses).await, 1.0);
    let outcome = |outcome| format!("holdfast_gets_total{{outcome=\"{outcome}\"}}");
    for (end, count) in [("invalid", 7.0), ("busy", 2.0), ("success", 1.0)] {
        assert_eq!(node.metric(&outcome(end)).await, count, "{end}");
    }
    node.quiet().await;
}

#[tokio::test]
async fn a_status_whose_code_the_page_knows_does_not_end_its_hold() {
    let node = start(&[]).await;
    let known = node.set_ok("k", SCANNED).await;
    let mut held = hold(&node, "k", &open("k", "&last=404")).await;
    for _ in 0..20 {
        let set = node
            .set(format!(r#"{{"key":"k","value":{SCANNED}}}"#))
            .await;
        assert!(set.version() > known);
        // The waiter is there again, and has answered nothing.
        node.wait_key_waiters("k", 1).await;
    }
    node.set_ok("k", r#"{"state":"done","code":"c"}"#).await;
    check(&held.read_response().await, &open_script(405, "c"));
    // The connection has further requests. Another code is answered at once.
    let unknown = request("GET", &open("k", "&last=404"), &[], b"");
    check(&held.ask(unknown).await, &open_script(405, "c"));
    node.set_ok("k", SCANNED).await;
    let target = open("k", "&last=403");
    check(&node.get(&target).await, &open_script(404, ""));
    // So is a code that no case has.
    let target = open("k", "&last=408");
    check(&node.get(&target).await, &open_script(404, ""));
    node.quiet().await;
}

#[tokio::test]
async fn a_page_that_knows_the_status_waits_to_the_end_of_its_hold_and_no_longer() {
    let node = start(&["--hold", "4s"]).await;
    node.set_ok("k", SCANNED).await;
    let since = tokio::time::Instant::now();
    let mut held = hold(&node, "k", &open("k", "&last=404")).await;
    node.set_ok("k", SCANNED).await;
    check(&held.read_response().await, OPEN_WAITING);
    // A hold is shortened by up to a sixteenth.
    assert!(since.elapsed() >= Duration::from_millis(3_700));
    let timeouts = r#"holdfast_gets_total{outcome="timeout"}"#;
    assert_eq!(node.metric(timeouts).await, 1.0);
    node.quiet().await;
}

/// Sets statuses that the page knows, and then another one, at any instant around the beginning of
/// a poll. The poll must be answered with the other one.
async fn race(page: &Node, backend: &Node, key: String, rounds: usize) {
    const SPREAD: Duration = Duration::from_millis(3);
    let mut conn = Conn::open(&page.public).await;
    for round in 0..rounds {
        backend.set_ok(&key, SCANNED).await;
        let target = open(&key, "&last=404");
        let answer = async {
            stir(SPREAD).await;
            conn.ask(request("GET", &target, &[], b"")).await
        };
        let sets = async {
            for _ in 0..3 {
                stir(SPREAD).await;
                backend.set_ok(&key, SCANNED).await;
            }
            stir(SPREAD).await;
            let done = json!({"state": "done", "code": format!("{key}-{round}")});
            backend.set_ok(&key, &done.to_string()).await;
        };
        let (answer, ()) = tokio::join!(answer, sets);
        check(&answer, &open_script(405, &format!("{key}-{round}")));
    }
}

async fn race_on(pages: &[&Node], backend: &Node) {
    let rounds = if long() { 200 } else { 15 };
    let races = (0..16).map(|at| {
        let page = pages[at % pages.len()];
        race(page, backend, format!("key-{at}"), rounds)
    });
    join_all(races).await;
    for page in pages {
        page.quiet().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_other_code_is_missed_behind_known_ones_on_one_node() {
    let node = start(&["--hold", "8s"]).await;
    race_on(&[&node], &node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_other_code_is_missed_behind_known_ones_over_redis() {
    let redis = Redis::start(&[]).await;
    // A busy machine may stop Redis or a node for longer than they have by default.
    let args = "--hold 8s --redis-timeout 6s --peer-timeout 6s".split(' ');
    let args: Vec<_> = ["--wire", OPEN].into_iter().chain(args).collect();
    let nodes = Nodes::start(2, &redis.url(), &args).await;
    race_on(&[&nodes[0], &nodes[1]], &nodes[0]).await;
}

#[tokio::test]
async fn a_last_that_is_a_version_is_that_of_status_get() {
    let scratch = Scratch::new();
    let wire = called(&json!({"parameter": "since", "is": "version"}));
    let node = start_with(&scratch, &wire, &["--hold", "1s"]).await;
    let poll = async |more: &str| node.get(&format!("/poll?id=k&cb=f{more}")).await;
    check(&poll("&since=5").await, &call("\"waiting\",5"));
    let version = node.set_ok("k", "{\"a\":\"\u{2028}\"}").await;
    let status = call(&format!(r#"{{"a":"\u2028"}},{version}"#));
    for more in [
        String::new(),
        "&since=".into(),
        "&since=0".into(),
        format!("&since={}", version - 1),
        format!("&since={}", ahead() + 24 * 3_600_000),
    ] {
        check(&poll(&more).await, &status);
    }
    let known = format!("&since={version}");
    let waiting = call(&format!("\"waiting\",{version}"));
    check(&poll(&known).await, &waiting);
    for bad in ["&since=x", "&since=01", "&since=9007199254740991"] {
        check(&poll(bad).await, &call("\"wrong\""));
    }
    let version = node.delete_ok("k").await;
    check(&poll(&known).await, &call(&format!("\"gone\",{version}")));
    node.quiet().await;
}

#[tokio::test]
async fn without_a_last_each_get_is_answered_with_the_status_that_is_there() {
    let scratch = Scratch::new();
    let node = start_with(&scratch, &called(&Value::Null), &[]).await;
    let mut held = hold(&node, "k", "/poll?id=k&cb=f&last=7").await;
    let version = node.set_ok("k", "1").await;
    let status = call(&format!("1,{version}"));
    check(&held.read_response().await, &status);
    for _ in 0..2 {
        let target = format!("/poll?id=k&cb=f&last={version}");
        check(&node.get(&target).await, &status);
    }
    node.quiet().await;
}

#[tokio::test]
async fn the_callback_is_checked_like_that_of_status_get() {
    let scratch = Scratch::new();
    let node = start_with(
        &scratch,
        &called(&Value::Null),
        &["--callback-prefix", "cb_"],
    )
    .await;
    node.set_ok("k", "1").await;
    for query in [
        "id=k",
        "id=k&cb=",
        "id=k&cb=f",
        "id=k&cb=cb_(",
        "id=k&cb=cb_1&cb=cb_1",
        "cb=alert(1)",
    ] {
        let answer = node.get(&format!("/poll?{query}")).await;
        assert_eq!((answer.status, answer.text()), (400, "/**/"), "{query}");
    }
    let answer = node.get("/poll?id=k&cb=cb_1").await;
    assert!(
        answer
            .text()
            .starts_with("/**/typeof cb_1===\"function\"&&cb_1(1,"),
        "{answer:?}"
    );
    // The prefix is for names of pages. The names in a template are the operator's.
    let node = start(&["--callback-prefix", "cb_"]).await;
    node.set_ok("k", SCANNED).await;
    check(&node.get(&open("k", "")).await, &open_script(404, ""));
}

#[tokio::test]
async fn a_script_of_a_template_is_not_shown_and_has_its_methods() {
    let node = start(&[]).await;
    for destination in ["document", "iframe", "object"] {
        let headers = [("sec-fetch-dest", destination)];
        let answer = node.public("GET", &open("k", ""), &headers).await;
        assert_eq!(answer.status, 403, "{destination}");
    }
    for method in ["POST", "PUT", "HEAD"] {
        let mut conn = Conn::open(&node.public).await;
        conn.send(request(method, &open("k", ""), &[], b"")).await;
        let answer = conn.read_head_response().await;
        let allow = answer.header("allow");
        assert_eq!(
            (answer.status, allow),
            (405, Some("GET, OPTIONS")),
            "{method}"
        );
    }
    let options = node.public("OPTIONS", &open("k", ""), &[]).await;
    assert_eq!(options.status, 204);
    for path in ["/connect/l/qrconnect/", "/connect/l", "/poll"] {
        assert_eq!(node.get(&format!("{path}?uuid=k")).await.status, 404);
    }
    let plain = Node::start(&[]).await;
    assert_eq!(plain.get(&open("k", "")).await.status, 404);
}

#[tokio::test]
async fn a_template_waits_with_signed_keys() {
    let scratch = Scratch::new();
    let secrets = scratch.file("secrets", "0123456789abcdef0123456789abcdef");
    let node = start(&["--key-secret-file", &secrets]).await;
    let json = [("content-type", "application/json")];
    let issue = async |ttl: u64| {
        let body = format!(r#"{{"id":"login","ttl":{ttl}}}"#);
        let issued = node.internal("POST", "/keys", &json, body.as_bytes()).await;
        issued.json()["key"].as_str().expect("a key").to_owned()
    };
    let key = issue(60).await;
    for (key, errcode) in [("login", 402), (&*key.replace("login", "other"), 402)] {
        check(&node.get(&open(key, "")).await, &open_script(errcode, ""));
    }
    let mut held = hold(&node, "login", &open(&key, "")).await;
    node.set_ok("login", SCANNED).await;
    check(&held.read_response().await, &open_script(404, ""));
    // A key that expires ends the wait of a page that knows the status, too.
    let (key, since) = (issue(3).await, now_ms());
    let mut held = send(&node, &open(&key, "&last=404")).await;
    check(&held.read_response().await, &open_script(402, ""));
    assert!((1_000..9_000).contains(&(now_ms() - since)));
    node.quiet().await;
}

#[tokio::test]
async fn known_statuses_do_not_keep_a_get_beyond_its_hold_even_if_redis_is_slow() {
    let redis = Redis::start(&[]).await;
    let proxy = Proxy::start(([127, 0, 0, 1], redis.port).into()).await;
    let url = format!("redis://127.0.0.1:{}", proxy.port);
    let node = start(&["--redis", &url, "--hold", "2s"]).await;
    proxy.set(Weather::Delay(Duration::from_millis(100)));
    node.set_ok("k", SCANNED).await;
    let sets = async {
        loop {
            let sets = (0..4).map(|_| node.set_ok("k", SCANNED));
            join_all(sets).await;
        }
    };
    let gets = async {
        for _ in 0..3 {
            let answer = node.get(&open("k", "&last=404")).await;
            check(&answer, OPEN_WAITING);
            assert_eq!(
                node.metric(r#"holdfast_gets_total{outcome="unavailable"}"#)
                    .await,
                0.0
            );
        }
    };
    tokio::select! {
        () = sets => {}
        () = gets => {}
    }
}

#[tokio::test]
async fn a_drain_asks_pages_of_a_template_to_come_again() {
    let node = start(&["--drain-quiet", "10s", "--drain-grace", "20s"]).await;
    node.set_ok("known", SCANNED).await;
    let mut held = hold(&node, "k", &open("k", "")).await;
    let mut knows = hold(&node, "known", &open("known", "&last=404")).await;
    node.set_ok("known", SCANNED).await;
    node.wait_key_waiters("known", 1).await;
    node.signal("TERM").await;
    for conn in [&mut held, &mut knows] {
        let answer = conn.read_response().await;
        check(&answer, OPEN_WAITING);
        assert_eq!(answer.header("connection"), Some("close"));
        conn.expect_close().await;
    }
    // A status that is there is answered even then, unless the page knows it.
    check(&node.get(&open("known", "")).await, &open_script(404, ""));
    check(&node.get(&open("known", "&last=404")).await, OPEN_WAITING);
    assert_eq!(
        node.metric(r#"holdfast_gets_total{outcome="retry"}"#).await,
        3.0
    );
}

#[tokio::test]
async fn a_redis_that_is_down_is_answered_busy() {
    let mut redis = Redis::start(&[]).await;
    let nodes = Nodes::start(
        1,
        &redis.url(),
        &["--wire", OPEN, "--wire", WEB, "--hold", "1s"],
    )
    .await;
    redis.kill().await;
    let web = "/cgi-bin/mmwebwx-bin/login?uuid=k&tip=1";
    check(&nodes[0].get(web).await, "window.code=500;");
    check(&nodes[0].get(&open("k", "")).await, OPEN_WAITING);
}

#[tokio::test]
async fn a_bad_template_is_a_mistake_that_names_the_file_and_the_place() {
    let scratch = Scratch::new();
    let open: Value = serde_json::from_str(&project_file(OPEN)).expect("JSON");
    let with = |pointer: &str, value: Value| {
        let mut wire = open.clone();
        *wire.pointer_mut(pointer).expect("a member") = value;
        serde_json::to_string_pretty(&wire).expect("JSON")
    };
    for (at, (text, mistake)) in [
        (
            with("/path", json!("/status/get")),
            "path: \"/status/get\" begins with /status/, which is holdfast's own\n",
        ),
        (
            with("/path", json!("/demo")),
            "path: \"/demo\" begins with /demo, which is holdfast's own\n",
        ),
        (
            with("/waiting", json!({"script": "alert(1)"})),
            "waiting.script: unknown member, expected `assign` or `call`\n",
        ),
        (
            with("/waiting/assign/0/name", json!("window.location")),
            "waiting.assign[0].name: \"window.location\" is no variable that may be assigned\n",
        ),
        (
            with("/value/cases/1/is", json!("scanned")),
            "value.cases: two cases have \"is\": \"scanned\"",
        ),
        (
            with("/value/cases/0/answer", json!([])),
            "value.cases[0].answer: must be an object\n",
        ),
        ("{".into(), "EOF while parsing an object at line 1 column 1"),
    ]
    .into_iter()
    .enumerate()
    {
        let file = scratch.file(&format!("{at}.json"), &text);
        for check in [&["--check"][..], &[]] {
            let args = [&["--wire", &file], check].concat();
            let finished = Launch::new(&args).run().await;
            assert_eq!(finished.status.code(), Some(64), "{finished:?}");
            let named = format!("--wire '{file}': {mistake}");
            assert!(
                finished.stderr.contains(&named),
                "{named}: {}",
                finished.stderr
            );
        }
    }
    for (args, mistake) in [
        (
            &["--wire", "no-such.json"][..],
            "--wire 'no-such.json': cannot read it: ",
        ),
        (
            &["--wire", OPEN, "--wire", OPEN],
            "two templates have the path /connect/l/qrconnect",
        ),
    ] {
        let finished = Launch::new(args).run().await;
        assert_eq!(finished.status.code(), Some(64), "{finished:?}");
        assert!(finished.stderr.contains(mistake), "{}", finished.stderr);
    }
    let both = Launch::new(&["--check"]).env("HOLDFAST_WIRE", &format!("{OPEN},{WEB}"));
    let finished = both.run().await;
    assert!(finished.status.success(), "{finished:?}");
}

#[tokio::test]
async fn each_mistake_of_a_bad_template_is_a_line_that_names_the_file() {
    let scratch = Scratch::new();
    let mut wire = called(&Value::Null);
    wire["hold"] = json!("25");
    wire["path"] = json!(7);
    wire["value"]["by"] = json!(null);
    let file = scratch.file("wire.json", &wire.to_string());
    let finished = Launch::new(&["--wire", &file, "--hold", "25"]).run().await;
    assert_eq!(finished.status.code(), Some(64), "{finished:?}");
    let lines: Vec<_> = finished.stderr.lines().collect();
    for mistake in [
        "path: must be a string",
        "hold: must be a whole number of seconds from 1 to 600",
        "value.by: must be a string",
    ] {
        let line = format!("holdfast: --wire '{file}': {mistake}");
        assert!(lines.contains(&&*line), "{line}: {finished:?}");
    }
    let of_others = lines.iter().filter(|line| line.contains("--hold '25'"));
    assert_eq!((lines.len(), of_others.count()), (4, 1), "{finished:?}");
}

#[tokio::test]
async fn a_template_is_read_from_a_file_or_a_pipe_of_up_to_64_kib() {
    let scratch = Scratch::new();
    let open = project_file(OPEN);
    let padded = |bytes: usize| format!("{open}{}", " ".repeat(bytes - open.len()));
    let most = scratch.file("most", &padded(65_536));
    let longer = scratch.file("longer", &padded(65_537));
    let marked = scratch.file("marked", &format!("\u{feff}{open}"));
    let piped = r#"cat "$PIPED" | "$0" "$@""#;
    let check = async |path: &str, from: &str| {
        let launch = Launch::new(&["--check", "--wire", path]).under(piped);
        launch.env("PIPED", from).run().await
    };
    for (path, from) in [
        (&*most, OPEN),
        (&marked, OPEN),
        ("/dev/stdin", OPEN),
        ("/dev/stdin", &most),
        ("/dev/stdin", &marked),
    ] {
        let finished = check(path, from).await;
        assert!(finished.status.success(), "{path} {from}: {finished:?}");
    }
    let folder = scratch.path("").display().to_string();
    for (path, from, mistake) in [
        (&*longer, OPEN, "longer than 65536 bytes"),
        ("/dev/stdin", &*longer, "longer than 65536 bytes"),
        ("/dev/stdin", "/dev/zero", "longer than 65536 bytes"),
        ("/dev/zero", OPEN, "longer than 65536 bytes"),
        ("/dev/null", OPEN, "EOF while parsing a value"),
        (&folder, OPEN, "cannot read it: "),
    ] {
        let finished = check(path, from).await;
        assert_eq!(finished.status.code(), Some(64), "{path}: {finished:?}");
        let named = format!("holdfast: --wire '{path}': {mistake}");
        let lines = finished.stderr.lines();
        assert!(
            lines.filter(|line| line.starts_with(&named)).count() == 1,
            "{named}: {finished:?}"
        );
    }
}
