//! TLS with Redis: an authority of one's own, client certificates, and what is said if a certificate
//! is not good.

use holdfast_testkit::{
    Authority, Finished, Launch, Nodes, Redis, Scratch, Sentinels, eventually, free_port,
};

use super::logins::use_all;

/// Client certificates are asked for, as Redis does by default.
const ASKS: [&str; 2] = ["--tls-auth-clients", "yes"];

/// A certificate of holdfast's own, and the authority of Redis, as flags take them.
struct Client {
    authority: String,
    certificate: String,
    key: String,
}

impl Client {
    async fn of(authority: &Authority) -> Self {
        // The sentinel of these tests shows the same certificate to its clients.
        let names = "DNS:holdfast,IP:127.0.0.1";
        let (certificate, key) = authority.certificate_for("holdfast", names).await;
        Self {
            authority: authority.path(),
            certificate,
            key,
        }
    }

    fn flags(&self) -> [&str; 6] {
        [
            "--redis-ca",
            &self.authority,
            "--redis-cert",
            &self.certificate,
            "--redis-key",
            &self.key,
        ]
    }

    fn launch(&self, url: &str) -> Launch {
        Launch::new(&self.flags()).env("HOLDFAST_REDIS", url)
    }

    async fn check(&self, url: &str) -> Finished {
        check(&self.flags(), url).await
    }
}

async fn check(flags: &[&str], url: &str) -> Finished {
    let flags = [flags, &["--check", "--redis-timeout", "2s"]].concat();
    let launch = Launch::new(&flags).env("HOLDFAST_REDIS", url);
    launch.run().await
}

fn assert_ended(finished: &Finished, code: i32, said: &str) {
    assert_eq!(finished.status.code(), Some(code), "{finished:?}");
    assert!(finished.stderr.contains(said), "{said:?} in {finished:?}");
}

#[tokio::test]
async fn client_certificates_are_shown_to_servers_clusters_and_sentinels() {
    let authority = Authority::new().await;
    let client = Client::of(&authority).await;
    let redis = Redis::start_tls(&authority, &ASKS).await;
    let bus = free_port().to_string();
    let of_cluster = [
        "--cluster-enabled",
        "yes",
        "--cluster-port",
        &bus,
        "--tls-cluster",
        "yes",
    ];
    let cluster = Redis::start_tls(&authority, &[&ASKS[..], &of_cluster].concat()).await;
    let slots = ["CLUSTER", "ADDSLOTSRANGE", "0", "16383"];
    cluster.command(&slots).await;
    let is_up = async || {
        let info = cluster.command(&["CLUSTER", "INFO"]).await;
        info.text().contains("cluster_state:ok")
    };
    eventually(is_up, "the cluster has all slots").await;
    let tls = free_port();
    let config = format!(
        "tls-port {tls}\ntls-cert-file {}\ntls-key-file {}\ntls-ca-cert-file {}\n\
         tls-auth-clients yes\ntls-replication yes",
        client.certificate, client.key, client.authority
    );
    let (_sentinel, name) = Sentinels::one(redis.tls_port(), &config).await;
    for url in [
        format!("rediss://127.0.0.1:{}", redis.tls_port()),
        format!("rediss+cluster://127.0.0.1:{}", cluster.tls_port()),
        format!("rediss+sentinel://127.0.0.1:{tls}/{name}"),
    ] {
        let finished = client.check(&url).await;
        assert_ended(&finished, 0, "");
        let nodes = Nodes::launch(2, client.launch(&url)).await;
        use_all(&nodes).await;
        nodes.quiet().await;
    }
}

#[tokio::test]
async fn sentinels_and_their_master_may_differ_in_tls() {
    let authority = Authority::new().await;
    let redis = Redis::start_tls(&authority, &[]).await;
    let [tls, other_tls] = [free_port(), free_port()];
    let (certificate, key) = authority.certificate_for("sentinel", "IP:127.0.0.1").await;
    let ca = authority.path();
    let config = |tls: u16, master_has_tls: &str| {
        format!(
            "tls-port {tls}\ntls-cert-file {certificate}\ntls-key-file {key}\n\
             tls-ca-cert-file {ca}\ntls-auth-clients no\ntls-replication {master_has_tls}"
        )
    };
    let flags = ["--redis-ca", &ca];
    let (_only_sentinel, name) = Sentinels::one(redis.port, &config(tls, "no")).await;
    let url = format!("redis+sentinel://127.0.0.1:{tls}/{name}?sentinel_tls=true");
    assert_ended(&check(&flags, &url).await, 0, "");
    // Without TLS anywhere, certificates have no use.
    let finished = check(&flags, &url.replace("true", "false")).await;
    assert_ended(&finished, 64, "write rediss");
    let (plain_sentinel, name) = Sentinels::one(redis.tls_port(), &config(other_tls, "yes")).await;
    let url = format!(
        "rediss+sentinel://127.0.0.1:{}/{name}?sentinel_tls=false",
        plain_sentinel.port
    );
    let nodes = Nodes::launch(2, Launch::new(&flags).env("HOLDFAST_REDIS", &url)).await;
    use_all(&nodes).await;
    nodes.quiet().await;
    let finished = check(&flags, &url.replace("false", "true")).await;
    assert_ended(&finished, 1, "no TLS is spoken there");
}

#[tokio::test]
async fn each_certificate_that_is_not_good_is_said_apart() {
    let (authority, stranger) = (Authority::new().await, Authority::new().await);
    let client = Client::of(&authority).await;
    let of_stranger = Client::of(&stranger).await;
    let redis = Redis::start_tls(&authority, &ASKS).await;
    let of_another_name = Redis::start_tls_for(&authority, "DNS:other.example", &ASKS).await;
    let (expired, expired_key) = authority
        .expired_certificate_for("expired", "DNS:holdfast")
        .await;
    let ca = ["--redis-ca", &client.authority];
    let url = format!("127.0.0.1:{}", redis.tls_port());
    let of_another_name = format!("127.0.0.1:{}", of_another_name.tls_port());
    let no_tls = format!("127.0.0.1:{}", redis.port);
    let pair =
        |certificate, key| [&ca[..], &["--redis-cert", certificate, "--redis-key", key]].concat();
    let cases = [
        (
            &url,
            of_stranger.flags().to_vec(),
            "from an unknown authority",
        ),
        (
            &of_another_name,
            client.flags().to_vec(),
            "is for another name",
        ),
        (&url, ca.to_vec(), "Redis asks for a client certificate"),
        (
            &url,
            pair(&of_stranger.certificate, &of_stranger.key),
            "Redis refuses our client certificate",
        ),
        (
            &url,
            pair(&expired, &expired_key),
            "Redis refuses our client certificate (--redis-cert): CertificateExpired",
        ),
        (&no_tls, client.flags().to_vec(), "no TLS is spoken there"),
    ];
    for (address, flags, said) in &cases {
        for scheme in ["rediss", "rediss+cluster"] {
            let finished = check(flags, &format!("{scheme}://{address}")).await;
            assert_ended(&finished, 1, said);
        }
    }
    let finished = check(&[], &format!("redis://{url}")).await;
    assert_ended(&finished, 1, "if Redis speaks TLS there, write rediss");
    // The log of a node says the same, and warns of the certificate before.
    let (address, flags, said) = &cases[4];
    let launch = Launch::new(flags).env("HOLDFAST_REDIS", &format!("rediss://{address}"));
    let nodes = Nodes::launch_without_redis(1, launch).await;
    for said in ["Redis may refuse this certificate", said] {
        let is_logged = async || nodes[0].logs().iter().any(|line| line.contains(said));
        eventually(is_logged, said).await;
    }
    nodes.quiet().await;
}

#[tokio::test]
async fn a_mistake_in_the_settings_of_certificates_is_named() {
    let (authority, scratch) = (Authority::new().await, Scratch::new());
    let client = Client::of(&authority).await;
    let (_, other_key) = authority.certificate("other").await;
    let empty = scratch.file("empty", "");
    let (ca, cert, key) = (&client.authority, &client.certificate, &client.key);
    let cases: [(&str, &[&str], &str); 7] = [
        ("rediss", &["--redis-cert", cert], "--redis-key"),
        ("rediss", &["--redis-key", key], "--redis-cert"),
        (
            "rediss",
            &["--redis-cert", cert, "--redis-key", &other_key],
            "not the private key of the first certificate",
        ),
        (
            "rediss",
            &["--redis-cert", &empty, "--redis-key", key],
            "no certificate in it",
        ),
        ("rediss", &["--redis-ca", &empty], "no certificate in it"),
        ("redis", &["--redis-ca", ca], "write rediss"),
        (
            "redis+cluster",
            &["--redis-cert", cert, "--redis-key", key],
            "write rediss",
        ),
    ];
    for (scheme, flags, said) in cases {
        let finished = check(flags, &format!("{scheme}://127.0.0.1:1")).await;
        assert_ended(&finished, 64, said);
        assert_eq!(finished.stderr.lines().count(), 1, "{finished:?}");
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_used_for_the_next_connection_and_a_bad_one_is_not() {
    let (authority, next) = (Authority::new().await, Authority::new().await);
    let client = Client::of(&authority).await;
    let redis = Redis::start_tls(&authority, &ASKS).await;
    let url = format!("rediss://127.0.0.1:{}", redis.tls_port());
    let nodes = Nodes::launch(1, client.launch(&url)).await;
    let wait_logged = async |said: &str| {
        let is_logged = async || nodes[0].logs().iter().any(|line| line.contains(said));
        eventually(is_logged, said).await;
    };
    let write = |path: &str, bytes: &[u8]| std::fs::write(path, bytes).expect("written");
    let good = std::fs::read(&client.certificate).expect("read");
    write(&client.certificate, b"");
    redis.command(&["CLIENT", "KILL", "TYPE", "normal"]).await;
    wait_logged("no certificate in it").await;
    nodes.wait_connected().await;
    write(&client.certificate, &good);
    // From now on Redis accepts only certificates of the other authority.
    redis
        .command(&["CONFIG", "SET", "tls-ca-cert-file", &next.path()])
        .await;
    redis.command(&["CLIENT", "KILL", "TYPE", "normal"]).await;
    wait_logged("Redis refuses our client certificate").await;
    let (certificate, key) = next.certificate("holdfast").await;
    for (from, to) in [(key, &client.key), (certificate, &client.certificate)] {
        write(to, &std::fs::read(from).expect("read"));
    }
    nodes.wait_connected().await;
    use_one(&nodes).await;
    wait_logged("the files of Redis have another account or certificate").await;
    nodes.quiet().await;
}

async fn use_one(nodes: &Nodes) {
    nodes[0].set_ok("k", "1").await;
}

#[tokio::test]
async fn the_password_of_redis_is_not_sent_to_a_sentinel_without_tls() {
    let authority = Authority::new().await;
    let redis = Redis::start_tls(&authority, &[]).await;
    let (sentinel, name) = Sentinels::one(redis.tls_port(), "").await;
    let account = ["ACL", "SETUSER", "default", "resetpass", ">of-sentinels"];
    sentinel.command(&account).await;
    let ca = authority.path();
    let check_with = async |query: &str| {
        let url = format!(
            "rediss+sentinel://:of-redis@127.0.0.1:{}/{name}?{query}",
            sentinel.port
        );
        check(&["--redis-ca", &ca], &url).await
    };
    let finished = check_with("sentinel_tls=false").await;
    assert_ended(&finished, 1, "give sentinel_password in the URL");
    let names = "sentinel_tls=false&sentinel_password=of-sentinels";
    // The sentinel is asked. It needs TLS to reach this master itself, and names it all the same.
    assert_ended(
        &check_with(names).await,
        1,
        "the master that the sentinels name",
    );
}

#[tokio::test]
async fn an_expired_certificate_that_redis_does_not_ask_for_keeps_no_token_from_being_replaced() {
    let (authority, scratch) = (Authority::new().await, Scratch::new());
    let redis = Redis::start_tls(&authority, &["--tls-auth-clients", "no"]).await;
    let names = "DNS:holdfast";
    let (certificate, key) = authority.expired_certificate_for("expired", names).await;
    let (ca, tokens) = (authority.path(), scratch.file("tokens", "first\n"));
    let flags = ["--redis-ca", &ca, "--redis-cert", &certificate];
    let more = ["--redis-key", &key, "--internal-token-file", &tokens];
    let url = format!("rediss://127.0.0.1:{}", redis.tls_port());
    let launch = Launch::new(&[flags, more].concat()).env("HOLDFAST_REDIS", &url);
    let nodes = Nodes::launch(1, launch).await;
    std::fs::write(&tokens, "second\n").expect("written");
    nodes[0].signal("HUP").await;
    let set = async || {
        let authorization = [("authorization", "Bearer second")];
        let body = br#"{"key":"k","value":1}"#;
        let set = nodes[0].internal("POST", "/status/set", &authorization, body);
        set.await.status == 200
    };
    eventually(set, "the new token is good").await;
}
