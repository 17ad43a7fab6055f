//! nginx in front of a node, with the files of `nginx/`. Changed is only what an operator
//! changes too, and what a load from one machine needs: no limits for one address, and a hold
//! as long as the run.

use holdfast_testkit::nginx::Site;
use holdfast_testkit::{Address, Nginx};

use crate::Outcome;
use crate::blocking::wait;

/// Starts nginx in front of a node that listens on a Unix socket.
pub(super) fn start(node: &Address, tls: bool) -> Outcome<Nginx> {
    let open_files = rlimit::getrlimit(rlimit::Resource::NOFILE)?
        .1
        .min(1_000_000);
    let mut site = Site::new("nodes-unix.conf")
        .nodes([node])
        .change(
            "worker_rlimit_nofile 70000;",
            &format!("worker_rlimit_nofile {open_files};"),
        )
        .change(
            "worker_connections 65536;",
            &format!("worker_connections {};", open_files - 100),
        )
        // All pages come from one machine, so limits for one address are removed.
        .change("limit_conn holdfast_conn 2000;", "")
        .change("limit_req zone=holdfast_req burst=2000 nodelay;", "")
        // The timeout is above the hold, as in a deployment.
        .change("proxy_read_timeout 40s;", "proxy_read_timeout 660s;");
    if !tls {
        site = site.change(" ssl http2", "");
    }
    Ok(wait(site.start()))
}
