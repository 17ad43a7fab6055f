//! One get, in three steps: [`Gets::begin`] checks it and gives an answer or a held get; [`Gets::hold`] gives its
//! outcome; [`Gets::render`] makes the answer. Apart from each other, so that whoever holds the connection meanwhile
//! is free to choose how.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::sleep;
use tracing::debug;

use crate::clock::millis;
use crate::error::{Mistake, Refusal, What};
use crate::key::{HashedKey, Key};
use crate::metrics::{GetEnd, Metrics};
use crate::query::{Given, Plus, fields};
use crate::recovery::Recovery;
use crate::response::{self, AllowOrigin, Grant, Response};
use crate::script::{Callback, Form, Variable};
use crate::shutdown::Drain;
use crate::status::{Outcome, Seen, Update, Version};
use crate::store::{Store, StoreError};
use crate::waiters::{Left, Waiter, Waiters};

/// A get whose deadline comes while its key is being opened is answered by what the store says, if it does so within
/// this: the shortest wait finds what no wait finds.
const OPEN_GRACE: Duration = Duration::from_millis(500);

/// What gets need.
#[derive(Debug)]
pub(crate) struct Gets {
    pub(crate) waiters: Arc<Waiters>,
    pub(crate) store: Arc<Store>,
    pub(crate) recovery: Arc<Recovery>,
    pub(crate) drain: Drain,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) hold: Duration,
    pub(crate) resource_policy: HeaderValue,
    pub(crate) allow_origin: AllowOrigin,
}

/// What became of a request.
pub(crate) enum Begun {
    /// It is answered already.
    Answer(Response),
    /// It is good.
    Held(Held),
}

/// A get that is to be held, and the little that its answer needs.
#[derive(Debug)]
pub(crate) struct Held {
    key: Key,
    last: Version,
    wait: Duration,
    form: Form,
    grant: Grant,
}

impl Gets {
    /// Checks a request's parameters, in the order that README.md gives.
    pub(crate) fn begin(&self, query: &str, headers: &HeaderMap) -> Begun {
        let grant = self.allow_origin.grant(headers);
        let params = Params::parse(query);
        let form = match params.form() {
            _ if params.wants_script() && would_be_shown(headers) => {
                return self.refuse(What::WouldBeShown, grant.apply(response::refusal(&Refusal::Forbidden)));
            }
            Err(BadForm) => return self.refuse(What::NoCallback, response::bad_form(&self.resource_policy)),
            Ok(form) => form,
        };
        match params.target(self.hold) {
            Ok((key, last, wait)) => Begun::Held(Held { key, last, wait, form, grant }),
            Err((mistake, last)) => {
                let what = mistake.what();
                self.refuse(what, self.answer(&form, grant, &Outcome::Invalid(mistake), last.unwrap_or_default()))
            }
        }
    }

    fn refuse(&self, what: What, response: Response) -> Begun {
        self.metrics.get_ended(GetEnd::Invalid);
        debug!(outcome = GetEnd::Invalid.as_str(), %what, "get ended");
        Begun::Answer(response)
    }

    /// Waits for the outcome, and counts it; also that the client left, which drops this future.
    ///
    /// # Cancel safety
    /// To be dropped is to leave: nothing of the get stays behind.
    pub(crate) async fn hold(&self, held: &Held) -> Outcome {
        let ending = Ending::new(&self.metrics, &held.key);
        let outcome = self.outcome(held).await;
        ending.ended(match outcome {
            Outcome::Success(_) => GetEnd::Success,
            Outcome::Timeout => GetEnd::Timeout,
            Outcome::Retry => GetEnd::Retry,
            Outcome::Busy => GetEnd::Busy,
            Outcome::Gone(_) => GetEnd::Gone,
            Outcome::Invalid(_) => GetEnd::Invalid,
            Outcome::Unavailable => GetEnd::Unavailable,
        });
        outcome
    }

    async fn outcome(&self, Held { key, last, wait, .. }: &Held) -> Outcome {
        let mut drain = self.drain.clone();
        let seen = Seen::from(*last);
        if wait.is_zero() || drain.begun() {
            return match self.store.open(key, seen, Duration::ZERO).await {
                Ok(Some(update)) => update.into(),
                _ if drain.begun() => Outcome::Retry,
                Ok(None) => Outcome::Timeout,
                Err(error) => failed(error),
            };
        }
        // Register, *then* open, *then* wait: no status is lost. Take any set of this key. Its put and this get's
        // open are each one atomic step of the store, so one of them comes first. If the put does, open sees the
        // status. If open does, the waiter was registered before it, so before the put, and the put's delivery,
        // which follows it, finds the waiter: on this node by itself, from another by the lease that open left. Either
        // way the get has the status or a newer one; and no third way exists, such as a set between looking and
        // registering.
        //
        // Where the store is out of reach, or was and has lost the lease, the get stays registered, and `recovery`
        // opens its key in a later epoch: that open is then the one of the argument.
        let Ok(waiter) = self.waiters.register(key, *last) else { return Outcome::Busy };
        let epoch = self.store.epoch();
        let open = async { (epoch, self.store.open(key, seen, *wait).await) };
        wait_for_outcome(waiter, open, || self.recovery.not_opened(), sleep(*wait), drain.wait()).await
    }

    /// Makes the answer of a held get.
    pub(crate) fn render(&self, held: Held, outcome: &Outcome) -> Response {
        self.answer(&held.form, held.grant, outcome, held.last)
    }

    fn answer(&self, form: &Form, grant: Grant, outcome: &Outcome, last: Version) -> Response {
        let response = response::answer(form, outcome, last, self.waiters.len(), &self.resource_policy);
        if *form == Form::Json { grant.apply(response) } else { response }
    }
}

/// The wait of a registered waiter: until an update, the deadline or the drain. `open` gives the epoch too.
///
/// An update that comes while `open` is still under way is kept: `open` may know a newer one. Only where `open`
/// fails or comes too late is the kept one the answer by itself.
async fn wait_for_outcome(
    mut waiter: Waiter,
    open: impl Future<Output = (u64, Result<Option<Update>, StoreError>)>,
    not_opened: impl FnOnce(),
    deadline: impl Future<Output = ()>,
    drain: impl Future<Output = ()>,
) -> Outcome {
    let (mut deadline, mut drain) = (pin!(deadline), pin!(drain));
    let mut is_over = false;
    let too_late = async {
        (&mut deadline).await;
        is_over = true;
        sleep(OPEN_GRACE).await;
    };
    let (epoch, opened) = tokio::select! {
        biased;
        opened = open => opened,
        () = too_late => return left(waiter, Outcome::Unavailable).await,
        () = &mut drain => return left(waiter, Outcome::Retry).await,
    };
    match opened {
        Ok(None) => waiter.opened(epoch),
        Ok(Some(update)) => {
            return match waiter.leave().await {
                Left::With(kept) if kept.version() > update.version() => kept.into(),
                _ => update.into(),
            };
        }
        // It is opened when the store is back.
        Err(StoreError::Unavailable) => not_opened(),
        Err(error) => return left(waiter, failed(error)).await,
    }
    tokio::select! {
        biased;
        update = waiter.update() => update.into(),
        () = async { if !is_over { deadline.await } } => left(waiter, Outcome::Timeout).await,
        () = &mut drain => left(waiter, Outcome::Retry).await,
    }
}

/// How a wait ends that has nothing, unless a delivery was faster.
async fn left(waiter: Waiter, otherwise: Outcome) -> Outcome {
    match (waiter.leave().await, otherwise) {
        (Left::With(update), _) => update.into(),
        (Left::Unopened, Outcome::Timeout) => Outcome::Unavailable,
        (_, otherwise) => otherwise,
    }
}

fn failed(error: StoreError) -> Outcome {
    match error {
        StoreError::Full => Outcome::Busy,
        StoreError::Conflict(_) | StoreError::Unavailable | StoreError::Unknown => Outcome::Unavailable,
    }
}

/// Counts and logs how a get ended, once; dropped before that, the client left.
struct Ending<'a> {
    metrics: &'a Metrics,
    key: HashedKey,
    since: Instant,
    end: GetEnd,
}

impl<'a> Ending<'a> {
    fn new(metrics: &'a Metrics, key: &Key) -> Self {
        Self { metrics, key: key.hashed(), since: Instant::now(), end: GetEnd::Left }
    }

    fn ended(mut self, end: GetEnd) {
        self.end = end;
    }
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.metrics.get_ended(self.end);
        let held_ms = millis(self.since.elapsed());
        debug!(key = %self.key, outcome = self.end.as_str(), held_ms, "get ended");
    }
}

/// Whether a browser would show the answer as a page or embed it as one: then it runs with our origin's rights,
/// or shows a user what somebody else wrote into the URL. Pages cannot forge this header.
fn would_be_shown(headers: &HeaderMap) -> bool {
    const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");
    let shown: [&[u8]; 5] = [b"document", b"iframe", b"frame", b"object", b"embed"];
    headers.get_all(SEC_FETCH_DEST).iter().any(|dest| shown.contains(&dest.as_bytes()))
}

/// The parameters of a get, as they were given. Any other is ignored, whatever it holds.
#[derive(Default)]
struct Params<'a> {
    key: Given<'a>,
    callback: Given<'a>,
    assign: Given<'a>,
    last: Given<'a>,
    wait: Given<'a>,
}

/// `callback` or `assign` is wrong, so that there is nothing that may be called.
struct BadForm;

impl<'a> Params<'a> {
    fn parse(query: &'a str) -> Self {
        let mut params = Self::default();
        for (name, value) in fields(query.as_bytes(), Plus::Literal) {
            let given = match name.as_deref() {
                Some("key") => &mut params.key,
                Some("callback") => &mut params.callback,
                Some("assign") => &mut params.assign,
                Some("last") => &mut params.last,
                Some("wait") => &mut params.wait,
                _ => continue,
            };
            given.add(value);
        }
        params
    }

    fn wants_script(&self) -> bool {
        self.callback != Given::Missing || self.assign != Given::Missing
    }

    fn form(&self) -> Result<Form, BadForm> {
        match (&self.callback, &self.assign) {
            (Given::Missing, Given::Missing) => Ok(Form::Json),
            (Given::Once(name), Given::Missing) => Callback::parse(name).map(Form::Jsonp).ok_or(BadForm),
            (Given::Missing, Given::Once(name)) => Variable::parse(name).map(Form::Assignment).ok_or(BadForm),
            _ => Err(BadForm),
        }
    }

    /// Key, `last` and how long to wait; or the first mistake in that order, with `last` where that is none.
    fn target(&self, hold: Duration) -> Result<(Key, Version, Duration), (Mistake, Option<Version>)> {
        let key = match &self.key {
            Given::Missing => Err(What::Missing),
            Given::Once(key) => Key::parse(key),
            given => Err(misgiven(given)),
        };
        let last = match &self.last {
            Given::Missing => Ok(Version::NONE),
            Given::Once(last) => {
                Version::parse(last).filter(|last| *last <= Version::MAX_LAST).ok_or(What::NotAVersion)
            }
            given => Err(misgiven(given)),
        };
        let wait = match &self.wait {
            Given::Missing => Ok(hold),
            Given::Once(wait) => parse_wait(wait).ok_or(What::NotSeconds),
            given => Err(misgiven(given)),
        };
        match (key, last, wait) {
            (Ok(key), Ok(last), Ok(wait)) => Ok((key, last, shortened(wait, hold))),
            (Err(what), last, _) => Err((Mistake::new("key", what), last.ok())),
            (_, Err(what), _) => Err((Mistake::new("last", what), None)),
            (_, last, Err(what)) => Err((Mistake::new("wait", what), last.ok())),
        }
    }
}

fn misgiven(given: &Given<'_>) -> What {
    if *given == Given::Twice { What::GivenTwice } else { What::BadEncoding }
}

/// Reads `[0-9]{1,6}(\.[0-9]{1,3})?` as seconds.
fn parse_wait(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str, most| (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole, 6) || !digits(fraction, 3) {
        return None;
    }
    let millis: u64 = format!("{fraction:0<3}").parse().ok()?;
    Some(Duration::from_millis(whole.parse::<u64>().ok()? * 1000 + millis))
}

/// How long a get waits: no longer than the hold; and the hold itself is shortened by up to a sixteenth, so that
/// pages that came together do not come again together.
fn shortened(wait: Duration, hold: Duration) -> Duration {
    if wait < hold { wait } else { hold.mul_f64(1.0 - rand::random_range(0.0..=1.0 / 16.0)) }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::sync::oneshot;

    use super::*;

    fn version(number: u64) -> Version {
        Version::new(number).expect("good")
    }

    fn gone(number: u64) -> Update {
        Update::Gone(version(number))
    }

    fn key() -> Key {
        Key::parse("k").expect("good")
    }

    type Opened = Result<Option<Update>, StoreError>;

    /// Runs a wait whose `open` is answered only after `delivered` came.
    async fn outcome_of(delivered: &[Update], opened: Opened) -> Outcome {
        let waiters = Waiters::new(10, 10);
        let waiter = waiters.register(&key(), version(1)).expect("room");
        for update in delivered {
            waiters.deliver(&key(), update);
        }
        let (answer, open) = oneshot::channel();
        let open = async { (1, open.await.expect("answered")) };
        let wait = tokio::spawn(wait_for_outcome(waiter, open, || (), pending(), pending()));
        tokio::task::yield_now().await;
        assert!(!wait.is_finished(), "an update that comes while open is under way is kept");
        answer.send(opened).expect("waited for");
        let outcome = wait.await.expect("no panic");
        assert_eq!((waiters.len(), waiters.keys()), (0, 0));
        outcome
    }

    #[tokio::test]
    async fn of_what_open_knows_and_what_was_delivered_the_newer_is_the_answer() {
        assert_eq!(outcome_of(&[gone(5)], Ok(Some(gone(7)))).await, Outcome::Gone(version(7)));
        assert_eq!(outcome_of(&[gone(7)], Ok(Some(gone(5)))).await, Outcome::Gone(version(7)));
        assert_eq!(outcome_of(&[gone(5)], Ok(None)).await, Outcome::Gone(version(5)));
        assert_eq!(outcome_of(&[], Ok(Some(gone(5)))).await, Outcome::Gone(version(5)));
    }

    #[tokio::test]
    async fn what_was_delivered_is_the_answer_where_the_store_fails() {
        assert_eq!(outcome_of(&[gone(5)], Err(StoreError::Unavailable)).await, Outcome::Gone(version(5)));
        assert_eq!(outcome_of(&[], Err(StoreError::Full)).await, Outcome::Busy);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_does_not_answer_ends_with_the_deadline_or_the_drain() {
        for (delivered, drained, expected) in [
            (true, false, Outcome::Gone(version(5))),
            (false, false, Outcome::Unavailable),
            (true, true, Outcome::Gone(version(5))),
            (false, true, Outcome::Retry),
        ] {
            let waiters = Waiters::new(10, 10);
            let waiter = waiters.register(&key(), version(1)).expect("room");
            if delivered {
                waiters.deliver(&key(), &gone(5));
            }
            let outcome = if drained {
                wait_for_outcome(waiter, pending(), || (), pending(), ready(())).await
            } else {
                wait_for_outcome(waiter, pending(), || (), ready(()), pending()).await
            };
            assert_eq!(outcome, expected);
            assert_eq!((waiters.len(), waiters.keys()), (0, 0));
        }
    }

    #[tokio::test]
    async fn an_opened_wait_ends_with_a_status_the_deadline_or_the_drain() {
        let waiters = Waiters::new(10, 10);
        let register = || waiters.register(&key(), version(1)).expect("room");
        let opened = || ready((1, Ok(None)));
        assert_eq!(wait_for_outcome(register(), opened(), || (), ready(()), pending()).await, Outcome::Timeout);
        assert_eq!(wait_for_outcome(register(), opened(), || (), pending(), ready(())).await, Outcome::Retry);
        let waiter = register();
        waiters.deliver(&key(), &gone(5));
        assert_eq!(wait_for_outcome(waiter, opened(), || (), ready(()), ready(())).await, Outcome::Gone(version(5)));
    }

    #[tokio::test]
    async fn a_get_that_the_store_did_not_open_waits_for_it_and_then_says_so() {
        let waiters = Waiters::new(10, 10);
        let failed = || ready((0, Err(StoreError::Unavailable)));
        for (opened_later, expected) in [(false, Outcome::Unavailable), (true, Outcome::Timeout)] {
            let waiter = waiters.register(&key(), version(1)).expect("room");
            let opens = || {
                if opened_later {
                    waiters.opened(&key(), u64::MAX, 1);
                }
            };
            assert_eq!(wait_for_outcome(waiter, failed(), opens, ready(()), pending()).await, expected);
        }
        let waiter = waiters.register(&key(), version(1)).expect("room");
        let finds = || {
            waiters.deliver(&key(), &gone(5));
        };
        assert_eq!(wait_for_outcome(waiter, failed(), finds, pending(), pending()).await, Outcome::Gone(version(5)));
        assert_eq!((waiters.len(), waiters.keys()), (0, 0));
    }

    #[test]
    fn a_wait_is_seconds_with_up_to_three_decimals() {
        for (text, millis) in
            [("0", 0), ("25", 25_000), ("0.001", 1), ("1.5", 1_500), ("000001.25", 1_250), ("999999", 999_999_000)]
        {
            assert_eq!(parse_wait(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", ".5", "1.", "1.0001", "1234567", "-1", "+1", "1e3", " 1", "1,5", "1.5.5", "١"] {
            assert_eq!(parse_wait(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_a_wait_as_long_as_the_hold_is_shortened() {
        let hold = Duration::from_secs(16);
        for _ in 0..100 {
            let wait = shortened(Duration::from_secs(20), hold);
            assert!(wait <= hold && wait >= Duration::from_secs(15), "{wait:?}");
        }
        assert_eq!(shortened(Duration::from_secs(15), hold), Duration::from_secs(15));
        assert_eq!(shortened(Duration::ZERO, hold), Duration::ZERO);
    }
}
