//! Does what docs/deployment.md and `deploy/` say that operators should do.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::process::{Command as StdCommand, Output, Stdio};

use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::docs::code::code_below;
use holdfast_testkit::{Launch, PATIENCE, Scratch, eventually, free_port, project_file};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Returns a base port for three nodes: it is free, and so are +1, +10, +11, +20 and +21. All
/// are above the ports of [`free_port`] and below those that the system gives out.
fn free_base() -> u16 {
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let place = (std::process::id() % 25) as u16;
    let mut bases = (0..25).map(|step| 32_100 + (place + step) % 25 * 25);
    bases
        .find(|base| {
            [0, 1, 10, 11, 20, 21]
                .iter()
                .all(|more| is_free(base + more))
        })
        .expect("free ports")
}

/// A shell that a test types into. When dropped, the programs that it started are ended.
struct Shell(Child);

impl Shell {
    fn start() -> Self {
        let mut bash = Command::new("bash");
        bash.current_dir(ROOT)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        Self(bash.spawn().expect("bash"))
    }

    async fn type_in(&mut self, text: &str) {
        self.0
            .stdin
            .as_mut()
            .expect("open")
            .write_all(text.as_bytes())
            .await
            .unwrap();
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let Some(pid) = self.0.id() else { return };
        let children =
            std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let _ = StdCommand::new("sh")
            .args(["-c", &format!("kill -TERM {children}")])
            .status();
    }
}

async fn output(command: &str) -> String {
    let run = Command::new("bash")
        .args(["-c", command])
        .current_dir(ROOT)
        .kill_on_drop(true)
        .output();
    let output = timeout(2 * PATIENCE, run).await.expect("an end").unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn the_commands_of_the_readme_start_three_nodes_with_redis_and_nginx() {
    let scratch = Scratch::new();
    let (try_out, base, redis, nginx) =
        (scratch.path("try"), free_base(), free_port(), free_port());
    let try_out = try_out.to_str().unwrap();
    // Everything is as docs/deployment.md has it, but for the build, the directory and the ports.
    let here = |text: &str| {
        let ports = |text: String, name: &str, more: u16| {
            text.replace(
                &format!("127.0.0.1:110{name}"),
                &format!("127.0.0.1:{}", base + more),
            )
        };
        let mut text = text
            .replace("cargo build --release && ", "")
            .replace("$PWD/target/try", "target/try");
        text = text
            .replace("target/release/holdfast", env!("CARGO_BIN_EXE_holdfast"))
            .replace("target/try", try_out);
        text = text
            .replace("16379", &redis.to_string())
            .replace("11443", &nginx.to_string());
        for more in [0, 1] {
            text = text.replace(
                &format!("110${{n}}{more}"),
                &format!("$(({base} + {more} + n * 10))"),
            );
        }
        [("00", 0), ("01", 1), ("10", 10), ("20", 20), ("21", 21)]
            .into_iter()
            .fold(text, |text, (name, more)| ports(text, name, more))
    };
    let [start, try_it, end] = code_below("docs/deployment.md", "Three nodes on one machine", "sh")
        .try_into()
        .expect("three blocks");
    assert_eq!(
        start.lines().filter(|line| !line.starts_with(' ')).count(),
        6,
        "{start}"
    );
    let mut shell = Shell::start();
    let list = scratch.path("try/nodes.conf");
    let (first, rest) = start.split_once('\n').unwrap();
    shell.type_in(&format!("{}\n", here(first))).await;
    eventually(async || list.exists(), "the list of nodes is copied").await;
    eventually(
        async || {
            std::fs::read_to_string(&list)
                .unwrap()
                .contains("upstream.conf;\n}")
        },
        "all of it",
    )
    .await;
    std::fs::write(&list, here(&std::fs::read_to_string(&list).unwrap())).unwrap();
    shell.type_in(&here(rest)).await;

    let (get, set) = try_it.split_once("\n\n").unwrap();
    let now = here(get)
        .replace("id=demo", "id=other")
        .replace("&callback=cb", "&wait=0");
    let is_up = async || output(&now).await.contains(r#""code":-1"#);
    eventually(is_up, "a get is answered through nginx").await;
    let keys = format!(
        "curl -sH \"authorization: Bearer $(cat {try_out}/internal-token)\" http://127.0.0.1:{}/keys/demo",
        base + 1
    );
    let get = tokio::spawn({
        let get = here(get);
        async move { output(&get).await }
    });
    eventually(
        async || output(&keys).await.contains(r#":1}"#),
        "the get is held",
    )
    .await;
    let receipt = output(&here(set)).await;
    assert!(
        receipt.starts_with(r#"{"code":0,"#) && receipt.ends_with(r#""delivered":1}"#),
        "{receipt}"
    );
    let script = get.await.unwrap();
    assert!(
        script.starts_with("/**/typeof cb") && script.contains(r#""value":"hello""#),
        "{script}"
    );
    let demo =
        format!("curl -s --cacert {try_out}/push.example.com.pem https://localhost:{nginx}/demo");
    assert!(
        output(&demo)
            .await
            .to_lowercase()
            .starts_with("<!doctype html>")
    );

    shell
        .type_in(&format!("{}wait; exit 7\n", here(&end)))
        .await;
    let status = timeout(2 * PATIENCE, shell.0.wait())
        .await
        .expect("all has ended")
        .unwrap();
    assert_eq!(status.code(), Some(7));
    for port in [base, base + 10, base + 20, redis, nginx] {
        assert!(
            TcpListener::bind(("127.0.0.1", port)).is_ok(),
            "{port} is free again"
        );
    }
}

/// Writes the unit file with the program under test and with one more line in its section
/// `[Service]`. Returns its path.
fn unit(scratch: &Scratch, line: &str) -> String {
    let unit = project_file("deploy/holdfast.service");
    let start = "\nExecStart=holdfast\n";
    assert!(unit.contains(start), "{unit}");
    let program = concat!("\nExecStart=", env!("CARGO_BIN_EXE_holdfast"), "\n");
    let unit = unit.replace(start, program);
    scratch.file(
        "holdfast.service",
        &unit.replace("[Service]\n", &format!("[Service]\n{line}\n")),
    )
}

fn systemd_analyze(args: &[&str]) -> Output {
    let output = StdCommand::new("systemd-analyze").args(args).output();
    output.expect("systemd-analyze; `make deps` installs it")
}

#[test]
fn the_unit_is_one_that_systemd_takes_and_exposes_little() {
    let scratch = Scratch::new();
    let verify = |line: &str| {
        let output = systemd_analyze(&["verify", "--man=no", &unit(&scratch, line)]);
        (
            output.status.success(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    assert_eq!(verify(""), (true, String::new()));
    // A mistake makes systemd print a message, but it does not fail.
    assert!(verify("Bogus=yes").1.contains("Bogus"));
    // The limits are in tenths. An empty unit scores 9.6 of 10. Of our score, 0.9 comes from
    // the network and unix sockets.
    let is_within = |limit: &str, line: &str| {
        let limit = format!("--threshold={limit}");
        systemd_analyze(&["security", "--offline=true", &limit, &unit(&scratch, line)])
            .status
            .success()
    };
    assert!(is_within("13", ""));
    assert!(!is_within("5", ""));
}

#[tokio::test]
async fn the_unit_does_not_start_again_with_wrong_settings() {
    let unit = project_file("deploy/holdfast.service");
    let unit: BTreeMap<_, _> = unit
        .lines()
        .filter_map(|line| line.split_once('='))
        .collect();
    let wrong = Launch::new(&["--hold", "x"]).run().await;
    assert_eq!(
        unit["RestartPreventExitStatus"],
        wrong.status.code().unwrap().to_string()
    );
    assert_eq!(unit["KillSignal"], "SIGTERM");
}
