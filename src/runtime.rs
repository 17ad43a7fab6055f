//! Additions to the standard library and tokio: time, locks, maps, timers, wakes, the right to
//! answer, futures that finish after they were dropped, files that are read again, and shutdown. No HTTP.

pub(crate) mod allowance;
pub mod clock;
pub(crate) mod expiring;
pub(crate) mod finishing;
pub(crate) mod lazy_timer;
pub(crate) mod regular_file;
pub(crate) mod renewable;
pub(crate) mod right_to_answer;
pub(crate) mod self_wake;
pub(crate) mod sharded;
pub mod shutdown;
pub(crate) mod sync;
