//! Hostile requests at a steady rate, each on a connection of its own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, timeout};

use holdfast_testkit::{Node, request};

/// The longest time that a request waits for an answer or the close.
const LIMIT: Duration = Duration::from_secs(5);

/// The stream of hostile requests.
pub(super) struct Requests {
    stop: watch::Sender<bool>,
    task: JoinHandle<BTreeMap<String, u64>>,
}

impl Requests {
    pub(super) fn begin(node: &Node, a_second: u32) -> Self {
        let (stop, stopped) = watch::channel(false);
        Self {
            stop,
            task: tokio::spawn(send_on(node.public.tcp(), a_second, stopped)),
        }
    }

    /// Ends the stream. Returns a text that says how often each answer came.
    pub(super) async fn end(self) -> String {
        self.stop.send_replace(true);
        format!(
            "hostile requests answered: {:?}",
            self.task.await.expect("no panic")
        )
    }
}

async fn send_on(
    to: SocketAddr,
    a_second: u32,
    mut stopped: watch::Receiver<bool>,
) -> BTreeMap<String, u64> {
    let mut ticks = interval(Duration::from_secs(1) / a_second);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (mut under_way, mut answers) = (JoinSet::new(), BTreeMap::new());
    for number in 0.. {
        tokio::select! {
            _ = stopped.changed() => break,
            _ = ticks.tick() => {
                under_way.spawn(send(to, shape(number)));
            }
        }
        while let Some(Ok(answer)) = under_way.try_join_next() {
            *answers.entry(answer).or_default() += 1;
        }
    }
    while let Some(Ok(answer)) = under_way.join_next().await {
        *answers.entry(answer).or_default() += 1;
    }
    answers
}

/// Sends one request. Returns the status of its answer, `closed` or `silent`.
async fn send(to: SocketAddr, bytes: Vec<u8>) -> String {
    let sent = async {
        let mut stream = TcpStream::connect(to).await?;
        // The answer and the close may come before all is sent.
        let _ = stream.write_all(&bytes).await;
        let mut answer = [0; 512];
        stream
            .read(&mut answer)
            .await
            .map(|length| String::from_utf8_lossy(&answer[..length]).into_owned())
    };
    match timeout(LIMIT, sent).await {
        Ok(Ok(answer)) => answer.split(' ').nth(1).unwrap_or("closed").to_owned(),
        Ok(Err(_)) => "closed".to_owned(),
        Err(_) => "silent".to_owned(),
    }
}

/// Returns hostile requests in turn: malformed, smuggling, of the wrong method, huge, of random
/// keys, with bad callbacks.
fn shape(number: usize) -> Vec<u8> {
    let get = |query: &str| request("GET", &format!("/status/get?{query}"), &[], b"");
    let head = |rest: &str| {
        format!("GET /status/get?key=k&wait=0 HTTP/1.1\r\n{rest}\r\n\r\n").into_bytes()
    };
    match number % 16 {
        0 => b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        1 => b"GET  /status/get HTTP/1.1\r\n\r\n".to_vec(),
        2 => head("host: a\r\nhost: b"),
        3 => head("host: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked"),
        4 => head("host: a\r\ncontent-length: 3\r\ncontent-length: 4"),
        5 => head("host: a\r\ntransfer-encoding: xchunked"),
        6 => request(
            "POST",
            "/status/set",
            &[],
            br#"{"key":"k","value":"stolen"}"#,
        ),
        7 => request("DELETE", "/keys/big", &[], b""),
        8 => get(&format!("key={}", "k".repeat(8000))),
        9 => head(&format!("host: a\r\ncookie: {}", "c".repeat(17_000))),
        10 => head(&format!("host: a\r\n{}x: y", "x: y\r\n".repeat(100))),
        11 => get("key=k&wait=0&callback=alert(1)//"),
        12 => get("key=k&wait=0&callback=%3Cscript%3E"),
        13 => get("key=%ff%fe&wait=0&callback=cb"),
        14 => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        _ => get(&format!(
            "key={:032x}&wait=0&callback=cb",
            rand::random::<u128>()
        )),
    }
}
