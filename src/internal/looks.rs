//! The looks of operators and other nodes: at a key with its waiters, and at the nodes.

use std::borrow::Cow;

use futures_util::stream::{self, StreamExt};
use hyper::StatusCode;
use tracing::debug;

use super::Internal;
use crate::backend::receipt::{self, KeyWaiters};
use crate::cluster::delivery::Delivery;
use crate::http::query::{Plus, fields};
use crate::http::refusal::Refusal;
use crate::http::response::{Response, json};
use crate::model::key::Key;
use crate::model::lease::Lease;
use crate::model::status::Update;
use crate::store::{Known, Snapshot};

/// The number of nodes that are asked side by side for their waiters of a key.
const ASKED_AT_ONCE: usize = 64;

impl Internal {
    /// Answers with what is known of a key, and with its waiters. Nodes ask each other with
    /// `?node=<id>`: the answer then has only this node's waiters. If this is not that node,
    /// the request is refused.
    pub(super) async fn key(&self, key: &Key, query: Option<&str>) -> Result<Response, Refusal> {
        let snapshot = match self.is_asked_alone(query)? {
            true => Snapshot::default(),
            false => match self.parts.delivery.store.read(key).await {
                Ok(snapshot) => snapshot,
                Err(error) => {
                    let receipt = self.parts.writer.failed(error);
                    debug!(key = %key.hashed(), cause = receipt.cause(), "not read");
                    return Ok(receipt.into_response());
                }
            },
        };
        let held = self.held(key, &snapshot.leases).await;
        let is_status = matches!(
            snapshot.known,
            Some(Known {
                update: Update::Status(_),
                ..
            })
        );
        if !is_status && held.waiters.is_empty() && held.unreachable.is_empty() {
            return Err(Refusal::NotFound);
        }
        Ok(json(
            StatusCode::OK,
            &receipt::KeyReport::new(key, snapshot.known.as_ref(), held),
        ))
    }

    /// Answers with the report of this node and, unless it is asked alone, with those of its
    /// peers. With `?samples=N` each report has at most `N` samples. `?node=` without an id
    /// asks whichever node receives it alone.
    pub(super) async fn nodes(&self, query: Option<&str>) -> Result<Response, Refusal> {
        let samples = parameter(query, "samples")
            .flatten()
            .and_then(|samples| samples.parse().ok());
        let samples = samples.unwrap_or(usize::MAX);
        let dashboard = &self.parts.dashboard;
        let is_any = parameter(query, "node")
            .flatten()
            .is_some_and(|node| node.is_empty());
        Ok(if is_any || self.is_asked_alone(query)? {
            dashboard.own(samples)
        } else {
            dashboard.all(samples).await
        })
    }

    /// Returns whether `?node=<id>` asks for what this node alone knows.
    fn is_asked_alone(&self, query: Option<&str>) -> Result<bool, Refusal> {
        match parameter(query, "node") {
            None => Ok(false),
            Some(node) if node.as_deref() == Some(&self.parts.node) => Ok(true),
            Some(_) => Err(Refusal::Misdirected),
        }
    }

    /// Counts the waiters of a key: those of this node, and those that the other nodes with
    /// leases report.
    async fn held(&self, key: &Key, leases: &[Lease]) -> KeyWaiters {
        let Delivery {
            name,
            waiters,
            peers,
            nodes,
            ..
        } = &*self.parts.delivery;
        let others = leases.iter().filter(|lease| lease.name != *name);
        let asked: Vec<_> = others
            .map(async |lease| (lease, peers.count(lease, key).await))
            .collect();
        let mut counts = stream::iter(asked).buffered(ASKED_AT_ONCE);
        let mut held = KeyWaiters::default();
        while let Some((lease, count)) = counts.next().await {
            match count {
                Ok(0) => {}
                Ok(count) => drop(held.waiters.insert(lease.name.clone(), count)),
                Err(error) => {
                    let (_, url) = lease.node_and_url();
                    debug!(%error, peer = url, "a node did not report its waiters");
                    if nodes.is_listed(&lease.name) {
                        held.unreachable.push(url.to_owned());
                    }
                }
            }
        }
        let here = waiters.count(key) as u64;
        if here > 0 {
            held.waiters.insert(name.clone(), here);
        }
        held
    }
}

/// Returns the value of the first parameter with this name, if there is one. The inner `None`
/// is a value whose encoding is bad.
fn parameter<'a>(query: Option<&'a str>, name: &str) -> Option<Option<Cow<'a, str>>> {
    fields(query.unwrap_or_default().as_bytes(), Plus::Literal)
        .find_map(|(given, value)| (given.as_deref() == Some(name)).then_some(value))
}
