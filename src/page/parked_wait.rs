//! The wait of a parked connection: the two halves that [`crate::wait`] joins.

use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::Instant;

use crate::model::status::Update;
use crate::net::parked::{Parked, Request, Wakes};
use crate::runtime::right_to_answer::{DeliveryEnd, Interruption};
use crate::wait::{News, Waiting};
use crate::waiters::Taker;

/// The half that the connection's own task uses.
#[derive(Debug)]
pub(super) struct ParkedWait<'a, R: Request> {
    pub(super) parked: &'a Arc<Parked<R>>,
    pub(super) wakes: &'a mut Wakes,
}

impl<R: Request<News = News>> Waiting for ParkedWait<'_, R> {
    fn taker(&self) -> Arc<dyn Taker> {
        Arc::<Parked<R>>::clone(self.parked)
    }

    fn allow_answer(&self) -> Option<News> {
        self.parked.allow_answer()
    }

    fn poll_interrupted(
        &mut self,
        deadline: Instant,
        cx: &mut Context<'_>,
    ) -> Poll<Interruption<News>> {
        self.parked.poll_interrupted(deadline, self.wakes, cx)
    }

    fn poll_delivery_end(&self, cx: &mut Context<'_>) -> Poll<DeliveryEnd<News>> {
        self.parked.poll_delivery_end(cx)
    }
}

/// The half to which news is delivered.
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
