//! Mistakes in the body of a set: each is named, stores nothing and wakes nobody.

use std::io::Write;
use std::time::Duration;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

use super::{FORM, assert_known, assert_unknown, check_done, check_refused, post};
use holdfast_testkit::{Conn, Node, request};

#[tokio::test]
async fn what_is_neither_json_nor_a_form_is_a_415() {
    let node = Node::start(&[]).await;
    let message = "unsupported media type: send a JSON object or array, or a form";
    let json = Some("application/json");
    for (content_type, body) in [
        (json, &b""[..]),
        (None, b""),
        (None, b"key=k&value=1"),
        (json, b"key=k&value=1"),
        (Some("multipart/form-data; boundary=b"), b"--b\r\n"),
        (Some("application/x-www-form-urlencodedx"), b"key=k&value=1"),
        (json, b"null"),
        (json, b"\"{\""),
        (json, b"1"),
        (json, b" \r\n\t"),
        (json, b"\0{\"key\":\"k\",\"value\":1}"),
        (json, b"/**/{\"key\":\"k\",\"value\":1}"),
    ] {
        check_refused(&post(&node, content_type, body).await, 415, message);
        assert_unknown(&node, "k").await;
    }
}

#[tokio::test]
async fn a_byte_order_mark_before_json_is_skipped() {
    let node = Node::start(&[]).await;
    for (key, body) in [
        ("one", &b"\xef\xbb\xbf{\"key\":\"one\",\"value\":1}"[..]),
        ("two", b"\xef\xbb\xbf \r\n[{\"key\":\"two\",\"value\":1}]"),
    ] {
        for content_type in [Some("application/json"), None, Some(FORM)] {
            let response = post(&node, content_type, body).await;
            assert_eq!(response.status, 200, "{response:?}");
            assert_known(&node, key, "1").await;
            node.delete_ok(key).await;
        }
    }
    // Only one, and only in front.
    for (body, status) in [
        (
            &b"\xef\xbb\xbf\xef\xbb\xbf{\"key\":\"k\",\"value\":1}"[..],
            415,
        ),
        (b" \xef\xbb\xbf{\"key\":\"k\",\"value\":1}", 415),
        (b"{\"key\":\"k\",\xef\xbb\xbf\"value\":1}", 400),
    ] {
        let response = post(&node, Some("application/json"), body).await;
        assert_eq!((response.status, response.code()), (status, -5));
        assert_unknown(&node, "k").await;
    }
}

/// The bodies that a client sends by mistake, as the programs make them that compress.
#[tokio::test]
async fn a_body_that_is_compressed_or_in_utf_16_is_told_what_it_is() {
    let node = Node::start(&[]).await;
    let set = r#"{"key":"k","value":"aaaaaaaaaaaaaaaaaaaaaaaa"}"#;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(set.as_bytes()).expect("memory");
    let gzip = gzip.finish().expect("memory");
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
    zlib.write_all(set.as_bytes()).expect("memory");
    let zlib = zlib.finish().expect("memory");
    // A brotli stream of one block that is not compressed.
    let brotli = [b"\x8b\x16\x80".as_slice(), set.as_bytes(), b"\x03"].concat();
    let wide =
        |order: fn(u16) -> [u8; 2]| -> Vec<u8> { set.encode_utf16().flat_map(order).collect() };
    let marked: Vec<u8> = [0xff, 0xfe]
        .into_iter()
        .chain(wide(u16::to_le_bytes))
        .collect();
    let compressed = "body: compressed; send it as it is";
    let utf_16 = "body: UTF-16 or UTF-32; send UTF-8";
    for (coding, body, message) in [
        (Some("gzip"), &gzip, compressed),
        (None, &gzip, compressed),
        (Some("deflate"), &zlib, compressed),
        (Some("br"), &brotli, compressed),
        (None, &wide(u16::to_le_bytes), utf_16),
        (None, &wide(u16::to_be_bytes), utf_16),
        (None, &marked, utf_16),
    ] {
        for content_type in ["application/json", FORM] {
            let mut headers = vec![("content-type", content_type)];
            headers.extend(coding.map(|coding| ("content-encoding", coding)));
            let response = node.internal("POST", "/status/set", &headers, body).await;
            check_refused(&response, 415, message);
            assert_unknown(&node, "k").await;
        }
    }
    // One that only says so is read as before.
    let headers = [("content-encoding", "gzip")];
    let response = node
        .internal("POST", "/status/set", &headers, set.as_bytes())
        .await;
    check_done(&response, 0);
}

const KEY_LONG: &str = "key: longer than 128 bytes";
const KEY_BYTES: &str = "key: must be printable ASCII without spaces (! to ~)";
const KEY_STRING: &str = "key: must be a string";
const KEY_DOTS: &str = "key: must not be . or ..";
const TTL: &str = "ttl: must be a whole number of seconds from 1 to 604800";
const FINAL: &str = "final: must be true or false";
const AFTER: &str = "after: must be a version (a whole number)";

/// Returns objects with one mistake each, and the message about it.
fn mistaken_objects() -> Vec<(String, String)> {
    let mut cases: Vec<(String, String)> = [
        (r"{}", "key: missing"),
        (r#"{"value":1}"#, "key: missing"),
        (r#"{"key":"k"}"#, "value: missing"),
        (r#"{"key":"k","key":"k","value":1}"#, "key: given twice"),
        (
            r#"{"key":"k","value":1,"k\u0065y":"j"}"#,
            "key: given twice",
        ),
        (r#"{"value":1,"key":"k","value":1}"#, "value: given twice"),
        (
            r#"{"key":"k","value":1,"ttl":1,"ttl":1}"#,
            "ttl: given twice",
        ),
        (
            r#"{"final":true,"key":"k","value":1,"final":true}"#,
            "final: given twice",
        ),
        (
            r#"{"after":0,"after":0,"key":"k","value":1}"#,
            "after: given twice",
        ),
    ]
    .map(|(body, message)| (body.to_owned(), message.to_owned()))
    .into();
    let mut with = |member: &str, values: &[&str], message: &str| {
        for value in values {
            let rest = if member == "key" {
                r#""value":1"#
            } else {
                r#""key":"k","value":1"#
            };
            cases.push((
                format!(r#"{{"{member}":{value},{rest}}}"#),
                message.to_owned(),
            ));
        }
    };
    let long = format!("\"{}\"", "k".repeat(129));
    with(
        "key",
        &["null", "1", "true", "[]", r#"["k"]"#, "{}"],
        KEY_STRING,
    );
    with("key", &[r#""""#], "key: empty");
    with("key", &[&long], KEY_LONG);
    let bytes = [
        r#""a b""#,
        r#"" ""#,
        r#""\u0000""#,
        r#""k\n""#,
        r#""\u007f""#,
        "\"\u{e9}\"",
        r#""\u00e9""#,
        "\"🔑\"",
    ];
    with("key", &bytes, KEY_BYTES);
    with("key", &[r#"".""#, r#""..""#, r#""\u002e.""#], KEY_DOTS);
    let ttls = [
        "0",
        "-1",
        "-0",
        "1.5",
        "1.0",
        "1e1",
        "604801",
        "99999999999999999999",
        r#""5""#,
        "null",
        "true",
        "[5]",
    ];
    with("ttl", &ttls, TTL);
    with(
        "final",
        &["0", "1", r#""true""#, r#""""#, "null", "[]", "{}"],
        FINAL,
    );
    let afters = [
        "-1",
        "-0",
        "1.0",
        "1e3",
        r#""5""#,
        "null",
        "false",
        "9007199254740992",
        "99999999999999999999",
    ];
    with("after", &afters, AFTER);
    for name in [
        "tll",
        "Key",
        "KEY",
        "vaule",
        "is_final",
        "_",
        "__proto__",
        "version",
        &"x".repeat(32),
    ] {
        with(name, &["1", "null"], &format!("{name}: unknown member"));
    }
    // A member that does not look like a name is not echoed.
    for name in [
        "",
        " ",
        "key ",
        "a-b",
        "<script>",
        r"key\u0000",
        "\u{e9}",
        &"x".repeat(33),
    ] {
        with(name, &["1", r#"{"a":[1]}"#], "body: unknown member");
    }
    cases
}

#[tokio::test]
async fn a_mistake_in_an_object_names_the_member_and_stores_nothing() {
    let node = Node::start(&[]).await;
    let good = r#"{"key":"good","value":1}"#;
    for (object, message) in mistaken_objects() {
        check_refused(&node.set(&object).await, 400, &message);
        check_refused(
            &node.set(format!("[{object}]")).await,
            400,
            &format!("[0] {message}"),
        );
        let array = format!("[{good},{good},{object},{{}}]");
        check_refused(&node.set(array).await, 400, &format!("[2] {message}"));
    }
    assert_unknown(&node, "k").await;
    assert_unknown(&node, "good").await;
}

#[tokio::test]
async fn a_body_that_is_no_object_or_array_of_objects_stores_nothing() {
    let node = Node::start(&[]).await;
    let good = r#"{"key":"k","value":1}"#;
    for body in [
        "[1]",
        "[null]",
        r#"["k"]"#,
        "[[]]",
        &format!("[{good},[{good}]]"),
        &format!("[{good},true]"),
    ] {
        check_refused(
            &node.set(body).await,
            400,
            "body: must be an object or an array of objects",
        );
    }
    for body in [
        "{",
        "[",
        r#"{"key":"k","value":1"#,
        r#"{"key":"k","value":1}}"#,
        r#"{"key":"k","value":1}{}"#,
        r#"{"key":"k","value":1}\0"#,
        r#"{"key":"k","value":1,}"#,
        r#"{"key":"k" "value":1}"#,
        r#"{key:"k","value":1}"#,
        r#"{'key':'k','value':1}"#,
        r#"{"key":"k","value":1} // set"#,
        r#"{"key":"k","value":}"#,
        r#"{"key":"k\x","value":1}"#,
        r#"{"key":"k","value":1,"ttl":05}"#,
        &format!("[{good},]"),
        &format!("[{good}"),
        &format!("[{good}]]"),
        &format!("[{good} {good}]"),
    ] {
        let response = node.set(body).await;
        let message = response.json()["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        assert!(
            message.starts_with("body: not JSON (line 1, column "),
            "{body}: {message}"
        );
        check_refused(&response, 400, &message);
    }
    check_refused(&node.set("[]").await, 400, "body: empty");
    check_refused(&node.set("[ ]").await, 400, "body: empty");
    assert_unknown(&node, "k").await;
}

#[tokio::test]
async fn a_mistake_in_a_form_names_the_member_and_stores_nothing() {
    let node = Node::start(&[]).await;
    let long = format!("key={}&value=1", "k".repeat(129));
    let mut cases = vec![
        ("".to_owned(), "key: missing"),
        ("value=1".to_owned(), "key: missing"),
        ("key=k".to_owned(), "value: missing"),
        ("key=&value=1".to_owned(), "key: empty"),
        (long, KEY_LONG),
        ("key=..&value=1".to_owned(), KEY_DOTS),
        ("key=k&value=1&ttk=5".to_owned(), "ttk: unknown member"),
        ("ttk=5".to_owned(), "ttk: unknown member"),
        (
            "hello".to_owned(),
            "body: not JSON, and not a form with key=",
        ),
        (
            "\"key\":\"k\"".to_owned(),
            "body: not JSON, and not a form with key=",
        ),
        // As a shell of Windows passes it on.
        (
            "'{key:k,value:a=b}'".to_owned(),
            "body: not JSON, and not a form with key=",
        ),
        ("key=k&value=1&_=5".to_owned(), "_: unknown member"),
        ("key=k&value=1&%zz=5".to_owned(), "body: unknown member"),
        ("key=k&value=1&=5".to_owned(), "body: unknown member"),
        ("key=k&value=1&a-b=5".to_owned(), "body: unknown member"),
    ];
    for key in ["a+b", "a%20b", "%00", "%7f", "%C3%A9"] {
        cases.push((format!("key={key}&value=1"), KEY_BYTES));
    }
    for (name, message, bad) in [
        (
            "ttl",
            TTL,
            &[
                "", "0", "-1", "+5", "%2B5", "1.0", "1e1", "604801", "null", "5s",
            ][..],
        ),
        ("final", FINAL, &["", "1", "TRUE", "yes", "+true"]),
        (
            "after",
            AFTER,
            &["", "-1", "01", "+1", "1.0", "9007199254740992", "null"],
        ),
    ] {
        cases.extend(
            bad.iter()
                .map(|value| (format!("key=k&value=1&{name}={value}"), message)),
        );
    }
    for (body, message) in cases {
        check_refused(
            &post(&node, Some(FORM), body.as_bytes()).await,
            400,
            message,
        );
    }
    for (name, good) in [
        ("key", "k"),
        ("value", "1"),
        ("ttl", "5"),
        ("final", "true"),
        ("after", "0"),
    ] {
        let all = "key=k&value=1&ttl=5&final=true&after=0";
        let twice = format!("{all}&{name}={good}");
        check_refused(
            &post(&node, Some(FORM), twice.as_bytes()).await,
            400,
            &format!("{name}: given twice"),
        );
        for bad in ["%zz", "%", "%ff", "%C3"] {
            let body = all.replace(&format!("{name}={good}"), &format!("{name}={bad}"));
            let message = format!("{name}: bad percent-encoding");
            check_refused(
                &post(&node, Some(FORM), body.as_bytes()).await,
                400,
                &message,
            );
        }
    }
    assert_unknown(&node, "k").await;
}

#[tokio::test]
async fn a_mistake_leaves_the_connection_open() {
    let node = Node::start(&[]).await;
    let mut conn = Conn::open(&node.internal).await;
    for body in ["{}", "x", "[{}]", "{", r#"{"key":"k","value":1,"after":7}"#] {
        let response = conn
            .ask(request("POST", "/status/set", &[], body.as_bytes()))
            .await;
        assert!(matches!(response.status, 400 | 409 | 415), "{response:?}");
        assert_eq!(response.header("connection"), None, "{response:?}");
    }
    check_done(
        &conn
            .ask(request(
                "POST",
                "/status/set",
                &[],
                br#"{"key":"k","value":1}"#,
            ))
            .await,
        0,
    );
}

#[tokio::test]
async fn one_mistake_in_an_array_stores_nothing_and_wakes_nobody() {
    let node = Node::start(&[]).await;
    let mut held = node.hold("key=a").await;
    let array = r#"[{"key":"a","value":1},{"key":"b","value":1},{"key":"c","value":1,"ttl":0}]"#;
    check_refused(&node.set(array).await, 400, &format!("[2] {TTL}"));
    assert!(held.conn.is_silent_for(Duration::from_millis(50)).await);
    assert_unknown(&node, "b").await;
    held.leave();
    node.quiet().await;
}
