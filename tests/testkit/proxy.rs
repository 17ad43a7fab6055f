//! The tests' own TCP proxy, which does to connections what networks do.

use std::future::pending;
use std::io::Result;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

use crate::{PATIENCE, PAUSE, free_port};

/// The treatment of bytes. Bytes that are held back pass when the weather changes, even if
/// their client has closed its connection meanwhile. They are like a packet that the network
/// lost and that arrives late, because the sender's system sent it again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Weather {
    /// Bytes pass at once.
    Pass,
    /// Each byte arrives this much later, in both directions.
    Delay(Duration),
    /// One read in five passes this much later. The bytes behind it on that connection wait for
    /// it.
    Loss(Duration),
    /// Connections are accepted, and all bytes are held back.
    Freeze,
    /// The bytes of existing connections are held back. Those of new connections pass.
    HoldOld,
    /// The answers of servers are held back on all connections. The bytes of clients pass.
    HoldAnswers,
    /// All connections are closed, and new ones are refused.
    Cut,
    /// As `Cut`, but the bytes that clients have sent are held back.
    Break,
}

/// A proxy in front of one address.
pub struct Proxy {
    /// The port on which it takes connections.
    pub port: u16,
    sky: watch::Sender<Sky>,
    held_back: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

/// The present weather, and how often it has changed.
#[derive(Debug, Clone, Copy)]
struct Sky {
    weather: Weather,
    changes: u64,
}

/// The direction of bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    ToServer,
    ToClient,
}

impl Sky {
    /// Returns whether bytes may go this way on a connection that was made after so many
    /// changes.
    fn lets_pass(self, way: Way, made_after: u64) -> bool {
        match self.weather {
            Weather::Freeze | Weather::Break => false,
            Weather::HoldOld => made_after == self.changes,
            Weather::HoldAnswers => way == Way::ToServer,
            Weather::Pass | Weather::Delay(_) | Weather::Loss(_) | Weather::Cut => true,
        }
    }
}

impl Proxy {
    /// Starts a proxy that passes connections on to `to`.
    pub async fn start(to: SocketAddr) -> Self {
        let port = free_port();
        let (sky, seen) = watch::channel(Sky {
            weather: Weather::Pass,
            changes: 0,
        });
        let listener = listen(port).await;
        let held_back = Arc::default();
        let task = tokio::spawn(run(listener, to, seen, Arc::clone(&held_back)));
        Self {
            port,
            sky,
            held_back,
            task,
        }
    }

    /// Changes the weather, or begins the same one anew. Connections that exist now count as
    /// old then.
    pub fn set(&self, weather: Weather) {
        self.sky.send_modify(|sky| {
            *sky = Sky {
                weather,
                changes: sky.changes + 1,
            }
        });
    }

    /// Returns how many bytes were read and not yet written.
    pub fn held_back(&self) -> usize {
        self.held_back.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen(port: u16) -> TcpListener {
    let mut listener = TcpListener::bind(("127.0.0.1", port)).await;
    let deadline = Instant::now() + PATIENCE;
    // A client of another test may have been given the port meanwhile, for a connection of its own.
    while listener.is_err() && Instant::now() < deadline {
        sleep(PAUSE).await;
        listener = TcpListener::bind(("127.0.0.1", port)).await;
    }
    listener.expect("a port of our own")
}

async fn run(
    mut listener: TcpListener,
    to: SocketAddr,
    mut sky: watch::Receiver<Sky>,
    held_back: Arc<AtomicUsize>,
) {
    let mut conns = JoinSet::new();
    loop {
        let weather = sky.borrow_and_update().weather;
        if matches!(weather, Weather::Cut | Weather::Break) {
            let port = listener.local_addr().expect("an address").port();
            drop(listener);
            if weather == Weather::Cut {
                conns.shutdown().await;
            }
            if sky.wait_for(|sky| sky.weather != weather).await.is_err() {
                return;
            }
            listener = listen(port).await;
        }
        tokio::select! {
            Ok((stream, _)) = listener.accept() => {
                conns.spawn(pass(stream, to, sky.clone(), Arc::clone(&held_back)));
            }
            changed = sky.changed() => if changed.is_err() { return },
            Some(_) = conns.join_next() => {}
        }
    }
}

/// Passes one connection on until both ways have ended. Each way ends by itself, because the
/// bytes that one side sent arrive even if that side has gone.
async fn pass(
    from: TcpStream,
    to: SocketAddr,
    sky: watch::Receiver<Sky>,
    held_back: Arc<AtomicUsize>,
) -> Result<()> {
    let made_after = sky.borrow().changes;
    let to = TcpStream::connect(to).await?;
    from.set_nodelay(true)?;
    to.set_nodelay(true)?;
    let ((from_read, from_write), (to_read, to_write)) = (from.into_split(), to.into_split());
    let one_way = |way| OneWay {
        way,
        made_after,
        sky: sky.clone(),
        held_back: Arc::clone(&held_back),
    };
    let there = one_way(Way::ToServer).pass(from_read, to_write);
    let back = one_way(Way::ToClient).pass(to_read, from_write);
    let (there, back) = tokio::join!(there, back);
    there.and(back)
}

/// Bytes that were read. They count as held back until this is dropped.
struct Counted {
    count: usize,
    held_back: Arc<AtomicUsize>,
}

impl Counted {
    fn new(count: usize, held_back: &Arc<AtomicUsize>) -> Self {
        held_back.fetch_add(count, Ordering::Relaxed);
        Self {
            count,
            held_back: Arc::clone(held_back),
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.held_back.fetch_sub(self.count, Ordering::Relaxed);
    }
}

/// One direction of a connection.
struct OneWay {
    way: Way,
    made_after: u64,
    sky: watch::Receiver<Sky>,
    held_back: Arc<AtomicUsize>,
}

impl OneWay {
    async fn pass(mut self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> Result<()> {
        // The channel carries the bytes and when they were read, because the delay is per byte,
        // however many bytes are under way.
        let (sender, mut read) = mpsc::channel::<(Instant, Vec<u8>, Counted)>(1000);
        let (held_back, mut sky, way) = (Arc::clone(&self.held_back), self.sky.clone(), self.way);
        let broken = async move {
            let _ = sky
                .wait_for(|sky| sky.weather == Weather::Break && way == Way::ToClient)
                .await;
        };
        let reading = async move {
            loop {
                let mut bytes = Vec::with_capacity(64 * 1024);
                // A reset ends the connection as a close does.
                let Ok(count @ 1..) = from.read_buf(&mut bytes).await else {
                    return Ok(());
                };
                let counted = Counted::new(count, &held_back);
                if sender.send((Instant::now(), bytes, counted)).await.is_err() {
                    return Ok(());
                }
            }
        };
        let writing = async move {
            while let Some((since, bytes, _counted)) = read.recv().await {
                self.wait(since).await;
                to.write_all(&bytes).await?;
            }
            to.shutdown().await
        };
        tokio::select! {
            passed = async { tokio::try_join!(reading, writing).map(drop) } => passed,
            () = broken => Ok(()),
        }
    }

    /// Waits until bytes that were read at `since` may pass.
    async fn wait(&mut self, since: Instant) {
        let (way, made_after) = (self.way, self.made_after);
        let sky = self
            .sky
            .wait_for(|sky| sky.lets_pass(way, made_after))
            .await
            .map(|sky| *sky);
        match sky.map(|sky| sky.weather) {
            Ok(Weather::Delay(delay)) => sleep_until(since + delay).await,
            Ok(Weather::Loss(delay)) if rand::random_range(0..5) == 0 => {
                sleep_until(Instant::now() + delay).await
            }
            Ok(_) => {}
            Err(_) => pending().await,
        }
    }
}
