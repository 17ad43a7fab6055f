//! Tests of holdfast from outside: the built program on free loopback ports, raw bytes in,
//! exact bytes out.
//!
//! One binary holds all tests, with a module for each promise. The harness is a package of its
//! own: [`holdfast_testkit`].
//! The name of a test is the fact that the test checks.
//! `HOLDFAST_TEST_LONG=1` runs the long forms. `HOLDFAST_BLESS=1` rewrites the golden files;
//! read every byte of the diff afterwards.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, and its name says what it is"
)]

mod abuse;
mod contract;
mod docs;
mod nodes;
mod operate;
mod proxy;
mod races;
mod zookeeper;
