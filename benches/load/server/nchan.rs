//! nchan in Debian's nginx: alone, or two nginx on one Redis. `nchan.conf` has its settings,
//! with the reasons.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use holdfast_testkit::nginx::NAME;
use holdfast_testkit::{
    Address, Authority, Conn, Nginx, Redis, Scratch, eventually, free_address, request,
};

use super::{Kind, Program, Server, first_line};
use crate::Outcome;
use crate::args::WireName;
use crate::blocking::wait;
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
    pub(super) wire: WireName,
    pub(super) kept_seconds: u32,
}

/// The settings that only some setups need.
#[derive(Default)]
struct Extras<'a> {
    redis: Option<u16>,
    /// A second address, with its certificate and key.
    tls: Option<(SocketAddr, &'a (String, String))>,
    /// Whether the second address speaks HTTP/2.
    is_http2: bool,
}

impl Launch {
    pub(super) fn server(&self, kind: Kind) -> Outcome<Server> {
        match kind {
            Kind::Single | Kind::Proxied => {
                let nginx = self.start(&Extras::default())?;
                let addresses = [nginx.address; 3];
                Ok(Server::new(
                    Nchan::by(self.wire),
                    addresses,
                    vec![Program::Nginx(nginx)],
                ))
            }
            Kind::ProxiedTls | Kind::Tls | Kind::Http2 => {
                let authority = wait(Authority::new());
                let (files, pages) = (wait(authority.certificate(NAME)), free_address());
                let extras = Extras {
                    tls: Some((pages, &files)),
                    is_http2: kind == Kind::Http2,
                    ..Extras::default()
                };
                let nginx = self.start(&extras)?;
                let addresses = [pages, nginx.address, nginx.address];
                Server::new(Nchan::by(self.wire), addresses, vec![Program::Nginx(nginx)])
                    .with_authority(authority)
            }
            Kind::Cluster => self.cluster(),
            Kind::ProxiedHttp2 | Kind::Counted | Kind::Uncounted => {
                Err("nchan has no such setup".into())
            }
        }
    }

    fn cluster(&self) -> Outcome<Server> {
        let redis = wait(Redis::start(&[]));
        let extras = Extras {
            redis: Some(redis.port),
            ..Extras::default()
        };
        let (first, second) = (self.start(&extras)?, self.start(&extras)?);
        let addresses = [first.address, second.address, first.address];
        let programs = vec![
            Program::Nginx(first),
            Program::Nginx(second),
            Program::Redis(redis),
        ];
        Ok(Server::new(Nchan::by(self.wire), addresses, programs))
    }

    /// Starts one nginx, and waits until it can use its Redis.
    fn start(&self, extras: &Extras<'_>) -> Outcome<Nginx> {
        let (scratch, address) = (Scratch::new(), free_address());
        let open_files = rlimit::getrlimit(rlimit::Resource::NOFILE)?
            .1
            .min(1_000_000);
        let upstream =
            |port| format!("upstream redis {{ nchan_redis_server redis://127.0.0.1:{port}; }}");
        let tls = |(address, (certificate, key)): (SocketAddr, &(String, String))| {
            let files = format!("ssl_certificate {certificate}; ssl_certificate_key {key};");
            let http2 = if extras.is_http2 { "http2 " } else { "" };
            format!("listen {address} ssl {http2}backlog=16384 reuseport; {files}")
        };
        let text = TEMPLATE
            .replace("@module@", &module()?.display().to_string())
            .replace("@scratch@", &scratch.path("").display().to_string())
            .replace("@workers@", &self.workers.to_string())
            .replace("@open_files@", &open_files.to_string())
            .replace("@connections@", &(open_files - 100).to_string())
            .replace("@kept@", &format!("{}s", self.kept_seconds))
            .replace("@listen@", &address.to_string())
            .replace("@subscriber@", subscriber(self.wire))
            .replace("@tls@", &extras.tls.map(tls).unwrap_or_default())
            .replace(
                "@redis_upstream@",
                &extras.redis.map(upstream).unwrap_or_default(),
            )
            .replace(
                "@redis_pass@",
                extras.redis.map_or("", |_| "nchan_redis_pass redis;"),
            );
        let nginx = wait(Nginx::with_config(scratch, &text, address));
        if extras.redis.is_some() {
            // Each worker connects to Redis by itself.
            let connected = async || {
                let mut conn = Conn::open(&Address::Tcp(address)).await;
                let held = conn.ask(request("GET", "/held", &[], b"")).await;
                number_of_line(held.text(), "redis connected servers: ")
                    == Some(self.workers as u64)
            };
            wait(eventually(connected, "all workers are connected to Redis"));
        }
        Ok(nginx)
    }
}

/// Returns nchan's name for a wire.
fn subscriber(wire: WireName) -> &'static str {
    match wire {
        WireName::Script => "longpoll",
        WireName::Events => "eventsource",
        WireName::Socket => "websocket",
    }
}

/// Returns what a reader of the report must know to judge whether the comparison is fair.
pub(super) fn notes(wires: &[WireName]) -> Vec<String> {
    const SETTINGS: &str = "nchan keeps one status for each key, for as long as holdfast; it writes no access log, \
                            keeps connections, and spreads them evenly over its workers (benches/load/nchan.conf)";
    const EVENTS: &str = "events: nchan sends the id and the value alone, without chunks. holdfast also sends a \
                          comment after 15 s without a byte; nchan by default sends none";
    const SOCKET: &str = "socket: nchan sends the value alone, without key or version, as it does by default. \
                          holdfast also pings a page that was silent for 20 s; nchan by default does not";
    let of_wire = |wire| match wire {
        WireName::Script => None,
        WireName::Events => Some(EVENTS),
        WireName::Socket => Some(SOCKET),
    };
    let by_wire = wires.iter().copied().filter_map(of_wire);
    std::iter::once(SETTINGS)
        .chain(by_wire)
        .map(str::to_owned)
        .collect()
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

/// Returns the version of Debian's package, because the module reports its own only while it
/// runs.
pub(super) fn version() -> Outcome<String> {
    module()?;
    let told = first_line(Command::new("dpkg-query").args(["-W", "-f", "${Version}\n", PACKAGE]));
    Ok(told.unwrap_or_else(|_| "not Debian's".to_owned()))
}
