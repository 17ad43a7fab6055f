//! One node as it is spoken to, and a connection to it.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::auth::Token;
use crate::channel;
use crate::key::Key;
use crate::listener::{Address, Stream};
use crate::status::Update;

/// A node's answer is a few numbers, or what it knows of a key; more is not read.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// One node.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Its id: an address may be another node's by now.
    pub(crate) id: String,
    /// Its internal listener.
    pub(crate) address: Address,
    /// What it is shown.
    pub(crate) token: Option<Token>,
}

impl Peer {
    /// Tells the node of updates on a connection of its own; gives how many of its waiters took each.
    ///
    /// # Errors
    /// Where it did not answer within `limit`, or not as a node with this id does.
    ///
    /// # Cancel safety
    /// Dropped, the updates may have been told or not.
    pub(crate) async fn tell(&self, updates: &[(Key, Update)], limit: Duration) -> io::Result<Vec<usize>> {
        let untimed = updates.iter().map(|(key, update)| (key, update, None));
        let body = Bytes::from(channel::render(&self.id, untimed));
        let exchange = async { self.connect().await?.send(self, Method::POST, "/channel/set", body).await };
        let (status, answer) = timeout(limit, exchange).await??;
        if status != StatusCode::OK {
            return Err(io::Error::other(format!("answered {status}")));
        }
        channel::parse_delivered(&answer, updates.len()).ok_or(io::Error::other("answered something else"))
    }

    pub(super) async fn connect(&self) -> io::Result<Link> {
        let stream = match &self.address {
            Address::Tcp(address) => Stream::tcp(TcpStream::connect(address).await?),
            Address::Unix(path) => Stream::Unix(UnixStream::connect(path).await?),
        };
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let driver = tokio::spawn(async move {
            // What went wrong is told to who sent a request.
            let _ = connection.await;
        });
        Ok(Link { sender, driver })
    }
}

/// A connection to a node. Dropped, it is closed.
pub(super) struct Link {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Link {
    /// Whether nothing more can be sent on it.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    pub(super) async fn send(
        &mut self,
        peer: &Peer,
        method: Method,
        target: &str,
        body: Bytes,
    ) -> io::Result<(StatusCode, Bytes)> {
        let host = match &peer.address {
            Address::Tcp(address) => address.as_str(),
            Address::Unix(_) => "localhost",
        };
        let mut request = Request::builder().method(method).uri(target).header(HOST, host);
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(token) = &peer.token {
            request = request.header(AUTHORIZATION, token.as_bearer());
        }
        let request = request.body(Full::new(body)).map_err(io::Error::other)?;
        self.sender.ready().await.map_err(io::Error::other)?;
        let response = self.sender.send_request(request).await.map_err(io::Error::other)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await.map_err(io::Error::other)?;
        Ok((status, body.to_bytes()))
    }
}
