//! Redis as people set it up, with a mistake: `--check` and the log say what is wrong, so that an
//! operator knows what to change.

use holdfast_testkit::{
    Authority, Finished, Launch, Nodes, Redis, RedisCluster, Resp, RewritingProxy, Sentinels,
    eventually, free_port,
};

use super::logins::{documented_rules, use_all};

/// Runs `--check` with this `--redis`.
async fn check(url: &str) -> Finished {
    let launch = Launch::new(&["--check", "--redis-timeout", "5s"]);
    launch.env("HOLDFAST_REDIS", url).run().await
}

/// Checks that `--check` finds this `--redis` wrong, and says each of `said`.
async fn check_wrong(url: &str, said: &[&str]) {
    assert_wrong(&check(url).await, said);
}

fn assert_wrong(finished: &Finished, said: &[&str]) {
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    for said in said {
        assert!(finished.stderr.contains(said), "{said:?} in {finished:?}");
    }
}

/// Checks that `--check` finds this `--redis` good.
async fn check_good(url: &str) {
    let finished = check(url).await;
    assert_eq!(finished.status.code(), Some(0), "{finished:?}");
}

#[tokio::test]
async fn a_node_of_a_cluster_is_no_single_server_and_the_reverse() {
    let cluster = RedisCluster::start(&[]).await;
    check_good(&cluster.url()).await;
    for redis in &cluster.redis {
        check_wrong(&redis.url(), &["a node of a cluster", "redis+cluster://"]).await;
    }
    let url = cluster.redis[0].url();
    let launch = Launch::new(&[]).env("HOLDFAST_REDIS", &url);
    let nodes = Nodes::launch_without_redis(1, launch).await;
    let is_logged = async || {
        let logs = nodes[0].logs();
        logs.iter().any(|line| line.contains("redis+cluster://"))
    };
    eventually(is_logged, "the node logs what to write").await;
    nodes.quiet().await;
    let single = Redis::start(&[]).await;
    let as_cluster = format!("redis+cluster://127.0.0.1:{}", single.port);
    check_wrong(&as_cluster, &["no node of a cluster", "redis://"]).await;
}

#[tokio::test]
async fn a_cluster_of_one_server_may_be_given_as_a_single_server() {
    let bus = free_port().to_string();
    let redis = Redis::start(&["--cluster-enabled", "yes", "--cluster-port", &bus]).await;
    redis
        .command(&["CLUSTER", "ADDSLOTSRANGE", "0", "16000"])
        .await;
    check_wrong(&redis.url(), &["a node of a cluster"]).await;
    redis
        .command(&["CLUSTER", "ADDSLOTSRANGE", "16001", "16383"])
        .await;
    let is_whole = async || {
        let info = redis.command(&["CLUSTER", "INFO"]).await;
        info.text().contains("cluster_state:ok")
    };
    eventually(is_whole, "the cluster has all slots").await;
    check_good(&redis.url()).await;
}

#[tokio::test]
async fn each_sentinel_s_answer_is_said() {
    let master = Redis::start(&["--requirepass", "right"]).await;
    let (sentinels, url) = Sentinels::apart(&[&master, &master]).await;
    let [open, closed] = &sentinels[..] else {
        panic!("two sentinels")
    };
    let user = ["ACL", "SETUSER", "default", "resetpass", ">other"];
    closed.command(&user).await;
    let gone = free_port();
    let (_, name) = url.rsplit_once('/').expect("a name");
    let hosts = [open.port, closed.port, master.port, gone].map(|port| format!("127.0.0.1:{port}"));
    let all = format!("redis+sentinel://:wrong@{}", hosts.join(","));
    let said = [
        format!(
            "127.0.0.1:{} knows no master of the name \"other\"",
            open.port
        ),
        format!(
            "127.0.0.1:{}: Redis refuses our password: WRONGPASS",
            closed.port
        ),
        format!(
            "127.0.0.1:{}: Redis refuses our password: WRONGPASS",
            master.port
        ),
        format!("127.0.0.1:{gone}: Connection refused"),
    ];
    let said: Vec<_> = said.iter().map(String::as_str).collect();
    check_wrong(&format!("{all}/other"), &said).await;
    // A plain server that lets everybody in is no sentinel either.
    let plain = Redis::start(&[]).await;
    let url = format!("redis+sentinel://127.0.0.1:{}/{name}", plain.port);
    check_wrong(&url, &["it is no sentinel, but a Redis server"]).await;
    // The sentinel answers, and the server that it names refuses the password.
    let url = format!("redis+sentinel://:wrong@{}/{name}", hosts[0]);
    check_wrong(
        &url,
        &[
            "the master that the sentinels name",
            &format!("127.0.0.1:{}", master.port),
            "WRONGPASS",
        ],
    )
    .await;
    check_good(&format!("redis+sentinel://:right@{}/{name}", hosts[0])).await;
    check_wrong(&open.url(), &["it is a sentinel", "redis+sentinel://"]).await;
}

#[tokio::test]
async fn sentinels_take_an_account_of_their_own() {
    let master = Redis::start(&["--requirepass", "right"]).await;
    let (sentinel, name) = Sentinels::one(master.port, "").await;
    let user = ["ACL", "SETUSER", "watcher", "on", ">w?tch&r", "-@all"];
    let may = ["+ping", "+sentinel|get-master-addr-by-name"];
    sentinel.command(&[&user[..], &may].concat()).await;
    let closed = ["ACL", "SETUSER", "default", "resetpass", ">other"];
    sentinel.command(&closed).await;
    let url = format!("redis+sentinel://:right@127.0.0.1:{}/{name}", sentinel.port);
    let own = "?sentinel_username=watcher&sentinel_password";
    let address = format!("127.0.0.1:{}", sentinel.port);
    check_good(&format!("{url}{own}=w%3Ftch%26r")).await;
    check_good(&format!("{url}?sentinel_password=other")).await;
    check_wrong(&url, &[&address, "WRONGPASS"]).await;
    let wrong = check(&format!("{url}{own}=wr0ng")).await;
    assert_wrong(&wrong, &[&address, "WRONGPASS"]);
    assert!(!wrong.stderr.contains("wr0ng"), "{wrong:?}");
    let nodes = Nodes::start(1, &format!("{url}{own}=w%3Ftch%26r"), &[]).await;
    nodes[0].set_ok("k", "1").await;
    let log = nodes[0].logs().join("\n");
    for secret in ["w?tch&r", "w%3Ftch%26r", "right"] {
        assert!(!log.contains(secret), "{log}");
    }
    nodes.quiet().await;
}

#[tokio::test]
async fn the_words_of_a_redis_that_hangs_up_are_said() {
    let full = Redis::start(&["--maxclients", "1"]).await;
    let mut only = Resp::open(full.port).await.expect("it listens");
    let is_let_in = async || {
        if only.command(&["PING"]).await.is_ok() {
            return true;
        }
        only = Resp::open(full.port).await.expect("it listens");
        false
    };
    eventually(is_let_in, "the only client is let in").await;
    let port = full.port;
    for url in [
        full.url(),
        format!("redis://:password@127.0.0.1:{port}/1"),
        format!("redis+cluster://127.0.0.1:{port}"),
        format!("redis+sentinel://127.0.0.1:{port}/mymaster"),
    ] {
        check_wrong(&url, &["max number of clients reached"]).await;
    }
    let authority = Authority::new().await;
    let redis = Redis::start_tls(&authority, &["--tls-auth-clients", "yes"]).await;
    let port = redis.tls_port();
    for scheme in ["rediss", "rediss+cluster"] {
        for account in ["", ":password@"] {
            let url = format!("{scheme}://{account}127.0.0.1:{port}");
            let launch = Launch::new(&["--check", "--redis-timeout", "5s"])
                .env("HOLDFAST_REDIS", &url)
                .env("SSL_CERT_FILE", &authority.path());
            assert_wrong(&launch.run().await, &["asks for a client certificate"]);
        }
    }
}

#[tokio::test]
async fn a_check_finds_each_command_that_the_account_may_not_use() {
    let redis = Redis::start(&[]).await;
    let url = format!("redis://some-user:password@127.0.0.1:{}", redis.port);
    let rules = documented_rules();
    // These are for sentinels, clusters and numbered databases, or say nothing of their own.
    let unused = ["+select", "+role", "+ping", "+cluster|slots", "+asking"];
    let needed = rules
        .iter()
        .filter(|rule| rule.starts_with('+') && !unused.contains(&rule.as_str()));
    let user = ["ACL", "SETUSER", "some-user", "on", ">password"];
    let allow = async |without: Option<&str>| {
        let all = rules.iter().map(String::as_str);
        let minus = without.map(|rule| rule.replacen('+', "-", 1));
        let words = user.into_iter().chain(all).chain(minus.as_deref());
        redis.command(&words.collect::<Vec<_>>()).await;
    };
    allow(None).await;
    check_good(&url).await;
    let mut count = 0;
    for rule in needed {
        allow(Some(rule)).await;
        let finished = check(&url).await;
        assert_eq!(finished.status.code(), Some(1), "{rule}: {finished:?}");
        let words = [
            "can't run this command",
            "no permissions",
            "NOPERM",
            "can't execute",
        ];
        let is_said = words.iter().any(|words| finished.stderr.contains(words));
        assert!(is_said, "{rule}: {finished:?}");
        // Redis does not name a command that a script runs.
        let name = rule.trim_start_matches('+');
        let is_named = finished.stderr.to_lowercase().contains(name);
        assert!(is_named, "{rule}: {finished:?}");
        count += 1;
    }
    assert_eq!(count, 11, "all that the scripts need");
    assert_eq!(redis.immortal().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_check_tries_each_master_of_a_cluster() {
    let cluster = RedisCluster::start(&[]).await;
    let masters = cluster.masters().await;
    assert_eq!(masters.len(), 3);
    let rules = documented_rules();
    let user = ["ACL", "SETUSER", "some-user", "on", ">password"];
    for redis in &cluster.redis {
        let words = user.into_iter().chain(rules.iter().map(String::as_str));
        redis.command(&words.collect::<Vec<_>>()).await;
    }
    let url = cluster.url().replace("//", "//some-user:password@");
    check_good(&url).await;
    for redis in masters {
        redis
            .command(&["ACL", "SETUSER", "some-user", "-hdel"])
            .await;
        let address = format!("127.0.0.1:{}: the script ", redis.port);
        check_wrong(&url, &[&address, "HDEL"]).await;
        redis
            .command(&["ACL", "SETUSER", "some-user", "+hdel"])
            .await;
    }
}

#[tokio::test]
async fn a_command_that_is_refused_in_use_is_an_error_with_the_script_and_redis_s_words() {
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(1, &redis.url(), &[]).await;
    nodes[0].set_ok("k", "1").await;
    redis
        .command(&["ACL", "SETUSER", "default", "-hdel", "-hget"])
        .await;
    for _ in 0..3 {
        let response = nodes[0].internal("DELETE", "/keys/k", &[], b"").await;
        assert_eq!(response.status, 503, "{response:?}");
    }
    let lines = |script: &str| {
        let logs = nodes[0].logs();
        let is_it = |line: &&String| {
            line.contains("Redis refused a command")
                && line.contains(&format!(r#""script":"{script}""#))
                && line.contains("can't run this command")
                && line.contains(r#""level":"ERROR""#)
        };
        logs.iter().filter(is_it).count()
    };
    // The refusal of one script leaves out no line about another.
    for script in ["write", "nodes"] {
        eventually(async || lines(script) > 0, script).await;
    }
    assert_eq!(lines("write"), 1, "one line a minute");
    redis.command(&["ACL", "SETUSER", "default", "-info"]).await;
    let is_logged = async || {
        let logs = nodes[0].logs();
        let is_it = |line: &String| {
            line.contains("inspection of Redis refused") && line.contains("'info' command")
        };
        logs.iter().any(is_it)
    };
    eventually(is_logged, "the refusal of INFO is logged").await;
    redis
        .command(&["ACL", "SETUSER", "default", "+hdel", "+hget", "+info"])
        .await;
    nodes[0].delete_ok("k").await;
    nodes.quiet().await;
}

/// The lines of INFO that a proxy changes in these tests.
const ROLE: &str = "role:master\r\nconnected_slaves:0\r\n";

/// Returns the lines in place of [`ROLE`], as long as these.
fn instead(line: &str) -> String {
    format!("{line}x:{}\r\n", "x".repeat(ROLE.len() - line.len() - 4))
}

#[tokio::test]
async fn only_a_role_that_takes_no_writes_is_refused() {
    let redis = Redis::start(&[]).await;
    assert!(redis.command(&["INFO"]).await.text().contains(ROLE));
    // KeyDB says the first with `active-replica yes`. Some proxies say no role at all.
    for good in ["role:active-replica\r\n", ""] {
        let proxy = RewritingProxy::start(redis.port, ROLE, &instead(good)).await;
        let url = format!("redis://127.0.0.1:{}", proxy.port);
        check_good(&url).await;
        let nodes = Nodes::start(2, &url, &[]).await;
        use_all(&nodes).await;
        nodes.quiet().await;
    }
    for bad in ["role:slave\r\n", "role:replica\r\n", "role:sentinel\r\n"] {
        let proxy = RewritingProxy::start(redis.port, ROLE, &instead(bad)).await;
        let url = format!("redis://127.0.0.1:{}", proxy.port);
        check_wrong(&url, &["it is a replica"]).await;
    }
    // Neither does a proxy have to say what it does with a full memory.
    let policy = "maxmemory_policy:noeviction\r\n";
    let proxy = RewritingProxy::start(
        redis.port,
        policy,
        &policy.replace("maxmemory", "something"),
    )
    .await;
    let url = format!("redis://127.0.0.1:{}", proxy.port);
    let nodes = Nodes::start(1, &url, &[]).await;
    let log = nodes[0].logs().join("\n");
    assert!(!log.contains("Redis may drop statuses"), "{log}");
    nodes.quiet().await;
}
