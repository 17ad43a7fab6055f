//! The tests' own proxy that changes a text in the answers of a server, to imitate another kind of
//! server.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// A proxy in front of one server.
pub struct RewritingProxy {
    /// The port on which it takes connections.
    pub port: u16,
    task: JoinHandle<()>,
}

impl RewritingProxy {
    /// Starts a proxy that passes connections on to the server on a port of 127.0.0.1. Each `text` in
    /// what the server sends becomes `other`. Both have the same length, because the server may have
    /// announced the length of the whole.
    ///
    /// # Panics
    /// If the lengths differ.
    pub async fn start(to: u16, text: &str, other: &str) -> Self {
        assert_eq!(text.len(), other.len(), "{text:?} and {other:?}");
        let listener = TcpListener::bind(("127.0.0.1", 0)).await;
        let listener = listener.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let texts = Arc::new([text, other].map(|text| text.as_bytes().to_vec()));
        let to = SocketAddr::from(([127, 0, 0, 1], to));
        let task = tokio::spawn(async move {
            let mut conns = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                conns.spawn(pass(stream, to, Arc::clone(&texts)));
            }
        });
        Self { port, task }
    }
}

impl Drop for RewritingProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(from: TcpStream, to: SocketAddr, texts: Arc<[Vec<u8>; 2]>) {
    let Ok(to) = TcpStream::connect(to).await else {
        return;
    };
    let ((mut from_read, from_write), (to_read, mut to_write)) =
        (from.into_split(), to.into_split());
    // The end of either side ends both.
    tokio::select! {
        _ = copy(&mut from_read, &mut to_write) => {}
        () = rewrite(to_read, from_write, &texts) => {}
    }
}

async fn rewrite(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, [text, other]: &[Vec<u8>; 2]) {
    let mut bytes = Vec::new();
    while let Ok(1..) = from.read_buf(&mut bytes).await {
        while let Some(at) = bytes.windows(text.len()).position(|part| part == text) {
            bytes[at..at + text.len()].copy_from_slice(other);
        }
        // The rest of the text may come with the next bytes.
        let kept = (1..text.len())
            .rev()
            .find(|count| bytes.ends_with(&text[..*count]));
        let rest = bytes.split_off(bytes.len() - kept.unwrap_or(0));
        if to.write_all(&bytes).await.is_err() {
            return;
        }
        bytes = rest;
    }
}
