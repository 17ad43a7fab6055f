//! The one way to wait for news of a key: register, *then* open the key, *then* wait. Gets, event
//! streams, WebSockets and the health probe use it, each through its own [`Waiting`]. It knows no
//! HTTP and no connection.
//!
//! The types keep the order: only a [`Registered`] waiter can open its key, and only an
//! [`Opened`] one can wait.
//!
//! # Why no status is lost
//! Take any set of the key. It puts the status in the store, and then it delivers the status to
//! the waiters. The put and the waiter's open are each one atomic step of the store, so one of
//! them comes first.
//!
//! - The put comes first. Then the open finds the status.
//! - The open comes first. The waiter registered before it opened, so it is registered before
//!   the put, and thus before the delivery. So the delivery finds the waiter: on this node in
//!   the registry, and from another node by the lease that the open left.
//!
//! Either way the waiter gets the status or a newer one. There is no third way, such as a set
//! between the look at the store and the registration.
//!
//! If the store is unreachable, or has lost the lease in an outage, the waiter stays registered,
//! and [`Recovery`] opens its key later. The proof then holds for that open.
//!
//! # Why nothing older is answered
//! An open may find a status while a delivery brings another one. The newer of the two is the
//! answer. So news that is delivered before the key is open is kept until the open has ended. It is
//! the answer if the open finds nothing newer, fails or comes too late.
//!
//! # Why there is one answer
//! See [`crate::runtime::right_to_answer`]. A waiter that ends without news leaves the registry
//! first. If a delivery has already taken it out of the registry, the waiter waits for the end of
//! that delivery, which decides how the wait ends.
//!
//! # Waiters that stay
//! A page that follows a key on one connection would open it again for each status. Instead its
//! waiter stays in the registry while it gets news, and one open serves for the whole wait: each
//! put after that open finds the waiter, as above. If the waiter leaves, and the registry noted
//! that it knows a newer version than it has heard of, it waits for the delivery of that version.
//!
//! `make loom` tries all orders of the steps of these rules.

mod counted;
mod mailbox;

#[cfg(all(test, feature = "loom-tests"))]
mod loom_tests;

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use self::counted::CountedTaker;
pub(crate) use self::mailbox::{Mailbox, Slot};
use crate::cluster::recovery::Recovery;
use crate::model::cause::Cause;
use crate::model::key::Key;
use crate::model::status::{Seen, Update, Version};
use crate::net::clients::CountedWaiter;
use crate::runtime::right_to_answer::{DeliveryEnd, Interruption};
use crate::store::{Store, StoreError};
use crate::waiters::{Full, Left, Taker, Waiter, Waiters};

/// News of a key: an update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct News {
    pub(crate) update: Update,
    /// When the set that made the update was accepted, if a delivery brought it and knows that.
    pub(crate) since: Option<Instant>,
}

/// The half of a wait that only its task uses.
pub(crate) trait Waiting: Send {
    /// The other half.
    type Shared: SharedHalf;

    /// Returns the other half.
    fn shared(&self) -> &Arc<Self::Shared>;

    /// Becomes ready when something interrupts the wait, at the latest at `deadline`. Before
    /// [`SharedHalf::allow_answer`] is called, the delivery of news does not interrupt it.
    // Not a future, because one would add to the memory of each task that waits.
    fn poll_interrupted(
        &mut self,
        deadline: Instant,
        cx: &mut Context<'_>,
    ) -> Poll<Interruption<News>>;
}

/// The half of a wait that its task shares with the deliveries. It is the [`Taker`] in the registry,
/// so they bring it news.
pub(crate) trait SharedHalf: Taker + Sized + 'static {
    /// Notes that the key is open: from here on a delivery may answer. Returns the news that was
    /// delivered before, if there was any and it ends the wait.
    fn allow_answer(&self) -> Option<News>;

    /// Becomes ready when the delivery that has taken the waiter out of the registry has ended.
    fn poll_delivery_end(&self, cx: &mut Context<'_>) -> Poll<DeliveryEnd<News>>;

    /// Returns the version that the waiter has heard of, if it stays in the registry while it gets
    /// news.
    fn heard(&self) -> Option<Version> {
        None
    }
}

impl<W: Waiting> Waiting for &mut W {
    type Shared = W::Shared;

    fn shared(&self) -> &Arc<Self::Shared> {
        W::shared(self)
    }

    fn poll_interrupted(
        &mut self,
        deadline: Instant,
        cx: &mut Context<'_>,
    ) -> Poll<Interruption<News>> {
        W::poll_interrupted(self, deadline, cx)
    }
}

/// The end of a wait.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The task is to answer with this news.
    News(News),
    /// A delivery has answered.
    Answered,
    /// The delivery that was to answer panicked. The status is in the store.
    Abandoned,
    /// The client left. Nobody answers it.
    Left,
    /// The deadline came.
    Deadline {
        /// Why the key was not open. `None` if it was open, so there is nothing new.
        unopened: Option<Cause>,
    },
    /// The node drains.
    Stopping,
    /// The store refused to open the key.
    Refused(StoreError),
}

/// A waiter that is registered, and whose key is not open yet.
#[derive(Debug)]
pub(crate) struct Registered<W> {
    place: Place<W>,
    /// The version that the waiter knows.
    last: Version,
}

/// A waiter that is registered, and whose key is open or will be opened by [`Recovery`].
#[derive(Debug)]
pub(crate) struct Opened<W> {
    place: Place<W>,
    /// Why the key is not open at the deadline, if it is not.
    cause: Cause,
}

/// A waiter in the registry, and its wait.
#[derive(Debug)]
struct Place<W> {
    waiting: W,
    waiter: Waiter,
}

impl<W: Waiting> Registered<W> {
    /// Registers a waiter that knows the key up to version `last`. `counted` is there if the waiter
    /// counts for its client's address. It ends when the waiter leaves the registry.
    ///
    /// # Errors
    /// [`Full`] if a limit is reached. Then nothing is registered.
    pub(crate) fn new(
        waiters: &Arc<Waiters>,
        key: &Key,
        last: Version,
        waiting: W,
        counted: Option<CountedWaiter>,
    ) -> Result<Self, Full> {
        let shared = Arc::<W::Shared>::clone(waiting.shared());
        let taker: Arc<dyn Taker> = match counted {
            None => shared,
            Some(counted) => Arc::new(CountedTaker { shared, counted }),
        };
        let waiter = waiters.register(key, last, taker)?;
        let place = Place { waiting, waiter };
        Ok(Self { place, last })
    }

    /// Registers a waiter that the node itself needs, as for its health check. It is registered
    /// even if the node is full.
    pub(crate) fn own(waiters: &Arc<Waiters>, key: &Key, last: Version, waiting: W) -> Self {
        let waiter = waiters.register_own(key, last, Arc::<W::Shared>::clone(waiting.shared()));
        let place = Place { waiting, waiter };
        Self { place, last }
    }

    /// Opens the key in the store for a wait of `hold`, and gives the store time until `until`.
    /// Returns the opened waiter if it has to wait, otherwise the end of the wait.
    ///
    /// # Cancel safety
    /// If it is dropped, the waiter leaves the registry.
    pub(crate) async fn open(
        self,
        store: &Store,
        recovery: Option<&Recovery>,
        hold: Duration,
        until: Instant,
    ) -> Result<Opened<W>, End> {
        let (key, seen, epoch) = (
            self.place.waiter.key().clone(),
            Seen::from(self.last),
            store.epoch(),
        );
        let open = async { (epoch, store.open(&key, seen, hold).await) };
        let not_opened = || {
            if let Some(recovery) = recovery {
                recovery.not_opened();
            }
        };
        self.open_by(open, not_opened, until).await
    }

    /// Opens the key like [`Self::open`]. The future `open` asks the store, and also returns the
    /// epoch that the store had before it was asked. Calls `not_opened` if the store is
    /// unreachable.
    ///
    /// # Cancel safety
    /// If it is dropped, the waiter leaves the registry.
    pub(crate) async fn open_by(
        self,
        open: impl Future<Output = (u64, Result<Option<Update>, StoreError>)>,
        not_opened: impl FnOnce(),
        until: Instant,
    ) -> Result<Opened<W>, End> {
        let mut place = self.place;
        let (epoch, opened) = tokio::select! {
            biased;
            opened = open => opened,
            interruption = poll_fn(|cx| place.waiting.poll_interrupted(until, cx)) => {
                return Err(place.end(interruption, Cause::Late).await);
            }
        };
        // If the store loses a key that was open, `Recovery` opens it again.
        let mut cause = Cause::Late;
        match opened {
            Ok(None) => place.waiter.note_opened(epoch),
            Ok(Some(update)) => return Err(place.found(update).await),
            // `Recovery` opens the key when the store is back.
            Err(StoreError::Unavailable(why)) => {
                cause = why;
                not_opened();
            }
            Err(error) => return Err(place.leave_with(End::Refused(error)).await),
        }
        // From here on a delivery may answer by itself.
        match place.waiting.shared().allow_answer() {
            Some(news) => Err(End::News(news)),
            None => Ok(Opened { place, cause }),
        }
    }
}

impl<W: Waiting> Opened<W> {
    /// Becomes ready when something interrupts the wait, at the latest at `deadline`. If that is
    /// news for a waiter that stays in the registry, the wait goes on. Otherwise it must be ended by
    /// [`Self::end`].
    pub(crate) fn poll_interrupted(
        &mut self,
        deadline: Instant,
        cx: &mut Context<'_>,
    ) -> Poll<Interruption<News>> {
        self.place.waiting.poll_interrupted(deadline, cx)
    }

    /// Returns the half of the wait that only its task uses.
    pub(crate) fn waiting(&mut self) -> &mut W {
        &mut self.place.waiting
    }

    /// Returns how a wait ends that was interrupted.
    ///
    /// # Cancel safety
    /// If it is dropped, the waiter leaves the registry.
    pub(crate) fn end(self, interruption: Interruption<News>) -> impl Future<Output = End> {
        self.place.end(interruption, self.cause)
    }

    /// Waits until the end, at the latest until `deadline`.
    ///
    /// # Cancel safety
    /// If it is dropped, the waiter leaves the registry.
    // Not an `async fn`, because that would keep its arguments twice.
    pub(crate) fn wait(self, deadline: Instant) -> impl Future<Output = End> {
        // Two variables, because one struct of both would make each task larger.
        let Self { mut place, cause } = self;
        async move {
            match poll_fn(|cx| place.waiting.poll_interrupted(deadline, cx)).await {
                Interruption::Delivery(DeliveryEnd::Answered) => End::Answered,
                // Boxed, so that it does not add to the memory of a task during its long wait.
                interruption => Box::pin(place.end(interruption, cause)).await,
            }
        }
    }
}

impl<W: Waiting> Place<W> {
    /// Returns how an interrupted wait ends. `cause` says why the key is not open, if it is not.
    async fn end(self, interruption: Interruption<News>, cause: Cause) -> End {
        match interruption {
            Interruption::Delivery(end) => end.into(),
            Interruption::Deadline => match self.leave().await {
                Ok(is_open) => End::Deadline {
                    unopened: (!is_open).then_some(cause),
                },
                Err(end) => end.into(),
            },
            Interruption::Stopping => self.leave_with(End::Stopping).await,
            Interruption::Left => match self.leave().await {
                Err(DeliveryEnd::Answered) => End::Answered,
                _ => End::Left,
            },
        }
    }

    /// Leaves the registry because the open has found an update. Ends the wait with that update, or
    /// with a newer one that was delivered meanwhile.
    async fn found(self, update: Update) -> End {
        let found = News {
            update,
            since: None,
        };
        match self.leave().await {
            Ok(_) | Err(DeliveryEnd::Abandoned) => End::News(found),
            Err(DeliveryEnd::Answered) => End::Answered,
            Err(DeliveryEnd::Handed(news)) if news.update.version() > found.update.version() => {
                End::News(news)
            }
            Err(DeliveryEnd::Handed(News { since, .. })) => End::News(News { since, ..found }),
        }
    }

    /// Leaves the registry and ends the wait with `end`, unless a delivery decides how it ends.
    async fn leave_with(self, end: End) -> End {
        match self.leave().await {
            Ok(_) => end,
            Err(end) => end.into(),
        }
    }

    /// Leaves the registry. Returns whether the key was open.
    ///
    /// # Errors
    /// If a delivery has already taken the waiter out, the end of that delivery. It comes soon, and
    /// there would be no other answer.
    async fn leave(self) -> Result<bool, DeliveryEnd<News>> {
        let Self { waiting, waiter } = self;
        let left = match waiting.shared().heard() {
            None => waiter.leave(),
            Some(heard) => waiter.leave_after(heard),
        };
        match left {
            Left::Opened => Ok(true),
            Left::Unopened => Ok(false),
            Left::Taken => Err(poll_fn(|cx| waiting.shared().poll_delivery_end(cx)).await),
            Left::Behind(version) => loop {
                match poll_fn(|cx| waiting.shared().poll_delivery_end(cx)).await {
                    // The news of an earlier delivery.
                    DeliveryEnd::Handed(news) if news.update.version() < version => {}
                    end => return Err(end),
                }
            },
        }
    }
}

impl From<DeliveryEnd<News>> for End {
    fn from(end: DeliveryEnd<News>) -> Self {
        match end {
            DeliveryEnd::Handed(news) => Self::News(news),
            DeliveryEnd::Answered => Self::Answered,
            DeliveryEnd::Abandoned => Self::Abandoned,
        }
    }
}
