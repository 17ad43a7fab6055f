//! A small Redis client: just enough to inspect a server and to send it commands.

use std::io::{Error, ErrorKind, Result};
use std::time::Duration;

use combine::parser::combinator::AnySendSyncPartialState;
use combine::stream::{Decoder, PointerOffset};
use redis::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::PATIENCE;

/// A reply of Redis.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// No value.
    Nil,
    /// A whole number.
    Number(i64),
    /// A simple or bulk string. Bytes that are not UTF-8 are replaced.
    Text(String),
    /// An error, with its code first.
    Error(String),
    /// Several replies.
    List(Vec<Reply>),
}

impl Reply {
    /// Returns a text.
    ///
    /// # Panics
    /// If it is anything else.
    pub fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            other => panic!("no text: {other:?}"),
        }
    }

    /// Returns a number, also one that is written as a text.
    ///
    /// # Panics
    /// If it is anything else.
    pub fn number(&self) -> i64 {
        match self {
            Self::Number(number) => *number,
            Self::Text(text) => text.parse().unwrap_or_else(|_| panic!("no number: {text}")),
            other => panic!("no number: {other:?}"),
        }
    }

    /// Returns the replies of a list.
    ///
    /// # Panics
    /// If it is anything else.
    pub fn list(&self) -> &[Self] {
        match self {
            Self::List(list) => list,
            other => panic!("no list: {other:?}"),
        }
    }

    /// Returns a list of texts.
    pub fn texts(&self) -> Vec<String> {
        self.list()
            .iter()
            .map(|one| one.text().to_owned())
            .collect()
    }
}

impl From<Value> for Reply {
    fn from(value: Value) -> Self {
        match value {
            Value::Nil => Self::Nil,
            Value::Int(number) => Self::Number(number),
            Value::Okay => Self::Text("OK".to_owned()),
            Value::SimpleString(text) => Self::Text(text),
            Value::BulkString(bytes) => Self::Text(String::from_utf8_lossy(&bytes).into_owned()),
            Value::Array(values) => Self::List(values.into_iter().map(Self::from).collect()),
            Value::ServerError(error) => {
                let words = [Some(error.code()), error.details()];
                Self::Error(words.into_iter().flatten().collect::<Vec<_>>().join(" "))
            }
            other => panic!("no reply of RESP2: {other:?}"),
        }
    }
}

/// A connection to a Redis server.
pub struct Resp {
    stream: TcpStream,
    /// The beginning of a reply.
    decoder: Decoder<AnySendSyncPartialState, PointerOffset<[u8]>>,
}

impl Resp {
    /// Connects to the server on a port of 127.0.0.1.
    ///
    /// # Errors
    /// If it does not accept.
    pub async fn open(port: u16) -> Result<Self> {
        Ok(Self {
            stream: TcpStream::connect(("127.0.0.1", port)).await?,
            decoder: Decoder::default(),
        })
    }

    /// Sends one command, and returns its reply.
    ///
    /// # Errors
    /// If the connection ends, or if no reply comes in time.
    pub async fn command(&mut self, words: &[&str]) -> Result<Reply> {
        self.command_within(words, PATIENCE).await
    }

    /// Sends one command as [`Resp::command`] does, within `limit`.
    pub async fn command_within(&mut self, words: &[&str], limit: Duration) -> Result<Reply> {
        let command = redis::Cmd::new().arg(words).get_packed_command();
        let asked = async {
            self.stream.write_all(&command).await?;
            redis::parse_redis_value_async(&mut self.decoder, &mut self.stream)
                .await
                .map_err(Error::other)
        };
        let value = timeout(limit, asked)
            .await
            .map_err(|_| Error::from(ErrorKind::TimedOut))??;
        Ok(value.into())
    }
}
