//! Many nodes over one Redis: three real processes, real servers, and every fault that the contract has an answer for.

mod topologies;
