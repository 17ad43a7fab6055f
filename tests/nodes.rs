//! Several nodes over one Redis. The nodes are real processes, mostly three, the Redis servers
//! are real, and the tests cause every fault that the contract has an answer for.
//!
//! One node holds a get, and a set on another node answers it. After each test nobody waits,
//! and no key would stay in Redis for ever ([`settle`]).

mod addresses;
mod arrays;
mod bounds;
mod causes;
mod clock;
mod crowd;
mod dashboard;
mod deliveries;
mod departures;
mod expiry;
mod failovers;
mod figures;
mod given_up;
mod handovers;
mod health;
mod hostile;
mod late;
mod leases;
mod logins;
mod lookups;
mod missed;
mod order;
mod outages;
mod peers;
mod races;
mod recoveries;
mod redis_socket;
mod redis_tls;
mod refusals;
mod renewals;
mod repeats;
mod rolling;
mod setups;
mod slow;
mod topologies;
mod write_back;

use std::time::Duration;

use tokio::time::{Instant, sleep};

use holdfast_testkit::{Held, Node, Nodes, Redis, Response, now_ms};

/// The beginning of all keys in Redis.
const PREFIX: &str = "holdfast:1:";

/// Returns the answer of a get that receives a status.
fn status(version: u64, value: &str) -> String {
    format!(r#"{{"code":0,"message":"success","value":{value},"version":{version},"final":false}}"#)
}

/// Returns the answer of a get that waited in vain.
fn no_status(last: u64) -> String {
    format!(r#"{{"code":-1,"message":"timeout","value":null,"version":{last},"final":false}}"#)
}

/// Returns the answer of a get that receives a deletion.
fn gone(version: u64) -> String {
    format!(r#"{{"code":-4,"message":"gone","value":null,"version":{version},"final":false}}"#)
}

/// Polls `key` without waiting, and returns the answer, which is JSON.
async fn poll(node: &Node, key: &str, last: u64) -> Response {
    node.get(&format!("/status/get?key={key}&last={last}&wait=0"))
        .await
}

/// Returns whether a name in Redis is that of a test's key, and not one that nodes keep for
/// themselves.
fn is_of_key(name: &str) -> bool {
    let key = name
        .strip_prefix(PREFIX)
        .unwrap_or_else(|| panic!("without the prefix: {name}"));
    !key.contains(' ') && !key.starts_with("holdfast-path-")
}

/// Returns the names of the leases of a key.
async fn leases(redis: &Redis, key: &str) -> Vec<String> {
    let fields = redis.hash(&format!("{PREFIX}{key}")).await;
    fields
        .into_keys()
        .filter(|field| field.contains('@'))
        .collect()
}

/// The time within which all must work after Redis is back.
const RECOVERY: Duration = Duration::from_secs(10);

/// Sets `key` to `value`, a JSON text, until a set is stored. Checks that each refusal until
/// then is a 503 with code -6.
async fn set_stored(node: &Node, key: &str, value: &str) -> Response {
    let until = Instant::now() + RECOVERY;
    loop {
        let response = node
            .set(format!(r#"{{"key":"{key}","value":{value}}}"#))
            .await;
        if response.status == 200 {
            return response;
        }
        assert_eq!(
            (response.status, response.code()),
            (503, -6),
            "{response:?}"
        );
        assert!(Instant::now() < until, "{response:?} after {RECOVERY:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Waits for the answer of a get whose key was set with [`set_stored`], and checks it. The
/// answer has the status that was stored, or that of an earlier try whose outcome nobody knew,
/// which has the same value.
async fn check_told(held: &mut Held, receipt: &Response, value: &str) {
    let answer = held.answer().await;
    assert_eq!(
        answer.text(),
        status(answer.version(), value),
        "{receipt:?}"
    );
    assert!(
        answer.version() <= receipt.version(),
        "{answer:?}, {receipt:?}"
    );
}

/// Checks at the end of a test that nobody waits on any node, and that nothing in Redis stays
/// for ever or longer than it may. A key may stay `ttl` seconds, or a minute if that is
/// longer, and a lease a little longer than the hold.
pub(crate) async fn settle(nodes: &Nodes, redis: &Redis, ttl: u64) {
    settle_ahead(nodes, redis, ttl, 0).await;
}

/// Checks the same after Redis's clock was up to `ahead` seconds ahead: a version of that time is
/// remembered for as much longer.
pub(crate) async fn settle_ahead(nodes: &Nodes, redis: &Redis, ttl: u64, ahead: u64) {
    nodes.quiet().await;
    assert_eq!(redis.immortal().await, Vec::<String>::new());
    for name in redis.names().await {
        let most = match is_of_key(&name) {
            true => 1000 * ttl.max(60),
            false if name.contains("canary") => 610_000,
            false => 70_000 + 1000 * ahead,
        };
        let left = redis.command(&["PTTL", &name]).await.number();
        assert!(left <= most.cast_signed(), "{name} has {left} ms");
        if !is_of_key(&name) {
            continue;
        }
        for (field, ends) in redis
            .hash(&name)
            .await
            .iter()
            .filter(|(field, _)| field.contains('@'))
        {
            let ends: u64 = ends.parse().expect("milliseconds since 1970");
            assert!(
                ends < now_ms() + 35_000,
                "{field} of {name} ends {ends}, and it is {}",
                now_ms()
            );
        }
    }
}
