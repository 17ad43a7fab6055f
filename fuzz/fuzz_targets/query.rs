//! See [`holdfast_fuzz::query`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| holdfast_fuzz::query::check(input));
