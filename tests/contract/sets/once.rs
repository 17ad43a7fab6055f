//! `before` and `id`: a set that comes too late is not stored, and one that comes again is not
//! carried out again.

use crate::contract::sets::{assert_known, assert_unknown, check, check_done, conflict};
use holdfast_testkit::{Node, now_ms};

const TOO_LATE: &str = r#"{"code":-7,"message":"too late"}"#;

#[tokio::test]
async fn a_set_after_its_time_is_a_409_and_nothing_is_stored_or_delivered() {
    let node = Node::start(&[]).await;
    let body = |before: u64| format!(r#"{{"key":"k","value":1,"before":{before}}}"#);
    check(&node.set(body(now_ms() - 1)).await, 409, TOO_LATE);
    check(&node.set(body(0)).await, 409, TOO_LATE);
    let form = format!("key=k&value=1&before={}", now_ms() - 1);
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    check(
        &node
            .internal("POST", "/status/set", &headers, form.as_bytes())
            .await,
        409,
        TOO_LATE,
    );
    assert_unknown(&node, "k").await;
    assert_eq!(
        node.metric(r#"holdfast_sets_total{result="too_late"}"#)
            .await,
        3.0
    );
    assert_eq!(
        node.metric(r#"holdfast_store_calls_total{verb="put",result="too_late"}"#)
            .await,
        3.0
    );
    let mut held = node.hold("key=k").await;
    check(&node.set(body(now_ms() - 1)).await, 409, TOO_LATE);
    let version = check_done(&node.set(body(now_ms() + 60_000)).await, 1);
    assert_eq!(held.answer().await.version(), version);
    node.quiet().await;
}

#[tokio::test]
async fn a_repeat_with_the_same_id_is_answered_with_the_first_s_version() {
    let node = Node::start(&[]).await;
    let body = |value: u64| format!(r#"{{"key":"k","value":{value},"id":"order-17"}}"#);
    let first = check_done(&node.set(body(1)).await, 0);
    assert_eq!(
        check_done(&node.set(body(2)).await, 0),
        first,
        "not carried out again"
    );
    assert_known(&node, "k", "1").await;
    // Another set stores a newer status. The repeat still gets the first version, and delivers
    // nothing.
    let mut held = node.hold(&format!("key=k&last={first}")).await;
    let newer = node.set_ok("k", "3").await;
    assert_eq!(held.answer().await.version(), newer);
    assert_eq!(check_done(&node.set(body(4)).await, 0), first);
    assert_known(&node, "k", "3").await;
    // The conditions that the first set met are not checked again.
    let late = format!(
        r#"{{"key":"k","value":4,"id":"order-17","after":0,"before":{}}}"#,
        now_ms() - 1
    );
    assert_eq!(check_done(&node.set(late).await, 0), first);
    // A set with another id or another key is carried out. So is a repeat of a set that was
    // refused.
    let other = check_done(
        &node.set(r#"{"key":"k","value":5,"id":"order-18"}"#).await,
        0,
    );
    assert!(other > newer);
    check(
        &node
            .set(r#"{"key":"k","value":6,"id":"order-19","after":1}"#)
            .await,
        409,
        &conflict(other),
    );
    assert!(
        check_done(
            &node.set(r#"{"key":"k","value":6,"id":"order-19"}"#).await,
            0
        ) > other
    );
    check_done(
        &node
            .set(r#"{"key":"other","value":7,"id":"order-17"}"#)
            .await,
        0,
    );
    assert_known(&node, "other", "7").await;
    node.quiet().await;
}

#[tokio::test]
async fn an_id_is_known_for_the_key_s_last_eight_writes_deletions_too() {
    let node = Node::start(&[]).await;
    let body = r#"{"key":"k","value":"first","id":"i"}"#;
    let first = check_done(&node.set(body).await, 0);
    for write in 1..8 {
        if write == 3 {
            node.delete_ok("k").await
        } else {
            node.set_ok("k", "1").await
        };
        assert_eq!(check_done(&node.set(body).await, 0), first, "{write}");
    }
    node.set_ok("k", "1").await;
    assert!(
        check_done(&node.set(body).await, 0) > first,
        "eight writes later"
    );
    assert_known(&node, "k", "\"first\"").await;
}

#[tokio::test]
async fn an_id_in_an_array_is_carried_out_once() {
    let node = Node::start(&[]).await;
    let array = r#"[{"key":"k","value":1,"id":"i"},{"key":"k","value":2,"id":"i"},{"key":"k","value":3,"before":1}]"#;
    let response = node.set(array).await;
    let version = response.json()["results"][0]["version"]
        .as_u64()
        .expect("a version");
    let stored = format!(r#"{{"code":0,"version":{version},"delivered":0}}"#);
    let results = format!("{stored},{stored},{TOO_LATE}");
    check(
        &response,
        503,
        &format!(r#"{{"code":-6,"message":"unavailable","results":[{results}]}}"#),
    );
}

#[tokio::test]
async fn what_is_remembered_of_writes_takes_room() {
    // There is room for 100 keys with a value of a byte each, but not for eight remembered
    // writes of each.
    let node = Node::start(&["--max-status-bytes", "40000"]).await;
    for key in 0..100 {
        assert_eq!(
            node.set(format!(r#"{{"key":"k{key}","value":1}}"#))
                .await
                .status,
            200,
            "{key}"
        );
    }
    let with_ids = |key: usize| {
        let set = |id| format!(r#"{{"key":"k{key}","value":1,"id":"{id}"}}"#);
        format!("[{}]", (0..8).map(set).collect::<Vec<_>>().join(","))
    };
    let mut key = 0;
    while node.set(with_ids(key)).await.status == 200 {
        key += 1;
        assert!(
            key < 100,
            "eight writes of 100 keys are more than 13,700 bytes"
        );
    }
    let full = node
        .set(format!(r#"{{"key":"k{}","value":1,"id":"one-more"}}"#, 99))
        .await;
    assert_eq!((full.status, full.code()), (507, -3), "{full:?}");
    assert_known(&node, "k99", "1").await;
}

#[tokio::test]
async fn behind_a_deletion_after_0_is_a_conflict_with_its_version() {
    let node = Node::start(&[]).await;
    node.set_ok("k", "1").await;
    let gone = node.delete_ok("k").await;
    check(
        &node.set(r#"{"key":"k","value":2,"after":0}"#).await,
        409,
        &conflict(gone),
    );
    assert!(
        check_done(
            &node
                .set(format!(r#"{{"key":"k","value":2,"after":{gone}}}"#))
                .await,
            0
        ) > gone
    );
}
