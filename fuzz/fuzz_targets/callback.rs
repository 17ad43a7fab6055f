//! See [`holdfast_fuzz::callback`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| holdfast_fuzz::callback::check(input));
