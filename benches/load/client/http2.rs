//! A connection of HTTP/2 over TLS, whose streams are gets of several pages. h2 speaks the protocol,
//! with the settings and the header fields of a browser.
//!
//! The event loop drives h2. When a socket is ready, everything on its connection is tried again, so
//! nothing needs to be woken.

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::task::noop_waker_ref;
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use httparse::{EMPTY_HEADER, Status};
use hyper::header::HeaderMap;
use hyper::{Method, Request, StatusCode};
use mio::net::TcpStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::conn::Got;
use super::http::{MOST_HEADERS, Response};
use super::tls::Tls;

/// What Chromium sends with a script of another site, besides the fields of the wire.
const BROWSER: &[(&str, &str)] = &[
    (
        "sec-ch-ua",
        r#""Chromium";v="140", "Not=A?Brand";v="24", "Google Chrome";v="140""#,
    ),
    ("sec-ch-ua-mobile", "?0"),
    ("sec-ch-ua-platform", r#""Windows""#),
    (
        "user-agent",
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
    ),
    ("accept", "*/*"),
    ("sec-fetch-site", "cross-site"),
    ("sec-fetch-mode", "no-cors"),
    ("sec-fetch-dest", "script"),
    ("referer", "https://www.example.com/"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("accept-language", "en-US,en;q=0.9"),
];

/// A connection, and the gets on it. Each has a slot, in which one follows the other.
pub(crate) struct Link {
    connection: Connection<Transport, Bytes>,
    requests: SendRequest<Bytes>,
    slots: Vec<Slot>,
    is_flushed: Rc<Cell<bool>>,
}

/// How far the answer to a get is.
#[derive(Default)]
enum Slot {
    #[default]
    Idle,
    Awaited(ResponseFuture),
    Begun(Box<Begun>),
}

/// An answer whose head has come.
struct Begun {
    status: StatusCode,
    headers: HeaderMap,
    body: h2::RecvStream,
    bytes: Vec<u8>,
}

impl Link {
    /// Begins to speak HTTP/2 with `count` slots. What is sent meanwhile goes out when the
    /// connection is there.
    pub(super) fn open(stream: TcpStream, tls: Tls, count: usize) -> io::Result<Self> {
        let is_flushed = Rc::new(Cell::new(false));
        let transport = Transport {
            stream,
            tls,
            is_flushed: Rc::clone(&is_flushed),
        };
        // The settings of Chromium.
        let handshake = Builder::new()
            .header_table_size(64 * 1024)
            .enable_push(false)
            .initial_window_size(6 * 1024 * 1024)
            .initial_connection_window_size(15 * 1024 * 1024)
            .max_header_list_size(256 * 1024)
            .handshake(transport)
            .now_or_never();
        let (requests, connection) = handshake
            .ok_or_else(|| io::Error::other("TLS does not take the first bytes of HTTP/2"))?
            .map_err(io::Error::other)?;
        Ok(Self {
            connection,
            requests,
            slots: (0..count).map(|_| Slot::Idle).collect(),
            is_flushed,
        })
    }

    /// Sends the get in `text`, which is written as in HTTP/1.1, when [`Link::turn`] is next called.
    pub(super) fn ask(&mut self, slot: usize, text: &[u8]) -> io::Result<()> {
        let mut cx = Context::from_waker(noop_waker_ref());
        match self.requests.poll_ready(&mut cx) {
            Poll::Ready(ready) => ready.map_err(io::Error::other)?,
            Poll::Pending => return Err(io::Error::other("the server allows for too few streams")),
        }
        let request = get(text).map_err(io::Error::other)?;
        let (answer, _) = self
            .requests
            .send_request(request, true)
            .map_err(io::Error::other)?;
        self.slots[slot] = Slot::Awaited(answer);
        Ok(())
    }

    /// Reads and writes as much as the socket takes now. Returns [`Got::End`] if the server has
    /// closed the connection, and never [`Got::Answer`]: see [`Link::take`].
    pub(super) fn turn(&mut self) -> io::Result<Got> {
        let mut cx = Context::from_waker(noop_waker_ref());
        match self.connection.poll_unpin(&mut cx) {
            Poll::Ready(ended) => ended.map(|()| Got::End).map_err(io::Error::other),
            Poll::Pending => Ok(Got::Nothing),
        }
    }

    /// Passes the answer in a slot to `take` if it is complete. Returns whether it was.
    pub(super) fn take(
        &mut self,
        slot: usize,
        take: impl FnOnce(&Response<'_>),
    ) -> io::Result<bool> {
        let mut cx = Context::from_waker(noop_waker_ref());
        let slot = &mut self.slots[slot];
        if let Slot::Awaited(answer) = slot {
            let Poll::Ready(answer) = answer.poll_unpin(&mut cx) else {
                return Ok(false);
            };
            let (head, body) = answer.map_err(io::Error::other)?.into_parts();
            *slot = Slot::Begun(Box::new(Begun {
                status: head.status,
                headers: head.headers,
                body,
                bytes: Vec::new(),
            }));
        }
        let Slot::Begun(begun) = slot else {
            return Ok(false);
        };
        while let Poll::Ready(data) = begun.body.poll_data(&mut cx) {
            let Some(data) = data else {
                begun.pass_to(take);
                *slot = Slot::Idle;
                return Ok(true);
            };
            let data = data.map_err(io::Error::other)?;
            begun.bytes.extend_from_slice(&data);
            let window = begun.body.flow_control();
            window
                .release_capacity(data.len())
                .map_err(io::Error::other)?;
        }
        Ok(false)
    }

    /// Returns whether everything was given to the kernel.
    pub(super) fn is_flushed(&self) -> bool {
        self.is_flushed.get()
    }
}

impl Begun {
    fn pass_to(&self, take: impl FnOnce(&Response<'_>)) {
        let mut headers = [EMPTY_HEADER; MOST_HEADERS];
        let count = self.headers.len().min(MOST_HEADERS);
        for (header, (name, value)) in headers.iter_mut().zip(&self.headers) {
            (header.name, header.value) = (name.as_str(), value.as_bytes());
        }
        take(&Response {
            status: self.status.as_u16(),
            headers: &headers[..count],
            body: &self.bytes,
            more: false,
        });
    }
}

/// Returns the get in `text`, with the header fields of a browser.
fn get(text: &[u8]) -> Result<Request<()>, String> {
    let mut headers = [EMPTY_HEADER; MOST_HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    let parsed = head.parse(text).map_err(|error| error.to_string())?;
    let (Status::Complete(_), Some(target)) = (parsed, head.path) else {
        return Err("a get that is not complete".to_owned());
    };
    let is_host = |header: &&httparse::Header<'_>| header.name.eq_ignore_ascii_case("host");
    let host = head.headers.iter().find(is_host).map(|host| host.value);
    let host = str::from_utf8(host.unwrap_or_default()).map_err(|error| error.to_string())?;
    let mut request = Request::builder()
        .method(Method::GET)
        .uri(format!("https://{host}{target}"));
    for (name, value) in BROWSER {
        request = request.header(*name, *value);
    }
    for header in head.headers.iter().filter(|header| !is_host(header)) {
        request = request.header(header.name, header.value);
    }
    request.body(()).map_err(|error| error.to_string())
}

/// A socket with TLS, as h2 wants it.
struct Transport {
    stream: TcpStream,
    tls: Tls,
    /// Whether everything was given to the kernel.
    is_flushed: Rc<Cell<bool>>,
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let transport = self.get_mut();
        let room = buffer.initialize_unfilled();
        match transport.tls.read(&mut transport.stream, room) {
            Ok(length) => {
                buffer.advance(length);
                Poll::Ready(Ok(()))
            }
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::NotConnected
                ) =>
            {
                transport.is_flushed.set(transport.tls.is_flushed());
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let transport = self.get_mut();
        transport.is_flushed.set(false);
        Poll::Ready(transport.tls.keep(bytes).map(|()| bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let transport = self.get_mut();
        let flushed = transport.tls.flush(&mut transport.stream);
        transport.is_flushed.set(transport.tls.is_flushed());
        // TLS keeps what the socket does not take now.
        Poll::Ready(flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}
