//! A bare epoll loop on one thread, which holds gets and answers a constant: the cost of
//! sockets and of waking up alone. It finds the key and the end of a request, and nothing else,
//! so any real HTTP server costs more. It runs as a process of its own, started by a hidden
//! subcommand.

use std::collections::{HashMap, HashSet};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use socket2::{Domain, Socket, Type};

use crate::Outcome;
use crate::wire::{ANSWER, Key};

/// The subcommand that starts it. An address follows.
pub(crate) const SUBCOMMAND: &str = "serve-floor";

const RECEIPT: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nset";
const LISTENER: Token = Token(usize::MAX);
/// More bytes than the client of this bench ever has under way on one connection.
const MAX_REQUEST_BYTES: usize = 4096;

struct Connection {
    stream: TcpStream,
    /// The key that it waits for.
    key: Option<Key>,
}

#[derive(Default)]
struct Floor {
    /// The connections, by descriptor.
    connections: Vec<Option<Connection>>,
    waiting: HashMap<Key, usize>,
    /// The keys that were set while nobody waited.
    set: HashSet<Key>,
}

/// Serves until it is killed.
pub(crate) fn serve(address: &str) -> Outcome<()> {
    let address: SocketAddr = address.parse()?;
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(16_384)?;
    let mut listener = TcpListener::from_std(socket.into());
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(1024));
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    let (mut floor, answer) = (Floor::default(), response(ANSWER));
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        for event in &events {
            match event.token() {
                LISTENER => floor.accept(&listener, poll.registry())?,
                Token(at) => floor.take(at, &answer),
            }
        }
    }
}

fn response(body: &[u8]) -> Vec<u8> {
    [
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes(),
        body,
    ]
    .concat()
}

impl Floor {
    fn accept(&mut self, listener: &TcpListener, registry: &Registry) -> Outcome<()> {
        loop {
            let mut stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            stream.set_nodelay(true)?;
            let at = usize::try_from(stream.as_raw_fd())?;
            registry.register(&mut stream, Token(at), Interest::READABLE)?;
            self.connections
                .resize_with(self.connections.len().max(at + 1), || None);
            self.connections[at] = Some(Connection { stream, key: None });
        }
    }

    /// Reads the request that has come, and carries it out. The client sends a request in one
    /// piece and reads each answer.
    fn take(&mut self, at: usize, answer: &[u8]) {
        let Some(connection) = self.connections.get_mut(at).and_then(Option::as_mut) else {
            return;
        };
        let mut bytes = [0; MAX_REQUEST_BYTES];
        let read = match connection.stream.read(&mut bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            read => read.unwrap_or(0),
        };
        if read == 0 {
            if let Some(key) = self.connections[at]
                .take()
                .and_then(|connection| connection.key)
                && self.waiting.get(&key) == Some(&at)
            {
                self.waiting.remove(&key);
            }
            return;
        }
        let (method, target) = bytes[..read.max(5)].split_at(5);
        let key = |name: &[u8]| {
            target
                .strip_prefix(name)
                .and_then(|rest| rest.first_chunk::<20>())
                .copied()
        };
        if method == b"GET /"
            && let Some(key) = key(b"get?")
        {
            if self.set.remove(&key) {
                self.write(at, answer);
            } else {
                connection.key = Some(key);
                self.waiting.insert(key, at);
            }
        } else if method == b"POST "
            && let Some(key) = key(b"/set?")
        {
            match self.waiting.remove(&key) {
                Some(waiter) => self.write(waiter, answer),
                None => drop(self.set.insert(key)),
            }
            self.write(at, RECEIPT);
        } else {
            self.write(at, &response(self.waiting.len().to_string().as_bytes()));
            // A client that asks for the number of waiters reads until the close.
            self.connections[at] = None;
        }
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        if let Some(connection) = self.connections[at].as_mut() {
            connection.key = None;
            // If the answer is not taken whole, the client misses it and reports that.
            let _ = connection.stream.write(bytes);
        }
    }
}
