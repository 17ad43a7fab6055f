//! Pages and backends at a steady pace, at random nodes. Each logs its requests and their
//! answers.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::record::{Answer, Log, Outcome, Page, Record, Time};
use super::wires::{Listening, Wire};
use super::{KEYS, PAGES_PER_KEY};
use holdfast_testkit::{Conn, Response, now_ms, request};

/// The time that a client waits beyond the wait that it asked for, before it gives up.
const IMPATIENCE: Duration = Duration::from_secs(3);
/// The time after its sending, in milliseconds, until which a set may be stored if its backend
/// gives it up.
const BEFORE: u64 = 2500;
/// The time that a backend waits if it does not give up. It is far longer than a node is ever
/// stopped.
const PATIENCE: Duration = Duration::from_secs(30);
/// The time after the death of a node in which its answers may still be read.
const AFTER_DEATH: Duration = Duration::from_millis(500);
/// The time after the end of its connection in which a set without an answer may still take
/// effect. The node is gone, and its command to Redis has a time limit.
const LATEST: Duration = Duration::from_secs(3);
/// The longest time that a backend holds back its next set for pages that have not seen the
/// last. A newer status would hide the loss.
const HOLD_BACK: Duration = Duration::from_secs(20);

/// The way in which a backend treats sets that are not answered in time. Two kinds give such a
/// set up. So they name in each set the version that it must follow, or the time until which it
/// may be stored. The third kind waits for each answer, and goes on after any.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Habit {
    GivesAfter,
    GivesBefore,
    Waits,
}

const HABITS: [Habit; 3] = [Habit::GivesAfter, Habit::Waits, Habit::GivesBefore];

/// The state that all clients share.
pub(super) struct Clients {
    pub(super) log: Log,
    /// The public and the internal address of each node.
    places: Vec<[SocketAddr; 2]>,
    lasts: Vec<[AtomicU64; PAGES_PER_KEY]>,
    /// The node that confirmed the newest status of each key, and the time.
    kept_by: Vec<Mutex<Option<(usize, Time)>>>,
    /// The time at which each node was killed last.
    killed: Vec<Mutex<Option<Time>>>,
    are_backends_over: AtomicBool,
    are_pages_over: AtomicBool,
}

/// Returns the name of a key.
fn name(key: usize) -> String {
    format!("chaos-{key}")
}

/// The clients at work.
pub(super) struct Work {
    pub(super) clients: Arc<Clients>,
    pages: JoinSet<()>,
    backends: JoinSet<()>,
}

impl Work {
    pub(super) fn begin(places: Vec<[SocketAddr; 2]>) -> Self {
        let clients = Arc::new(Clients {
            log: Log::begin(),
            kept_by: (0..KEYS).map(|_| Mutex::default()).collect(),
            killed: places.iter().map(|_| Mutex::default()).collect(),
            places,
            lasts: (0..KEYS)
                .map(|_| <[AtomicU64; PAGES_PER_KEY]>::default())
                .collect(),
            are_backends_over: AtomicBool::new(false),
            are_pages_over: AtomicBool::new(false),
        });
        let (mut pages, mut backends) = (JoinSet::new(), JoinSet::new());
        for key in 0..KEYS {
            for which in 0..PAGES_PER_KEY {
                pages.spawn(Arc::clone(&clients).poll_on(Page { key, which }));
            }
            backends.spawn(Arc::clone(&clients).set_on(key));
        }
        Self {
            clients,
            pages,
            backends,
        }
    }

    /// Lets each backend end its last set, and the pages see it. Then pages that know nothing
    /// ask every node.
    pub(super) async fn end(self) -> Arc<Clients> {
        self.clients
            .are_backends_over
            .store(true, Ordering::Relaxed);
        self.backends.join_all().await;
        self.clients.are_pages_over.store(true, Ordering::Relaxed);
        self.pages.join_all().await;
        for key in 0..KEYS {
            for node in 0..self.clients.places.len() {
                let page = Page {
                    key,
                    which: PAGES_PER_KEY + node,
                };
                self.clients.ask(page, node, None, 0, Duration::ZERO).await;
            }
        }
        self.clients
    }
}

impl Clients {
    fn any_node(&self) -> usize {
        rand::random_range(0..self.places.len())
    }

    async fn poll_on(self: Arc<Self>, page: Page) {
        let mut conn = None;
        while !self.are_pages_over.load(Ordering::Relaxed) {
            let last = self.lasts[page.key][page.which].load(Ordering::Relaxed);
            let wait = Duration::from_millis(rand::random_range(100..1000));
            // Each time the page may hear in another way.
            if let Some(wire) =
                [None, Some(Wire::Events), Some(Wire::Socket)][rand::random_range(0..3)]
            {
                self.listen(page, wire, last, wait).await;
                continue;
            }
            // Sometimes use the connection of the last get.
            let used = conn.take().filter(|_| rand::random());
            let (answer, rest) = self.ask(page, self.any_node(), used, last, wait).await;
            conn = rest;
            if let Answer::Status { version, .. } = answer {
                self.lasts[page.key][page.which].fetch_max(version, Ordering::Relaxed);
            } else if answer != Answer::Nothing(-1) {
                sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// Hears of statuses on one connection, as long as one comes within `wait`. Logs each as the
    /// answer to a get with the version before it.
    async fn listen(&self, page: Page, wire: Wire, mut last: u64, wait: Duration) {
        let mut get = self.log.number();
        self.log.write(Record::Asked { get, page, last });
        let answer = async {
            let conn = connect(self.places[self.any_node()][0]).await?;
            Some(Listening::begin(conn, wire, &name(page.key), last).await)
        };
        let Some(mut listening) = answer.await else {
            let answer = Answer::Broken;
            self.log.write(Record::Answered { get, answer });
            return sleep(Duration::from_millis(50)).await;
        };
        loop {
            let answer = listening.next(wait).await;
            self.log.write(Record::Answered { get, answer });
            let Answer::Status { version, .. } = answer else {
                return;
            };
            self.lasts[page.key][page.which].fetch_max(version, Ordering::Relaxed);
            last = version;
            get = self.log.number();
            self.log.write(Record::Asked { get, page, last });
        }
    }

    /// Sends one get on the given connection or a new one, and reads the answer. Returns the
    /// connection too if it may be used again.
    pub(super) async fn ask(
        &self,
        page: Page,
        node: usize,
        conn: Option<Conn>,
        last: u64,
        wait: Duration,
    ) -> (Answer, Option<Conn>) {
        let Some(mut conn) = (match conn {
            Some(conn) => Some(conn),
            None => connect(self.places[node][0]).await,
        }) else {
            return (Answer::Broken, None);
        };
        let get = self.send_get(&mut conn, page, last, wait).await;
        let (answer, goes_on) = self.read_answer(&mut conn, get, wait).await;
        (answer, goes_on.then_some(conn))
    }

    /// Sends one get. Returns its number.
    pub(super) async fn send_get(
        &self,
        conn: &mut Conn,
        page: Page,
        last: u64,
        wait: Duration,
    ) -> u64 {
        let (get, key) = (self.log.number(), name(page.key));
        self.log.write(Record::Asked { get, page, last });
        let target = format!(
            "/status/get?key={key}&callback=cb{get}&last={last}&wait={:.3}",
            wait.as_secs_f64()
        );
        conn.try_send(request("GET", &target, &[], b"")).await;
        get
    }

    /// Reads the answer to a get, and logs it as the answer to the get that it names. Returns
    /// it, and whether the connection may be used again.
    pub(super) async fn read_answer(
        &self,
        conn: &mut Conn,
        get: u64,
        wait: Duration,
    ) -> (Answer, bool) {
        let Ok(Some(response)) = timeout(wait + IMPATIENCE, conn.response_or_close()).await else {
            self.log.write(Record::Answered {
                get,
                answer: Answer::Broken,
            });
            return (Answer::Broken, false);
        };
        let (named, answer) = parse(&response);
        self.log.write(Record::Answered { get: named, answer });
        (answer, response.header("connection") != Some("close"))
    }

    /// Sets one key for as long as the run lasts. No other backend sets it.
    async fn set_on(self: Arc<Self>, key: usize) {
        let habit = HABITS[key % HABITS.len()];
        let mut newest = 0;
        while !self.are_backends_over.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(rand::random_range(20..150))).await;
            let patience = if habit == Habit::Waits {
                PATIENCE
            } else {
                IMPATIENCE
            };
            let guard = match habit {
                Habit::GivesAfter => format!(r#","after":{newest}"#),
                Habit::GivesBefore => format!(r#","before":{}"#, now_ms() + BEFORE),
                Habit::Waits => String::new(),
            };
            let begun = Instant::now();
            let Some((node, outcome)) = self.set(key, &guard, patience).await else {
                continue;
            };
            match outcome {
                Outcome::Confirmed(version) => {
                    *self.kept_by[key].lock().unwrap() = Some((node, self.log.now()));
                    newest = version;
                    self.wait_seen(key, version).await;
                }
                Outcome::Conflict(version) => newest = version,
                Outcome::Silence if habit == Habit::Waits => sleep(LATEST).await,
                // The set may be stored until then.
                Outcome::Silence if habit == Habit::GivesBefore => {
                    sleep_until(begun + IMPATIENCE).await
                }
                Outcome::Refused | Outcome::Full | Outcome::Unknown | Outcome::Silence => {}
            }
        }
    }

    /// Waits until each page has seen this version, but not for ever. The judge finds a lost one
    /// in the end.
    async fn wait_seen(&self, key: usize, version: u64) {
        let until = Instant::now() + HOLD_BACK;
        let is_unseen = || {
            self.lasts[key]
                .iter()
                .any(|last| last.load(Ordering::Relaxed) < version)
        };
        while is_unseen() && Instant::now() < until {
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Sends one set, whose value is its number. Returns the node that was asked and the
    /// outcome, or `None` if the node took no connection.
    async fn set(&self, key: usize, guard: &str, patience: Duration) -> Option<(usize, Outcome)> {
        let node = self.any_node();
        let mut conn = connect(self.places[node][1]).await?;
        conn.patience = 2 * patience;
        let set = self.log.number();
        self.log.write(Record::Sent { set, key, node });
        let body = format!(r#"{{"key":"{}","value":{set}{guard}}}"#, name(key));
        conn.try_send(request("POST", "/status/set", &[], body.as_bytes()))
            .await;
        let outcome = match timeout(patience, conn.response_or_close()).await {
            Ok(Some(response)) => outcome(&response),
            _ => Outcome::Silence,
        };
        self.log.write(Record::Told { set, outcome });
        Some((node, outcome))
    }

    pub(super) fn note_killed(&self, node: usize) {
        *self.killed[node].lock().unwrap() = Some(self.log.now());
    }

    /// Waits until each key's newest status is kept by the node that confirmed it. Returns
    /// whether that happened in time.
    pub(super) async fn wait_all_kept(&self) -> bool {
        let until = Instant::now() + IMPATIENCE;
        let is_kept = |kept_by: &Mutex<Option<(usize, Time)>>| {
            let Some((node, told)) = *kept_by.lock().unwrap() else {
                return true;
            };
            // The answer of a node that was just killed may still be read after its death.
            self.killed[node]
                .lock()
                .unwrap()
                .is_none_or(|killed| killed + AFTER_DEATH < told)
        };
        while !self.kept_by.iter().all(is_kept) {
            if Instant::now() > until {
                return false;
            }
            sleep(Duration::from_millis(5)).await;
        }
        true
    }
}

pub(super) async fn connect(place: SocketAddr) -> Option<Conn> {
    timeout(IMPATIENCE, TcpStream::connect(place))
        .await
        .ok()?
        .ok()
        .map(Conn::over)
}

/// Returns the number of the get that an answer names, and the answer.
fn parse(response: &Response) -> (u64, Answer) {
    let text = response.text();
    let named = text
        .strip_prefix("/**/typeof cb")
        .and_then(|rest| rest.split("===").next()?.parse().ok());
    let named = named.unwrap_or_else(|| panic!("{response:?}"));
    assert!(
        text.contains(&format!("&&cb{named}({{")) && text.ends_with("});"),
        "{response:?}"
    );
    match response.code() {
        0 => {
            let set = response.object()["value"].as_u64().expect("a number");
            (
                named,
                Answer::Status {
                    version: response.version(),
                    set,
                },
            )
        }
        code => (named, Answer::Nothing(code)),
    }
}

fn outcome(response: &Response) -> Outcome {
    let json = response.json();
    match (response.status, response.code()) {
        (200, 0) => Outcome::Confirmed(response.version()),
        (507, -3) => Outcome::Full,
        (409, -7) if json["message"] == "too late" => Outcome::Refused,
        (409, -7) => Outcome::Conflict(response.version()),
        (503, -6) if json.get("stored").is_none() => Outcome::Refused,
        (503, -6) if json["stored"] == "unknown" => Outcome::Unknown,
        _ => panic!("{response:?}"),
    }
}
