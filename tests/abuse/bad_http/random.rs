//! Random bytes, and good requests with faults in them.

use super::{CHUNKED_BODY, SET, check_well_formed};
use holdfast_testkit::{Address, Conn, Node, eventually, request};

/// A small random generator of our own (splitmix64), so that a seed means the same on every
/// machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most)).map(|_| self.next() as u8).collect()
    }

    /// Returns `bytes` with one to four faults in them.
    fn mutated(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        const TOKENS: [&[u8]; 12] = [
            b"\r\n",
            b"\r\n\r\n",
            b"\n",
            b"\0",
            b":",
            b" ",
            b"%",
            b"content-length: 5\r\n",
            b"transfer-encoding: chunked\r\n",
            b"host: b\r\n",
            b"expect: 100-continue\r\n",
            b"&",
        ];
        for _ in 0..=self.below(4) {
            let from = self.below(bytes.len() + 1);
            let to = (from + self.below(20)).min(bytes.len());
            match self.below(5) {
                0 => drop(bytes.drain(from..to)),
                1 => drop(bytes.splice(from..from, self.bytes(8))),
                2 => {
                    drop(bytes.splice(from..from, TOKENS[self.below(TOKENS.len())].iter().copied()))
                }
                3 => drop(bytes.splice(from..from, bytes[from..to].to_vec())),
                _ => bytes
                    .iter_mut()
                    .skip(from)
                    .take(1)
                    .for_each(|byte| *byte ^= 1 << self.below(8)),
            }
        }
        bytes
    }
}

/// Returns good requests to put faults into, for the public or the internal listener.
fn good_requests(public: bool) -> Vec<Vec<u8>> {
    let get = |target: &str| request("GET", target, &[("accept", "*/*"), ("cookie", "a=b")], b"");
    let post = |body: &str| {
        request(
            "POST",
            "/status/set",
            &[("content-type", "application/json")],
            body.as_bytes(),
        )
    };
    match public {
        true => vec![
            get("/status/get?key=k&callback=cb&_=1699999999999"),
            get("/status/get?key=k&wait=0.5&last=1&assign=x"),
            [
                get("/status/get?key=other&wait=0"),
                get("/status/get?key=k&wait=0"),
            ]
            .concat(),
            request(
                "OPTIONS",
                "/status/get",
                &[
                    ("origin", "http://a"),
                    ("access-control-request-method", "GET"),
                ],
                b"",
            ),
            b"GET /status/get?key=k&wait=0 HTTP/1.0\r\nconnection: keep-alive\r\n\r\n".to_vec(),
        ],
        false => vec![
            post(r#"{"key":"spoilt","value":{"a":[1,2,3]},"ttl":5,"final":true,"after":1}"#),
            post(r#"[{"key":"spoilt","value":1},{"key":"spoilt","value":2}]"#),
            request("POST", "/status/set", &[], b"key=spoilt&value=a+b%21"),
            format!("{SET}transfer-encoding: chunked\r\n\r\n{CHUNKED_BODY}").into_bytes(),
            request(
                "POST",
                "/channel/set",
                &[],
                br#"{"to":"nobody","updates":[]}"#,
            ),
            request("DELETE", "/keys/spoilt", &[], b""),
            [get("/health/live"), get("/keys/spoilt"), get("/metrics")].concat(),
        ],
    }
}

/// Sends `bytes`, and reads answers until the connection ends, which it must.
async fn provoke(address: Address, bytes: Vec<u8>, half_close: bool) {
    let allowed: &[u16] = &[
        100, 200, 204, 400, 403, 404, 405, 408, 409, 410, 413, 414, 415, 421, 431, 501,
    ];
    let mut conn = Conn::open(&address).await;
    // The node may close the connection before all is sent.
    if conn.try_send(&bytes).await && half_close {
        conn.shutdown_write().await;
    }
    while let Some(response) = conn.response_or_close().await {
        check_well_formed(&response);
        assert!(allowed.contains(&response.status), "{response:?}");
    }
}

/// Sends all of `sent` to a node at once. A failure names the seed and the bytes that were sent.
async fn provoke_all(seed: u64, sent: Vec<(Address, Vec<u8>, bool)>) {
    let spawn = |(address, bytes, half_close): (Address, Vec<u8>, bool)| {
        (
            bytes.clone(),
            tokio::spawn(provoke(address, bytes, half_close)),
        )
    };
    for (bytes, task) in sent.into_iter().map(spawn).collect::<Vec<_>>() {
        let done = task.await;
        assert!(
            done.is_ok(),
            "HOLDFAST_TEST_SEED={seed}: {:?}",
            bytes.escape_ascii().to_string()
        );
    }
}

#[tokio::test]
async fn random_bytes_and_spoilt_requests_are_answered_or_closed_and_leave_nothing() {
    let short = [
        "--head-timeout",
        "500ms",
        "--idle-timeout",
        "500ms",
        "--body-timeout",
        "500ms",
        "--hold",
        "1s",
    ];
    let node = Node::start(&short).await;
    let live = node.internal("GET", "/health/live", &[], b"").await.json()["node"].clone();
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_nanos() as u64;
    let seed =
        std::env::var("HOLDFAST_TEST_SEED").map_or(now, |seed| seed.parse().expect("a number"));
    let mut random = Random(seed);
    for batch in 0..4 {
        let mut sent = Vec::new();
        for number in 0..500 {
            let public = random.below(3) > 0;
            let address = if public {
                node.public.clone()
            } else {
                node.internal.clone()
            };
            let bytes = match batch {
                0 => random.bytes(2_000),
                1 => (0..random.below(20_000))
                    .map(|_| b"GET /?=&%\r\n: \0aP1."[random.below(18)])
                    .collect(),
                _ => {
                    let good = good_requests(public);
                    random.mutated(good[number % good.len()].clone())
                }
            };
            sent.push((address, bytes, random.below(4) == 0));
        }
        provoke_all(seed, sent).await;
    }
    node.quiet().await;
    eventually(
        async || node.connections().await == 0.0,
        "all connections are gone",
    )
    .await;
    assert_eq!(
        node.internal("GET", "/health/live", &[], b"").await.json()["node"],
        live,
        "the same process"
    );
    let mut held = node.hold("key=after&callback=cb").await;
    let version = node.set_ok("after", "1").await;
    assert_eq!(held.answer().await.version(), version);
    node.quiet().await;
}
