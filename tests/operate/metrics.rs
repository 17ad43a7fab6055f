//! Tests of `GET /metrics`: its content, that it is well formed, and that no choice of a client
//! adds a series.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::contract::channel::node_id;
use holdfast_testkit::{
    Conn, Events, Launch, Node, Nodes, Redis, Response, Socket, encode, eventually, request,
};

/// One family of metrics in a scrape.
#[derive(Debug, Default)]
pub(crate) struct Family {
    pub(crate) kind: String,
    pub(crate) help: String,
    pub(crate) samples: Vec<Sample>,
}

/// One sample. A histogram has several, with different suffixes after the family's name.
#[derive(Debug, PartialEq)]
pub(crate) struct Sample {
    pub(crate) suffix: String,
    /// The names and values, in order.
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) value: f64,
}

/// Parses the text format strictly: HELP and TYPE come once, before the samples, and no sample
/// comes twice.
pub(crate) fn families(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some((name, help)) = line
            .strip_prefix("# HELP ")
            .and_then(|rest| rest.split_once(' '))
        {
            let family = Family {
                help: help.to_owned(),
                ..Family::default()
            };
            assert!(
                families.insert(name.to_owned(), family).is_none(),
                "{line}: twice"
            );
            name.clone_into(&mut current);
        } else if let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|rest| rest.split_once(' '))
        {
            assert_eq!(name, current, "{line}: no help");
            let family = families.get_mut(name).expect("its help was just read");
            assert!(family.kind.is_empty(), "{line}: twice");
            kind.clone_into(&mut family.kind);
        } else {
            let family = families
                .get_mut(&current)
                .unwrap_or_else(|| panic!("{line}: no family"));
            let sample = sample(line, &current, &family.kind);
            let is_same =
                |other: &Sample| (&other.suffix, &other.labels) == (&sample.suffix, &sample.labels);
            assert!(!family.samples.iter().any(is_same), "{line}: twice");
            family.samples.push(sample);
        }
    }
    families
}

fn sample(line: &str, family: &str, kind: &str) -> Sample {
    let (left, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line:?}"));
    let (name, labels) = left.split_once('{').unwrap_or((left, ""));
    let suffix = name
        .strip_prefix(family)
        .unwrap_or_else(|| panic!("{line}: not of {family}"));
    let suffixes: &[_] = if kind == "histogram" {
        &["_bucket", "_sum", "_count"]
    } else {
        &[""]
    };
    assert!(suffixes.contains(&suffix), "{line}");
    let labels = labels
        .trim_end_matches('}')
        .split(',')
        .filter(|label| !label.is_empty());
    let label = |label: &str| {
        let (name, value) = label.split_once('=').unwrap_or_else(|| panic!("{line}"));
        let value = value
            .strip_prefix('"')
            .and_then(|value| value.strip_suffix('"'));
        (
            name.to_owned(),
            value.unwrap_or_else(|| panic!("{line}")).to_owned(),
        )
    };
    let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
    Sample {
        suffix: suffix.to_owned(),
        labels: labels.map(label).collect(),
        value,
    }
}

/// Returns the value of a sample's label.
fn label<'a>(sample: &'a Sample, name: &str) -> Option<&'a str> {
    let found = sample.labels.iter().find(|(known, _)| known == name);
    found.map(|(_, value)| &**value)
}

async fn scrape(node: &Node) -> Response {
    let response = node.internal("GET", "/metrics", &[], b"").await;
    assert_eq!(response.status, 200);
    response
}

#[tokio::test]
async fn metrics_are_prometheus_text_and_complete_from_the_start() {
    let node = Node::start(&[]).await;
    let response = scrape(&node).await;
    assert_eq!(
        response.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    let mut names = response.header_names();
    names.sort();
    assert_eq!(
        names,
        [
            "cache-control",
            "content-length",
            "content-type",
            "date",
            "x-content-type-options"
        ]
    );
    let families = families(response.text());
    let outcomes = [
        "success",
        "timeout",
        "retry",
        "busy",
        "gone",
        "invalid",
        "unavailable",
        "left",
    ];
    let results = [
        "success",
        "conflict",
        "too_late",
        "busy",
        "invalid",
        "unavailable",
    ];
    for (name, kind, label, values) in [
        ("holdfast_waiters", "gauge", "", &[""][..]),
        ("holdfast_waiting_keys", "gauge", "", &[""]),
        ("holdfast_gets_total", "counter", "outcome", &outcomes),
        ("holdfast_sets_total", "counter", "result", &results),
        (
            "holdfast_connections",
            "gauge",
            "listener",
            &["public", "internal"],
        ),
    ] {
        let family = families.get(name).unwrap_or_else(|| panic!("no {name}"));
        assert_eq!(family.kind, kind, "{name}");
        let labels = |value: &&str| {
            if label.is_empty() {
                vec![]
            } else {
                vec![(label.to_owned(), (*value).to_owned())]
            }
        };
        let mut came: Vec<_> = family
            .samples
            .iter()
            .map(|sample| sample.labels.clone())
            .collect();
        came.sort();
        let mut expected: Vec<_> = values.iter().map(labels).collect();
        expected.sort();
        assert_eq!(came, expected, "{name}");
    }
    for (name, family) in families {
        let is_ours = ["holdfast_", "process_"]
            .iter()
            .any(|prefix| name.starts_with(prefix));
        assert!(is_ours && !family.samples.is_empty(), "{name}");
        assert!(family.help.len() > 5, "{name} has help");
        assert_eq!(
            name.ends_with("_total"),
            family.kind == "counter",
            "{name} is a {}",
            family.kind
        );
    }
}

/// Returns how many wakes were counted on all wires, and how long they took together, in seconds.
async fn wakes(node: &Node) -> (u64, f64) {
    let metrics = node.metrics().await;
    let sum = |name: &str| {
        let of_name = metrics
            .iter()
            .filter(|(series, _)| series.starts_with(name));
        of_name.map(|(_, value)| value).sum::<f64>()
    };
    (
        sum("holdfast_wake_seconds_count{") as u64,
        sum("holdfast_wake_seconds_sum{"),
    )
}

#[tokio::test]
async fn each_answer_to_who_waited_for_a_set_is_a_wake_and_no_other_answer_is() {
    let node = Node::start(&[]).await;
    // More gets than a delivery answers by itself.
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(node.hold("key=k").await);
    }
    node.set_ok("k", "1").await;
    for held in &mut held {
        assert_eq!(held.answer().await.code(), 0);
    }
    let mut deleted = node.hold("key=d").await;
    node.delete_ok("d").await;
    assert_eq!(deleted.answer().await.code(), -4);
    let (count, seconds) = wakes(&node).await;
    assert!(
        count == 21 && seconds > 0.0 && seconds < 21.0 * 10.0,
        "{count} in {seconds} s"
    );
    for (query, code) in [
        ("key=k", 0),
        ("key=n&wait=0", -1),
        ("key=n&wait=0.05", -1),
        ("key=", -5),
    ] {
        assert_eq!(
            node.get(&format!("/status/get?{query}")).await.code(),
            code,
            "{query}"
        );
    }
    node.hold("key=n").await.leave();
    node.quiet().await;
    assert_eq!(wakes(&node).await.0, 21);
    let families = families(scrape(&node).await.text());
    let wire = |sample| label(sample, "wire");
    let buckets: Vec<_> = families["holdfast_wake_seconds"]
        .samples
        .iter()
        .filter(|sample| sample.suffix == "_bucket" && wire(sample) == Some("json"))
        .collect();
    let bounds: Vec<_> = buckets
        .iter()
        .filter_map(|bucket| label(bucket, "le"))
        .collect();
    assert_eq!(
        (
            bounds[0],
            bounds[bounds.len() - 2],
            bounds[bounds.len() - 1]
        ),
        ("0.00005", "10", "+Inf")
    );
}

#[tokio::test]
async fn wakes_are_counted_by_the_wire_of_who_waited() {
    let node = Node::start(&["--wire", "deploy/wires/wechat-open.json"]).await;
    let wires = families(scrape(&node).await.text());
    let wires = |family: &str| -> BTreeSet<String> {
        let samples = wires[family].samples.iter();
        let wires = samples.filter_map(|sample| label(sample, "wire"));
        wires.map(str::to_owned).collect()
    };
    let all = wires("holdfast_wake_seconds");
    assert_eq!((all.len(), &all), (6, &wires("holdfast_statuses_total")));
    let mut counts: Vec<(&str, u64)> = Vec::new();
    for (wire, target) in [
        ("jsonp", "/status/get?callback=cb&key="),
        ("assignment", "/status/get?assign=a&key="),
        ("json", "/status/get?key="),
        ("template", "/connect/l/qrconnect?uuid="),
    ] {
        let mut conn = Conn::open(&node.public).await;
        let target = format!("{target}{wire}");
        conn.send(request("GET", &target, &[], b"")).await;
        node.wait_key_waiters(wire, 1).await;
        node.set_ok(wire, "1").await;
        assert_eq!(conn.read_response().await.status, 200, "{wire}");
        counts.push((wire, 1));
        wait_counted(&node, "holdfast_wake_seconds", &counts).await;
    }
    let mut events = Events::open(&node, "key=s", &[]).await;
    let mut socket = Socket::open(&node, "key=s").await;
    node.wait_key_waiters("s", 2).await;
    node.set_ok("s", "1").await;
    events.event().await;
    socket.message().await;
    counts.extend([("events", 1), ("socket", 1)]);
    wait_counted(&node, "holdfast_wake_seconds", &counts).await;
}

#[tokio::test]
async fn what_another_node_tells_is_as_old_as_that_says_and_untimed_where_it_does_not_say() {
    let node = Node::start(&[]).await;
    let id = node_id(&node).await;
    for (age, expected) in [
        ("", 0),
        (r#""age_us":2000000,"#, 1),
        (r#""age_us":18446744073709551615,"#, 1),
    ] {
        let mut held = node.hold("key=k").await;
        let body =
            format!(r#"{{"to":"{id}","updates":[{{"key":"k","version":7,{age}"value":1}}]}}"#);
        assert_eq!(
            node.internal("POST", "/channel/set", &[], body.as_bytes())
                .await
                .status,
            200
        );
        assert_eq!(held.answer().await.version(), 7);
        let (count, seconds) = wakes(&node).await;
        assert_eq!(count, expected, "{age}");
        assert!(
            count == 0 || (seconds > 2.0 && seconds < 12.0),
            "{age}: {seconds} s"
        );
    }
}

#[tokio::test]
async fn who_waits_on_another_node_is_woken_as_long_after_the_set_as_it_took_there_and_here() {
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(2, &redis.url(), &[]).await;
    let mut held = nodes.hold(0, "key=k").await;
    nodes[1].set_ok("k", "1").await;
    assert_eq!(held.answer().await.code(), 0);
    let (count, seconds) = wakes(&nodes[0]).await;
    // The store is asked in between, so even the fastest machine takes some time.
    assert!(
        count == 1 && seconds > 20e-6 && seconds < 10.0,
        "{count} in {seconds} s"
    );
    assert_eq!(wakes(&nodes[1]).await, (0, 0.0));
}

/// Returns the counters of one family that are not 0, by the value of their label. Several
/// values are joined by a space.
async fn counted(node: &Node, family: &str) -> BTreeMap<String, u64> {
    let families = families(scrape(node).await.text());
    let joined = |labels: &[(String, String)]| {
        labels
            .iter()
            .map(|(_, value)| value.as_str())
            .collect::<Vec<_>>()
            .join(" ")
    };
    let samples = families
        .get(family)
        .unwrap_or_else(|| panic!("no {family}"))
        .samples
        .iter();
    let samples = samples
        .filter(|sample| sample.value != 0.0 && ["", "_count"].contains(&sample.suffix.as_str()));
    samples
        .map(|sample| (joined(&sample.labels), sample.value as u64))
        .collect()
}

fn expected(counts: &[(&str, u64)]) -> BTreeMap<String, u64> {
    counts
        .iter()
        .map(|(name, count)| ((*name).to_owned(), *count))
        .collect()
}

/// Waits until the family's counters are exactly these.
async fn wait_counted(node: &Node, family: &str, counts: &[(&str, u64)]) {
    let (expected, mut last) = (expected(counts), BTreeMap::new());
    let is_so = async || {
        last = counted(node, family).await;
        last == expected
    };
    let what = format!("{family} is {expected:?}");
    let mut is_so = is_so;
    eventually(async || is_so().await, &what).await;
}

/// Returns every series of an answer, without its value.
fn series(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned()))
        .collect()
}

#[tokio::test]
async fn nothing_that_a_client_chooses_makes_a_series() {
    let node = Node::start(&["--demo"]).await;
    let before = series(scrape(&node).await.text());
    let names = [
        "a\"} 1\nx{y=\"",
        "\\",
        "+Inf",
        "{}",
        "holdfast_waiters",
        "\u{e9}\u{2028}",
        "le",
        "<script>",
        "%",
    ];
    for at in 0..60 {
        let name = format!("{}{at}", names[at % names.len()]);
        let (key, json) = (encode(&name), serde_json::Value::from(name.as_str()));
        node.get(&format!("/status/get?key={key}&callback={key}&wait=0"))
            .await;
        node.get(&format!("/status/get?key={key}&wait=0&last={key}&{key}=1"))
            .await;
        node.get(&format!("/{key}")).await;
        node.public(
            "GET",
            "/status/get?key=k&wait=0",
            &[("x-forwarded-for", &key), ("origin", &key)],
        )
        .await;
        node.set(format!(r#"{{"key":{json},"value":{json}}}"#))
            .await;
        node.set(format!(r#"{{"key":"k","value":1,{json}:{json}}}"#))
            .await;
        node.internal("DELETE", &format!("/keys/{key}"), &[], b"")
            .await;
        node.internal("GET", &format!("/metrics?{key}={key}"), &[], b"")
            .await;
        let body = format!(r#"{{"to":{json},"updates":[{{"key":{json},"version":7,"value":1}}]}}"#);
        node.internal("POST", "/channel/set", &[], body.as_bytes())
            .await;
        node.get(&format!("/demo/qr.svg?{key}")).await;
    }
    let mut conn = Conn::open(&node.public).await;
    conn.send("G\"}\r\n\r\n").await;
    conn.read_to_end().await;
    let response = scrape(&node).await;
    assert_eq!(series(response.text()), before);
    families(response.text());
}

#[tokio::test]
async fn each_limit_that_is_hit_is_counted() {
    let args = "--demo --max-waiters 2 --max-waiters-per-key 1 --max-statuses 1 --max-status-bytes 3000 \
                --max-value-bytes 2000 --max-body-bytes 6000 --max-batch 1 --max-connections 20";
    let node = Node::start(&args.split_whitespace().collect::<Vec<_>>()).await;
    assert_eq!(
        counted(&node, "holdfast_limit_hits_total").await,
        expected(&[])
    );
    let held = [node.hold("key=a").await, node.hold("key=b").await];
    assert_eq!(node.get("/status/get?key=a").await.code(), -3);
    assert_eq!(node.get("/status/get?key=c").await.code(), -3);
    drop(held);
    node.quiet().await;
    let held = node.hold("key=a").await;
    assert_eq!(node.get("/status/get?key=a").await.code(), -3);
    drop(held);
    node.quiet().await;
    wait_counted(
        &node,
        "holdfast_limit_hits_total",
        &[("waiters", 2), ("waiters_per_key", 1)],
    )
    .await;

    let long = "x".repeat(2500);
    let set = |key: &str, value: &str| format!(r#"{{"key":"{key}","value":"{value}"}}"#);
    for (body, status) in [
        (set("a", "x"), 200),
        (set("b", "x"), 507),
        (set("a", &long), 400),
        (set("k".repeat(129).as_str(), "x"), 400),
        (set("a", &long.repeat(3)), 413),
        (format!("[{},{}]", set("a", "x"), set("b", "x")), 400),
    ] {
        assert_eq!(node.set(&body).await.status, status, "{body}");
    }
    let hits = [
        ("statuses", 1),
        ("value_bytes", 1),
        ("body_bytes", 1),
        ("batch", 1),
    ];
    let mut all = vec![("waiters", 2), ("waiters_per_key", 1)];
    all.extend(hits);
    wait_counted(&node, "holdfast_limit_hits_total", &all).await;

    let target = format!("/status/get?key=a&{}", "x".repeat(9000));
    assert_eq!(node.get(&target).await.status, 414);
    assert_eq!(
        node.public("GET", "/status/get", &[("x-long", &"x".repeat(17_000))])
            .await
            .status,
        431
    );
    all.push(("head_bytes", 2));
    wait_counted(&node, "holdfast_limit_hits_total", &all).await;
    assert_eq!(
        counted(&node, "holdfast_dropped_total").await,
        expected(&[("too_long", 3)])
    );
}

#[tokio::test]
async fn the_store_s_bytes_the_connections_and_the_demo_have_limits_that_are_counted_too() {
    let args = "--demo --max-status-bytes 1000 --max-connections 3";
    let node = Node::start(&args.split_whitespace().collect::<Vec<_>>()).await;
    assert_eq!(
        node.set(format!(r#"{{"key":"a","value":"{}"}}"#, "x".repeat(1500)))
            .await
            .status,
        507
    );
    let mut conn = Conn::open(&node.public).await;
    let mut statuses = BTreeMap::new();
    for _ in 0..200 {
        let picture = request("GET", "/demo/qr.svg?http://a.example/", &[], b"");
        *statuses.entry(conn.ask(picture).await.status).or_insert(0) += 1;
    }
    drop(conn);
    let refused = statuses.get(&429).copied().unwrap_or(0);
    eventually(
        async || {
            node.metric(r#"holdfast_connections{listener="public"}"#)
                .await
                == 0.0
        },
        "it is closed",
    )
    .await;
    let mut conns = Vec::new();
    for _ in 0..4 {
        conns.push(Conn::open(&node.public).await);
    }
    // The limit is hit as soon as all places are taken, not only when one more connection
    // comes.
    let mut all = vec![("status_bytes", 1), ("connections", 1)];
    if refused > 0 {
        all.push(("demo", refused));
    }
    wait_counted(&node, "holdfast_limit_hits_total", &all).await;
    assert_eq!(
        node.metric(r#"holdfast_connections{listener="public"}"#)
            .await,
        3.0
    );
    drop(conns);
    let accepted = async || {
        node.metric(r#"holdfast_connections_accepted_total{listener="public"}"#)
            .await
            == 5.0
    };
    eventually(accepted, "all five were accepted").await;
}

#[tokio::test]
async fn connections_that_the_node_ends_are_counted_by_why() {
    let args =
        "--head-timeout 300ms --idle-timeout 300ms --body-timeout 300ms --write-timeout 300ms";
    let node = Node::start(&args.split_whitespace().collect::<Vec<_>>()).await;
    let ended = async |address, bytes: &[u8]| {
        let mut conn = Conn::open(address).await;
        conn.send(bytes).await;
        conn.read_to_end().await;
    };
    ended(&node.public, b"GET /st").await;
    ended(&node.public, b"no http\r\n\r\n").await;
    ended(
        &node.public,
        b"GET /holdfast.js HTTP/1.1\r\nhost: a\r\n\r\n",
    )
    .await;
    ended(
        &node.public,
        b"GET /status/get?key=k&wait=0 HTTP/1.1\r\nhost: a\r\n\r\n",
    )
    .await;
    ended(
        &node.internal,
        b"POST /status/set HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n",
    )
    .await;
    ended(
        &node.public,
        b"GET /status/get?key=k&wait=0 HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
    )
    .await;
    let all = [
        ("head_timeout", 1),
        ("bad_head", 2),
        ("idle_timeout", 2),
        ("body_timeout", 1),
    ];
    wait_counted(&node, "holdfast_dropped_total", &all).await;
    // A client that closes its connection when it is done does not count as dropped.
    let bye = request(
        "GET",
        "/status/get?key=k&wait=0",
        &[("connection", "close")],
        b"",
    );
    ended(&node.public, &bye).await;
    drop(Conn::open(&node.public).await);
    assert_eq!(
        counted(&node, "holdfast_dropped_total").await,
        expected(&all)
    );
}

#[tokio::test]
async fn gets_are_held_for_as_long_as_they_wait() {
    let node = Node::start(&[]).await;
    for (query, code) in [
        ("key=k&wait=0", -1),
        ("key=k&wait=0.3", -1),
        ("key=&wait=1", -5),
    ] {
        assert_eq!(node.get(&format!("/status/get?{query}")).await.code(), code);
    }
    let held = node.hold("key=k").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    held.leave();
    node.quiet().await;
    let metrics = node.metrics().await;
    let (count, seconds) = (
        metrics["holdfast_held_seconds_count"],
        metrics["holdfast_held_seconds_sum"],
    );
    assert!(
        count == 3.0 && (0.6..10.0).contains(&seconds),
        "{count} in {seconds} s"
    );
}

#[tokio::test]
async fn the_build_and_the_process_are_told_of() {
    let node = Node::start(&[]).await;
    let metrics = node.metrics().await;
    assert_eq!(
        metrics[&format!(
            r#"holdfast_build_info{{version="{}"}}"#,
            env!("CARGO_PKG_VERSION")
        )],
        1.0
    );
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs_f64();
    assert!(
        (0.0..60.0).contains(&(since - metrics["process_start_time_seconds"])),
        "{metrics:?}"
    );
    assert!(
        metrics["process_resident_memory_bytes"] > 1e6
            && metrics["process_cpu_seconds_total"] > 0.0
    );
    let mut conns = Vec::new();
    for _ in 0..50 {
        conns.push(Conn::open(&node.public).await);
    }
    // Some of the connections that asked whether the node is ready may have been open still.
    let more = async || node.metric("process_open_fds").await >= metrics["process_open_fds"] + 30.0;
    eventually(more, "each connection is an open file").await;
    assert!(metrics["process_max_fds"] > metrics["process_open_fds"] + 50.0);
    let ready = (metrics["holdfast_ready"], metrics["holdfast_waiters_limit"]);
    assert!(ready.0 == 1.0 && ready.1 > 0.0);
    eventually(
        async || node.metric("holdfast_path_healthy").await == 1.0,
        "a status goes the whole way",
    )
    .await;
}

#[tokio::test]
async fn calls_of_an_embedded_store_are_counted_by_verb_and_result() {
    let node = Node::start(&["--max-statuses", "1"]).await;
    // The node also uses the store for itself, so only calls that it does not make are counted
    // exactly.
    let calls = async |what: &str| {
        counted(&node, "holdfast_store_calls_total")
            .await
            .get(what)
            .copied()
            .unwrap_or(0)
    };
    // From then on the room for the node's own status is taken.
    let is_well = async || node.metric("holdfast_path_healthy").await == 1.0;
    eventually(is_well, "the node's own status is stored").await;
    node.set_ok("a", "1").await;
    assert_eq!(
        node.set(r#"{"key":"a","value":1,"after":5}"#).await.status,
        409
    );
    assert_eq!(node.set(r#"{"key":"b","value":1}"#).await.status, 507);
    assert_eq!(
        counted(&node, "holdfast_unavailable_total").await,
        expected(&[("full", 1)])
    );
    node.delete_ok("a").await;
    node.internal("GET", "/keys/a", &[], b"").await;
    assert_eq!(
        (calls("conflict put").await, calls("full put").await),
        (1, 1)
    );
    assert_eq!((calls("ok forget").await, calls("ok look").await), (1, 1));
    assert!(calls("ok put").await >= 1);
    let timed = counted(&node, "holdfast_store_seconds").await;
    assert_eq!((timed["forget"], timed["look"]), (1, 1), "{timed:?}");
    let metrics = node.metrics().await;
    assert_eq!(
        (
            metrics["holdfast_store_statuses"],
            metrics["holdfast_store_statuses_limit"]
        ),
        (2.0, 2.0),
        "with its own"
    );
    assert!(metrics["holdfast_store_bytes"] > 256.0 && metrics["holdfast_store_bytes_limit"] > 1e9);
}

#[tokio::test]
async fn a_redis_that_goes_and_another_that_comes_are_told_of_with_what_was_put_right() {
    let mut redis = Redis::start(&[]).await;
    let nodes = Nodes::start(1, &redis.url(), &[]).await;
    let metric = async |name: &str| nodes[0].metric(name).await;
    nodes[0].set_ok("s", "1").await;
    let mut held = nodes.hold(0, "key=k").await;
    assert_eq!(
        (
            metric("holdfast_redis_up").await,
            metric("holdfast_redis_connections_total").await
        ),
        (1.0, 1.0)
    );
    assert_eq!(
        metric(r#"holdfast_queue_length{queue="confirmed"}"#).await,
        1.0
    );
    redis.kill().await;
    eventually(
        async || metric("holdfast_redis_up").await == 0.0,
        "it is gone",
    )
    .await;
    assert_eq!(nodes[0].set(r#"{"key":"k","value":1}"#).await.status, 503);
    redis.start_again().await;
    eventually(
        async || metric("holdfast_redis_up").await == 1.0,
        "another is there",
    )
    .await;
    assert_eq!(metric("holdfast_redis_connections_total").await, 2.0);
    assert_eq!(metric("holdfast_redis_other_processes_total").await, 1.0);
    eventually(
        async || metric("holdfast_recovery_statuses_put_total").await == 1.0,
        "the status is put again",
    )
    .await;
    eventually(
        async || metric("holdfast_recovery_keys_opened_total").await >= 1.0,
        "the key is open again",
    )
    .await;
    nodes[0].set_ok("k", "1").await;
    assert_eq!(held.answer().await.code(), 0);
    let calls = counted(&nodes[0], "holdfast_store_calls_total").await;
    assert!(
        calls["ok put_again"] >= 1 && calls["unavailable put"] >= 1 && calls["ok open"] >= 1,
        "{calls:?}"
    );
    assert!(metric("holdfast_redis_commands_in_flight_limit").await > 0.0);
}

#[tokio::test]
async fn forwards_are_counted_by_what_became_of_them() {
    let redis = Redis::start(&[]).await;
    let mut nodes = Nodes::start(2, &redis.url(), &[]).await;
    let mut held = nodes.hold(0, "key=k").await;
    nodes[1].set_ok("k", "1").await;
    assert_eq!(held.answer().await.code(), 0);
    assert_eq!(
        counted(&nodes[1], "holdfast_forwards_total").await,
        expected(&[("delivered", 1)])
    );
    assert_eq!(nodes[1].metric("holdfast_peers").await, 1.0);
    for key in ["silent", "replaced"] {
        nodes.hold(0, &format!("key={key}")).await;
    }
    nodes.kill(0).await;
    nodes[1].set_ok("silent", "1").await;
    nodes.replace(0).await;
    nodes[1].set_ok("replaced", "1").await;
    let all = [("delivered", 1), ("silent", 1), ("replaced", 1)];
    wait_counted(&nodes[1], "holdfast_forwards_total", &all).await;
    assert_eq!(
        nodes[1]
            .metric(r#"holdfast_queue_length{queue="peers"}"#)
            .await,
        0.0
    );
    wait_counted(&nodes[0], "holdfast_forwards_total", &[]).await;
}

#[tokio::test]
async fn more_commands_than_may_be_under_way_and_a_redis_without_room_are_hits() {
    let redis = Redis::start(&[]).await;
    let launch = Launch::new(&["--redis-in-flight", "1", "--redis-timeout", "200ms"])
        .env("HOLDFAST_REDIS", &redis.url());
    let nodes = Nodes::launch(1, launch).await;
    redis.command(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let hits = async |limit: &str| {
        nodes[0]
            .metric(&format!(r#"holdfast_limit_hits_total{{limit="{limit}"}}"#))
            .await
    };
    let full = async || nodes[0].set(r#"{"key":"k","value":1}"#).await.status == 507;
    eventually(full, "Redis has no room").await;
    assert!(hits("redis_memory").await >= 1.0);
    redis.command(&["CONFIG", "SET", "maxmemory", "0"]).await;
    redis.signal("STOP").await;
    let mut sets = Vec::new();
    // Each set waits for its turn, some of them for too long.
    for _ in 0..8 {
        let mut conn = Conn::open(&nodes[0].internal).await;
        conn.send(request(
            "POST",
            "/status/set",
            &[],
            br#"{"key":"k","value":1}"#,
        ))
        .await;
        sets.push(conn);
    }
    eventually(
        async || hits("redis_in_flight").await >= 1.0,
        "some are refused",
    )
    .await;
    redis.signal("CONT").await;
}
