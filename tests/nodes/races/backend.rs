//! A backend that sets one key through random nodes, and waits until the pages have the status.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::world::{Key, Outcome, RECOVERY, Shared, Update};
use holdfast_testkit::{Conn, PATIENCE, request};

/// Sends updates, one or two at a time, until the race is ending. Then sets once more, and
/// checks that this is stored.
pub(super) async fn run(shared: Arc<Shared>, at: usize) {
    let key = &shared.keys[at];
    let (mut next, mut newest) = (0, 0);
    loop {
        let is_last = shared.is_ending.load(Ordering::Relaxed);
        let (mut confirmed, begun) = (0, Instant::now());
        while confirmed == 0 || rand::random_range(0..3) == 0 {
            let updates = [(); 2].map(|()| {
                next += 1;
                // One update in twelve is a deletion, but none in the last round.
                (is_last || rand::random_range(0..12) > 0).then_some(next)
            });
            let outcomes = if rand::random_range(0..3) == 0 {
                let (one, other) = tokio::join!(
                    send(&shared, key, updates[0]),
                    send(&shared, key, updates[1])
                );
                vec![one, other]
            } else {
                vec![send(&shared, key, updates[0]).await]
            };
            for outcome in outcomes {
                let Outcome::Confirmed(version) = outcome else {
                    continue;
                };
                shared.count(|tally| tally.behind += u64::from(version <= newest));
                confirmed = confirmed.max(version);
            }
            newest = newest.max(confirmed);
            if confirmed == 0 {
                assert!(
                    begun.elapsed() < RECOVERY,
                    "{}: nothing is stored for {RECOVERY:?}",
                    key.name
                );
                sleep(Duration::from_millis(10)).await;
            }
        }
        wait_seen(&shared, key, confirmed, begun).await;
        if is_last {
            return;
        }
        sleep(Duration::from_millis(rand::random_range(0..20))).await;
    }
}

/// Waits until all pages have this version or a newer one. Counts it as lost if they do not
/// see it in time.
async fn wait_seen(shared: &Shared, key: &Key, version: u64, begun: Instant) {
    let seen = async {
        while key
            .lasts
            .iter()
            .any(|last| last.load(Ordering::Relaxed) < version)
        {
            // The wait is short, because a page may have gone on during the look, before this
            // waits.
            let _ = timeout(Duration::from_millis(5), key.progress.notified()).await;
        }
    };
    let is_seen = timeout(shared.recovery, seen).await.is_ok();
    if !is_seen {
        eprintln!(
            "{}: {version} is lost; the pages have {:?}",
            key.name, key.lasts
        );
    }
    shared.count(|tally| {
        tally.lost += u64::from(!is_seen);
        tally.until_seen.push(begun.elapsed());
    });
}

/// Sends one update through a random node. Records and returns its outcome.
async fn send(shared: &Shared, key: &Key, update: Update) -> Outcome {
    let place = shared.any_place(1);
    let request = match update {
        Some(value) => {
            let body = format!(r#"{{"key":"{}","value":{value}}}"#, key.name);
            request("POST", "/status/set", &[], body.as_bytes())
        }
        None => request("DELETE", &format!("/keys/{}", key.name), &[], b""),
    };
    let Some(outcome) = ask(place, request).await else {
        // Nothing was sent, so this does not count.
        return Outcome::Refused;
    };
    key.updates.lock().unwrap().push((update, outcome));
    shared.count(|tally| {
        tally.set += 1;
        match outcome {
            Outcome::Confirmed(_) => tally.confirmed += 1,
            Outcome::Refused => tally.refused += 1,
            Outcome::Unknown => tally.unknown += 1,
        }
    });
    outcome
}

/// Sends a request and returns its outcome, or `None` if the node does not even take the
/// connection.
async fn ask(place: SocketAddr, request: Vec<u8>) -> Option<Outcome> {
    let stream = timeout(PATIENCE, TcpStream::connect(place))
        .await
        .expect("an end in time")
        .ok()?;
    let mut conn = Conn::over(stream);
    if !conn.try_send(request).await {
        return Some(Outcome::Unknown);
    }
    let Some(response) = conn.response_or_close().await else {
        return Some(Outcome::Unknown);
    };
    let json = response.json();
    match (response.status, response.code()) {
        (200, 0) => Some(Outcome::Confirmed(response.version())),
        (503, -6) if json.get("stored").is_none() => Some(Outcome::Refused),
        (503, -6) if json["stored"] == "unknown" => Some(Outcome::Unknown),
        _ => panic!("{response:?}"),
    }
}
