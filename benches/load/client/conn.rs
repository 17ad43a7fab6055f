//! A non-blocking connection, with the bytes that could not be sent yet and the part of an
//! answer that has come.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Socket, Type};

use super::http::{self, Response};
use super::tls::Tls;

/// The result of reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Got {
    Nothing,
    Answer,
    /// The server closed the connection.
    End,
}

/// What was taken out of the bytes that have come.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// The number of bytes from the beginning that are not needed any more.
    pub(crate) bytes: usize,
    pub(crate) answers: usize,
    /// The bytes to send to the server at once.
    pub(crate) reply: Vec<u8>,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Conn {
    stream: TcpStream,
    tls: Option<Tls>,
    unsent: Vec<u8>,
    unread: Vec<u8>,
}

impl Conn {
    /// Begins to connect from `source`. Bytes that are sent meanwhile go out when the
    /// connection is there.
    pub(crate) fn open(
        registry: &Registry,
        token: Token,
        source: Ipv4Addr,
        to: SocketAddr,
        tls: Option<Tls>,
    ) -> io::Result<Self> {
        Ok(Self {
            stream: connect(registry, token, source, to)?,
            tls,
            unsent: Vec::new(),
            unread: Vec::new(),
        })
    }

    /// Sends what it can, and keeps the rest.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            return tls.send(&mut self.stream, bytes);
        }
        let written = if self.unsent.is_empty() {
            write(&mut self.stream, bytes)?
        } else {
            0
        };
        self.unsent.extend_from_slice(&bytes[written..]);
        Ok(())
    }

    /// Sends the bytes that were kept.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            return tls.flush(&mut self.stream);
        }
        if !self.unsent.is_empty() {
            let written = write(&mut self.stream, &self.unsent)?;
            self.unsent.drain(..written);
            // Release the memory: thousands of connections would keep it and never need it
            // again.
            if self.unsent.is_empty() {
                self.unsent = Vec::new();
            }
        }
        Ok(())
    }

    /// Returns whether everything was given to the kernel.
    pub(crate) fn is_flushed(&self) -> bool {
        self.unsent.is_empty() && self.tls.as_ref().is_none_or(Tls::is_flushed)
    }

    /// Reads, and passes an answer to `take` when it is complete. `buffer` is scratch space.
    pub(crate) fn read(
        &mut self,
        buffer: &mut [u8],
        take: impl FnOnce(&Response<'_>),
    ) -> io::Result<Got> {
        self.read_by(buffer, |bytes| take_answer(bytes, take))
    }

    /// Reads, and passes the bytes that have come and were not taken yet to `take`. `buffer` is
    /// scratch space.
    ///
    /// Epoll is edge-triggered, so everything must be read. On Linux, a read that does not fill
    /// the buffer has read everything (epoll(7)).
    pub(crate) fn read_by(
        &mut self,
        buffer: &mut [u8],
        take: impl FnOnce(&[u8]) -> Result<Taken, String>,
    ) -> io::Result<Got> {
        let read = match &mut self.tls {
            Some(tls) => tls.read(&mut self.stream, buffer),
            None => self.stream.read(buffer),
        };
        let length = match read {
            Ok(0) => return Ok(Got::End),
            Ok(length) => length,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                return Ok(Got::Nothing);
            }
            Err(error) => return Err(error),
        };
        let come = &buffer[..length];
        let bytes = if self.unread.is_empty() {
            come
        } else {
            self.unread.extend_from_slice(come);
            &self.unread
        };
        let taken = take(bytes).map_err(io::Error::other)?;
        if self.unread.is_empty() {
            self.unread.extend_from_slice(&come[taken.bytes..]);
        } else if taken.bytes == self.unread.len() {
            self.unread = Vec::new();
        } else {
            self.unread.drain(..taken.bytes);
        }
        if !taken.reply.is_empty() {
            self.send(&taken.reply)?;
        }
        if taken.answers == 0 {
            Ok(Got::Nothing)
        } else {
            Ok(Got::Answer)
        }
    }
}

/// Begins to connect from `source`.
pub(super) fn connect(
    registry: &Registry,
    token: Token,
    source: Ipv4Addr,
    to: SocketAddr,
) -> io::Result<TcpStream> {
    let socket = Socket::new(
        Domain::IPV4,
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    // Without this option, a port is in use for the whole address, even if its old connection
    // only rests for a minute (TIME_WAIT).
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&to.into()) {
        Ok(()) => {}
        Err(error)
            if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
        Err(error) => return Err(error),
    }
    let mut stream = TcpStream::from_std(socket.into());
    registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
    Ok(stream)
}

/// Passes the answer in `bytes` to `take` if it is complete.
pub(super) fn take_answer(bytes: &[u8], take: impl FnOnce(&Response<'_>)) -> Result<Taken, String> {
    let mut taken = Taken::default();
    if http::parse(bytes, take)? {
        taken.answers = 1;
        taken.bytes = bytes.len();
    }
    Ok(taken)
}

fn write(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match stream.write(bytes) {
        Ok(written) => Ok(written),
        // The connection is not there yet: the kernel reports when it is.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::WouldBlock | ErrorKind::NotConnected
            ) =>
        {
            Ok(0)
        }
        Err(error) => Err(error),
    }
}
