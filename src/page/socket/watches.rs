//! The keys that a page follows on its socket, each by a [`Watch`].

use std::ops::{Index, IndexMut};
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::Instant;

use super::watch::Watch;
use crate::model::key::Key;
use crate::page::followed::Heard;
use crate::page::get::GetHandler;

/// The place of a watch, and its news or the end of its wait.
pub(super) type HeardAt = (usize, Heard);

/// The watches of a socket, at most one of each key. Unless there are none, one of them is the
/// socket's first key. The others take further keys.
#[derive(Default)]
pub(super) struct Watches {
    list: Vec<Watch>,
    /// The place of the watch that has its turn first.
    turn: usize,
}

impl Index<usize> for Watches {
    type Output = Watch;

    fn index(&self, at: usize) -> &Watch {
        &self.list[at]
    }
}

impl IndexMut<usize> for Watches {
    fn index_mut(&mut self, at: usize) -> &mut Watch {
        &mut self.list[at]
    }
}

impl Watches {
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Returns the place of the watch that the page calls `name`.
    pub(super) fn place(&self, name: &Key) -> Option<usize> {
        self.list.iter().position(|watch| watch.name == *name)
    }

    /// Returns whether the next watch takes a further key. It replaces the one at `place`, or is
    /// added if that is `None`.
    pub(super) fn is_further(&self, place: Option<usize>) -> bool {
        match place {
            Some(at) => self.list[at].is_further,
            None => self.list.iter().any(|watch| !watch.is_further),
        }
    }

    /// Replaces the watch at this place, or adds one.
    pub(super) fn put(&mut self, place: Option<usize>, watch: Watch) {
        if let Some(at) = place {
            self.list[at] = watch;
            return;
        }
        if self.list.is_empty() {
            // Most sockets have one key, and a vector's first growth would make room for four.
            self.list.reserve_exact(1);
        }
        self.list.push(watch);
    }

    /// Ends a watch. If it was the socket's first key, another watch becomes that.
    pub(super) fn remove(&mut self, at: usize) {
        self.list.remove(at);
        if self.list.iter().all(|watch| watch.is_further)
            && let Some(first) = self.list.first_mut()
        {
            first.become_first();
        }
    }

    /// Returns when the next watch must be polled again: see [`Watch::due`].
    pub(super) fn due(&self) -> Option<Instant> {
        let now = Instant::now();
        self.list.iter().filter_map(|watch| watch.due(now)).min()
    }

    /// Carries on with each watch while the page does not read: see [`Watch::advance`].
    pub(super) fn advance(&mut self, cx: &mut Context<'_>) {
        self.list.iter_mut().for_each(|watch| watch.advance(cx));
    }

    /// Becomes ready when one of the watches does: see [`Watch::poll`].
    pub(super) fn poll(
        &mut self,
        handler: &Arc<GetHandler>,
        cx: &mut Context<'_>,
    ) -> Poll<HeardAt> {
        let count = self.list.len();
        for offset in 0..count {
            let at = (self.turn + offset) % count;
            if let Poll::Ready(heard) = self.list[at].poll(handler, cx) {
                // A key with many statuses must not keep the others waiting.
                self.turn = at + 1;
                return Poll::Ready((at, heard));
            }
        }
        Poll::Pending
    }

    /// Carries on in a drain. Becomes ready when a wait has ended, or with `None` when no key is
    /// being opened. A key that is being opened may have a status, which the page is still sent.
    pub(super) fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<Option<HeardAt>> {
        let mut begins = false;
        for (at, watch) in self.list.iter_mut().enumerate() {
            watch.advance(cx);
            if let Some(heard) = watch.take_end() {
                return Poll::Ready(Some((at, heard)));
            }
            begins |= watch.begins();
        }
        if begins {
            Poll::Pending
        } else {
            Poll::Ready(None)
        }
    }
}
