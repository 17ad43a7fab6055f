//! A limit on the bytes of request bodies that the internal listener receives at the same time.
//! Without it, every connection could bring a body of the maximum length at the same moment.
//!
//! Room is taken when bytes arrive, not when a client announces them. An announcement costs
//! nothing, so a few clients that announce much and send nothing would keep out all others. If
//! no room is left, the body that needs more is refused at once. Waiting would be worse: bodies
//! that wait for more would keep the room they have, and none would be complete before its time
//! limit ends it.
//!
//! The first bytes of each body need no room. So a client that fills the room keeps out long
//! bodies only, and no ordinary set.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::http::refusal::Refusal;

/// The bytes of each body that need no room. A set of one status usually has fewer, and a
/// connection's buffer for heads has as many anyway.
const FREE_BYTES: usize = 16 * 1024;

/// The room for bodies of one kind.
#[derive(Debug)]
pub(crate) struct BodyBudget(Arc<Semaphore>);

/// The room that one body has taken. It is given back when this is dropped. Keep this until the
/// request is done, not only until the body is read, because the data made from the body is as
/// large.
#[derive(Debug)]
pub(crate) struct Taken(Option<OwnedSemaphorePermit>);

impl BodyBudget {
    /// Makes room for `max_bytes` bytes, not counting the first `FREE_BYTES` of each body.
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(
            max_bytes.min(Semaphore::MAX_PERMITS),
        )))
    }

    /// Reads a body of at most `max` bytes.
    ///
    /// # Errors
    /// Fails with [`Refusal::NoRoom`], [`Refusal::BodyTooLong`] or [`Refusal::BodyBroken`].
    ///
    /// # Cancel safety
    /// If the future is dropped, the room that it took is given back, and the rest of the body
    /// is not read.
    pub(crate) async fn read<B>(&self, body: B, max: usize) -> Result<(Vec<u8>, Taken), Refusal>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut taken = Taken(None);
        let mut body = pin!(Limited::new(body, max));
        // In one buffer: a list of many small pieces would take many times the body's length.
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| match error.is::<LengthLimitError>() {
                true => Refusal::BodyTooLong(max),
                false => Refusal::BodyBroken,
            })?;
            if let Ok(data) = frame.into_data() {
                self.take(&mut taken, bytes.len() + data.len())?;
                bytes.extend_from_slice(&data);
            }
        }
        Ok((bytes, taken))
    }

    /// Takes the room that a body of `length` bytes needs and has not taken yet.
    fn take(&self, taken: &mut Taken, length: usize) -> Result<(), Refusal> {
        let has = taken
            .0
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits);
        let more = length.saturating_sub(FREE_BYTES).saturating_sub(has);
        if more == 0 {
            return Ok(());
        }
        // The whole length must fit too, because a merged permit counts in a `u32`.
        u32::try_from(length).map_err(|_| Refusal::NoRoom)?;
        let more = u32::try_from(more).map_err(|_| Refusal::NoRoom)?;
        let more = Arc::clone(&self.0)
            .try_acquire_many_owned(more)
            .map_err(|_| Refusal::NoRoom)?;
        match &mut taken.0 {
            Some(all) => all.merge(more),
            none => *none = Some(more),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    async fn read(inbound: &BodyBudget, length: usize) -> Result<Taken, Refusal> {
        let (bytes, taken) = inbound
            .read(Full::new(Bytes::from(vec![b'x'; length])), 1 << 20)
            .await?;
        assert_eq!(bytes.len(), length);
        Ok(taken)
    }

    #[tokio::test]
    async fn long_bodies_share_the_room_and_short_ones_need_none() {
        let inbound = BodyBudget::new(1000);
        let first = read(&inbound, FREE_BYTES + 600).await.expect("room");
        assert_eq!(
            read(&inbound, FREE_BYTES + 401).await.expect_err("no room"),
            Refusal::NoRoom
        );
        let _second = read(&inbound, FREE_BYTES + 400)
            .await
            .expect("the rest of it");
        let _third = read(&inbound, FREE_BYTES).await.expect("it needs none");
        drop(first);
        let _fourth = read(&inbound, FREE_BYTES + 600).await.expect("given back");
    }
}
