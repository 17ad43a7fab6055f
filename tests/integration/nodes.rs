//! Many nodes over one Redis: three real processes, real servers, and every fault that the contract has an answer for.
//!
//! A get is held on one node, and what another is told reaches it. After each test nobody waits, and no key of Redis
//! would stay for ever ([`settle`]).

mod bounds;
mod clock;
mod crowd;
mod deliveries;
mod departures;
mod expiry;
mod failovers;
mod figures;
mod health;
mod hostile;
mod inside;
mod logins;
mod lookups;
mod order;
mod outages;
mod peers;
mod races;
mod recoveries;
mod topologies;
mod write_back;

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::support::{Held, Node, Nodes, Redis, Response, now_ms};

/// What all keys of Redis begin with.
const PREFIX: &str = "holdfast:1:";

/// What a get is told of a status.
fn status(version: u64, value: &str) -> String {
    format!(r#"{{"code":0,"message":"success","value":{value},"version":{version},"final":false}}"#)
}

/// What a get is told that has waited in vain.
fn no_status(last: u64) -> String {
    format!(r#"{{"code":-1,"message":"timeout","value":null,"version":{last},"final":false}}"#)
}

/// What a get is told of a deletion.
fn gone(version: u64) -> String {
    format!(r#"{{"code":-4,"message":"gone","value":null,"version":{version},"final":false}}"#)
}

/// What a short poll of `key` is told, as JSON.
async fn poll(node: &Node, key: &str, last: u64) -> Response {
    node.get(&format!("/status/get?key={key}&last={last}&wait=0")).await
}

/// Whether a name in Redis is of a test's key, and not of what nodes keep for themselves.
fn is_of_key(name: &str) -> bool {
    let key = name.strip_prefix(PREFIX).unwrap_or_else(|| panic!("without the prefix: {name}"));
    !key.contains(' ') && !key.starts_with("holdfast-path-")
}

/// The leases of a key.
async fn leases(redis: &Redis, key: &str) -> Vec<String> {
    let fields = redis.hash(&format!("{PREFIX}{key}")).await;
    fields.into_keys().filter(|field| field.contains('@')).collect()
}

/// How long after there is a Redis again all must work.
const RECOVERY: Duration = Duration::from_secs(5);

/// Sets `key` to `value`, a JSON text, until that is stored; what is refused meanwhile is said to be unavailable.
async fn set_stored(node: &Node, key: &str, value: &str) -> Response {
    let until = Instant::now() + RECOVERY;
    loop {
        let response = node.set(format!(r#"{{"key":"{key}","value":{value}}}"#)).await;
        if response.status == 200 {
            return response;
        }
        assert_eq!((response.status, response.code()), (503, -6), "{response:?}");
        assert!(Instant::now() < until, "{response:?} after {RECOVERY:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Waits for the answer of a get whose key was set with [`set_stored`]: of the set that was stored, or of one before it
/// that nobody could tell of, which is the same value.
async fn check_told(held: &mut Held, receipt: &Response, value: &str) {
    let answer = held.answer().await;
    assert_eq!(answer.text(), status(answer.version(), value), "{receipt:?}");
    assert!(answer.version() <= receipt.version(), "{answer:?}, {receipt:?}");
}

/// At the end of a test: nobody waits on any node, and nothing in Redis is there for ever, or for longer than it may:
/// `ttl` seconds at most, and leases a little longer than the hold.
pub(crate) async fn settle(nodes: &Nodes, redis: &Redis, ttl: u64) {
    nodes.quiet().await;
    assert_eq!(redis.immortal().await, Vec::<String>::new());
    for name in redis.names().await {
        let most = if is_of_key(&name) { 1000 * ttl.max(60) } else { 70_000 };
        let left = redis.command(&["PTTL", &name]).await.number();
        assert!(left <= most.cast_signed(), "{name} has {left} ms");
        if !is_of_key(&name) {
            continue;
        }
        for (field, ends) in redis.hash(&name).await.iter().filter(|(field, _)| field.contains('@')) {
            let ends: u64 = ends.parse().expect("milliseconds since 1970");
            assert!(ends < now_ms() + 35_000, "{field} of {name} ends {ends}, and it is {}", now_ms());
        }
    }
}
