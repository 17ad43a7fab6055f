//! Checks Redis's replies, as bytes on the wire. Other programs may write into Redis or answer
//! in its place.

use holdfast::fuzzed::{Late, Written, parse_known, parse_snapshot, parse_written};
use holdfast::model::lease::Lease;
use holdfast::model::status::Update;
use holdfast::net::listener::Address;
use holdfast::store::{Known, Stored, StoredBy};
use redis::{Value, from_redis_value, parse_redis_value};

use super::grammar::{MAX_VERSION, is_node};
use super::json;

/// Checks that only a status, a deletion or a lease is taken from a reply, as holdfast could
/// have written it.
pub fn check(input: &[u8]) {
    // The Redis library turns a script's reply into values in the same way.
    let Ok(reply) = parse_redis_value(input).and_then(Value::extract_error) else {
        return;
    };
    let Ok(reply) = from_redis_value::<Vec<Value>>(reply) else {
        return;
    };

    let known = parse_known(&reply);
    if let Some(Some(known)) = &known {
        check_known(known, &reply);
    }
    let snapshot = parse_snapshot(&reply);
    assert_eq!(snapshot.is_some(), known.is_some());
    if let Some(snapshot) = snapshot {
        assert_eq!(
            snapshot.known.map(|known| known.update),
            known.flatten().map(|known| known.update)
        );
        check_leases(&snapshot.leases, reply.get(5..).unwrap_or_default());
    }
    match parse_written(&reply, 7) {
        Some(Written::Stored(stored)) => check_stored(&stored, &reply),
        Some(Written::Conflict(version)) => {
            assert_eq!(reply[1], Value::BulkString(b"conflict".to_vec()));
            assert!(version.get() <= MAX_VERSION, "{version}");
        }
        Some(Written::Full) => assert_eq!(reply[1], Value::BulkString(b"full".to_vec())),
        Some(Written::Late(Late { oldest, .. })) => {
            assert_eq!(reply[1], Value::BulkString(b"late".to_vec()));
            assert!(oldest.get() <= MAX_VERSION, "{oldest}");
        }
        None => {}
    }
}

fn check_stored(stored: &Stored, reply: &[Value]) {
    assert!(
        (1..=MAX_VERSION).contains(&stored.version.get()),
        "{}",
        stored.version
    );
    match &stored.by {
        StoredBy::This => {
            assert_eq!(reply[1], Value::BulkString(b"stored".to_vec()));
            check_leases(&stored.leases, reply.get(4..).unwrap_or_default());
        }
        StoredBy::Earlier(known) => {
            assert_eq!(reply[1], Value::BulkString(b"earlier".to_vec()));
            if let Some(known) = known {
                check_known(known, &reply[2..]);
            }
            check_leases(&stored.leases, reply.get(7..).unwrap_or_default());
        }
    }
}

fn check_known(known: &Known, reply: &[Value]) {
    assert!(
        (1..=MAX_VERSION).contains(&known.update.version().get()),
        "{known:?}"
    );
    match &known.update {
        Update::Status(status) => {
            let value = status.value.as_bytes();
            assert!(json::parse(value).is_some(), "{known:?}");
            assert!(
                matches!(&reply[3], Value::BulkString(stored) if stored.trim_ascii() == value),
                "{known:?}"
            );
            assert_eq!(
                status.is_final,
                reply.get(4) == Some(&Value::BulkString(b"1".to_vec()))
            );
        }
        Update::Gone(_) => assert!(
            !matches!(reply.get(3), Some(Value::BulkString(_))),
            "{known:?}"
        ),
    }
}

/// Checks that leases are the names of nodes, in order, and that everything else between them
/// is skipped.
fn check_leases(leases: &[Lease], replies: &[Value]) {
    let expected: Vec<_> = replies
        .chunks_exact(2)
        .filter_map(|pair| match pair {
            [Value::BulkString(name), ends] => {
                let ends: u64 = from_redis_value(ends.clone()).ok()?;
                String::from_utf8(name.clone())
                    .ok()
                    .filter(|name| is_node(name))
                    .map(|name| Lease { name, ends })
            }
            _ => None,
        })
        .collect();
    assert_eq!(leases, expected);
    for lease in leases {
        let (id, url) = lease.node_and_url();
        assert_eq!(format!("{id}@{url}"), lease.name);
        // A node would connect to this address, so parsing it must not panic.
        let _ = Address::of_url(url);
    }
}
