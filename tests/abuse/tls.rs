//! Torture of the listener with TLS: torn, forged and endless records, ends at each moment, bad
//! handshakes, and checks that they leave nothing behind. The clients have rustls in memory, so
//! that a test decides which bytes are sent when.

pub(crate) mod ends;
pub(crate) mod equal;
pub(crate) mod hellos;
mod http2;
pub(crate) mod load;
mod raw;
pub(crate) mod records;

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;

use rustls::{ALL_VERSIONS, ClientConfig};

use holdfast_testkit::{Launch, Node, UPGRADE, eventually, masked, request, tls};
use raw::Raw;

/// A node with a listener with TLS beside the plain one.
struct TlsNode {
    node: Node,
    address: SocketAddr,
    client: Arc<ClientConfig>,
}

impl TlsNode {
    async fn start(args: &[&str]) -> Self {
        let all = [args, &tls::flags().await].concat();
        let node = Launch::new(&all).env("HOLDFAST_LOG", "debug").start().await;
        Self {
            address: node.tls.expect("TLS"),
            client: Arc::new(tls::client(ALL_VERSIONS).await),
            node,
        }
    }

    async fn connect(&self) -> Raw {
        Raw::connect(self.address, &self.client).await
    }

    /// Returns a client whose get of `key` is held.
    async fn hold(&self, key: &str) -> Raw {
        let mut raw = self.connect().await;
        self.hold_on(&mut raw, key).await;
        raw
    }

    /// Sends a get of `key`, and waits until it is held.
    async fn hold_on(&self, raw: &mut Raw, key: &str) {
        let before = self.node.key_waiters(key).await;
        raw.send(held_get(key)).await;
        let held = async || self.node.key_waiters(key).await > before;
        eventually(held, &format!("{key} is held")).await;
    }

    /// Sets `key`, and checks that this client's held get is answered with it.
    async fn answers(&self, raw: &mut Raw, key: &str) {
        let version = self.node.set_ok(key, "1").await;
        assert_eq!(raw.response().await.version(), version);
    }

    /// Sets `key` to the largest value.
    async fn set_large(&self, key: &str) {
        let value = format!("\"{}\"", "x".repeat(65_534));
        self.node.set_ok(key, &value).await;
    }

    /// Checks that nothing is left: no waiter, no connection, and no panic in the log.
    async fn quiet(&self) {
        self.node.left_nothing().await;
    }
}

impl Deref for TlsNode {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

/// A get of `key` that is answered at once.
fn short_get(key: &str) -> Vec<u8> {
    request("GET", &format!("/status/get?key={key}&wait=0"), &[], b"")
}

fn held_get(key: &str) -> Vec<u8> {
    request("GET", &format!("/status/get?key={key}"), &[], b"")
}

/// A moment in the life of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// The handshake is done, and nothing was asked.
    Fresh,
    /// An answer came, and hyper waits for the next head.
    Idle,
    /// Half of a head was sent.
    Head,
    /// A get is held.
    Held,
    /// A get is held, and requests came behind it.
    Ahead,
    /// A held get was answered.
    Rested,
    /// An event stream is open.
    Stream,
    /// A WebSocket is open.
    Socket,
}

impl Moment {
    const ALL: [Self; 8] = [
        Self::Fresh,
        Self::Idle,
        Self::Head,
        Self::Held,
        Self::Ahead,
        Self::Rested,
        Self::Stream,
        Self::Socket,
    ];
}

impl TlsNode {
    /// Returns a client at this moment. Its key, if it waits for one, is `k`.
    async fn at(&self, moment: Moment) -> Raw {
        let mut raw = self.connect().await;
        match moment {
            Moment::Fresh => {}
            Moment::Idle => assert_eq!(raw.ask(short_get("other")).await.status, 200),
            Moment::Head => raw.send("GET /status/get?key=k HTTP/1.1\r\nhost: a").await,
            Moment::Held => self.hold_on(&mut raw, "k").await,
            Moment::Ahead => {
                self.hold_on(&mut raw, "k").await;
                raw.send(short_get("other").repeat(20)).await;
            }
            Moment::Rested => {
                let key = format!("rested-{}", self.dropped("bad_tls").await);
                self.hold_on(&mut raw, &key).await;
                self.answers(&mut raw, &key).await;
            }
            Moment::Stream => {
                raw.send(request("GET", "/status/events?key=k", &[], b""))
                    .await;
                raw.read_until(b"\r\n\r\n").await;
                self.node.wait_key_waiters("k", 1).await;
            }
            Moment::Socket => {
                raw.send(request("GET", "/status/ws", &UPGRADE, b"")).await;
                raw.read_until(b"\r\n\r\n").await;
                raw.send(masked(0x81, br#"{"watch":"k","last":0}"#)).await;
                self.node.wait_key_waiters("k", 1).await;
            }
        }
        raw
    }
}
