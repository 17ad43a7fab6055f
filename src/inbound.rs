//! Room for the bodies that the internal listener is sent: how many bytes of them may be under way at once. Without it each
//! connection could bring one of the greatest length at the same moment.
//!
//! Room is taken as bytes come, not as they are promised: a promise costs nothing, and a few clients that promise much and
//! send nothing would keep out all others. Where there is none left, the body that needs it is refused at once. To wait would
//! be worse: bodies that wait for more would keep what they have, and none would get on until the time of each is over.
//! And the first bytes of each need no room, so that whoever fills it keeps out long bodies alone, and no ordinary set.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::Refusal;

/// So many bytes of each body need no room: more than a set of one status usually has, and no more than a connection's
/// buffer for heads is anyway.
const FREE_BYTES: usize = 16 * 1024;

/// The room for bodies of one kind.
#[derive(Debug)]
pub(crate) struct Inbound(Arc<Semaphore>);

/// What a body takes of the room, until this is dropped: when what it asked for is done, not when it is read, since what was
/// made of it is as large.
#[derive(Debug)]
pub(crate) struct Taken(Option<OwnedSemaphorePermit>);

impl Inbound {
    /// Room for so many bytes beyond the first of each body.
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(max_bytes.min(Semaphore::MAX_PERMITS))))
    }

    /// Reads a body of at most `max` bytes.
    ///
    /// # Errors
    /// [`Refusal::NoRoom`], that it is too long, or that it broke off.
    ///
    /// # Cancel safety
    /// Dropped, it gives back what was taken, and the rest of the body is not read.
    pub(crate) async fn read<B>(&self, body: B, max: usize) -> Result<(Vec<u8>, Taken), Refusal>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut taken = Taken(None);
        let mut body = pin!(Limited::new(body, max));
        // In one piece: a body of many small ones would take many times its length.
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

    /// Takes what a body of `length` needs and has not taken yet.
    fn take(&self, taken: &mut Taken, length: usize) -> Result<(), Refusal> {
        let has = taken.0.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = length.saturating_sub(FREE_BYTES).saturating_sub(has);
        if more == 0 {
            return Ok(());
        }
        // All of it too: permits are counted so.
        u32::try_from(length).map_err(|_| Refusal::NoRoom)?;
        let more = u32::try_from(more).map_err(|_| Refusal::NoRoom)?;
        let more = Arc::clone(&self.0).try_acquire_many_owned(more).map_err(|_| Refusal::NoRoom)?;
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

    async fn read(inbound: &Inbound, length: usize) -> Result<Taken, Refusal> {
        let (bytes, taken) = inbound.read(Full::new(Bytes::from(vec![b'x'; length])), 1 << 20).await?;
        assert_eq!(bytes.len(), length);
        Ok(taken)
    }

    #[tokio::test]
    async fn long_bodies_share_the_room_and_short_ones_need_none() {
        let inbound = Inbound::new(1000);
        let first = read(&inbound, FREE_BYTES + 600).await.expect("room");
        assert_eq!(read(&inbound, FREE_BYTES + 401).await.expect_err("no room"), Refusal::NoRoom);
        let _second = read(&inbound, FREE_BYTES + 400).await.expect("the rest of it");
        let _third = read(&inbound, FREE_BYTES).await.expect("it needs none");
        drop(first);
        let _fourth = read(&inbound, FREE_BYTES + 600).await.expect("given back");
    }
}
