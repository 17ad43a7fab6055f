//! Strangers: bad HTTP, floods, limits, random bytes, and checks that they leave nothing behind.

pub(crate) mod addresses;
pub(crate) mod bad_http;
pub(crate) mod fuzz;
pub(crate) mod hostile;
pub(crate) mod http2;
pub(crate) mod limits;
pub(crate) mod proxied;
pub(crate) mod soak;
pub(crate) mod tls;
