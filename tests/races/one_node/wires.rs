//! Sets that race pages which hear on streams and sockets, and pages that change from one way of
//! hearing to another.

use std::time::Duration;

use rand::random_range;
use serde_json::Value;
use tokio::time::{Instant, timeout};

use super::clients::{Place, stir};
use super::{SPREAD, on_keys, rounds};
use holdfast_testkit::{Conn, Events, Node, PATIENCE, Socket, UPGRADE, request};

/// A connection on which a page hears.
enum Ear {
    Stream(Events),
    Socket(Socket),
}

impl Ear {
    async fn open(place: &Place, wire: usize, last: u64) -> Self {
        let (route, headers) = match wire {
            0 => ("events", &[][..]),
            _ => ("ws", &UPGRADE[..]),
        };
        let target = format!("/status/{route}?key={}&last={last}", place.key);
        let mut conn = Conn::open(&place.public).await;
        conn.send(request("GET", &target, headers, b"")).await;
        match wire {
            0 => Self::Stream(Events::read(conn).await),
            _ => Self::Socket(Socket::read(conn).await),
        }
    }

    /// Returns the version and the value of the next status.
    ///
    /// # Cancel safety
    /// If it is dropped, the ear is of no more use.
    async fn hear(&mut self) -> (u64, u64) {
        let json: Value = match self {
            Self::Stream(events) => serde_json::from_str(&events.event().await.data).expect("JSON"),
            Self::Socket(socket) => socket.message().await,
        };
        assert_eq!(json["code"], 0, "{json}");
        let number = |name: &str| json[name].as_u64().expect("a number");
        (number("version"), number("value"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_that_races_a_stream_or_a_socket_is_heard_on_it() {
    const KEYS: usize = 6;
    let node = Node::start(&["--hold", "1s"]).await;
    let rounds = rounds(300);
    on_keys(&node, KEYS, move |place| async move {
        let wire = random_range(0..2);
        let mut ear = Ear::open(&place, wire, 0).await;
        let mut backend = place.backend().await;
        for round in 0..rounds {
            // The stream is just writing the last status, opening its key, or waiting.
            stir(SPREAD).await;
            let receipt = backend.set(round).await;
            assert!(receipt.delivered <= 1, "{receipt:?}");
            assert_eq!(ear.hear().await, (receipt.version, round));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_changes_its_way_of_hearing_at_any_moment_misses_nothing() {
    const KEYS: usize = 8;
    let node = Node::start(&["--hold", "1s"]).await;
    let sets = rounds(60);
    on_keys(&node, KEYS, move |place| async move {
        let mut backend = place.backend().await;
        let set = async {
            let mut newest = 0;
            for round in 0..sets {
                stir(Duration::from_millis(8)).await;
                newest = backend.set(round).await.version;
            }
            newest
        };
        let hear = async {
            let (mut last, mut value) = (0, None);
            let end = Instant::now() + 3 * PATIENCE;
            while value != Some(sets - 1) {
                assert!(
                    Instant::now() < end,
                    "it has heard {value:?} of {sets} only"
                );
                let heard = match random_range(0..3) {
                    2 => {
                        let mut page = place.page().await;
                        let answer = page.poll_for(last, Duration::from_millis(20)).await;
                        page.end().await;
                        (answer.code == 0)
                            .then(|| (answer.version, answer.value.as_u64().expect("a number")))
                    }
                    wire => {
                        let mut ear = Ear::open(&place, wire, last).await;
                        let stay = Duration::from_millis(random_range(0..30));
                        timeout(stay, ear.hear()).await.ok()
                    }
                };
                if let Some((version, number)) = heard {
                    assert!(
                        version > last && Some(number) > value,
                        "{number} after {value:?}"
                    );
                    (last, value) = (version, Some(number));
                }
            }
            last
        };
        let (newest, heard) = tokio::join!(set, hear);
        assert_eq!(newest, heard);
    })
    .await;
}
