//! nchan in Debian's nginx: alone, or two nginx on one Redis. `nchan.conf` has its settings,
//! with the reasons.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Kind, Server, certificate, first_line, redis};
use crate::Outcome;
use crate::client::get;
use crate::process::{Ending, Process, Scratch, free_address};
use crate::wire::{Nchan, number_of_line};

const TEMPLATE: &str = include_str!("../nchan.conf");
const PACKAGE: &str = "libnginx-mod-nchan";

/// The paths at which Debian's versions install the module.
const MODULES: [&str; 2] = [
    "/usr/lib/nginx/modules/ngx_nchan_module.so",
    "/usr/share/nginx/modules/ngx_nchan_module.so",
];

/// The settings that differ between runs.
pub(super) struct Launch {
    pub(super) workers: usize,
    pub(super) kept_seconds: u32,
}

/// The settings that only some setups need.
#[derive(Default)]
struct Extras<'a> {
    redis: Option<u16>,
    /// A second address, with its certificate and key.
    tls: Option<(SocketAddr, &'a [PathBuf; 2])>,
}

impl Launch {
    pub(super) fn server(&self, kind: Kind) -> Outcome<Server> {
        let scratch = Scratch::new()?;
        match kind {
            Kind::Single | Kind::Proxied => {
                let (process, address) = self.start("nchan", &Extras::default(), &scratch)?;
                Ok(Server::new(&Nchan, [address; 3], vec![process], scratch))
            }
            Kind::ProxiedTls => {
                let (files, pages) = (certificate::make(&scratch, "nchan")?, free_address());
                let extras = Extras {
                    tls: Some((pages, &files)),
                    ..Extras::default()
                };
                let (process, address) = self.start("nchan", &extras, &scratch)?;
                Server::new(&Nchan, [pages, address, address], vec![process], scratch)
                    .with_tls(&files[0])
            }
            Kind::Cluster => self.cluster(scratch),
        }
    }

    fn cluster(&self, scratch: Scratch) -> Outcome<Server> {
        let (redis, port) = redis::start(&scratch)?;
        let extras = Extras {
            redis: Some(port),
            ..Extras::default()
        };
        let (first, pages) = self.start("nchan-1", &extras, &scratch)?;
        let (second, sets) = self.start("nchan-2", &extras, &scratch)?;
        Ok(Server::new(
            &Nchan,
            [pages, sets, pages],
            vec![first, second, redis],
            scratch,
        ))
    }

    /// Starts one nginx, and returns the address that answers everything.
    fn start(
        &self,
        name: &'static str,
        extras: &Extras<'_>,
        scratch: &Scratch,
    ) -> Outcome<(Process, SocketAddr)> {
        let address = free_address();
        let open_files = rlimit::getrlimit(rlimit::Resource::NOFILE)?
            .1
            .min(1_000_000);
        let upstream =
            |port| format!("upstream redis {{ nchan_redis_server redis://127.0.0.1:{port}; }}");
        let tls = |(address, [certificate, key]): (SocketAddr, &[PathBuf; 2])| {
            let files = format!(
                "ssl_certificate {}; ssl_certificate_key {};",
                certificate.display(),
                key.display()
            );
            format!("listen {address} ssl backlog=16384 reuseport; {files}")
        };
        let text = TEMPLATE
            .replace("@module@", &module()?.display().to_string())
            .replace("@scratch@", &scratch.path(name).display().to_string())
            .replace("@workers@", &self.workers.to_string())
            .replace("@open_files@", &open_files.to_string())
            .replace("@connections@", &(open_files - 100).to_string())
            .replace("@kept@", &format!("{}s", self.kept_seconds))
            .replace("@listen@", &address.to_string())
            .replace("@tls@", &extras.tls.map(tls).unwrap_or_default())
            .replace(
                "@redis_upstream@",
                &extras.redis.map(upstream).unwrap_or_default(),
            )
            .replace(
                "@redis_pass@",
                extras.redis.map_or("", |_| "nchan_redis_pass redis;"),
            );
        let config = scratch.file(&format!("{name}/nginx.conf"), &text)?;
        let mut process = start_nginx(&config, name, scratch)?;
        process.wait_until(|| {
            // Each worker connects to Redis by itself.
            let connected = |text: &str| {
                number_of_line(text, "redis connected servers: ") == Some(self.workers as u64)
            };
            get(address, "/held").is_ok_and(|text| extras.redis.is_none() || connected(&text))
        })?;
        Ok((process, address))
    }
}

/// Starts nginx with this configuration. Its working directory is the configuration's.
pub(super) fn start_nginx(
    config: &Path,
    name: &'static str,
    scratch: &Scratch,
) -> Outcome<Process> {
    let mut command = nginx();
    command
        .arg("-p")
        .arg(config.parent().unwrap_or(Path::new("/")))
        .arg("-c")
        .arg(config);
    command.args(["-g", "daemon off;"]);
    Process::start(command, name, Some("nginx"), Ending::Terminate, scratch)
}

/// Returns the command of nginx. Debian installs it in /usr/sbin, which is not in everybody's
/// PATH.
fn nginx() -> Command {
    let debian = Path::new("/usr/sbin/nginx");
    if debian.exists() {
        Command::new(debian)
    } else {
        Command::new("nginx")
    }
}

fn module() -> Outcome<PathBuf> {
    let found = MODULES.iter().map(PathBuf::from).find(|path| path.exists());
    let missing = || {
        format!(
            "nginx has no nchan ({}): apt-get install {PACKAGE}",
            MODULES.join(", ")
        )
    };
    found.ok_or_else(|| missing().into())
}

pub(super) fn nginx_version() -> Outcome<String> {
    first_line(nginx().arg("-v"))
}

/// Returns the version of Debian's package, because the module reports its own only while it
/// runs.
pub(super) fn version() -> Outcome<String> {
    module()?;
    let told = first_line(Command::new("dpkg-query").args(["-W", "-f", "${Version}\n", PACKAGE]));
    Ok(told.unwrap_or_else(|_| "not Debian's".to_owned()))
}
