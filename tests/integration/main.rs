//! holdfast from outside: the built program on free loopback ports, raw bytes in, exact bytes out.
//!
//! One binary for all of it, a module per behaviour; [`support`] is the harness. A test's name is the fact that it holds.
//! `HOLDFAST_TEST_LONG=1` runs the long forms, `HOLDFAST_BLESS=1` rewrites the golden files (then read every byte of the diff).
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, and its name says what it is"
)]

mod answers;
mod bad_http;
mod callbacks;
mod channel;
mod chaos;
mod clock;
mod demo;
mod deploy;
mod drain;
mod fuzz;
mod health;
mod hostile;
mod keys;
mod library;
mod limits;
mod logs;
mod metrics;
mod model;
mod monitoring;
mod nginx;
mod nodes;
mod params;
mod races;
mod readme;
mod security;
mod sets;
mod settings;
mod signed_keys;
mod soak;
mod support;
mod tokens;
mod unix;
mod values;
