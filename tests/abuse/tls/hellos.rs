//! Handshakes: half-open, very long, of old versions, with other names and protocols, no TLS at all,
//! and by tickets.

use std::process::Stdio;
use std::sync::Arc;

use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, ClientConfig, HandshakeKind, ProtocolVersion};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use holdfast_testkit::tls::{self, HOST};
use holdfast_testkit::{Address, Conn, PATIENCE, eventually, long, many_files, request};

use super::raw::Raw;
use super::{TlsNode, short_get};

const HANDSHAKE: u8 = 22;
const SERVER_HELLO: u8 = 2;
const CERTIFICATE: u8 = 11;

/// A hello of TLS 1.2 or older, whose answer is readable.
struct Hello {
    version: [u8; 2],
    name: Option<&'static str>,
    compressions: &'static [u8],
    padding: usize,
}

impl Hello {
    const USUAL: Self = Self {
        version: [3, 3],
        name: Some(HOST),
        compressions: &[0],
        padding: 0,
    };

    fn message(&self) -> Vec<u8> {
        let list = |items: &[u8]| [&(items.len() as u16).to_be_bytes(), items].concat();
        let extension =
            |kind: u16, content: &[u8]| [&kind.to_be_bytes()[..], &list(content)].concat();
        let mut extensions = Vec::new();
        if let Some(name) = self.name {
            let entry = [&[0], &list(name.as_bytes())[..]].concat();
            extensions.extend(extension(0, &list(&entry)));
        }
        // x25519 and P-256; ECDSA and RSA-PSS with SHA-256; uncompressed points.
        extensions.extend(extension(10, &list(&[0, 29, 0, 23])));
        extensions.extend(extension(13, &list(&[4, 3, 8, 4])));
        extensions.extend(extension(11, &[1, 0]));
        // Without it rustls asks for the extended master secret.
        extensions.extend(extension(23, &[]));
        if self.padding > 0 {
            extensions.extend(extension(21, &vec![0; self.padding]));
        }
        let mut body = self.version.to_vec();
        body.extend([7; 32]);
        body.push(0);
        body.extend(list(&[0xc0, 0x2b, 0xc0, 0x2f]));
        body.push(self.compressions.len() as u8);
        body.extend(self.compressions);
        body.extend(list(&extensions));
        [&[1][..], &(body.len() as u32).to_be_bytes()[1..], &body].concat()
    }

    /// Returns the records of this hello.
    fn records(&self) -> Vec<u8> {
        let record = |part: &[u8]| {
            let head = [HANDSHAKE, 3, 1];
            [&head[..], &(part.len() as u16).to_be_bytes(), part].concat()
        };
        self.message().chunks(16_384).flat_map(record).collect()
    }
}

/// Reads one record of a handshake that is not encrypted yet.
async fn record(conn: &mut Conn) -> (u8, Vec<u8>) {
    let head = conn.read_exact(5).await;
    let length = u16::from_be_bytes([head[3], head[4]]).into();
    (head[0], conn.read_exact(length).await)
}

/// Sends bytes on a connection of their own.
async fn sent(node: &TlsNode, bytes: impl AsRef<[u8]>) -> Conn {
    let mut conn = Conn::open(&Address::Tcp(node.address)).await;
    conn.send(bytes).await;
    conn
}

/// Checks that a connection that has sent these bytes gets this alert and the close.
async fn alerts(node: &TlsNode, bytes: impl AsRef<[u8]>, alert: AlertDescription) {
    let before = node.dropped("bad_tls").await;
    let mut conn = sent(node, bytes).await;
    let (kind, content) = record(&mut conn).await;
    assert_eq!((kind, content), (21, vec![2, alert.into()]), "{alert:?}");
    conn.expect_close().await;
    node.wait_dropped("bad_tls", before + 1.0).await;
}

#[tokio::test]
async fn half_open_handshakes_keep_nobody_waiting_and_end_in_time() {
    let count = if long() { 10_000 } else { 1_000 };
    let _files = many_files(count).await;
    let node = TlsNode::start(&["--head-timeout", "10s", "--max-handshakes", "1"]).await;
    let hello = Hello::USUAL.records();
    let mut open = Vec::new();
    for number in 0..count {
        // Silent ones, half a hello, and a whole one whose client says nothing more.
        let part = &hello[..[0, hello.len() / 2, hello.len()][number as usize % 3]];
        open.push(sent(&node, part).await);
    }
    let accepted = async || node.connections().await >= f64::from(count);
    eventually(accepted, "all are accepted").await;
    for number in 0..5 {
        let key = format!("k{number}");
        let mut held = node.hold(&key).await;
        node.answers(&mut held, &key).await;
    }
    assert_eq!(node.dropped("handshake_timeout").await, 0.0, "they stay");
    let patience = timeout(2 * PATIENCE, async {
        while node.dropped("handshake_timeout").await < f64::from(count) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
    patience.await.expect("all end in time");
    drop(open);
    node.quiet().await;
}

#[tokio::test]
async fn a_client_that_leaves_within_its_handshake_leaves_nothing_and_is_not_counted() {
    let node = TlsNode::start(&[]).await;
    let hello = Hello::USUAL.records();
    for end in [0, 1, 5, hello.len() / 2, hello.len()] {
        let mut conn = sent(&node, &hello[..end]).await;
        conn.shutdown_write().await;
        conn.read_to_end().await;
        drop(sent(&node, &hello[..end]).await);
        Raw::open(node.address, &node.client, HOST).await.reset();
    }
    let mut raw = Raw::open(node.address, &node.client, HOST).await;
    let bytes = [raw.pending(), raw.close_notify()].concat();
    raw.send_raw(bytes).await;
    raw.end().await;
    drop(raw);
    node.quiet().await;
    assert_eq!(node.dropped("bad_tls").await, 0.0);
    assert_eq!(node.dropped("handshake_timeout").await, 0.0);
}

#[tokio::test]
async fn a_hello_of_64_kb_is_taken_and_a_longer_one_is_refused() {
    let node = TlsNode::start(&[]).await;
    let rest = Hello {
        padding: 1,
        ..Hello::USUAL
    }
    .message()
    .len()
        - 1;
    let longest = Hello {
        padding: 65_535 - (rest - 4),
        ..Hello::USUAL
    };
    // Its extensions alone have nearly the length that two bytes can say.
    assert_eq!(longest.message().len(), 65_539);
    let bytes = longest.records();
    let mut conn = sent(&node, &bytes).await;
    let (kind, content) = record(&mut conn).await;
    assert_eq!((kind, content[0]), (HANDSHAKE, SERVER_HELLO));
    drop(conn);
    let mut longer = bytes;
    // The length of the message: 64 KiB and more.
    longer[6] = 1;
    let mut conn = Conn::open(&Address::Tcp(node.address)).await;
    conn.try_send(longer).await;
    conn.expect_close().await;
    drop(conn);
    node.wait_dropped("bad_tls", 1.0).await;
    node.quiet().await;
}

#[tokio::test]
async fn a_hello_in_records_of_one_byte_is_taken_and_an_endless_one_is_refused() {
    let node = TlsNode::start(&[]).await;
    let record_of = |byte: &u8| [HANDSHAKE, 3, 1, 0, 1, *byte];
    let bytes: Vec<u8> = Hello::USUAL.message().iter().flat_map(record_of).collect();
    let mut conn = sent(&node, bytes).await;
    let (kind, content) = record(&mut conn).await;
    assert_eq!((kind, content[0]), (HANDSHAKE, SERVER_HELLO));
    drop(conn);
    let long = Hello {
        padding: 60_000,
        ..Hello::USUAL
    };
    let bytes: Vec<u8> = long.message().iter().flat_map(record_of).collect();
    let mut conn = Conn::open(&Address::Tcp(node.address)).await;
    conn.try_send(bytes).await;
    conn.read_to_end().await;
    node.wait_dropped("bad_tls", 1.0).await;
    drop(conn);
    node.quiet().await;
}

#[tokio::test]
async fn garbage_is_closed_and_counted() {
    let node = TlsNode::start(&[]).await;
    let mut count = 0.0;
    let v2 = [&[0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10][..], &[0; 40]].concat();
    for bytes in [
        v2,
        vec![0; 10],
        vec![0xff; 100_000],
        vec![23, 3, 3, 0, 1, 0],
    ] {
        let mut conn = Conn::open(&Address::Tcp(node.address)).await;
        conn.try_send(&bytes).await;
        conn.expect_close().await;
        count += 1.0;
        node.wait_dropped("bad_tls", count).await;
    }
    alerts(&node, [HANDSHAKE; 100], AlertDescription::DecodeError).await;
    alerts(
        &node,
        [&[HANDSHAKE, 3, 1, 0, 4, 9, 0, 0, 0][..], &[0; 9_000]].concat(),
        AlertDescription::UnexpectedMessage,
    )
    .await;
    node.quiet().await;
}

#[tokio::test]
async fn versions_before_1_2_are_refused_by_an_alert() {
    let node = TlsNode::start(&[]).await;
    for version in [[3, 0], [3, 1], [3, 2]] {
        let hello = Hello {
            version,
            ..Hello::USUAL
        };
        alerts(&node, hello.records(), AlertDescription::ProtocolVersion).await;
    }
    node.quiet().await;
}

#[tokio::test]
async fn a_client_of_1_2_or_of_1_3_alone_is_served() {
    let node = TlsNode::start(&[]).await;
    for (version, name) in [
        (&TLS12, ProtocolVersion::TLSv1_2),
        (&TLS13, ProtocolVersion::TLSv1_3),
    ] {
        let config = Arc::new(tls::client(&[version]).await);
        let mut raw = Raw::connect(node.address, &config).await;
        assert_eq!(raw.tls().protocol_version(), Some(name));
        assert_eq!(raw.ask(short_get("other")).await.code(), -1);
        let key = format!("k{name:?}");
        node.hold_on(&mut raw, &key).await;
        node.answers(&mut raw, &key).await;
    }
    node.quiet().await;
}

#[tokio::test]
async fn a_name_that_no_certificate_has_is_refused_and_no_certificate_is_shown() {
    let node = TlsNode::start(&[]).await;
    for (number, version) in [&TLS12, &TLS13].into_iter().enumerate() {
        let config = Arc::new(tls::client(&[version]).await);
        let mut raw = Raw::open(node.address, &config, "other.example.org").await;
        let refused = raw.shake_hands().await;
        assert_eq!(refused, Err(Some(AlertDescription::UnrecognisedName)));
        assert!(raw.tls().peer_certificates().is_none());
        node.wait_dropped("bad_tls", number as f64 + 1.0).await;
    }
    let hello = Hello {
        name: Some("other.example.org"),
        ..Hello::USUAL
    };
    alerts(&node, hello.records(), AlertDescription::UnrecognisedName).await;
    // Bytes behind the hello do not take the alert away.
    let more = [hello.records(), vec![0; 60_000]].concat();
    alerts(&node, more, AlertDescription::UnrecognisedName).await;
    node.quiet().await;
}

#[tokio::test]
async fn a_client_that_asks_for_an_address_or_for_no_name_gets_the_first_certificate() {
    let node = TlsNode::start(&[]).await;
    for name in [
        Some(HOST),
        Some("a.push.example.com"),
        Some("127.0.0.1"),
        None,
    ] {
        let mut conn = sent(
            &node,
            Hello {
                name,
                ..Hello::USUAL
            }
            .records(),
        )
        .await;
        let (kind, content) = record(&mut conn).await;
        assert_eq!((kind, content[0]), (HANDSHAKE, SERVER_HELLO), "{name:?}");
        // The certificate follows in the same record.
        let hello = u32::from_be_bytes([0, content[1], content[2], content[3]]);
        assert_eq!(content[4 + hello as usize], CERTIFICATE, "{name:?}");
    }
    let mut raw = Raw::open(node.address, &node.client, "127.0.0.1").await;
    assert_eq!(raw.shake_hands().await, Ok(()));
    drop(raw);
    node.quiet().await;
}

#[tokio::test]
async fn a_client_that_speaks_no_protocol_of_the_node_is_refused_by_an_alert() {
    let node = TlsNode::start(&[]).await;
    let with = |protocols: &[&str]| {
        let mut config = ClientConfig::clone(&node.client);
        config.alpn_protocols = protocols
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        Arc::new(config)
    };
    let mut raw = Raw::open(node.address, &with(&["h2"]), HOST).await;
    assert_eq!(
        raw.shake_hands().await,
        Err(Some(AlertDescription::NoApplicationProtocol))
    );
    node.wait_dropped("bad_tls", 1.0).await;
    drop(raw);
    for protocols in [&["http/1.1"][..], &["h2", "http/1.1"], &["http/1.1", "h2"]] {
        let mut raw = Raw::connect(node.address, &with(protocols)).await;
        assert_eq!(raw.tls().alpn_protocol(), Some(&b"http/1.1"[..]));
        assert_eq!(raw.ask(short_get("k")).await.code(), -1);
    }
    let mut raw = node.connect().await;
    assert_eq!(raw.tls().alpn_protocol(), None);
    assert_eq!(raw.ask(short_get("k")).await.code(), -1);
    drop(raw);
    node.quiet().await;
}

#[tokio::test]
async fn a_request_without_tls_gets_400_in_clear_text_and_the_close() {
    let node = TlsNode::start(&[]).await;
    let post = request("POST", "/status/get?key=k", &[], &vec![b'x'; 100_000]);
    let get = short_get("k");
    let (half, pipelined) = (get[..10].to_vec(), get.repeat(100));
    for (number, bytes) in [get, half, pipelined, post].into_iter().enumerate() {
        let mut conn = sent(&node, bytes).await;
        let answer = conn.read_response().await;
        assert_eq!(answer.status, 400);
        assert_eq!(answer.header("connection"), Some("close"));
        assert_eq!(
            answer.text(),
            "This port speaks TLS. Use https:// in the URL."
        );
        conn.expect_close().await;
        drop(conn);
        node.wait_dropped("bad_tls", number as f64 + 1.0).await;
    }
    node.quiet().await;
}

#[tokio::test]
async fn tls_on_the_plain_port_is_closed_with_one_line_that_says_so() {
    let node = TlsNode::start(&[]).await;
    let mut conn = Conn::open(&node.node.public).await;
    conn.send(Hello::USUAL.records()).await;
    assert_eq!(conn.read_to_end().await, b"");
    node.wait_dropped("bad_head", 1.0).await;
    node.quiet().await;
    let why = "the client speaks TLS, and this listener does not";
    eventually(
        async || node.node.logs().iter().any(|line| line.contains(why)),
        why,
    )
    .await;
    let lines = node.node.logs();
    let of_connections = |line: &&String| line.contains("holdfast::net::connection");
    assert_eq!(lines.iter().filter(of_connections).count(), 1, "{lines:?}");
}

#[tokio::test]
async fn a_client_of_1_2_cannot_renegotiate() {
    let node = TlsNode::start(&[]).await;
    let address = node.address.to_string();
    let mut client = Command::new("openssl")
        .args([
            "s_client",
            "-tls1_2",
            "-connect",
            &address,
            "-servername",
            HOST,
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("openssl");
    let mut input = client.stdin.take().expect("piped");
    input.write_all(b"R\n").await.expect("it reads");
    let ended = timeout(PATIENCE, client.wait_with_output()).await;
    let output = ended.expect("in time").expect("an end");
    drop(input);
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(text.contains("RENEGOTIATING"), "{text}");
    assert!(text.contains("no renegotiation"), "{text}");
    node.quiet().await;
}

#[tokio::test]
async fn a_client_that_offers_compression_gets_none() {
    let node = TlsNode::start(&[]).await;
    let hello = Hello {
        compressions: &[1, 0],
        ..Hello::USUAL
    };
    let mut conn = sent(&node, hello.records()).await;
    let (kind, hello) = record(&mut conn).await;
    assert_eq!((kind, hello[0]), (HANDSHAKE, SERVER_HELLO));
    // The length of the session's id, the suite, and then the compression.
    let id = usize::from(hello[4 + 2 + 32]);
    assert_eq!(hello[4 + 2 + 32 + 1 + id + 2], 0);
    drop(conn);
    node.quiet().await;
}

#[tokio::test]
async fn a_ticket_shortens_the_next_handshake_at_its_own_node_only() {
    for version in [&TLS12, &TLS13] {
        let node = TlsNode::start(&[]).await;
        let other = TlsNode::start(&[]).await;
        let config = Arc::new(tls::client(&[version]).await);
        let mut kinds = Vec::new();
        for node in [&node, &node, &other, &other] {
            let mut raw = Raw::connect(node.address, &config).await;
            // The tickets come before the answer.
            assert_eq!(raw.ask(short_get("k")).await.code(), -1);
            kinds.push(raw.kind());
        }
        use HandshakeKind::{Full, Resumed};
        assert_eq!(kinds, [Full, Resumed, Full, Resumed], "{version:?}");
        for node in [&node, &other] {
            let name = |kind| format!("holdfast_tls_handshakes_total{{kind=\"{kind}\"}}");
            assert_eq!(node.node.metric(&name("resumed")).await, 1.0);
            assert_eq!(node.node.metric(&name("full")).await, 1.0);
            assert_eq!(node.dropped("bad_tls").await, 0.0);
            node.quiet().await;
        }
    }
}
