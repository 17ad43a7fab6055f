//! An accepted socket: it carries out its page's messages, and sends the page what its keys bring.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;

use super::closing::Closing;
use super::message::{BadMessage, Command};
use super::watch::Watch;
use super::watches::Watches;
use crate::metrics::{Limit, SocketEnd, Wire};
use crate::model::key::Key;
use crate::model::mistake::{Fault, Mistake};
use crate::model::status::{Outcome, Version};
use crate::net::clients::Client;
use crate::net::closing::Course;
use crate::net::parked::Wakes;
use crate::net::socket::frames::{CloseCode, Received};
use crate::net::socket::{Event, Socket};
use crate::page::answer::{code_of, keyed_json};
use crate::page::followed::{Followed, Heard};
use crate::page::get::GetHandler;
use crate::runtime::allowance::Allowance;
use crate::runtime::clock::millis;

/// A socket that watches nothing is closed after this time.
const EMPTY_FOR: Duration = Duration::from_secs(5);
/// The messages of a page that are taken in a second, pings and pongs included. A page may send
/// some more at once, so that it can watch as many keys as it may.
const MESSAGES_PER_SECOND: f64 = 20.0;

/// An accepted socket, and the keys that its page follows on it.
pub(super) struct Session {
    pub(super) handler: Arc<GetHandler>,
    watches: Watches,
    /// The messages that the page may still send now.
    allowance: Allowance,
    /// The client of the page, if its address is limited.
    client: Option<Client>,
    since: Instant,
    /// When the socket closes because it watches nothing.
    empty_until: Option<Instant>,
    /// For each status that is being written, when its set was accepted.
    written: Vec<Instant>,
}

/// Something that a session has to act on.
enum Step {
    Socket(Event),
    Heard(usize, Heard),
    Draining,
}

impl Session {
    pub(super) fn new(handler: Arc<GetHandler>, client: Option<Client>) -> Self {
        Self {
            allowance: allowance(handler.sockets.max_keys),
            client,
            since: Instant::now(),
            handler,
            watches: Watches::default(),
            empty_until: Some(Instant::now() + EMPTY_FOR),
            written: Vec::new(),
        }
    }

    /// Waits for something to do, and does it.
    ///
    /// # Errors
    /// Returns the end of the socket, if it has one.
    pub(super) async fn step(
        &mut self,
        socket: &mut Socket,
        wakes: &mut Wakes,
    ) -> Result<(), Closing> {
        match poll_fn(|cx| self.poll(socket, wakes, cx)).await {
            Step::Socket(event) => self.received(event, socket),
            Step::Heard(at, heard) => self.heard(at, heard, socket),
            Step::Draining => Err(self.drained(socket)),
        }
    }

    /// Becomes ready when there is something to do.
    fn poll(&mut self, socket: &mut Socket, wakes: &mut Wakes, cx: &mut Context<'_>) -> Poll<Step> {
        loop {
            let is_due = match socket.poll(self.due(), &mut wakes.timer, cx) {
                // A watch is due.
                Poll::Ready(Event::Due) if self.empty_until.is_none() => true,
                Poll::Ready(event) => return Poll::Ready(Step::Socket(event)),
                Poll::Pending => false,
            };
            let polled = self.poll_watches(socket, wakes, cx);
            // If a watch is due, the timer has fired and must be set again. Not in a drain: then a
            // watch may stay due, and only keys that are being opened are waited for. They wake the
            // task.
            let is_open = wakes.stop.stop().state() == Course::Open;
            if polled.is_ready() || !is_due || !is_open {
                return polled;
            }
        }
    }

    /// Becomes ready when a watch has something to say, or the node drains.
    fn poll_watches(
        &mut self,
        socket: &Socket,
        wakes: &mut Wakes,
        cx: &mut Context<'_>,
    ) -> Poll<Step> {
        // The next message is written only when the page has taken the one before it.
        if socket.is_writing() {
            self.watches.advance(cx);
            return Poll::Pending;
        }
        for since in self.written.drain(..) {
            let metrics = &self.handler.metrics;
            metrics.record_wake(Wire::Socket, since.elapsed());
        }
        if wakes.stop.poll(cx) != Course::Open {
            return self.watches.poll_drained(cx).map(|heard| match heard {
                Some((at, heard)) => Step::Heard(at, heard),
                None => Step::Draining,
            });
        }
        self.watches
            .poll(&self.handler, cx)
            .map(|(at, heard)| Step::Heard(at, heard))
    }

    /// Returns when the session must act next, if nothing happens before.
    fn due(&self) -> Option<Instant> {
        self.watches.due().into_iter().chain(self.empty_until).min()
    }

    /// Acts on an event of the socket.
    ///
    /// # Errors
    /// Returns the end of the socket, if it has one.
    fn received(&mut self, event: Event, socket: &mut Socket) -> Result<(), Closing> {
        let received = match event {
            Event::Received(received) => received,
            Event::Cut(why) => return Err(Closing::without_close(SocketEnd::Left, Some(why))),
            Event::Due => {
                let reason = "nothing is watched";
                return Err(Closing::with(SocketEnd::Empty, CloseCode::Normal, reason));
            }
        };
        match received {
            Received::Ended => Err(Closing::without_close(SocketEnd::Left, None)),
            Received::Closed => Err(Closing::without_close(SocketEnd::Closed, None)),
            Received::Wrong(code, reason) => Err(Closing::wrong(code, reason)),
            _ if !self.allowance.take() => {
                Err(Closing::wrong(CloseCode::Policy, "too many messages"))
            }
            Received::Text(text) => self.obey(Command::parse(&text), socket),
            Received::Binary => Err(Closing::wrong(CloseCode::Unsupported, "message: not text")),
            Received::Control => Ok(()),
        }
    }

    /// Carries out the watch that the query of the request asks for. The request was counted as a
    /// get of the client's address, so the watch is not counted again.
    ///
    /// # Errors
    /// As [`Self::obey`].
    pub(super) fn begin(
        &mut self,
        command: Result<Command, BadMessage>,
        socket: &mut Socket,
    ) -> Result<(), Closing> {
        match command {
            Ok(Command::Watch(name, last)) => {
                self.watch(name, last, true, socket);
                Ok(())
            }
            other => self.obey(other, socket),
        }
    }

    /// Carries out a message of the page, or reports its mistake.
    ///
    /// # Errors
    /// Returns the end of the socket if the message is not understood.
    fn obey(
        &mut self,
        command: Result<Command, BadMessage>,
        socket: &mut Socket,
    ) -> Result<(), Closing> {
        match command {
            Ok(Command::Watch(name, last)) => {
                let may_get = self.client.as_ref().is_none_or(Client::may_get);
                self.watch(name, last, may_get, socket);
            }
            Ok(Command::Unwatch(name)) => {
                if let Some(at) = self.watches.place(&name) {
                    self.remove(at);
                }
            }
            Ok(Command::Check) => socket.send(b"{}".to_vec()),
            Err(BadMessage::Member(mistake, key)) => {
                self.say(
                    key.as_ref(),
                    &Outcome::Invalid(mistake),
                    Version::NONE,
                    None,
                    socket,
                );
            }
            Err(BadMessage::NotAnObject) => {
                return Err(Closing::wrong(
                    CloseCode::Invalid,
                    "message: must be a JSON object",
                ));
            }
        }
        Ok(())
    }

    /// Begins to follow a key, or follows it from another version on. If the client's address may
    /// not ask now, the key is answered busy, and asked for after a pause.
    fn watch(&mut self, name: Key, last: Version, may_get: bool, socket: &mut Socket) {
        let place = self.watches.place(&name);
        let max = self.handler.sockets.max_keys;
        if place.is_none() && self.watches.len() >= max {
            self.handler.metrics.limit_hit(Limit::KeysPerSocket);
            let outcome = Outcome::Invalid(Mistake::new("watch", Fault::MoreKeys(max)));
            return self.say(Some(&name), &outcome, last, None, socket);
        }
        let admitted = match self.handler.admit(name.clone()) {
            Ok(admitted) => admitted,
            Err(why) => {
                self.handler.note_refused_key(why);
                if let Some(at) = place {
                    self.remove(at);
                }
                return self.say(Some(&name), &Outcome::Gone(last), last, None, socket);
            }
        };
        let client = self.client.clone();
        let followed = Followed::new(&self.handler, admitted.id, last, admitted.left, client);
        let is_further = self.watches.is_further(place);
        let watch = if may_get {
            Watch::begin(&self.handler, name, followed, is_further)
        } else {
            Watch::busy(name, followed, is_further)
        };
        self.empty_until = None;
        self.watches.put(place, watch);
    }

    /// Acts on the news of the watch at this place, or on the end of its wait.
    ///
    /// # Errors
    /// Returns the end of the socket, if it has one.
    fn heard(&mut self, at: usize, heard: Heard, socket: &mut Socket) -> Result<(), Closing> {
        let (outcome, since) = match heard {
            Heard::Said(Outcome::Retry, _) => return Err(self.drained(socket)),
            Heard::Said(outcome, since) => (outcome, since),
            Heard::Nothing | Heard::Left => {
                self.watches[at].wait(&self.handler);
                return Ok(());
            }
        };
        let retry_ms = match &outcome {
            Outcome::Busy if self.watches.len() == 1 => return Err(self.busy()),
            Outcome::Unavailable(cause) => {
                self.handler.metrics.unavailable(*cause);
                Some(self.retry_ms())
            }
            // The page is told once, and not at each attempt.
            Outcome::Busy => match self.watches[at].refused(&self.handler) {
                Some(pause) => Some(millis(pause)),
                None => return Ok(()),
            },
            _ => None,
        };
        self.written.extend(since);
        self.say_of(at, &outcome, retry_ms, socket);
        match outcome {
            Outcome::Success(status) if !status.is_final => {
                let watch = &mut self.watches[at];
                watch.followed.last = status.version;
                if !watch.goes_on() {
                    watch.wait(&self.handler);
                }
            }
            Outcome::Success(_) | Outcome::Gone(_) => self.remove(at),
            Outcome::Busy => {}
            _ => self.watches[at].pause(Duration::from_millis(retry_ms.unwrap_or_default())),
        }
        Ok(())
    }

    /// Returns the end of a socket that has no room for its only key.
    pub(super) fn busy(&self) -> Closing {
        Closing::with(SocketEnd::Busy, CloseCode::Again, self.retry_reason())
    }

    /// Sends the statuses that have already come, and returns the end of the socket in a drain.
    fn drained(&mut self, socket: &mut Socket) -> Closing {
        for at in 0..self.watches.len() {
            let heard = poll_fn(|cx| self.watches[at].poll(&self.handler, cx)).now_or_never();
            if let Some(Heard::Said(outcome @ (Outcome::Success(_) | Outcome::Gone(_)), _)) = heard
            {
                self.say_of(at, &outcome, None, socket);
            }
        }
        Closing::with(SocketEnd::Retry, CloseCode::Away, self.retry_reason())
    }

    /// Returns the time after which the page is to ask again.
    fn retry_ms(&self) -> u64 {
        let waiters = self.handler.waiters.len();
        self.handler.returning.after_ms(self.since, waiters)
    }

    /// Returns the reason of a close after which the page is to reconnect.
    fn retry_reason(&self) -> String {
        format!("retry_after_ms={}", self.retry_ms())
    }

    /// Ends a watch.
    fn remove(&mut self, at: usize) {
        self.watches.remove(at);
        if self.watches.is_empty() {
            self.empty_until = Some(Instant::now() + EMPTY_FOR);
        }
    }

    /// Sends the outcome of a watch.
    fn say_of(&self, at: usize, outcome: &Outcome, retry_ms: Option<u64>, socket: &mut Socket) {
        let watch = &self.watches[at];
        if matches!(outcome, Outcome::Success(_)) {
            self.handler.metrics.status_on(Wire::Socket);
        }
        self.say(
            Some(&watch.name),
            outcome,
            watch.followed.last,
            retry_ms,
            socket,
        );
    }

    /// Sends an outcome. It is about `key`, if there is one, up to whose version `last` the page
    /// knows it.
    fn say(
        &self,
        key: Option<&Key>,
        outcome: &Outcome,
        last: Version,
        retry_ms: Option<u64>,
        socket: &mut Socket,
    ) {
        socket.send(keyed_json(key, code_of(outcome), outcome, last, retry_ms));
    }
}

/// Returns how many messages a page may send that may watch `max_keys` keys.
fn allowance(max_keys: usize) -> Allowance {
    #[expect(clippy::cast_precision_loss, reason = "the setting is a small number")]
    let most = MESSAGES_PER_SECOND + max_keys as f64;
    Allowance::new(most, MESSAGES_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_page_may_send_twenty_messages_a_second_and_one_for_each_key_at_once() {
        let mut allowance = super::allowance(32);
        for _ in 0..52 {
            assert!(allowance.take());
        }
        assert!(!allowance.take());
        let mut allowance = super::allowance(0);
        for _ in 0..20 {
            assert!(allowance.take());
        }
        tokio::time::advance(Duration::from_millis(101)).await;
        assert!(allowance.take() && allowance.take() && !allowance.take());
    }
}
