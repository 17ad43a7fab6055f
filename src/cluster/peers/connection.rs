//! A node that messages are sent to, and a connection to it.

use std::io;
use std::sync::Arc;
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

use crate::cluster::message;
use crate::http::auth::Tokens;
use crate::model::key::Key;
use crate::model::status::Update;
use crate::net::listener::Address;
use crate::net::stream::Stream;
use crate::runtime::renewable::Renewable;

/// The most bytes of an answer that are read. An answer is a few numbers, or what a node knows
/// of a key.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// One node.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Its id. Messages name it, because the address may be another node's by now.
    pub(crate) id: String,
    /// Its internal listener.
    pub(crate) address: Address,
    /// The tokens, the first of which messages to it carry.
    pub(crate) tokens: Arc<Renewable<Tokens>>,
}

impl Peer {
    /// Sends the node updates on a new connection. Returns whether the node renewed its place
    /// in the list of nodes lately.
    ///
    /// # Errors
    /// If the node did not answer within `limit`, or if the answer is not one of the node with
    /// this id.
    ///
    /// # Cancel safety
    /// If it is dropped, the updates may have been delivered or not.
    pub(crate) async fn send(
        &self,
        updates: &[(Key, Update)],
        limit: Duration,
    ) -> io::Result<bool> {
        let untimed = updates.iter().map(|(key, update)| (key, update, None));
        let (status, answer) = self.post(message::render(&self.id, untimed), limit).await?;
        if status != StatusCode::OK {
            return Err(io::Error::other(format!("answered {status}")));
        }
        let delivered = message::parse_delivered(&answer, updates.len());
        delivered
            .map(|(_, renews)| renews)
            .ok_or(io::Error::other("answered something else"))
    }

    /// Sends a message on a new connection, and returns the answer.
    ///
    /// # Errors
    /// If there is no answer within `limit`.
    ///
    /// # Cancel safety
    /// If it is dropped, the message may have been read or not.
    pub(super) async fn post(
        &self,
        message: Vec<u8>,
        limit: Duration,
    ) -> io::Result<(StatusCode, Bytes)> {
        let message = Bytes::from(message);
        let exchange = async {
            self.connect()
                .await?
                .send(self, Method::POST, "/channel/set", message)
                .await
        };
        timeout(limit, exchange).await?
    }

    /// Asks the node for `target` on a new connection, and returns the answer.
    ///
    /// # Errors
    /// If there is no answer within `limit`.
    ///
    /// # Cancel safety
    /// If it is dropped, nothing is asked any more.
    pub(crate) async fn get(
        &self,
        target: &str,
        limit: Duration,
    ) -> io::Result<(StatusCode, Bytes)> {
        let exchange = async {
            let mut connection = self.connect().await?;
            connection
                .send(self, Method::GET, target, Bytes::new())
                .await
        };
        timeout(limit, exchange).await?
    }

    pub(super) async fn connect(&self) -> io::Result<Connection> {
        let stream = match &self.address {
            Address::Tcp(address) => Stream::tcp(TcpStream::connect(address).await?),
            Address::Unix(path) => Stream::Unix(UnixStream::connect(path).await?),
        };
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        let driver = tokio::spawn(async move {
            // An error is reported to the sender of the request.
            let _ = connection.await;
        });
        Ok(Connection { sender, driver })
    }
}

/// A connection to a node. It is closed when it is dropped.
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    /// Returns whether nothing more can be sent on it.
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
        let mut request = Request::builder()
            .method(method)
            .uri(target)
            .header(HOST, host);
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(token) = peer.tokens.current().first() {
            request = request.header(AUTHORIZATION, token.as_bearer());
        }
        let request = request.body(Full::new(body)).map_err(io::Error::other)?;
        self.sender.ready().await.map_err(io::Error::other)?;
        let response = self
            .sender
            .send_request(request)
            .await
            .map_err(io::Error::other)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
            .collect()
            .await
            .map_err(io::Error::other)?;
        Ok((status, body.to_bytes()))
    }
}
