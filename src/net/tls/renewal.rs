//! The renewal of certificates while the node runs: whether their files have changed, and the steps by
//! which they are read again. If there is a mistake in any of them, all stay as they are.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tracing::{error, info, warn};

use super::certificates::{Certificate, Certificates};
use super::pair::CertificateFiles;
use crate::metrics::Metrics;

/// The interval at which the node looks whether the files have changed.
pub(crate) const LOOK: Duration = Duration::from_secs(2);

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

/// The files as they were read and looked at last.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    read: Vec<Stamp>,
    looked: Vec<Stamp>,
}

impl Seen {
    /// Makes the files count as changed.
    pub(crate) fn forget(&mut self) {
        self.read.clear();
    }
}

impl Renewal {
    /// Notes the files as they are now. Called before they are read, so that a later change is seen.
    pub(crate) fn note(&self, seen: &mut Seen) {
        seen.read = self.stamps();
        seen.looked.clone_from(&seen.read);
    }

    /// Returns whether the files have changed since they were read. A certificate and its key change
    /// one after the other. So they count as changed only when nothing has changed between two looks.
    pub(crate) fn has_changed(&self, seen: &mut Seen) -> bool {
        let found = self.stamps();
        let is_new = found != seen.read && found == seen.looked;
        seen.looked = found;
        is_new
    }

    /// Reads the certificates again, and logs the mistakes in them. Those in use stay for now.
    pub(crate) fn read(&self) -> Option<Arc<[Certificate]>> {
        match self.certificates.read_again(&self.files) {
            Ok(read) => Some(read),
            Err(mistakes) => {
                for mistake in mistakes {
                    let file = mistake.file.display();
                    error!(%file, mistake = mistake.text, "a TLS certificate was not renewed: those in use stay");
                }
                None
            }
        }
    }

    /// Puts certificates into use.
    pub(crate) fn replace(&self, read: Arc<[Certificate]>) {
        let before = self.certificates.current();
        self.certificates.replace(read);
        self.report();
        warn_of_lost_names(&before, &self.certificates.current());
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
