//! `GET /nodes`: what nodes report of themselves and of each other. Each node knows which
//! nodes there are.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::settle;
use crate::contract::channel::node_id;
use crate::contract::sets::check;
use holdfast_testkit::{
    Conn, Events, Launch, Node, Nodes, Redis, Scratch, Socket, eventually, request,
};

/// The key of the list of all nodes in Redis.
const LIST: &str = "holdfast:1:all nodes";

/// Returns the answer of a node: the reports by node id, and the addresses of the nodes that
/// did not answer.
async fn nodes_of(node: &Node, query: &str) -> (BTreeMap<String, Value>, Value) {
    let response = node
        .internal("GET", &format!("/nodes{query}"), &[], b"")
        .await;
    assert_eq!(response.status, 200, "{response:?}");
    let mut answer = response.json();
    assert_eq!(
        (&answer["code"], &answer["message"]),
        (&json!(0), &json!("success"))
    );
    let Value::Array(reports) = answer["nodes"].take() else {
        panic!("no reports: {answer}")
    };
    let count = reports.len();
    let by_id: BTreeMap<_, _> = reports
        .into_iter()
        .map(|report| (report["node"].as_str().expect("an id").to_owned(), report))
        .collect();
    assert_eq!(by_id.len(), count, "each once");
    (by_id, answer["unreachable"].take())
}

/// Returns the ids of the nodes that drained lately, as a node reports them.
async fn drained(node: &Node) -> Value {
    let response = node.internal("GET", "/nodes?samples=0", &[], b"").await;
    response.json()["drained"].take()
}

/// Waits until a node knows exactly the nodes of `expected`, which are ids. Returns their
/// reports.
async fn wait_nodes(node: &Node, expected: &[&str]) -> BTreeMap<String, Value> {
    let mut last = BTreeMap::new();
    let known = async || {
        let (nodes, unreachable) = nodes_of(node, "").await;
        last = nodes;
        unreachable.is_null()
            && last.len() == expected.len()
            && expected.iter().all(|id| last.contains_key(*id))
    };
    eventually(known, &format!("{expected:?} are there")).await;
    last
}

#[tokio::test]
async fn a_node_alone_tells_of_itself() {
    let scratch = Scratch::new();
    let file = scratch.file("tokens", "secret-token\n");
    let node = Launch::new(&["--internal-token-file", &file])
        .bearer("secret-token")
        .start()
        .await;
    let id = node_id(&node).await;
    let _held = node.hold("key=held").await;
    let _stream = Events::open(&node, "key=held", &[]).await;
    let _socket = Socket::open(&node, "key=held").await;
    node.wait_waiters(3).await;
    node.set_ok("other", "1").await;
    let told = async || {
        let (nodes, _) = nodes_of(&node, "").await;
        nodes[&id]["path"] == true
            && nodes[&id]["samples"]
                .as_array()
                .is_some_and(|samples| samples.len() >= 2)
    };
    eventually(
        told,
        "its own status went the whole way, and there are looks at it",
    )
    .await;
    let (mut nodes, unreachable) = nodes_of(&node, "").await;
    assert_eq!((nodes.len(), unreachable), (1, Value::Null));
    let mut report = nodes.remove(&id).expect("its own");
    let fixed = json!({
        "node": id, "address": format!("http://{}", node.internal), "version": env!("CARGO_PKG_VERSION"),
        "ready": true, "path": true, "waiters": 3, "keys": 1, "streams": 1, "sockets": 1,
    });
    for (name, value) in fixed.as_object().expect("an object") {
        assert_eq!(report[name], *value, "{name}");
    }
    // Besides the test's own connection, there may be one of the node to itself.
    let connections = &report["connections"];
    assert!(
        connections["public"] == 3 && connections["internal"].as_u64() >= Some(1),
        "{connections}"
    );
    assert!(
        report["now"].as_u64() > Some(1_700_000_000_000) && report["uptime_ms"].as_u64() > Some(0),
        "{report}"
    );
    let store = &report["store"];
    assert_eq!(
        (&store["kind"], &store["place"], &store["connected"]),
        (&json!("memory"), &json!("memory"), &json!(true))
    );
    for name in ["used_ms_ago", "used_for_ms"] {
        assert!(
            store[name].as_u64().is_some_and(|ms| ms < 20_000),
            "{store}"
        );
    }
    let Value::Array(samples) = report["samples"].take() else {
        panic!("no looks")
    };
    let at: Vec<_> = samples
        .iter()
        .map(|sample| sample["at"].as_u64().expect("a time"))
        .collect();
    assert!(at.is_sorted(), "{at:?}");
    let last = samples.last().expect("two");
    assert_eq!(
        (&last["waiters"], &last["keys"]),
        (&json!(3), &json!(1)),
        "{last}"
    );
    assert!(
        samples
            .iter()
            .any(|sample| sample["sets_per_s"].as_f64() > Some(0.0)),
        "{samples:?}"
    );

    assert_eq!(
        nodes_of(&node, "?samples=1").await.0[&id]["samples"]
            .as_array()
            .map(Vec::len),
        Some(1)
    );
    assert_eq!(
        nodes_of(&node, &format!("?samples=0&node={id}")).await.0[&id]["samples"],
        json!([])
    );
    let other = node.internal("GET", "/nodes?node=another", &[], b"").await;
    check(&other, 421, r#"{"code":-5,"message":"not this node"}"#);
    let without_token = Conn::open(&node.internal)
        .await
        .ask(request("GET", "/nodes", &[], b""))
        .await;
    assert_eq!(without_token.status, 401);
    let from_a_page = node
        .internal("GET", "/nodes", &[("origin", "http://a.example")], b"")
        .await;
    assert_eq!(from_a_page.status, 403);
}

#[tokio::test]
async fn the_page_is_one_answer_under_a_strict_policy_also_over_a_unix_socket() {
    let scratch = Scratch::new();
    let (file, socket) = (
        scratch.file("tokens", "secret-token\n"),
        scratch.socket("internal"),
    );
    let launch = Launch::new(&["--internal-token-file", &file, "--internal", &socket]);
    let node = launch.bearer("secret-token").start().await;
    let page = node.internal("GET", "/", &[("accept", "*/*")], b"").await;
    assert_eq!(page.status, 200);
    let mut names = page.header_names();
    names.sort();
    let expected = [
        "cache-control",
        "content-length",
        "content-security-policy",
        "content-type",
        "date",
        "referrer-policy",
        "x-content-type-options",
    ];
    assert_eq!(names, expected);
    for (name, value) in [
        ("cache-control", "no-store"),
        ("content-type", "text/html; charset=utf-8"),
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(page.header(name), Some(value));
    }
    let policy = page.header("content-security-policy").expect("a policy");
    let directives: Vec<_> = policy.split("; ").collect();
    for directive in [
        "default-src 'none'",
        "connect-src 'self'",
        "frame-ancestors 'none'",
        "form-action 'none'",
    ] {
        assert!(directives.contains(&directive), "{policy}");
    }
    assert!(
        !policy.contains("unsafe") && !policy.contains("http"),
        "{policy}"
    );
    assert!(
        !page.text().contains(" src=") && !page.text().contains("{{"),
        "it loads nothing more"
    );

    // Without a token a browser gets the same page, which contains nothing of the node. Other
    // clients do not get it.
    let ask = async |headers: &[(&str, &str)]| {
        Conn::open(&node.internal)
            .await
            .ask(request("GET", "/", headers, b""))
            .await
    };
    let asked = ask(&[("accept", "text/html,application/xhtml+xml;q=0.9")]).await;
    assert_eq!(
        (asked.status, asked.header("www-authenticate")),
        (401, Some("Bearer"))
    );
    assert_eq!(
        (asked.text(), asked.header("content-security-policy")),
        (page.text(), Some(policy))
    );
    for headers in [
        &[][..],
        &[("accept", "application/json")],
        &[("authorization", "Bearer wrong")],
    ] {
        let refused = ask(headers).await;
        assert_eq!((refused.status, refused.code()), (401, -5));
    }
    assert_eq!(node.internal("POST", "/", &[], b"").await.status, 405);
    let from_elsewhere = ask(&[("accept", "text/html"), ("sec-fetch-site", "cross-site")]).await;
    assert_eq!(from_elsewhere.status, 403);
}

#[tokio::test]
async fn nodes_tell_of_each_other_and_name_who_does_not_answer() {
    let mut redis = Redis::start(&[]).await;
    let mut nodes = Nodes::start(3, &redis.url(), &["--peer-timeout", "500ms"]).await;
    let mut ids = Vec::new();
    for node in &*nodes {
        ids.push(node_id(node).await);
    }
    let all: Vec<_> = ids.iter().map(String::as_str).collect();
    let held = nodes.hold(1, "key=secret-key").await;
    for at in 0..3 {
        let told = wait_nodes(&nodes[at], &all).await;
        for (other, id) in ids.iter().enumerate() {
            assert_eq!(told[id]["address"], nodes.url(other));
            assert_eq!(told[id]["store"]["kind"], "redis");
            assert!(told[id]["samples"].is_array());
        }
        assert_eq!(told[&ids[1]]["waiters"], 1);
    }
    held.leave();
    let names = redis.hash(LIST).await;
    assert_eq!(names.len(), 3, "{names:?}");

    // A frozen node is named, and the reports of the others still arrive in time.
    nodes[2].signal("STOP").await;
    let named = async || {
        let begun = Instant::now();
        let (told, unreachable) = nodes_of(&nodes[0], "").await;
        assert!(
            begun.elapsed() < Duration::from_secs(8),
            "{:?}",
            begun.elapsed()
        );
        (told.len(), unreachable) == (2, json!([nodes.url(2)]))
    };
    eventually(named, "it is named").await;
    wait_nodes(&nodes[0], &all[..2]).await;
    assert_eq!(drained(&nodes[0]).await, Value::Null);
    nodes[2].signal("CONT").await;
    wait_nodes(&nodes[0], &all).await;

    // A node that drains removes itself from the list.
    nodes[2].terminate().await;
    assert_eq!(redis.hash(LIST).await.len(), 2);
    wait_nodes(&nodes[0], &all[..2]).await;
    assert_eq!(drained(&nodes[0]).await, json!([ids[2]]));

    // Without Redis the last list stays valid. The reports say what is wrong: they have the
    // last errors, without any key.
    redis.kill().await;
    let said = async || {
        let (told, _) = nodes_of(&nodes[0], "?samples=0").await;
        let is_said = |id: &String| {
            let errors = told[id]["errors"].to_string();
            assert!(!errors.contains("secret-key"), "{errors}");
            told[id]["store"]["connected"] == false
                && errors.contains("cannot connect to Redis; retrying")
        };
        told.len() == 2 && ids[..2].iter().all(is_said)
    };
    eventually(said, "both say that Redis is gone").await;
    redis.restart().await;
    wait_nodes(&nodes[1], &all[..2]).await;
    nodes.replace(2).await;
    let new = node_id(&nodes[2]).await;
    wait_nodes(&nodes[0], &[all[0], all[1], &new]).await;
    settle(&nodes, &redis, 300).await;
}

/// Entries that others wrote into the list, or that were left by a clock that was then set
/// back, are removed and stop nothing.
#[tokio::test]
async fn a_list_with_nonsense_in_it_is_mended() {
    let redis = Redis::start(&[]).await;
    let now: u64 = redis.command(&["TIME"]).await.list()[0]
        .text()
        .parse::<u64>()
        .expect("seconds")
        * 1000;
    let (past, soon, far) = (
        now.to_string(),
        (now + 4000).to_string(),
        (now + 3_600_000).to_string(),
    );
    for (name, ends) in [
        ("a@http://h:1", &far),
        ("b@http://h:2", &past),
        ("no name", &soon),
        ("c@http://h:3", &String::from("x")),
    ] {
        redis.command(&["HSET", LIST, name, ends]).await;
    }
    let nodes = Nodes::start(2, &redis.url(), &[]).await;
    let ids = [node_id(&nodes[0]).await, node_id(&nodes[1]).await];
    wait_nodes(&nodes[0], &[&ids[0], &ids[1]]).await;
    let mut expected = vec![nodes.name(0).await, nodes.name(1).await];
    expected.sort_unstable();
    let is_mended = async || redis.hash(LIST).await.into_keys().collect::<Vec<_>>() == expected;
    eventually(is_mended, "only the nodes are on it").await;
    assert_eq!(redis.immortal().await, Vec::<String>::new());
}

/// Waits until each node knows all nodes. Works with any kind of Redis, because it asks only
/// the nodes.
pub(super) async fn wait_all_known(nodes: &Nodes) {
    let mut ids = Vec::new();
    for node in &**nodes {
        ids.push(node_id(node).await);
    }
    let all: Vec<_> = ids.iter().map(String::as_str).collect();
    for node in &**nodes {
        wait_nodes(node, &all).await;
    }
}
