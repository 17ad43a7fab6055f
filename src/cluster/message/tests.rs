use super::*;
use crate::model::status::{Status, Value, Version};
use crate::waiters::Reached;

fn to_n1() -> Message {
    let (missed, missed_by, had_by) = (None, None, String::new());
    Message {
        to: "n1".into(),
        updates: Vec::new(),
        missed,
        missed_by,
        kept: Vec::new(),
        had_by,
    }
}

#[test]
fn what_one_node_writes_another_reads() {
    let key = |text| Key::parse(text).expect("good");
    let version = |number| Version::new(number).expect("good");
    let value =
        Value::new(serde_json::from_str(r#"{"a": null}"#).expect("JSON"), 100).expect("good");
    let updates = [
        (
            key("a\"b"),
            Update::Status(Status {
                version: version(7),
                value,
                is_final: true,
            }),
            None,
        ),
        (
            key("c"),
            Update::Gone(version(8)),
            Some(Duration::from_micros(250)),
        ),
    ];
    let json = render(
        "n1",
        updates.iter().map(|(key, update, age)| (key, update, *age)),
    );
    let expected = r#"{"to":"n1","updates":[{"key":"a\"b","version":7,"value":{"a": null},"final":true},{"key":"c","version":8,"age_us":250,"gone":true}]}"#;
    assert_eq!(String::from_utf8_lossy(&json), expected);
    assert_eq!(
        parse(&json),
        Ok(Message {
            updates: updates.to_vec(),
            ..to_n1()
        })
    );
}

#[test]
fn what_a_node_missed_and_what_one_hands_on_are_read_as_they_were_written() {
    let key = |text| Key::parse(text).expect("good");
    for missed in [
        Missed::All,
        Missed::Keys(vec![key("a\"b"), key("c")]),
        Missed::Keys(Vec::new()),
    ] {
        let json = render_missed("n1", &missed);
        assert_eq!(
            parse(&json),
            Ok(Message {
                missed: Some(missed.clone()),
                ..to_n1()
            })
        );
        let (node, left) = (
            "n2@http://10.0.0.2:11001".to_owned(),
            Duration::from_millis(1500),
        );
        let missed_by = MissedBy { node, missed, left };
        let json = render_missed_by("n1", &missed_by);
        assert_eq!(
            parse(&json),
            Ok(Message {
                missed_by: Some(missed_by),
                ..to_n1()
            })
        );
    }
    let version = |number| Version::new(number).expect("good");
    let value = Value::new(serde_json::from_str("[1]").expect("JSON"), 100).expect("good");
    let (ttl, keep) = (Duration::from_millis(7), Duration::from_millis(9));
    let status = Update::Status(Status {
        version: version(7),
        value,
        is_final: true,
    });
    let kept = [(key("a"), status), (key("b"), Update::Gone(version(8)))];
    let kept = kept
        .map(|(key, update)| Kept {
            key,
            update,
            ttl,
            keep,
            number: WriteNumber::of_node(9),
        })
        .to_vec();
    let json = render_kept("n1", &kept, "r1/2,r3/4");
    let expected = r#"{"to":"n1","updates":[],"had_by":"r1/2,r3/4","kept":[{"key":"a","version":7,"ttl_ms":7,"keep_ms":9,"number":9,"value":[1],"final":true},{"key":"b","version":8,"ttl_ms":7,"keep_ms":9,"number":9,"gone":true}]}"#;
    assert_eq!(String::from_utf8_lossy(&json), expected);
    assert_eq!(
        parse(&json),
        Ok(Message {
            kept,
            had_by: "r1/2,r3/4".into(),
            ..to_n1()
        })
    );
}

#[test]
fn a_mistake_in_what_was_missed_or_is_handed_on_is_named() {
    let parse = |members: &str| {
        parse(format!(r#"{{"to":"n","updates":[],{members}}}"#).as_bytes())
            .map_err(|mistake| mistake.to_string())
    };
    let node = r#""node":"n2@http://10.0.0.2:1","left_ms":1"#;
    for good in [
        r#""missed":null"#,
        r#""missed":["k"]"#,
        &format!(r#""missed_by":{{{node},"missed":true,"new":1}}"#),
        r#""kept":[{"key":"k","version":1,"value":null,"ttl_ms":0,"keep_ms":18446744073709551615}]"#,
    ] {
        assert!(parse(good).is_ok(), "{good}");
    }
    for (bad, mistake) in [
        (r#""missed":["k",""]"#, "missed[1] key: empty"),
        (
            r#""missed":["a b"]"#,
            "missed[0] key: must be printable ASCII without spaces (! to ~)",
        ),
        (r#""missed":false"#, "body: not of the form"),
        (r#""missed":1"#, "body: not of the form"),
        (r#""missed":[1]"#, "body: not of the form"),
        (r#""missed":{}"#, "body: not of the form"),
        (
            &format!(
                r#""missed":[{}]"#,
                vec![r#""k""#; MAX_UPDATES + 1].join(",")
            ),
            "body: not of the form",
        ),
        (
            r#""missed_by":{"node":"n2","missed":true,"left_ms":1}"#,
            "node: must be the name of a node",
        ),
        (
            &format!(r#""missed_by":{{{node}}}"#),
            "body: not of the form",
        ),
        (
            &format!(r#""missed_by":{{{node},"missed":[".."]}}"#),
            "missed_by.missed[0] key: must not be . or ..",
        ),
        (
            r#""kept":[{"key":"k","version":1,"gone":true}]"#,
            "body: not of the form",
        ),
        (
            r#""kept":[{"key":"k","version":0,"gone":true,"ttl_ms":1,"keep_ms":1}]"#,
            "kept[0] version: must be a version (a whole number)",
        ),
        (
            r#""kept":[{"key":"k","version":9007199254740991,"gone":true,"ttl_ms":1,"keep_ms":1}]"#,
            "kept[0] version: must be a version (a whole number)",
        ),
        (
            r#""kept":[{"key":"k","version":1,"ttl_ms":1,"keep_ms":1}]"#,
            "kept[0] value: missing",
        ),
        (r#""kept":null"#, "body: not of the form"),
        (r#""had_by":1"#, "body: not of the form"),
    ] {
        let came = parse(bad).expect_err(bad);
        assert!(came.starts_with(mistake), "{bad}: {came}");
    }
}

#[test]
fn unknown_members_are_ignored_and_known_ones_checked() {
    let parse = |updates: &str| {
        parse(format!(r#"{{"to":"n","new":[1],"updates":{updates}}}"#).as_bytes())
            .map(|message| message.updates.len())
            .map_err(|mistake| mistake.to_string())
    };
    assert_eq!(parse("[]"), Ok(0));
    assert_eq!(
        parse(r#"[{"key":"k","version":1,"value":null,"since":5}]"#),
        Ok(1)
    );
    assert_eq!(
        parse(r#"[{"key":"k","version":1}]"#),
        Err("[0] value: missing".into())
    );
    assert_eq!(
        parse(r#"[{"key":"k","version":0,"gone":true}]"#),
        Err("[0] version: must be a version (a whole number)".into())
    );
    assert_eq!(
        parse(r#"[{"key":"","version":1,"gone":true}]"#),
        Err("[0] key: empty".into())
    );
    assert!(
        parse(r#"[{"key":"k"}]"#)
            .is_err_and(|message| message.starts_with("body: not of the form"))
    );
    assert!(
        parse(r#"[["k",1,null,false,true]]"#)
            .is_err_and(|message| message.starts_with("body: not of the form"))
    );
    assert!(parse(r"[").is_err_and(|message| message.starts_with("body: not JSON")));
}

#[test]
fn a_message_has_so_many_updates_and_no_more() {
    let count = |count: usize| {
        let updates = vec![r#"{"key":"k","version":1,"gone":true}"#; count].join(",");
        parse(format!(r#"{{"to":"n1","updates":[{updates}]}}"#).as_bytes())
            .map(|message| message.updates.len())
    };
    assert_eq!(count(MAX_UPDATES), Ok(MAX_UPDATES));
    assert!(
        count(MAX_UPDATES + 1)
            .is_err_and(|mistake| mistake.to_string().starts_with("body: not of the form"))
    );
}

#[test]
fn an_array_in_place_of_an_object_is_refused() {
    let message = parse(br#"["n1",[]]"#).map_err(|mistake| mistake.to_string());
    assert_eq!(
        message,
        Err("body: not of the form it should have (line 1, column 0)".into())
    );
}

#[test]
fn an_answer_is_a_count_for_each_update() {
    let parse = |answer: &str| parse_delivered(answer.as_bytes(), 2);
    let reached = |waiters, ahead| Reached {
        waiters,
        ahead: Version::new(ahead).expect("good"),
    };
    let both = || vec![reached(2, 0), reached(0, 0)];
    assert_eq!(
        parse(r#"{"code":0,"delivered":[2,0],"new":1}"#),
        Some((both(), false)),
        "an older node's"
    );
    assert_eq!(
        parse(r#"{"code":0,"delivered":[2,0],"store":true}"#),
        Some((both(), true))
    );
    let ahead = [reached(2, 0), reached(0, 7)];
    let answer = serde_json::to_string(&Answer::new(&ahead, true, 0)).expect("JSON");
    assert_eq!(
        answer,
        r#"{"code":0,"delivered":[2,0],"behind":[0,7],"store":true}"#
    );
    assert_eq!(parse(&answer), Some((ahead.to_vec(), true)));
    for bad in [
        &br#"{"code":0,"delivered":[2]}"#[..],
        br#"{"code":0,"delivered":[2,-1]}"#,
        br#"{"code":0,"delivered":[2,99999999999]}"#,
        br#"{"code":-6,"delivered":[2,0]}"#,
        br#"{"code":0,"delivered":[2,0],"store":1}"#,
        br#"{"code":0}"#,
        b"[0,[2,0]]",
        b"<html>",
        b"",
    ] {
        assert_eq!(
            parse_delivered(bad, 2),
            None,
            "{}",
            String::from_utf8_lossy(bad)
        );
    }
}
