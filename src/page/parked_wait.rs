//! The wait of a held request: the two halves that [`crate::wait`] joins.

use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::Instant;

use crate::model::status::Update;
use crate::net::parked::{Carrier, Parked, Request, Wakes};
use crate::runtime::right_to_answer::{DeliveryEnd, Interruption};
use crate::wait::{News, SharedHalf, Waiting};
use crate::waiters::Taker;

/// The half that only the request's own task uses.
#[derive(Debug)]
pub(super) struct ParkedWait<'a, R: Request, C> {
    pub(super) parked: &'a Arc<Parked<R, C>>,
    pub(super) wakes: &'a mut Wakes,
}

impl<R: Request<News = News>, C: Carrier> Waiting for ParkedWait<'_, R, C> {
    type Shared = Parked<R, C>;

    fn shared(&self) -> &Arc<Parked<R, C>> {
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

impl<R: Request<News = News>, C: Carrier> SharedHalf for Parked<R, C> {
    fn allow_answer(&self) -> Option<News> {
        self.let_deliveries_answer()
    }

    fn poll_delivery_end(&self, cx: &mut Context<'_>) -> Poll<DeliveryEnd<News>> {
        self.poll_delivered(cx)
    }
}

impl<R: Request<News = News>, C: Carrier> Taker for Parked<R, C> {
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
