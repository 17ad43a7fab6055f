//! See [`holdfast_fuzz::key`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| holdfast_fuzz::key::check(input));
