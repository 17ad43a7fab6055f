//! Sockets and connections, from the address of a listener to a connection that waits outside of
//! hyper. Knows no key and no script.

pub mod clients;
pub(crate) mod closing;
pub(crate) mod connection;
pub(crate) mod encode;
pub(crate) mod entrance;
pub(crate) mod exposure;
pub(crate) mod flow;
pub(crate) mod http2;
pub(crate) mod http2_connection;
pub mod listener;
pub mod network;
pub(crate) mod parked;
pub mod passed;
pub mod proxies;
pub(crate) mod server;
pub mod socket;
pub mod stream;
pub(crate) mod timed;
pub mod tls;
