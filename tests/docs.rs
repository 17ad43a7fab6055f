//! Checks of the documents against the program, and of the layers of its modules.

pub(crate) mod architecture;
pub(crate) mod backend;
pub(crate) mod clients;
pub(crate) mod code;
pub(crate) mod containers;
pub(crate) mod getting_started;
pub(crate) mod links;
pub(crate) mod named_tests;
pub(crate) mod openapi;
pub(crate) mod packages;
pub(crate) mod promises;
pub(crate) mod readme;
pub(crate) mod security;
