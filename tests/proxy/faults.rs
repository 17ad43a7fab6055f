//! Tests of nodes that are drained, killed, frozen and updated while pages poll through nginx
//! and a backend sets at any node. Each page sees the last status that was confirmed, and all
//! other results are counted.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use super::crowd::{Crowd, Tally};
use holdfast_testkit::nginx::Site;
use holdfast_testkit::{Address, Nginx, Node, Nodes, Redis, eventually, free_port, long};

/// The number of pages. With this many and with [`WAIT`], some are always held and some are
/// always on their way.
const PAGES: usize = 24;
const WAIT: &str = "0.8";

/// Returns a site with the list of three nodes.
fn site(nodes: &Nodes) -> Site {
    Site::new("nodes.conf").nodes(nodes.iter().map(|node| &node.public))
}

/// Waits for the last line in the log of a node that has ended, and returns it.
async fn drained(node: &Node) -> String {
    let line = || {
        node.logs()
            .into_iter()
            .find(|line| line.contains(r#""message":"drained""#))
    };
    eventually(async || line().is_some(), "the last line is read").await;
    line().unwrap()
}

/// Returns how often each node has its turn.
fn rounds() -> usize {
    if long() { 10 } else { 1 }
}

/// Checks that nothing stays behind that would not end by itself.
async fn check_end(nodes: &Nodes, redis: &Redis) {
    nodes.quiet().await;
    assert_eq!(redis.immortal().await, [] as [String; 0]);
}

#[tokio::test]
async fn nodes_are_drained_and_restarted_one_after_another_and_no_get_and_no_status_is_lost() {
    let redis = Redis::start(&[]).await;
    // Under load a drain lasts for its whole grace, because connections keep coming.
    let mut nodes = Nodes::start(3, &redis.url(), &["--drain-grace", "2s"]).await;
    let nginx = Arc::new(site(&nodes).start().await);
    let crowd = Crowd::start(&nginx, &nodes, PAGES, WAIT);
    crowd.answered(100).await;
    for _ in 0..rounds() {
        for at in 0..3 {
            assert_eq!(nodes[at].terminate().await.code(), Some(0));
            let log = drained(&nodes[at]).await;
            assert!(log.contains(r#""cut_off":0"#), "{log}");
            nodes.replace(at).await;
        }
    }
    crowd.answered(100).await;
    // nginx asks the last node again too: it has not marked it as down.
    assert!(
        nodes[2]
            .metric(r#"holdfast_gets_total{outcome="success"}"#)
            .await
            > 0.0
    );
    let tally = crowd.end().await;
    tally.assert_unnoticed();
    assert!(tally.codes[&-2] > 0, "{tally:?}");
    check_end(&nodes, &redis).await;
}

#[tokio::test]
async fn gets_of_a_killed_node_go_on_at_the_others() {
    let redis = Redis::start(&[]).await;
    let mut nodes = Nodes::start(3, &redis.url(), &[]).await;
    let nginx = Arc::new(site(&nodes).start().await);
    let crowd = Crowd::start(&nginx, &nodes, PAGES, WAIT);
    crowd.answered(100).await;
    for _ in 0..rounds() {
        for at in 0..3 {
            nodes.kill(at).await;
            // No page notices that the node is away: connections to it are refused, and the
            // next node is asked.
            crowd.answered(100).await;
            nodes.replace(at).await;
        }
    }
    // Wait until no get is under way that the last node to be killed has refused.
    crowd.answered(3 * PAGES as u64).await;
    // Two are killed at once, so the third gets all gets.
    nodes.kill(0).await;
    nodes.kill(1).await;
    crowd.answered(100).await;
    nodes.replace(0).await;
    nodes.replace(1).await;
    crowd.answered(100).await;
    let tally = crowd.end().await;
    tally.assert_unnoticed();
    check_end(&nodes, &redis).await;
}

#[tokio::test]
async fn a_get_that_a_killed_node_held_is_answered_by_another_with_a_status_set_on_a_third() {
    let redis = Redis::start(&[]).await;
    let mut nodes = Nodes::start(3, &redis.url(), &[]).await;
    let nginx = site(&nodes).start().await;
    let mut page = nginx.hold("key=k&callback=cb").await;
    nodes.wait_key_waiters("k", 1).await;
    let looked = nodes[0].internal("GET", "/keys/k", &[], b"").await.json();
    let holder = looked["waiters"]
        .as_object()
        .unwrap()
        .keys()
        .next()
        .unwrap()
        .clone();
    let at = (0..3)
        .find(|at| holder.ends_with(&nodes.url(*at)))
        .expect("one of them");
    nodes.kill(at).await;
    let (next, third) = ((at + 1) % 3, (at + 2) % 3);
    // Another node holds it again before the page could notice.
    for node in [next, third] {
        nodes[node].wait_key_waiters("k", 1).await;
    }
    let other = if nodes[next].metric("holdfast_waiters").await >= 1.0 {
        third
    } else {
        next
    };
    let version = nodes[other].set_ok("k", r#""v""#).await;
    let response = page.conn.read_response().await;
    assert_eq!(
        (response.code(), response.version()),
        (0, version),
        "{response:?}"
    );
}

#[tokio::test]
async fn a_frozen_node_costs_its_own_gets_and_no_others() {
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(3, &redis.url(), &["--hold", "1s"]).await;
    // The timeouts have the same order as in the file, but are shorter.
    let site = site(&nodes).change("proxy_read_timeout 40s;", "proxy_read_timeout 3s;");
    let site = site.change(
        "proxy_next_upstream_timeout 30s;",
        "proxy_next_upstream_timeout 2s;",
    );
    let nginx = Arc::new(site.start().await);
    let crowd = Crowd::start(&nginx, &nodes, PAGES, WAIT);
    crowd.answered(100).await;
    nodes[0].signal("STOP").await;
    // Time has to pass here; this does not wait for something to happen.
    sleep(Duration::from_secs(5)).await;
    nodes[0].signal("CONT").await;
    crowd.answered(100).await;
    let tally = crowd.end().await;
    // Each get is answered when the read timeout has passed. It is not sent to another node,
    // which would take as long again.
    assert!(!tally.faults.is_empty());
    for (took, fault) in &tally.faults {
        assert!(
            fault.starts_with("504") && (2.9..5.9).contains(&took.as_secs_f64()),
            "{took:?} {fault}"
        );
    }
    let log = Arc::into_inner(nginx).expect("no page has it").end();
    assert!(
        log.contains("\"504\"") && !log.contains("504, "),
        "a timed out get was sent again: {log}"
    );
    check_end(&nodes, &redis).await;
}

/// Updates each node: it drains, is away for a moment, and comes back. Returns the results of
/// the pages.
async fn update_all(site: Site, nodes: &mut Nodes) -> Tally {
    let nginx = Arc::new(site.start().await);
    let crowd = Crowd::start(&nginx, nodes, PAGES, "2");
    for at in 0..3 {
        assert_eq!(nodes[at].terminate().await.code(), Some(0));
        crowd.answered(12).await;
        nodes.replace(at).await;
    }
    crowd.answered(12).await;
    crowd.end().await
}

/// Checks that nginx marks no node as down, as the list of nodes says. The long form also shows
/// the faults that marks cause.
#[tokio::test]
async fn an_update_of_all_nodes_is_not_noticed_and_would_be_if_nginx_marked_nodes_as_it_does_by_default()
 {
    let redis = Redis::start(&[]).await;
    let mut nodes = Nodes::start(3, &redis.url(), &["--drain-grace", "500ms"]).await;
    let site = site(&nodes);
    let tally = update_all(site.clone(), &mut nodes).await;
    tally.assert_unnoticed();
    if long() {
        let tally = update_all(site.change(" max_fails=0;", ";"), &mut nodes).await;
        assert!(
            tally
                .faults
                .iter()
                .any(|(_, fault)| fault.starts_with("502")),
            "{tally:?}"
        );
    }
}

/// Returns an address at which connections are neither accepted nor refused, because its
/// backlog is full. A machine that is gone behaves like this.
async fn silent() -> (Address, TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], free_port()).into()).unwrap();
    let listener = socket.listen(0).unwrap();
    let (address, mut queued) = (listener.local_addr().unwrap(), Vec::new());
    while let Ok(stream) = timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
        queued.push(stream.unwrap());
    }
    (Address::Tcp(address), listener, queued)
}

#[tokio::test]
async fn a_node_whose_machine_is_gone_delays_a_get_by_the_connect_timeout() {
    let node = Node::start(&[]).await;
    let (gone, _listener, _queued) = silent().await;
    let nginx = Nginx::start([&gone, &node.public]).await;
    let mut took = Vec::new();
    for _ in 0..4 {
        let begun = Instant::now();
        assert_eq!(nginx.get("/status/get?key=k&wait=0").await.code(), -1);
        took.push(begun.elapsed().as_secs_f64());
    }
    // Each worker begins with the first node of the list.
    assert!(
        took.iter().any(|took| *took > 1.9) && took.iter().all(|took| *took < 4.0),
        "{took:?}"
    );
}
