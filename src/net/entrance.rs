//! The way of a connection from its accept to its first request: the header of a proxy, the TLS
//! handshake, and whose address is limited.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::net::TcpStream;

use crate::metrics::DropReason;
use crate::net::clients::{Client, ClientLimits};
use crate::net::closing::Watch;
use crate::net::connection::Shared;
use crate::net::proxies::Proxies;
use crate::net::stream::Stream;
use crate::net::tls::handshake::{NoHandshake, Tls};

/// The steps of a connection between its accept and its first request. All connections of one
/// address take the same.
#[derive(Debug, Default)]
pub(crate) struct Entrance {
    /// The proxies that say whose the connections are, if they do.
    pub(crate) proxies: Option<Arc<Proxies>>,
    /// TLS, if the clients speak it. It comes after the header of a proxy.
    pub(crate) tls: Option<Arc<Tls>>,
    /// The limits of clients' addresses, if they have any.
    pub(crate) limits: Option<Arc<ClientLimits>>,
}

impl Entrance {
    /// Returns whether connections can be served at once.
    pub(crate) fn is_open(&self) -> bool {
        self.proxies.is_none() && self.tls.is_none()
    }

    /// Notes the client of a connection that is served at once.
    pub(crate) fn limited(&self, stream: Stream) -> Stream {
        match &self.limits {
            Some(limits) => {
                let address = stream.peer();
                of_client(stream, limits, address, false)
            }
            None => stream,
        }
    }

    /// Prepares a connection for its first request. Returns `None` if it has ended meanwhile.
    ///
    /// # Cancel safety
    /// If it is dropped, the connection closes at once.
    pub(crate) async fn pass<H>(&self, stream: Stream, shared: &Shared<H>) -> Option<Stream> {
        let mut watch = Watch::new(Arc::clone(&shared.stop));
        tokio::select! {
            begun = self.begin(stream, shared) => begun,
            () = watch.last_head_is_over() => None,
        }
    }

    async fn begin<H>(&self, mut stream: Stream, shared: &Shared<H>) -> Option<Stream> {
        let limit = shared.timeouts.head;
        let address = match &self.proxies {
            Some(proxies) => proxies.client(&mut stream, limit).await.ok()?,
            None => self.limits.as_ref().and_then(|_| stream.peer()),
        };
        let stream = match (&self.tls, stream) {
            (Some(tls), Stream::Tcp(socket)) => begin_tls(tls, socket, shared).await?,
            (_, stream) => stream,
        };
        let Some(limits) = &self.limits else {
            return Some(stream);
        };
        Some(match &self.proxies {
            // A proxy in front of the one that named it. It stands for many.
            Some(proxies) if proxies.trusts(address) => stream,
            proxies => of_client(stream, limits, address, proxies.is_some()),
        })
    }
}

/// Begins TLS on a connection. Returns `None` if the connection has ended meanwhile.
async fn begin_tls<H>(tls: &Tls, socket: TcpStream, shared: &Shared<H>) -> Option<Stream> {
    let dropped = match tls.accept(socket, shared.timeouts.head).await {
        Ok(stream) => return Some(Stream::Tls(Box::new(stream))),
        Err(NoHandshake::Left) => return None,
        Err(NoHandshake::Late) => DropReason::HandshakeTimeout,
        Err(NoHandshake::Refused) => DropReason::BadTls,
    };
    shared.metrics.dropped(dropped);
    None
}

/// Notes the client of a connection, if its address is limited.
fn of_client(
    stream: Stream,
    limits: &Arc<ClientLimits>,
    address: Option<IpAddr>,
    is_surely_its: bool,
) -> Stream {
    match address.and_then(|ip| Client::new(limits, ip, is_surely_its)) {
        Some(client) => Stream::Limited(Box::new((stream, client))),
        None => stream,
    }
}
