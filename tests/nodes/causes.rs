//! The cause of each answer -6, 503 and 507 of a node with Redis is in its metrics and in its log:
//! whether Redis was unreachable, late, full, or refused the command, and then in which words.

use serde_json::Value;

use super::{poll, settle};
use holdfast_testkit::{Launch, Node, Nodes, Redis, eventually};

const SET: &str = r#"{"key":"k","value":1}"#;

/// Starts a node that logs the end of each request.
async fn start(redis: &Redis) -> Nodes {
    // Redis is late for long enough that the first command is sent before it counts as gone.
    let launch = Launch::new(&["--redis-timeout", "2s"])
        .env("HOLDFAST_REDIS", &redis.url())
        .env("HOLDFAST_LOG", "holdfast=debug");
    Nodes::launch(1, launch).await
}

/// Checks how often each cause was counted. Causes that are not in `expected` never were.
async fn check_counted(node: &Node, expected: &[(&str, f64)]) {
    let counted: Vec<_> = node
        .metrics()
        .await
        .into_iter()
        .filter(|(name, count)| name.starts_with("holdfast_unavailable_total") && *count > 0.0)
        .collect();
    let expected: Vec<_> = expected
        .iter()
        .map(|(cause, count)| {
            (
                format!("holdfast_unavailable_total{{cause=\"{cause}\"}}"),
                *count,
            )
        })
        .collect();
    assert_eq!(counted, expected);
}

/// Waits until the log has a line with this message and this cause.
async fn wait_logged(node: &Node, message: &str, cause: &str) -> Value {
    let line = || {
        node.logs()
            .iter()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find(|line| line["message"] == message && line["cause"] == cause)
    };
    eventually(
        async || line().is_some(),
        &format!("{message:?} is logged with the cause {cause}"),
    )
    .await;
    line().expect("it was there")
}

#[tokio::test]
async fn a_redis_that_is_gone_is_the_cause_unreachable() {
    let mut redis = Redis::start(&[]).await;
    let nodes = start(&redis).await;
    let node = &nodes[0];
    redis.kill().await;
    eventually(
        async || node.metric("holdfast_redis_up").await == 0.0,
        "it is gone",
    )
    .await;
    assert_eq!(node.set(SET).await.status, 503);
    assert_eq!(poll(node, "k", 0).await.code(), -6);
    for method in ["GET", "DELETE"] {
        let response = node.internal(method, "/keys/k", &[], b"").await;
        assert_eq!(response.status, 503, "{response:?}");
    }
    assert_eq!(
        node.set(format!("[{SET},{SET}]")).await.status,
        503,
        "each set of an array counts"
    );
    check_counted(node, &[("unreachable", 6.0)]).await;
    for message in ["set", "get ended", "not read", "deleted"] {
        wait_logged(node, message, "unreachable").await;
    }
    wait_logged(node, "Redis command failed", "unreachable").await;
    redis.start_again().await;
    nodes.wait_connected().await;
    node.set_ok("k", "1").await;
    settle(&nodes, &redis, 300).await;
}

#[tokio::test]
async fn a_redis_that_does_not_answer_is_the_cause_late() {
    let redis = Redis::start(&[]).await;
    let nodes = start(&redis).await;
    let node = &nodes[0];
    redis.signal("STOP").await;
    let (set, get) = tokio::join!(node.set(SET), node.get("/status/get?key=k&wait=1"));
    redis.signal("CONT").await;
    assert_eq!((set.status, get.code()), (503, -6), "{set:?} {get:?}");
    check_counted(node, &[("late", 2.0)]).await;
    for message in ["set", "get ended", "Redis command failed"] {
        wait_logged(node, message, "late").await;
    }
    nodes.wait_connected().await;
    settle(&nodes, &redis, 300).await;
}

#[tokio::test]
async fn a_redis_without_room_is_the_cause_full_and_its_words_are_logged() {
    let redis = Redis::start(&["--maxmemory-policy", "noeviction"]).await;
    let nodes = start(&redis).await;
    let node = &nodes[0];
    redis.command(&["CONFIG", "SET", "maxmemory", "1"]).await;
    assert_eq!(node.set(SET).await.status, 507);
    // Its lease has no room, so it cannot rely on hearing of a set.
    assert_eq!(node.get("/status/get?key=k&wait=1").await.code(), -6);
    check_counted(node, &[("full", 2.0)]).await;
    wait_logged(node, "set", "full").await;
    wait_logged(node, "get ended", "full").await;
    let line = wait_logged(node, "Redis refused a command", "full").await;
    let words = line["error"].as_str().expect("words");
    assert!(words.starts_with("OOM "), "{line}");
    redis.command(&["CONFIG", "SET", "maxmemory", "0"]).await;
    settle(&nodes, &redis, 300).await;
}

#[tokio::test]
async fn a_command_that_redis_refuses_is_the_cause_refused_and_its_words_are_logged() {
    let redis = Redis::start(&[]).await;
    let nodes = start(&redis).await;
    let node = &nodes[0];
    let acl = ["ACL", "SETUSER", "default", "-evalsha", "-eval"];
    redis.command(&acl).await;
    assert_eq!(node.set(SET).await.status, 503);
    assert_eq!(poll(node, "k", 0).await.code(), -6);
    check_counted(node, &[("refused", 2.0)]).await;
    wait_logged(node, "set", "refused").await;
    wait_logged(node, "get ended", "refused").await;
    let line = wait_logged(node, "Redis refused a command", "refused").await;
    let words = line["error"].as_str().expect("words");
    assert!(words.starts_with("NOPERM "), "{line}");
    let acl = ["ACL", "SETUSER", "default", "+evalsha", "+eval"];
    redis.command(&acl).await;
    eventually(
        async || node.set(SET).await.status == 200,
        "it takes commands again",
    )
    .await;
    settle(&nodes, &redis, 300).await;
}
