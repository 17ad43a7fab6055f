//! What single parts cost that every get or set goes through: `cargo bench --bench micro`, a part by its name behind
//! `--`. It answers one question: did a change make one of them slower, or slower on two cores than on one. What the
//! whole costs is for `load` to say: most of it is the kernel's and hyper's.
//!
//! `cargo test --benches` runs each once.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use divan::{Bencher, black_box};
use futures_util::FutureExt as _;
use holdfast::key::Key;
use holdfast::script::{Callback, Form};
use holdfast::status::{Seen, Status, Update, Value, Version};
use holdfast::store::memory::{Limits, Memory};
use holdfast::store::{Put, Store};
use holdfast::waiters::{Taker, Waiters};
use serde_json::value::RawValue;
use tikv_jemallocator::Jemalloc;
use tokio::time::Instant;

/// As holdfast has it.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Alone, and two at once. What two share costs each of them more; what they do not costs each the same.
const THREADS: [usize; 2] = [1, 2];

/// Keys that are gone through in turn: more than a core's first caches hold, as in a server.
const KEYS: usize = 10_000;

/// A sample is this many calls: the clock counts in steps of 20 ns or more.
const CALLS: u32 = 1_000;

/// The same for two threads: they are to be at it together for some milliseconds, not one after the other.
const CALLS_TOGETHER: u32 = 10_000;

/// Gets that wait beside the one that is measured.
const OTHERS: [usize; 2] = [0, 100_000];

fn main() {
    divan::main();
}

fn key(prefix: &str, number: usize) -> Key {
    Key::parse(&format!("{prefix}-{number:013}")).expect("printable")
}

/// A session of a page that logs in, say.
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

    /// As a node answers with it.
    fn answer(value: &str) -> String {
        format!(r#"{{"code":0,"message":"success","value":{value},"version":1763812345678,"final":false}}"#)
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

    /// Many short strings: each is looked at for what must not stand in a script.
    #[divan::bench]
    fn render_4_kb(bencher: Bencher<'_, '_>) {
        let mut text = String::from("[");
        while text.len() < 4_000 {
            let _ = write!(text, r#"{{"id":{},"name":"a name of some length","tags":["x","y"]}},"#, text.len());
        }
        render(bencher, &(text + "null]"));
    }

    /// All that is changed on the way from JSON into a script.
    #[divan::bench]
    fn render_rewritten(bencher: Bencher<'_, '_>) {
        let member = "{\"__proto__\":{\"a\":\"one\u{2028}two\u{2029}three\"},\"\\u005f_proto__\":1}";
        render(bencher, &format!("[{}]", [member; 8].join(",")));
    }

    /// The names that pages send: their own short one, jQuery's, one of a name space, and one that is refused.
    #[divan::bench(args = ["cb", "jQuery36409871234567890123_1763812345678", "app.push.slots[12].done", "alert(1)//"])]
    fn callback(name: &str) -> Option<Callback> {
        Callback::parse(black_box(name))
    }
}

#[divan::bench_group(sample_size = CALLS_TOGETHER)]
mod waiters {
    use super::*;

    /// Who is given an update and has nothing to do.
    #[derive(Debug)]
    struct Nobody;

    impl Taker for Nobody {
        fn take(&self, update: &Update, _: Option<Instant>, _: bool) {
            black_box(update.version());
        }
    }

    fn taker() -> Arc<dyn Taker> {
        Arc::new(Nobody)
    }

    fn update() -> Update {
        let version = Version::new(1_763_812_345_678).expect("small");
        Update::Status(Status { version, value: value(short()), is_final: false })
    }

    /// Measures `each` on keys and takers of their own, as two gets share neither, with gets for other keys held beside.
    fn among(bencher: Bencher<'_, '_>, others: usize, each: impl Fn(&Arc<Waiters>, &Key, Arc<dyn Taker>) + Sync) {
        let waiters = Waiters::new(usize::MAX, 1_000);
        let register = |at| waiters.register(&key("other", at), Version::NONE, Arc::new(Nobody)).expect("room");
        let held: Vec<_> = (0..others).map(register).collect();
        let next = AtomicUsize::new(0);
        bencher
            .with_inputs(|| (key("own", next.fetch_add(1, Ordering::Relaxed)), taker()))
            .bench_values(|(own, taker)| each(&waiters, &own, taker));
        assert_eq!(waiters.len(), others, "each left");
        drop(held);
    }

    /// A get whose status comes.
    #[divan::bench(threads = THREADS, args = OTHERS)]
    fn register_deliver_drop(bencher: Bencher<'_, '_>, others: usize) {
        let update = update();
        among(bencher, others, |waiters, own, taker| {
            let waiter = waiters.register(own, Version::NONE, taker).expect("room");
            assert_eq!(waiters.deliver(own, &update), 1);
            drop(waiter);
        });
    }

    /// A get that ends without one.
    #[divan::bench(threads = THREADS, args = OTHERS)]
    fn register_leave(bencher: Bencher<'_, '_>, others: usize) {
        among(bencher, others, |waiters, own, taker| {
            waiters.register(own, Version::NONE, taker).expect("room").leave();
        });
    }

    /// A set of a key for which nobody waits here.
    #[divan::bench(threads = THREADS, args = OTHERS)]
    fn deliver_to_nobody(bencher: Bencher<'_, '_>, others: usize) {
        let update = update();
        among(bencher, others, |waiters, own, _| assert_eq!(waiters.deliver(own, &update), 0));
    }
}

#[divan::bench_group(sample_size = CALLS_TOGETHER)]
mod store {
    use super::*;

    const HOLD: Duration = Duration::from_secs(25);

    fn empty() -> Store {
        let limits = Limits { max_statuses: 2 * KEYS, max_bytes: 1 << 30, max_floors: KEYS };
        Store::Memory(Memory::new(limits, Arc::default()))
    }

    fn set() -> Put {
        Put { value: value(short()), is_final: false, ttl: Duration::from_secs(300), after: None }
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
        store.put(key, put).now_or_never().expect("no wait").expect("room");
    }

    fn open(store: &Store, key: &Key) -> Option<Update> {
        store.open(key, Seen::from(Version::NONE), HOLD).now_or_never().expect("no wait").expect("room")
    }

    /// Goes through all keys.
    struct Turn<'a>(&'a [Key], AtomicUsize);

    impl<'a> Turn<'a> {
        fn next(&self) -> &'a Key {
            &self.0[self.1.fetch_add(1, Ordering::Relaxed) % KEYS]
        }
    }

    /// A get of what nobody has set.
    #[divan::bench(threads = THREADS)]
    fn open_nothing(bencher: Bencher<'_, '_>) {
        let (keys, store) = (keys(), empty());
        let turn = Turn(&keys, AtomicUsize::new(0));
        bencher.with_inputs(|| turn.next()).bench_values(|key| assert!(open(&store, key).is_none()));
    }

    /// A get of what is there.
    #[divan::bench(threads = THREADS)]
    fn open_status(bencher: Bencher<'_, '_>) {
        let keys = keys();
        let (store, turn) = (filled(&keys), Turn(&keys, AtomicUsize::new(0)));
        bencher.with_inputs(|| turn.next()).bench_values(|key| assert!(open(&store, key).is_some()));
    }

    /// A set in place of an earlier one. Each has a value of its own: of one, two threads would count the owners.
    #[divan::bench(threads = THREADS)]
    fn put_again(bencher: Bencher<'_, '_>) {
        let keys = keys();
        let (store, turn) = (filled(&keys), Turn(&keys, AtomicUsize::new(0)));
        bencher.with_inputs(|| (turn.next(), set())).bench_refs(|(key, set)| put(&store, key, set));
    }
}
