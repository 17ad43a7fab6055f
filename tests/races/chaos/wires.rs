//! The ways in which a page hears on one connection of several statuses: a stream of events, and
//! a WebSocket. They are read as they come, because a node may end them at any moment.

use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use super::record::Answer;
use holdfast_testkit::{Conn, UPGRADE, request};

/// A way to hear of several statuses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Wire {
    Events,
    Socket,
}

/// A page's connection, and the bytes that it has not understood yet.
pub(super) struct Listening {
    conn: Conn,
    wire: Wire,
    unread: Vec<u8>,
    has_begun: bool,
}

impl Listening {
    /// Asks for the statuses of a key above version `last`.
    pub(super) async fn begin(mut conn: Conn, wire: Wire, key: &str, last: u64) -> Self {
        conn.patience = Duration::from_secs(600);
        let asked = match wire {
            // An answer of HTTP/1.0 has no chunks.
            Wire::Events => {
                format!("GET /status/events?key={key}&last={last} HTTP/1.0\r\n\r\n").into_bytes()
            }
            Wire::Socket => {
                let target = format!("/status/ws?key={key}&last={last}");
                request("GET", &target, &UPGRADE, b"")
            }
        };
        conn.try_send(asked).await;
        Self {
            conn,
            wire,
            unread: Vec::new(),
            has_begun: false,
        }
    }

    /// Returns the next answer. It is broken if the connection ends, or if nothing comes for `wait`.
    pub(super) async fn next(&mut self, wait: Duration) -> Answer {
        loop {
            if let Some(answer) = self.understand() {
                return answer;
            }
            match timeout(wait, self.conn.read_some()).await {
                Ok(Some(bytes)) => self.unread.extend(bytes),
                Ok(None) | Err(_) => return Answer::Broken,
            }
        }
    }

    fn understand(&mut self) -> Option<Answer> {
        if !self.has_begun {
            let end = self.take_until(b"\r\n\r\n")?;
            let expected = match self.wire {
                Wire::Events => "HTTP/1.0 200 ",
                Wire::Socket => "HTTP/1.1 101 ",
            };
            assert!(
                end.starts_with(expected.as_bytes()),
                "{:?}",
                String::from_utf8_lossy(&end)
            );
            self.has_begun = true;
        }
        loop {
            let json = match self.wire {
                Wire::Events => self.event()?,
                Wire::Socket => self.frame()?,
            };
            if let Some(json) = json {
                return Some(answer(&json));
            }
        }
    }

    /// Takes out one event. Returns its JSON, if it has any.
    fn event(&mut self) -> Option<Option<Value>> {
        let event = String::from_utf8(self.take_until(b"\n\n")?).expect("UTF-8");
        let data = event.lines().find_map(|line| line.strip_prefix("data: "));
        Some(data.map(|json| serde_json::from_str(json).expect("JSON")))
    }

    /// Takes out one frame. Returns its JSON, if it is a message.
    fn frame(&mut self) -> Option<Option<Value>> {
        let (head, length) = match *self.unread.get(1)? {
            126 => (
                4,
                usize::from(*self.unread.get(2)?) << 8 | usize::from(*self.unread.get(3)?),
            ),
            short => (2, usize::from(short)),
        };
        if self.unread.len() < head + length {
            return None;
        }
        let frame: Vec<u8> = self.unread.drain(..head + length).collect();
        let is_text = frame[0] == 0x81;
        Some(is_text.then(|| serde_json::from_slice(&frame[head..]).expect("JSON")))
    }

    /// Takes out the bytes up to the next `end`.
    fn take_until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        let mut windows = self.unread.windows(end.len());
        let at = windows.position(|window| window == end)?;
        Some(self.unread.drain(..at + end.len()).collect())
    }
}

fn answer(json: &Value) -> Answer {
    match json["code"].as_i64().expect("a code") {
        0 => Answer::Status {
            version: json["version"].as_u64().expect("a version"),
            set: json["value"].as_u64().expect("a number"),
        },
        code => Answer::Nothing(code),
    }
}
