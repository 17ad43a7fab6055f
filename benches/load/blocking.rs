//! Lets the benches, which are blocking, use the testkit, which is asynchronous.

use std::sync::LazyLock;

use tokio::runtime::{Builder, Runtime};

/// The runtime has one thread, which reads the logs of the programs that are measured.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a thread")
});

/// Waits for `future`, and returns its result.
pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    RUNTIME.block_on(future)
}
