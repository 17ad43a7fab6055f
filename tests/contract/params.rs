//! The parameters of `/status/get`: the values that are accepted, the mistakes, and which
//! mistake is named first.

use std::time::{Duration, Instant};

use crate::contract::answers::check_script_headers;
use holdfast_testkit::{Node, Response, encode, request};

/// The greatest `last`, 2^53-1-2^20.
const LAST: u64 = 9_007_199_253_692_415;

async fn ask(node: &Node, query: &str) -> Response {
    node.get(&format!("/status/get?{query}")).await
}

/// Checks that `query` (without callback) is the mistake `message`: by HTTP status as JSON, and
/// by code alone as a script.
async fn assert_mistake(node: &Node, query: &str, message: &str) {
    assert_mistake_at(node, query, message, 0).await;
}

/// Checks the same, but `last` is right and so is repeated in `version`.
async fn assert_mistake_at(node: &Node, query: &str, message: &str, version: u64) {
    let object = format!(
        r#"{{"code":-5,"message":"{message}","value":null,"version":{version},"final":false}}"#
    );
    let json = ask(node, query).await;
    assert_eq!(
        (json.status, json.text()),
        (400, object.as_str()),
        "{query}"
    );
    let script = format!(r#"/**/typeof cb==="function"&&cb({object});"#);
    // The place of the callback in the query makes no difference.
    for query in [
        format!("callback=cb&{query}"),
        format!("{query}&callback=cb"),
    ] {
        let response = ask(node, &query).await;
        assert_eq!(
            (response.status, response.text()),
            (200, script.as_str()),
            "{query}"
        );
        check_script_headers(&response);
    }
}

/// Checks that `query` is right: without a status it is answered -1 at once, with `last`
/// repeated.
async fn assert_taken(node: &Node, query: &str, last: u64) {
    let response = ask(node, &format!("{query}&wait=0")).await;
    let object =
        format!(r#"{{"code":-1,"message":"timeout","value":null,"version":{last},"final":false}}"#);
    assert_eq!(
        (response.status, response.text()),
        (200, object.as_str()),
        "{query}"
    );
}

/// Checks that `query` asks for `key`: it gets the status that is set under it.
async fn assert_asks_for(node: &Node, query: &str, key: &str) {
    let value = format!("{:?}", encode(key));
    node.set_ok(key, &value).await;
    let response = ask(node, query).await;
    assert_eq!(
        (response.status, response.code()),
        (200, 0),
        "{query} for {key}: {response:?}"
    );
    assert!(
        response.text().contains(&format!(r#""value":{value},"#)),
        "{query} for {key}: {response:?}"
    );
}

/// Checks that a bad callback or assign gets HTTP 400 and an empty script, whatever else is
/// wrong.
async fn assert_no_script(node: &Node, query: &str) {
    let response = ask(node, query).await;
    assert_eq!((response.status, response.text()), (400, "/**/"), "{query}");
    check_script_headers(&response);
}

#[tokio::test]
async fn a_key_must_be_there() {
    let node = Node::start(&[]).await;
    let response = node.get("/status/get").await;
    assert_eq!(
        (response.status, response.json()["message"].as_str()),
        (400, Some("key: missing"))
    );
    for query in [
        "", "&", "&&&", "=", "=k", "wait=0", "Key=k", "KEY=k", "key%20=k", "%20key=k", "key%00=k",
        "keys=k",
    ] {
        assert_mistake(&node, query, "key: missing").await;
    }
    for query in ["key", "key=", "key=&wait=0", "%6bey=", "k%65y"] {
        assert_mistake(&node, query, "key: empty").await;
    }
}

#[tokio::test]
async fn a_key_is_1_to_128_bytes_after_decoding() {
    let node = Node::start(&[]).await;
    assert_asks_for(&node, "key=k", "k").await;
    let longest = "k".repeat(128);
    assert_asks_for(&node, &format!("key={longest}"), &longest).await;
    assert_asks_for(&node, &format!("key={}", "%6b".repeat(128)), &longest).await;
    for length in [129, 130, 1000, 2600] {
        assert_mistake(
            &node,
            &format!("key={}", "k".repeat(length)),
            "key: longer than 128 bytes",
        )
        .await;
    }
    assert_mistake(
        &node,
        &format!("key={}", "%6b".repeat(129)),
        "key: longer than 128 bytes",
    )
    .await;
}

#[tokio::test]
async fn a_key_is_printable_ascii() {
    let node = Node::start(&[]).await;
    for byte in 0x21..=0x7e_u8 {
        if byte != b'.' {
            let key = char::from(byte).to_string();
            assert_asks_for(&node, &format!("key=%{byte:02x}"), &key).await;
        }
    }
    for byte in (0..0x20_u8).chain([0x20, 0x7f]) {
        assert_mistake(
            &node,
            &format!("key=%{byte:02X}"),
            "key: must be printable ASCII without spaces (! to ~)",
        )
        .await;
        assert_mistake(
            &node,
            &format!("key=a%{byte:02x}b"),
            "key: must be printable ASCII without spaces (! to ~)",
        )
        .await;
    }
    for text in ["é", "ключ", "键", "🔑", "\u{feff}k", "k\u{2028}", "ｋ"] {
        assert_mistake(
            &node,
            &format!("key={}", encode(text)),
            "key: must be printable ASCII without spaces (! to ~)",
        )
        .await;
    }
}

#[tokio::test]
async fn a_key_is_no_dot_segment() {
    let node = Node::start(&[]).await;
    for key in [".", "..", "%2e", "%2E%2e", ".%2e"] {
        assert_mistake(&node, &format!("key={key}"), "key: must not be . or ..").await;
    }
    for key in ["...", ".a", "a.", "a..b", "..a"] {
        assert_asks_for(&node, &format!("key={key}"), key).await;
    }
}

#[tokio::test]
async fn fields_are_split_at_ampersands_and_the_first_equals_sign() {
    let node = Node::start(&[]).await;
    assert_asks_for(&node, "key=a=b", "a=b").await;
    assert_asks_for(&node, "key==", "=").await;
    assert_asks_for(&node, "key=a;last=x", "a;last=x").await;
    assert_asks_for(&node, "key=a?b/c:d@e,f", "a?b/c:d@e,f").await;
    assert_asks_for(&node, "&&key=a&&&wait=0&", "a").await;
    assert_asks_for(&node, "=key&key=a", "a").await;
    assert_asks_for(&node, "key=a%26last=x", "a&last=x").await;
    assert_asks_for(&node, "key=a%3D%26", "a=&").await;
}

#[tokio::test]
async fn names_and_values_are_percent_decoded_once() {
    let node = Node::start(&[]).await;
    assert_asks_for(&node, "%6b%65%79=%61", "a").await;
    assert_asks_for(&node, "key=%2541", "%41").await;
    assert_asks_for(&node, "key=%25", "%").await;
    assert_asks_for(&node, "key=%25zz", "%zz").await;
    assert_asks_for(&node, "key=%2f%2F", "//").await;
    assert_taken(&node, "key=nothing&l%61st=%31", 1).await;
    let response = ask(&node, "key=nothing&w%61it=%30&c%61llback=%63b").await;
    assert_eq!(
        response.object_text(),
        r#"{"code":-1,"message":"timeout","value":null,"version":0,"final":false}"#
    );
}

#[tokio::test]
async fn a_plus_is_a_plus() {
    let node = Node::start(&[]).await;
    assert_asks_for(&node, "key=a+b", "a+b").await;
    assert_asks_for(&node, "key=a%2Bb", "a+b").await;
    assert_mistake(
        &node,
        "key=k&last=+1",
        "last: must be a version (a whole number)",
    )
    .await;
    assert_mistake(&node, "key=k&wait=+1", "wait: must be a number of seconds").await;
}

#[tokio::test]
async fn bad_percent_encoding_is_named() {
    let node = Node::start(&[]).await;
    // Two hex digits are missing, or the bytes are not UTF-8: alone, cut off, overlong, a
    // surrogate, above U+10FFFF.
    let bad = [
        "%",
        "%a",
        "%zz",
        "%1",
        "a%",
        "%%",
        "%%41",
        "%4g",
        "%g4",
        "%+1",
        "%u0041",
        "%ff",
        "%80",
        "%C3",
        "%C3a",
        "%C0%80",
        "%c1%bf",
        "%ED%A0%80",
        "%F4%90%80%80",
        "%E2%80",
    ];
    for value in bad {
        assert_mistake(&node, &format!("key={value}"), "key: bad percent-encoding").await;
        assert_mistake(
            &node,
            &format!("key=k&last={value}"),
            "last: bad percent-encoding",
        )
        .await;
        assert_mistake(
            &node,
            &format!("key=k&wait={value}"),
            "wait: bad percent-encoding",
        )
        .await;
        assert_no_script(&node, &format!("key=k&callback={value}")).await;
        assert_no_script(&node, &format!("key=k&assign={value}")).await;
    }
    // A byte that is encoded well and means nothing in a parameter.
    assert_mistake(
        &node,
        "key=%00",
        "key: must be printable ASCII without spaces (! to ~)",
    )
    .await;
    assert_mistake(
        &node,
        "key=k&last=%00",
        "last: must be a version (a whole number)",
    )
    .await;
    assert_mistake(&node, "key=k&wait=%00", "wait: must be a number of seconds").await;
    assert_no_script(&node, "key=k&callback=%00").await;
    assert_no_script(&node, "key=k&assign=%00").await;
}

#[tokio::test]
async fn a_known_parameter_twice_is_a_mistake() {
    let node = Node::start(&[]).await;
    for query in [
        "key=k&key=k",
        "key=k&key=j",
        "key=k&%6bey=k",
        "k%65y=k&wait=0&key=k",
    ] {
        assert_mistake(&node, query, "key: given twice").await;
    }
    for query in ["key=k&last=0&last=0", "key=k&last=1&l%61st=2"] {
        assert_mistake(&node, query, "last: given twice").await;
    }
    for query in ["key=k&wait=0&wait=0", "key=k&wait=0&%77ait=0"] {
        assert_mistake(&node, query, "wait: given twice").await;
    }
    for name in ["callback", "assign"] {
        assert_no_script(&node, &format!("key=k&{name}=cb&{name}=cb")).await;
        assert_no_script(
            &node,
            &format!(
                "key=k&{name}=cb&%{:02x}{}=cb",
                name.as_bytes()[0],
                &name[1..]
            ),
        )
        .await;
        assert_no_script(&node, &format!("key=k&{name}=cb&wait=0&{name}=")).await;
    }
    for query in [
        "key=k&callback=cb&assign=qr",
        "assign=qr&callback=cb&key=k",
        "key=k&callback=&assign=qr",
    ] {
        assert_no_script(&node, query).await;
    }
}

#[tokio::test]
async fn unknown_parameters_are_ignored_whatever_they_hold() {
    let node = Node::start(&[]).await;
    let unknown = [
        "_=1699999999999",
        "_=1&_=2",
        "f=json",
        "x",
        "x=",
        "=x",
        "x=%zz",
        "%zz=x",
        "%=%",
        "%ff=1",
        "x=%ff",
        "x=%00",
        "Callback=alert(1)",
        "callback%20=alert(1)",
        "callback[]=alert(1)",
        "jsonp=cb",
        "last[]=x",
        "a=b=c",
        "x=+",
    ];
    for field in unknown {
        assert_taken(&node, &format!("key=k&{field}"), 0).await;
        assert_taken(&node, &format!("{field}&key=k&last=5"), 5).await;
    }
    assert_taken(&node, &format!("key=k&x={}", "y".repeat(7000)), 0).await;
    let many = "&x=1".repeat(1000);
    assert_taken(&node, &format!("key=k{many}"), 0).await;
}

#[tokio::test]
async fn last_is_a_version() {
    let node = Node::start(&[]).await;
    for last in [0, 1, 9, 10, 1_763_812_345_678, LAST - 1, LAST] {
        assert_taken(&node, &format!("key=k&last={last}"), last).await;
    }
    let bad = [
        "",
        "00",
        "01",
        "000",
        "-0",
        "-1",
        "+1",
        "1.0",
        "1.",
        ".1",
        "1e3",
        "0x10",
        "1_000",
        "%201",
        "1%20",
        "%091",
        "1%0a",
        "a",
        "NaN",
        "null",
        "true",
        "%EF%BC%91",
        "%D9%A1",
        "9007199253692416",
        "9007199254740991",
        "9007199254740992",
        "18446744073709551615",
        "18446744073709551616",
        "18446744073709551617",
        "99999999999999999999",
        "100000000000000000000000000000000000000000",
    ];
    for last in bad {
        assert_mistake(
            &node,
            &format!("key=k&last={last}"),
            "last: must be a version (a whole number)",
        )
        .await;
    }
    assert_mistake(
        &node,
        "key=k&last",
        "last: must be a version (a whole number)",
    )
    .await;
    assert_mistake(
        &node,
        &format!("key=k&last={}", "1".repeat(2000)),
        "last: must be a version (a whole number)",
    )
    .await;
}

#[tokio::test]
async fn last_lets_only_a_greater_version_through() {
    let node = Node::start(&[]).await;
    let version = node.set_ok("k", "1").await;
    for last in [0, 1, version - 1] {
        assert_eq!(
            ask(&node, &format!("key=k&last={last}")).await.version(),
            version
        );
    }
    assert_taken(&node, &format!("key=k&last={version}"), version).await;
    assert_taken(&node, &format!("key=k&last={}", version + 1), version + 1).await;
}

#[tokio::test]
async fn wait_is_a_number_of_seconds() {
    let node = Node::start(&["--hold", "1s"]).await;
    for wait in [
        "0",
        "00",
        "000000",
        "0.0",
        "0.00",
        "0.000",
        "000000.000",
        "0.001",
        "0.01",
        "0.020",
        "%30",
    ] {
        let response = ask(&node, &format!("key=k&wait={wait}")).await;
        assert_eq!((response.status, response.code()), (200, -1), "{wait}");
    }
    let bad = [
        "",
        ".",
        ".5",
        "1.",
        "1.0001",
        "0.0000",
        "1234567",
        "0000000",
        "-1",
        "-0",
        "+1",
        "1e3",
        "1E3",
        "0x1",
        "1,5",
        "1.5.1",
        "1s",
        "1.5s",
        "1%20",
        "%201",
        "1%0A",
        "inf",
        "NaN",
        "a",
        "%D9%A1",
        "%EF%BC%91",
        "99999999999999999999",
    ];
    for wait in bad {
        assert_mistake(
            &node,
            &format!("key=k&wait={wait}"),
            "wait: must be a number of seconds",
        )
        .await;
    }
    assert_mistake(&node, "key=k&wait", "wait: must be a number of seconds").await;
    node.quiet().await;
}

/// Returns how long a get of `query` is held until its deadline.
async fn held_for(node: &Node, query: &str) -> Duration {
    let mut held = node.open(query).await;
    let start = Instant::now();
    assert_eq!(held.answer().await.code(), -1, "{query}");
    start.elapsed()
}

#[tokio::test]
async fn a_get_is_held_as_long_as_wait_says() {
    let node = Node::start(&["--hold", "10m"]).await;
    let (short, long) = tokio::join!(
        held_for(&node, "key=a&wait=0.2"),
        held_for(&node, "key=b&wait=1.5")
    );
    // The time is measured only from after the request is written, so a little less can be
    // right. The harness's patience shows that the gets end before the hold does.
    assert!(short >= Duration::from_millis(190), "{short:?}");
    assert!(long >= Duration::from_millis(1490), "{long:?}");
    held_for(&node, "key=c&wait=0").await;
    node.quiet().await;
}

#[tokio::test]
async fn wait_is_clamped_to_the_hold_which_is_the_default() {
    let node = Node::start(&["--hold", "1s"]).await;
    let waits = tokio::join!(
        held_for(&node, "key=a"),
        held_for(&node, "key=b&wait=999999"),
        held_for(&node, "key=c&wait=999999.999"),
        held_for(&node, "key=d&wait=1.5"),
        held_for(&node, "key=e&wait=1"),
    );
    // The hold is shortened by up to 1/16.
    for held in [waits.0, waits.1, waits.2, waits.3, waits.4] {
        assert!(held >= Duration::from_millis(930), "{held:?}");
    }
    node.quiet().await;
}

#[tokio::test]
async fn the_first_mistake_is_key_then_last_then_wait_wherever_they_stand() {
    let node = Node::start(&[]).await;
    for query in [
        "wait=x&last=x&key=",
        "last=x&wait=x&key=",
        "key=&last=%zz&wait=%zz",
    ] {
        assert_mistake(&node, query, "key: empty").await;
    }
    assert_mistake(&node, "wait=x&last=x", "key: missing").await;
    assert_mistake(
        &node,
        "wait=%zz&last=x&wait=1&key=k&key=k",
        "key: given twice",
    )
    .await;
    assert_mistake(&node, "last=x&last=x&key=%zz", "key: bad percent-encoding").await;
    assert_mistake(
        &node,
        "wait=x&key=k&last=x",
        "last: must be a version (a whole number)",
    )
    .await;
    assert_mistake(
        &node,
        "wait=1&wait=1&key=k&last=%zz",
        "last: bad percent-encoding",
    )
    .await;
    assert_mistake(&node, "wait=%zz&key=k", "wait: bad percent-encoding").await;
}

#[tokio::test]
async fn a_bad_callback_or_assign_is_no_script_whatever_else_is_wrong() {
    let node = Node::start(&[]).await;
    let bad = [
        "callback=",
        "callback",
        "assign=",
        "assign",
        "callback=a&callback=b",
        "assign=a&assign=b",
        "callback=%zz",
        "assign=%zz",
        "callback=%ff",
        "assign=%ff",
        "callback=a&assign=b",
        "callback=alert(1)",
        "assign=a.b",
    ];
    for field in bad {
        for rest in [
            "key=k&wait=0",
            "key=",
            "",
            "key=%zz",
            "key=k&key=k",
            "key=k&last=x",
            "key=k&wait=x",
        ] {
            assert_no_script(&node, &format!("{rest}&{field}")).await;
            assert_no_script(&node, &format!("{field}&{rest}")).await;
        }
    }
}

#[tokio::test]
async fn a_mistake_repeats_last_as_version_where_last_is_right() {
    let node = Node::start(&[]).await;
    assert_mistake_at(&node, "last=7", "key: missing", 7).await;
    assert_mistake_at(&node, "key=&last=7", "key: empty", 7).await;
    assert_mistake_at(
        &node,
        "wait=x&key=k&last=7",
        "wait: must be a number of seconds",
        7,
    )
    .await;
    assert_mistake_at(&node, "last=01", "key: missing", 0).await;
    assert_mistake_at(&node, "key=k&last=7&last=7", "last: given twice", 0).await;
}

#[tokio::test]
async fn a_mistake_in_an_assignment_is_a_script_too() {
    let node = Node::start(&[]).await;
    let response = ask(&node, "assign=qr&key=k&last=x").await;
    let script = r#"/**/window.qr={"code":-5,"message":"last: must be a version (a whole number)","value":null,"version":0,"final":false};"#;
    assert_eq!((response.status, response.text()), (200, script));
}

#[tokio::test]
async fn a_mistake_never_echoes_what_was_sent() {
    let node = Node::start(&[]).await;
    for query in [
        "key=evil%20key",
        "key=evil%zz",
        "key=k&last=evil",
        "key=k&wait=evil",
        "evil=1",
        "key=k&callback=evil-cb",
    ] {
        let response = ask(&node, query).await;
        assert_eq!(response.status, 400, "{query}");
        assert!(
            !String::from_utf8_lossy(&response.bytes()).contains("evil"),
            "{query}: {response:?}"
        );
    }
}

#[tokio::test]
async fn a_mistake_holds_nothing_and_leaves_the_connection_open() {
    let node = Node::start(&[]).await;
    let mut held = node.open("key=").await;
    for query in ["key=k&last=x", "callback=cb", "callback=(", "key=k&wait=0"] {
        held.answer().await;
        held.conn
            .send(request("GET", &format!("/status/get?{query}"), &[], b""))
            .await;
    }
    assert_eq!(held.answer().await.code(), -1);
    node.quiet().await;
}
