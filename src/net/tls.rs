//! TLS on the public listener, without a proxy: the session ([`session`]), the stream that joins it
//! with its socket ([`stream`]), the handshake that begins it ([`handshake`]), the certificates
//! ([`certificates`]), their files ([`pair`]) and their renewal ([`renewal`]). [`client`] reads what a
//! client needs.
//!
//! rustls does the cryptography and the protocol. Its unbuffered connection is used, because its
//! usual one keeps 4 KB of buffer for each connection that waits.

pub mod certificates;
pub mod client;
pub(crate) mod handshake;
pub mod pair;
pub(crate) mod renewal;
mod session;
pub mod stream;
