//! TLS on the public listener, without a proxy: the session ([`session`]), the stream that joins it
//! with its socket ([`stream`]), the handshake that begins it ([`handshake`]), the certificates
//! ([`certificates`]) and their renewal ([`renewal`]).
//!
//! rustls does the cryptography and the protocol. Its unbuffered connection is used, because its
//! usual one keeps 4 KB of buffer for each connection that waits.

pub mod certificates;
pub(crate) mod handshake;
pub(crate) mod renewal;
mod session;
pub mod stream;
