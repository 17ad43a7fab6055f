//! Pages that keep polling through nginx, a backend that sets their statuses at any node, and
//! the tally of the results.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, timeout};

use holdfast_testkit::{Address, Conn, Nginx, Nodes, Response, eventually, request};

/// The time between two sets.
const PACE: Duration = Duration::from_millis(25);
/// How long a page waits after a fault.
const REST: Duration = Duration::from_millis(200);

/// The results of the pages and of the backend.
#[derive(Debug, Default, Clone)]
pub(super) struct Tally {
    /// Answers of nodes to pages, by code.
    pub(super) codes: BTreeMap<i64, u64>,
    /// All other results of pages, with the time that they took.
    pub(super) faults: Vec<(Duration, String)>,
    /// The version of the last answer, by page.
    seen: BTreeMap<usize, u64>,
    /// The greatest version that a set was answered with, by page.
    confirmed: BTreeMap<usize, u64>,
    pub(super) sets: u64,
    /// Sets that a node refused and that were sent to another node.
    refused: u64,
}

impl Tally {
    /// Returns the number of results that pages got, from a node or from nginx.
    fn answers(&self) -> u64 {
        self.codes.values().sum::<u64>() + self.faults.len() as u64
    }

    /// Checks that pages met only the answers that they have to expect, and the rare -6 of a
    /// slow machine.
    pub(super) fn assert_unnoticed(&self) {
        let unavailable = self.codes.get(&-6).copied().unwrap_or(0);
        assert!(
            self.faults.is_empty() && unavailable * 50 <= self.answers(),
            "{self:?}"
        );
    }

    /// Returns the pages that have not seen a status that was confirmed to the backend.
    fn behind(&self) -> Vec<usize> {
        let has_seen = |page, version| self.seen.get(page).is_some_and(|seen| seen >= version);
        self.confirmed
            .iter()
            .filter(|(page, version)| !has_seen(page, *version))
            .map(|(page, _)| *page)
            .collect()
    }

    fn count(&mut self, page: usize, last: u64, took: Duration, response: Option<&Response>) {
        match response {
            Some(response)
                if response.status == 200 && response.text().starts_with("/**/typeof cb===") =>
            {
                let (code, version) = (response.code(), response.version());
                *self.codes.entry(code).or_default() += 1;
                match code {
                    0 if version > last => drop(self.seen.insert(page, version)),
                    // -6 if a slow machine had not asked Redis before the wait was over; see
                    // `assert_unnoticed`.
                    -1 | -2 | -6 if version == last => {}
                    _ => self
                        .faults
                        .push((took, format!("{} after {last}", response.text()))),
                }
            }
            Some(response) => self
                .faults
                .push((took, format!("{} {}", response.status, response.reason))),
            None => self.faults.push((took, "the connection ended".to_owned())),
        }
    }
}

/// Pages and a backend at work.
pub(super) struct Crowd {
    tally: Arc<Mutex<Tally>>,
    /// Whether sets go on, and whether polls go on.
    go_on: watch::Sender<[bool; 2]>,
    tasks: JoinSet<()>,
}

impl Crowd {
    /// Starts `count` pages and their backend. Each page has its own key and waits `wait`
    /// seconds a time.
    pub(super) fn start(nginx: &Arc<Nginx>, nodes: &Nodes, count: usize, wait: &str) -> Self {
        let (tally, go_on) = (
            Arc::<Mutex<Tally>>::default(),
            watch::Sender::new([true; 2]),
        );
        let mut tasks = JoinSet::new();
        for page in 0..count {
            tasks.spawn(poll(
                Arc::clone(nginx),
                page,
                wait.to_owned(),
                Arc::clone(&tally),
                go_on.subscribe(),
            ));
        }
        let internal = nodes.iter().map(|node| node.internal.clone()).collect();
        tasks.spawn(set_all(
            internal,
            count,
            Arc::clone(&tally),
            go_on.subscribe(),
        ));
        Self {
            tally,
            go_on,
            tasks,
        }
    }

    pub(super) fn tally(&self) -> Tally {
        self.tally.lock().unwrap().clone()
    }

    /// Waits until pages have got `count` more results, so that an action before it has had its
    /// effect.
    pub(super) async fn answered(&self, count: u64) {
        let goal = self.tally().answers() + count;
        eventually(
            async || self.tally().answers() >= goal,
            &format!("{count} answers more"),
        )
        .await;
    }

    /// Ends the backend, waits until each page has seen the last status that was confirmed,
    /// then ends the pages.
    pub(super) async fn end(mut self) -> Tally {
        self.go_on.send_replace([false, true]);
        eventually(
            async || self.tally().behind().is_empty(),
            "each page has its status",
        )
        .await;
        self.go_on.send_replace([false, false]);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("a page does not panic");
        }
        let tally = self.tally();
        assert!(tally.behind().is_empty() && tally.sets > 0, "{tally:?}");
        tally
    }
}

/// Polls as docs/page.md tells a page to: again at once, or after `retry_after_ms`, and also
/// after a fault.
async fn poll(
    nginx: Arc<Nginx>,
    page: usize,
    wait: String,
    tally: Arc<Mutex<Tally>>,
    go_on: watch::Receiver<[bool; 2]>,
) {
    let (mut connection, mut last) = (nginx.open().await, 0);
    while go_on.borrow()[1] {
        let asked = Instant::now();
        let target = format!("/status/get?key=page-{page}&callback=cb&wait={wait}&last={last}");
        let sent = connection
            .conn
            .try_send(request("GET", &target, &[], b""))
            .await;
        let response = if sent {
            connection.conn.response_or_close().await
        } else {
            None
        };
        tally
            .lock()
            .unwrap()
            .count(page, last, asked.elapsed(), response.as_ref());
        match &response {
            Some(response) if response.status == 200 => {
                let object = response.object();
                last = last.max(response.version());
                sleep(Duration::from_millis(
                    object["retry_after_ms"].as_u64().unwrap_or(0),
                ))
                .await;
            }
            _ => sleep(REST).await,
        }
        if response.is_none_or(|response| response.header("connection") == Some("close")) {
            connection = nginx.open().await;
        }
    }
}

/// Sets the status of one page after another, at one node after another. If a node does not
/// answer, the next node is asked.
async fn set_all(
    nodes: Vec<Address>,
    pages: usize,
    tally: Arc<Mutex<Tally>>,
    go_on: watch::Receiver<[bool; 2]>,
) {
    let mut ticks = interval(PACE);
    for count in 0.. {
        ticks.tick().await;
        if !go_on.borrow()[0] {
            return;
        }
        let page = count % pages;
        // Each time that it is a page's turn, another node is asked first.
        let at = count + count / pages;
        for node in (0..nodes.len()).map(|next| &nodes[(at + next) % nodes.len()]) {
            let Some(response) = set(node, page, count).await else {
                continue;
            };
            let mut tally = tally.lock().unwrap();
            // The set is not stored if the node has just started and is not connected to Redis
            // yet.
            if (response.status, response.code()) == (503, -6) {
                tally.refused += 1;
                continue;
            }
            assert_eq!((response.status, response.code()), (200, 0), "{response:?}");
            tally.sets += 1;
            let confirmed = tally.confirmed.entry(page).or_default();
            *confirmed = response.version().max(*confirmed);
            break;
        }
    }
}

/// Sends a set. Returns `None` if the node is not there or does not answer.
async fn set(node: &Address, page: usize, value: usize) -> Option<Response> {
    let body = format!(r#"{{"key":"page-{page}","value":{value}}}"#);
    let asked = async {
        let mut conn = Conn::over(TcpStream::connect(node.tcp()).await.ok()?);
        let sent = conn
            .try_send(request("POST", "/status/set", &[], body.as_bytes()))
            .await;
        if sent {
            conn.response_or_close().await
        } else {
            None
        }
    };
    timeout(Duration::from_secs(2), asked).await.ok().flatten()
}
