use super::*;
use crate::model::status::Value;
use crate::model::write_number::REMEMBERED_WRITES;
use crate::runtime::clock::MAX_AHEAD;

const LONG: Duration = Duration::from_secs(60);

fn store(max_statuses: usize, max_bytes: usize) -> Memory {
    Memory::new(
        MemoryLimits {
            max_statuses,
            max_bytes,
            max_floors: 2,
        },
        Arc::default(),
    )
}

fn key(text: &str) -> Key {
    Key::parse(text).expect("good")
}

fn version(number: u64) -> Version {
    Version::new(number).expect("good")
}

fn put(json: &str, ttl: Duration) -> Put {
    let raw: &serde_json::value::RawValue = serde_json::from_str(json).expect("JSON");
    Put {
        value: Value::new(raw, 1000).expect("good"),
        is_final: false,
        ttl,
        after: None,
        before: None,
        number: WriteNumber::random(),
    }
}

fn put_at(store: &Memory, key: &Key, put: Put) -> Result<Version, StoreError> {
    store.put(key, &put).map(|stored| stored.version)
}

/// Waits until the clock has passed a version. A real status needs no such wait, because it
/// lives for at least a second, and by then the clock has passed its version.
fn wait_until_passed(store: &Memory, version: Version) {
    while store.clock.now() <= version.get() {
        std::thread::yield_now();
    }
}

fn forget_at(store: &Memory, key: &Key) -> Result<Version, StoreError> {
    store.forget(key).map(|stored| stored.version)
}

#[test]
fn what_was_put_is_seen_by_those_who_know_less() {
    let store = store(10, 10_000);
    let first = put_at(&store, &key("a"), put("1", LONG)).expect("room");
    let second = put_at(&store, &key("a"), put("2", LONG)).expect("room");
    assert!(second > first);
    let seen = store
        .open(&key("a"), Seen::from(first), LONG)
        .expect("open")
        .expect("newer");
    assert_eq!(seen.version(), second);
    assert_eq!(store.open(&key("a"), Seen::from(second), LONG), Ok(None));
    assert_eq!(
        store.open(&key("b"), Seen::from(Version::NONE), LONG),
        Ok(None)
    );
}

#[test]
fn after_is_the_exact_version_or_nothing_is_stored() {
    let store = store(10, 10_000);
    let after = |version| Put {
        after: Some(version),
        ..put("1", LONG)
    };
    let first = put_at(&store, &key("a"), after(Version::NONE)).expect("nothing known");
    assert_eq!(
        put_at(&store, &key("a"), after(Version::NONE)),
        Err(StoreError::Conflict(first))
    );
    let second = put_at(&store, &key("a"), after(first)).expect("exact");
    let gone = forget_at(&store, &key("a")).expect("room");
    assert_eq!(
        put_at(&store, &key("a"), after(second)),
        Err(StoreError::Conflict(gone))
    );
    assert!(put_at(&store, &key("a"), after(gone)).is_ok());
}

#[test]
fn a_page_from_the_future_gets_the_next_status() {
    let store = store(10, 10_000);
    let ahead = version(store.clock.now() + 1_000_000_000);
    assert_eq!(store.open(&key("a"), Seen::from(ahead), LONG), Ok(None));
    let stored = put_at(&store, &key("a"), put("1", LONG)).expect("room");
    assert_eq!(stored, ahead.next().expect("next"));
    // Another key is not affected: the `last` that a page sends for one key moves no clock.
    assert!(put_at(&store, &key("b"), put("1", LONG)).expect("room") < ahead);
}

#[test]
fn a_status_after_one_that_expired_has_a_greater_version() {
    let store = store(10, 10_000);
    let short = Duration::from_millis(100);
    let burst = (0..10_000)
        .map(|_| put_at(&store, &key("a"), put("1", short)).expect("room"))
        .max();
    while store.read(&key("a")).is_some() {
        std::thread::yield_now();
    }
    assert!(put_at(&store, &key("a"), put("1", LONG)).expect("room") > burst.expect("some"));
}

#[test]
fn a_version_that_a_floor_made_is_remembered_until_the_clock_has_passed_it() {
    let store = store(1, 10_000);
    let last = version(store.clock.now() + 3_600_000);
    assert_eq!(
        store.open(&key("a"), Seen::from(last), Duration::from_millis(1)),
        Ok(None)
    );
    let first = put_at(&store, &key("a"), put("1", Duration::ZERO)).expect("room");
    assert!(first > last);
    // The floor and the status have ended. The version is remembered before a sweep and
    // after one.
    store.by_key.lock(&key("a")).floors = Expiring::default();
    let second = put_at(&store, &key("a"), put("1", Duration::ZERO)).expect("room");
    assert!(second > first);
    store.sweep();
    assert_eq!(
        store.bytes.load(Ordering::Relaxed),
        ENTRY_BYTES + 1,
        "the value is gone"
    );
    assert_eq!(
        store.open(&key("a"), Seen::from(Version::NONE), LONG),
        Ok(None)
    );
    assert!(store.read(&key("a")).is_none());
    assert_eq!(
        put_at(&store, &key("b"), put("1", LONG)),
        Err(StoreError::Full),
        "it keeps its place"
    );
    let after = |version| Put {
        after: Some(version),
        ..put("1", Duration::ZERO)
    };
    assert_eq!(
        put_at(&store, &key("a"), after(second)),
        Err(StoreError::Conflict(Version::NONE))
    );
    assert!(put_at(&store, &key("a"), after(Version::NONE)).expect("its own place") > second);
}

#[test]
fn a_version_is_not_remembered_any_longer_than_the_clock_needs() {
    let store = store(1, 10_000);
    let last = version(store.clock.now() + 200);
    assert_eq!(store.open(&key("a"), Seen::from(last), LONG), Ok(None));
    put_at(&store, &key("a"), put("1", Duration::ZERO)).expect("room");
    store.sweep();
    assert_eq!(store.statuses.load(Ordering::Relaxed), 1);
    while store.statuses.load(Ordering::Relaxed) > 0 {
        std::thread::yield_now();
        store.sweep();
    }
    assert!(store.clock.now() > last.get());
    assert_eq!(store.bytes.load(Ordering::Relaxed), 0);
}

#[test]
fn no_key_s_floor_moves_the_versions_of_others() {
    let store = store(100, 100_000);
    for number in 0..20 {
        let key = key(&format!("k{number}"));
        let last = version(store.clock.now() + MAX_AHEAD - 1000);
        let _ = store.open(&key, Seen::from(last), Duration::from_millis(1));
        store
            .by_key
            .lock(&key)
            .floors
            .insert(&key, last, Instant::now() + LONG);
        assert!(put_at(&store, &key, put("1", LONG)).expect("room") > last);
        assert!(put_at(&store, &key, put("2", LONG)).expect("room") > last);
    }
    let other = put_at(&store, &key("other"), put("1", LONG)).expect("room");
    assert!(other.get() <= system_ms() + 60_000, "{other}");
}

#[test]
fn a_set_that_comes_after_its_time_is_not_stored() {
    let store = store(10, 10_000);
    let before = |time| Put {
        before: Some(time),
        ..put("1", LONG)
    };
    assert_eq!(
        put_at(&store, &key("a"), before(system_ms() - 1)),
        Err(StoreError::TooLate)
    );
    assert!(store.read(&key("a")).is_none());
    assert!(put_at(&store, &key("a"), before(system_ms() + 60_000)).is_ok());
}

#[test]
fn a_repeat_with_the_same_id_is_done_once_as_long_as_it_is_among_the_last_eight_writes() {
    let store = store(10, 10_000);
    let number = WriteNumber::of_id("i");
    let with_id = |value| Put {
        number,
        ..put(value, LONG)
    };
    put_at(&store, &key("a"), put("0", LONG)).expect("room");
    assert_eq!(
        store.bytes.load(Ordering::Relaxed),
        ENTRY_BYTES + 2,
        "without an id nothing is remembered"
    );
    let first = put_at(&store, &key("a"), with_id("1")).expect("room");
    let mut newest = first;
    for round in 1..REMEMBERED_WRITES {
        newest = if round == 3 {
            forget_at(&store, &key("a"))
        } else {
            put_at(&store, &key("a"), put("2", LONG))
        }
        .expect("room");
        // The known number takes precedence over both conditions.
        let repeat = Put {
            after: Some(version(5)),
            before: Some(1),
            ..with_id("1")
        };
        let again = store.put(&key("a"), &repeat).expect("done");
        assert_eq!(again.version, first);
        let StoredBy::Earlier(Some(known)) = again.by else {
            panic!("{again:?}")
        };
        assert_eq!(known.update.version(), newest);
    }
    assert!(
        put_at(&store, &key("b"), with_id("1")).is_ok(),
        "another key's"
    );
    put_at(&store, &key("a"), put("3", LONG)).expect("room");
    assert!(put_at(&store, &key("a"), with_id("1")).expect("room") > newest);
    for _ in 0..REMEMBERED_WRITES {
        put_at(&store, &key("a"), put("4", LONG)).expect("room");
    }
    assert!(
        store
            .by_key
            .lock(&key("a"))
            .known
            .peek(&key("a"))
            .expect("there")
            .writes
            .is_none()
    );
}

#[test]
fn what_is_remembered_of_writes_is_counted_in_bytes() {
    let store = store(10, 10_000);
    let with_id = |id| Put {
        number: WriteNumber::of_id(id),
        ..put("1", Duration::ZERO)
    };
    put_at(&store, &key("a"), with_id("1")).expect("room");
    let one = store.bytes.load(Ordering::Relaxed);
    let last = put_at(&store, &key("a"), with_id("2")).expect("room");
    let two = store.bytes.load(Ordering::Relaxed);
    assert!(one > ENTRY_BYTES + 2 && two - one == 24, "{one} {two}");
    // The status has expired, but the set is not carried out again while the key is there.
    let repeat = store.put(&key("a"), &with_id("1")).expect("done");
    assert_eq!(repeat.by, StoredBy::Earlier(None));
    wait_until_passed(&store, last);
    store.sweep();
    assert_eq!(store.bytes.load(Ordering::Relaxed), 0);
}

#[test]
fn floors_are_bounded_apart_from_statuses() {
    let store = store(1, 10_000);
    for name in ["a", "b"] {
        assert_eq!(
            store.open(&key(name), Seen::from(Version::MAX_LAST), LONG),
            Ok(None)
        );
    }
    assert_eq!(
        store.open(&key("c"), Seen::from(Version::MAX_LAST), LONG),
        Err(StoreError::Full)
    );
    assert_eq!(
        store.open(&key("a"), Seen::from(Version::MAX_LAST), LONG),
        Ok(None)
    );
    assert_eq!(
        store.open(&key("c"), Seen::from(version(1)), LONG),
        Ok(None)
    );
    assert!(put_at(&store, &key("c"), put("1", LONG)).is_ok());
}

#[test]
fn at_a_bound_a_set_is_refused_and_nothing_is_dropped() {
    let store = store(2, 10_000);
    put_at(&store, &key("a"), put("1", LONG)).expect("room");
    put_at(&store, &key("b"), put("1", LONG)).expect("room");
    assert_eq!(
        put_at(&store, &key("c"), put("1", LONG)),
        Err(StoreError::Full)
    );
    assert_eq!(forget_at(&store, &key("c")), Err(StoreError::Full));
    assert!(put_at(&store, &key("a"), put("2", LONG)).is_ok());
    assert!(store.read(&key("b")).is_some());
}

#[test]
fn bytes_are_bounded_and_counted_back() {
    let store = store(10, 2 * ENTRY_BYTES + 2 + 10);
    put_at(&store, &key("a"), put("12345", LONG)).expect("room");
    put_at(&store, &key("b"), put("12345", LONG)).expect("room");
    assert_eq!(
        put_at(&store, &key("a"), put("123456", LONG)),
        Err(StoreError::Full)
    );
    put_at(&store, &key("a"), put("1", LONG)).expect("smaller");
    put_at(&store, &key("b"), put("123456789", LONG)).expect("room again");
    assert_eq!(
        put_at(&store, &key("a"), put("12", LONG)),
        Err(StoreError::Full)
    );
}

#[test]
fn what_expired_is_not_seen_and_leaves_its_room() {
    let store = store(1, 10_000);
    let version = put_at(&store, &key("a"), put("1", Duration::ZERO)).expect("room");
    assert_eq!(
        store.open(&key("a"), Seen::from(Version::NONE), LONG),
        Ok(None)
    );
    assert!(store.read(&key("a")).is_none());
    wait_until_passed(&store, version);
    put_at(&store, &key("b"), put("1", LONG)).expect("room of what expired");
    store.sweep();
    assert_eq!(store.statuses.load(Ordering::Relaxed), 1);
    assert_eq!(store.bytes.load(Ordering::Relaxed), ENTRY_BYTES + 2);
}

#[test]
fn a_deletion_is_remembered_and_ended_by_the_next_set() {
    let store = store(10, 10_000);
    let set = put_at(&store, &key("a"), put("1", Duration::from_secs(100))).expect("room");
    let gone = forget_at(&store, &key("a")).expect("room");
    assert!(gone > set);
    assert_eq!(
        store.open(&key("a"), Seen::from(set), LONG),
        Ok(Some(Update::Gone(gone)))
    );
    let left = store.read(&key("a")).expect("mark").expires_in;
    assert!(left > Duration::from_secs(90) && left <= Duration::from_secs(100));
    assert!(put_at(&store, &key("a"), put("2", LONG)).expect("room") > gone);
    assert!(matches!(
        store.open(&key("a"), Seen::from(gone), LONG),
        Ok(Some(Update::Status(_)))
    ));
}

#[test]
fn a_swept_store_is_empty() {
    let store = store(100_000, usize::MAX);
    for i in 0..50_000 {
        put_at(&store, &key(&format!("k{i}")), put("1", Duration::ZERO)).expect("room");
    }
    wait_until_passed(&store, version(system_ms()));
    store.sweep();
    assert_eq!(store.statuses.load(Ordering::Relaxed), 0);
    assert_eq!(store.bytes.load(Ordering::Relaxed), 0);
    store.by_key.visit(|shard| {
        assert!(shard.known.is_empty());
        false
    });
}
