//! docs/getting-started.md: its commands are run as they are written there, and the Chinese documents show the same ones.

use std::process::Stdio;

use tokio::process::Command;
use tokio::time::timeout;

use crate::docs::code::blocks;
use holdfast_testkit::{PATIENCE, Scratch, free_port};

#[test]
fn the_chinese_documents_show_the_same_commands_and_pages() {
    for (chinese, english) in [
        ("README.zh-CN.md", "README.md"),
        ("docs/zh-CN/getting-started.md", "docs/getting-started.md"),
    ] {
        let shown = blocks(english);
        assert!(shown.len() >= 5, "{english}: {shown:?}");
        assert_eq!(blocks(chinese), shown, "{chinese} and {english}");
    }
}

#[tokio::test]
async fn the_commands_of_getting_started_do_what_it_says() {
    let (public, internal, scratch) = (free_port(), free_port(), Scratch::new());
    let commands: Vec<_> = blocks("docs/getting-started.md")
        .into_iter()
        .filter(|block| block.language == "sh")
        .map(|block| block.code)
        .collect();
    let [start, wait, set, look, stop] = commands.try_into().expect("five blocks");
    let start = start.replace(
        "holdfast --",
        &format!(
            "'{}' --public 127.0.0.1:11000 --internal 127.0.0.1:11001 --",
            env!("CARGO_BIN_EXE_holdfast")
        ),
    );
    let ready =
        "until curl -sf http://127.0.0.1:11001/health/ready >/dev/null; do sleep 0.05; done";
    // The get is held when the key has a waiter.
    let held = format!(
        "until {} | grep -q ':1}}'; do sleep 0.05; done",
        look.trim()
    );
    let script = [
        // Nothing outlives it, however it ends.
        "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT",
        start.as_str(),
        ready,
        &wait,
        "get=$!",
        &held,
        &set,
        "wait $get",
        "echo",
        &look,
        &stop,
        "wait",
    ]
    .join("\n");
    let script = script
        .replace("11000", &public.to_string())
        .replace("11001", &internal.to_string());
    let mut bash = Command::new("bash");
    bash.args(["-e", "-c", &script])
        .current_dir(scratch.path(""))
        .kill_on_drop(true);
    bash.stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let output = timeout(3 * PATIENCE, bash.output())
        .await
        .expect("an end")
        .expect("bash");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    for expected in [
        r#""delivered":1}"#,
        r#"&&paid({"code":0,"message":"success","value":"paid","#,
        r#"{"key":"order-81f3","#,
    ] {
        assert!(
            said.contains(expected),
            "{expected} is not in {said}, {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    assert!(output.status.success(), "{output:?}");
}
