//! What Redis answers, as bytes on the wire: whoever else writes into it, and whatever answers in its place.

use holdfast::fuzzed::{parse_known, parse_looked, parse_stored};
use holdfast::lease::Lease;
use holdfast::listener::Address;
use holdfast::status::Update;
use holdfast::store::{Known, StoreError};
use redis::{Value, from_redis_value, parse_redis_value};

use super::grammar::MAX_VERSION;
use super::json;

/// What is taken from a reply is a status, a deletion or a lease as this program could have written it.
pub fn check(input: &[u8]) {
    // As the library makes of it what a script answers.
    let Ok(reply) = parse_redis_value(input).and_then(Value::extract_error) else { return };
    let Ok(reply) = from_redis_value::<Vec<Value>>(reply) else { return };

    let known = parse_known(&reply);
    if let Some(Some(known)) = &known {
        check_known(known, &reply);
    }
    let looked = parse_looked(&reply);
    assert_eq!(looked.is_some(), known.is_some());
    if let Some(looked) = looked {
        assert_eq!(looked.known.map(|known| known.update), known.flatten().map(|known| known.update));
        check_leases(&looked.leases, reply.get(5..).unwrap_or_default());
    }
    match parse_stored(&reply, 7) {
        Ok(stored) => {
            assert_eq!(reply[1], Value::BulkString(b"stored".to_vec()));
            assert!((1..=MAX_VERSION).contains(&stored.version.get()), "{}", stored.version);
            check_leases(&stored.leases, reply.get(4..).unwrap_or_default());
        }
        Err(StoreError::Conflict(version)) => {
            assert_eq!(reply[1], Value::BulkString(b"conflict".to_vec()));
            assert!(version.get() <= MAX_VERSION, "{version}");
        }
        Err(StoreError::Full) => assert_eq!(reply[1], Value::BulkString(b"full".to_vec())),
        Err(StoreError::Unknown) => {}
        Err(StoreError::Unavailable) => panic!("an answer does not say that nothing was done"),
    }
}

fn check_known(known: &Known, reply: &[Value]) {
    assert!((1..=MAX_VERSION).contains(&known.update.version().get()), "{known:?}");
    match &known.update {
        Update::Status(status) => {
            let value = status.value.as_bytes();
            assert!(json::parse(value).is_some(), "{known:?}");
            assert!(matches!(&reply[3], Value::BulkString(stored) if stored.trim_ascii() == value), "{known:?}");
            assert_eq!(status.is_final, reply.get(4) == Some(&Value::BulkString(b"1".to_vec())));
        }
        Update::Gone(_) => assert!(!matches!(reply.get(3), Some(Value::BulkString(_))), "{known:?}"),
    }
}

/// Leases are names of nodes in their order, and what stands between them that is none is passed over.
fn check_leases(leases: &[Lease], replies: &[Value]) {
    let is_name =
        |name: &str| name.split_once('@').is_some_and(|(id, url)| !id.is_empty() && url.starts_with("http://"));
    let expected: Vec<_> = replies
        .chunks_exact(2)
        .filter_map(|pair| match pair {
            [Value::BulkString(name), ends] => {
                let ends: u64 = from_redis_value(ends.clone()).ok()?;
                String::from_utf8(name.clone()).ok().filter(|name| is_name(name)).map(|name| Lease { name, ends })
            }
            _ => None,
        })
        .collect();
    assert_eq!(leases, expected);
    for lease in leases {
        let (id, url) = lease.node_and_url();
        assert_eq!(format!("{id}@{url}"), lease.name);
        // That is where a node would be spoken to.
        let _ = Address::of_url(url);
    }
}
