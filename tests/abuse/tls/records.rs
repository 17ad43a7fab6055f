//! Records: torn, split, gathered, forged, too long, and with new keys.

use std::sync::Arc;
use std::time::Duration;

use rustls::{AlertDescription, ClientConfig};

use super::raw::Raw;
use super::{Moment, TlsNode, held_get, short_get};

#[tokio::test]
async fn a_request_whose_record_is_torn_at_any_byte_is_answered_once_it_is_whole() {
    let node = TlsNode::start(&[]).await;
    let mut raw = node.connect().await;
    let length = raw.records(short_get("k")).len();
    drop(raw);
    let mut raw = node.connect().await;
    for at in 1..length {
        let record = raw.records(short_get("k"));
        raw.send_raw(&record[..at]).await;
        assert!(raw.is_silent_for(Duration::from_millis(1)).await, "{at}");
        raw.send_raw(&record[at..]).await;
        assert_eq!(raw.response().await.code(), -1, "{at}");
    }
    drop(raw);
    node.quiet().await;
}

#[tokio::test]
async fn a_record_torn_at_any_byte_around_the_answer_to_a_held_get_is_the_next_request() {
    let node = TlsNode::start(&[]).await;
    let mut raw = node.connect().await;
    let length = raw.records(short_get("next")).len();
    drop(raw);
    let mut raw = node.connect().await;
    for at in 1..length {
        let key = format!("k{at}");
        node.hold_on(&mut raw, &key).await;
        let record = raw.records(short_get("next"));
        raw.send_raw(&record[..at]).await;
        node.answers(&mut raw, &key).await;
        assert!(raw.is_silent_for(Duration::from_millis(1)).await, "{at}");
        raw.send_raw(&record[at..]).await;
        assert_eq!(raw.response().await.code(), -1, "{at}");
    }
    drop(raw);
    node.quiet().await;
}

#[tokio::test]
async fn several_records_in_one_segment_are_all_answered_in_order() {
    let node = TlsNode::start(&[]).await;
    for number in 0..20 {
        node.node
            .set_ok(&format!("k{number}"), &number.to_string())
            .await;
    }
    let mut raw = node.connect().await;
    let mut all = Vec::new();
    for number in 0..20 {
        all.extend(raw.records(short_get(&format!("k{number}"))));
    }
    raw.send_raw(all).await;
    for number in 0..20 {
        assert_eq!(raw.response().await.json()["value"], number);
    }
    drop(raw);
    node.quiet().await;
}

#[tokio::test]
async fn a_request_in_records_of_one_byte_each_is_answered() {
    let node = TlsNode::start(&[]).await;
    let mut raw = node.connect().await;
    let single = |raw: &mut Raw, request: Vec<u8>| -> Vec<u8> {
        request
            .chunks(1)
            .flat_map(|byte| raw.records(byte))
            .collect()
    };
    let records = single(&mut raw, short_get("k"));
    raw.send_raw(records).await;
    assert_eq!(raw.response().await.code(), -1);
    // Each in a segment of its own, and while a get is held.
    node.hold_on(&mut raw, "k").await;
    for byte in short_get("next") {
        let record = raw.records([byte]);
        raw.send_raw(record).await;
    }
    node.answers(&mut raw, "k").await;
    assert_eq!(raw.response().await.code(), -1);
    drop(raw);
    node.quiet().await;
}

#[tokio::test]
async fn a_head_split_over_the_longest_and_the_shortest_records_is_answered() {
    let node = TlsNode::start(&[]).await;
    for bytes in [32, 33, 100, 1_000, 16_384] {
        let mut config = ClientConfig::clone(&node.client);
        // The head of a record is counted.
        config.max_fragment_size = Some(bytes + 5).filter(|bytes| *bytes <= 16_389);
        let mut raw = Raw::connect(node.address, &Arc::new(config)).await;
        let long = "x".repeat(12_000);
        let head =
            format!("GET /status/get?key=other&wait=0 HTTP/1.1\r\nhost: a\r\nx: {long}\r\n\r\n");
        assert_eq!(raw.ask(&head).await.code(), -1, "{bytes}");
        // The record of a whole head, torn at each 4 KB by the reads of the node.
        let key = format!("k{bytes}");
        raw.send([held_get(&key), head.into_bytes()].concat()).await;
        node.node.wait_key_waiters(&key, 1).await;
        node.answers(&mut raw, &key).await;
        assert_eq!(raw.response().await.code(), -1, "{bytes}");
    }
    node.quiet().await;
}

/// Checks that a client at each moment, after it has sent what `bad` returns, gets this alert and
/// the close, is counted, and leaves nothing.
async fn refuses(bad: impl Fn(&mut Raw) -> Vec<u8>, alert: Option<AlertDescription>) {
    let node = TlsNode::start(&[]).await;
    for (number, moment) in Moment::ALL.into_iter().enumerate() {
        let mut raw = node.at(moment).await;
        let bytes = bad(&mut raw);
        raw.try_send_raw(bytes).await;
        let end = raw.end().await;
        assert_eq!(end.alert, alert, "{moment:?}: {end:?}");
        assert!(!end.is_reset, "{moment:?}: {end:?}");
        node.wait_dropped("bad_tls", number as f64 + 1.0).await;
        node.node.wait_key_waiters("k", 0).await;
        drop(raw);
        node.quiet().await;
    }
}

#[tokio::test]
async fn a_forged_record_ends_a_connection_at_any_moment_with_an_alert_and_is_counted() {
    let forged = |raw: &mut Raw| {
        let mut record = raw.records(short_get("other"));
        *record.last_mut().expect("a record") ^= 1;
        record
    };
    refuses(forged, Some(AlertDescription::BadRecordMac)).await;
}

#[tokio::test]
async fn a_record_longer_than_the_protocol_allows_ends_a_connection_at_any_moment() {
    let long = |more: u16| {
        move |_: &mut Raw| {
            let mut record = vec![23, 3, 3];
            record.extend(u16::to_be_bytes(16_384 + more));
            record.resize(record.len() + 16_384 + usize::from(more), 0);
            record
        }
    };
    // rustls takes what older versions allow. It cannot decrypt it.
    refuses(long(257), Some(AlertDescription::BadRecordMac)).await;
    refuses(long(4_000), Some(AlertDescription::DecodeError)).await;
}

#[tokio::test]
async fn a_forged_record_before_many_unread_bytes_still_gets_its_alert_and_no_reset() {
    let many = |raw: &mut Raw| {
        let mut record = raw.records(short_get("other"));
        *record.last_mut().expect("a record") ^= 1;
        record.resize(record.len() + 60_000, 0);
        record
    };
    refuses(many, Some(AlertDescription::BadRecordMac)).await;
}

#[tokio::test]
async fn new_keys_at_any_moment_are_answered_with_new_keys_and_what_follows_is_good() {
    let node = TlsNode::start(&[]).await;
    for moment in [Moment::Fresh, Moment::Idle, Moment::Held, Moment::Rested] {
        let node = TlsNode::start(&[]).await;
        let mut raw = node.at(moment).await;
        for _ in 0..3 {
            let update = raw.key_update();
            raw.send_raw(update).await;
        }
        if moment == Moment::Held {
            node.answers(&mut raw, "k").await;
        }
        assert_eq!(raw.ask(short_get("other")).await.code(), -1, "{moment:?}");
        node.hold_on(&mut raw, "later").await;
        let update = raw.key_update();
        raw.send_raw(update).await;
        node.answers(&mut raw, "later").await;
        drop(raw);
        node.quiet().await;
    }
    let mut raw = node.at(Moment::Stream).await;
    let update = raw.key_update();
    raw.send_raw(update).await;
    node.node.set_ok("k", "\"after\"").await;
    raw.read_until(b"\"after\"").await;
    drop(raw);
    node.quiet().await;
}

#[tokio::test]
async fn a_torn_key_update_while_a_get_is_held_is_whole_after_the_answer() {
    let node = TlsNode::start(&[]).await;
    let mut raw = node.connect().await;
    let length = raw.key_update().len();
    drop(raw);
    for at in 1..length {
        let key = format!("k{at}");
        let mut raw = node.hold(&key).await;
        let update = raw.key_update();
        raw.send_raw(&update[..at]).await;
        node.answers(&mut raw, &key).await;
        raw.send_raw(&update[at..]).await;
        assert_eq!(raw.ask(short_get("other")).await.code(), -1, "{at}");
    }
    node.quiet().await;
}

#[tokio::test]
async fn a_flood_of_key_updates_ends_the_connection_at_any_moment() {
    let flood = |raw: &mut Raw| (0..200).flat_map(|_| raw.key_update()).collect();
    refuses(flood, None).await;
}
