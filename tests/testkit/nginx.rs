//! A real nginx in front of nodes, with the files of `nginx/`. Tests change only what an
//! operator changes too: names, paths, ports, addresses and numbers. Each change must find the
//! text that it replaces.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as StdCommand, Stdio};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::process::{Child as Program, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::{Address, Authority, Conn, PATIENCE, PAUSE, Response, Scratch, free_address, request};

/// The name in the certificate and in `server_name`.
pub const NAME: &str = "push.example.com";

/// How often another port is tried if somebody took the free one.
const TRIES: u32 = 5;

/// A deployment: the list of nodes, the nodes in it, and changed numbers.
#[derive(Debug, Clone)]
pub struct Site {
    list: &'static str,
    nodes: Option<Vec<String>>,
    changes: Vec<(String, String)>,
}

impl Site {
    /// Deploys `list`, one of the `nodes*.conf`, unchanged.
    pub fn new(list: &'static str) -> Self {
        Self {
            list,
            nodes: None,
            changes: Vec::new(),
        }
    }

    /// Puts these addresses in place of the addresses in the list.
    pub fn nodes<'a>(mut self, nodes: impl IntoIterator<Item = &'a Address>) -> Self {
        self.nodes = Some(nodes.into_iter().map(Address::to_string).collect());
        self
    }

    /// Changes a text of `nginx.conf`, or of a file that it includes.
    pub fn change(mut self, from: &str, to: &str) -> Self {
        self.changes.push((from.to_owned(), to.to_owned()));
        self
    }

    /// Starts nginx, and waits until it accepts connections.
    ///
    /// # Panics
    /// If it does not. The message has its log.
    pub async fn start(self) -> Nginx {
        let mut last = String::new();
        for _ in 0..TRIES {
            match Nginx::launch(Files::write(&self).await).await {
                Ok(nginx) => return nginx,
                Err(log) => last = log,
            }
        }
        panic!("nginx does not start:\n{last}");
    }

    /// Returns whether `nginx -t` accepts the files, and its output.
    pub async fn test(&self) -> (bool, String) {
        let files = Files::write(self).await;
        let output = files
            .command()
            .arg("-t")
            .output()
            .expect("nginx (make deps installs it)");
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }
}

/// The files of one nginx, in its own directory: `nginx.conf`, and what it includes.
struct Files {
    scratch: Scratch,
    /// Signs the certificate of a site.
    authority: Option<Authority>,
    address: SocketAddr,
}

impl Files {
    /// Writes a copy of `nginx/` with the changes of a site, and makes its certificate.
    async fn write(site: &Site) -> Self {
        let authority = Authority::new().await;
        authority.certificate(NAME).await;
        let files = Self {
            scratch: Scratch::new(),
            authority: Some(authority),
            address: free_address(),
        };
        std::fs::create_dir(files.scratch.path("holdfast")).expect("a new directory");
        let mut texts: Vec<_> = shipped()
            .into_iter()
            .map(|path| (path.clone(), read(&path)))
            .collect();
        if let Some(nodes) = &site.nodes {
            let text = &mut texts
                .iter_mut()
                .find(|(path, _)| path == Path::new(site.list))
                .expect("a list of nodes")
                .1;
            *text = with_nodes(text, nodes);
        }
        for (from, to) in files.own_changes(site).iter().chain(&site.changes) {
            let mut found = false;
            for (_, text) in &mut texts {
                found |= text.contains(from);
                *text = text.replace(from, to);
            }
            assert!(found, "nginx/ has no {from:?}");
        }
        for (path, text) in texts {
            std::fs::write(files.scratch.path(path.to_str().expect("UTF-8")), text)
                .expect("a written file");
        }
        files
    }

    fn own_changes(&self, site: &Site) -> Vec<(String, String)> {
        let path = |name: &str| self.scratch.path(name).display().to_string();
        let user = StdCommand::new("id")
            .arg("-un")
            .output()
            .expect("id")
            .stdout;
        let user = String::from_utf8(user).expect("UTF-8");
        [
            ("user www-data;", format!("user {};", user.trim())),
            ("/run/nginx.pid", path("nginx.pid")),
            ("/var/log/nginx", path("")),
            ("/var/lib/nginx", path("")),
            ("/etc/ssl", self.authority().directory()),
            (" listen 443 ", format!(" listen {} ", self.address)),
            // A worker for each core would take long to start on a machine with many cores.
            ("worker_processes auto;", "worker_processes 2;".to_owned()),
            ("include nodes.conf;", format!("include {};", site.list)),
        ]
        .map(|(from, to)| (from.to_owned(), to))
        .into()
    }

    fn authority(&self) -> &Authority {
        self.authority.as_ref().expect("one with a certificate")
    }

    fn command(&self) -> StdCommand {
        let mut command = command();
        command
            .arg("-p")
            .arg(self.scratch.path(""))
            .arg("-c")
            .arg(self.scratch.path("nginx.conf"));
        command
    }
}

/// Returns the command `nginx`, without arguments.
pub fn command() -> StdCommand {
    let mut command = StdCommand::new("nginx");
    // Debian installs nginx in /usr/sbin, which is not in everybody's PATH.
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/usr/local/sbin"));
    command.stdin(Stdio::null());
    command
}

/// Returns the directory `nginx/` of the repository.
pub fn directory() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../nginx"))
}

/// Returns all files of `nginx/`, by their paths in it.
pub fn shipped() -> Vec<PathBuf> {
    let list = |inner: &str| {
        let entries = std::fs::read_dir(directory().join(inner))
            .expect("nginx/")
            .map(|entry| entry.expect("an entry"));
        let files = entries.filter(|entry| entry.path().is_file());
        files
            .map(|entry| Path::new(inner).join(entry.file_name()))
            .collect::<Vec<_>>()
    };
    let mut files = [list(""), list("holdfast")].concat();
    files.sort();
    files
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(directory().join(path)).expect("a file of nginx/")
}

/// Returns the list of nodes with other addresses. Each line is a copy of the list's first
/// server.
fn with_nodes(text: &str, nodes: &[String]) -> String {
    let is_server = |line: &&str| line.trim_start().starts_with("server ");
    let first = text.lines().find(is_server).expect("a server in the list");
    let address = first
        .split_whitespace()
        .nth(1)
        .expect("an address")
        .trim_end_matches(';');
    let mut lines: Vec<_> = text
        .lines()
        .filter(|line| !is_server(line))
        .map(str::to_owned)
        .collect();
    let at = lines
        .iter()
        .position(|line| line.starts_with("upstream "))
        .expect("an upstream")
        + 1;
    lines.splice(
        at..at,
        nodes.iter().map(|node| first.replace(address, node)),
    );
    lines.join("\n") + "\n"
}

/// A running nginx. When dropped, it is ended with its workers. In a panic, the end of its logs
/// is printed.
pub struct Nginx {
    master: Child,
    files: Files,
    /// The address at which pages reach it.
    pub address: SocketAddr,
}

impl Nginx {
    /// Starts nginx with the list of three nodes.
    pub async fn start<'a>(nodes: impl IntoIterator<Item = &'a Address>) -> Self {
        Site::new("nodes.conf").nodes(nodes).start().await
    }

    /// Starts nginx with a configuration of its own, which must make it listen on `address`.
    /// `scratch` becomes its directory.
    ///
    /// # Panics
    /// If it does not start. The message has its log.
    pub async fn with_config(scratch: Scratch, config: &str, address: SocketAddr) -> Self {
        scratch.file("nginx.conf", config);
        let files = Files {
            scratch,
            authority: None,
            address,
        };
        let started = Self::launch(files).await;
        started.unwrap_or_else(|log| panic!("nginx does not start:\n{log}"))
    }

    /// Returns its log if it does not start.
    async fn launch(files: Files) -> Result<Self, String> {
        let output = std::fs::File::create(files.scratch.path("output")).expect("a new file");
        let mut command = files.command();
        command
            .args(["-g", "daemon off;"])
            .stdout(output.try_clone().expect("a file"))
            .stderr(output);
        let master = command.spawn().expect("nginx (make deps installs it)");
        let address = files.address;
        let mut nginx = Self {
            master,
            files,
            address,
        };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(address).await.is_err() {
            let ended = nginx.master.try_wait().expect("a child").is_some();
            if ended || Instant::now() > deadline {
                return Err(nginx.log("output") + &nginx.log("error.log"));
            }
            sleep(PAUSE).await;
        }
        Ok(nginx)
    }

    /// Returns the content so far of a file in its directory: `access.log`, `error.log` or
    /// `output`.
    pub fn log(&self, name: &str) -> String {
        let bytes = std::fs::read(self.files.scratch.path(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Ends nginx at once, so that everything is written. Returns everything that it logged.
    pub fn end(mut self) -> String {
        self.stop();
        ["access.log", "error.log", "output"]
            .map(|name| self.log(name))
            .concat()
    }

    /// Sends its master a signal by name, for example `HUP`.
    pub fn signal(&self, name: &str) {
        let kill = StdCommand::new("sh")
            .args(["-c", &format!("kill -{name} {}", self.master.id())])
            .status();
        assert!(kill.expect("sh").success());
    }

    /// Returns the process id of its master.
    pub fn pid(&self) -> u32 {
        self.master.id()
    }

    /// Returns the path of the certificate that its clients have to trust.
    ///
    /// # Panics
    /// If it was started with a configuration of its own.
    pub fn trusted(&self) -> String {
        self.files.authority().path()
    }

    /// Returns the processes that its master has started and that still run.
    pub fn workers(&self) -> Vec<u32> {
        let id = self.master.id();
        let children =
            std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).expect("Linux");
        children
            .split_whitespace()
            .map(|pid| pid.parse().expect("a pid"))
            .collect()
    }

    fn stop(&mut self) {
        if matches!(self.master.try_wait(), Ok(None)) {
            // Not SIGKILL: workers outlive a master that could not stop them.
            self.signal("TERM");
            let _ = self.master.wait();
        }
    }

    /// Returns a `curl` with `args` that trusts the certificate and resolves the name. URLs
    /// begin with `https://push.example.com/`.
    pub fn curl(&self, args: &[&str]) -> Command {
        let mut curl = Command::new("curl");
        curl.arg("-q").args(self.curl_args()).args(args);
        curl.stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        curl
    }

    /// Returns the arguments that `curl` needs to reach this nginx. They are needed again after
    /// each `--next`.
    pub fn curl_args(&self) -> Vec<String> {
        let certificate = self.trusted();
        let address = format!("::{}", self.address);
        [
            "-sS",
            "--noproxy",
            "*",
            "--cacert",
            &certificate,
            "--connect-to",
            &address,
        ]
        .map(str::to_owned)
        .into()
    }

    /// Sends one request by `curl`. `args` are `--http2` or `--http1.1`, then any other
    /// arguments.
    pub async fn ask(&self, target: &str, args: &[&str]) -> Response {
        let url = format!("https://{NAME}{target}");
        let args = [&["-i", "--globoff", "--path-as-is"], args, &[&url]].concat();
        let output = timeout(2 * PATIENCE, self.curl(&args).output())
            .await
            .expect("an answer in time")
            .expect("curl");
        assert!(
            output.status.success() || !output.stdout.is_empty(),
            "{output:?}"
        );
        Response::whole(&output.stdout)
    }

    /// Sends a `GET` over HTTP/2.
    pub async fn get(&self, target: &str) -> Response {
        self.ask(target, &["--http2"]).await
    }

    /// Opens a page's connection with HTTP/1.1.
    pub async fn open(&self) -> Page {
        let tunnel = self.tunnel("http/1.1");
        Page {
            conn: Conn::over(tokio::io::join(tunnel.output, tunnel.input)),
            _program: tunnel.program,
        }
    }

    /// Opens a TLS connection for the protocol `alpn`.
    pub fn tunnel(&self, alpn: &str) -> Tunnel {
        let mut openssl = Command::new("openssl");
        openssl.args([
            "s_client",
            "-quiet",
            "-verify_quiet",
            "-verify_return_error",
            "-servername",
            NAME,
            "-CAfile",
        ]);
        openssl
            .arg(self.trusted())
            .args(["-alpn", alpn, "-connect", &self.address.to_string()]);
        openssl
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let mut program = openssl.spawn().expect("openssl (make deps installs it)");
        let (output, input) = (
            program.stdout.take().expect("piped"),
            program.stdin.take().expect("piped"),
        );
        Tunnel {
            input,
            output,
            program,
        }
    }

    /// Returns the output of `openssl s_client`, run with `args`, for a connection that asks
    /// for a path that does not exist.
    pub async fn handshake(&self, args: &[&str]) -> String {
        let mut openssl = Command::new("openssl");
        openssl
            .args([
                "s_client",
                "-ign_eof",
                "-servername",
                NAME,
                "-connect",
                &self.address.to_string(),
            ])
            .args(args);
        openssl
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let mut program = openssl.spawn().expect("openssl (make deps installs it)");
        // The program may have ended already if the handshake failed.
        let bytes = request("GET", "/nothing", &[("connection", "close")], b"");
        let _ = program
            .stdin
            .as_mut()
            .expect("piped")
            .write_all(&bytes)
            .await;
        let output = timeout(PATIENCE, program.wait_with_output())
            .await
            .expect("an end in time")
            .expect("a child");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Returns a path of the test's own, beside nginx's files.
    pub fn path(&self, name: &str) -> String {
        self.files.scratch.path(name).display().to_string()
    }

    /// Sends `GET /status/get?QUERY` on a new connection, and does not wait for the answer.
    pub async fn hold(&self, query: &str) -> Page {
        let mut page = self.open().await;
        page.conn
            .send(request("GET", &format!("/status/get?{query}"), &[], b""))
            .await;
        page
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in ["error.log", "access.log"] {
                let log = self.log(name);
                let lines: Vec<_> = log.lines().collect();
                eprintln!(
                    "--- the end of nginx's {name}\n{}\n---",
                    lines[lines.len().saturating_sub(20)..].join("\n")
                );
            }
        }
        self.stop();
    }
}

/// A TLS connection by `openssl s_client`, to send and receive byte by byte.
pub struct Tunnel {
    /// Takes the bytes to send.
    pub input: ChildStdin,
    /// Has the bytes that came.
    pub output: ChildStdout,
    program: Program,
}

/// A connection to nginx with TLS and HTTP/1.1. When dropped, it is cut as if its page were
/// closed.
pub struct Page {
    /// Sends requests and reads answers.
    pub conn: Conn,
    _program: Program,
}
