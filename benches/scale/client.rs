//! The connections of this bench: those of the load bench, included by path.

#[path = "../load/client/conn.rs"]
mod conn;
#[path = "../load/client/http.rs"]
mod http;
#[path = "../load/client/tls.rs"]
#[expect(dead_code, reason = "nothing here speaks TLS")]
mod tls;

pub(crate) use conn::{Conn, Got};
