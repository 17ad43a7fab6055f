use serde_json::{Value as Json, json};

use super::*;
use crate::model::cause::Cause;
use crate::model::mistake::{Fault, Mistake};
use crate::model::status::{Outcome, Status, Version};

const WECHAT_OPEN: &str = include_str!("../../../deploy/wires/wechat-open.json");
const WECHAT_WEB: &str = include_str!("../../../deploy/wires/wechat-web.json");

/// Returns a template that passes all checks, for tests that change it.
fn good() -> Json {
    let assign = |value: Json| json!({"assign": [{"name": "window.a", "to": value}]});
    json!({
        "path": "/poll",
        "key": "id",
        "waiting": assign(json!(408)),
        "gone": assign(json!(402)),
        "wrong": assign(json!(500)),
        "busy": assign(json!(503)),
        "value": {"by": "state", "cases": [], "else": {"answer": assign(json!({"answer": "value"}))}},
    })
}

/// Returns the good template with the member at `pointer` replaced or added.
fn with(changes: &[(&str, Json)]) -> String {
    let mut file = good();
    for (pointer, value) in changes {
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
        let parent = file.pointer_mut(parent).expect("a parent");
        match parent {
            Json::Array(elements) => elements.push(value.clone()),
            parent => parent[name] = value.clone(),
        }
    }
    file.to_string()
}

fn wire(changes: &[(&str, Json)]) -> Arc<Template> {
    Arc::new(Template::parse(&with(changes)).expect("good"))
}

fn value(json: &str) -> Value {
    Value::new(serde_json::from_str(json).expect("JSON"), 10_000).expect("good")
}

fn version(number: u64) -> Version {
    Version::new(number).expect("good")
}

fn status(json: &str) -> Outcome {
    Outcome::Success(Status {
        version: version(9),
        value: value(json),
        is_final: false,
    })
}

fn rendered(asked: &Asked, outcome: &Outcome) -> String {
    String::from_utf8(asked.render(outcome, version(7))).expect("UTF-8")
}

/// Returns what stands in the brackets of a call with this argument, for a status with this value.
fn argument(argument: &Json, json: &str) -> String {
    let call = json!({"call": {"name": "f", "arguments": [argument]}});
    let asked = Asked::new(wire(&[("/value/else/answer", call)]), None, None);
    let script = rendered(&asked, &status(json));
    let script = script.strip_prefix("/**/typeof f===\"function\"&&f(");
    script
        .and_then(|rest| rest.strip_suffix(");"))
        .expect("a call")
        .to_owned()
}

#[test]
fn the_shipped_templates_render_each_end_as_the_service_does() {
    let open = |errcode: u16, code: &str| {
        format!("window.wx_errcode={errcode};window.wx_code=\"{code}\";")
    };
    let gone = Outcome::Gone(version(8));
    let wrong = Outcome::Invalid(Mistake::new("key", Fault::Missing));
    let unavailable = Outcome::Unavailable(Cause::Late);
    for (file, cases) in [
        (
            WECHAT_OPEN,
            [
                (Outcome::Timeout, open(408, "")),
                (Outcome::Retry, open(408, "")),
                (Outcome::Busy, open(408, "")),
                (unavailable.clone(), open(408, "")),
                (gone.clone(), open(402, "")),
                (wrong.clone(), open(500, "")),
                (status(r#"{"state":"scanned"}"#), open(404, "")),
                (
                    status(r#"{"state":"done","code":"c\"1"}"#),
                    open(405, "c\\\"1"),
                ),
                (status(r#"{"state":"refused"}"#), open(403, "")),
                (status(r#"{"state":"new"}"#), open(408, "")),
            ],
        ),
        (
            WECHAT_WEB,
            [
                (Outcome::Timeout, "window.code=408;".into()),
                (Outcome::Retry, "window.code=408;".into()),
                (Outcome::Busy, "window.code=500;".into()),
                (unavailable, "window.code=500;".into()),
                (gone, "window.code=400;".into()),
                (wrong, "window.code=400;".into()),
                (
                    status(r#"{"state":"scanned","avatar":"data:img/jpg;base64,AA"}"#),
                    "window.code=201;window.userAvatar=\"data:img/jpg;base64,AA\";".into(),
                ),
                (
                    status(r#"{"state":"done","redirect_uri":"https://a.example/?t=1&x=2"}"#),
                    "window.code=200;window.redirect_uri=\"https://a.example/?t=1&x=2\";".into(),
                ),
                (status(r#"{"state":"refused"}"#), "window.code=400;".into()),
                (status("5"), "window.code=500;".into()),
            ],
        ),
    ] {
        let asked = Asked::new(Arc::new(Template::parse(file).expect("good")), None, None);
        for (outcome, script) in cases {
            assert_eq!(rendered(&asked, &outcome), script, "{outcome:?}");
        }
    }
}

#[test]
fn a_case_is_chosen_by_the_text_of_a_member() {
    let case = |is: &str, number: u8| json!({"is": is, "answer": {"assign": [{"name": "a", "to": number}]}});
    let wire = wire(&[(
        "/value/cases",
        json!([
            case("on", 1),
            case("2", 2),
            case("true", 3),
            case("null", 4),
            case("", 5)
        ]),
    )]);
    let asked = Asked::new(wire, None, None);
    for (json, chosen) in [
        (r#"{"state":"on"}"#, "1"),
        (r#"{"x":[{"state":"2"}],"state":"\u006fn"}"#, "1"),
        (r#"{"st\u0061te":"on"}"#, "1"),
        (r#"{"state":2}"#, "2"),
        (r#"{"state":"2"}"#, "2"),
        (r#"{"state":true}"#, "3"),
        (r#"{"state":null}"#, "4"),
        (r#"{"state":""}"#, "5"),
        (r#"{"state":"2","state":"on"}"#, "1"),
    ] {
        let script = rendered(&asked, &status(json));
        assert_eq!(script, format!("window.a={chosen};"), "{json}");
    }
    for json in [
        r#"{"state":"ON"}"#,
        r#"{"state":2.0}"#,
        r#"{"state":["on"]}"#,
        r#"{"state":{"state":"on"}}"#,
        r#"{"other":"on"}"#,
        "{}",
        r#"["state","on"]"#,
        r#""on""#,
        "null",
    ] {
        let script = rendered(&asked, &status(json));
        assert_eq!(script, format!("window.a={json};"), "{json}");
    }
}

#[test]
fn values_of_a_script_are_constants_and_what_the_status_has() {
    let json = r#"{"a":{"b":[1]},"t":"x\u2028</script>","n":-1.50}"#;
    for (part, expected) in [
        (json!(408), "408"),
        (json!(-1.5), "-1.5"),
        (json!(true), "true"),
        (json!(null), "null"),
        (json!("';alert(1)//\u{2028}"), "\"';alert(1)//\\u2028\""),
        (json!({"member": "a"}), r#"{"b":[1]}"#),
        (json!({"member": "n"}), "-1.50"),
        (json!({"member": "t"}), r#""x\u2028</script>""#),
        (json!({"member": "missing"}), "null"),
        (json!({"member": "missing", "else": ""}), "\"\""),
        (json!({"answer": "version"}), "9"),
        (json!({"answer": "value"}), json),
        (json!([1, {"member": "n"}, {"object": {}}]), "[1,-1.50,{}]"),
        (
            json!({"object": {"errno": 0, "v": {"object": {"w": {"member": "n"}}}}}),
            r#"{"errno":0,"v":{"w":-1.50}}"#,
        ),
        (
            json!({"object": {"__proto__": "\u{2029}"}}),
            r#"{["__proto__"]:"\u2029"}"#,
        ),
    ] {
        assert_eq!(argument(&part, json), expected, "{part}");
    }
    // A value is rewritten like those of all scripts.
    let proto = "{\"__proto__\":\"\u{2028}\"}";
    let expected = r#"{["__proto__"]:"\u2028"}"#;
    assert_eq!(argument(&json!({"answer": "value"}), proto), expected);
}

#[test]
fn a_call_is_of_a_fixed_name_or_of_the_callback() {
    let fixed = json!({"call": {"name": "QR.done", "arguments": ["66", 0, ""]}});
    let named = json!({"call": {"arguments": []}});
    let wire = wire(&[
        ("/callback", json!("cb")),
        ("/waiting", fixed),
        ("/gone", named),
    ]);
    let callback = Callback::parse("jQuery1[0]");
    let asked = Asked::new(wire, callback, None);
    assert_eq!(
        rendered(&asked, &Outcome::Timeout),
        "/**/typeof QR!==\"undefined\"&&typeof QR.done===\"function\"&&QR.done(\"66\",0,\"\");"
    );
    assert_eq!(
        rendered(&asked, &Outcome::Gone(version(3))),
        "/**/typeof jQuery1[0]===\"function\"&&jQuery1[0]();"
    );
}

#[test]
fn the_version_in_an_answer_is_that_of_the_page_unless_there_is_news() {
    let script = json!({"assign": [{"name": "v", "to": {"answer": "version"}}]});
    let wire = wire(&[("/waiting", script.clone()), ("/gone", script)]);
    let asked = Asked::new(wire, None, None);
    assert_eq!(rendered(&asked, &Outcome::Timeout), "window.v=7;");
    assert_eq!(rendered(&asked, &Outcome::Gone(version(8))), "window.v=8;");
}

#[test]
fn a_page_knows_a_status_whose_case_has_the_code_that_it_sent() {
    let wire = Arc::new(Template::parse(WECHAT_OPEN).expect("good"));
    let knows = |code, json| Asked::new(Arc::clone(&wire), None, code).knows(&value(json));
    let (scanned, done) = (r#"{"state":"scanned"}"#, r#"{"state":"done"}"#);
    assert!(knows(Some("404"), scanned));
    for (code, json) in [
        (None, scanned),
        (Some("403"), scanned),
        (Some("405"), scanned),
        (Some("404"), done),
        (Some("405"), done),
        (Some("404"), "404"),
        (Some("404"), "{}"),
    ] {
        assert!(!knows(code, json), "{code:?} {json}");
    }
}

#[test]
fn each_mistake_in_a_template_is_named_with_its_place() {
    assert!(Template::parse(&good().to_string()).is_ok());
    let assign = |name: &str| json!({"assign": [{"name": name, "to": 1}]});
    let assign_both = |one: &str, other: &str| json!({"assign": [{"name": one, "to": 1}, {"name": "c", "to": 2}, {"name": other, "to": 3}]});
    let argument = |part: Json| json!({"call": {"name": "f", "arguments": [part]}});
    let case = |is: &str, code: &str| json!({"is": is, "code": code, "answer": assign("a")});
    let many: Vec<_> = (0..=MAX_VALUES).collect();
    let cases = (0..=MAX_CASES).map(|at| json!({"is": at.to_string(), "answer": assign("a")}));
    let cases: Vec<_> = cases.collect();
    let last = |is: &str| json!({"parameter": "last", "is": is});
    for (changes, mistake) in [
        (
            vec![("/pth", json!("/a"))],
            "pth: unknown member, expected `path`, `key`, `callback`, `last`, `hold`, `waiting`, `gone`, ",
        ),
        (
            vec![("/path", json!("poll"))],
            "path: \"poll\" is not up to 128 bytes",
        ),
        (vec![("/path", json!(""))], "path: \"\" is not"),
        (vec![("/path", json!("/"))], "path: \"/\" is not"),
        (vec![("/path", json!("/a/"))], "path: \"/a/\" is not"),
        (
            vec![("/path", json!("/a/../b"))],
            "path: \"/a/../b\" is not",
        ),
        (vec![("/path", json!("/{a}"))], "path: \"/{a}\" is not"),
        (vec![("/path", json!("/a?b"))], "path: \"/a?b\" is not"),
        (
            vec![("/path", json!(format!("/{}", "a".repeat(128))))],
            "is not up to 128 bytes",
        ),
        (
            vec![("/path", json!("/status/get"))],
            "begins with /status/, which is holdfast's own",
        ),
        (
            vec![("/path", json!("/holdfast.js"))],
            "begins with /holdfast, which is",
        ),
        (
            vec![("/path", json!("/demo/x"))],
            "begins with /demo, which is",
        ),
        (
            vec![("/key", json!(""))],
            "key: \"\" is not 1 to 64 letters",
        ),
        (
            vec![("/key", json!("a b"))],
            "key: \"a b\" is not 1 to 64 letters",
        ),
        (vec![("/key", json!(5))], "key: must be a string"),
        (
            vec![("/hold", json!(0))],
            "hold: must be a whole number of seconds from 1 to 600",
        ),
        (
            vec![("/hold", json!(601))],
            "hold: must be a whole number of seconds from 1 to 600",
        ),
        (
            vec![("/last", json!({"parameter": "l", "is": "x"}))],
            "last.is: \"x\" is not `version` or `code`",
        ),
        (
            vec![("/last", json!(["l", "code"]))],
            "last: must be an object",
        ),
        (
            vec![("/last", json!({"parameter": "id", "is": "version"}))],
            "the parameter \"id\" is named by two of key, callback and last",
        ),
        (vec![("/last", last("code"))], "last: no case has a `code`"),
        (
            vec![("/last", last("version"))],
            "last: not every case gives the version",
        ),
        (
            vec![("/value/cases", json!([case("a", "1")]))],
            "value: a `code` needs `last`",
        ),
        (
            vec![("/value/cases", json!([case("a", "")]))],
            "value.cases[0].code: \"\" is not 1 to 64 letters",
        ),
        (
            vec![
                ("/last", last("code")),
                ("/value/cases", json!([case("a", "1"), case("a", "2")])),
            ],
            "value.cases: two cases have \"is\": \"a\"",
        ),
        (
            vec![("/value/cases", json!(cases))],
            "value.cases: more than 64",
        ),
        (
            vec![("/value/els", json!(1))],
            "value.els: unknown member, expected `by`, `cases` or `else`",
        ),
        (
            vec![("/waiting", json!({}))],
            "waiting: neither `assign` nor `call`",
        ),
        (
            vec![(
                "/waiting",
                json!({"assign": [], "call": {"name": "f", "arguments": []}}),
            )],
            "waiting: both `assign` and `call`",
        ),
        (
            vec![("/waiting", json!({"assign": []}))],
            "waiting: assigns nothing",
        ),
        (
            vec![("/waiting", assign_both("a", "window.a"))],
            "waiting: assigns window.a more than once",
        ),
        (
            vec![("/value/else/answer", assign_both("b", "b"))],
            "value.else.answer: assigns window.b more than once",
        ),
        (
            vec![("/waiting", json!({"script": "alert(1)"}))],
            "waiting.script: unknown member, expected `assign` or `call`",
        ),
        (
            vec![("/waiting", json!("alert(1)"))],
            "waiting: must be an object",
        ),
        (
            vec![("/waiting", assign("location"))],
            "waiting.assign[0].name: \"location\" is no variable that may be assigned",
        ),
        (
            vec![("/waiting", assign("window.a.b"))],
            "\"window.a.b\" is no variable",
        ),
        (
            vec![("/waiting", assign("window."))],
            "\"window.\" is no variable",
        ),
        (vec![("/waiting", assign("a;b"))], "\"a;b\" is no variable"),
        (
            vec![("/waiting", json!({"call": {"name": "f(", "arguments": []}}))],
            "waiting.call.name: \"f(\" is no function that may be called",
        ),
        (
            vec![("/waiting", json!({"call": {"arguments": []}}))],
            "waiting: a call without a name needs `callback`",
        ),
        (
            vec![("/callback", json!("cb"))],
            "callback: every call has a name",
        ),
        (
            vec![("/waiting", argument(json!({"member": "a"})))],
            "waiting: `member` and {\"answer\":\"value\"} are allowed only in `value`",
        ),
        (
            vec![("/busy", argument(json!([{"answer": "value"}])))],
            "busy: `member` and {\"answer\":\"value\"}",
        ),
        (
            vec![("/gone", argument(json!(many)))],
            "gone: more than 32 values",
        ),
        (
            vec![("/gone", argument(json!({"x": 1})))],
            "gone.call.arguments[0].x: unknown member",
        ),
        (
            vec![("/gone", argument(json!({})))],
            "gone.call.arguments[0]: not exactly one of `member`, `answer` and `object`",
        ),
        (
            vec![(
                "/gone",
                argument(json!({"member": "a", "answer": "version"})),
            )],
            "not exactly one of",
        ),
        (
            vec![("/gone", argument(json!({"answer": "version", "else": 1})))],
            "gone.call.arguments[0]: `else` without `member`",
        ),
        (
            vec![("/gone", argument(json!({"member": "a", "else": [1]})))],
            "gone.call.arguments[0].else: must be a string, a number, true, false or null",
        ),
        (
            vec![("/gone", argument(json!({"answer": "code"})))],
            "gone.call.arguments[0].answer: \"code\" is not `value` or `version`",
        ),
    ] {
        assert_mistake(&with(&changes), mistake);
    }
    let twice = good()
        .to_string()
        .replace("\"gone\":", "\"key\":\"k\",\"gone\":");
    for (text, mistake) in [
        ("", "EOF while parsing a value at line 1 column 0"),
        ("[]", "the template: must be an object"),
        ("null", "the template: must be an object"),
        (&*twice, "key: given twice"),
        ("{\"path\":\"/a\",\n}", "at line 2 column 1"),
        (&format!("{} x", good()), "trailing characters at line 1"),
    ] {
        assert_mistake(text, mistake);
    }
}

#[test]
fn a_member_with_another_json_type_is_named_with_what_it_must_be() {
    let object = "must be an object";
    let list = "must be an array";
    let string = "must be a string";
    let case = json!({"is": "x", "answer": {"assign": [{"name": "a", "to": 1}]}});
    let call = json!({"call": {"name": "f", "arguments": [{"member": "m"}, {"object": {"b": 1}}]}});
    let whole = [
        ("/last", json!({"parameter": "since", "is": "version"})),
        ("/value/cases", json!([case])),
        ("/value/else/answer", call),
    ];
    for (pointer, path, what) in [
        ("/path", "path", string),
        ("/key", "key", string),
        ("/callback", "callback", string),
        ("/last", "last", object),
        ("/last/parameter", "last.parameter", string),
        ("/last/is", "last.is", string),
        (
            "/hold",
            "hold",
            "must be a whole number of seconds from 1 to 600",
        ),
        ("/waiting", "waiting", object),
        ("/waiting/assign", "waiting.assign", list),
        ("/gone", "gone", object),
        ("/wrong", "wrong", object),
        ("/busy", "busy", object),
        ("/value", "value", object),
        ("/value/by", "value.by", string),
        ("/value/cases", "value.cases", list),
        ("/value/else", "value.else", object),
        ("/value/else/code", "value.else.code", string),
        ("/value/else/answer", "value.else.answer", object),
        ("/value/else/answer/call", "value.else.answer.call", object),
        (
            "/value/else/answer/call/name",
            "value.else.answer.call.name",
            string,
        ),
        (
            "/value/else/answer/call/arguments",
            "value.else.answer.call.arguments",
            list,
        ),
    ] {
        for wrong in [json!(2.5), json!(true), json!(-1)] {
            let file = with(&[&whole[..], &[(pointer, wrong)]].concat());
            assert_eq!(
                Template::parse(&file).expect_err(pointer),
                [format!("{path}: {what}")]
            );
        }
    }
    // Members of elements, and those that may be any constant.
    for (pointer, wrong, mistake) in [
        (
            "/waiting/assign",
            json!([[]]),
            "waiting.assign[0]: must be an object",
        ),
        (
            "/waiting/assign",
            json!([{"name": 1, "to": 1}]),
            "waiting.assign[0].name: must be a string",
        ),
        (
            "/value/cases",
            json!(["x"]),
            "value.cases[0]: must be an object",
        ),
        (
            "/value/cases/-",
            json!({"is": 1, "answer": {"assign": [{"name": "a", "to": 1}]}}),
            "value.cases[1].is: must be a string",
        ),
        (
            "/value/else/answer/call/arguments",
            json!([1, [{"member": 1}]]),
            "value.else.answer.call.arguments[1][0].member: must be a string",
        ),
        (
            "/value/else/answer/call/arguments",
            json!([{"object": [1]}]),
            "value.else.answer.call.arguments[0].object: must be an object",
        ),
        (
            "/value/else/answer/call/arguments",
            json!([{"object": {"a b": {"answer": 7}}}]),
            "value.else.answer.call.arguments[0].object.\"a b\".answer: must be a string",
        ),
        (
            "/hold",
            json!("25"),
            "hold: must be a whole number of seconds from 1 to 600",
        ),
    ] {
        let file = with(&[&whole[..], &[(pointer, wrong)]].concat());
        assert_eq!(Template::parse(&file).expect_err(mistake), [mistake]);
    }
}

#[test]
fn all_mistakes_of_a_template_are_told_together() {
    let mistakes = |file: &str| Template::parse(file).expect_err("mistakes");
    let case =
        |is: &str, name: &str| json!({"is": is, "answer": {"assign": [{"name": name, "to": 1}]}});
    // Each member by itself.
    let file = with(&[
        ("/path", json!("poll")),
        ("/hold", json!(2.5)),
        ("/hodl", json!(25)),
        (
            "/busy",
            json!({"assign": [{"name": "location"}, {"to": 1}]}),
        ),
        ("/value/cases", json!([case("a", "b"), case("a", "c.d")])),
    ]);
    assert_eq!(
        mistakes(&file),
        [
            "hodl: unknown member, expected `path`, `key`, `callback`, `last`, `hold`, `waiting`, \
             `gone`, `wrong`, `busy` or `value`",
            "path: \"poll\" is not up to 128 bytes of segments as /a/b, of letters, digits and \
             characters of _-.~",
            "hold: must be a whole number of seconds from 1 to 600",
            "busy.assign[0].name: \"location\" is no variable that may be assigned",
            "busy.assign[0].to: missing",
            "busy.assign[1].name: missing",
            "value.cases[1].answer.assign[0].name: \"c.d\" is no variable that may be assigned",
        ]
    );
    let missing = ["path", "key", "waiting", "gone", "wrong", "busy", "value"];
    assert_eq!(
        mistakes("{}"),
        missing.map(|name| format!("{name}: missing"))
    );
    // Then the rules that concern several.
    let file = with(&[
        ("/callback", json!("id")),
        ("/waiting", json!({"assign": []})),
        (
            "/gone",
            json!({"assign": [{"name": "a", "to": {"member": "m"}}]}),
        ),
        (
            "/value/cases",
            json!([
                case("a", "b"),
                case("b", "b"),
                case("a", "b"),
                case("b", "b")
            ]),
        ),
    ]);
    assert_eq!(
        mistakes(&file),
        [
            "the parameter \"id\" is named by two of key, callback and last",
            "value.cases: two cases have \"is\": \"a\"",
            "value.cases: two cases have \"is\": \"b\"",
            "waiting: assigns nothing",
            "gone: `member` and {\"answer\":\"value\"} are allowed only in `value`",
            "callback: every call has a name, so this parameter is never used",
        ]
    );
}

/// Checks that this mistake is found in a template.
fn assert_mistake(file: &str, mistake: &str) {
    let found = Template::parse(file).expect_err(mistake);
    assert!(
        found.iter().any(|text| text.contains(mistake)),
        "{found:?}, and not {mistake}"
    );
}
