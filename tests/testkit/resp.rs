//! A small Redis client: just enough to inspect a server and to send it commands.

use std::io::{Error, ErrorKind, Result};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::PATIENCE;

/// A reply of Redis.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    Nil,
    Number(i64),
    /// A simple or bulk string. Bytes that are not UTF-8 are replaced.
    Text(String),
    Error(String),
    List(Vec<Reply>),
}

impl Reply {
    pub fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            other => panic!("no text: {other:?}"),
        }
    }

    pub fn number(&self) -> i64 {
        match self {
            Self::Number(number) => *number,
            Self::Text(text) => text.parse().unwrap_or_else(|_| panic!("no number: {text}")),
            other => panic!("no number: {other:?}"),
        }
    }

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

/// A connection to a Redis server.
pub struct Resp(BufReader<TcpStream>);

impl Resp {
    pub async fn open(port: u16) -> Result<Self> {
        Ok(Self(BufReader::new(
            TcpStream::connect(("127.0.0.1", port)).await?,
        )))
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
        let mut bytes = format!("*{}\r\n", words.len());
        for word in words {
            bytes += &format!("${}\r\n{word}\r\n", word.len());
        }
        let asked = async {
            self.0.write_all(bytes.as_bytes()).await?;
            self.reply().await
        };
        timeout(limit, asked)
            .await
            .map_err(|_| Error::from(ErrorKind::TimedOut))?
    }

    async fn reply(&mut self) -> Result<Reply> {
        let mut line = String::new();
        self.0.read_line(&mut line).await?;
        let line = line.strip_suffix("\r\n").ok_or(ErrorKind::UnexpectedEof)?;
        let (kind, rest) = line.split_at(line.len().min(1));
        let number = || {
            rest.parse::<i64>()
                .map_err(|_| Error::other(line.to_owned()))
        };
        match kind {
            "+" => Ok(Reply::Text(rest.to_owned())),
            "-" => Ok(Reply::Error(rest.to_owned())),
            ":" => Ok(Reply::Number(number()?)),
            "$" | "*" if number()? < 0 => Ok(Reply::Nil),
            "$" => {
                let mut bytes = vec![0; usize::try_from(number()?).expect("a length") + 2];
                self.0.read_exact(&mut bytes).await?;
                bytes.truncate(bytes.len() - 2);
                Ok(Reply::Text(String::from_utf8_lossy(&bytes).into_owned()))
            }
            "*" => {
                let mut list = Vec::new();
                for _ in 0..number()? {
                    list.push(Box::pin(self.reply()).await?);
                }
                Ok(Reply::List(list))
            }
            _ => Err(Error::other(format!("no answer of Redis: {line}"))),
        }
    }
}
