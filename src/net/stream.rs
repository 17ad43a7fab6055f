//! An accepted connection, of whichever kind: TCP or a unix socket, with TLS or without. Tells apart
//! what a client sends behind a request that is not answered yet, and ends a connection well.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::FutureExt;
use hyper::header::HeaderValue;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::coop::unconstrained;

use crate::metrics::DropReason;
use crate::net::clients::Client;
use crate::net::timed::linger;
use crate::net::tls::stream::TlsStream;

/// An accepted connection.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a unix socket.
    Unix(UnixStream),
    /// Over TCP with TLS. Boxed, because it is large, and few nodes have both kinds.
    Tls(Box<TlsStream<TcpStream>>),
    /// Any of these, of a client whose address is limited. Boxed, so that only such a client takes
    /// the memory.
    Limited(Box<(Stream, Client)>),
}

/// An event of a connection whose request is not answered yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beyond {
    /// The client has sent more bytes. They are kept, and reported once.
    Bytes,
    /// The client has ended its side, or the connection broke.
    End,
}

impl Stream {
    pub(crate) fn tcp(stream: TcpStream) -> Self {
        // Answers are small, and after each the server is silent for a while, so waiting to fill
        // a segment would only delay it. The call fails if the socket is closed already, which
        // the next read shows.
        let _ = stream.set_nodelay(true);
        Self::Tcp(stream)
    }

    /// Returns the client, if its address is limited.
    pub(crate) fn client(&self) -> Option<&Client> {
        match self {
            Self::Limited(limited) => Some(&limited.1),
            _ => None,
        }
    }

    /// Returns whether the client speaks HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        match self {
            Self::Tls(stream) => stream.is_http2(),
            Self::Limited(limited) => limited.0.is_http2(),
            Self::Tcp(_) | Self::Unix(_) => false,
        }
    }

    /// Returns the address of the other side, as the socket has it. A unix socket has none.
    pub(crate) fn peer(&self) -> Option<IpAddr> {
        let address = match self {
            Self::Tcp(stream) => stream.peer_addr(),
            Self::Unix(_) => return None,
            Self::Tls(stream) => stream.socket().peer_addr(),
            Self::Limited(limited) => return limited.0.peer(),
        };
        // Fails if the client has left. No network contains this address unless it contains all.
        let ip = address.map_or(Ipv4Addr::UNSPECIFIED.into(), |address| address.ip());
        Some(ip.to_canonical())
    }

    /// Becomes ready when the client sends more bytes behind a request that is not answered yet, or
    /// ends its side. After bytes, the stream must be [rearmed](Self::rearmed) before it is read.
    ///
    /// The bytes stay in the socket, where TCP bounds them, and the runtime is asked to forget them.
    /// TLS also has its own messages between them, such as the one that ends the client's side. So
    /// some bytes are received and decrypted.
    pub(crate) fn poll_beyond(&mut self, cx: &mut Context<'_>) -> Poll<Beyond> {
        if let Self::Limited(limited) = self {
            return limited.0.poll_beyond(cx);
        }
        if let Self::Tls(stream) = self {
            while stream.takes_more_ahead() {
                let before = stream.decrypted();
                if ready!(stream.poll_receive(cx)).is_err() || stream.has_ended() {
                    return Poll::Ready(Beyond::End);
                }
                if stream.decrypted() > before {
                    return Poll::Ready(Beyond::Bytes);
                }
            }
        }
        if ready!(self.poll_read_ready(cx)).is_err() || self.is_read_closed() {
            return Poll::Ready(Beyond::End);
        }
        self.forget_readable();
        Poll::Ready(Beyond::Bytes)
    }

    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Unix(stream) => stream.poll_read_ready(cx),
            Self::Tls(stream) => stream.socket().poll_read_ready(cx),
            Self::Limited(limited) => limited.0.poll_read_ready(cx),
        }
    }

    /// Returns whether the other side has closed its own direction, however many bytes come
    /// first. The stream must be ready to be read.
    fn is_read_closed(&self) -> bool {
        let ready = match self {
            Self::Tcp(stream) => stream.ready(Interest::READABLE).now_or_never(),
            Self::Unix(stream) => stream.ready(Interest::READABLE).now_or_never(),
            Self::Tls(stream) => stream.socket().ready(Interest::READABLE).now_or_never(),
            Self::Limited(limited) => return limited.0.is_read_closed(),
        };
        ready.is_some_and(|ready| ready.map_or(true, |ready| ready.is_read_closed()))
    }

    /// Makes the runtime forget that there are bytes to read. It then reports only bytes that
    /// come later, and the end.
    fn forget_readable(&self) {
        let nothing = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
        // `nothing` returns an error, which is what makes the runtime forget.
        let _ = match self {
            Self::Tcp(stream) => stream.try_io(Interest::READABLE, nothing),
            Self::Unix(stream) => stream.try_io(Interest::READABLE, nothing),
            Self::Tls(stream) => stream.socket().try_io(Interest::READABLE, nothing),
            Self::Limited(limited) => return limited.0.forget_readable(),
        };
    }

    /// Returns the header by which answers tell browsers to come back only with TLS, if they do.
    pub(crate) fn hsts(&self) -> Option<&HeaderValue> {
        match self {
            Self::Tls(stream) => stream.hsts(),
            Self::Limited(limited) => limited.0.hsts(),
            Self::Tcp(_) | Self::Unix(_) => None,
        }
    }

    /// Ends the connection if the client sent something that is no good TLS, and returns that as the
    /// reason. Sends the alert that says so, and reads and drops incoming bytes for a moment, so that
    /// no reset takes it away.
    ///
    /// # Cancel safety
    /// If the task is dropped, the connection closes at once.
    pub(crate) async fn end_if_bad_tls(&mut self) -> Option<DropReason> {
        let stream = self.tls_mut().filter(|stream| stream.has_failed())?;
        stream.linger().await;
        Some(DropReason::BadTls)
    }

    fn tls_mut(&mut self) -> Option<&mut TlsStream<TcpStream>> {
        match self {
            Self::Tls(stream) => Some(stream),
            Self::Limited(limited) => limited.0.tls_mut(),
            Self::Tcp(_) | Self::Unix(_) => None,
        }
    }

    /// Ends the connection as [`linger`] does.
    ///
    /// # Cancel safety
    /// If the task is dropped, the connection closes at once.
    pub(crate) async fn linger(&mut self) {
        match self.tls_mut() {
            Some(stream) => stream.linger().await,
            None => linger(self).await,
        }
    }

    /// Returns whether bytes were received that nobody has read, and that no event of the socket
    /// will report.
    pub(crate) fn has_unread(&self) -> bool {
        match self {
            Self::Tls(stream) => stream.decrypted() > 0,
            Self::Limited(limited) => limited.0.has_unread(),
            Self::Tcp(_) | Self::Unix(_) => false,
        }
    }

    /// Registers the same stream with the runtime once more, so that the runtime looks for bytes
    /// to read.
    ///
    /// # Errors
    /// Fails with an error of the system.
    pub(crate) fn rearmed(self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(stream) => Self::Tcp(TcpStream::from_std(stream.into_std()?)?),
            Self::Unix(stream) => Self::Unix(UnixStream::from_std(stream.into_std()?)?),
            Self::Tls(stream) => {
                let again = |socket: TcpStream| TcpStream::from_std(socket.into_std()?);
                Self::Tls(Box::new(stream.with_socket(again)?))
            }
            Self::Limited(limited) => {
                let (stream, client) = *limited;
                Self::Limited(Box::new((stream.rearmed()?, client)))
            }
        })
    }

    /// Writes as many bytes as the stream takes without waiting. Some of them may be unsent then:
    /// see [`Self::has_unsent`].
    ///
    /// # Errors
    /// Fails with an error of the connection, or with [`io::ErrorKind::WouldBlock`].
    pub(crate) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
            Self::Tls(stream) => {
                // One task may write to many streams at once, which the runtime would interrupt.
                let write = poll_fn(|cx| Poll::Ready(stream.write_now(bytes, cx)));
                let written = unconstrained(write).now_or_never();
                written.unwrap_or(Ok(())).map(|()| bytes.len())
            }
            Self::Limited(limited) => limited.0.try_write(bytes),
        }
    }

    /// Returns whether the stream has taken bytes that the socket has not taken yet.
    pub(crate) fn has_unsent(&self) -> bool {
        match self {
            Self::Tls(stream) => stream.has_unsent(),
            Self::Limited(limited) => limited.0.has_unsent(),
            Self::Tcp(_) | Self::Unix(_) => false,
        }
    }

    /// Becomes ready when the socket has taken some of the unsent bytes, or if there are none.
    ///
    /// # Errors
    /// Fails if the connection broke.
    pub(crate) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tls(stream) if stream.has_unsent() => stream.poll_send(cx),
            Self::Limited(limited) => limited.0.poll_send(cx),
            _ => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_read(cx, buf),
            Self::Limited(limited) => Pin::new(&mut limited.0).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_write(cx, buf),
            Self::Limited(limited) => Pin::new(&mut limited.0).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            // Neither buffers anything.
            Self::Tcp(_) | Self::Unix(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_flush(cx),
            Self::Limited(limited) => Pin::new(&mut limited.0).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
            Self::Limited(limited) => Pin::new(&mut limited.0).poll_shutdown(cx),
        }
    }
}
