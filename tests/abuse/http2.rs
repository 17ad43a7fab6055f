//! Torture of HTTP/2: requests that are taken back, floods of frames, windows without room, bad
//! heads, ends at each moment, and frames by chance. The client speaks by hand
//! ([`holdfast_testkit::http2`]), so that a test decides which frames are sent when.

pub(crate) mod ends;
pub(crate) mod equal;
pub(crate) mod floods;
pub(crate) mod heads;
pub(crate) mod mistakes;
pub(crate) mod random;
pub(crate) mod resets;
pub(crate) mod streams;
pub(crate) mod windows;

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::task::JoinHandle;

use holdfast_testkit::http2::{ENHANCE_YOUR_CALM, Http2End};
use holdfast_testkit::{Http2, Launch, Node, eventually, tls};

/// The bytes by which floods may make a node grow: far less than what they send, and more than what
/// the allocator keeps for a while.
const FLOOD_BYTES: u64 = 24 * 1024 * 1024;

/// A node that speaks HTTP/2.
struct Http2Node {
    node: Node,
    address: SocketAddr,
}

impl Http2Node {
    async fn start(args: &[&str]) -> Self {
        let all = [args, &["--http2"], &tls::flags().await].concat();
        let node = Launch::new(&all).start().await;
        Self {
            address: node.tls.expect("TLS"),
            node,
        }
    }

    async fn open(&self) -> Http2 {
        Http2::open(self.address).await
    }

    /// Sends a get of `key`, and waits until it is held. Returns its stream.
    async fn hold_on(&self, client: &mut Http2, key: &str) -> u32 {
        let before = self.node.key_waiters(key).await;
        let stream = client.status(&format!("key={key}")).await;
        self.node.wait_key_waiters(key, before + 1).await;
        stream
    }

    /// Sends gets of `key`, and waits until all are held. Returns their streams.
    async fn hold_many(&self, client: &mut Http2, key: &str, count: u64) -> Vec<u32> {
        let before = self.node.key_waiters(key).await;
        let mut streams = Vec::new();
        for _ in 0..count {
            streams.push(client.status(&format!("key={key}")).await);
        }
        self.node.wait_key_waiters(key, before + count).await;
        streams
    }

    /// Sets `key`, and checks that the held get on `stream` is answered with it.
    async fn answers(&self, client: &mut Http2, stream: u32, key: &str) {
        let version = self.node.set_ok(key, "1").await;
        let answer = client.answer(stream).await;
        assert_eq!(answer.json()["version"], version, "{answer:?}");
    }

    /// Checks that a new client is served: a get is held, and answered by a set.
    async fn serves(&self, key: &str) {
        let mut client = self.open().await;
        let stream = self.hold_on(&mut client, key).await;
        self.answers(&mut client, stream, key).await;
    }

    /// Sets `key` to a string of this many bytes, quotes included.
    async fn set_long(&self, key: &str, bytes: usize) -> u64 {
        let value = format!("\"{}\"", "x".repeat(bytes - 2));
        self.node.set_ok(key, &value).await
    }

    async fn gets(&self, outcome: &str) -> f64 {
        let name = format!("holdfast_gets_total{{outcome=\"{outcome}\"}}");
        self.node.metric(&name).await
    }

    /// Checks that nothing is left: no waiter, no connection, and no panic in the log.
    async fn quiet(&self) {
        self.node.left_nothing().await;
    }
}

impl Deref for Http2Node {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

/// A client that is served again and again while others misbehave.
struct Witness {
    ends: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Witness {
    /// Asks for a key without a status, on one connection. Each answer must come in time.
    async fn of(node: &Http2Node) -> Self {
        let (ends, served) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let mut client = node.open().await;
        let task = {
            let (ends, served) = (Arc::clone(&ends), Arc::clone(&served));
            async move {
                while !ends.load(Ordering::SeqCst) {
                    let answer = client.fetch("/status/get?key=witness&wait=0").await;
                    assert_eq!(answer.code(), -1);
                    served.fetch_add(1, Ordering::SeqCst);
                }
            }
        };
        let task = tokio::spawn(task);
        let witness = Self { ends, served, task };
        witness.is_served().await;
        witness
    }

    /// Waits until it is served once more.
    async fn is_served(&self) {
        let before = self.served.load(Ordering::SeqCst);
        let more = async || {
            assert!(!self.task.is_finished(), "the witness was not served");
            // An answer may have been under way already.
            self.served.load(Ordering::SeqCst) > before + 1
        };
        eventually(more, "others are served").await;
    }

    async fn end(self) {
        self.is_served().await;
        self.ends.store(true, Ordering::SeqCst);
        self.task.await.expect("always served");
    }
}

/// Checks that the node told the client that it makes too much work, and ended the connection.
fn is_flood(end: &Http2End) {
    let code = end.go_away.map(|(_, code)| code);
    assert_eq!(code, Some(ENHANCE_YOUR_CALM), "{end:?}");
}
