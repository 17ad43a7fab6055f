//! The locks and counters of the types that loom checks. They are std's, except in the tests of
//! `make loom`: there they are loom's, which tries all orders of the steps of several threads.
//! A type that loom checks takes them from here, and everything else from std.

#[cfg(all(test, feature = "loom-tests"))]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU8, AtomicU64, AtomicUsize},
};
use std::sync::PoisonError;
#[cfg(not(all(test, feature = "loom-tests")))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU8, AtomicU64, AtomicUsize},
};

/// Locks a mutex, even if a panic has poisoned it: see [`crate::runtime::sharded::lock`], which
/// is the same for a mutex of std's.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
