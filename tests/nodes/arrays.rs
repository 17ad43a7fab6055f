//! Arrays over a Redis that is far away. Keys are written side by side, the sets of each key
//! in order, and there is an answer in any case.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::{poll, status};
use holdfast_testkit::{
    Conn, Launch, Node, Proxy, Redis, Response, Weather, eventually, request, wait_connected,
};

/// Starts a Redis behind a proxy, and a node that knows only the proxy.
async fn start(weather: Weather, args: &[&str]) -> (Redis, Proxy, Node) {
    let redis = Redis::start(&[]).await;
    let proxy = Proxy::start(([127, 0, 0, 1], redis.port).into()).await;
    let url = format!("redis://127.0.0.1:{}", proxy.port);
    let node = Launch::new(&[&["--redis", &url], args].concat())
        .start()
        .await;
    wait_connected(&node).await;
    proxy.set(weather);
    (redis, proxy, node)
}

/// Returns an array of `count` sets. The value of each set is its place.
fn array(count: usize, key: impl Fn(usize) -> String) -> String {
    let sets: Vec<_> = (0..count)
        .map(|at| format!(r#"{{"key":"{}","value":{at}}}"#, key(at)))
        .collect();
    format!("[{}]", sets.join(","))
}

fn results(response: &Response) -> Vec<Value> {
    response.json()["results"]
        .as_array()
        .unwrap_or_else(|| panic!("{response:?}"))
        .clone()
}

fn codes(results: &[Value]) -> Vec<i64> {
    results
        .iter()
        .map(|result| {
            result["code"]
                .as_i64()
                .unwrap_or_else(|| panic!("{result}"))
        })
        .collect()
}

/// Checks that sets were refused without being tried.
fn check_untried(results: &[Value]) {
    for result in results {
        assert_eq!(
            (result["code"].as_i64(), result.get("stored")),
            (Some(-6), None),
            "{result}"
        );
        assert!(result["retry_after_ms"].is_u64(), "{result}");
    }
}

#[tokio::test]
async fn keys_of_an_array_are_written_side_by_side_and_each_key_s_sets_in_order() {
    let (redis, proxy, node) = start(Weather::Delay(Duration::from_millis(10)), &[]).await;
    for (count, most) in [
        (100, Duration::from_millis(1000)),
        (1000, Duration::from_secs(8)),
    ] {
        let began = Instant::now();
        let response = node.set(array(count, |at| format!("k{at}"))).await;
        let took = began.elapsed();
        println!("{count} sets of as many keys over a Redis 20 ms away: {took:?}");
        assert_eq!(
            (response.status, codes(&results(&response))),
            (200, vec![0; count])
        );
        // One by one the sets would take 20 ms each.
        assert!(took < most, "{took:?}");
    }
    // Three keys take turns. Each has the last of its values, and its versions grow in the
    // order of the request.
    let response = node
        .set(array(60, |at| format!("in-turn-{}", at % 3)))
        .await;
    let versions: Vec<_> = results(&response)
        .iter()
        .map(|result| result["version"].as_u64().expect("stored"))
        .collect();
    for first in 0..3 {
        let of_key: Vec<_> = versions.iter().skip(first).step_by(3).collect();
        assert!(of_key.is_sorted_by(|one, next| one < next), "{versions:?}");
        let expected = status(*of_key[19], &format!("{}", 57 + first));
        assert_eq!(
            poll(&node, &format!("in-turn-{first}"), 0).await.text(),
            expected
        );
    }
    proxy.set(Weather::Pass);
    drop((node, redis));
}

#[tokio::test]
async fn behind_a_set_without_an_answer_the_rest_of_its_key_is_not_tried() {
    let (_redis, proxy, node) = start(Weather::Pass, &[]).await;
    proxy.set(Weather::Freeze);
    let response = node
        .set(array(6, |at| {
            if at == 4 {
                "b".to_owned()
            } else {
                "a".to_owned()
            }
        }))
        .await;
    proxy.set(Weather::Pass);
    let results = results(&response);
    assert_eq!((response.status, codes(&results)), (503, vec![-6; 6]));
    // The first set of each key was sent, and Redis did not answer.
    assert_eq!(
        (&results[0]["stored"], &results[4]["stored"]),
        (&Value::from("unknown"), &Value::from("unknown"))
    );
    check_untried(&results[1..4]);
    check_untried(&results[5..]);
}

#[tokio::test]
async fn an_array_ends_within_ten_seconds_and_says_what_is_stored() {
    let args = ["--redis-timeout", "2s"];
    let (_redis, proxy, node) = start(Weather::Delay(Duration::from_millis(200)), &args).await;
    let mut conn = Conn::open(&node.internal).await;
    conn.patience = Duration::from_secs(30);
    let began = Instant::now();
    let response = conn
        .ask(request(
            "POST",
            "/status/set",
            &[],
            array(100, |_| "k".to_owned()).as_bytes(),
        ))
        .await;
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    proxy.set(Weather::Pass);
    check_some_stored(&response, &node, 100).await;
}

/// Checks that the first sets of an array of one key are stored, that the others were not
/// tried, and that the key has the value of the last stored set. Returns how many are stored.
async fn check_some_stored(response: &Response, node: &Node, count: usize) -> usize {
    let results = results(response);
    assert_eq!((response.status, results.len()), (503, count));
    let stored = results
        .iter()
        .take_while(|result| result["code"] == 0)
        .count();
    assert!((1..count).contains(&stored), "{stored} stored");
    check_untried(&results[stored..]);
    let version = results[stored - 1]["version"].as_u64().expect("a version");
    let expected = status(version, &(stored - 1).to_string());
    eventually(
        async || poll(node, "k", 0).await.text() == expected,
        "the last that was stored",
    )
    .await;
    stored
}

#[tokio::test]
async fn an_array_is_answered_when_its_node_is_drained_and_the_exit_waits_for_it() {
    let (redis, proxy, mut node) = start(Weather::Delay(Duration::from_millis(10)), &[]).await;
    // This node can still be asked for the status when the first node has exited.
    let other = Launch::new(&["--redis", &redis.url()]).start().await;
    wait_connected(&other).await;
    let mut conn = Conn::open(&node.internal).await;
    let body = array(1000, |_| "k".to_owned());
    conn.send(request("POST", "/status/set", &[], body.as_bytes()))
        .await;
    eventually(
        async || poll(&other, "k", 0).await.code() == 0,
        "the array is under way",
    )
    .await;
    let exits = node.terminate();
    let (exit, response) = tokio::join!(exits, conn.read_response());
    assert_eq!(exit.code(), Some(0));
    check_some_stored(&response, &other, 1000).await;
    proxy.set(Weather::Pass);
    other.quiet().await;
}
