//! Connections that hold what they can: places, buffers, waiters. A connection that ends is made
//! again.

use std::io::Result;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

use holdfast_testkit::{Node, long, request};

/// The key of a status whose answers fill the buffers that they get.
const BIG: &str = "big";
const BIG_BYTES: usize = 16_000;
/// The number of answers that a connection asks for and never reads.
const UNREAD: usize = 8;

/// The thing that a connection holds.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// A head that comes byte by byte.
    SlowHead,
    /// Answers that nobody reads.
    Unread,
    /// A get of a random key.
    Held,
    /// Nothing, after one answer.
    Idle,
    /// A get of a random key, which the connection gives up.
    GivesUp,
}

const STAY: [Kind; 4] = [Kind::SlowHead, Kind::Unread, Kind::Held, Kind::Idle];

/// All holding connections. They end when this is dropped.
pub(super) struct Holders {
    tasks: JoinSet<()>,
    given_up: Arc<AtomicU64>,
}

impl Holders {
    /// Opens `count` connections, as many of each kind that stays, and some more that give up.
    pub(super) async fn begin(node: &Node, count: usize) -> Self {
        node.set_ok(BIG, &format!("\"{}\"", "x".repeat(BIG_BYTES)))
            .await;
        let (to, mut tasks, given_up) = (node.public.tcp(), JoinSet::new(), Arc::default());
        let kinds = STAY.into_iter().cycle().take(count);
        for kind in kinds.chain(std::iter::repeat_n(Kind::GivesUp, count / 10)) {
            let first = rand::random_range(Duration::ZERO..spread());
            tasks.spawn(hold_on(to, kind, first, Arc::clone(&given_up)));
        }
        Self { tasks, given_up }
    }

    /// Ends all connections. Returns how many gets were given up.
    pub(super) async fn end(mut self) -> u64 {
        self.tasks.shutdown().await;
        self.given_up.load(Ordering::Relaxed)
    }
}

/// Returns the time over which the connections begin. In the long form it is the time after
/// which a node ends those that it can end. Otherwise all would end in the same second, again
/// and again.
fn spread() -> Duration {
    Duration::from_secs(if long() { 10 } else { 1 })
}

async fn hold_on(to: SocketAddr, kind: Kind, first: Duration, given_up: Arc<AtomicU64>) {
    sleep(first).await;
    loop {
        // A connection is made again, however it ends.
        let ended = hold(to, kind).await;
        if matches!(kind, Kind::GivesUp) && ended.is_ok() {
            given_up.fetch_add(1, Ordering::Relaxed);
        }
        sleep(Duration::from_millis(rand::random_range(50..500))).await;
    }
}

async fn hold(to: SocketAddr, kind: Kind) -> Result<()> {
    let socket = TcpSocket::new_v4()?;
    if matches!(kind, Kind::Unread) {
        socket.set_recv_buffer_size(4096)?;
    }
    let mut stream = socket.connect(to).await?;
    match kind {
        Kind::SlowHead => {
            stream
                .write_all(b"GET /status/get?key=k HTTP/1.1\r\nhost: a\r\nx: ")
                .await?;
            loop {
                stream.write_all(b"x").await?;
                sleep(Duration::from_secs(2)).await;
            }
        }
        Kind::Unread => {
            let asked =
                request("GET", &format!("/status/get?key={BIG}&wait=0"), &[], b"").repeat(UNREAD);
            stream.write_all(&asked).await?;
            // A client that does not read notices the end of its connection only when it writes.
            loop {
                sleep(Duration::from_secs(2)).await;
                stream.write_all(b"G").await?;
            }
        }
        Kind::Held => loop {
            let target = format!(
                "/status/get?key={:032x}&callback=cb",
                rand::random::<u128>()
            );
            stream.write_all(&request("GET", &target, &[], b"")).await?;
            read_some(&mut stream).await?;
        },
        Kind::GivesUp => {
            let target = format!(
                "/status/get?key={:032x}&callback=cb",
                rand::random::<u128>()
            );
            stream.write_all(&request("GET", &target, &[], b"")).await?;
            sleep(Duration::from_millis(rand::random_range(5..100))).await;
            Ok(())
        }
        Kind::Idle => {
            stream
                .write_all(&request("GET", "/status/get?key=k&wait=0", &[], b""))
                .await?;
            loop {
                read_some(&mut stream).await?;
            }
        }
    }
}

/// Reads the next bytes. The end of the connection is an error.
async fn read_some(stream: &mut TcpStream) -> Result<()> {
    match stream.read(&mut [0; 2048]).await? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}
