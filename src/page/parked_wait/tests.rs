use bytes::Bytes;
use std::future::{Future, pending, poll_fn, ready};
use std::sync::mpsc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::oneshot;

use super::*;
use crate::http::response::Response;
use crate::model::cause::Cause;
use crate::model::key::Key;
use crate::model::status::Version;
use crate::net::closing::{Course, Stop};
use crate::net::encode::Exchange;
use crate::net::parked::connection::Connection;
use crate::net::stream::Stream;
use crate::store::StoreError;
use crate::wait::{End, Registered};
use crate::waiters::Waiters;

const SECOND: Duration = Duration::from_secs(1);

/// A request with an empty answer.
#[derive(Debug)]
struct Plain;

impl Request for Plain {
    type News = News;
    type Outcome = News;

    fn answer(&self, _: &News) -> Response {
        Response::default()
    }

    fn left(&self) {}

    fn wait(&self) -> Duration {
        Duration::ZERO
    }

    async fn hold<C: Carrier>(_: &Arc<Parked<Self, C>>, _: &mut Wakes) {}
}

/// One parked request, and the things it waits for.
struct Trial {
    waiters: Arc<Waiters>,
    parked: Arc<Parked<Plain, Connection>>,
    stop: Arc<Stop>,
    client: UnixStream,
}

impl Trial {
    fn new() -> (Self, Wakes) {
        let (stream, client) = UnixStream::pair().expect("a pair of sockets");
        let stop = Arc::<Stop>::default();
        let wakes = Wakes::new(&stop);
        let exchange = Exchange {
            is_old: false,
            is_last: false,
        };
        let parked = Arc::new(Parked::connection(
            Plain,
            exchange,
            Stream::Unix(stream),
            Bytes::new(),
            SECOND,
            &wakes,
        ));
        let trial = Self {
            waiters: Waiters::new(10, 10),
            parked,
            stop,
            client,
        };
        (trial, wakes)
    }

    fn register<'a>(
        &'a self,
        wakes: &'a mut Wakes,
    ) -> Registered<ParkedWait<'a, Plain, Connection>> {
        let parked = &self.parked;
        let waiting = ParkedWait { parked, wakes };
        Registered::new(&self.waiters, &key(), version(1), waiting, None).expect("room")
    }

    /// Checks that the trial has left nothing behind.
    fn check_empty(&self) {
        assert_eq!((self.waiters.len(), self.waiters.keys()), (0, 0));
    }
}

/// Opens and waits until the end. The store has half a second more than the wait.
async fn wait(
    registered: Registered<ParkedWait<'_, Plain, Connection>>,
    open: impl Future<Output = (u64, Found)>,
    not_opened: impl FnOnce(),
    deadline: Instant,
) -> End {
    let until = deadline + SECOND / 2;
    match registered.open_by(open, not_opened, until).await {
        Ok(opened) => opened.wait(deadline).await,
        Err(end) => end,
    }
}

fn version(number: u64) -> Version {
    Version::new(number).expect("good")
}

fn gone(number: u64) -> Update {
    Update::Gone(version(number))
}

/// Returns the end of a wait with the news that the key was deleted at this version.
fn news(number: u64) -> End {
    End::News(News {
        update: gone(number),
        since: None,
    })
}

fn key() -> Key {
    Key::parse("k").expect("good")
}

type Found = Result<Option<Update>, StoreError>;

fn far() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

const UNOPENED: End = End::Deadline {
    unopened: Some(Cause::Late),
};
const NOTHING_NEW: End = End::Deadline { unopened: None };

/// Runs a wait whose `open` is answered only after the updates in `delivered` came.
async fn end_of(delivered: &[Update], opened: Found) -> End {
    let (trial, mut wakes) = Trial::new();
    let (answer, open) = oneshot::channel();
    let open = async { (1, open.await.expect("answered")) };
    let (waiters, delivered) = (Arc::clone(&trial.waiters), delivered.to_vec());
    let waiting = tokio::spawn(async move {
        let registered = trial.register(&mut wakes);
        for update in delivered {
            trial.waiters.deliver(&key(), &update);
        }
        wait(registered, open, || (), far()).await
    });
    tokio::task::yield_now().await;
    assert!(
        !waiting.is_finished(),
        "an update that comes while open is under way is kept"
    );
    answer.send(opened).expect("waited for");
    let end = waiting.await.expect("no panic");
    assert_eq!((waiters.len(), waiters.keys()), (0, 0));
    end
}

#[tokio::test]
async fn of_what_open_knows_and_what_was_delivered_the_newer_is_the_answer() {
    assert_eq!(end_of(&[gone(5)], Ok(Some(gone(7)))).await, news(7));
    assert_eq!(end_of(&[gone(7)], Ok(Some(gone(5)))).await, news(7));
    assert_eq!(end_of(&[gone(5)], Ok(None)).await, news(5));
    assert_eq!(end_of(&[], Ok(Some(gone(5)))).await, news(5));
}

#[tokio::test]
async fn what_was_delivered_is_the_answer_where_the_store_fails() {
    let unavailable = || Err(StoreError::Unavailable(Cause::Late));
    assert_eq!(end_of(&[gone(5)], unavailable()).await, news(5));
    assert_eq!(end_of(&[gone(5)], Err(StoreError::Full)).await, news(5));
    assert_eq!(
        end_of(&[], Err(StoreError::Full)).await,
        End::Refused(StoreError::Full)
    );
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_ends_with_the_deadline_or_the_drain() {
    for (delivered, drained, expected) in [
        (true, false, news(5)),
        (false, false, UNOPENED),
        (true, true, news(5)),
        (false, true, End::Stopping),
    ] {
        let (trial, mut wakes) = Trial::new();
        let registered = trial.register(&mut wakes);
        if delivered {
            trial.waiters.deliver(&key(), &gone(5));
        }
        if drained {
            trial.stop.advance(Course::Stopping);
        }
        let deadline = if drained { far() } else { Instant::now() };
        let end = wait(registered, pending(), || (), deadline).await;
        assert_eq!(end, expected);
        trial.check_empty();
    }
}

#[tokio::test]
async fn an_opened_wait_ends_with_a_status_the_deadline_or_the_drain() {
    let opened = || ready((1, Ok(None)));
    let (trial, mut wakes) = Trial::new();
    let registered = trial.register(&mut wakes);
    let end = wait(registered, opened(), || (), Instant::now()).await;
    assert_eq!(end, NOTHING_NEW);
    let (trial, mut wakes) = Trial::new();
    let registered = trial.register(&mut wakes);
    trial.stop.advance(Course::Stopping);
    let end = wait(registered, opened(), || (), Instant::now()).await;
    assert_eq!(end, End::Stopping);
    let (trial, mut wakes) = Trial::new();
    let registered = trial.register(&mut wakes);
    trial.waiters.deliver(&key(), &gone(5));
    trial.stop.advance(Course::Stopping);
    let end = wait(registered, opened(), || (), Instant::now()).await;
    assert_eq!(end, news(5));
    trial.check_empty();
}

#[tokio::test]
async fn an_opened_wait_is_answered_by_who_delivers_and_its_task_hears_of_it_later() {
    let (mut trial, mut wakes) = Trial::new();
    let (other, _) = UnixStream::pair().expect("a pair of sockets");
    let (waiters, client) = (
        Arc::clone(&trial.waiters),
        std::mem::replace(&mut trial.client, other),
    );
    let (end, told) = oneshot::channel();
    let task = tokio::spawn(async move {
        let registered = trial.register(&mut wakes);
        let ended = wait(registered, ready((1, Ok(None))), || (), far()).await;
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
        let (mut trial, mut wakes) = Trial::new();
        let (client, other) = UnixStream::pair().expect("a pair of sockets");
        drop((std::mem::replace(&mut trial.client, client), other));
        let open = async {
            if opens {
                (1, Ok(None))
            } else {
                pending().await
            }
        };
        let registered = trial.register(&mut wakes);
        let end = wait(registered, open, || (), far()).await;
        assert_eq!(end, End::Left);
        trial.check_empty();
    }
}

#[tokio::test]
async fn a_get_that_the_store_did_not_open_waits_for_it_and_then_says_so() {
    let failed = || ready((0, Err(StoreError::Unavailable(Cause::Late))));
    for (opened_later, expected) in [(false, UNOPENED), (true, NOTHING_NEW)] {
        let (trial, mut wakes) = Trial::new();
        let registered = trial.register(&mut wakes);
        let opens = || {
            if opened_later {
                trial.waiters.note_opened_again(&key(), u64::MAX, 1);
            }
        };
        let end = wait(registered, failed(), opens, Instant::now()).await;
        assert_eq!(end, expected);
    }
    let (trial, mut wakes) = Trial::new();
    let registered = trial.register(&mut wakes);
    let finds = || {
        trial.waiters.deliver(&key(), &gone(5));
    };
    let end = wait(registered, failed(), finds, far()).await;
    assert_eq!(end, news(5));
    trial.check_empty();
}

/// A taker that stops a delivery until it is let go, or makes it panic.
#[derive(Debug)]
struct Hindrance(std::sync::Mutex<mpsc::Receiver<bool>>);

impl Taker for Hindrance {
    fn deliver(&self, _: &Update, _: Option<Instant>, _: bool) {
        let goes_on = self.0.lock().expect("not poisoned").recv().expect("let go");
        assert!(goes_on, "this panic is meant");
    }

    fn abandon(&self) {}
}

/// Ends a wait whose waiter a delivery has taken out of the registry. Two seconds later the
/// delivery gives it the update, or panics.
async fn end_behind_a_slow_delivery<O: Future<Output = (u64, Found)>>(
    goes_on: bool,
    open: O,
    at: Instant,
) -> End {
    let (trial, mut wakes) = Trial::new();
    // The hindrance must be registered before the request's own waiter.
    let (let_go, hindrance) = mpsc::channel();
    let hindrance = Arc::new(Hindrance(std::sync::Mutex::new(hindrance)));
    let _first = trial
        .waiters
        .register(&key(), version(1), hindrance)
        .expect("room");
    let registered = trial.register(&mut wakes);
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
        let end = wait(registered, open, || (), at).await;
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
    // A request whose key is still being opened, or is opened with news, answers by itself.
    let found = || ready((1, Ok(Some(gone(4)))));
    assert_eq!(
        end_behind_a_slow_delivery(true, found(), far()).await,
        news(5)
    );
    let late = Instant::now();
    assert_eq!(
        end_behind_a_slow_delivery(true, pending(), late).await,
        news(5)
    );
}

#[tokio::test(start_paused = true)]
async fn a_wait_whose_delivery_panicked_is_answered_by_its_own_task() {
    let opened = || ready((1, Ok(None)));
    for at in [Instant::now(), far()] {
        let end = end_behind_a_slow_delivery(false, opened(), at).await;
        assert_eq!(end, End::Abandoned);
    }
    let found = || ready((1, Ok(Some(gone(4)))));
    assert_eq!(
        end_behind_a_slow_delivery(false, found(), far()).await,
        news(4)
    );
}

#[tokio::test]
async fn an_answer_is_not_replaced_by_what_comes_behind_it() {
    let (trial, mut wakes) = Trial::new();
    let registered = trial.register(&mut wakes);
    assert_eq!(trial.parked.let_deliveries_answer(), None);
    trial.parked.answer(&News {
        update: gone(4),
        since: None,
    });
    trial.parked.deliver(&gone(5), None, true);
    trial.parked.deliver(&gone(5), None, false);
    trial.parked.abandon();
    let end = poll_fn(|cx| trial.parked.poll_delivered(cx)).await;
    assert_eq!(end, DeliveryEnd::Answered);
    drop(registered);
    trial.check_empty();
}
