//! A stream of server-sent events, read as a browser reads it.

use crate::conn::{Conn, request};
use crate::node::Node;
use crate::response::Response;

/// A stream that is open, or has ended.
pub struct Events {
    /// The head of the answer.
    pub head: Response,
    /// The connection. Do not read from it before the end of the stream.
    pub conn: Conn,
    is_chunked: bool,
    /// The text that was read and not yet handed out.
    text: String,
}

/// One event: the fields between two empty lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// The field `id`.
    pub id: Option<String>,
    /// The field `event`.
    pub name: Option<String>,
    /// The lines of `data`, joined by line feeds.
    pub data: String,
    /// The field `retry`.
    pub retry: Option<u64>,
    /// Whether there was a comment.
    pub is_comment: bool,
}

impl Events {
    /// Asks for a stream. `query` is that of `/status/events`.
    pub async fn open(node: &Node, query: &str, headers: &[(&str, &str)]) -> Self {
        let target = format!("/status/events?{query}");
        let mut conn = Conn::open(&node.public).await;
        conn.send(request("GET", &target, headers, b"")).await;
        Self::read(conn).await
    }

    /// Reads the head of a stream that was asked for.
    ///
    /// # Panics
    /// If it is no stream.
    pub async fn read(mut conn: Conn) -> Self {
        let head = conn.read_head().await;
        assert_eq!(head.status, 200, "{head:?}");
        assert_eq!(head.header("content-type"), Some("text/event-stream"));
        let is_chunked = head.header("transfer-encoding") == Some("chunked");
        Self {
            head,
            conn,
            is_chunked,
            text: String::new(),
        }
    }

    /// Reads the next event, or the next comment. Returns `None` at the end of the stream.
    ///
    /// # Panics
    /// If neither comes in time, or if the stream is cut off.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let event = Event::parse(event);
                self.text = rest.to_owned();
                return Some(event);
            }
            let Some(piece) = self.piece().await else {
                assert_eq!(self.text, "", "an event is cut off");
                return None;
            };
            self.text.push_str(&piece);
        }
    }

    /// Reads the next event that is no comment and has more than `retry`.
    ///
    /// # Panics
    /// If the stream ends before.
    pub async fn event(&mut self) -> Event {
        loop {
            let event = self.next().await.expect("an event");
            if !event.is_comment && !event.data.is_empty() {
                return event;
            }
        }
    }

    async fn piece(&mut self) -> Option<String> {
        if !self.is_chunked {
            let bytes = self.conn.read_some().await?;
            return Some(String::from_utf8(bytes).expect("UTF-8"));
        }
        let line = self.conn.read_until(b"\r\n").await;
        let length = String::from_utf8(line).expect("a length");
        let length = usize::from_str_radix(length.trim_end(), 16).expect("a length");
        let chunk = self.conn.read_exact(length + 2).await;
        assert!(chunk.ends_with(b"\r\n"), "a chunk ends with its line");
        let piece = String::from_utf8(chunk[..length].to_vec()).expect("UTF-8");
        (length > 0).then_some(piece)
    }
}

impl Event {
    fn parse(text: &str) -> Self {
        let mut event = Self::default();
        let mut data = Vec::new();
        for line in text.split('\n') {
            let (field, value) = line.split_once(": ").unwrap_or((line, ""));
            match field {
                "id" => event.id = Some(value.to_owned()),
                "event" => event.name = Some(value.to_owned()),
                "data" => data.push(value.to_owned()),
                "retry" => event.retry = Some(value.parse().expect("a time")),
                ":" => event.is_comment = true,
                other => panic!("no field: {other:?}"),
            }
        }
        event.data = data.join("\n");
        event
    }
}
