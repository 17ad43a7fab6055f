//! The renewal of certificates while the node runs: their files are read again when they change, and
//! on SIGHUP. If there is a mistake in any of them, all stay as they are.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::signal::unix::Signal;
use tokio::time::sleep;
use tracing::{error, info, warn};

use super::certificates::{Certificate, CertificateFiles, Certificates};
use crate::metrics::Metrics;

/// The interval at which the node looks whether the files have changed.
const LOOK: Duration = Duration::from_secs(2);

/// The certificates of a node, and the files that they come from.
#[derive(Debug)]
pub(crate) struct Renewal {
    pub(crate) certificates: Arc<Certificates>,
    pub(crate) files: Vec<CertificateFiles>,
    pub(crate) metrics: Arc<Metrics>,
}

/// The facts by which a changed file is known: the time of its content, and of its owner and rights,
/// its size and its place. The place changes if a link is set to another file, as Kubernetes does.
type Stamp = Option<([i64; 4], u64, u64)>;

impl Renewal {
    /// Renews the certificates as long as the node runs.
    pub(crate) async fn run(self, mut hangups: Signal) {
        let mut read = self.stamps();
        let mut last_look = read.clone();
        loop {
            let asked = tokio::select! {
                asked = hangups.recv() => asked.is_some(),
                () = sleep(LOOK) => false,
            };
            let found = self.stamps();
            // A certificate and its key change one after the other. They are read only when nothing
            // has changed between two looks.
            let is_new = found != read && found == last_look;
            last_look.clone_from(&found);
            if !asked && !is_new {
                continue;
            }
            // Noted before the files are read, so that a later change is seen.
            read = found;
            self.read_again();
        }
    }

    fn read_again(&self) {
        let before = self.certificates.current();
        match self.certificates.read_again(&self.files) {
            Ok(()) => {
                self.report();
                warn_of_lost_names(&before, &self.certificates.current());
            }
            Err(mistakes) => {
                for mistake in mistakes {
                    let file = mistake.file.display();
                    error!(%file, mistake = mistake.text, "a TLS certificate was not renewed: those in use stay");
                }
            }
        }
    }

    /// Reports the certificates that are in use to the log and to metrics.
    pub(crate) fn report(&self) {
        let current = self.certificates.current();
        for certificate in current.iter() {
            let expires = httpdate::fmt_http_date(certificate.expires);
            info!(names = ?certificate.names, expires, "TLS certificate");
            for warning in &certificate.warnings {
                warn!("{warning}");
            }
        }
        let expiries = current.iter().map(|one| (one.name(), seconds(one)));
        self.metrics.certificates_expire(expiries);
    }

    fn stamps(&self) -> Vec<Stamp> {
        let files = self.files.iter();
        files
            .flat_map(|pair| [stamp(&pair.certificate), stamp(&pair.key)])
            .collect()
    }
}

/// Warns of each name that no certificate has any more.
fn warn_of_lost_names(before: &[Certificate], now: &[Certificate]) {
    let has = |name| now.iter().any(|one| one.names.contains(name));
    for name in before.iter().flat_map(|one| &one.names) {
        if !has(name) {
            warn!(
                name,
                "no TLS certificate is for this name any more: clients that ask for it are refused"
            );
        }
    }
}

/// Returns when a certificate expires, in seconds of Unix time.
fn seconds(certificate: &Certificate) -> i64 {
    let since = certificate.expires.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs().try_into().unwrap_or(i64::MAX))
}

fn stamp(path: &Path) -> Stamp {
    let data = std::fs::metadata(path).ok()?;
    let times = [
        data.mtime(),
        data.mtime_nsec(),
        data.ctime(),
        data.ctime_nsec(),
    ];
    Some((times, data.size(), data.ino()))
}
