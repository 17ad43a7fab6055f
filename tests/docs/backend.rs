//! docs/backend.md: each example sets a status, with the token, as it is written there, and the
//! refusals are those of the program.

use tokio::process::Command;
use tokio::time::timeout;

use crate::docs::code::code_below;
use crate::docs::readme::{code_spans, table_of};
use holdfast_testkit::{Conn, Launch, Node, PATIENCE, Scratch, eventually};

const TOKEN: &str = "of-the-examples-of-the-documents";

#[tokio::test]
async fn each_example_sets_a_status_with_the_token() {
    let scratch = Scratch::new();
    let tokens = scratch.file("internal-token", TOKEN);
    let node = Launch::new(&["--internal-token-file", &tokens])
        .bearer(TOKEN)
        .start()
        .await;
    let python = holdfast_testkit::python();
    let programs = [
        ("curl", "sh", "set.sh", vec!["bash", "-e"]),
        ("Go", "go", "set.go", vec!["go", "run"]),
        ("Python", "python", "set.py", vec![python.as_str()]),
        ("Node", "js", "set.mjs", vec!["node"]),
        ("Java", "java", "SetStatus.java", vec!["java"]),
    ];
    let mut last = 0;
    for (heading, language, name, program) in programs {
        let blocks = code_below("docs/backend.md", heading, language);
        let code = blocks[0].replace("127.0.0.1:11001", &node.internal.tcp().to_string());
        let file = scratch.file(name, &code);
        let mut command = Command::new(program[0]);
        command.args(&program[1..]).arg(&file).kill_on_drop(true);
        command.env("HOLDFAST_TOKEN", TOKEN);
        // A build by `go run` takes longer than anything else here.
        let output = timeout(4 * PATIENCE, command.output())
            .await
            .expect("an end")
            .expect(program[0]);
        assert!(output.status.success(), "{heading}: {output:?}");
        let target = format!("/status/get?key=demo&last={last}&wait=0");
        let known = node.get(&target).await;
        assert_eq!(known.code(), 0, "{heading}: {known:?}, {output:?}");
        // The example for curl sets two statuses, the others one.
        let state = if heading == "curl" {
            "confirmed"
        } else {
            "scanned"
        };
        assert_eq!(known.object()["value"]["state"], state, "{heading}");
        last = known.version();
    }
}

#[tokio::test]
async fn the_refusals_are_those_of_the_program() {
    let scratch = Scratch::new();
    let (tokens, secrets) = (
        scratch.file("tokens", TOKEN),
        scratch.file("secrets", &"x".repeat(32)),
    );
    let open = Node::start(&[]).await;
    let guarded = Node::start(&["--internal-token-file", &tokens]).await;
    let signing = Node::start(&["--key-secret-file", &secrets]).await;
    let set = br#"{"key":"k","value":1}"#;
    let origin = [("origin", "https://shop.example.com")];
    let key = "a.4102444800000.Z3d2RcQjiFSiUaZ-DyT7veBJuKQ_YefHStBfbvM_Ukg";
    let signed = format!(r#"{{"key":"{key}","value":1}}"#);
    let mut stranger = Conn::open(&open.internal).await;
    let by_name = b"GET /keys/k HTTP/1.1\r\nhost: push-1.example.com\r\n\r\n";
    // In the order of the table.
    let answers = [
        stranger.ask(by_name.to_vec()).await,
        open.internal("POST", "/status/set", &origin, set).await,
        open.internal("POST", "/keys", &[], b"").await,
        open.public("POST", "/status/set", &[]).await,
        open.internal("GET", "/keys/k", &[], b"").await,
        guarded.internal("POST", "/status/set", &[], set).await,
        signing
            .internal("POST", "/status/set", &[], signed.as_bytes())
            .await,
        open.internal("POST", "/status/set", &[], b"key").await,
        open.internal(
            "POST",
            "/status/set",
            &[("content-type", "application/x-www-form-urlencoded")],
            b"hello",
        )
        .await,
    ];
    let rows = table_of("docs/backend.md", &["answer", "to", "why", "what to do"]);
    assert_eq!(rows.len(), answers.len());
    let warning = "refused: unknown host name";
    assert!(rows[0][2].contains(warning), "{:?}", rows[0]);
    eventually(
        async || open.logs().iter().any(|line| line.contains(warning)),
        "the log has the warning that the table quotes",
    )
    .await;
    for (row, answer) in rows.iter().zip(answers) {
        let message = code_spans(&row[0])[0].trim_end_matches(" ...");
        let stated = (row[0].split(' ').next().unwrap(), true);
        let told = answer.object()["message"].as_str().unwrap().to_owned();
        assert_eq!(
            (
                answer.status.to_string().as_str(),
                told.starts_with(message)
            ),
            stated,
            "{row:?}: {answer:?}"
        );
    }
}
