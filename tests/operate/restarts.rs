//! A single node restarts on a socket that outlives it, as systemd's sockets do.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use holdfast_testkit::{
    Launch, PATIENCE, Redis, Response, Scratch, eventually, free_port, request,
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Holds a listening socket, as systemd does while it starts a service again. Prints its port, and
/// passes it to whoever connects to the unix socket that is named.
const HOLDER: &str = r#"
import socket, sys
held = socket.create_server(("127.0.0.1", 0), backlog=4096)
asked = socket.socket(socket.AF_UNIX)
asked.bind(sys.argv[1])
asked.listen()
print(held.getsockname()[1], flush=True)
while True:
    one, _ = asked.accept()
    socket.send_fds(one, [b"socket"], [held.fileno()])
    one.close()
"#;

/// Becomes the program with the socket of [`HOLDER`] as its descriptor 3.
const HELD: &str = r#"exec /usr/bin/python3 -c '
import os, socket, sys
asked = socket.socket(socket.AF_UNIX)
asked.connect(os.environ["HOLDER"])
_, sockets, _, _ = socket.recv_fds(asked, 16, 1)
os.dup2(sockets[0], 20)
os.dup2(20, 3, inheritable=True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[1], sys.argv[1:])
' "$0" "$@""#;

/// Starts the holder. Returns it with the address of its socket.
async fn hold_a_socket(path: &Path) -> (Child, SocketAddr) {
    let mut holder = Command::new("/usr/bin/python3")
        .args(["-c", HOLDER])
        .arg(path)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("Python");
    let mut lines = BufReader::new(holder.stdout.take().expect("piped")).lines();
    let port = timeout(PATIENCE, lines.next_line()).await.expect("a port");
    let port = port.expect("output").expect("a line");
    let address = SocketAddr::from(([127, 0, 0, 1], port.parse().expect("a port")));
    (holder, address)
}

/// Sends one get on a connection of its own. Fails if the connection is refused or reset, or if it
/// ends without a whole answer.
async fn ask(address: SocketAddr, query: &str) -> Result<Response, String> {
    let asked = async {
        let mut stream = TcpStream::connect(address)
            .await
            .map_err(|error| format!("connect: {error}"))?;
        let close = [("connection", "close")];
        let target = format!("/status/get?{query}");
        stream
            .write_all(&request("GET", &target, &close, b""))
            .await
            .map_err(|error| format!("write: {error}"))?;
        let mut read = Vec::new();
        match stream.read_to_end(&mut read).await {
            Ok(0) => Err("the end, and no answer".into()),
            Ok(_) => Ok(Response::whole(&read)),
            Err(error) => Err(format!("read: {error}")),
        }
    };
    timeout(PATIENCE, asked)
        .await
        .unwrap_or_else(|_| Err("nothing in time".into()))
}

/// Waits for the statuses of a key, as a page does, until `is_over`. Reports each value.
async fn wait_for_all(
    address: SocketAddr,
    key: String,
    seen: watch::Sender<u64>,
    is_over: Arc<AtomicBool>,
) {
    let mut last = 0;
    while !is_over.load(Ordering::Relaxed) {
        let answer = ask(address, &format!("key={key}&last={last}&wait=2"))
            .await
            .unwrap_or_else(|fault| panic!("{key}: {fault}"));
        match answer.code() {
            0 => {
                last = answer.version();
                seen.send_replace(answer.json()["value"].as_u64().expect("a number"));
            }
            -1 => {}
            // The node drains, or its store is not there yet.
            -2 | -6 => sleep(Duration::from_millis(50)).await,
            code => panic!("{key}: {code}"),
        }
    }
}

/// Sends a set, and returns whether it was stored.
async fn is_stored(internal: SocketAddr, set: &[u8]) -> bool {
    let Ok(mut stream) = TcpStream::connect(internal).await else {
        return false;
    };
    let mut read = Vec::new();
    stream.write_all(set).await.is_ok()
        && stream.read_to_end(&mut read).await.is_ok()
        && read.starts_with(b"HTTP/1.1 200 ")
}

/// Sets the next status of a key each time its page has seen the last one. Returns how many it
/// set. Sets are sent again while no node is there: only public listeners are passed.
async fn set_each(
    internal: SocketAddr,
    key: String,
    mut seen: watch::Receiver<u64>,
    is_over: Arc<AtomicBool>,
) -> u64 {
    let mut value = 0;
    while !is_over.load(Ordering::Relaxed) {
        value += 1;
        let body = format!(r#"{{"key":"{key}","value":{value}}}"#);
        let headers = [
            ("content-type", "application/json"),
            ("connection", "close"),
        ];
        let set = request("POST", "/status/set", &headers, body.as_bytes());
        let stored = async {
            while !is_stored(internal, &set).await {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, stored)
            .await
            .expect("a set that is stored");
        timeout(PATIENCE, seen.wait_for(|&seen| seen == value))
            .await
            .unwrap_or_else(|_| panic!("{key}: the status {value} did not arrive"))
            .expect("the page is there");
    }
    value
}

#[tokio::test]
async fn a_single_node_restarts_without_a_refused_connection_or_a_lost_status() {
    const PAGES: usize = 20;
    let scratch = Scratch::new();
    let path = scratch.path("holder");
    let (_holder, address) = hold_a_socket(&path).await;
    let redis = Redis::start(&[]).await;
    let internal = format!("127.0.0.1:{}", free_port());
    let url = redis.url();
    let args = [
        "--public",
        "fd:3",
        "--internal",
        &internal,
        "--redis",
        &url,
        // Clients come all the time, so that the drain is never quiet and takes its grace.
        "--drain-notice",
        "200ms",
        "--drain-quiet",
        "200ms",
        "--drain-grace",
        "2s",
    ];
    let holder = path.display().to_string();
    let launch = Launch::new(&args).env("HOLDER", &holder).under(HELD);
    let mut node = launch.clone().start().await;
    let internal = internal.parse().expect("an address");

    let is_over = Arc::new(AtomicBool::new(false));
    let mut pages = JoinSet::new();
    let mut backends = JoinSet::new();
    let mut values = Vec::new();
    for page in 0..PAGES {
        let (sender, seen) = watch::channel(0);
        values.push(seen.clone());
        let key = format!("key-{page}");
        pages.spawn(wait_for_all(address, key.clone(), sender, is_over.clone()));
        backends.spawn(set_each(internal, key, seen, is_over.clone()));
    }
    // Besides, a new connection each few milliseconds.
    let visitor = {
        let is_over = is_over.clone();
        tokio::spawn(async move {
            let mut visits = JoinSet::new();
            while !is_over.load(Ordering::Relaxed) {
                visits.spawn(ask(address, "key=another&wait=0"));
                sleep(Duration::from_millis(5)).await;
            }
            visits.join_all().await
        })
    };

    let hear = async || {
        let before: Vec<u64> = values.iter().map(|seen| *seen.borrow()).collect();
        let progress = async || {
            let seen = values.iter().map(|seen| *seen.borrow());
            seen.zip(&before).all(|(seen, &before)| seen > before + 1)
        };
        eventually(progress, "each page hears statuses").await;
    };
    hear().await;
    for _ in 0..2 {
        assert!(node.terminate().await.success());
        node = launch.clone().start().await;
        hear().await;
    }
    is_over.store(true, Ordering::Relaxed);
    let visits = visitor.await.expect("no panic");
    let faults: Vec<_> = visits
        .iter()
        .filter_map(|visit| visit.as_ref().err())
        .collect();
    assert!(
        faults.is_empty(),
        "{} of {}: {:?}",
        faults.len(),
        visits.len(),
        faults[0]
    );
    let set: u64 = backends.join_all().await.into_iter().sum();
    pages.join_all().await;
    println!(
        "{set} statuses arrived, {} visitors were answered",
        visits.len()
    );
    assert!(node.terminate().await.success());
}
