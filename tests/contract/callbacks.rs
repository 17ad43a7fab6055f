//! Names of callbacks and assignments: the names of real clients are called, and hostile names
//! are refused and not echoed.

use crate::abuse::fuzz::checks::RESERVED;
use crate::contract::golden::assert_golden;
use holdfast_testkit::{Conn, Node, Response, encode, request};

const TIMEOUT: &str = r#"{"code":-1,"message":"timeout","value":null,"version":0,"final":false}"#;

/// Returns the script that calls `name`, as the contract composes it.
fn call(name: &str) -> String {
    let guard = match name.split_once('.') {
        None => String::new(),
        Some((first, _)) => format!(
            r#"typeof {}!=="undefined"&&"#,
            first.split('[').next().unwrap()
        ),
    };
    format!(r#"/**/{guard}typeof {name}==="function"&&{name}({TIMEOUT});"#)
}

/// Checks that `name` is called in both ways in which clients write it into the query:
/// percent-encoded and as it is.
async fn assert_called(node: &Node, name: &str) {
    for written in [encode(name), name.to_owned()] {
        let response = node
            .get(&format!("/status/get?key=k&wait=0&callback={written}"))
            .await;
        assert_eq!(
            (response.status, response.text()),
            (200, call(name).as_str()),
            "{name}"
        );
    }
}

async fn assert_assigned(node: &Node, name: &str) {
    let response = node
        .get(&format!("/status/get?key=k&wait=0&assign={}", encode(name)))
        .await;
    assert_eq!(
        (response.status, response.text()),
        (200, format!("/**/window.{name}={TIMEOUT};").as_str()),
        "{name}"
    );
}

/// Checks that `parameter=name` (raw) is refused with the very bytes of the golden file. Nothing
/// of the name is in them.
async fn assert_refused(node: &Node, parameter: &str, name: &str) {
    let response = node
        .get(&format!(
            "/status/get?key=k&wait=0&{parameter}={}",
            encode(name)
        ))
        .await;
    assert_eq!(
        (response.status, response.text()),
        (400, "/**/"),
        "{parameter}={name:?}"
    );
    assert_golden("bad-callback", &response);
}

#[tokio::test]
async fn the_names_of_real_clients_are_called() {
    let node = Node::start(&[]).await;
    let names = [
        "cb",
        // jQuery 1 to 4, Zepto
        "jQuery36009876543210987654_1699999999999",
        "jQuery112409876543210987654321_1699999999999",
        "Zepto1699999999999",
        // jsonp, fetch-jsonp, jsonp-retry, axios-jsonp
        "__jp0",
        "jsonp_1699999999999_12345",
        "jsonp_1699_12345",
        "axiosJsonpCallback1",
        // AngularJS, Angular
        "angular.callbacks._0",
        "angular.callbacks._2s",
        "ng_jsonp_callback_0",
        // Engine.IO, Ext, dojo, esri-leaflet, YUI, WeChat
        "___eio[0]",
        "___eio[12]",
        "Ext.data.JsonP.callback1",
        "dojo_request_script_callbacks.dojo_request_script0",
        "window.x",
        "window._EsriLeafletCallbacks.c0",
        "YUI.Env.JSONP.yui_3_18_1_1_1699999999999_12",
        "window.QRLogin.code",
        "a.b.c.d.cb",
        "$",
        "_",
        "$.cb",
        "$_$0",
        "a",
    ];
    for name in names {
        assert_called(&node, name).await;
    }
}

#[tokio::test]
async fn indexes_are_up_to_four_of_up_to_five_digits_a_segment() {
    let node = Node::start(&[]).await;
    for name in [
        "a[0]",
        "a[12345]",
        "a[99999]",
        "a[0][1]",
        "a[0][1][2][3]",
        "a[0].b",
        "a.b[0]",
        "a[0].b[1].c",
        "a[0][1][2][3].b[4][5][6][7].c",
    ] {
        assert_called(&node, name).await;
    }
}

#[tokio::test]
async fn a_callback_is_at_most_128_bytes() {
    let node = Node::start(&[]).await;
    let dotted = format!("{}.{}", "a".repeat(64), "b".repeat(63));
    let indexed = format!("{}[0]", "a".repeat(125));
    for name in ["a".repeat(128), dotted, indexed] {
        assert_eq!(name.len(), 128);
        assert_called(&node, &name).await;
        assert_refused(&node, "callback", &format!("b{name}")).await;
    }
}

#[tokio::test]
async fn a_reserved_word_is_no_root_but_a_member() {
    let node = Node::start(&[]).await;
    for word in RESERVED.split_whitespace() {
        for name in [
            word.to_owned(),
            format!("{word}.cb"),
            format!("{word}[0]"),
            format!("{word}[0].cb"),
        ] {
            assert_refused(&node, "callback", &name).await;
        }
        assert_refused(&node, "assign", word).await;
        for name in [
            format!("a.{word}"),
            format!("a.{word}.cb"),
            format!("a[0].{word}[0]"),
            format!("{word}1"),
        ] {
            assert_called(&node, &name).await;
        }
        let capital = word[..1].to_uppercase() + &word[1..];
        assert_called(&node, &capital).await;
        assert_assigned(&node, &capital).await;
    }
}

#[tokio::test]
async fn hostile_callbacks_are_refused_and_not_echoed() {
    let node = Node::start(&[]).await;
    // Rosetta Flash (CVE-2014-4671): an alphanumeric SWF of about 1,200 bytes as the name.
    let rosetta =
        "CWSMIKI0hCD0Up0IZUnnnnnnnnnnnnnnnnnnnUU5nnnnnn3Snn7iiudIbEAt333swW0ssG03".repeat(17);
    let names = [
        "",
        " ",
        "alert(1)",
        "alert(1)//",
        "alert`1`",
        "a;b",
        "cb;alert(1)",
        "cb,alert",
        "a=b",
        "a=1;cb",
        "cb=",
        "a||b",
        "a&&b",
        "</script>",
        "<script>alert(1)</script>",
        "<!--",
        "-->",
        "cb\n",
        "\ncb",
        "a\nb",
        "cb\r\nx: y",
        "\r\n\r\n<html>",
        "*/",
        "*/alert(1)/*",
        "//",
        "/*",
        "#",
        "?",
        "'",
        "\"",
        "`",
        "\\",
        "{}",
        "{",
        "}",
        "()",
        "(",
        ")",
        "[]",
        "[",
        "]",
        "[0]",
        "\\u0061lert",
        "\\x61lert",
        "a\\u0062",
        "%61",
        "a..b",
        ".a",
        "a.",
        ".",
        "..",
        "a...b",
        "a[",
        "a]",
        "a[]",
        "a[x]",
        "a[0",
        "a0]",
        "a[0]]",
        "a[[0]]",
        "a[0]b",
        "a[0].",
        "a.[0]",
        "a[0]..b",
        "a[123456]",
        "a[-1]",
        "a[+1]",
        "a[ 0]",
        "a[0 ]",
        "a[1.5]",
        "a[0x1]",
        "a['x']",
        "a[\"x\"]",
        "a[0][1][2][3][4]",
        "a.b[0][1][2][3][4]",
        "a[0][]",
        "a[0,1]",
        "a-b",
        "a+b",
        "a b",
        "a\tb",
        "a\u{b}",
        "a\0",
        "\0a",
        "a\u{7f}",
        "1a",
        "1",
        "0",
        "a.1b",
        "a.1",
        "a.0",
        "é",
        "cbé",
        "имя",
        "名前",
        "ｃｂ",
        "a．b",
        "𝒶",
        "\u{17f}",
        "\u{212a}",
        "a\u{200d}b",
        "\u{feff}cb",
        "cb\u{2028}",
        "cb\u{2029}",
        "cb\u{a0}",
        "a@b",
        "a:b",
        "a?.b",
        "a?.[0]",
        "~a",
        "!a",
        "@a",
        "#a",
        "...a",
        "=>a",
        "javascript:alert(1)",
        "data:,x",
    ];
    for name in names {
        assert_refused(&node, "callback", name).await;
    }
    for length in [129, 512, 1200, 2000] {
        assert_refused(&node, "callback", &rosetta[..length.min(rosetta.len())]).await;
        assert_refused(&node, "callback", &"a".repeat(length)).await;
        assert_refused(&node, "callback", &format!("a{}", ".a".repeat(length / 2))).await;
    }
    // The node still works.
    assert_called(&node, "cb").await;
}

/// Asks with a callback of `length` bytes. Returns the answer, or `None` if the connection is
/// closed instead.
async fn ask_with_long_callback(node: &Node, length: usize) -> Option<Response> {
    let mut conn = Conn::open(&node.public).await;
    let target = format!("/status/get?key=k&wait=0&callback={}", "a".repeat(length));
    // The node may close the connection before it has read all of the request.
    conn.try_send(request("GET", &target, &[], b"")).await;
    conn.response_or_close().await
}

#[tokio::test]
async fn a_callback_that_makes_the_target_longer_than_8_kib_is_a_414() {
    let node = Node::start(&[]).await;
    let around = "/status/get?key=k&wait=0&callback=".len();
    let longest = ask_with_long_callback(&node, 8192 - around)
        .await
        .expect("an answer");
    assert_eq!((longest.status, longest.text()), (400, "/**/"));
    for length in [8192 - around + 1, 9_000, 15_000] {
        let response = ask_with_long_callback(&node, length)
            .await
            .expect("an answer");
        assert_eq!(response.status, 414, "{length}");
        assert!(
            !String::from_utf8_lossy(&response.bytes()).contains("aaaa"),
            "{response:?}"
        );
    }
    assert_called(&node, "cb").await;
}

#[tokio::test]
async fn a_callback_of_a_megabyte_is_refused_by_its_length() {
    let node = Node::start(&[]).await;
    if let Some(response) = ask_with_long_callback(&node, 1_000_000).await {
        // The target is too long, and so is the head that it makes.
        assert!([414, 431].contains(&response.status), "{response:?}");
        assert!(
            !String::from_utf8_lossy(&response.bytes()).contains("aaaa"),
            "{response:?}"
        );
    }
    assert_called(&node, "cb").await;
}

#[tokio::test]
async fn an_assignment_is_to_one_name_of_the_window() {
    let node = Node::start(&[]).await;
    let longest = "a".repeat(64);
    for name in [
        "qr",
        "_",
        "$",
        "$1",
        "a1",
        "QRLogin",
        "wx_errcode",
        "Location",
        "locations",
        &longest,
    ] {
        assert_assigned(&node, name).await;
    }
    let too_long = "a".repeat(65);
    let megabytes = "a".repeat(2000);
    let bad = [
        "",
        "a.b",
        "window.a",
        "a[0]",
        "a[0].b",
        ".a",
        "a.",
        "location",
        "1a",
        "a-b",
        "a b",
        "a=b",
        "a;b",
        "alert(1)",
        "</script>",
        "*/",
        "a\n",
        "\na",
        "a\0",
        "é",
        "ａ",
        "\\u0061",
        "a\u{2028}",
        &too_long,
        &megabytes,
    ];
    for name in bad {
        assert_refused(&node, "assign", name).await;
    }
}

#[tokio::test]
async fn location_may_be_called_though_not_assigned() {
    let node = Node::start(&[]).await;
    assert_called(&node, "location.cb").await;
    assert_called(&node, "location").await;
    assert_refused(&node, "assign", "location").await;
}

#[tokio::test]
async fn with_a_prefix_only_names_that_begin_with_it_are_called_and_assigned() {
    let node = Node::start(&["--callback-prefix", "app_"]).await;
    for name in ["app_", "app_cb", "app_.b[0].c"] {
        assert_called(&node, name).await;
    }
    for name in ["app_", "app_cb"] {
        assert_assigned(&node, name).await;
    }
    for name in [
        "cb",
        "app",
        "xapp_cb",
        "App_cb",
        "window.app_cb",
        "app.app_",
        "",
        "a.b.cb",
    ] {
        assert_refused(&node, "callback", name).await;
        assert_refused(&node, "assign", name).await;
    }
    // A name that is wrong with or without the prefix is refused as ever.
    for name in ["app_-", "app_[x]", "app_.."] {
        assert_refused(&node, "callback", name).await;
    }
    assert_refused(&node, "assign", "app_.b").await;
    // An answer in JSON has no name.
    assert_eq!(node.get("/status/get?key=k&wait=0").await.code(), -1);
}
