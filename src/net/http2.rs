//! The streams of HTTP/2: one ([`stream`]), and what all of a connection share ([`streams`]).
//! [`crate::net::http2_connection`] has their connection.

pub(crate) mod stream;
pub(crate) mod streams;
