//! Sockets and connections, from the address of a listener to a connection that waits outside of
//! hyper. Knows no key and no script.

pub(crate) mod closing;
pub(crate) mod connection;
pub(crate) mod encode;
pub(crate) mod exposure;
pub(crate) mod flow;
pub mod listener;
pub(crate) mod parked;
pub(crate) mod server;
pub mod socket;
pub(crate) mod timed;
pub mod tls;
