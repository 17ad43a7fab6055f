//! Redis over a unix socket.

use holdfast_testkit::{Finished, Launch, Nodes, Redis, Resp, Scratch, eventually, free_port};

use super::logins::use_all;

async fn check(url: &str, args: &[&str]) -> Finished {
    let args = [&["--check", "--redis-timeout", "5s"], args].concat();
    Launch::new(&args).env("HOLDFAST_REDIS", url).run().await
}

/// Starts a Redis with a unix socket, and returns the path of the socket too.
async fn start(scratch: &Scratch, args: &[&str]) -> (Redis, String) {
    let path = scratch.path("redis.sock").display().to_string();
    let redis = Redis::start(&[&["--unixsocket", &path], args].concat()).await;
    (redis, path)
}

#[tokio::test]
async fn tls_is_advised_only_if_a_tcp_server_hangs_up() {
    let scratch = Scratch::new();
    let path = scratch.path("hangs-up.sock");
    let by_socket = tokio::net::UnixListener::bind(&path).expect("a socket");
    let by_tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let by_tcp = by_tcp.expect("a listener");
    let tcp = format!("redis://{}", by_tcp.local_addr().expect("an address"));
    let socket = format!("redis+unix://{}", path.display());
    let refused = format!("redis://127.0.0.1:{}", free_port());
    let hang_up = tokio::spawn(async move {
        loop {
            tokio::select! {
                accepted = by_socket.accept() => drop(accepted),
                accepted = by_tcp.accept() => drop(accepted),
            }
        }
    });
    for (url, is_advised) in [(tcp, true), (socket, false), (refused, false)] {
        let finished = check(&url, &[]).await;
        assert_eq!(finished.status.code(), Some(1), "{finished:?}");
        let advised = finished.stderr.contains("rediss");
        assert_eq!(advised, is_advised, "{finished:?}");
    }
    hang_up.abort();
}

#[tokio::test]
async fn nodes_use_a_redis_over_its_unix_socket() {
    let scratch = Scratch::new();
    let (mut redis, path) = start(&scratch, &["--requirepass", "secret"]).await;
    for scheme in ["redis+unix", "unix"] {
        let url = format!("{scheme}://:secret@{path}?db=3");
        let finished = check(&url, &[]).await;
        assert_eq!(finished.status.code(), Some(0), "{finished:?}");
    }
    let url = format!("redis+unix://:secret@{path}");
    let nodes = Nodes::start(2, &url, &[]).await;
    use_all(&nodes).await;
    redis.restart().await;
    nodes.wait_set("k").await;
    use_all(&nodes).await;
    let log = nodes[0].logs().join("\n");
    assert!(log.contains(&format!("redis+unix://{path}?db=0")), "{log}");
    assert!(!log.contains("secret"), "{log}");
    nodes.quiet().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_unix_socket_is_said() {
    let scratch = Scratch::new();
    let (redis, path) = start(&scratch, &["--requirepass", "secret"]).await;
    let gone = scratch.path("gone").display().to_string();
    let plain = scratch.file("plain", "");
    for (url, said) in [
        (format!("redis+unix://:wrong@{path}"), "WRONGPASS"),
        (format!("redis+unix://{path}"), "Redis asks for a password"),
        (format!("redis+unix://{gone}"), "No such file"),
        (format!("redis+unix://{plain}"), "Connection refused"),
    ] {
        let finished = check(&url, &[]).await;
        assert_eq!(finished.status.code(), Some(1), "{finished:?}");
        assert!(finished.stderr.contains(said), "{said}: {finished:?}");
        assert!(finished.stderr.contains("redis+unix:///"), "{finished:?}");
    }
    // Redis says why before it hangs up.
    redis.command(&["CONFIG", "SET", "maxclients", "1"]).await;
    let mut only = Resp::open(redis.port).await.expect("it listens");
    let is_let_in = async || {
        if only.command(&["AUTH", "secret"]).await.is_ok() {
            return true;
        }
        only = Resp::open(redis.port).await.expect("it listens");
        false
    };
    eventually(is_let_in, "the only client is let in").await;
    let finished = check(&format!("redis+unix://:secret@{path}"), &[]).await;
    let said = "max number of clients reached";
    assert!(finished.stderr.contains(said), "{finished:?}");
}

#[tokio::test]
async fn a_unix_socket_shows_no_address_to_advertise() {
    let scratch = Scratch::new();
    let (_redis, path) = start(&scratch, &[]).await;
    let url = format!("redis+unix://{path}");
    let internal = format!("0.0.0.0:{}", free_port());
    let all = ["--internal", &internal, "--internal-without-token"];
    let advertise = ["--advertise", "http://127.0.0.1:1"];
    for args in [&["--check"][..], &[]] {
        let args = [&all, args].concat();
        let launch = Launch::new(&args).env("HOLDFAST_REDIS", &url);
        let finished = launch.run().await;
        assert_eq!(finished.status.code(), Some(64), "{finished:?}");
        let said = "give --advertise http://host:port";
        assert!(finished.stderr.contains(said), "{finished:?}");
    }
    let finished = check(&url, &[&all[..], &advertise].concat()).await;
    assert_eq!(finished.status.code(), Some(0), "{finished:?}");
}
