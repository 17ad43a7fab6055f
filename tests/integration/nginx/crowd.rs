//! Pages that poll through nginx all the while, and count everything that they are answered.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::support::nginx::free_address;
use crate::support::{Launch, Nginx, Node, Response, eventually, request};

/// A node that comes back at the addresses that it had.
pub(super) struct Place {
    args: Vec<String>,
    pub(super) node: Node,
}

impl Place {
    pub(super) async fn start(args: &[&str]) -> Self {
        let [public, internal]: [SocketAddr; 2] = std::array::from_fn(|_| free_address());
        let mut own = vec!["--public".to_owned(), public.to_string(), "--internal".to_owned(), internal.to_string()];
        own.extend(args.iter().map(|&arg| arg.to_owned()));
        Self { node: Self::launch(&own).await, args: own }
    }

    pub(super) async fn restart(&mut self) {
        self.node = Self::launch(&self.args).await;
    }

    async fn launch(args: &[String]) -> Node {
        Launch::new(&args.iter().map(String::as_str).collect::<Vec<_>>()).start().await
    }
}

pub(super) async fn places<const N: usize>(args: &[&str]) -> [Place; N] {
    let mut places = Vec::new();
    for _ in 0..N {
        places.push(Place::start(args).await);
    }
    places.try_into().ok().expect("as many as were started")
}

/// What pages were answered.
#[derive(Debug, Default, Clone)]
pub(super) struct Tally {
    /// By code; without the faults.
    pub(super) codes: BTreeMap<i64, u64>,
    /// What is no script, with the time that it took.
    pub(super) faults: Vec<(Duration, String)>,
    /// Per page, the greatest version that it was answered.
    pub(super) seen: BTreeMap<usize, u64>,
}

impl Tally {
    pub(super) fn answers(&self) -> u64 {
        self.codes.values().sum()
    }

    fn count(&mut self, page: usize, last: u64, took: Duration, response: Option<Response>) {
        match response {
            Some(response) if response.status == 200 && response.text().starts_with("/**/typeof cb===") => {
                let (code, version) = (response.code(), response.version());
                *self.codes.entry(code).or_default() += 1;
                match code {
                    0 if version > last => drop(self.seen.insert(page, version)),
                    -1 | -2 => {}
                    _ => self.faults.push((took, response.text().to_owned())),
                }
            }
            Some(response) => self.faults.push((took, format!("{} {}", response.status, response.reason))),
            None => self.faults.push((took, "the connection ended".to_owned())),
        }
    }
}

/// Pages at work.
pub(super) struct Crowd {
    tally: Arc<Mutex<Tally>>,
    stop: watch::Sender<bool>,
    pages: JoinSet<()>,
}

impl Crowd {
    /// Starts `count` pages, each with its key (`page-0`, ...), that wait `wait` seconds a time.
    pub(super) fn start(nginx: &Arc<Nginx>, count: usize, wait: &str) -> Self {
        let (tally, stop) = (Arc::<Mutex<Tally>>::default(), watch::Sender::new(false));
        let mut pages = JoinSet::new();
        for page in 0..count {
            pages.spawn(poll(Arc::clone(nginx), page, wait.to_owned(), Arc::clone(&tally), stop.subscribe()));
        }
        Self { tally, stop, pages }
    }

    pub(super) fn tally(&self) -> Tally {
        self.tally.lock().unwrap().clone()
    }

    /// Waits until the pages were answered `count` times more, by a node or by nginx, so that what was done has its effect.
    pub(super) async fn answered(&self, count: u64) {
        let all = || self.tally().answers() + self.tally().faults.len() as u64;
        let goal = all() + count;
        eventually(async || all() >= goal, &format!("{count} answers more")).await;
    }

    /// Lets each page have its last answer.
    pub(super) async fn end(mut self) -> Tally {
        self.stop.send_replace(true);
        while let Some(ended) = self.pages.join_next().await {
            ended.expect("a page does not panic");
        }
        self.tally()
    }
}

/// Does as the README tells a page to: asks again at once, later where it is told to, and on a new connection after a fault.
async fn poll(nginx: Arc<Nginx>, page: usize, wait: String, tally: Arc<Mutex<Tally>>, stop: watch::Receiver<bool>) {
    let (mut connection, mut last) = (nginx.open().await, 0);
    while !*stop.borrow() {
        let asked = Instant::now();
        let target = format!("/status/get?key=page-{page}&callback=cb&wait={wait}&last={last}");
        let sent = connection.conn.try_send(request("GET", &target, &[], b"")).await;
        let response = if sent { connection.conn.response_or_close().await } else { None };
        let good = response.as_ref().filter(|response| response.status == 200);
        let object = good.map(Response::object);
        let again = response.as_ref().is_none_or(|response| response.header("connection") == Some("close"));
        let took = asked.elapsed();
        tally.lock().unwrap().count(page, last, took, response);
        if again {
            connection = nginx.open().await;
        }
        match object {
            Some(object) => {
                last = last.max(object["version"].as_u64().expect("a version"));
                if let Some(after) = object["retry_after_ms"].as_u64() {
                    sleep(Duration::from_millis(after)).await;
                }
            }
            None => sleep(Duration::from_millis(200)).await,
        }
    }
}
