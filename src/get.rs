//! One get: its checks, its wait and its answer. Held, it is parked ([`crate::park`]): it waits outside of hyper, and may
//! be answered by whoever has news.

pub(crate) mod params;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;
use tracing::debug;

use self::params::{BadForm, Params, Target};
use crate::clock::{millis, system_ms};
use crate::error::{Refusal, What};
use crate::key::Key;
use crate::metrics::{GetEnd, Limit, Metrics};
use crate::park::{Parked, Request, Wakes, Woken};
use crate::recovery::Recovery;
use crate::response::{self, AllowOrigin, Grant, Response};
use crate::script::Form;
use crate::shutdown::Drain;
use crate::signing::{Admitted, NotGood, Signing};
use crate::status::{Outcome, Seen, Update, Version};
use crate::store::{Store, StoreError};
use crate::waiters::{Full, Left, Waiter, Waiters};

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
    /// Where keys have to be signed.
    pub(crate) signing: Option<Arc<Signing>>,
    pub(crate) resource_policy: HeaderValue,
    pub(crate) allow_origin: AllowOrigin,
}

/// What became of a request.
pub(crate) enum Begun {
    /// It is answered already.
    Answer(Response),
    /// It is good.
    Held(Get),
}

/// A get that is held, and the little that its answer needs.
#[derive(Debug)]
pub(crate) struct Get {
    gets: Arc<Gets>,
    key: Key,
    last: Version,
    /// How long it may wait; in ms, for the size.
    wait_ms: u32,
    /// Its wait ends because its key expires.
    ends_with_key: bool,
    form: Form,
    grant: Grant,
    since: Instant,
}

impl Gets {
    /// Checks a request's parameters, in the order that README.md gives.
    pub(crate) fn begin(self: &Arc<Self>, query: &str, headers: &HeaderMap) -> Begun {
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
            Ok(Target { key, last, wait }) => match self.admit(key) {
                Ok(Admitted { id: key, left }) => {
                    let (gets, since) = (Arc::clone(self), Instant::now());
                    let ends_with_key = left.is_some_and(|left| left <= wait);
                    let wait = left.map_or(wait, |left| left.min(wait));
                    // What is shorter than a millisecond is nobody's; a hold is ten minutes at most.
                    let wait_ms = wait.as_millis().try_into().unwrap_or(u32::MAX);
                    Begun::Held(Get { gets, key, last, wait_ms, ends_with_key, form, grant, since })
                }
                Err(why) => self.refuse_key(why, self.answer(&form, &grant, &Outcome::Gone(last), last)),
            },
            Err((mistake, last)) => {
                let what = mistake.what();
                self.refuse(what, self.answer(&form, &grant, &Outcome::Invalid(mistake), last.unwrap_or_default()))
            }
        }
    }

    fn admit(&self, key: Key) -> Result<Admitted, NotGood> {
        match &self.signing {
            Some(signing) => signing.admit(key, system_ms()),
            None => Ok(Admitted { id: key, left: None }),
        }
    }

    fn refuse_key(&self, why: NotGood, response: Response) -> Begun {
        self.metrics.get_ended(GetEnd::Gone);
        self.metrics.key_refused(why);
        debug!(outcome = GetEnd::Gone.as_str(), why = why.as_str(), "get ended");
        Begun::Answer(response)
    }

    fn refuse(&self, what: What, response: Response) -> Begun {
        self.metrics.get_ended(GetEnd::Invalid);
        debug!(outcome = GetEnd::Invalid.as_str(), %what, "get ended");
        Begun::Answer(response)
    }

    fn answer(&self, form: &Form, grant: &Grant, outcome: &Outcome, last: Version) -> Response {
        let response = response::answer(form, outcome, last, self.waiters.len(), &self.resource_policy);
        if *form == Form::Json { grant.apply(response) } else { response }
    }
}

impl Request for Get {
    fn answer(&self, outcome: &Outcome) -> Response {
        self.ended(match outcome {
            Outcome::Success(_) => GetEnd::Success,
            Outcome::Timeout => GetEnd::Timeout,
            Outcome::Retry => GetEnd::Retry,
            Outcome::Busy => GetEnd::Busy,
            Outcome::Gone(_) => GetEnd::Gone,
            Outcome::Invalid(_) => GetEnd::Invalid,
            Outcome::Unavailable => GetEnd::Unavailable,
        });
        self.gets.answer(&self.form, &self.grant, outcome, self.last)
    }

    async fn hold(parked: &Arc<Parked<Self>>, wakes: &mut Wakes) {
        let get = &parked.request;
        let deadline = get.since + get.wait();
        // What is short is on the heap, and so no part of what a task costs in its long wait.
        let end = match Box::pin(get.begin(parked, deadline, wakes)).await {
            Err(end) => end,
            Ok(waiter) => match parked.woken(deadline, wakes).await {
                Woken::Answered => End::Answered,
                woken => Box::pin(settle(parked, waiter, woken, get.at_deadline(), wakes)).await,
            },
        };
        match end {
            End::With(outcome) => parked.answer(&outcome),
            End::Answered => {}
            End::Left => get.left(),
        }
    }

    fn left(&self) {
        self.ended(GetEnd::Left);
    }

    fn woken(&self, after: Duration) {
        self.gets.metrics.woken(after);
    }

    fn wait(&self) -> Duration {
        Duration::from_millis(self.wait_ms.into())
    }
}

/// How a wait ends.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The answer is to be made of this.
    With(Outcome),
    /// A delivery has answered it.
    Answered,
    /// The client left. Nobody else answers it.
    Left,
}

impl Get {
    /// Counts and logs how it ended: by whoever ended it.
    fn ended(&self, end: GetEnd) {
        let held = self.since.elapsed();
        self.gets.metrics.get_ended(end);
        self.gets.metrics.held(held);
        let (key, held_ms) = (self.key.hashed(), millis(held));
        let (outcome, route) = (end.as_str(), "/status/get");
        // In no span: it may be the one of the set that ended it.
        debug!(parent: None, listener = "public", route, %key, outcome, held_ms, "get ended");
    }

    /// What its deadline means.
    fn at_deadline(&self) -> Outcome {
        if self.ends_with_key { Outcome::Gone(self.last) } else { Outcome::Timeout }
    }

    fn busy(&self, full: Full) -> End {
        self.gets.metrics.limit_hit(match full {
            Full::Node => Limit::Waiters,
            Full::Key => Limit::WaitersPerKey,
        });
        End::With(Outcome::Busy)
    }

    /// Opens the key; gives the waiter where there is something to wait for.
    async fn begin(&self, parked: &Arc<Parked<Self>>, deadline: Instant, wakes: &mut Wakes) -> Result<Waiter, End> {
        let Gets { waiters, store, recovery, drain, .. } = &*self.gets;
        let seen = Seen::from(self.last);
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
        // Register, *then* open, *then* wait: no status is lost. Take any set of this key. Its put and this get's
        // open are each one atomic step of the store, so one of them comes first. If the put does, open sees the
        // status. If open does, the waiter was registered before it, so before the put, and the put's delivery,
        // which follows it, finds the waiter: on this node by itself, from another by the lease that open left. Either
        // way the get has the status or a newer one; and no third way exists, such as a set between looking and
        // registering.
        //
        // Where the store is out of reach, or was and has lost the lease, the get stays registered, and `recovery`
        // opens its key in a later epoch: that open is then the one of the argument.
        let taker = Arc::<Parked<Self>>::clone(parked);
        let waiter = waiters.register(&self.key, self.last, taker).map_err(|full| self.busy(full))?;
        let epoch = store.epoch();
        let open = async { (epoch, store.open(&self.key, seen, self.wait()).await) };
        // A key that expires has no grace.
        let late = match self.ends_with_key {
            true => (deadline, Outcome::Gone(self.last)),
            false => (deadline + OPEN_GRACE, Outcome::Unavailable),
        };
        open_for(parked, waiter, open, || recovery.not_opened(), late, wakes).await
    }
}

/// Waits until a registered waiter's key is open; gives the waiter back where there is nothing new. `open` gives the epoch
/// too.
///
/// An update that comes while `open` is still under way is kept: `open` may know a newer one. Only where `open`
/// fails or comes too late is the kept one the answer by itself. `until` when it may come, and what is answered then.
async fn open_for<R: Request>(
    parked: &Parked<R>,
    waiter: Waiter,
    open: impl Future<Output = (u64, Result<Option<Update>, StoreError>)>,
    not_opened: impl FnOnce(),
    (until, too_late): (Instant, Outcome),
    wakes: &mut Wakes,
) -> Result<Waiter, End> {
    let (epoch, opened) = tokio::select! {
        biased;
        opened = open => opened,
        woken = parked.woken(until, wakes) => {
            return Err(settle(parked, waiter, woken, too_late, wakes).await);
        }
    };
    match opened {
        Ok(None) => waiter.opened(epoch),
        Ok(Some(update)) => {
            let given = if waiter.leave() == Left::Taken { parked.given(wakes).await } else { None };
            let is_newer = |given: &Update| given.version() > update.version();
            return Err(End::With(given.filter(is_newer).unwrap_or(update).into()));
        }
        // It is opened when the store is back.
        Err(StoreError::Unavailable) => not_opened(),
        Err(error) => return Err(without_update(parked, waiter, Some(failed(error)), wakes).await),
    }
    // From here on whoever delivers answers.
    match parked.opened() {
        Some(given) => Err(End::With(given.into())),
        None => Ok(waiter),
    }
}

/// How a wait ends that was interrupted.
async fn settle<R: Request>(
    parked: &Parked<R>,
    waiter: Waiter,
    woken: Woken,
    too_late: Outcome,
    wakes: &mut Wakes,
) -> End {
    let otherwise = match woken {
        Woken::Given(update) => return End::With(update.into()),
        Woken::Answered => return End::Answered,
        Woken::Deadline => Some(too_late),
        Woken::Stopping => Some(Outcome::Retry),
        Woken::Left => None,
    };
    without_update(parked, waiter, otherwise, wakes).await
}

/// How a wait ends that has nothing, unless a delivery was faster. Without an outcome the client left.
async fn without_update<R: Request>(
    parked: &Parked<R>,
    waiter: Waiter,
    otherwise: Option<Outcome>,
    wakes: &mut Wakes,
) -> End {
    match (waiter.leave(), otherwise) {
        (Left::Taken, otherwise) => match (parked.given(wakes).await, otherwise) {
            (None, _) => End::Answered,
            (Some(update), Some(_)) => End::With(update.into()),
            (Some(_), None) => End::Left,
        },
        (_, None) => End::Left,
        (Left::Unopened, Some(Outcome::Timeout)) => End::With(Outcome::Unavailable),
        (_, Some(otherwise)) => End::With(otherwise),
    }
}

fn failed(error: StoreError) -> Outcome {
    match error {
        StoreError::Full => Outcome::Busy,
        StoreError::Conflict(_) | StoreError::Unavailable | StoreError::Unknown => Outcome::Unavailable,
    }
}

/// Whether a browser would show the answer as a page or embed it as one: then it runs with our origin's rights,
/// or shows a user what somebody else wrote into the URL. Pages cannot forge this header.
fn would_be_shown(headers: &HeaderMap) -> bool {
    const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");
    let shown: [&[u8]; 5] = [b"document", b"iframe", b"frame", b"object", b"embed"];
    headers.get_all(SEC_FETCH_DEST).iter().any(|dest| shown.contains(&dest.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::time::Duration;

    use tokio::net::UnixStream;
    use tokio::sync::oneshot;

    use super::*;
    use crate::listener::Stream;
    use crate::park::Exchange;
    use crate::stop::{State, Stop, Watch};
    use crate::timer::Timer;
    use crate::waiters::Taker;

    const SECOND: Duration = Duration::from_secs(1);

    /// A request that is answered by nothing much.
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

    /// One get at its wait, and what it waits for.
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
            let wakes = Wakes { timer: Timer::default(), stop: Watch::new(Arc::clone(&stop)) };
            let exchange = Exchange { is_old: false, is_last: false };
            let parked = Arc::new(Parked::new(Plain, exchange, Stream::Unix(stream), Box::default(), SECOND, &wakes));
            let waiters = Waiters::new(10, 10);
            let taker = Arc::<Parked<Plain>>::clone(&parked);
            let waiter = waiters.register(&key(), version(1), taker).expect("room");
            (Self { waiters, parked, wakes, stop, client }, waiter)
        }

        /// Opens and waits, until the end.
        async fn wait<O>(&mut self, waiter: Waiter, open: O, not_opened: impl FnOnce(), deadline: Instant) -> End
        where
            O: Future<Output = (u64, Opened)>,
        {
            let late = (deadline + OPEN_GRACE, Outcome::Unavailable);
            match open_for(&self.parked, waiter, open, not_opened, late, &mut self.wakes).await {
                Ok(waiter) => {
                    let woken = self.parked.woken(deadline, &mut self.wakes).await;
                    settle(&self.parked, waiter, woken, Outcome::Timeout, &mut self.wakes).await
                }
                Err(end) => end,
            }
        }

        /// Ends as a trial should: with nothing left.
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

    /// Runs a wait whose `open` is answered only after `delivered` came.
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
        assert!(!waiting.is_finished(), "an update that comes while open is under way is kept");
        answer.send(opened).expect("waited for");
        let End::With(outcome) = waiting.await.expect("no panic") else { panic!("not to be answered by its task") };
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
            let (mut trial, waiter) = Trial::new();
            if delivered {
                trial.waiters.deliver(&key(), &gone(5));
            }
            if drained {
                trial.stop.advance(State::Stopping);
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
        trial.stop.advance(State::Stopping);
        let end = trial.wait(waiter, opened(), || (), Instant::now()).await;
        assert_eq!(end, End::With(Outcome::Retry));
        let (mut trial, waiter) = Trial::new();
        trial.waiters.deliver(&key(), &gone(5));
        trial.stop.advance(State::Stopping);
        let end = trial.wait(waiter, opened(), || (), Instant::now()).await;
        assert_eq!(end, End::With(Outcome::Gone(version(5))));
        trial.check_empty();
    }

    #[tokio::test]
    async fn an_opened_wait_is_answered_by_who_delivers_and_its_task_hears_of_it_later() {
        let (mut trial, waiter) = Trial::new();
        let (other, _) = UnixStream::pair().expect("a pair of sockets");
        let (waiters, client) = (Arc::clone(&trial.waiters), std::mem::replace(&mut trial.client, other));
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
        // What the client sends next wakes it.
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
            let open = async { if opens { (1, Ok(None)) } else { pending().await } };
            let end = trial.wait(waiter, open, || (), far()).await;
            assert_eq!(end, End::Left);
            trial.check_empty();
        }
    }

    #[tokio::test]
    async fn a_get_that_the_store_did_not_open_waits_for_it_and_then_says_so() {
        let failed = || ready((0, Err(StoreError::Unavailable)));
        for (opened_later, expected) in [(false, Outcome::Unavailable), (true, Outcome::Timeout)] {
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

    /// A taker that breaks what delivers to it.
    #[derive(Debug)]
    struct Broken;

    impl Taker for Broken {
        fn take(&self, _: &Update, _: Option<Instant>, _: bool) {
            panic!("this panic is meant");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_whose_delivery_panicked_ends_without_an_answer_and_not_never() {
        let (mut trial, _) = Trial::new();
        let waiter = trial.waiters.register(&key(), version(1), Arc::new(Broken)).expect("room");
        let waiters = Arc::clone(&trial.waiters);
        let delivers = std::panic::AssertUnwindSafe(move || waiters.deliver(&key(), &gone(5)));
        assert!(std::panic::catch_unwind(delivers).is_err());
        let end = settle(&trial.parked, waiter, Woken::Deadline, Outcome::Timeout, &mut trial.wakes).await;
        assert_eq!(end, End::Answered);
        trial.check_empty();
    }
}
