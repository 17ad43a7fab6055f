//! Tests of pages that come back to the node that asked them to: a lone node ends all the same.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

use holdfast_testkit::{Address, Conn, Node, Redis, Response, eventually, request};

use super::{check_retry, log_line};

const PAGES: usize = 10;
/// A drain that lasts until nobody has come for a second.
const LONG: [&str; 4] = ["--drain-quiet", "1s", "--drain-grace", "10m"];

/// Comes back when it is asked to, as pages do, until nobody listens. Returns how often it was
/// asked.
async fn come_back(address: SocketAddr, mut answer: Response) -> usize {
    let mut asked = 0;
    loop {
        let after = check_retry(503, 0, &answer);
        asked += 1;
        // Time has to pass here: the page stays away for as long as it was asked to.
        sleep(Duration::from_millis(after)).await;
        if TcpStream::connect(address).await.is_err() {
            return asked;
        }
        let mut conn = Conn::open(&Address::Tcp(address)).await;
        answer = conn
            .ask(request("GET", "/status/get?key=k", &[], b""))
            .await;
    }
}

/// Before, each page came back within a second, so that no second was quiet, and the drain took
/// all of its grace.
#[tokio::test]
async fn pages_that_come_back_to_a_lone_node_do_not_keep_it_from_ending() {
    let mut node = Node::start(&LONG).await;
    let mut held = Vec::new();
    for _ in 0..PAGES {
        held.push(node.hold("key=k").await);
    }
    node.signal("TERM").await;
    let address = node.public.tcp();
    let mut pages = JoinSet::new();
    for mut held in held {
        pages.spawn(async move { come_back(address, held.answer().await).await });
    }
    pages.join_all().await;
    assert_eq!(node.wait_exit().await.code(), Some(0));
    assert_eq!(log_line(&node, "drained").await["cut_off"], 0);
}

#[tokio::test]
async fn a_page_that_can_reach_another_node_is_asked_to_come_back_soon() {
    let redis = Redis::start(&[]).await;
    let url = redis.url();
    let args = [
        &["--redis", &url],
        &["--drain-quiet", "1m", "--drain-grace", "10m"][..],
    ];
    let (draining, _other) = (
        Node::start(&args.concat()).await,
        Node::start(&args.concat()).await,
    );
    let knows_both = async || {
        let answer = draining.internal("GET", "/nodes", &[], b"").await;
        answer.json()["nodes"].as_array().expect("nodes").len() == 2
    };
    eventually(knows_both, "the node knows the other one").await;
    super::drain(&draining).await;
    for _ in 0..20 {
        let answer = super::ask_last(&draining, "key=k").await;
        assert!(check_retry(503, 0, &answer) <= 1000, "{answer:?}");
    }
}
