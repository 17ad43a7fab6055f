//! A set on any node answers the gets that any other node holds.

use super::{gone, no_status, poll, settle, status};
use crate::contract::sets::{check, check_done};
use holdfast_testkit::{Nodes, Redis, ahead};

#[tokio::test]
async fn a_set_on_any_node_answers_a_get_on_any_node() {
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(3, &redis.url(), &[]).await;
    let mut last = 0;
    for get in 0..3 {
        for set in 0..3 {
            // The bytes of the value arrive unchanged, except that a script writes `__proto__`
            // as a computed name.
            let value = format!(r#"{{"get" : {get},  "set":"\u00e9\/","__proto__": 1.50e1}}"#);
            let form = ["callback=cb&", "assign=qr&", ""][(get + set) % 3];
            let mut held = nodes.hold(get, &format!("{form}key=k&last={last}")).await;
            let version = check_done(
                &nodes[set]
                    .set(format!(r#"{{"key":"k","value":{value}}}"#))
                    .await,
                1,
            );
            let answer = held.answer().await;
            let script = status(
                version,
                &value.replace(r#""__proto__""#, r#"["__proto__"]"#),
            );
            let expected = match form {
                "callback=cb&" => format!(r#"/**/typeof cb==="function"&&cb({script});"#),
                "assign=qr&" => format!("/**/window.qr={script};"),
                _ => status(version, &value),
            };
            assert_eq!(
                (answer.status, answer.text()),
                (200, expected.as_str()),
                "get on {get}, set on {set}"
            );
            assert!(version > last);
            last = version;
        }
    }
    settle(&nodes, &redis, 300).await;
}

#[tokio::test]
async fn waiters_of_one_key_on_all_nodes_are_answered_by_one_set() {
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(3, &redis.url(), &[]).await;
    let mut last = 0;
    for set in 0..3 {
        let mut held = Vec::new();
        for get in [0, 1, 2, 0, 2] {
            held.push(nodes.hold(get, &format!("key=k&last={last}")).await);
        }
        let mut other = nodes.hold((set + 1) % 3, "key=other").await;
        let version = check_done(&nodes[set].set(r#"{"key":"k","value":[1,2]}"#).await, 5);
        for held in &mut held {
            assert_eq!(held.answer().await.text(), status(version, "[1,2]"));
        }
        assert!(
            other
                .conn
                .is_silent_for(std::time::Duration::from_millis(20))
                .await,
            "another key's"
        );
        other.leave();
        nodes.wait_key_waiters("other", 0).await;
        last = version;
    }
    settle(&nodes, &redis, 300).await;
}

#[tokio::test]
async fn a_status_is_found_on_every_node_by_who_knows_less() {
    let last = ahead();
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(3, &redis.url(), &[]).await;
    for set in 0..3 {
        let first = check_done(&nodes[set].set(r#"{"key":"k","value":"first"}"#).await, 0);
        let version = check_done(
            &nodes[(set + 1) % 3]
                .set(r#"{"key":"k","value":"second"}"#)
                .await,
            0,
        );
        assert!(version > first);
        for get in 0..3 {
            for last in [0, first, version - 1] {
                assert_eq!(
                    poll(&nodes[get], "k", last).await.text(),
                    status(version, r#""second""#)
                );
                let held = nodes[get]
                    .get(&format!("/status/get?key=k&last={last}&wait=5"))
                    .await;
                assert_eq!(held.text(), status(version, r#""second""#));
            }
            for last in [version, version + 1, last] {
                assert_eq!(poll(&nodes[get], "k", last).await.text(), no_status(last));
            }
        }
    }
    settle(&nodes, &redis, 300).await;
}

#[tokio::test]
async fn a_version_is_beyond_the_last_of_who_waits_on_any_node() {
    let last = ahead();
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(3, &redis.url(), &[]).await;
    for (get, set) in [(0, 1), (1, 2), (2, 2), (2, 0)] {
        let key = format!("k{get}{set}");
        let mut knows_most = nodes.hold(get, &format!("key={key}&last={last}")).await;
        let mut knows_less = nodes
            .hold((get + 1) % 3, &format!("key={key}&last=7"))
            .await;
        let version = check_done(
            &nodes[set]
                .set(format!(r#"{{"key":"{key}","value":1}}"#))
                .await,
            2,
        );
        assert_eq!(version, last + 1);
        for held in [&mut knows_most, &mut knows_less] {
            assert_eq!(held.answer().await.text(), status(version, "1"));
        }
    }
    // The keys remember their versions until the clock has passed them.
    settle(&nodes, &redis, 3600).await;
}

#[tokio::test]
async fn a_deletion_on_one_node_ends_the_gets_on_all() {
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(3, &redis.url(), &[]).await;
    let mut last = 0;
    for delete in 0..3 {
        let set = check_done(&nodes[0].set(r#"{"key":"k","value":1}"#).await, 0);
        let mut held = Vec::new();
        for get in 0..3 {
            held.push(nodes.hold(get, &format!("key=k&last={set}")).await);
        }
        let version = check_done(
            &nodes[delete].internal("DELETE", "/keys/k", &[], b"").await,
            3,
        );
        assert!(last < set && set < version);
        for held in &mut held {
            let answer = held.answer().await;
            assert_eq!(
                (answer.status, answer.text()),
                (410, gone(version).as_str())
            );
        }
        for get in 0..3 {
            assert_eq!(poll(&nodes[get], "k", set).await.text(), gone(version));
            assert_eq!(
                nodes[get].internal("GET", "/keys/k", &[], b"").await.status,
                404
            );
        }
        last = version;
    }
    // A set after a deletion stores a status again, and the deletion no longer hides it.
    let mut held = nodes.hold(2, &format!("key=k&last={last}")).await;
    let version = check_done(&nodes[1].set(r#"{"key":"k","value":2}"#).await, 1);
    assert_eq!(held.answer().await.text(), status(version, "2"));
    assert_eq!(
        poll(&nodes[0], "k", last).await.text(),
        status(version, "2")
    );
    settle(&nodes, &redis, 300).await;
}

#[tokio::test]
async fn a_set_after_a_version_conflicts_whichever_node_stored_another() {
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(3, &redis.url(), &[]).await;
    let after =
        |after: u64, value: u64| format!(r#"{{"key":"k","value":{value},"after":{after}}}"#);
    let mut known = 0;
    for (one, other) in [(0, 1), (1, 2), (2, 0)] {
        let mut held = nodes.hold(other, &format!("key=k&last={known}")).await;
        let version = check_done(&nodes[one].set(after(known, 1)).await, 1);
        assert_eq!(held.answer().await.text(), status(version, "1"));
        for node in [one, other] {
            let body = format!(r#"{{"code":-7,"message":"conflict","version":{version}}}"#);
            check(&nodes[node].set(after(known, 2)).await, 409, &body);
            check(&nodes[node].set(after(version + 1, 2)).await, 409, &body);
        }
        assert_eq!(
            poll(&nodes[other], "k", known).await.text(),
            status(version, "1")
        );
        known = version;
    }
    settle(&nodes, &redis, 300).await;
}

#[tokio::test]
async fn an_array_has_the_receipt_of_each_of_its_sets() {
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(3, &redis.url(), &[]).await;
    let mut held = Vec::new();
    for (key, get) in [("a", 0), ("a", 1), ("a", 2), ("b", 1), ("d", 2), ("d", 2)] {
        held.push((key, nodes.hold(get, &format!("key={key}")).await));
    }
    let keys = ["a", "b", "c", "d", "a"];
    let body: Vec<_> = keys
        .iter()
        .map(|key| format!(r#"{{"key":"{key}","value":"{key}"}}"#))
        .collect();
    let response = nodes[1].set(format!("[{}]", body.join(","))).await;
    let result = |at: usize, member: &str| {
        response.json()["results"][at][member]
            .as_u64()
            .expect("a number")
    };
    let version = |at| result(at, "version");
    // The second set of `a` may arrive while the first is still being delivered. Then some of
    // the three gets receive the second.
    let (first, second) = (result(0, "delivered"), result(4, "delivered"));
    assert_eq!(first + second, 3);
    let results = [first, 1, 0, 2, second].into_iter().enumerate();
    let results = results.map(|(at, count)| {
        format!(
            r#"{{"code":0,"version":{},"delivered":{count}}}"#,
            version(at)
        )
    });
    let results: Vec<_> = results.collect();
    check(
        &response,
        200,
        &format!(
            r#"{{"code":0,"message":"success","results":[{}]}}"#,
            results.join(",")
        ),
    );
    for (key, mut held) in held {
        let at = keys
            .iter()
            .position(|other| *other == key)
            .expect("one of them");
        let answer = held.answer().await;
        let expected = [
            status(version(at), &format!("\"{key}\"")),
            status(version(4), &format!("\"{key}\"")),
        ];
        assert!(
            expected[..if key == "a" { 2 } else { 1 }].contains(&answer.text().to_owned()),
            "{key}: {answer:?}"
        );
    }
    assert!(version(4) > version(0));
    settle(&nodes, &redis, 300).await;
}
