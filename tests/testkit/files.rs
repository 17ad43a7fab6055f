//! The open files of this process, which all tests share. Tests that need thousands of them
//! take turns.

use std::sync::LazyLock;

use tokio::sync::{Semaphore, SemaphorePermit};

/// The number of files left to all tests that need only a few.
const OTHERS: u64 = 3_000;

static FILES: LazyLock<(u64, Semaphore)> = LazyLock::new(|| {
    let limit = rlimit::increase_nofile_limit(u64::MAX).expect("a limit");
    let free = u32::try_from(limit.saturating_sub(OTHERS)).unwrap_or(u32::MAX);
    (limit, Semaphore::new(free as usize))
});

/// Waits until `count` files may be opened. They stay reserved until the permit is dropped.
///
/// # Panics
/// If `count` is more than this process may ever open.
pub async fn many_files(count: u32) -> SemaphorePermit<'static> {
    let (limit, files) = &*FILES;
    let needed = u64::from(count) + OTHERS;
    assert!(
        *limit >= needed,
        "an open-file limit of {limit}: these tests need {needed} (ulimit -n)"
    );
    files.acquire_many(count).await.expect("never closed")
}
