//! TLS on the public listener, with clients that nobody here wrote: curl, Python, Java and openssl.

use std::process::Stdio;

use tokio::process::Command;

use holdfast_testkit::tls::{self, HOST};
use holdfast_testkit::{Node, Nodes, Redis, eventually};

/// Waits for the key that its argument names, with the version of TLS that it names.
const PYTHON: &str = r#"
import ssl, sys, urllib.request
port, certificate, key, version = sys.argv[1:]
context = ssl.create_default_context(cafile=certificate)
context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)
url = f"https://127.0.0.1:{port}/status/get?key={key}&callback=cb"
print(urllib.request.urlopen(url, context=context, timeout=30).read().decode(), end="")
"#;

/// Waits for the key that its argument names, with the version of TLS that it names. Prints the
/// version of HTTP and the answer.
const JAVA: &str = r#"
import java.io.FileInputStream;
import java.net.URI;
import java.net.http.*;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import javax.net.ssl.*;

class Wait {
    public static void main(String[] args) throws Exception {
        KeyStore trusted = KeyStore.getInstance(KeyStore.getDefaultType());
        trusted.load(null, null);
        try (FileInputStream file = new FileInputStream(args[1])) {
            CertificateFactory x509 = CertificateFactory.getInstance("X.509");
            trusted.setCertificateEntry("authority", x509.generateCertificate(file));
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance("PKIX");
        trust.init(trusted);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        SSLParameters versions = new SSLParameters();
        versions.setProtocols(new String[] {args[3]});
        HttpClient client = HttpClient.newBuilder().sslContext(context).sslParameters(versions).build();
        String url = "https://127.0.0.1:" + args[0] + "/status/get?key=" + args[2] + "&callback=cb";
        HttpRequest request = HttpRequest.newBuilder(URI.create(url)).build();
        HttpResponse<String> answer = client.send(request, HttpResponse.BodyHandlers.ofString());
        System.out.print(answer.version() + " " + answer.body());
    }
}
"#;

/// Runs a program without input. Returns all that it printed.
async fn run(program: &str, args: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.expect(program);
    let printed = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&printed).into_owned()
}

async fn start() -> Node {
    Node::start(&tls::flags().await).await
}

#[tokio::test]
async fn real_clients_wait_and_hear_with_each_version_of_tls() {
    let node = start().await;
    let port = node.tls.expect("TLS").port().to_string();
    let trusted = tls::authority().await.path();
    let python = holdfast_testkit::python();
    for (at, version) in ["TLSv1_2", "TLSv1_3"].into_iter().enumerate() {
        let keys = [format!("python{at}"), format!("curl{at}")];
        let url = format!(
            "https://127.0.0.1:{port}/status/get?key={}&callback=cb",
            keys[1]
        );
        let tls_max = ["1.2", "1.3"][at];
        let curl = [
            "-sS",
            "--cacert",
            &trusted,
            "--tls-max",
            tls_max,
            "--tlsv1.2",
            "-m",
            "30",
            &url,
        ];
        let python_args = ["-c", PYTHON, &port, &trusted, &keys[0], version];
        let set = async {
            for key in &keys {
                node.wait_key_waiters(key, 1).await;
                node.set_ok(key, r#"{"step":"paid"}"#).await;
            }
        };
        let (by_python, by_curl, ()) =
            tokio::join!(run(&python, &python_args), run("curl", &curl), set);
        for answer in [by_python, by_curl] {
            assert!(answer.contains(r#"cb({"#), "{answer}");
            assert!(answer.contains(r#""value":{"step":"paid"}"#), "{answer}");
        }
    }
    let seen = node
        .metric(r#"holdfast_tls_handshakes_total{kind="full"}"#)
        .await;
    assert_eq!(seen, 4.0);
}

/// Java's client asks for HTTP/2, and takes HTTP/1.1 if it must.
#[tokio::test]
async fn a_client_in_java_waits_and_hears_with_each_version_of_tls_and_of_http() {
    let scratch = holdfast_testkit::Scratch::new();
    let program = scratch.file("Wait.java", JAVA);
    let classes = scratch.path("classes").display().to_string();
    // Compiled before, so that a slow compiler does not look like a client that does not come.
    assert_eq!(run("javac", &["-d", &classes, &program]).await, "");
    let trusted = tls::authority().await.path();
    for (flags, http, tls) in [
        (&[][..], "HTTP_1_1", "TLSv1.2"),
        (&["--http2"], "HTTP_2", "TLSv1.3"),
    ] {
        let node = Node::start(&[&tls::flags().await[..], flags].concat()).await;
        let port = node.tls.expect("TLS").port().to_string();
        let set = async {
            node.wait_key_waiters("java", 1).await;
            node.set_ok("java", r#"{"step":"paid"}"#).await;
        };
        let quick = "-XX:TieredStopAtLevel=1";
        let args = [quick, "-cp", &classes, "Wait", &port, &trusted, "java", tls];
        let (answer, ()) = tokio::join!(run("java", &args), set);
        assert!(answer.starts_with(&format!("{http} /**/")), "{answer}");
        assert!(answer.contains(r#""value":{"step":"paid"}"#), "{answer}");
    }
}

#[tokio::test]
async fn only_good_versions_suites_and_curves_are_spoken_and_nothing_is_compressed() {
    let node = start().await;
    let to = node.tls.expect("TLS").to_string();
    let ask = async |flags: &[&str]| {
        let base = ["s_client", "-connect", &to, "-servername", HOST];
        run("openssl", &[&base, flags].concat()).await
    };
    for (flags, cipher) in [
        (&["-tls1_2"][..], "Cipher is ECDHE-ECDSA-"),
        (&["-tls1_3"], "Cipher is TLS_"),
        (
            &["-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"],
            "CHACHA20",
        ),
        (
            &["-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"],
            "TLS_AES_128",
        ),
        (&["-curves", "X25519"], "X25519"),
        (&["-curves", "P-256"], "prime256v1"),
        (&["-curves", "P-384"], "secp384r1"),
        (&["-alpn", "h2,http/1.1"], "ALPN protocol: http/1.1"),
    ] {
        let printed = ask(flags).await;
        assert!(printed.contains(cipher), "{flags:?}: {printed}");
        assert!(
            !printed.contains("Compression: zlib"),
            "{flags:?}: {printed}"
        );
        assert!(
            printed.contains("Verify return code: 0") || printed.contains("Verify return code: 2"),
            "{printed}"
        );
    }
    let before_1_2 = "@SECLEVEL=0:ALL";
    for flags in [
        &["-tls1", "-cipher", before_1_2][..],
        &["-tls1_1", "-cipher", before_1_2],
        // Without forward secrecy, without authenticated encryption, and with old curves.
        &["-tls1_2", "-cipher", "AES128-GCM-SHA256"],
        &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"],
        &["-tls1_2", "-curves", "P-521"],
        &["-alpn", "h2"],
    ] {
        let printed = ask(flags).await;
        let is_refused =
            printed.contains("alert") && printed.contains("no peer certificate available");
        assert!(is_refused, "{flags:?}: {printed}");
    }
    let refused = async || {
        node.metric(r#"holdfast_dropped_total{reason="bad_tls"}"#)
            .await
    };
    eventually(async || refused().await == 6.0, "six were refused").await;
}

#[tokio::test]
async fn a_client_resumes_at_the_node_that_it_knows_and_begins_anew_at_another() {
    let redis = Redis::start(&[]).await;
    let nodes = Nodes::start(2, &redis.url(), &tls::flags().await).await;
    let scratch = holdfast_testkit::Scratch::new();
    let session = scratch.path("session").display().to_string();
    let ask = async |at: usize, version: &str, flag: &str| {
        let to = nodes[at].tls.expect("TLS").to_string();
        let args = [
            "s_client",
            "-connect",
            &to,
            "-servername",
            HOST,
            version,
            flag,
            &session,
        ];
        run("openssl", &args).await
    };
    // TLS 1.3 sends its tickets after the handshake, and openssl ends at once without input. So the
    // ticket of TLS 1.2 is kept, which comes within it.
    assert!(
        ask(0, "-tls1_2", "-sess_out")
            .await
            .contains("New, TLSv1.2")
    );
    assert!(
        ask(0, "-tls1_2", "-sess_in")
            .await
            .contains("Reused, TLSv1.2")
    );
    assert!(ask(1, "-tls1_2", "-sess_in").await.contains("New, TLSv1.2"));
    let count = async |at: usize, kind: &str| {
        let name = format!("holdfast_tls_handshakes_total{{kind=\"{kind}\"}}");
        nodes[at].metric(&name).await
    };
    let reached = async || {
        (count(0, "full").await, count(0, "resumed").await) == (1.0, 1.0)
            && (count(1, "full").await, count(1, "resumed").await) == (1.0, 0.0)
    };
    eventually(reached, "one of three handshakes was resumed").await;
}
