//! See [`holdfast_fuzz::wire`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| holdfast_fuzz::wire::check(input));
