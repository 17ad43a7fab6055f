//! The PROXY protocol, by which a proxy names its client (`--proxy-protocol`): who may speak it,
//! and what is done with what is no good header.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream, UnixStream};

use holdfast_testkit::http2::{CANCEL, Http2, RST_STREAM, frame};
use holdfast_testkit::{
    Address, Conn, Launch, Node, Scratch, Socket, UPGRADE, eventually, request, tls,
};

/// The flags of a node behind proxies of this machine.
pub(crate) const BEHIND_A_PROXY: [&str; 3] = ["--proxy-protocol", "--trusted-proxy", "127.0.0.0/8"];

/// Returns a header of version 1.
pub(crate) fn text(client: &str) -> Vec<u8> {
    match client.parse().expect("an address") {
        IpAddr::V4(_) => format!("PROXY TCP4 {client} 192.0.2.1 51234 443\r\n"),
        IpAddr::V6(_) => format!("PROXY TCP6 {client} 2001:db8:ffff::1 51234 443\r\n"),
    }
    .into_bytes()
}

/// Returns a header of version 2 with this command, this family and these bytes.
fn binary_of(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
    let start = b"\r\n\r\n\0\r\nQUIT\n";
    [&start[..], &[command, family], &length, rest].concat()
}

/// Returns a header of version 2, with extensions (type, length and value of each) behind it.
fn binary(client: &str, extensions: &[u8]) -> Vec<u8> {
    let ports = [0xc8, 0x22, 1, 0xbb];
    match client.parse().expect("an address") {
        IpAddr::V4(ip) => {
            let rest = [&ip.octets()[..], &[192, 0, 2, 1], &ports, extensions].concat();
            binary_of(0x21, 0x11, &rest)
        }
        IpAddr::V6(ip) => {
            let rest = [&ip.octets()[..], &[9; 16], &ports, extensions].concat();
            binary_of(0x21, 0x21, &rest)
        }
    }
}

/// Connects from an address of this machine.
async fn connect_from(node: &Node, address: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    let local = SocketAddr::new(address.parse().expect("an address"), 0);
    socket.bind(local).expect("all of 127.0.0.0/8 are here");
    socket.connect(node.public.tcp()).await.expect("accepted")
}

/// Connects to the listener without TLS, and sends a header.
pub(crate) async fn connect(node: &Node, header: &[u8]) -> Conn {
    let stream = TcpStream::connect(node.public.tcp()).await;
    let mut conn = Conn::over(stream.expect("accepted"));
    conn.send(header).await;
    conn
}

fn short_poll() -> Vec<u8> {
    request("GET", "/status/get?key=k&wait=0", &[], b"")
}

async fn dropped(node: &Node, reason: &str) -> f64 {
    node.metric(&format!("holdfast_dropped_total{{reason=\"{reason}\"}}"))
        .await
}

/// Returns the address of the node's listener with TLS.
pub(crate) fn tls_address(node: &Node) -> SocketAddr {
    let logs = node.logs();
    let lines = logs
        .iter()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut bound = lines.filter(|line| line["listener"] == "public-tls");
    let address = bound.next().expect("a listener")["address"].clone();
    address.as_str().expect("a text").parse().expect("one")
}

fn count_logged(node: &Node, level: &str, text: &str) -> usize {
    let level = format!("\"level\":\"{level}\"");
    let logs = node.logs();
    let of_it = |line: &&String| line.contains(&level) && line.contains(text);
    logs.iter().filter(of_it).count()
}

/// Headers that are good, each with its name.
fn good() -> Vec<(&'static str, Vec<u8>)> {
    // An extension without a meaning, one of a checksum, and padding.
    let extensions = [
        &[0xe0, 0, 3, 1, 2, 3, 3, 0, 4, 0, 0, 0, 0, 4, 1, 0][..],
        &[0; 256],
    ]
    .concat();
    let longest = [&[4, 0x0f, 0xe1][..], &[0; 4065]].concat();
    vec![
        ("v1, IPv4", text("203.0.113.7")),
        ("v1, IPv6", text("2001:db8::7")),
        ("v1, longest", b"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n".to_vec()),
        ("v1, shortest", b"PROXY TCP6 :: :: 0 0\r\n".to_vec()),
        ("v1, unknown", b"PROXY UNKNOWN\r\n".to_vec()),
        ("v1, unknown with more", b"PROXY UNKNOWN ::1 ::2 1 2\r\n".to_vec()),
        ("v2, IPv4", binary("203.0.113.7", b"")),
        ("v2, IPv6", binary("2001:db8::7", b"")),
        ("v2, extensions", binary("203.0.113.7", &extensions)),
        ("v2, longest", binary("203.0.113.7", &longest)),
        ("v2, unspecified", binary_of(0x21, 0x00, b"")),
        ("v2, unspecified with more", binary_of(0x21, 0x00, &[1; 30])),
        ("v2, unix", binary_of(0x21, 0x31, &[b'x'; 216])),
        ("v2, local", binary_of(0x20, 0x00, b"")),
        ("v2, local with an address", binary_of(0x20, 0x11, &[203, 0, 113, 7, 1, 2, 3, 4, 5, 6, 7, 8])),
    ]
}

#[tokio::test]
async fn each_form_of_a_header_is_taken_and_the_bytes_behind_it_are_the_requests() {
    let node = Node::start(&BEHIND_A_PROXY).await;
    for (name, header) in good() {
        // All of it in one packet, with two requests.
        let mut conn = connect(&node, &[header, short_poll(), short_poll()].concat()).await;
        for _ in 0..2 {
            assert_eq!(conn.read_response().await.code(), -1, "{name}");
        }
        assert_eq!(conn.ask(short_poll()).await.code(), -1, "{name}");
    }
    assert_eq!(dropped(&node, "bad_proxy_header").await, 0.0);
}

#[tokio::test]
async fn a_header_may_be_torn_at_each_byte() {
    let node = Node::start(&BEHIND_A_PROXY).await;
    for header in [
        text("203.0.113.7"),
        b"PROXY UNKNOWN\r\n".to_vec(),
        binary("2001:db8::7", &[4, 0, 2, 0, 0]),
    ] {
        let whole = [header, short_poll()].concat();
        for cut in 1..whole.len() {
            let mut stream = TcpStream::connect(node.public.tcp()).await.unwrap();
            stream.set_nodelay(true).unwrap();
            stream.write_all(&whole[..cut]).await.unwrap();
            tokio::task::yield_now().await;
            stream.write_all(&whole[cut..]).await.unwrap();
            let answer = Conn::over(stream).read_response().await;
            assert_eq!(answer.code(), -1, "{cut}: {whole:?}");
        }
        // Byte by byte.
        let mut stream = TcpStream::connect(node.public.tcp()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        for byte in &whole {
            stream.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(Conn::over(stream).read_response().await.code(), -1);
    }
}

#[tokio::test]
async fn what_is_no_good_header_is_closed_counted_and_warned_of_once_a_minute() {
    let mut args = BEHIND_A_PROXY.to_vec();
    args.extend(["--log", "debug"]);
    let node = Node::start(&args).await;
    let too_long = [&b"PROXY UNKNOWN "[..], &[b'x'; 100], b"\r\n"].concat();
    let bad = [
        ("a request", short_poll()),
        ("TLS", vec![22, 3, 1, 2, 0, 1, 0]),
        (
            "the word in small letters",
            b"proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n".to_vec(),
        ),
        ("no space", b"PROXYXTCP4 1.2.3.4 1.2.3.4 1 2\r\n".to_vec()),
        (
            "v1, unknown family",
            b"PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n".to_vec(),
        ),
        ("v1, UDP", b"PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n".to_vec()),
        (
            "v1, no address",
            b"PROXY TCP4 1.2.3.4.5 1.2.3.4 1 2\r\n".to_vec(),
        ),
        (
            "v1, of another family",
            b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n".to_vec(),
        ),
        (
            "v1, a name",
            b"PROXY TCP4 localhost localhost 1 2\r\n".to_vec(),
        ),
        (
            "v1, a port too high",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n".to_vec(),
        ),
        (
            "v1, no carriage return",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n\n\n".to_vec(),
        ),
        (
            "v1, a line feed within",
            b"PROXY\nTCP4 1.2.3.4 1.2.3.4 1 2\r\n".to_vec(),
        ),
        ("v1, too long", too_long),
        ("v2, version 1", binary_of(0x11, 0x11, &[1; 12])),
        ("v2, unknown command", binary_of(0x22, 0x11, &[1; 12])),
        ("v2, unknown family", binary_of(0x21, 0x41, &[1; 12])),
        ("v2, unknown transport", binary_of(0x21, 0x13, &[1; 12])),
        ("v2, UDP", binary_of(0x21, 0x12, &[1; 12])),
        (
            "v2, too short for its family",
            binary_of(0x21, 0x21, &[1; 35]),
        ),
        ("v2, empty", binary_of(0x21, 0x11, b"")),
        ("v2, too long", binary_of(0x21, 0x11, &[0; 4081])),
    ];
    let count = bad.len();
    for (at, (name, sent)) in bad.into_iter().enumerate() {
        let stream = TcpStream::connect(node.public.tcp()).await.unwrap();
        let mut conn = Conn::over(stream);
        conn.try_send(sent).await;
        conn.try_send(short_poll()).await;
        assert_eq!(conn.read_to_end().await, b"", "{name}");
        let counted = async || dropped(&node, "bad_proxy_header").await == (at + 1) as f64;
        eventually(counted, name).await;
    }
    let debug_lines = || count_logged(&node, "DEBUG", "closed a connection of a proxy");
    eventually(async || debug_lines() == count, "a debug line of each").await;
    assert_eq!(
        count_logged(&node, "WARN", "closed a connection of a proxy"),
        1
    );
    node.quiet().await;
}

#[tokio::test]
async fn a_header_that_is_not_whole_in_time_is_closed_and_one_that_leaves_is_no_fault() {
    let args = [&BEHIND_A_PROXY[..], &["--head-timeout", "300ms"]].concat();
    let node = Node::start(&args).await;
    for begun in [
        &b""[..],
        b"PROXY TCP4 203",
        &binary("203.0.113.7", b"")[..20],
    ] {
        let mut conn = connect(&node, begun).await;
        conn.expect_close().await;
    }
    assert_eq!(dropped(&node, "bad_proxy_header").await, 3.0);
    // A balancer that only looks whether the port is open.
    for begun in [&b""[..], b"PROXY TCP4 203"] {
        let mut conn = connect(&node, begun).await;
        conn.shutdown_write().await;
        conn.expect_close().await;
    }
    assert_eq!(dropped(&node, "bad_proxy_header").await, 3.0);
    // The time of the head begins behind the header.
    let mut conn = connect(&node, &text("203.0.113.7")).await;
    conn.expect_close().await;
    assert_eq!(dropped(&node, "head_timeout").await, 1.0);
}

#[tokio::test]
async fn who_is_no_trusted_proxy_is_closed_even_with_a_good_header() {
    let trusted = [
        "--proxy-protocol",
        "--trusted-proxy",
        "127.0.0.2/31,192.0.2.0/24",
    ];
    let node = Node::start(&[&trusted[..], &["--log", "debug"]].concat()).await;
    for (address, served) in [
        ("127.0.0.1", false),
        ("127.0.0.2", true),
        ("127.0.0.3", true),
        ("127.0.0.4", false),
    ] {
        let mut conn = Conn::over(connect_from(&node, address).await);
        let sent = [text("203.0.113.7"), short_poll()].concat();
        conn.try_send(sent).await;
        if served {
            assert_eq!(conn.read_response().await.code(), -1, "{address}");
        } else {
            assert_eq!(conn.read_to_end().await, b"", "{address}");
        }
    }
    eventually(
        async || dropped(&node, "untrusted_proxy").await == 2.0,
        "both are counted",
    )
    .await;
    let message = "not of a trusted proxy";
    eventually(
        async || count_logged(&node, "DEBUG", message) == 2,
        "in the log",
    )
    .await;
    assert_eq!(count_logged(&node, "WARN", message), 1);
    // The internal listener has no proxy in front.
    assert_eq!(
        node.internal("GET", "/health/live", &[], b"").await.status,
        200
    );
}

#[tokio::test]
async fn proxies_on_a_unix_socket_are_trusted_if_they_are_named() {
    let scratch = Scratch::new();
    let (one, other) = (scratch.socket("one"), scratch.socket("other"));
    for (public, trusted, served) in [(&one, "unix:", true), (&other, "0.0.0.0/0", false)] {
        let args = [
            "--public",
            public,
            "--proxy-protocol",
            "--trusted-proxy",
            trusted,
        ];
        let node = Launch::new(&args).start().await;
        let Address::Unix(path) = &node.public else {
            panic!("a unix socket: {:?}", node.public);
        };
        let mut conn = Conn::over(UnixStream::connect(path).await.unwrap());
        conn.try_send([binary("203.0.113.7", b""), short_poll()].concat())
            .await;
        if served {
            assert_eq!(conn.read_response().await.code(), -1);
        } else {
            assert_eq!(conn.read_to_end().await, b"");
        }
    }
}

#[tokio::test]
async fn the_address_of_a_flood_is_logged() {
    let flags = tls::flags().await;
    let flags = flags.iter().copied().chain(["--http2"]);
    let args: Vec<_> = BEHIND_A_PROXY.into_iter().chain(flags).collect();
    let node = Node::start(&args).await;
    let mut socket = TcpStream::connect(tls_address(&node)).await.unwrap();
    socket.write_all(&text("203.0.113.7")).await.unwrap();
    let mut client = Http2::over(socket).await;
    client.begin(&[]).await;
    let mut bytes = Vec::new();
    for _ in 0..1_000 {
        let (stream, get) = client.get_bytes("/status/get?key=k");
        bytes.extend(get);
        bytes.extend(frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()));
    }
    client.try_send_bytes(bytes).await;
    let is_logged = async || count_logged(&node, "WARN", "\"address\":\"203.0.113.7\"") == 1;
    eventually(is_logged, "the flood is logged").await;
    assert_eq!(dropped(&node, "flood").await, 1.0);
}

#[tokio::test]
async fn the_header_comes_before_tls_and_not_within_it() {
    let flags = tls::flags().await;
    let flags = flags.iter().copied();
    let args: Vec<_> = BEHIND_A_PROXY.into_iter().chain(flags).collect();
    let node = Node::start(&args).await;
    let address = tls_address(&node);
    for (key, header) in [
        ("a", text("203.0.113.7")),
        ("b", binary("2001:db8::7", b"")),
    ] {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(&header).await.unwrap();
        let stream = tls::over(socket, tls::HOST).await;
        let mut conn = Conn::over(stream);
        assert_eq!(conn.ask(short_poll()).await.code(), -1);
        // The key is held, and answered over the same connection.
        conn.send(request("GET", &format!("/status/get?key={key}"), &[], b""))
            .await;
        node.wait_key_waiters(key, 1).await;
        node.set_ok(key, "1").await;
        assert_eq!(conn.read_response().await.code(), 0);
        // One header a connection: within TLS it is no request.
        conn.send(&header).await;
        assert_ne!(
            conn.response_or_close()
                .await
                .map_or(400, |answer| answer.status),
            200
        );
    }
    // TLS that begins without a header.
    let mut conn = Conn::over(TcpStream::connect(address).await.unwrap());
    conn.try_send([&[22, 3, 1, 0, 100][..], &[0; 100]].concat())
        .await;
    assert_eq!(conn.read_to_end().await, b"");
    assert_eq!(dropped(&node, "bad_proxy_header").await, 1.0);
}

#[tokio::test]
async fn streams_and_sockets_come_through_a_proxy_as_gets_do() {
    let node = Node::start(&BEHIND_A_PROXY).await;
    let mut conn = connect(&node, &text("203.0.113.7")).await;
    conn.send(request("GET", "/status/ws?key=k", &UPGRADE, b""))
        .await;
    let mut socket = Socket::read(conn).await;
    node.wait_key_waiters("k", 1).await;
    let version = node.set_ok("k", "1").await;
    assert_eq!(socket.message().await["version"], version);
}

#[tokio::test]
async fn connections_under_way_in_their_header_do_not_outlast_a_drain() {
    let args = [
        "--head-timeout",
        "1m",
        "--drain-quiet",
        "50ms",
        "--drain-grace",
        "5s",
    ];
    let mut node = Node::start(&[&BEHIND_A_PROXY[..], &args].concat()).await;
    let mut begun = connect(&node, b"PROXY TCP4 203.").await;
    let accepted = r#"holdfast_connections{listener="public"}"#;
    eventually(
        async || node.metric(accepted).await == 1.0,
        "it is accepted",
    )
    .await;
    node.signal("TERM").await;
    begun.patience = Duration::from_secs(10);
    begun.expect_close().await;
    assert_eq!(node.wait_exit().await.code(), Some(0));
}

#[tokio::test]
async fn without_trusted_proxies_the_protocol_is_a_mistake_and_networks_are_checked() {
    let ended = Launch::new(&["--proxy-protocol"]).run().await;
    assert_eq!(ended.status.code(), Some(64));
    assert!(
        ended
            .stderr
            .contains("--proxy-protocol: needs --trusted-proxy"),
        "{}",
        ended.stderr
    );
    let args = [
        "--proxy-protocol",
        "--trusted-proxy",
        "10.0.0.1/8",
        "--trusted-proxy",
        "nginx",
    ];
    let ended = Launch::new(&args).run().await;
    for mistake in ["--trusted-proxy '10.0.0.1/8'", "--trusted-proxy 'nginx'"] {
        assert!(ended.stderr.contains(mistake), "{}", ended.stderr);
    }
}
