//! Sockets that the process was started with, as systemd passes them.

use std::net::SocketAddr;

use holdfast_testkit::tls::{self, HOST};
use holdfast_testkit::{Conn, Launch, free_port, request};

/// Opens sockets on the ports in its environment, and becomes the program with these as its
/// descriptors from 3 on.
const SYSTEMD: &str = r#"exec /usr/bin/python3 -c '
import os, socket, sys
sockets = [socket.create_server(("127.0.0.1", int(port))) for port in os.environ["PORTS"].split()]
for at, one in enumerate(sockets):
    os.dup2(one.fileno(), 20 + at)
for at in range(len(sockets)):
    os.dup2(20 + at, 3 + at, inheritable=True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(sockets)))
os.execv(sys.argv[1], sys.argv[1:])
' "$0" "$@""#;

#[tokio::test]
async fn a_node_listens_on_the_sockets_that_it_was_started_with() {
    let ports = [free_port(), free_port()];
    let [plain, with_tls] = ports.map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let flags = tls::flags().await;
    let args = [&["--public", "fd:3", "--public-tls", "fd:4"], &flags[2..]].concat();
    let mut node = Launch::new(&args)
        .env("PORTS", &format!("{} {}", ports[0], ports[1]))
        .under(SYSTEMD)
        .start()
        .await;
    assert_eq!((node.public.tcp(), node.tls), (plain, Some(with_tls)));
    let mut held = node.hold("key=k").await;
    let mut conn = Conn::over(tls::connect(with_tls, HOST).await);
    conn.send(request("GET", "/status/get?key=k", &[], b""))
        .await;
    node.wait_key_waiters("k", 2).await;
    let version = node.set_ok("k", "1").await;
    assert_eq!(held.answer().await.version(), version);
    assert_eq!(conn.read_response().await.version(), version);
    assert!(node.terminate().await.success());
}

#[tokio::test]
async fn a_socket_that_no_flag_uses_is_warned_of() {
    let ports = [free_port(), free_port()];
    let node = Launch::new(&["--public", "fd:4"])
        .env("PORTS", &format!("{} {}", ports[0], ports[1]))
        .under(SYSTEMD)
        .start()
        .await;
    assert_eq!(
        node.public.tcp(),
        SocketAddr::from(([127, 0, 0, 1], ports[1]))
    );
    let logs = node.logs().join("\n");
    assert!(logs.contains("no flag uses the socket fd:3 "), "{logs}");
    assert!(!logs.contains("socket fd:4 "), "{logs}");
}

#[tokio::test]
async fn a_socket_that_was_not_passed_is_a_clear_error() {
    let finished = Launch::new(&["--public", "fd:3"]).run().await;
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    let said = "cannot listen on fd:3 (--public): the process was started without this socket";
    assert!(finished.stderr.contains(said), "{finished:?}");
    let finished = Launch::new(&["--internal", "fd:3"]).run().await;
    assert_eq!(finished.status.code(), Some(64), "{finished:?}");
    let said = "only public listeners take a socket that systemd passes";
    assert!(finished.stderr.contains(said), "{finished:?}");
    for (place, said) in [
        ("fd:2", "'2' is not the number of a socket"),
        ("fd:a", "'a' is not the number of a socket"),
    ] {
        let finished = Launch::new(&["--public", place]).run().await;
        assert_eq!(finished.status.code(), Some(64), "{finished:?}");
        assert!(finished.stderr.contains(said), "{finished:?}");
    }
}
