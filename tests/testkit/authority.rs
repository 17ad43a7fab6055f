//! A test's own certificate authority, made by the `openssl` program, which the tests of nginx
//! need anyway. A library would be more crates to build.

use std::process::Stdio;

use tokio::process::Command;

use crate::Scratch;

/// The `openssl` arguments that make a new key.
const KEY: [&str; 5] = [
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:P-256",
    "-nodes",
];

/// An authority that signs certificates. They are valid for two days.
pub struct Authority(Scratch);

impl Authority {
    /// Makes an authority with a new key.
    pub async fn new() -> Self {
        let this = Self(Scratch::new());
        let uses = [
            "-addext",
            "basicConstraints=critical,CA:TRUE",
            "-addext",
            "keyUsage=critical,keyCertSign",
        ];
        let out = [
            "-subj",
            "/CN=a test's authority",
            "-days",
            "2",
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
        ];
        this.openssl(&[&["req", "-x509"], &KEY[..], &uses, &out].concat())
            .await;
        this
    }

    /// Returns the path of the certificate to trust, as `SSL_CERT_FILE` takes it.
    pub fn path(&self) -> String {
        self.0.path("ca.pem").display().to_string()
    }

    /// Returns the directory of its files.
    pub(crate) fn directory(&self) -> String {
        self.0.path("").display().to_string()
    }

    /// Makes a certificate for a host name and its key, and returns their paths:
    /// `{host}.pem` and `{host}.key`.
    pub async fn certificate(&self, host: &str) -> (String, String) {
        self.certificate_for(host, &format!("DNS:{host}")).await
    }

    /// Makes a certificate and its key for what `names` says, in openssl's words, and returns
    /// their paths.
    pub async fn certificate_for(&self, file: &str, names: &str) -> (String, String) {
        self.certificate_by(file, names, &KEY).await
    }

    /// Makes a certificate like [`Self::certificate_for`], with an RSA key.
    pub async fn rsa_certificate_for(&self, file: &str, names: &str) -> (String, String) {
        let key = ["-newkey", "rsa:2048", "-nodes"];
        self.certificate_by(file, names, &key).await
    }

    async fn certificate_by(&self, file: &str, names: &str, kind: &[&str]) -> (String, String) {
        let [key, request, certificate] = ["key", "csr", "pem"].map(|end| format!("{file}.{end}"));
        self.0.file(
            "names",
            &format!("subjectAltName={names}\nextendedKeyUsage=serverAuth,clientAuth\n"),
        );
        let subject = format!("/CN={file}");
        let out = ["-subj", &subject, "-keyout", &key, "-out", &request];
        self.openssl(&[&["req", "-new"], kind, &out].concat()).await;
        let by = [
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            "names",
        ];
        self.openssl(
            &[
                &["x509", "-req", "-in", &request, "-out", &certificate],
                &by[..],
            ]
            .concat(),
        )
        .await;
        (
            self.0.path(&certificate).display().to_string(),
            self.0.path(&key).display().to_string(),
        )
    }

    /// Makes a certificate like [`Self::certificate_for`] that expired two days ago.
    pub async fn expired_certificate_for(&self, file: &str, names: &str) -> (String, String) {
        let paths = self.certificate_for(file, names).await;
        let [request, certificate] = ["csr", "pem"].map(|end| format!("{file}.{end}"));
        let in_the_past = ["-f", "-4d", "openssl", "x509", "-req", "-days", "2"];
        let by = ["-CA", "ca.pem", "-CAkey", "ca.key", "-extfile", "names"];
        let out = ["-in", &request, "-out", &certificate];
        self.run("faketime", &[&in_the_past[..], &by, &out].concat())
            .await;
        paths
    }

    async fn openssl(&self, args: &[&str]) {
        self.run("openssl", args).await;
    }

    async fn run(&self, program: &str, args: &[&str]) {
        let mut command = Command::new(program);
        command
            .args(args)
            .current_dir(self.0.path(""))
            .stdin(Stdio::null());
        let output = command
            .output()
            .await
            .unwrap_or_else(|error| panic!("{program}: {error}; `make deps` installs it"));
        assert!(
            output.status.success(),
            "{program} {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
