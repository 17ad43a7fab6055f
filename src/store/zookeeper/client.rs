//! A client of ZooKeeper with the few operations that this program needs. It knows nothing of
//! statuses. The protocol is that of ZooKeeper 3.6 and later.
//!
//! Unlike other clients it sends nothing later than it was asked to: without a connection a request
//! fails at once, and the error of a request says whether it may have been carried out.

mod jute;
mod link;
mod operation;
mod session;

pub(super) use self::link::{CallError, Link};
pub(super) use self::operation::{Access, Found, Read, Refusal, Refused, Stat, Write, Written};
pub(super) use self::session::{Connected, SessionOptions, once, spawn};
