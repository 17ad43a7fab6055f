//! Writing a key: a status or a deletion is stored, then delivered to those who wait. Both listeners may come to it, and it
//! knows neither: what is written was parsed and allowed before.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{Instrument, debug};

use crate::delivery::Delivery;
use crate::key::Key;
use crate::metrics::Metrics;
use crate::receipt::Receipt;
use crate::recovery::Recovery;
use crate::response::{self, Response};
use crate::set::Set;
use crate::status::{Status, Update, Version};
use crate::store::{Put, StoreError, Stored};

/// What writes.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) delivery: Arc<Delivery>,
    pub(crate) recovery: Arc<Recovery>,
    pub(crate) metrics: Arc<Metrics>,
    /// How long a status is kept whose set does not say.
    pub(crate) status_ttl: Duration,
}

impl Writer {
    /// Stores a status, then has it delivered to the key's waiters: in this order, see `get`'s argument. Only what is
    /// stored is delivered: what the backend is told did not happen, no page sees. Gives what waits for the receipt.
    pub(crate) async fn put(&self, set: Set) -> impl Future<Output = Receipt> + Send + use<> {
        let accepted = Instant::now();
        let Set { key, value, ttl, is_final, after } = set;
        let put = Put { value, is_final, ttl: ttl.unwrap_or(self.status_ttl), after };
        let stored = self.delivery.store.put(&key, &put).await;
        let Put { value, is_final, .. } = put;
        let receipt =
            self.deliver(&key, stored, accepted, move |version| Update::Status(Status { version, value, is_final }));
        let metrics = Arc::clone(&self.metrics);
        async move {
            let receipt = receipt.await;
            metrics.set_ended(receipt.end());
            debug!(key = %key.hashed(), result = receipt.end().as_str(), delivered = receipt.delivered(), "set");
            receipt
        }
    }

    /// Deletes what is known, and has the key's waiters told.
    pub(crate) async fn forget(&self, key: &Key) -> Receipt {
        let accepted = Instant::now();
        let stored = self.delivery.store.forget(key).await;
        let receipt = self.deliver(key, stored, accepted, Update::Gone).await;
        debug!(key = %key.hashed(), result = receipt.end().as_str(), delivered = receipt.delivered(), "deleted");
        receipt
    }

    /// What is answered where the store did not do it.
    pub(crate) fn failed(&self, error: StoreError) -> Receipt {
        Receipt::failed(error, response::retry_after_ms(self.delivery.waiters.len()))
    }

    /// Has delivered what was stored, if it was.
    fn deliver<U: FnOnce(Version) -> Update>(
        &self,
        key: &Key,
        stored: Result<Stored, StoreError>,
        accepted: Instant,
        update: U,
    ) -> impl Future<Output = Receipt> + Send + use<U> {
        let done = match stored {
            Ok(Stored { version, ttl, leases, process }) => {
                let update = update(version);
                self.recovery.confirmed(key, &update, ttl, process);
                Ok((version, self.delivery.deliver(key, &update, leases, Some(accepted))))
            }
            Err(error) => {
                if error == StoreError::Unknown {
                    self.recovery.doubt(key);
                }
                Err(self.failed(error))
            }
        };
        async move {
            match done {
                Ok((version, delivered)) => Receipt::stored(version, delivered.await),
                Err(receipt) => receipt,
            }
        }
    }
}

/// Carries out to its end what must not be left half done: a backend that hangs up after its set was stored would
/// else leave the key's waiters unwoken.
pub(crate) async fn finish(work: impl Future<Output = Response> + Send + 'static) -> Response {
    let mut work = Box::pin(work.in_current_span());
    // Most of it waits for nothing, with an embedded store, and needs no task of its own.
    match poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await {
        Poll::Ready(response) => response,
        Poll::Pending => tokio::spawn(work).await.expect("the work is not aborted, and its panic is this request's"),
    }
}
