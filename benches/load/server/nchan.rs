//! nchan in Debian's nginx: alone, or two nginx on one Redis. Its settings are in `nchan.conf`, with their reasons.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Server, first_line, free_address, redis};
use crate::Outcome;
use crate::client::get;
use crate::process::{Ending, Process, Scratch};
use crate::wire::{Nchan, number_of_line};

const TEMPLATE: &str = include_str!("../nchan.conf");
const PACKAGE: &str = "libnginx-mod-nchan";

/// Where Debian's versions put it.
const MODULES: [&str; 2] =
    ["/usr/lib/nginx/modules/ngx_nchan_module.so", "/usr/share/nginx/modules/ngx_nchan_module.so"];

pub(super) fn single(workers: usize, kept_seconds: u32) -> Outcome<Server> {
    let scratch = Scratch::new()?;
    let node = Node::start("nchan", workers, kept_seconds, None, &scratch)?;
    Ok(Server::new(&Nchan, [node.address; 3], vec![node.process], scratch))
}

pub(super) fn cluster(workers: usize, kept_seconds: u32) -> Outcome<Server> {
    let scratch = Scratch::new()?;
    let (redis, port) = redis::start(&scratch)?;
    let [first, second] =
        ["nchan-1", "nchan-2"].map(|name| Node::start(name, workers, kept_seconds, Some(port), &scratch));
    let (first, second) = (first?, second?);
    let addresses = [first.address, second.address, first.address];
    Ok(Server::new(&Nchan, addresses, vec![first.process, second.process, redis], scratch))
}

/// One nginx.
struct Node {
    process: Process,
    address: SocketAddr,
}

impl Node {
    fn start(
        name: &'static str,
        workers: usize,
        kept_seconds: u32,
        redis: Option<u16>,
        scratch: &Scratch,
    ) -> Outcome<Self> {
        let address = free_address();
        let open_files = rlimit::getrlimit(rlimit::Resource::NOFILE)?.1.min(1_000_000);
        let (upstream, pass) = match redis {
            Some(port) => (
                format!("upstream redis {{ nchan_redis_server redis://127.0.0.1:{port}; }}"),
                "nchan_redis_pass redis;",
            ),
            None => (String::new(), ""),
        };
        let text = TEMPLATE
            .replace("@module@", &module()?.display().to_string())
            .replace("@scratch@", &scratch.path(name).display().to_string())
            .replace("@workers@", &workers.to_string())
            .replace("@open_files@", &open_files.to_string())
            .replace("@connections@", &(open_files - 100).to_string())
            .replace("@kept@", &format!("{}s", kept_seconds))
            .replace("@listen@", &address.to_string())
            .replace("@redis_upstream@", &upstream)
            .replace("@redis_pass@", pass);
        let config = scratch.file(&format!("{name}/nginx.conf"), &text)?;
        let mut process = start_nginx(&config, name, scratch)?;
        process.wait_until(|| {
            // Each worker connects by itself.
            let connected = |text: &str| number_of_line(text, "redis connected servers: ") == Some(workers as u64);
            get(address, "/held").is_ok_and(|text| redis.is_none() || connected(&text))
        })?;
        Ok(Self { process, address })
    }
}

/// Starts nginx with this configuration, in whose directory it works.
pub(super) fn start_nginx(config: &Path, name: &'static str, scratch: &Scratch) -> Outcome<Process> {
    let mut command = nginx();
    command.arg("-p").arg(config.parent().unwrap_or(Path::new("/"))).arg("-c").arg(config);
    command.args(["-g", "daemon off;"]);
    Process::start(command, name, Some("nginx"), Ending::Terminate, scratch)
}

/// Debian has it under /usr/sbin, which is not in the PATH of all.
fn nginx() -> Command {
    let debian = Path::new("/usr/sbin/nginx");
    if debian.exists() { Command::new(debian) } else { Command::new("nginx") }
}

fn module() -> Outcome<PathBuf> {
    let found = MODULES.iter().map(PathBuf::from).find(|path| path.exists());
    let missing = || format!("nginx has no nchan ({}): apt-get install {PACKAGE}", MODULES.join(", "));
    found.ok_or_else(|| missing().into())
}

pub(super) fn nginx_version() -> Outcome<String> {
    first_line(nginx().arg("-v"))
}

/// The version that a running one told; asked of Debian, since the module tells none without one.
pub(super) fn version() -> Outcome<String> {
    module()?;
    first_line(Command::new("dpkg-query").args(["-W", "-f", "${Version}\n", PACKAGE]))
}
