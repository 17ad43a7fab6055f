//! The cost of single parts that every get or set goes through: `cargo bench --bench micro`. A
//! name after `--` selects a part. It answers one question: did a change make a part slower, or
//! slower on two cores than on one? The cost of the whole is measured by `load`, and most of
//! that is the kernel's and hyper's.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use divan::{Bencher, black_box};
use futures_util::FutureExt as _;
use holdfast::model::key::Key;
use holdfast::model::status::{Seen, Status, Update, Value, Version};
use holdfast::model::write_number::WriteNumber;
use holdfast::page::script::{Callback, Form};
use holdfast::store::memory::{Memory, MemoryLimits};
use holdfast::store::{Put, Store};
use holdfast::waiters::{Taker, Waiters};
use serde_json::value::RawValue;
use tikv_jemallocator::Jemalloc;
use tokio::time::Instant;

/// The same allocator as in holdfast.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// One thread alone, and two at once. State that two threads share costs each of them more.
/// Other work costs each the same.
const THREADS: [usize; 2] = [1, 2];

/// The keys that are used in turn. They are more than a core's first caches hold, as in a
/// server.
const KEYS: usize = 10_000;

/// The number of calls in a sample. It is high because the clock counts in steps of 20 ns or
/// more.
const CALLS: u32 = 1_000;

/// The number of calls in a sample of two threads. They must run together for some
/// milliseconds, and not one after the other.
const CALLS_TOGETHER: u32 = 10_000;

/// The number of other gets that wait beside the measured one.
const OTHERS: [usize; 2] = [0, 100_000];

fn main() {
    divan::main();
}

fn key(prefix: &str, number: usize) -> Key {
    Key::parse(&format!("{prefix}-{number:013}")).expect("printable")
}

/// Returns a short value, such as the session of a page that logs in.
fn short() -> String {
    r#"{"state":"confirmed","user":"u-1234567890","redirect":"/welcome"}"#.to_owned()
}

fn value(json: String) -> Value {
    let raw = RawValue::from_string(json).expect("JSON");
    Value::new(&raw, usize::MAX).expect("good")
}

#[divan::bench_group(sample_size = CALLS)]
mod script {
    use super::*;

    /// Returns a node's answer with this value.
    fn answer(value: &str) -> String {
        format!(
            r#"{{"code":0,"message":"success","value":{value},"version":1763812345678,"final":false}}"#
        )
    }

    fn render(bencher: Bencher<'_, '_>, value: &str) {
        let json = answer(value);
        let form = Form::Jsonp(Callback::parse("cb").expect("good"));
        let mut out = Vec::with_capacity(2 * json.len());
        bencher.bench_local(|| {
            out.clear();
            form.render(black_box(json.as_bytes()), &mut out);
            out.len()
        });
    }

    #[divan::bench]
    fn render_short(bencher: Bencher<'_, '_>) {
        render(bencher, &short());
    }

    /// Measures many short strings. Each is searched for characters that must not be in a
    /// script.
    #[divan::bench]
    fn render_4_kb(bencher: Bencher<'_, '_>) {
        let mut text = String::from("[");
        while text.len() < 4_000 {
            let _ = write!(
                text,
                r#"{{"id":{},"name":"a name of some length","tags":["x","y"]}},"#,
                text.len()
            );
        }
        render(bencher, &(text + "null]"));
    }

    /// Measures everything that is changed when JSON becomes a script.
    #[divan::bench]
    fn render_rewritten(bencher: Bencher<'_, '_>) {
        let member =
            "{\"__proto__\":{\"a\":\"one\u{2028}two\u{2029}three\"},\"\\u005f_proto__\":1}";
        render(bencher, &format!("[{}]", [member; 8].join(",")));
    }

    /// Measures the names that pages send: a short one, jQuery's, one with a name space, and
    /// one that is refused.
    #[divan::bench(args = ["cb", "jQuery36409871234567890123_1763812345678", "app.push.slots[12].done", "alert(1)//"])]
    fn callback(name: &str) -> Option<Callback> {
        Callback::parse(black_box(name))
    }
}

#[divan::bench_group(sample_size = CALLS_TOGETHER)]
mod waiters {
    use super::*;

    /// A taker that ignores its update.
    #[derive(Debug)]
    struct Nobody;

    impl Taker for Nobody {
        fn deliver(&self, update: &Update, _: Option<Instant>, _: bool) {
            black_box(update.version());
        }

        fn abandon(&self) {}
    }

    fn taker() -> Arc<dyn Taker> {
        Arc::new(Nobody)
    }

    fn update() -> Update {
        let version = Version::new(1_763_812_345_678).expect("small");
        Update::Status(Status {
            version,
            value: value(short()),
            is_final: false,
        })
    }

    /// Measures `each` on new keys and takers, because two gets share neither, while gets for
    /// other keys are held.
    fn among(
        bencher: Bencher<'_, '_>,
        others: usize,
        each: impl Fn(&Arc<Waiters>, &Key, Arc<dyn Taker>) + Sync,
    ) {
        let waiters = Waiters::new(usize::MAX, 1_000);
        let register = |at| {
            waiters
                .register(&key("other", at), Version::NONE, Arc::new(Nobody))
                .expect("room")
        };
        let held: Vec<_> = (0..others).map(register).collect();
        let next = AtomicUsize::new(0);
        bencher
            .with_inputs(|| (key("own", next.fetch_add(1, Ordering::Relaxed)), taker()))
            .bench_values(|(own, taker)| each(&waiters, &own, taker));
        assert_eq!(waiters.len(), others, "each left");
        drop(held);
    }

    /// Measures a get whose status comes.
    #[divan::bench(threads = THREADS, args = OTHERS)]
    fn register_deliver_drop(bencher: Bencher<'_, '_>, others: usize) {
        let update = update();
        among(bencher, others, |waiters, own, taker| {
            let waiter = waiters.register(own, Version::NONE, taker).expect("room");
            assert_eq!(waiters.deliver(own, &update), 1);
            drop(waiter);
        });
    }

    /// Measures a get that ends without a status.
    #[divan::bench(threads = THREADS, args = OTHERS)]
    fn register_leave(bencher: Bencher<'_, '_>, others: usize) {
        among(bencher, others, |waiters, own, taker| {
            waiters
                .register(own, Version::NONE, taker)
                .expect("room")
                .leave();
        });
    }

    /// Measures a set of a key for which nobody waits on this node.
    #[divan::bench(threads = THREADS, args = OTHERS)]
    fn deliver_to_nobody(bencher: Bencher<'_, '_>, others: usize) {
        let update = update();
        among(bencher, others, |waiters, own, _| {
            assert_eq!(waiters.deliver(own, &update), 0)
        });
    }
}

#[divan::bench_group(sample_size = CALLS_TOGETHER)]
mod store {
    use super::*;

    const HOLD: Duration = Duration::from_secs(25);

    fn empty() -> Store {
        let limits = MemoryLimits {
            max_statuses: 2 * KEYS,
            max_bytes: 1 << 30,
            max_floors: KEYS,
        };
        Store::Memory(Arc::new(Memory::new(limits, Arc::default())))
    }

    fn set() -> Put {
        Put {
            value: value(short()),
            is_final: false,
            ttl: Duration::from_secs(300),
            after: None,
            before: None,
            number: WriteNumber::random(),
        }
    }

    fn keys() -> Vec<Key> {
        (0..KEYS).map(|at| key("key", at)).collect()
    }

    fn filled(keys: &[Key]) -> Store {
        let store = empty();
        for key in keys {
            put(&store, key, &set());
        }
        store
    }

    // The embedded store answers at once.

    fn put(store: &Store, key: &Key, put: &Put) {
        store
            .put(key, put)
            .now_or_never()
            .expect("no wait")
            .expect("room");
    }

    fn open(store: &Store, key: &Key) -> Option<Update> {
        store
            .open(key, Seen::from(Version::NONE), HOLD)
            .now_or_never()
            .expect("no wait")
            .expect("room")
    }

    /// All keys, used in turn.
    struct Turn<'a>(&'a [Key], AtomicUsize);

    impl<'a> Turn<'a> {
        fn next(&self) -> &'a Key {
            &self.0[self.1.fetch_add(1, Ordering::Relaxed) % KEYS]
        }
    }

    /// Measures a get of a key that nobody has set.
    #[divan::bench(threads = THREADS)]
    fn open_nothing(bencher: Bencher<'_, '_>) {
        let (keys, store) = (keys(), empty());
        let turn = Turn(&keys, AtomicUsize::new(0));
        bencher
            .with_inputs(|| turn.next())
            .bench_values(|key| assert!(open(&store, key).is_none()));
    }

    /// Measures a get of a key that has a status.
    #[divan::bench(threads = THREADS)]
    fn open_status(bencher: Bencher<'_, '_>) {
        let keys = keys();
        let (store, turn) = (filled(&keys), Turn(&keys, AtomicUsize::new(0)));
        bencher
            .with_inputs(|| turn.next())
            .bench_values(|key| assert!(open(&store, key).is_some()));
    }

    /// Measures a set in place of an earlier one. Each set has its own value: if two threads
    /// shared one value, its reference count would be measured too.
    #[divan::bench(threads = THREADS)]
    fn put_again(bencher: Bencher<'_, '_>) {
        let keys = keys();
        let (store, turn) = (filled(&keys), Turn(&keys, AtomicUsize::new(0)));
        bencher
            .with_inputs(|| (turn.next(), set()))
            .bench_refs(|(key, set)| put(&store, key, set));
    }
}
