//! The account in Redis, which may change while the node runs: the file with the URL is read again.

use std::sync::Arc;

use super::url::Target;
use crate::runtime::renewable::Renewable;

/// The URL of Redis as it was read last. A connection that stands keeps the account that it has.
#[derive(Clone, Debug)]
pub struct Account(Arc<Renewable<Target>>);

impl Account {
    /// Returns the account that a URL names.
    #[must_use]
    pub fn new(target: Target) -> Self {
        Self(Renewable::new(target))
    }

    /// Returns the URL with the account to use now.
    pub(super) fn current(&self) -> Target {
        Target::clone(&self.0.current())
    }

    /// Returns whether a URL names the same Redis, with this account or another.
    pub(crate) fn is_of(&self, target: &Target) -> bool {
        self.0.current().without_account() == target.without_account()
    }

    /// Replaces the account. The next connections use it.
    pub(crate) fn replace(&self, target: Target) {
        self.0.replace(target);
    }
}
