//! Checks the stream of TLS against rustls's client in memory, over a socket that cuts and delays as
//! the input says: what comes out is what went in, in order, with bounded memory and no spinning.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};

use holdfast::fuzzed::TlsStream;
use rustls::client::Resumption;
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const HOST: &str = "a.example.com";
/// The most bytes that either side sends.
const MAX_SENT: usize = 128 * 1024;
/// The most bytes of one write that is not divided.
const MAX_WRITE: usize = 32 * 1024;
/// The most memory of a stream. A vector may have twice the room that it needs.
const MAX_KEPT: usize = 2 * (80 * 1024 + 24 * 1024 + MAX_WRITE + 4 * 1024);
/// rustls ends a connection after this many new keys without other bytes.
const MAX_KEY_UPDATES: u32 = 30;

/// The socket of the stream.
#[derive(Default)]
struct Wire {
    to_server: VecDeque<u8>,
    to_client: Vec<u8>,
    /// The bytes that may be read and written before it is not ready any more.
    may_read: usize,
    may_write: usize,
    has_ended: bool,
    is_shut: bool,
    /// The calls of the current step that moved no byte, and those that did.
    idle_calls: u32,
    busy_calls: u32,
    /// All bytes that were read and written so far.
    moved: usize,
}

impl Wire {
    /// Notes a call that moves no byte. Each call that moved some allows one more.
    fn idle(&mut self) {
        self.idle_calls += 1;
        assert!(self.idle_calls < 3 + self.busy_calls, "it spins");
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.to_server.is_empty() && this.has_ended {
            this.idle();
            return Poll::Ready(Ok(()));
        }
        let count = this.to_server.len().min(this.may_read).min(buf.remaining());
        if count == 0 {
            this.idle();
            return Poll::Pending;
        }
        this.busy_calls += 1;
        this.moved += count;
        this.may_read -= count;
        let bytes: Vec<u8> = this.to_server.drain(..count).collect();
        buf.put_slice(&bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        assert!(!this.is_shut && !bytes.is_empty());
        let count = bytes.len().min(this.may_write);
        if count == 0 {
            this.idle();
            return Poll::Pending;
        }
        this.busy_calls += 1;
        this.moved += count;
        this.may_write -= count;
        this.to_client.extend_from_slice(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().is_shut = true;
        Poll::Ready(Ok(()))
    }
}

/// The settings of the server, and of a client of TLS 1.3 and one of 1.2.
static CONFIGS: LazyLock<(Arc<ServerConfig>, [Arc<ClientConfig>; 2])> = LazyLock::new(|| {
    let made = rcgen::generate_simple_self_signed([HOST.to_owned()]).expect("a certificate");
    let provider = || Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let server = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .expect("a pair");
    let client = |version| {
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).expect("a certificate");
        let mut client = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .expect("a version")
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.resumption = Resumption::disabled();
        Arc::new(client)
    };
    let clients = [&rustls::version::TLS13, &rustls::version::TLS12].map(client);
    (Arc::new(server), clients)
});

/// The byte at a place of what either side sends.
fn pattern(at: usize) -> u8 {
    (at ^ (at >> 8)).wrapping_mul(31) as u8
}

fn patterned(from: usize, count: usize) -> Vec<u8> {
    (from..from + count).map(pattern).collect()
}

/// The bytes that one side has sent, and those of them that the other has got.
#[derive(Default)]
struct Flow {
    sent: usize,
    got: usize,
}

impl Flow {
    fn gets(&mut self, bytes: &[u8]) {
        for byte in bytes {
            assert_eq!(*byte, pattern(self.got), "at {}", self.got);
            self.got += 1;
        }
        assert!(self.got <= self.sent);
    }
}

struct Trial {
    stream: TlsStream<Wire>,
    client: ClientConnection,
    up: Flow,
    down: Flow,
    is_forged: bool,
    has_client_closed: bool,
    is_shutting: bool,
    key_updates: u32,
}

impl Trial {
    fn new(version: u8) -> Self {
        let (server, clients) = &*CONFIGS;
        let config = Arc::clone(&clients[usize::from(version & 1)]);
        let name = ServerName::try_from(HOST).expect("a name");
        let stream = TlsStream::new(Wire::default(), Arc::clone(server));
        Self {
            stream: stream.expect("a good configuration"),
            client: ClientConnection::new(config, name).expect("settings"),
            up: Flow::default(),
            down: Flow::default(),
            is_forged: false,
            has_client_closed: false,
            is_shutting: false,
            key_updates: 0,
        }
    }

    /// Does one step of the input.
    fn step(&mut self, what: u8, count: u8) {
        let count = usize::from(count);
        match what % 16 {
            0 => self.wire().may_read += count,
            1 => self.wire().may_read += 64 * count,
            2 => self.wire().may_write += count,
            3 => self.wire().may_write += 64 * count,
            4 => self.client_sends(count),
            5 => self.client_sends(64 * count),
            6 => self.reads(count + 1),
            7 => self.reads(64 * (count + 1)),
            8 => self.writes(64 * (count + 1)),
            9 => self.writes_now(count * 128 % MAX_WRITE + 1),
            10 => drop(self.flushes()),
            11 => self.receives(),
            12 => self.client_gets(8 * count),
            13 if count < 128 => self.client_changes_keys(),
            13 => self.client_gets(usize::MAX),
            14 => self.forges(count),
            _ => self.ends(count),
        }
        assert!(self.stream.kept() <= MAX_KEPT, "{}", self.stream.kept());
    }

    fn wire(&mut self) -> &mut Wire {
        self.stream.socket_mut()
    }

    /// Polls the stream. It may only wait for what its socket waits for, and may only fail because of
    /// a forged byte.
    fn poll<T>(
        &mut self,
        poll: impl FnOnce(Pin<&mut TlsStream<Wire>>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Option<T> {
        (self.wire().idle_calls, self.wire().busy_calls) = (0, 0);
        let mut cx = Context::from_waker(Waker::noop());
        match poll(Pin::new(&mut self.stream), &mut cx) {
            Poll::Ready(Ok(done)) => Some(done),
            Poll::Ready(Err(error)) => {
                assert!(self.is_forged, "{error}");
                None
            }
            Poll::Pending => {
                assert!(self.wire().idle_calls > 0, "it waits for nothing");
                None
            }
        }
    }

    fn client_sends(&mut self, count: usize) {
        let count = count.min(MAX_SENT - self.up.sent);
        if !self.has_client_closed {
            let bytes = patterned(self.up.sent, count);
            // While the handshake goes on, the client takes 64 KB.
            match self.client.writer().write(&bytes) {
                Ok(taken) => self.up.sent += taken,
                Err(error) => assert!(self.is_forged, "{error}"),
            }
        }
        self.client_flushes();
    }

    fn client_flushes(&mut self) {
        let mut bytes = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut bytes).expect("a vector");
        }
        if !self.wire().has_ended {
            self.wire().to_server.extend(bytes);
        }
    }

    fn client_gets(&mut self, count: usize) {
        let count = count.min(self.wire().to_client.len());
        let bytes: Vec<u8> = self.wire().to_client.drain(..count).collect();
        if self.is_forged && self.has_client_closed {
            // The client's rustls, too, makes no alert behind its own notice.
            return;
        }
        let mut bytes = &bytes[..];
        while !bytes.is_empty() {
            if self.client.read_tls(&mut bytes).expect("a slice") == 0 {
                break;
            }
            if let Err(error) = self.client.process_new_packets() {
                assert!(self.is_forged, "{error}");
                break;
            }
            let mut plain = Vec::new();
            let _ = self.client.reader().read_to_end(&mut plain);
            self.down.gets(&plain);
        }
        self.client_flushes();
    }

    fn client_changes_keys(&mut self) {
        if self.client.is_handshaking() || self.has_client_closed {
            return;
        }
        self.key_updates += 1;
        if self.key_updates <= MAX_KEY_UPDATES {
            // TLS 1.2 has no such message.
            let _ = self.client.refresh_traffic_keys();
        }
        self.client_flushes();
    }

    fn reads(&mut self, room: usize) {
        let mut bytes = vec![0; room];
        let mut buffer = ReadBuf::new(&mut bytes);
        let read = self.poll(|stream, cx| stream.poll_read(cx, &mut buffer));
        let got = buffer.filled().to_vec();
        if read.is_some() && got.is_empty() {
            let is_over = self.has_client_closed || self.is_shutting || self.is_forged;
            let may_end = is_over || self.wire().has_ended;
            assert!(may_end, "the end before the end");
        }
        self.up.gets(&got);
    }

    fn receives(&mut self) {
        if self.stream.takes_more_ahead() && !self.stream.has_ended() {
            self.poll(|stream, cx| stream.get_mut().poll_receive(cx));
        }
    }

    fn may_write(&self) -> bool {
        self.stream.is_ready() && !self.is_shutting && !self.stream.has_failed()
    }

    fn writes(&mut self, count: usize) {
        let count = count.min(MAX_SENT - self.down.sent);
        if count == 0 || !self.may_write() {
            return;
        }
        let bytes = patterned(self.down.sent, count);
        let written = self.poll(|stream, cx| stream.poll_write(cx, &bytes));
        let written = written.unwrap_or(0);
        assert!(written <= count);
        self.down.sent += written;
    }

    /// Writes as a delivery does: all at once.
    fn writes_now(&mut self, count: usize) {
        let count = count.min(MAX_SENT - self.down.sent);
        if count == 0 || !self.may_write() || self.stream.has_unsent() {
            return;
        }
        let bytes = patterned(self.down.sent, count);
        let write = |stream: Pin<&mut TlsStream<Wire>>, cx: &mut Context<'_>| {
            Poll::Ready(stream.get_mut().write_now(&bytes, cx))
        };
        if self.poll(write).is_some() {
            self.down.sent += count;
        }
    }

    fn flushes(&mut self) -> Option<()> {
        self.poll(|stream, cx| stream.poll_flush(cx))
    }

    fn forges(&mut self, at: usize) {
        if let Some(byte) = self.wire().to_server.get_mut(at) {
            *byte ^= 1;
            self.is_forged = true;
        }
    }

    /// Ends a side.
    fn ends(&mut self, how: usize) {
        match how % 8 {
            0 => {
                self.client.send_close_notify();
                self.has_client_closed = true;
                self.client_flushes();
            }
            1 => self.wire().has_ended = true,
            2 if self.stream.is_ready() => {
                self.is_shutting = true;
                self.poll(|stream, cx| stream.poll_shutdown(cx));
            }
            _ => {}
        }
    }

    /// Lets everything through, until nothing moves any more.
    fn finish(&mut self) {
        for _ in 0..10_000 {
            let wire = self.wire();
            (wire.may_read, wire.may_write) = (usize::MAX, usize::MAX);
            let before = self.progress();
            self.client_flushes();
            if !self.stream.has_failed() && !self.stream.has_ended() {
                self.reads(4_096);
            }
            while self.stream.decrypted() > 0 && !self.stream.has_failed() {
                self.reads(4_096);
            }
            if self.is_shutting && !self.wire().is_shut {
                self.poll(|stream, cx| stream.poll_shutdown(cx));
            } else if !self.wire().is_shut {
                self.flushes();
            }
            self.client_gets(usize::MAX);
            if self.progress() == before {
                return;
            }
        }
        panic!("no end");
    }

    fn progress(&mut self) -> [usize; 7] {
        let (moved, left) = (self.wire().moved, self.wire().to_server.len());
        let ahead = self.stream.decrypted();
        let [is_ready, has_ended] = [self.stream.is_ready(), self.stream.has_ended()];
        let counts = [self.up.got, self.down.got, moved, left, ahead];
        let flags = [usize::from(is_ready), usize::from(has_ended)];
        std::array::from_fn(|at| *counts.iter().chain(&flags).nth(at).expect("seven"))
    }
}

/// Checks a stream under the steps of the input: a byte for the version, then two for each step.
pub fn check(input: &[u8]) {
    let Some((&version, steps)) = input.split_first() else {
        return;
    };
    let mut trial = Trial::new(version);
    trial.client_flushes();
    for step in steps.chunks_exact(2).take(512) {
        trial.step(step[0], step[1]);
    }
    trial.finish();
    if trial.is_forged {
        return;
    }
    assert!(!trial.stream.has_failed());
    assert!(!trial.stream.has_unsent());
    assert_eq!(trial.down.got, trial.down.sent, "to the client");
    if !trial.wire().has_ended && !trial.is_shutting {
        assert!(trial.stream.is_ready() || trial.has_client_closed);
        assert!(trial.has_client_closed || trial.up.got == trial.up.sent);
        assert_eq!(trial.stream.kept(), 0, "kept while nothing is under way");
    }
}
