//! A TCP connection with TLS, once the handshake is done or while it goes on. Keeps no buffer while
//! nothing is under way.
//!
//! # Bounds
//! rustls is given at most [`READ_BYTES`] of received bytes at a time, and the bytes that are
//! decrypted are read before more are received. So at most one record of 16 KiB and the bytes of
//! one read are kept. Of the bytes that come while a request is held, [`MAX_AHEAD`] are decrypted.
//! Further ones stay in the socket, where TCP bounds them.
//!
//! # Writing
//! A record must be sent whole, once, and in order. So all encrypted bytes go through `outgoing`,
//! which keeps what the socket has not taken, and bytes that were encrypted count as written.
//! [`TlsStream::has_unsent`] says whether some are left.

use std::error::Error;
use std::fmt::{self, Debug, Formatter};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, BytesMut};
use hyper::header::HeaderValue;
use rustls::AlertDescription::CloseNotify;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{HandshakeKind, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::net::timed::{LINGER, linger};

/// The most bytes that are read from the socket at once. They are on the stack.
const READ_BYTES: usize = 4096;
/// The longest handshake message that rustls takes (64 KiB), with the heads of its records. A client
/// cannot make a stream keep more.
const MAX_INCOMING: usize = 80 * 1024;
/// The most bytes after a held request that are decrypted.
const MAX_AHEAD: usize = 4096;
/// The most bytes that one write encrypts: those of one record.
const WRITE_BYTES: usize = 16 * 1024;
/// The error of rustls if the resolver has no certificate. Ours has one unless the client asks for
/// an unknown name.
const NO_CERTIFICATE: &str = "no server certificate chain resolved";
/// The name of HTTP/2 in TLS (RFC 9113, 3.1).
pub(super) const HTTP2: &[u8] = b"h2";
/// A guess at the length of what rustls adds: the head of a record, its tag, and another message
/// before it.
const RECORD_EXTRA: usize = 64;

/// A stream of bytes over TLS.
pub struct TlsStream<S> {
    socket: S,
    connection: UnbufferedServerConnection,
    /// Received bytes that end within a record, or within a message of the handshake.
    incoming: Vec<u8>,
    /// Decrypted bytes that were not read yet.
    decrypted: BytesMut,
    /// Encrypted bytes that the socket has not taken yet.
    outgoing: BytesMut,
    /// Whether the handshake is done.
    is_ready: bool,
    /// Whether nothing more will be received.
    has_ended: bool,
    /// Whether the client has been sent the end of this side. What it sends is then dropped.
    has_closed: bool,
    /// The header that tells browsers to come back only with TLS, if answers have it.
    hsts: Option<HeaderValue>,
    /// Whether the received bytes were no good TLS. Then rustls is not used any more.
    has_failed: bool,
}

impl<S: Debug> Debug for TlsStream<S> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let stream = &mut f.debug_struct("TlsStream");
        stream.field("socket", &self.socket).finish_non_exhaustive()
    }
}

/// The task of rustls once it needs no more bytes.
#[derive(Clone, Copy)]
enum Then<'a> {
    Nothing,
    Encrypt(&'a [u8]),
    /// Encrypts the notice that nothing more will be sent.
    Close,
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream<S> {
    /// Returns a stream whose handshake has not begun.
    ///
    /// # Errors
    /// Fails if rustls finds a mistake in the configuration.
    pub fn new(socket: S, config: Arc<ServerConfig>) -> io::Result<Self> {
        Ok(Self {
            socket,
            connection: UnbufferedServerConnection::new(config).map_err(broken)?,
            incoming: Vec::new(),
            decrypted: BytesMut::new(),
            outgoing: BytesMut::new(),
            is_ready: false,
            has_ended: false,
            has_closed: false,
            hsts: None,
            has_failed: false,
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
            connection: self.connection,
            incoming: self.incoming,
            decrypted: self.decrypted,
            outgoing: self.outgoing,
            is_ready: self.is_ready,
            has_ended: self.has_ended,
            has_closed: self.has_closed,
            hsts: self.hsts,
            has_failed: self.has_failed,
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
        self.is_ready
    }

    /// Returns whether the handshake was a short one, by a ticket of an earlier connection.
    pub fn is_resumed(&self) -> bool {
        self.connection.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Returns whether the client and the node have agreed on HTTP/2.
    pub fn is_http2(&self) -> bool {
        self.connection.alpn_protocol() == Some(HTTP2)
    }

    /// Returns whether the client has ended its side, as far as the received bytes say.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Returns whether the received bytes were no good TLS. The stream then fails.
    pub fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// Returns whether the socket has not taken all encrypted bytes yet.
    pub fn has_unsent(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Returns whether there is room for more bytes after a held request.
    pub fn takes_more_ahead(&self) -> bool {
        self.decrypted.len() < MAX_AHEAD
    }

    /// Returns the number of decrypted bytes that were not read yet.
    pub fn decrypted(&self) -> usize {
        self.decrypted.len()
    }

    /// Returns the bytes of memory that its buffers take.
    pub fn kept(&self) -> usize {
        self.incoming.capacity() + self.decrypted.capacity() + self.outgoing.capacity()
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
            self.has_ended = true;
            return Poll::Ready(Ok(()));
        }
        let taken = self.take_in(received);
        // Also after a mistake, so that the client gets the alert.
        let sent = self.try_send(cx);
        Poll::Ready(taken.and(sent))
    }

    /// Gives rustls bytes that were received.
    fn take_in(&mut self, received: &mut [u8]) -> io::Result<()> {
        if self.incoming.is_empty() {
            let (used, done) = self.process(received, Then::Nothing);
            self.incoming.extend_from_slice(&received[used..]);
            return done;
        }
        if self.incoming.len() + received.len() > MAX_INCOMING {
            self.has_failed = true;
            return Err(broken("a message of the handshake is too long"));
        }
        self.incoming.extend_from_slice(received);
        self.go_on(Then::Nothing)
    }

    /// Has rustls go on with the bytes that it has not used.
    fn go_on(&mut self, then: Then<'_>) -> io::Result<()> {
        let mut incoming = std::mem::take(&mut self.incoming);
        let (used, done) = self.process(&mut incoming, then);
        if used < incoming.len() {
            incoming.drain(..used);
            self.incoming = incoming;
        }
        done
    }

    /// Has rustls use as many of `bytes` as it can, and then do what `then` says. Returns the number
    /// of bytes that it used.
    fn process(&mut self, bytes: &mut [u8], mut then: Then<'_>) -> (usize, io::Result<()>) {
        if self.has_failed {
            return (bytes.len(), Err(broken("the connection has failed")));
        }
        if self.has_closed && matches!(then, Then::Nothing) {
            // rustls takes an alert behind its own notice for a mistake of its caller.
            return (bytes.len(), Ok(()));
        }
        let mut used = 0;
        let mut failed = None;
        let done = loop {
            let UnbufferedStatus { discard, state } =
                self.connection.process_tls_records(&mut bytes[used..]);
            used += discard;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(Ok(record)) = traffic.next_record() {
                        used += record.discard;
                        self.decrypted.put_slice(record.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    let begin = self.outgoing.len();
                    let encoded = append(&mut self.outgoing, 0, |room| data.encode(room));
                    if let Err(error) = encoded {
                        break Err(broken(error));
                    }
                    // rustls would fail once more at the same bytes, and make another alert.
                    if failed.is_some() && is_alert(&self.outgoing[begin..]) {
                        break Ok(());
                    }
                }
                // All that is sent goes through `outgoing` in order, so it counts as sent.
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    self.is_ready = true;
                    let (guess, out) = (RECORD_EXTRA, &mut self.outgoing);
                    let written = match then {
                        Then::Nothing => Ok(()),
                        Then::Encrypt(data) => {
                            append(out, data.len() + guess, |room| traffic.encrypt(data, room))
                        }
                        Then::Close => append(out, guess, |room| traffic.queue_close_notify(room)),
                    };
                    break written.map_err(broken);
                }
                Ok(ConnectionState::PeerClosed) => self.has_ended = true,
                Ok(_) => {
                    break match then {
                        Then::Nothing => Ok(()),
                        _ => Err(io::ErrorKind::BrokenPipe.into()),
                    };
                }
                // rustls takes this notice for a mistake while the handshake goes on.
                Err(rustls::Error::AlertReceived(CloseNotify)) if failed.is_none() => {
                    self.has_ended = true;
                    break match then {
                        Then::Nothing => Ok(()),
                        _ => Err(io::ErrorKind::BrokenPipe.into()),
                    };
                }
                // rustls makes its alert at the next call.
                Err(error) if failed.is_none() => {
                    failed = Some(error);
                    then = Then::Nothing;
                }
                Err(_) => break Ok(()),
            }
        };
        let Some(failed) = failed else {
            // Nothing that comes behind the end is used.
            return (if self.has_ended { bytes.len() } else { used }, done);
        };
        self.has_failed = true;
        let error = match unknown_name(&failed, &mut self.outgoing) {
            Some(text) => broken(text),
            None => broken(failed),
        };
        (bytes.len(), Err(error))
    }

    /// Encrypts bytes, which then count as written, and sends what the socket takes.
    ///
    /// # Errors
    /// Fails if the connection broke.
    pub fn write_now(&mut self, bytes: &[u8], cx: &mut Context<'_>) -> io::Result<()> {
        self.go_on(Then::Encrypt(bytes))?;
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
        let sent = ready!(Pin::new(&mut self.socket).poll_write(cx, &self.outgoing))?;
        if sent == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.outgoing.advance(sent);
        if self.outgoing.is_empty() {
            // Frees the memory: most connections are silent most of the time.
            self.outgoing = BytesMut::new();
        }
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
        while this.decrypted.is_empty() && !this.has_ended && !this.has_closed {
            ready!(this.poll_receive(cx))?;
        }
        let read = this.decrypted.len().min(buf.remaining());
        buf.put_slice(&this.decrypted[..read]);
        this.decrypted.advance(read);
        if this.decrypted.is_empty() {
            this.decrypted = BytesMut::new();
        }
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
        // Without this, a client that does not read would make `outgoing` grow.
        ready!(this.poll_send_all(cx))?;
        let written = bytes.len().min(WRITE_BYTES);
        Poll::Ready(this.write_now(&bytes[..written], cx).map(|()| written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_send_all(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.has_closed {
            this.has_closed = true;
            // Fails if the connection is broken, or its handshake not done. Then there is nothing
            // to end.
            let _ = this.go_on(Then::Close);
            this.incoming = Vec::new();
        }
        ready!(this.poll_send_all(cx))?;
        Pin::new(&mut this.socket).poll_shutdown(cx)
    }
}

/// The number of bytes that rustls needs, if that is why it failed.
trait Shortage {
    fn needed(&self) -> Option<usize>;
}

impl Shortage for EncodeError {
    fn needed(&self) -> Option<usize> {
        match self {
            Self::InsufficientSize(size) => Some(size.required_size),
            Self::AlreadyEncoded => None,
        }
    }
}

impl Shortage for EncryptError {
    fn needed(&self) -> Option<usize> {
        match self {
            Self::InsufficientSize(size) => Some(size.required_size),
            Self::EncryptExhausted => None,
        }
    }
}

/// Appends the bytes that `write` puts into the room that it is given. `guess` is a guess at their
/// number. rustls says if it needs more.
fn append<E: Shortage>(
    out: &mut BytesMut,
    guess: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, E>,
) -> Result<(), E> {
    let begin = out.len();
    let mut room = guess;
    loop {
        out.resize(begin + room, 0);
        match write(&mut out[begin..]) {
            Ok(written) => {
                out.truncate(begin + written);
                return Ok(());
            }
            Err(error) => match error.needed().filter(|needed| *needed > room) {
                Some(needed) => room = needed,
                None => {
                    out.truncate(begin);
                    return Err(error);
                }
            },
        }
    }
}

/// Returns whether a record is an alert. TLS 1.3 hides the kind of a record, but only an alert has
/// this length: a head, two bytes, their kind and a tag.
fn is_alert(record: &[u8]) -> bool {
    const ALERT: u8 = 21;
    const HIDDEN_ALERT_BYTES: usize = 5 + 2 + 1 + 16;
    record.first() == Some(&ALERT) || record.len() == HIDDEN_ALERT_BYTES
}

/// Corrects the alert for a client that asks for a name that no certificate has, and returns what is
/// wrong. rustls sends `access_denied`, by which a client would understand that the name is known.
fn unknown_name(failed: &rustls::Error, outgoing: &mut BytesMut) -> Option<&'static str> {
    const ACCESS_DENIED: [u8; 2] = [2, 49];
    const UNRECOGNIZED_NAME: [u8; 2] = [2, 112];
    if !matches!(failed, rustls::Error::General(text) if text == NO_CERTIFICATE) {
        return None;
    }
    // Nothing is encrypted before the server's first message, so the alert's two bytes are the last.
    let alert = outgoing.last_chunk_mut();
    if let Some(alert) = alert.filter(|alert| **alert == ACCESS_DENIED) {
        *alert = UNRECOGNIZED_NAME;
    }
    Some("the client asked for a name that no certificate has")
}

fn broken(error: impl Into<Box<dyn Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests;
