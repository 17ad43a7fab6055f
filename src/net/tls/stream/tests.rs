use std::future::poll_fn;
use std::io::{Read, Write};

use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;

const HOST: &str = "a.example.com";

/// A stream whose handshake is done, and its client, whose socket has room for `room` bytes.
struct Pair {
    stream: TlsStream<DuplexStream>,
    client: ClientConnection,
    socket: DuplexStream,
}

impl Pair {
    async fn new(room: usize) -> Self {
        let made = rcgen::generate_simple_self_signed([HOST.to_owned()]).expect("a certificate");
        let provider = || Arc::new(rustls::crypto::ring::default_provider());
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())
            .expect("a pair");
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).expect("a certificate");
        let trusts = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(HOST).expect("a name");
        let (socket, servers) = duplex(room);
        let mut pair = Self {
            stream: TlsStream::new(servers, Arc::new(config)).expect("a good configuration"),
            client: ClientConnection::new(Arc::new(trusts), name).expect("settings"),
            socket,
        };
        while pair.client.is_handshaking() || !pair.stream.is_ready() {
            let hello = pair.pending();
            pair.socket.write_all(&hello).await.expect("room");
            receive_all(&mut pair.stream);
            poll_fn(|cx| pair.stream.poll_send_all(cx))
                .await
                .expect("room");
            pair.client_reads().await;
        }
        pair
    }

    /// Returns the bytes that the client has to send.
    fn pending(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut bytes).expect("a vector");
        }
        bytes
    }

    /// Returns the records of bytes.
    fn records(&mut self, plain: &[u8]) -> Vec<u8> {
        self.client.writer().write_all(plain).expect("room");
        self.pending()
    }

    /// Has the client decrypt what is there. Returns the bytes, and an error of its TLS.
    async fn client_reads(&mut self) -> (Vec<u8>, Option<rustls::Error>) {
        let mut bytes = vec![0; 64 * 1024];
        let read = self.socket.read(&mut bytes);
        let Ok(read) = tokio::time::timeout(std::time::Duration::ZERO, read).await else {
            return (Vec::new(), None);
        };
        let mut bytes = &bytes[..read.expect("an open socket")];
        let (mut plain, mut failed) = (Vec::new(), None);
        while !bytes.is_empty() && failed.is_none() {
            self.client.read_tls(&mut bytes).expect("a slice");
            failed = self.client.process_new_packets().err();
            let _ = self.client.reader().read_to_end(&mut plain);
        }
        (plain, failed)
    }

    fn keeps_nothing(&self) -> bool {
        self.stream.kept() == 0
    }
}

/// Has the stream receive what is in the socket. Returns an error of it.
fn receive_all(stream: &mut TlsStream<DuplexStream>) -> Option<io::Error> {
    let mut cx = Context::from_waker(std::task::Waker::noop());
    loop {
        match stream.poll_receive(&mut cx) {
            Poll::Ready(Ok(())) if !stream.has_ended() => {}
            Poll::Ready(received) => return received.err(),
            Poll::Pending => return None,
        }
    }
}

#[tokio::test]
async fn no_buffer_is_kept_while_nothing_is_under_way() {
    let mut pair = Pair::new(64 * 1024).await;
    assert!(pair.keeps_nothing(), "after the handshake");
    let record = pair.records(&[b'x'; 10_000]);
    let mut bytes = [0; 10_000];
    // Torn, so that something is kept between the two.
    for part in [&record[..5_000], &record[5_000..]] {
        pair.socket.write_all(part).await.expect("room");
        assert!(receive_all(&mut pair.stream).is_none());
        assert!(!pair.keeps_nothing());
    }
    pair.stream.read_exact(&mut bytes).await.expect("bytes");
    assert!(pair.keeps_nothing(), "after a request");
    pair.stream.write_all(&[b'y'; 20_000]).await.expect("room");
    pair.stream.flush().await.expect("room");
    assert!(pair.keeps_nothing(), "after an answer");
    assert_eq!(pair.client_reads().await.0, [b'y'; 20_000]);
    pair.client.refresh_traffic_keys().expect("TLS 1.3");
    let update = pair.pending();
    pair.socket.write_all(&update).await.expect("room");
    assert!(receive_all(&mut pair.stream).is_none());
    assert!(pair.keeps_nothing(), "after new keys");
}

#[tokio::test]
async fn what_the_socket_does_not_take_is_kept_whole_and_freed_when_it_is_sent() {
    let mut pair = Pair::new(4_096).await;
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let answer: Vec<u8> = (0..200_000_u32).map(|at| at as u8).collect();
    pair.stream.write_now(&answer, &mut cx).expect("no mistake");
    assert!(pair.stream.has_unsent());
    let mut got = Vec::new();
    while got.len() < answer.len() {
        let (plain, failed) = pair.client_reads().await;
        assert_eq!(failed, None);
        got.extend(plain);
        let _ = pair.stream.poll_send_all(&mut cx).is_ready();
    }
    assert!(got == answer && pair.keeps_nothing());
}

#[tokio::test]
async fn after_a_forged_record_there_is_one_alert_and_nothing_is_kept_or_read_any_more() {
    let mut pair = Pair::new(64 * 1024).await;
    let mut record = pair.records(b"good");
    *record.last_mut().expect("a record") ^= 1;
    let good = pair.records(b"more");
    pair.socket.write_all(&record).await.expect("room");
    pair.socket.write_all(&good).await.expect("room");
    let failed = receive_all(&mut pair.stream).expect("a failure");
    assert_eq!(failed.kind(), io::ErrorKind::InvalidData);
    assert!(pair.stream.has_failed() && pair.keeps_nothing());
    let (plain, failed) = pair.client_reads().await;
    let alert = rustls::AlertDescription::BadRecordMac;
    assert_eq!(plain, b"");
    assert_eq!(failed, Some(rustls::Error::AlertReceived(alert)));
    // A shutdown and a write send nothing more.
    assert!(pair.stream.write(b"answer").await.is_err());
    pair.stream.shutdown().await.expect("an open socket");
    let mut rest = Vec::new();
    pair.socket.read_to_end(&mut rest).await.expect("the end");
    assert_eq!(rest, b"");
}
