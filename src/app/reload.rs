//! Files that are read again while the node runs: all of them on SIGHUP, and certificates when they
//! change. If there is a mistake in any of them, all stay as they are.

use std::future::pending;
use std::sync::Arc;

use tokio::signal::unix::Signal;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::{error, info};

use super::service;
use crate::config::RereadFiles;
use crate::http::auth::Tokens;
use crate::model::signing::Signing;
use crate::net::tls::renewal::{LOOK, Renewal, Seen};
use crate::runtime::renewable::Renewable;
use crate::runtime::shutdown::Drain;
use crate::store::Shared;
use crate::store::redis::Target;

/// The files, and the parts of the node that use their contents.
pub(super) struct Reload {
    pub(super) files: RereadFiles,
    pub(super) tokens: Arc<Renewable<Tokens>>,
    pub(super) signing: Option<Arc<Renewable<Signing>>>,
    /// The Redis of the start.
    pub(super) redis: Option<Target>,
    /// The store that nodes share, if there is one.
    pub(super) shared: Option<Shared>,
    pub(super) renewal: Option<Renewal>,
    pub(super) drain: Drain,
}

/// The contents that a SIGHUP has put into use.
#[derive(PartialEq, Eq)]
enum Done {
    All,
    /// Nothing, because of mistakes.
    Nothing,
    /// Nothing, because of mistakes elsewhere: the certificates are good. They are read again by
    /// themselves.
    NothingButCertificates,
}

impl Reload {
    /// Reads files again as long as the node runs. Without `hangups`, only certificates are.
    pub(super) async fn run(self, mut hangups: Option<Signal>) {
        let (this, mut seen) = (Arc::new(self), Seen::default());
        if let Some(renewal) = &this.renewal {
            renewal.note(&mut seen);
        }
        loop {
            let look = async {
                match &this.renewal {
                    Some(_) => sleep(LOOK).await,
                    None => pending().await,
                }
            };
            let is_asked = tokio::select! {
                () = hangup(&mut hangups) => true,
                () = look => false,
            };
            // The files may be on a network.
            let reading = Arc::clone(&this);
            let read = spawn_blocking(move || {
                if is_asked {
                    reading.reload(&mut seen);
                } else {
                    reading.look(&mut seen);
                }
                seen
            });
            // After a panic, the files count as changed.
            seen = read.await.unwrap_or_default();
        }
    }

    /// Reads all files again because of a SIGHUP, and reports it to systemd. A node that ends has
    /// reported that already.
    fn reload(&self, seen: &mut Seen) {
        let is_ending = self.drain.is_announced();
        if !is_ending {
            service::reloading();
        }
        if let Some(renewal) = &self.renewal {
            renewal.note(seen);
        }
        let done = self.read_all();
        if done == Done::NothingButCertificates {
            seen.forget();
        }
        if !is_ending && !self.drain.is_announced() {
            service::reloaded(done == Done::All);
        }
    }

    /// Reads the certificates again if their files have changed.
    fn look(&self, seen: &mut Seen) {
        if let Some(renewal) = &self.renewal
            && renewal.has_changed(seen)
        {
            renewal.note(seen);
            if let Some(read) = renewal.read() {
                renewal.replace(read);
            }
        }
    }

    /// Reads all files, and then puts all of them into use, or none.
    fn read_all(&self) -> Done {
        let mut contents = self.files.contents();
        contents.extend(self.renewal.as_ref().map(|_| "certificates"));
        if contents.is_empty() {
            info!("SIGHUP: there is nothing to read again");
            return Done::All;
        }
        let certificates = self.renewal.as_ref().map(Renewal::read);
        let read = self.files.read(self.redis.as_ref()).and_then(|read| match &read.redis {
            Some(target) if self.redis.as_ref().is_some_and(|redis| !target.is_at_the_servers_of(redis)) => {
                Err(vec!["--redis-file: it names another Redis than at the start; restart the node to use it".to_owned()])
            }
            _ => Ok(read),
        });
        let read = match (read, certificates) {
            (Ok(read), None) => (read, None),
            (Ok(read), Some(Some(certificates))) => (read, Some(certificates)),
            (read, certificates) => {
                for mistake in read.err().unwrap_or_default() {
                    error!(
                        mistake,
                        "a file cannot be used: its earlier content stays in use"
                    );
                }
                error!("SIGHUP: nothing was changed, because of the mistakes above");
                return match certificates.flatten() {
                    Some(_) => Done::NothingButCertificates,
                    None => Done::Nothing,
                };
            }
        };
        let (read, certificates) = read;
        if let Some(tokens) = read.tokens {
            self.tokens.replace(tokens);
        }
        if let (Some(signing), Some(secrets)) = (&self.signing, read.secrets) {
            signing.replace(Signing::of_all(secrets));
        }
        if let (Some(renewal), Some(certificates)) = (&self.renewal, certificates) {
            renewal.replace(certificates);
        }
        if let Some(shared) = &self.shared {
            shared.renew();
        }
        info!(contents = contents.join(", "), "SIGHUP: read again");
        Done::All
    }
}

/// Waits for the next SIGHUP.
async fn hangup(hangups: &mut Option<Signal>) {
    let signal = match hangups {
        Some(hangups) => hangups.recv().await,
        None => None,
    };
    // Without a signal, none will ever come.
    if signal.is_none() {
        pending::<()>().await;
    }
}
