//! The bytes of an answer that h2 was given, and how many of them it has not sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Context;

use bytes::{Buf, Bytes};
use futures_util::task::AtomicWaker;

/// The number of bytes of an answer that h2 was given and has not sent.
#[derive(Debug, Default)]
pub(super) struct Unsent {
    bytes: AtomicUsize,
    /// The task of the stream.
    task: AtomicWaker,
}

impl Unsent {
    /// Returns the number of bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::SeqCst)
    }

    /// Returns the number of bytes, and wakes the task when it is less.
    pub(super) fn poll_bytes(&self, cx: &Context<'_>) -> usize {
        self.task.register(cx.waker());
        self.bytes()
    }

    /// Notes that bytes were sent, or dropped because their stream has ended.
    fn note_sent(&self, bytes: usize) {
        if bytes > 0 {
            self.bytes.fetch_sub(bytes, Ordering::SeqCst);
            self.task.wake();
        }
    }
}

/// Bytes of an answer, as h2 is given them.
#[derive(Debug)]
pub(in crate::net) struct Piece {
    bytes: Bytes,
    unsent: Arc<Unsent>,
}

impl Piece {
    pub(super) fn new(bytes: Bytes, unsent: &Arc<Unsent>) -> Self {
        unsent.bytes.fetch_add(bytes.len(), Ordering::SeqCst);
        Self {
            bytes,
            unsent: Arc::clone(unsent),
        }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.unsent.note_sent(count);
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.unsent.note_sent(self.bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_unsent_until_h2_has_sent_them_or_dropped_them() {
        let unsent = Arc::<Unsent>::default();
        let count =
            || unsent.poll_bytes(&Context::from_waker(futures_util::task::noop_waker_ref()));
        let mut one = Piece::new(Bytes::from_static(b"12345"), &unsent);
        let other = Piece::new(Bytes::from_static(b"678"), &unsent);
        assert_eq!(count(), 8);
        one.advance(2);
        assert_eq!((count(), one.chunk()), (6, &b"345"[..]));
        drop(other);
        assert_eq!(count(), 3);
        one.advance(3);
        assert_eq!((count(), one.remaining()), (0, 0));
        drop(one);
        assert_eq!(count(), 0);
    }
}
