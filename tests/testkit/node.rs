//! A running holdfast, with the requests of a page, a backend and an operator.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    Address, Conn, Launch, PATIENCE, PAUSE, Response, encode, eventually, request, speaks_http2,
    tls,
};

/// The log lines that are kept. The oldest go first.
const MAX_LINES: usize = 50_000;

/// A test's own node. When dropped, it is killed. In a panic, the end of its log is printed.
pub struct Node {
    child: Child,
    log: Log,
    bearer: Option<String>,
    /// The address of its public listener.
    pub public: Address,
    /// The address of its internal listener.
    pub internal: Address,
    /// The address of its first public listener with TLS, if it has one.
    pub tls: Option<SocketAddr>,
}

/// A get that is held.
pub struct Held {
    /// The connection of the get.
    pub conn: Conn,
}

impl Held {
    /// Waits for the answer and returns it.
    pub async fn answer(&mut self) -> Response {
        self.conn.read_response().await
    }

    /// Closes the connection, as a client that goes away does.
    pub fn leave(self) {}
}

impl Node {
    /// Starts a node with `args` on free ports, and waits until it is ready. [`Launch`] has
    /// more options.
    pub async fn start(args: &[&str]) -> Self {
        Launch::new(args).start().await
    }

    pub(crate) async fn launch(launch: Launch) -> Self {
        let node = Self::launch_unready(launch).await;
        node.wait_ready().await;
        node
    }

    pub(crate) async fn launch_unready(mut launch: Launch) -> Self {
        let is_http2 = speaks_http2();
        let is_tls = is_http2 || std::env::var_os("HOLDFAST_TEST_TLS").is_some();
        let is_switched = is_tls && launch.may_have_tls();
        if is_switched {
            launch = launch.and(&tls::flags().await);
            if is_http2 {
                launch = launch.and(&["--http2"]);
            }
        }
        let has_tls = launch.has_tls();
        let mut child = launch.command().spawn().expect("the program starts");
        let log = Log::default();
        tokio::spawn(log.clone().keep(child.stderr.take().expect("piped")));
        // The node writes nothing to stdout. It is read only so that the pipe cannot fill up.
        tokio::spawn(Log::default().keep(child.stdout.take().expect("piped")));
        let deadline = Instant::now() + PATIENCE;
        let (public, internal, tls) = loop {
            let tls = log.listener("public-tls").map(|address| address.tcp());
            if let (Some(public), Some(internal)) =
                (log.listener("public"), log.listener("internal"))
                && tls.is_some() == has_tls
            {
                break (public, internal, tls);
            }
            let ended = child.try_wait().expect("a child");
            let waiting = ended.is_none() && Instant::now() < deadline;
            assert!(
                waiting,
                "the node does not listen ({ended:?}):\n{}",
                log.lines().join("\n")
            );
            sleep(PAUSE).await;
        };
        let public = match tls.filter(|_| is_switched) {
            Some(tls) => Address::Tls {
                tls,
                plain: public.tcp(),
                is_http2,
            },
            None => public,
        };
        Self {
            child,
            log,
            bearer: launch.bearer,
            public,
            internal,
            tls,
        }
    }

    /// Waits until the node is ready.
    pub async fn wait_ready(&self) {
        let ready = async || self.internal("GET", "/health/ready", &[], b"").await.status == 200;
        eventually(ready, "/health/ready is 200").await;
    }

    /// Returns the process id.
    ///
    /// # Panics
    /// If the process has ended and been waited for.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Returns all log lines so far, oldest first.
    pub fn logs(&self) -> Vec<String> {
        self.log.lines()
    }

    /// Stops reading the node's log, so that the pipe fills, or reads on.
    pub fn stall_log(&self, is_stalled: bool) {
        self.log.is_stalled.send_replace(is_stalled);
    }

    /// Sends a signal by name, for example `TERM`.
    pub async fn signal(&self, name: &str) {
        signal(self.pid(), name).await;
    }

    /// Returns whether the process has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_some()
    }

    /// Sends SIGKILL, so that the node cannot drain, and waits until the process has ended.
    pub async fn kill(&mut self) {
        kill(&mut self.child).await;
    }

    /// Waits until the process has ended.
    pub async fn wait_exit(&mut self) -> ExitStatus {
        // The grace of a drain is 10 s by default, so wait twice the usual time.
        timeout(2 * PATIENCE, self.child.wait())
            .await
            .expect("the node ends")
            .expect("a child")
    }

    /// Sends SIGTERM, and waits until the process has ended.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM").await;
        self.wait_exit().await
    }

    /// Sends one GET on a new connection of the public listener.
    pub async fn get(&self, target: &str) -> Response {
        self.public("GET", target, &[]).await
    }

    /// Sends one request without a body on a new connection of the public listener.
    pub async fn public(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> Response {
        Conn::open(&self.public)
            .await
            .ask(request(method, target, headers, b""))
            .await
    }

    /// Sends one request on a new connection of the internal listener, with the bearer token of
    /// [`Launch::bearer`] if there is one.
    pub async fn internal(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        let authorization = self.bearer.as_ref().map(|token| format!("Bearer {token}"));
        let mut headers = headers.to_vec();
        headers.extend(
            authorization
                .as_ref()
                .map(|value| ("authorization", value.as_str())),
        );
        Conn::open(&self.internal)
            .await
            .ask(request(method, target, &headers, body))
            .await
    }

    /// Sends `GET /status/get?QUERY`, and does not wait for anything.
    pub async fn open(&self, query: &str) -> Held {
        let mut conn = Conn::open(&self.public).await;
        conn.send(request("GET", &format!("/status/get?{query}"), &[], b""))
            .await;
        Held { conn }
    }

    /// Sends `GET /status/get?QUERY`, and waits until the key has one waiter more than before.
    /// Hold one get at a time per key.
    pub async fn hold(&self, query: &str) -> Held {
        let key = query
            .split('&')
            .find_map(|field| field.strip_prefix("key="))
            .expect("a key to hold");
        let before = self.key_waiters(key).await;
        let held = self.open(query).await;
        eventually(
            async || self.key_waiters(key).await > before,
            &format!("{query} is held"),
        )
        .await;
        held
    }

    /// Returns the waiters of `key` on all nodes, as `GET /keys/{key}` counts them. `key` is
    /// percent-encoded already.
    pub async fn key_waiters(&self, key: &str) -> u64 {
        let response = self
            .internal("GET", &format!("/keys/{key}"), &[], b"")
            .await;
        match response.status {
            404 => 0,
            200 => response.json()["waiters"]
                .as_object()
                .expect("waiters")
                .values()
                .filter_map(Value::as_u64)
                .sum(),
            _ => panic!("{response:?}"),
        }
    }

    /// Waits until `key` (percent-encoded) has exactly `count` waiters.
    pub async fn wait_key_waiters(&self, key: &str, count: u64) {
        eventually(
            async || self.key_waiters(key).await == count,
            &format!("{key} has {count} waiters"),
        )
        .await;
    }

    /// Sends `POST /status/set` with `body` as JSON.
    pub async fn set(&self, body: impl AsRef<[u8]>) -> Response {
        let json = [("content-type", "application/json")];
        self.internal("POST", "/status/set", &json, body.as_ref())
            .await
    }

    /// Sets `key` (raw) to `value`, a JSON text, and returns its version.
    ///
    /// # Panics
    /// If it is not stored.
    pub async fn set_ok(&self, key: &str, value: &str) -> u64 {
        let response = self
            .set(format!(r#"{{"key":{},"value":{value}}}"#, Value::from(key)))
            .await;
        assert_eq!((response.status, response.code()), (200, 0), "{response:?}");
        response.version()
    }

    /// Sends `DELETE /keys/{key}` for a raw key, and returns the deletion's version.
    ///
    /// # Panics
    /// If the key is not deleted.
    pub async fn delete_ok(&self, key: &str) -> u64 {
        let response = self
            .internal("DELETE", &format!("/keys/{}", encode(key)), &[], b"")
            .await;
        assert_eq!((response.status, response.code()), (200, 0), "{response:?}");
        response.version()
    }

    /// Returns the value of one metric, for example `holdfast_gets_total{outcome="success"}`,
    /// with labels in any order. A metric with labels that was never counted is 0.
    ///
    /// # Panics
    /// If the name has no labels and there is no such metric.
    pub async fn metric(&self, name: &str) -> f64 {
        let found = self.metrics().await.get(&canonical(name)).copied();
        found.unwrap_or_else(|| {
            if name.contains('{') {
                0.0
            } else {
                panic!("no metric {name}")
            }
        })
    }

    /// Returns all metrics at one moment, with labels sorted by name.
    pub async fn metrics(&self) -> BTreeMap<String, f64> {
        let response = self.internal("GET", "/metrics", &[], b"").await;
        assert_eq!(response.status, 200, "{response:?}");
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((canonical(name), value.parse().ok()?))
        };
        response
            .text()
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(sample)
            .collect()
    }

    /// Waits until the node counts exactly `count` waiters. The node's own probe adds one for
    /// moments.
    pub async fn wait_waiters(&self, count: u64) {
        let reached = async || self.metric("holdfast_waiters").await == count as f64;
        eventually(reached, &format!("{count} waiters")).await;
    }

    /// Waits until nothing is held: one reading shows no waiter and no key with one.
    pub async fn quiet(&self) {
        let none = async || {
            let metrics = self.metrics().await;
            metrics["holdfast_waiters"] == 0.0 && metrics["holdfast_waiting_keys"] == 0.0
        };
        eventually(none, "no waiter and no waiting key").await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let lines = self.log.lines();
            let end = &lines[lines.len().saturating_sub(30)..];
            eprintln!("--- the end of the node's log\n{}\n---", end.join("\n"));
        }
    }
}

/// Kills a process that may have ended already, and waits until it has ended.
pub(crate) async fn kill(child: &mut Child) {
    // Fails if the process has ended.
    let _ = child.start_kill();
    child.wait().await.expect("a child");
}

/// Sends a process a signal by name.
pub(crate) async fn signal(pid: u32, name: &str) {
    let kill = format!("kill -{name} {pid}");
    assert!(
        Command::new("sh")
            .args(["-c", &kill])
            .status()
            .await
            .expect("sh")
            .success(),
        "{kill}"
    );
    if name == "STOP" {
        // The process may run on for a moment after the signal, so wait until it has stopped.
        let stat = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let has_stopped = || {
            stat()
                .rsplit_once(") ")
                .is_some_and(|(_, state)| state.starts_with(['T', 't']))
        };
        eventually(async || has_stopped(), "the process has stopped").await;
    }
}

/// Sorts the labels of a metric by name.
fn canonical(name: &str) -> String {
    let Some((name, labels)) = name.trim_end_matches('}').split_once('{') else {
        return name.to_owned();
    };
    let mut labels: Vec<_> = labels
        .split(',')
        .filter(|label| !label.is_empty())
        .collect();
    labels.sort_unstable();
    format!("{name}{{{}}}", labels.join(","))
}

/// The lines that a process wrote, at most [`MAX_LINES`] of them.
#[derive(Clone, Default)]
struct Log {
    lines: Arc<Mutex<VecDeque<String>>>,
    /// Whether reading is suspended for now.
    is_stalled: Arc<watch::Sender<bool>>,
}

impl Log {
    async fn keep(self, pipe: impl AsyncRead + Unpin) {
        let mut pipe = BufReader::new(pipe);
        let (mut line, mut is_stalled) = (Vec::new(), self.is_stalled.subscribe());
        while is_stalled.wait_for(|is_stalled| !is_stalled).await.is_ok()
            && matches!(pipe.read_until(b'\n', &mut line).await, Ok(1..))
        {
            let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            lines.push_back(String::from_utf8_lossy(&line).trim_end().to_owned());
            if lines.len() > MAX_LINES {
                lines.pop_front();
            }
            line.clear();
        }
    }

    fn lines(&self) -> Vec<String> {
        self.lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .cloned()
            .collect()
    }

    /// Returns the address in the line that says that `listener` listens, in either log format.
    fn listener(&self, listener: &str) -> Option<Address> {
        let of_line = |line: &String| match serde_json::from_str::<Value>(line) {
            Ok(event) => {
                let field = |name| {
                    event
                        .get(name)
                        .or_else(|| event["fields"].get(name))
                        .and_then(Value::as_str)
                };
                let is_it =
                    field("message") == Some("listening") && field("listener") == Some(listener);
                if is_it {
                    field("address").map(Address::parse)
                } else {
                    None
                }
            }
            Err(_) => {
                let field = |name: &str| {
                    line.split(' ')
                        .find_map(|word| word.strip_prefix(name))
                        .map(|v| v.trim_matches('"'))
                };
                let is_it = line.contains("listening") && field("listener=") == Some(listener);
                if is_it {
                    field("address=").map(Address::parse)
                } else {
                    None
                }
            }
        };
        self.lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .find_map(of_line)
    }
}
