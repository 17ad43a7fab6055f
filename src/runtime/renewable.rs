//! A value that is replaced while the node runs, such as the tokens of a file that is read again.

use std::sync::{Arc, PoisonError, RwLock};

/// A value that can be replaced. A reader keeps the value that it got, even if it is replaced
/// meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Renewable<T>(RwLock<Arc<T>>);

impl<T> Renewable<T> {
    pub(crate) fn new(value: T) -> Arc<Self> {
        Arc::new(Self(RwLock::new(Arc::new(value))))
    }

    /// Returns the value that is there now.
    pub(crate) fn current(&self) -> Arc<T> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the value.
    pub(crate) fn replace(&self, value: T) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(value);
    }
}
