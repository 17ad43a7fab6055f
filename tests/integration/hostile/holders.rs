//! Connections that hold what they can: places, buffers, waiters. One that is ended is made again.

use std::io::Result;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::support::{Node, long, request};

/// A status whose answers fill what there is for them.
const BIG: &str = "big";
const BIG_BYTES: usize = 16_000;
/// Answers that are asked for and never read.
const UNREAD: usize = 8;

/// What a connection holds.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// A head that comes byte by byte.
    SlowHead,
    /// Answers that nobody reads.
    Unread,
    /// A get of a key by chance.
    Held,
    /// Nothing, after one answer.
    Idle,
}

const KINDS: [Kind; 4] = [Kind::SlowHead, Kind::Unread, Kind::Held, Kind::Idle];

/// All of them; dropped, they end.
pub(super) struct Holders(JoinSet<()>);

impl Holders {
    /// As many of each kind.
    pub(super) async fn begin(node: &Node, count: usize) -> Self {
        node.set_ok(BIG, &format!("\"{}\"", "x".repeat(BIG_BYTES))).await;
        let (to, mut tasks) = (node.public.tcp(), JoinSet::new());
        for number in 0..count {
            let first = rand::random_range(Duration::ZERO..spread());
            tasks.spawn(hold_on(to, KINDS[number % KINDS.len()], first));
        }
        Self(tasks)
    }

    pub(super) async fn end(mut self) {
        self.0.shutdown().await;
    }
}

/// They begin all over this time. In the long form it is that in which a node ends those that it can: else all would end in
/// the same second, again and again.
fn spread() -> Duration {
    Duration::from_secs(if long() { 10 } else { 1 })
}

async fn hold_on(to: SocketAddr, kind: Kind, first: Duration) {
    sleep(first).await;
    loop {
        // However it ends.
        let _ = hold(to, kind).await;
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
            stream.write_all(b"GET /status/get?key=k HTTP/1.1\r\nhost: a\r\nx: ").await?;
            loop {
                stream.write_all(b"x").await?;
                sleep(Duration::from_secs(2)).await;
            }
        }
        Kind::Unread => {
            let asked = request("GET", &format!("/status/get?key={BIG}&wait=0"), &[], b"").repeat(UNREAD);
            stream.write_all(&asked).await?;
            // Who does not read hears of the end only by what it writes.
            loop {
                sleep(Duration::from_secs(2)).await;
                stream.write_all(b"G").await?;
            }
        }
        Kind::Held => loop {
            let target = format!("/status/get?key={:032x}&callback=cb", rand::random::<u128>());
            stream.write_all(&request("GET", &target, &[], b"")).await?;
            read_some(&mut stream).await?;
        },
        Kind::Idle => {
            stream.write_all(&request("GET", "/status/get?key=k&wait=0", &[], b"")).await?;
            loop {
                read_some(&mut stream).await?;
            }
        }
    }
}

/// What comes next; its end is an error.
async fn read_some(stream: &mut TcpStream) -> Result<()> {
    match stream.read(&mut [0; 2048]).await? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}
