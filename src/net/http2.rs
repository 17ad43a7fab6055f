//! The streams of HTTP/2: one ([`stream`]), the bytes of its answer ([`piece`]), and what all of a
//! connection share ([`streams`]).
//! [`crate::net::http2_connection`] has their connection.

pub(crate) mod piece;
pub(crate) mod stream;
pub(crate) mod streams;
