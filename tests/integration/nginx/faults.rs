//! Nodes that are drained, killed, frozen and restarted under pages that poll all the while.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use super::crowd::{Crowd, Place, Tally, places};
use crate::support::nginx::{Site, free_address};
use crate::support::{Address, Nginx, Node, long};

/// Pages, and for how long each waits: some are always held, some are always on their way.
const PAGES: usize = 24;
const WAIT: &str = "0.3";

async fn in_front_of<const N: usize>(places: &[Place; N]) -> Arc<Nginx> {
    Arc::new(Nginx::start(places.iter().map(|place| &place.node.public)).await)
}

/// How many rounds over all nodes.
fn rounds() -> usize {
    if long() { 10 } else { 1 }
}

#[tokio::test]
async fn nodes_are_drained_and_restarted_one_after_another_and_no_get_is_lost() {
    // Under load a drain goes on to its grace: connections keep coming.
    let mut places = places::<3>(&["--drain-grace", "2s"]).await;
    let nginx = in_front_of(&places).await;
    let crowd = Crowd::start(&nginx, PAGES, WAIT);
    crowd.answered(100).await;
    for _ in 0..rounds() {
        for place in &mut places {
            assert_eq!(place.node.terminate().await.code(), Some(0));
            assert!(place.node.logs().iter().any(|line| line.contains(r#""message":"drained","cut_off":0"#)));
            place.restart().await;
        }
    }
    // The last one is asked again at once: nobody has marked it.
    let asked = places[2].node.metric(r#"holdfast_gets_total{outcome="timeout"}"#).await;
    crowd.answered(100).await;
    assert!(places[2].node.metric(r#"holdfast_gets_total{outcome="timeout"}"#).await > asked);
    let tally = crowd.end().await;
    assert!(tally.faults.is_empty() && tally.codes[&-2] > 0, "{tally:?}");
    for place in &places {
        place.node.quiet().await;
    }
}

#[tokio::test]
async fn gets_of_a_killed_node_go_on_at_the_others() {
    let mut places = places::<3>(&[]).await;
    let nginx = in_front_of(&places).await;
    let crowd = Crowd::start(&nginx, PAGES, WAIT);
    crowd.answered(100).await;
    for _ in 0..rounds() {
        for place in &mut places {
            place.node.signal("KILL").await;
            place.node.wait_exit().await;
            // While it is away nobody notices: connections to it are refused, and the next node is asked.
            crowd.answered(100).await;
            place.restart().await;
        }
    }
    let tally = crowd.end().await;
    assert!(tally.faults.is_empty() && tally.answers() > 300, "{tally:?}");
}

#[tokio::test]
async fn with_two_of_three_nodes_killed_all_pages_are_answered_by_the_third() {
    let mut places = places::<3>(&[]).await;
    let nginx = in_front_of(&places).await;
    let crowd = Crowd::start(&nginx, PAGES, WAIT);
    crowd.answered(100).await;
    for place in &mut places[..2] {
        place.node.signal("KILL").await;
    }
    crowd.answered(200).await;
    for place in &mut places[..2] {
        place.node.wait_exit().await;
        place.restart().await;
    }
    crowd.answered(100).await;
    let tally = crowd.end().await;
    assert!(tally.faults.is_empty(), "{tally:?}");
}

#[tokio::test]
async fn a_frozen_node_costs_its_own_gets_and_no_others() {
    let places = places::<3>(&["--hold", "1s"]).await;
    // The same order as in the file, shorter.
    let site = Site::new("nodes.conf").nodes(places.iter().map(|place| &place.node.public));
    let site = site.change("proxy_read_timeout 40s;", "proxy_read_timeout 3s;");
    let site = site.change("proxy_next_upstream_timeout 30s;", "proxy_next_upstream_timeout 2s;");
    let nginx = Arc::new(site.start().await);
    let crowd = Crowd::start(&nginx, PAGES, WAIT);
    crowd.answered(100).await;
    places[0].node.signal("STOP").await;
    // Not for something to happen: time has to pass.
    sleep(Duration::from_secs(5)).await;
    places[0].node.signal("CONT").await;
    crowd.answered(100).await;
    let tally = crowd.end().await;
    // Answered when the read timeout has passed, and not sent to another node for as long once more.
    assert!(!tally.faults.is_empty());
    for (took, fault) in &tally.faults {
        assert!(fault.starts_with("504") && (2.9..4.5).contains(&took.as_secs_f64()), "{took:?} {fault}");
    }
    assert!(tally.answers() > 200, "{tally:?}");
    let log = nginx.log("access.log");
    assert!(!log.lines().any(|line| line.contains("504, ")), "a timed out get was sent again: {log}");
}

/// Updates each node: it drains, is away for a moment, and comes back. Gives what the pages met.
async fn update_all(site: Site, places: &mut [Place; 3]) -> Tally {
    let nginx = Arc::new(site.start().await);
    let crowd = Crowd::start(&nginx, PAGES, "2");
    for place in &mut *places {
        assert_eq!(place.node.terminate().await.code(), Some(0));
        crowd.answered(12).await;
        place.restart().await;
    }
    crowd.answered(12).await;
    crowd.end().await
}

#[tokio::test]
async fn an_update_of_all_nodes_is_not_noticed_and_would_be_if_nginx_marked_nodes_as_it_does_by_default() {
    let mut places = places::<3>(&["--hold", "2s", "--drain-quiet", "100ms", "--drain-grace", "500ms"]).await;
    let site = Site::new("nodes.conf").nodes(places.iter().map(|place| &place.node.public));
    let tally = update_all(site.clone(), &mut places).await;
    assert!(tally.faults.is_empty(), "{tally:?}");
    if long() {
        let tally = update_all(site.change(" max_fails=0;", ";"), &mut places).await;
        assert!(tally.faults.iter().any(|(_, fault)| fault.starts_with("502")), "{tally:?}");
    }
}

/// An address where connections neither are accepted nor refused, as where a machine is gone: its backlog is full.
async fn silent() -> (Address, TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(free_address()).unwrap();
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
    // Each worker begins with the first of the list.
    assert!(took.iter().any(|took| *took > 1.9) && took.iter().all(|took| *took < 4.0), "{took:?}");
}
