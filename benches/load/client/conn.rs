//! One connection without blocking: what could not be sent yet, and what has come of an answer so far.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Socket, Type};

use super::http::{self, Response};
use super::tls::Tls;

/// What came of reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Got {
    Nothing,
    Answer,
    /// The server closed the connection.
    End,
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
    /// Begins to connect, from `source`; what is sent meanwhile goes out when it is there.
    pub(crate) fn open(
        registry: &Registry,
        token: Token,
        source: Ipv4Addr,
        to: SocketAddr,
        tls: Option<Tls>,
    ) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        // Without it a port is taken from all who use the address, even if its old connection only rests for a minute.
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::from((source, 0)).into())?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&to.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
        let mut stream = TcpStream::from_std(socket.into());
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self { stream, tls, unsent: Vec::new(), unread: Vec::new() })
    }

    /// Sends what it can, and keeps the rest.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            return tls.send(&mut self.stream, bytes);
        }
        let written = if self.unsent.is_empty() { write(&mut self.stream, bytes)? } else { 0 };
        self.unsent.extend_from_slice(&bytes[written..]);
        Ok(())
    }

    /// Sends what was kept.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            return tls.flush(&mut self.stream);
        }
        if !self.unsent.is_empty() {
            let written = write(&mut self.stream, &self.unsent)?;
            self.unsent.drain(..written);
            // Held by each of thousands of connections that never need it again.
            if self.unsent.is_empty() {
                self.unsent = Vec::new();
            }
        }
        Ok(())
    }

    /// Whether everything was given to the system.
    pub(crate) fn is_flushed(&self) -> bool {
        self.unsent.is_empty() && self.tls.as_ref().is_none_or(Tls::is_flushed)
    }

    /// Reads, and passes an answer that is complete to `take`. `buffer` is scratch space.
    ///
    /// Epoll tells edges, so all has to be read; on Linux a read of less than the buffer has read all (epoll(7)).
    pub(crate) fn read(&mut self, buffer: &mut [u8], take: impl FnOnce(&Response<'_>)) -> io::Result<Got> {
        let read = match &mut self.tls {
            Some(tls) => tls.read(&mut self.stream, buffer),
            None => self.stream.read(buffer),
        };
        let length = match read {
            Ok(0) => return Ok(Got::End),
            Ok(length) => length,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
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
        if http::parse(bytes, take).map_err(io::Error::other)? {
            self.unread = Vec::new();
            return Ok(Got::Answer);
        }
        if self.unread.is_empty() {
            self.unread.extend_from_slice(come);
        }
        Ok(Got::Nothing)
    }
}

fn write(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match stream.write(bytes) {
        Ok(written) => Ok(written),
        // Not connected yet: the system says so when it is.
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => Ok(0),
        Err(error) => Err(error),
    }
}
