//! nginx in front of a node, with the files of `nginx/`. Changed is only what an operator
//! changes too, and what a load from one machine needs: no limits for one address, and a hold
//! as long as the run.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use super::{certificate, first_line, nchan};
use crate::Outcome;
use crate::process::{Process, Scratch, free_address};

/// The files, by their names in `nginx/`.
const FILES: [(&str, &str); 7] = [
    ("nginx.conf", include_str!("../../../nginx/nginx.conf")),
    (
        "nodes-unix.conf",
        include_str!("../../../nginx/nodes-unix.conf"),
    ),
    (
        "holdfast/http.conf",
        include_str!("../../../nginx/holdfast/http.conf"),
    ),
    (
        "holdfast/others.conf",
        include_str!("../../../nginx/holdfast/others.conf"),
    ),
    (
        "holdfast/proxy.conf",
        include_str!("../../../nginx/holdfast/proxy.conf"),
    ),
    (
        "holdfast/server.conf",
        include_str!("../../../nginx/holdfast/server.conf"),
    ),
    (
        "holdfast/upstream.conf",
        include_str!("../../../nginx/holdfast/upstream.conf"),
    ),
];

/// The path of the certificate that pages trust.
pub(super) const CERTIFICATE: &str = "nginx/push.example.com.pem";

/// Starts nginx in front of the node at `upstream` (`unix:/path`), and returns nginx's address.
///
/// # Errors
/// If nginx does not start, or if its files no longer have the texts to change.
pub(super) fn start(
    upstream: &str,
    tls: bool,
    scratch: &Scratch,
) -> Outcome<(Process, SocketAddr)> {
    let address = free_address();
    let mut changes = changes(upstream, &scratch.path("nginx"))?;
    if tls {
        certificate::make(scratch, "nginx")?;
        changes.push((
            " listen 443 ssl http2",
            format!(" listen {address} ssl http2"),
        ));
        changes.push(("/etc/ssl", scratch.path("nginx").display().to_string()));
    } else {
        changes.push((" listen 443 ssl http2", format!(" listen {address}")));
        changes.push((
            "ssl_certificate /etc/ssl/push.example.com.pem;",
            String::new(),
        ));
        changes.push((
            "ssl_certificate_key /etc/ssl/push.example.com.key;",
            String::new(),
        ));
    }
    let mut found = vec![false; changes.len()];
    for (name, text) in FILES {
        let mut text = text.to_owned();
        for ((from, to), found) in changes.iter().zip(&mut found) {
            *found |= text.contains(from);
            text = text.replace(from, to);
        }
        scratch.file(&format!("nginx/{name}"), &text)?;
    }
    if let Some(at) = found.iter().position(|found| !found) {
        return Err(format!(
            "nginx/ has no {:?} any more: the bench has to follow",
            changes[at].0
        )
        .into());
    }
    let mut process = nchan::start_nginx(&scratch.path("nginx/nginx.conf"), "nginx", scratch)?;
    process.wait_until(|| TcpStream::connect(address).is_ok())?;
    Ok((process, address))
}

fn changes(upstream: &str, directory: &Path) -> Outcome<Vec<(&'static str, String)>> {
    let user = first_line(Command::new("id").arg("-un"))?;
    let open_files = rlimit::getrlimit(rlimit::Resource::NOFILE)?
        .1
        .min(1_000_000);
    let path = |name: &str| directory.join(name).display().to_string();
    Ok(vec![
        ("user www-data;", format!("user {user};")),
        ("/run/nginx.pid", path("nginx.pid")),
        ("/var/log/nginx", path("")),
        ("/var/lib/nginx", path("")),
        ("worker_processes auto;", "worker_processes 2;".to_owned()),
        (
            "worker_rlimit_nofile 70000;",
            format!("worker_rlimit_nofile {open_files};"),
        ),
        (
            "worker_connections 65536;",
            format!("worker_connections {};", open_files - 100),
        ),
        ("include nodes.conf;", "include nodes-unix.conf;".to_owned()),
        (
            "server unix:/run/holdfast-1/public.sock max_fails=0;",
            format!("server {upstream} max_fails=0;"),
        ),
        (
            "server unix:/run/holdfast-2/public.sock max_fails=0;",
            String::new(),
        ),
        (
            "server unix:/run/holdfast-3/public.sock max_fails=0;",
            String::new(),
        ),
        // All pages come from one machine, so limits for one address are removed.
        ("limit_conn holdfast_conn 2000;", String::new()),
        (
            "limit_req zone=holdfast_req burst=2000 nodelay;",
            String::new(),
        ),
        // The timeout is above the hold, as in a deployment.
        (
            "proxy_read_timeout 40s;",
            "proxy_read_timeout 660s;".to_owned(),
        ),
    ])
}
