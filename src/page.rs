//! Requests of web pages, and the answers to them. Each further way to receive a status is one
//! file here.

pub(crate) mod answer;
pub(crate) mod client_library;
pub(crate) mod events;
mod followed;
pub(crate) mod get;
mod parked_wait;
pub(crate) mod returning;
pub mod script;
pub mod socket;
pub(crate) mod socket_limits;
pub(crate) mod wire;
