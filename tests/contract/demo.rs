//! The demo's routes: codes, their pictures, and the part that plays the app's backend. The work
//! of its pages is tested in a browser.

use serde_json::json;

use holdfast_testkit::{Conn, Held, Node, Response, encode, eventually, now_ms, request};

const FILES: [(&str, &str); 8] = [
    ("/demo", "text/html; charset=utf-8"),
    ("/demo/phone", "text/html; charset=utf-8"),
    ("/demo/demo.css", "text/css; charset=utf-8"),
    ("/demo/demo.js", "application/javascript; charset=utf-8"),
    ("/demo/wire.js", "application/javascript; charset=utf-8"),
    ("/demo/words.js", "application/javascript; charset=utf-8"),
    ("/demo/post.js", "application/javascript; charset=utf-8"),
    ("/demo/phone.js", "application/javascript; charset=utf-8"),
];
const RANDOM: &str = "aG9sZGZhc3QsIGEgZGVtbw";

async fn demo() -> Node {
    Node::start(&["--demo"]).await
}

/// Asks for a new code. Returns the id that stands in it, and the key that its page polls with.
async fn code(node: &Node) -> (String, String) {
    let answer = node.public("POST", "/demo/code", &[]).await.json();
    let text = |name: &str| answer[name].as_str().expect(name).to_owned();
    (text("id"), text("key"))
}

/// Holds a get with a code's key.
async fn hold(node: &Node, (id, key): &(String, String), last: u64) -> Held {
    let held = node.open(&format!("key={key}&last={last}")).await;
    node.wait_key_waiters(id, 1).await;
    held
}

async fn press(node: &Node, query: &str) -> Response {
    node.public("POST", &format!("/demo/phone?{query}"), &[])
        .await
}

#[tokio::test]
async fn its_files_may_load_nothing_from_elsewhere() {
    let node = demo().await;
    for (target, content_type) in FILES {
        let response = node.get(target).await;
        assert_eq!(
            (response.status, response.header("content-type")),
            (200, Some(content_type)),
            "{target}"
        );
        assert!(!response.body.is_empty(), "{target}");
        let policy = response
            .header("content-security-policy")
            .expect("a policy");
        assert!(
            policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"),
            "{target}: {policy}"
        );
        for (name, value) in [
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
        ] {
            assert_eq!(response.header(name), Some(value), "{target}");
        }
    }
}

#[tokio::test]
async fn nothing_of_it_is_there_unless_it_is_switched_on() {
    let node = Node::start(&[]).await;
    for (target, _) in FILES {
        assert_eq!(node.get(target).await.status, 404, "{target}");
    }
    assert_eq!(node.get("/demo/qr.svg?link=http://a").await.status, 404);
    let press = format!(
        "/demo/phone?id=demo-{}-{RANDOM}&do=scan&after=0",
        now_ms() + 60_000
    );
    for target in ["/demo/code", &press] {
        assert_eq!(
            node.public("POST", target, &[]).await.status,
            404,
            "{target}"
        );
    }
}

#[tokio::test]
async fn who_sees_the_code_does_not_hear_its_status_and_other_keys_need_no_signature() {
    let node = demo().await;
    let code = code(&node).await;
    let (id, key) = &code;
    let mut held = hold(&node, &code, 0).await;
    let (text, signature) = key.rsplit_once('.').unwrap();
    for seen in [
        id.clone(),
        text.to_owned(),
        format!("{text}.{}", signature.replace(|_| true, "A")),
    ] {
        let response = node.get(&format!("/status/get?key={seen}")).await;
        assert_eq!((response.status, response.code()), (410, -4), "{seen}");
    }
    assert_eq!(
        press(&node, &format!("id={id}&do=scan&after=0"))
            .await
            .json()["delivered"],
        1
    );
    assert_eq!(held.answer().await.code(), 0);
    assert_eq!(node.get(&format!("/status/get?key={id}")).await.code(), -4);
    // Other keys work as without the demo, and nobody signs them.
    for other in ["demo", "demo-1", "demo-1763812345678-short"] {
        let mut plain = node.hold(&format!("key={other}")).await;
        node.set_ok(other, "1").await;
        assert_eq!(plain.answer().await.code(), 0, "{other}");
    }
    assert_eq!(node.internal("POST", "/keys", &[], b"").await.status, 404);
}

#[tokio::test]
async fn each_route_has_its_methods_on_the_public_listener_alone() {
    let node = demo().await;
    for (target, allow) in [
        ("/demo", "GET"),
        ("/demo/demo.js", "GET"),
        ("/demo/qr.svg", "GET"),
        ("/demo/code", "POST"),
        ("/demo/phone", "GET, POST"),
    ] {
        let response = node.public("PUT", target, &[]).await;
        assert_eq!(
            (response.status, response.header("allow")),
            (405, Some(allow)),
            "{target}"
        );
        assert_eq!(
            node.internal("GET", target, &[], b"").await.status,
            404,
            "{target}"
        );
        assert_eq!(
            node.internal("POST", target, &[], b"").await.status,
            404,
            "{target}"
        );
    }
}

#[tokio::test]
async fn a_code_is_new_each_time_and_lives_for_two_minutes() {
    let node = demo().await;
    let before = now_ms();
    let response = node.public("POST", "/demo/code", &[]).await;
    assert_eq!(
        (response.status, response.header("content-type")),
        (200, Some("application/json"))
    );
    let answer = response.json();
    let (id, key) = (
        answer["id"].as_str().unwrap(),
        answer["key"].as_str().unwrap(),
    );
    let members = format!(
        r#"{{"code":0,"message":"success","id":"{id}","key":"{key}","expires_in_ms":120000}}"#
    );
    assert_eq!(response.text(), members);
    let [word, expires, random] = id.split('-').collect::<Vec<_>>()[..] else {
        panic!("{id}")
    };
    assert_eq!((word, random.len()), ("demo", 22));
    assert!(
        random.bytes().all(|byte| byte.is_ascii_alphanumeric()),
        "{id}"
    );
    let left = expires.parse::<u64>().unwrap() - before;
    assert!((120_000..130_000).contains(&left), "{left}");
    // The key is good for a minute more, so that a button pressed in the last moment is still
    // heard.
    let good_until = (expires.parse::<u64>().unwrap() + 60_000).to_string();
    assert_eq!(key.split('.').collect::<Vec<_>>()[..2], [id, &good_until]);
    assert_ne!(code(&node).await.0, id);
    let with_body = request("POST", "/demo/code", &[], b"{}");
    assert_eq!(
        Conn::open(&node.public).await.ask(with_body).await.status,
        400
    );
    // nginx passes the request on like this, without a length.
    let bare = "POST /demo/code HTTP/1.1\r\nhost: a\r\n\r\n";
    assert_eq!(Conn::open(&node.public).await.ask(bare).await.status, 200);
}

#[tokio::test]
async fn a_link_is_drawn_unless_it_is_none() {
    let node = demo().await;
    let response = node
        .get(&format!(
            "/demo/qr.svg?link={}",
            encode("https://a.example/demo/phone?key=t0psecret")
        ))
        .await;
    assert_eq!(
        (response.status, response.header("content-type")),
        (200, Some("image/svg+xml"))
    );
    assert_eq!(response.header("cache-control"), Some("no-store"));
    assert_eq!(response.header("x-content-type-options"), Some("nosniff"));
    assert!(response.text().contains("<svg ") && !response.text().contains("t0psecret"));
    let long = format!("?link=http://{}", "a".repeat(186));
    for (query, mistake) in [
        ("", "link: missing"),
        (
            "?link=ftp://a",
            "link: must be a link that begins with http:// or https://",
        ),
        ("?link=%F", "link: bad percent-encoding"),
        (&long, "link: longer than 192 bytes"),
    ] {
        let response = node.get(&format!("/demo/qr.svg{query}")).await;
        assert_eq!(
            (response.status, response.json()),
            (400, json!({"code": -5, "message": mistake}))
        );
    }
}

#[tokio::test]
async fn what_is_pressed_on_the_phone_is_heard_by_the_held_get() {
    let node = demo().await;
    let code = code(&node).await;
    let id = &code.0;
    let mut held = hold(&node, &code, 0).await;
    let scanned = press(&node, &format!("id={id}&do=scan&after=0")).await;
    let version = scanned.version();
    let receipt = format!(r#"{{"code":0,"message":"success","version":{version},"delivered":1}}"#);
    assert_eq!((scanned.status, scanned.text()), (200, receipt.as_str()));
    let answer = held.answer().await.json();
    assert_eq!(
        (&answer["value"], &answer["final"]),
        (&json!({"state": "scanned"}), &json!(false))
    );
    assert_eq!(answer["version"], version);

    let mut held = hold(&node, &code, version).await;
    let confirmed = press(
        &node,
        &format!(
            "id={id}&do=confirm&after={version}&name={}",
            encode("小安 & \"Zoë\"")
        ),
    )
    .await;
    assert_eq!(
        (confirmed.status, confirmed.json()["delivered"].as_u64()),
        (200, Some(1))
    );
    let answer = held.answer().await.json();
    let value = json!({"state": "confirmed", "user": "小安 & \"Zoë\""});
    assert_eq!((&answer["value"], &answer["final"]), (&value, &json!(true)));
    node.quiet().await;
}

#[tokio::test]
async fn refusing_is_final_and_a_name_is_there_by_default() {
    let node = demo().await;
    for (press_, value) in [
        ("refuse", json!({"state": "refused"})),
        ("confirm", json!({"state": "confirmed", "user": "Ann"})),
    ] {
        let (id, _) = code(&node).await;
        assert_eq!(
            press(&node, &format!("id={id}&do={press_}&after=0"))
                .await
                .status,
            200
        );
        let known = node
            .internal("GET", &format!("/keys/{id}"), &[], b"")
            .await
            .json();
        assert_eq!((&known["value"], &known["final"]), (&value, &json!(true)));
        let left = known["expires_in_ms"].as_u64().unwrap();
        assert!(
            (160_000..=180_000).contains(&left),
            "kept for a minute more than the code lives: {left}"
        );
    }
}

#[tokio::test]
async fn a_second_phone_and_a_repeat_are_conflicts() {
    let node = demo().await;
    let (id, _) = code(&node).await;
    let version = press(&node, &format!("id={id}&do=scan&after=0"))
        .await
        .version();
    let second = press(&node, &format!("id={id}&do=scan&after=0")).await;
    let conflict = json!({"code": -7, "message": "conflict", "version": version});
    assert_eq!((second.status, second.json()), (409, conflict));
    let confirm = format!("id={id}&do=confirm&after={version}");
    assert_eq!(press(&node, &confirm).await.status, 200);
    assert_eq!(press(&node, &confirm).await.status, 409);
    assert_eq!(
        press(&node, &format!("id={id}&do=refuse&after={version}"))
            .await
            .status,
        409
    );
}

#[tokio::test]
async fn each_mistake_is_named_and_nothing_is_set() {
    let node = demo().await;
    let (id, _) = code(&node).await;
    for (query, mistake) in [
        ("do=scan&after=0", "id: missing"),
        ("id=K&id=K&do=scan&after=0", "id: given twice"),
        ("id=K&after=0", "do: missing"),
        ("id=K&do=set&after=0", "do: must be scan, confirm or refuse"),
        ("id=K&do=scan", "after: missing"),
        (
            "id=K&do=scan&after=x",
            "after: must be a version (a whole number)",
        ),
        ("id=K&do=confirm&after=0&name=", "name: empty"),
        (
            "id=K&do=confirm&after=0&name=%C3%",
            "name: bad percent-encoding",
        ),
        (
            &format!("id=K&do=confirm&after=0&name={}", "x".repeat(41)),
            "name: longer than 40 characters",
        ),
    ] {
        let response = press(&node, &query.replace('K', &id)).await;
        assert_eq!(
            (response.status, response.json()),
            (400, json!({"code": -5, "message": mistake}))
        );
    }
    assert_eq!(
        node.internal("GET", &format!("/keys/{id}"), &[], b"")
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn no_other_key_can_be_touched() {
    let node = demo().await;
    let later = now_ms() + 60_000;
    for key in [
        "order-1",
        "demo",
        "demo-",
        &format!("demo-{later}"),
        &format!("demo-{later}-{}", &RANDOM[1..]),
        &format!("demo.{later}.{RANDOM}"),
        &format!("demo-{later}-{RANDOM}x"),
        &format!("demo-{later}-{RANDOM}%20"),
        &format!("demo-0{later}-{RANDOM}"),
        &format!("demo--{later}-{RANDOM}"),
        &format!("DEMO-{later}-{RANDOM}"),
        &format!("x%26id=demo-{later}-{RANDOM}"),
    ] {
        for action in ["scan", "confirm", "refuse"] {
            let response = press(&node, &format!("id={key}&do={action}&after=0")).await;
            assert_eq!(
                (response.status, response.json()["message"].as_str()),
                (400, Some("id: must be an id of the demo")),
                "{key}"
            );
        }
    }
    assert_eq!(
        node.metric(r#"holdfast_sets_total{result="success"}"#)
            .await,
        0.0
    );
}

#[tokio::test]
async fn an_expired_code_is_gone() {
    let node = demo().await;
    for expires in [now_ms() - 1, 1] {
        let response = press(
            &node,
            &format!("id=demo-{expires}-{RANDOM}&do=scan&after=0"),
        )
        .await;
        assert_eq!(
            (response.status, response.json()),
            (410, json!({"code": -4, "message": "gone"}))
        );
    }
    let soon = format!("demo-{}-{RANDOM}", now_ms() + 30_000);
    assert_eq!(
        press(&node, &format!("id={soon}&do=scan&after=0"))
            .await
            .status,
        200
    );
    let left = node
        .internal("GET", &format!("/keys/{soon}"), &[], b"")
        .await
        .json()["expires_in_ms"]
        .as_u64()
        .unwrap();
    assert!(
        (80_000..=90_000).contains(&left),
        "kept for a minute more than it lives: {left}"
    );
    let made_up = format!("demo-{}-{RANDOM}", now_ms() * 1000);
    assert_eq!(
        press(&node, &format!("id={made_up}&do=scan&after=0"))
            .await
            .status,
        200
    );
    let left = node
        .internal("GET", &format!("/keys/{made_up}"), &[], b"")
        .await
        .json();
    assert!(
        left["expires_in_ms"].as_u64().unwrap() <= 180_000,
        "and for no other's life: {left}"
    );
}

#[tokio::test]
async fn no_other_site_presses_its_buttons() {
    let node = demo().await;
    let (id, _) = code(&node).await;
    let target = format!("/demo/phone?id={id}&do=scan&after=0");
    for site in ["cross-site", "same-site"] {
        let headers = [
            ("sec-fetch-site", site),
            ("origin", "https://other.example"),
        ];
        let response = node.public("POST", &target, &headers).await;
        assert_eq!(
            (response.status, response.json()),
            (
                403,
                json!({"code": -5, "message": "forbidden: requests from other sites are refused"})
            )
        );
    }
    let own = [
        ("sec-fetch-site", "same-origin"),
        ("origin", "http://push.example.com"),
    ];
    assert_eq!(node.public("POST", &target, &own).await.status, 200);
}

#[tokio::test]
async fn a_set_is_carried_out_though_the_phone_has_left_and_no_log_has_the_key() {
    let node = Node::start(&["--demo", "--log", "trace"]).await;
    let code = code(&node).await;
    let id = &code.0;
    let mut held = hold(&node, &code, 0).await;
    // A phone that leaves before the node has looked at its request has set nothing. Then the
    // next phone sets it.
    let known = async || {
        let mut phone = Conn::open(&node.public).await;
        phone
            .send(request(
                "POST",
                &format!("/demo/phone?id={id}&do=scan&after=0"),
                &[],
                b"",
            ))
            .await;
        drop(phone);
        node.internal("GET", &format!("/keys/{id}"), &[], b"")
            .await
            .json()["version"]
            .as_u64()
            > Some(0)
    };
    eventually(known, "it is set").await;
    assert_eq!(
        held.answer().await.json()["value"],
        json!({"state": "scanned"})
    );
    for target in [
        format!("/demo/phone?id={id}"),
        format!("/demo/qr.svg?link=http://a/{id}"),
    ] {
        assert_eq!(node.get(&target).await.status, 200);
    }
    assert_eq!(
        press(&node, &format!("id={id}&do=scan&after=0"))
            .await
            .status,
        409
    );
    assert_eq!(
        press(&node, &format!("id={id}&do=nothing&after=0"))
            .await
            .status,
        400
    );
    let log = node.logs().join("\n");
    let random = id.rsplit('-').next().unwrap();
    assert!(!log.contains(random) && log.contains("/demo"), "{log}");
}

#[tokio::test]
async fn where_it_is_found_is_told_at_the_start_and_a_phone_is_not_led_to_loopback() {
    let node = demo().await;
    eventually(
        async || node.logs().iter().any(|line| line.contains("ready")),
        "the end of the start in the log",
    )
    .await;
    let log = node.logs().join("\n");
    assert!(
        log.contains(&format!("demo: http://{}/demo", node.public)),
        "{log}"
    );
    assert!(!log.contains("for a phone"), "{log}");
    assert!(
        node.get("/demo")
            .await
            .text()
            .contains(r#"<meta name="holdfast-phone" content="">"#)
    );
}

#[tokio::test]
async fn a_flood_is_answered_busy_and_no_more_is_drawn_or_set() {
    let node = demo().await;
    let picture = format!(
        "/demo/qr.svg?link={}",
        encode("https://a.example/demo/phone?key=k")
    );
    let mut refused = None;
    // The limit is fifty a second. How many seconds it takes to reach it depends on the machine. So
    // many ask at once.
    let mut conns = Vec::new();
    for _ in 0..20 {
        conns.push(Conn::open(&node.public).await);
    }
    for _ in 0..250 {
        for conn in &mut conns {
            conn.send(request("GET", &picture, &[], b"")).await;
        }
        for conn in &mut conns {
            let response = conn.read_response().await;
            if response.status != 200 {
                refused = Some(response);
            }
        }
        if refused.is_some() {
            break;
        }
    }
    let refused = refused.expect("fewer than all were drawn");
    assert_eq!(
        (
            refused.status,
            refused.code(),
            refused.header("retry-after")
        ),
        (429, -3, Some("1")),
        "{refused:?}"
    );
    assert!(refused.json()["retry_after_ms"].as_u64() >= Some(100));
    // The limit does not affect the rest of the node.
    assert_eq!(node.get("/status/get?key=k&wait=0").await.code(), -1);
    node.set_ok("k", "1").await;
}
