//! The promises of one node to pages and backends: answers, parameters, values, sets, signed
//! keys.

pub(crate) mod answers;
pub(crate) mod callbacks;
pub(crate) mod channel;
pub(crate) mod clock;
pub(crate) mod demo;
mod events;
mod golden;
pub(crate) mod http2;
pub(crate) mod keys;
pub(crate) mod library;
pub(crate) mod params;
pub(crate) mod sets;
pub(crate) mod signed_keys;
mod sockets;
pub(crate) mod tls;
pub(crate) mod tokens;
pub(crate) mod unix;
pub(crate) mod values;
pub(crate) mod versions;
mod wires;
