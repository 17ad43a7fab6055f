//! Requests of backends and the answers to them: a set, a deletion, a key to be signed.

pub(crate) mod issue;
pub(crate) mod receipt;
pub mod set;
pub(crate) mod writer;
