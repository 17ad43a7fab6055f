//! Signed keys: a status is set under an id that anybody may see, and is heard with a key that
//! only its page has.

use serde_json::{Value, json};

use crate::contract::sets::{check, check_done, check_refused};
use holdfast_testkit::{
    Conn, Held, Launch, Node, Redis, Response, Scratch, eventually, long, now_ms, project_file,
    request,
};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const OTHER: &str = "a-secret-that-is-another-one-0123456789";
const NOT_AN_ID: &str = "key: must be an id of 1 to 64 letters, digits, - or _";

/// Starts a node with these secrets.
async fn start(scratch: &Scratch, secrets: &[&str]) -> Node {
    Launch::new(&[
        "--key-secret-file",
        &scratch.file("secrets", &secrets.join("\n")),
    ])
    .start()
    .await
}

async fn issue(node: &Node, body: &str) -> Response {
    node.internal(
        "POST",
        "/keys",
        &[("content-type", "application/json")],
        body.as_bytes(),
    )
    .await
}

/// Issues a key of this id that is good for `ttl` seconds.
async fn key_of(node: &Node, id: &str, ttl: u64) -> String {
    let response = issue(node, &format!(r#"{{"id":"{id}","ttl":{ttl}}}"#)).await;
    response.json()["key"].as_str().expect("a key").to_owned()
}

/// Holds a get with the key of an id.
async fn hold(node: &Node, id: &str, query: &str) -> Held {
    let held = node.open(query).await;
    node.wait_key_waiters(id, 1).await;
    held
}

/// Returns the vectors that docs/signed-keys.md shows, and more.
fn vectors() -> Vec<Value> {
    serde_json::from_str(&project_file("fixtures/signed-keys.json")).expect("JSON")
}

fn text<'a>(vector: &'a Value, name: &str) -> &'a str {
    vector[name].as_str().expect(name)
}

#[tokio::test]
async fn a_key_hears_what_is_set_under_its_id() {
    let scratch = Scratch::new();
    let node = start(&scratch, &[SECRET]).await;
    let before = now_ms();
    let response = issue(&node, r#"{"ttl":300}"#).await;
    let answer = response.json();
    let (id, key) = (
        answer["id"].as_str().unwrap(),
        answer["key"].as_str().unwrap(),
    );
    let expected = format!(
        r#"{{"code":0,"message":"success","id":"{id}","key":"{key}","expires_in_ms":300000}}"#
    );
    check(&response, 200, &expected);
    assert!(
        id.len() == 22
            && id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)),
        "{id}"
    );
    let [of, expires, signature] = key.split('.').collect::<Vec<_>>()[..] else {
        panic!("{key}")
    };
    assert_eq!((of, signature.len()), (id, 43));
    let left = expires.parse::<u64>().unwrap() - before;
    assert!((300_000..310_000).contains(&left), "{left}");

    let mut held = hold(&node, id, &format!("key={key}&callback=cb")).await;
    let version = check_done(
        &node
            .set(format!(r#"{{"key":"{id}","value":"hello"}}"#))
            .await,
        1,
    );
    let object = format!(
        r#"{{"code":0,"message":"success","value":"hello","version":{version},"final":false}}"#
    );
    assert_eq!(
        held.answer().await.text(),
        format!(r#"/**/typeof cb==="function"&&cb({object});"#)
    );
    assert_eq!(
        node.get(&format!("/status/get?key={key}")).await.text(),
        object
    );
    let gone = node.delete_ok(id).await;
    assert_eq!(
        node.get(&format!("/status/get?key={key}")).await.json()["version"],
        gone
    );
    assert_ne!(
        issue(&node, "").await.json()["id"],
        id,
        "a new id each time"
    );
    node.quiet().await;
}

#[tokio::test]
async fn a_body_may_be_json_a_form_or_nothing() {
    let scratch = Scratch::new();
    let path = scratch.file("secrets", SECRET);
    let node = Launch::new(&["--key-secret-file", &path, "--status-ttl", "77s"])
        .start()
        .await;
    let form = [("content-type", "application/x-www-form-urlencoded")];
    for (headers, body, id, life) in [
        (&[][..], "", None, 77_000),
        (&[], " {} ", None, 77_000),
        (&[], r#"{"ttl":5,"id":"a-B_9"}"#, Some("a-B_9"), 5_000),
        (&form, "id=a-B_9&ttl=604800", Some("a-B_9"), 604_800_000),
        (&form, "ttl=1", None, 1_000),
    ] {
        let response = node
            .internal("POST", "/keys", headers, body.as_bytes())
            .await;
        assert_eq!(
            (response.status, response.json()["expires_in_ms"].as_u64()),
            (200, Some(life)),
            "{body}"
        );
        assert!(id.is_none_or(|id| response.json()["id"] == id), "{body}");
    }
}

#[tokio::test]
async fn each_mistake_of_a_body_is_named() {
    let scratch = Scratch::new();
    let node = start(&scratch, &[SECRET]).await;
    let not_an_id = "id: must be an id of 1 to 64 letters, digits, - or _";
    let not_a_ttl = "ttl: must be a whole number of seconds from 1 to 604800";
    let long = format!(r#"{{"id":"{}"}}"#, "a".repeat(65));
    for (body, mistake) in [
        (r#"{"id":""}"#, not_an_id),
        (r#"{"id":"a.b"}"#, not_an_id),
        (r#"{"id":"\u00e9"}"#, not_an_id),
        (r#"{"id":"\ud800"}"#, not_an_id),
        (long.as_str(), not_an_id),
        (r#"{"id":7}"#, "id: must be a string"),
        (r#"{"id":null}"#, "id: must be a string"),
        (r#"{"ttl":0}"#, not_a_ttl),
        (r#"{"ttl":604801}"#, not_a_ttl),
        (r#"{"ttl":"300"}"#, not_a_ttl),
        (r#"{"ttl":1,"ttl":2}"#, "ttl: given twice"),
        (r#"{"key":"a"}"#, "key: unknown member"),
        (r#"{"id":"a""#, "body: not JSON (line 1, column 9)"),
    ] {
        check_refused(&issue(&node, body).await, 400, mistake);
    }
    let form = [("content-type", "application/x-www-form-urlencoded")];
    for (body, mistake) in [
        ("id=a%20b", not_an_id),
        ("id=a&id=b", "id: given twice"),
        ("ttl=x", not_a_ttl),
        ("x=1", "x: unknown member"),
    ] {
        check_refused(
            &node.internal("POST", "/keys", &form, body.as_bytes()).await,
            400,
            mistake,
        );
    }
    for body in ["[]", "x"] {
        assert_eq!(issue(&node, body).await.status, 415, "{body}");
    }
    let response = node.internal("GET", "/keys", &[], b"").await;
    assert_eq!(
        (response.status, response.header("allow")),
        (405, Some("POST"))
    );
}

#[tokio::test]
async fn a_key_that_is_not_good_is_gone_at_once_in_each_form_and_costs_nothing() {
    let (scratch, redis) = (Scratch::new(), Redis::start(&[]).await);
    let secrets = scratch.file("secrets", SECRET);
    let node = Launch::new(&[
        "--key-secret-file",
        &secrets,
        "--redis",
        &redis.url(),
        "--log",
        "debug",
    ])
    .start()
    .await;
    let good = key_of(&node, "login-1", 300).await;
    node.set_ok("login-1", r#""t0p""#).await;
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let later = signed.replace("login-1.", "login-1.1");
    let expired = signed_by(SECRET, "login-1", now_ms() - 1).await;
    let of_another = signed_by(OTHER, "login-1", now_ms() + 60_000).await;
    let not_good = [
        ("unsigned", "login-1".to_owned()),
        ("unsigned", signed.to_owned()),
        ("unsigned", format!("login-1.{signature}")),
        ("unsigned", format!("{good}x")),
        (
            "forged",
            format!("login-2.{}.{signature}", signed.split_once('.').unwrap().1),
        ),
        ("forged", format!("{later}.{signature}")),
        ("forged", of_another),
        ("expired", expired),
    ];
    for (why, key) in &not_good {
        let before = (
            calls(&redis).await,
            node.metric(&format!("holdfast_keys_refused_total{{reason=\"{why}\"}}"))
                .await,
        );
        let object = r#"{"code":-4,"message":"gone","value":null,"version":5,"final":false}"#;
        let json = node.get(&format!("/status/get?key={key}&last=5")).await;
        assert_eq!((json.status, json.text()), (410, object), "{key}");
        let script = node
            .get(&format!("/status/get?key={key}&last=5&callback=cb"))
            .await;
        let call = format!(r#"/**/typeof cb==="function"&&cb({object});"#);
        assert_eq!(
            (script.status, script.text()),
            (200, call.as_str()),
            "{key}"
        );
        let script = node
            .get(&format!("/status/get?key={key}&last=5&assign=x&wait=0"))
            .await;
        assert_eq!(
            (script.status, script.text()),
            (200, format!("/**/window.x={object};").as_str()),
            "{key}"
        );
        let after = (
            calls(&redis).await,
            node.metric(&format!("holdfast_keys_refused_total{{reason=\"{why}\"}}"))
                .await,
        );
        assert_eq!(after.1, before.1 + 3.0, "{why} {key}");
        // None of these requests reaches Redis. Only the node's own probe and look go on.
        assert!(
            !redis
                .names()
                .await
                .iter()
                .any(|name| name.contains("login-2")),
            "{key}"
        );
        assert!(after.0 - before.0 < 10, "{key} costs calls");
    }
    // A mistake is reported before the key is checked.
    assert_eq!(node.get("/status/get?key=login-1&last=x").await.code(), -5);
    node.quiet().await;
    eventually(
        async || node.logs().iter().any(|line| line.contains("forged")),
        "it is told in the log",
    )
    .await;
    let log = node.logs().join("\n");
    assert!(
        !log.contains("login-1") && !log.contains(signature) && !log.contains(SECRET),
        "{log}"
    );
}

/// Returns the number of scripts that Redis has run.
async fn calls(redis: &Redis) -> u64 {
    let stats = redis.command(&["INFO", "commandstats"]).await;
    let found = stats.text().lines().find_map(|line| {
        line.strip_prefix("cmdstat_evalsha:calls=")?
            .split(',')
            .next()
    });
    found.map_or(0, |calls| calls.parse().expect("a number"))
}

/// Returns a key as a backend that signs by itself makes it.
async fn signed_by(secret: &str, id: &str, expires: u64) -> String {
    let script = "import base64,hashlib,hmac,sys\ns,t=sys.argv[1:]\n\
        print(t+'.'+base64.urlsafe_b64encode(hmac.digest(s.encode(),t.encode(),'sha256')).decode().rstrip('='))";
    run(
        &holdfast_testkit::python(),
        &["-c", script, secret, &format!("{id}.{expires}")],
    )
    .await
}

/// Runs a program. Returns its output.
async fn run(program: &str, args: &[&str]) -> String {
    let output = tokio::process::Command::new(program)
        .args(args)
        .output()
        .await
        .expect(program);
    assert!(
        output.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout)
        .expect("text")
        .trim()
        .to_owned()
}

#[tokio::test]
async fn a_held_get_ends_with_gone_when_its_key_expires() {
    let scratch = Scratch::new();
    let node = start(&scratch, &[SECRET]).await;
    let key = key_of(&node, "short", 1).await;
    let mut held = hold(&node, "short", &format!("key={key}&last=7")).await;
    let gone = r#"{"code":-4,"message":"gone","value":null,"version":7,"final":false}"#;
    assert_eq!(held.answer().await.text(), gone);
    let expires: u64 = key.split('.').nth(1).unwrap().parse().unwrap();
    assert!(now_ms() >= expires, "not before its time");
    assert_eq!(
        node.get(&format!("/status/get?key={key}&last=7"))
            .await
            .text(),
        gone,
        "and so the next"
    );
    node.quiet().await;

    // A get that waits for less is told that its own time is over, not its key's.
    let key = key_of(&node, "longer", 100).await;
    assert_eq!(
        node.get(&format!("/status/get?key={key}&wait=0.05"))
            .await
            .code(),
        -1
    );
    // A status that was set in time is heard.
    let key = key_of(&node, "in-time", 60).await;
    let mut held = hold(&node, "in-time", &format!("key={key}")).await;
    check_done(&node.set(r#"{"key":"in-time","value":1}"#).await, 1);
    assert_eq!(held.answer().await.code(), 0);
}

#[tokio::test]
async fn a_key_that_expires_while_redis_does_not_answer_is_gone_in_its_time() {
    let (scratch, redis) = (Scratch::new(), Redis::start(&[]).await);
    let secrets = scratch.file("secrets", SECRET);
    let args = [
        "--key-secret-file",
        &secrets,
        "--redis",
        &redis.url(),
        "--redis-timeout",
        "30s",
    ];
    let node = Launch::new(&args).start().await;
    let key = key_of(&node, "slow", 2).await;
    redis.signal("STOP").await;
    let answer = node.get(&format!("/status/get?key={key}&last=7")).await;
    redis.signal("CONT").await;
    assert_eq!(
        answer.text(),
        r#"{"code":-4,"message":"gone","value":null,"version":7,"final":false}"#
    );
}

#[tokio::test]
async fn what_is_set_or_looked_for_under_a_whole_key_is_a_mistake() {
    let scratch = Scratch::new();
    let node = start(&scratch, &[SECRET]).await;
    let key = key_of(&node, "login-1", 300).await;
    check_refused(
        &node.set(format!(r#"{{"key":"{key}","value":1}}"#)).await,
        400,
        NOT_AN_ID,
    );
    let array = format!(r#"[{{"key":"login-1","value":1}},{{"key":"{key}","value":1}}]"#);
    check_refused(&node.set(array).await, 400, &format!("[1] {NOT_AN_ID}"));
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let body = format!("key={key}&value=1");
    check_refused(
        &node
            .internal("POST", "/status/set", &form, body.as_bytes())
            .await,
        400,
        NOT_AN_ID,
    );
    for method in ["GET", "DELETE"] {
        check_refused(
            &node
                .internal(method, &format!("/keys/{key}"), &[], b"")
                .await,
            400,
            NOT_AN_ID,
        );
    }
    assert_eq!(
        node.get(&format!("/status/get?key={key}&wait=0"))
            .await
            .code(),
        -1,
        "nothing was stored"
    );
}

#[tokio::test]
async fn without_secrets_nothing_is_signed() {
    let node = Node::start(&[]).await;
    check_refused(
        &issue(&node, "{}").await,
        404,
        "not found: keys are not signed without --key-secret-file",
    );
    let key = format!("login-1.{}.{}", now_ms() - 5, "A".repeat(43));
    let mut held = node.hold(&format!("key={key}")).await;
    node.set_ok(&key, "1").await;
    assert_eq!(held.answer().await.code(), 0);
}

#[tokio::test]
async fn a_new_secret_takes_over_without_a_page_noticing() {
    let (redis, scratch) = (Redis::start(&[]).await, Scratch::new());
    let start = async |secrets: &[&str]| {
        let path = scratch.file(&format!("secrets-{}", secrets.len()), &secrets.join("\n"));
        Launch::new(&["--redis", &redis.url(), "--key-secret-file", &path])
            .start()
            .await
    };
    // First each node learns the new secret, then each signs with it, then the old one goes.
    let (old, both) = (
        start(&[SECRET]).await,
        start(&[OTHER, SECRET, "one-more-of-thirty-two-or-more-bytes"]).await,
    );
    let (by_old, by_new) = (key_of(&old, "a", 300).await, key_of(&both, "b", 300).await);
    let mut held = hold(&both, "a", &format!("key={by_old}")).await;
    check_done(&old.set(r#"{"key":"a","value":1}"#).await, 1);
    assert_eq!(
        held.answer().await.code(),
        0,
        "set on one node, heard on another, by its id"
    );
    assert_eq!(
        old.get(&format!("/status/get?key={by_new}&wait=0"))
            .await
            .code(),
        -4
    );
    let new = start(&[OTHER, "one-more-of-thirty-two-or-more-bytes"]).await;
    assert_eq!(
        new.get(&format!("/status/get?key={by_new}&wait=0"))
            .await
            .code(),
        -1
    );
    assert_eq!(
        new.get(&format!("/status/get?key={by_old}&wait=0"))
            .await
            .code(),
        -4
    );
}

#[tokio::test]
async fn the_vectors_are_good_and_are_those_of_readme() {
    let (scratch, readme) = (Scratch::new(), project_file("docs/signed-keys.md"));
    let mut shown = 0;
    for (index, vector) in vectors().iter().enumerate() {
        let (secret, id, key) = (
            text(vector, "secret"),
            text(vector, "id"),
            text(vector, "key"),
        );
        let path = scratch.file(&format!("vector-{index}"), secret);
        let node = Launch::new(&["--key-secret-file", &path]).start().await;
        let mut held = hold(&node, id, &format!("key={key}")).await;
        node.set_ok(id, "1").await;
        assert_eq!(held.answer().await.code(), 0, "{vector}");
        shown += usize::from(readme.contains(&format!(
            "| `{secret}` | `{id}` | `{}` | `{key}` |",
            vector["expires"]
        )));
    }
    assert!(
        shown >= 2,
        "docs/signed-keys.md shows {shown} of the vectors"
    );
}

#[tokio::test]
async fn each_language_of_readme_signs_the_vectors() {
    let (scratch, readme) = (Scratch::new(), project_file("docs/signed-keys.md"));
    let (_, chapter) = readme
        .split_once("\n## Sign by yourself\n")
        .expect("the chapter");
    let code = |language: &str| {
        let (_, rest) = chapter
            .split_once(&format!("```{language}\n"))
            .expect(language);
        rest.split_once("```").expect("an end").0.to_owned()
    };
    let python_file = scratch.file(
        "sign.py",
        &format!(
            "{}\nimport sys\nprint(sign(sys.argv[1], sys.argv[2], int(sys.argv[3])))\n",
            code("python")
        ),
    );
    let node_file = scratch.file(
        "sign.mjs",
        &format!(
            "{}\nconst [, , secret, id, expires] = process.argv;\nconsole.log(sign(secret, id, Number(expires)));\n",
            code("js")
        ),
    );
    let go_main = "\nfunc main() {\n\texpires, _ := strconv.ParseInt(os.Args[3], 10, 64)\n\tfmt.Println(sign(os.Args[1], os.Args[2], expires))\n}\n";
    let go_code = code("go").replacen("import (", "import (\n\t\"os\"", 1);
    let go_file = scratch.file("sign.go", &format!("{go_code}{go_main}"));
    let go = scratch.path("sign").display().to_string();
    run("go", &["build", "-o", &go, &go_file]).await;
    for vector in vectors() {
        let (secret, id, expires) = (
            text(&vector, "secret"),
            text(&vector, "id"),
            vector["expires"].to_string(),
        );
        let args = [secret, id, &expires];
        for (program, file) in [
            (holdfast_testkit::python(), Some(&python_file)),
            ("node".into(), Some(&node_file)),
            (go.clone(), None),
        ] {
            let all: Vec<&str> = file.map(String::as_str).into_iter().chain(args).collect();
            assert_eq!(run(&program, &all).await, text(&vector, "key"), "{program}");
        }
    }
}

#[tokio::test]
async fn a_flood_of_random_keys_leaves_no_trace() {
    let (scratch, redis) = (Scratch::new(), Redis::start(&[]).await);
    let secrets = scratch.file("secrets", SECRET);
    let node = Launch::new(&["--key-secret-file", &secrets, "--redis", &redis.url()])
        .start()
        .await;
    eventually(
        async || redis.names().await.len() >= 2,
        "the node's own keys",
    )
    .await;
    let count = if long() { 20_000 } else { 1_000 };
    let mut conn = Conn::open(&node.public).await;
    for number in 0..count {
        let key = format!(
            "guess-{number}.{}.{}",
            now_ms() + 1_000_000,
            "B".repeat(42) + "A"
        );
        let answer = conn
            .ask(request("GET", &format!("/status/get?key={key}"), &[], b""))
            .await;
        assert_eq!(answer.code(), -4);
    }
    assert_eq!(
        node.metric(r#"holdfast_keys_refused_total{reason="forged"}"#)
            .await,
        f64::from(count)
    );
    assert!(
        !redis
            .names()
            .await
            .iter()
            .any(|name| name.contains("guess"))
    );
    node.quiet().await;
}

#[tokio::test]
async fn a_bad_secret_file_is_a_mistake_without_a_secret_in_it() {
    let scratch = Scratch::new();
    for (secrets, mistake) in [
        ("", "there is no secret in it"),
        (
            "s3cret-too-short",
            "secret 1 has 16 bytes: it needs 32 or more",
        ),
        (
            "0123456789abcdef0123456789abcdef\ns3cret with spaces, and long enough",
            "secret 2 must be printable ASCII",
        ),
    ] {
        let path = scratch.file("bad", secrets);
        let ended = Launch::new(&["--key-secret-file", &path, "--check"])
            .run()
            .await;
        assert_eq!(ended.status.code(), Some(64), "{ended:?}");
        assert!(
            ended.stderr.contains("--key-secret-file") && ended.stderr.contains(mistake),
            "{ended:?}"
        );
        assert!(!ended.stderr.contains("s3cret"), "{ended:?}");
    }
}

#[tokio::test]
async fn a_token_is_asked_for_where_keys_are_made() {
    let scratch = Scratch::new();
    let (secrets, tokens) = (
        scratch.file("secrets", SECRET),
        scratch.file("tokens", "tok-1"),
    );
    let args = [
        "--key-secret-file",
        &secrets,
        "--internal-token-file",
        &tokens,
    ];
    let node = Launch::new(&args).bearer("tok-1").start().await;
    let bare = Conn::open(&node.internal)
        .await
        .ask(request("POST", "/keys", &[], b""))
        .await;
    assert_eq!(
        (bare.status, bare.json()),
        (
            401,
            json!({"code": -5, "message": "unauthorized: send authorization: Bearer TOKEN"})
        )
    );
    assert_eq!(issue(&node, "").await.status, 200);
    let page = [("origin", "https://a.example")];
    assert_eq!(node.internal("POST", "/keys", &page, b"").await.status, 403);
}
