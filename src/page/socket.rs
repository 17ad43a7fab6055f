//! A WebSocket of a page: one connection on which the page follows several keys, by small JSON
//! messages. docs/contract.md has the messages and the close codes.
//!
//! Each key is followed as by an event stream ([`crate::page::followed`]). A socket writes one
//! message at a time. While the page does not read, the newest status of each key is kept for it.
//!
//! A page cannot read the HTTP status of a socket that is refused. So a request is refused only if
//! it is not a valid WebSocket request, or if its origin is not allowed. A key that is wrong, or not
//! good, is answered by a message.

mod closing;
mod handshake;
pub mod message;
mod session;
mod watch;
mod watches;

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyper::Version as HttpVersion;
use hyper::header::HeaderMap;
use tokio::time::Instant;
use tracing::debug;

use self::message::{BadMessage, Command};
use self::session::Session;
use crate::http::refusal::Refusal;
use crate::http::response::Response;
use crate::metrics::SocketEnd;
use crate::net::clients::Client;
use crate::net::flow::{Ended, Endless, Flow};
use crate::net::parked::Wakes;
use crate::net::socket::Socket;
use crate::page::get::GetHandler;
use crate::page::get::params::Params;
use crate::runtime::clock::millis;

/// A request for a socket that passed its checks.
#[derive(Debug)]
pub(crate) struct PageSocket {
    handler: Arc<GetHandler>,
    /// The answer that accepts it.
    response: Response,
    /// The watch that the query asks for, or its mistake.
    first: Option<Result<Command, BadMessage>>,
    since: Instant,
    /// The client of the page, if its address is limited.
    client: Option<Client>,
    /// Whether that address may ask now.
    may_get: bool,
}

impl GetHandler {
    /// Checks a request for a socket. `client` is there if its address is limited.
    ///
    /// # Errors
    /// Returns the reason if there is no socket.
    pub(crate) fn begin_socket(
        self: &Arc<Self>,
        query: &str,
        version: HttpVersion,
        headers: &HeaderMap,
        client: Option<&Client>,
    ) -> Result<PageSocket, Refusal> {
        let may_get = client.is_none_or(Client::may_get);
        let response = handshake::accept(version, headers, &self.allow_origin)
            .inspect_err(|_| self.metrics.socket_ended(SocketEnd::Invalid))?;
        let params = Params::parse(query);
        let first = params.has_key().then(|| match params.watched() {
            Ok((key, last)) => Ok(Command::Watch(key, last)),
            Err((mistake, _)) => Err(BadMessage::Member(mistake, None)),
        });
        Ok(PageSocket {
            handler: Arc::clone(self),
            response,
            first,
            since: Instant::now(),
            client: client.cloned(),
            may_get,
        })
    }
}

impl Endless for PageSocket {
    fn run(self: Box<Self>, flow: Box<Flow>, mut wakes: Wakes) -> BoxFuture<'static, Ended> {
        async move {
            let Self {
                handler,
                response,
                first,
                since,
                client,
                may_get,
            } = *self;
            handler.metrics.socket_began();
            let mut socket = Socket::accept(flow, response);
            let mut session = Session::new(handler, client);
            let mut done = match first {
                _ if !may_get => Err(session.busy()),
                Some(first) => session.begin(first, &mut socket),
                None => Ok(()),
            };
            let closing = loop {
                match done {
                    Ok(()) => done = session.step(&mut socket, &mut wakes).await,
                    Err(closing) => break closing,
                }
            };
            record_end(&session.handler, closing.end, since);
            drop(session);
            if let Some((code, reason)) = closing.says {
                socket.close(code, &reason);
            }
            let mut flow = socket.into_flow();
            if closing.end == SocketEnd::Left {
                return Ended::Broken(flow, closing.drops);
            }
            match flow.flush(&mut wakes.timer).await {
                Ok(()) => Ended::Whole(flow, wakes),
                Err(why) => Ended::Broken(flow, why),
            }
        }
        .boxed()
    }

    fn left(&self) {
        self.handler.metrics.socket_began();
        record_end(&self.handler, SocketEnd::Left, self.since);
    }
}

/// Counts and logs the end of a socket.
fn record_end(handler: &GetHandler, end: SocketEnd, since: Instant) {
    handler.metrics.socket_ended(end);
    handler.metrics.socket_left();
    let lasted_ms = millis(since.elapsed());
    let (end, route) = (end.as_str(), "/status/ws");
    debug!(parent: None, listener = "public", route, end, lasted_ms, "socket ended");
}
