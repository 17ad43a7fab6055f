//! A stream of server-sent events: each newer status of a key, on one connection, for any
//! `EventSource`.
//!
//! A stream follows its key by a row of waits ([`crate::page::followed`]), each of which may bring
//! many statuses.
//!
//! An `EventSource` gives up for good at any status but 200, and reconnects after every end of a
//! stream. So a deletion, a drain and a limit are events. Only a mistake (400), a key that is not
//! good (410) and a stream that had ended for good (204) have another status. A comment now and
//! then shows the browser and the proxies that the stream is alive.

mod event;
mod resumed;
mod stream_wait;

use std::future::poll_fn;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyper::StatusCode;
use hyper::header::{
    CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use tokio::time::Instant;
use tracing::debug;

use self::event::{render_outcome, render_retry};
use self::resumed::Resumed;
use self::stream_wait::StreamWait;
use crate::http::origin::Grant;
use crate::http::response::{NOSNIFF, Response};
use crate::metrics::{DropReason, StreamEnd, Wire};
use crate::model::mistake::Mistake;
use crate::model::signing::Admitted;
use crate::model::status::{Outcome, Status, Update};
use crate::net::clients::Client;
use crate::net::closing::Course;
use crate::net::flow::{Ended, Endless, Flow};
use crate::net::parked::Wakes;
use crate::page::answer;
use crate::page::followed::{Followed, Heard};
use crate::page::get::GetHandler;
use crate::page::get::params::{Params, spread};
use crate::page::script::Form;
use crate::runtime::clock::millis;
use crate::runtime::right_to_answer::{DeliveryEnd, Interruption};
use crate::wait::{News, Opened};

/// A request for a stream that passed its checks.
#[derive(Debug)]
pub(crate) struct EventStream {
    handler: Arc<GetHandler>,
    followed: Followed,
    grant: Grant,
    since: Instant,
    /// Whether its client's address may ask now.
    may_get: bool,
}

impl GetHandler {
    /// Checks a request for a stream, in the order that docs/contract.md gives. `client` is there
    /// if its address is limited.
    ///
    /// # Errors
    /// Returns the answer if there is no stream.
    pub(crate) fn begin_events(
        self: &Arc<Self>,
        query: &str,
        headers: &HeaderMap,
        client: Option<&Client>,
    ) -> Result<EventStream, Box<Response>> {
        let may_get = client.is_none_or(Client::may_get);
        let grant = self.allow_origin.grant(headers);
        let json = |outcome: &Outcome, last| {
            let (retry_after, policy) = (
                self.retry_after_ms(outcome, Instant::now()),
                &self.resource_policy,
            );
            let answer = answer::answer(&Form::Json, &grant, outcome, last, retry_after, policy);
            Box::new(answer)
        };
        let invalid = |mistake: Mistake, last| {
            self.metrics.stream_ended(StreamEnd::Invalid);
            debug!(what = %mistake.what(), "stream refused");
            json(&Outcome::Invalid(mistake), last)
        };
        let (key, last) = Params::parse(query)
            .watched()
            .map_err(|(mistake, last)| invalid(mistake, last.unwrap_or_default()))?;
        let resumed = Resumed::of(headers).map_err(|mistake| invalid(mistake, last))?;
        let over = || {
            self.metrics.stream_ended(StreamEnd::Over);
            Box::new(grant.apply(over()))
        };
        let Admitted { id: key, left } = match (self.admit(key), &resumed) {
            (Ok(admitted), _) => admitted,
            // The browser would reconnect for ever.
            (Err(_), Some(_)) => return Err(over()),
            (Err(why), None) => {
                self.metrics.stream_ended(StreamEnd::Gone);
                self.note_refused_key(why);
                return Err(json(&Outcome::Gone(last), last));
            }
        };
        if resumed.as_ref().is_some_and(|resumed| resumed.has_ended) {
            return Err(over());
        }
        let last = resumed.map_or(last, |resumed| resumed.last.max(last));
        let since = Instant::now();
        Ok(EventStream {
            handler: Arc::clone(self),
            followed: Followed::new(self, key, last, left, client.cloned()),
            grant,
            since,
            may_get,
        })
    }
}

impl Endless for EventStream {
    fn run(
        mut self: Box<Self>,
        mut flow: Box<Flow>,
        mut wakes: Wakes,
    ) -> BoxFuture<'static, Ended> {
        async move {
            self.handler.metrics.stream_began();
            let end = self.serve(&mut flow, &mut wakes).await;
            self.record_end(end.unwrap_or(StreamEnd::Left));
            match end {
                Ok(_) => Ended::Whole(flow, wakes),
                Err(why) => Ended::Broken(flow, why),
            }
        }
        .boxed()
    }

    fn left(&self) {
        self.handler.metrics.stream_began();
        self.record_end(StreamEnd::Left);
    }
}

impl EventStream {
    /// Writes the head, the events and the end. Returns why the stream ended.
    ///
    /// # Errors
    /// Fails if the connection ended first. The error has a reason if the node ended it.
    async fn serve(
        &mut self,
        flow: &mut Flow,
        wakes: &mut Wakes,
    ) -> Result<StreamEnd, Option<DropReason>> {
        flow.begin(self.grant.apply(head()));
        flow.push(&render_retry());
        let metrics = Arc::clone(&self.handler.metrics);
        let mut wait = StreamWait::new(flow, wakes, self.followed.last, metrics);
        let end = self.follow(&mut wait).await?;
        let StreamWait { flow, wakes, .. } = wait;
        if wakes.stop.stop().state() != Course::Open {
            // The browser must reconnect on another connection, so that it reaches another node.
            flow.close();
        }
        flow.end(&mut wakes.timer).await?;
        Ok(end)
    }

    /// Writes events until the stream has an end.
    async fn follow(&mut self, wait: &mut StreamWait<'_>) -> Result<StreamEnd, Option<DropReason>> {
        if !self.may_get {
            self.push_event(&Outcome::Busy, wait);
            return Ok(StreamEnd::Busy);
        }
        let life_ends = self.since + spread(self.handler.stream_life);
        loop {
            wait.flush().await?;
            if life_ends <= Instant::now() {
                wait.flow.push(&render_retry());
                return Ok(StreamEnd::Life);
            }
            wait.begin_again(self.followed.last);
            let deadline = self.followed.deadline(&self.handler, Some(life_ends));
            // Boxed, so that it does not add to the memory of a stream during its long wait.
            let begin = Box::pin(self.followed.begin(&self.handler, deadline, &mut *wait));
            let heard = match begin.await {
                Ok(opened) => self.hear(opened, deadline).await,
                Err(heard) => heard,
            };
            let (outcome, since) = match heard {
                Heard::Said(outcome, since) => (outcome, since),
                Heard::Left => return Err(wait.flow.take_cut()),
                Heard::Nothing => continue,
            };
            let outcome = match outcome {
                Outcome::Success(status) if !status.is_final => {
                    self.push_status(status, since, wait);
                    continue;
                }
                outcome => outcome,
            };
            self.push_event(&outcome, wait);
            let end = match outcome {
                Outcome::Success(_) => StreamEnd::Final,
                Outcome::Gone(_) => StreamEnd::Gone,
                Outcome::Retry => StreamEnd::Retry,
                Outcome::Busy => StreamEnd::Busy,
                Outcome::Unavailable(cause) => {
                    self.handler.metrics.unavailable(cause);
                    StreamEnd::Unavailable
                }
                Outcome::Timeout | Outcome::Invalid(_) => unreachable!("no wait ends so"),
            };
            return Ok(end);
        }
    }

    /// Writes the statuses that come during one wait. Returns how the wait ended.
    async fn hear(&mut self, mut opened: Opened<&mut StreamWait<'_>>, deadline: Instant) -> Heard {
        loop {
            let interruption = poll_fn(|cx| opened.poll_interrupted(deadline, cx)).await;
            let (status, since) = match interruption {
                Interruption::Delivery(DeliveryEnd::Handed(News {
                    update: Update::Status(status),
                    since,
                })) if !status.is_final => (status, since),
                // Boxed as above.
                end => return Box::pin(self.followed.end(opened, end)).await,
            };
            self.push_status(status, since, opened.waiting());
        }
    }

    /// Adds a status, after which the stream goes on, as an event.
    fn push_status(&mut self, status: Status, since: Option<Instant>, wait: &mut StreamWait<'_>) {
        let version = status.version;
        self.push_event(&Outcome::Success(status), wait);
        self.followed.last = version;
        wait.since = since;
    }

    /// Adds an outcome to the stream as an event.
    fn push_event(&self, outcome: &Outcome, wait: &mut StreamWait<'_>) {
        if matches!(outcome, Outcome::Success(_)) {
            self.handler.metrics.status_on(Wire::Events);
        }
        let retry_after = self.handler.retry_after_ms(outcome, self.since);
        wait.push(&render_outcome(outcome, self.followed.last, retry_after));
    }

    /// Counts and logs the end of the stream.
    fn record_end(&self, end: StreamEnd) {
        let lasted = self.since.elapsed();
        self.handler.metrics.stream_ended(end);
        self.handler.metrics.stream_left();
        let (key, lasted_ms) = (self.followed.key.hashed(), millis(lasted));
        let (end, route) = (end.as_str(), "/status/events");
        debug!(parent: None, listener = "public", route, %key, end, lasted_ms, "stream ended");
    }
}

/// Returns the head of a stream, without its rights.
fn head() -> Response {
    let mut response = Response::default();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(
        CACHE_CONTROL,
        HeaderValue::from_static("no-store, no-transform"),
    );
    headers.insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    // nginx then passes on each event at once.
    let buffering = HeaderName::from_static("x-accel-buffering");
    headers.insert(buffering, HeaderValue::from_static("no"));
    response
}

/// Returns the answer that keeps a browser from reconnecting.
fn over() -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(CACHE_CONTROL, no_store);
    response
}
