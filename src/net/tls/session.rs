//! One connection of TLS without its socket: bytes that were received go in, decrypted bytes and
//! bytes to send come out. rustls does the work, and this module does what rustls asks for. It keeps
//! no buffer while nothing is under way.

use std::error::Error;
use std::io;
use std::sync::Arc;

use bytes::{Buf, BufMut, BytesMut};
use rustls::AlertDescription::CloseNotify;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic,
};
use rustls::{HandshakeKind, ServerConfig};

/// The name of HTTP/2 in TLS (RFC 9113, 3.1).
pub(super) const HTTP2: &[u8] = b"h2";
/// The longest handshake message that rustls takes (64 KiB), with the heads of its records. A client
/// cannot make a session keep more.
const MAX_INCOMING: usize = 80 * 1024;
/// The error of rustls if the resolver has no certificate. Ours has one unless the client asks for
/// an unknown name.
const NO_CERTIFICATE: &str = "no server certificate chain resolved";
/// A guess at the length of what rustls adds: the head of a record, its tag, and another message
/// before it.
const RECORD_EXTRA: usize = 64;

/// A connection of TLS.
pub(super) struct Session {
    connection: UnbufferedServerConnection,
    /// Received bytes that end within a record, or within a message of the handshake.
    incoming: Vec<u8>,
    /// Decrypted bytes that were not read yet.
    decrypted: BytesMut,
    /// Encrypted bytes that were not sent yet.
    outgoing: BytesMut,
    /// Whether the handshake is done.
    is_ready: bool,
    /// Whether nothing more will be received.
    has_ended: bool,
    /// Whether this side was closed. Bytes that the client sends after that are dropped.
    has_closed: bool,
    /// Whether the received bytes were no good TLS. Then rustls is not used any more.
    has_failed: bool,
}

/// The task of rustls once it needs no more bytes.
#[derive(Clone, Copy)]
enum Then<'a> {
    Nothing,
    Encrypt(&'a [u8]),
    /// Encrypts the notice that nothing more will be sent.
    Close,
}

impl Then<'_> {
    /// Has rustls do it, and adds the bytes to `out`.
    fn run(
        self,
        mut traffic: WriteTraffic<'_, ServerConnectionData>,
        out: &mut BytesMut,
    ) -> io::Result<()> {
        let done = match self {
            Self::Nothing => Ok(()),
            Self::Encrypt(data) => {
                let guess = data.len() + RECORD_EXTRA;
                append(out, guess, |room| traffic.encrypt(data, room))
            }
            Self::Close => append(out, RECORD_EXTRA, |room| traffic.queue_close_notify(room)),
        };
        done.map_err(broken)
    }

    /// Returns what becomes of it if nothing can be encrypted.
    fn without_traffic(self) -> io::Result<()> {
        match self {
            Self::Nothing => Ok(()),
            Self::Encrypt(_) | Self::Close => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

impl Session {
    /// Returns a session whose handshake has not begun.
    ///
    /// # Errors
    /// Fails if rustls finds a mistake in the configuration.
    pub(super) fn new(config: Arc<ServerConfig>) -> io::Result<Self> {
        Ok(Self {
            connection: UnbufferedServerConnection::new(config).map_err(broken)?,
            incoming: Vec::new(),
            decrypted: BytesMut::new(),
            outgoing: BytesMut::new(),
            is_ready: false,
            has_ended: false,
            has_closed: false,
            has_failed: false,
        })
    }

    /// Returns whether the handshake is done. Its last bytes may still be unsent.
    pub(super) fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// Returns whether the handshake was a short one, by a ticket of an earlier connection.
    pub(super) fn is_resumed(&self) -> bool {
        self.connection.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Returns whether the client and the node have agreed on HTTP/2.
    pub(super) fn is_http2(&self) -> bool {
        self.connection.alpn_protocol() == Some(HTTP2)
    }

    /// Returns whether nothing more will be received.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Notes that nothing more will be received.
    pub(super) fn end(&mut self) {
        self.has_ended = true;
    }

    /// Returns whether this side was closed.
    pub(super) fn has_closed(&self) -> bool {
        self.has_closed
    }

    /// Returns whether the received bytes were no good TLS.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// Returns the number of decrypted bytes that were not read yet.
    pub(super) fn decrypted(&self) -> usize {
        self.decrypted.len()
    }

    /// Takes at most `most` decrypted bytes out, by `take`.
    pub(super) fn read(&mut self, most: usize, take: impl FnOnce(&[u8])) {
        let read = self.decrypted.len().min(most);
        take(&self.decrypted[..read]);
        self.decrypted.advance(read);
        if self.decrypted.is_empty() {
            self.decrypted = BytesMut::new();
        }
    }

    /// Returns the bytes that are to be sent.
    pub(super) fn outgoing(&self) -> &[u8] {
        &self.outgoing
    }

    /// Notes how many of the bytes were sent.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.outgoing.advance(bytes);
        if self.outgoing.is_empty() {
            // Frees the memory: most connections are silent most of the time.
            self.outgoing = BytesMut::new();
        }
    }

    /// Returns the bytes of memory that its buffers take.
    pub(super) fn kept(&self) -> usize {
        self.incoming.capacity() + self.decrypted.capacity() + self.outgoing.capacity()
    }

    /// Gives rustls bytes that were received.
    ///
    /// # Errors
    /// Fails if the bytes are no good TLS. The bytes to send then end with an alert that says so.
    pub(super) fn take_in(&mut self, received: &mut [u8]) -> io::Result<()> {
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
            // rustls reports an alert that comes after its own notice as a mistake of its caller.
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
                Ok(ConnectionState::WriteTraffic(traffic)) => {
                    self.is_ready = true;
                    break then.run(traffic, &mut self.outgoing);
                }
                Ok(ConnectionState::PeerClosed) => self.has_ended = true,
                Ok(_) => break then.without_traffic(),
                // rustls takes this notice for a mistake while the handshake goes on.
                Err(rustls::Error::AlertReceived(CloseNotify)) if failed.is_none() => {
                    self.has_ended = true;
                    break then.without_traffic();
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

    /// Encrypts bytes. They count as written then.
    ///
    /// # Errors
    /// Fails if the session has failed, or its handshake is not done.
    pub(super) fn encrypt(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.go_on(Then::Encrypt(bytes))
    }

    /// Encrypts the notice that nothing more will be sent, unless that was done before. Bytes that
    /// come from here on are dropped.
    pub(super) fn close(&mut self) {
        if self.has_closed {
            return;
        }
        self.has_closed = true;
        // Fails if the session has failed, or its handshake is not done. Then there is nothing to
        // end.
        let _ = self.go_on(Then::Close);
        self.incoming = Vec::new();
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
