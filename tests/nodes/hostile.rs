//! Wrong or hostile data in Redis, and wrong or hostile answers of a peer. They harm nothing.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::{PREFIX, settle, status};
use holdfast_testkit::{Nodes, PATIENCE, Redis, now_ms};

/// Answers of a peer, each with whether the connection then ends.
const ANSWERS: [(&str, bool); 16] = [
    ("", true),
    ("\r\n\r\n", true),
    ("SSH-2.0-OpenSSH_9.2\r\n", true),
    ("HTTP/1.1 200 OK\r\n", true),
    ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", false),
    (
        "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"code\":0",
        true,
    ),
    (
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nnot JSON!",
        false,
    ),
    ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", false),
    (
        "HTTP/1.1 200 OK\r\ncontent-length: 25\r\n\r\n{\"code\":0,\"delivered\":[] }",
        false,
    ),
    (
        "HTTP/1.1 200 OK\r\ncontent-length: 29\r\n\r\n{\"code\":0,\"delivered\":[1,2,3]}",
        false,
    ),
    (
        "HTTP/1.1 200 OK\r\ncontent-length: 26\r\n\r\n{\"code\":0,\"delivered\":[-1]}",
        false,
    ),
    (
        "HTTP/1.1 200 OK\r\ncontent-length: 28\r\n\r\n{\"code\":0,\"delivered\":[1e99]}",
        false,
    ),
    (
        "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
        false,
    ),
    ("HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n", false),
    (
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        false,
    ),
    (
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        false,
    ),
];

/// Starts a peer that gives every request this answer, and then closes the connection if
/// `ends`. Returns its port and its task.
async fn impostor(answer: &'static str, ends: bool) -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let task = tokio::spawn(async move {
        let mut conns = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            conns.push(tokio::spawn(async move {
                let mut bytes = [0; 4096];
                while matches!(stream.read(&mut bytes).await, Ok(1..)) {
                    if stream.write_all(answer.as_bytes()).await.is_err() || ends {
                        return;
                    }
                }
            }));
        }
    });
    (port, task)
}

/// Leases `k` to a holder that is not one of our nodes.
async fn lease(redis: &Redis, holder: &str) {
    let name = format!("{PREFIX}k");
    redis
        .command(&["HSET", &name, holder, &(now_ms() + 5000).to_string()])
        .await;
    if redis.command(&["PTTL", &name]).await.number() < 5000 {
        redis.command(&["PEXPIRE", &name, "5000"]).await;
    }
}

#[tokio::test]
async fn a_wrong_answer_of_a_peer_costs_a_set_nothing_but_the_mention() {
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(2, &redis.url(), &["--peer-timeout", "300ms"]).await;
    let mut last = 0;
    for (answer, ends) in ANSWERS {
        let (port, task) = impostor(answer, ends).await;
        let mut held = nodes.hold(1, &format!("key=k&last={last}")).await;
        lease(&redis, &format!("impostor@http://127.0.0.1:{port}")).await;
        let begun = Instant::now();
        let response = nodes[0].set(r#"{"key":"k","value":1}"#).await;
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "{answer:?}: {:?}",
            begun.elapsed()
        );
        let receipt = response.json();
        assert_eq!(
            (response.status, receipt["delivered"].as_u64()),
            (200, Some(1)),
            "{answer:?}: {response:?}"
        );
        let named = format!(r#"["http://127.0.0.1:{port}"]"#);
        assert_eq!(
            receipt["unreachable"].to_string(),
            named,
            "{answer:?}: {response:?}"
        );
        assert_eq!(
            held.answer().await.text(),
            status(response.version(), "1"),
            "{answer:?}"
        );
        last = response.version();
        task.abort();
        redis
            .command(&[
                "HDEL",
                &format!("{PREFIX}k"),
                &format!("impostor@http://127.0.0.1:{port}"),
            ])
            .await;
    }
    settle(&nodes, &redis, 300).await;
}

#[tokio::test]
async fn an_endless_answer_of_a_peer_is_cut_off() {
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(1, &redis.url(), &["--peer-timeout", "1s"]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut sent = 0;
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10000000000\r\n\r\n")
            .await;
        while stream.write_all(&[b' '; 65536]).await.is_ok() {
            sent += 65536;
        }
        sent
    });
    lease(&redis, &format!("endless@http://127.0.0.1:{port}")).await;
    let response = nodes[0].set(r#"{"key":"k","value":1}"#).await;
    assert_eq!(
        (
            response.status,
            response.code(),
            response.json()["delivered"].as_u64()
        ),
        (200, 0, Some(0))
    );
    let sent = tokio::time::timeout(PATIENCE, task)
        .await
        .expect("cut off")
        .unwrap();
    // No more is taken than the buffers of the system hold.
    assert!(sent < 64 << 20, "{sent} bytes were taken");
    settle(&nodes, &redis, 300).await;
}

#[tokio::test]
async fn a_lease_that_makes_no_sense_is_passed_over() {
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(2, &redis.url(), &[]).await;
    let holders = [
        "@",
        "@@",
        "x@",
        "@http://127.0.0.1:1",
        "x@http://",
        "x@https://127.0.0.1:1",
        "x@ftp://127.0.0.1",
        "x@127.0.0.1:1",
        "x@http://127.0.0.1:99999",
        "x@http://[::1",
        "x@http://user:password@127.0.0.1:1",
        "x@http://127.0.0.1:1/path?a#b",
        "x@http://a b",
        "x@http://127.0.0.1:1\r\nx: y",
        "x@file:///etc/passwd",
        "\u{e9}@http://\u{e9}",
    ];
    let mut held = nodes.hold(1, "key=k").await;
    for holder in holders {
        lease(&redis, holder).await;
    }
    for (field, ends) in [
        ("a@http://127.0.0.1:1", ""),
        ("b@http://127.0.0.1:1", "-1"),
        ("c@http://127.0.0.1:1", "inf"),
    ] {
        redis
            .command(&["HSET", &format!("{PREFIX}k"), field, ends])
            .await;
    }
    let look = nodes[0].internal("GET", "/keys/k", &[], b"").await;
    assert_eq!(look.status, 200, "{look:?}");
    let response = nodes[0].set(r#"{"key":"k","value":1}"#).await;
    assert_eq!(
        (response.status, response.json()["delivered"].as_u64()),
        (200, Some(1)),
        "{response:?}"
    );
    assert_eq!(held.answer().await.text(), status(response.version(), "1"));
    settle(&nodes, &redis, 300).await;
}

#[tokio::test]
async fn what_is_no_hash_of_ours_is_said_to_be_unavailable() {
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(1, &redis.url(), &[]).await;
    redis
        .command(&["SET", &format!("{PREFIX}k"), "not a hash", "PX", "60000"])
        .await;
    let response = nodes[0].set(r#"{"key":"k","value":1}"#).await;
    assert_eq!(
        (response.status, response.code()),
        (503, -6),
        "{response:?}"
    );
    let response = nodes[0].get("/status/get?key=k&wait=0").await;
    assert_eq!(
        (response.status, response.code()),
        (503, -6),
        "{response:?}"
    );
    // Other keys still work.
    let version = nodes[0].set_ok("other", "1").await;
    assert_eq!(
        nodes[0].get("/status/get?key=other").await.text(),
        status(version, "1")
    );
    redis.command(&["DEL", &format!("{PREFIX}k")]).await;
    settle(&nodes, &redis, 300).await;
}

/// Returns a script of the program, joined from its parts as the program joins them.
pub(super) fn script(parts: &[&str]) -> String {
    let read = |name| {
        std::fs::read_to_string(format!(
            "{}/src/store/redis/{name}.lua",
            env!("CARGO_MANIFEST_DIR")
        ))
    };
    parts
        .iter()
        .map(|part| read(part).expect("a script"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[tokio::test]
async fn a_set_that_is_sent_twice_is_done_once() {
    let redis = Redis::start(&[]).await;
    let write = script(&["common", "leases", "write"]);
    let set = async |after: &str, number: &str| {
        let args = [
            "EVAL", &write, "1", "k", "60000", after, "0", "", number, "", "0", "1",
        ];
        redis.command(&args).await.list().to_vec()
    };
    let first = set("0", "number-1").await;
    let again = set("0", "number-1").await;
    assert_eq!(
        (first[1].text(), again[1].text(), again[2].number()),
        ("stored", "earlier", first[2].number())
    );
    assert_eq!(set("0", "number-2").await[1].text(), "conflict");
    assert!(set("", "number-2").await[2].number() > first[2].number());
    // The last eight are remembered, and older ones are not.
    for number in 3..=9 {
        assert_eq!(
            set("", &format!("number-{number}")).await[1].text(),
            "stored"
        );
    }
    assert_eq!(set("", "number-2").await[1].text(), "earlier");
    assert_eq!(set("", "number-1").await[1].text(), "stored");
}
