//! A page that asks random nodes again and again, and takes no version twice.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::world::{Shared, Update};
use holdfast_testkit::{Conn, PATIENCE, Response, request};

/// Polls until the race is over.
pub(super) async fn run(shared: Arc<Shared>, at: usize, which: usize) {
    let key = &shared.keys[at];
    let mut conn = None;
    for number in 0_u64.. {
        if shared.is_over.load(Ordering::Relaxed) {
            break;
        }
        // Some gets use the connection of the last one.
        let mut used = match conn.take().filter(|_| rand::random()) {
            Some(conn) => conn,
            None => match connect(shared.any_place(0)).await {
                Some(conn) => conn,
                None => {
                    sleep(Duration::from_millis(5)).await;
                    continue;
                }
            },
        };
        let last = key.lasts[which].load(Ordering::Relaxed);
        let (name, wait) = (
            format!("page{which}_{number}"),
            rand::random_range(100..1000),
        );
        let target = format!(
            "/status/get?key={}&callback={name}&last={last}&wait=0.{wait}",
            key.name
        );
        if !used.try_send(request("GET", &target, &[], b"")).await {
            continue;
        }
        shared.count(|tally| tally.asked += 1);
        match used.response_or_close().await {
            Some(response) => {
                let rest = take(&shared, at, which, &name, &response);
                conn = (response.header("connection") != Some("close")).then_some(used);
                sleep(rest).await;
            }
            None => shared.count(|tally| tally.broken += 1),
        }
        // Anything may happen between two gets.
        if rand::random_range(0..4) == 0 {
            sleep(Duration::from_millis(rand::random_range(0..30))).await;
        }
    }
    if let Some(mut conn) = conn {
        conn.shutdown_write().await;
        conn.expect_close().await;
    }
}

async fn connect(place: SocketAddr) -> Option<Conn> {
    let stream = timeout(PATIENCE, TcpStream::connect(place))
        .await
        .expect("an end in time")
        .ok()?;
    stream.set_nodelay(true).ok()?;
    Some(Conn::over(stream))
}

/// Records an answer. Returns how long to rest.
fn take(shared: &Shared, at: usize, which: usize, name: &str, response: &Response) -> Duration {
    let key = &shared.keys[at];
    assert!(
        response
            .text()
            .starts_with(&format!("/**/typeof {name}===\"function\"&&{name}(")),
        "{response:?}"
    );
    let (code, version, last) = (
        response.code(),
        response.version(),
        key.lasts[which].load(Ordering::Relaxed),
    );
    let object = response.object();
    match code {
        0 | -4 => {
            assert!(
                version > last,
                "{}: backwards from {last}: {response:?}",
                key.name
            );
            let update: Update = if code == 0 {
                Some(object["value"].as_u64().expect("a number"))
            } else {
                None
            };
            key.seen.lock().unwrap().insert((version, update));
            key.lasts[which].store(version, Ordering::Relaxed);
            key.progress.notify_one();
            shared.count(|tally| {
                if code == 0 {
                    tally.statuses += 1
                } else {
                    tally.deletions += 1
                }
            });
            Duration::ZERO
        }
        _ => {
            assert_eq!(
                (version, &object["value"]),
                (last, &Value::Null),
                "{response:?}"
            );
            shared.count(|tally| match code {
                -1 => tally.timeouts += 1,
                -6 => tally.unavailable += 1,
                -2 | -3 => tally.sent_away += 1,
                _ => panic!("{response:?}"),
            });
            // A real page would wait the whole time that the answer names. This one waits a
            // tenth.
            object["retry_after_ms"]
                .as_u64()
                .map_or(Duration::ZERO, |ms| Duration::from_millis(ms / 10))
        }
    }
}
