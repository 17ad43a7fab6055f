//! The wait of a parked connection: the two halves that [`crate::wait`] joins.

use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::Instant;

use crate::model::status::Update;
use crate::net::parked::{Parked, Request, Wakes};
use crate::runtime::right_to_answer::{DeliveryEnd, Interruption};
use crate::wait::{News, SharedHalf, Waiting};
use crate::waiters::Taker;

/// The half that only the connection's own task uses.
#[derive(Debug)]
pub(super) struct ParkedWait<'a, R: Request> {
    pub(super) parked: &'a Arc<Parked<R>>,
    pub(super) wakes: &'a mut Wakes,
}

impl<R: Request<News = News>> Waiting for ParkedWait<'_, R> {
    type Shared = Parked<R>;

    fn shared(&self) -> &Arc<Parked<R>> {
        self.parked
    }

    fn poll_interrupted(
        &mut self,
        deadline: Instant,
        cx: &mut Context<'_>,
    ) -> Poll<Interruption<News>> {
        self.parked.poll_interrupted(deadline, self.wakes, cx)
    }
}

impl<R: Request<News = News>> SharedHalf for Parked<R> {
    fn allow_answer(&self) -> Option<News> {
        self.let_deliveries_answer()
    }

    fn poll_delivery_end(&self, cx: &mut Context<'_>) -> Poll<DeliveryEnd<News>> {
        self.poll_delivered(cx)
    }
}

impl<R: Request<News = News>> Taker for Parked<R> {
    fn deliver(&self, update: &Update, since: Option<Instant>, at_once: bool) {
        let news = News {
            update: update.clone(),
            since,
        };
        self.take_news(news, at_once);
    }

    fn abandon(&self) {
        self.note_panic();
    }
}

#[cfg(test)]
mod tests;
