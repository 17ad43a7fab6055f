//! Certificates of TLS: chosen by name, renewed while the node runs, and checked at the start.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use holdfast_testkit::tls::{self, HOST};
use holdfast_testkit::{
    Authority, Conn, Held, Launch, Node, Scratch, eventually, long, many_files, now_ms, request,
};

/// Runs openssl with `args`, without input. Returns all that it printed.
async fn openssl(args: &[&str]) -> String {
    let mut command = Command::new("openssl");
    command.args(args).stdin(Stdio::null());
    let output = command.output().await.expect("openssl runs");
    let printed = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&printed).into_owned()
}

/// Returns the serial number of the certificate that a node shows to a client with these flags.
async fn shown(address: SocketAddr, flags: &[&str]) -> Option<String> {
    let to = address.to_string();
    let args = [&["s_client", "-connect", &to], flags].concat();
    let printed = openssl(&args).await;
    let begin = printed.find("-----BEGIN CERTIFICATE-----")?;
    let mut command = Command::new("openssl");
    command
        .args(["x509", "-noout", "-serial"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = command.spawn().expect("openssl runs");
    let mut stdin = child.stdin.take().expect("piped");
    let sent = stdin.write_all(&printed.as_bytes()[begin..]).await;
    sent.expect("openssl reads");
    drop(stdin);
    let output = child.wait_with_output().await.expect("openssl ends");
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Returns the serial number of the certificate in a file.
async fn serial(path: &str) -> String {
    let printed = openssl(&["x509", "-noout", "-serial", "-in", path]).await;
    printed.trim().to_owned()
}

/// Starts a node with certificates, each with its key.
async fn start(pairs: &[(String, String)]) -> Node {
    let mut args = vec!["--public-tls", "127.0.0.1:0"];
    for (certificate, key) in pairs {
        args.extend(["--tls-cert", certificate, "--tls-key", key]);
    }
    Node::start(&args).await
}

/// Returns what a node logged up to the line that says that it is ready.
async fn logs_of_start(node: &Node) -> String {
    let is_ready = |line: &String| line.contains(r#""message":"ready""#);
    let has_line = async || node.logs().iter().any(is_ready);
    eventually(has_line, "the node is ready").await;
    node.logs().join("\n")
}

/// Checks `--public-tls` with these further flags. Returns the mistakes.
async fn mistakes(args: &[&str]) -> Vec<String> {
    let args = [&["--check", "--public-tls", "127.0.0.1:0"], args].concat();
    let finished = Launch::new(&args).run().await;
    assert_eq!(finished.status.code(), Some(64), "{finished:?}");
    let lines = finished.stderr.lines();
    lines
        .map(|line| line.strip_prefix("holdfast: ").expect(line).to_owned())
        .collect()
}

#[tokio::test]
async fn each_name_has_its_certificate_and_a_client_without_one_gets_the_first() {
    let authority = Authority::new().await;
    let one = authority
        .certificate_for("one", "DNS:one.example,DNS:*.one.example")
        .await;
    let two = authority.certificate("two.example").await;
    let node = start(&[one.clone(), two.clone()]).await;
    let address = node.tls.expect("TLS");
    let (first, second) = (serial(&one.0).await, serial(&two.0).await);
    for (name, expected) in [
        ("one.example", Some(&first)),
        ("ONE.example", Some(&first)),
        ("a.one.example", Some(&first)),
        ("two.example", Some(&second)),
        ("a.b.one.example", None),
        ("example", None),
        ("three.example", None),
    ] {
        let found = shown(address, &["-servername", name]).await;
        assert_eq!(found.as_ref(), expected, "{name}");
    }
    assert_eq!(shown(address, &["-noservername"]).await, Some(first));
    let refused = openssl(&[
        "s_client",
        "-connect",
        &address.to_string(),
        "-servername",
        "three.example",
    ])
    .await;
    assert!(refused.contains("SSL alert number 112"), "{refused}");
    let bad = async || {
        node.metric(r#"holdfast_dropped_total{reason="bad_tls"}"#)
            .await
    };
    eventually(async || bad().await == 4.0, "four clients were refused").await;
}

#[tokio::test]
async fn of_two_kinds_of_key_a_client_gets_the_one_that_it_knows() {
    let authority = Authority::new().await;
    let ecdsa = authority.certificate_for("ecdsa", "DNS:a.example").await;
    let rsa = authority.rsa_certificate_for("rsa", "DNS:a.example").await;
    let node = start(&[ecdsa.clone(), rsa.clone()]).await;
    let address = node.tls.expect("TLS");
    let named = ["-servername", "a.example"];
    assert_eq!(shown(address, &named).await, Some(serial(&ecdsa.0).await));
    let only_rsa = [&named[..], &["-sigalgs", "RSA-PSS+SHA256"]].concat();
    assert_eq!(shown(address, &only_rsa).await, Some(serial(&rsa.0).await));
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_new_clients_and_those_who_wait_wait_on() {
    let count = if long() { 1_000 } else { 100 };
    let _files = many_files(3 * count).await;
    let authority = tls::authority().await;
    let pair = authority
        .certificate_for("renewed", &format!("DNS:{HOST}"))
        .await;
    let node = start(std::slice::from_ref(&pair)).await;
    let address = node.tls.expect("TLS");
    let mut waiting = Vec::new();
    for _ in 0..count {
        let mut conn = Conn::over(tls::connect(address, HOST).await);
        conn.send(request("GET", "/status/get?key=k", &[], b""))
            .await;
        waiting.push(Held { conn });
    }
    node.wait_key_waiters("k", u64::from(count)).await;
    let old = serial(&pair.0).await;
    assert_eq!(shown(address, &["-noservername"]).await, Some(old.clone()));
    // Once by the signal, once by the files alone.
    for is_asked in [true, false] {
        authority
            .certificate_for("renewed", &format!("DNS:{HOST}"))
            .await;
        if is_asked {
            node.signal("HUP").await;
        }
        let new = Some(serial(&pair.0).await);
        assert_ne!(new, Some(old.clone()));
        let is_shown = async || shown(address, &["-noservername"]).await == new;
        eventually(is_shown, "the new certificate is shown").await;
    }
    let version = node.set_ok("k", "1").await;
    for held in &mut waiting {
        assert_eq!(held.answer().await.version(), version);
    }
}

#[tokio::test]
async fn a_bad_renewal_is_logged_and_the_certificate_in_use_stays() {
    let authority = Authority::new().await;
    let (certificate, key) = authority.certificate("a.example").await;
    let node = start(&[(certificate.clone(), key.clone())]).await;
    let address = node.tls.expect("TLS");
    let good = std::fs::read_to_string(&certificate).expect("PEM");
    let first = serial(&certificate).await;
    let (_, other_key) = authority.certificate("b.example").await;
    let other_key = std::fs::read_to_string(other_key).expect("PEM");
    let own_key = std::fs::read_to_string(&key).expect("PEM");
    for (path, content, said) in [
        (&certificate, &good[..100], "not PEM"),
        (&certificate, "", "no certificate in it"),
        (&key, other_key.as_str(), "not the private key of"),
    ] {
        std::fs::write(path, content).expect("written");
        node.signal("HUP").await;
        let is_logged = async || {
            let logs = node.logs();
            logs.iter().any(|line| {
                line.contains("was not renewed") && line.contains(path) && line.contains(said)
            })
        };
        eventually(is_logged, said).await;
        assert_eq!(
            shown(address, &["-noservername"]).await,
            Some(first.clone())
        );
        std::fs::write(&certificate, &good).expect("written");
        std::fs::write(&key, &own_key).expect("written");
    }
    std::fs::remove_file(&key).expect("removed");
    node.signal("HUP").await;
    let is_logged = async || {
        node.logs()
            .iter()
            .any(|line| line.contains("cannot read it"))
    };
    eventually(is_logged, "a file that is gone is logged").await;
    assert_eq!(shown(address, &["-noservername"]).await, Some(first));
}

#[tokio::test]
async fn an_expired_certificate_replaces_no_good_one_and_a_lost_name_is_warned_of() {
    let authority = Authority::new().await;
    let (certificate, key) = authority.certificate("a.example").await;
    let node = start(&[(certificate.clone(), key.clone())]).await;
    let address = node.tls.expect("TLS");
    let first = serial(&certificate).await;
    let logs = async |said: &str| {
        let has = async || node.logs().iter().any(|line| line.contains(said));
        eventually(has, said).await;
    };
    let made = Command::new("faketime")
        .args([
            "3 days ago",
            "openssl",
            "req",
            "-x509",
            "-new",
            "-key",
            &key,
        ])
        .args(["-days", "1", "-subj", "/CN=a", "-out", &certificate])
        .status()
        .await;
    assert!(made.expect("faketime").success());
    node.signal("HUP").await;
    logs("expired on ").await;
    assert_eq!(shown(address, &["-noservername"]).await, Some(first));

    let (other, other_key) = authority.certificate("b.example").await;
    std::fs::copy(other_key, &key).expect("copied");
    std::fs::copy(other, &certificate).expect("copied");
    node.signal("HUP").await;
    logs("no TLS certificate is for this name any more").await;
}

#[tokio::test]
async fn the_expiry_of_each_certificate_is_a_metric() {
    let authority = Authority::new().await;
    let one = authority.certificate("one.example").await;
    let two = authority.certificate("two.example").await;
    let node = start(&[one, two]).await;
    for name in ["one.example", "two.example"] {
        let metric = format!("holdfast_tls_certificate_expires_seconds{{name=\"{name}\"}}");
        // They are valid for two days.
        let left = node.metric(&metric).await - now_ms() as f64 / 1000.0;
        assert!((172_000.0..=172_800.0).contains(&left), "{name}: {left}");
    }
}

#[tokio::test]
async fn mistakes_in_certificates_and_keys_are_named() {
    let authority = Authority::new().await;
    let (certificate, key) = authority.certificate("a.example").await;
    let (other, other_key) = authority.certificate("b.example").await;
    let scratch = Scratch::new();
    let read = |path: &str| std::fs::read_to_string(path).expect("PEM");
    let wrong_order = [read(&authority.path()), read(&certificate)].concat();
    let wrong_order = scratch.file("order.pem", &wrong_order);
    let unrelated = scratch.file(
        "unrelated.pem",
        &[read(&certificate), read(&other)].concat(),
    );
    let whole = scratch.file(
        "whole.pem",
        &[read(&certificate), read(&authority.path())].concat(),
    );
    let locked = scratch.path("locked.key").display().to_string();
    openssl(&[
        "ec", "-in", &key, "-aes256", "-passout", "pass:a", "-out", &locked,
    ])
    .await;
    let locked8 = scratch.path("locked8.key").display().to_string();
    openssl(&[
        "pkcs8", "-topk8", "-in", &key, "-passout", "pass:a", "-out", &locked8,
    ])
    .await;
    let version_1 = scratch.path("version-1.pem").display().to_string();
    let request = scratch.path("request.pem").display().to_string();
    openssl(&[
        "req",
        "-new",
        "-key",
        &key,
        "-subj",
        "/CN=a.example",
        "-out",
        &request,
    ])
    .await;
    openssl(&[
        "x509", "-req", "-in", &request, "-signkey", &key, "-out", &version_1,
    ])
    .await;
    let ca_key = format!("{}/ca.key", authority.path().trim_end_matches("/ca.pem"));
    for (certificate, key, said) in [
        (
            "/nowhere.pem",
            key.as_str(),
            "--tls-cert '/nowhere.pem': cannot read it",
        ),
        (
            &certificate,
            "/nowhere.key",
            "--tls-key '/nowhere.key': cannot read it",
        ),
        (&key, &key, "no certificate in it"),
        (&certificate, &certificate, "no private key in it"),
        (
            &certificate,
            &other_key,
            "not the private key of the first certificate",
        ),
        (&certificate, &locked8, "the private key is encrypted"),
        (&certificate, &locked, "the private key is encrypted"),
        (&wrong_order, &ca_key, "did not sign certificate 1"),
        (&wrong_order, &key, "did not sign certificate 1"),
        (&version_1, &key, "(X.509 version 1)"),
        (&unrelated, &key, "did not sign certificate 1"),
        ("/dev/zero", &key, "longer than 1 MiB"),
    ] {
        let found = mistakes(&["--tls-cert", certificate, "--tls-key", key]).await;
        assert_eq!(found.len(), 1, "{said}: {found:?}");
        assert!(found[0].contains(said), "{said}: {found:?}");
    }
    for (args, said) in [
        (&[][..], "needs --tls-cert and --tls-key"),
        (
            &["--tls-cert", &certificate],
            "give a key for each certificate",
        ),
        (&["--tls-key", &key], "give a key for each certificate"),
    ] {
        let found = mistakes(args).await;
        assert_eq!(found.len(), 1, "{said}: {found:?}");
        assert!(found[0].contains(said), "{said}: {found:?}");
    }
    let pair = ["--tls-cert", &whole, "--tls-key", &key];
    for (address, said) in [
        ("unix:/run/x.sock", "TLS is for TCP"),
        ("127.0.0.1:9", "the same address as --public"),
    ] {
        let args = [
            &["--public", "127.0.0.1:9", "--public-tls", address],
            &pair[..],
        ]
        .concat();
        let found = mistakes(&args).await;
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains(said), "{found:?}");
    }
    let good = [&["--check", "--public-tls", "127.0.0.1:0"], &pair[..]].concat();
    assert!(Launch::new(&good).run().await.status.success());
}

#[tokio::test]
async fn a_key_that_all_can_read_and_settings_without_effect_are_warned_of() {
    let authority = Authority::new().await;
    let (certificate, key) = authority.certificate("a.example").await;
    let set_mode = |mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(&key, mode).expect("ours");
    };
    for (mode, is_warned) in [(0o644, true), (0o640, false), (0o600, false)] {
        set_mode(mode);
        let node = start(&[(certificate.clone(), key.clone())]).await;
        let logs = logs_of_start(&node).await;
        assert_eq!(
            logs.contains("every user of the machine"),
            is_warned,
            "{mode:o}"
        );
    }
    let pair = ["--tls-cert", &certificate, "--tls-key", &key];
    let node = Node::start(&[&pair[..], &["--http2"]].concat()).await;
    let logs = logs_of_start(&node).await;
    for flag in ["--tls-cert", "--tls-key", "--http2"] {
        let warning = format!("{flag} has no effect without --public-tls");
        assert!(logs.contains(&warning), "{logs}");
    }
    // The check of the settings warns of the same.
    set_mode(0o644);
    for (flags, warning) in [
        (&["--http2"][..], "--http2 has no effect without"),
        (
            &["--public-tls", "127.0.0.1:0"],
            "every user of the machine",
        ),
    ] {
        let args = [&["--check"], flags, &pair].concat();
        let checked = Launch::new(&args).run().await;
        assert!(checked.status.success(), "{checked:?}");
        let lines = checked.stderr.lines();
        let warned = lines.filter(|line| line.starts_with("holdfast: warning: "));
        let told = warned.filter(|line| line.contains(warning)).count();
        assert_eq!(told, 1, "{checked:?}");
    }
}

#[tokio::test]
async fn a_file_that_the_node_may_read_again_is_read_and_a_pipe_keeps_it_from_nothing() {
    let authority = Authority::new().await;
    let (certificate, key) = authority.certificate("a.example").await;
    let scratch = Scratch::new();
    let used = scratch.file(
        "used.pem",
        &std::fs::read_to_string(&certificate).expect("PEM"),
    );
    let node = start(&[(used.clone(), key.clone())]).await;
    let says = async |line: &str, count: usize| {
        let found = || node.logs().iter().filter(|one| one.contains(line)).count();
        eventually(async || found() == count, line).await;
    };
    let link = scratch.path("link").display().to_string();
    let pipe = scratch.path("pipe").display().to_string();
    let made = Command::new("mkfifo").arg(&pipe).status().await;
    assert!(made.expect("mkfifo runs").success());
    std::fs::rename(&used, &link).expect("moved");
    std::fs::rename(&pipe, &used).expect("moved");
    says("no regular file, so it is not read again", 1).await;
    std::fs::remove_file(&used).expect("a pipe");
    std::fs::rename(&link, &used).expect("moved back");
    says("TLS certificate\"", 2).await;
    // A change of the rights alone, as if they had been wrong.
    let mode = std::fs::Permissions::from_mode(0o640);
    std::fs::set_permissions(&used, mode).expect("ours");
    says("TLS certificate\"", 3).await;
}

#[tokio::test]
async fn answers_over_tls_tell_browsers_to_keep_to_it_if_the_operator_says_so() {
    let args = [&tls::flags().await[..], &["--hsts", "1day"]].concat();
    let node = Node::start(&args).await;
    for (target, waits) in [
        ("/nothing", false),
        ("/holdfast.js?", false),
        ("/status/get?key=held", true),
        ("/status/events?key=stream", true),
    ] {
        for has_tls in [true, false] {
            let mut conn = match node.tls.filter(|_| has_tls) {
                Some(address) => Conn::over(tls::connect(address, HOST).await),
                None => Conn::open(&node.public).await,
            };
            let target = format!("{target}-{has_tls}");
            conn.send(request("GET", &target, &[], b"")).await;
            if waits {
                let (_, key) = target.split_once("key=").expect("a key");
                node.wait_key_waiters(key, 1).await;
                node.set_ok(key, "1").await;
            }
            let head = conn.read_head().await;
            let header = head.header("strict-transport-security");
            assert_eq!(header, has_tls.then_some("max-age=86400"), "{target}");
        }
    }
}

#[tokio::test]
async fn a_sighup_ends_no_node() {
    let node = Node::start(&[]).await;
    node.signal("HUP").await;
    let is_logged = async || {
        node.logs()
            .iter()
            .any(|line| line.contains("nothing to read again"))
    };
    eventually(is_logged, "the signal is logged").await;
    assert_eq!(node.get("/nothing").await.status, 404);
}

#[tokio::test]
async fn the_demo_makes_a_certificate_of_its_own() {
    let node = Node::start(&["--demo", "--public-tls", "127.0.0.1:0"]).await;
    let address = node.tls.expect("TLS");
    let url = format!("https://localhost:{}/demo", address.port());
    let mut curl = Command::new("curl");
    let output = curl.args(["-sk", &url]).output().await.expect("curl runs");
    let page = String::from_utf8_lossy(&output.stdout);
    assert!(page.contains("a demo of holdfast"), "{page}");
    assert!(
        node.logs()
            .iter()
            .any(|line| line.contains(&format!("https://{address}/demo")))
    );
    let printed = openssl(&[
        "s_client",
        "-connect",
        &address.to_string(),
        "-servername",
        "localhost",
    ])
    .await;
    assert!(printed.contains("BEGIN CERTIFICATE"), "{printed}");
}

#[tokio::test]
async fn the_hook_gives_a_node_what_certbot_or_lego_renewed() {
    let authority = Authority::new().await;
    let scratch = Scratch::new();
    let to = scratch.path("tls").display().to_string();
    let hook = format!("{}/deploy/renew-hook.sh", env!("CARGO_MANIFEST_DIR"));
    let run = async |envs: &[(&str, &str)]| {
        let group = Command::new("id")
            .arg("-gn")
            .output()
            .await
            .expect("id runs");
        let group = String::from_utf8_lossy(&group.stdout).trim().to_owned();
        let mut command = Command::new(&hook);
        command
            .env_remove("RENEWED_LINEAGE")
            .env_remove("LEGO_CERT_PATH")
            .env("HOLDFAST_TLS_DIR", &to)
            .env("HOLDFAST_TLS_GROUP", group)
            .envs(envs.iter().copied());
        command.output().await.expect("the hook runs").status.code()
    };
    assert_eq!(run(&[]).await, Some(64));
    // As certbot names its files.
    let (first, first_key) = authority.certificate("a.example").await;
    std::fs::copy(&first, scratch.path("fullchain.pem")).expect("copied");
    std::fs::copy(&first_key, scratch.path("privkey.pem")).expect("copied");
    let lineage = scratch.path("").display().to_string();
    assert_eq!(run(&[("RENEWED_LINEAGE", &lineage)]).await, Some(0));
    let pair = (format!("{to}/cert.pem"), format!("{to}/key.pem"));
    let mode = std::fs::metadata(&pair.1)
        .expect("a key")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o640);
    let node = start(std::slice::from_ref(&pair)).await;
    let address = node.tls.expect("TLS");
    assert_eq!(
        shown(address, &["-noservername"]).await,
        Some(serial(&first).await)
    );
    // As lego names them. Nobody tells the node.
    let (second, second_key) = authority.certificate("b.example").await;
    let renewed = [
        ("LEGO_CERT_PATH", second.as_str()),
        ("LEGO_CERT_KEY_PATH", &second_key),
    ];
    assert_eq!(run(&renewed).await, Some(0));
    let new = Some(serial(&second).await);
    let is_shown = async || shown(address, &["-noservername"]).await == new;
    eventually(is_shown, "the new certificate is shown").await;
    assert!(
        !node
            .logs()
            .iter()
            .any(|line| line.contains("was not renewed"))
    );
}
