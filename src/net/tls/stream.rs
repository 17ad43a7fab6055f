//! A TCP connection with TLS, once the handshake is done or while it goes on. Keeps no buffer while
//! nothing is under way.
//!
//! # Bounds
//! rustls is given at most [`READ_BYTES`] of received bytes at a time, and the bytes that are
//! decrypted are read before more are received. So after the handshake at most one record of 16 KiB
//! and the bytes of one read are kept. During it, the session has a limit of its own. While a request is held, no more is received once [`MAX_AHEAD`] bytes are
//! decrypted. Further ones stay in the socket, where TCP bounds them.
//!
//! # Writing
//! A record must be sent whole, once, and in order. So all encrypted bytes go through the
//! session, which keeps what the socket has not taken, and bytes that were encrypted count as written.
//! [`TlsStream::has_unsent`] says whether some are left.

use std::fmt::{self, Debug, Formatter};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::header::HeaderValue;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::session::Session;
use crate::net::timed::{LINGER, linger};

/// The most bytes that are read from the socket at once. They are on the stack.
const READ_BYTES: usize = 4096;
/// The number of decrypted bytes after a held request, from which on no more are received. The last
/// read may add a record.
const MAX_AHEAD: usize = 4096;
/// The most bytes that one write encrypts: those of one record.
const WRITE_BYTES: usize = 16 * 1024;

/// A stream of bytes over TLS.
pub struct TlsStream<S> {
    socket: S,
    session: Session,
    /// The header that tells browsers to come back only with TLS, if answers have it.
    hsts: Option<HeaderValue>,
}

impl<S: Debug> Debug for TlsStream<S> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let stream = &mut f.debug_struct("TlsStream");
        stream.field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream<S> {
    /// Returns a stream whose handshake has not begun.
    ///
    /// # Errors
    /// Fails if rustls finds a mistake in the configuration.
    pub fn new(socket: S, config: Arc<ServerConfig>) -> io::Result<Self> {
        Ok(Self {
            socket,
            session: Session::new(config)?,
            hsts: None,
        })
    }

    /// Returns the socket.
    pub fn socket(&self) -> &S {
        &self.socket
    }

    /// Returns the socket. Bytes that are read from it or written to it are missing in the stream.
    pub fn socket_mut(&mut self) -> &mut S {
        &mut self.socket
    }

    /// Returns the same stream over another socket of the same connection.
    ///
    /// # Errors
    /// Fails if `change` does.
    pub fn with_socket<T>(
        self,
        change: impl FnOnce(S) -> io::Result<T>,
    ) -> io::Result<TlsStream<T>> {
        Ok(TlsStream {
            socket: change(self.socket)?,
            session: self.session,
            hsts: self.hsts,
        })
    }

    /// Sets the header that answers have.
    pub(crate) fn set_hsts(&mut self, header: Option<HeaderValue>) {
        self.hsts = header;
    }

    /// Returns the header that tells browsers to come back only with TLS, if answers have it.
    pub(crate) fn hsts(&self) -> Option<&HeaderValue> {
        self.hsts.as_ref()
    }

    /// Returns whether the handshake is done. Its last bytes may still be unsent.
    pub fn is_ready(&self) -> bool {
        self.session.is_ready()
    }

    /// Returns whether the handshake was a short one, by a ticket of an earlier connection.
    pub fn is_resumed(&self) -> bool {
        self.session.is_resumed()
    }

    /// Returns whether the client and the node have agreed on HTTP/2.
    pub fn is_http2(&self) -> bool {
        self.session.is_http2()
    }

    /// Returns whether the client has ended its side, as far as the received bytes say.
    pub fn has_ended(&self) -> bool {
        self.session.has_ended()
    }

    /// Returns whether the received bytes were no good TLS. The stream then fails.
    pub fn has_failed(&self) -> bool {
        self.session.has_failed()
    }

    /// Returns whether the socket has not taken all encrypted bytes yet.
    pub fn has_unsent(&self) -> bool {
        !self.session.outgoing().is_empty()
    }

    /// Returns whether there is room for more bytes after a held request.
    pub fn takes_more_ahead(&self) -> bool {
        self.session.decrypted() < MAX_AHEAD
    }

    /// Returns the number of decrypted bytes that were not read yet.
    pub fn decrypted(&self) -> usize {
        self.session.decrypted()
    }

    /// Returns the bytes of memory that its buffers take.
    pub fn kept(&self) -> usize {
        self.session.kept()
    }

    /// Receives bytes once, and sends what rustls answers by itself. Does nothing else at the end of
    /// the stream.
    ///
    /// # Errors
    /// Fails if the connection broke, or the bytes are no good TLS. The client was then sent an
    /// alert.
    pub fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut space = [0; READ_BYTES];
        let mut received = ReadBuf::new(&mut space);
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut received))?;
        let received = received.filled_mut();
        if received.is_empty() {
            self.session.end();
            return Poll::Ready(Ok(()));
        }
        let taken = self.session.take_in(received);
        // Also after a mistake, so that the client gets the alert.
        let sent = self.try_send(cx);
        Poll::Ready(taken.and(sent))
    }

    /// Encrypts bytes, which then count as written, and sends what the socket takes.
    ///
    /// # Errors
    /// Fails if the connection broke.
    pub fn write_now(&mut self, bytes: &[u8], cx: &mut Context<'_>) -> io::Result<()> {
        self.session.encrypt(bytes)?;
        self.try_send(cx)
    }

    /// Sends what the socket takes.
    fn try_send(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.has_unsent() {
            match self.poll_send(cx) {
                Poll::Ready(sent) => sent?,
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    /// Becomes ready when the socket has taken some of the unsent bytes. There must be some.
    ///
    /// # Errors
    /// Fails if the connection broke.
    pub fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = ready!(Pin::new(&mut self.socket).poll_write(cx, self.session.outgoing()))?;
        if sent == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.session.sent(sent);
        Poll::Ready(Ok(()))
    }

    fn poll_send_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.has_unsent() {
            ready!(self.poll_send(cx))?;
        }
        Poll::Ready(Ok(()))
    }
}

impl TlsStream<TcpStream> {
    /// Ends the connection like [`linger`]. What the client still sends is dropped as it is, because
    /// it need not be good TLS.
    ///
    /// # Cancel safety
    /// If the task is dropped, the connection closes at once.
    pub(crate) async fn linger(&mut self) {
        // Sends the notice of the end or the alert. It may wait behind an answer that the client
        // does not read.
        let _ = timeout(LINGER, self.shutdown()).await;
        linger(&mut self.socket).await;
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Decrypted bytes come first: the socket may have no more.
        while this.decrypted() == 0 && !this.has_ended() && !this.session.has_closed() {
            ready!(this.poll_receive(cx))?;
        }
        this.session
            .read(buf.remaining(), |bytes| buf.put_slice(bytes));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // Without this, a client that does not read would make the unsent bytes grow.
        ready!(this.poll_send_all(cx))?;
        let written = bytes.len().min(WRITE_BYTES);
        Poll::Ready(this.write_now(&bytes[..written], cx).map(|()| written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_send_all(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.session.close();
        ready!(this.poll_send_all(cx))?;
        Pin::new(&mut this.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
