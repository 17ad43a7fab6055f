//! The ways to name Redis: TLS, users, passwords, database numbers, files. No password is ever
//! shown.

use super::{poll, settle, status};
use crate::contract::sets::check_done;
use holdfast_testkit::{
    Authority, Finished, Launch, Node, Nodes, Redis, RedisCluster, Scratch, Sentinels, eventually,
};

/// A password with characters that must be percent-encoded in a URL.
const PASSWORD: &str = "p@ss:w/rd%?#[]";
const PASSWORD_ENCODED: &str = "p%40ss%3Aw%2Frd%25%3F%23%5B%5D";

/// Returns what a user may do, as docs/cluster.md tells operators: the rules behind the user's name
/// in its `ACL SETUSER` line, without the password.
pub(super) fn documented_rules() -> Vec<String> {
    let readme = include_str!("../../docs/cluster.md");
    let line = readme
        .lines()
        .find(|line| line.contains("ACL SETUSER"))
        .expect("an ACL in docs/cluster.md");
    let (_, rules) = line.split_once("ACL SETUSER ").expect("rules");
    let rules = rules
        .split_whitespace()
        .skip(1)
        .map(|rule| rule.trim_matches(['\'', '"', '`']));
    rules
        .filter(|rule| !rule.starts_with('>'))
        .map(str::to_owned)
        .collect()
}

/// Does everything that nodes do with Redis, with a key that was not used before.
pub(super) async fn use_all(nodes: &Nodes) {
    let key = format!("k{:x}", rand::random::<u64>());
    let set = |more: &str| format!(r#"{{"key":"{key}","value":1{more}}}"#);
    let mut held = nodes.hold(0, &format!("key={key}&last=5")).await;
    let version = check_done(&nodes[1].set(set("")).await, 1);
    assert_eq!(held.answer().await.text(), status(version, "1"));
    assert_eq!(poll(&nodes[0], &key, 0).await.text(), status(version, "1"));
    assert_eq!(
        nodes[0]
            .internal("GET", &format!("/keys/{key}"), &[], b"")
            .await
            .version(),
        version
    );
    assert_eq!(nodes[0].set(set(r#","after":1"#)).await.status, 409);
    assert!(nodes[1].delete_ok(&key).await > version);
    nodes.wait_path(200).await;
}

/// Checks that no node has written one of `secrets` to its log.
fn check_secret(nodes: &Nodes, secrets: &[&str]) {
    for node in &**nodes {
        let log = node.logs().join("\n");
        for secret in secrets {
            assert!(!log.contains(secret), "{secret} in {log}");
        }
    }
}

#[tokio::test]
async fn a_user_who_may_do_only_what_is_documented_is_enough() {
    let mut redis = Redis::start(&[]).await;
    let setup = async |redis: &Redis| {
        let secret = format!(">{PASSWORD}");
        let rules = documented_rules();
        let rules: Vec<_> = rules.iter().map(String::as_str).collect();
        redis
            .command(&[&["ACL", "SETUSER", "some-user", "on", &secret], &rules[..]].concat())
            .await;
        let never: [&[&str]; 6] = [
            &["FLUSHALL"],
            &["CONFIG", "GET", "x"],
            &["KEYS", "*"],
            &["DEL", "holdfast:1:k"],
            &["HGET", "other", "v"],
            &["ACL", "LIST"],
        ];
        for never in never {
            let may = redis
                .command(&[&["ACL", "DRYRUN", "some-user"], never].concat())
                .await;
            assert!(may.text().contains("no permissions"), "{never:?}: {may:?}");
        }
        redis.command(&["ACL", "LOG", "RESET"]).await;
    };
    setup(&redis).await;
    let url = format!(
        "redis://some-user:{PASSWORD_ENCODED}@127.0.0.1:{}",
        redis.port
    );
    let nodes = Nodes::start(2, &url, &[]).await;
    use_all(&nodes).await;
    // Redis loses its scripts, and later all that it has.
    redis.command(&["SCRIPT", "FLUSH"]).await;
    use_all(&nodes).await;
    let refused = redis.command(&["ACL", "LOG"]).await;
    assert_eq!(refused.list(), [], "nothing was refused");
    redis.restart().await;
    setup(&redis).await;
    nodes.wait_set("k").await;
    use_all(&nodes).await;
    check_secret(&nodes, &[PASSWORD, PASSWORD_ENCODED]);
    settle(&nodes, &redis, 300).await;
}

#[tokio::test]
async fn a_password_comes_from_the_environment_or_a_file() {
    let scratch = Scratch::new();
    let redis = Redis::start(&["--requirepass", PASSWORD]).await;
    let url = format!("redis://:{PASSWORD_ENCODED}@127.0.0.1:{}", redis.port);
    let nodes = Nodes::start(2, &url, &[]).await;
    use_all(&nodes).await;
    let file = scratch.file("redis", &format!("{url}\n"));
    let from_file = Nodes::launch(2, Launch::new(&["--redis-file", &file, "--hold", "9s"])).await;
    use_all(&from_file).await;
    check_secret(&nodes, &[PASSWORD, PASSWORD_ENCODED]);
    check_secret(&from_file, &[PASSWORD, PASSWORD_ENCODED]);
    settle(&nodes, &redis, 300).await;
}

#[tokio::test]
async fn a_password_that_changes_is_read_again_from_the_file() {
    let (scratch, redis) = (Scratch::new(), Redis::start(&[]).await);
    let change = async |password: &str| {
        let secret = format!(">{password}");
        let user = ["ACL", "SETUSER", "some-user", "on", "resetpass", &secret];
        let rules = documented_rules();
        let rules = rules.iter().map(String::as_str);
        let words: Vec<_> = user.into_iter().chain(rules).collect();
        redis.command(&words).await;
    };
    let url = |password: &str| format!("redis://some-user:{password}@127.0.0.1:{}", redis.port);
    change("f1rst-word").await;
    let file = scratch.file("redis", &url("f1rst-word"));
    let nodes = Nodes::launch(2, Launch::new(&["--redis-file", &file])).await;
    use_all(&nodes).await;
    let wait_logged = async |said: &str| {
        let is_logged = |node: &Node| node.logs().iter().any(|line| line.contains(said));
        eventually(async || nodes.iter().all(is_logged), said).await;
    };
    change("s2cond-word").await;
    let end_connections = ["CLIENT", "KILL", "USER", "some-user"];
    redis.command(&end_connections).await;
    wait_logged("Redis refuses our password").await;
    // A file that names another server changes nothing.
    scratch.file("redis", "redis://some-user:s2cond-word@127.0.0.1:1");
    wait_logged("it names another Redis").await;
    scratch.file("redis", &format!(" {}\r\n", url("s2cond-word")));
    nodes.wait_connected().await;
    use_all(&nodes).await;
    check_secret(&nodes, &["f1rst-word", "s2cond-word"]);
    settle(&nodes, &redis, 300).await;
}

#[tokio::test]
async fn a_password_that_changes_reaches_a_master_of_a_cluster_that_ends_its_connections() {
    let (scratch, cluster) = (Scratch::new(), RedisCluster::start(&[]).await);
    let rules = documented_rules();
    for redis in &cluster.redis {
        let user = [
            "ACL",
            "SETUSER",
            "some-user",
            "on",
            ">f1rst-word",
            ">s2cond-word",
        ];
        let rules = rules.iter().map(String::as_str);
        redis
            .command(&user.into_iter().chain(rules).collect::<Vec<_>>())
            .await;
    }
    let url = |word: &str| cluster.url().replace("//", &format!("//some-user:{word}@"));
    let file = scratch.file("redis", &url("f1rst-word"));
    let nodes = Nodes::launch(2, Launch::new(&["--redis-file", &file])).await;
    use_all(&nodes).await;
    scratch.file("redis", &url("s2cond-word"));
    // The other masters keep their connections, with which nobody needs the new password.
    let at = cluster.master_of("holdfast:1:k").await.expect("a master");
    let master = &cluster.redis[at];
    let forget = ["ACL", "SETUSER", "some-user", "<f1rst-word"];
    master.command(&forget).await;
    let end_connections = ["CLIENT", "KILL", "USER", "some-user"];
    master.command(&end_connections).await;
    nodes.wait_set("k").await;
    use_all(&nodes).await;
    for node in &*nodes {
        let said = "the files of Redis have another account or certificate";
        let is_logged = async || node.logs().iter().any(|line| line.contains(said));
        eventually(is_logged, said).await;
    }
    check_secret(&nodes, &["f1rst-word", "s2cond-word"]);
    nodes.quiet().await;
}

#[tokio::test]
async fn a_password_of_sentinels_that_changes_is_used_when_they_end_their_connections() {
    let (scratch, master) = (Scratch::new(), Redis::start(&[]).await);
    let (sentinel, name) = Sentinels::one(master.port, "").await;
    let user = ["ACL", "SETUSER", "watcher", "on", "+@all"];
    let words = [">f1rst-word", ">s2cond-word"];
    sentinel.command(&[&user[..], &words].concat()).await;
    let port = sentinel.port;
    let url = |word: &str| {
        let account = format!("sentinel_username=watcher&sentinel_password={word}");
        format!("redis+sentinel://127.0.0.1:{port}/{name}?{account}")
    };
    let file = scratch.file("redis", &url("f1rst-word"));
    let nodes = Nodes::launch(1, Launch::new(&["--redis-file", &file])).await;
    scratch.file("redis", &url("s2cond-word"));
    let forget = ["ACL", "SETUSER", "watcher", "<f1rst-word"];
    sentinel.command(&forget).await;
    let end_connections = ["CLIENT", "KILL", "USER", "watcher"];
    sentinel.command(&end_connections).await;
    let said = "the files of Redis have another account or certificate";
    let is_logged = async || nodes[0].logs().iter().any(|line| line.contains(said));
    eventually(is_logged, said).await;
    nodes[0].set_ok("k", "1").await;
    let log = nodes[0].logs().join("\n");
    assert!(!log.contains("lost the connection"), "{log}");
    check_secret(&nodes, &["f1rst-word", "s2cond-word"]);
    nodes.quiet().await;
}

#[tokio::test]
async fn tls_is_checked_against_the_trusted_authorities() {
    let authority = Authority::new().await;
    let redis = Redis::start_tls(&authority, &["--requirepass", "secret"]).await;
    for host in ["127.0.0.1", "localhost"] {
        let url = format!("rediss://:secret@{host}:{}/2", redis.tls_port());
        let launch = Launch::new(&["--hold", "9s"]).env("HOLDFAST_REDIS", &url);
        let nodes = Nodes::launch(2, launch.env("SSL_CERT_FILE", &authority.path())).await;
        use_all(&nodes).await;
        nodes.quiet().await;
    }
    // The node trusts only another authority, the port has no TLS, or the URL asks for no TLS
    // at a port that has it.
    let stranger = Authority::new().await;
    let port = redis.port;
    for (url, trusted) in [
        (
            format!("rediss://:secret@127.0.0.1:{}", redis.tls_port()),
            stranger.path(),
        ),
        (
            format!("rediss://:secret@127.0.0.1:{port}"),
            authority.path(),
        ),
        (
            format!("redis://:secret@127.0.0.1:{}", redis.tls_port()),
            authority.path(),
        ),
    ] {
        let launch = Launch::new(&["--check"])
            .env("HOLDFAST_REDIS", &url)
            .env("SSL_CERT_FILE", &trusted);
        check_refused(&launch.run().await, 1, &["secret"]);
    }
}

#[tokio::test]
async fn numbered_databases_and_prefixes_are_apart() {
    let redis = Redis::start(&[]).await;
    let first = Nodes::start(2, &format!("{}/3", redis.url()), &[]).await;
    let second = Nodes::start(1, &format!("{}/4", redis.url()), &[]).await;
    let other = Nodes::start(
        1,
        &format!("{}/3", redis.url()),
        &["--redis-prefix", "other:"],
    )
    .await;
    let mut held = first.hold(0, "key=k").await;
    for nodes in [&second, &other] {
        check_done(&nodes[0].set(r#"{"key":"k","value":"another's"}"#).await, 0);
    }
    assert_eq!(poll(&first[1], "k", 0).await.code(), -1);
    let version = check_done(&first[1].set(r#"{"key":"k","value":1}"#).await, 1);
    assert_eq!(held.answer().await.text(), status(version, "1"));
    for nodes in [&second, &other] {
        assert!(poll(&nodes[0], "k", 0).await.text().contains("another's"));
        nodes.quiet().await;
    }
    assert_eq!(
        redis.names().await,
        Vec::<String>::new(),
        "nothing in database 0"
    );
}

#[tokio::test]
async fn sentinels_and_clusters_take_a_login_too() {
    let args = ["--requirepass", "secret", "--masterauth", "secret"];
    let cluster = RedisCluster::start(&args).await;
    let nodes = Nodes::start(2, &cluster.url().replace("//", "//:secret@"), &[]).await;
    use_all(&nodes).await;
    check_secret(&nodes, &["secret"]);
    nodes.quiet().await;
}

/// Checks that a start or a check ended with `code`, and printed none of `secrets`.
fn check_refused(finished: &Finished, code: i32, secrets: &[&str]) {
    assert_eq!(finished.status.code(), Some(code), "{finished:?}");
    for secret in secrets {
        assert!(
            !finished.stderr.contains(secret) && !finished.stdout.contains(secret),
            "{secret}: {finished:?}"
        );
    }
}

#[tokio::test]
async fn a_password_on_the_command_line_is_a_mistake_that_is_not_repeated() {
    for scheme in ["redis", "rediss", "redis+sentinel", "redis+cluster"] {
        let url = format!("{scheme}://user:hunter2@127.0.0.1:1/0");
        let finished = Launch::new(&["--check", "--redis", &url]).run().await;
        check_refused(&finished, 64, &["hunter2"]);
        assert!(finished.stderr.contains("--redis"), "{finished:?}");
    }
    for url in [
        "redis+sentinel://127.0.0.1:1/mymaster?sentinel_password=hunter2",
        "redis+unix://user:hunter2@/run/redis.sock",
    ] {
        let finished = Launch::new(&["--check", "--redis", url]).run().await;
        check_refused(&finished, 64, &["hunter2"]);
        assert!(finished.stderr.contains("HOLDFAST_REDIS"), "{finished:?}");
    }
}

#[tokio::test]
async fn a_check_says_why_there_is_no_redis() {
    let scratch = Scratch::new();
    let redis = Redis::start(&["--requirepass", "right"]).await;
    let good = Launch::new(&["--check"]).env(
        "HOLDFAST_REDIS",
        &format!("redis://:right@127.0.0.1:{}", redis.port),
    );
    let finished = good.run().await;
    assert_eq!(finished.status.code(), Some(0), "{finished:?}");
    let free = holdfast_testkit::free_port();
    for url in [
        format!("redis://:wr0ng@127.0.0.1:{}", redis.port),
        format!("redis://nobody:wr0ng@127.0.0.1:{}", redis.port),
        format!("redis://:wr0ng@127.0.0.1:{free}"),
        format!("redis+sentinel://:wr0ng@127.0.0.1:{free}/mymaster"),
        format!("redis+cluster://:wr0ng@127.0.0.1:{free}"),
        format!("redis+cluster://:right@127.0.0.1:{}", redis.port),
        format!("redis://:wr0ng@nowhere.invalid:{free}"),
    ] {
        let file = scratch.file("url", &url);
        check_refused(
            &Launch::new(&["--check", "--redis-file", &file]).run().await,
            1,
            &["wr0ng"],
        );
    }
}

#[tokio::test]
async fn a_wrong_login_is_said_in_the_log_without_the_password() {
    let redis = Redis::start(&["--requirepass", "right"]).await;
    let url = format!("redis://:wr0ng@127.0.0.1:{}", redis.port);
    let nodes = Nodes::launch_without_redis(1, Launch::new(&[]).env("HOLDFAST_REDIS", &url)).await;
    let response = nodes[0].set(r#"{"key":"k","value":1}"#).await;
    assert_eq!(
        (response.status, response.code()),
        (503, -6),
        "{response:?}"
    );
    check_secret(&nodes, &["wr0ng"]);
    let said = [
        "Redis refuses our password: WRONGPASS",
        "ready, but not connected to Redis",
    ];
    for said in said {
        let is_logged = async || nodes[0].logs().iter().any(|line| line.contains(said));
        eventually(is_logged, said).await;
    }
    nodes.quiet().await;
}

#[tokio::test]
async fn a_redis_that_does_not_know_auth_gets_no_password_into_the_log() {
    let redis = Redis::start(&["--rename-command", "AUTH", ""]).await;
    let url = redis
        .url()
        .replace("redis://", "redis://user:very-secret-password@");
    let scratch = Scratch::new();
    let file = scratch.file("redis", &url);
    let finished = Launch::new(&["--check", "--redis-file", &file]).run().await;
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    let said = [finished.stdout, finished.stderr].concat();
    assert!(said.contains("unknown command"), "{said}");
    assert!(!said.contains("very-secret"), "{said}");
}
