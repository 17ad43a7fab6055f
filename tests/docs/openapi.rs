//! docs/openapi.yaml: the program gives all answers that it describes, as it describes them, and no
//! others.

use std::path::Path;

use holdfast_testkit::{Launch, Node, PATIENCE, Scratch, eventually};
use tokio::process::Command;
use tokio::time::timeout;

const TOKEN: &str = "of-the-document-of-the-interface";

/// Returns the addresses of a node, as the script takes them.
fn places(name: &str, node: &Node) -> String {
    format!("{name}={},{}", node.internal.tcp(), node.public.tcp())
}

#[tokio::test]
async fn each_answer_of_the_document_comes_and_is_as_it_says() {
    let scratch = Scratch::new();
    let tokens = scratch.file("internal-token", TOKEN);
    let secrets = scratch.file("key-secret", "0123456789abcdef0123456789abcdef");
    let short = ["--body-timeout", "3s"];
    let plain = Launch::new(&[&short[..], &["--max-waiters", "1"]].concat());
    let signed = [
        &short[..],
        &["--internal-token-file", &tokens],
        &["--key-secret-file", &secrets, "--max-statuses", "1"],
        &[
            "--max-body-bytes",
            "131072",
            "--max-inbound-bytes",
            "131072",
        ],
    ];
    let signed = Launch::new(&signed.concat()).bearer(TOKEN);
    // Nothing listens there.
    let broken = [
        "--redis",
        "redis://127.0.0.1:1",
        "--internal-token-file",
        &tokens,
    ];
    let broken = Launch::new(&broken).bearer(TOKEN);
    let slow = ["--drain-quiet", "60s", "--drain-grace", "60s"];
    let (plain, signed, broken, draining) = tokio::join!(
        plain.start(),
        signed.start(),
        broken.start(),
        Launch::new(&slow).start()
    );
    draining.signal("TERM").await;
    let drains = async || {
        let answer = draining.internal("GET", "/health/ready", &[], b"").await;
        answer.status == 503
    };
    eventually(drains, "the node drains").await;

    let python = holdfast_testkit::python();
    let script = Command::new(python)
        .args([
            "tests/docs/openapi.py",
            "docs/openapi.yaml",
            "fixtures/answers",
        ])
        .args([places("plain", &plain), places("signed", &signed)])
        .args([places("broken", &broken), places("draining", &draining)])
        .arg(TOKEN)
        .kill_on_drop(true)
        .output();
    let output = timeout(2 * PATIENCE, script)
        .await
        .expect("an end")
        .expect("Python");
    let differences = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{differences}{output:?}");
}

/// Has schemathesis send requests that it makes from the document, good ones and bad ones.
async fn send_all(url: &str, args: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = std::env::var("SCHEMATHESIS").expect("SCHEMATHESIS names the program");
    let here = root.join("tests/docs/schemas");
    // It leaves files in the directory in which it runs.
    let scratch = Scratch::new();
    let output = Command::new(root.join(program))
        .current_dir(scratch.path("."))
        .arg("--config-file")
        .arg(here.join("schemathesis.toml"))
        .arg("run")
        .arg(root.join("docs/openapi.yaml"))
        .args(["--url", url, "--no-color"])
        .args(["--generation-database", "none"])
        .args(args)
        .env("SCHEMATHESIS_HOOKS", here.join("hooks.py"))
        .kill_on_drop(true)
        .output();
    let output = timeout(20 * PATIENCE, output)
        .await
        .expect("an end")
        .expect("schemathesis");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{url} {args:?}: {said}{output:?}");
}

#[tokio::test]
#[ignore = "schemathesis is installed by `make test-schemas`"]
async fn schemathesis_finds_no_answer_that_differs() {
    let scratch = Scratch::new();
    let tokens = scratch.file("internal-token", TOKEN);
    let secrets = scratch.file("key-secret", "0123456789abcdef0123456789abcdef");
    let plain = Node::start(&["--hold", "1s"]).await;
    let signed = [
        "--internal-token-file",
        &tokens,
        "--key-secret-file",
        &secrets,
    ];
    let signed = Launch::new(&signed).bearer(TOKEN).start().await;
    let internal = format!("http://{}", plain.internal.tcp());
    let public = format!("http://{}", plain.public.tcp());
    let many = ["--max-examples", "200"];
    let of_public = [
        "--include-path",
        "/status/get",
        "--include-path",
        "/healthz",
    ];
    let of_secrets = ["--include-path", "/keys"];
    // Without secrets there is no such route.
    let others = ["/status/get", "/healthz", "/keys"].map(|path| ["--exclude-path", path]);
    send_all(&internal, &[&many[..], others.as_flattened()].concat()).await;
    // Fewer, because many of them are held for a second.
    let few = ["--max-examples", "40"];
    send_all(&public, &[&few[..], &of_public].concat()).await;
    let with_token = format!("authorization: Bearer {TOKEN}");
    let token = ["-H", &with_token];
    let internal = format!("http://{}", signed.internal.tcp());
    send_all(&internal, &[many, of_secrets, token].concat()).await;
}
