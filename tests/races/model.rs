//! Random interleavings of gets, sets, deletions, clients that leave and expiry, checked against
//! a model. The properties are "no lost status" and "never backwards". Cases share a node and
//! have keys of their own. A failing case is made small and printed; no file is written.

mod bursts;
mod crowd;

use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, TestCaseResult, TestRunner};

use crate::races::one_node::clients::Place;
use holdfast_testkit::{Node, long};

/// The number of keys of one case.
const KEYS: usize = 3;

/// Checks a property on a node, and that each case leaves nothing behind.
fn holds<S>(cases: u32, strategy: &S, case: impl AsyncFn(&Node, S::Value) -> TestCaseResult)
where
    S: Strategy<Value: Debug>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let node = runtime.block_on(Node::start(&[]));
    let cases = if long() { 20 * cases } else { cases };
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 500,
        max_shrink_time: 60_000,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(strategy, |value| {
        runtime.block_on(async {
            case(&node, value).await?;
            node.quiet().await;
            Ok(())
        })
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

/// Returns keys that no case had before.
fn fresh_places(node: &Node) -> Vec<Place> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let case = NEXT.fetch_add(1, Ordering::Relaxed);
    (0..KEYS)
        .map(|index| Place::new(node, format!("case-{case}-{index}")))
        .collect()
}
