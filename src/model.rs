//! The terms of the contract: keys, statuses and versions, leases, signatures, and the mistakes
//! that a request can have. No clock, no lock, no HTTP.

pub mod cause;
pub mod key;
pub mod lease;
pub mod mistake;
pub mod signing;
pub mod status;
pub mod write_number;
