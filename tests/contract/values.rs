//! Values: carried to the byte as JSON, equal in structure as scripts (evaluated by Node), or
//! refused.

use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use crate::contract::sets::check_refused;
use holdfast_testkit::{Conn, Node, encode, request};

/// A case that `values.js` compares: its scripts must give the value that `JSON.parse` makes of
/// `text`.
struct Case {
    name: String,
    text: String,
    scripts: [String; 2],
}

/// Evaluates all scripts in one Node process, and checks that each gives the right value.
async fn assert_equal_in_node(cases: &[Case]) {
    let cases: Vec<_> = cases
        .iter()
        .map(
            |Case {
                 name,
                 text,
                 scripts,
             }| json!({ "name": name, "text": text, "scripts": scripts }),
        )
        .collect();
    let mut node = Command::new("node")
        .args(["-e", include_str!("values.js")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("node (https://nodejs.org) is needed by the tests");
    let mut stdin = node.stdin.take().expect("piped");
    stdin
        .write_all(&serde_json::to_vec(&cases).unwrap())
        .await
        .expect("node reads");
    drop(stdin);
    let output = timeout(Duration::from_secs(60), node.wait_with_output())
        .await
        .expect("node ends")
        .expect("its output");
    let faults: Vec<String> = serde_json::from_slice(&output.stdout).expect("what node found");
    assert!(output.status.success() && faults.is_empty(), "{faults:#?}");
}

/// A page and a backend, each on one connection.
struct Both {
    page: Conn,
    backend: Conn,
}

impl Both {
    async fn connect(node: &Node) -> Self {
        Self {
            page: Conn::open(&node.public).await,
            backend: Conn::open(&node.internal).await,
        }
    }

    /// Sets `k` by `body`. Returns the version.
    async fn set(&mut self, content_type: &str, body: &str) -> u64 {
        let headers = [("content-type", content_type)];
        let response = self
            .backend
            .ask(request("POST", "/status/set", &headers, body.as_bytes()))
            .await;
        assert_eq!(response.status, 200, "{body}: {}", response.text());
        response.version()
    }

    async fn get(&mut self, form: &str) -> String {
        let response = self
            .page
            .ask(request(
                "GET",
                &format!("/status/get?key=k&wait=0{form}"),
                &[],
                b"",
            ))
            .await;
        assert_eq!(response.status, 200, "{}", response.text());
        response.text().to_owned()
    }

    /// Polls `k` in each form. The JSON answer must be `object` to the byte. Returns the two
    /// scripts as a case.
    async fn answers(&mut self, name: &str, object: &str) -> Case {
        assert_eq!(self.get("").await, object, "{name}");
        let scripts = [self.get("&callback=cb").await, self.get("&assign=qr").await];
        for (script, (before, behind)) in scripts.iter().zip(WRAPPINGS) {
            assert!(
                script.starts_with(before) && script.ends_with(behind),
                "{name}: {script}"
            );
            assert!(
                !script.contains(['\u{2028}', '\u{2029}']),
                "{name}: {script}"
            );
        }
        Case {
            name: name.to_owned(),
            text: object.to_owned(),
            scripts,
        }
    }

    /// Sets `k` to `text`, and polls it in each form.
    async fn carry(&mut self, name: &str, text: &str) -> Case {
        let value = text.trim_matches([' ', '\t', '\r', '\n']);
        let version = self
            .set(
                "application/json",
                &format!("{{\"key\":\"k\",\"value\":\n\t{text} \r\n}}"),
            )
            .await;
        let looked = self.backend.ask(request("GET", "/keys/k", &[], b"")).await;
        assert!(
            looked.text().starts_with(&format!(
                r#"{{"key":"k","version":{version},"value":{value},"final""#
            )),
            "{name}"
        );
        self.answers(name, &answer(value, version)).await
    }
}

const WRAPPINGS: [(&str, &str); 2] = [
    (r#"/**/typeof cb==="function"&&cb({"#, "});"),
    ("/**/window.qr={", "};"),
];

/// Returns the answer's object for a value, as it is in JSON and in scripts.
fn answer(value: &str, version: u64) -> String {
    format!(r#"{{"code":0,"message":"success","value":{value},"version":{version},"final":false}}"#)
}

/// Returns texts beside the fixtures. Each shows by itself what it is for.
fn texts() -> Vec<String> {
    let nested = |open: &str, close: &str, levels: usize| {
        format!("{}1{}", open.repeat(levels), close.repeat(levels))
    };
    let mut texts: Vec<String> = [
        "0",
        "-0.0e-0",
        "1E400",
        "-1e-400",
        "0.1e+1",
        "9007199254740993",
        "-9007199254740993.0",
        r#""\ud83d\ude00\uD83D\uDE00😀""#,
        r#""\u0000\u001f\u007f\b\f\n\r\t\/\\\"""#,
        r#""\\u2028\\ud800""#,
        r#""\u2028\u2029""#,
        "\"\u{2028}\u{2029}\\\u{22}\u{2028}\"",
        "{\"\u{2028}\":\"\u{2029}\",\"__proto__\":{\"\u{2029}\":[\"\u{2028}\"]}}",
        "\"\u{2027}\u{202a}\u{e2}\u{80}\u{a8}\u{feff}\u{a0}\u{7f}\"",
        r#""</script><!--<script>]]>*/ //""#,
        r#"{"__proto__":{"polluted":1},"__proto__":[{"__proto__":null}]}"#,
        r#"{"__proto__":[]}"#,
        r#"[{"__proto__":"__proto__"},"__proto__",{"a":"__proto__"}]"#,
        "{\"__proto__\" \t\r\n:1,\"a\":{\"__proto__\":{}}}",
        r#"{"\u005f\u005F\u0070\u0072\u006F\u0074\u006f\u005f_":1}"#,
        r#"{"\\u005f_proto__":1,"__proto__\"":2,"\"__proto__":3,"__proto__:":4}"#,
        r#"{"a":"\"__proto__\":1","b":"__proto__\\"}"#,
        r#"{"constructor":1,"toString":2,"valueOf":3,"hasOwnProperty":4,"length":5,"get a":6,"0":7,"00":8}"#,
        r#"{"a":1,"a":2,"\u0061":3,"b":{"b":[]}}"#,
        "[ ]",
        "{ }",
        "[ [ ] , { } ]",
        "{\n  \"a\" : [\r\n\t1 ,\t2\n]\n}",
    ]
    .map(str::to_owned)
    .into();
    texts.push("1".repeat(2000));
    texts.push(format!("0.{}", "3".repeat(2000)));
    texts.push(format!("[{}]", vec!["1"; 10_000].join(",")));
    texts.push(format!("[{}]", vec![r#"{"__proto__":[]}"#; 2000].join(",")));
    texts.push(format!("\"{}\"", "\u{2028}".repeat(20_000)));
    texts.extend([
        nested("[", "]", 64),
        nested(r#"{"__proto__":"#, "}", 64),
        nested(r#"[{"a":"#, "}]", 32),
    ]);
    texts
}

/// Dice whose throws are the same in every run.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }

    fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.throw(choices.len())]
    }

    fn space(&mut self) -> &'static str {
        self.of(&["", "", "", " ", "\n\t", "\r"])
    }

    fn string(&mut self) -> String {
        let pieces = [
            "__proto__",
            r"\u005f_proto_\u005F",
            "a",
            "0",
            "",
            r#"\""#,
            r"\\",
            "\u{2028}",
            r"\u2029",
            ":",
            "}",
            "é",
            "</",
        ];
        let count = [1, 1, 1, 2, 3][self.throw(5)];
        format!(
            "\"{}\"",
            (0..count).map(|_| self.of(&pieces)).collect::<String>()
        )
    }

    fn value(&mut self, levels: usize) -> String {
        let kinds = if levels == 0 { 3 } else { 5 };
        let text = match self.throw(kinds) {
            0 => self
                .of(&[
                    "null",
                    "true",
                    "false",
                    "0",
                    "-0",
                    "1e400",
                    "0.10",
                    "12345678901234567890",
                ])
                .to_owned(),
            1 | 2 => self.string(),
            3 => format!("[{}]", self.list(|dice| dice.value(levels - 1))),
            _ => {
                let member = |dice: &mut Self| {
                    format!(
                        "{}{}{}:{}",
                        dice.space(),
                        dice.string(),
                        dice.space(),
                        dice.value(levels - 1)
                    )
                };
                format!("{{{}}}", self.list(member))
            }
        };
        format!("{}{text}{}", self.space(), self.space())
    }

    fn list(&mut self, one: impl Fn(&mut Self) -> String) -> String {
        let count = self.throw(5);
        (0..count).map(|_| one(self)).collect::<Vec<_>>().join(",")
    }
}

/// Returns the fixtures: one JSON text a file.
fn fixtures() -> Vec<(String, String)> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/values");
    let paths = std::fs::read_dir(directory)
        .expect(directory)
        .map(|entry| entry.unwrap().path());
    let texts = paths
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read_to_string(path).expect("UTF-8"))
        });
    let mut texts: Vec<_> = texts.collect();
    texts.sort();
    assert!(texts.len() > 20, "{directory}");
    texts
}

#[tokio::test]
async fn a_value_is_carried_to_the_byte_and_a_script_gives_what_json_parse_gives() {
    let node = Node::start(&[]).await;
    let mut both = Both::connect(&node).await;
    let mut cases = Vec::new();
    for (name, text) in fixtures() {
        cases.push(both.carry(&name, &text).await);
    }
    for text in texts() {
        let shown: String = text.chars().take(60).collect();
        cases.push(both.carry(&shown, &text).await);
    }
    for throw in 0..if holdfast_testkit::long() { 5000 } else { 300 } {
        let text = Dice(throw).value(5);
        cases.push(both.carry(&format!("throw {throw}"), &text).await);
    }
    assert_equal_in_node(&cases).await;
}

#[tokio::test]
async fn a_form_s_value_is_the_string_whatever_is_in_it() {
    let node = Node::start(&[]).await;
    let mut both = Both::connect(&node).await;
    let ascii: String = (0..0x80_u8).map(char::from).collect();
    let mut strings: Vec<String> = [
        "",
        "paid",
        "null",
        "{\"__proto__\":1}",
        "__proto__",
        "\u{2028}\u{2029}",
        "Größe 🎣",
        "\u{feff}x",
    ]
    .map(str::to_owned)
    .into();
    strings.extend([ascii, "\"\\".repeat(1000), "</script>".to_owned()]);
    for (_, text) in fixtures() {
        strings.extend(serde_json::from_str::<String>(&text));
    }
    let mut cases = Vec::new();
    for raw in strings {
        let version = both
            .set(
                "application/x-www-form-urlencoded",
                &format!("key=k&value={}", encode(&raw)),
            )
            .await;
        let object = both.get("").await;
        let value = object
            .strip_prefix(r#"{"code":0,"message":"success","value":"#)
            .unwrap_or_else(|| panic!("{object}"));
        let value = value
            .strip_suffix(&format!(r#","version":{version},"final":false}}"#))
            .unwrap_or_else(|| panic!("{object}"));
        assert_eq!(
            serde_json::from_str::<String>(value).expect("a JSON string"),
            raw
        );
        cases.push(both.answers(&raw, &object).await);
    }
    assert_equal_in_node(&cases).await;
}

#[tokio::test]
async fn a_script_differs_from_the_json_in_two_things_only() {
    let node = Node::start(&[]).await;
    let mut both = Both::connect(&node).await;
    let cases = [
        (r#"{"__proto__":1}"#, r#"{["__proto__"]:1}"#),
        ("{\"__proto__\"\n : 1}", "{[\"__proto__\"]\n : 1}"),
        (
            r#"{"__proto__":1,"__proto__":{"__proto__":[]}}"#,
            r#"{["__proto__"]:1,["__proto__"]:{["__proto__"]:[]}}"#,
        ),
        (
            r#"{"\u005f_proto__":1,"__pr\u006Fto_\u005F":2}"#,
            r#"{["__proto__"]:1,["__proto__"]:2}"#,
        ),
        (
            r#"[[{"a":[{"__proto__":null}]}]]"#,
            r#"[[{"a":[{["__proto__"]:null}]}]]"#,
        ),
        (
            "{\"\u{2028}\":\"a\u{2029}\u{2028}\u{2029}b\"}",
            r#"{"\u2028":"a\u2029\u2028\u2029b"}"#,
        ),
        (
            "[\"\u{2028}\",{\"__proto__\":\"\u{2029}\"}]",
            r#"["\u2028",{["__proto__"]:"\u2029"}]"#,
        ),
    ];
    // These are carried as they are, though they look alike, or are hard to read.
    let unchanged = [
        r#"["__proto__",{"a":"__proto__"}, "__proto__" ]"#,
        r#"{"__proto__ ":1,"__proto":2,"__PROTO__":3,"\\u005f_proto__":4,"__proto__\u0000":5}"#,
        r#""\"__proto__\":1""#,
        r#"{"a":"\\","__proto_":"\"","b":"__proto__"}"#,
        r#""\u2028\u2029\/\u003c/script>""#,
        "\"\u{2027}\u{202a}\u{e280}\u{a8}\u{20a8}\u{2068}\"",
        r#"{"a":1,"a":1.0,"a":1e400}"#,
        "[ 1 ,\t2\n]",
        "null",
    ];
    for (text, script) in cases.into_iter().chain(unchanged.map(|text| (text, text))) {
        let version = both
            .set("text/plain", &format!(r#"{{"key":"k","value":{text}}}"#))
            .await;
        let script = answer(script, version);
        assert_eq!(both.get("").await, answer(text, version));
        assert_eq!(
            both.get("&callback=cb").await,
            format!(r#"/**/typeof cb==="function"&&cb({script});"#)
        );
        assert_eq!(
            both.get("&assign=qr").await,
            format!("/**/window.qr={script};")
        );
    }
}

#[tokio::test]
async fn a_held_get_is_given_the_same_bytes_as_a_poll() {
    let node = Node::start(&[]).await;
    let mut both = Both::connect(&node).await;
    let long = format!("\"{}\"", "v".repeat(65_534));
    let mut last = 0;
    for text in [
        long.as_str(),
        " { \"__proto__\" : \"\u{2028}\" } ",
        "null",
        "1e400",
    ] {
        let forms = ["", "&callback=cb", "&assign=qr", "&callback=a.b[0].cb"];
        let mut held = Vec::new();
        for form in forms {
            held.push(node.hold(&format!("key=k&last={last}{form}")).await);
        }
        last = both
            .set("text/plain", &format!(r#"{{"key":"k","value":{text}}}"#))
            .await;
        for (mut held, form) in held.into_iter().zip(forms) {
            assert_eq!(held.answer().await.text(), both.get(form).await);
        }
    }
    node.quiet().await;
}

/// Values that are not JSON by RFC 8259.
const NOT_JSON: &[&[u8]] = &[
    b"",
    b"NaN",
    b"Infinity",
    b"-Infinity",
    b"undefined",
    b"tru",
    b"nulll",
    b"True",
    b"'a'",
    b"`a`",
    b"[1,]",
    b"[,1]",
    b"[1 2]",
    b"[1",
    b"[1}",
    b"{\"a\":1,}",
    b"{\"a\" 1}",
    b"{\"a\":}",
    b"{a:1}",
    b"{1:1}",
    b"{\"a\":1",
    b"01",
    b"-01",
    b"1.",
    b".5",
    b"+1",
    b"-",
    b"1e",
    b"1e+",
    b"0x10",
    b"1_000",
    b"1n",
    b"\"a",
    b"\"\\x41\"",
    b"\"\\u12\"",
    b"\"\\u12g4\"",
    b"\"\\u{41}\"",
    b"\"\\\"",
    b"// c\n1",
    b"1/* c */",
    b"\"a\nb\"",
    b"\"a\tb\"",
    b"\"\0\"",
    b"\"\x1f\"",
    b"{\"\r\":1}",
    b"\0",
    b"\x0b1",
    b"\x0c1",
    b"\xc2\xa01",
    b"\xef\xbb\xbf1",
    b"1\xef\xbb\xbf",
    b"\"\xff\"",
    b"\"\x80\"",
    b"\"\xc3\"",
    b"\"\xc0\x80\"",
    b"\"\xe2\x80\"",
    b"\"\xed\xa0\x80\"",
    b"\"\xed\xa0\xbd\xed\xb8\x80\"",
    b"\"\xf4\x90\x80\x80\"",
    b"\"\xf8\x88\x80\x80\x80\"",
    b"{\"\xff\":1}",
];

#[tokio::test]
async fn a_value_that_is_no_json_is_refused() {
    let node = Node::start(&[]).await;
    for value in NOT_JSON {
        let shown = String::from_utf8_lossy(value);
        let response = node
            .set([br#"{"key":"k","value":"#, *value, b"}"].concat())
            .await;
        let message = response.json()["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        assert!(
            message.starts_with("body: not JSON (line "),
            "{shown}: {message}"
        );
        check_refused(&response, 400, &message);
        // The same holds in a member that is not read: only JSON passes.
        let response = node
            .set([br#"[{"key":"k","value":1,"unknown":"#, *value, b"}]"].concat())
            .await;
        assert_eq!(response.status, 400, "{shown}");
    }
    check_refused(
        &node.internal("GET", "/keys/k", &[], b"").await,
        404,
        "not found",
    );
}

#[tokio::test]
async fn half_a_surrogate_pair_is_refused() {
    let node = Node::start(&[]).await;
    for value in [
        r#""\ud800""#,
        r#""\udbff""#,
        r#""\uDC00""#,
        r#""\udfff""#,
        r#""\ud800\ud800""#,
        r#""\ud800x\udc00""#,
        r#""\uDBFF\uE000""#,
        r#""\ude00\ud83d""#,
        r#""\ud83d\\ude00""#,
        r#""\ud83d\n""#,
        r#""\ud83d\ude00\ude00""#,
        "\"\\ud83d\u{de}\"",
        r#"{"\ud800":1}"#,
        r#"[[{"a":[1,"\udfff"]}]]"#,
    ] {
        let body = format!(r#"{{"key":"k","value":{value}}}"#);
        check_refused(
            &node.set(&body).await,
            400,
            "value: half of a surrogate pair",
        );
        check_refused(
            &node.set(format!("[{body}]")).await,
            400,
            "[0] value: half of a surrogate pair",
        );
    }
    check_refused(
        &node.internal("GET", "/keys/k", &[], b"").await,
        404,
        "not found",
    );
}

/// Returns `levels` of nesting around `inner`, each of them `open` and `close`.
fn nested(levels: usize, open: &str, inner: &str, close: &str) -> String {
    format!("{}{inner}{}", open.repeat(levels), close.repeat(levels))
}

#[tokio::test]
async fn a_value_nests_at_most_64_levels() {
    let node = Node::start(&[]).await;
    for (open, inner, close) in [
        ("[", "", "]"),
        ("{\"a\":", "1", "}"),
        ("[1,\"]\",", "\"[[\"", "]"),
        (" [ ", "{}", " ] "),
    ] {
        // The inner value may be a level too, as `{}` is.
        let most = 64 - usize::from(inner == "{}");
        node.set_ok("k", &nested(most, open, inner, close)).await;
        let body = format!(
            r#"{{"key":"deep","value":{}}}"#,
            nested(most + 1, open, inner, close)
        );
        check_refused(
            &node.set(body).await,
            400,
            "value: nested deeper than 64 levels",
        );
    }
    let mixed = format!("{}{{}}{}", "[{\"a\":".repeat(32), "}]".repeat(32));
    check_refused(
        &node
            .set(format!(r#"{{"key":"deep","value":{mixed}}}"#))
            .await,
        400,
        "value: nested deeper than 64 levels",
    );
    // Values beside each other add no levels.
    node.set_ok(
        "k",
        &format!("[{}]", vec![nested(63, "[", "", "]"); 100].join(",")),
    )
    .await;
    check_refused(
        &node.internal("GET", "/keys/deep", &[], b"").await,
        404,
        "not found",
    );
}

#[tokio::test]
async fn hundreds_of_thousands_of_levels_are_a_mistake_and_no_overflow() {
    let node = Node::start(&["--max-value-bytes", "4000000"]).await;
    let live = node.internal("GET", "/health/live", &[], b"").await;
    let levels = 200_000;
    let arrays = nested(levels, "[", "", "]");
    let objects = nested(levels, "{\"a\":", "1", "}");
    for deep in [&arrays, &objects] {
        let with = |member: &str| format!(r#"{{{member}:{deep},"key":"k","value":1}}"#);
        check_refused(
            &node.set(format!(r#"{{"key":"k","value":{deep}}}"#)).await,
            400,
            "value: nested deeper than 64 levels",
        );
        check_refused(
            &node.set(format!(r#"{{"key":{deep},"value":1}}"#)).await,
            400,
            "key: must be a string",
        );
        check_refused(
            &node.set(with("\"final\"")).await,
            400,
            "final: must be true or false",
        );
        check_refused(&node.set(with("\"x\"")).await, 400, "x: unknown member");
    }
    check_refused(
        &node.set(&arrays).await,
        400,
        "body: must be an object or an array of objects",
    );
    for unclosed in [
        "[".repeat(levels),
        "{\"a\":".repeat(levels),
        format!(r#"{{"key":"k","value":{}"#, "[".repeat(levels)),
    ] {
        let response = node.set(unclosed).await;
        assert_eq!(
            (response.status, response.json()["code"].as_i64()),
            (400, Some(-5)),
            "{response:?}"
        );
    }
    let usual = Node::start(&[]).await;
    check_refused(
        &usual
            .set(format!(r#"{{"key":"k","value":{arrays}}}"#))
            .await,
        400,
        "value: longer than 65536 bytes",
    );
    assert_eq!(
        node.internal("GET", "/health/live", &[], b"").await.body,
        live.body,
        "the same process"
    );
    check_refused(
        &node.internal("GET", "/keys/k", &[], b"").await,
        404,
        "not found",
    );
}
