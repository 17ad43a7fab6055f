//! The renewal of a connection whose account or certificates have changed in the files of Redis. A
//! single server is asked to log in once. But the library connects to a server of a cluster again by
//! itself, and so does this program to a sentinel, with the account that the connection was made with.

use tracing::{info, warn};

use super::owner::Owner;
use crate::store::redis::connect::{Connected, FoundBy};
use crate::store::redis::inspection::Findings;

/// The log line about files that have changed.
pub(super) const RENEWED: &str = "the files of Redis have another account or certificate";

impl Owner {
    /// Reads the files of Redis again. Returns whether their account or certificates have changed.
    pub(super) async fn read_files(&mut self) -> bool {
        match &self.options.files {
            Some(files) => {
                let target = &mut self.options.target;
                files.renew(target, &self.files_logged).await
            }
            None => false,
        }
    }

    /// Returns whether the files have to be compared with the connection, because a server is missing
    /// that may have refused the login. That is so once in each interval of inspections at most.
    pub(super) fn is_comparison_due(&self, connected: &Connected, found: &Findings) -> bool {
        let is_one_missing = match &connected.found_by {
            FoundBy::Itself => false,
            FoundBy::Sentinels(sentinels, _) => sentinels.is_one_missing,
            FoundBy::Cluster { .. } => found.is_a_master_missing,
        };
        is_one_missing && self.options.files.is_some() && self.compared.admit().is_some()
    }

    /// Returns a connection with the account and the certificates that the files have now, if they have
    /// changed. The present connection is used until then, and stays if the new one fails.
    pub(super) async fn renewed(&mut self) -> Option<Connected> {
        let before = self.options.target.clone();
        if !self.read_files().await {
            return None;
        }
        match self.connect().await {
            Ok(connected) => {
                info!("{RENEWED}");
                Some(connected)
            }
            Err(error) => {
                self.options.target = before;
                if self.files_logged.admit().is_some() {
                    warn!(why = %error, "the new account or certificate of Redis cannot be used; the node goes on with the connection that it has");
                }
                None
            }
        }
    }
}
