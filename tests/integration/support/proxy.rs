//! A TCP proxy of the tests' own, which does to connections what networks do.

use std::future::pending;
use std::io::Result;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::free_port;

/// What happens to the bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Weather {
    Pass,
    /// Each byte is this much later than it would be, either way.
    Delay(Duration),
    /// Connections are accepted, and nothing passes; what was sent meanwhile passes afterwards.
    Freeze,
    /// All connections are closed, and new ones refused.
    Cut,
}

/// In front of one address.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    weather: watch::Sender<Weather>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Begins to pass connections on to `to`.
    pub(crate) async fn start(to: SocketAddr) -> Self {
        let port = free_port();
        let (weather, seen) = watch::channel(Weather::Pass);
        let listener = listen(port).await;
        Self { port, weather, task: tokio::spawn(run(listener, to, seen)) }
    }

    pub(crate) fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen(port: u16) -> TcpListener {
    TcpListener::bind(("127.0.0.1", port)).await.expect("a port of our own")
}

async fn run(mut listener: TcpListener, to: SocketAddr, mut weather: watch::Receiver<Weather>) {
    let mut conns = JoinSet::new();
    loop {
        if *weather.borrow_and_update() == Weather::Cut {
            let port = listener.local_addr().expect("an address").port();
            drop(listener);
            conns.shutdown().await;
            if weather.wait_for(|weather| *weather != Weather::Cut).await.is_err() {
                return;
            }
            listener = listen(port).await;
        }
        tokio::select! {
            Ok((stream, _)) = listener.accept() => {
                conns.spawn(pass(stream, to, weather.clone()));
            }
            changed = weather.changed() => if changed.is_err() { return },
            Some(_) = conns.join_next() => {}
        }
    }
}

/// One connection, until both ways have ended.
async fn pass(from: TcpStream, to: SocketAddr, weather: watch::Receiver<Weather>) -> Result<()> {
    let to = TcpStream::connect(to).await?;
    from.set_nodelay(true)?;
    to.set_nodelay(true)?;
    let ((from_read, from_write), (to_read, to_write)) = (from.into_split(), to.into_split());
    let there = pass_one_way(from_read, to_write, weather.clone());
    let back = pass_one_way(to_read, from_write, weather);
    tokio::try_join!(there, back).map(drop)
}

async fn pass_one_way(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    weather: watch::Receiver<Weather>,
) -> Result<()> {
    // What was read, and when: the delay is of each byte, however many are under way.
    let (sender, mut read) = mpsc::channel::<(Instant, Vec<u8>)>(1000);
    let mut look = weather.clone();
    let reading = async move {
        loop {
            let mut bytes = Vec::with_capacity(64 * 1024);
            if from.read_buf(&mut bytes).await? == 0 || sender.send((Instant::now(), bytes)).await.is_err() {
                return Ok(());
            }
        }
    };
    let writing = async move {
        while let Some((since, bytes)) = read.recv().await {
            let now = look.wait_for(|weather| *weather != Weather::Freeze).await.map(|weather| *weather);
            match now {
                Ok(Weather::Delay(delay)) => sleep_until(since + delay).await,
                Ok(_) => {}
                Err(_) => pending().await,
            }
            to.write_all(&bytes).await?;
        }
        to.shutdown().await
    };
    tokio::try_join!(reading, writing).map(drop)
}
