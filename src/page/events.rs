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

use std::future::poll_fn;
use std::io::{self, Write};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyper::StatusCode;
use hyper::header::{
    CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use tokio::time::Instant;
use tracing::debug;

use crate::http::origin::Grant;
use crate::http::response::{NOSNIFF, Response, retry_after_ms};
use crate::metrics::{DropReason, Metrics, StreamEnd, Wire};
use crate::model::mistake::{Fault, Mistake};
use crate::model::signing::Admitted;
use crate::model::status::{Outcome, Status, Update, Version};
use crate::net::closing::Course;
use crate::net::flow::{Ended, Endless, Flow};
use crate::net::parked::Wakes;
use crate::page::answer::{self, answer_json, code_of};
use crate::page::followed::{Followed, Heard};
use crate::page::get::GetHandler;
use crate::page::get::params::{Params, spread};
use crate::page::script::Form;
use crate::runtime::clock::millis;
use crate::runtime::right_to_answer::{DeliveryEnd, Interruption};
use crate::wait::{News, Opened, Slot, Waiting};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// The longest time without a byte, after which a comment is written. It is below the time after
/// which proxies and firewalls forget a silent connection.
const COMMENT_INTERVAL: Duration = Duration::from_secs(15);
/// A comment: a line that every reader ignores.
const COMMENT: &[u8] = b":\n\n";
/// The range of the time after which a browser reconnects, in milliseconds.
const RETRY_MS: std::ops::RangeInclusive<u64> = 1_000..=3_000;

/// A request for a stream that passed its checks.
#[derive(Debug)]
pub(crate) struct EventStream {
    handler: Arc<GetHandler>,
    followed: Followed,
    grant: Grant,
    since: Instant,
}

/// The content of `last-event-id`: the last event that a browser had when its stream broke off.
#[derive(Debug, PartialEq, Eq)]
struct Resumed {
    last: Version,
    /// Whether the stream had ended for good, so that the browser need not reconnect.
    has_ended: bool,
}

impl Resumed {
    /// Reads the id of the last event, if the browser sends one.
    ///
    /// # Errors
    /// Fails if its digits are no version that a page may have.
    fn of(headers: &HeaderMap) -> Result<Option<Self>, Mistake> {
        let Some(id) = headers.get(LAST_EVENT_ID) else {
            return Ok(None);
        };
        let id = id.as_bytes();
        let digits = id.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, rest) = id.split_at(digits);
        let last = match str::from_utf8(digits) {
            Ok("") | Err(_) => Version::NONE,
            Ok(digits) => Version::parse(digits)
                .filter(|last| *last <= Version::MAX_LAST)
                .ok_or(Mistake::new("last-event-id", Fault::NotAVersion))?,
        };
        let has_ended = !digits.is_empty() && matches!(rest, b".final" | b".gone");
        Ok(Some(Self { last, has_ended }))
    }
}

impl GetHandler {
    /// Checks a request for a stream, in the order that docs/contract.md gives.
    ///
    /// # Errors
    /// Returns the answer if there is no stream.
    pub(crate) fn begin_events(
        self: &Arc<Self>,
        query: &str,
        headers: &HeaderMap,
    ) -> Result<EventStream, Box<Response>> {
        let grant = self.allow_origin.grant(headers);
        let json = |outcome: &Outcome, last| {
            let (waiters, policy) = (self.waiters.len(), &self.resource_policy);
            let answer = answer::answer(&Form::Json, &grant, outcome, last, waiters, policy);
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
                self.metrics.key_refused(why);
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
            followed: Followed::new(self, key, last, left),
            grant,
            since,
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
                Err(why) => Ended::Broken(why),
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
        push_retry(flow, rand::random_range(RETRY_MS));
        let mut line = StreamWait {
            slot: Slot::new(self.followed.last),
            flow,
            wakes,
            comment_at: next_comment(),
            since: None,
            metrics: Arc::clone(&self.handler.metrics),
        };
        let end = self.follow(&mut line).await?;
        let StreamWait { flow, wakes, .. } = line;
        if wakes.stop.stop().state() != Course::Open {
            // The browser must reconnect on another connection, so that it reaches another node.
            flow.close();
        }
        flow.end();
        flow.flush(&mut wakes.timer).await?;
        Ok(end)
    }

    /// Writes events until the stream has an end.
    async fn follow(&mut self, line: &mut StreamWait<'_>) -> Result<StreamEnd, Option<DropReason>> {
        let life_ends = self.since + spread(self.handler.stream_life);
        loop {
            line.flush().await?;
            if life_ends <= Instant::now() {
                push_retry(line.flow, rand::random_range(RETRY_MS));
                return Ok(StreamEnd::Life);
            }
            line.slot = Slot::new(self.followed.last);
            let deadline = self.followed.deadline(&self.handler, Some(life_ends));
            // Boxed, so that it does not add to the memory of a stream during its long wait.
            let begin = Box::pin(self.followed.begin(&self.handler, deadline, &mut *line));
            let heard = match begin.await {
                Ok(opened) => self.hear(opened, deadline).await,
                Err(heard) => heard,
            };
            let (outcome, since) = match heard {
                Heard::Said(outcome, since) => (outcome, since),
                Heard::Left => return Err(line.flow.take_cut()),
                Heard::Nothing => continue,
            };
            let outcome = match outcome {
                Outcome::Success(status) if !status.is_final => {
                    self.push_status(status, since, line);
                    continue;
                }
                outcome => outcome,
            };
            self.push_event(&outcome, line);
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
    fn push_status(&mut self, status: Status, since: Option<Instant>, line: &mut StreamWait<'_>) {
        let version = status.version;
        self.push_event(&Outcome::Success(status), line);
        self.followed.last = version;
        line.since = since;
    }

    /// Adds an outcome to the stream as an event.
    fn push_event(&self, outcome: &Outcome, line: &mut StreamWait<'_>) {
        if matches!(outcome, Outcome::Success(_)) {
            self.handler.metrics.status_on(Wire::Events);
        }
        let name = match outcome {
            Outcome::Gone(_) => Some("gone"),
            Outcome::Retry => Some("retry"),
            Outcome::Busy => Some("busy"),
            Outcome::Unavailable(_) => Some("unavailable"),
            _ => None,
        };
        let comes_again = matches!(
            outcome,
            Outcome::Retry | Outcome::Busy | Outcome::Unavailable(_)
        );
        let retry_ms = comes_again.then(|| retry_after_ms(self.handler.waiters.len()));
        let id = match outcome {
            Outcome::Success(status) if status.is_final => Some((status.version, ".final")),
            Outcome::Success(status) => Some((status.version, "")),
            Outcome::Gone(version) => Some((*version, ".gone")),
            _ => None,
        };
        let json = answer_json(code_of(outcome), outcome, self.followed.last, retry_ms);
        line.flow.push(&render(id, name, retry_ms, &json));
        line.comment_at = next_comment();
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

/// The connection of a stream, and the present wait of the stream.
struct StreamWait<'a> {
    slot: Arc<Slot>,
    flow: &'a mut Flow,
    wakes: &'a mut Wakes,
    /// When the next comment is due.
    comment_at: Instant,
    /// When the set of the status that is being written was accepted, if that is known.
    since: Option<Instant>,
    metrics: Arc<Metrics>,
}

impl StreamWait<'_> {
    /// Writes all that was added. See [`Flow::flush`].
    async fn flush(&mut self) -> Result<(), Option<DropReason>> {
        self.flow.flush(&mut self.wakes.timer).await?;
        self.record_written();
        Ok(())
    }

    /// Records that a status was written.
    fn record_written(&mut self) {
        if let Some(since) = self.since.take() {
            self.metrics.record_wake(since.elapsed());
        }
    }
}

impl Waiting for StreamWait<'_> {
    type Shared = Slot;

    fn shared(&self) -> &Arc<Slot> {
        &self.slot
    }

    fn poll_interrupted(
        &mut self,
        deadline: Instant,
        cx: &mut Context<'_>,
    ) -> Poll<Interruption<News>> {
        // Both before the news: a key with very many statuses must not outlive its end.
        if self.wakes.stop.poll(cx) != Course::Open {
            return Poll::Ready(Interruption::Stopping);
        }
        if deadline <= Instant::now() {
            return Poll::Ready(Interruption::Deadline);
        }
        loop {
            match self.flow.poll_write(cx) {
                Poll::Ready(Ok(())) => {
                    self.record_written();
                    // Only now: if the reader is slow, it gets the newest status next.
                    if let Poll::Ready(end) = self.slot.poll(cx) {
                        return Poll::Ready(Interruption::Delivery(end));
                    }
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Interruption::Left),
                Poll::Pending => {}
            }
            // While a comment is not written, another one would only fill memory.
            let due = self.flow.cut_at().unwrap_or(self.comment_at);
            if self.wakes.timer.poll(due.min(deadline), cx).is_pending() {
                break;
            }
            if deadline <= due {
                return Poll::Ready(Interruption::Deadline);
            }
            if self.flow.cut_at().is_some() {
                self.flow.note_cut(DropReason::WriteTimeout);
                return Poll::Ready(Interruption::Left);
            }
            self.flow.push(COMMENT);
            self.comment_at = next_comment();
        }
        self.flow.poll_left(cx).map(|()| Interruption::Left)
    }
}

/// Returns when the next comment is due, if nothing is written before.
fn next_comment() -> Instant {
    Instant::now() + COMMENT_INTERVAL.mul_f64(1.0 - rand::random_range(0.0..=0.25))
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

/// Adds the time after which the browser is to reconnect.
fn push_retry(flow: &mut Flow, ms: u64) {
    flow.push(format!("retry: {ms}\n\n").as_bytes());
}

/// Renders an event (the HTML standard, 9.2.5). A line end in the JSON begins another `data` line,
/// which the browser joins by a line feed: white space is as good as any other there.
fn render(
    id: Option<(Version, &str)>,
    name: Option<&str>,
    retry_ms: Option<u64>,
    json: &[u8],
) -> Vec<u8> {
    let mut event = Vec::with_capacity(json.len() + 64);
    let mut lines = || -> io::Result<()> {
        if let Some(ms) = retry_ms {
            writeln!(event, "retry: {ms}")?;
        }
        if let Some((version, suffix)) = id {
            writeln!(event, "id: {version}{suffix}")?;
        }
        if let Some(name) = name {
            writeln!(event, "event: {name}")?;
        }
        Ok(())
    };
    lines().expect("a vector takes all");
    let mut rest = json;
    loop {
        let end = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
        event.extend_from_slice(b"data: ");
        event.extend_from_slice(&rest[..end.unwrap_or(rest.len())]);
        event.push(b'\n');
        let Some(end) = end else { break };
        let length = if rest[end..].starts_with(b"\r\n") {
            2
        } else {
            1
        };
        rest = &rest[end + length..];
    }
    event.push(b'\n');
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_the_last_event_says_how_far_a_page_came() {
        let of = |id: &str| {
            let id = HeaderValue::from_str(id).expect("a header");
            Resumed::of(&HeaderMap::from_iter([(LAST_EVENT_ID, id)]))
        };
        assert_eq!(Resumed::of(&HeaderMap::new()), Ok(None));
        for (id, last, has_ended) in [
            ("", 0, false),
            ("7", 7, false),
            ("7.final", 7, true),
            ("7.gone", 7, true),
            ("7.finale", 7, false),
            ("7x", 7, false),
            (".final", 0, false),
            ("x7", 0, false),
        ] {
            let last = Version::new(last).expect("good");
            assert_eq!(of(id), Ok(Some(Resumed { last, has_ended })), "{id:?}");
        }
        for id in ["9007199254740991", "99999999999999999999.final"] {
            assert!(of(id).is_err(), "{id}");
        }
    }

    #[test]
    fn line_ends_in_a_value_begin_another_line_of_data() {
        let version = Version::new(5).expect("good");
        let event = render(
            Some((version, ".final")),
            None,
            None,
            b"{\r\n\"a\":\r1,\n\n2}",
        );
        let text = String::from_utf8(event).expect("UTF-8");
        assert_eq!(
            text,
            "id: 5.final\ndata: {\ndata: \"a\":\ndata: 1,\ndata: \ndata: 2}\n\n"
        );
        let event = render(None, Some("busy"), Some(300), b"{}");
        let text = String::from_utf8(event).expect("UTF-8");
        assert_eq!(text, "retry: 300\nevent: busy\ndata: {}\n\n");
    }
}
