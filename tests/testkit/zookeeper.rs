//! A test's own, real ensemble of ZooKeeper servers. Each has its own ports and data, which are
//! removed at the end, and is killed when dropped.

use std::io::Result;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::node::{kill, signal};
use crate::{Scratch, eventually, free_port};

/// The jars of Debian's package `libzookeeper-java`, and one that keeps the log quiet. The first
/// names those that it needs.
const CLASS_PATH: &str = "/usr/share/java/zookeeper.jar:/usr/share/java/slf4j-simple.jar";
/// Servers of an ensemble find each other, and notice that one is gone, in ticks of this many ms.
const TICK_MS: u32 = 500;

/// The longest time that a server may take to answer a command of four letters.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// An ensemble, or one server alone.
pub struct ZooKeeper {
    /// The servers, in the order of their numbers.
    pub servers: Vec<ZooKeeperServer>,
}

/// One server.
pub struct ZooKeeperServer {
    child: Child,
    dir: Scratch,
    class: &'static str,
    java: Vec<String>,
    /// Its port for clients.
    pub port: u16,
}

impl ZooKeeper {
    /// Starts one server.
    pub async fn start() -> Self {
        Self::ensemble(1).await
    }

    /// Starts an ensemble of `count` servers, and waits until all of them have found their leader.
    pub async fn ensemble(count: usize) -> Self {
        Self::ensemble_with(count, &[], "").await
    }

    /// Starts an ensemble with options for Java and lines for the configuration.
    pub async fn ensemble_with(count: usize, java: &[&str], config: &str) -> Self {
        let ports: Vec<_> = (0..count)
            .map(|_| [free_port(), free_port(), free_port()])
            .collect();
        let members: String = ports
            .iter()
            .enumerate()
            .filter(|_| count > 1)
            .map(|(at, [_, quorum, election])| {
                format!("server.{}=127.0.0.1:{quorum}:{election}\n", at + 1)
            })
            .collect();
        let servers: Vec<_> = ports
            .iter()
            .enumerate()
            .map(|(at, [port, ..])| {
                let config = format!("{members}{config}");
                ZooKeeperServer::spawn(at + 1, *port, count > 1, java, &config)
            })
            .collect();
        for server in &servers {
            server.wait_up().await;
        }
        Self { servers }
    }

    /// Returns the servers as `--zookeeper` takes them, with the path `/holdfast`.
    pub fn name(&self) -> String {
        let servers = self.servers.iter();
        let servers: Vec<_> = servers
            .map(|one| format!("127.0.0.1:{}", one.port))
            .collect();
        format!("{}/holdfast", servers.join(","))
    }

    /// Returns the place of the leader among the servers.
    pub async fn leader(&self) -> usize {
        for (at, server) in self.servers.iter().enumerate() {
            if server.mode().await.is_ok_and(|mode| mode != "follower") {
                return at;
            }
        }
        panic!("there is no leader");
    }
}

impl ZooKeeperServer {
    fn spawn(id: usize, port: u16, is_one_of_many: bool, java: &[&str], more: &str) -> Self {
        let dir = Scratch::new();
        std::fs::create_dir(dir.path("data")).expect("a directory");
        std::fs::write(dir.path("data").join("myid"), id.to_string()).expect("a file");
        let config = format!(
            "tickTime={TICK_MS}\ninitLimit=20\nsyncLimit=4\ndataDir={}\nclientPort={port}\n\
             clientPortAddress=127.0.0.1\nmaxClientCnxns=0\nmaxSessionTimeout=60000\n\
             admin.enableServer=false\n4lw.commands.whitelist=*\n{more}",
            dir.path("data").display()
        );
        dir.file("zoo.cfg", &config);
        let class = if is_one_of_many {
            "org.apache.zookeeper.server.quorum.QuorumPeerMain"
        } else {
            "org.apache.zookeeper.server.ZooKeeperServerMain"
        };
        let java: Vec<_> = java.iter().map(|option| (*option).to_owned()).collect();
        Self {
            child: run(&dir, class, &java),
            dir,
            class,
            java,
            port,
        }
    }

    /// Waits until it answers, and has found its leader.
    pub async fn wait_up(&self) {
        let what = format!(
            "ZooKeeper on {} answers; it says: {}",
            self.port,
            self.log()
        );
        eventually(async || self.mode().await.is_ok(), &what).await;
    }

    /// Returns whether it is `leader`, `follower` or `standalone`.
    ///
    /// # Errors
    /// If it does not answer, or serves nobody.
    pub async fn mode(&self) -> Result<String> {
        let answer = self.ask("srvr").await?;
        let mode = answer.lines().find_map(|line| line.strip_prefix("Mode: "));
        mode.map(str::to_owned)
            .ok_or_else(|| std::io::Error::other(answer.clone()))
    }

    /// Sends one of the commands of four letters, and returns the answer.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn ask(&self, word: &str) -> Result<String> {
        let asking = async {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
            stream.write_all(word.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            Ok(answer)
        };
        // A server that is starting may take the connection and never answer.
        timeout(ANSWER_TIMEOUT, asking).await?
    }

    /// Returns its log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path("log")).unwrap_or_default()
    }

    /// Returns the process id.
    ///
    /// # Panics
    /// If the process has ended and been waited for.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Sends a signal by name: `STOP`, `CONT`.
    pub async fn signal(&self, name: &str) {
        signal(self.pid(), name).await;
    }

    /// Sends SIGKILL, and waits until the process has ended.
    pub async fn kill(&mut self) {
        kill(&mut self.child).await;
    }

    /// Starts it again with the data that it had.
    pub fn start_again(&mut self) {
        self.child = run(&self.dir, self.class, &self.java);
    }

    /// Deletes the data of a server that was killed.
    pub fn empty(&self) {
        std::fs::remove_dir_all(self.dir.path("data").join("version-2")).expect("its data");
    }
}

fn run(dir: &Scratch, class: &str, java: &[String]) -> Child {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(dir.path("log"))
        .expect("a log");
    let errors = log.try_clone().expect("a log");
    let mut command = Command::new("java");
    command
        .args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
        .args(java)
        .args(["-cp", CLASS_PATH, class])
        .arg(dir.path("zoo.cfg"))
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .kill_on_drop(true);
    command
        .spawn()
        .unwrap_or_else(|error| panic!("java: {error}; `make deps` installs it"))
}

impl ZooKeeper {
    /// Runs ZooKeeper's own client with a command, and returns what it prints.
    pub async fn client(&self, command: &[&str]) -> String {
        let server = format!("127.0.0.1:{}", self.servers[0].port);
        let output = Command::new("java")
            .args([
                "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
                "-cp",
                CLASS_PATH,
            ])
            .args(["org.apache.zookeeper.ZooKeeperMain", "-server", &server])
            .args(command)
            .output()
            .await
            .expect("java");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Returns the names of the children of a znode below `/holdfast`.
    pub async fn names_of(&self, path: &str) -> Vec<String> {
        let printed = self.client(&["ls", &format!("/holdfast/{path}")]).await;
        let list = printed
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix('[')?.strip_suffix(']'));
        let names = list
            .unwrap_or_default()
            .split(", ")
            .filter(|name| !name.is_empty());
        names.map(str::to_owned).collect()
    }

    /// Returns how many keys there are.
    pub async fn count_keys(&self) -> usize {
        let printed = self.client(&["ls", "-R", "/holdfast/keys"]).await;
        printed
            .lines()
            .filter(|line| line.matches('/').count() == 4)
            .count()
    }
}
