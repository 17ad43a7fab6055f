//! Pages and backends at a steady pace, at nodes by chance. Each writes down what it asks and what it is told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::record::{Answer, Log, Outcome, Page, Record};
use super::{KEYS, PAGES_PER_KEY};
use crate::support::{Conn, Response, request};

/// How long a client waits beyond what it asked for, before it gives up.
const IMPATIENCE: Duration = Duration::from_secs(3);
/// How long a backend holds back its next set for pages that have not seen the last: a newer one would hide the loss.
const HOLD_BACK: Duration = Duration::from_secs(20);

/// What all clients share.
pub(super) struct Clients {
    pub(super) log: Log,
    /// Each node's public and internal address.
    places: Vec<[SocketAddr; 2]>,
    lasts: Vec<[AtomicU64; PAGES_PER_KEY]>,
    are_backends_over: AtomicBool,
    are_pages_over: AtomicBool,
}

/// The name of a key.
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
            places,
            lasts: (0..KEYS).map(|_| <[AtomicU64; PAGES_PER_KEY]>::default()).collect(),
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
        Self { clients, pages, backends }
    }

    /// Lets each backend end its last set, and the pages see it; then pages that knew nothing ask every node.
    pub(super) async fn end(self) -> Arc<Clients> {
        self.clients.are_backends_over.store(true, Ordering::Relaxed);
        self.backends.join_all().await;
        self.clients.are_pages_over.store(true, Ordering::Relaxed);
        self.pages.join_all().await;
        for key in 0..KEYS {
            for node in 0..self.clients.places.len() {
                let page = Page { key, which: PAGES_PER_KEY + node };
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
            // Sometimes on the connection of the last get.
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

    /// One get, on a connection that is there or a new one; gives the connection back if it may be used again.
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

    /// Sends one get; gives its number.
    pub(super) async fn send_get(&self, conn: &mut Conn, page: Page, last: u64, wait: Duration) -> u64 {
        let (get, key) = (self.log.number(), name(page.key));
        self.log.write(Record::Asked { get, page, last });
        let target = format!("/status/get?key={key}&callback=cb{get}&last={last}&wait={:.3}", wait.as_secs_f64());
        conn.try_send(request("GET", &target, &[], b"")).await;
        get
    }

    /// Reads the answer to a get, and writes it down as that to the get that it names; tells whether the connection may
    /// be used again.
    pub(super) async fn read_answer(&self, conn: &mut Conn, get: u64, wait: Duration) -> (Answer, bool) {
        let Ok(Some(response)) = timeout(wait + IMPATIENCE, conn.response_or_close()).await else {
            self.log.write(Record::Answered { get, answer: Answer::Broken });
            return (Answer::Broken, false);
        };
        let (named, answer) = parse(&response);
        self.log.write(Record::Answered { get: named, answer });
        (answer, response.header("connection") != Some("close"))
    }

    async fn set_on(self: Arc<Self>, key: usize) {
        while !self.are_backends_over.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(rand::random_range(20..150))).await;
            let Some(Outcome::Confirmed(version)) = self.set(key).await else { continue };
            let until = Instant::now() + HOLD_BACK;
            let is_unseen = || self.lasts[key].iter().any(|last| last.load(Ordering::Relaxed) < version);
            while is_unseen() && Instant::now() < until {
                sleep(Duration::from_millis(5)).await;
            }
        }
    }

    /// One set, its value being its number; `None` where no node took the connection.
    async fn set(&self, key: usize) -> Option<Outcome> {
        let node = self.any_node();
        let mut conn = connect(self.places[node][1]).await?;
        let set = self.log.number();
        self.log.write(Record::Sent { set, key, node });
        let body = format!(r#"{{"key":"{}","value":{set}}}"#, name(key));
        conn.try_send(request("POST", "/status/set", &[], body.as_bytes())).await;
        let outcome = match timeout(IMPATIENCE, conn.response_or_close()).await {
            Ok(Some(response)) => outcome(&response),
            _ => Outcome::Unknown,
        };
        self.log.write(Record::Told { set, outcome });
        Some(outcome)
    }
}

pub(super) async fn connect(place: SocketAddr) -> Option<Conn> {
    timeout(IMPATIENCE, TcpStream::connect(place)).await.ok()?.ok().map(Conn::over)
}

/// The get that an answer names, and what it says.
fn parse(response: &Response) -> (u64, Answer) {
    let text = response.text();
    let named = text.strip_prefix("/**/typeof cb").and_then(|rest| rest.split("===").next()?.parse().ok());
    let named = named.unwrap_or_else(|| panic!("{response:?}"));
    assert!(text.contains(&format!("&&cb{named}({{")) && text.ends_with("});"), "{response:?}");
    match response.code() {
        0 => {
            let set = response.object()["value"].as_u64().expect("a number");
            (named, Answer::Status { version: response.version(), set })
        }
        code => (named, Answer::Nothing(code)),
    }
}

fn outcome(response: &Response) -> Outcome {
    let json = response.json();
    match (response.status, response.code()) {
        (200, 0) => Outcome::Confirmed(response.version()),
        (503, -6) if json.get("stored").is_none() => Outcome::Refused,
        (503, -6) if json["stored"] == "unknown" => Outcome::Unknown,
        _ => panic!("{response:?}"),
    }
}
