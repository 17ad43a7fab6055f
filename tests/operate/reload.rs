//! Tests of SIGHUP: files are read again, all of them or none.

use holdfast_testkit::{
    Authority, Conn, Launch, Node, Nodes, Redis, Response, Scratch, eventually, request,
};

const SECRET: &str = "an-old-secret-that-has-32-bytes-or-more";
const NEW_SECRET: &str = "a-new-secret-that-has-32-bytes-or-more";

/// Sends SIGHUP, and waits for one more line with `message`.
async fn hang_up(node: &Node, message: &str) {
    let count = || {
        let lines = node.logs().into_iter();
        lines.filter(|line| line.contains(message)).count()
    };
    let before = count();
    node.signal("HUP").await;
    eventually(async || count() > before, message).await;
}

/// Sends a request of a backend that has a token.
async fn post(node: &Node, token: &str, target: &str, body: &str) -> Response {
    let bearer = format!("Bearer {token}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
    ];
    let mut conn = Conn::open(&node.internal).await;
    conn.ask(request("POST", target, &headers, body.as_bytes()))
        .await
}

/// Returns the HTTP status of a request for a key that is made with a token, and the key.
async fn issue(node: &Node, token: &str) -> (u16, String) {
    let issued = post(node, token, "/keys", r#"{"id":"k"}"#).await;
    let key = (issued.status == 200).then(|| issued.json()["key"].as_str().unwrap().to_owned());
    (issued.status, key.unwrap_or_default())
}

async fn code(node: &Node, key: &str) -> i64 {
    node.get(&format!("/status/get?key={key}&wait=0"))
        .await
        .code()
}

#[tokio::test]
async fn tokens_and_key_secrets_are_read_again_all_or_none() {
    let scratch = Scratch::new();
    let tokens = scratch.file("tokens", "old-token\n");
    let secrets = scratch.file("secrets", SECRET);
    let args = [
        "--internal-token-file",
        &tokens,
        "--key-secret-file",
        &secrets,
    ];
    let node = Launch::new(&args).start().await;
    let (status, old_key) = issue(&node, "old-token").await;
    assert_eq!((status, code(&node, &old_key).await), (200, -1));

    // A mistake in one file keeps the content of both.
    std::fs::write(&tokens, "new-token\n").unwrap();
    std::fs::write(&secrets, "short").unwrap();
    hang_up(&node, "nothing was changed").await;
    let logs = node.logs().join("\n");
    assert!(logs.contains("--key-secret-file"), "{logs}");
    assert!(logs.contains("secret 1 has 5 bytes"), "{logs}");
    assert_eq!(issue(&node, "new-token").await.0, 401);
    assert_eq!(issue(&node, "old-token").await.0, 200);
    assert_eq!(code(&node, &old_key).await, -1);

    std::fs::write(&secrets, NEW_SECRET).unwrap();
    hang_up(&node, "SIGHUP: read again").await;
    assert!(node.logs().join("\n").contains("tokens, key secrets"));
    assert_eq!(issue(&node, "old-token").await.0, 401);
    let (status, new_key) = issue(&node, "new-token").await;
    assert_eq!((status, code(&node, &new_key).await), (200, -1));
    assert_eq!(code(&node, &old_key).await, -4);
}

#[tokio::test]
async fn a_new_password_of_redis_is_used_for_the_next_connection() {
    let redis = Redis::start(&[]).await;
    let url = redis.url();
    let (_, address) = url.split_once("://").unwrap();
    let user = |rest: &[&'static str]| [&["ACL", "SETUSER", "app"], rest].concat();
    redis
        .command(&user(&["on", ">old", "~*", "&*", "+@all"]))
        .await;
    let scratch = Scratch::new();
    let file = scratch.file("redis", &format!("redis://app:old@{address}"));
    let node = Node::start(&["--redis-file", &file]).await;
    node.set_ok("k", "1").await;

    std::fs::write(&file, "redis://:secret@192.0.2.1:6379").unwrap();
    hang_up(&node, "nothing was changed").await;
    let logs = node.logs().join("\n");
    assert!(logs.contains("it names another Redis"), "{logs}");
    assert!(!logs.contains("secret@"), "{logs}");

    std::fs::write(&file, format!("redis://app:new@{address}")).unwrap();
    hang_up(&node, "SIGHUP: read again").await;
    redis.command(&user(&["resetpass", ">new"])).await;
    redis.command(&["CLIENT", "KILL", "USER", "app"]).await;
    let is_back = async || {
        let json = [("content-type", "application/json")];
        let body = br#"{"key":"k","value":2}"#;
        node.internal("POST", "/status/set", &json, body)
            .await
            .status
            == 200
    };
    eventually(is_back, "the node is connected again").await;
}

#[tokio::test]
async fn a_password_of_redis_that_is_read_again_is_tried_at_once() {
    let redis = Redis::start(&[]).await;
    let user = [
        "ACL", "SETUSER", "app", "on", ">old", ">new", "~*", "&*", "+@all",
    ];
    redis.command(&user).await;
    let (scratch, port) = (Scratch::new(), redis.port);
    let url = |word: &str| format!("redis://app:{word}@127.0.0.1:{port}");
    let file = scratch.file("redis", &url("old"));
    let node = Node::start(&["--redis-file", &file]).await;
    node.set_ok("k", "1").await;
    scratch.file("redis", &url("wr0ng"));
    hang_up(
        &node,
        "the new account or certificate of Redis cannot be used",
    )
    .await;
    assert!(node.logs().join("\n").contains("WRONGPASS"));
    node.set_ok("k", "2").await;
    scratch.file("redis", &url("new"));
    hang_up(
        &node,
        "the files of Redis have another account or certificate",
    )
    .await;
    node.set_ok("k", "3").await;
    let logs = node.logs().join("\n");
    assert!(!logs.contains("lost the connection"), "{logs}");
    assert!(!logs.contains("wr0ng"), "{logs}");
}

#[tokio::test]
async fn a_certificate_that_a_mistake_elsewhere_kept_out_is_read_by_itself() {
    let (scratch, authority) = (Scratch::new(), Authority::new().await);
    let (certificate, key) = authority.certificate("a.example").await;
    let (new, new_key) = authority.certificate("b.example").await;
    let tokens = scratch.file("tokens", "a-token\n");
    let node = Launch::new(&[
        "--internal-token-file",
        &tokens,
        "--public-tls",
        "127.0.0.1:0",
        "--tls-cert",
        &certificate,
        "--tls-key",
        &key,
    ])
    .start()
    .await;
    std::fs::write(&tokens, "").unwrap();
    std::fs::copy(new_key, &key).unwrap();
    std::fs::copy(new, &certificate).unwrap();
    hang_up(&node, "nothing was changed").await;
    let is_new = |line: &String| line.contains("TLS certificate") && line.contains("b.example");
    let is_read = async || node.logs().iter().any(is_new);
    eventually(is_read, "the new certificate is in use").await;
}

/// Sets a key of which the other node has the waiter, and checks that it was sent the update.
async fn set_at_the_other(node: &Node, key: &str, token: &str) {
    let body = format!(r#"{{"key":"{key}","value":1}}"#);
    let answer = post(node, token, "/status/set", &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let result = answer.json();
    assert_eq!(result["delivered"], 1, "{result}");
    assert!(result.get("unreachable").is_none(), "{result}");
}

#[tokio::test]
async fn nodes_replace_their_token_in_three_steps_without_a_refused_call_between_them() {
    let redis = Redis::start(&[]).await;
    let scratch = Scratch::new();
    let files = ["first", "second"].map(|name| scratch.file(name, "old-token\n"));
    let launches = files.each_ref().map(|file| {
        Launch::new(&["--internal-token-file", file])
            .env("HOLDFAST_REDIS", &redis.url())
            .bearer("old-token")
    });
    let nodes = Nodes::launch_at(Nodes::places(2), launches.to_vec()).await;
    nodes.wait_connected().await;
    // Streams, because they go on waiting after each status.
    let mut streams = Vec::new();
    for (at, key) in [(0, "k-0"), (1, "k-1")] {
        let mut stream = Conn::open(&nodes[at].public).await;
        let target = format!("/status/events?key={key}");
        stream.send(request("GET", &target, &[], b"")).await;
        streams.push(stream);
        nodes[at].wait_key_waiters(key, 1).await;
    }
    // As --internal-token-file says. Backends take the new token after the first step.
    let steps = [
        ("old-token\nnew-token\n", "old-token"),
        ("new-token\nold-token\n", "new-token"),
        ("new-token\n", "new-token"),
    ];
    for (tokens, of_backends) in steps {
        for at in [0, 1] {
            std::fs::write(&files[at], tokens).expect("a written file");
            hang_up(&nodes[at], "SIGHUP: read again").await;
            set_at_the_other(&nodes[1], "k-0", of_backends).await;
            set_at_the_other(&nodes[0], "k-1", of_backends).await;
        }
    }
    for node in &*nodes {
        let logs = node.logs().join("\n");
        assert!(!logs.contains("unauthorized"), "{logs}");
        let refused = post(node, "old-token", "/status/set", "{}").await;
        assert_eq!(refused.status, 401, "{refused:?}");
    }
}
