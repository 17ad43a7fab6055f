//! A plain hyper server, which holds gets and answers a constant: the cost of the library
//! alone. It keeps no status, checks nothing and logs nothing. It runs as a process of its own,
//! started by a hidden subcommand.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::oneshot;

use crate::Outcome;
use crate::wire::ANSWER;

/// The subcommand that starts it. An address follows.
pub(crate) const SUBCOMMAND: &str = "serve-plain";

/// The number of maps of keys. It is high so that threads seldom meet.
const SHARDS: usize = 64;

/// The state of a key.
enum Slot {
    Waits(oneshot::Sender<()>),
    /// The key was set while nobody waited.
    Set,
}

struct Held {
    shards: Vec<Mutex<HashMap<Bytes, Slot>>>,
    count: AtomicUsize,
}

impl Held {
    fn shard(&self, key: &Bytes) -> MutexGuard<'_, HashMap<Bytes, Slot>> {
        let sum = key.iter().fold(0_usize, |sum, &byte| {
            sum.wrapping_mul(31).wrapping_add(byte.into())
        });
        self.shards[sum % SHARDS]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the key is set.
    async fn wait(&self, key: Bytes) {
        let (sender, receiver) = oneshot::channel();
        {
            let mut shard = self.shard(&key);
            if matches!(shard.get(&key), Some(Slot::Set)) {
                shard.remove(&key);
                return;
            }
            shard.insert(key.clone(), Slot::Waits(sender));
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        let _held = Waiter { held: self, key };
        let _ = receiver.await;
    }

    fn set(&self, key: Bytes) {
        let mut shard = self.shard(&key);
        if let Some(Slot::Waits(sender)) = shard.remove(&key)
            && sender.send(()).is_ok()
        {
            return;
        }
        shard.insert(key, Slot::Set);
    }
}

/// A held get. It cleans up when it is dropped, also if its client leaves and hyper drops the
/// handler.
struct Waiter<'a> {
    held: &'a Held,
    key: Bytes,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.held.count.fetch_sub(1, Ordering::Relaxed);
        let mut shard = self.held.shard(&self.key);
        // Keep the entry if it belongs to the next get of the key.
        if matches!(shard.get(&self.key), Some(Slot::Waits(sender)) if sender.is_closed()) {
            shard.remove(&self.key);
        }
    }
}

/// Serves until it is killed.
pub(crate) fn serve(address: &str) -> Outcome<()> {
    let address: SocketAddr = address.parse()?;
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(accept(address))
}

async fn accept(address: SocketAddr) -> Outcome<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(address)?;
    let listener: TcpListener = socket.listen(16_384)?;
    let held = Arc::new(Held {
        shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        count: AtomicUsize::new(0),
    });
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let held = Arc::clone(&held);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&held), request));
            let mut builder = http1::Builder::new();
            // An error only means that a page left, which does not matter here.
            let _ = builder
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(
    held: Arc<Held>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let key = Bytes::copy_from_slice(request.uri().query().unwrap_or_default().as_bytes());
    let (status, body) = match request.uri().path() {
        "/get" => {
            held.wait(key).await;
            (StatusCode::OK, Bytes::from_static(ANSWER))
        }
        "/set" => {
            let _ = request.into_body().collect().await;
            held.set(key);
            (StatusCode::OK, Bytes::from_static(b"set"))
        }
        "/held" => (
            StatusCode::OK,
            Bytes::from(held.count.load(Ordering::Relaxed).to_string()),
        ),
        _ => (StatusCode::NOT_FOUND, Bytes::new()),
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    Ok(response)
}
