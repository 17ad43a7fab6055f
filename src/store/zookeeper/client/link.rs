//! A connection to a server, on which the session is established. Requests are sent in the order in
//! which they are asked for, and answered in that order. No request waits for a connection: if
//! this one ends, each that was not answered fails, and its error says whether it was sent.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use super::jute::{Decode, Encode};
use super::operation::{
    Found, Read, Refusal, Refused, Write, Written, code, decode_reads, decode_writes, encode_reads,
    encode_writes,
};

/// The numbers of messages that answer no request.
const PING: i32 = -2;
const AUTH: i32 = -4;
const NOTIFICATION: i32 = -1;

/// The greatest answer that is read. The greatest request of this program reads 64 values of 1 MB.
const MAX_ANSWER_BYTES: usize = 128 << 20;
/// The room that the next read gets at least.
const READ_ROOM: usize = 16 << 10;

/// A connection. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Link(Arc<Requests>);

/// The requests on a connection.
#[derive(Debug)]
struct Requests {
    queue: Mutex<Queue>,
    /// Wakes the task that sends.
    is_asked: Notify,
    /// The number of the last write that the server had seen with its last answer.
    zxid: AtomicI64,
}

#[derive(Debug)]
struct Queue {
    is_open: bool,
    /// The requests that were not sent yet.
    bytes: BytesMut,
    /// Those that were not answered yet, the oldest first.
    unanswered: VecDeque<Unanswered>,
    /// How many of them, the last ones, are in `bytes`.
    unsent: usize,
    last_number: i32,
}

#[derive(Debug)]
struct Unanswered {
    number: i32,
    reply: oneshot::Sender<Result<Bytes, CallError>>,
}

/// A request whose answer is to come.
struct Asked(oneshot::Receiver<Result<Bytes, CallError>>);

impl Asked {
    async fn answer(self) -> Result<Bytes, CallError> {
        // Each reply is sent before its sender is dropped, at the end of the connection at the latest.
        self.0.await.unwrap_or(Err(CallError::NoAnswer))
    }
}

/// The reason why a request has no answer.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum CallError {
    /// There was no connection, or it ended before the request was sent: it is not carried out.
    #[error("there is no connection to ZooKeeper")]
    NotSent,
    /// The connection ended after the request was sent: it may have been carried out, or may be yet.
    #[error("the connection to ZooKeeper ended before the answer came")]
    NoAnswer,
    #[error("ZooKeeper refused it: {0}")]
    Refused(#[from] Refusal),
    /// The answer makes no sense.
    #[error("ZooKeeper gave an answer that makes no sense")]
    Nonsense,
}

/// The reason why a connection ended.
#[derive(Debug, Error)]
pub(crate) enum LinkEnd {
    #[error("{0}")]
    Broken(#[from] io::Error),
    #[error("the server hung up")]
    HungUp,
    #[error("the server was silent for {0:?}")]
    Silent(Duration),
    #[error("the server refused the account")]
    AuthFailed,
    #[error("the server sent something that makes no sense")]
    Nonsense,
}

/// The times of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// The time without a request after which a ping is sent.
    pub(super) ping: Duration,
    /// The time without an answer after which the server counts as gone.
    pub(super) silence: Duration,
}

impl Link {
    /// Creates a connection for requests. [`Link::run`] carries them.
    pub(super) fn new(zxid: i64) -> Self {
        let queue = Queue {
            is_open: true,
            bytes: BytesMut::new(),
            unanswered: VecDeque::new(),
            unsent: 0,
            last_number: 0,
        };
        Self(Arc::new(Requests {
            queue: Mutex::new(queue),
            is_asked: Notify::new(),
            zxid: AtomicI64::new(zxid),
        }))
    }

    /// Has the server catch up with all that was written before, so that a read that is sent next
    /// finds it. The request is sent when this is called, and not when the future is polled.
    pub(crate) fn sync(&self, path: &str) -> impl Future<Output = Result<(), CallError>> + use<> {
        let answer = self.ask(code::SYNC, |to| to.put_text(path));
        async move { answer.answer().await.map(drop) }
    }

    /// Reads several things at once. Like [`Link::sync`] it sends when it is called.
    pub(crate) fn read(
        &self,
        reads: &[Read],
    ) -> impl Future<Output = Result<Vec<Found>, CallError>> + use<> {
        let (answer, count) = (
            self.ask(code::MULTI_READ, |to| encode_reads(reads, to)),
            reads.len(),
        );
        async move {
            let found = decode_reads(answer.answer().await?).ok_or(CallError::Nonsense)?;
            if found.len() != count {
                return Err(CallError::Nonsense);
            }
            Ok(found.into_iter().collect::<Result<_, _>>()?)
        }
    }

    /// Carries out several writes as one step: all or none. Like [`Link::sync`] it sends when it is
    /// called.
    pub(crate) fn write(
        &self,
        writes: &[Write],
    ) -> impl Future<Output = Result<Result<Vec<Written>, Refused>, CallError>> + use<> {
        let (answer, count) = (
            self.ask(code::MULTI, |to| encode_writes(writes, to)),
            writes.len(),
        );
        async move {
            let written = decode_writes(answer.answer().await?).ok_or(CallError::Nonsense)?;
            if written.as_ref().is_ok_and(|written| written.len() != count) {
                return Err(CallError::Nonsense);
            }
            Ok(written)
        }
    }

    /// Logs in. A refusal ends the connection.
    pub(super) fn log_in(&self, scheme: &str, account: &[u8]) {
        self.0.queue().put(AUTH, code::AUTH, |to| {
            to.put_i32(0);
            to.put_text(scheme);
            to.put_buffer(account);
        });
        self.0.is_asked.notify_one();
    }

    /// Ends the session, so that its ephemeral znodes are deleted at once.
    pub(crate) fn close_session(&self) -> impl Future<Output = Result<(), CallError>> + use<> {
        let answer = self.ask(code::CLOSE_SESSION, |_| ());
        async move { answer.answer().await.map(drop) }
    }

    /// Returns the number of the last write that the server had seen with its last answer.
    pub(crate) fn zxid(&self) -> i64 {
        self.0.zxid.load(Ordering::Relaxed)
    }

    /// Queues a request. The answer is its body.
    fn ask(&self, operation: i32, encode: impl FnOnce(&mut BytesMut)) -> Asked {
        let (reply, answer) = oneshot::channel();
        let mut queue = self.0.queue();
        if queue.is_open {
            let number = queue.next_number();
            queue.put(number, operation, encode);
            queue.unanswered.push_back(Unanswered { number, reply });
            queue.unsent += 1;
            drop(queue);
            self.0.is_asked.notify_one();
        } else {
            let _ = reply.send(Err(CallError::NotSent));
        }
        Asked(answer)
    }

    /// Carries requests and answers until the connection ends, and returns why it did. `begun` has
    /// what was read behind the answer that established the session.
    ///
    /// # Cancel safety
    /// If it is dropped, all requests that were not answered fail.
    pub(super) async fn run<S>(&self, stream: S, begun: BytesMut, pace: Pace) -> LinkEnd
    where
        S: AsyncRead + AsyncWrite,
    {
        let _closing = Closing(&self.0);
        let (read, write) = split(stream);
        tokio::select! {
            end = self.receive(read, begun, pace.silence) => end,
            end = self.send(write, pace.ping) => end,
        }
    }

    async fn send(&self, mut stream: impl AsyncWrite + Unpin, ping: Duration) -> LinkEnd {
        loop {
            let bytes = self.0.queue().take();
            if bytes.is_empty() {
                if timeout(ping, self.0.is_asked.notified()).await.is_err() {
                    self.0.queue().put(PING, code::PING, |_| ());
                }
                continue;
            }
            if let Err(error) = stream.write_all(&bytes).await {
                return error.into();
            }
            if let Err(error) = stream.flush().await {
                return error.into();
            }
        }
    }

    async fn receive(
        &self,
        mut stream: impl AsyncRead + Unpin,
        mut bytes: BytesMut,
        silence: Duration,
    ) -> LinkEnd {
        loop {
            loop {
                let frame = match take_frame(&mut bytes) {
                    Err(TooLong) => return LinkEnd::Nonsense,
                    Ok(None) => break,
                    Ok(Some(frame)) => frame,
                };
                if let Err(end) = self.take_answer(frame) {
                    return end;
                }
            }
            bytes.reserve(READ_ROOM);
            match timeout(silence, stream.read_buf(&mut bytes)).await {
                Err(_) => return LinkEnd::Silent(silence),
                Ok(Ok(0)) => return LinkEnd::HungUp,
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return error.into(),
            }
        }
    }

    /// Hands an answer to the oldest request that has none.
    fn take_answer(&self, mut frame: Bytes) -> Result<(), LinkEnd> {
        let header = (|| Some((frame.int()?, frame.long()?, frame.int()?)))();
        let (number, zxid, error) = header.ok_or(LinkEnd::Nonsense)?;
        match number {
            AUTH if error != 0 => return Err(LinkEnd::AuthFailed),
            AUTH | PING | NOTIFICATION => return Ok(()),
            _ => {}
        }
        if zxid > 0 {
            self.0.zxid.fetch_max(zxid, Ordering::Relaxed);
        }
        let oldest = self.0.queue().unanswered.pop_front();
        let oldest = oldest.ok_or(LinkEnd::Nonsense)?;
        if oldest.number != number {
            let _ = oldest.reply.send(Err(CallError::Nonsense));
            return Err(LinkEnd::Nonsense);
        }
        let answer = Refusal::of(error).map_or(Ok(frame), |refusal| Err(refusal.into()));
        // Whoever asked may have given up.
        let _ = oldest.reply.send(answer);
        Ok(())
    }
}

impl Requests {
    fn queue(&self) -> std::sync::MutexGuard<'_, Queue> {
        crate::runtime::sharded::lock(&self.queue)
    }
}

impl Queue {
    /// Returns the number of the next request. Numbers below 1 have meanings of their own.
    fn next_number(&mut self) -> i32 {
        self.last_number = self.last_number.checked_add(1).unwrap_or(1);
        self.last_number
    }

    /// Appends a message to what is sent next.
    fn put(&mut self, number: i32, operation: i32, encode: impl FnOnce(&mut BytesMut)) {
        let at = self.bytes.len();
        self.bytes.put_i32(0);
        self.bytes.put_i32(number);
        self.bytes.put_i32(operation);
        encode(&mut self.bytes);
        let length = self.bytes.len() - at - size_of::<i32>();
        let length = i32::try_from(length).expect("requests are far below 2 GiB");
        self.bytes[at..at + size_of::<i32>()].copy_from_slice(&length.to_be_bytes());
    }

    /// Takes all that was not sent yet. From here on it counts as sent.
    fn take(&mut self) -> Bytes {
        self.unsent = 0;
        self.bytes.split().freeze()
    }
}

/// Closes the queue of a connection that has ended.
struct Closing<'a>(&'a Requests);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        queue.is_open = false;
        queue.bytes = BytesMut::new();
        let unsent = std::mem::take(&mut queue.unsent);
        let mut sent = std::mem::take(&mut queue.unanswered);
        drop(queue);
        let unsent = sent.split_off(sent.len() - unsent);
        for (requests, error) in [(sent, CallError::NoAnswer), (unsent, CallError::NotSent)] {
            for request in requests {
                let _ = request.reply.send(Err(error));
            }
        }
    }
}

/// Returned for a message that is longer than any that this program asks for.
pub(super) struct TooLong;

/// Takes the first message from the bytes that were read, if it is there as a whole.
pub(super) fn take_frame(bytes: &mut BytesMut) -> Result<Option<Bytes>, TooLong> {
    let Some(length) = bytes.first_chunk() else {
        return Ok(None);
    };
    let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| TooLong)?;
    if length > MAX_ANSWER_BYTES {
        return Err(TooLong);
    }
    if bytes.len() < size_of::<i32>() + length {
        return Ok(None);
    }
    bytes.advance(size_of::<i32>());
    Ok(Some(bytes.split_to(length).freeze()))
}
