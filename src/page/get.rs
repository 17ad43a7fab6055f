//! One get: its checks, its wait and its answer. A held get is parked ([`crate::net::parked`]):
//! it waits outside of hyper, and a delivery may write its answer.

pub(crate) mod params;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;
use tracing::debug;

use self::params::{BadForm, Params, Target};
use crate::cluster::recovery::Recovery;
use crate::http::origin::{AllowOrigin, Grant};
use crate::http::refusal::Refusal;
use crate::http::response::{self, Response};
use crate::metrics::{GetEnd, Limit, Metrics};
use crate::model::cause::Cause;
use crate::model::key::Key;
use crate::model::mistake::Fault;
use crate::model::signing::{Admitted, KeyRejection, Signing};
use crate::model::status::{Outcome, Seen, Update, Version};
use crate::net::parked::{Given, Parked, Request, Wakes, Woken};
use crate::page::answer;
use crate::page::script::{Form, Prefix};
use crate::runtime::clock::{MAX_AHEAD, millis, system_ms};
use crate::runtime::shutdown::Drain;
use crate::store::{Store, StoreError};
use crate::waiters::{Full, Left, Waiter, Waiters};

/// The time after its deadline that a get gives the store to finish opening its key. So a get
/// with the shortest wait finds what a get without a wait finds.
const OPEN_GRACE: Duration = Duration::from_millis(500);

/// The parts of the node that gets need.
#[derive(Debug)]
pub(crate) struct GetHandler {
    pub(crate) waiters: Arc<Waiters>,
    pub(crate) store: Arc<Store>,
    /// The recovery; present if nodes share the store.
    pub(crate) recovery: Option<Arc<Recovery>>,
    pub(crate) drain: Drain,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) hold: Duration,
    /// The check of keys' signatures, if keys have to be signed.
    pub(crate) signing: Option<Arc<Signing>>,
    /// The beginning that names of callbacks and variables must have.
    pub(crate) callback_prefix: Prefix,
    pub(crate) resource_policy: HeaderValue,
    pub(crate) allow_origin: AllowOrigin,
}

/// The result of a get's checks.
pub(crate) enum GetStart {
    /// The get is answered already.
    Answer(Response),
    /// The get is valid, and is held.
    Held(HeldGet),
}

/// A get that is held, with the little data that its answer needs.
#[derive(Debug)]
pub(crate) struct HeldGet {
    handler: Arc<GetHandler>,
    key: Key,
    /// The version as the page gave it; the answer repeats it.
    last: Version,
    /// Whether `last` is too far ahead of the store's clock, so that it counts as 0.
    ignores_last: bool,
    /// The longest time that it may wait; in ms, to keep it small.
    wait_ms: u32,
    /// Whether its wait ends because its key expires.
    ends_with_key: bool,
    form: Form,
    grant: Grant,
    since: Instant,
}

impl GetHandler {
    /// Checks a request's parameters, in the order that docs/contract.md gives.
    pub(crate) fn begin(self: &Arc<Self>, query: &str, headers: &HeaderMap) -> GetStart {
        let grant = self.allow_origin.grant(headers);
        let params = Params::parse(query);
        let form = match params.form(&self.callback_prefix) {
            _ if params.wants_script() && would_be_shown(headers) => {
                return self.refuse(
                    Fault::WouldBeShown,
                    grant.apply(response::refusal(&Refusal::Forbidden)),
                );
            }
            Err(BadForm) => {
                return self.refuse(Fault::NoCallback, answer::bad_form(&self.resource_policy));
            }
            Ok(form) => form,
        };
        match params.target(self.hold) {
            Ok(Target { key, last, wait }) => match self.admit(key) {
                Ok(Admitted { id: key, left }) => {
                    let (handler, since) = (Arc::clone(self), Instant::now());
                    let ends_with_key = left.is_some_and(|left| left <= wait);
                    let wait = left.map_or(wait, |left| left.min(wait));
                    // A fraction of a millisecond does not matter, and a hold is ten minutes at
                    // most.
                    let wait_ms = wait.as_millis().try_into().unwrap_or(u32::MAX);
                    let ignores_last = !self.may_be_given(last);
                    GetStart::Held(HeldGet {
                        handler,
                        key,
                        last,
                        ignores_last,
                        wait_ms,
                        ends_with_key,
                        form,
                        grant,
                        since,
                    })
                }
                Err(why) => {
                    self.refuse_key(why, self.answer(&form, &grant, &Outcome::Gone(last), last))
                }
            },
            Err((mistake, last)) => {
                let what = mistake.what();
                self.refuse(
                    what,
                    self.answer(
                        &form,
                        &grant,
                        &Outcome::Invalid(mistake),
                        last.unwrap_or_default(),
                    ),
                )
            }
        }
    }

    /// Returns whether a node may have given a page this version. A version that no node gave
    /// must neither hide the key's status nor raise the key's versions.
    fn may_be_given(&self, last: Version) -> bool {
        last == Version::NONE || last.get() <= self.store.clock_ms().saturating_add(MAX_AHEAD)
    }

    fn admit(&self, key: Key) -> Result<Admitted, KeyRejection> {
        match &self.signing {
            Some(signing) => signing.admit(key, system_ms()),
            None => Ok(Admitted {
                id: key,
                left: None,
            }),
        }
    }

    fn refuse_key(&self, why: KeyRejection, response: Response) -> GetStart {
        self.metrics.get_ended(GetEnd::Gone);
        self.metrics.key_refused(why);
        debug!(
            outcome = GetEnd::Gone.as_str(),
            why = why.as_str(),
            "get ended"
        );
        GetStart::Answer(response)
    }

    fn refuse(&self, what: Fault, response: Response) -> GetStart {
        self.metrics.get_ended(GetEnd::Invalid);
        debug!(outcome = GetEnd::Invalid.as_str(), %what, "get ended");
        GetStart::Answer(response)
    }

    fn answer(&self, form: &Form, grant: &Grant, outcome: &Outcome, last: Version) -> Response {
        let response = answer::answer(
            form,
            outcome,
            last,
            self.waiters.len(),
            &self.resource_policy,
        );
        if *form == Form::Json {
            grant.apply(response)
        } else {
            response
        }
    }
}

impl Request for HeldGet {
    fn answer(&self, outcome: &Outcome) -> Response {
        let end = match outcome {
            Outcome::Success(_) => GetEnd::Success,
            Outcome::Timeout => GetEnd::Timeout,
            Outcome::Retry => GetEnd::Retry,
            Outcome::Busy => GetEnd::Busy,
            Outcome::Gone(_) => GetEnd::Gone,
            Outcome::Invalid(_) => GetEnd::Invalid,
            Outcome::Unavailable(_) => GetEnd::Unavailable,
        };
        let cause = match outcome {
            Outcome::Unavailable(cause) => Some(*cause),
            _ => None,
        };
        self.ended(end, cause);
        self.handler
            .answer(&self.form, &self.grant, outcome, self.last)
    }

    async fn hold(parked: &Arc<Parked<Self>>, wakes: &mut Wakes) {
        let get = &parked.request;
        let deadline = get.since + get.wait();
        // The short steps are boxed, so that they do not add to the memory of a task during its
        // long wait.
        let end = match Box::pin(get.begin(parked, deadline, wakes)).await {
            Err(end) => end,
            Ok((waiter, cause)) => match parked.woken(deadline, wakes).await {
                Woken::Answered => End::Answered,
                woken => Box::pin(settle(parked, waiter, woken, get.at_deadline(), cause)).await,
            },
        };
        match end {
            End::With(outcome) => parked.answer(&outcome),
            End::Answered => {}
            End::Left => get.left(),
        }
    }

    fn left(&self) {
        self.ended(GetEnd::Left, None);
    }

    fn woken(&self, after: Duration) {
        self.handler.metrics.woken(after);
    }

    fn wait(&self) -> Duration {
        Duration::from_millis(self.wait_ms.into())
    }
}

/// The end of a wait.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The task is to answer with this outcome.
    With(Outcome),
    /// A delivery has answered.
    Answered,
    /// The client left. Nobody else answers it.
    Left,
}

impl HeldGet {
    /// Counts and logs the end of the get. Called by whoever ended it.
    fn ended(&self, end: GetEnd, cause: Option<Cause>) {
        let held = self.since.elapsed();
        self.handler.metrics.get_ended(end);
        self.handler.metrics.held(held);
        if let Some(cause) = cause {
            self.handler.metrics.unavailable(cause);
        }
        let cause = cause.map(Cause::as_str);
        let (key, held_ms) = (self.key.hashed(), millis(held));
        let (outcome, route) = (end.as_str(), "/status/get");
        // In no span: the current one may be that of the set that ended the get.
        debug!(parent: None, listener = "public", route, %key, outcome, cause, held_ms, "get ended");
    }

    /// Returns the version that the page knows already; none if `last` is ignored.
    fn seen(&self) -> Version {
        if self.ignores_last {
            Version::NONE
        } else {
            self.last
        }
    }

    /// Returns the outcome if the deadline comes.
    fn at_deadline(&self) -> Outcome {
        if self.ends_with_key {
            Outcome::Gone(self.last)
        } else {
            Outcome::Timeout
        }
    }

    fn busy(&self, full: Full) -> End {
        self.handler.metrics.limit_hit(match full {
            Full::Node => Limit::Waiters,
            Full::Key => Limit::WaitersPerKey,
        });
        End::With(Outcome::Busy)
    }

    /// Opens the key. Returns the waiter if there is something to wait for, otherwise how the
    /// get ends. For the cause see [`open_for`].
    async fn begin(
        &self,
        parked: &Arc<Parked<Self>>,
        deadline: Instant,
        wakes: &mut Wakes,
    ) -> Result<(Waiter, Option<Cause>), End> {
        let GetHandler {
            waiters,
            store,
            recovery,
            drain,
            ..
        } = &*self.handler;
        let seen = Seen::from(self.seen());
        if self.wait_ms == 0 || drain.begun() {
            let opened = tokio::select! {
                biased;
                opened = store.open(&self.key, seen, Duration::ZERO) => opened,
                () = parked.left() => return Err(End::Left),
            };
            return Err(End::With(match opened {
                Ok(Some(update)) => update.into(),
                _ if drain.begun() => Outcome::Retry,
                Ok(None) => Outcome::Timeout,
                Err(error) => failed(error),
            }));
        }
        // Register, *then* open, *then* wait: so no status is lost. Proof, for any set of this
        // key: its put and this get's open are each one atomic step of the store, so one of them
        // comes first. If the put does, open sees the status. If open does, the waiter was
        // registered before it, and so before the put. The put's delivery follows the put, so it
        // finds the waiter: directly on this node, and from another node by the lease that open
        // left. Either way the get has the status or a newer one. There is no third way, such as
        // a set between looking and registering.
        //
        // If the store is out of reach, or was and has lost the lease, the get stays registered,
        // and `recovery` opens its key in a later epoch. The proof then holds for that open.
        let taker = Arc::<Parked<Self>>::clone(parked);
        let waiter = waiters
            .register(&self.key, self.seen(), taker)
            .map_err(|full| self.busy(full))?;
        let epoch = store.epoch();
        let open = async { (epoch, store.open(&self.key, seen, self.wait()).await) };
        // A get that ends because its key expires has no grace.
        let late = match self.ends_with_key {
            true => (deadline, Outcome::Gone(self.last)),
            false => (deadline + OPEN_GRACE, Outcome::Unavailable(Cause::Late)),
        };
        let not_opened = || {
            if let Some(recovery) = recovery {
                recovery.not_opened();
            }
        };
        open_for(parked, waiter, open, not_opened, late, wakes).await
    }
}

/// Waits until a registered waiter's key is open. Returns the waiter if there is nothing new,
/// and the cause if the store did not open the key yet; otherwise how the get ends. `open` also
/// returns the epoch.
///
/// An update that is delivered while `open` is under way is kept, because `open` may find a
/// newer one. If `open` finds nothing, fails or comes too late, the kept update is the answer.
/// `until` is the latest time for `open`, and `too_late` the answer after it.
async fn open_for<R: Request>(
    parked: &Parked<R>,
    waiter: Waiter,
    open: impl Future<Output = (u64, Result<Option<Update>, StoreError>)>,
    not_opened: impl FnOnce(),
    (until, too_late): (Instant, Outcome),
    wakes: &mut Wakes,
) -> Result<(Waiter, Option<Cause>), End> {
    let (epoch, opened) = tokio::select! {
        biased;
        opened = open => opened,
        woken = parked.woken(until, wakes) => {
            return Err(settle(parked, waiter, woken, too_late, None).await);
        }
    };
    let mut cause = None;
    match opened {
        Ok(None) => waiter.opened(epoch),
        Ok(Some(update)) => {
            let given = if waiter.leave() == Left::Taken {
                parked.given().await
            } else {
                Given::Nothing
            };
            return Err(match given {
                Given::Update(given) if given.version() > update.version() => {
                    End::With(given.into())
                }
                Given::Update(_) | Given::Nothing => End::With(update.into()),
                Given::Answered => End::Answered,
            });
        }
        // `recovery` opens the key when the store is back.
        Err(StoreError::Unavailable(why)) => {
            cause = Some(why);
            not_opened();
        }
        Err(error) => {
            return Err(without_update(parked, waiter, Some(failed(error)), None).await);
        }
    }
    // From here on a delivery writes the answer itself.
    match parked.opened() {
        Some(given) => Err(End::With(given.into())),
        None => Ok((waiter, cause)),
    }
}

/// Returns how an interrupted wait ends. `cause` is the reason why the store did not open the
/// key, if it did not.
async fn settle<R: Request>(
    parked: &Parked<R>,
    waiter: Waiter,
    woken: Woken,
    too_late: Outcome,
    cause: Option<Cause>,
) -> End {
    let otherwise = match woken {
        Woken::Given(update) => return End::With(update.into()),
        Woken::Answered => return End::Answered,
        // The status is in the store, and the page asks again for it.
        Woken::Abandoned => return End::With(Outcome::Unavailable(Cause::Abandoned)),
        Woken::Deadline => Some(too_late),
        Woken::Stopping => Some(Outcome::Retry),
        Woken::Left => None,
    };
    without_update(parked, waiter, otherwise, cause).await
}

/// Returns how a wait without an update ends, unless a delivery was faster. `otherwise` is
/// `None` if the client left.
async fn without_update<R: Request>(
    parked: &Parked<R>,
    waiter: Waiter,
    otherwise: Option<Outcome>,
    cause: Option<Cause>,
) -> End {
    match (waiter.leave(), otherwise) {
        (Left::Taken, otherwise) => match (parked.given().await, otherwise) {
            (Given::Answered, _) => End::Answered,
            (_, None) => End::Left,
            (Given::Update(update), Some(_)) => End::With(update.into()),
            (Given::Nothing, Some(_)) => End::With(Outcome::Unavailable(Cause::Abandoned)),
        },
        (_, None) => End::Left,
        (Left::Unopened, Some(Outcome::Timeout)) => {
            End::With(Outcome::Unavailable(cause.unwrap_or(Cause::Late)))
        }
        (_, Some(otherwise)) => End::With(otherwise),
    }
}

fn failed(error: StoreError) -> Outcome {
    match error {
        StoreError::Full => Outcome::Busy,
        StoreError::Unavailable(cause) | StoreError::Unknown(cause) => Outcome::Unavailable(cause),
        StoreError::Conflict(_) | StoreError::TooLate => Outcome::Unavailable(Cause::Nonsense),
    }
}

/// Returns whether a browser would show the answer as a page, or embed it as one. The answer
/// would then run with our origin's rights, or show a user what somebody else wrote into the
/// URL. Pages cannot forge this header.
fn would_be_shown(headers: &HeaderMap) -> bool {
    const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");
    let shown: [&[u8]; 5] = [b"document", b"iframe", b"frame", b"object", b"embed"];
    headers
        .get_all(SEC_FETCH_DEST)
        .iter()
        .any(|dest| shown.contains(&dest.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::time::Duration;

    use tokio::net::UnixStream;
    use tokio::sync::oneshot;

    use super::*;
    use crate::net::closing::{Course, Stop, Watch};
    use crate::net::listener::Stream;
    use crate::net::parked::Exchange;
    use crate::runtime::lazy_timer::Timer;
    use crate::waiters::Taker;

    const SECOND: Duration = Duration::from_secs(1);

    /// A request with an empty answer.
    #[derive(Debug)]
    struct Plain;

    impl Request for Plain {
        fn answer(&self, _: &Outcome) -> Response {
            Response::default()
        }

        fn left(&self) {}

        fn wait(&self) -> Duration {
            Duration::ZERO
        }

        async fn hold(_: &Arc<Parked<Self>>, _: &mut Wakes) {}
    }

    /// One get at its wait, and the things it waits for.
    struct Trial {
        waiters: Arc<Waiters>,
        parked: Arc<Parked<Plain>>,
        wakes: Wakes,
        stop: Arc<Stop>,
        client: UnixStream,
    }

    impl Trial {
        fn new() -> (Self, Waiter) {
            let (stream, client) = UnixStream::pair().expect("a pair of sockets");
            let stop = Arc::<Stop>::default();
            let wakes = Wakes {
                timer: Timer::default(),
                stop: Watch::new(Arc::clone(&stop)),
            };
            let exchange = Exchange {
                is_old: false,
                is_last: false,
            };
            let parked = Arc::new(Parked::new(
                Plain,
                exchange,
                Stream::Unix(stream),
                Box::default(),
                SECOND,
                &wakes,
            ));
            let waiters = Waiters::new(10, 10);
            let taker = Arc::<Parked<Plain>>::clone(&parked);
            let waiter = waiters.register(&key(), version(1), taker).expect("room");
            (
                Self {
                    waiters,
                    parked,
                    wakes,
                    stop,
                    client,
                },
                waiter,
            )
        }

        /// Opens and waits until the end.
        async fn wait<O>(
            &mut self,
            waiter: Waiter,
            open: O,
            not_opened: impl FnOnce(),
            deadline: Instant,
        ) -> End
        where
            O: Future<Output = (u64, Opened)>,
        {
            let late = (deadline + OPEN_GRACE, Outcome::Unavailable(Cause::Late));
            match open_for(
                &self.parked,
                waiter,
                open,
                not_opened,
                late,
                &mut self.wakes,
            )
            .await
            {
                Ok((waiter, cause)) => {
                    let woken = self.parked.woken(deadline, &mut self.wakes).await;
                    settle(&self.parked, waiter, woken, Outcome::Timeout, cause).await
                }
                Err(end) => end,
            }
        }

        /// Checks that the trial has left nothing behind.
        fn check_empty(&self) {
            assert_eq!((self.waiters.len(), self.waiters.keys()), (0, 0));
        }
    }

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

    fn far() -> Instant {
        Instant::now() + Duration::from_secs(3600)
    }

    /// Runs a wait whose `open` is answered only after the updates in `delivered` came.
    async fn outcome_of(delivered: &[Update], opened: Opened) -> Outcome {
        let (mut trial, waiter) = Trial::new();
        for update in delivered {
            trial.waiters.deliver(&key(), update);
        }
        let (answer, open) = oneshot::channel();
        let open = async { (1, open.await.expect("answered")) };
        let waiters = Arc::clone(&trial.waiters);
        let waiting = tokio::spawn(async move { trial.wait(waiter, open, || (), far()).await });
        tokio::task::yield_now().await;
        assert!(
            !waiting.is_finished(),
            "an update that comes while open is under way is kept"
        );
        answer.send(opened).expect("waited for");
        let End::With(outcome) = waiting.await.expect("no panic") else {
            panic!("not to be answered by its task")
        };
        assert_eq!((waiters.len(), waiters.keys()), (0, 0));
        outcome
    }

    #[tokio::test]
    async fn of_what_open_knows_and_what_was_delivered_the_newer_is_the_answer() {
        assert_eq!(
            outcome_of(&[gone(5)], Ok(Some(gone(7)))).await,
            Outcome::Gone(version(7))
        );
        assert_eq!(
            outcome_of(&[gone(7)], Ok(Some(gone(5)))).await,
            Outcome::Gone(version(7))
        );
        assert_eq!(
            outcome_of(&[gone(5)], Ok(None)).await,
            Outcome::Gone(version(5))
        );
        assert_eq!(
            outcome_of(&[], Ok(Some(gone(5)))).await,
            Outcome::Gone(version(5))
        );
    }

    #[tokio::test]
    async fn what_was_delivered_is_the_answer_where_the_store_fails() {
        assert_eq!(
            outcome_of(&[gone(5)], Err(StoreError::Unavailable(Cause::Refused))).await,
            Outcome::Gone(version(5))
        );
        assert_eq!(outcome_of(&[], Err(StoreError::Full)).await, Outcome::Busy);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_does_not_answer_ends_with_the_deadline_or_the_drain() {
        for (delivered, drained, expected) in [
            (true, false, Outcome::Gone(version(5))),
            (false, false, Outcome::Unavailable(Cause::Late)),
            (true, true, Outcome::Gone(version(5))),
            (false, true, Outcome::Retry),
        ] {
            let (mut trial, waiter) = Trial::new();
            if delivered {
                trial.waiters.deliver(&key(), &gone(5));
            }
            if drained {
                trial.stop.advance(Course::Stopping);
            }
            let deadline = if drained { far() } else { Instant::now() };
            let end = trial.wait(waiter, pending(), || (), deadline).await;
            assert_eq!(end, End::With(expected));
            trial.check_empty();
        }
    }

    #[tokio::test]
    async fn an_opened_wait_ends_with_a_status_the_deadline_or_the_drain() {
        let opened = || ready((1, Ok(None)));
        let (mut trial, waiter) = Trial::new();
        let end = trial.wait(waiter, opened(), || (), Instant::now()).await;
        assert_eq!(end, End::With(Outcome::Timeout));
        let (mut trial, waiter) = Trial::new();
        trial.stop.advance(Course::Stopping);
        let end = trial.wait(waiter, opened(), || (), Instant::now()).await;
        assert_eq!(end, End::With(Outcome::Retry));
        let (mut trial, waiter) = Trial::new();
        trial.waiters.deliver(&key(), &gone(5));
        trial.stop.advance(Course::Stopping);
        let end = trial.wait(waiter, opened(), || (), Instant::now()).await;
        assert_eq!(end, End::With(Outcome::Gone(version(5))));
        trial.check_empty();
    }

    #[tokio::test]
    async fn an_opened_wait_is_answered_by_who_delivers_and_its_task_hears_of_it_later() {
        let (mut trial, waiter) = Trial::new();
        let (other, _) = UnixStream::pair().expect("a pair of sockets");
        let (waiters, client) = (
            Arc::clone(&trial.waiters),
            std::mem::replace(&mut trial.client, other),
        );
        let (end, told) = oneshot::channel();
        let task = tokio::spawn(async move {
            let ended = trial.wait(waiter, ready((1, Ok(None))), || (), far()).await;
            let _ = end.send(());
            ended
        });
        tokio::task::yield_now().await;
        assert_eq!(waiters.deliver(&key(), &gone(5)), 1);
        let mut answer = [0; 17];
        client.readable().await.expect("an answer");
        assert_eq!(client.try_read(&mut answer).expect("an answer"), 17);
        assert_eq!(&answer, b"HTTP/1.1 200 OK\r\n");
        assert!(!task.is_finished() && told.is_empty());
        // The next bytes of the client wake it.
        assert_eq!(client.try_write(b"GET").expect("room"), 3);
        assert_eq!(task.await.expect("no panic"), End::Answered);
        told.await.expect("told");
    }

    #[tokio::test]
    async fn a_client_that_leaves_ends_the_wait_opened_or_not() {
        for opens in [true, false] {
            let (mut trial, waiter) = Trial::new();
            let (client, other) = UnixStream::pair().expect("a pair of sockets");
            drop((std::mem::replace(&mut trial.client, client), other));
            let open = async {
                if opens {
                    (1, Ok(None))
                } else {
                    pending().await
                }
            };
            let end = trial.wait(waiter, open, || (), far()).await;
            assert_eq!(end, End::Left);
            trial.check_empty();
        }
    }

    #[tokio::test]
    async fn a_get_that_the_store_did_not_open_waits_for_it_and_then_says_so() {
        let failed = || ready((0, Err(StoreError::Unavailable(Cause::Refused))));
        let refused = Outcome::Unavailable(Cause::Refused);
        for (opened_later, expected) in [(false, refused), (true, Outcome::Timeout)] {
            let (mut trial, waiter) = Trial::new();
            let waiters = Arc::clone(&trial.waiters);
            let opens = || {
                if opened_later {
                    waiters.opened(&key(), u64::MAX, 1);
                }
            };
            let end = trial.wait(waiter, failed(), opens, Instant::now()).await;
            assert_eq!(end, End::With(expected));
        }
        let (mut trial, waiter) = Trial::new();
        let waiters = Arc::clone(&trial.waiters);
        let finds = || {
            waiters.deliver(&key(), &gone(5));
        };
        let end = trial.wait(waiter, failed(), finds, far()).await;
        assert_eq!(end, End::With(Outcome::Gone(version(5))));
        trial.check_empty();
    }

    /// A taker that stops a delivery until it is let go, or makes it panic.
    #[derive(Debug)]
    struct Hindrance(std::sync::Mutex<std::sync::mpsc::Receiver<bool>>);

    impl Taker for Hindrance {
        fn deliver(&self, _: &Update, _: Option<Instant>, _: bool) {
            let goes_on = self.0.lock().expect("not poisoned").recv().expect("let go");
            assert!(goes_on, "this panic is meant");
        }

        fn abandon(&self) {}
    }

    /// Ends a get whose waiter a delivery has taken out of the registry. Two seconds later the
    /// delivery gives it the update, or panics.
    async fn end_behind_a_slow_delivery<O: Future<Output = (u64, Opened)>>(
        goes_on: bool,
        open: O,
        at: Instant,
    ) -> End {
        let (mut trial, waiter) = Trial::new();
        // The hindrance must be registered before the get's own waiter.
        drop(waiter);
        let (let_go, hindrance) = std::sync::mpsc::channel();
        let hindrance = Arc::new(Hindrance(std::sync::Mutex::new(hindrance)));
        let _first = trial
            .waiters
            .register(&key(), version(1), hindrance)
            .expect("room");
        let taker = Arc::<Parked<Plain>>::clone(&trial.parked);
        let waiter = trial
            .waiters
            .register(&key(), version(1), taker)
            .expect("room");
        let waiters = Arc::clone(&trial.waiters);
        let delivery = std::thread::spawn(move || waiters.deliver(&key(), &gone(5)));
        while !trial.waiters.is_empty() {
            std::thread::yield_now();
        }
        let lets_go = async {
            tokio::time::sleep(2 * SECOND).await;
            let_go.send(goes_on).expect("it waits");
        };
        let began = Instant::now();
        let waits = async {
            let end = trial.wait(waiter, open, || (), at).await;
            assert!(began.elapsed() >= 2 * SECOND, "nobody else answers it");
            end
        };
        let (end, ()) = tokio::join!(waits, lets_go);
        assert_eq!(delivery.join().is_ok(), goes_on);
        trial.check_empty();
        end
    }

    #[tokio::test(start_paused = true)]
    async fn a_delivery_that_is_slow_on_its_way_from_the_registry_is_waited_for() {
        let opened = || ready((1, Ok(None)));
        assert_eq!(
            end_behind_a_slow_delivery(true, opened(), Instant::now()).await,
            End::Answered
        );
        // A get whose key is still being opened, or is opened with news, answers by itself.
        let found = || ready((1, Ok(Some(gone(4)))));
        assert_eq!(
            end_behind_a_slow_delivery(true, found(), far()).await,
            End::With(Outcome::Gone(version(5)))
        );
        let late = Instant::now();
        assert_eq!(
            end_behind_a_slow_delivery(true, pending(), late).await,
            End::With(Outcome::Gone(version(5)))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_whose_delivery_panicked_is_answered_by_its_own_task() {
        let opened = || ready((1, Ok(None)));
        for at in [Instant::now(), far()] {
            let end = end_behind_a_slow_delivery(false, opened(), at).await;
            assert_eq!(end, End::With(Outcome::Unavailable(Cause::Abandoned)));
        }
        let found = || ready((1, Ok(Some(gone(4)))));
        assert_eq!(
            end_behind_a_slow_delivery(false, found(), far()).await,
            End::With(Outcome::Gone(version(4)))
        );
    }

    #[tokio::test]
    async fn an_answer_is_not_replaced_by_what_comes_behind_it() {
        let (trial, waiter) = Trial::new();
        assert_eq!(trial.parked.opened(), None);
        trial.parked.answer(&Outcome::Timeout);
        trial.parked.deliver(&gone(5), None, true);
        trial.parked.deliver(&gone(5), None, false);
        trial.parked.abandon();
        assert_eq!(trial.parked.given().await, Given::Answered);
        drop(waiter);
        trial.check_empty();
    }
}
