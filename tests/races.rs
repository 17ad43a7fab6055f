//! Orders of events that are hard to meet: many clients at once, random orders, and scheduled
//! faults.

pub(crate) mod chaos;
pub(crate) mod model;
pub(crate) mod one_node;
