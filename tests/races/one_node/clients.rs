//! A page and a backend that keep their connections, for tests that ask thousands of times. The
//! harness opens a connection for each question.

use std::fmt::Display;
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};

use holdfast_testkit::{Address, Conn, Node, PATIENCE, Response, request};

/// The beginning of a query for each form of answer.
const FORMS: [&str; 3] = ["callback=cb&", "assign=answer&", ""];
/// A wait that is longer than a test waits for an answer. It is shorter than the node's default
/// hold, because the hold would shorten it at random.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// An answer of `/status/get`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub(crate) code: i64,
    pub(crate) version: u64,
    pub(crate) value: Value,
    pub(crate) retry_after_ms: Option<u64>,
}

impl Answer {
    pub(crate) fn of(response: &Response) -> Self {
        let mut object = response.object();
        let number = |name: &str| object[name].as_u64();
        let (version, retry_after_ms) = (
            number("version").expect("a version"),
            number("retry_after_ms"),
        );
        Self {
            code: response.code(),
            version,
            value: object["value"].take(),
            retry_after_ms,
        }
    }

    fn new(code: i64, version: u64, value: Value) -> Self {
        Self {
            code,
            version,
            value,
            retry_after_ms: None,
        }
    }

    /// Returns the answer of a get that is told of a status.
    pub(crate) fn status(version: u64, value: impl Into<Value>) -> Self {
        Self::new(0, version, value.into())
    }

    /// Returns the answer of a get that is told of a deletion.
    pub(crate) fn gone(version: u64) -> Self {
        Self::new(-4, version, Value::Null)
    }

    /// Returns the answer of a get with this `last` at its deadline.
    pub(crate) fn timeout(last: u64) -> Self {
        Self::new(-1, last, Value::Null)
    }

    /// Returns whether this sends a page away that came with `last`: `code` is -2 or -3. Few
    /// pages wait, so it sends them away for a second at most.
    pub(crate) fn is_refusal(&self, code: i64, last: u64) -> bool {
        let refusal = Self {
            retry_after_ms: self.retry_after_ms,
            ..Self::new(code, last, Value::Null)
        };
        *self == refusal
            && self
                .retry_after_ms
                .is_some_and(|wait| (100..=1000).contains(&wait))
    }
}

/// A key, and the node that it is raced on.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) public: Address,
    internal: Address,
    pid: u32,
    pub(crate) key: String,
}

impl Place {
    pub(crate) fn new(node: &Node, key: String) -> Self {
        Self {
            public: node.public.clone(),
            internal: node.internal.clone(),
            pid: node.pid(),
            key,
        }
    }

    /// Returns another key of the same node.
    pub(crate) fn with_key(&self, key: String) -> Self {
        Self {
            key,
            ..self.clone()
        }
    }

    pub(crate) async fn page(&self) -> Page {
        self.page_to_leave(Leaving::Fin).await
    }

    /// Opens a page that is going to leave in this way.
    pub(crate) async fn page_to_leave(&self, leaving: Leaving) -> Page {
        Page::open(&self.public, &self.key, leaving).await
    }

    pub(crate) async fn backend(&self) -> Backend {
        let conn = Conn::over(connect(&self.internal).await);
        Backend {
            conn,
            key: self.key.clone(),
            pid: self.pid,
        }
    }
}

/// The way in which a client goes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leaving {
    Fin,
    Reset,
    HalfClose,
}

pub(crate) const LEAVINGS: [Leaving; 3] = [Leaving::Fin, Leaving::Reset, Leaving::HalfClose];

/// A page that polls on a connection of its own.
pub(crate) struct Page {
    conn: Conn,
    pub(crate) key: String,
    form: &'static str,
    leaving: Leaving,
}

impl Page {
    async fn open(public: &Address, key: &str, leaving: Leaving) -> Self {
        let stream = connect(public).await;
        // Only an option of the socket lets a connection end with a reset, and a connection of
        // the harness does not show its socket.
        if leaving == Leaving::Reset {
            stream.set_zero_linger().expect("an option");
        }
        let form = FORMS[rand::random_range(0..FORMS.len())];
        Self {
            conn: Conn::over(stream),
            key: key.to_owned(),
            form,
            leaving,
        }
    }

    /// Sends a get. Several may be under way.
    pub(crate) async fn ask(&mut self, last: u64, wait: Duration) {
        let target = format!(
            "/status/get?{}key={}&last={last}&wait={:.3}",
            self.form,
            self.key,
            wait.as_secs_f64()
        );
        self.conn.send(request("GET", &target, &[], b"")).await;
    }

    /// Reads the next answer.
    pub(crate) async fn answer(&mut self) -> Answer {
        Answer::of(&self.conn.read_response().await)
    }

    /// Sends a get that waits for long, and reads its answer.
    pub(crate) async fn poll(&mut self, last: u64) -> Answer {
        self.poll_for(last, LONG).await
    }

    /// Sends a get, and reads its answer.
    pub(crate) async fn poll_for(&mut self, last: u64, wait: Duration) -> Answer {
        self.ask(last, wait).await;
        self.answer().await
    }

    /// Goes away. Returns the half that can still read if the page half-closes.
    pub(crate) async fn go(mut self) -> Option<HalfClosed> {
        if self.leaving != Leaving::HalfClose {
            return None;
        }
        self.conn.shutdown_write().await;
        Some(HalfClosed(self.conn))
    }

    /// Goes away. Returns the answer that still came.
    pub(crate) async fn leave(self) -> Option<Answer> {
        self.go().await?.rest().await
    }

    /// Half-closes after all answers. Only the other side's close may come then.
    pub(crate) async fn end(mut self) {
        self.conn.shutdown_write().await;
        self.conn.expect_close().await;
    }
}

/// The reading half of a client that left.
pub(crate) struct HalfClosed(Conn);

impl HalfClosed {
    /// Returns the answer, if it was on its way already. Then waits for the close.
    pub(crate) async fn rest(mut self) -> Option<Answer> {
        let answer = self.0.response_or_close().await;
        self.0.expect_close().await;
        answer.as_ref().map(Answer::of)
    }
}

/// The result of a set or a delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Receipt {
    pub(crate) version: u64,
    pub(crate) delivered: u64,
}

/// The result of an update, and the answer that a page is given.
pub(crate) type Updated = (Receipt, Answer);

/// Returns two updates of one key in the order of their versions.
///
/// # Panics
/// If they have the same version, or one that is not greater than `last`.
pub(crate) fn in_order(last: u64, one: Updated, other: Updated) -> (Updated, Updated) {
    let (older, newer) = if one.0.version < other.0.version {
        (one, other)
    } else {
        (other, one)
    };
    assert!(
        last < older.0.version && older.0.version < newer.0.version,
        "{last}, {older:?}, {newer:?}"
    );
    (older, newer)
}

/// A backend that sets on a connection of its own.
pub(crate) struct Backend {
    conn: Conn,
    pub(crate) key: String,
    /// The node's process.
    pid: u32,
}

impl Backend {
    /// Sends a set of a JSON text. `more` holds further members as text: `,"ttl":1`.
    pub(crate) async fn send_set(&mut self, value: impl Display, more: &str) {
        let body = format!(r#"{{"key":"{}","value":{value}{more}}}"#, self.key);
        self.conn
            .send(request("POST", "/status/set", &[], body.as_bytes()))
            .await;
    }

    pub(crate) async fn send_delete(&mut self) {
        self.conn
            .send(request("DELETE", &format!("/keys/{}", self.key), &[], b""))
            .await;
    }

    /// Reads the next answer, which must be a success.
    pub(crate) async fn receipt(&mut self) -> Receipt {
        let response = self.conn.read_response().await;
        let json = response.json();
        assert_eq!(
            (response.status, &json["code"]),
            (200, &Value::from(0)),
            "{response:?}"
        );
        let number = |name: &str| json[name].as_u64().expect("a number");
        Receipt {
            version: number("version"),
            delivered: number("delivered"),
        }
    }

    pub(crate) async fn set(&mut self, value: impl Display) -> Receipt {
        self.set_with(value, "").await
    }

    pub(crate) async fn set_with(&mut self, value: impl Display, more: &str) -> Receipt {
        self.send_set(value, more).await;
        self.receipt().await
    }

    pub(crate) async fn delete(&mut self) -> Receipt {
        self.send_delete().await;
        self.receipt().await
    }

    /// Sets, or deletes if there is no value. Returns the receipt, and the answer that a page is
    /// given.
    pub(crate) async fn update(&mut self, value: Option<u64>) -> Updated {
        match value {
            Some(value) => {
                let receipt = self.set(value).await;
                (receipt, Answer::status(receipt.version, value))
            }
            None => {
                let receipt = self.delete().await;
                (receipt, Answer::gone(receipt.version))
            }
        }
    }

    /// Posts any body. The node takes it for JSON if it begins like JSON.
    pub(crate) async fn post(&mut self, target: &str, body: &str) -> Response {
        self.conn
            .ask(request("POST", target, &[], body.as_bytes()))
            .await
    }

    /// Asks `GET /keys/{key}`. Returns the version and the number of waiters. The version is 0
    /// if nothing is known, or if there is a deletion and nobody waits.
    pub(crate) async fn look(&mut self) -> (u64, u64) {
        let response = self
            .conn
            .ask(request("GET", &format!("/keys/{}", self.key), &[], b""))
            .await;
        if response.status == 404 {
            return (0, 0);
        }
        let json = response.json();
        let waiters = json["waiters"]
            .as_object()
            .expect("waiters")
            .values()
            .filter_map(Value::as_u64)
            .sum();
        (json["version"].as_u64().expect("a version"), waiters)
    }

    /// Waits until this many gets of the key are held, and are open in the store: see
    /// [`at_rest`].
    pub(crate) async fn wait_held(&mut self, count: u64) {
        // Not `eventually`: a task must be `Send`, and the compiler does not see that an async
        // closure that borrows is.
        let deadline = Instant::now() + PATIENCE;
        while self.look().await.1 != count {
            assert!(
                Instant::now() < deadline,
                "not within {PATIENCE:?}: {} has {count} waiters",
                self.key
            );
            sleep(Duration::from_millis(2)).await;
        }
        at_rest(self.pid).await;
    }
}

/// Waits until each thread of a node was seen asleep, so that all that was begun before is done.
///
/// A get is counted as a waiter an instant before it is open in the store. If a set comes in
/// between, the get finds its answer in the store, and `delivered` does not count it. A `last`
/// ahead of the clock is not known yet then. One thread counts and opens a get in one go.
pub(crate) async fn at_rest(pid: u32) {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
    let mut threads: Vec<_> = tasks
        .map(|task| task.expect("a thread").path().join("stat"))
        .collect();
    let deadline = Instant::now() + PATIENCE;
    loop {
        // The state follows the name, which is in brackets. A thread that has ended is at rest too.
        threads.retain(|stat| {
            std::fs::read_to_string(stat).is_ok_and(|stat| {
                stat.rsplit(") ")
                    .next()
                    .is_some_and(|rest| !rest.starts_with('S'))
            })
        });
        if threads.is_empty() {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "not within {PATIENCE:?}: the threads of {pid} rest"
        );
        sleep(Duration::from_millis(1)).await;
    }
}

async fn connect(address: &Address) -> TcpStream {
    let stream = timeout(PATIENCE, TcpStream::connect(address.tcp()))
        .await
        .expect("in time")
        .expect("connected");
    stream.set_nodelay(true).expect("an option");
    stream
}

/// Lets a random part of `most` pass, mostly a small one, so that two tasks that stir often
/// meet.
pub(crate) async fn stir(most: Duration) {
    pass(most.mul_f64(rand::random::<f64>().powi(3))).await;
}

/// Lets a time pass, as finely as the machine can. A timer of the runtime counts milliseconds.
pub(crate) async fn pass(time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        yield_now().await;
    }
}
