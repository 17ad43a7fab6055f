//! The other nodes: the list of them, the messages that they are sent, and the recovery when
//! one of them or Redis comes back.

pub mod advertise;
pub(crate) mod delivery;
pub(crate) mod give_back;
pub(crate) mod membership;
pub mod message;
pub(crate) mod peers;
pub(crate) mod recovery;
