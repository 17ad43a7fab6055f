//! The Redis servers that the other tests rely on. They do what is asked of them.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::net::TcpStream;

use holdfast_testkit::{
    Authority, Proxy, Redis, RedisCluster, Reply, Resp, Sentinels, Weather, eventually,
};

#[tokio::test]
async fn a_server_stops_goes_on_and_comes_back_empty() {
    let mut redis = Redis::start(&["--requirepass", "secret"]).await;
    redis.command(&["SET", "a", "1"]).await;
    redis.signal("STOP").await;
    let mut conn = Resp::open(redis.port).await.unwrap();
    assert!(
        conn.command_within(&["PING"], Duration::from_millis(100))
            .await
            .is_err()
    );
    redis.signal("CONT").await;
    assert_eq!(redis.command(&["GET", "a"]).await.text(), "1");
    redis.restart().await;
    assert_eq!(redis.command(&["GET", "a"]).await, Reply::Nil);
}

#[tokio::test]
async fn a_clock_is_ahead_and_a_replica_s_is_not() {
    let ahead = Redis::start_with_clock(60, &[]).await;
    let replica = Redis::replica_of(&ahead, &[]).await;
    for (redis, offset) in [(&ahead, 60), (&replica, 0)] {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let told = redis.command(&["TIME"]).await.list()[0]
            .number()
            .cast_unsigned();
        assert!(
            (now + offset..now + offset + 2).contains(&told),
            "{told} at {now}"
        );
    }
}

#[tokio::test]
async fn a_certificate_is_that_of_the_authority() {
    let authority = Authority::new().await;
    let redis = Redis::start_tls(&authority, &[]).await;
    let port = redis.tls_port().to_string();
    let args = ["-p", &port, "--tls", "--cacert", &authority.path(), "PING"];
    let output = tokio::process::Command::new("redis-cli")
        .args(args)
        .output()
        .await
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "PONG\n",
        "{output:?}"
    );
}

#[tokio::test]
async fn sentinels_fail_over_when_asked_and_when_the_master_dies() {
    let begun = Instant::now();
    let mut sentinels = Sentinels::start(2, &[]).await;
    eprintln!("started in {:?}", begun.elapsed());
    let first = sentinels.named().await;
    sentinels.failover().await;
    eprintln!("failed over at {:?}", begun.elapsed());
    let second = sentinels.kill_master().await;
    assert_ne!(first, second);
    sentinels.wait_other_master(second).await;
    eprintln!("again at {:?}", begun.elapsed());
    sentinels.master().await.command(&["SET", "a", "1"]).await;
}

#[tokio::test]
async fn a_cluster_moves_slots_and_fails_over() {
    let begun = Instant::now();
    let mut cluster = RedisCluster::start(&[]).await;
    eprintln!("started in {:?}", begun.elapsed());
    let before = cluster.master_of("a").await.unwrap();
    cluster.redis[before].command(&["SET", "a", "1"]).await;
    cluster.move_slot_of("a").await;
    let after = cluster.master_of("a").await.unwrap();
    assert_ne!(before, after);
    assert_eq!(
        cluster.redis[after].command(&["GET", "a"]).await.text(),
        "1"
    );
    let killed = cluster.kill_master_of("a").await;
    eprintln!("killed at {:?}", begun.elapsed());
    cluster.wait_other_master_of("a", killed).await;
    eprintln!("failed over at {:?}", begun.elapsed());
    let new = cluster.master_of("a").await.unwrap();
    eventually(
        async || {
            cluster.redis[new]
                .try_command(&["SET", "a", "2"])
                .await
                .is_ok()
        },
        "it works",
    )
    .await;
}

#[tokio::test]
async fn a_proxy_delays_freezes_and_cuts() {
    let redis = Redis::start(&[]).await;
    let proxy = Proxy::start(([127, 0, 0, 1], redis.port).into()).await;
    let mut conn = Resp::open(proxy.port).await.unwrap();
    conn.command(&["PING"]).await.unwrap();
    proxy.set(Weather::Delay(Duration::from_millis(50)));
    let begun = Instant::now();
    conn.command(&["PING"]).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(100));
    proxy.set(Weather::Freeze);
    assert!(
        conn.command_within(&["SET", "a", "1"], Duration::from_millis(50))
            .await
            .is_err()
    );
    assert_eq!(redis.command(&["GET", "a"]).await, Reply::Nil);
    proxy.set(Weather::Cut);
    eventually(
        async || TcpStream::connect(("127.0.0.1", proxy.port)).await.is_err(),
        "refused",
    )
    .await;
    assert!(conn.command(&["PING"]).await.is_err());
    proxy.set(Weather::Pass);
    eventually(async || Resp::open(proxy.port).await.is_ok(), "taken again").await;
}
