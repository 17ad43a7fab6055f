//! The benches of holdfast. `load` compares it with nchan and others, `scale` holds as many
//! gets as a machine takes, and `micro` measures single parts.
//! `cargo bench --bench load -- --help` says more.
//!
//! This crate has no code of its own, so that dependencies of the benches are built only for
//! them.
