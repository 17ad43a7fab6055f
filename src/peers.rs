//! The HTTP client for other nodes' internal listeners, and for this node's own: what a node says to itself goes the
//! way that another's words would go.

use std::future::pending;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::{TcpStream, UnixStream};

use crate::channel;
use crate::key::Key;
use crate::listener::{Address, Stream};
use crate::status::Update;

/// A node's answer is a few numbers; more is not read.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// One node.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Its id: an address may be another node's by now.
    pub(crate) id: String,
    /// Its internal listener.
    pub(crate) address: Address,
    /// What it is shown.
    pub(crate) token: Option<String>,
}

#[derive(Deserialize)]
struct Answer {
    delivered: Vec<usize>,
}

impl Peer {
    /// Tells the node of updates; gives how many of its waiters took each.
    ///
    /// # Errors
    /// Where it did not answer within `timeout`, or not as a node with this id does.
    ///
    /// # Cancel safety
    /// Dropped, the updates may have been told or not.
    pub(crate) async fn tell(&self, updates: &[(Key, Update)], timeout: Duration) -> io::Result<Vec<usize>> {
        let (status, body) = tokio::time::timeout(timeout, self.post(channel::render(&self.id, updates))).await??;
        if status != StatusCode::OK {
            return Err(io::Error::other(format!("answered {status}")));
        }
        let answer: Answer = serde_json::from_slice(&body)?;
        if answer.delivered.len() != updates.len() {
            return Err(io::Error::other("answered for other updates"));
        }
        Ok(answer.delivered)
    }

    async fn post(&self, body: Vec<u8>) -> io::Result<(StatusCode, Bytes)> {
        let (stream, host) = match &self.address {
            Address::Tcp(address) => (Stream::Tcp(TcpStream::connect(address).await?), address.as_str()),
            Address::Unix(path) => (Stream::Unix(UnixStream::connect(path).await?), "localhost"),
        };
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let mut request = Request::post("/channel/set")
            .header(HOST, host)
            .header(CONTENT_TYPE, "application/json")
            .header(CONNECTION, "close");
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Full::<Bytes>::from(body)).map_err(io::Error::other)?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(io::Error::other)?;
            let status = response.status();
            let body =
                Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await.map_err(io::Error::other)?;
            Ok((status, body.to_bytes()))
        };
        // The connection is driven here, so that it ends with this call, however that ends. That it ends first is no
        // answer: the exchange has what came, or the error.
        let driven = async {
            let _ = connection.await;
            pending().await
        };
        tokio::select! {
            exchanged = exchange => exchanged,
            never = driven => never,
        }
    }
}
